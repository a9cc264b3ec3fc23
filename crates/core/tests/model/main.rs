//! The state machine explored exhaustively to a stated depth: every order of what the operator, its
//! surroundings and people do, with a bounded number of faults on each path.
//!
//! The transition function is `core::decide` itself in a small world ([`world`]); the laws are read off
//! that world ([`oracle`]), and from every state the rollout must come to an end once faults stop
//! ([`ends`]). Where a promotion takes `n` actions, `cargo test` explores to a depth of at least `n` with
//! one fault; `COUNTERSIGN_MODEL_DEEPER` and `COUNTERSIGN_MODEL_FAULTS` go further (`make model`).

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
// A state is what it is, and each law and action reads best in its list.
#![allow(clippy::too_many_lines, clippy::struct_excessive_bools)]

#[path = "../digest/mod.rs"]
mod digest;
mod ends;
mod oracle;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use countersign_api::freeze::{FreezeAction, FreezeSpec};
use countersign_api::intervention::InterventionAction;
use countersign_api::rollout::{Outcome, Stage};
use countersign_api::sign_off::SignOffDecision;
use countersign_api::{CHANGED_BY_ANNOTATION, Duration, RouteReference, Traffic};
use countersign_core::Observation;
use countersign_core::change::is_watched;
use countersign_core::observation::people::{NamedFreeze, NamedPolicy};
use countersign_core::observation::traffic::{Route, RouteObject};
use countersign_core::observation::workload::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use stateright::{Checker, HasDiscoveries, Model, Property};

use ends::{End, Ends, turn};
use world::{Evidence, How, World, person, template};

/// Services of the setups with routes: stable's and the canary's.
pub const SERVICES: [&str; 2] = ["web", "web-canary"];

/// Generation of the policy that asks for a signature before the promotion.
pub const TIGHTENED: i64 = 2;

/// Minutes for which people are waited for, at each gate.
pub const WAIT_AT_MOST: i64 = 3;

/// What sends requests to the revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    /// A Service of somebody else's to all pods alike.
    Pods,
    /// Two plain Services: stable's has all requests.
    Services,
    /// A route to the two Services.
    Routes,
    /// The same, and stable gives up the pods that its share needs no more.
    Dynamic,
}

/// Where a change is before anything else happens to it.
#[derive(Clone, Copy)]
enum Moment {
    In(Stage),
    Awaiting(&'static str),
}

/// One Rollout whose first revision serves, and what is asked of its changes.
pub struct Setup {
    name: &'static str,
    replicas: i32,
    /// Weights of the steps.
    weights: &'static [i32],
    /// Size of the canary in each step, in percent.
    scale: Option<i32>,
    /// Minutes that each step bakes.
    bake: i64,
    /// Minutes without progress after which a change is rolled back.
    deadline: i64,
    /// Requests of the canary in a minute.
    requests: u32,
    /// What becomes of scarce evidence then.
    scarce: &'static str,
    /// People who must sign before the first step, and before the promotion.
    first_asks: usize,
    last_asks: usize,
    smoke: bool,
    sends: Sends,
    /// Pods beyond those that are asked for, where there is no room for all of both revisions.
    surge: Option<i32>,
    /// Minutes for which a promoted revision is watched, and for which the pods before it are kept.
    watched: i64,
    kept: u64,
    /// Empty revisions that are remembered.
    history: Option<i32>,
    /// An error budget holds a change while it burns.
    budget: bool,
    /// What was pushed before, one after the other; the last of them may still be under way.
    before: &'static [u8],
    from: Option<Moment>,
    /// Pods come one by one, and each takes its time.
    slow: bool,
    /// What is no fault here, once on each path.
    free: &'static [Act],
    /// Actions on a path, unless it is said otherwise.
    depth: usize,
    /// What must be seen beside what is in every setup, so that the model is about something.
    seen: &'static [&'static str],
    /// Whether a change may take all ways from its beginning to its end here, within the depth.
    whole: bool,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The operator looks, decides and carries out.
    Look(How),
    /// It decides, and is held up.
    Read,
    /// It carries out what it decided then.
    WriteLate,
    PodsCome,
    /// One of them does.
    PodComes {
        stable: bool,
    },
    /// Somebody deletes a ReplicaSet of one of the two revisions.
    SetGoes {
        stable: bool,
    },
    /// A pod of stable's, or of the new revision, is not available any more.
    PodGoes {
        stable: bool,
    },
    PodsCrash,
    /// From now on no pod becomes available, or they do again.
    Stuck(bool),
    /// Routers and endpoints follow.
    Follow,
    /// From now on they do not, or they do again.
    Deaf(bool),
    EditRoute,
    JobEnds(bool),
    JobHangs,
    Tick,
    /// What Prometheus says from now on.
    Prometheus(Evidence),
    Sign(&'static str, SignOffDecision),
    /// A person accepts the scarce evidence of the present step.
    Accept,
    /// The error budget burns, or does not any more.
    Burn(bool),
    Command(InterventionAction),
    Freeze(Option<FreezeAction>),
    Pause(bool),
    Push(u8),
    Replicas(i32),
    /// The policy asks for a signature before the promotion, or for nothing any more.
    Policy {
        asks: bool,
    },
}

#[derive(Clone)]
struct State(Arc<World>);

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

struct Machine {
    setup: Setup,
    ends: Ends,
    /// The policy, and the one that is tightened.
    policies: [NamedPolicy; 2],
    depth: usize,
    faults: usize,
    /// The digest of every decision that was carried out wholly, with what it was made from.
    decided: Mutex<BTreeSet<String>>,
}

impl Model for Machine {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        vec![State(Arc::new(serving(&self.setup, self.faults)))]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Act>) {
        let world = &*state.0;
        if world.steps >= self.depth || !world.broken.is_empty() {
            return;
        }
        actions.extend(expected(&self.setup, world));
        let mut others = faults(&self.setup, world);
        if world.faults == 0 {
            others.retain(|act| self.setup.is_free(world, *act).is_some());
        }
        actions.extend(others);
    }

