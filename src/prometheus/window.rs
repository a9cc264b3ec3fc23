//! The windows of a check: their times and requests.

use std::time::Duration as StdDuration;

use countersign_api::{Check, Duration};
use countersign_core::analysis::query::form;
use countersign_core::analysis::query::form::{Form, Query};
use countersign_core::observation::windows::{Window, WindowOutcome};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::prometheus::request::Request;

/// Most windows per read; the rest is due at the next reconcile.
const MOST_WINDOWS: i64 = 240;

/// Longest range of a read in seconds, unless one window is longer; bounds the size of a response.
const LONGEST_READ: i64 = 3600;

/// Longest history in seconds, and most windows of it, from which the dispersion is estimated: a day.
const LONGEST_HISTORY: i64 = 86_400;
const MOST_HISTORY: i64 = 1_920;

/// Most windows of history if Prometheus cannot answer for all of it.
const SHORT_HISTORY: i64 = 240;

/// Least range in seconds before the first window that is searched for a counter's last sample:
/// Prometheus' own look-back.
pub(super) const LOOK_BACK: i64 = 300;

/// One revision of a Rollout in queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// Its namespace.
    pub namespace: String,
    /// Its Service, if the Rollout has one.
    pub service: Option<String>,
    /// The Rollout's name.
    pub rollout: String,
    /// The value of its pods' label `pod-template-hash`.
    pub revision: String,
}

impl Arm {
    pub(super) fn named(&self) -> form::Arm<'_> {
        form::Arm {
            namespace: &self.namespace,
            service: self.service.as_deref(),
            rollout: &self.rollout,
            revision: &self.revision,
        }
    }
}

/// The parameters for reading a check.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The check.
    pub check: Check,
    /// The canary.
    pub canary: Arm,
    /// The stable revision; `None` if the canary is analysed alone.
    pub stable: Option<Arm>,
    /// Length of a window; rounded up to whole seconds.
    pub interval: Duration,
    /// Start of the first window, when the canary first got traffic.
    pub from: Timestamp,
    /// End of the last counted window, or `from`.
    pub counted_until: Timestamp,
    /// The current time.
    pub until: Timestamp,
    /// The revisions whose counts before `from` are read as well: stable, and those before it.
    pub history: Vec<Arm>,
}

impl Ask {
    /// Length of a window in whole seconds, at least one.
    fn step(&self) -> i64 {
        let interval = self.interval.std();
        let seconds = interval
            .as_secs()
            .saturating_add(u64::from(interval.subsec_nanos() > 0));
        i64::try_from(seconds).unwrap_or(i64::MAX).clamp(1, 1 << 32)
    }

    pub(super) fn window(&self) -> Duration {
        Duration::seconds(self.step().unsigned_abs())
    }

    /// The due windows: after the counted ones, each ended at least `lag` ago.
    pub(super) fn due(&self, lag: StdDuration) -> Grid {
        let step = self.step();
        let from = self.from.as_second();
        let lag = SignedDuration::try_from(lag).unwrap_or(SignedDuration::MAX);
        let complete = self
            .until
            .saturating_sub(lag)
            .map_or(i64::MIN, Timestamp::as_second);
        let counted = (self.counted_until.as_second() - from).max(0);
        let first = (counted + step - 1) / step;
        let past = complete.saturating_sub(from).div_euclid(step);
        let most = MOST_WINDOWS.min((LONGEST_READ / step).max(1));
        Grid {
            start: from + first * step,
            step,
            count: (past - first).clamp(0, most),
        }
    }

    /// The windows of the last day, and of a shorter history. They end at multiples of the step, as some
    /// frontends of Prometheus answer for those alone.
    pub(super) fn before(&self) -> [Grid; 2] {
        let step = self.step();
        [MOST_HISTORY, SHORT_HISTORY].map(|most| {
            let count = most.min((LONGEST_HISTORY / step).max(1));
            let end = self.from.as_second();
            let start = end - end.rem_euclid(step) - count * step;
            Grid { start, step, count }
        })
    }
}

/// Adjacent windows of equal length, in Unix seconds.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) start: i64,
    pub(super) step: i64,
    count: i64,
}

impl Grid {
    fn end(self) -> i64 {
        self.start + self.count * self.step
    }

    /// Its first half; `None` if it is a single window.
    pub(super) fn first_half(self) -> Option<Self> {
        let count = self.count / 2;
        (count > 0).then_some(Self { count, ..self })
    }

    /// Start of the search for a counter's last sample before the windows.
    pub(super) fn look_back(self) -> i64 {
        self.start - LOOK_BACK.max(4 * self.step)
    }

    pub(super) fn windows(self) -> impl Iterator<Item = (i64, i64)> {
        let start = move |k| self.start + k * self.step;
        (0..self.count).map(move |k| (start(k), start(k + 1)))
    }

    /// The request for these windows as history: a counter's sum at each window's end, which is one number
    /// however many series there are.
    pub(super) fn history(self, query: &Query) -> Request {
        let (text, start) = match query.form {
            // On a new line: the selector may end with a comment.
            Form::Selector => (format!("sum({}\n)", query.text), self.start),
            Form::Expression => (query.text.clone(), self.start + self.step),
        };
        Request::Steps {
            query: text,
            start,
            end: self.end(),
            step: self.step,
        }
    }

    /// The request for these windows.
    pub(super) fn request(self, query: &Query) -> Request {
        match query.form {
            Form::Selector => {
                let range = between(self.look_back(), self.end());
                Request::At {
                    query: query.samples(range),
                    time: self.end(),
                }
            }
            Form::Expression => Request::Steps {
                query: query.text.clone(),
                start: self.start + self.step,
                end: self.end(),
                step: self.step,
            },
        }
    }
}

pub(super) fn between(start: i64, end: i64) -> Duration {
    Duration::seconds(end.saturating_sub(start).unsigned_abs())
}

pub(super) fn timestamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a second of this era is far below 2^53"
)]
pub(super) const fn seconds(second: i64) -> f64 {
    second as f64
}

pub(super) fn window((start, end): (i64, i64), outcome: WindowOutcome) -> Window {
    Window {
        start: timestamp(start),
        end: timestamp(end),
        outcome,
    }
}
