//! A month of changes that policies only observe, and the reports on their records: the sums are those of
//! the same changes if the policies were enforced, and the figures those of the changes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration as StdDuration;

use countersign_api::counts::Counts;
use countersign_api::policy::Enforcement;
use countersign_api::rollout::Plan;
use countersign_api::{Duration, RolloutRunSpec, Tier};
use countersign_core::observation::people::NamedPolicy;
use countersign_core::observation::windows::{AnalysisInputs, WindowOutcome};
use countersign_core::people::freeze;
use countersign_core::simulation::world::World;
use countersign_core::{Decision, Observation, decide, plan};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Changes of each Rollout in the month.
const CHANGES: i64 = 40;
/// Rollouts, each with its namespace.
const ROLLOUTS: [(&str, &str); 6] = [
    ("shop", "cart"),
    ("shop", "search"),
    ("pay", "ledger"),
    ("pay", "cards"),
    ("web", "home"),
    ("web", "blog"),
];

/// What enforcing the policies would have demanded of a change.
#[derive(Clone, Debug)]
struct Enforced {
    tier: Tier,
    plan: Plan,
}

thread_local! {
    /// The records of the world that runs now, by name.
    static RECORDS: RefCell<BTreeMap<String, RolloutRunSpec>> = const { RefCell::new(BTreeMap::new()) };
    /// What enforcing would have demanded of each change.
    static ENFORCED: RefCell<BTreeMap<String, Enforced>> = const { RefCell::new(BTreeMap::new()) };
}

/// Keeps the record of a decision, and decides on each change that begins as if policies were enforced.
fn note(seen: &Observation, decision: &Decision) {
    if let Some(record) = &decision.record {
        RECORDS.with_borrow_mut(|all| all.insert(record.name.clone(), record.spec.clone()));
    }
    let run = |status: &countersign_api::RolloutStatus| {
        let change = status.change.as_ref();
        change.map(|change| change.run.clone())
    };
    let (before, after) = (run(&seen.status), run(&decision.status));
    let Some(run) = after.filter(|run| before.as_ref() != Some(run)) else {
        return;
    };
    let mut enforced = seen.clone();
    for policy in &mut enforced.policies {
        policy.spec.enforcement = Enforcement::Enforce;
    }
    let change = decide(&enforced).status.change.unwrap();
    assert_eq!((&change.run, change.observed), (&run, None));
    let enforced = Enforced {
        tier: change.tier,
        plan: change.plan,
    };
    ENFORCED.with_borrow_mut(|all| all.insert(run, enforced));
}

fn policy(name: &str, spec: Value) -> NamedPolicy {
    NamedPolicy {
        name: name.into(),
        generation: 1,
        spec: serde_json::from_value(spec).unwrap(),
    }
}

/// What the policies ask for: all of them people for risky changes and free weekends; `pay` for more.
fn policies(namespace: &str) -> Vec<NamedPolicy> {
    let all = json!({
        "enforcement": "Observe",
        "tiers": {
            "high": { "signOff": [{ "count": 1, "groups": ["leads"] }] },
            "critical": { "promotionSignOff": [{ "count": 2 }] },
        },
        "freeze": { "windows": [{ "name": "weekend", "schedule": "0 18 * * FRI", "duration": "62h" }] },
    });
    let pay = json!({
        "enforcement": "Observe",
        "risk": { "points": { "aiShare": 12 } },
        "tiers": { "medium": { "minBake": "20m", "signOff": [{ "count": 1, "groups": ["auditors"] }] } },
    });
    let mut policies = vec![policy("all", all)];
    policies.extend((namespace == "pay").then(|| policy("pay", pay)));
    policies
}

fn template(version: i64) -> Value {
    json!({
        "metadata": { "labels": { "app": "a" } },
        "spec": { "containers": [{ "name": "a", "image": format!("example.org/a:{version}") }] },
    })
}

