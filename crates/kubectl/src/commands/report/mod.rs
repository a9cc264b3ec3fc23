//! `report`: how changes were delivered, or what policies would have done that only observe, summed up from
//! RolloutRuns.

mod coverage;
mod delivery;
mod records;
mod render;
mod summary;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use countersign_api::{Rollout, RolloutRun};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::core::ObjectList;
use kube::{Api, ResourceExt};

use crate::clock;
use crate::cluster::connection::{Connection, Flags};
use crate::cluster::refusal::Refusal;
use crate::failure::Failure;
use crate::output::report::{self, Format};
use coverage::full_name;
pub use delivery::By;
use delivery::Delivery;
use summary::Summary;

/// Objects per page.
const PAGE: u32 = 500;

/// Report on how changes were delivered in a period
///
/// Deployment frequency, lead time, change failure rate, time to restore and rework rate, each with an interval of
/// 95 %, and whether changes in which an AI took part fail more often than people's of equal tier and size. With
/// --observed: what enforcing the policies that only observe would have done.
#[derive(Args)]
pub struct Report {
    /// Report on the changes that policies only observe
    #[arg(long)]
    observed: bool,
    /// How far the report goes back, such as 90d or 12h
    #[arg(long, default_value = "90d", value_name = "TIME", value_parser = span)]
    since: SignedDuration,
    /// Show the figures of each group, too
    #[arg(long, value_enum, value_name = "GROUP", conflicts_with = "observed")]
    by: Option<By>,
    /// The label of Rollouts, or else of their pods, that names the team
    #[arg(long, default_value = "team", value_name = "LABEL")]
    team_label: String,
    /// If present, report on all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Selector (label query) for the Rollouts to report on, supports '=', '==', '!=', 'in', 'notin' (e.g. -l
    /// key1=value1,key2=value2)
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "files")]
    selector: Option<String>,
    /// Files with RolloutRuns, as `kubectl get crr -o json` prints them, instead of the cluster's;
    /// `-` is the standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables.
    Table,
    /// Tables of Markdown.
    Markdown,
    /// Comma-separated values.
    Csv,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// An output that the report does not have.
#[derive(Debug, thiserror::Error)]
#[error("--observed has no output of this format: use -o table, json or yaml")]
struct NoSuchOutput;

/// The labels of Rollouts, by namespace and name.
type Labels = BTreeMap<String, BTreeMap<String, String>>;

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
        self.print(&runs, &Labels::new())
    }

    /// Reports on the records of the cluster.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let (runs, rollouts): (Api<RolloutRun>, Api<Rollout>) = if self.all_namespaces {
            (connection.everywhere(), connection.everywhere())
        } else {
            (connection.here(), connection.here())
        };
        let all = ListParams::default();
        let list = async |of: &ListParams| runs.list(of).await;
        let mut runs = listed(connection, all, list).await?;
        let mut labels = Labels::new();
        if self.selector.is_some() || self.by == Some(By::Team) {
            let of = ListParams {
                label_selector: self.selector.clone(),
                ..ListParams::default()
            };
            let list = async |of: &ListParams| rollouts.list_metadata(of).await;
            let selected = listed(connection, of, list).await?;
            labels.extend(selected.into_iter().map(|it| {
                let metadata = it.metadata;
                let namespace = metadata.namespace.unwrap_or_default();
                let name = format!("{namespace}/{}", metadata.name.unwrap_or_default());
                (name, metadata.labels.unwrap_or_default())
            }));
        }
        if self.selector.is_some() {
            runs.retain(|run| labels.contains_key(&full_name(run)));
        }
        self.print(&runs, &labels)
    }

    fn print(&self, runs: &[RolloutRun], labels: &Labels) -> Result<ExitCode, Failure> {
        let until = clock::now();
        let since = until.saturating_sub(self.since).unwrap_or_default();
        if self.observed {
            let summary = Summary::of(runs, since);
            let format = self.output.document().ok_or(NoSuchOutput)?;
            report::print(format, &summary, || render::table(&summary))?;
            return Ok(ExitCode::SUCCESS);
        }
        let team = |run: &RolloutRun| self.team(run, labels);
        let found = Delivery::of(runs, (since, until), self.by, team);
        let format = self.output.document().unwrap_or(Format::Table);
        report::print(format, &found, || match self.output {
            Output::Markdown => delivery::render::markdown(&found),
            Output::Csv => delivery::csv::csv(&found),
            Output::Table | Output::Json | Output::Yaml => delivery::render::table(&found),
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The team of a record: by the label of its Rollout, or of the pods if the Rollout is gone or has none.
    fn team(&self, run: &RolloutRun, labels: &Labels) -> Option<String> {
        let of_rollout = labels.get(&full_name(run));
        let of_rollout = of_rollout.and_then(|labels| labels.get(&self.team_label).cloned());
        let template = run.spec.template.as_ref();
        of_rollout.or_else(|| template?.labels().remove(&self.team_label))
    }
}

impl Output {
    /// The format of a document or a table; `None` if only the figures have it.
    const fn document(self) -> Option<Format> {
        match self {
            Self::Table => Some(Format::Table),
            Self::Json => Some(Format::Json),
            Self::Yaml => Some(Format::Yaml),
            Self::Markdown | Self::Csv => None,
        }
    }
}

/// The figures of these records as tables.
#[must_use]
pub fn table(runs: &[RolloutRun], since: Timestamp, until: Timestamp, by: Option<By>) -> String {
    let found = Delivery::of(runs, (since, until), by, |_| None);
    delivery::render::table(&found)
}

/// All pages of a list.
async fn listed<T: Clone>(
    connection: &Connection,
    of: ListParams,
    list: impl AsyncFn(&ListParams) -> Result<ObjectList<T>, kube::Error>,
) -> Result<Vec<T>, Refusal> {
    let mut items = Vec::new();
    let mut parameters = of.limit(PAGE);
    loop {
        let page = connection.ask(list(&parameters)).await?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(items),
        }
    }
}

/// A length of time, in days or as elsewhere.
fn span(text: &str) -> Result<SignedDuration, String> {
    let days = text.strip_suffix('d').map(str::parse::<u16>);
    let length = match days {
        Some(Ok(days)) => SignedDuration::from_hours(24 * i64::from(days)),
        Some(Err(_)) => return Err(format!("`{text}` is not a number of days, such as 30d")),
        None => {
            let length: countersign_api::Duration = text.parse().map_err(|_| {
                format!("`{text}` is not a length of time: write days such as 30d, or hours and minutes such as 12h30m")
            })?;
            length.signed()
        }
    };
    if length.is_positive() {
        Ok(length)
    } else {
        Err(format!("`{text}` is no time at all"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_in_days_or_shorter_units() {
        assert_eq!(span("30d"), Ok(SignedDuration::from_hours(720)));
        assert_eq!(span("90m"), Ok(SignedDuration::from_mins(90)));
        for wrong in ["", "d", "-1d", "1w", "30", "0d", "0s"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
