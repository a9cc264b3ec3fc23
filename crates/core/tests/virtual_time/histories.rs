//! Random histories of one Rollout, whatever sends to it: what the model explores minute by minute with
//! few pods, here by the second and with many. What fails is kept in `tests/proptest-regressions`.

use countersign_api::intervention::InterventionAction;
use countersign_api::rollout::{Change, Stage};
use countersign_api::{Duration, HASH_LABEL};
use countersign_core::traffic::routes::Routes;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::test_runner::RngSeed;

use super::evidence::{BURNING, HEALTHY, stands};
use super::people::{command, freeze};
use super::*;

/// What sends requests to the revisions.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sends {
    Pods,
    Services,
    Routes,
    Dynamic,
}

/// One Rollout.
#[derive(Clone, Debug)]
struct Setup {
    sends: Sends,
    replicas: i32,
    surge: i32,
    unavailable: i32,
    /// Seconds of the watch after a promotion, and for which the pods before it are kept.
    watched: u64,
    kept: u64,
    deadline: i32,
}

fn setup() -> impl Strategy<Value = Setup> {
    let sends = prop_oneof![
        Just(Sends::Pods),
        Just(Sends::Services),
        Just(Sends::Routes),
        Just(Sends::Dynamic),
    ];
    let times = || prop_oneof![Just(0), Just(120)];
    let deadline = prop_oneof![Just(60), Just(600)];
    (
        sends,
        1..12i32,
        0..=12i32,
        0..3i32,
        times(),
        times(),
        deadline,
    )
        .prop_map(
            |(sends, replicas, surge, unavailable, watched, kept, deadline)| Setup {
                sends,
                replicas,
                surge,
                unavailable,
                watched,
                kept,
                deadline,
            },
        )
}