fn world((namespace, name): (&str, &str), now: Timestamp) -> World {
    let spec = serde_json::from_value(json!({
        "replicas": 10,
        "selector": { "matchLabels": { "app": "a" } },
        "template": template(0),
        "strategy": { "canary": { "analysis": {
            "interval": "30s", "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }],
        } } },
    }));
    let mut world = World::new(Observation {
        now,
        uid: name.into(),
        generation: 1,
        policies: policies(namespace),
        analysis: AnalysisInputs {
            lag: Duration::seconds(30),
            ..AnalysisInputs::default()
        },
        concurrent_changes: Some(Ok(vec![])),
        ..Observation::of(namespace, name, spec.unwrap())
    });
    world.note = note;
    world
}

/// Traffic of 100,000 requests in each window.
fn traffic(error_rate: f64) -> impl FnMut(Timestamp, f64) -> WindowOutcome {
    move |_, share| {
        let counts = |share: f64, rate: f64| Counts {
            requests: (100_000.0 * share).round(),
            errors: (100_000.0 * share * rate).round(),
        };
        WindowOutcome::Counted {
            canary: counts(share, error_rate),
            stable: counts(1.0 - share, 0.001),
        }
    }
}

/// Provenance from harmless to none at all.
fn provenance(rng: &mut SmallRng) -> BTreeMap<String, String> {
    if rng.random_bool(0.1) {
        return BTreeMap::new();
    }
    let mut pick = |from: &[&'static str]| *from.choose(rng).unwrap();
    let contributor = pick(&["human", "human", "ai", "mixed"]);
    let pairs = [
        ("contributor", contributor),
        ("authors", "alice"),
        ("human-operator", "alice"),
        (
            "agents",
            if contributor == "human" {
                ""
            } else {
                "assistant:acme/model-1"
            },
        ),
        ("ai-share", if contributor == "human" { "0" } else { "80" }),
        ("revision", "1111111"),
        (
            "approved-revision",
            pick(&["1111111", "1111111", "2222222"]),
        ),
        ("reviewers", "bob"),
        ("tests", pick(&["PASSED", "PASSED", "PASSED", "WARNED"])),
        ("lines-added", pick(&["4", "30", "120", "600", "2500"])),
        ("lines-deleted", "1"),
        ("subsystems", pick(&["1", "1", "4"])),
        ("touches", pick(&["", "", "api", "auth", "migration"])),
    ];
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    let pairs = pairs.map(|(key, value)| {
        let key = format!("provenance.countersign.dev/{key}");
        (key, (*value).to_owned())
    });
    pairs.collect()
}

/// The month of one Rollout; returns its records and how many bad changes were among them.
fn month(rollout: (&str, &str), start: Timestamp, rng: &mut SmallRng) -> usize {
    let hours = |count: i64| SignedDuration::from_hours(count);
    let mut world = world(rollout, start);
    assert!(world.run(start + hours(1), &mut traffic(0.001), World::at_rest));
    // Equal spans with a random moment in each, so that each change has ended before the next.
    let span = 30 * 24 * 60 / CHANGES;
    let mut bad = 0;
    for number in 1..=CHANGES {
        let minute = (number - 1) * span + rng.random_range(120..span - 180);
        world.observation.now = start + SignedDuration::from_mins(minute);
        world.observation.spec.template.0 = template(number);
        world.observation.annotations = provenance(rng);
        world.observation.generation += 1;
        let fails = rng.random_bool(0.15);
        bad += usize::from(fails);
        let rate = if fails { 0.1 } else { 0.001 };
        let until = world.observation.now + hours(3);
        let ended = world.run(until, &mut traffic(rate), |seen| {
            World::at_rest(seen) && seen.status.revision == number + 1
        });
        assert!(
            ended,
            "{rollout:?} {number}: {:?}",
            world.observation.status
        );
    }
    assert!(world.broken.is_empty(), "{:?}", world.broken);
    bad
}

/// Writes the records as `kubectl get crr -A -o json` prints them.
fn save(records: &[(String, String, RolloutRunSpec)], path: &Path) {
    let items = records.iter().map(|(namespace, name, spec)| {
        json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "RolloutRun",
            "metadata": { "namespace": namespace, "name": name },
            "spec": spec,
        })
    });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>() });
    std::fs::write(path, serde_json::to_string(&list).unwrap()).unwrap();
}