    fn next_state(&self, state: &State, act: Act) -> Option<State> {
        let world = &*state.0;
        let mut next = self.apply(world, act)?;
        let expected = expected(&self.setup, world).contains(&act);
        match self.setup.is_free(world, act).filter(|_| !expected) {
            Some(place) => next.spent |= 1 << place,
            None => next.faults = world.faults - usize::from(!expected),
        }
        next.steps = world.steps + 1;
        next.settle();
        match act {
            // As the same look would have, had it not been cut short: the next one sees other things.
            Act::Look(how) if how != How::Wholly => self.same_end(world.looked(), &mut next),
            Act::WriteLate if !world.late_writes_status() => self.same_end(world, &mut next),
            _ => {}
        }
        (next.key != world.key).then(|| State(Arc::new(next)))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = Property::<Self>::always;
        let mut properties = vec![
            always("no clock ends what goes on", |_, it| keeps(it, 0)),
            always("law 1: no step without its gates", |_, it| keeps(it, 1)),
            always("law 2: no gate without its people", |_, it| keeps(it, 2)),
            always("law 3: bad evidence rolls back alone", |_, it| keeps(it, 3)),
            always("law 4: stable can always take over", |_, it| keeps(it, 4)),
            always("law 5: crash anywhere, same outcome", |_, it| keeps(it, 5)),
            always("law 6: doubt never promotes", |_, it| keeps(it, 6)),
            always("law 7: more risk, never less care", |_, it| keeps(it, 7)),
            always("law 8: what failed stays failed", |_, it| keeps(it, 8)),
            always("laws 9 and 10", |_, it| keeps(it, 9) && keeps(it, 10)),
            always(
                "it ends once faults stop and the evidence is good",
                |it, state| it.ends_with(state, Evidence::Good),
            ),
            always(
                "it ends once faults stop and the evidence is bad",
                |it, state| it.ends_with(state, Evidence::Bad),
            ),
        ];
        properties.extend(SEEN.iter().filter_map(|(name, seen)| {
            let common = COMMON.contains(name) && self.setup.whole;
            let is_due = common || self.setup.seen.contains(name);
            is_due.then(|| Property::sometimes(name, *seen))
        }));
        properties
    }
}

type Seen = fn(&Machine, &State) -> bool;

