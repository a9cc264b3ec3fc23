//! The state machine: which messages what is stored gives. Pure: the objects, what was delivered and the time in,
//! messages out. So whatever a watch missed, and however often the process restarts, the same objects give the same
//! messages with the same ids; `plan` leaves out what was delivered.
//!
//! What happened is read from RolloutRuns, which keep it when the next change begins; what lasts, from the statuses of
//! Rollouts and Freezes.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_api::Phase;
use countersign_api::rollout::{Change, Outcome, RolloutStatus, Transition};
use countersign_core::change::bake_ends;
use countersign_core::people::sign_off;
use countersign_core::reason::Reason;
use countersign_core::text::{sanitize, sanitize_to};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::notify::message::{Attempt, Kind, Message, Subject};
use crate::notify::record::Record;
use crate::notify::watched::{Recorded, WatchedRollout, WatchedRun};
use crate::watch::WatchedFreeze;

/// Characters of a sentence; the rest is cut.
const LONGEST: usize = 1_000;
/// Contributions to a risk that its line names, the largest first.
const CONTRIBUTIONS: usize = 3;
/// Characters of a digest in a command: more than enough to be the only one.
const DIGEST: usize = 12;

/// The objects, as they are stored.
pub struct World {
    /// All Rollouts.
    pub rollouts: Vec<Arc<WatchedRollout>>,
    /// All RolloutRuns.
    pub runs: Vec<Arc<WatchedRun>>,
    /// All Freezes.
    pub freezes: Vec<Arc<WatchedFreeze>>,
}

/// Namespace and name.
type Key = (String, String);

fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The messages that these objects give now, in the order in which what they are about began.
#[must_use]
pub fn messages(
    world: &World,
    record: &Record,
    held_longer_than: SignedDuration,
    now: Timestamp,
) -> Vec<Message> {
    let rollouts: BTreeMap<Key, _> = world.rollouts.iter().map(|it| (key(&**it), it)).collect();
    let runs: BTreeMap<Key, _> = world.runs.iter().map(|it| (key(&**it), it)).collect();
    let earliest = record.earliest();
    let is_recent = |at: Timestamp| earliest.is_some_and(|earliest| at >= earliest);
    let mut messages = Vec::new();
    for ((namespace, _), run) in &runs {
        let Some(source) = Source::of(run) else {
            continue;
        };
        let rollout = rollouts.get(&(namespace.clone(), source.recorded.rollout.clone()));
        // What a deleted Rollout chose is not known any more, and its messages were for nobody else.
        let chosen = rollout.map_or(Some(Vec::new()), |it| it.chosen());
        let events = source.events(chosen.as_deref()).into_iter();
        messages.extend(events.filter(|message| is_recent(message.at)));
    }
    for ((namespace, _), rollout) in &rollouts {
        let status = rollout.status.as_ref();
        let change = status.and_then(|it| it.change.as_ref());
        let Some((status, change)) = status.zip(change.filter(|it| it.outcome.is_none())) else {
            continue;
        };
        // It is written before the status, but another watch reports it.
        let run = runs.get(&(namespace.clone(), change.run.clone()));
        if let Some(source) = run.and_then(|run| Source::of(run)) {
            let present = states(status, change, held_longer_than, now).into_iter();
            messages.extend(present.map(|it| source.message(it, rollout.chosen())));
        }
    }
    messages.extend(world.freezes.iter().filter_map(|it| began(it)));
    messages.extend(ended(&world.freezes, record, now));
    messages.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    messages
}

/// What happened to a change, or how it is.
struct State {
    kind: Kind,
    /// What distinguishes it from others of its kind and its change.
    which: String,
    at: Timestamp,
    text: String,
    /// Further options of the command that approves the change, if people are awaited.
    approved_by: Option<String>,
}

/// The run that messages are about.
struct Source<'a> {
    run: &'a WatchedRun,
    uid: String,
    recorded: &'a Recorded,
}

impl<'a> Source<'a> {
    fn of(run: &'a WatchedRun) -> Option<Self> {
        Some(Self {
            run,
            uid: run.uid()?,
            recorded: run.spec.as_ref()?,
        })
    }

