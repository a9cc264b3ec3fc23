//! What decisions hold, without the words for people, as digests that are kept in a file: they stay equal
//! where only the source is rearranged. `COUNTERSIGN_DIGEST=write` writes them again.
//!
//! Values are taken one by one and never by the name of their field, so names may change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use countersign_api::rollout::{Change, RolloutStatus};
use countersign_core::decision::Action;
use countersign_core::{Decision, Observation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What a decision holds, and what it was made from as far as it shows in the status and the pods.
pub fn project(seen: &Observation, decision: &Decision) -> String {
    let mut text = String::with_capacity(1_000);
    let pods = seen.replica_sets.iter();
    let pods: Vec<_> = pods
        .map(|it| (&it.hash, it.replicas, it.available))
        .collect();
    write!(text, "{pods:?}").unwrap();
    write_status(&mut text, &seen.status, seen.now);
    write_status(&mut text, &decision.status, seen.now);
    for action in &decision.actions {
        text.push_str(&flat(action));
    }
    for it in &decision.answers {
        write!(text, "{:?}{}{}{}", it.to, it.name, it.yes, it.reason).unwrap();
    }
    for it in &decision.notices {
        write!(text, "{}{}{}", it.reason, it.action, it.warning).unwrap();
    }
    if let Some(it) = &decision.record {
        let progress = &it.spec.progress;
        let lines = progress.transitions.len();
        let outcome = (&it.name, it.spec.revision, progress.outcome, lines);
        write!(text, "{outcome:?}").unwrap();
    }
    let next = decision.requeue_at.map(|at| since(at, seen.now));
    write!(text, "{next:?}").unwrap();
    RENAMED
        .iter()
        .fold(text, |text, (now, then)| text.replace(now, then))
}

/// Words of the API that were renamed since the digests were written, so that these still compare.
const RENAMED: [(&str, &str); 2] = [
    ("RequestsUnreadable", "WishesUnreadable"),
    ("Some(Requested)", "Some(Wish)"),
];

/// Milliseconds from a moment until now.
fn since(at: Timestamp, now: Timestamp) -> i128 {
    now.duration_since(at).as_millis()
}

fn write_status(text: &mut String, status: &RolloutStatus, now: Timestamp) {
    let ago = |at: &Option<Time>| at.as_ref().map(|at| since(at.0, now));
    let stable = status.stable.as_ref();
    let stable = stable.map(|it| (&it.pod_template_hash, &it.digest, it.revision));
    let numbers = [
        status.replicas,
        status.updated_replicas,
        status.ready_replicas,
        status.available_replicas,
        status.collision_count,
    ];
    write!(
        text,
        "{stable:?}{:?}{:?}{:?}{:?}{:?}{:?}{numbers:?}{:?}{:?}{:?}",
        status.phase,
        status.waiting_for,
        status.waiting_kind,
        status.step,
        status.weight,
        status.tier,
        status.revision,
        status.attempts,
        status.services,
    )
    .unwrap();
    for it in &status.conditions {
        let moved = since(it.last_transition_time.0, now);
        write!(text, "{}{}{}{moved}", it.type_, it.status, it.reason).unwrap();
    }
    if let Some(it) = &status.traffic {
        let weights = [
            it.weight,
            it.settled_weight,
            it.lowest_weight,
            it.highest_weight,
        ];
        let times = [&it.settled_at, &it.weighed_at, &it.corrected_at].map(ago);
        write!(text, "{weights:?}{times:?}").unwrap();
    }
    if let Some(it) = &status.adopted {
        let times = [&it.handed_over_at, &it.corrected_at, &it.given_back_at].map(ago);
        write!(text, "{}{times:?}", it.scaled_down).unwrap();
    }
    if let Some(change) = &status.change {
        write_change(text, change, now);
    }
}

fn write_change(text: &mut String, change: &Change, now: Timestamp) {
    let ago = |at: &Option<Time>| at.as_ref().map(|at| since(at.0, now));
    write!(
        text,
        "{}{}{:?}{:?}{}{}{:?}{:?}{:?}",
        change.run,
        change.pod_template_hash,
        change.tier,
        change.stage,
        change.step,
        change.weight,
        change.outcome,
        change.paused_by,
        change.bake_skipped,
    )
    .unwrap();
    let times = [
        &change.step_started_at,
        &change.available_at,
        &change.warm_from,
        &change.progressed_at,
        &change.queued_at,
        &change.evidence_since,
        &change.watched_until,
        &change.kept_until,
    ];
    let progress = (change.progress.available, change.progress.weight);
    write!(text, "{:?}{progress:?}", times.map(ago)).unwrap();
    let lost = change.lost.as_ref();
    let lost = lost.map(|it| (since(it.since.0, now), it.all));
    let smoke = change.smoke.as_ref();
    let smoke = smoke.map(|it| (it.passed, ago(&it.since), ago(&it.started_at)));
    let people = [
        change.changed_by.len(),
        change.excluded_approvers.users.len(),
        change.handled_requests.len(),
        change.ignored_requests.len(),
    ];
    write!(text, "{lost:?}{smoke:?}{people:?}").unwrap();
    for (gate, at) in &change.awaited_gates {
        write!(text, "{gate}{}", since(at.0, now)).unwrap();
    }
    for step in &change.plan.steps {
        let demand = (step.weight, step.bake, step.min_requests, step.scale);
        write!(text, "{demand:?}{}", step.sign_off.len()).unwrap();
    }
    for it in &change.evidence.checks {
        let counts = [it.canary, it.stable].map(|it| (it.requests, it.errors));
        let verdict = it.summary.verdict;
        let window = (ago(&it.last_window_end), it.step_windows, it.outside);
        write!(text, "{}{counts:?}{verdict:?}{window:?}", it.name).unwrap();
    }
    for it in &change.evidence.objectives {
        let budget = (it.known, it.burning, it.burnt_before);
        write!(text, "{}{budget:?}", it.name).unwrap();
    }
    let lines = change.transitions.len();
    let newest = change.transitions.last();
    let newest = newest.map(|it| (ago(&it.at), it.step, it.weight, &it.reason));
    write!(text, "{lines}{newest:?}").unwrap();
}

/// The kind of an action, and its values in an order that no name of a field decides.
fn flat(action: &Action) -> String {
    let mut value = serde_json::to_value(action).unwrap();
    let mut kind = String::new();
    // An enum within an enum is one of its kinds.
    while let Some((name, inner)) = variant(&value) {
        (kind, value) = (name, inner);
    }
    let mut leaves = Vec::new();
    collect(&value, &mut leaves);
    leaves.sort_unstable();
    format!("{kind}{leaves:?}")
}

fn variant(value: &Value) -> Option<(String, Value)> {
    let object = value.as_object().filter(|it| it.len() == 1)?;
    let (name, inner) = object.iter().next()?;
    let is_kind = name.starts_with(char::is_uppercase);
    is_kind.then(|| (name.clone(), inner.clone()))
}

fn collect(value: &Value, leaves: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.values().for_each(|it| collect(it, leaves)),
        Value::Array(values) => values.iter().for_each(|it| collect(it, leaves)),
        leaf => leaves.push(leaf.to_string()),
    }
}

