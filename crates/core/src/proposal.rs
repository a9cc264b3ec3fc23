//! The desired change of a Rollout's spec, and the policies that apply to it.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::PodTemplate;
use countersign_api::policy::{Difference, Enforcement, Trust};
use countersign_api::rollout::{Outcome, Plan, Revision};
use countersign_api::step::Tier;
use countersign_api::traffic::Router;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::analysis::checks::{self, Checks};
use crate::observation::workload::ReplicaSet;
use crate::observation::{self, Observation};
use crate::plan::{self, tighten};
use crate::policy::{self, Effective, enforcement};
use crate::provenance::{Provenance, attestation, digest};
use crate::risk::score::Facts;
use crate::risk::{self, Risk};

/// Time for which a rollback adds to the risk of later changes.
const ROLLBACK_MEMORY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The desired pods, with the digests that identify the change.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// SHA-256 of pod template, provenance, and where traffic goes.
    pub digest: String,
    /// SHA-256 of the pod template.
    pub template_digest: String,
    /// SHA-256 of the provenance.
    pub provenance_digest: Option<String>,
    /// Whether an earlier change with another template has the same provenance, which says nothing of this
    /// template then.
    pub inherited_provenance: bool,
    /// Value of the pods' label `pod-template-hash`.
    pub hash: String,
    /// Number of hash collisions so far.
    pub collision_count: i32,
    /// The declared provenance, completed by one that a trusted key attests.
    pub provenance: Provenance,
    /// The provenance that bounds the risk from below: the attested one, or an unknown one if an
    /// attestation is demanded or claimed and is invalid. `None` if only declarations count.
    pub attested: Option<Provenance>,
    /// The merged policies, as far as they are enforced.
    pub effective: Effective,
    /// `Observe` if all policies only observe.
    pub enforcement: Enforcement,
    /// What all policies would demand together; `None` if none of them only observes.
    pub observed: Option<Box<Observed>>,
    /// The checks in force.
    pub checks: Checks,
}

/// The demands of all policies together, some of which only observe.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The merged policies.
    pub effective: Effective,
    /// Those that only observe, each as `name@generation`.
    pub policies: Vec<String>,
    /// The declared provenance, completed as all policies demand.
    provenance: Provenance,
    /// The provenance that bounds the risk from below, as all policies demand.
    pub attested: Option<Provenance>,
}

impl Observed {
    /// Whether a policy only observes.
    #[must_use]
    pub fn only_observes(&self, policy: &str) -> bool {
        policy::is_named(policy, &self.policies)
    }
}

/// Risk and plan of a change if every policy were enforced.
#[derive(Clone, Debug)]
pub struct Enforced {
    /// The risk by all policies.
    pub risk: Risk,
    /// The plan for its tier.
    pub plan: Plan,
}

impl Proposal {
    /// The proposal of an observation.
    #[must_use]
    pub fn of(observation: &Observation) -> Self {
        let template = &observation.spec.template;
        let change = observation.status.change.as_ref();
        let demands = enforcement::demands(&observation.policies, change);
        let effective = demands.enforced;
        let template_digest = digest::template_digest(template);
        let (hash, collision_count) = hash(observation, &template_digest);
        let canary = &observation.spec.strategy.canary;
        let digest = digest::change_digest(template, &observation.annotations, canary);
        let provenance_digest = digest::provenance_digest(&observation.annotations);
        let inherited_provenance = provenance_digest
            .as_deref()
            .is_some_and(|own| is_inherited(observation, own, &digest, &template_digest));
        let read = |effective: &Effective| {
            let (declared, attested) = provenance_of(
                &observation.annotations,
                template,
                || stable_template(observation),
                effective,
                observation.now,
            );
            if inherited_provenance {
                let attested = attested.map(Provenance::of_earlier_change);
                return (declared.of_earlier_change(), attested);
            }
            (declared, attested)
        };
        let (provenance, attested) = read(&effective);
        let observed = demands.observed.map(|observed| {
            let (provenance, attested) = read(&observed.effective);
            Box::new(Observed {
                effective: observed.effective,
                policies: observed.policies,
                provenance,
                attested,
            })
        });
        let mut proposal = Self {
            digest,
            template_digest,
            provenance_digest,
            inherited_provenance,
            hash,
            collision_count,
            provenance,
            attested,
            checks: checks::checks(observation, &effective),
            effective,
            enforcement: demands.enforcement,
            observed,
        };
        if let Some(known) = last_known(observation) {
            proposal.digest = known.digest;
            proposal.template_digest = known.template_digest;
            proposal.hash = known.pod_template_hash;
            proposal.collision_count = observation.status.collision_count;
        }
        proposal
    }

