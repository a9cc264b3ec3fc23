use countersign_api::{Duration, Rollout, Tier};
use countersign_core::observation::people::NamedPolicy;
use countersign_core::proposal::Proposal;
use countersign_core::simulation::manifest::{Surroundings, observe, with_another_image};
use countersign_core::{Observation, decide};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::report::{Share, quantile};
use super::scene::without_sign_offs;
use super::*;
use crate::commands::explain::Setting;
use crate::output::report::Format;

fn observation(annotations: &serde_json::Value) -> Observation {
    let rollout: Rollout = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": { "name": "web", "annotations": annotations },
            "spec": {
                "replicas": 20,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "web", "image": "example.org/web:2" }] },
                },
                "strategy": { "canary": { "analysis": { "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }] } } },
            },
        }))
        .unwrap();
    let before = with_another_image(&rollout.spec.template);
    observe(
        &rollout,
        &before,
        Surroundings::default(),
        Timestamp::UNIX_EPOCH,
    )
}

fn harmless() -> Observation {
    let annotation = |key: &str| format!("provenance.countersign.dev/{key}");
    observation(&json!({
        annotation("revision"): "1", annotation("approved-revision"): "1", annotation("contributor"): "human",
        annotation("authors"): "alice", annotation("reviewers"): "bob", annotation("tests"): "PASSED",
        annotation("lines-added"): "3", annotation("lines-deleted"): "1",
    }))
}

/// A large change by an AI, reviewed and tested.
fn risky() -> Observation {
    let mut risky = harmless();
    for (key, value) in [
        ("contributor", "ai"),
        ("ai-share", "90"),
        ("agents", "coder acme/model-1"),
        ("human-operator", "alice"),
        ("lines-added", "500"),
        ("touches", "auth"),
    ] {
        let key = format!("provenance.countersign.dev/{key}");
        risky.annotations.insert(key, value.into());
    }
    risky
}

/// The same under a policy that names people: one before the first step from tier high on, and in tier critical
/// two before promotion, one of them senior.
fn requiring_people(mut observation: Observation) -> Observation {
    let first = json!([{ "count": 1 }]);
    let promotion = json!([{ "count": 2 }, { "count": 1, "groups": ["senior"] }]);
    let tiers = json!({ "tiers": {
        "high": { "signOff": first },
        "critical": { "signOff": first, "promotionSignOff": promotion },
    } });
    observation.policies = vec![NamedPolicy {
        name: "people".into(),
        generation: 1,
        spec: serde_json::from_value(tiers).unwrap(),
    }];
    observation
}

fn options(runs: u32) -> Simulate {
    Simulate {
        inputs: None,
        sweep: false,
        setting: Setting::default(),
        rate: 50.0,
        stable_error_rate: 0.002,
        canary_error_rate: vec![0.1],
        runs,
        seed: 7,
        replicas: None,
        sign_off_after: Duration::default(),
        output: Format::Table,
    }
}

fn simulated(observation: Observation, options: &Simulate) -> Simulation {
    let observed = Observed {
        observation,
        namespace: None,
        not_governing: Vec::new(),
    };
    options.simulated(observed).unwrap()
}

