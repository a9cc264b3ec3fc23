//! The desired change of a Rollout's spec, and the policies that apply to it.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::PodTemplate;
use countersign_api::policy::{Difference, Enforcement};
use countersign_api::provenance::Trust;
use countersign_api::rollout::{Change, Outcome, Plan, Revision};
use countersign_api::step::Tier;
use countersign_api::traffic::Router;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::analysis::checks::{self, Checks};
use crate::change;
use crate::limits::RECORDED_ANNOTATION;
use crate::observation::workload::ReplicaSet;
use crate::observation::{self, Observation};
use crate::plan::{self, first_revision, testers, tighten};
use crate::policy::{self, Effective, enforcement};
use crate::provenance::attestation::Verified;
use crate::provenance::attestation::proof::Subject;
use crate::provenance::{Provenance, State, attestation, digest};
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
    /// Whether a deleted Rollout of the same name may have promoted another template, and nothing is stable yet.
    pub made_again: bool,
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
        let made_again = is_made_again(observation, &digest, &template_digest);
        let unknown = Revision::default();
        let former = made_again.then_some(&unknown);
        let read = |effective: &Effective| {
            let subject = || subject(observation, &digest, &template_digest, former);
            let annotations = &observation.annotations;
            let (declared, attested) =
                provenance_of(annotations, template, subject, effective, observation.now);
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
            made_again,
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
        let facts = facts(
            observation,
            &self.effective,
            after_rollback,
            self.made_again,
        );
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
        let facts = facts(observation, effective, after_rollback, self.made_again);
        let risk = risk::risk_of_both(provenance, attested.as_ref(), &facts, &effective.risk);
        let plan = self.plan_by(observation, risk.tier, effective);
        Some(Enforced { risk, plan })
    }

    /// The source revision that runs once the change does: the attested one, where attestations count. A change of the
    /// manifest alone runs that of stable, if it names no other.
    #[must_use]
    pub fn source_revision(&self, observation: &Observation) -> Option<String> {
        let named = match &self.attested {
            Some(attested) => attested.revision.as_ref(),
            None if self.provenance.state == State::Stale => None,
            None => self.provenance.revision.as_ref(),
        };
        let named = named.filter(|it| it.chars().count() <= RECORDED_ANNOTATION);
        let stable = || {
            let stable = observation.status.stable.as_ref()?;
            let facts = facts(observation, &self.effective, false, self.made_again);
            stable
                .source_revision
                .as_ref()
                .filter(|_| facts.manifest_only)
        };
        named.or_else(stable).cloned()
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
        let mut plan = self.plan_by(observation, tier, &self.effective);
        if let Some(enforced) = if_enforced {
            plan.strictness =
                tighten::as_strictly_judged(plan.strictness, enforced.plan.strictness);
        }
        plan
    }

    fn plan_by(&self, observation: &Observation, tier: Tier, effective: &Effective) -> Plan {
        let canary = &observation.spec.strategy.canary;
        let (steps, promotion) = (&canary.steps, &canary.promotion_sign_off);
        let mut plan = plan::plan_for(tier, steps, promotion, effective);
        let traffic = canary.traffic.as_ref();
        if traffic.is_some_and(|it| it.testers.is_some()) {
            testers::sign_first(&mut plan, tier, effective);
        }
        if observation.status.stable.is_none() {
            plan.first_revision = first_revision::sign_off(&plan, tier, effective, self.made_again);
        }
        plan
    }
}

