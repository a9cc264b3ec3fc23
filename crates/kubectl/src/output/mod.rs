//! Output: tables, documents, colours, and text without control characters.
//!
//! Invariant: all text from the cluster passes through [`sanitize`] or [`document`].

pub mod jsonpath;
pub mod list;
pub mod report;

use std::io::{IsTerminal, Write};

use countersign_core::text::{sanitize, sanitize_lines};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with all columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// The `-o` flag.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Output {
    /// Output format
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub format: Format,
}

/// A colour or weight; it is seen only on a terminal that shows colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Unstyled.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Past or secondary.
    Dim,
    /// Healthy.
    Good,
    /// Waiting.
    Waiting,
    /// Failed.
    Bad,
}

impl Style {
    /// The text in this style.
    #[must_use]
    pub fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Waiting => "33",
            Self::Bad => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Sets whether colours are written from now on.
pub fn color(when: clap::ColorChoice) {
    let choice = match when {
        clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
        clap::ColorChoice::Always => anstream::ColorChoice::Always,
        clap::ColorChoice::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
}

/// Writes to the standard output, by default without colours if that is no terminal. Fails if the reader has closed
/// it.
pub fn try_print(text: &str) -> std::io::Result<()> {
    let mut out = anstream::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes to the standard output. The reader may close it before the end, as `head` does.
pub fn print(text: &str) {
    let _ = try_print(text);
}

/// Writes a line to the standard error, so that the output can be piped.
pub fn remark(text: &str) {
    let mut out = anstream::stderr();
    let _ = writeln!(out, "{text}");
}

/// A table in kubectl's format; cells are sanitized.
#[must_use]
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading = heading.iter().map(|&name| name.to_owned()).collect();
    let lines: Vec<_> = std::iter::once(heading)
        .chain(rows.iter().cloned())
        .collect();
    Columns::default().lines(&lines)
}

/// The columns of a table to which lines are added: each is as wide as its widest cell so far.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Lines of cells, sanitized.
    pub fn lines(&mut self, lines: &[Vec<String>]) -> String {
        let lines: Vec<Vec<String>> = lines
            .iter()
            .map(|line| line.iter().map(|cell| sanitize(cell)).collect())
            .collect();
        let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
        self.widths.resize(columns.max(self.widths.len()), 0);
        for (column, width) in self.widths.iter_mut().enumerate() {
            let cells = lines.iter().filter_map(|line| line.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max();
            *width = widest.unwrap_or_default().max(*width);
        }
        let text = lines.iter().map(|line| {
            let cells = line.iter().zip(&self.widths);
            let cells: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            cells.join("   ").trim_end().to_owned() + "\n"
        });
        text.collect()
    }
}

/// An object that cannot be serialized.
#[derive(Debug, thiserror::Error)]
#[error("the output cannot be written as {format}: {why}")]
pub struct Unwritable {
    format: &'static str,
    why: String,
}

/// An object as JSON or YAML, without managedFields.
pub fn document(object: &impl Serialize, format: Format) -> Result<String, Unwritable> {
    let yaml = format == Format::Yaml;
    let unwritable = |why: String| Unwritable {
        format: if yaml { "YAML" } else { "JSON" },
        why,
    };
    let mut value = serde_json::to_value(object).map_err(|error| unwritable(error.to_string()))?;
    without_managed_fields(&mut value);
    if yaml {
        return serde_saphyr::to_string(&value).map_err(|error| unwritable(error.to_string()));
    }
    serde_json::to_string_pretty(&value)
        .map(|text| text + "\n")
        .map_err(|error| unwritable(error.to_string()))
}

/// Prints a document, sanitized if the output is a terminal.
pub fn print_document(object: &impl Serialize, format: Format) -> Result<(), Unwritable> {
    print(&visible(document(object, format)?));
    Ok(())
}

/// A text for the standard output, sanitized line by line if that is a terminal.
#[must_use]
pub fn visible(text: String) -> String {
    if !std::io::stdout().is_terminal() {
        return text;
    }
    let end = if text.ends_with('\n') { "\n" } else { "" };
    sanitize_lines(&text) + end
}

fn without_managed_fields(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("managedFields");
            map.values_mut().for_each(without_managed_fields);
        }
        Value::Array(list) => list.iter_mut().for_each(without_managed_fields),
        _ => {}
    }
}

/// The age in kubectl's format, such as `5m30s`.
#[must_use]
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (2.., _, _) => format!("{days}d"),
        (_, 3.., _) => format!("{hours}h"),
        (_, _, 3..) => format!("{minutes}m"),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let rows = [
            vec!["web".to_owned(), "Stable".to_owned(), String::new()],
            vec![
                "a-longer-name".to_owned(),
                "Held".to_owned(),
                "x".to_owned(),
            ],
        ];
        assert_eq!(
            table(&["NAME", "PHASE", "STEP"], &rows),
            "NAME            PHASE    STEP\nweb             Stable\na-longer-name   Held     x\n"
        );
    }

    #[test]
    fn a_line_that_is_added_later_keeps_the_columns() {
        let line = |name: &str| vec![name.to_owned(), "Stable".to_owned()];
        let mut columns = Columns::default();
        columns.lines(&[line("a-long-name")]);
        assert_eq!(columns.lines(&[line("web")]), "web           Stable\n");
    }

    #[test]
    fn escapes_and_marks_of_direction_are_shown_and_do_nothing() {
        let evil = "web\u{1b}[2J\u{1b}]0;title\u{7}\u{202e}\u{9b}31m\r\n\u{200b}ok ä";
        let safe = sanitize(evil);
        assert_eq!(
            safe,
            "web\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{202e}\\u{9b}31m\\u{d} \\u{200b}ok ä"
        );
        let cell = table(&["NAME"], &[vec![evil.to_owned()]]);
        assert_eq!(cell.lines().count(), 2, "a cell cannot begin a line");
        assert!(!cell.contains('\u{1b}'));
    }

    #[test]
    fn a_document_leaves_out_managed_fields_and_keeps_the_rest() {
        let object = json!({ "items": [{ "metadata": { "name": "web", "managedFields": [{}] } }] });
        assert_eq!(
            document(&object, Format::Yaml).unwrap(),
            "items:\n- metadata:\n    name: web\n"
        );
        let text = document(&object, Format::Json).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read,
            json!({ "items": [{ "metadata": { "name": "web" } }] })
        );
    }

    #[test]
    fn ages_are_in_the_unit_that_matters() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (seconds, expected) in [
            (-5, "0s"),
            (59, "59s"),
            (179, "179s"),
            (180, "3m"),
            (3_600, "60m"),
            (4 * 3_600, "4h"),
            (3 * 86_400, "3d"),
        ] {
            let now = since + k8s_openapi::jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(since, now), expected);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_shown_controls_a_terminal(text in any::<String>()) {
            prop_assert!(sanitize(&text).chars().all(|c| !c.is_control()));
        }
    }
}