/// What happens to it.
#[derive(Clone, Debug)]
enum Act {
    Push(u8),
    Errors(bool),
    Silence,
    /// Pods become available so many seconds after they are requested, and each further one as much later.
    Pods(i64, i64),
    NoPods,
    PodGoes {
        stable: bool,
    },
    SetGoes {
        stable: bool,
    },
    /// Somebody takes the labels off a ReplicaSet.
    LabelsGo {
        stable: bool,
    },
    /// The canary's Service leaves the spec, where no route needs it.
    Unname,
    /// The records cannot be read, or can again.
    Unreadable(bool),
    /// The error budget burns, or no longer does.
    Burn(bool),
    Freeze(bool),
    Pause(bool),
    Commands(Vec<InterventionAction>),
    Replicas(i32),
    Crash(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let action = prop_oneof![
        6 => Just(InterventionAction::Pause),
        6 => Just(InterventionAction::Resume),
        3 => Just(InterventionAction::Promote),
    ];
    prop_oneof![
        6 => (1..4u8).prop_map(Act::Push),
        2 => any::<bool>().prop_map(Act::Errors),
        1 => Just(Act::Silence),
        2 => (0..100i64, 0..45i64).prop_map(|(after, apart)| Act::Pods(after, apart)),
        1 => Just(Act::NoPods),
        2 => any::<bool>().prop_map(|stable| Act::PodGoes { stable }),
        1 => any::<bool>().prop_map(|stable| Act::SetGoes { stable }),
        1 => any::<bool>().prop_map(|stable| Act::LabelsGo { stable }),
        1 => Just(Act::Unname),
        1 => any::<bool>().prop_map(Act::Unreadable),
        2 => any::<bool>().prop_map(Act::Burn),
        2 => any::<bool>().prop_map(Act::Freeze),
        1 => any::<bool>().prop_map(Act::Pause),
        1 => prop::collection::vec(action, 1..120).prop_map(Act::Commands),
        2 => (0..15i32).prop_map(Act::Replicas),
        1 => (0..4usize).prop_map(Act::Crash),
    ]
}

/// Seconds between two of them: some newer change comes within a drain.
fn seconds() -> impl Strategy<Value = i64> {
    prop_oneof![3 => 1..150_i64, 1 => 1..6_i64]
}

fn world(setup: &Setup) -> World {
    let mut world = routes::routed(|seen| {
        seen.spec.replicas = setup.replicas;
        seen.spec.progress_deadline_seconds = setup.deadline;
        let canary = &mut seen.spec.strategy.canary;
        canary.max_surge = IntOrString::Int(setup.surge);
        canary.max_unavailable = IntOrString::Int(setup.unavailable);
        canary.scale_down_delay = Duration::seconds(setup.kept);
        canary.dynamic_stable = setup.sends == Sends::Dynamic;
        if let Some(analysis) = canary.analysis.as_mut() {
            analysis.objectives = serde_json::from_value(json!([{
                "name": "availability", "target": 0.999, "onBurn": "Hold",
                "errors": "requests{code=~\"5..\"}", "total": "requests",
            }]))
            .unwrap();
        }
        if let Some(analysis) = canary.analysis.as_mut().filter(|_| setup.watched > 0) {
            analysis.post_promotion = Some(Duration::seconds(setup.watched));
        }
        if matches!(setup.sends, Sends::Pods | Sends::Services) {
            (canary.traffic, seen.traffic.routes) = (None, vec![]);
        }
        if setup.sends == Sends::Pods {
            (canary.stable_service, canary.canary_service) = (None, None);
            seen.traffic.services.clear();
        }
    });
    // A policy of one short step, so that a history reaches its promotion, and the watch after it.
    let mut policy = unattended();
    let low = &mut policy.spec.tiers.low;
    low.steps = serde_json::from_value(json!([
        { "weight": 20, "bake": "30s" }, { "weight": 50, "bake": "30s" },
    ]))
    .unwrap();
    low.min_bake = Some(Duration::seconds(30));
    low.max_first_weight = Some(50);
    low.max_increase = Some(50);
    world.observation.policies = vec![policy];
    world.observation.analysis.lag = Duration::seconds(1);
    stands(&mut world, HEALTHY);
    world
}

/// What a Deployment would call progress, by what is seen of one change.
#[derive(Default)]
struct Progress {
    /// The attempt that was seen last.
    run: String,
    stage: Option<(String, Stage, i32)>,
    most: i32,
    since: Timestamp,
    waits: Option<String>,
    /// Pods of the new revision, available or not.
    made: i32,
    /// What was found to be wrong.
    wrong: Vec<String>,
}

impl Progress {
    fn see(&mut self, seen: &Observation) {
        let Some(change) = &seen.status.change else {
            self.stage = None;
            return;
        };
        let now = seen.now;
        let blind = seen.unreadable_history().is_some() && self.run != change.run;
        if blind && !change.initial && !change.after_rollback {
            self.wrong.push(
                "a change began as if nothing had been rolled back, which is not known".into(),
            );
        }
        self.run.clone_from(&change.run);
        self.wrong.extend(keeps_too_much(seen, change));
        let known = self
            .stage
            .as_ref()
            .is_some_and(|(run, ..)| *run == change.run);
        let ended = change.outcome.is_some() && known;
        if let Some(line) = change.transitions.last().filter(|_| ended) {
            let deadline = i64::from(seen.spec.progress_deadline_seconds);
            let idle = now.duration_since(self.since).as_secs();
            if line.reason == "ProgressDeadlineExceeded" && idle < deadline {
                self.wrong.push(format!(
                    "rolled back {idle} s after the last progress: {}",
                    line.message
                ));
            }
        }
        if change.outcome.is_some() {
            self.stage = None;
            return;
        }
        let available = available(seen, &change.pod_template_hash);
        let stage = Some((change.run.clone(), change.stage, change.step));
        let begun = self.stage != stage;
        let held = [
            "Paused",
            "Frozen",
            "ScaledToZero",
            "ErrorBudgetBurn",
            "Baking",
        ];
        let waits = |it: &Option<String>| it.as_deref().is_some_and(|it| held.contains(&it));
        let made = pods(seen, &change.pod_template_hash);
        let grown = available > self.most || made > self.made;
        let waited = waits(&self.waits) || waits(&seen.status.waiting_for);
        if begun || waited || grown {
            self.since = now;
        }
        self.most = available.max(if begun { 0 } else { self.most });
        (self.stage, self.made) = (stage, made);
        self.waits.clone_from(&seen.status.waiting_for);
    }
}

/// A canary that has lost more pods than may be unavailable, and a share that they do not carry, though stable
/// could.
fn keeps_too_much(seen: &Observation, change: &Change) -> Option<String> {
    let begun = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    let share = Routes::of(seen).share.filter(|_| begun)?;
    let IntOrString::Int(unavailable) = seen.spec.strategy.canary.max_unavailable else {
        return None;
    };
    let (desired, least) = (
        seen.spec.replicas,
        (seen.spec.replicas - unavailable.max(1)).max(1),
    );
    let carries = |pods: i32| {
        if pods >= least {
            100
        } else {
            pods * 100 / desired.max(1)
        }
    };
    let canary = available(seen, &change.pod_template_hash);
    let stable = seen.status.stable.as_ref();
    let stable = stable.map_or(0, |it| available(seen, &it.pod_template_hash));
    let needed = (desired * share + 99) / 100;
    let short = canary * desired < needed * least;
    let most = carries(canary).max(100 - carries(stable));
    (canary > 0 && short && share > most)
        .then(|| format!("{canary} of {needed} pods keep {share}% of the requests"))
}

/// Pods of a revision.
fn pods(seen: &Observation, hash: &str) -> i32 {
    let sets = seen.replica_sets.iter().filter(|set| set.hash == hash);
    sets.map(|set| set.current).sum()
}

fn available(seen: &Observation, hash: &str) -> i32 {
    let sets = seen.replica_sets.iter().filter(|set| set.hash == hash);
    sets.map(|set| set.available).sum()
}

fn under_way(world: &World) -> Option<&Change> {
    let change = world.observation.status.change.as_ref();
    change.filter(|it| it.outcome.is_none() && !it.initial)
}

/// The hash of one of the two revisions.
fn revision(world: &World, stable: bool) -> Option<String> {
    let status = &world.observation.status;
    if stable {
        status
            .stable
            .as_ref()
            .map(|it| it.pod_template_hash.clone())
    } else {
        under_way(world).map(|it| it.pod_template_hash.clone())
    }
}

fn run(world: &mut World, until: Timestamp, mode: &Act, progress: &mut Progress) {
    let mut see = |seen: &Observation| {
        progress.see(seen);
        false
    };
    match mode {
        Act::Silence => world.run(until, &mut *uncounted(Uncounted::NoSeries), &mut see),
        Act::Errors(true) => world.run(until, &mut steady(3_000.0, 0.4, 0.0), &mut see),
        _ => world.run(until, &mut steady(3_000.0, 0.0, 0.0), &mut see),
    };
}

/// People give one command after the other, and each pause and each end of one is followed.
fn give(world: &mut World, actions: &[InterventionAction], progress: &mut Progress) {
    for action in actions {
        if under_way(world).is_none() {
            return;
        }
        command(world, "dana", *action);
        let decision = world.reconcile(&mut steady(3_000.0, 0.0, 0.0));
        world.carry_out(&decision, usize::MAX);
        progress.see(&world.observation);
        world.observation.now += SignedDuration::from_secs(1);
        let paused = under_way(world).map(|it| it.paused_by.is_some());
        let followed = match action {
            InterventionAction::Pause => paused != Some(false),
            InterventionAction::Resume => paused != Some(true),
            _ => true,
        };
        if !followed {
            progress.wrong.push(format!("{action:?} was not followed"));
        }
    }
}

/// The same histories each time, unless another seed is given.
fn seed() -> u64 {
    let given = std::env::var("COUNTERSIGN_HISTORIES_SEED").ok();
    given.map_or(19, |given| {
        given.parse().expect("COUNTERSIGN_HISTORIES_SEED")
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(seed()),
        ..ProptestConfig::with_cases(48)
    })]

