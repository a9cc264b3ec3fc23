//! `report`: what policies would have done that only observe, summed up from RolloutRuns.

mod records;
mod render;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use countersign_api::RolloutRun;
use k8s_openapi::jiff::SignedDuration;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::clock;
use crate::cluster::connection::{Connection, Flags};
use crate::cluster::refusal::Refusal;
use crate::failure::Failure;
use crate::output::report::{self, Format};
use summary::Summary;

/// RolloutRuns per page.
const PAGE: u32 = 500;

/// Sum up what enforcing the policies that only observe would have done
#[derive(Args)]
pub struct Report {
    /// Report on the changes that policies only observe
    #[arg(long, required = true)]
    observed: bool,
    /// How far the report goes back, by the begin of the changes, such as 30d or 12h
    #[arg(long, default_value = "30d", value_name = "TIME", value_parser = span)]
    since: SignedDuration,
    /// If present, report on all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Files with RolloutRuns, as `kubectl get rolloutruns -o json` prints them, instead of the cluster's;
    /// `-` is the standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

impl Report {
    /// Whether the records are read from files.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        !self.files.is_empty()
    }

    /// Reports on the records of the files.
    pub fn run_offline(self, cluster: &Flags) -> Result<ExitCode, Failure> {
        let mut runs = records::read(&self.files)?;
        if let Some(namespace) = cluster.namespace() {
            runs.retain(|run| run.namespace().as_deref() == Some(namespace));
        }
        self.print(&runs)
    }

    /// Reports on the records of the cluster.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let api = if self.all_namespaces {
            connection.everywhere()
        } else {
            connection.here()
        };
        let runs = listed(connection, &api).await?;
        self.print(&runs)
    }

    fn print(&self, runs: &[RolloutRun]) -> Result<ExitCode, Failure> {
        let since = clock::now().saturating_sub(self.since);
        let summary = Summary::of(runs, since.unwrap_or_default());
        report::print(self.output, &summary, || render::table(&summary))?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn listed(
    connection: &Connection,
    api: &Api<RolloutRun>,
) -> Result<Vec<RolloutRun>, Refusal> {
    let mut runs = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = connection.ask(api.list(&parameters)).await?;
        runs.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(runs),
        }
    }
}

/// A length of time, in days or as elsewhere.
fn span(text: &str) -> Result<SignedDuration, String> {
    let days = text.strip_suffix('d').map(str::parse::<u16>);
    match days {
        Some(Ok(days)) => Ok(SignedDuration::from_hours(24 * i64::from(days))),
        Some(Err(_)) => Err(format!("`{text}` is no number of days, such as 30d")),
        None => {
            let length: countersign_api::Duration = text.parse().map_err(|_| {
                format!("`{text}` is no length of time: write days such as 30d, or hours and minutes such as 12h30m")
            })?;
            Ok(length.signed())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_in_days_or_shorter_units() {
        assert_eq!(span("30d"), Ok(SignedDuration::from_hours(720)));
        assert_eq!(span("90m"), Ok(SignedDuration::from_mins(90)));
        for wrong in ["", "d", "-1d", "1w", "30"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
