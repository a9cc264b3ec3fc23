use countersign_api::rollout::Plan;
use countersign_api::run::{Contribution, Progress, RecordedRisk};
use countersign_api::{Duration, SignOffDemand, Step, Tier};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use super::*;

const DIGEST: &str = "1a2b3c4d5e6f00001a2b3c4d5e6f00001a2b3c4d5e6f00001a2b3c4d5e6f0000";

fn at(clock: &str) -> Timestamp {
    format!("2026-12-24T{clock}Z").parse().unwrap()
}

fn time(clock: &str) -> Time {
    Time(at(clock))
}

fn metadata(name: &str, uid: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("shop".to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectMeta::default()
    }
}

fn line(clock: &str, reason: &str, message: &str) -> Transition {
    Transition {
        at: Some(time(clock)),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..Transition::default()
    }
}

fn run(outcome: Option<Outcome>, transitions: Vec<Transition>) -> Arc<WatchedRun> {
    let contribution = |points: f64, reason: &str| Contribution {
        factor: reason.to_owned(),
        points,
        floor: None,
        reason: reason.to_owned(),
    };
    let recorded = Recorded {
        rollout: "web".to_owned(),
        digest: DIGEST.to_owned(),
        revision: 2,
        images: vec!["example.org/web:2".to_owned()],
        risk: RecordedRisk {
            score: 9.5,
            tier: Tier::High,
            contributions: vec![
                contribution(1.0, "small"),
                contribution(0.0, "nothing"),
                contribution(4.0, "touches auth"),
            ],
            ..RecordedRisk::default()
        },
        progress: Progress {
            outcome,
            transitions,
            ..Progress::default()
        },
    };
    Arc::new(WatchedRun {
        metadata: metadata("web-1", "run-uid"),
        spec: Some(recorded),
    })
}

fn rollout(status: RolloutStatus) -> Arc<WatchedRollout> {
    Arc::new(WatchedRollout {
        metadata: metadata("web", "rollout-uid"),
        status: Some(status),
    })
}

/// A change in its first of two steps, before whose second people must sign within an hour.
fn under_way(phase: Phase, waiting_for: Reason) -> RolloutStatus {
    let step = |sign_off: &[SignOffDemand]| Step {
        weight: 25,
        sign_off: sign_off.to_vec(),
        ..Step::default()
    };
    let demand = SignOffDemand {
        count: 2,
        groups: vec!["sre".to_owned()],
    };
    let mut plan = Plan {
        steps: vec![step(&[]), step(&[demand])],
        ..Plan::default()
    };
    plan.strictness.wait_at_most = Duration::minutes(60);
    RolloutStatus {
        phase,
        message: "gate step-2 requires 2 people of sre (1 so far: bob)".to_owned(),
        waiting_for: Some(waiting_for.into()),
        change: Some(Change {
            digest: DIGEST.to_owned(),
            run: "web-1".to_owned(),
            step: 1,
            plan,
            progressed_at: Some(time("12:00:00")),
            awaited_gates: BTreeMap::from([("step-2".to_owned(), time("12:30:00"))]),
            ..Change::default()
        }),
        ..RolloutStatus::default()
    }
}

fn world(rollouts: &[Arc<WatchedRollout>], runs: &[Arc<WatchedRun>]) -> World {
    World {
        rollouts: rollouts.to_vec(),
        runs: runs.to_vec(),
        freezes: Vec::new(),
    }
}

/// The record of a channel that begins at noon.
fn since_noon() -> Record {
    let mut record = Record::default();
    record.begin([&"slack".to_owned()], at("12:00:00"));
    record
}

/// The messages at one o'clock, of what has happened since noon.
fn notified(world: &World) -> Vec<Message> {
    let since = since_noon();
    messages(world, &since, SignedDuration::from_mins(45), at("13:00:00"))
}

