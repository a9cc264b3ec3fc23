//! What distinguishes two states.

use super::*;

impl World {
    /// Everything that a decision could depend on, without what only distinguishes states that behave
    /// alike: absolute times, names with numbers, words, and how strong the evidence is.
    pub(super) fn write_key(&self, key: &mut String) {
        let seen = &self.seen;
        let status = &seen.status;
        let ago = |at: Option<&Time>| {
            let minutes = at.map(|at| seen.now.duration_since(at.0).as_mins());
            minutes.map(|it| i8::try_from(it.clamp(-OLD, OLD)).unwrap())
        };
        let spec = (
            &seen.spec.template.images()[0],
            seen.spec.replicas,
            seen.spec.paused,
            seen.people.freezes.len(),
            seen.policies.first().map(|it| it.generation),
        );
        write!(key, "{spec:?}").unwrap();
        let stable = status.stable.as_ref();
        let stable = stable.map(|it| (&it.digest[..6], &it.pod_template_hash));
        write!(
            key,
            "{stable:?}{:?}{:?}",
            status.waiting_for, status.waiting_kind
        )
        .unwrap();
        if let Some(change) = &status.change {
            let last = change.transitions.last();
            let regressed = change.transitions.iter().any(|it| it.reason == "Regressed");
            let (smoke, plan) = (change.smoke.as_ref(), &change.plan);
            let bits = (
                &change.digest[..6],
                change.initial,
                change.tier,
                change.after_rollback,
                change.paused_by.is_some(),
                change.bake_skipped,
                smoke.map(|it| {
                    (
                        it.passed,
                        ago(it.since.as_ref()),
                        ago(it.started_at.as_ref()),
                    )
                }),
                (change.stage, change.step, change.weight, change.outcome),
                change.progress,
                (change.previous.is_some(), regressed),
                last.map(|it| (&it.reason, ago(it.at.as_ref()))),
            );
            let steps = plan.steps.iter();
            let steps = steps.map(|it| (it.weight, it.bake, it.sign_off.len()));
            let steps: Vec<_> = steps.collect();
            let times = [
                &change.step_started_at,
                &change.available_at,
                &change.progressed_at,
                &change.evidence_since,
                &change.warm_from,
                &change.lost.as_ref().map(|lost| lost.since.clone()),
                &change.awaited_gates.values().next().cloned(),
                &change.watched_until,
                &change.kept_until,
                &change.evidence.from,
            ];
            let times = times.map(|at| ago(at.as_ref()));
            let signs = plan.promotion_sign_off.len();
            write!(key, "{bits:?}{steps:?}{signs}{times:?}").unwrap();
            for check in &change.evidence.checks {
                let counted = ago(check.last_window_end.as_ref());
                let enough = check.step_requests >= 10.0;
                let (last, verdict) = (&check.last, check.summary.verdict);
                write!(key, "{counted:?}{last:?}{verdict:?}{enough}").unwrap();
                if self.log.values().any(|it| *it == Evidence::Unclear) {
                    write!(key, "{:?}", check.canary).unwrap(); // it matters how strong the evidence is
                }
            }
            for budget in &change.evidence.objectives {
                let budget = (budget.burning, budget.burnt_before, budget.known);
                write!(key, "{budget:?}").unwrap();
            }
            let newest = self.log.values().next_back();
            let good = self.good_in_step();
            write!(key, "{newest:?}{good}").unwrap();
            let run = &change.run;
            let signed = seen
                .people
                .sign_offs
                .iter()
                .filter(|it| it.spec.run == *run);
            for it in signed {
                let (user, decision) = (&it.spec.approver.username, it.spec.decision);
                write!(key, "{user}{decision:?}{:?}{:?}", it.spec.gate, it.answer).unwrap();
            }
            if plan.steps.iter().any(|it| !it.sign_off.is_empty()) {
                write!(key, "{:?}", self.excluded_approvers).unwrap();
            }
            for it in intervention::pending(seen, change) {
                write!(key, "{:?}{:?}", it.spec.action, it.spec.step).unwrap();
            }
        }
        if let Some(split) = &status.traffic {
            let times = [&split.settled_at, &split.corrected_at];
            let times = times.map(|at| ago(at.as_ref()));
            let weights = (split.weight, split.settled_weight);
            let weights = (weights, split.lowest_weight, split.highest_weight);
            write!(key, "{weights:?}{times:?}").unwrap();
        }
        for set in &seen.replica_sets {
            let pods = (&set.hash, set.replicas, set.available, set.owned);
            write!(key, "{pods:?}").unwrap();
        }
        for service in seen.traffic.services.values().flatten() {
            write!(key, "{:?}", service.selector.get(HASH_LABEL)).unwrap();
        }
        let (share, taken) = (self.routed_share(), self.route_is_taken());
        write!(key, "{:?}{share:?}{taken}", seen.traffic.endpoints).unwrap();
        for job in seen.jobs() {
            let own = status.change.as_ref();
            let own = own.is_some_and(|it| job.name.starts_with(&it.run));
            write!(key, "{own}{:?}", job.end).unwrap();
        }
        for window in seen.analysis.windows.values().flat_map(|it| &it.due) {
            write!(key, "{:?}", self.log.get(&window.end)).unwrap();
        }
        let rolled_back = seen.history().iter();
        let rolled_back = rolled_back.filter(|it| it.outcome == Some(Outcome::RolledBack));
        let ever = rolled_back.count() > 0;
        let late = self.late.as_ref().map(|it| {
            let same = it.version == self.version;
            (it.key, same, it.status_version == self.status_version)
        });
        let age = |at: &Timestamp| seen.now.duration_since(*at).as_mins().clamp(0, OLD);
        let fresh = self.used_at.iter().filter(|(_, at)| **at == seen.now);
        let fresh: Vec<_> = fresh.map(|(hash, _)| hash).collect();
        let mut order: Vec<_> = seen.replica_sets.iter().map(|set| &set.hash).collect();
        order.sort_by_key(|hash| self.stable_at.get(*hash));
        let awaited: Vec<_> = self
            .awaited_since
            .iter()
            .map(|(gate, at)| (gate, age(at)))
            .collect();
        let ages = (age(&self.advanced_at), self.ended_at.as_ref().map(age));
        let past = (&self.believed, fresh, order, awaited, ages, self.most);
        write!(
            key,
            "{past:?}{:?}",
            (self.baked, self.burning, self.burns(), self.spent)
        )
        .unwrap();
        let rest = (
            seen.recorded,
            (ever, status.last_rollback_at.is_some()),
            self.evidence,
            (self.stuck, self.deaf, self.hung, self.crashing),
            (self.crashed, self.refused, self.made_again, self.forgotten), // so that they are seen
            late,
            self.faults,
            self.edited,
            self.condemned.len(),
            &self.broken,
        );
        write!(key, "{rest:?}").unwrap();
    }
}
