//! A watch in a task of its own, with its own backoff.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::api_server::watch_sentence;
use crate::telemetry::Telemetry;
use crate::timing::WATCH_BACKOFF;
use crate::watch::cache::{Cache, Cached, Kept};
use crate::watch::trigger::Trigger;

/// Objects per page of the first list, of those that may have 1.5 MB each,
pub(crate) const LARGE: u32 = 25;
/// and of smaller ones.
pub(crate) const SMALL: u32 = 100;

/// The configuration of a watch, with the size of its pages.
pub(crate) fn config(page: u32) -> watcher::Config {
    // A dead connection is noticed after this time.
    watcher::Config::default().timeout(60).page_size(page)
}

/// The default backoff of a watch, capped so that rollbacks are not delayed.
#[derive(Default)]
pub(crate) struct CappedBackoff(watcher::DefaultBackoff);

impl Iterator for CappedBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(WATCH_BACKOFF))
    }
}

impl Backoff for CappedBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// The events of a kind that is kept in a cache. An object is kept before its event triggers a reconcile.
pub(super) fn kept<K: Cached<DynamicType = ()>>(
    client: &Client,
    config: watcher::Config,
    cache: &Cache,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + use<K> {
    let cache = cache.clone();
    let events = watcher(Api::<Kept<K>>::all(client.clone()), config);
    events.map(move |event| cache.take(event))
}

/// Runs one watch forever: errors are counted and retried, events become triggers.
pub(super) fn run<K, T>(
    kind: &'static str,
    telemetry: &Arc<Telemetry>,
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static,
    mut triggers: impl FnMut(watcher::Event<K>) -> T + Send + 'static,
    send: mpsc::UnboundedSender<Trigger>,
) where
    K: Send + 'static,
    T: IntoIterator<Item = Trigger>,
{
    let telemetry = telemetry.clone();
    tokio::spawn(async move {
        let mut events = events.backoff(CappedBackoff::default()).boxed();
        loop {
            match events.try_next().await {
                Ok(Some(event)) => {
                    telemetry.watch_event(kind);
                    for trigger in triggers(event) {
                        // The receiver is dropped only when the process ends.
                        let _ = send.send(trigger);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    telemetry.watch_error(kind);
                    tracing::warn!(kind, error = %watch_sentence(&error), "watch failed; retrying");
                }
            }
        }
    });
}
