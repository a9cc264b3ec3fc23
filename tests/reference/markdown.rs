//! Tables in Markdown, and text from doc comments in their cells.

/// A table without alignment.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head = line(&head.map(ToOwned::to_owned));
    let rule = format!("|{}\n", "---|".repeat(N));
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{head}{rule}{rows}")
}

/// A doc comment in a cell: outside of code nothing is markup.
pub fn cell(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    let mut cell = String::new();
    for (index, part) in words.join(" ").split('`').enumerate() {
        if index > 0 {
            cell.push('`');
        }
        let in_code = index % 2 == 1;
        for letter in part.chars() {
            let is_markup = matches!(letter, '\\' | '<' | '>' | '*' | '_' | '[' | ']');
            if letter == '|' || (is_markup && !in_code) {
                cell.push('\\');
            }
            cell.push(letter);
        }
    }
    cell
}

/// The text as code in a cell.
pub fn code(text: &str) -> String {
    cell(&format!("`{text}`"))
}

#[test]
fn markup_is_escaped_outside_of_code() {
    assert_eq!(
        cell("a <b> of *c*, `a|<b>` |\n  and [d]"),
        r"a \<b\> of \*c\*, `a\|<b>` \| and \[d\]"
    );
}
