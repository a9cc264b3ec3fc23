//! The state machine: from one observation to one decision.
//!
//! ```text
//!            change seen            gates open            last step done         pods available
//!   Stable ───────────── Waiting ───────────── Stepping ───────────────── Promoting ─────────── Promoted
//!     ▲                     │                     │  ▲ next step              │                    │
//!     │                     │ evidence fails, a deadline passes, a newer or  │                    │
//!     │                     ▼ the stable template appears                    ▼                    │
//!     │                RollingBack ──────────── RolledBack (Degraded until the template changes)  │
//!     └───────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What was promoted may be watched on: where it breaks, it is rolled back too.
//!
//! One decision makes at most one transition; it is written to the status before anything is done
//! about it, and what is done follows from the status alone, so a crash at any point loses nothing.

use std::collections::BTreeSet;

use countersign_api::Duration;
use countersign_api::analysis::CheckMode;
use countersign_api::freeze::FreezeAction;
use countersign_api::intervention::InterventionAction;
use countersign_api::objective::OnBurn;
use countersign_api::policy::OnScarceEvidence;
use countersign_api::rollout::{
    Barred, Change, CheckVerdict, Evidence, Loss, Outcome, Reached, Revision, RolloutStatus, Stage,
    Transition, WaitingKind,
};
use countersign_api::sign_off::SignOffDecision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::analysis::checks::{self, Checks};
use crate::analysis::verdict::{self, Verdict};
use crate::analysis::{budget, gather, summary};
use crate::decision::{Action, Decision, Notice};
use crate::gate::{self, Situation};
use crate::hold::{Hold, HoldKind};
use crate::observation::people::SeenIntervention;
use crate::observation::{self, Observation};
use crate::people::freeze::{self, Freezes};
use crate::people::sign_off::{self, SignOffs};
use crate::people::{answers, eligibility, intervention};
use crate::plan::tighten;
use crate::proposal::{self, Proposal};
use crate::provenance::Contributor;
use crate::queue::{concurrency, dependencies};
use crate::replicas::{Limits, present};
use crate::rollout::actions;
use crate::traffic::{corrections, routes, services, settle, share};
use crate::workload::{adoption, cleanup, pods, scaling, smoke, smoke_job};
use crate::{change, reason, record, standing, text};

/// Most lines of one change, as the schema has it.
const MAX_TRANSITIONS: usize = 256;
/// Lines that are kept for how a change ends and what follows.
const LAST_LINES: usize = 16;
/// Lines that are kept for broken glass, beyond those of other people.
const LOUD_LINES: usize = 16;
/// Most lines about what people sign and command.
const MAX_PEOPLE: usize = 80;
/// Most of these about pauses, which anybody may make without end.
const MAX_PAUSES: usize = 40;
/// Most sign-offs and interventions that are heard for one change; an abort always is.
const MAX_HEARD: usize = 180;
/// Most lines that hold evidence, so that the status of a long story can still be written.
const MAX_EVIDENCE: usize = 50;
/// Longest message of a line, in characters.
const MAX_MESSAGE: usize = 2_000;
/// The same with those that break the glass, which are never silent.
const MAX_LOUD: usize = 195;
/// When to look again at what no watch reports.
const SOON: SignedDuration = SignedDuration::from_secs(5);
/// The same for pods of a first revision: that they are there is reported, and there is no way back.
const FIRST_PODS: SignedDuration = SignedDuration::from_secs(15);
/// When to look again while routes and Services are not as they should be.
const TRAFFIC: SignedDuration = SignedDuration::from_millis(500);
/// How often progress is noted at most; more often where the deadline is short.
const PROGRESS: SignedDuration = SignedDuration::from_secs(30);
/// Longest time by which looks for evidence are spread.
const LONGEST_SPREAD: SignedDuration = SignedDuration::from_secs(5);
/// When to look again at a change under way if nothing else happens.
const LATER: SignedDuration = SignedDuration::from_mins(1);

