//! A decision is made, and carried out at once, in part, or late.

use super::*;

impl World {
    /// What the operator decides if it reconciles now.
    pub fn decision(&self) -> &Arc<Decision> {
        self.decision.get_or_init(|| Arc::new(decide(&self.seen)))
    }

    /// The world after a whole reconcile.
    pub fn reconciled(&self) -> &Arc<World> {
        self.reconciled
            .get_or_init(|| Arc::new(self.carry_out(self.decision(), How::Wholly)))
    }

    pub fn carry_out(&self, decision: &Decision, how: How) -> World {
        let mut after = self.clone();
        (after.decision, after.reconciled) = (OnceLock::new(), OnceLock::new());
        (
            after.crashed,
            after.refused,
            after.made_again,
            after.forgotten,
        ) = Default::default();
        after.broken.clear();
        after.steps += 1;
        let total = decision.actions.len();
        let actions: Vec<_> = match how {
            How::Wholly | How::Unrecorded => decision.actions.clone(),
            How::First(some) => decision.actions[..some].to_vec(),
            How::Without(one) => {
                let mut all = decision.actions.clone();
                all.remove(one);
                all
            }
        };
        after.crashed = matches!(how, How::First(some) if some < total);
        let patches = |it: &Action| matches!(it, Action::Traffic(TrafficAction::PatchRoute(_)));
        after.edited &= !actions.iter().any(patches);
        let reports = matches!(how, How::Wholly | How::Without(_));
        let done = Decision {
            actions,
            answers: if reports {
                decision.answers.clone()
            } else {
                Vec::new()
            },
            ..decision.clone()
        };
        if done.status != after.seen.status {
            after.version += 1;
            after.status_version += 1;
        }
        for action in &done.actions {
            if let Action::History(HistoryAction::DeleteRun { run }) = action {
                after.runs.remove(run);
                after.templates.remove(run);
            }
        }
        let mut hands = world::World::new(after.seen);
        hands.pods_ready_after = None;
        hands.jobs = Jobs::Stick;
        hands.carry_out(&done, usize::MAX);
        after.seen = hands.observation;
        for job in after.seen.jobs.iter_mut().flatten().flatten() {
            job.uid = format!("uid-{}", job.name);
        }
        if let Some(record) = decision.record.as_ref().filter(|_| reports) {
            let run = PastRun::of(&record.name, &record.spec);
            after.runs.insert(record.name.clone(), run);
            if let Some(template) = record.spec.template.clone() {
                after.templates.insert(record.name.clone(), template);
            }
        }
        let rolled_back = |world: &World| {
            let change = world.change();
            let change = change.filter(|it| it.outcome == Some(Outcome::RolledBack));
            change.map(|it| (it.run.clone(), it.digest.clone()))
        };
        if let Some((run, digest)) = rolled_back(&after)
            && rolled_back(self).is_none_or(|(before, _)| before != run)
        {
            after.condemned.insert(digest);
        }
        let had_stable = self.seen.status.stable.is_none() || self.stable_set().is_some();
        after.made_again = !had_stable && after.stable_set().is_some();
        after.forgotten = after.seen.replica_sets.len() < self.seen.replica_sets.len();
        after.note(self);
        after.settle();
        after
    }

    /// Keeps what a reconcile decides now for later.
    pub fn read(&self) -> Self {
        let (decision, key) = (Arc::clone(self.decision()), self.key);
        self.with(|next| {
            next.late = Some(Late {
                decision,
                at: next.seen.now,
                key,
                version: next.version,
                status_version: next.status_version,
            });
        })
    }

    /// Carries out what was decided earlier: the API server refuses a status of an older version, and
    /// where another operator has written since, this one has lost the lease and writes nothing.
    pub fn write_late(&self) -> Option<Self> {
        let late = self.late.clone()?;
        // A reconcile is given up after a minute.
        let given_up = after(late.at, 1) < self.seen.now;
        let lost = given_up || late.status_version != self.status_version;
        if lost || (self.late_writes_status() && late.version != self.version) {
            return Some(self.with(|next| {
                next.late = None;
                next.refused = true;
            }));
        }
        let mut done = self.carry_out(&late.decision, How::Wholly);
        done.late = None;
        // What the decision began or ended, it did by then.
        let holds = |world: &Self| {
            let waits = world.seen.status.waiting_for.as_deref();
            waits.is_some_and(|it| UNCLOCKED.contains(&it))
        };
        let ends_a_hold = holds(self) && !holds(&done);
        if ends_a_hold || done.advanced_at != self.advanced_at {
            done.advanced_at = done.advanced_at.min(late.at);
        }
        let waited = self.seen.now.duration_since(late.at).as_mins();
        if done.seen.status.waiting_for.as_deref() == Some("Baking") {
            done.baked = done.baked.max(waited);
        }
        // So was a retry that was requested after the rollback was decided.
        let mut requests = self.seen.people.interventions.iter();
        let is_retry = |it: &ObservedIntervention| {
            it.spec.action == InterventionAction::Retry && it.created_at >= late.at
        };
        if requests.any(is_retry) {
            done.condemned.clone_from(&self.condemned);
        }
        // People have been awaited since it was decided.
        let awaited = done.awaited_since.iter_mut();
        let awaited = awaited.filter(|(gate, _)| !self.awaited_since.contains_key(*gate));
        awaited.for_each(|(_, at)| *at = late.at);
        done.settle();
        Some(done)
    }

    /// Whether what was decided earlier has a status to write.
    pub fn late_writes_status(&self) -> bool {
        let late = self.late.as_ref();
        late.is_some_and(|it| it.decision.status != self.seen.status)
    }
}
