//! `version`: the versions of the plugin and the operator.

use std::process::ExitCode;

use countersign_core::text::sanitize;
use serde::Serialize;

use crate::cluster::connection::Connection;
use crate::cluster::installation::{Installation, VERSION};
use crate::failure::Failure;
use crate::output::report::{self, Format};
use crate::output::{print, remark};

/// Print the versions of the plugin and the operator, with a warning if they differ
#[derive(Clone, Debug, clap::Args)]
pub struct Version {
    /// If true, shows the plugin's version only (no server required)
    #[arg(long)]
    client: bool,
    /// Namespace of the operator; if omitted, all are searched
    #[arg(long, value_name = "NAME")]
    operator_namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// The versions.
#[derive(Debug, Serialize)]
struct Versions {
    plugin: &'static str,
    operators: Vec<Operator>,
}

/// An installed operator.
#[derive(Debug, Serialize)]
struct Operator {
    version: String,
    namespace: String,
    name: String,
}

impl Version {
    /// Whether no cluster is needed.
    #[must_use]
    pub const fn is_offline(&self) -> bool {
        self.client
    }

    /// Prints the plugin's version.
    pub fn run_offline(self) -> Result<ExitCode, Failure> {
        self.print(&[])
    }

    /// Prints the versions.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let namespace = self.operator_namespace.as_deref();
        match Installation::find(connection, namespace).await {
            Ok(found) => self.print(&found),
            Err(refusal) => {
                self.print(&[])?;
                Err(refusal.into())
            }
        }
    }

    fn print(&self, found: &[Installation]) -> Result<ExitCode, Failure> {
        let versions = Versions::of(found);
        match self.output {
            Format::Table => print(&versions.render()),
            format => report::print(format, &versions, String::new)?,
        }
        for skew in found.iter().filter_map(Installation::skew) {
            remark(&format!("warning: {}", sanitize(&skew)));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Versions {
    fn of(found: &[Installation]) -> Self {
        let operators = found.iter().map(|it| Operator {
            version: it.version.clone(),
            namespace: it.namespace.clone(),
            name: it.name.clone(),
        });
        Self {
            plugin: VERSION,
            operators: operators.collect(),
        }
    }

    fn render(&self) -> String {
        let operators = self.operators.iter().map(|it| {
            let line = format!(
                "Operator version: {} (Deployment {}/{})",
                it.version, it.namespace, it.name
            );
            sanitize(&line) + "\n"
        });
        let plugin = format!("Plugin version: {}\n", self.plugin);
        std::iter::once(plugin).chain(operators).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_a_line() {
        let found = [Installation {
            namespace: "system".into(),
            name: "countersign".into(),
            version: "9.1.0".into(),
            ..Installation::default()
        }];
        let expected = format!(
            "Plugin version: {VERSION}\nOperator version: 9.1.0 (Deployment system/countersign)\n"
        );
        assert_eq!(Versions::of(&found).render(), expected);
        let alone = Versions::of(&[]).render();
        assert_eq!(alone.lines().count(), 1);
    }
}
