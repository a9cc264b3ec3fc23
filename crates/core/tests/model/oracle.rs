//! Laws 1 to 8 of what was done, read off the world before and after it. Nothing here asks the gates,
//! the verdict or `core::laws` (which is asked as well).

use countersign_api::HASH_LABEL;
use countersign_api::intervention::InterventionAction;
use countersign_api::rollout::{Change, Outcome, Stage};
use countersign_api::sign_off::SignOffDecision;
use countersign_core::decision::Action;
use countersign_core::{Decision, intervention, laws};

use crate::Setup;
use crate::world::{Evidence, How, World, after};

/// Who wrote the change, and who put it into the cluster.
const BARRED: [&str; 2] = ["alice", "erin"];

/// The laws that carrying out a decision broke, each with what was seen.
pub fn broken(
    setup: &Setup,
    before: &World,
    decision: &Decision,
    how: How,
    now: &World,
) -> Vec<String> {
    let mut broken = Vec::new();
    let mut law = |number: u8, holds: bool, what: &str| {
        if !holds {
            broken.push(format!("law {number}: {what}"));
        }
    };
    let wholly = how == How::Wholly;
    let (was, is) = (before.change(), now.change());
    let same = was.zip(is).filter(|(was, is)| was.run == is.run);
    let desired = i64::from(before.seen.spec.replicas);

    if let Some((was, is)) = same.filter(|(was, _)| !was.initial) {
        let promoted = was.outcome.is_none() && is.outcome == Some(Outcome::Promoted);
        let rises =
            promoted || (is.outcome.is_none() && (is.step > was.step || is.stage != was.stage));
        if rises {
            let glass = signed(before, was, SignOffDecision::BreakGlass) > 0;
            law(
                1,
                is.weight <= most(setup, is),
                "the weight is above its step's",
            );
            law(1, is.step <= was.step + 1, "a step was skipped");
            law(
                1,
                has_pods(setup, before, was),
                "the present weight had not its pods",
            );
            law(1, glass || has_baked(before, was), "the step had not baked");
            let paused = before.seen.spec.paused || is.paused_by.is_some();
            law(1, !paused, "it was paused");
            law(1, glass || before.seen.freezes.is_empty(), "it was frozen");
            let smoked =
                was.stage != Stage::Waiting || !setup.smoke || smoke_succeeded(before, was);
            law(1, smoked, "the smoke check had not succeeded");
            let asked = asks(setup, before, was);
            law(
                2,
                glass || signed(before, was, SignOffDecision::Approve) >= asked,
                "nobody entitled has signed",
            );
            law(
                6,
                was.stage != Stage::Stepping || may_go_on(before, was),
                "the evidence was missing",
            );
        }
        let must_end = was.outcome.is_none() && is_rejected(before, was);
        law(
            3,
            !must_end || is.outcome.is_some(),
            "what must end the change did not",
        );
        law(
            3,
            is.outcome != Some(Outcome::RolledBack) || is.weight == 0,
            "it kept its weight",
        );
        law(7, is.tier >= was.tier, "its tier fell");
        let tail = |change: &Change| change.plan.steps.len();
        let looser = was.plan.steps.iter().zip(&is.plan.steps).any(|(was, is)| {
            is.weight > was.weight || is.bake < was.bake || is.sign_off.len() < was.sign_off.len()
        });
        law(7, !looser && tail(is) >= tail(was), "its plan was loosened");
    }
    if let Some(is) = is.filter(|is| was.is_none_or(|was| was.run != is.run)) {
        let again = before.condemned.contains(&is.digest);
        law(8, !again, "what was rolled back was tried again");
    }
    if let Some(share) = now.routed_share() {
        let (held, change) = (before.routed_share().unwrap(), is);
        let most = change.map_or(0, |it| match it.stage {
            Stage::Waiting | Stage::RolledBack => 0,
            Stage::Stepping => i64::from(it.weight),
            _ => 100,
        });
        law(
            1,
            share <= held || share <= most,
            "the route gives more than the step's weight",
        );
        let pods = available(before, canary_hash(now));
        law(
            1,
            share <= held || pods * 100 >= share * desired,
            "the share rose before its pods were there",
        );
        let rejected = change.is_some_and(|it| it.stage == Stage::RollingBack);
        let serves = now.stable_set().map_or(0, |it| i64::from(it.available));
        let able = if setup.dynamic {
            serves >= desired
        } else {
            serves > 0
        };
        let patient = before
            .seen
            .status
            .traffic
            .as_ref()
            .is_some_and(|it| it.corrected_at.is_some());
        law(
            3,
            !(wholly && rejected && able) || share == 0 || patient,
            "a rejected canary kept its share",
        );
        law(
            4,
            !serves_all(before) || serves_all(now),
            "requests go to no pod",
        );
    }
    let rejected = is.is_some_and(|it| it.stage == Stage::RollingBack);
    if now.routed_share().is_none() && wholly && rejected {
        let full = before
            .stable_set()
            .is_some_and(|it| i64::from(it.available) >= desired);
        let kept = now.canary_set().is_some_and(|it| it.replicas > 0);
        law(
            3,
            !(full && kept),
            "rejected pods were kept though stable has all of its own",
        );
    }
    for action in &decision.actions {
        let Action::Scale {
            replica_set,
            replicas,
            ..
        } = action
        else {
            continue;
        };
        let find = |world: &World| {
            let mut sets = world.seen.replica_sets.iter();
            sets.find(|it| it.name == *replica_set).cloned()
        };
        let Some((set, done)) = find(before).zip(find(now)) else {
            continue;
        };
        if done.replicas == set.replicas {
            continue;
        }
        let stable = now.seen.status.stable.as_ref();
        let is_stable = stable.is_some_and(|it| it.pod_template_hash == set.hash);
        let carried = if setup.dynamic {
            100 - before.routed_share().unwrap()
        } else {
            100
        };
        let least = (carried * desired + 99) / 100;
        // Where the surge has no room for both, what the canary serves already is not stable's to serve,
        // and pods that serve nothing make room for those that will.
        let least = if setup.crowded {
            let beside = available(before, canary_hash(now));
            (least - beside).min(i64::from(set.available))
        } else {
            least
        };
        let fewer = *replicas < set.replicas && i64::from(*replicas) < least;
        law(
            4,
            !is_stable || !fewer,
            "stable has fewer pods than it carries",
        );
        let stepping =
            is.filter(|it| it.stage == Stage::Stepping && it.pod_template_hash == set.hash);
        if let Some(is) = stepping
            .filter(|_| !is_stable && *replicas > set.replicas && now.routed_share().is_none())
        {
            let (canary, stable) = (
                i64::from(*replicas),
                before.stable_set().map_or(0, |it| i64::from(it.available)),
            );
            let share = canary * 100 <= i64::from(is.weight) * (canary + stable);
            law(
                1,
                canary == 1 || share,
                "the canary has more pods than its weight",
            );
        }
    }
    let by_product = laws::broken(&before.seen, decision).into_iter();
    broken.extend(by_product.map(|it| format!("law {}: {} (core::laws)", it.law, it.what)));
    broken
}

