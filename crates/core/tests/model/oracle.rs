//! Laws 1 to 8 of what was done, read off the world before and after it. Nothing here uses the gates,
//! the verdict or `core::laws` (which is evaluated as well).

use countersign_api::intervention::InterventionAction;
use countersign_api::rollout::{Change, Outcome, Stage};
use countersign_api::sign_off::SignOffDecision;
use countersign_core::decision::{Action, WorkloadAction};
use countersign_core::people::intervention;
use countersign_core::{Decision, laws};

use crate::world::{Evidence, How, World, after, gate_of};
use crate::{Sends, Setup};

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
            let glass = signed(before, was, SignOffDecision::BreakGlass, None) > 0;
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
            law(
                1,
                glass || has_baked(setup, before, was),
                "the step had not baked",
            );
            let paused = before.seen.spec.paused || is.paused_by.is_some();
            law(1, !paused, "it was paused");
            law(
                1,
                glass || before.seen.people.freezes.is_empty(),
                "it was frozen",
            );
            let smoked =
                was.stage != Stage::Waiting || !setup.smoke || smoke_succeeded(before, was);
            law(1, smoked, "the smoke check had not succeeded");
            let required = required_sign_offs(setup, before, was);
            law(
                2,
                glass || signed(before, was, SignOffDecision::Approve, None) >= required,
                "nobody entitled has signed",
            );
            law(
                6,
                was.stage != Stage::Stepping || may_go_on(setup, before, was),
                "the evidence was missing",
            );
            law(1, !before.burns(), "an error budget burnt that holds");
        }
        if let Some(late) = rolled_back_too_early(before, was, is) {
            law(0, false, &late);
        }
        let watched = was.outcome == Some(Outcome::Promoted) && was.watched_until.is_some();
        law(
            3,
            !watched || !is_bad(before) || is.watched_until.is_none(),
            "what was promoted and broke continued",
        );
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
        let stable = before.stable_set().map_or(0, |it| i64::from(it.available));
        law(
            1,
            share <= held || pods >= needs(before, share) || (stable == 0 && pods > 0),
            "the share rose before its pods were there",
        );
        let promotes = change.is_some_and(|it| it.stage == Stage::Promoting) && share > held;
        let free = !before.seen.spec.paused
            && change.is_some_and(|it| it.paused_by.is_none())
            && before.seen.people.freezes.is_empty()
            && !before.burns();
        let glass =
            change.is_some_and(|it| signed(before, it, SignOffDecision::BreakGlass, None) > 0);
        law(
            1,
            !promotes || free || glass || stable == 0,
            "a promotion that is held took more of the traffic",
        );
        // What stable is given back it can carry, while the other side can.
        let [side, other] = crate::SERVICES.map(|service| now.selected(service));
        let takes = available(before, side);
        // Between two Services that select the same revision a share moves nothing.
        let gives_back = share < held && side != other && 100 - share > carries(before, takes);
        let gave_up = setup.sends == Sends::Dynamic || setup.surge.is_some();
        let better = pods >= needs(before, held) && !before.is_overdue();
        law(
            4,
            !(gave_up && gives_back && better),
            "stable was given what it cannot carry",
        );
        let rejected = change.is_some_and(|it| it.stage == Stage::RollingBack);
        let serves = now.stable_set().map_or(0, |it| i64::from(it.available));
        // A Rollout that is scaled to none sends nowhere: its share follows once the pods are gone.
        let able = desired > 0
            && if gave_up {
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
    }
    law(
        4,
        desired == 0 || !serves_all(before) || serves_all(now),
        "requests go to no pod",
    );
    for (service, share) in shares(before) {
        let moves = before.selected(service).zip(now.selected(service));
        let Some((from, to)) = moves.filter(|(from, to)| from != to) else {
            continue;
        };
        let (old, new) = (available(before, Some(from)), available(before, Some(to)));
        let enough = needs(before, share).min(old);
        let overdue = before.is_overdue() && (new > 0 || old == 0);
        law(
            4,
            share == 0 || new >= enough || overdue,
            "a Service was pointed at fewer pods than it needs while others had more",
        );
    }
    let rejected = is.is_some_and(|it| it.stage == Stage::RollingBack);
    if setup.sends == Sends::Pods && wholly && rejected {
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
        let Action::Workload(WorkloadAction::Scale {
            replica_set,
            replicas,
            ..
        }) = action
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
        let carried = if setup.sends == Sends::Dynamic {
            100 - before.routed_share().unwrap()
        } else {
            100
        };
        let least = (carried * desired + 99) / 100;
        // Where the surge has no room for both, what the canary serves already is not stable's to serve,
        // and pods that serve nothing make room for those that will.
        let least = match (setup.surge, setup.sends) {
            (Some(_), Sends::Services) => needs(before, 100).min(i64::from(set.available)),
            (Some(_), _) => {
                let beside = available(before, canary_hash(now));
                (needs(before, carried) - beside).min(i64::from(set.available))
            }
            (None, _) => least,
        };
        let fewer = *replicas < set.replicas && i64::from(*replicas) < least;
        law(
            4,
            !is_stable || !fewer,
            "stable has fewer pods than it carries",
        );
        // Nor does any other revision give up what still needs it.
        let serves = i64::from(set.available.min(set.replicas));
        let gives_up = i64::from(*replicas) < serves && !before.is_overdue();
        for (sends, what) in [
            (&before.used(), "pods went that a Service still sends to"),
            (&before.believed, "pods went that a router still sends to"),
        ] {
            let percent = sends.get(&set.hash).copied().unwrap_or(0);
            let needed = needs(before, percent).min(serves);
            law(4, !gives_up || i64::from(*replicas) >= needed, what);
        }
        let drains = before.used_at.get(&set.hash) == Some(&before.seen.now);
        law(
            4,
            !(desired > 0 && gives_up && *replicas == 0 && drains),
            "pods went in the moment in which nothing sent to them any longer",
        );
        let stepping =
            is.filter(|it| it.stage == Stage::Stepping && it.pod_template_hash == set.hash);
        if let Some(is) = stepping
            .filter(|_| !is_stable && *replicas > set.replicas && setup.sends == Sends::Pods)
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
    for action in &decision.actions {
        let Action::Workload(WorkloadAction::DeleteReplicaSet { replica_set }) = action else {
            continue;
        };
        let deleted = before.seen.replica_sets.iter();
        let mut deleted = deleted.filter(|set| set.name == *replica_set);
        let age = |hash: &str| before.stable_at.get(hash).copied();
        let newer = deleted.any(|gone| {
            let kept = now.seen.replica_sets.iter();
            let mut kept = kept.filter(|set| set.replicas == 0 && !now.is_wanted(&set.hash));
            kept.any(|set| age(&set.hash).is_some_and(|kept| Some(kept) < age(&gone.hash)))
        });
        law(
            4,
            !newer,
            "of two revisions that were stable the one was forgotten that was so last",
        );
    }
    let by_product = laws::broken(&before.seen, decision).into_iter();
    broken.extend(by_product.map(|it| format!("law {}: {} (core::laws)", it.law, it.what)));
    broken
}