/// What must be seen in the setups that name it.
const SEEN: [(&str, Seen); 20] = [
    ("it waits for evidence", |_, it| {
        waits(it, "AwaitingEvidence")
    }),
    ("it is scaled to nothing", |_, it| waits(it, "ScaledToZero")),
    ("a promoted revision gives way again", |_, it| {
        it.0.change().is_some_and(|it| {
            let mut lines = it.transitions.iter();
            it.outcome == Some(Outcome::RolledBack) && lines.any(|it| it.reason == "Regressed")
        })
    }),
    ("it waits for the budget", |_, it| {
        waits(it, "ErrorBudgetBurn")
    }),
    ("a person is asked about evidence", |_, it| {
        waits(it, "AwaitingPerson")
    }),
    ("stable is made again", |_, it| it.0.made_again),
    ("a revision is forgotten", |_, it| it.0.forgotten),
    ("a change is promoted", |_, it| {
        outcome(it) == Some(Outcome::Promoted)
    }),
    ("a change is rolled back", |_, it| {
        it.0.change().is_some_and(|it| {
            it.stage == Stage::RolledBack && it.outcome == Some(Outcome::RolledBack)
        })
    }),
    ("a change is superseded", |_, it| {
        outcome(it) == Some(Outcome::Superseded)
    }),
    ("a change is reverted", |_, it| {
        outcome(it) == Some(Outcome::Reverted)
    }),
    ("the operator crashes between two writes", |_, it| {
        it.0.crashed
    }),
    ("a write is refused as too old", |_, it| it.0.refused),
    ("it waits for a signature", |_, it| {
        waits(it, "AwaitingSignOff")
    }),
    ("it is paused", |_, it| waits(it, "Paused")),
    ("it is frozen", |_, it| waits(it, "Frozen")),
    ("it waits for pods", |_, it| waits(it, "AwaitingPods")),
    ("it waits for Prometheus", |_, it| {
        waits(it, "PrometheusUnreachable")
    }),
    ("it waits for a router", |_, it| {
        waits(it, "AwaitingTraffic")
    }),
    ("it waits for the smoke check", |_, it| {
        waits(it, "AwaitingSmoke")
    }),
];

/// Those of every setup in which a change may take all ways.
const COMMON: [&str; 11] = [
    "a change is promoted",
    "a change is rolled back",
    "a change is superseded",
    "a change is reverted",
    "stable is made again",
    "the operator crashes between two writes",
    "a write is refused as too old",
    "it is paused",
    "it is frozen",
    "it waits for pods",
    "it waits for Prometheus",
];

fn outcome(state: &State) -> Option<Outcome> {
    state.0.change().and_then(|it| it.outcome)
}

fn waits(state: &State, what: &str) -> bool {
    state.0.seen.status.waiting_for.as_deref() == Some(what)
}

fn keeps(state: &State, law: u8) -> bool {
    let law = format!("law {law}:");
    !state.0.broken.iter().any(|it| it.starts_with(&law))
}

impl Machine {
    fn ends_with(&self, state: &State, evidence: Evidence) -> bool {
        let end = self.ends.of(&self.setup, &state.0, evidence);
        if let End::Nowhere(why) = &end {
            println!(
                "{}: from {state:?} with {evidence:?}: {why}",
                self.setup.name
            );
        }
        !matches!(end, End::Nowhere(_))
    }

    /// A crash, a refused write, and a late one of what the status asks for change nothing about the end.
    fn same_end(&self, world: &World, next: &mut World) {
        for evidence in [Evidence::Good, Evidence::Bad] {
            let end = |world: &World| self.ends.of(&self.setup, world, evidence);
            let (expected, found) = (end(world), end(next));
            if expected != found {
                next.broken
                    .push(format!("law 5: {found:?} instead of {expected:?}"));
                next.settle();
            }
        }
    }

    fn apply(&self, world: &World, act: Act) -> Option<World> {
        Some(match act {
            Act::Look(how) => {
                let decision = world.decision();
                let mut next = if how == How::Wholly {
                    let decided = digest::project(&world.seen, decision);
                    let decided = digest::digest([decided.as_bytes()]);
                    self.decided.lock().unwrap().insert(decided);
                    (**world.looked()).clone()
                } else {
                    world.carry_out(decision, how)
                };
                next.broken = oracle::broken(&self.setup, world, decision, how, &next);
                next
            }
            Act::Read => world.read(),
            // What was right when it was decided is not judged by what has come since, but by its end.
            Act::WriteLate => world.write_late()?,
            Act::PodsCome => world.pods_come(),
            Act::PodGoes { stable } => world.pod_goes(&world.side(stable)?.hash),
            Act::PodComes { stable } => world.pod_comes(&world.side(stable)?.hash),
            Act::SetGoes { stable } => world.set_goes(&world.side(stable)?.hash),
            Act::PodsCrash => world.pods_crash(),
            Act::Stuck(on) => world.with(|next| next.stuck = on),
            Act::Follow => world.follow(),
            Act::Deaf(on) => world.with(|next| next.deaf = on),
            Act::EditRoute => world.edit_route(),
            Act::JobEnds(well) => world.job_ends(well),
            Act::JobHangs => world.with(|next| next.hung = true),
            Act::Tick => world.tick(),
            Act::Prometheus(evidence) => world.with(|next| next.evidence = evidence),
            Act::Sign(user, decision) => world.sign(user, decision, None)?,
            Act::Accept => {
                let gate = format!("evidence-{}", world.canary()?.step);
                world.sign("carol", SignOffDecision::Approve, Some(gate))?
            }
            Act::Burn(on) => world.burn(on),
            Act::Command(action) => world.command(action)?,
            Act::Freeze(action) => world.with(|next| {
                next.seen.people.freezes = action.into_iter().map(freeze).collect();
            }),
            Act::Pause(on) => world.edit_spec(|seen| seen.spec.paused = on),
            Act::Push(version) => world.push(version),
            Act::Replicas(replicas) => world.edit_spec(|seen| seen.spec.replicas = replicas),
            Act::Policy { asks } => world.with(|next| {
                next.seen.policies = vec![self.policies[usize::from(asks)].clone()];
            }),
        })
    }
}