    /// The risk of the change, compared with the stable revision.
    #[must_use]
    pub fn risk(&self, observation: &Observation, after_rollback: bool) -> Risk {
        let (provenance, attested) = (&self.provenance, self.attested.as_ref());
        let facts = facts(observation, &self.effective, after_rollback);
        risk::risk_of_both(provenance, attested, &facts, &self.effective.risk)
    }

    /// Risk and plan if every policy were enforced; `None` if each of them is.
    #[must_use]
    pub fn if_enforced(&self, observation: &Observation, after_rollback: bool) -> Option<Enforced> {
        let Observed {
            effective,
            provenance,
            attested,
            ..
        } = self.observed.as_deref()?;
        let facts = facts(observation, effective, after_rollback);
        let risk = risk::risk_of_both(provenance, attested.as_ref(), &facts, &effective.risk);
        let canary = &observation.spec.strategy.canary;
        let (steps, promotion) = (&canary.steps, &canary.promotion_sign_off);
        let plan = plan::plan_for(risk.tier, steps, promotion, effective);
        Some(Enforced { risk, plan })
    }

    /// The plan for a change of this tier. Its evidence is judged as strictly as if every policy were
    /// enforced.
    #[must_use]
    pub fn plan(
        &self,
        observation: &Observation,
        tier: Tier,
        if_enforced: Option<&Enforced>,
    ) -> Plan {
        let canary = &observation.spec.strategy.canary;
        let (steps, promotion) = (&canary.steps, &canary.promotion_sign_off);
        let mut plan = plan::plan_for(tier, steps, promotion, &self.effective);
        if let Some(enforced) = if_enforced {
            plan.strictness =
                tighten::as_strictly_judged(plan.strictness, enforced.plan.strictness);
        }
        plan
    }
}

/// The facts about a change that the controller observes itself.
fn facts(observation: &Observation, effective: &Effective, after_rollback: bool) -> Facts {
    let differences = differences(observation);
    // What a tag names may be other code by now, which no attestation is of.
    let mut images = observation.spec.template.images().into_iter();
    let bound = effective.trust != Trust::Attested || images.all(digest::is_pinned);
    Facts {
        manifest_only: stable_template(observation).is_some()
            && bound
            && differences.iter().all(|it| it.is_of_manifest()),
        differences,
        criticality: risk::criticality(
            &effective.risk,
            &observation.labels,
            &observation.namespace_labels,
        ),
        exposed: is_exposed(observation),
        after_rollback,
        records_unknown: observation.unreadable_history().is_some(),
    }
}

/// Whether the workload is reached from outside: by the type of its Services, or by a Gateway. A
/// VirtualService may be for the mesh alone.
fn is_exposed(observation: &Observation) -> bool {
    let mut services = observation.traffic.services.values().flatten();
    let traffic = observation.spec.strategy.canary.traffic.as_ref();
    let mut routes = traffic.into_iter().flat_map(|traffic| &traffic.routes);
    services.any(|service| matches!(service.kind.as_str(), "LoadBalancer" | "NodePort"))
        || routes.any(|route| match route.kind.router() {
            Router::GatewayApi => true,
            Router::Istio => false,
        })
}

/// The declared provenance of a change, and the attested one as the policies demand.
fn provenance_of<'a>(
    annotations: &BTreeMap<String, String>,
    template: &PodTemplate,
    stable: impl FnOnce() -> Option<&'a PodTemplate>,
    effective: &Effective,
    now: Timestamp,
) -> (Provenance, Option<Provenance>) {
    let verified = attestation::due(annotations, effective).and_then(|envelope| {
        envelope
            .map(|it| attestation::verify(it, template, stable(), &effective.keys, now))
            .transpose()
    });
    match verified {
        Ok(None) => (Provenance::read(annotations, template), None),
        Ok(Some(attested)) => {
            let (declared, attested) = Provenance::read_both(annotations, &attested, template);
            (declared, Some(attested))
        }
        Err(why) => (
            Provenance::read(annotations, template).refused(why),
            Some(Provenance::unattested()),
        ),
    }
}