    fn message(&self, state: State, chosen: Option<Vec<String>>) -> Message {
        let id = [&*self.uid, state.kind.as_str(), &*state.which];
        let id = id.into_iter().filter(|it| !it.is_empty());
        let recorded = self.recorded;
        let first = |line: &Transition| line.reason == Reason::FirstRevision;
        let namespace = self.run.namespace().unwrap_or_default();
        let (rollout, digest) = (&recorded.rollout, &recorded.digest);
        let digest = digest.get(..DIGEST).unwrap_or(digest);
        let command = match state.approved_by {
            Some(options) => format!(
                "kubectl countersign approve {rollout} -n {namespace} --digest {digest}{options}"
            ),
            None => format!("kubectl countersign status {rollout} -n {namespace}"),
        };
        Message {
            id: id.collect::<Vec<_>>().join("/"),
            kind: state.kind,
            at: state.at,
            command: Some(command),
            text: sanitize_to(&state.text, LONGEST),
            chosen,
            subject: Subject::Attempt(Box::new(Attempt {
                rollout: recorded.rollout.clone(),
                run: self.run.name_any(),
                revision: recorded.revision,
                digest: recorded.digest.clone(),
                tier: recorded.risk.tier,
                risk: risk(recorded),
                images: recorded.images.iter().map(|it| sanitize(it)).collect(),
                is_first: recorded.progress.transitions.iter().any(first),
                namespace,
            })),
        }
    }

    /// What happened: each use of break-glass, and the outcome.
    fn events(&self, chosen: Option<&[String]>) -> Vec<Message> {
        let progress = &self.recorded.progress;
        let lines = progress.transitions.iter();
        let broken = lines.filter(|line| line.reason == Reason::BreakGlass);
        let mut states: Vec<_> = broken
            .zip(1..)
            .filter_map(|(line, nth)| state(Kind::BreakGlass, nth.to_string(), line))
            .collect();
        let kind = match progress.outcome {
            Some(Outcome::RolledBack) => Some(Kind::RolledBack),
            Some(Outcome::Promoted) => Some(Kind::Promoted),
            Some(Outcome::Superseded | Outcome::Reverted) | None => None,
        };
        // The removal of rejected pods, and what follows a promotion, explain less.
        let explains = |line: &&Transition| match progress.outcome {
            Some(Outcome::Promoted) => line.reason == Reason::Promoted,
            _ => line.reason != Reason::RolledBack,
        };
        let mut backwards = progress.transitions.iter().rev();
        let cause = backwards.find(explains);
        let outcome = kind.zip(cause);
        states.extend(outcome.and_then(|(kind, line)| state(kind, String::new(), line)));
        let states = states.into_iter();
        states
            .map(|it| self.message(it, chosen.map(<[String]>::to_vec)))
            .collect()
    }
}

fn state(kind: Kind, which: String, line: &Transition) -> Option<State> {
    Some(State {
        kind,
        which,
        at: line.at.as_ref()?.0,
        text: format!("{}: {}", line.reason, line.message),
        approved_by: None,
    })
}

/// The tier and the score, and what adds most to it.
fn risk(recorded: &Recorded) -> String {
    let risk = &recorded.risk;
    let mut largest: Vec<_> = risk
        .contributions
        .iter()
        .filter(|it| it.points > 0.0)
        .collect();
    largest.sort_by(|a, b| b.points.total_cmp(&a.points));
    let reasons = largest.iter().take(CONTRIBUTIONS);
    let reasons: Vec<_> = reasons.map(|it| sanitize_to(&it.reason, 100)).collect();
    let score = format!("tier {}, {:.1} points", risk.tier, risk.score);
    if reasons.is_empty() {
        score
    } else {
        format!("{score}: {}", reasons.join("; "))
    }
}

/// How a change under way is, as far as somebody should know.
fn states(
    status: &RolloutStatus,
    change: &Change,
    held_longer_than: SignedDuration,
    now: Timestamp,
) -> Vec<State> {
    let unproven = status.conditions.iter().find(|it| is_unproven(it));
    let unproven = unproven.map(|condition| {
        let at = condition.last_transition_time.0;
        since(Kind::SignOffsUnproven, at, condition.message.clone())
    });
    let held = held(status, change, held_longer_than, now);
    [awaiting(status, change), held, unproven]
        .into_iter()
        .flatten()
        .collect()
}

fn is_unproven(condition: &Condition) -> bool {
    condition.type_ == "SignOffsProven" && condition.status == "False"
}

/// What lasts since then: should it end and begin again, that is another message.
fn since(kind: Kind, at: Timestamp, text: String) -> State {
    State {
        kind,
        which: at.as_second().to_string(),
        at,
        text,
        approved_by: None,
    }
}