/// Pods that a share of the requests needs, but for those that may be unavailable.
fn needs(world: &World, percent: i64) -> i64 {
    let desired = i64::from(world.seen.spec.replicas);
    let part = (percent.clamp(0, 100) * desired + 99) / 100;
    part.min(desired - spare(world)).max(part.min(1))
}

/// Pods that may be unavailable, by the default of a quarter: none where that is less than one.
fn spare(world: &World) -> i64 {
    i64::from(world.seen.spec.replicas) / 4
}

/// The percent of the requests that so many pods carry.
fn carries(world: &World, pods: i64) -> i64 {
    let desired = i64::from(world.seen.spec.replicas);
    if pods >= desired - spare(world) {
        100
    } else {
        pods * 100 / desired.max(1)
    }
}

/// The Services that get requests, each with its percent.
fn shares(world: &World) -> Vec<(&'static str, i64)> {
    let [stable, canary] = crate::SERVICES;
    match world.routed_share() {
        Some(share) => vec![(stable, 100 - share), (canary, share)],
        None if world.seen.spec.strategy.canary.stable_service.is_some() => vec![(stable, 100)],
        None => vec![],
    }
}

/// What a world in which nothing is left to do has too few pods of.
pub fn short(world: &World) -> Option<String> {
    let desired = i64::from(world.seen.spec.replicas);
    for (service, share) in shares(world) {
        let serves = available(world, world.selected(service));
        if share > 0 && serves < needs(world, share) {
            return Some(format!(
                "Service {service} gets {share}% of the requests with {serves} of {desired} pods"
            ));
        }
    }
    let kept = world.change().filter(|it| it.kept_until.is_some());
    let kept = kept.and_then(|it| world.set(&it.previous.as_ref()?.pod_template_hash));
    if let Some(set) = kept.filter(|set| i64::from(set.replicas) != desired) {
        return Some(format!(
            "{} of {desired} pods are kept for the way back",
            set.replicas
        ));
    }
    let sets = world.seen.replica_sets.iter();
    let all: i64 = sets.map(|set| i64::from(set.available)).sum();
    (all < needs(world, 100)).then(|| format!("there are {all} of {desired} pods"))
}

