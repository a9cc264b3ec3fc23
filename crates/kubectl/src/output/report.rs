//! Output of the offline commands.

use std::fmt;
use std::io::{self, Write};

use clap::ValueEnum;
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
    let mut text = match format {
        Format::Table => table(),
        Format::Json => serde_json::to_string_pretty(report)?,
        Format::Yaml => serde_saphyr::to_string(report)?,
    };
    if format == Format::Json {
        text.push('\n');
    }
    match io::stdout().lock().write_all(text.as_bytes()) {
        // The reader has closed the output, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
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
    use super::*;

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