/// What happens where nothing goes wrong, and what ends a fault.
fn expected(setup: &Setup, world: &World) -> Vec<Act> {
    let mut all = Vec::new();
    let mut may = |when: bool, act: Act| {
        if when {
            all.push(act);
        }
    };
    may(world.looked().key != world.key, Act::Look(How::Wholly));
    may(world.late.is_some(), Act::WriteLate);
    may(world.pods_pend() && !world.stuck, Act::PodsCome);
    may(!world.follows() && !world.deaf, Act::Follow);
    may(world.job_runs() && !world.hung, Act::JobEnds(true));
    let slow = setup.slow && world.pods_pend() && !world.stuck;
    may(world.is_quiet() || slow, Act::Tick);
    for (stable, set) in [true, false].map(|stable| (stable, world.side(stable))) {
        let pends = set.is_some_and(|set| set.available < set.replicas && !world.crashes(set));
        may(slow && pends, Act::PodComes { stable });
    }
    may(world.burning, Act::Burn(false));
    may(world.seen.spec.replicas == 0, Act::Replicas(setup.replicas));
    may(world.stuck, Act::Stuck(false));
    may(world.deaf, Act::Deaf(false));
    may(
        world.evidence != Evidence::Good,
        Act::Prometheus(Evidence::Good),
    );
    may(!world.seen.people.freezes.is_empty(), Act::Freeze(None));
    may(world.seen.spec.paused, Act::Pause(false));
    let paused = world.change().is_some_and(|it| it.paused_by.is_some());
    may(paused, Act::Command(InterventionAction::Resume));
    let waits = world.seen.status.waiting_for.as_deref() == Some("AwaitingSignOff");
    may(waits, Act::Sign("carol", SignOffDecision::Approve));
    let asked = world.seen.status.waiting_for.as_deref() == Some("AwaitingPerson");
    may(asked, Act::Accept);
    let begins = world.steps == 0 && setup.from.is_none();
    may(
        begins,
        Act::Push(if setup.before.is_empty() { 2 } else { 3 }),
    );
    all
}

