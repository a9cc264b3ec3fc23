//! The metrics of `countersign notify`, which is another process than the operator: it has none of the operator's, by
//! which alerts find the operator.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::telemetry::catalog::{Catalog, Metric};
use crate::telemetry::labels::{ChannelLabels, NotificationLabels, WatchLabels};
use crate::telemetry::server::Reported;

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The channel took it.
    Delivered,
    /// A request failed; it is repeated.
    Failed,
    /// The channel refuses this request, which is not repeated.
    Refused,
    /// It was not delivered for so long that it is no longer sent.
    Expired,
}

impl Sent {
    const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Refused, Self::Expired];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

/// All metrics, and the state of readiness.
pub struct Notifications {
    sent: Family<NotificationLabels, Counter>,
    waiting: Family<ChannelLabels, Gauge>,
    unknown_channels: Gauge,
    sending: Gauge,
    record_errors: Counter,
    watch_errors: Family<WatchLabels, Counter>,
    ready: AtomicBool,
    catalog: Catalog,
}

impl Notifications {
    /// All metrics at zero, those of these channels included: `increase` sees the first failure only if the counter
    /// was there before it.
    #[must_use]
    pub fn new<'a>(channels: impl IntoIterator<Item = &'a String>) -> Self {
        let mut catalog = Catalog::new();
        let all = Self {
            sent: catalog.register(
                "notifications",
                "Notifications by channel and result; a failed request is repeated",
                Family::default(),
            ),
            waiting: catalog.register(
                "notifications_waiting",
                "Notifications that each channel failed to take and has not taken since",
                Family::default(),
            ),
            unknown_channels: catalog.register(
                "notify_unknown_channels",
                "Rollouts that choose a channel that is not configured",
                Gauge::default(),
            ),
            sending: catalog.register(
                "notify_sending",
                "Whether this replica sends the notifications",
                Gauge::default(),
            ),
            record_errors: catalog.register(
                "notify_record_errors",
                "Failed writes of what was delivered, which a restart would repeat",
                Counter::default(),
            ),
            watch_errors: catalog.register(
                "notify_watch_errors",
                "Errors of each watch of the notifications",
                Family::default(),
            ),
            ready: AtomicBool::new(false),
            catalog,
        };
        for channel in channels {
            for result in Sent::ALL {
                all.count(channel, result, 0);
            }
            all.waiting(channel, 0);
        }
        all
    }

    /// What each metric is, in the order of the documents.
    #[must_use]
    pub fn metrics(&self) -> &[Metric] {
        self.catalog.metrics()
    }

    /// Counts notifications of a channel.
    pub fn count(&self, channel: &str, result: Sent, times: u64) {
        let labels = NotificationLabels {
            channel: channel.to_owned(),
            result: result.as_str(),
        };
        self.sent.get_or_create(&labels).inc_by(times);
    }

    /// Sets how many notifications a channel failed to take, and has not taken since.
    pub fn waiting(&self, channel: &str, number: usize) {
        let labels = ChannelLabels {
            channel: channel.to_owned(),
        };
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.waiting.get_or_create(&labels).set(number);
    }

    /// Sets how many Rollouts choose a channel that is not configured.
    pub fn unknown_channels(&self, rollouts: usize) {
        let rollouts = i64::try_from(rollouts).unwrap_or(i64::MAX);
        self.unknown_channels.set(rollouts);
    }

    /// Sets whether this replica sends.
    pub fn sends(&self, sends: bool) {
        self.sending.set(i64::from(sends));
    }

    /// Counts a failed write of what was delivered.
    pub fn record_error(&self) {
        self.record_errors.inc();
    }

    /// Counts an error of a watch.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&WatchLabels { kind }).inc();
    }

    /// Marks the caches as filled.
    pub fn caches_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}

impl Reported for Notifications {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn encode(&self) -> String {
        self.catalog.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_of_a_channel_is_there_before_the_first() {
        let metrics = Notifications::new([&"slack".to_owned()]);
        metrics.count("slack", Sent::Failed, 1);
        metrics.waiting("slack", 2);
        let text = metrics.encode();
        for line in [
            r#"countersign_notifications_total{channel="slack",result="delivered"} 0"#,
            r#"countersign_notifications_total{channel="slack",result="failed"} 1"#,
            r#"countersign_notifications_waiting{channel="slack"} 2"#,
            "countersign_notify_sending 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let operator = ["countersign_build_info", "countersign_leading"];
        assert!(operator.iter().all(|it| !text.contains(it)), "{text}");
    }
}
