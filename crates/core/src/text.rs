//! Sanitizes foreign text for the status, Events and terminals.

/// Characters of a quoted foreign value; the rest is cut, so that the sentence stays readable.
const EXCERPT: usize = 48;

/// Whether a character has no shape of its own: it hides, reorders or imitates other text.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Foreign text in one line: every invisible character is escaped; line breaks and tabs become spaces.
#[must_use]
pub fn sanitize(text: &str) -> String {
    sanitize_to(text, usize::MAX)
}

/// [`sanitize`], cut after `most` characters of the text.
#[must_use]
pub fn sanitize_to(text: &str, most: usize) -> String {
    escape(text, most, |c| matches!(c, '\n' | '\t'))
}

/// Escapes invisible characters in the first `most` characters; those that match `spaces` become spaces.
fn escape(text: &str, most: usize, spaces: impl Fn(char) -> bool) -> String {
    let mut sanitized = String::new();
    for (at, c) in text.chars().enumerate() {
        match c {
            _ if at == most => {
                sanitized.push('…');
                break;
            }
            c if spaces(c) => sanitized.push(' '),
            c if is_invisible(c) => sanitized.extend(c.escape_unicode()),
            c => sanitized.push(c),
        }
    }
    sanitized
}

/// [`sanitize`] for each line of a text.
#[must_use]
pub fn sanitize_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(sanitize).collect();
    lines.join("\n")
}

/// [`sanitize`] for a quoted value: its first 48 characters. A line break or a tab may be the error in it,
/// so these are escaped, too.
#[must_use]
pub fn excerpt(value: &str) -> String {
    escape(value, EXCERPT, |_| false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_or_hides_is_escaped() {
        for (text, sanitized) in [
            ("a\u{1b}[2J\nb\u{202e}c", "a\\u{1b}[2J b\\u{202e}c"),
            ("a\u{ad}b\u{34f}c", "a\\u{ad}b\\u{34f}c"),
            ("\u{2063}\u{3164}\u{fe0f}", "\\u{2063}\\u{3164}\\u{fe0f}"),
            ("tag\u{e0041}\ttab", "tag\\u{e0041} tab"),
            ("\u{9b}31m<script>é", "\\u{9b}31m<script>é"),
        ] {
            assert_eq!(sanitize(text), sanitized);
            assert_eq!(sanitize(sanitized), sanitized);
        }
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(
            sanitize_lines("fatal: \u{1b}[2J\r\nx\u{202e}\n"),
            "fatal: \\u{1b}[2J\nx\\u{202e}"
        );
    }

    #[test]
    fn what_is_cut_is_marked() {
        assert_eq!(sanitize_to("ééééé", 3), "ééé…");
        assert_eq!(sanitize_to("ééé", 3), "ééé");
        assert_eq!(excerpt(&"é".repeat(60)), format!("{}…", "é".repeat(48)));
    }
}
