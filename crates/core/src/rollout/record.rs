//! The RolloutRun of a change: a projection of the status, so that a lost write is repaired automatically.

use std::collections::BTreeMap;

use countersign_api::PROVENANCE_PREFIX;
use countersign_api::rollout::Change;
use countersign_api::run::{Progress, RecordedProvenance, RecordedRisk, RolloutRunSpec};

use crate::decision::Record;
use crate::limits::RECORDED_ANNOTATION;
use crate::observation::Observation;
use crate::proposal::Proposal;
use crate::reason::{Line, Reason};
use crate::{change, names};

/// Longest name of a RolloutRun, in characters; leaves room for the suffix of its Events.
const MAX_NAME: usize = 220;

/// The name of the RolloutRun of one attempt at a change.
#[must_use]
pub fn name(rollout: &str, digest: &str, attempt: i64) -> String {
    let digest = digest.get(..10).unwrap_or(digest);
    names::ending(rollout, &format!("{digest}-{attempt}"), MAX_NAME)
}

/// The RolloutRun of a change, if there is news: begin, end, a tightened plan, acts of people. Steps in
/// between are only in the status, and are recorded with the next write.
///
/// Only the fields that describe the begin of the change (provenance, contributions) need the proposal;
/// they are written once, on creation. Later writes add to `progress`, `plan` and the tier.
#[must_use]
pub fn of(observation: &Observation, proposal: &Proposal, change: &Change) -> Option<Record> {
    if !has_news(observation, change) {
        return None;
    }
    let mut spec = RolloutRunSpec {
        rollout: observation.name.clone(),
        digest: change.digest.clone(),
        pod_template_hash: change.pod_template_hash.clone(),
        revision: change.revision,
        risk: RecordedRisk {
            score: change.score,
            tier: change.tier,
            ..RecordedRisk::default()
        },
        plan: change.plan.clone(),
        enforcement: change.enforcement,
        observed: change.observed.clone(),
        progress: progress(change),
        ..RolloutRunSpec::default()
    };
    // A proposal of an adopted workload that cannot be read is not recorded.
    if change.digest == proposal.digest && !observation.spec.template.is_absent() {
        describe(&mut spec, observation, proposal, change);
    }
    Some(Record {
        name: change.run.clone(),
        spec,
    })
}

fn has_news(observation: &Observation, change: &Change) -> bool {
    let before = observation.status.change.as_ref();
    let before = before.filter(|before| before.run == change.run);
    let known = before.map_or(0, |before| before.transitions.len());
    let mut lines = change.transitions.iter().skip(known);
    if change.outcome.is_some() {
        return !observation.recorded || lines.next().is_some();
    }
    let must_record = lines.any(|line| {
        let reason = Reason::parse(&line.reason);
        reason.is_none_or(|it| it.class().line != Line::Step)
    });
    must_record || before.is_some_and(|before| before.plan != change.plan)
}

fn describe(
    spec: &mut RolloutRunSpec,
    observation: &Observation,
    proposal: &Proposal,
    change: &Change,
) {
    let provenance = &proposal.provenance;
    spec.template = Some(observation.spec.template.clone());
    spec.images = observation
        .spec
        .template
        .images()
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    spec.provenance = RecordedProvenance {
        state: provenance.state.to_string(),
        annotations: annotations(observation),
        problems: provenance
            .problems
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    spec.risk.versions.clone_from(&proposal.effective.versions);
    spec.risk.contributions = proposal
        .risk(observation, change.after_rollback)
        .contributions;
}

fn annotations(observation: &Observation) -> BTreeMap<String, String> {
    let own = observation.annotations.iter().filter_map(|(key, value)| {
        let key = key.strip_prefix(PROVENANCE_PREFIX)?.to_owned();
        Some((key, value.chars().take(RECORDED_ANNOTATION).collect()))
    });
    own.take(32).collect()
}

fn progress(change: &Change) -> Progress {
    let cause = change::last_cause(change);
    let last = change.transitions.last().and_then(|line| line.at.clone());
    Progress {
        stage: change.stage,
        outcome: change.outcome,
        message: cause.map(|line| line.message.clone()).unwrap_or_default(),
        started_at: change.started_at.clone(),
        ended_at: last.filter(|_| change.outcome.is_some()),
        transitions: change.transitions.clone(),
    }
}
