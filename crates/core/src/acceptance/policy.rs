//! The status of a RolloutPolicy.

use countersign_api::freeze::IncidentQuery;
use countersign_api::policy::{RolloutPolicySpec, RolloutPolicyStatus};
use countersign_api::step::{SignOffDemand, Tier};
use k8s_openapi::jiff::Timestamp;

use crate::acceptance::{
    ACCEPTED, INVALID, Subject, UNREADABLE, accepted, queries, refused, selectors,
};
use crate::analysis::query;
use crate::condition::ConditionDraft;
use crate::people::freeze::ends_at;
use crate::policy::corrections::corrections;
use crate::provenance::attestation::keys::is_public_key;
use crate::text::excerpt;

/// Some of its values break an invariant, and count as corrected.
const CORRECTED: &str = "Corrected";
/// It requires people of no group.
const NO_GROUPS: &str = "NoGroups";

/// Whether this build can use a policy as it is written, and how many Rollouts the policy governs.
#[must_use]
pub fn status(
    spec: &Result<RolloutPolicySpec, String>,
    governs: usize,
    subject: Subject<'_>,
) -> RolloutPolicyStatus {
    let conditions = match spec {
        Ok(spec) => of(spec, subject.now),
        Err(problem) => {
            let message = format!(
                "this build cannot read the policy, so every Rollout waits (PolicyUnreadable): {problem}; fix or delete it, or upgrade the operator"
            );
            refused(UNREADABLE, &message)
        }
    };
    RolloutPolicyStatus {
        observed_generation: subject.generation,
        governs: spec
            .is_ok()
            .then(|| i32::try_from(governs).unwrap_or(i32::MAX)),
        conditions: subject.dated(conditions),
    }
}

fn of(spec: &RolloutPolicySpec, now: Timestamp) -> Vec<ConditionDraft> {
    let problems = problems(spec, now);
    if !problems.is_empty() {
        return refused(INVALID, &problems.join("; "));
    }
    let (mut notes, unnamed) = (corrections(spec), without_groups(spec));
    let reason = match (notes.is_empty(), unnamed.is_some()) {
        (false, _) => CORRECTED,
        (true, true) => NO_GROUPS,
        (true, false) => ACCEPTED,
    };
    notes.extend(unnamed);
    if notes.is_empty() {
        notes.push("every value counts as it is written".to_owned());
    }
    accepted(reason, &notes.join("; "))
}

/// What has no effect or holds the governed Rollouts, each in a sentence that names the field.
fn problems(spec: &RolloutPolicySpec, now: Timestamp) -> Vec<String> {
    let (namespaces, rollouts) = (&spec.namespace_selector, &spec.rollout_selector);
    let mut problems: Vec<_> =
        selectors::problems(namespaces.as_ref(), rollouts.as_ref()).collect();
    let windows = spec.freeze.windows.iter();
    let windows = windows.filter_map(|window| ends_at(window, now).err());
    problems.extend(windows.map(|error| error.to_string()));
    problems.extend(spec.freeze.incident.as_ref().and_then(incident));
    if let Some(it) = &spec.analysis {
        let unsendable = queries::problems(&it.checks, &it.objectives, it.interval);
        problems.extend(unsendable.map(|error| format!("analysis: {error}")));
    }
    let keys = spec.provenance.keys.iter();
    let unreadable = keys.filter(|key| !is_public_key(&key.public_key));
    problems.extend(unreadable.map(|key| {
        format!(
            "provenance.keys[{}]: publicKey is not a public key, so no attestation counts: write ECDSA P-256 or Ed25519 in PEM",
            excerpt(&key.name)
        )
    }));
    problems
}

/// Why promotions would wait forever for an answer about incidents.
fn incident(incident: &IncidentQuery) -> Option<String> {
    let problem = match query::yields_numbers(&incident.query) {
        Ok(true) => return None,
        Ok(false) => {
            "the query yields no number: count something, such as `count(ALERTS{alertstate=\"firing\"}) or vector(0)`".to_owned()
        }
        Err(problem) => problem.to_string(),
    };
    Some(format!("freeze.incident.query: {problem}"))
}

