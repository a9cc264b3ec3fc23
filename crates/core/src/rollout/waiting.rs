//! What happens while a gate is closed, and at its deadline.

use countersign_api::Duration;
use countersign_api::policy::OnScarceEvidence;
use countersign_api::rollout::{Change, Stage, WaitingKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::hold::{Hold, HoldKind};
use crate::people::sign_off;
use crate::queue::concurrency;
use crate::rollout::context::{FIRST_PODS, LATER, SOON, TRAFFIC, Turn};
use crate::workload::smoke;
use crate::{change, reason};

impl Turn<'_> {
    pub(super) fn patience(&self) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.observation.spec.progress_deadline_seconds))
    }

    /// The end of the time without progress: it counts from the last progress, or the end of the bake
    /// and the warm-up.
    fn deadline(&self, change: &Change) -> Timestamp {
        self.after_patience(change, change.progressed_at.as_ref())
    }

    /// The end of the time that is given to scarce evidence: it counts from when the pods were there, or
    /// the end of the bake and the warm-up, and not while the change was held for another reason.
    pub(super) fn evidence_deadline(&self, change: &Change) -> Timestamp {
        let since = change
            .available_at
            .as_ref()
            .max(change.evidence_since.as_ref());
        self.after_patience(change, since.or(change.progressed_at.as_ref()))
    }

    fn after_patience(&self, change: &Change, since: Option<&Time>) -> Timestamp {
        let since = since.map_or(self.observation.now, |at| at.0);
        let since = change::bake_ends(change).map_or(since, |bake| bake.max(since));
        let warm = change.available_at.as_ref().max(change.warm_from.as_ref());
        let warms = change.stage == Stage::Stepping && change.warm_up > Duration::default();
        let warm = warm.filter(|_| warms);
        let warm = warm.and_then(|at| at.0.saturating_add(change.warm_up.signed()).ok());
        let since = warm.map_or(since, |warm| warm.max(since));
        since
            .saturating_add(self.patience())
            .unwrap_or(Timestamp::MAX)
    }

    /// A gate is closed: what that means depends on what the change waits for, and for how long.
    pub(super) fn wait(&mut self, change: &mut Change, hold: Hold) -> Option<Hold> {
        self.start_clock(change, hold.kind);
        self.waits = Some(hold.kind.remembered());
        match hold.kind {
            HoldKind::Wish => {
                change.awaited_gates.clear(); // people have their whole time afterwards
                let effective = &self.proposal.effective;
                if let Some(patience) =
                    concurrency::patience(self.observation, change, effective, &hold)
                {
                    self.look_again_after(patience);
                }
                Some(hold)
            }
            HoldKind::Time(until) => {
                self.look_again(until);
                Some(hold)
            }
            HoldKind::People => {
                let (gate, _) = sign_off::next_gate(change);
                self.await_people(change, gate, hold)
            }
            HoldKind::Doubt => self.doubt(change, hold),
            HoldKind::Scarce => self.scarce(change, hold),
        }
    }

    /// A deadline runs only while the change is held for its sake: it starts when a hold of that kind
    /// follows one for which another clock ran, or none.
    fn start_clock(&self, change: &mut Change, kind: HoldKind) {
        let before = &self.observation.status;
        // Builds before this one did not remember the kind.
        let unknown = before.waiting_for.as_ref().map(|_| WaitingKind::Wish);
        let Some(before) = before.waiting_kind.or(unknown) else {
            return;
        };
        let now = Some(Time(self.observation.now));
        match (kind, before) {
            (HoldKind::Doubt, WaitingKind::Wish | WaitingKind::People | WaitingKind::Scarce) => {
                change.progressed_at = now;
            }
            (HoldKind::Scarce, WaitingKind::Wish | WaitingKind::People) => {
                change.evidence_since = now;
            }
            _ => {}
        }
    }

    /// Each gate has its own time, which goes on while something else holds for a moment.
    fn await_people(&mut self, change: &mut Change, gate: String, hold: Hold) -> Option<Hold> {
        let now = Time(self.observation.now);
        let since = change.awaited_gates.entry(gate).or_insert(now).0;
        let patience = change.plan.strictness.wait_at_most;
        let until = since
            .saturating_add(patience.signed())
            .unwrap_or(Timestamp::MAX);
        if self.observation.now >= until {
            self.roll_back(
                change,
                reason::WAIT_EXPIRED,
                format!("nobody answered for {patience}: {}", hold.message),
            );
            return None;
        }
        self.look_again(until);
        Some(hold)
    }

    /// Doubt never promotes: at the deadline it rolls back, except where nothing serves yet.
    fn doubt(&mut self, change: &mut Change, hold: Hold) -> Option<Hold> {
        let polled = [
            reason::SERVICE_NOT_FOUND,
            reason::WISHES_UNREADABLE,
            reason::CHECK_INVALID,
            reason::WORKLOAD_INVALID,
            reason::AWAITING_PODS,
            reason::ROUTER_NOT_INSTALLED,
            reason::ROUTE_NOT_FOUND,
            reason::ROUTE_INVALID,
        ];
        if hold.reason == reason::AWAITING_PODS && change.initial {
            self.look_again_after(FIRST_PODS);
        } else if polled.contains(&hold.reason.as_str()) {
            self.look_again_after(SOON);
        }
        if hold.reason == reason::AWAITING_TRAFFIC {
            let lately = change.progressed_at.as_ref();
            let lately = lately.is_some_and(|at| self.observation.now.duration_since(at.0) < LATER);
            self.look_again_after(if lately { TRAFFIC } else { SOON });
        }
        let deadline = match change.stage {
            Stage::Waiting => smoke::deadline(self.observation, change)
                .filter(|_| hold.reason == reason::AWAITING_SMOKE),
            _ => Some(self.deadline(change)),
        };
        let Some(deadline) = deadline else {
            return Some(hold);
        };
        if change.initial && self.observation.now >= deadline {
            return Some(hold); // nothing else serves, so there is nothing to go back to
        }
        if self.observation.now < deadline {
            self.look_again(deadline);
            return Some(hold);
        }
        let seconds = self.observation.spec.progress_deadline_seconds;
        let message = format!(
            "no progress for {seconds} s: {}: {}",
            hold.reason, hold.message
        );
        self.roll_back(change, reason::PROGRESS_DEADLINE_EXCEEDED, message);
        None
    }

    /// The evidence is clean but scarce; at the deadline the tier decides.
    fn scarce(&mut self, change: &mut Change, hold: Hold) -> Option<Hold> {
        let deadline = self.evidence_deadline(change);
        if self.observation.now < deadline {
            self.look_again(deadline);
            return Some(hold);
        }
        match change.plan.strictness.on_scarce_evidence {
            OnScarceEvidence::RollBack => {
                self.roll_back(
                    change,
                    reason::PROGRESS_DEADLINE_EXCEEDED,
                    format!("too little evidence: {}", hold.message),
                );
                None
            }
            OnScarceEvidence::Extend if !change.extended => {
                change.extended = true;
                change.evidence_since = Some(Time(self.observation.now));
                self.tell(
                    change,
                    reason::DEADLINE_EXTENDED,
                    format!("once more: {}", hold.message),
                );
                self.look_again_after(SOON);
                Some(hold)
            }
            _ => {
                let gate = format!("evidence-{}", change.step);
                let hold = Hold {
                    kind: HoldKind::People,
                    reason: reason::AWAITING_PERSON.into(),
                    message: format!("gate {gate} asks for 1 person: {}", hold.message),
                };
                self.await_people(change, gate, hold)
            }
        }
    }
}