/// Decides what to do about one Rollout. Pure: the same observation always gives the same decision.
#[must_use]
pub fn decide(observation: &Observation) -> Decision {
    let proposal = Proposal::of(observation);
    let mut status = observation.status.clone();
    status.collision_count = proposal.collision_count;
    let mut turn = Turn {
        observation,
        proposal: &proposal,
        look_again_at: None,
        went_on: false,
        behind: Behind::default(),
        ended: None,
        waits: None,
    };
    let hold = turn.take(&mut status);
    status.waiting_kind = turn.waits;
    let answers = answers::of(observation, &proposal, &status);
    let told = turn.ended.as_ref().or(status.change.as_ref());
    let record = told.and_then(|change| record::of(observation, &proposal, change));
    settle::note(observation, &mut status);
    services::note_services(observation, &mut status);
    turn.look_at_traffic(&status);
    // A first revision gets no pods before what it depends on is stable, whichever gate is asked first.
    let begun = status.change.as_ref();
    let depends = begun
        .is_some_and(|change| dependencies::awaited_dependencies(observation, change).is_some());
    let mut actions = actions::actions(
        observation,
        &proposal,
        &status,
        depends || hold.as_ref().is_some_and(|it| it.holds_promotion(begun)),
    );
    actions.extend(smoke_job::actions(observation, &status, hold.as_ref()));
    turn.look_again_after_acting(&status, &actions);
    if let Some(due) = scaling::next_answer(observation) {
        turn.look_again(due);
    }
    let adoption = adoption::step(observation, &proposal, &mut status, &actions);
    actions.extend(adoption.actions);
    adoption
        .look_again_at
        .into_iter()
        .for_each(|at| turn.look_again(at));
    let hold = adoption.hold.or(hold);
    let mut notices = notices(observation, turn.ended.as_ref().or(status.change.as_ref()));
    standing::describe(observation, &proposal, &mut status, hold.as_ref());
    if let Some(at) = standing::keep_quiet(observation, &mut status, hold.as_ref()) {
        turn.look_again(at);
    } else {
        notices.extend(hold_notice(observation, hold.as_ref()));
    }
    notices.extend(corrections::correction_notice(observation, &status));
    notices.extend(adoption.notices);
    notices.extend(services::stand_in_notice(observation, &status, &actions));
    notices.extend(services::release_notices(&actions, observation));
    // Much of what is told are the words of others.
    for notice in &mut notices {
        notice.message = text::shown(&notice.message, MAX_MESSAGE);
    }
    Decision {
        status,
        actions,
        answers,
        notices,
        record,
        look_again_at: turn.look_again_at,
    }
}

/// One decision in the making.
struct Turn<'a> {
    observation: &'a Observation,
    proposal: &'a Proposal,
    look_again_at: Option<Timestamp>,
    /// Whether all gates were open.
    went_on: bool,
    /// Who was behind the change that ended just now, as far as they are behind the next one, too.
    behind: Behind,
    /// A first revision that serves now: the status needs it no more, its record and Event do.
    ended: Option<Change>,
    /// The kind of the closed gate.
    waits: Option<WaitingKind>,
}

/// People who are behind a change.
#[derive(Default)]
struct Behind {
    changed_by: BTreeSet<String>,
    barred: Barred,
}

impl Behind {
    /// Another provenance for the same pods has the same people behind it. What was never promoted lives on
    /// in what replaces it: an edit by somebody else makes nobody the approver of their own change.
    fn of(change: Change, proposal: &Proposal) -> Self {
        if change.outcome != Some(Outcome::Promoted) {
            return Self {
                changed_by: change.changed_by,
                barred: change.barred,
            };
        }
        let same = change.template_digest == proposal.template_digest;
        Self {
            changed_by: if same {
                change.changed_by
            } else {
                BTreeSet::new()
            },
            barred: Barred::default(),
        }
    }
}

