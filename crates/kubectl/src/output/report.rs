//! Output of the offline commands.

use std::fmt;
use std::io::{self, Write};

use clap::ValueEnum;
use countersign_core::text::is_invisible;
use serde::Serialize;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// A report that cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The report cannot be serialized as JSON.
    #[error("the report cannot be written as JSON: use -o table")]
    Json(#[from] serde_json::Error),
    /// The report cannot be serialized as YAML.
    #[error("the report cannot be written as YAML: use -o json")]
    Yaml(#[from] serde_saphyr::SerializeError),
    /// The standard output failed.
    #[error("the report cannot be written to the standard output: {0}")]
    Output(#[from] io::Error),
}

/// Prints a report in the requested format; `table` renders the table.
pub fn print<T: Serialize>(
    format: Format,
    report: &T,
    table: impl FnOnce() -> String,
) -> Result<(), PrintError> {
    let text = match format {
        Format::Table => table(),
        Format::Json => json(report)?,
        Format::Yaml => yaml(report)?,
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // The reader has closed the output, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A report as JSON. The data is the same for a program, and shows a person everything that is in it.
fn json<T: Serialize>(report: &T) -> Result<String, serde_json::Error> {
    let escape = |c: char| {
        let mut units = [0; 2];
        let units = c.encode_utf16(&mut units).iter();
        let escapes: Vec<_> = units.map(|unit| format!("\\u{unit:04x}")).collect();
        escapes.concat()
    };
    let text = serde_json::to_string_pretty(report)?;
    Ok(visible(&text, escape) + "\n")
}

/// A report as YAML, as [`json`] does it. Text without quotes has no escapes, so what needs one is written
/// as JSON, which is YAML, too.
fn yaml<T: Serialize>(report: &T) -> Result<String, PrintError> {
    let text = serde_saphyr::to_string(report)?;
    if !text.chars().any(is_hidden) {
        return Ok(text);
    }
    let text = serde_json::to_string_pretty(report)?;
    Ok(visible(&text, |c| format!("\\U{:08x}", u32::from(c))) + "\n")
}

fn is_hidden(c: char) -> bool {
    c != '\n' && is_invisible(c)
}

/// JSON with escapes for what is hidden. That is in its strings: between them only lines end.
fn visible(json: &str, escape: impl Fn(char) -> String) -> String {
    let mut visible = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            visible.push_str(&escape(c));
        } else {
            visible.push(c);
        }
    }
    visible
}

/// A count with its noun, such as `1 error` or `2 errors`.
#[must_use]
pub fn number(count: impl fmt::Display, thing: &str) -> String {
    let count = count.to_string();
    let plural = if count == "1" { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// Lines of cells as columns, each as wide as its widest cell.
#[must_use]
pub fn columns(indent: &str, lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines.iter().map(Vec::len).max().unwrap_or(0))
        .map(width)
        .collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(format!("{indent}{}", cells.join("  ")).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json as value};

    use super::*;

    #[test]
    fn documents_show_what_they_hold_and_hold_the_same() {
        let plain = value!({ "name": "web ä", "lines": "a\nb" });
        let text = yaml(&plain).unwrap();
        assert!(text.contains("web ä") && !text.starts_with('{'), "{text}");
        let evil = "\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\u{200b}\u{e0041}\t\r\n\\u0041\"ok ä";
        let evil = value!({ "name": evil, evil: [1, null, 0.5] });
        for report in [plain, evil] {
            let written = [json(&report).unwrap(), yaml(&report).unwrap()];
            for text in &written {
                assert!(
                    !text.chars().any(is_hidden) && text.ends_with('\n'),
                    "{text}"
                );
            }
            let [json, yaml] = written;
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), report);
            assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), report);
        }
    }

    #[test]
    fn one_thing_is_singular() {
        let rendered = [0, 1, 2].map(|count| number(count, "error"));
        assert_eq!(rendered, ["0 errors", "1 error", "2 errors"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_space() {
        let lines = [
            vec!["a".into(), "bb".into()],
            vec!["ccc".into(), String::new()],
        ];
        assert_eq!(columns("  ", &lines), "  a    bb\n  ccc\n");
        assert_eq!(columns("", &[]), "");
    }
}
