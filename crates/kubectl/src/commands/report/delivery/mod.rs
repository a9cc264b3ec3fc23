//! The report on delivery: its figures, and the comparison of an AI's changes with people's. Pure: the same records
//! give the same report.

mod comparison;
pub mod csv;
mod deployment;
mod figures;
pub mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use clap::ValueEnum;
use countersign_api::RolloutRun;
use countersign_core::provenance::Contributor;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use crate::commands::report::coverage::{began, incomplete};

/// What deployments are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// By the label of their Rollout that names its team.
    Team,
    /// By namespace.
    Namespace,
    /// By who wrote them, as declared.
    Contributor,
}

/// The report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Begin of the reported time.
    pub since: Timestamp,
    /// End of the reported time.
    pub until: Timestamp,
    /// Begin of the time that deployments a week are of: `since`, or when the oldest record began if that is later.
    pub recorded_since: Timestamp,
    /// What the groups are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// The figures of all deployments.
    pub total: figures::Figures,
    /// The figures of each group.
    pub groups: BTreeMap<String, figures::Figures>,
    /// An AI's changes and people's.
    pub comparison: comparison::Comparison,
    /// Changes that ended within the time without a deployment.
    pub not_deployed: usize,
    /// Rollouts whose older records within the time were removed.
    pub incomplete: Vec<String>,
}

impl Delivery {
    /// The report on the deployments of a time; `team` names the team of a record.
    #[must_use]
    pub fn of(
        runs: &[RolloutRun],
        (since, until): (Timestamp, Timestamp),
        by: Option<By>,
        team: impl Fn(&RolloutRun) -> Option<String>,
    ) -> Self {
        let within = |at: Timestamp| since <= at && at <= until;
        let deployments = deployment::deployments(runs);
        let deployments: Vec<_> = deployments.iter().filter(|it| within(it.at)).collect();
        let mut groups: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for deployment in &deployments {
            let group = by.map(|by| match by {
                By::Team => team(deployment.run).unwrap_or_else(|| "-".to_owned()),
                By::Namespace => deployment.run.namespace().unwrap_or_default(),
                By::Contributor => {
                    let contributor = deployment.contributor.unwrap_or(Contributor::Unknown);
                    contributor.as_str().to_owned()
                }
            });
            if let Some(group) = group {
                groups.entry(group).or_default().push(*deployment);
            }
        }
        let oldest = runs.iter().filter_map(began).min();
        // A clock may be wrong, and no time at all has no rate.
        let oldest = oldest.filter(|oldest| *oldest < until);
        let recorded_since = oldest.map_or(since, |oldest| oldest.max(since));
        let weeks = until.duration_since(recorded_since).as_secs_f64() / (7.0 * 86_400.0);
        let not_deployed = runs
            .iter()
            .filter(|run| deployment::ended_without(run).is_some_and(within));
        Self {
            since,
            until,
            recorded_since,
            by,
            total: figures::Figures::of(&deployments, weeks),
            groups: groups
                .into_iter()
                .map(|(name, group)| (name, figures::Figures::of(&group, weeks)))
                .collect(),
            comparison: comparison::Comparison::of(&deployments),
            not_deployed: not_deployed.count(),
            incomplete: incomplete(runs, since),
        }
    }
}
