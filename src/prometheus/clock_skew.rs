//! The difference of Prometheus' clock from the operator's, by the `Date` of responses.
//!
//! Windows end by the operator's clock, but samples are stamped by Prometheus'. If Prometheus' clock is
//! behind, a window's samples come later than the lag, so the wait is longer. If the clocks differ by
//! more than the lag, no window is counted until that is fixed.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap};

/// Seconds by which a `Date` may be early with a correct clock: it is truncated to seconds, and servers
/// cache it for a second.
const RESOLUTION: i64 = 2;
/// Seconds of difference from which the clocks are mentioned in messages.
const NOTABLE: i64 = 5;

/// Prometheus' clock in one response.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// The latest time that Prometheus' clock may have shown.
    latest: i64,
    /// Seconds by which the clock is at least behind the operator's; ahead if negative.
    behind: i64,
}

impl Reading {
    /// The `Date` of a response to a request sent and received at these times.
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

/// The state of the two clocks.
pub(super) struct Clocks {
    /// The configured lag in seconds.
    lag: i64,
    /// Seconds by which Prometheus' clock was behind recently. Several servers may respond, so the value
    /// decays slowly.
    behind: AtomicI64,
    /// The same in the last response; ahead if negative.
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

    /// Additional wait for samples, at most the lag, beyond which nothing is counted.
    pub(super) fn behind(&self) -> Duration {
        let behind = self.behind.load(Ordering::Relaxed).min(self.most());
        Duration::from_secs(behind.unsigned_abs())
    }

    /// Why a response for windows up to this end cannot be trusted.
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

    /// The difference of the clocks as a remark, if it is notable.
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
