//! Checks of every kind, warm-up and error budgets, in virtual time.

mod gates;
mod watch;

use countersign_api::AnalysisTemplateSpec;
use countersign_api::rollout::{Change, CheckVerdict, Outcome, Stage};
use countersign_core::analysis::gather;
use countersign_core::analysis::statistics::Counts;
use countersign_core::observation::windows::{ErrorRates, WindowOutcome};
use countersign_core::observation::workload::Service;

use super::*;

pub(crate) use gates::*;
pub(crate) use watch::*;

/// A world that serves, with this analysis from the next change on.
fn analysed(analysis: Value) -> World {
    let mut world = serving();
    world.observation.spec.strategy.canary.analysis = serde_json::from_value(analysis).unwrap();
    world
}

fn errors() -> Value {
    json!({ "name": "errors", "preset": "HttpRequestsTotal" })
}

fn now_changing(world: &World) -> Change {
    world.observation.status.change.clone().unwrap()
}

fn reasons(change: &Change) -> Vec<&str> {
    let lines = change.transitions.iter();
    lines.map(|line| line.reason.as_str()).collect()
}

fn waits_for(observation: &Observation, reason: &str) -> bool {
    observation.status.waiting_for.as_deref() == Some(reason)
}

fn settled(observation: &Observation) -> bool {
    World::at_rest(observation) && observation.status.revision == 2
}

pub(crate) const HEALTHY: ErrorRates = ErrorRates {
    five_minutes: 0.0,
    half_hour: 0.0,
    hour: 0.0,
    six_hours: 0.0,
    period: 0.0005,
};

/// Twenty times as fast as an objective of 99.9% allows.
pub(crate) const BURNING: ErrorRates = ErrorRates {
    five_minutes: 0.02,
    half_hour: 0.02,
    hour: 0.02,
    six_hours: 0.02,
    period: 0.0005,
};

pub(crate) fn with_objective(on_burn: &str) -> World {
    let objective = json!({
        "name": "availability", "target": 0.999, "onBurn": on_burn,
        "errors": "requests{code=~\"5..\"}", "total": "requests",
    });
    let mut world =
        analysed(json!({ "interval": "10s", "checks": [errors()], "objectives": [objective] }));
    stands(&mut world, HEALTHY);
    world
}

pub(crate) fn stands(world: &mut World, rates: ErrorRates) {
    let name = "availability".to_owned();
    world
        .observation
        .analysis
        .objectives
        .insert(name, Ok(rates));
}

#[test]
pub(super) fn an_advisory_check_that_fails_is_reported_once_and_ends_nothing() {
    let mut advisory = errors();
    advisory["name"] = json!("advisory");
    advisory["mode"] = json!("Advisory");
    advisory["ceiling"] = json!(0.001);
    let mut world = analysed(json!({ "interval": "10s", "checks": [errors(), advisory] }));
    change(&mut world, "v2", harmless());
    assert!(
        world.run(after(120), &mut steady(5_000.0, 0.01, 0.01), |o| {
            o.status
                .change
                .as_ref()
                .is_some_and(|it| it.outcome.is_some())
        })
    );
    lawful(&world);
    let change = now_changing(&world);
    assert_eq!(change.outcome, Some(Outcome::Promoted));
    // Stable is above the ceiling too, so it is not even the canary's fault.
    assert!(!reasons(&change).contains(&"AdvisoryFailed"));

    let mut world = analysed(json!({ "interval": "10s", "checks": [
        { "name": "memory", "mode": "Advisory", "metric": { "query": "memory", "max": -1 } }, errors(),
    ] }));
    change_with_values(&mut world, 5.0);
    let change = now_changing(&world);
    assert_eq!(change.outcome, Some(Outcome::Promoted));
    let recorded = reasons(&change);
    assert_eq!(
        recorded
            .iter()
            .filter(|it| **it == "AdvisoryFailed")
            .count(),
        1
    );
    let memory = &change.evidence.checks.iter().find(|it| it.name == "memory");
    let memory = &memory.unwrap().summary;
    assert_eq!(memory.verdict, CheckVerdict::Failing);
    assert!(
        memory.sentence.starts_with("5, out of bounds (at most -1)"),
        "{memory:?}"
    );
}