fn reason(status: &RolloutStatus) -> Option<Reason> {
    status.waiting_for.as_deref().and_then(Reason::parse)
}

/// That a change waits for people: who is missing, until when, and the command by which they approve exactly this
/// change.
fn awaiting(status: &RolloutStatus, change: &Change) -> Option<State> {
    let (gate, option) = match reason(status)? {
        Reason::AwaitingSignOff => (sign_off::next_gate(change).0, String::new()),
        Reason::AwaitingPerson => {
            let gate = sign_off::evidence_gate(change.step);
            let option = format!(" --gate {gate}");
            (gate, option)
        }
        _ => return None,
    };
    let began = change.awaited_gates.get(&gate);
    let at = began.or(change.started_at.as_ref())?.0;
    let deadline = sign_off::deadline(status);
    let deadline = deadline.map(|at| format!("; it is rolled back at {at:.0} otherwise"));
    let text = format!("{}{}", status.message, deadline.unwrap_or_default());
    let mut state = since(Kind::AwaitingSignOff, at, text);
    state.which = format!("{gate}/{}", state.which);
    state.approved_by = Some(option);
    Some(state)
}

/// That a change has been held for so long, unless people or other changes hold it on purpose.
fn held(
    status: &RolloutStatus,
    change: &Change,
    longer_than: SignedDuration,
    now: Timestamp,
) -> Option<State> {
    const ON_PURPOSE: [Reason; 6] = [
        Reason::AwaitingDependency,
        Reason::Frozen,
        Reason::Paused,
        Reason::PausedByPerson,
        Reason::Queued,
        Reason::ScaledToZero,
    ];
    let is_on_purpose = reason(status).is_some_and(|it| ON_PURPOSE.contains(&it));
    if status.phase != Phase::Held || is_on_purpose {
        return None;
    }
    let last = change.transitions.last();
    let moments = [
        change.progressed_at.as_ref(),
        change.evidence_since.as_ref(),
        last.and_then(|line| line.at.as_ref()),
    ];
    let moments = moments.into_iter().flatten().map(|at| at.0);
    let at = moments.chain(bake_ends(change)).max()?;
    if at.saturating_add(longer_than).ok()? > now {
        return None;
    }
    let waiting_for = status.waiting_for.as_deref().unwrap_or_default();
    let text = format!(
        "no progress since {at:.0}: {waiting_for}: {}",
        status.message
    );
    Some(since(Kind::Held, at, text))
}

fn active(freeze: &WatchedFreeze) -> Option<&Condition> {
    let conditions = &freeze.status.as_ref()?.conditions;
    conditions.iter().find(|it| it.type_ == "Active")
}

/// That a Freeze is in force.
fn began(freeze: &WatchedFreeze) -> Option<Message> {
    let active = active(freeze).filter(|it| it.status == "True")?;
    let spec = freeze.spec.as_ref().ok()?;
    let at = active.last_transition_time.0;
    let text = format!(
        "by {}, {}: {}",
        spec.person.username, active.message, spec.reason
    );
    let id = format!(
        "{}/{}/{}",
        freeze.uid()?,
        Kind::FreezeBegan.as_str(),
        at.as_second()
    );
    Some(of_freeze(
        id,
        Kind::FreezeBegan,
        at,
        freeze.name_any(),
        &text,
    ))
}

/// The ends of Freezes whose begin was delivered.
fn ended<'a>(
    freezes: &'a [Arc<WatchedFreeze>],
    record: &'a Record,
    now: Timestamp,
) -> impl Iterator<Item = Message> + 'a {
    record.open_freezes().filter_map(move |(id, name, _)| {
        let uid = id.split('/').next();
        let mut same = freezes.iter();
        let same = same.find(|it| it.uid().as_deref() == uid);
        let (at, text) = match same.map(|it| active(it)) {
            None => (now, "it was deleted".to_owned()),
            Some(Some(active)) if active.status == "False" => {
                (active.last_transition_time.0, active.message.clone())
            }
            Some(_) => return None,
        };
        let id = format!("{id}/{}", Kind::FreezeEnded.as_str());
        Some(of_freeze(id, Kind::FreezeEnded, at, name.to_owned(), &text))
    })
}

fn of_freeze(id: String, kind: Kind, at: Timestamp, name: String, text: &str) -> Message {
    Message {
        id,
        kind,
        at,
        subject: Subject::Freeze(name),
        text: sanitize_to(text, LONGEST),
        command: None,
        chosen: None,
    }
}

#[cfg(test)]
mod tests;