impl Turn<'_> {
    fn take(&mut self, status: &mut RolloutStatus) -> Option<Hold> {
        match status.change.take() {
            None => self.rest_or_start(status),
            Some(change) if change.outcome.is_some() => self.conclude(status, change),
            Some(change) if self.observation.deleting => {
                self.leave(status, change);
                None
            }
            Some(change) if change.digest != self.proposal.digest => {
                self.replace(status, change);
                None
            }
            Some(mut change) => {
                self.note_people(&mut change);
                self.hear_interventions(&mut change);
                let hold = if change.outcome.is_none() {
                    self.advance(status, &mut change)
                } else {
                    None
                };
                // Nothing follows for it; where it could not be recorded the status keeps it for that.
                let over = change.initial && change.outcome == Some(Outcome::Promoted);
                if over && self.observation.write_failure.is_none() {
                    self.look_again_at = None;
                    self.ended = Some(change);
                } else {
                    status.change = Some(change);
                }
                hold
            }
        }
    }

    /// Who must not sign: it may become more of them while the change is under way, never fewer.
    fn note_people(&self, change: &mut Change) {
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

    /// What people command is done once, in the order in which they did; an abort comes before all.
    fn hear_interventions(&mut self, change: &mut Change) {
        let unheard = intervention::unheard(self.observation, change);
        let abort = |it: &&&SeenIntervention| it.spec.action == InterventionAction::Abort;
        if let Some(abort) = unheard.iter().find(abort).filter(|_| !change.initial) {
            change.heard.insert(abort.uid.clone());
            let message = format!("aborted by {}", intervention::words(abort));
            self.roll_back(change, reason::ABORTED, message);
            return;
        }
        for it in unheard {
            let followed = self.follow(change, it);
            self.remember(change, it, followed);
        }
    }

    /// What was answered need not be remembered. More than fits is followed again at the next look, to the
    /// same end: the last command counts.
    fn remember(&self, change: &mut Change, it: &SeenIntervention, followed: bool) {
        let uids = if followed {
            &mut change.heard
        } else {
            &mut change.in_vain
        };
        if uids.len() >= MAX_HEARD && self.observation.unreadable_wishes.is_empty() {
            let mut seen = self.observation.interventions.iter();
            let answered = seen.by_ref().filter(|it| it.answered);
            for it in answered {
                uids.remove(&it.uid);
            }
        }
        if uids.len() < MAX_HEARD {
            uids.insert(it.uid.clone());
        }
    }

    /// Follows one command; `false` where there is nothing to do.
    fn follow(&self, change: &mut Change, it: &SeenIntervention) -> bool {
        let words = intervention::words(it);
        match it.spec.action {
            InterventionAction::Pause if change.paused_by.is_none() => {
                change.paused_by = Some(it.spec.person.username.clone());
                self.tell(
                    change,
                    reason::PAUSED_BY_PERSON,
                    format!("paused by {words}"),
                );
            }
            InterventionAction::Resume if change.paused_by.is_some() => {
                change.paused_by = None;
                self.tell(change, reason::RESUMED, format!("resumed by {words}"));
            }
            InterventionAction::Promote
                if self.bakes(change) && it.spec.step == Some(change.step) =>
            {
                change.bake_skipped = Some(change.step);
                let message = format!("the rest of the bake is skipped by {words}");
                self.tell(change, reason::BAKE_SKIPPED, message);
            }
            _ => return false,
        }
        true
    }

    fn bakes(&self, change: &Change) -> bool {
        let stepping = change.stage == Stage::Stepping && change.bake_skipped != Some(change.step);
        stepping && change::bake_ends(change).is_none_or(|end| end > self.observation.now)
    }

    /// Every sign-off that counts is told once, with the evidence that the person could see.
    fn hear_sign_offs(&self, change: &mut Change, sign_offs: &SignOffs) {
        for it in sign_offs.all().filter(|it| it.refused.is_none()) {
            let it = it.sign_off;
            let loud = it.spec.decision == SignOffDecision::BreakGlass;
            let full = change.heard.len() >= MAX_HEARD && !loud;
            if full || change.heard.len() >= MAX_LOUD || !change.heard.insert(it.uid.clone()) {
                continue;
            }
            let said = intervention::said(&it.spec.approver.username, it.spec.reason.as_deref());
            let gate = it.spec.gate.as_deref().unwrap_or("all gates");
            match it.spec.decision {
                SignOffDecision::Approve => {
                    self.tell(
                        change,
                        reason::SIGNED_OFF,
                        format!("{gate} signed off by {said}"),
                    );
                }
                SignOffDecision::BreakGlass => {
                    let message =
                        format!("waiting and sign-off are skipped, analysis is not, by {said}");
                    self.tell(change, reason::BREAK_GLASS, message);
                }
                SignOffDecision::Reject => {} // the rollback tells it
            }
        }
    }

    /// A smoke check that has succeeded is told once, and is not asked for again.
    fn hear_smoke(&self, change: &mut Change) {
        if let Some(message) = smoke::success(self.observation, change) {
            change.smoke.get_or_insert_default().passed = true;
            self.tell(change, reason::SMOKE_PASSED, message);
        }
    }

    /// Nothing is under way: a new template starts a change, provenance alone does not (the stable
    /// pods already run it).
    fn rest_or_start(&mut self, status: &mut RolloutStatus) -> Option<Hold> {
        if self.observation.deleting {
            return None;
        }
        let obstacle = || adoption::obstacle(self.observation, None);
        if let Some(hold) = gate::conflict(self.observation).or_else(obstacle) {
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

    /// The Rollout is being deleted: what is under way ends, so that stable serves alone before pods are
    /// given back. A first revision stays as it is: there is nothing to go back to.
    fn leave(&mut self, status: &mut RolloutStatus, mut change: Change) {
        if !change.initial {
            let message = "the Rollout is being deleted".into();
            self.roll_back(&mut change, reason::ABORTED, message);
        }
        status.change = Some(change);
    }

    /// The template changed while a change was under way.
    fn replace(&mut self, status: &mut RolloutStatus, mut change: Change) {
        let back = status
            .stable
            .as_ref()
            .is_some_and(|stable| stable.template_digest == self.proposal.template_digest);
        if back {
            self.end(
                &mut change,
                Outcome::Reverted,
                reason::REVERTED,
                "the template went back to the stable one".into(),
            );
        } else {
            let message = format!(
                "another change took its place: {}",
                short(&self.proposal.digest)
            );
            self.end(
                &mut change,
                Outcome::Superseded,
                reason::SUPERSEDED,
                message,
            );
        }
        status.change = Some(change);
        self.look_again_after(SignedDuration::ZERO);
    }

    /// The change has ended: its pods go, and what follows waits until its record is complete.
    fn conclude(&mut self, status: &mut RolloutStatus, mut change: Change) -> Option<Hold> {
        let promoted = change.outcome;
        // A retry that was asked for before there was anything to retry is none.
        if promoted == Some(Outcome::Promoted) {
            self.ignore_interventions(&mut change);
        }
        self.watch(status, &mut change);
        if change.outcome != promoted {
            status.change = Some(change); // it is told and recorded before anything else begins
            return None;
        }
        if change.stage == Stage::RollingBack {
            let stable = status.stable.as_ref();
            let available = stable.map_or(0, |it| self.available(&it.pod_template_hash));
            let available = available.min(present::limits(self.observation).desired);
            self.note_progress(
                &mut change,
                Reached {
                    available,
                    weight: 0,
                },
            );
        }
        let seen = RolloutStatus {
            change: Some(change.clone()),
            ..status.clone()
        };
        let gone = cleanup::stable_is_alone(self.observation, &seen);
        if gone && change.stage == Stage::RollingBack {
            change.stage = Stage::RolledBack;
            self.tell(
                &mut change,
                reason::ROLLED_BACK,
                "the rejected revision has no pods any more".into(),
            );
        }
        // What failed stays failed until the template or its provenance changes.
        let same = is_same(&change, self.proposal);
        let stable_again = status
            .stable
            .as_ref()
            .is_some_and(|stable| stable.template_digest == self.proposal.template_digest);
        let over = match change.outcome {
            Some(Outcome::Promoted) => {
                let replaced = change.template_digest != self.proposal.template_digest;
                replaced || (gone && !change::is_watched(&change) && change.kept_until.is_none())
            }
            Some(Outcome::RolledBack) if same => gone && self.is_retried(&mut change),
            _ => gone || !stable_again,
        };
        // Else the next change would begin with the share of this one, or before stable serves again.
        let traffic_is_back = change.outcome == Some(Outcome::Promoted)
            || (settle::is_over(self.observation, &seen)
                && !services::stable_side_waits(self.observation, &seen))
            || change::is_overdue(self.observation, &change);
        let over = over && traffic_is_back;
        // What comes next cannot be told while the adopted workload cannot be read.
        let unreadable = observation::is_unreadable(self.observation) && !self.observation.deleting;
        let over = over && (!unreadable || change.outcome == Some(Outcome::Promoted));
        if over && (self.observation.recorded || self.ended_long_ago(&change)) {
            self.behind = Behind::of(change, self.proposal);
            return self.rest_or_start(status);
        }
        self.ignore_interventions(&mut change);
        self.look_again_after(if over { SOON } else { LATER });
        if change.stage == Stage::RolledBack && !over && !is_to_be_retried(&change) {
            self.look_again_at = None;
        }
        status.change = Some(change);
        gate::stable_lost(self.observation, status)
    }

    /// After its promotion a change is watched by what needs no comparison: where that breaks, or the
    /// template goes back, the previous revision is the stable one again, without steps.
    fn watch(&mut self, status: &mut RolloutStatus, change: &mut Change) {
        let Some(previous) = &change.previous else {
            return;
        };
        if previous.template_digest == self.proposal.template_digest {
            let message = "the template went back to the previous revision".into();
            self.come_back(status, change, Outcome::Reverted, reason::REVERTED, message);
            return;
        }
        self.keep_previous(change);
        let Some(until) = change.watched_until.clone() else {
            return;
        };
        let verdict = self.judge(change);
        let broken = match verdict {
            Verdict::Fail { message } => Some(message),
            _ => budget::burns(change, OnBurn::RollBack),
        };
        if let Some(message) = broken {
            self.come_back(
                status,
                change,
                Outcome::RolledBack,
                reason::REGRESSED,
                message,
            );
            return;
        }
        self.look_for_evidence(change);
        if self.observation.now < until.0 {
            self.look_again(until.0);
            return;
        }
        let judged = verdict::has_counted_until(change, until.0);
        let patience = self.patience();
        let patience = patience.saturating_add(self.observation.lag.signed());
        let latest = until.0.saturating_add(patience).unwrap_or(Timestamp::MAX);
        if !judged && self.observation.now < latest {
            return; // its last windows are still to come
        }
        change.watched_until = None;
        self.keep_previous(change);
        let message = if judged {
            format!("nothing broke for {}", change.post_promotion)
        } else {
            let seen = summary::line(&change.evidence);
            format!(
                "it could not be judged to the end of {}: {seen}",
                change.post_promotion
            )
        };
        self.tell(change, reason::WATCHED, message);
    }

    /// The previous revision is known for as long as it is kept or the change is watched.
    fn keep_previous(&mut self, change: &mut Change) {
        match &change.kept_until {
            Some(until) if until.0 > self.observation.now => self.look_again(until.0),
            _ => change.kept_until = None,
        }
        if change.kept_until.is_none() && change.watched_until.is_none() {
            change.previous = None;
        }
    }

    /// Makes the previous revision the stable one again, if it is still there.
    fn come_back(
        &mut self,
        status: &mut RolloutStatus,
        change: &mut Change,
        outcome: Outcome,
        why: &str,
        message: String,
    ) {
        (change.watched_until, change.kept_until) = (None, None);
        let Some(previous) = change.previous.take() else {
            return;
        };
        let is_kept = self.observation.replica_sets.iter().any(|set| {
            set.owned
                && set.hash == previous.pod_template_hash
                && set.template_digest == previous.template_digest
        });
        let recorded = &self.observation.promoted;
        if is_kept || recorded.contains_key(&previous.template_digest) {
            let available = self.available(&previous.pod_template_hash);
            status.stable = Some(previous);
            self.end(change, outcome, why, message);
            change.progress.available = available;
        } else {
            let message = format!("the previous revision is not kept any more: {message}");
            self.tell(change, reason::PREVIOUS_MISSING, message);
        }
        self.look_again_after(SignedDuration::ZERO);
    }

    /// Whether a person asked to try a rolled-back change once more: first it is told, so that the
    /// record of this attempt holds it, and at the next look the new attempt begins.
    fn is_retried(&mut self, change: &mut Change) -> bool {
        if is_to_be_retried(change) {
            return true;
        }
        let unheard = intervention::unheard(self.observation, change);
        let mut retries = unheard
            .into_iter()
            .filter(|it| it.spec.action == InterventionAction::Retry);
        if let Some(retry) = retries.next() {
            change.heard.insert(retry.uid.clone());
            self.tell(
                change,
                reason::RETRIED,
                format!("retried by {}", intervention::words(retry)),
            );
            self.look_again_after(SignedDuration::ZERO);
        }
        false
    }

    /// A change that has ended can be retried, and nothing else.
    fn ignore_interventions(&self, change: &mut Change) {
        for it in intervention::unheard(self.observation, change) {
            if it.spec.action != InterventionAction::Retry
                || change.outcome != Some(Outcome::RolledBack)
            {
                self.remember(change, it, false);
            }
        }
    }

    /// A record that cannot be written must not keep a fix from being deployed for ever.
    fn ended_long_ago(&self, change: &Change) -> bool {
        let ended = change.transitions.last().and_then(|line| line.at.as_ref());
        ended.is_none_or(|at| self.observation.now.duration_since(at.0) >= LATER)
    }

    /// The change is under way: its evidence is judged first, then the gates are asked.
    fn advance(&mut self, status: &mut RolloutStatus, change: &mut Change) -> Option<Hold> {
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
        let serves = gate::serves(&Situation {
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
        let hold = gate::first_closed(&Situation {
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
            let message = format!("what there is suffices: {}", verdict_line(&verdict));
            self.tell(change, reason::SCARCE_EVIDENCE_ACCEPTED, message);
        }
        self.go_on(status, change, &verdict);
        None
    }

    /// What ends a change at once: bad evidence, a person's rejection, a smoke check that has failed,
    /// pods that all crash, or a freeze that rolls back.
    fn verdict_against(
        &self,
        change: &Change,
        verdict: &Verdict,
        sign_offs: &SignOffs,
        freezes: &Freezes,
    ) -> Option<(&'static str, String)> {
        if let Verdict::Fail { message } = verdict {
            return Some((reason::ANALYSIS_FAILED, message.clone()));
        }
        if change.initial {
            return None;
        }
        if let Some(message) = budget::burns(change, OnBurn::RollBack) {
            return Some((reason::ERROR_BUDGET_BURN, message));
        }
        if let Some(no) = sign_offs.rejection() {
            let said = intervention::said(&no.spec.approver.username, no.spec.reason.as_deref());
            return Some((reason::REJECTED, format!("rejected by {said}")));
        }
        if let Some(message) = smoke::failure(self.observation, change) {
            return Some((reason::SMOKE_FAILED, message));
        }
        if let Some(message) = gate::invalid_template(self.observation, change) {
            return Some((reason::TEMPLATE_INVALID, message));
        }
        if let Some(message) = pods::crash_loop(self.observation, change) {
            return Some((reason::CRASH_LOOPING, message));
        }
        let under_way = matches!(change.stage, Stage::Stepping | Stage::Promoting);
        // Where it cannot be told whether somebody broke the glass, it is held and not rolled back.
        let spared =
            sign_offs.glass_may_be_broken() || !self.observation.unreadable_wishes.is_empty();
        let rolls_back = freezes.action == FreezeAction::RollBack && !spared;
        (under_way && rolls_back)
            .then(|| (reason::ROLLED_BACK_BY_FREEZE, freezes.in_force.join("; ")))
    }

    /// Tightening a policy takes effect on what is under way; loosening it does not.
    fn tighten(&self, change: &mut Change) {
        // A template and annotations that cannot be read just now are not a riskier change.
        if observation::is_unreadable(self.observation) {
            return;
        }
        let risk = self.proposal.risk(self.observation, change.after_rollback);
        let tier = risk.tier.max(change.tier);
        let raised = tier > change.tier;
        let current = self.proposal.plan(self.observation, tier);
        let step = usize::try_from(change.step).unwrap_or(0);
        let tightened = tighten::tightened(&change.plan, step, &current);
        if !raised && tightened.is_none() {
            return;
        }
        (change.tier, change.score) = (tier, change.score.max(risk.score));
        let policies = current.policies.join(", ");
        if let Some(plan) = tightened {
            let (gate, before) = sign_off::next_gate(change);
            let before = before.to_vec();
            change.plan = plan;
            if sign_off::next_gate(change).1 != before {
                change.awaited_gates.remove(&gate); // who is asked only now has the whole time
            }
        }
        let message = format!("policies ask for more now ({policies}); tier {tier}");
        self.tell(change, reason::TIGHTENED, message);
    }

    fn judge(&mut self, change: &mut Change) -> Verdict {
        if change.initial {
            return Verdict::NoChecks;
        }
        let checks = checks::in_force(change, &self.proposal.checks);
        change.evidence.objectives = budget::budgets(change, &checks, self.observation);
        if change.evidence.from.is_none() {
            return Verdict::NoChecks;
        }
        change.checks.clone_from(&checks.checks);
        change.objectives.clone_from(&checks.objectives);
        let evidence = gather::gather(change, &checks, &self.observation.windows);
        let caught_up = change.evidence.checks != evidence.checks;
        let before = std::mem::replace(&mut change.evidence, evidence);
        self.tell_advisory_failures(change, &before, &checks);
        let verdict = verdict::judge(change, &checks, self.observation.now, self.observation.lag);
        // After a long absence of the operator the windows are caught up with, which is progress.
        let behind = matches!(&verdict, Verdict::NoData { reason, .. } if reason == reason::EVIDENCE_OUTDATED);
        if behind && caught_up {
            change.progressed_at = Some(Time(self.observation.now));
            change.evidence_since = Some(Time(self.observation.now));
            self.look_again_after(SOON);
        }
        verdict
    }

    /// An advisory check that begins to fail is told once, and ends nothing.
    fn tell_advisory_failures(&self, change: &mut Change, before: &Evidence, checks: &Checks) {
        let fails = |evidence: &Evidence, name: &str| {
            let mut checks = evidence.checks.iter();
            checks.any(|it| it.name == name && it.summary.verdict == CheckVerdict::Failing)
        };
        let told = |change: &Change, name: &str| {
            let line = format!("check {name}: ");
            let mut lines = change.transitions.iter();
            lines.any(|it| it.reason == reason::ADVISORY_FAILED && it.message.starts_with(&line))
        };
        let advisory = checks
            .checks
            .iter()
            .filter(|(_, check)| check.mode == CheckMode::Advisory);
        for (name, _) in advisory {
            if !fails(&change.evidence, name) || fails(before, name) || told(change, name) {
                continue;
            }
            let mut evidence = change.evidence.checks.iter();
            let evidence = evidence.find(|it| it.name == *name);
            let sentence = evidence.map_or("", |it| it.summary.sentence.as_str());
            let message =
                format!("check {name}: {sentence}; it is advisory, so the change goes on");
            self.tell(change, reason::ADVISORY_FAILED, message);
        }
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
    fn note_progress(&self, change: &mut Change, reached: Reached) {
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
    fn available(&self, hash: &str) -> i32 {
        let sets = self.observation.replica_sets.iter();
        let own = sets.filter(|set| set.owned && set.hash == hash);
        own.map(|set| set.available).sum()
    }

    fn patience(&self) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.observation.spec.progress_deadline_seconds))
    }

    /// The tier accepts scarce evidence at the deadline, or a person does where the tier leaves it to
    /// people.
    fn accepts_scarcity(&self, change: &Change, verdict: &Verdict, sign_offs: &SignOffs) -> bool {
        let accepted = match change.plan.strictness.on_scarce_evidence {
            OnScarceEvidence::Promote => self.observation.now >= self.evidence_deadline(change),
            OnScarceEvidence::Extend | OnScarceEvidence::Hold => {
                sign_offs.accepts_evidence_of(change.step)
            }
            OnScarceEvidence::RollBack => false,
        };
        matches!(verdict, Verdict::Scarce { .. }) && accepted
    }

    /// The end of the time without progress: it counts from the last progress, or the end of the bake
    /// and the warm-up.
    fn deadline(&self, change: &Change) -> Timestamp {
        self.after_patience(change, change.progressed_at.as_ref())
    }

    /// The end of the time that is given to scarce evidence: it counts from when the pods were there, or
    /// the end of the bake and the warm-up, and not while the change was held for another reason.
    fn evidence_deadline(&self, change: &Change) -> Timestamp {
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
    fn wait(&mut self, change: &mut Change, hold: Hold) -> Option<Hold> {
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
                    verdict_line(verdict)
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
                let message = format!("{passed}: {}", verdict_line(verdict));
                self.tell(change, reason::PROMOTING, message);
            }
        }
        self.went_on = true;
    }

    fn enter(&self, change: &mut Change, stage: Stage, weight: i32) {
        let now = Time(self.observation.now);
        let (before, checks) = (change.weight, &self.proposal.checks);
        if change.evidence.from.is_none() {
            change.evidence.from = Some(now.clone());
            change.interval = checks.interval;
            change.warm_up = checks.warm_up;
            change.post_promotion = checks.post_promotion;
            change.checks.clone_from(&checks.checks);
            change.objectives.clone_from(&checks.objectives);
            for budget in &mut change.evidence.objectives {
                budget.burnt_before = budget.burning;
            }
        } else {
            let shares = shares(change);
            gather::rearm(&mut change.evidence, shares);
        }
        gather::begin(change, before, weight, &now);
        change.stage = stage;
        change.weight = weight;
        change.step_started_at = Some(now.clone());
        change.progressed_at = Some(now);
        change.progress = Reached {
            available: self.available(&change.pod_template_hash),
            weight: before,
        };
        (change.available_at, change.lost, change.warm_from) = (None, None, None);
        change.evidence_since = None;
        change.awaited_gates.clear();
        change.extended = false;
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
            let shares = shares(change);
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

    fn roll_back(&mut self, change: &mut Change, why: &str, message: String) {
        self.end(change, Outcome::RolledBack, why, message);
        self.look_again_after(SignedDuration::ZERO);
    }

    fn end(&self, change: &mut Change, outcome: Outcome, why: &str, message: String) {
        change.outcome = Some(outcome);
        (change.stage, change.weight) = match outcome {
            Outcome::Promoted => (Stage::Promoted, 100),
            // Where stable gave up capacity it takes the traffic back bit by bit.
            Outcome::Superseded if share::pods_follow(present::limits(self.observation)) => {
                (Stage::RollingBack, 0)
            }
            Outcome::Superseded => (Stage::RolledBack, 0),
            Outcome::RolledBack | Outcome::Reverted => (Stage::RollingBack, 0),
        };
        change.progressed_at = Some(Time(self.observation.now));
        let stable = self.observation.status.stable.as_ref();
        change.progress = Reached {
            available: stable.map_or(0, |it| self.available(&it.pod_template_hash)),
            weight: 0,
        };
        self.tell(change, why, message);
    }

    /// Adds a line to the story of the change.
    // Each message is made for it alone.
    #[allow(clippy::needless_pass_by_value)]
    fn tell(&self, change: &mut Change, why: &str, message: String) {
        if !has_room(change, why) {
            return;
        }
        // A pause says nothing of the evidence, and anybody may make many.
        let shown = ![reason::PAUSED_BY_PERSON, reason::RESUMED].contains(&why)
            && (change.transitions.len() < MAX_EVIDENCE || change.outcome.is_some());
        let evidence = shown.then(|| summary::worst(&change.evidence));
        change.transitions.push(Transition {
            at: Some(Time(self.observation.now)),
            step: change.step,
            weight: change.weight,
            reason: why.to_owned(),
            message: text::shown(&message, MAX_MESSAGE),
            evidence: evidence.unwrap_or_default(),
        });
    }

    /// The next window is due one interval and the lag after the last one, and is looked for a little
    /// later; an unanswered one is asked again at the next interval. Budgets are asked as often.
    fn look_for_evidence(&mut self, change: &Change) {
        let Some(from) = &change.evidence.from else {
            return;
        };
        let interval = change.interval.signed();
        if !change.objectives.is_empty() {
            self.look_again_after(interval);
        }
        if change.checks.is_empty() {
            return;
        }
        let counted =
            checks::active(change).filter_map(|(name, _)| gather::counted_until(change, name));
        let due = counted
            .min()
            .unwrap_or(from.0)
            .saturating_add(interval)
            .and_then(|end| end.saturating_add(self.observation.lag.signed()))
            .and_then(|due| due.saturating_add(spread(&self.observation.uid, interval)));
        let due = due.unwrap_or(Timestamp::MAX);
        if due > self.observation.now {
            self.look_again(due);
        } else {
            self.look_again_after(interval);
        }
    }

    /// What no watch reports of the traffic is looked at again soon: endpoints, and the end of a drain.
    fn look_at_traffic(&mut self, status: &RolloutStatus) {
        let (Some(split), Some(change)) = (&status.traffic, &status.change) else {
            return;
        };
        if matches!(change.stage, Stage::Waiting | Stage::RolledBack) {
            return;
        }
        let now = self.observation.now;
        let moving = change.progressed_at.as_ref();
        let moving = moving.is_some_and(|at| now.duration_since(at.0) < LATER)
            && routes::problem(self.observation).is_none();
        match &split.settled_at {
            None => self.look_again_after(if moving { TRAFFIC } else { SOON }),
            Some(since) if !settle::drained(self.observation, status) => {
                self.look_again(settle::drained_at(self.observation, since));
            }
            Some(_) => {}
        }
    }

    /// What was begun is looked at soon, but for the pods of a first revision.
    fn look_again_after_acting(&mut self, status: &RolloutStatus, actions: &[Action]) {
        let first = status.change.as_ref().is_some_and(|it| it.initial);
        let starts = first && self.observation.status.change.is_none();
        let makes_pods = |it: &Action| matches!(it, Action::CreateReplicaSet { .. });
        if first && !actions.is_empty() && actions.iter().all(makes_pods) {
            self.look_again_after(FIRST_PODS);
        } else if starts {
            self.look_again_after(SignedDuration::ZERO); // something keeps its pods waiting
        } else if (self.went_on && self.ended.is_none()) || !actions.is_empty() {
            self.look_again_after(SOON);
        }
    }

    fn look_again(&mut self, at: Timestamp) {
        self.look_again_at = Some(self.look_again_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn look_again_after(&mut self, delay: SignedDuration) {
        self.look_again(
            self.observation
                .now
                .saturating_add(delay)
                .unwrap_or(Timestamp::MAX),
        );
    }
}

/// Whether a change that has ended is what is asked for still: after a regression the pods count, whoever
/// is said to have written them.
#[must_use]
pub fn is_same(change: &Change, proposal: &Proposal) -> bool {
    let mut lines = change.transitions.iter().rev();
    let regressed = lines.any(|line| line.reason == reason::REGRESSED);
    change.digest == proposal.digest
        || (regressed && change.template_digest == proposal.template_digest)
}

/// How often the allowance is renewed: with each step, the promotion, and the watch after it.
fn shares(change: &Change) -> usize {
    let watched = change.post_promotion > Duration::default();
    change.plan.steps.len() + usize::from(watched)
}

/// How much later than it could a Rollout looks for its evidence, which is always the same. Rollouts that
/// began together would otherwise all ask at the same moments. Short intervals ask for haste.
fn spread(uid: &str, interval: SignedDuration) -> SignedDuration {
    let part = if interval < LONGEST_SPREAD { 10 } else { 3 };
    let most = (interval / part).min(LONGEST_SPREAD).as_millis();
    let most = u64::try_from(most).unwrap_or_default();
    // FNV-1a, which is the same in every build.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    SignedDuration::from_millis(i64::try_from(hash % (most + 1)).unwrap_or_default())
}

fn is_to_be_retried(change: &Change) -> bool {
    let last = change.transitions.last();
    last.is_some_and(|line| line.reason == reason::RETRIED)
}

/// Whether there is room for a line. No step and no end is ever without one: for these it is kept free.
fn has_room(change: &Change, why: &str) -> bool {
    let pauses = [reason::PAUSED_BY_PERSON, reason::RESUMED];
    let people = [reason::SIGNED_OFF, reason::BAKE_SKIPPED];
    let lines = |reasons: &[&str]| {
        let lines = change.transitions.iter();
        lines
            .filter(|line| reasons.contains(&line.reason.as_str()))
            .count()
    };
    let step = usize::try_from(change.step).unwrap_or(0);
    let to_come = change.plan.steps.len().saturating_sub(step) + LAST_LINES;
    let most = MAX_TRANSITIONS.saturating_sub(to_come);
    let total = change.transitions.len();
    match why {
        reason::CHANGE_STARTED | reason::STEP_STARTED | reason::PROMOTING => true,
        reason::BREAK_GLASS => total < most,
        _ if pauses.contains(&why) && lines(&pauses) >= MAX_PAUSES => false,
        _ if pauses.contains(&why) || people.contains(&why) => {
            total + LOUD_LINES < most && lines(&pauses) + lines(&people) < MAX_PEOPLE
        }
        reason::ADVISORY_FAILED => total + LOUD_LINES < most,
        _ => change.outcome.is_some() || total + LOUD_LINES < most,
    }
}

fn verdict_line(verdict: &Verdict) -> String {
    match verdict {
        Verdict::NoChecks => "no checks are asked for".into(),
        Verdict::Fail { message }
        | Verdict::NoData { message, .. }
        | Verdict::Scarce { message }
        | Verdict::Pass { message } => message.clone(),
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Every line that this decision added to the story is an Event.
fn notices(observation: &Observation, change: Option<&Change>) -> Vec<Notice> {
    let before = observation.status.change.as_ref();
    let before = before.filter(|before| change.is_some_and(|change| change.run == before.run));
    let before = before.map_or(0, |before| before.transitions.len());
    let transitions = change
        .into_iter()
        .flat_map(|change| change.transitions.iter().skip(before));
    transitions
        .map(|transition| Notice {
            reason: transition.reason.clone(),
            action: format!("Step{}Weight{}", transition.step, transition.weight),
            message: transition.message.clone(),
            warning: matches!(
                transition.reason.as_str(),
                reason::ANALYSIS_FAILED
                    | reason::SMOKE_FAILED
                    | reason::CRASH_LOOPING
                    | reason::TEMPLATE_INVALID
                    | reason::PROGRESS_DEADLINE_EXCEEDED
                    | reason::WAIT_EXPIRED
                    | reason::REJECTED
                    | reason::ABORTED
                    | reason::ROLLED_BACK_BY_FREEZE
                    | reason::BREAK_GLASS
                    | reason::ERROR_BUDGET_BURN
                    | reason::REGRESSED
                    | reason::PREVIOUS_MISSING
                    | reason::ADVISORY_FAILED
            ),
        })
        .collect()
}

/// Every new hold that something other than time must end is an Event.
fn hold_notice(observation: &Observation, hold: Option<&Hold>) -> Option<Notice> {
    let waited_for = change::hold_reason(&observation.status);
    let hold = hold.filter(|hold| {
        !matches!(hold.kind, HoldKind::Time(_)) && waited_for != Some(hold.reason.as_str())
    })?;
    Some(Notice {
        reason: hold.reason.clone(),
        action: "Hold".into(),
        message: hold.message.clone(),
        warning: hold.kind == HoldKind::Doubt
            && ![reason::AWAITING_PODS, reason::AWAITING_SMOKE].contains(&hold.reason.as_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_spread_over_a_part_of_the_interval() {
        for (interval, most) in [(1, 100), (6, 2_000), (15, 5_000), (3_600, 5_000)] {
            let interval = SignedDuration::from_secs(interval);
            let mut delays: Vec<_> = (0..1_000)
                .map(|n| format!("0b54f2a6-9a47-4f0e-8a53-{n:012}"))
                .map(|uid| spread(&uid, interval).as_millis())
                .collect();
            delays.sort_unstable();
            assert!(delays[0] >= 0 && delays[999] <= most);
            // As evenly as it is asked for: no tenth of the time has twice its share.
            for tenth in 0..10 {
                let (from, to) = (most * tenth / 10, most * (tenth + 1) / 10);
                let inside = delays.iter().filter(|it| (from..to).contains(*it));
                assert!((50..200).contains(&inside.count()), "{interval:?}: {tenth}");
            }
        }
        let second = SignedDuration::from_secs(1);
        assert_eq!(spread("a", second), spread("a", second));
        assert_eq!(spread("a", SignedDuration::ZERO), SignedDuration::ZERO);
    }
}
