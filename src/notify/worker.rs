//! One task for each channel, so that one that hangs delays no other. It sends what is due, the oldest first, and
//! repeats what fails.
//!
//! **Invariant:** it sends only while this replica holds the lease.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::lease::Lease;
use crate::notify::config::ChannelKind;
use crate::notify::connection::{Connection, Failure};
use crate::notify::message::{Kind, Message, Subject};
use crate::notify::wire;
use crate::notify::wire::alertmanager::{self, Alert, Labels};
use crate::telemetry::notifications::{Notifications, Sent};
use crate::timing::{ALERT_REPEAT, NOTIFY_BACKOFF};

/// Pause while it is not known whether this replica still holds the lease.
const LEASE_PAUSE: Duration = Duration::from_secs(1);

/// A message that a channel took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) channel: String,
    pub(super) id: String,
    pub(super) at: Timestamp,
    /// The Freeze that it says is in force.
    pub(super) freeze: Option<String>,
}

/// The sender of one channel.
pub(super) struct Worker {
    pub(super) channel: String,
    pub(super) kind: ChannelKind,
    pub(super) cluster: String,
    pub(super) connection: Connection,
    pub(super) lease: Arc<Lease>,
    pub(super) telemetry: Arc<Notifications>,
    pub(super) due: watch::Receiver<Vec<Message>>,
    pub(super) taken: mpsc::UnboundedSender<Taken>,
    pub(super) stop: CancellationToken,
}

impl Worker {
    /// Sends until stopped; a request that has begun ends first.
    pub(super) async fn run(self) {
        match self.kind {
            ChannelKind::Alertmanager => self.send_alerts().await,
            ChannelKind::CloudEvents | ChannelKind::Slack | ChannelKind::Webhook => {
                self.send_each().await;
            }
        }
    }

    /// Sends each message once.
    async fn send_each(mut self) {
        let mut known = BTreeSet::new();
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let next = self.next(&mut known);
            let Some(message) = next else {
                self.wait(None).await;
                continue;
            };
            if self.lease.check().is_err() {
                self.wait(Some(LEASE_PAUSE)).await;
                continue;
            }
            match self.post(&message).await {
                Ok(()) => self.took(&message, Sent::Delivered),
                Err(Failure::Refused(error)) => {
                    tracing::warn!(channel = %self.channel, id = %message.id, %error, "a notification was refused and is not repeated");
                    self.took(&message, Sent::Refused);
                }
                Err(Failure::Later { message, pause }) => {
                    failures += 1;
                    self.pause(failures, &message, pause).await;
                    continue;
                }
            }
            failures = 0;
            known.insert(message.id);
        }
    }

    /// The oldest message that is due and not known to be taken.
    fn next(&mut self, known: &mut BTreeSet<String>) -> Option<Message> {
        let due = self.due.borrow_and_update();
        let ids: BTreeSet<&str> = due.iter().map(|it| it.id.as_str()).collect();
        // What is no longer due was recorded.
        known.retain(|id| ids.contains(id.as_str()));
        due.iter().find(|it| !known.contains(&it.id)).cloned()
    }

    async fn post(&self, message: &Message) -> Result<(), Failure> {
        for request in wire::requests(self.kind, message, &self.cluster) {
            self.connection.post(&request).await?;
        }
        Ok(())
    }

    /// Sends all that is an alert together: when it changes, and again until it is over.
    async fn send_alerts(mut self) {
        let mut posted: BTreeMap<Labels, Alert> = BTreeMap::new();
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let due = self.due.borrow_and_update().clone();
            let alerts = due.iter().map(|it| alertmanager::alert(it, &self.cluster));
            let firing: BTreeMap<_, _> = alerts.map(|it| (it.labels.clone(), it)).collect();
            let ended = posted
                .iter()
                .filter(|(labels, _)| !firing.contains_key(*labels));
            let ended: Vec<_> = ended.map(|(_, alert)| alert.clone()).collect();
            if firing.is_empty() && ended.is_empty() {
                self.wait(None).await;
                continue;
            }
            if self.lease.check().is_err() {
                self.wait(Some(LEASE_PAUSE)).await;
                continue;
            }
            let all: Vec<_> = firing.values().cloned().collect();
            let request = alertmanager::request(&all, &ended, clock::now());
            let sent = match self.connection.post(&request).await {
                Ok(()) => Sent::Delivered,
                Err(Failure::Refused(error)) => {
                    tracing::warn!(channel = %self.channel, %error, "alerts were refused");
                    Sent::Refused
                }
                Err(Failure::Later { message, pause }) => {
                    // It may have taken them.
                    posted.extend(firing);
                    failures += 1;
                    self.pause(failures, &message, pause).await;
                    continue;
                }
            };
            failures = 0;
            posted = firing;
            for message in due.iter().filter(|it| !known.contains(&it.id)) {
                self.took(message, sent);
            }
            known = due.into_iter().map(|it| it.id).collect();
            self.wait(Some(ALERT_REPEAT)).await;
        }
    }

    fn took(&self, message: &Message, sent: Sent) {
        self.telemetry.count(&self.channel, sent, 1);
        let freeze = match (&message.subject, message.kind) {
            (Subject::Freeze(name), Kind::FreezeBegan) => Some(name.clone()),
            _ => None,
        };
        // The receiver is dropped only when the process ends.
        let _ = self.taken.send(Taken {
            channel: self.channel.clone(),
            id: message.id.clone(),
            at: clock::now(),
            freeze,
        });
    }

    /// Waits after a failure: as long as the channel asks for, or longer each time.
    async fn pause(&self, failures: u32, error: &str, asked: Option<Duration>) {
        self.telemetry.count(&self.channel, Sent::Failed, 1);
        let pause = asked.unwrap_or_else(|| backoff(failures));
        tracing::warn!(channel = %self.channel, %error, ?pause, "a notification was not taken and is repeated");
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sleep(pause) => {}
        }
    }

    /// Waits until what is due changes, at most so long.
    async fn wait(&mut self, at_most: Option<Duration>) {
        let time = async {
            match at_most {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            changed = self.due.changed() => {
                if changed.is_err() {
                    // Nothing will be due any more.
                    self.stop.cancelled().await;
                }
            }
            () = time => {}
        }
    }
}

/// One second, then twice as long each time, up to a minute.
fn backoff(failures: u32) -> Duration {
    let seconds = 1_u64 << failures.saturating_sub(1).min(6);
    Duration::from_secs(seconds).min(NOTIFY_BACKOFF)
}

#[cfg(test)]
mod tests;
