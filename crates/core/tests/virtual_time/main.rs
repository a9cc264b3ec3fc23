//! Whole rollouts in virtual time: the state machine, with every decision checked against the laws.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod adoption;
mod capacity;
mod changes;
mod characteristics;
mod clocks;
#[path = "../digest/mod.rs"]
mod digest;
mod evidence;
mod histories;
mod holds;
mod inputs;
mod laws;
mod observe;
mod order;
mod people;
mod provenance;
mod records;
mod routes;
mod smoke;
mod stories;
mod twists;
mod writes;

use std::collections::BTreeMap;

use countersign_api::rollout::Outcome;
use countersign_api::{Duration, Phase, RolloutPolicySpec, RolloutSpec, Tier};
use countersign_core::analysis::statistics::Counts;
use countersign_core::decision::{Action, WorkloadAction};
use countersign_core::observation::Observation;
use countersign_core::observation::people::NamedPolicy;
use countersign_core::observation::windows::{
    AnalysisInputs, Unanswered, Uncounted, WindowOutcome,
};
use countersign_core::observation::workload::NewPods;
use countersign_core::simulation::world::World;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Poisson};
use serde_json::{Value, json};

use changes::*;
use holds::*;
use writes::*;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn after(minutes: i64) -> Timestamp {
    START
        .saturating_add(SignedDuration::from_mins(minutes))
        .unwrap()
}

fn template(version: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "shop" } },
        "spec": { "containers": [{ "name": "app", "image": format!("example.org/shop:{version}") }] },
    })
}