/// Runs a change whose metric has this value until it ends.
fn change_with_values(world: &mut World, value: f64) {
    world.metric = Some(value);
    change(world, "v2", harmless());
    assert!(world.run(after(120), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status
            .change
            .as_ref()
            .is_some_and(|it| it.outcome.is_some())
    }));
    lawful(world);
}

#[test]
pub(super) fn a_metric_fails_by_so_many_windows_in_a_row_and_one_holds() {
    let metric = json!({ "name": "queue", "metric": { "query": "queue", "min": 0, "max": 10, "failures": 4 } });
    let mut world = analysed(json!({ "interval": "10s", "checks": [errors(), metric] }));
    change_with_values(&mut world, 11.0);
    let change = now_changing(&world);
    assert_eq!(change.outcome, Some(Outcome::RolledBack));
    let last = change
        .transitions
        .iter()
        .find(|it| it.reason == "AnalysisFailed");
    let message = &last.unwrap().message;
    assert_eq!(
        message,
        "check queue: 11, out of bounds (from 0 to 10) in 4 of 4 windows in a row"
    );
    let began = change.step_started_at.unwrap().0;
    let took = last.unwrap().at.as_ref().unwrap().0.duration_since(began);
    assert!(took.as_secs() <= 4 * 10 + 30 + 10, "{took:#}");
}

/// These are decided by what was read before (`controller.rs`); nothing else is.
#[test]
pub(super) fn law_3_bad_windows_condemn_a_change_and_between_them_nothing_is_written() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    let steps = |o: &Observation| o.status.weight > Some(0);
    assert!(world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), steps));
    let (mut idle, mut bad) = (0, steady(5_000.0, 0.5, 0.0));
    let decision = loop {
        let decision = world.reconcile(&mut bad);
        if decision.rolls_back_on_analysis() {
            break decision;
        }
        let (rests, writes) = (decision.is_idle(&world.observation), world.status_writes);
        world.carry_out(&decision, usize::MAX);
        idle += usize::from(rests);
        assert!(!rests || writes == world.status_writes);
        assert!(world.observation.now < after(120));
        world.observation.now += SignedDuration::from_secs(5);
    };
    assert!(idle > 0 && !decision.is_idle(&world.observation));
    assert_eq!(decision.status.phase, Phase::RollingBack);
    lawful(&world);
}

#[test]
pub(super) fn law_3_new_pods_that_warm_up_still_roll_back_by_errors_and_promote_by_nothing() {
    let analysis = json!({ "interval": "10s", "warmUp": "10m", "checks": [errors()] });
    let mut world = analysed(analysis.clone());
    change(&mut world, "v2", harmless());
    assert!(world.run(
        after(60),
        &mut steady(5_000.0, 0.2, 0.001),
        |o| o.status.phase == Phase::Degraded
    ));
    lawful(&world);
    let rolled_back = now_changing(&world);
    let at = |reason: &str| {
        let mut lines = rolled_back.transitions.iter();
        let line = lines.find(|line| line.reason == reason).unwrap();
        line.at.as_ref().unwrap().0
    };
    let took = at("AnalysisFailed").duration_since(at("StepStarted"));
    assert!(took.as_secs() <= 50, "{took:#}");

    // The bake is 5 minutes; what is needed for the promotion comes after the warm-up.
    let mut world = analysed(analysis);
    change(&mut world, "v2", harmless());
    assert!(world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.change.as_ref().is_some_and(|it| it.step == 2)
    }));
    lawful(&world);
    let change = now_changing(&world);
    let starts: Vec<_> = change
        .transitions
        .iter()
        .filter(|line| line.reason == "StepStarted")
        .map(|line| line.at.as_ref().unwrap().0)
        .collect();
    let took = starts[1].duration_since(starts[0]);
    assert!(took.as_secs() >= 600, "{took:#}");
}

