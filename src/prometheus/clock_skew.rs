//! Prometheus' clock beside the operator's, by the `Date` of its answers.
//!
//! Windows end by the operator's clock and samples are stamped by Prometheus'. Where that one is
//! behind, a window's samples come later than the lag says: then they are waited for longer. Clocks
//! that differ by more than the lag are a fault that people mend; nothing is counted by them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap};

/// By how much a `Date` may be too early though the clock is right: it is cut to whole seconds, and
/// servers keep it for a second.
const RESOLUTION: i64 = 2;
/// A difference that is worth saying.
const NOTABLE: i64 = 5;

/// What Prometheus' clock showed in one answer.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// The latest that it may have been.
    latest: i64,
    /// Seconds by which the clock is surely behind the operator's; ahead where it is negative.
    behind: i64,
}

impl Reading {
    /// The `Date` of an answer that came between two moments.
    pub(super) fn of(headers: &HeaderMap, sent: Timestamp, received: Timestamp) -> Option<Self> {
        let date = headers.get(DATE)?.to_str().ok()?;
        let date = rfc2822::parse(date).ok()?.timestamp().as_second();
        let latest = date + RESOLUTION;
        let behind = (sent.as_second() - latest).max(0);
        let ahead = (date - received.as_second() - 1).max(0);
        Some(Self {
            latest,
            behind: behind - ahead,
        })
    }
}

/// What is known of the two clocks.
pub(super) struct Clocks {
    /// How long after a window's end its samples are surely there, in seconds.
    lag: i64,
    /// Seconds by which Prometheus' clock was behind lately. Several servers may answer, so it falls
    /// slowly.
    behind: AtomicI64,
    /// The same in the last answer; ahead where it is negative.
    last: AtomicI64,
}

impl Clocks {
    pub(super) fn new(lag: Duration) -> Self {
        Self {
            lag: i64::try_from(lag.as_secs()).unwrap_or(i64::MAX),
            behind: AtomicI64::new(0),
            last: AtomicI64::new(0),
        }
    }

    pub(super) fn note(&self, reading: Reading) {
        self.last.store(reading.behind, Ordering::Relaxed);
        let known = self.behind.load(Ordering::Relaxed);
        let now = reading.behind.max(known - 1).max(0);
        self.behind.store(now, Ordering::Relaxed);
    }

    /// By how much longer samples are waited for; beyond the lag nothing is counted anyway.
    pub(super) fn behind(&self) -> Duration {
        let behind = self.behind.load(Ordering::Relaxed).min(self.most());
        Duration::from_secs(behind.unsigned_abs())
    }

    /// Why an answer about windows up to a moment is not to be believed.
    pub(super) fn too_early(&self, reading: Reading, end: i64) -> Option<String> {
        let differs = reading.behind.abs() > self.most();
        if differs {
            let clocks = difference(reading.behind);
            let lag = self.lag;
            return Some(format!(
                "{clocks}, more than the lag of {lag} s: set the clocks right, or see whether a proxy writes the `Date` of answers"
            ));
        }
        let early = reading.behind > 0 && reading.latest < end.saturating_add(self.lag);
        early.then(|| {
            format!(
                "{}, so samples of these windows may be missing yet; they are waited for longer",
                difference(reading.behind)
            )
        })
    }

    /// What is to be said beside another reason.
    pub(super) fn remark(&self) -> Option<String> {
        let last = self.last.load(Ordering::Relaxed);
        (last.abs() > NOTABLE).then(|| difference(last))
    }

    const fn most(&self) -> i64 {
        if self.lag > NOTABLE {
            self.lag
        } else {
            NOTABLE
        }
    }
}

fn difference(behind: i64) -> String {
    let way = if behind < 0 { "ahead of" } else { "behind" };
    format!(
        "Prometheus' clock is {} s {way} the operator's",
        behind.unsigned_abs()
    )
}