/// Whether the provenance was there before the template: an earlier change, the stable revision or the change
/// before had it first, with another template.
fn is_inherited(observation: &Observation, own: &str, digest: &str, template_digest: &str) -> bool {
    let status = &observation.status;
    let under_way = status.change.as_ref().filter(|it| it.digest == digest);
    if let Some(change) = under_way {
        return change.inherited_provenance;
    }
    // The first that had it is what it was written for, whatever came in between.
    let runs = observation.history().iter();
    let bearers = runs.filter(|run| run.provenance_digest.as_deref() == Some(own));
    if let Some(first) = bearers.min_by_key(|run| run.started_at) {
        return first.template_digest.as_deref() != Some(template_digest);
    }
    let of_stable = status.stable.as_ref().is_some_and(|stable| {
        stable.provenance_digest.as_deref() == Some(own)
            && stable.template_digest != template_digest
    });
    let of_change = status.change.as_ref().is_some_and(|change| {
        change.provenance_digest.as_deref() == Some(own)
            && change.template_digest != template_digest
    });
    of_stable || of_change
}

/// The hash of the ReplicaSet that already runs this template, or a new unique one.
fn hash(observation: &Observation, template_digest: &str) -> (String, i32) {
    let mut collisions = observation.status.collision_count;
    let sets = &observation.replica_sets;
    // The digest alone may be anybody's claim.
    let runs_it = |set: &&ReplicaSet| {
        set.template_digest == template_digest
            && digest::template_digest(&set.template) == template_digest
    };
    if let Some(set) = sets.iter().find(runs_it) {
        return (set.hash.clone(), collisions);
    }
    let mut hash = digest::pod_template_hash(&observation.spec.template, collisions);
    while sets.iter().any(|set| set.hash == hash) {
        collisions = collisions.saturating_add(1);
        hash = digest::pod_template_hash(&observation.spec.template, collisions);
    }
    (hash, collisions)
}

/// Whether an earlier change was rolled back lately, or may have been: unknown facts lower no risk. The status
/// remembers it, whatever becomes of the record.
#[must_use]
pub fn after_rollback(observation: &Observation) -> bool {
    let recent = |at: Timestamp| observation.now.duration_since(at) < ROLLBACK_MEMORY;
    let remembered = observation.status.last_rollback_at.as_ref();
    let mut runs = observation.history().iter();
    observation.unreadable_history().is_some()
        || remembered.is_some_and(|at| recent(at.0))
        || runs
            .any(|run| run.outcome == Some(Outcome::RolledBack) && run.ended_at.is_some_and(recent))
}

/// The differences from the stable template. If that cannot be trusted, all kinds of differences.
fn differences(observation: &Observation) -> BTreeSet<Difference> {
    let stable = stable_template(observation);
    if stable.is_none() && observation.status.stable.is_some() {
        return Difference::ALL.into();
    }
    risk::differences(stable, &observation.spec.template)
}

/// The template of the stable pods; `None` if there is none, or it cannot be trusted.
fn stable_template(observation: &Observation) -> Option<&PodTemplate> {
    let stable = observation.status.stable.as_ref()?;
    template_of(
        observation,
        &stable.pod_template_hash,
        &stable.template_digest,
    )
}

/// The template with this digest that the pods with this hash run; `None` if it cannot be trusted: its
/// ReplicaSet is gone and no RolloutRun has it, or the copy in its annotation is not the promoted one.
pub(crate) fn template_of<'a>(
    observation: &'a Observation,
    hash: &str,
    template_digest: &str,
) -> Option<&'a PodTemplate> {
    let mut sets = observation.replica_sets.iter();
    sets.find(|set| set.hash == hash)
        .map(|set| &set.template)
        .or_else(|| observation.promoted.get(template_digest))
        .filter(|template| digest::template_digest(template) == template_digest)
}