/// The facts about a change that the controller observes itself.
fn facts(
    observation: &Observation,
    effective: &Effective,
    after_rollback: bool,
    made_again: bool,
) -> Facts {
    let differences = differences(observation, made_again);
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
    subject: impl FnOnce() -> Subject<'a>,
    effective: &Effective,
    now: Timestamp,
) -> (Provenance, Option<Provenance>) {
    let verified = attestation::due(annotations, effective).and_then(|envelope| {
        envelope
            .map(|it| attestation::verify(it, &subject(), effective, now))
            .transpose()
    });
    let (declared, attested) = match verified {
        Ok(None) => (Provenance::read(annotations, template), None),
        Ok(Some(verified)) => signed(annotations, template, verified, effective.trust),
        Err(why) => (
            Provenance::read(annotations, template).refused(why),
            Some(Provenance::unattested()),
        ),
    };
    let weighed = |provenance: Provenance| Provenance {
        review_refused: !effective.accepts_review(provenance.review_source),
        ..provenance
    };
    (weighed(declared), attested.map(weighed))
}

/// The provenance of a change with a signed one, which counts as declared if it does not prove this change.
fn signed(
    annotations: &BTreeMap<String, String>,
    template: &PodTemplate,
    verified: Verified,
    trust: Trust,
) -> (Provenance, Option<Provenance>) {
    let (declared, attested) = Provenance::read_both(annotations, &verified.annotations, template);
    match (verified.unproven, trust) {
        (None, _) => (declared, Some(attested)),
        (Some(why), Trust::Attested) => (declared.refused(why.into()), Some(attested.unproven())),
        // The worse of both counts: what is signed, too, is no better than what is declared.
        (Some(why), Trust::Declared) => {
            let declared = declared.with_attestation_problem(why.into());
            (declared, Some(attested))
        }
    }
}