fn most(setup: &Setup, change: &Change) -> i32 {
    match change.stage {
        Stage::Stepping => setup.weights[usize::try_from(change.step - 1).unwrap()],
        _ => 100,
    }
}

fn available(world: &World, hash: Option<&str>) -> i64 {
    let set = hash.and_then(|hash| world.set(hash));
    set.map_or(0, |set| i64::from(set.available))
}

fn canary_hash(world: &World) -> Option<&str> {
    world.change().map(|it| it.pod_template_hash.as_str())
}

/// Whether the pods that the present weight needs are available, as far as stable's can balance them.
fn has_pods(setup: &Setup, world: &World, change: &Change) -> bool {
    let desired = i64::from(world.seen.spec.replicas);
    let canary = available(world, Some(&change.pod_template_hash));
    match change.stage {
        Stage::Stepping if world.routed_share().is_some() => {
            let share = world.routed_share() == Some(i64::from(change.weight));
            share && canary * 100 >= i64::from(change.weight) * desired && canary > 0
        }
        Stage::Stepping => {
            let stable = world.stable_set().map_or(0, |it| i64::from(it.available));
            // One more would be too many, or all that may be asked for are there.
            let next = canary + 1;
            let full = next * 100 > i64::from(change.weight) * (next + stable);
            canary > 0 && (full || canary >= desired || setup.crowded)
        }
        Stage::Promoting => canary >= desired,
        _ => true,
    }
}