/// The last known proposal, while the workload cannot be read: no change begins or is replaced, and the
/// change under way is still judged.
#[must_use]
pub fn last_known(observation: &Observation) -> Option<Revision> {
    if !observation::is_unreadable(observation) {
        return None;
    }
    let status = &observation.status;
    let change = status.change.as_ref().map(|change| Revision {
        pod_template_hash: change.pod_template_hash.clone(),
        template_digest: change.template_digest.clone(),
        digest: change.digest.clone(),
        provenance_digest: change.provenance_digest.clone(),
        revision: change.revision,
        run: Some(change.run.clone()),
    });
    change.or_else(|| status.stable.clone())
}

#[cfg(test)]
mod tests {
    use countersign_api::PROVENANCE_PREFIX;
    use countersign_api::policy::{Trust, TrustedKey};
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::json;

    use super::*;
    use crate::policy;
    use crate::provenance::State;
    use crate::provenance::attestation::keys::public_key_pem;
    use crate::provenance::attestation::statement::Statement;

    /// A key that OpenSSL made for these tests alone.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKC/upcHwprQPZ/md9B50ATU5benfIgaTYS6hHhpNYqD
-----END PRIVATE KEY-----
";

    const HARMLESS: [(&str, &str); 9] = [
        ("contributor", "human"),
        ("authors", "jane"),
        ("reviewers", "carol"),
        ("revision", "9f3c2e1"),
        ("approved-revision", "9f3c2e1"),
        ("tests", "PASSED"),
        ("lines-added", "5"),
        ("lines-deleted", "3"),
        ("subsystems", "1"),
    ];

    type Annotations = BTreeMap<String, String>;

