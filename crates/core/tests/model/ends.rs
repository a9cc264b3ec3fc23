//! Where a rollout ends once faults stop: reconciles continue, pods come, routers follow, time passes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use countersign_api::HASH_LABEL;
use countersign_api::rollout::{Outcome, Stage};

use crate::Setup;
use crate::oracle;
use crate::world::{Evidence, How, World};

/// More than any rollout of the setups takes.
const LONGEST: usize = 200;

/// How a rollout ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing is under way, and this image serves.
    Serves(String),
    /// The change with this image was rolled back, and the other serves.
    RolledBack(String, String),
    /// It waits for the people who are named.
    Waits(String),
    /// None of these, with what was seen.
    Nowhere(String),
}

/// The ends that are known, by the state that they follow from.
#[derive(Default)]
pub struct Ends(Mutex<BTreeMap<u64, End>>);

impl Ends {
    /// The end of a world in which nothing goes wrong from now on and the evidence stays like this.
    pub fn of(&self, setup: &Setup, world: &World, evidence: Evidence) -> End {
        let mut at = world.with(|next| {
            (next.stuck, next.deaf, next.hung, next.crashing) = (false, false, false, false);
            next.burning = false;
            next.late = None;
            next.evidence = evidence;
            next.faults = 0;
        });
        let mut passed = Vec::new();
        let end = loop {
            if let Some(known) = self.0.lock().unwrap().get(&at.key) {
                break known.clone();
            }
            passed.push(at.key);
            if passed.len() > LONGEST {
                break End::Nowhere(format!("no end in {LONGEST} turns: {:?}", at.seen.status));
            }
            match turn(setup, &at) {
                Ok(next) => at = next,
                Err(end) => break end,
            }
        };
        let mut known = self.0.lock().unwrap();
        known.extend(passed.into_iter().map(|key| (key, end.clone())));
        end
    }
}

/// What happens next where all is well, or the end.
pub fn turn(setup: &Setup, world: &World) -> Result<World, End> {
    let reconciled = world.reconciled();
    if reconciled.key != world.key || reconciled.seen.status != world.seen.status {
        let broken = oracle::broken(setup, world, world.decision(), How::Wholly, reconciled);
        if !broken.is_empty() {
            let actions = &world.decision().actions;
            return Err(End::Nowhere(format!(
                "{broken:?} by {actions:?} of {world:?}, which becomes {reconciled:?}"
            )));
        }
        return Ok((**reconciled).clone());
    }
    if world.pods_pend() {
        return Ok(world.pods_come());
    }
    if !world.follows() {
        return Ok(world.follow());
    }
    if world.job_runs() {
        return Ok(world.job_ends(true));
    }
    if let Some(short) = oracle::short(world) {
        return Err(End::Nowhere(short));
    }
    ended(world).map_or_else(|| Ok(world.tick()), Err)
}

/// The end that a world in which nothing is left to do has come to, if any.
fn ended(world: &World) -> Option<End> {
    let status = &world.seen.status;
    let image = |hash: &str| {
        let set = world.set(hash);
        set.map_or_else(|| "?".to_owned(), |set| set.template.images()[0].to_owned())
    };
    let stable = image(&status.stable.as_ref()?.pod_template_hash);
    let end = match &status.change {
        None => End::Serves(stable),
        Some(change) if change.outcome == Some(Outcome::RolledBack) => {
            let gone = change.stage == Stage::RolledBack && world.seen.recorded;
            let waits =
                change.digest == countersign_core::proposal::Proposal::of(&world.seen).digest;
            (gone && waits).then(|| End::RolledBack(image(&change.pod_template_hash), stable))?
        }
        Some(change) if change.outcome.is_some() => return None,
        Some(_) => {
            // A person is named: who paused or froze it, or whose signature is required.
            let named = match status.waiting_for.as_deref()? {
                "Paused" => {
                    status.message.contains("dana") || status.message.contains("spec.paused")
                }
                "Frozen" => status.message.contains("by dave"),
                "AwaitingSignOff" | "AwaitingPerson" => status.message.contains(" person"),
                "ScaledToZero" => true,
                _ => false,
            };
            let end = End::Waits(status.waiting_for.clone()?);
            return named.then(|| quiescent(world, end, &[0]));
        }
    };
    let stands = stands(world).map_or(end, End::Nowhere);
    Some(quiescent(world, stands, &[0, 1, 2, 10]))
}

/// What is not as it should be where a rollout has ended.
fn stands(world: &World) -> Option<String> {
    let seen = &world.seen;
    let stable = seen.status.stable.as_ref()?;
    // One of no pods is made again once there are to be some.
    if world.stable_set().is_none() && seen.spec.replicas > 0 {
        return Some("the stable revision has no ReplicaSet".into());
    }
    for set in &seen.replica_sets {
        let wanted = if set.hash == stable.pod_template_hash {
            seen.spec.replicas
        } else {
            0
        };
        if (set.replicas, set.available) != (wanted, wanted) {
            return Some(format!(
                "{} has {} pods, not {wanted}",
                set.name, set.replicas
            ));
        }
    }
    let named = seen.spec.strategy.canary.stable_service.is_some();
    let on = named.then_some(&stable.pod_template_hash);
    let stray = seen.traffic.services.iter().find(|(_, service)| {
        let selector = service.as_ref().map(|it| &it.selector);
        selector.and_then(|it| it.get(HASH_LABEL)) != on
    });
    // While no change is in the status the routes are not read: both Services are stable's then.
    let share = seen.status.change.as_ref().and(world.routed_share());
    let share = share.unwrap_or(0);
    stray
        .map(|(name, _)| format!("Service {name} does not select {on:?}"))
        .or_else(|| (share > 0).then(|| format!("the route still gives the canary {share}%")))
}

/// An end is one only if nothing more is done about it, however often it is reconciled.
fn quiescent(world: &World, end: End, minutes: &[usize]) -> End {
    for minutes in minutes {
        let mut later = world.clone();
        for _ in 0..*minutes {
            later = later.tick();
        }
        let decision = later.decision();
        if !decision.actions.is_empty() || decision.status != later.seen.status {
            return End::Nowhere(format!(
                "it is never at rest: {:?}, status {:?} becomes {:?}",
                decision.actions, later.seen.status, decision.status
            ));
        }
    }
    end
}