fn report(path: &Path, arguments: &[&str]) -> String {
    delivery(path, &[&["--observed"][..], arguments].concat())
}

fn delivery(path: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"))
        .args(["report", "--since", "10000d", "--filename"])
        .arg(path)
        .args(arguments)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The sums that recomputing each change under enforced policies gives.
#[derive(Debug, Default)]
struct Expected {
    changes: usize,
    people: usize,
    more_steps: usize,
    frozen: usize,
    added: Vec<StdDuration>,
}

impl Expected {
    fn add(&mut self, record: &RolloutRunSpec, enforced: &Enforced) {
        let signed = enforced
            .plan
            .steps
            .iter()
            .any(|step| !step.sign_off.is_empty());
        let people = signed || !enforced.plan.promotion_sign_off.is_empty();
        let longer = plan::least_time(&enforced.plan).std();
        self.changes += 1;
        self.people += usize::from(people);
        self.more_steps += usize::from(enforced.plan.steps.len() > record.plan.steps.len());
        self.frozen += usize::from(stepped_at_a_weekend(record));
        self.added
            .push(longer.saturating_sub(plan::least_time(&record.plan).std()));
    }

    fn matches(mut self, sums: &Value) {
        self.added.sort_unstable();
        let duration = |at: &str| sums[at].as_str().unwrap().parse::<Duration>().unwrap();
        assert_eq!(sums["changes"], self.changes);
        assert_eq!(sums["people"], self.people);
        assert_eq!(sums["moreSteps"], self.more_steps);
        assert_eq!(sums["held"], self.frozen);
        assert_eq!(
            duration("addedTime").std(),
            self.added.iter().sum::<StdDuration>()
        );
        let middle = self.added.get(self.added.len() / 2);
        assert_eq!(
            duration("medianAddedTime").std(),
            middle.copied().unwrap_or_default()
        );
    }
}

/// Whether a step or the promotion began in the window of the policy.
fn stepped_at_a_weekend(record: &RolloutRunSpec) -> bool {
    let policies = policies("shop");
    let window = &policies[0].spec.freeze.windows[0];
    let mut lines = record.progress.transitions.iter();
    lines.any(|line| {
        let steps = ["StepStarted", "Promoting"].contains(&line.reason.as_str());
        let at = line.at.as_ref().unwrap().0;
        steps && freeze::ends_at(window, at).unwrap().is_some()
    })
}

#[test]
fn a_month_under_observe_is_summed_up_as_enforcing_would_have_been() {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut rng = SmallRng::seed_from_u64(21);
    let (mut all, mut bad) = (Vec::new(), 0);
    for rollout in ROLLOUTS {
        RECORDS.take();
        bad += month(rollout, start, &mut rng);
        let records = RECORDS.take().into_iter();
        all.extend(records.map(|(name, spec)| (rollout.0.to_owned(), name, spec)));
    }
    let enforced = ENFORCED.take();
    let (mut total, mut tiers) = (Expected::default(), BTreeMap::<_, Expected>::new());
    let mut pay = Expected::default();
    let first = |spec: &RolloutRunSpec| spec.revision == 1;
    for (namespace, name, record) in all.iter().filter(|(.., spec)| !first(spec)) {
        let enforced = &enforced[name];
        let observed = record.observed.as_ref().unwrap();
        assert_eq!(observed.tier, enforced.tier, "{name}");
        total.add(record, enforced);
        tiers
            .entry(enforced.tier)
            .or_default()
            .add(record, enforced);
        if namespace == "pay" {
            pay.add(record, enforced);
        }
    }
    assert!(total.changes >= 200 && bad > 10, "{total:?} {bad}");
    assert!(total.people > 20 && total.frozen > 20 && tiers.len() >= 3);

    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("month.json");
    save(&all, &path);
    let summary: Value = serde_json::from_str(&report(&path, &["-o", "json"])).unwrap();
    assert_eq!(summary["total"]["rolledBack"], bad);
    assert_eq!(summary["reasons"]["AwaitingSignOff"], total.people);
    assert_eq!(summary["reasons"]["Frozen"], total.frozen);
    assert_eq!(summary["policies"]["all"], summary["total"]);
    assert_eq!(summary["policies"]["pay"], summary["namespaces"]["pay"]);
    assert_eq!(summary["incomplete"], json!([]));
    let caught = summary["caught"].as_array().unwrap();
    assert!(!caught.is_empty() && caught.len() <= bad);
    total.matches(&summary["total"]);
    pay.matches(&summary["namespaces"]["pay"]);
    for (tier, expected) in tiers {
        expected.matches(&summary["tiers"][tier.as_str()]);
    }

    let table = report(&path, &[]);
    let changes = format!(
        "{} changes that policies only observed, begun since",
        all.len() - ROLLOUTS.len()
    );
    assert!(table.starts_with(&changes), "{table}");
    for part in [
        "\nTIER ",
        "\nPOLICY ",
        "\nNAMESPACE ",
        "\nWOULD-HAVE-WAITED-FOR ",
        "AnalysisFailed at weight ",
    ] {
        assert!(table.contains(part), "{part} in {table}");
    }
    let of_pay = report(&path, &["-n", "pay", "-o", "json"]);
    let of_pay: Value = serde_json::from_str(&of_pay).unwrap();
    assert_eq!(of_pay["total"], summary["namespaces"]["pay"]);
    figures_are_those_of(&path, all.len() - ROLLOUTS.len(), bad);
}

/// Each change but the first ones was deployed, and the bad ones failed.
fn figures_are_those_of(path: &Path, changes: usize, bad: usize) {
    let found = delivery(path, &["--by", "namespace", "-o", "json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    let total = &found["total"];
    assert_eq!(total["deployments"], changes);
    assert_eq!(total["changeFailureRate"]["count"], bad);
    assert_eq!(total["timeToRestore"]["count"], bad);
    let rework = total["reworkRate"]["count"].as_u64().unwrap();
    assert!(rework > 0 && rework <= bad as u64, "{total}");
    let pay = &found["groups"]["pay"];
    assert_eq!(pay["deployments"], 2 * CHANGES);
    let comparison = &found["comparison"];
    let strata = comparison["strata"].as_array().unwrap();
    let of = |row: &Value, group: &str| row[group]["of"].as_u64().unwrap();
    let known: u64 = strata
        .iter()
        .map(|it| of(it, "ai") + of(it, "people"))
        .sum();
    let unknown = comparison["unknown"].as_u64().unwrap();
    assert_eq!(known + unknown, changes as u64);
    let ratio = &comparison["oddsRatio"];
    // How many of the failures are in strata with both groups is up to chance.
    assert!(
        ratio["interval"]["low"].as_f64() < ratio["ratio"].as_f64()
            || ratio.is_null() && comparison["finding"]["result"] == "notEnough",
        "{comparison}"
    );

    let table = delivery(path, &["-o", "markdown"]);
    assert!(table.contains("|  | DEPLOYMENTS | PER-WEEK |"), "{table}");
    let csv = delivery(path, &["-o", "csv"]);
    assert!(
        csv.starts_with("group,figure,count,of,value,low,high,unit,finding\r\n"),
        "{csv}"
    );
    let refused = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"))
        .args(["report", "--observed", "-o", "csv", "--filename"])
        .arg(path)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && error.contains("-o table"),
        "{error}"
    );
}