/// What may go wrong, or be done by people, in every setup.
fn faults(setup: &Setup, world: &World) -> Vec<Act> {
    let mut all = Vec::new();
    let mut may = |when: bool, act: Act| {
        if when {
            all.push(act);
        }
    };
    if world.looked().key != world.key {
        let actions = world.decision().actions.len();
        (0..actions).for_each(|some| may(true, Act::Look(How::First(some))));
        (0..actions).for_each(|one| may(true, Act::Look(How::Without(one))));
        may(true, Act::Look(How::Unrecorded));
        may(world.late.is_none(), Act::Read);
    }
    let busy = world.canary().is_some();
    // The operator is away, or pods and routers are slow.
    may(!world.is_quiet(), Act::Tick);
    for (stable, set) in [true, false].map(|stable| (stable, world.side(stable))) {
        let there = set.is_some_and(|set| set.available > 0);
        may(there && (stable || busy), Act::PodGoes { stable });
        may(set.is_some() && (stable || busy), Act::SetGoes { stable });
    }
    let pods = world.canary_set().is_some_and(|it| it.replicas > 0);
    may(busy && pods && !world.crashing, Act::PodsCrash);
    may(busy && !world.stuck, Act::Stuck(true));
    let routed = world.routed_share().is_some();
    may(routed && busy && !world.deaf, Act::Deaf(true));
    if world.routed_share().is_some_and(|share| share != 50) {
        may(true, Act::EditRoute);
    }
    let live = world.change().is_some_and(|it| it.evidence.from.is_some());
    let watched = world.change().is_some_and(is_watched);
    may(
        watched && world.evidence == Evidence::Good,
        Act::Prometheus(Evidence::Bad),
    );
    may(
        setup.budget && live && busy && !world.burning,
        Act::Burn(true),
    );
    for evidence in [
        Evidence::Bad,
        Evidence::Unclear,
        Evidence::Quiet,
        Evidence::NoData,
        Evidence::Away,
    ] {
        may(
            live && busy && world.evidence == Evidence::Good,
            Act::Prometheus(evidence),
        );
    }
    if let Some(change) = world.change() {
        let over = change.outcome.is_some();
        may(!over, Act::Command(InterventionAction::Abort));
        may(!over, Act::Command(InterventionAction::Pause));
        may(!over, Act::Command(InterventionAction::Promote));
        may(over, Act::Command(InterventionAction::Retry));
    }
    for action in [FreezeAction::Hold, FreezeAction::RollBack] {
        may(
            world.seen.people.freezes.is_empty() && busy,
            Act::Freeze(Some(action)),
        );
    }
    may(!world.seen.spec.paused && busy, Act::Pause(true));
    for version in 1..=3 {
        let other = world.version_of_template() != format!("example.org/shop:v{version}");
        may(other && world.steps > 0, Act::Push(version));
    }
    may(world.job_runs() && !world.hung, Act::JobEnds(false));
    may(world.job_runs() && !world.hung, Act::JobHangs);
    if setup.first_asks > 0 {
        let approve = SignOffDecision::Approve;
        may(busy, Act::Sign("alice", approve));
        may(busy, Act::Sign("erin", approve));
        may(busy, Act::Sign("carol", approve));
        may(busy, Act::Sign("carol", SignOffDecision::Reject));
        may(busy, Act::Sign("carol", SignOffDecision::BreakGlass));
    } else if world.routed_share().is_none() {
        let asks = world.seen.policies[0].generation == TIGHTENED;
        may(busy, Act::Policy { asks: !asks });
    }
    let replicas = setup.replicas;
    for other in [replicas + 1, 1, 0] {
        may(world.seen.spec.replicas == replicas, Act::Replicas(other));
    }
    all
}

impl Setup {
    /// The place of an act among those that cost nothing here, unless it was done already.
    fn is_free(&self, world: &World, act: Act) -> Option<usize> {
        let place = self.free.iter().position(|free| *free == act)?;
        (world.spent & (1 << place) == 0).then_some(place)
    }
}

fn freeze(action: FreezeAction) -> NamedFreeze {
    NamedFreeze {
        name: "incident".into(),
        spec: FreezeSpec {
            reason: "checkout is down".into(),
            namespace_selector: None,
            rollout_selector: None,
            tiers: vec![],
            until: None,
            action,
            person: person("dave"),
        },
    }
}

/// The built-in policy with short steps in the lowest tier, which the changes are in.
fn policy(setup: &Setup, last_asks: usize, generation: i64) -> NamedPolicy {
    let built_in = countersign_core::policy::defaults::built_in();
    let mut spec = serde_json::to_value(built_in).unwrap();
    let asks = |count: usize| match count {
        0 => json!([]),
        count => json!([{ "count": count }]),
    };
    for tier in ["low", "medium", "high", "critical"] {
        let demands = &mut spec["tiers"][tier];
        let weights = setup.weights.iter();
        let bake = format!("{}m", setup.bake);
        let steps = weights.map(|weight| {
            let mut step = json!({ "weight": weight, "bake": bake, "minRequests": 10 });
            if let Some(scale) = setup.scale {
                step["scale"] = json!(scale);
            }
            step
        });
        demands["steps"] = steps.collect();
        for (key, value) in [
            ("maxFirstWeight", json!(50)),
            ("minFinalWeight", json!(0)),
            ("maxIncrease", json!(100)),
            ("minBake", json!("1m")),
            ("minRequests", json!(0)),
            ("waitAtMost", json!(format!("{WAIT_AT_MOST}m"))),
            ("onScarceEvidence", json!(setup.scarce)),
            ("signOff", asks(setup.first_asks)),
            ("promotionSignOff", asks(last_asks)),
        ] {
            demands[key] = value;
        }
    }
    NamedPolicy {
        name: "model".into(),
        generation,
        spec: serde_json::from_value(spec).unwrap(),
    }
}

