//! The next step.

use countersign_api::Duration;
use countersign_api::rollout::{Change, Loss, Outcome, Reached, Revision, RolloutStatus, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::analysis::gather;
use crate::analysis::verdict::Verdict;
use crate::hold::Hold;
use crate::people::freeze;
use crate::people::sign_off::SignOffs;
use crate::queue::concurrency;
use crate::reason;
use crate::replicas::{Limits, present};
use crate::rollout::context::{LATER, PROGRESS, Turn};
use crate::rollout::gates::{self, Situation};
use crate::rollout::transition;
use crate::workload::smoke;

impl Turn<'_> {
    /// The change is under way: its evidence is judged first, then the gates are asked.
    pub(super) fn advance(
        &mut self,
        status: &mut RolloutStatus,
        change: &mut Change,
    ) -> Option<Hold> {
        self.look_again_after(LATER); // an event may have been missed
        self.tighten(change);
        let verdict = self.judge(change);
        let effective = &self.proposal.effective;
        let sign_offs = SignOffs::of(self.observation, self.proposal, change);
        let freezes = freeze::freezes(self.observation, effective, change.tier);
        self.hear_sign_offs(change, &sign_offs);
        self.hear_smoke(change);
        if let Some((why, message)) = self.verdict_against(change, &verdict, &sign_offs, &freezes) {
            self.roll_back(change, why, message);
            return None;
        }
        let moments = [freezes.look_again_at, sign_offs.next_expiry()];
        moments
            .into_iter()
            .flatten()
            .for_each(|at| self.look_again(at));
        let limits = present::limits(self.observation);
        let seen = RolloutStatus {
            change: Some(change.clone()),
            ..status.clone()
        };
        let present = present::present(self.observation, &seen);
        let serves = gates::serves(&Situation {
            observation: self.observation,
            change,
            limits,
            present: &present,
            verdict: &verdict,
            scarce_accepted: false,
            sign_offs: &sign_offs,
            freezes: &freezes,
            checks: &self.proposal.checks,
            effective,
            status: &seen,
        });
        // An idle Rollout needs no pods, and learns nothing.
        let idle = self.observation.spec.replicas == 0;
        self.note_service(change, serves && !idle);
        self.note_growth(change, limits);
        let scarce_accepted = self.accepts_scarcity(change, &verdict, &sign_offs);
        let hold = gates::first_closed(&Situation {
            observation: self.observation,
            change,
            limits,
            present: &present,
            verdict: &verdict,
            scarce_accepted,
            sign_offs: &sign_offs,
            freezes: &freezes,
            checks: &self.proposal.checks,
            effective,
            status: &seen,
        });
        self.look_for_evidence(change);
        smoke::keep_time(self.observation, change, hold.as_ref());
        concurrency::keep_place(self.observation, change, hold.as_ref());
        if let Some(hold) = hold {
            return self.wait(change, hold);
        }
        if scarce_accepted {
            let message = format!(
                "what there is suffices: {}",
                transition::verdict_line(&verdict)
            );
            self.tell(change, reason::SCARCE_EVIDENCE_ACCEPTED, message);
        }
        self.go_on(status, change, &verdict);
        None
    }

    /// Bake and warm-up count the time in which the pods of the step are there: it stops while some are
    /// missing, and where all were lost, the new ones warm up from their beginning.
    fn note_service(&self, change: &mut Change, serves: bool) {
        if change.stage != Stage::Stepping {
            return;
        }
        let now = self.observation.now;
        let cold = self.available(&change.pod_template_hash) == 0;
        match (&mut change.available_at, &mut change.lost) {
            (None, _) if serves => {
                change.available_at = Some(Time(now));
                change.progressed_at = Some(Time(now));
            }
            (Some(_), None) if !serves => {
                let since = Time(now);
                change.lost = Some(Loss { since, all: cold });
            }
            (Some(_), Some(lost)) if !serves => lost.all |= cold,
            (Some(since), Some(lost)) => {
                let missed = now.duration_since(lost.since.0);
                since.0 = since.0.saturating_add(missed).unwrap_or(now);
                if lost.all {
                    change.warm_from = Some(Time(now));
                }
                change.lost = None;
            }
            _ => {}
        }
    }

    /// Each pod of the canary that becomes available is progress, and so is each share that settles.
    fn note_growth(&self, change: &mut Change, limits: Limits) {
        let goal = match change.stage {
            Stage::Stepping => present::step_goal(limits, change).canary,
            Stage::Promoting => limits.desired,
            _ => return,
        };
        // Fewer replicas are asked for now: what comes on top of them later is progress again.
        change.progress.available = change.progress.available.min(goal);
        let split = self.observation.status.traffic.as_ref();
        let settled = split.filter(|split| split.settled_at.is_some());
        let reached = Reached {
            available: self.available(&change.pod_template_hash).min(goal),
            weight: settled.map_or(0, |split| split.settled_weight.min(change.weight)),
        };
        self.note_progress(change, reached);
    }

    /// Progress that comes in bits is written a few times in a deadline, not with every pod.
    pub(super) fn note_progress(&self, change: &mut Change, reached: Reached) {
        let before = change.progress;
        let more = reached.available > before.available || reached.weight > before.weight;
        let since = change.progressed_at.as_ref();
        let lately = since.is_some_and(|at| {
            let interval = (self.patience() / 10).min(PROGRESS);
            self.observation.now.duration_since(at.0) < interval
        });
        if more && !lately {
            change.progress = Reached {
                available: reached.available.max(before.available),
                weight: reached.weight.max(before.weight),
            };
            change.progressed_at = Some(Time(self.observation.now));
        }
    }

    /// Available pods of a revision.
    pub(super) fn available(&self, hash: &str) -> i32 {
        let sets = self.observation.replica_sets.iter();
        let own = sets.filter(|set| set.owned && set.hash == hash);
        own.map(|set| set.available).sum()
    }

    /// All gates are open.
    fn go_on(&mut self, status: &mut RolloutStatus, change: &mut Change, verdict: &Verdict) {
        let next = usize::try_from(change.step).unwrap_or(0);
        let steps = change.plan.steps.len();
        match (
            change.stage,
            change.plan.steps.get(next).map(|step| step.weight),
        ) {
            (Stage::Promoting, _) => self.promote(status, change),
            (_, Some(weight)) => {
                self.enter(change, Stage::Stepping, weight);
                change.step += 1;
                let because = if next == 0 {
                    "the first step".into()
                } else {
                    transition::verdict_line(verdict)
                };
                self.tell(
                    change,
                    reason::STEP_STARTED,
                    format!("step {} of {steps}, weight {weight}%: {because}", next + 1),
                );
            }
            (_, None) => {
                self.enter(change, Stage::Promoting, 100);
                let passed = match steps {
                    1 => "the only step has passed".to_owned(),
                    steps => format!("all {steps} steps have passed"),
                };
                let message = format!("{passed}: {}", transition::verdict_line(verdict));
                self.tell(change, reason::PROMOTING, message);
            }
        }
        self.went_on = true;
    }

    fn promote(&mut self, status: &mut RolloutStatus, change: &mut Change) {
        let (revision, tier, score) = (change.revision, change.tier, change.score);
        let message = if change.initial {
            format!(
                "revision {revision} is stable now, the first: tier {tier} with {score:.1} points, and nothing to compare it with"
            )
        } else {
            format!("revision {revision} is stable now")
        };
        self.end(change, Outcome::Promoted, reason::PROMOTED, message);
        let delay = self.observation.spec.strategy.canary.scale_down_delay;
        if delay > Duration::default() && !change.initial {
            let until = self.observation.now.saturating_add(delay.signed());
            change.kept_until = until.ok().map(Time);
            change.previous.clone_from(&status.stable);
        }
        if change.post_promotion > Duration::default() && !change.initial {
            let watch = change.post_promotion.signed();
            let until = self.observation.now.saturating_add(watch);
            change.watched_until = until.ok().map(Time);
            change.previous.clone_from(&status.stable);
            let shares = transition::shares(change);
            gather::rearm(&mut change.evidence, shares);
            for check in &mut change.evidence.checks {
                check.stable_ceiling = None; // there is no stable revision beside it any more
            }
        }
        status.stable = Some(Revision {
            pod_template_hash: change.pod_template_hash.clone(),
            template_digest: change.template_digest.clone(),
            digest: change.digest.clone(),
            revision: change.revision,
            run: Some(change.run.clone()),
        });
    }
}
