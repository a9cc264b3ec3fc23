use countersign_api::rollout::{Change, Outcome, Transition};
use countersign_api::{Duration as Span, Phase, Tier};
use countersign_core::reason::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use super::*;

fn status(outcome: Option<Outcome>, reasons: &[&str]) -> RolloutStatus {
    let line = |reason: &&str| Transition {
        at: Some(ago(0)),
        reason: (*reason).to_owned(),
        ..Transition::default()
    };
    RolloutStatus {
        tier: Some(Tier::High),
        change: Some(Change {
            run: "shop-1".into(),
            contributor: "ai".into(),
            tier: Tier::High,
            started_at: Some(ago(50)),
            outcome,
            transitions: reasons.iter().map(line).collect(),
            ..Change::default()
        }),
        ..RolloutStatus::default()
    }
}

fn at_rest() -> RolloutStatus {
    RolloutStatus {
        phase: Phase::Stable,
        ..RolloutStatus::default()
    }
}

fn awaiting_promotion() -> RolloutStatus {
    let mut status = status(None, &["ChangeStarted"]);
    status.phase = Phase::AwaitingSignOff;
    status.waiting_for = Some(Reason::AwaitingSignOff.into());
    if let Some(change) = &mut status.change {
        change.awaited_gates.insert("promotion".into(), ago(100));
        change.plan.strictness.wait_at_most = Span::seconds(3_600);
    }
    status
}

fn ago(seconds: i64) -> Time {
    let ago = SignedDuration::from_secs(seconds);
    Time(clock::now().saturating_sub(ago).unwrap())
}

fn with(text: &str, part: &str) -> usize {
    text.lines().filter(|line| line.contains(part)).count()
}

#[test]
fn an_outcome_is_counted_once_by_who_wrote_the_change() {
    let telemetry = Telemetry::new();
    let begun = status(None, &["ChangeStarted"]);
    let ended = status(Some(Outcome::RolledBack), &["ChangeStarted", "Rejected"]);
    let gone = status(
        Some(Outcome::RolledBack),
        &["ChangeStarted", "Rejected", "RolledBack"],
    );
    telemetry.written("shop", "web", &begun, &ended);
    telemetry.written("shop", "web", &ended, &gone);
    let text = telemetry.encode();
    for counted in [
        r#"countersign_rollout_outcomes_total{namespace="shop",contributor="ai",tier="high",outcome="RolledBack",reason="Rejected"} 1"#,
        r#"countersign_transitions_total{namespace="shop",reason="RolledBack"} 1"#,
        r#"countersign_change_duration_seconds_count{outcome="RolledBack",tier="high"} 1"#,
        r#"countersign_change_duration_seconds_bucket{le="30.0",outcome="RolledBack",tier="high"} 0"#,
        r#"countersign_change_duration_seconds_bucket{le="60.0",outcome="RolledBack",tier="high"} 1"#,
    ] {
        assert!(text.contains(counted), "{counted}: {text}");
    }
}