/// A rollback whose clock had not run out: what it was for, and since when.
fn rolled_back_too_early(before: &World, was: &Change, is: &Change) -> Option<String> {
    if was.outcome.is_some() || is.outcome != Some(Outcome::RolledBack) {
        return None;
    }
    let line = is.transitions.last()?;
    let now = before.seen.now;
    match line.reason.as_str() {
        "ProgressDeadlineExceeded" => {
            let deadline = i64::from(before.seen.spec.progress_deadline_seconds) / 60;
            let since = before.advanced_at;
            // Pods that came and went between two reconciles are no progress.
            let lost = available(before, Some(&was.pod_template_hash)) < i64::from(before.most);
            (!lost && after(since, deadline) > now).then(|| {
                format!(
                    "a change that went on at {since} was rolled back at {now}: {}",
                    line.message
                )
            })
        }
        "WaitExpired" => {
            let gate = gate_of(&line.message).unwrap_or_default();
            let since = before.awaited_since.get(&gate).copied().unwrap_or(now);
            let most = after(since, crate::WAIT_AT_MOST);
            (most > now)
                .then(|| format!("gate {gate} was awaited since {since}, and given up at {now}"))
        }
        _ => None,
    }
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
    let weight = i64::from(change.weight);
    match change.stage {
        Stage::Stepping if world.routed_share().is_some() => {
            let share = world.routed_share() == Some(weight);
            share && canary >= needs(world, weight) && canary > 0
        }
        Stage::Stepping if weight == 0 => canary > 0,
        Stage::Stepping => {
            let stable = world.stable_set().map_or(0, |it| i64::from(it.available));
            // One more would be too many, or all that may be requested are there.
            let next = canary + 1;
            let full = next * 100 > weight * (next + stable);
            canary > 0 && (full || canary >= desired || setup.surge.is_some())
        }
        Stage::Promoting => canary >= needs(world, 100),
        _ => true,
    }
}

fn has_baked(setup: &Setup, world: &World, change: &Change) -> bool {
    let skipped = change.bake_skipped == Some(change.step) || skips_now(world, change);
    change.stage != Stage::Stepping || skipped || world.baked >= setup.bake
}

fn skips_now(world: &World, change: &Change) -> bool {
    let pending = intervention::pending(&world.seen, change);
    let mut pending = pending.iter();
    pending.any(|it| {
        it.spec.action == InterventionAction::Promote && it.spec.step == Some(change.step)
    })
}