    fn annotations(of: &[(&str, &str)]) -> Annotations {
        of.iter()
            .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), (*value).to_owned()))
            .collect()
    }

    fn image() -> String {
        format!("shop@sha256:{}", "a".repeat(64))
    }

    fn attestation_of(image: &str, attested: &Annotations) -> String {
        let statement = Statement::of(&[image], attested, None).unwrap();
        statement.sign(PRIVATE, "ci").unwrap()
    }

    fn with_attestation(mut declared: Annotations, attestation: String) -> Annotations {
        declared.insert(format!("{PROVENANCE_PREFIX}attestation"), attestation);
        declared
    }

    fn effective(trust: Trust, keys: usize) -> Effective {
        let key = TrustedKey {
            name: "ci".into(),
            public_key: public_key_pem(PRIVATE).unwrap(),
            not_after: None,
        };
        Effective {
            trust,
            keys: vec![vec![key]; keys],
            ..policy::effective(&[])
        }
    }

    fn sources(
        annotations: &Annotations,
        effective: &Effective,
    ) -> (Provenance, Option<Provenance>) {
        let template = PodTemplate(json!({ "spec": { "containers": [{ "image": image() }] } }));
        let now = Timestamp::UNIX_EPOCH;
        provenance_of(annotations, &template, || None, effective, now)
    }

    fn risk(annotations: &Annotations, effective: &Effective) -> Risk {
        let (declared, attested) = sources(annotations, effective);
        let facts = Facts::default();
        risk::risk_of_both(&declared, attested.as_ref(), &facts, &effective.risk)
    }

    #[test]
    fn without_a_key_what_is_declared_counts_as_ever() {
        let declared = with_attestation(annotations(&HARMLESS), "garbage".into());
        let (provenance, attested) = sources(&declared, &effective(Trust::Declared, 0));
        assert_eq!((provenance.state, attested), (State::Declared, None));
        let plain = annotations(&HARMLESS);
        let (provenance, attested) = sources(&plain, &effective(Trust::Declared, 1));
        assert_eq!((provenance.state, attested), (State::Declared, None));
        assert_eq!(risk(&plain, &effective(Trust::Declared, 1)).tier, Tier::Low);
    }

    #[test]
    fn an_attested_harmless_change_is_low_with_or_without_declarations() {
        let attestation = attestation_of(&image(), &annotations(&HARMLESS));
        for declared in [annotations(&HARMLESS), Annotations::new()] {
            let all = with_attestation(declared, attestation.clone());
            for trust in [Trust::Declared, Trust::Attested] {
                let (provenance, attested) = sources(&all, &effective(trust, 1));
                assert_eq!(
                    (provenance.state, provenance.problems.len()),
                    (State::Declared, 0)
                );
                assert_eq!(attested.unwrap().authors.len(), 1);
                assert_eq!(risk(&all, &effective(trust, 1)).tier, Tier::Low);
            }
        }
    }

    #[test]
    fn a_refused_attestation_makes_all_unknown_whatever_the_policy_trusts() {
        let of_another_image = format!("shop@sha256:{}", "b".repeat(64));
        let attestation = attestation_of(&of_another_image, &annotations(&HARMLESS));
        for carried in [attestation, "garbage".into(), String::new()] {
            let all = with_attestation(annotations(&HARMLESS), carried);
            for trust in [Trust::Declared, Trust::Attested] {
                let (provenance, attested) = sources(&all, &effective(trust, 1));
                assert_eq!(provenance.state, State::Malformed);
                assert!(!provenance.problems.is_empty());
                assert_eq!(
                    provenance.authors.len(),
                    1,
                    "those who must not sign stay known"
                );
                assert_eq!(attested, Some(Provenance::unattested()));
                assert!(risk(&all, &effective(trust, 1)).tier >= Tier::High);
            }
        }
    }

    #[test]
    fn if_only_attestations_are_trusted_none_is_unknown_and_reported() {
        for keys in [0, 1] {
            let demanding = effective(Trust::Attested, keys);
            let (provenance, attested) = sources(&annotations(&HARMLESS), &demanding);
            assert_eq!(provenance.state, State::Unattested);
            assert!(
                provenance.problems[0]
                    .to_string()
                    .contains("believe only what a trusted key has signed"),
                "{:?}",
                provenance.problems
            );
            assert_eq!(attested, Some(Provenance::unattested()));
            assert!(risk(&annotations(&HARMLESS), &demanding).tier >= Tier::High);
        }
    }

    /// Annotations of every shape, garbage among them.
    fn any_annotations() -> impl Strategy<Value = Annotations> {
        let pairs = [
            (
                "contributor",
                vec!["human", "ai", "mixed", "unknown", "robot"],
            ),
            ("ai-share", vec!["0", "40", "100", "x"]),
            ("agents", vec!["claude-code", ""]),
            ("human-operator", vec!["jane", ""]),
            ("authors", vec!["jane", "bob, carol", ""]),
            ("reviewers", vec!["carol", "jane", ""]),
            ("revision", vec!["1", "2"]),
            ("approved-revision", vec!["1", "2"]),
            ("tests", vec!["PASSED", "FAILED", "WARNED", "?"]),
            ("lines-added", vec!["0", "5000", "-1"]),
            ("lines-deleted", vec!["0", "50"]),
            ("subsystems", vec!["0", "9"]),
            ("touches", vec!["migration", "auth, api", ""]),
            ("image", vec!["shop", "other"]),
        ];
        let each: Vec<_> = pairs
            .into_iter()
            .map(|(key, values)| {
                proptest::option::weighted(0.7, select(values)).prop_map(move |it| (key, it))
            })
            .collect();
        each.prop_map(|pairs| {
            let given: Vec<_> = pairs
                .into_iter()
                .filter_map(|(key, it)| Some((key, it?)))
                .collect();
            annotations(&given)
        })
    }

    proptest! {
        #[test]
        fn law_7_what_is_declared_raises_what_is_attested_and_never_lowers_it(
            declared in any_annotations(), attested in any_annotations(), trust in select(&[Trust::Declared, Trust::Attested]),
        ) {
            let believing = effective(trust, 1);
            let attestation = attestation_of(&image(), &attested);
            let alone = risk(&with_attestation(Annotations::new(), attestation.clone()), &believing);
            let both = risk(&with_attestation(declared.clone(), attestation), &believing);
            prop_assert!(both.score >= alone.score && both.tier >= alone.tier, "{:?} {:?}", alone, both);

            let demanding = effective(Trust::Attested, 1);
            let unknown = risk::risk_of(&Provenance::unattested(), &Facts::default(), &demanding.risk);
            for nothing in [declared.clone(), with_attestation(declared, "garbage".into())] {
                let found = risk(&nothing, &demanding);
                prop_assert!(found.score >= unknown.score && found.tier >= unknown.tier, "{:?} {:?}", unknown, found);
            }
        }
    }
}
