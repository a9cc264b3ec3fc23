//! The table.

use std::fmt;

/// The figures, in order.
#[derive(Default)]
pub struct Table(Vec<Row>);

struct Row {
    what: String,
    measured: String,
    /// The largest allowed value, and whether the figure meets it.
    target: Option<(f64, bool)>,
}

impl Table {
    /// Adds a figure that has no target.
    pub fn row(&mut self, what: &str, measured: String) {
        self.0.push(Row {
            what: what.to_owned(),
            measured,
            target: None,
        });
    }

    /// Adds a figure with a target.
    pub fn at_most(&mut self, what: &str, measured: f64, target: f64) {
        self.0.push(Row {
            what: what.to_owned(),
            measured: plain(measured, 1),
            target: Some((target, measured <= target)),
        });
    }

    /// The figures that miss their targets.
    pub fn missed(&self) -> Vec<&str> {
        let missed = |row: &&Row| row.target.is_some_and(|(_, met)| !met);
        let rows = self.0.iter().filter(missed);
        rows.map(|row| row.what.as_str()).collect()
    }
}

/// A number with `digits` decimals, or none if it is whole.
pub fn plain(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    let whole = text.strip_suffix(".0");
    whole.map(ToOwned::to_owned).unwrap_or(text)
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "| | measured | at most | met |\n|---|---|---|---|"
        )?;
        for row in &self.0 {
            let (target, met) = match row.target {
                Some((target, met)) => (plain(target, 1), if met { "yes" } else { "NO" }),
                None => (String::new(), ""),
            };
            writeln!(
                formatter,
                "| {} | {} | {target} | {met} |",
                row.what, row.measured
            )?;
        }
        Ok(())
    }
}