    /// The laws in every state, no request to pods that the operator took away, no end by a clock while
    /// a change continues, every pause followed, and in the end it comes to rest as it should be.
    #[test]
    fn the_laws_hold_through_any_history_whatever_sends(
        setup in setup(), acts in prop::collection::vec((act(), seconds()), 1..20),
    ) {
        let mut world = world(&setup);
        let mut progress = Progress::default();
        let mut mode = Act::Errors(false);
        let mut spared = true; // nobody but the operator took pods away
        change(&mut world, "v2", harmless());
        for (act, seconds) in acts {
            match &act {
                Act::Push(version) => change(&mut world, &format!("v{version}"), harmless()),
                Act::Errors(_) | Act::Silence => mode = act.clone(),
                Act::Pods(after, apart) => {
                    world.pods_ready_after = Some(SignedDuration::from_secs(*after));
                    world.pods_apart = SignedDuration::from_secs(*apart);
                }
                Act::NoPods => world.pods_ready_after = None,
                Act::PodGoes { stable } => {
                    let hash = revision(&world, *stable);
                    for set in &mut world.observation.replica_sets {
                        if Some(&set.hash) == hash.as_ref() && set.available > 0 {
                            spared = false;
                            set.available -= 1;
                            set.ready = set.available;
                        }
                    }
                }
                Act::SetGoes { stable } => {
                    let hash = revision(&world, *stable);
                    spared = spared && hash.is_none();
                    world.observation.replica_sets.retain(|set| Some(&set.hash) != hash.as_ref());
                }
                Act::LabelsGo { stable } => {
                    let hash = revision(&world, *stable);
                    for set in &mut world.observation.replica_sets {
                        set.labels_missing |= Some(&set.hash) == hash.as_ref();
                    }
                }
                Act::Unname if setup.sends == Sends::Services => {
                    let seen = &mut world.observation;
                    let name = seen.spec.strategy.canary.canary_service.take();
                    let service = name.and_then(|it| Some((it.clone(), seen.traffic.services.remove(&it)??)));
                    seen.traffic.former_services.extend(service);
                }
                Act::Unname => {}
                Act::Unreadable(on) => {
                    let problem = "the API server does not answer";
                    world.unreadable_records = on.then(|| problem.into());
                }
                Act::Burn(on) => stands(&mut world, if *on { BURNING } else { HEALTHY }),
                Act::Freeze(on) => {
                    let incident = freeze(|_| {});
                    world.observation.people.freezes = on.then_some(incident).into_iter().collect();
                }
                Act::Pause(on) => world.observation.spec.paused = *on,
                Act::Commands(actions) => give(&mut world, actions, &mut progress),
                Act::Replicas(replicas) => {
                    spared = spared && *replicas > 0;
                    world.observation.spec.replicas = *replicas;
                }
                Act::Crash(actions) => {
                    let decision = world.reconcile(&mut steady(3_000.0, 0.0, 0.0));
                    world.carry_out(&decision, *actions);
                    progress.see(&world.observation);
                }
            }
            let until = world.observation.now + SignedDuration::from_secs(seconds);
            run(&mut world, until, &mode, &mut progress);
            prop_assert!(world.broken.is_empty(), "after {act:?}: {:?}", world.broken);
            prop_assert!(progress.wrong.is_empty(), "after {act:?}: {:?}", progress.wrong);
            prop_assert!(!spared || world.lost.is_empty(), "after {act:?}: {:?}", world.lost);
        }
        world.observation.people.freezes.clear();
        world.unreadable_records = None;
        stands(&mut world, HEALTHY);
        world.observation.spec.paused = false;
        world.observation.spec.replicas = setup.replicas;
        world.pods_ready_after = Some(SignedDuration::from_secs(2));
        world.pods_apart = SignedDuration::ZERO;
        if under_way(&world).is_some_and(|it| it.paused_by.is_some()) {
            give(&mut world, &[InterventionAction::Resume], &mut progress);
        }
        // Pods that were never to come do now.
        for set in &mut world.observation.replica_sets {
            (set.available, set.ready) = (set.replicas, set.replicas);
        }
        let until = world.observation.now + SignedDuration::from_hours(6);
        let rests = |seen: &Observation| {
            let stable = seen.status.stable.as_ref().map(|it| it.pod_template_hash.as_str());
            let pods = |it: &countersign_core::observation::workload::ReplicaSet| {
                let wanted = if Some(it.hash.as_str()) == stable { setup.replicas } else { 0 };
                (it.replicas, it.available) == (wanted, wanted)
            };
            let on_stable = |service: &Option<countersign_core::observation::workload::Service>| {
                service.as_ref().and_then(|it| it.selector.get(HASH_LABEL).map(String::as_str)) == stable
            };
            World::at_rest(seen)
                && stable.is_some_and(|hash| available(seen, hash) == setup.replicas)
                && seen.replica_sets.iter().all(pods)
                && seen.traffic.services.values().all(on_stable)
                && seen.traffic.former_services.values().all(|it| !it.selector.contains_key(HASH_LABEL))
        };
        let ended = world.run(until, &mut steady(3_000.0, 0.0, 0.0), |seen| {
            progress.see(seen);
            rests(seen)
        });
        prop_assert!(ended, "it never came to an end: {:?} {:?}", world.observation.status, world.observation.replica_sets);
        prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
        prop_assert!(progress.wrong.is_empty(), "{:?}", progress.wrong);
        prop_assert!(!spared || world.lost.is_empty(), "{:?}", world.lost);
    }
}
