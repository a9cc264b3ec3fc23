//! One task for each channel, so that one that hangs delays no other. It sends what is due, the oldest first, and
//! repeats what fails, after what has failed less often.
//!
//! **Invariant:** it sends only while this replica holds the lease, and waits for no answer for longer.

use std::collections::BTreeMap;
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
use crate::notify::plan;
use crate::notify::wire;
use crate::notify::wire::alertmanager::{self, Alert};
use crate::telemetry::notifications::{Notifications, Sent};
use crate::timing::{ALERT_REPEAT, NOTIFY_BACKOFF};

/// Pause while it is not known whether this replica still holds the lease.
const LEASE_PAUSE: Duration = Duration::from_secs(1);
/// Alerts in one request, so that it is far below what proxies refuse.
const BATCH: usize = 200;

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
    pub(super) due: watch::Receiver<Vec<Arc<Message>>>,
    pub(super) taken: mpsc::UnboundedSender<Taken>,
    pub(super) stop: CancellationToken,
}

/// How far a channel has come with a message.
#[derive(Default)]
struct Progress {
    failures: u32,
    /// Its requests that were taken or refused.
    answered: usize,
    is_taken: bool,
    is_done: bool,
}

/// What an Alertmanager may have as an alert.
struct Posted {
    message: Arc<Message>,
    is_taken: bool,
}

/// What fires, and the end of what no longer does.
fn alerts(due: &[Arc<Message>], posted: &BTreeMap<String, Posted>) -> Vec<Alert> {
    let ids = plan::ids(due);
    let over = posted.iter().filter(|(id, _)| !ids.contains(id.as_str()));
    let over = over.map(|(_, it)| (&it.message, true));
    let firing = due.iter().map(|message| (message, false));
    let all = firing.chain(over).map(|(message, is_over)| Alert {
        message: message.clone(),
        is_over,
    });
    all.collect()
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

    /// Sends each message once, one request after the other.
    async fn send_each(mut self) {
        let mut known: BTreeMap<String, Progress> = BTreeMap::new();
        while !self.stop.is_cancelled() {
            let Some(message) = self.next(&mut known) else {
                self.wait(None).await;
                continue;
            };
            let Ok(left) = self.lease.remaining() else {
                self.wait(Some(LEASE_PAUSE)).await;
                continue;
            };
            let progress = known.entry(message.id.clone()).or_default();
            let requests = wire::requests(self.kind, &message, &self.cluster);
            let posted = match requests.get(progress.answered) {
                Some(request) => self.connection.post(request, left).await,
                None => Ok(()),
            };
            match posted {
                Ok(()) => progress.is_taken = true,
                Err(Failure::Refused(error)) => {
                    self.telemetry.count(&self.channel, Sent::Refused, 1);
                    tracing::warn!(channel = %self.channel, id = %message.id, %error, "a notification was refused and is not repeated");
                }
                Err(Failure::Later { message, pause }) => {
                    progress.failures += 1;
                    self.pause(progress.failures, &message, pause).await;
                    continue;
                }
            }
            progress.answered += 1;
            if progress.answered >= requests.len() {
                progress.is_done = true;
                if progress.is_taken {
                    self.telemetry.count(&self.channel, Sent::Delivered, 1);
                }
                self.took(&message);
            }
        }
    }

    /// The message that is due and has failed least often, of these the oldest.
    fn next(&mut self, known: &mut BTreeMap<String, Progress>) -> Option<Arc<Message>> {
        let due = self.due.borrow_and_update().clone();
        let ids = plan::ids(&due);
        // What is no longer due was recorded.
        known.retain(|id, _| ids.contains(id.as_str()));
        let failing = known.values().filter(|it| it.failures > 0 && !it.is_done);
        self.telemetry.waiting(&self.channel, failing.count());
        let open = due
            .iter()
            .filter(|it| known.get(&it.id).is_none_or(|it| !it.is_done));
        open.min_by_key(|it| known.get(&it.id).map_or(0, |it| it.failures))
            .cloned()
    }

    /// Sends all that is an alert, in batches: when it changes, and again until it is over.
    async fn send_alerts(mut self) {
        let mut posted: BTreeMap<String, Posted> = BTreeMap::new();
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let due = self.due.borrow_and_update().clone();
            let alerts = alerts(&due, &posted);
            let mut rest = (!alerts.is_empty()).then_some(ALERT_REPEAT);
            let mut failed = None;
            for batch in alerts.chunks(BATCH) {
                let Ok(left) = self.lease.remaining() else {
                    rest = Some(LEASE_PAUSE);
                    break;
                };
                for Alert { message, is_over } in batch {
                    if !is_over {
                        let known = posted.get(&message.id);
                        let it = Posted {
                            message: message.clone(),
                            is_taken: known.is_some_and(|it| it.is_taken),
                        };
                        posted.insert(message.id.clone(), it);
                    }
                }
                let request = alertmanager::request(batch, &self.cluster, clock::now());
                match self.connection.post(&request, left).await {
                    Ok(()) => self.took_alerts(batch, Sent::Delivered, &mut posted),
                    Err(Failure::Refused(error)) => {
                        tracing::warn!(channel = %self.channel, %error, "alerts were refused");
                        self.took_alerts(batch, Sent::Refused, &mut posted);
                    }
                    Err(Failure::Later { message, pause }) => failed = Some((message, pause)),
                }
            }
            let failing = posted.values().filter(|it| !it.is_taken);
            self.telemetry.waiting(&self.channel, failing.count());
            if let Some((error, pause)) = failed {
                failures += 1;
                self.pause(failures, &error, pause).await;
            } else {
                failures = 0;
                self.wait(rest).await;
            }
        }
    }

    fn took_alerts(&self, batch: &[Alert], sent: Sent, posted: &mut BTreeMap<String, Posted>) {
        for Alert { message, is_over } in batch {
            if *is_over {
                posted.remove(&message.id);
            } else if let Some(it) = posted.get_mut(&message.id)
                && !it.is_taken
            {
                it.is_taken = true;
                self.telemetry.count(&self.channel, sent, 1);
                self.took(message);
            }
        }
    }

    fn took(&self, message: &Message) {
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