fn route() -> Value {
    let backend = |name: &str, weight: i32| json!({ "name": name, "port": 80, "weight": weight });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "web", "uid": "u", "generation": 1 },
        "spec": { "parentRefs": [{ "name": "gate" }], "rules": [
            { "backendRefs": [backend(SERVICES[0], 1), backend(SERVICES[1], 0)] },
        ] },
    })
}

fn first(setup: &Setup) -> Observation {
    let mut annotations: BTreeMap<_, _> = [
        ("revision", "1111111"),
        ("approved-revision", "1111111"),
        ("contributor", "human"),
        ("authors", "alice"),
        ("reviewers", "bob"),
        ("tests", "PASSED"),
        ("lines-added", "3"),
        ("lines-deleted", "1"),
        ("files-changed", "1"),
    ]
    .into_iter()
    .map(|(key, value)| {
        (
            format!("provenance.countersign.dev/{key}"),
            value.to_owned(),
        )
    })
    .collect();
    annotations.insert(CHANGED_BY_ANNOTATION.into(), "erin".into());
    let mut analysis = json!({
        "interval": "1m",
        "checks": [{ "name": world::CHECK, "preset": "HttpRequestsTotal" }],
    });
    if setup.watched > 0 {
        // What is watched alone is compared with nothing.
        analysis["checks"][0]["ceiling"] = json!(0.02);
        analysis["postPromotion"] = json!(format!("{}m", setup.watched));
    }
    if setup.budget {
        analysis["objectives"] = json!([{
            "name": world::OBJECTIVE, "target": 0.999, "onBurn": "Hold",
            "errors": "requests{code=~\"5..\"}", "total": "requests",
        }]);
    }
    let spec = serde_json::from_value(json!({
        "replicas": setup.replicas,
        "selector": { "matchLabels": { "app": "shop" } },
        "template": template(1),
        "progressDeadlineSeconds": 60 * setup.deadline,
        "strategy": { "canary": { "analysis": analysis } },
    }));
    let mut seen = Observation {
        uid: "uid".into(),
        generation: 1,
        annotations,
        policies: vec![policy(setup, setup.last_asks, 1)],
        concurrent_changes: Some(Ok(vec![])),
        ..Observation::of("team", "shop", spec.unwrap())
    };
    if setup.budget {
        let answer = Err("it was not asked yet".into());
        seen.analysis
            .objectives
            .insert(world::OBJECTIVE.into(), answer);
    }
    seen.spec.revision_history_limit = setup.history.unwrap_or(seen.spec.revision_history_limit);
    let canary = &mut seen.spec.strategy.canary;
    if setup.sends != Sends::Pods {
        for name in SERVICES {
            let service = Service {
                kind: "ClusterIP".into(),
                selector: [("app".into(), "shop".into())].into(),
            };
            seen.traffic.services.insert(name.into(), Some(service));
        }
        canary.stable_service = Some(SERVICES[0].into());
        canary.canary_service = Some(SERVICES[1].into());
    }
    if matches!(setup.sends, Sends::Routes | Sends::Dynamic) {
        let reference = RouteReference {
            name: "web".into(),
            ..RouteReference::default()
        };
        canary.traffic = Some(Traffic {
            routes: vec![reference.clone()],
            testers: None,
        });
        let object = RouteObject {
            object: route(),
            last_writer: None,
        };
        seen.traffic.routes = vec![Route {
            reference,
            object: Ok(object),
            destination_rule: None,
            testers: None,
        }];
    }
    canary.dynamic_stable = setup.sends == Sends::Dynamic;
    canary.scale_down_delay = Duration::minutes(setup.kept);
    if let Some(surge) = setup.surge {
        canary.max_surge = IntOrString::Int(surge);
    }
    seen
}

fn smoke() -> countersign_api::Smoke {
    let template = json!({ "spec": { "containers": [{ "name": "smoke", "image": "{{image}}" }] } });
    serde_json::from_value(json!({ "timeout": "1m", "template": template })).unwrap()
}

