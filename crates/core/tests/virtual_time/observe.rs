//! Policies that only observe: a change goes on as if they demanded nothing, its evidence still rolls it
//! back, and its record states what they would have demanded.

use countersign_api::policy::Enforcement;
use countersign_api::rollout::{Change, Observed, Plan};
use countersign_core::observation::people::IncidentAnswer;
use countersign_core::plan::{least_time, plan_for};
use countersign_core::policy::effective;

use super::people::{freeze, go_on, message, step, waits_for};
use super::*;

/// A policy that requires much of risky changes.
fn leads(enforcement: Enforcement) -> NamedPolicy {
    let spec = json!({
        "enforcement": enforcement,
        "tiers": { "high": {
            "signOff": [{ "count": 1, "groups": ["payments-leads"] }],
            "promotionSignOff": [{ "count": 2 }],
            "requireRouter": true,
        } },
        "freeze": {
            "windows": [{ "name": "always", "schedule": "* * * * *", "duration": "1h" }],
            "incident": { "query": "up" },
        },
        "concurrency": { "perCluster": 1 },
    });
    NamedPolicy {
        name: "leads".into(),
        generation: 3,
        spec: serde_json::from_value(spec).unwrap(),
    }
}

/// The plan of a risky change if this policy is enforced.
fn enforced(policy: &NamedPolicy) -> Plan {
    plan_for(
        Tier::High,
        &[],
        &[],
        &effective(std::slice::from_ref(policy)),
    )
}

/// A world in which a risky change is about to begin under these policies.
fn risky_under(policies: Vec<NamedPolicy>) -> World {
    let mut world = serving();
    world.observation.policies = policies;
    let incident = IncidentAnswer::Incident { value: 2.0 };
    world.observation.people.incidents = [("leads".to_owned(), incident)].into();
    change(&mut world, "v2", risky());
    world
}

fn under_way(world: &World) -> &Change {
    world.observation.status.change.as_ref().expect("a change")
}

fn observed(world: &World) -> &Observed {
    under_way(world).observed.as_ref().expect("it is observed")
}

fn recorded(world: &World) -> Vec<&str> {
    let all = observed(world).would.iter();
    all.map(|it| it.message.as_str()).collect()
}

/// Runs a change to its end, and returns it as it was last in the status.
fn to_the_end(world: &mut World, traffic: Rates) -> Change {
    let mut last = None;
    let until = world.observation.now + SignedDuration::from_hours(100);
    world.run(until, &mut steady(traffic.0, traffic.1, 0.001), |o| {
        let change = o.status.change.clone();
        last = change.or(last.take());
        last.as_ref().is_some_and(|it| it.outcome.is_some())
    });
    lawful(world);
    last.expect("a change began")
}

/// Requests of a window, and the canary's error rate.
type Rates = (f64, f64);

#[test]
pub(super) fn a_risky_change_that_is_only_observed_is_promoted_without_people_and_what_they_would_have_held_is_recorded()
 {
    let mut world = risky_under(vec![leads(Enforcement::Observe)]);
    let mut decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
    let record = decision.record.take().expect("a change is recorded").spec;
    assert_eq!(record.enforcement, Enforcement::Observe);
    let at_start = record.observed.expect("what would have been is recorded");
    let demanded = enforced(&leads(Enforcement::Enforce));
    let (steps, least) = (demanded.steps.len(), least_time(&demanded));
    assert_eq!(at_start.tier, Tier::High);
    assert_eq!(usize::try_from(at_start.steps), Ok(steps));
    assert_eq!(at_start.least_time, least);
    assert_eq!(at_start.policies, ["leads@3"]);
    assert_eq!(
        (at_start.sign_off.len(), at_start.promotion_sign_off.len()),
        (1, 1)
    );

    let began = world.observation.now;
    let change = to_the_end(&mut world, (5_000.0, 0.001));
    assert_eq!(change.outcome, Some(Outcome::Promoted));
    assert_eq!((change.tier, change.score), (at_start.tier, at_start.score));
    let took = world.observation.now.duration_since(began);
    assert!(took < SignedDuration::from_mins(60), "it took {took:#}");
    let instead = format!(
        "would have taken {steps} steps over at least {least} instead of {} over {}",
        change.plan.steps.len(),
        least_time(&change.plan)
    );
    let recorded = change.observed.unwrap().would;
    let recorded: Vec<_> = recorded
        .iter()
        .map(|it| (it.reason.as_str(), it.message.as_str()))
        .collect();
    let expected = [
        (
            "AwaitingSignOff",
            "would have waited for 1 person of payments-leads before the first step",
        ),
        (
            "AwaitingSignOff",
            "would have waited for 2 people before the promotion",
        ),
        ("Baking", instead.as_str()),
        (
            "RouterRequired",
            "would have waited for routes: tier high requires them (requireRouter), and spec.strategy.canary.traffic names none",
        ),
        (
            "Queued",
            "would have waited in the queue: policy leads limits how many changes of tier high or above are under way at once",
        ),
    ];
    assert_eq!(recorded[..5], expected);
    let frozen = recorded[5].1;
    assert!(
        frozen.starts_with("would have waited before the first step: window leads/always, until"),
        "{frozen}"
    );
    assert!(frozen.ends_with("incident by the query of policy leads (it gives 2)"));
    let lines = change.transitions.iter();
    let lines: Vec<_> = lines.filter(|line| line.reason == "Observed").collect();
    assert_eq!(lines.len(), 1, "it is recorded once");
    assert!(
        lines[0]
            .message
            .starts_with("not enforced: leads@3; with tier high"),
        "{}",
        lines[0].message
    );
}

