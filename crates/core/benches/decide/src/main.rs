//! The cost of one decision, for `make bench`: a line per kind, with nanoseconds after a tab.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use countersign_core::analysis::statistics::Counts;
use countersign_core::decide;
use countersign_core::observation::Observation;
use countersign_core::observation::windows::WindowOutcome;
use countersign_core::policy::defaults;
use countersign_core::simulation::world::World;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Each kind is decided repeatedly, in this many parts.
const PARTS: usize = 21;
const PART: Duration = Duration::from_millis(50);

fn main() -> Result<(), Box<dyn Error>> {
    let mut world = World::new(first()?);
    let traffic = &mut |_, share: f64| WindowOutcome::Counted {
        canary: counts(share),
        stable: counts(1.0 - share),
    };
    if !world.run(after(&world, 60)?, traffic, World::at_rest) {
        return Err("the first revision does not serve".into());
    }
    println!("idle\t{:.0}", nanoseconds(&world.observation)?);

    world.observation.spec.template.0 = template("v2");
    world.observation.generation += 1;
    let counted = |observation: &Observation| {
        let change = observation.status.change.as_ref();
        let checks = change.map(|change| &change.evidence.checks);
        checks.is_some_and(|checks| checks.iter().any(|check| check.step_windows >= 5))
    };
    if !world.run(after(&world, 60)?, traffic, counted) {
        return Err("the canary has no evidence".into());
    }
    // One interval later there is one more window to count.
    world.observation.now = world
        .observation
        .now
        .checked_add(SignedDuration::from_secs(15))?;
    world.reconcile(traffic);
    let due = world
        .observation
        .analysis
        .windows
        .values()
        .map(|windows| windows.due.len());
    if due.sum::<usize>() != 1 {
        return Err("there is not one window to count".into());
    }
    println!(
        "mid-canary with a window to count\t{:.0}",
        nanoseconds(&world.observation)?
    );
    Ok(())
}

fn counts(share: f64) -> Counts {
    let requests = (1_000.0 * share).round();
    Counts {
        requests,
        errors: (requests * 0.01).round(),
    }
}

fn after(world: &World, minutes: i64) -> Result<Timestamp, Box<dyn Error>> {
    Ok(world
        .observation
        .now
        .checked_add(SignedDuration::from_mins(minutes))?)
}

/// CPU time of one decision: the median of several parts.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn nanoseconds(observation: &Observation) -> Result<f64, Box<dyn Error>> {
    let mut parts = Vec::new();
    for _ in 0..PARTS {
        let (began, before, mut number) = (Instant::now(), cpu()?, 0_u64);
        while began.elapsed() < PART {
            black_box(decide(black_box(observation)));
            number += 1;
        }
        parts.push((cpu()? - before) as f64 / number as f64);
    }
    parts.sort_by(f64::total_cmp);
    Ok(parts.get(PARTS / 2).copied().unwrap_or(f64::NAN))
}

/// CPU time of this thread in nanoseconds, whatever else the machine runs.
fn cpu() -> Result<u64, Box<dyn Error>> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let run = statistics.split(' ').next().unwrap_or_default();
    Ok(run.parse()?)
}

fn template(version: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "shop" } },
        "spec": { "containers": [{ "name": "app", "image": format!("example.org/shop:{version}") }] },
    })
}

/// A Rollout with a reviewed change, before its first decision.
fn first() -> Result<Observation, serde_json::Error> {
    serde_json::from_value(json!({
        "now": Timestamp::UNIX_EPOCH, "name": "shop", "namespace": "team", "uid": "uid", "generation": 1, "labels": {},
        "annotations": {
            "provenance.countersign.dev/revision": "1111111",
            "provenance.countersign.dev/approved-revision": "1111111",
            "provenance.countersign.dev/contributor": "human",
            "provenance.countersign.dev/authors": "alice",
            "provenance.countersign.dev/reviewers": "bob",
            "provenance.countersign.dev/tests": "PASSED",
            "provenance.countersign.dev/lines-added": "3",
            "provenance.countersign.dev/lines-deleted": "1",
        },
        "spec": {
            "replicas": 20,
            "selector": { "matchLabels": { "app": "shop" } },
            "template": template("v1"),
            "strategy": { "canary": { "analysis": {
                "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }],
            } } },
        },
        "status": {}, "namespace_labels": {}, "unreadable_policies": [],
        "policies": [{ "name": "built-in", "generation": 1, "spec": defaults::built_in() }],
        "replica_sets": [], "write_failure": null, "services": {}, "conflicts": [], "recorded": false,
        "lag": "30s", "windows": {}, "concurrent_changes": { "Ok": [] },
    }))
}