/// A world in which the last of these revisions serves, or is as far as the setup says, and nothing has
/// happened yet.
fn serving(setup: &Setup, faults: usize) -> World {
    let mut world = World::new(first(setup), 0);
    world.requests = setup.requests;
    let mut versions = setup.before.iter();
    let begins = |world: &World| {
        let change = world.change().filter(|it| !it.initial);
        change.zip(setup.from).is_some_and(|(change, from)| {
            let live = change.outcome.is_none() || is_watched(change);
            live && match from {
                Moment::In(stage) => change.stage == stage,
                Moment::Awaiting(what) => world.seen.status.waiting_for.as_deref() == Some(what),
            }
        })
    };
    while !begins(&world) {
        world = match turn(setup, &world) {
            Ok(next) => next,
            Err(End::Serves(_)) => match versions.next() {
                Some(version) => world.push(*version),
                None => break,
            },
            Err(end) => panic!("{end:?}"),
        };
    }
    let mut seen = world.seen.clone();
    if setup.smoke {
        seen.spec.strategy.canary.smoke = Some(smoke());
    }
    world.begun(seen, faults)
}

fn number(variable: &str, default: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.map_or(default, |given| given.parse().expect(variable))
}

fn explore(setup: Setup) {
    let usual_depth = setup.depth;
    let faults = number("COUNTERSIGN_MODEL_FAULTS", 1);
    // Or what begins in the midst has more states than fit into 16 GiB.
    let less = usize::from(faults > 1 && setup.from.is_some());
    let depth = usual_depth + number("COUNTERSIGN_MODEL_DEEPER", 0) - less;
    let (name, began) = (setup.name, Instant::now());
    let policies = [
        policy(&setup, setup.last_asks, 1),
        policy(&setup, 1, TIGHTENED),
    ];
    let machine = Machine {
        setup,
        policies,
        ends: Ends::default(),
        depth,
        faults,
        decided: Mutex::default(),
    };
    let checker = machine
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    println!(
        "{name}: depth {depth}, {faults} faults: {} states, {} of them unique, in {:.0?}",
        checker.state_count(),
        checker.unique_state_count(),
        began.elapsed()
    );
    checker.assert_properties();
    if (depth, faults) == (usual_depth, 1) {
        let decided = checker.model().decided.lock().unwrap();
        let digest = digest::digest(decided.iter().map(String::as_bytes));
        digest::compare("model/decisions.txt", &[(name.into(), digest)].into());
    }
}

const PLAIN: Setup = Setup {
    name: "plain",
    replicas: 2,
    weights: &[20, 50],
    scale: None,
    bake: 1,
    deadline: 3,
    requests: 100_000,
    scarce: "Promote",
    first_asks: 0,
    last_asks: 0,
    smoke: false,
    sends: Sends::Pods,
    surge: None,
    watched: 0,
    kept: 0,
    history: None,
    budget: false,
    before: &[],
    from: None,
    slow: false,
    free: &[],
    depth: 14,
    seen: &[],
    whole: true,
};

#[test]
fn the_laws_hold_where_pods_alone_give_a_canary_its_share() {
    explore(PLAIN);
}