/// Where people are required, but of no group.
fn without_groups(spec: &RolloutPolicySpec) -> Option<String> {
    let is_unnamed =
        |demands: &[SignOffDemand]| demands.iter().any(|demand| demand.groups.is_empty());
    let mut paths = Vec::new();
    for tier in Tier::ALL {
        let demands = spec.tiers.get(tier);
        for (field, of_gate) in [
            ("signOff", &demands.sign_off),
            ("promotionSignOff", &demands.promotion_sign_off),
        ] {
            if of_gate.as_deref().is_some_and(is_unnamed) {
                paths.push(format!("tiers.{tier}.{field}"));
            }
        }
        let steps = demands.steps.iter().enumerate();
        let steps = steps.filter(|(_, step)| is_unnamed(&step.sign_off));
        paths.extend(steps.map(|(index, _)| format!("tiers.{tier}.steps[{index}].signOff")));
    }
    let first = spec.first_revision.as_ref();
    if first.is_some_and(|first| is_unnamed(&first.sign_off)) {
        paths.push("firstRevision.signOff".to_owned());
    }
    (!paths.is_empty()).then(|| {
        format!(
            "no groups are named in {}: any user who may approve can sign, and without one the change is rolled back",
            paths.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptance::tests::{assert_invalid, summary};

    fn status_of(spec: &str) -> RolloutPolicyStatus {
        let spec = serde_saphyr::from_str(spec).unwrap();
        status_with(&Ok(spec))
    }

    fn status_with(spec: &Result<RolloutPolicySpec, String>) -> RolloutPolicyStatus {
        let subject = Subject {
            conditions: &[],
            generation: 2,
            now: "2026-11-20T17:00:00Z".parse().unwrap(),
        };
        status(spec, 7, subject)
    }

    #[test]
    fn a_policy_that_can_be_used_is_accepted_with_a_note_of_what_counts_otherwise() {
        for (spec, reason, words) in [
            ("{}", "Accepted", "every value counts as it is written"),
            (
                "tiers: { high: { signOff: [{ count: 1, groups: [leads] }] } }",
                "Accepted",
                "every value counts as it is written",
            ),
            (
                "{ risk: { points: { testsUnknown: 1 } }, tiers: { high: { signOff: [{ count: 1 }] } } }",
                "Corrected",
                "risk.points.testsUnknown is 1 and counts as 3; no groups are named in tiers.high.signOff: ",
            ),
            (
                "{ tiers: { low: { steps: [{ weight: 5, signOff: [{ count: 1 }] }] } }, firstRevision: { signOff: [{ count: 1 }] } }",
                "NoGroups",
                "no groups are named in tiers.low.steps[0].signOff, firstRevision.signOff: ",
            ),
        ] {
            let status = status_of(spec);
            assert_eq!((status.observed_generation, status.governs), (2, Some(7)));
            let facts = summary(&status.conditions);
            assert_eq!(facts.len(), 1, "{facts:?}");
            assert_eq!(
                (facts[0].0, facts[0].1, facts[0].2),
                ("Accepted", "True", reason),
                "{spec}: {facts:?}"
            );
            assert!(facts[0].3.contains(words), "{spec}: {facts:?}");
        }
    }

    #[test]
    fn a_policy_with_a_field_that_cannot_work_names_it_and_is_stalled() {
        for (spec, words) in [
            (
                "namespaceSelector: { matchLabels: { team: 'a b' } }",
                "namespaceSelector.matchLabels: no object can have the label `team=a b`",
            ),
            (
                "freeze: { windows: [{ name: night, schedule: '0 25 * * *', duration: 1h }] }",
                "freeze.windows[night]: `0 25 * * *`",
            ),
            (
                "freeze: { incident: { query: 'sum(' } }",
                "freeze.incident.query: the query is not PromQL",
            ),
            (
                "freeze: { incident: { query: 'ALERTS[5m]' } }",
                "freeze.incident.query: the query yields no number",
            ),
            (
                "analysis: { checks: [{ name: errors, errors: 'sum(', total: 'x{a=\"{{revision}}\"}' }] }",
                "analysis: field `errors` of check `errors`",
            ),
            (
                "analysis: { checks: [{ name: errors, errors: 'x{a=\"{{revison}}\"}', total: 'x{a=\"{{revision}}\"}' }] }",
                "`{{revison}}` is not a placeholder",
            ),
            (
                "provenance: { keys: [{ name: ci, publicKey: none }] }",
                "provenance.keys[ci]",
            ),
        ] {
            let status = status_of(spec);
            assert_invalid(&status.conditions, words, spec);
        }
    }

    #[test]
    fn a_policy_that_cannot_be_read_holds_every_rollout_and_governs_no_number_of_them() {
        let status = status_with(&Err("unknown variant `Foresee`".to_owned()));
        assert_eq!(status.governs, None);
        let facts = summary(&status.conditions);
        assert_eq!((facts[0].1, facts[0].2), ("False", "Unreadable"));
        assert!(
            facts[0]
                .3
                .contains("every Rollout waits (PolicyUnreadable): unknown variant `Foresee`"),
            "{facts:?}"
        );
        assert_eq!((facts[1].0, facts[1].1), ("Stalled", "True"));
    }
}