#[test]
pub(super) fn law_3_a_bad_change_that_is_only_observed_is_rolled_back() {
    let mut world = risky_under(vec![leads(Enforcement::Observe)]);
    let change = to_the_end(&mut world, (5_000.0, 0.2));
    assert_eq!(change.outcome, Some(Outcome::RolledBack));
    go_on(&mut world, 5);
    message(&world, "AnalysisFailed");
    assert_eq!(stable_image(&world), "example.org/shop:v1");
}

#[test]
pub(super) fn law_6_a_change_that_is_only_observed_is_rolled_back_without_data() {
    let mut world = risky_under(vec![leads(Enforcement::Observe)]);
    let until = world.observation.now + SignedDuration::from_hours(2);
    assert!(
        world.run(until, &mut *uncounted(Uncounted::NoSeries), |o| {
            o.status.phase == Phase::Degraded
        }),
        "{:?}",
        world.observation.status
    );
    lawful(&world);
}

#[test]
pub(super) fn scarce_evidence_of_a_change_that_is_only_observed_requires_nobody_and_is_recorded() {
    let mut world = risky_under(vec![leads(Enforcement::Observe)]);
    let change = to_the_end(&mut world, (10.0, 0.0));
    assert_eq!(change.outcome, Some(Outcome::Promoted));
    let recorded = change.observed.unwrap().would;
    let awaited = recorded.iter().filter(|it| it.reason == "AwaitingPerson");
    let awaited: Vec<_> = awaited.map(|it| it.message.as_str()).collect();
    assert_eq!(
        awaited.first(),
        Some(&"would have waited for 1 person to accept the scarce evidence of step 1"),
        "{recorded:?}"
    );
}

#[test]
pub(super) fn without_a_check_a_change_that_is_only_observed_goes_on_and_it_is_recorded() {
    let mut world = risky_under(vec![leads(Enforcement::Observe)]);
    world.observation.spec.strategy.canary.analysis = None;
    let change = to_the_end(&mut world, (0.0, 0.0));
    assert_eq!(change.outcome, Some(Outcome::Promoted));
    let recorded = change.observed.unwrap().would;
    let held = "would have been held in step 1: no check runs in it, and tier high requires one";
    assert!(recorded.iter().any(|it| it.message == held), "{recorded:?}");
}

#[test]
pub(super) fn a_change_keeps_the_mode_that_it_began_with_and_the_next_one_is_enforced() {
    let mut world = risky_under(vec![leads(Enforcement::Observe)]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
    world.observation.policies = vec![leads(Enforcement::Enforce)];
    let change_of_then = to_the_end(&mut world, (5_000.0, 0.001));
    assert_eq!(change_of_then.outcome, Some(Outcome::Promoted));
    assert_eq!(change_of_then.enforcement, Enforcement::Observe);
    let lines = change_of_then.transitions.iter();
    assert_eq!(lines.filter(|line| line.reason == "Tightened").count(), 0);

    go_on(&mut world, 5);
    change(&mut world, "v3", risky());
    go_on(&mut world, 1);
    assert_eq!(under_way(&world).enforcement, Enforcement::Enforce);
    assert_eq!(under_way(&world).observed, None);
    assert_eq!(
        (step(&world), waits_for(&world)),
        (0, Some("RouterRequired"))
    );
}

#[test]
pub(super) fn a_change_that_policies_held_is_held_by_them_though_they_only_observe_by_now() {
    let mut policy = leads(Enforcement::Enforce);
    policy.spec.tiers.high.require_router = None;
    let mut world = risky_under(vec![policy.clone()]);
    go_on(&mut world, 1);
    assert_eq!((step(&world), waits_for(&world)), (0, Some("Frozen")));
    policy.spec.enforcement = Enforcement::Observe;
    world.observation.policies = vec![policy];
    go_on(&mut world, 5);
    assert_eq!((step(&world), waits_for(&world)), (0, Some("Frozen")));
}

#[test]
pub(super) fn beside_a_policy_that_is_enforced_another_one_may_only_observe() {
    let mut world = risky_under(vec![unattended(), leads(Enforcement::Observe)]);
    go_on(&mut world, 1);
    assert_eq!(under_way(&world).enforcement, Enforcement::Enforce);
    assert_eq!(under_way(&world).plan.policies, ["unattended@1"]);
    assert_eq!(step(&world), 1, "{:?}", world.observation.status);
    assert!(recorded(&world)[0].contains("payments-leads"));
    // Once it is enforced, it is for the next change.
    world.observation.policies = vec![unattended(), leads(Enforcement::Enforce)];
    let change = to_the_end(&mut world, (5_000.0, 0.001));
    assert_eq!(change.outcome, Some(Outcome::Promoted));
    let steps = |plan: &Plan| plan.steps.iter().map(|it| it.weight).collect::<Vec<_>>();
    assert_eq!(steps(&change.plan), steps(&enforced(&unattended())));
}

#[test]
pub(super) fn what_a_person_stops_is_stopped_though_policies_only_observe() {
    let mut world = risky_under(vec![leads(Enforcement::Observe)]);
    world.observation.people.freezes = vec![freeze(|_| {})];
    go_on(&mut world, 5);
    assert_eq!((step(&world), waits_for(&world)), (0, Some("Frozen")));
    assert_eq!(
        world.observation.status.message,
        "Freeze incident by dave: checkout is down"
    );
    world.observation.people.freezes.clear();
    world.observation.spec.paused = true;
    go_on(&mut world, 5);
    assert_eq!((step(&world), waits_for(&world)), (0, Some("Paused")));
}