/// The digest of texts, in hexadecimal.
pub fn digest<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    texts.into_iter().for_each(|text| hasher.update(text));
    let mut hexadecimal = String::new();
    for byte in hasher.finalize() {
        write!(hexadecimal, "{byte:02x}").unwrap();
    }
    hexadecimal
}

/// Tests of one program run side by side.
static FILE: Mutex<()> = Mutex::new(());

/// Compares digests with those in a file, by their names; the others in it are another test's.
pub fn compare(file: &str, found: &BTreeMap<String, String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(file);
    let _turn = FILE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = stored.lines().filter_map(|line| line.split_once(": "));
    let mut all: BTreeMap<_, _> = lines.map(|(name, it)| (name.into(), it.into())).collect();
    if std::env::var("COUNTERSIGN_DIGEST").is_ok_and(|it| it == "write") {
        all.append(&mut found.clone());
        let lines = all.iter().map(|(name, it)| format!("{name}: {it}\n"));
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        return;
    }
    let differs = |(name, it): &(&String, &String)| all.get(*name) != Some(*it);
    let other: Vec<_> = found.iter().filter(differs).map(|(name, _)| name).collect();
    assert!(
        other.is_empty(),
        "decisions are others than in {file}, in {other:?}; if that is meant, write them again with COUNTERSIGN_DIGEST=write"
    );
}