fn smoke_succeeded(world: &World, change: &Change) -> bool {
    let passed = change.smoke.as_ref().is_some_and(|it| it.passed);
    let mut jobs = world.seen.jobs().iter();
    let ended = jobs.any(|job| {
        job.name.starts_with(&change.run)
            && job.end == Some(countersign_core::observation::workload::JobEnd::Succeeded)
    });
    passed || ended
}

/// How many people must have signed before this change continues from where it is.
fn required_sign_offs(setup: &Setup, world: &World, change: &Change) -> usize {
    let last = usize::try_from(change.step).unwrap() == setup.weights.len();
    let tightened = usize::from(world.seen.policies[0].generation == crate::TIGHTENED);
    match change.stage {
        Stage::Waiting => setup.first_sign_offs,
        Stage::Stepping if last => setup.last_sign_offs.max(tightened),
        _ => 0,
    }
}

/// How many people who may have signed exactly this change, at this gate alone or at all of them.
fn signed(world: &World, change: &Change, decision: SignOffDecision, gate: Option<&str>) -> usize {
    let signed = world.seen.people.sign_offs.iter().filter(|it| {
        it.spec.run == change.run
            && it.spec.digest == change.digest
            && it.spec.decision == decision
            && it.spec.gate.as_deref() == gate
            && (decision == SignOffDecision::Reject
                || !world
                    .excluded_approvers
                    .contains(&it.spec.approver.username))
    });
    let mut people: Vec<_> = signed.map(|it| &it.spec.approver.username).collect();
    people.sort_unstable();
    people.dedup();
    people.len()
}

/// Whether the newest due window was answered and good, or is quiet and the deadline is over, which
/// the lowest tier accepts.
fn may_go_on(setup: &Setup, world: &World, change: &Change) -> bool {
    let newest = match world.due().last() {
        Some((_, end)) => world.log.get(end),
        None => world.log.values().next_back(),
    };
    // Scarce evidence has a deadline of its own, from when the pods were there or it was first awaited.
    let since = change
        .available_at
        .as_ref()
        .max(change.evidence_since.as_ref());
    let since = since.or(change.progressed_at.as_ref()).unwrap().0;
    let deadline = i64::from(world.seen.spec.progress_deadline_seconds) / 60;
    match newest {
        // How much a window with some errors weighs beside the good ones is for the verdict to decide.
        Some(Evidence::Good | Evidence::Unclear) => world.good_in_step(),
        Some(Evidence::Quiet) => {
            let gate = format!("evidence-{}", change.step);
            let approve = SignOffDecision::Approve;
            let accepted = match setup.scarce {
                "Promote" => world.seen.now >= after(since, deadline),
                _ => signed(world, change, approve, Some(&gate)) > 0,
            };
            world.good_in_step() || accepted
        }
        _ => false,
    }
}

/// Whether something that must end the change is there: a bad window, an abort, a rejection, a failed
/// smoke check, or pods that all crash.
fn is_rejected(world: &World, change: &Change) -> bool {
    let bad = is_bad(world);
    let pending = intervention::pending(&world.seen, change);
    let aborted = pending
        .iter()
        .any(|it| it.spec.action == InterventionAction::Abort);
    let no = signed(world, change, SignOffDecision::Reject, None) > 0;
    let under_way = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    let pods = world.seen.new_pods.as_ref();
    let all_crash = pods.is_some_and(|it| it.existing > 0 && it.crashing == it.existing);
    let crash = under_way && all_crash;
    bad || aborted || no || crash
}

/// Whether a due window was answered and is bad.
fn is_bad(world: &World) -> bool {
    let due = world.due().into_iter();
    let mut answered = due.map_while(|(_, end)| world.log.get(&end));
    answered.any(|it| *it == Evidence::Bad)
}

/// Whether every Service that gets requests has pods behind it.
fn serves_all(world: &World) -> bool {
    let mut shares = shares(world).into_iter();
    shares.all(|(service, share)| share == 0 || available(world, world.selected(service)) > 0)
}
