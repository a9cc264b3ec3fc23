//! How a change begins.

use countersign_api::rollout::{Change, RolloutStatus, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use crate::hold::Hold;
use crate::observation::Observation;
use crate::people::eligibility;
use crate::provenance::Contributor;
use crate::rollout::context::{LATER, Turn};
use crate::rollout::{gates, record};
use crate::workload::adoption;
use crate::{proposal, reason};

impl Turn<'_> {
    /// Who must not sign: it may become more of them while the change is under way, never fewer.
    pub(super) fn note_people(&self, change: &mut Change) {
        let changer = self
            .observation
            .annotations
            .get(countersign_api::CHANGED_BY_ANNOTATION);
        // One in a line: everybody who has changed it since it was last as it was promoted.
        let stamped = changer.iter().flat_map(|stamp| stamp.lines());
        let stamped = stamped.filter(|user| !user.is_empty());
        let mut changers = change.changed_by.clone();
        changers.extend(stamped.map(ToOwned::to_owned));
        let barred = eligibility::barred(self.proposal, &changers);
        // The stamp does not tell who changed an adopted workload, but whoever it names is barred.
        if self.observation.spec.workload_ref.is_none() {
            change.changed_by = changers;
        }
        change.barred.users.extend(barred.users);
        change.barred.groups.extend(barred.groups);
    }

    /// Nothing is under way: a new template starts a change, provenance alone does not (the stable
    /// pods already run it).
    pub(super) fn rest_or_start(&mut self, status: &mut RolloutStatus) -> Option<Hold> {
        if self.observation.deleting {
            return None;
        }
        let obstacle = || adoption::obstacle(self.observation, None);
        if let Some(hold) = gates::conflict(self.observation).or_else(obstacle) {
            self.look_again_after(LATER);
            return Some(hold);
        }
        match &mut status.stable {
            Some(stable) if stable.template_digest == self.proposal.template_digest => {
                stable.digest.clone_from(&self.proposal.digest);
            }
            _ => self.start(status),
        }
        None
    }

    fn start(&mut self, status: &mut RolloutStatus) {
        let Observation { now, .. } = *self.observation;
        let proposal = self.proposal;
        let initial = status.stable.is_none();
        let after_rollback = proposal::after_rollback(self.observation);
        let risk = proposal.risk(self.observation, after_rollback);
        // What a key attests of it is more than what is declared.
        let provenance = proposal.attested.as_ref().unwrap_or(&proposal.provenance);
        let contributor = provenance.contributor.unwrap_or(Contributor::Unknown);
        let behind = std::mem::take(&mut self.behind);
        status.attempts = status.attempts.saturating_add(1);
        status.revision = status.revision.saturating_add(1);
        let mut change = Change {
            digest: proposal.digest.clone(),
            pod_template_hash: proposal.hash.clone(),
            template_digest: proposal.template_digest.clone(),
            revision: status.revision,
            run: record::name(&self.observation.name, &proposal.digest, status.attempts),
            started_at: Some(Time(now)),
            progressed_at: Some(Time(now)),
            initial,
            score: risk.score,
            tier: risk.tier,
            contributor: contributor.as_str().to_owned(),
            after_rollback,
            changed_by: behind.changed_by,
            barred: behind.barred,
            plan: proposal.plan(self.observation, risk.tier),
            stage: if initial {
                Stage::Promoting
            } else {
                Stage::Waiting
            },
            weight: if initial { 100 } else { 0 },
            ..Change::default()
        };
        self.note_people(&mut change);
        // A first revision has one line, when it serves.
        if !initial {
            let weights: Vec<_> = change
                .plan
                .steps
                .iter()
                .map(|step| format!("{}%", step.weight))
                .collect();
            let changers: Vec<_> = change.changed_by.iter().map(String::as_str).collect();
            let by = match changers.as_slice() {
                [] => String::new(),
                changers => format!("; changed by {}", changers.join(", ")),
            };
            let anew = match &self.observation.unknown_status {
                None => String::new(),
                Some(unknown) => {
                    format!("; what was under way begins anew, as this build cannot read {unknown}")
                }
            };
            let unknown = match &self.observation.records_unreadable {
                None => String::new(),
                Some(problem) => {
                    format!("; it counts as one after a rollback, as {problem}")
                }
            };
            let message = format!(
                "tier {} with {:.1} points; steps {}{by}{anew}{unknown}",
                risk.tier,
                risk.score,
                weights.join(", ")
            );
            self.tell(&mut change, reason::CHANGE_STARTED, message);
            self.look_again_after(SignedDuration::ZERO);
        }
        status.change = Some(change);
    }
}