fn has_baked(world: &World, change: &Change) -> bool {
    let since = change.available_at.as_ref();
    let skipped = change.bake_skipped == Some(change.step) || skips_now(world, change);
    change.stage != Stage::Stepping
        || skipped
        || since.is_some_and(|since| world.seen.now >= after(since.0, 1))
}

fn skips_now(world: &World, change: &Change) -> bool {
    let unheard = intervention::unheard(&world.seen, change);
    let mut unheard = unheard.iter();
    unheard.any(|it| {
        it.spec.action == InterventionAction::Promote && it.spec.step == Some(change.step)
    })
}

fn smoke_succeeded(world: &World, change: &Change) -> bool {
    let passed = change.smoke.as_ref().is_some_and(|it| it.passed);
    let mut jobs = world.seen.jobs.iter();
    let ended = jobs.any(|job| {
        job.name.starts_with(&change.run)
            && job.end == Some(countersign_core::observation::JobEnd::Succeeded)
    });
    passed || ended
}

/// How many people must have signed before this change goes on from where it is.
fn asks(setup: &Setup, world: &World, change: &Change) -> usize {
    let last = usize::try_from(change.step).unwrap() == setup.weights.len();
    let tightened = usize::from(world.seen.policies[0].generation == crate::TIGHTENED);
    match change.stage {
        Stage::Waiting => setup.first_asks,
        Stage::Stepping if last => setup.last_asks.max(tightened),
        _ => 0,
    }
}

/// How many people who may have said this of exactly this change.
fn signed(world: &World, change: &Change, decision: SignOffDecision) -> usize {
    let signed = world.seen.sign_offs.iter().filter(|it| {
        it.spec.run == change.run
            && it.spec.digest == change.digest
            && it.spec.decision == decision
            && !BARRED.contains(&it.spec.approver.username.as_str())
    });
    let mut people: Vec<_> = signed.map(|it| &it.spec.approver.username).collect();
    people.sort_unstable();
    people.dedup();
    people.len()
}

/// Whether the newest due window was answered and good, or is quiet and the deadline is over, which
/// the lowest tier accepts.
fn may_go_on(world: &World, change: &Change) -> bool {
    let newest = match world.due().last() {
        Some((_, end)) => world.log.get(end),
        None => world.log.values().next_back(),
    };
    let since = change.progressed_at.as_ref().unwrap().0;
    let patience = i64::from(world.seen.spec.progress_deadline_seconds) / 60;
    match newest {
        Some(Evidence::Good) => world.good_in_step(),
        Some(Evidence::Quiet) => world.good_in_step() || world.seen.now >= after(since, patience),
        _ => false,
    }
}

/// Whether something that must end the change is there: a bad window, an abort, a rejection, a failed
/// smoke check, or pods that all crash.
fn is_rejected(world: &World, change: &Change) -> bool {
    let due = world.due().into_iter();
    let mut answered = due.map_while(|(_, end)| world.log.get(&end));
    let bad = answered.any(|it| *it == Evidence::Bad);
    let unheard = intervention::unheard(&world.seen, change);
    let aborted = unheard
        .iter()
        .any(|it| it.spec.action == InterventionAction::Abort);
    let no = signed(world, change, SignOffDecision::Reject) > 0;
    let under_way = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    let pods = &world.seen.new_pods;
    let crash = under_way && pods.existing > 0 && pods.crashing == pods.existing;
    bad || aborted || no || crash
}

/// Whether every Service that gets requests has pods behind it.
fn serves_all(world: &World) -> bool {
    let behind = |service: &str| {
        let service = world.seen.services[service].as_ref().unwrap();
        available(world, service.selector.get(HASH_LABEL).map(String::as_str))
    };
    let share = world.routed_share().unwrap();
    (share == 100 || behind(crate::SERVICES[0]) > 0)
        && (share == 0 || behind(crate::SERVICES[1]) > 0)
}