#[test]
pub(super) fn cold_pods_may_be_slow_as_long_as_they_warm_up() {
    let latency = json!({ "name": "latency", "latency": { "within": "300ms", "buckets": "b_bucket{r=\"{{revision}}\"}" } });
    let analysis = json!({ "interval": "10s", "warmUp": "2m", "checks": [latency] });
    let mut world = analysed(analysis);
    change(&mut world, "v2", harmless());
    let slow_until = world
        .observation
        .now
        .saturating_add(SignedDuration::from_secs(100));
    let slow_until = slow_until.unwrap();
    let mut slow = steady(5_000.0, 0.9, 0.01);
    let mut fast = steady(5_000.0, 0.01, 0.01);
    let mut traffic = |end: Timestamp, share: f64| {
        if end <= slow_until {
            slow(end, share)
        } else {
            fast(end, share)
        }
    };
    assert!(
        world.run(after(120), &mut traffic, settled),
        "{:?}",
        world.observation.status
    );
    lawful(&world);
}

#[test]
pub(super) fn a_check_of_later_steps_is_queried_there_alone() {
    let mut late = errors();
    late["name"] = json!("late");
    late["weights"] = json!({ "from": 50, "to": 99 });
    let mut world = analysed(json!({ "interval": "10s", "checks": [errors(), late] }));
    change(&mut world, "v2", harmless());
    let evidence = |world: &World| {
        let change = now_changing(world);
        change
            .evidence
            .checks
            .iter()
            .find(|it| it.name == "late")
            .cloned()
    };
    assert!(world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.change.as_ref().is_some_and(|it| it.step == 3)
    }));
    let before = evidence(&world).unwrap();
    assert_eq!(before.canary, Counts::default());
    let began = now_changing(&world).step_started_at;
    assert_eq!(before.from, began);
    assert!(world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status
            .change
            .as_ref()
            .is_some_and(|it| it.outcome.is_some())
    }));
    lawful(&world);
    assert!(evidence(&world).unwrap().canary.requests > 0.0);
}

#[test]
pub(super) fn a_template_that_is_missing_holds_before_any_pod_and_goes_on_by_itself() {
    let mut world = analysed(json!({
        "interval": "10s", "checks": [],
        "templates": [{ "name": "http", "args": [{ "name": "code", "value": "5" }] }],
    }));
    let missing = "AnalysisTemplate http does not exist".to_owned();
    world
        .observation
        .analysis
        .templates
        .insert("http".into(), Err(missing));
    change(&mut world, "v2", harmless());
    let hour = after(80);
    assert!(!world.run(hour, &mut steady(5_000.0, 0.0, 0.0), settled));
    assert!(waits_for(&world.observation, "CheckInvalid"));
    assert!(now_changing(&world).evidence.from.is_none());

    let template: AnalysisTemplateSpec = serde_json::from_value(json!({
        "args": [{ "name": "code" }],
        "checks": [{
            "name": "codes", "errors": "x{r=\"{{revision}}\",code=~\"{{args.code}}..\"}",
            "total": "x{r=\"{{revision}}\"}",
        }],
    }))
    .unwrap();
    world
        .observation
        .analysis
        .templates
        .insert("http".into(), Ok(template));
    assert!(world.run(after(120), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.change.as_ref().is_some_and(|it| it.step == 1)
    }));
    let check = now_changing(&world).checks["http:codes"].clone();
    let errors = check.errors.unwrap();
    assert_eq!(errors, "x{r=\"{{revision}}\",code=~\"5..\"}");

    // Once it has traffic, its end holds and the deadline decides, whatever the evidence is.
    let gone = "AnalysisTemplate http does not exist".to_owned();
    world
        .observation
        .analysis
        .templates
        .insert("http".into(), Err(gone));
    assert!(world.run(after(240), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status
            .change
            .as_ref()
            .is_some_and(|it| it.outcome.is_some())
    }));
    lawful(&world);
    let change = now_changing(&world);
    assert_eq!(change.outcome, Some(Outcome::RolledBack));
    assert!(reasons(&change).contains(&"ProgressDeadlineExceeded"));
}