#[test]
fn a_rollout_has_series_of_its_own_until_it_is_at_rest() {
    let telemetry = Telemetry::new();
    let begun = status(None, &["ChangeStarted"]);
    telemetry.written("shop", "web", &at_rest(), &begun);
    let text = telemetry.encode();
    let info = r#"countersign_rollout_info{namespace="shop",rollout="web",phase="Progressing",tier="high",waiting_for="",reason=""} 1.0"#;
    assert!(text.contains(info), "{text}");
    assert_eq!(with(&text, "countersign_rollout_weight{"), 1, "{text}");

    let mut back = status(Some(Outcome::RolledBack), &["AnalysisFailed", "RolledBack"]);
    back.phase = Phase::Degraded;
    telemetry.written("shop", "web", &begun, &back);
    let text = telemetry.encode();
    let info = r#"phase="Degraded",tier="high",waiting_for="",reason="AnalysisFailed"} 1.0"#;
    assert!(text.contains(info), "{text}");
    assert_eq!(with(&text, "countersign_rollout_info{"), 1, "{text}");
    assert_eq!(with(&text, "countersign_rollout_weight{"), 0, "{text}");

    telemetry.written("shop", "web", &back, &at_rest());
    let text = telemetry.encode();
    assert_eq!(with(&text, "rollout=\"web\""), 0, "{text}");
    assert!(text.contains(r#"countersign_rollouts{phase="Stable",tier=""} 1"#));
}

#[test]
fn the_counters_of_a_namespace_go_with_its_last_rollout() {
    let telemetry = Telemetry::new();
    let begun = status(None, &["ChangeStarted"]);
    for (namespace, name) in [("shop", "api"), ("shop", "web"), ("shopping", "web")] {
        telemetry.written(namespace, name, &at_rest(), &begun);
    }
    let of_shop = || with(&telemetry.encode(), "namespace=\"shop\"");
    telemetry.forget("shop", "web");
    assert!(of_shop() > 0);
    telemetry.forget("shop", "api");
    assert_eq!(of_shop(), 0, "{}", telemetry.encode());
    assert!(with(&telemetry.encode(), "namespace=\"shopping\"") > 0);
}

/// `increase` does not see a counter that begins at 1.
#[test]
fn counters_of_rare_events_are_there_before_the_first() {
    let telemetry = Telemetry::new();
    telemetry.written("shop", "web", &at_rest(), &status(None, &["ChangeStarted"]));
    let text = telemetry.encode();
    for none in [
        r#"countersign_reconcile_total{result="panic"} 0"#,
        r#"countersign_transitions_total{namespace="shop",reason="BreakGlass"} 0"#,
        r#"tier="high",outcome="Promoted",reason="Promoted"} 0"#,
        r#"tier="high",outcome="RolledBack",reason="AnalysisFailed"} 0"#,
    ] {
        assert!(text.contains(none), "{none}: {text}");
    }
}

#[test]
fn a_wait_for_people_has_a_deadline_and_is_observed_when_it_ends() {
    let telemetry = Telemetry::new();
    let awaits = awaiting_promotion();
    telemetry.written("shop", "web", &at_rest(), &awaits);
    telemetry.written("shop", "web", &awaits, &awaits);
    let text = telemetry.encode();
    let deadline = "countersign_sign_off_deadline_timestamp_seconds{";
    assert_eq!(with(&text, deadline), 1, "{text}");
    assert_eq!(with(&text, "countersign_sign_off_wait_seconds_count{"), 0);

    telemetry.written("shop", "web", &awaits, &status(None, &["ChangeStarted"]));
    let text = telemetry.encode();
    assert_eq!(with(&text, deadline), 0, "{text}");
    for observed in [
        r#"countersign_sign_off_wait_seconds_bucket{le="60.0",tier="high"} 0"#,
        r#"countersign_sign_off_wait_seconds_bucket{le="120.0",tier="high"} 1"#,
    ] {
        assert!(text.contains(observed), "{text}");
    }
}

#[test]
fn the_time_of_a_change_is_exported_with_and_without_its_waits_for_people() {
    let telemetry = Telemetry::new();
    let begun = |outcome, gate: Option<(&str, i64)>| {
        let mut status = status(outcome, &["ChangeStarted", "Promoted"]);
        if let Some(change) = &mut status.change {
            change.started_at = Some(ago(1_000));
            let awaited = gate.map(|(gate, since)| (gate.to_owned(), ago(since)));
            change.awaited_gates.extend(awaited);
        }
        status
    };
    let first = begun(None, Some(("step-1", 900)));
    let second = begun(None, Some(("promotion", 400)));
    telemetry.written("shop", "web", &at_rest(), &first);
    telemetry.written("shop", "web", &first, &second);
    telemetry.written(
        "shop",
        "web",
        &second,
        &begun(Some(Outcome::Promoted), None),
    );
    let text = telemetry.encode();
    let labels = r#"outcome="Promoted",tier="high""#;
    for (bucket, count) in [
        (r#"duration_seconds_bucket{le="960.0""#, 0),
        (r#"duration_seconds_bucket{le="1920.0""#, 1),
        (r#"duration_without_people_seconds_bucket{le="60.0""#, 0),
        (r#"duration_without_people_seconds_bucket{le="120.0""#, 1),
    ] {
        let line = format!("countersign_change_{bucket},{labels}}} {count}");
        assert!(text.contains(&line), "{line}: {text}");
    }
}

#[test]
fn the_listed_metrics_are_those_that_are_exported() {
    let telemetry = Telemetry::new();
    let promoted = status(Some(Outcome::Promoted), &["ChangeStarted", "Promoted"]);
    telemetry.written("shop", "web", &awaiting_promotion(), &promoted);
    telemetry.written("shop", "api", &at_rest(), &awaiting_promotion());
    telemetry.api_write("update", "rollouts/status", true);
    telemetry.watch_event("Rollout");
    telemetry.watch_error("Rollout");
    let text = telemetry.encode();
    let mut seen = 0;
    for metric in telemetry.metrics() {
        let part = match metric.kind.as_str() {
            "histogram" => format!("{}_count", metric.name),
            _ => metric.name.clone(),
        };
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&part));
        let line = lines.find(|rest| rest.starts_with(['{', ' ']));
        let Some(line) = line else { continue };
        let labels = line
            .strip_prefix('{')
            .and_then(|rest| rest.split_once("} "));
        let labels = labels.map_or("", |(labels, _)| labels).split(',');
        let names: Vec<_> = labels
            .filter_map(|it| Some(it.split_once('=')?.0))
            .collect();
        assert_eq!(names, metric.labels, "{}", metric.name);
        seen += 1;
    }
    // The evidence and its answers have no series here.
    assert_eq!(seen, telemetry.metrics().len() - 2, "{text}");
}
