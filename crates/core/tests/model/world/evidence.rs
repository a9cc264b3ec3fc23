//! What Prometheus answers for the windows of a world.

use super::*;

/// What Prometheus answers for a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    Good,
    Bad,
    /// Clean, but next to no requests.
    Quiet,
    /// So many errors that what had passed is in doubt, and not so many that it fails.
    Unclear,
    /// Answered, but there is no series.
    NoData,
    /// Not answered; it is queried again.
    Away,
}

/// One in so many requests of a window that is unclear fails, at least one.
const UNCLEAR: f64 = 1_000.0;

fn counts(requests: f64, errors: f64) -> Counts {
    Counts { requests, errors }
}

impl World {
    pub(super) fn fill_windows(&mut self) {
        let (due, alone) = (self.due(), self.change().is_some_and(is_watched));
        let since = self.change().and_then(|it| it.step_started_at.clone());
        let oldest = due.first().map(|(start, _)| *start);
        let kept = since.map(|it| it.0).into_iter().chain(oldest).min();
        let live = self
            .change()
            .is_some_and(|it| it.outcome.is_none() || alone);
        self.log
            .retain(|end, _| live && kept.is_some_and(|kept| *end > kept));
        self.seen.analysis.windows.clear();
        if self
            .change()
            .is_none_or(|it| it.evidence.from.is_none() || !live)
        {
            return;
        }
        let mut windows = Vec::new();
        for (start, end) in due {
            let answer = self.log.get(&end).copied().unwrap_or(Evidence::Away);
            windows.push(Window {
                start,
                end,
                outcome: outcome(answer, f64::from(self.requests), alone),
            });
            if answer == Evidence::Away {
                break; // nothing after it is queried
            }
        }
        let windows = CheckWindows {
            due: windows,
            history: None,
        };
        self.seen.analysis.windows.insert(CHECK.into(), windows);
    }

    /// Whether a window of the present step was good.
    pub fn good_in_step(&self) -> bool {
        let since = self.change().and_then(|it| it.step_started_at.as_ref());
        since.is_some_and(|since| {
            let mut log = self.log.iter();
            log.any(|(end, it)| *it == Evidence::Good && *end >= after(since.0, 1))
        })
    }
}

pub(super) const HEALTHY: ErrorRates = ErrorRates {
    five_minutes: 0.0001,
    half_hour: 0.0001,
    hour: 0.0001,
    six_hours: 0.0001,
    period: 0.0001,
};

/// Twenty times as fast as an objective of 99.9% allows.
pub(super) const BURNING: ErrorRates = ErrorRates {
    five_minutes: 0.02,
    half_hour: 0.02,
    hour: 0.02,
    six_hours: 0.02,
    period: 0.0005,
};

fn outcome(evidence: Evidence, requests: f64, alone: bool) -> WindowOutcome {
    let stable = if alone {
        Counts::default()
    } else {
        counts(100_000.0, 10.0)
    };
    match evidence {
        Evidence::Good => WindowOutcome::Counted {
            canary: counts(requests, requests / 10_000.0),
            stable,
        },
        Evidence::Bad => WindowOutcome::Counted {
            canary: counts(100_000.0, 60_000.0),
            stable,
        },
        Evidence::Quiet => WindowOutcome::Counted {
            canary: counts(1.0, 0.0),
            stable,
        },
        Evidence::Unclear => WindowOutcome::Counted {
            canary: counts(requests, (requests / UNCLEAR).max(1.0)),
            stable,
        },
        Evidence::NoData => WindowOutcome::Uncounted {
            reason: Uncounted::NoSeries,
            message: "nothing".into(),
        },
        Evidence::Away => WindowOutcome::Unanswered {
            reason: Unanswered::PrometheusUnreachable,
            message: "connection refused".into(),
        },
    }
}
