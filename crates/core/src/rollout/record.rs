//! The RolloutRun of a change: a projection of the status, so that a lost write is repaired automatically.

use std::collections::BTreeMap;

use countersign_api::Duration;
use countersign_api::rollout::{Change, Revision};
use countersign_api::run::{Progress, RecordedProvenance, RecordedRisk, RolloutRunSpec};

use crate::decision::Record;
use crate::diff::{self, Diff, Side};
use crate::limits::{RECORDED_ANNOTATION, RECORDED_DIFFERENCE};
use crate::observation::Observation;
use crate::proposal::{self, Proposal};
use crate::reason::{Line, Reason};
use crate::{change, names};

/// How long a record outlives its Rollout if no policy says it (`history.keepFor`): a Rollout of the same name is
/// asked what a change of the deleted one would be.
pub const OUTLIVES: Duration = Duration::minutes(7 * 24 * 60);
/// Longest name of a RolloutRun, in characters; leaves room for the suffix of its Events.
const MAX_NAME: usize = 220;

/// The name of the RolloutRun of one attempt at a change.
#[must_use]
pub fn name(rollout: &str, digest: &str, attempt: i64) -> String {
    let digest = digest.get(..10).unwrap_or(digest);
    names::ending(rollout, &format!("{digest}-{attempt}"), MAX_NAME)
}

/// The number of the attempt in the name of a RolloutRun.
#[must_use]
pub fn attempt(name: &str) -> Option<i64> {
    name.rsplit_once('-')?.1.parse().ok()
}

/// The RolloutRun of a change, if there is news: begin, end, a tightened plan, acts of people. Steps in
/// between are only in the status, and are recorded with the next write.
///
/// Only the fields that describe the start of the change (template, difference, provenance, contributions) need
/// the proposal; they are written once, on creation. Later writes add to `progress`, `plan` and the tier.
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
        template_digest: Some(change.template_digest.clone()),
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
    } else if change.initial {
        // It is stable though a newer template is there: its own provenance is no longer on the Rollout.
        let (hash, digest) = (&change.pod_template_hash, &change.template_digest);
        spec.template = proposal::template_of(observation, hash, digest).cloned();
    }
    Some(Record {
        name: change.run.clone(),
        spec,
        keep_for: proposal.effective.history.keep_for.unwrap_or(OUTLIVES),
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
    spec.traffic = Some(diff::traffic(&observation.spec.strategy.canary));
    spec.difference = difference(observation, change);
    spec.images = observation
        .spec
        .template
        .images()
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    spec.provenance = RecordedProvenance {
        state: provenance.state.to_string(),
        digest: proposal.provenance_digest.clone(),
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

/// What the change changes of the revision that it replaces; `None` for a first revision.
fn difference(observation: &Observation, change: &Change) -> Option<String> {
    let replaced = replaced(observation, change)?;
    let mut runs = observation.history().iter();
    let run = runs.find(|run| replaced.run.as_ref() == Some(&run.name));
    let stable = Side {
        template: proposal::template_of(
            observation,
            &replaced.pod_template_hash,
            &replaced.template_digest,
        ),
        provenance: run.map(|run| run.provenance.clone()),
        traffic: run.and_then(|run| run.traffic.clone()),
    };
    let proposed = Side {
        template: Some(&observation.spec.template),
        provenance: Some(diff::provenance(&observation.annotations)),
        traffic: Some(diff::traffic(&observation.spec.strategy.canary)),
    };
    let text = Diff::between(&stable, &proposed).text(RECORDED_DIFFERENCE);
    (!text.is_empty()).then_some(text)
}

/// The revision that a change replaces: the stable one, or after its promotion the one before.
fn replaced<'a>(observation: &'a Observation, change: &'a Change) -> Option<&'a Revision> {
    let stable = observation.status.stable.as_ref();
    stable
        .filter(|stable| stable.template_digest != change.template_digest)
        .or(change.previous.as_ref())
}

fn annotations(observation: &Observation) -> BTreeMap<String, String> {
    let own = diff::provenance(&observation.annotations).into_iter();
    let cut = own.map(|(key, value)| (key, value.chars().take(RECORDED_ANNOTATION).collect()));
    cut.take(32).collect()
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

#[cfg(test)]
mod tests {
    use countersign_api::Rollout;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::observation::workload::PastRun;
    use crate::provenance::digest::template_digest;
    use crate::rollout::decide::decide;
    use crate::simulation::manifest::{Surroundings, observe};

    /// The record of a change of the command, from a revision with this RolloutRun.
    fn recorded(stable_run: Option<PastRun>) -> RolloutRunSpec {
        let rollout: Rollout = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": {
                "name": "web",
                "annotations": { "provenance.countersign.dev/contributor": "ai" },
            },
            "spec": {
                "replicas": 3,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "web", "image": "web:1", "command": ["new"] }] },
                },
                "strategy": { "canary": { "stableService": "web" } },
            },
        }))
        .unwrap();
        let mut stable = rollout.spec.template.clone();
        stable.0["spec"]["containers"][0]["command"] = json!(["old"]);
        let surroundings = Surroundings::default();
        let mut observation = observe(&rollout, &stable, surroundings, Timestamp::UNIX_EPOCH);
        if let Some(run) = stable_run {
            let revision = observation.status.stable.as_mut().unwrap();
            revision.run = Some(run.name.clone());
            observation.history = Some(Ok(vec![run]));
        }
        decide(&observation).record.unwrap().spec
    }

    #[test]
    fn a_record_holds_the_difference_from_the_revision_that_is_replaced() {
        let mut before = RolloutRunSpec::default();
        before.provenance.annotations = BTreeMap::from([("contributor".into(), "human".into())]);
        before.traffic = Some(json!({ "stableService": "web" }));
        let record = recorded(Some(PastRun::of("web-1", &before)));
        let template = record.template.unwrap();
        assert_eq!(record.template_digest, Some(template_digest(&template)));
        assert_eq!(record.traffic, Some(json!({ "stableService": "web" })));
        let expected = "\
--- stable template
+++ proposed template
@@ -4,6 +4,6 @@
 spec:
   containers:
   - command:
-    - old
+    - new
     image: web:1
     name: web
--- stable provenance
+++ proposed provenance
@@ -1 +1 @@
-contributor: human
+contributor: ai
";
        assert_eq!(record.difference.as_deref(), Some(expected));
    }

    #[test]
    fn without_the_record_of_the_stable_revision_its_provenance_and_traffic_are_unknown() {
        let difference = recorded(None).difference.unwrap();
        for line in [
            "-    - old",
            "--- stable provenance (unknown)",
            "+contributor: ai",
            "--- stable traffic (unknown)",
            "+stableService: web",
        ] {
            assert!(difference.lines().any(|it| it == line), "{difference}");
        }
    }

    #[test]
    fn after_its_promotion_a_change_is_compared_with_the_revision_before() {
        let change = Change {
            template_digest: "new".into(),
            previous: Some(Revision::default()),
            ..Change::default()
        };
        let spec = serde_json::from_value(json!({ "template": {} })).unwrap();
        let mut observation = Observation::of("shop", "web", spec);
        observation.status.stable = Some(Revision {
            template_digest: "new".into(),
            ..Revision::default()
        });
        assert_eq!(replaced(&observation, &change), change.previous.as_ref());
        let first = Change {
            previous: None,
            ..change
        };
        assert_eq!(replaced(&observation, &first), None);
        assert_eq!(difference(&observation, &first), None);
    }
}
