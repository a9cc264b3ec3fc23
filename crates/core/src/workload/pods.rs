//! Failures of a new revision's pods: why they do not start, and whether all of them crash.

use countersign_api::rollout::{Change, Stage};

use crate::limits::FOREIGN_TEXT;
use crate::observation::Observation;
use crate::observation::workload::NewPods;
use crate::text::sanitize_to;
use crate::workload::failure;

/// Why a pod of the new revision does not start, in the words of its pod.
#[must_use]
pub fn trouble(observation: &Observation) -> Option<String> {
    let trouble = observation.new_pods.as_ref()?.trouble.as_ref()?;
    Some(sanitize_to(trouble, FOREIGN_TEXT))
}

/// Whether every pod of the new revision is in a crash loop, in a sentence. Waiting has no effect then,
/// since further pods would crash as well. For a first revision this is only reported: there is nothing to
/// roll back to.
#[must_use]
pub fn crash_loop(observation: &Observation, change: &Change) -> Option<String> {
    let begun = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    if !begun || change.initial || change.outcome.is_some() {
        return None;
    }
    let NewPods {
        existing,
        crashing,
        crash,
        ..
    } = observation.new_pods.as_ref()?;
    let mut own = observation.replica_sets.iter();
    let serves = own.any(|set| set.hash == change.pod_template_hash && set.available > 0);
    if *existing == 0 || crashing < existing || serves {
        return None;
    }
    let all = if *existing == 1 {
        "the only pod of the new revision crashes".to_owned()
    } else {
        format!("all {existing} pods of the new revision crash")
    };
    let words = crash.as_ref().map(failure::describe);
    let words = words.map(|words| format!(": {words}")).unwrap_or_default();
    Some(format!("{all} repeatedly{words}"))
}
