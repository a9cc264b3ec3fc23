//! The statistics of the simulated rollouts.

use countersign_api::{Duration, Tier};
use countersign_core::text::excerpt;
use k8s_openapi::jiff::SignedDuration;
use serde::Serialize;

use crate::commands::simulate::args::Simulate;
use crate::commands::simulate::scene::{End, Run};
use crate::output::report::{columns, number};

/// The standard normal's quantile of 97.5%.
pub(super) const Z: f64 = 1.959_963_985;

/// The simulation of one Rollout with its results.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Simulation {
    pub(super) rollout: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    pub(super) tier: Tier,
    pub(super) score: f64,
    /// Weights of the steps, in percent.
    pub(super) weights: Vec<i32>,
    /// People who must sign, over all gates.
    pub(super) sign_offs: i32,
    /// Largest chance of a false rollback that the tier allows.
    pub(super) max_false_rollback: f64,
    /// Largest chance of a false promotion that the tier allows.
    pub(super) max_false_promotion: f64,
    /// The canary that equals stable, then each worse canary.
    pub(super) cases: Vec<Case>,
}

/// The rollouts of one canary.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Case {
    pub(super) canary_error_rate: f64,
    pub(super) runs: usize,
    pub(super) promoted: Share,
    pub(super) rolled_back: Share,
    /// Rolled back at a deadline, for lack of evidence or pods.
    pub(super) overdue: Share,
    /// Waiting for a person to decide on scarce evidence.
    pub(super) undecided: Share,
    /// Seconds to full promotion, of those that were promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) promotion: Option<Seconds>,
    /// Seconds from the first traffic to the decision, of those that were rolled back for errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollback: Option<Seconds>,
    /// Median number of requests that the canary answered.
    pub(super) exposed_requests: f64,
    /// Median number of requests that the canary failed.
    pub(super) failed_requests: f64,
    /// Median number of seconds in each step, and in promotion, of those that were promoted.
    pub(super) step_seconds: Vec<f64>,
}

/// A share of all runs with its 95% interval (Wilson).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Share {
    pub(super) count: usize,
    pub(super) of_all: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// A distribution of durations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Seconds {
    pub(super) median: f64,
    pub(super) p90: f64,
}

impl Case {
    pub(super) fn of(canary_error_rate: f64, runs: &[Run]) -> Self {
        let ended = |end| runs.iter().filter(move |run| run.end == end);
        let share = |end| Share::of(ended(end).count(), runs.len());
        let promoted = || ended(End::Promoted);
        let steps = promoted().map(|run| run.steps.len()).max().unwrap_or(0);
        let step = |index: usize| {
            let times = promoted().filter_map(|run| run.steps.get(index));
            quantile(times.map(SignedDuration::as_secs_f64).collect(), 0.5)
        };
        Self {
            canary_error_rate,
            runs: runs.len(),
            promoted: share(End::Promoted),
            rolled_back: share(End::RolledBack),
            overdue: share(End::Overdue),
            undecided: share(End::Undecided),
            promotion: Seconds::of(promoted().map(|run| run.took)),
            rollback: Seconds::of(ended(End::RolledBack).map(|run| run.served)),
            exposed_requests: quantile(runs.iter().map(|run| run.exposed).collect(), 0.5)
                .unwrap_or_default()
                .round(),
            failed_requests: quantile(runs.iter().map(|run| run.failed).collect(), 0.5)
                .unwrap_or_default(),
            step_seconds: (0..steps).filter_map(step).collect(),
        }
    }
}

impl Share {
    /// A count of all runs, with the interval of Wilson, which is sound near 0 and 1 too.
    pub(super) fn of(count: usize, all: usize) -> Self {
        let (hits, n) = (as_number(count), as_number(all).max(1.0));
        let share = hits / n;
        let middle = share + Z * Z / (2.0 * n);
        let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        Self {
            count,
            of_all: share,
            low: ((middle - half) / scale).max(0.0),
            high: ((middle + half) / scale).min(1.0),
        }
    }
}

