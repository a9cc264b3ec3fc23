//! What may happen next in a state, and the world that comes of it.

use super::*;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The operator observes, decides and acts.
    Reconcile(How),
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
    /// A pod of stable's, or of the new revision, is no longer available.
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
    /// What Prometheus answers from now on.
    Prometheus(Evidence),
    Sign(&'static str, SignOffDecision),
    /// A person accepts the scarce evidence of the present step.
    Accept,
    /// The error budget burns, or no longer does.
    Burn(bool),
    Command(InterventionAction),
    Freeze(Option<FreezeAction>),
    Pause(bool),
    Push(u8),
    Replicas(i32),
    /// The policy requires a signature before the promotion, or no longer does.
    Policy {
        strict: bool,
    },
}

impl Machine {
    pub(super) fn apply(&self, world: &World, act: Act) -> Option<World> {
        Some(match act {
            Act::Reconcile(how) => {
                let decision = world.decision();
                let mut next = if how == How::Wholly {
                    let decided = digest::project(&world.seen, decision);
                    let decided = digest::digest([decided.as_bytes()]);
                    self.decided.lock().unwrap().insert(decided);
                    (**world.reconciled()).clone()
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
            Act::Policy { strict } => world.with(|next| {
                next.seen.policies = vec![self.policies[usize::from(strict)].clone()];
            }),
        })
    }
}

/// What happens where nothing goes wrong, and what ends a fault.
pub(super) fn expected(setup: &Setup, world: &World) -> Vec<Act> {
    let mut all = Vec::new();
    let mut may = |when: bool, act: Act| {
        if when {
            all.push(act);
        }
    };
    may(
        world.reconciled().key != world.key,
        Act::Reconcile(How::Wholly),
    );
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
    let awaited = world.seen.status.waiting_for.as_deref() == Some("AwaitingPerson");
    may(awaited, Act::Accept);
    let begins = world.steps == 0 && setup.from.is_none();
    may(
        begins,
        Act::Push(if setup.before.is_empty() { 2 } else { 3 }),
    );
    all
}

/// What may go wrong, or be done by people, in every setup.
pub(super) fn faults(setup: &Setup, world: &World) -> Vec<Act> {
    let mut all = Vec::new();
    let mut may = |when: bool, act: Act| {
        if when {
            all.push(act);
        }
    };
    if world.reconciled().key != world.key {
        let actions = world.decision().actions.len();
        (0..actions).for_each(|some| may(true, Act::Reconcile(How::First(some))));
        (0..actions).for_each(|one| may(true, Act::Reconcile(How::Without(one))));
        may(true, Act::Reconcile(How::Unrecorded));
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
    if setup.first_sign_offs > 0 {
        let approve = SignOffDecision::Approve;
        may(busy, Act::Sign("alice", approve));
        may(busy, Act::Sign("erin", approve));
        may(busy, Act::Sign("carol", approve));
        may(busy, Act::Sign("carol", SignOffDecision::Reject));
        may(busy, Act::Sign("carol", SignOffDecision::BreakGlass));
    } else if world.routed_share().is_none() {
        let strict = world.seen.policies[0].generation == TIGHTENED;
        may(busy, Act::Policy { strict: !strict });
    }
    let replicas = setup.replicas;
    for other in [replicas + 1, 1, 0] {
        may(world.seen.spec.replicas == replicas, Act::Replicas(other));
    }
    all
}

impl Setup {
    /// The place of an act among those that cost nothing here, unless it was done already.
    pub(super) fn is_free(&self, world: &World, act: Act) -> Option<usize> {
        let place = self.free.iter().position(|free| *free == act)?;
        (world.spent & (1 << place) == 0).then_some(place)
    }
}