#[test]
fn the_message_of_a_wait_for_people_names_who_is_missing_and_how_to_approve() {
    let status = under_way(Phase::AwaitingSignOff, Reason::AwaitingSignOff);
    let runs = [run(None, Vec::new())];
    let [message] = &notified(&world(&[rollout(status)], &runs))[..] else {
        panic!("one message")
    };
    assert_eq!(message.kind, Kind::AwaitingSignOff);
    let began = at("12:30:00").as_second();
    assert_eq!(
        message.id,
        format!("run-uid/AwaitingSignOff/step-2/{began}")
    );
    assert_eq!(
        message.text,
        "gate step-2 requires 2 people of sre (1 so far: bob); it is rolled back at 2026-12-24T13:30:00Z otherwise"
    );
    assert_eq!(
        message.command.as_deref(),
        Some("kubectl countersign approve web -n shop --digest 1a2b3c4d5e6f")
    );
    let attempt = message.attempt().unwrap();
    assert_eq!(attempt.risk, "tier high, 9.5 points: touches auth; small");
}

#[test]
fn scarce_evidence_is_accepted_at_its_own_gate() {
    let mut status = under_way(Phase::AwaitingSignOff, Reason::AwaitingPerson);
    let change = status.change.as_mut().unwrap();
    change.awaited_gates = BTreeMap::from([("evidence-1".to_owned(), time("12:30:00"))]);
    let runs = [run(None, Vec::new())];
    let notified = notified(&world(&[rollout(status)], &runs));
    let command = notified[0].command.as_deref().unwrap();
    assert!(
        command.ends_with(" --digest 1a2b3c4d5e6f --gate evidence-1"),
        "{command}"
    );
}

#[test]
fn nothing_is_sent_before_the_record_of_a_change_is_known() {
    let status = under_way(Phase::AwaitingSignOff, Reason::AwaitingSignOff);
    assert_eq!(notified(&world(&[rollout(status)], &[])), []);
}

#[test]
fn a_change_is_held_for_long_after_its_last_progress_unless_on_purpose() {
    let runs = [run(None, Vec::new())];
    let kinds = |status: RolloutStatus| {
        let notified = notified(&world(&[rollout(status)], &runs));
        notified.into_iter().map(|it| it.kind).collect::<Vec<_>>()
    };
    let held = |reason| under_way(Phase::Held, reason);
    assert_eq!(kinds(held(Reason::CheckInvalid)), [Kind::Held]);
    assert_eq!(kinds(held(Reason::Frozen)), []);
    let mut progressed = held(Reason::CheckInvalid);
    progressed.change.as_mut().unwrap().transitions = vec![line("12:20:00", "StepStarted", "")];
    assert_eq!(kinds(progressed), [], "40 minutes ago");
}

#[test]
fn an_outcome_is_sent_with_its_numbers_and_each_use_of_break_glass() {
    let lines = vec![
        line("12:10:00", "BreakGlass", "by dave: the site is down"),
        line("12:20:00", "BreakGlass", "by erin: still"),
        line(
            "12:40:00",
            "AnalysisFailed",
            "errors: 5.2% of 1200 requests",
        ),
        line("12:41:00", "RolledBack", "the pods are gone"),
    ];
    let messages_of = |outcome| {
        let notified = notified(&world(&[], &[run(outcome, lines.clone())]));
        let notified = notified.into_iter().map(|it| (it.id, it.text));
        notified.collect::<Vec<_>>()
    };
    let pair = |id: &str, text: &str| (format!("run-uid/{id}"), text.to_owned());
    let glass = [
        pair("BreakGlass/1", "BreakGlass: by dave: the site is down"),
        pair("BreakGlass/2", "BreakGlass: by erin: still"),
    ];
    assert_eq!(messages_of(None), glass);
    let numbers = "AnalysisFailed: errors: 5.2% of 1200 requests";
    let all = [&glass[..], &[pair("RolledBack", numbers)]].concat();
    assert_eq!(messages_of(Some(Outcome::RolledBack)), all);
    assert_eq!(messages_of(Some(Outcome::Superseded)), glass);
}

#[test]
fn what_happened_before_the_first_start_is_not_sent() {
    let lines = vec![line("11:59:59", "Promoted", "all gates have passed")];
    let before = run(Some(Outcome::Promoted), lines);
    assert_eq!(notified(&world(&[], &[before])), []);
    let lines = vec![
        line("12:00:00", "FirstRevision", ""),
        line("12:01:00", "Promoted", "all gates have passed"),
    ];
    let notified = notified(&world(&[], &[run(Some(Outcome::Promoted), lines)]));
    assert_eq!((notified.len(), notified[0].kind), (1, Kind::Promoted));
    assert!(notified[0].attempt().unwrap().is_first);
}

