//! Dependencies of a Rollout.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::Rollout;
use countersign_api::rollout::{Change, Outcome, RolloutStatus, Stage};
use kube::ResourceExt;

use crate::change;
use crate::observation::Observation;
use crate::observation::people::Dependency;
use crate::text::sanitize_to;

/// Whether a change waits for the dependencies of its Rollout: before its first step, and a first revision
/// before its first pod. A change that has begun advances whatever their state.
#[must_use]
pub fn awaits_dependencies(observation: &Observation, change: &Change) -> bool {
    let before = match change.stage {
        Stage::Waiting => true,
        Stage::Promoting => change.initial && !change::has_begun(change),
        _ => false,
    };
    before && change.outcome.is_none() && !observation.spec.depends_on.is_empty()
}

/// The dependencies that are not stable, in a sentence.
#[must_use]
pub fn awaited_dependencies(observation: &Observation, change: &Change) -> Option<String> {
    if !awaits_dependencies(observation, change) {
        return None;
    }
    let awaited = observation.spec.depends_on.iter().filter_map(|name| {
        let mut seen = observation.dependencies.iter().flatten();
        match seen.find(|it| it.name == *name) {
            Some(seen) => seen.awaited.clone(),
            None => Some(format!("the state of Rollout {name} is not known yet")),
        }
    });
    let awaited: Vec<_> = awaited.collect();
    (!awaited.is_empty()).then(|| awaited.join("; "))
}

/// Dependencies of a Rollout that all are stable.
#[must_use]
pub fn all_stable(names: &[String]) -> Vec<Dependency> {
    let stable = |name: &String| Dependency {
        name: name.clone(),
        awaited: None,
    };
    names.iter().map(stable).collect()
}

/// Why a Rollout is not stable, in a sentence; `None` where it is.
#[must_use]
pub fn unstable(rollout: &Rollout) -> Option<String> {
    let why = if rollout.metadata.deletion_timestamp.is_some() {
        Some("is being deleted".to_owned())
    } else {
        match &rollout.status {
            Some(status) if Some(status.observed_generation) == rollout.metadata.generation => {
                unsettled(status)
            }
            _ => Some("was edited and not reconciled since".to_owned()),
        }
    };
    why.map(|why| format!("Rollout {} {why}", rollout.name_any()))
}

pub(super) fn unsettled(status: &RolloutStatus) -> Option<String> {
    if status.stable.is_none() {
        return Some("has no stable revision yet".into());
    }
    let moving = status.change.as_ref().and_then(|change| {
        let kept = change::is_watched(change) || change.kept_until.is_some();
        let message = || sanitize_to(&status.message, 200);
        match change.outcome {
            None => Some(format!("has a change under way: {}", message())),
            Some(Outcome::Promoted) if kept => None,
            Some(Outcome::Promoted) => Some("removes the pods of its last revision".into()),
            Some(Outcome::RolledBack) => Some(format!("was rolled back: {}", message())),
            Some(Outcome::Superseded | Outcome::Reverted) => Some("has just ended a change".into()),
        }
    });
    moving.or_else(|| {
        let mut conditions = status.conditions.iter();
        let available = conditions.find(|it| it.type_ == "Available");
        let enough = available.is_some_and(|it| it.status == "True");
        (!enough).then(|| "has too few available pods".to_owned())
    })
}

/// A path of dependencies from one Rollout to another, with both ends.
#[must_use]
pub fn dependency_path(
    depends_on: &BTreeMap<String, Vec<String>>,
    from: &str,
    to: &str,
) -> Option<Vec<String>> {
    let mut ways = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::from([from.to_owned()]);
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let Some(last) = way.last() else { continue };
            if last == to {
                return Some(way);
            }
            for next in depends_on.get(last).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    longer.push(way.iter().chain([next]).cloned().collect());
                }
            }
        }
        ways = longer;
    }
    None
}

/// The message for two Rollouts that depend on each other.
#[must_use]
pub fn cycle_message(own: &str, way_back: &[String]) -> String {
    let names: Vec<_> = [own]
        .into_iter()
        .chain(way_back.iter().map(String::as_str))
        .collect();
    format!("spec.dependsOn is a cycle: {}", names.join(", "))
}