#[test]
fn a_healthy_canary_is_seldom_rolled_back_and_a_bad_one_soon() {
    let simulation = simulated(harmless(), &options(60));
    assert_eq!(simulation.tier, Tier::Low);
    let [healthy, bad] = &simulation.cases[..] else {
        panic!("two cases")
    };
    assert!(
        healthy.rolled_back.low <= simulation.max_false_rollback,
        "{healthy:?}"
    );
    assert_eq!(healthy.step_seconds.len(), simulation.weights.len() + 1);
    let bakes = 3.0 * 300.0;
    let took = healthy.promotion.unwrap().median;
    assert!((bakes..bakes + 120.0).contains(&took), "{took}");
    assert_eq!(bad.promoted.count, 0, "{bad:?}");
    assert!(bad.rollback.unwrap().median < 180.0, "{bad:?}");
    assert!(bad.exposed_requests < healthy.exposed_requests);
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_seed_another() {
    let once = simulated(harmless(), &options(8));
    assert_eq!(once, simulated(harmless(), &options(8)));
    let other = Simulate {
        seed: 8,
        ..options(8)
    };
    assert_ne!(once, simulated(harmless(), &other));
}

#[test]
fn sign_offs_are_counted_and_what_they_take_is_added() {
    let options = |runs| Simulate {
        rate: 5_000.0,
        ..options(runs)
    };
    let at_once = simulated(requiring_people(risky()), &options(4));
    assert!(
        at_once.tier >= Tier::High && at_once.sign_offs > 0,
        "{at_once:?}"
    );
    let late = Simulate {
        sign_off_after: Duration::minutes(30),
        ..options(4)
    };
    let late = simulated(requiring_people(risky()), &late);
    let took = |it: &Simulation| it.cases[0].promotion.unwrap().median;
    let more = took(&late) - took(&at_once);
    assert!(more >= 30.0 * 60.0 - 60.0, "{more}");
    assert_eq!(late.weights, at_once.weights);
}

#[test]
fn taking_the_sign_offs_out_leaves_the_plan_as_it_is_otherwise() {
    let mut own = requiring_people(risky());
    own.spec.strategy.canary.promotion_sign_off =
        serde_json::from_value(json!([{ "count": 1, "groups": ["product"] }])).unwrap();
    let all = [
        requiring_people(observation(&json!({}))),
        requiring_people(risky()),
        harmless(),
        own,
    ];
    for observation in all {
        let change = decide(&observation).status.change.unwrap();
        let effective = Proposal::of(&observation).effective;
        let alone = without_sign_offs(observation, &effective, &change, Duration::default());
        let unsigned = decide(&alone).status.change.unwrap();
        let plan = change.plan;
        let mut steps = plan.steps.clone();
        for step in &mut steps {
            step.sign_off.clear();
        }
        assert_eq!(
            (unsigned.plan.steps, unsigned.plan.strictness),
            (steps, plan.strictness)
        );
        assert_eq!(unsigned.plan.promotion_sign_off, []);
    }
}

#[test]
fn scarce_evidence_is_distinguished_from_errors() {
    let few = Simulate {
        rate: 0.02,
        ..options(4)
    };
    let simulation = simulated(risky(), &few);
    let healthy = &simulation.cases[0];
    assert_eq!(
        (healthy.undecided.count, healthy.rolled_back.count),
        (4, 0),
        "{healthy:?}"
    );
}

#[test]
fn what_cannot_be_simulated_is_refused_with_the_reason() {
    let mut idle = harmless();
    idle.spec.replicas = 0;
    let scene = |observation, options: &Simulate| Scene::of(observation, options).err();
    assert_eq!(
        scene(idle, &options(1)),
        Some(SimulationError::NoPods("web".into()))
    );
    let mut same = harmless();
    let serving = &same.replica_sets[0];
    same.spec.template = serving.template.clone();
    assert_eq!(
        scene(same, &options(1)),
        Some(SimulationError::NoChange("web".into()))
    );
    let observed = Observed {
        observation: harmless(),
        namespace: None,
        not_governing: Vec::new(),
    };
    let error = options(100_000).simulated(observed).unwrap_err();
    assert!(matches!(error, SimulationError::TooLong { .. }), "{error}");
}

#[test]
fn shares_come_with_wilsons_interval() {
    let near = |a: f64, b: f64| (a - b).abs() < 1e-4;
    for (count, all, low, high) in [
        (0, 200, 0.0, 0.018_84),
        (1, 200, 0.000_88, 0.027_79),
        (100, 200, 0.431_36, 0.568_64),
        (200, 200, 0.981_16, 1.0),
    ] {
        let share = Share::of(count, all);
        assert!(near(share.low, low) && near(share.high, high), "{share:?}");
    }
}

#[test]
fn quantiles_are_values_that_occurred() {
    let values = || vec![3.0, 1.0, 2.0, 4.0];
    assert_eq!(quantile(values(), 0.5), Some(2.0));
    assert_eq!(quantile(values(), 0.9), Some(4.0));
    assert_eq!(quantile(Vec::new(), 0.5), None);
}