/// Without pods stable answers nothing, so there is nothing to compare with; the tier says what that is
/// worth.
#[test]
pub(super) fn a_stable_revision_without_pods_does_not_keep_its_mending_out() {
    let broken = |annotations| {
        let mut world = serving();
        world.observation.replica_sets[0].available = 0;
        world.observation.replica_sets[0].ready = 0;
        change(&mut world, "v2", annotations);
        world
    };
    let mut low = broken(harmless());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    assert!(low.run(after(120), &mut traffic, |o| {
        o.status.stable.as_ref().is_some_and(|it| it.revision == 2)
    }));
    lawful(&low);

    let mut high = broken(risky());
    let awaits_person = |o: &Observation| waits_for(o, "AwaitingPerson");
    assert!(high.run(after(300), &mut traffic, awaits_person));
    let message = &high.observation.status.message;
    assert!(message.contains("gate evidence-1"), "{message}");
    assert!(message.contains("stable"), "{message}");
    lawful(&high);
}

#[test]
pub(super) fn a_budget_that_begins_to_burn_rolls_back_and_one_that_burnt_before_does_not() {
    let mut world = with_objective("RollBack");
    change(&mut world, "v2", harmless());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let stepping = |o: &Observation| o.status.change.as_ref().is_some_and(|it| it.step == 1);
    assert!(world.run(after(60), &mut traffic, stepping));
    stands(&mut world, BURNING);
    assert!(world.run(after(61), &mut traffic, |o| {
        o.status
            .change
            .as_ref()
            .is_some_and(|it| it.outcome.is_some())
    }));
    lawful(&world);
    assert!(reasons(&now_changing(&world)).contains(&"ErrorBudgetBurn"));

    let mut world = with_objective("RollBack");
    stands(&mut world, BURNING);
    change(&mut world, "v2", harmless());
    assert!(world.run(after(120), &mut traffic, settled));
    lawful(&world);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
pub(super) fn a_budget_that_burns_may_hold_and_an_unknown_one_holds() {
    let mut world = with_objective("Hold");
    change(&mut world, "v2", harmless());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let stepping = |o: &Observation| o.status.change.as_ref().is_some_and(|it| it.step == 1);
    assert!(world.run(after(60), &mut traffic, stepping));
    stands(&mut world, BURNING);
    world.run(after(90), &mut traffic, settled);
    assert!(waits_for(&world.observation, "ErrorBudgetBurn"));
    stands(&mut world, HEALTHY);
    assert!(world.run(after(180), &mut traffic, settled));

    let mut world = with_objective("Hold");
    world.observation.analysis.objectives.clear();
    change(&mut world, "v2", harmless());
    assert!(!world.run(after(90), &mut traffic, settled));
    assert!(waits_for(&world.observation, "ErrorBudgetUnknown"));
    lawful(&world);
}

#[test]
pub(super) fn a_spent_budget_stops_the_tiers_that_a_policy_names() {
    let spent = ErrorRates {
        period: 0.002,
        ..HEALTHY
    };
    for (tiers, starts) in [(vec![Tier::Low], false), (vec![Tier::High], true)] {
        let mut world = with_objective("RollBack");
        stands(&mut world, spent);
        world.observation.policies[0].spec.error_budget.tiers = tiers;
        change(&mut world, "v2", harmless());
        let ended = world.run(after(120), &mut steady(5_000.0, 0.0, 0.0), settled);
        lawful(&world);
        assert_eq!(ended, starts);
        if !starts {
            assert!(waits_for(&world.observation, "ErrorBudgetSpent"));
            assert!(now_changing(&world).evidence.from.is_none());
        }
    }
}

/// A world in which v2 was promoted and is watched for an hour.
fn watched() -> World {
    let mut ceiling = errors();
    ceiling["ceiling"] = json!(0.02);
    let mut world =
        analysed(json!({ "interval": "10s", "postPromotion": "1h", "checks": [ceiling] }));
    change(&mut world, "v2", harmless());
    assert!(
        world.run(after(60), &mut steady(5_000.0, 0.001, 0.001), |o| {
            o.status.phase == Phase::Stable && o.status.revision == 2
        })
    );
    lawful(&world);
    world
}

#[test]
pub(super) fn scarce_evidence_names_how_much_is_missing_and_for_how_long() {
    let mut world = serving();
    world.observation.policies[0].spec.tiers.low.min_requests = Some(1_000);
    change(&mut world, "v2", harmless());
    let mut traffic = |_: Timestamp, share: f64| WindowOutcome::Counted {
        canary: Counts {
            requests: (100.0 * share).round(),
            errors: 0.0,
        },
        stable: Counts {
            requests: (100.0 * (1.0 - share)).round(),
            errors: 0.0,
        },
    };
    assert!(world.run(after(60), &mut traffic, |o| waits_for(
        o,
        "AwaitingEvidence"
    )));
    let message = &world.observation.status.message;
    // 5% of 100 requests in 10 s: the thousand of this step take more than half an hour.
    assert!(
        message.contains("the step needs about ") && message.contains(" more requests before "),
        "{message}"
    );
    assert!(message.contains(" min at the present rate"), "{message}");
}

#[test]
pub(super) fn the_canary_service_selects_the_canary_as_soon_as_it_has_a_pod() {
    let mut world = serving();
    with_services(&mut world);
    change(&mut world, "v2", harmless());
    let mut last = None;
    assert!(world.run(after(120), &mut steady(5_000.0, 0.0, 0.0), |o| {
        let Some(change) = o.status.change.as_ref().filter(|it| it.outcome.is_none()) else {
            return settled(o);
        };
        let available = |hash: &str| {
            let sets = o.replica_sets.iter().filter(|set| set.hash == hash);
            sets.map(|set| set.available).sum::<i32>()
        };
        let selected = selected(o, "canary");
        // One reconcile after its first pod is available.
        if last == Some(true) {
            assert_eq!(selected, change.pod_template_hash);
        }
        last = Some(available(&change.pod_template_hash) > 0);
        settled(o)
    }));
    lawful(&world);
    assert_eq!(last, Some(true));
}

fn with_services(world: &mut World) {
    let stable = world.observation.status.stable.clone().unwrap();
    for name in ["stable", "canary"] {
        let hash = stable.pod_template_hash.clone();
        let service = Service {
            kind: "ClusterIP".into(),
            selector: [("pod-template-hash".to_owned(), hash)].into(),
        };
        world
            .observation
            .traffic
            .services
            .insert(name.into(), Some(service));
    }
    let strategy = &mut world.observation.spec.strategy.canary;
    strategy.stable_service = Some("stable".into());
    strategy.canary_service = Some("canary".into());
}

fn selected(observation: &Observation, service: &str) -> String {
    let service = observation.traffic.services[service].as_ref().unwrap();
    service.selector["pod-template-hash"].clone()
}

#[test]
pub(super) fn law_4_a_revision_that_comes_back_takes_its_service_over_whatever_the_surge() {
    for surge in ["0", "25%", "100%"] {
        let mut world = watched();
        with_services(&mut world);
        let strategy = &mut world.observation.spec.strategy.canary;
        strategy.max_surge = serde_json::from_value(json!(surge)).unwrap();
        if surge == "0" {
            strategy.max_unavailable = serde_json::from_value(json!(1)).unwrap();
        }
        let mut least = i32::MAX;
        let ended = world.run(after(180), &mut steady(5_000.0, 0.3, 0.001), |o| {
            let hash = selected(o, "stable");
            let sets = o.replica_sets.iter().filter(|set| set.hash == hash);
            least = least.min(sets.map(|set| set.available).sum());
            o.status.phase == Phase::Degraded
        });
        assert!(ended, "{surge}: {:?}", world.observation.status);
        lawful(&world);
        assert_eq!(stable_image(&world), "example.org/shop:v1");
        assert!(least >= 19, "{surge}: the Service had {least} pods");
    }
}
