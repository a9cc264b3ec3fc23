//! The one replica that sends: works out what is due, hands it to the channels, and records what they took.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api_server::sentence;
use crate::clock;
use crate::lease::Lease;
use crate::notify::config::{Config, ConfigError};
use crate::notify::connection::Connection;
use crate::notify::message::{Kind, Message};
use crate::notify::plan::{self, QUEUE};
use crate::notify::record::{self, NAME, Record, Stored};
use crate::notify::transitions::{self, World};
use crate::notify::watched::Watched;
use crate::notify::worker::{Taken, Worker};
use crate::telemetry::notifications::{Notifications, Sent};
use crate::timing::{CHECK_INTERVAL, NOTIFY_INTERVAL, NOTIFY_SETTLE, NOTIFY_TIMEOUT};

/// What is due for each channel, by name.
type Channels = BTreeMap<String, watch::Sender<Vec<Message>>>;

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
            match Stored::read(client, namespace, clock::now()).await {
                Ok(stored) => return Some(stored),
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
        let unknown = world.rollouts.iter().filter(|it| {
            let chosen = it.chosen().unwrap_or_default();
            let mut chosen = chosen.iter();
            chosen.any(|name| !self.config.channels.contains_key(name))
        });
        self.telemetry.unknown_channels(unknown.count());
        let longer_than = self.config.held_longer_than.signed();
        let messages = transitions::messages(&world, &state.record, longer_than, now);
        for (name, channel) in &state.channels {
            let mut due = plan::due(name, &self.config, &messages, &state.record, now);
            self.measure(name, &due, &state.record, now);
            due.truncate(QUEUE);
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

    /// Reports what a channel has not taken yet, and what it never will.
    fn measure(&self, name: &str, due: &[Message], record: &Record, now: Timestamp) {
        let waits = |it: &&Message| record.delivered_at(&it.id, name).is_none();
        let waiting: Vec<_> = due.iter().filter(waits).collect();
        self.telemetry.waiting(name, waiting.len());
        // This is the last time that they are due. The end of a Freeze stays due for as long as it takes.
        let lapses = |it: &&&Message| {
            it.kind.is_event() && it.kind != Kind::FreezeEnded && it.at < record::oldest(now)
        };
        let expired = waiting.iter().filter(lapses).count();
        if expired > 0 {
            tracing::warn!(channel = %name, expired, "notifications were not taken for a day and are no longer sent");
            let expired = u64::try_from(expired).unwrap_or(u64::MAX);
            self.telemetry.count(name, Sent::Expired, expired);
        }
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
