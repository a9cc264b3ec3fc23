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

mod acts;
#[path = "../digest/mod.rs"]
mod digest;
mod ends;
mod oracle;
mod setups;
mod start;
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

use acts::{Act, expected, faults};
use ends::{End, Ends, turn};
use start::{freeze, policy, serving};
use world::{Evidence, How, World, person, template};

/// Services of the setups with routes: stable's and the canary's.
pub const SERVICES: [&str; 2] = ["web", "web-canary"];

/// Generation of the policy that requires a signature before the promotion.
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
    /// The same, and stable gives up the pods that its share no longer needs.
    Dynamic,
}

/// Where a change is before anything else happens to it.
#[derive(Clone, Copy)]
enum Moment {
    In(Stage),
    Awaiting(&'static str),
}

/// One Rollout whose first revision serves, and what is required of its changes.
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
    first_sign_offs: usize,
    last_sign_offs: usize,
    smoke: bool,
    sends: Sends,
    /// Pods beyond those that are requested, if there is no room for all of both revisions.
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
    /// Actions on a path, unless a setup overrides it.
    depth: usize,
    /// What must be seen beside what is in every setup, so that the model is about something.
    seen: &'static [&'static str],
    /// Whether a change may take all ways from its beginning to its end here, within the depth.
    whole: bool,
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
            // As the same reconcile would have, had it not been cut short: the next one sees other things.
            Act::Reconcile(how) if how != How::Wholly => {
                self.same_end(world.reconciled(), &mut next);
            }
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
    ("it waits for a person to accept evidence", |_, it| {
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

    /// A crash, a refused write, and a late one of what the status requires change nothing about the end.
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
        policy(&setup, setup.last_sign_offs, 1),
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
