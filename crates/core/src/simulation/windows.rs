//! Windows of checks, from the traffic of the world.

use std::collections::btree_map::Entry;

use countersign_api::Check;
use countersign_api::rollout::{Change, Outcome};

use crate::analysis::{checks, gather};
use crate::change;
use crate::observation::Observation;
use crate::observation::windows::{CheckWindows, Window, WindowOutcome};
use crate::proposal::Proposal;
use crate::replicas::present;
use crate::simulation::router;
use crate::simulation::world::{self, Traffic, World};

impl World {
    pub(super) fn count_windows(&mut self, traffic: &mut Traffic) {
        self.observation.analysis.windows.clear();
        let Some(change) = self.observation.status.change.clone() else {
            return;
        };
        let Some(from) = change
            .evidence
            .from
            .as_ref()
            .filter(|_| change.outcome.is_none() || change::is_watched(&change))
        else {
            return;
        };
        let checks = checks::in_force(&change, &Proposal::of(&self.observation).checks);
        // A promoted revision gets all requests, though the routes no longer give the canary's side any.
        let share = match change.outcome {
            Some(Outcome::Promoted) => 1.0,
            _ => router::routed_share(&self.observation)
                .unwrap_or_else(|| share_of_pods(&self.observation, &change)),
        };
        let known = self
            .observation
            .now
            .saturating_sub(self.observation.analysis.lag.signed())
            .unwrap_or(from.0);
        let active = checks
            .checks
            .iter()
            .filter(|(_, check)| checks::is_active(check, &change.plan, change.weight));
        for (name, check) in active {
            let mut start = gather::counted_until(&change, name).unwrap_or(from.0);
            self.answered
                .retain(|(check, end), _| check != name || *end > start);
            let evidence = gather::evidence_of(&change, name);
            let unknown_bursts = evidence.is_none_or(|it| it.dispersion.is_none());
            let history = unknown_bursts.then(|| self.history.clone());
            let mut due = Vec::new();
            while let Some(end) = start
                .saturating_add(checks.interval.signed())
                .ok()
                .filter(|end| *end <= known)
            {
                let outcome = match self.answered.entry((name.clone(), end)) {
                    Entry::Occupied(known) => known.get().clone(),
                    Entry::Vacant(unknown) => {
                        match measured(check, self.metric).unwrap_or_else(|| traffic(end, share)) {
                            unanswered @ WindowOutcome::Unanswered { .. } => unanswered,
                            answer => unknown.insert(answer).clone(),
                        }
                    }
                };
                let outcome = if change.outcome.is_some() {
                    world::alone(outcome)
                } else {
                    outcome
                };
                due.push(Window {
                    start,
                    end,
                    outcome,
                });
                start = end;
            }
            self.observation
                .analysis
                .windows
                .insert(name.clone(), CheckWindows { due, history });
        }
    }

    /// The outcome of the change under way, or of the last one in the status.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.observation
            .status
            .change
            .as_ref()
            .and_then(|change| change.outcome)
    }

    /// Outcomes of all recorded changes, in the order of their names.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Option<Outcome>> {
        self.runs.values().map(|run| run.outcome).collect()
    }
}

/// The canary's share of the available pods, from 0 to 1.
fn share_of_pods(observation: &Observation, change: &Change) -> f64 {
    let canary = f64::from(present::available(
        observation,
        Some(&change.pod_template_hash),
    ));
    let stable = observation.status.stable.as_ref();
    let stable = stable.map(|it| it.pod_template_hash.as_str());
    let all = canary + f64::from(present::available(observation, stable));
    if all > 0.0 { canary / all } else { 0.0 }
}

/// The value of a metric: the given one, or a passing one.
fn measured(check: &Check, value: Option<f64>) -> Option<WindowOutcome> {
    let metric = check.metric.as_ref()?;
    let well = metric.min.or(metric.max).unwrap_or_default();
    let value = value.unwrap_or(well);
    Some(WindowOutcome::Measured { value })
}
