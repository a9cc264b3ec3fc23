//! Error budgets: the state of an objective, and its consequence for a change.
//!
//! Burn is the error rate over a span divided by the rate that the objective allows: at 1 the budget lasts
//! exactly its period. Limits are those of the SRE workbook (chapter 5, "Alerting on SLOs"): a long span
//! shows that the burn matters, a short one that it continues.

use std::collections::BTreeMap;

use countersign_api::objective::{Objective, OnBurn};
use countersign_api::rollout::{Budget, Change};

use crate::analysis::checks::Checks;
use crate::analysis::numbers::significant;
use crate::observation::Observation;
use crate::observation::windows::ErrorRates;

/// A burn rate that is too fast if it is reached in both spans.
struct Limit {
    burn: f64,
    long: fn(&ErrorRates) -> f64,
    short: fn(&ErrorRates) -> f64,
    spans: &'static str,
}

const LIMITS: [Limit; 2] = [
    Limit {
        burn: 14.4,
        long: |rates| rates.hour,
        short: |rates| rates.five_minutes,
        spans: "1 h and 5 min",
    },
    Limit {
        burn: 6.0,
        long: |rates| rates.six_hours,
        short: |rates| rates.half_hour,
        spans: "6 h and 30 min",
    },
];

/// The state of each objective.
#[must_use]
pub fn budgets(change: &Change, checks: &Checks, observation: &Observation) -> Vec<Budget> {
    let answers = &observation.analysis.objectives;
    let budget = |(name, objective): (&String, &Objective)| {
        let mut known = change.evidence.objectives.iter();
        let before = known.find(|known| known.name == *name);
        let now = budget(objective, answers, name);
        let was_known = before.is_some_and(|before| before.known);
        let burnt_before = before.is_some_and(|before| before.burnt_before);
        Budget {
            name: name.clone(),
            known: was_known || now.spent.is_some(),
            // A recovered budget may burn again; one never read may have burnt before.
            burnt_before: match now.spent {
                Some(_) => now.burning && (burnt_before || !was_known),
                None => burnt_before,
            },
            ..now
        }
    };
    checks.objectives.iter().map(budget).collect()
}

fn budget(
    objective: &Objective,
    answers: &BTreeMap<String, Result<ErrorRates, String>>,
    name: &str,
) -> Budget {
    let rates = match answers.get(name) {
        Some(Ok(rates)) => rates,
        Some(Err(problem)) => {
            return Budget {
                message: problem.clone(),
                ..Budget::default()
            };
        }
        None => {
            return Budget {
                message: "it was not sent yet".into(),
                ..Budget::default()
            };
        }
    };
    let allowed = 1.0 - objective.target;
    let spent = significant(rates.period / allowed);
    let exceeded = LIMITS.iter().find(|limit| {
        let burn = |rate: fn(&ErrorRates) -> f64| rate(rates) / allowed;
        burn(limit.long) >= limit.burn && burn(limit.short) >= limit.burn
    });
    let burn = exceeded.map(|limit| {
        format!(
            ", and it burns {:.1} times as fast as it lasts (at most {} over {})",
            (limit.short)(rates) / allowed,
            limit.burn,
            limit.spans
        )
    });
    let message = format!(
        "{:.1}% of the error budget of {} is spent{}",
        100.0 * spent,
        objective.period,
        burn.unwrap_or_default()
    );
    Budget {
        spent: Some(spent),
        burning: exceeded.is_some(),
        message,
        ..Budget::default()
    }
}

/// The first objective whose budget burns too fast since the change began, if its consequence is `what`.
#[must_use]
pub fn burns(change: &Change, what: OnBurn) -> Option<String> {
    change.evidence.from.as_ref()?;
    let burns = |budget: &&Budget| {
        let objective = change.objectives.get(&budget.name);
        let applies = objective.is_some_and(|objective| objective.on_burn == what);
        applies && budget.burning && !budget.burnt_before
    };
    let budget = change.evidence.objectives.iter().find(burns)?;
    Some(format!("objective {}: {}", budget.name, budget.message))
}

/// The first objective whose budget is spent.
#[must_use]
pub fn spent(change: &Change) -> Option<String> {
    let mut budgets = change.evidence.objectives.iter();
    let budget = budgets.find(|budget| budget.spent.is_some_and(|spent| spent >= 1.0))?;
    Some(format!("objective {}: {}", budget.name, budget.message))
}

/// The first objective whose state is unknown.
#[must_use]
pub fn unknown(change: &Change) -> Option<String> {
    let mut budgets = change.evidence.objectives.iter();
    let budget = budgets.find(|budget| budget.spent.is_none())?;
    Some(format!("objective {}: {}", budget.name, budget.message))
}