#[test]
fn a_rollout_chooses_the_channels_of_its_runs() {
    let mut chooses = WatchedRollout {
        metadata: metadata("web", "rollout-uid"),
        status: None,
    };
    let chosen = ("countersign.dev/notify".to_owned(), "team-a".to_owned());
    chooses.metadata.annotations = Some(BTreeMap::from([chosen]));
    let lines = vec![line("12:40:00", "Aborted", "by dave")];
    let runs = [run(Some(Outcome::RolledBack), lines)];
    let notified = notified(&world(&[Arc::new(chooses)], &runs));
    assert_eq!(notified[0].chosen, Some(vec!["team-a".to_owned()]));
}

#[test]
fn the_messages_of_a_deleted_rollout_are_not_for_the_default_channels() {
    let lines = vec![line("12:40:00", "Aborted", "by dave")];
    let runs = [run(Some(Outcome::RolledBack), lines)];
    assert_eq!(notified(&world(&[], &runs))[0].chosen, Some(Vec::new()));
    let silent = rollout(RolloutStatus::default());
    assert_eq!(notified(&world(&[silent], &runs))[0].chosen, None);
}

#[test]
fn sign_offs_that_do_not_count_are_reported_once_for_each_time() {
    let mut status = under_way(Phase::Progressing, Reason::Baking);
    let unproven = json!({
        "type": "SignOffsProven", "status": "False", "reason": "Unproven", "lastTransitionTime": "2026-12-24T12:50:00Z",
        "message": "no sign-off counts: the policy sign-off.countersign.dev is missing",
    });
    status.conditions = vec![serde_json::from_value(unproven).unwrap()];
    let runs = [run(None, Vec::new())];
    let notified = notified(&world(&[rollout(status)], &runs));
    let began = at("12:50:00").as_second();
    assert_eq!(notified[0].id, format!("run-uid/SignOffsUnproven/{began}"));
    assert!(
        notified[0].text.starts_with("no sign-off counts: "),
        "{:?}",
        notified[0]
    );
}

fn freeze(active: &str, clock: &str) -> Arc<WatchedFreeze> {
    let freeze = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze",
        "metadata": { "name": "xmas", "uid": "freeze-uid" },
        "spec": { "reason": "holidays", "person": { "username": "dave" } },
        "status": { "conditions": [{
            "type": "Active", "status": active, "reason": "InForce", "message": "until it is over",
            "lastTransitionTime": format!("2026-12-24T{clock}Z"),
        }] },
    });
    Arc::new(serde_json::from_value(freeze).unwrap())
}

#[test]
fn a_freeze_is_sent_when_it_begins_and_its_end_to_those_who_know_of_it() {
    let frozen = |freezes: &[Arc<WatchedFreeze>]| World {
        freezes: freezes.to_vec(),
        ..world(&[], &[])
    };
    let held = SignedDuration::from_mins(45);
    let mut record = since_noon();
    let notified = |world: &World, record: &Record| messages(world, record, held, at("13:00:00"));
    let (active, over) = (freeze("True", "12:10:00"), freeze("False", "12:50:00"));
    let [began] = &notified(&frozen(std::slice::from_ref(&active)), &record)[..] else {
        panic!("one message")
    };
    assert_eq!(began.kind, Kind::FreezeBegan);
    assert_eq!(began.text, "by dave, until it is over: holidays");
    assert_eq!(
        notified(&frozen(std::slice::from_ref(&over)), &record),
        [],
        "nobody knows of it"
    );

    record.note(&began.id, "slack", at("12:11:00"), Some("xmas"));
    assert_eq!(notified(&frozen(&[active]), &record).len(), 1, "it lasts");
    for (freezes, text) in [(vec![over], "until it is over"), (vec![], "it was deleted")] {
        let [ended] = &notified(&frozen(&freezes), &record)[..] else {
            panic!("one message")
        };
        assert_eq!(ended.id, format!("{}/FreezeEnded", began.id));
        assert_eq!((ended.kind, &*ended.text), (Kind::FreezeEnded, text));
    }
}

#[test]
fn foreign_text_is_one_line_without_what_hides() {
    let lines = vec![line("12:40:00", "Aborted", "by dave: a\nb\u{202e}c")];
    let notified = notified(&world(&[], &[run(Some(Outcome::RolledBack), lines)]));
    assert_eq!(notified[0].text, "Aborted: by dave: a b\\u{202e}c");
}
