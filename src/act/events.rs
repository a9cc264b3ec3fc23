//! Events, published by a separate task, so that no reconcile waits for one. If the queue is full, new
//! Events are dropped and counted.

use std::sync::Arc;

use countersign_api::{MANAGER, Rollout};
use countersign_core::decision::Notice;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder as Publisher, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::api_server::sentence;
use crate::lease::Lease;
use crate::telemetry::Telemetry;
use crate::timing::EVENT_TIMEOUT;
use crate::watch::hashing::hash;

/// Longest note in bytes; the API server refuses longer ones.
const MAX_NOTE: usize = 1_000;
/// Longest reason and action in bytes; the API server refuses longer ones.
const MAX_WORD: usize = 128;
/// Bytes of a message's hash in an action, with a hyphen.
const MESSAGE_HASH: usize = 17;
/// Capacity of the queue; further Events are dropped.
const QUEUED: usize = 1_000;
/// Events that are published concurrently.
const CONCURRENCY: usize = 8;

/// Queues Events about Rollouts.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    telemetry: Arc<Telemetry>,
}

impl Recorder {
    /// A recorder, and its publishing task, which ends after the last clone of the recorder.
    #[must_use]
    pub fn start(
        client: Client,
        instance: &str,
        lease: Arc<Lease>,
        telemetry: Arc<Telemetry>,
    ) -> (Self, JoinHandle<()>) {
        let reporter = Reporter {
            controller: MANAGER.into(),
            instance: Some(instance.into()),
        };
        let publisher = Publisher::new(client, reporter);
        let (queue, queued) = mpsc::channel(QUEUED);
        let counted = telemetry.clone();
        let publish = ReceiverStream::new(queued).for_each_concurrent(
            CONCURRENCY,
            move |(event, regarding): (Event, ObjectReference)| {
                let (publisher, lease) = (publisher.clone(), lease.clone());
                let telemetry = counted.clone();
                async move {
                    if lease.check().is_err() {
                        return;
                    }
                    let write = publisher.publish(&event, &regarding);
                    let problem = match tokio::time::timeout(EVENT_TIMEOUT, write).await {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(sentence(&error)),
                        Err(_) => Some(format!("no answer within {EVENT_TIMEOUT:?}")),
                    };
                    telemetry.api_write("create", "events", problem.is_none());
                    if let Some(error) = problem {
                        tracing::warn!(reason = %event.reason, %error, "an Event could not be published");
                    }
                }
            },
        );
        (Self { queue, telemetry }, tokio::spawn(publish))
    }

    /// Queues one Event about a Rollout.
    pub fn publish(&self, rollout: &Rollout, notice: &Notice) {
        let queued = self
            .queue
            .try_send((event(notice), rollout.object_ref(&())));
        if queued.is_err() {
            self.telemetry.event_dropped();
            tracing::warn!(reason = %notice.reason, "an Event was dropped: {QUEUED} wait to be published");
        }
    }
}

fn event(notice: &Notice) -> Event {
    let cut = |text: &str, length: usize| text.chars().take(length).collect::<String>();
    // Events of the same reason and action are counted as one, with the message of the first.
    let message = hash(&notice.message);
    let action = cut(&notice.action, MAX_WORD - MESSAGE_HASH);
    Event {
        type_: if notice.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: cut(&notice.reason, MAX_WORD),
        note: Some(cut_bytes(&notice.message)),
        action: format!("{action}-{message:016x}"),
        secondary: None,
    }
}

/// The API server counts bytes, not characters.
fn cut_bytes(text: &str) -> String {
    let mut end = text.len().min(MAX_NOTE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_message_is_another_event() {
        let notice = |action: &str, message: &str| Notice {
            reason: "SignedOff".into(),
            action: action.into(),
            message: message.into(),
            warning: false,
        };
        let step = |message: &str| event(&notice("Step1Weight5", message)).action;
        assert_ne!(step("alice approved"), step("bob approved"));
        assert_eq!(step("alice approved"), step("alice approved"));
        let long = event(&notice(&"x".repeat(200), "alice approved"));
        assert_eq!(long.action.len(), MAX_WORD);
    }
}
