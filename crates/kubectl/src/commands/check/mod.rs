//! `check`: whether the installation, the user's rights and the metrics of a Rollout are as they should be.

mod admission;
mod definitions;
mod finding;
mod kubernetes;
mod metrics;
mod operator;
mod prometheus;
mod rights;
mod series;
mod uninstall;

use std::process::ExitCode;

use countersign_api::Rollout;
use countersign_core::text::sanitize;
use http::Uri;
use serde::Serialize;

use crate::cluster::connection::{Connection, address};
use crate::cluster::installation::Installation;
use crate::cluster::type_name;
use crate::failure::Failure;
use crate::output::print;
use crate::output::report::{self, Format};
use finding::{Finding, Level};
use prometheus::{Prometheus, ServiceAddress};
use rights::Right;

/// Check the installation, your permissions, and whether Prometheus has the series of a Rollout's checks
///
/// The exit code is 1 if a finding is `failed`.
#[derive(Clone, Debug, clap::Args)]
pub struct Check {
    /// Name of the Rollout whose checks are compared with the series of Prometheus; none if omitted
    #[arg(value_parser = type_name::rollout)]
    rollout: Option<String>,
    /// List what would remain if the operator were uninstalled now; a change in progress is a failure
    #[arg(long, conflicts_with = "rollout")]
    before_uninstall: bool,
    /// Namespace of the operator; if omitted, all are searched, and one operator must be found
    #[arg(long, value_name = "NAME")]
    operator_namespace: Option<String>,
    /// Service of Prometheus, queried through the API server; if omitted, the operator's
    #[arg(
        long,
        value_name = "NAMESPACE/SERVICE:PORT",
        requires = "rollout",
        conflicts_with = "prometheus_url"
    )]
    prometheus: Option<ServiceAddress>,
    /// URL of Prometheus without credentials, queried directly
    #[arg(long, value_name = "URL", requires = "rollout", value_parser = address)]
    prometheus_url: Option<Uri>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// Everything that was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    findings: Vec<Finding>,
    /// Whether the user may run each command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rights: Vec<Right>,
}

impl Check {
    /// Checks, and prints the findings.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let report = if self.before_uninstall {
            Report {
                findings: uninstall::findings(connection).await?,
                rights: Vec::new(),
            }
        } else {
            self.report(connection).await?
        };
        match self.output {
            Format::Table => print(&report.render(connection.namespace())),
            format => report::print(format, &report, String::new)?,
        }
        Ok(if report.has_failed() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    async fn report(&self, connection: &Connection) -> Result<Report, Failure> {
        let found = Installation::find(connection, self.operator_namespace.as_deref()).await;
        let (operator, mut findings) = operator::chosen(found);
        // What is another version's differs if the operator's version does.
        let skewed = operator.as_ref().is_some_and(|it| it.skew().is_some());
        let differing = if skewed {
            Level::Warning
        } else {
            Level::Failed
        };
        let rollout = match &self.rollout {
            Some(name) => Some(connection.rollout(name).await?),
            None => None,
        };
        // On the heap, since the futures are large.
        if let Some(operator) = &operator {
            findings.push(Box::pin(operator::leader(connection, operator)).await);
        }
        findings.extend(Box::pin(definitions::findings(connection, differing)).await);
        match &operator {
            Some(operator) => {
                let admission = admission::findings(connection, operator, differing);
                findings.extend(Box::pin(admission).await);
            }
            None => findings.push(Finding::warning(
                "admission",
                "not checked: the policies name the operator's user, which is not known",
            )),
        }
        let kubernetes = kubernetes::findings(connection, rollout.as_ref());
        findings.extend(Box::pin(kubernetes).await);
        if let Some(rollout) = &rollout {
            let metrics = self.metrics(connection, rollout, operator.as_ref());
            findings.extend(Box::pin(metrics).await);
        }
        let rights = Box::pin(rights::rights(connection, self.rollout.as_deref())).await;
        let rights = rights.unwrap_or_else(|refusal| {
            findings.push(Finding::warning(
                "rights",
                format!("not checked: {refusal}"),
            ));
            Vec::new()
        });
        Ok(Report { findings, rights })
    }

    async fn metrics(
        &self,
        connection: &Connection,
        rollout: &Rollout,
        operator: Option<&Installation>,
    ) -> Vec<Finding> {
        let prometheus = match (&self.prometheus, &self.prometheus_url) {
            (Some(service), _) => Ok(Prometheus::proxied(connection, service)),
            (None, Some(url)) => Prometheus::direct(url),
            (None, None) => {
                let url = operator.and_then(|it| it.prometheus_url.as_deref());
                Prometheus::of_operator(connection, url)
            }
        };
        let prometheus = match prometheus {
            Ok(prometheus) => prometheus,
            Err(error @ prometheus::Error::UserInfo) => {
                return vec![Finding::failed("metrics", error.to_string())];
            }
            Err(error) => return vec![Finding::warning("metrics", error.to_string())],
        };
        let (checks, mut findings) = metrics::checks_of(connection, rollout).await;
        findings.extend(metrics::findings(&prometheus, &checks, rollout).await);
        findings
    }
}

impl Report {
    fn has_failed(&self) -> bool {
        self.findings.iter().any(|it| it.level == Level::Failed)
    }

    fn render(&self, namespace: &str) -> String {
        let findings: String = self.findings.iter().map(Finding::line).collect();
        if self.rights.is_empty() {
            return findings;
        }
        let namespace = sanitize(namespace);
        let rights = rights::listed(&self.rights);
        format!("{findings}\nYour permissions in namespace {namespace}:\n{rights}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_finding_fails() {
        let mut report = Report::default();
        report.findings.push(Finding::ok("a", "fine"));
        report.findings.push(Finding::warning("b", "not readable"));
        assert!(!report.has_failed());
        let text = anstream::adapter::strip_str(&report.render("shop")).to_string();
        assert_eq!(text, "ok       a: fine\nwarning  b: not readable\n");
        report.findings.push(Finding::failed("c", "missing"));
        assert!(report.has_failed());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["findings"][2]["level"], "failed");
    }
}
