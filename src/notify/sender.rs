//! The one replica that sends: works out what is due, hands it to the channels, and records what they took.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::text::sanitize_to;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api_server::sentence;
use crate::clock;
use crate::lease::Lease;
use crate::notify::config::{Config, ConfigError};
use crate::notify::connection::Connection;
use crate::notify::message::Message;
use crate::notify::plan;
use crate::notify::record::{NAME, Record, Stored};
use crate::notify::transitions::{self, World};
use crate::notify::watched::{NOTIFY_ANNOTATION, Watched, WatchedRollout};
use crate::notify::worker::{Taken, Worker};
use crate::telemetry::notifications::{Notifications, Sent};
use crate::timing::{CHECK_INTERVAL, NOTIFY_INTERVAL, NOTIFY_SETTLE, NOTIFY_TIMEOUT};

/// What is due for each channel, by name.
type Channels = BTreeMap<String, watch::Sender<Vec<Arc<Message>>>>;

/// What a sender works with.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) config: Config,
    pub(super) watched: Watched,
    /// Notified of each event of the watches.
    pub(super) changed: Arc<Notify>,
    pub(super) telemetry: Arc<Notifications>,
    pub(super) lease: Arc<Lease>,
}

/// What is sent, and what was.
struct State {
    record: Record,
    stored: Stored,
    /// Whether the record has what is not stored.
    is_news: bool,
    channels: Channels,
    /// The Rollouts that choose a channel that is not configured, with its name.
    mistyped: BTreeSet<(String, String)>,
}