#[test]
fn the_laws_hold_behind_a_route() {
    explore(Setup {
        name: "routed",
        sends: Sends::Routes,
        depth: 20,
        seen: &["it waits for a router"],
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_people_must_sign() {
    explore(Setup {
        name: "signed",
        first_asks: 1,
        last_asks: 1,
        depth: 16,
        seen: &["it waits for a signature"],
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_somebody_else_replaces_a_change() {
    explore(Setup {
        name: "replaced",
        weights: &[50],
        first_asks: 1,
        free: &[Act::Push(3)],
        depth: 9,
        seen: &["it waits for a signature", "a change is superseded"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_with_a_smoke_check() {
    explore(Setup {
        name: "smoke",
        smoke: true,
        depth: 16,
        seen: &["it waits for the smoke check"],
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_stable_gives_up_pods() {
    explore(Setup {
        name: "dynamic",
        sends: Sends::Dynamic,
        depth: 20,
        seen: &["it waits for a router"],
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_the_surge_is_narrow() {
    explore(Setup {
        name: "crowded",
        surge: Some(1),
        ..PLAIN
    });
}

/// As in `examples/blue-green.yaml`.
const SERVICES_ALONE: Setup = Setup {
    name: "services",
    sends: Sends::Services,
    weights: &[0],
    scale: Some(100),
    ..PLAIN
};

#[test]
fn the_laws_hold_with_two_services_and_no_route() {
    explore(SERVICES_ALONE);
}

#[test]
fn the_laws_hold_with_two_services_and_little_surge() {
    explore(Setup {
        name: "services, crowded",
        surge: Some(1),
        ..SERVICES_ALONE
    });
}

#[test]
fn the_laws_hold_with_two_services_where_what_was_promoted_breaks() {
    explore(Setup {
        name: "services, watched",
        watched: 2,
        before: &[2],
        from: Some(Moment::In(Stage::Promoted)),
        free: &[Act::Prometheus(Evidence::Bad), Act::Push(3), Act::Push(1)],
        depth: 8,
        seen: &["a promoted revision gives way again"],
        whole: false,
        ..SERVICES_ALONE
    });
}

#[test]
fn the_laws_hold_where_what_was_promoted_breaks() {
    explore(Setup {
        name: "watched",
        sends: Sends::Routes,
        weights: &[50],
        watched: 2,
        before: &[2],
        from: Some(Moment::In(Stage::Promoted)),
        free: &[Act::Prometheus(Evidence::Bad), Act::Push(3), Act::Push(1)],
        depth: 8,
        seen: &["a promoted revision gives way again"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_pods_are_kept_for_the_way_back() {
    explore(Setup {
        name: "kept",
        kept: 2,
        watched: 2,
        before: &[2],
        from: Some(Moment::In(Stage::Promoted)),
        free: &[Act::Prometheus(Evidence::Bad), Act::Replicas(3)],
        depth: 9,
        seen: &["a promoted revision gives way again"],
        whole: false,
        ..SERVICES_ALONE
    });
}

#[test]
fn the_laws_hold_where_pods_come_one_by_one() {
    explore(Setup {
        name: "one by one",
        replicas: 4,
        weights: &[20],
        surge: Some(1),
        deadline: 2,
        slow: true,
        depth: 12,
        seen: &["a change is promoted"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_a_newer_change_comes_while_stable_grows() {
    explore(Setup {
        name: "newer",
        sends: Sends::Dynamic,
        weights: &[50],
        slow: true,
        free: &[Act::Push(3), Act::Push(1)],
        before: &[2],
        from: Some(Moment::In(Stage::Promoting)),
        depth: 6,
        seen: &["a change is superseded", "a change is reverted"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_a_promotion_is_held() {
    explore(Setup {
        name: "held",
        sends: Sends::Routes,
        weights: &[50],
        budget: true,
        free: &[
            Act::Freeze(Some(FreezeAction::Hold)),
            Act::Burn(true),
            Act::Replicas(3),
        ],
        before: &[2],
        from: Some(Moment::In(Stage::Promoting)),
        depth: 7,
        seen: &["it waits for the budget", "it is frozen"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_people_are_asked_twice() {
    explore(Setup {
        name: "asked twice",
        weights: &[50],
        last_asks: 1,
        scarce: "Hold",
        free: &[Act::Prometheus(Evidence::Quiet)],
        depth: 17,
        seen: &[
            "it waits for a signature",
            "a person is asked about evidence",
        ],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_evidence_becomes_unclear() {
    explore(Setup {
        name: "unclear",
        weights: &[50],
        last_asks: 1,
        scarce: "RollBack",
        free: &[Act::Prometheus(Evidence::Unclear)],
        depth: 14,
        seen: &["it waits for a signature", "it waits for evidence"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_evidence_becomes_unclear_during_a_long_sign_off_wait() {
    explore(Setup {
        name: "unclear late",
        weights: &[50],
        deadline: 1,
        requests: 380,
        last_asks: 1,
        scarce: "RollBack",
        free: &[Act::Prometheus(Evidence::Unclear)],
        before: &[2],
        from: Some(Moment::Awaiting("AwaitingSignOff")),
        depth: 9,
        seen: &["it waits for a signature", "it waits for evidence"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_one_gate_for_people_follows_another() {
    explore(Setup {
        name: "asked late",
        weights: &[50],
        deadline: 1,
        last_asks: 1,
        scarce: "Hold",
        free: &[Act::Prometheus(Evidence::Quiet)],
        before: &[2],
        from: Some(Moment::In(Stage::Stepping)),
        depth: 14,
        seen: &[
            "it waits for a signature",
            "a person is asked about evidence",
        ],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_a_bake_is_interrupted() {
    explore(Setup {
        name: "interrupted",
        weights: &[50],
        bake: 2,
        free: &[Act::Replicas(0)],
        depth: 14,
        seen: &["a change is promoted", "it is scaled to nothing"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_little_is_remembered() {
    explore(Setup {
        name: "forgetful",
        weights: &[50],
        history: Some(1),
        before: &[2, 1],
        seen: &["a change is promoted", "a revision is forgotten"],
        whole: false,
        ..PLAIN
    });
}
