//! Which Rollout a record is of, and of which Rollouts records are missing.

use std::collections::BTreeMap;

use countersign_api::RolloutRun;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

/// When the change began.
pub fn began(run: &RolloutRun) -> Option<Timestamp> {
    run.spec.progress.started_at.as_ref().map(|at| at.0)
}

/// Namespace and name of the Rollout.
pub fn full_name(run: &RolloutRun) -> String {
    format!(
        "{}/{}",
        run.namespace().unwrap_or_default(),
        run.spec.rollout
    )
}

/// Rollouts whose oldest record is not their first and began within the time.
pub fn incomplete(runs: &[RolloutRun], since: Timestamp) -> Vec<String> {
    let mut oldest: BTreeMap<String, (Option<Timestamp>, i64)> = BTreeMap::new();
    for run in runs {
        let own = (began(run), run.spec.revision);
        let known = oldest.entry(full_name(run)).or_insert(own);
        *known = own.min(*known);
    }
    let short = oldest
        .into_iter()
        .filter(|(_, (began, revision))| *revision > 1 && *began > Some(since));
    short.map(|(rollout, _)| rollout).collect()
}