fn spec(version: &str) -> RolloutSpec {
    serde_json::from_value(json!({
        "replicas": 20,
        "selector": { "matchLabels": { "app": "shop" } },
        "template": template(version),
        "strategy": { "canary": { "analysis": { "interval": "10s", "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }] } } },
    }))
    .unwrap()
}

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| {
            (
                format!("provenance.countersign.dev/{key}"),
                (*value).to_owned(),
            )
        })
        .collect()
}

fn harmless() -> BTreeMap<String, String> {
    annotations(&[
        ("revision", "1111111"),
        ("approved-revision", "1111111"),
        ("contributor", "human"),
        ("authors", "alice"),
        ("reviewers", "bob"),
        ("tests", "PASSED"),
        ("lines-added", "3"),
        ("lines-deleted", "1"),
        ("files-changed", "1"),
    ])
}

/// The same provenance of another change: with its version, as its revision, wherever that is declared.
fn of_version(
    mut annotations: BTreeMap<String, String>,
    version: &str,
) -> BTreeMap<String, String> {
    for key in ["revision", "approved-revision"] {
        let key = format!("provenance.countersign.dev/{key}");
        annotations.entry(key).and_modify(|it| it.push_str(version));
    }
    annotations
}

/// A large change by an AI, reviewed and tested: tier high.
fn risky() -> BTreeMap<String, String> {
    let mut risky = harmless();
    risky.extend(annotations(&[
        ("contributor", "ai"),
        ("ai-share", "90"),
        ("agents", "assistant:acme/model-1"),
        ("human-operator", "alice"),
        ("lines-added", "500"),
        ("touches", "auth"),
    ]));
    risky
}

/// A policy with the built-in steps and strictness but no sign-offs, so that rollouts can end alone.
fn unattended() -> NamedPolicy {
    let mut policy: RolloutPolicySpec = countersign_core::policy::defaults::built_in().clone();
    for tier in [
        &mut policy.tiers.low,
        &mut policy.tiers.medium,
        &mut policy.tiers.high,
        &mut policy.tiers.critical,
    ] {
        tier.sign_off = Some(vec![]);
        tier.promotion_sign_off = Some(vec![]);
        tier.extend_at_most = Some(Duration::minutes(10));
        for step in &mut tier.steps {
            step.sign_off.clear();
        }
    }
    // Records are removed as the Rollout says.
    policy.history.runs = Some(0);
    NamedPolicy {
        name: "unattended".into(),
        generation: 1,
        spec: policy,
    }
}

/// The built-in policy with people: one before the first step from tier high on, and in tier critical two before
/// promotion, one of them senior.
fn attended() -> NamedPolicy {
    let mut policy = unattended();
    let demands = |of: Value| Some(serde_json::from_value(of).unwrap());
    let tiers = &mut policy.spec.tiers;
    tiers.high.sign_off = demands(json!([{ "count": 1 }]));
    tiers.critical.sign_off = demands(json!([{ "count": 1 }]));
    tiers.critical.promotion_sign_off =
        demands(json!([{ "count": 2 }, { "count": 1, "groups": ["senior"] }]));
    policy.name = "attended".into();
    policy
}

fn observation(version: &str) -> Observation {
    Observation {
        now: START,
        uid: "uid".into(),
        generation: 1,
        annotations: of_version(harmless(), version),
        policies: vec![unattended()],
        analysis: AnalysisInputs {
            lag: Duration::seconds(30),
            ..AnalysisInputs::default()
        },
        concurrent_changes: Some(Ok(vec![])),
        ..Observation::of("team", "shop", spec(version))
    }
}

/// Traffic of so many requests in a window of 10 s, with these error rates, counted exactly.
fn steady(requests: f64, canary: f64, stable: f64) -> impl FnMut(Timestamp, f64) -> WindowOutcome {
    move |_, share| {
        let arm = |requests: f64, rate: f64| Counts {
            requests: requests.round(),
            errors: (requests.round() * rate).round(),
        };
        WindowOutcome::Counted {
            canary: arm(requests * share, canary),
            stable: arm(requests * (1.0 - share), stable),
        }
    }
}

/// The same with Poisson noise.
fn noisy(
    seed: u64,
    requests: f64,
    canary: f64,
    stable: f64,
) -> impl FnMut(Timestamp, f64) -> WindowOutcome {
    let mut rng = SmallRng::seed_from_u64(seed);
    move |_, share| {
        let mut draw = |mean: f64| {
            if mean > 0.0 {
                Poisson::new(mean).unwrap().sample(&mut rng)
            } else {
                0.0
            }
        };
        let mut arm = |requests: f64, rate: f64| {
            let errors = draw(requests * rate);
            Counts {
                requests: draw(requests * (1.0 - rate)) + errors,
                errors,
            }
        };
        WindowOutcome::Counted {
            canary: arm(requests * share, canary),
            stable: arm(requests * (1.0 - share), stable),
        }
    }
}

/// A world that starts as observed, and keeps what is decided in it.
fn begin(first: Observation) -> World {
    let mut world = World::new(first);
    world.note = stories::note;
    world
}

/// A world in which the first revision already serves.
fn serving() -> World {
    let mut world = begin(observation("v1"));
    assert!(
        world.run(after(10), &mut steady(1_000.0, 0.0, 0.0), World::at_rest),
        "the first revision serves"
    );
    assert_eq!(world.observation.status.phase, Phase::Stable);
    world
}

fn change(world: &mut World, version: &str, annotations: BTreeMap<String, String>) {
    world.observation.spec.template.0 = template(version);
    world.observation.annotations = of_version(annotations, version);
    world.observation.generation += 1;
}

fn lawful(world: &World) {
    assert!(world.broken.is_empty(), "{:?}", world.broken);
}

fn stable_image(world: &World) -> String {
    let hash = &world
        .observation
        .status
        .stable
        .as_ref()
        .unwrap()
        .pod_template_hash;
    let set = world
        .observation
        .replica_sets
        .iter()
        .find(|set| set.hash == *hash)
        .unwrap();
    set.template.images()[0].to_owned()
}

fn uncounted(reason: Uncounted) -> Box<dyn FnMut(Timestamp, f64) -> WindowOutcome> {
    Box::new(move |_, _| WindowOutcome::Uncounted {
        reason,
        message: "nothing".into(),
    })
}