pub(super) fn as_number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

impl Seconds {
    fn of(times: impl Iterator<Item = SignedDuration>) -> Option<Self> {
        let times: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
        Some(Self {
            median: quantile(times.clone(), 0.5)?,
            p90: quantile(times, 0.9)?,
        })
    }
}

/// The least value that this share of the values does not exceed.
pub(super) fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |index: usize| values.get(index).copied();
    let rank = (0..=last).find(|index| as_number(index + 1) >= share * as_number(last + 1));
    at(rank.unwrap_or(last))
}

impl Simulation {
    pub(super) fn render(&self, options: &Simulate) -> String {
        let namespace = self.namespace.iter().map(|it| format!("{}/", excerpt(it)));
        let weights: Vec<_> = self.weights.iter().map(|it| format!("{it}%")).collect();
        let mut text = format!(
            "Rollout {}{}: tier {} with {}; steps {}; {}, each after {}\n",
            namespace.collect::<String>(),
            excerpt(&self.rollout),
            self.tier,
            number(self.score, "point"),
            weights.join(", "),
            number(self.sign_offs, "sign-off"),
            options.sign_off_after,
        );
        let settings = format!(
            "{} of each case, {} a second, {} of stable's fail, seed {}\n",
            number(options.runs, "rollout"),
            number(options.rate, "request"),
            percent(options.stable_error_rate),
            options.seed
        );
        text.push_str(&settings);
        for (index, case) in self.cases.iter().enumerate() {
            text.push('\n');
            text.push_str(&case.render(self, index == 0));
        }
        text
    }
}

impl Case {
    fn render(&self, simulation: &Simulation, healthy: bool) -> String {
        let allowed = |share: f64| format!("at most {} allowed", percent(share));
        let (kind, false_rollback, missed) = if healthy {
            (
                "Healthy canary",
                allowed(simulation.max_false_rollback),
                String::new(),
            )
        } else {
            ("Worse canary", String::new(), "missed".to_owned())
        };
        let mut lines = vec![
            self.promoted.render("promoted", &missed),
            self.rolled_back
                .render("rolled back for errors", &false_rollback),
        ];
        if self.overdue.count > 0 {
            lines.push(
                self.overdue
                    .render("rolled back at a deadline", "too little evidence or pods"),
            );
        }
        if self.undecided.count > 0 {
            lines.push(
                self.undecided
                    .render("waiting for a person", "the evidence is scarce"),
            );
        }
        let mut times = Vec::new();
        times.extend(self.promotion.map(|it| it.render("time to promotion")));
        times.extend(self.rollback.map(|it| it.render("time to rollback")));
        times.push(vec![
            "requests to the canary".into(),
            format!(
                "median {}, of which {} failed",
                self.exposed_requests, self.failed_requests
            ),
        ]);
        if !self.step_seconds.is_empty() {
            let steps: Vec<_> = self.step_seconds.iter().map(|it| length(*it)).collect();
            times.push(vec![
                "time in steps".into(),
                format!("{}, the last in promotion", steps.join(" ")),
            ]);
        }
        let rate = percent(self.canary_error_rate);
        format!(
            "{kind}: {rate} of its requests fail\n{}{}",
            columns("  ", &lines),
            columns("  ", &times)
        )
    }
}

impl Share {
    fn render(&self, what: &str, note: &str) -> Vec<String> {
        vec![
            what.to_owned(),
            format!("{:>6}", percent(self.of_all)),
            format!("({} to {})", percent(self.low), percent(self.high)),
            note.to_owned(),
        ]
    }
}

impl Seconds {
    fn render(self, what: &str) -> Vec<String> {
        let Self { median, p90 } = self;
        vec![
            what.to_owned(),
            format!("median {}, p90 {}", length(median), length(p90)),
        ]
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{}%", (share * 10_000.0).round() / 100.0)
}

pub(super) fn length(seconds: f64) -> String {
    let rounded = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e10).round());
    Duration::from(rounded).to_string()
}