/// The change that an attestation should be of. `former` stands for what a deleted Rollout of the same name ran.
fn subject<'a>(
    observation: &'a Observation,
    digest: &str,
    template_digest: &str,
    former: Option<&'a Revision>,
) -> Subject<'a> {
    let Observation { status, .. } = observation;
    let is_present = |change: &&Change| {
        change.digest == digest && matches!(change.outcome, None | Some(Outcome::Promoted))
    };
    let change = status.change.as_ref().filter(is_present);
    let stable = status.stable.as_ref();
    let first = stable.is_none();
    let stable = stable.filter(|stable| stable.template_digest != template_digest);
    // After its promotion a change is compared with the revision before.
    let previous = || change.and_then(|change| change.previous.as_ref());
    let began = change.and_then(|change| change.started_at.as_ref());
    Subject {
        namespace: &observation.namespace,
        name: &observation.name,
        template: &observation.spec.template,
        stable: stable_template(observation),
        replaced: stable.or_else(previous).or(former),
        first,
        began: began.map_or(observation.now, |at| at.0),
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
    // The first that had it is what it was written for, whatever came in between, and whether the Rollout was
    // deleted since.
    let runs = observation.history().iter().chain(&observation.former);
    let bearers = runs.filter(|run| run.provenance_digest.as_deref() == Some(own));
    if let Some(first) = bearers.min_by_key(|run| run.started_at) {
        // It was stale by then if it was placed on the revision before, of which no record has it.
        let stale = first.provenance_state == State::Stale.to_string();
        return stale || first.template_digest.as_deref() != Some(template_digest);
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

/// Whether a first revision differs from what a deleted Rollout of the same name promoted last, or may: deleting a
/// Rollout must not be a way around the people of its changes.
fn is_made_again(observation: &Observation, digest: &str, template_digest: &str) -> bool {
    let status = &observation.status;
    if status.stable.is_some() {
        return false;
    }
    let under_way = status.change.as_ref().filter(|it| it.digest == digest);
    if let Some(change) = under_way {
        return change.made_again;
    }
    let former = observation.former.iter();
    let promoted = former.filter(|run| run.outcome == Some(Outcome::Promoted));
    let last = promoted.max_by_key(|run| run.ended_at);
    last.is_some_and(|run| run.template_digest.as_deref() != Some(template_digest))
        || observation.unreadable_history().is_some()
}

/// The hash of the ReplicaSet that already runs this template, or a new unique one.
fn hash(observation: &Observation, template_digest: &str) -> (String, i32) {
    let collisions = observation.status.collision_count;
    // Digest, recorded template and owner alone may be anybody's claim.
    let runs_it = |set: &&ReplicaSet| {
        set.is_sound()
            && pods_are_known(observation, set)
            && set.template_digest == template_digest
            && digest::template_digest(&set.template) == template_digest
    };
    let mut sets = observation.replica_sets.iter();
    match sets.find(runs_it) {
        Some(set) => (set.hash.clone(), collisions),
        None => unused_hash(observation, &observation.spec.template, collisions),
    }
}

/// Whether the pods of a ReplicaSet, if it has any, may be taken for those of its template: a revision of the status or
/// of a record has that hash. Others may be from before, when a planted one had another template. A Rollout without a
/// stable revision takes back what one before it left.
fn pods_are_known(observation: &Observation, set: &ReplicaSet) -> bool {
    let status = &observation.status;
    if !set.has_pods() || status.stable.is_none() {
        return true;
    }
    let change = status.change.as_ref();
    let previous = change.and_then(|it| it.previous.as_ref());
    let revisions = status.stable.iter().chain(previous);
    let revisions = revisions.map(|it| &it.pod_template_hash);
    let recorded = observation.history().iter();
    let recorded = recorded.map(|it| &it.pod_template_hash);
    let mut known = revisions
        .chain(change.map(|it| &it.pod_template_hash))
        .chain(recorded);
    known.any(|hash| *hash == set.hash)
}

/// A hash for a template that no ReplicaSet has, with its collision count.
pub(crate) fn unused_hash(
    observation: &Observation,
    template: &PodTemplate,
    mut collisions: i32,
) -> (String, i32) {
    let sets = &observation.replica_sets;
    let mut hash = digest::pod_template_hash(template, collisions);
    let taken = observation.taken_revision.as_ref();
    while taken == Some(&hash) || sets.iter().any(|set| set.hash == hash) {
        collisions = collisions.saturating_add(1);
        hash = digest::pod_template_hash(template, collisions);
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

/// The differences from the stable template. If that cannot be trusted, or is that of a deleted Rollout, all kinds of
/// differences.
fn differences(observation: &Observation, made_again: bool) -> BTreeSet<Difference> {
    let stable = stable_template(observation);
    if made_again || (stable.is_none() && observation.status.stable.is_some()) {
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

/// The template with this digest that the pods with this hash run; `None` if it cannot be trusted: neither the
/// ReplicaSet nor a RolloutRun has it.
pub(crate) fn template_of<'a>(
    observation: &'a Observation,
    hash: &str,
    template_digest: &str,
) -> Option<&'a PodTemplate> {
    let mut sets = observation.replica_sets.iter();
    let kept = sets.find(|set| set.hash == hash).map(|set| &set.template);
    verified([kept], observation, template_digest)
}

/// The template with this digest, of any ReplicaSet or RolloutRun that keeps it.
pub(crate) fn recorded<'a>(
    observation: &'a Observation,
    template_digest: &str,
) -> Option<&'a PodTemplate> {
    let kept = observation.replica_sets.iter();
    let kept = kept.map(|set| Some(&set.template));
    verified(kept, observation, template_digest)
}

/// The first of these templates with this digest, or else that of a RolloutRun.
fn verified<'a>(
    kept: impl IntoIterator<Item = Option<&'a PodTemplate>>,
    observation: &'a Observation,
    template_digest: &str,
) -> Option<&'a PodTemplate> {
    let recorded = std::iter::once_with(|| observation.promoted.get(template_digest));
    let mut all = kept.into_iter().chain(recorded).flatten();
    all.find(|template| digest::template_digest(template) == template_digest)
}

/// The last known proposal, while the workload cannot be read: no change begins or is replaced, and the
/// change under way is still judged.
#[must_use]
pub fn last_known(observation: &Observation) -> Option<Revision> {
    if !observation::is_unreadable(observation) {
        return None;
    }
    let status = &observation.status;
    let change = status.change.as_ref().map(change::revision);
    change.or_else(|| status.stable.clone())
}

#[cfg(test)]
mod tests;