impl Sender {
    /// Sends until stopped; then requests that have begun end, and what was taken is recorded.
    pub(super) async fn run(self, stop: &CancellationToken) -> Result<(), ConfigError> {
        let Some((stored, record)) = self.stored(stop).await else {
            return Ok(());
        };
        let (took, mut taken) = mpsc::unbounded_channel();
        let (channels, mut workers) = self.start_workers(&took, stop)?;
        drop(took);
        let mut state = State {
            record,
            stored,
            is_news: true,
            channels,
            mistyped: BTreeSet::new(),
        };
        while !stop.is_cancelled() {
            self.publish(&mut state, clock::now());
            self.save(&mut state).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.settled() => {}
                Some(it) = taken.recv() => state.note(&it),
                () = sleep(NOTIFY_INTERVAL) => {}
            }
            while let Ok(it) = taken.try_recv() {
                state.note(&it);
            }
        }
        let ended = async { while workers.join_next().await.is_some() {} };
        let _ = timeout(NOTIFY_TIMEOUT * 2, ended).await;
        while let Ok(it) = taken.try_recv() {
            state.note(&it);
        }
        self.save(&mut state).await;
        Ok(())
    }

    /// What was delivered; `None` if the process is stopped before it can be read.
    async fn stored(&self, stop: &CancellationToken) -> Option<(Stored, Record)> {
        loop {
            let (client, namespace) = (self.client.clone(), &self.namespace);
            match Stored::read(client, namespace).await {
                Ok((stored, mut record)) => {
                    record.begin(self.config.channels.keys(), clock::now());
                    return Some((stored, record));
                }
                Err(error) => {
                    self.telemetry.record_error();
                    tracing::warn!(error = %sentence(&error), "ConfigMap {namespace}/{NAME}, which the chart makes, cannot be read; nothing is sent");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep(CHECK_INTERVAL) => {}
            }
        }
    }

    fn start_workers(
        &self,
        took: &mpsc::UnboundedSender<Taken>,
        stop: &CancellationToken,
    ) -> Result<(Channels, JoinSet<()>), ConfigError> {
        let mut channels = BTreeMap::new();
        let mut workers = JoinSet::new();
        for (name, channel) in &self.config.channels {
            let (publish, due) = watch::channel(Vec::new());
            let worker = Worker {
                channel: name.clone(),
                kind: channel.kind,
                cluster: self.config.cluster.clone(),
                connection: Connection::new(channel, self.config.ca_file.as_deref())?,
                lease: self.lease.clone(),
                telemetry: self.telemetry.clone(),
                due,
                taken: took.clone(),
                stop: stop.clone(),
            };
            workers.spawn(worker.run());
            channels.insert(name.clone(), publish);
        }
        Ok((channels, workers))
    }

    /// Works out what is due, and hands it to the channels.
    fn publish(&self, state: &mut State, now: Timestamp) {
        let world = World {
            rollouts: self.watched.rollouts.state(),
            runs: self.watched.runs.state(),
            freezes: self.watched.freezes.state(),
        };
        self.report_mistyped(&world.rollouts, &mut state.mistyped);
        let longer_than = self.config.held_longer_than.signed();
        let messages = transitions::messages(&world, &state.record, longer_than, now);
        let messages: Vec<_> = messages.into_iter().map(Arc::new).collect();
        for (name, channel) in &state.channels {
            let expired = plan::expired(name, &self.config, &messages, &state.record, now);
            self.report_expired(name, expired);
            let due = plan::due(name, &self.config, &messages, &state.record, now);
            channel.send_if_modified(|known| {
                let differs = *known != due;
                *known = due;
                differs
            });
        }
        let ids = plan::ids(&messages);
        let closed = state.record.open_freezes().filter(|(began, _, channels)| {
            plan::is_closed(began, channels, &self.config, (&ids, &state.record))
        });
        let closed: Vec<_> = closed.map(|(began, ..)| began.to_owned()).collect();
        for began in &closed {
            state.record.close_freeze(began);
        }
        let pruned = state.record.prune(&ids, now);
        state.is_news |= pruned || !closed.is_empty();
    }

    /// Reports what a channel will never take.
    fn report_expired(&self, channel: &str, expired: usize) {
        if expired > 0 {
            tracing::warn!(%channel, expired, "notifications were not taken for a day and are no longer sent");
            let expired = u64::try_from(expired).unwrap_or(u64::MAX);
            self.telemetry.count(channel, Sent::Expired, expired);
        }
    }

    /// Reports the Rollouts that choose a channel that is not configured, each once.
    fn report_mistyped(
        &self,
        rollouts: &[Arc<WatchedRollout>],
        known: &mut BTreeSet<(String, String)>,
    ) {
        let mut mistyped = BTreeSet::new();
        let mut number = 0;
        for rollout in rollouts {
            let Some(chosen) = rollout.chosen() else {
                continue;
            };
            let before = mistyped.len();
            let namespace = rollout.namespace().unwrap_or_default();
            let name = format!("{namespace}/{}", rollout.name_any());
            let unknown = plan::unknown(&chosen, &self.config);
            mistyped.extend(unknown.map(|channel| (name.clone(), channel.clone())));
            number += usize::from(mistyped.len() > before);
        }
        self.telemetry.unknown_channels(number);
        for (rollout, channel) in mistyped.difference(known) {
            let channel = sanitize_to(channel, 63);
            tracing::warn!(%rollout, %channel, "the Rollout chooses a channel that is not configured, by the annotation {NOTIFY_ANNOTATION}");
        }
        *known = mistyped;
    }

    /// Returns a moment after an event, with what else has changed by then.
    async fn settled(&self) {
        self.changed.notified().await;
        sleep(NOTIFY_SETTLE).await;
    }

    async fn save(&self, state: &mut State) {
        if !state.is_news || self.lease.check().is_err() {
            return;
        }
        match state.stored.write(&mut state.record).await {
            Ok(()) => state.is_news = false,
            Err(error) => {
                self.telemetry.record_error();
                tracing::warn!(error = %sentence(&error), "what was delivered is not recorded yet in ConfigMap {NAME}");
            }
        }
    }
}

impl State {
    fn note(&mut self, it: &Taken) {
        let freeze = it.freeze.as_deref();
        self.is_news |= self.record.note(&it.id, &it.channel, it.at, freeze);
    }
}
