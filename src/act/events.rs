//! Events: told, but never waited for. A refused Event blocks no decision.

use std::sync::Arc;

use kube::runtime::events::{Event, EventType, Recorder as KubeRecorder, Reporter};
use kube::{Client, Resource};

use crate::api::{MANAGER, Rollout};
use crate::core::decision::Notice;
use crate::lease::Lease;
use crate::telemetry::Telemetry;

/// Longest note that the API server takes.
const MAX_NOTE: usize = 1_000;
/// Longest reason and action that the API server takes.
const MAX_WORD: usize = 128;

/// Publishes Events about Rollouts.
#[derive(Clone)]
pub struct Recorder {
    events: KubeRecorder,
    lease: Arc<Lease>,
    telemetry: Arc<Telemetry>,
}

impl Recorder {
    /// A recorder; one for the process, since it remembers what it has said.
    #[must_use]
    pub fn new(
        client: Client,
        instance: &str,
        lease: Arc<Lease>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let reporter = Reporter {
            controller: MANAGER.into(),
            instance: Some(instance.into()),
        };
        Self {
            events: KubeRecorder::new(client, reporter),
            lease,
            telemetry,
        }
    }

    /// Says one thing about a Rollout.
    pub async fn publish(&self, rollout: &Rollout, notice: &Notice) {
        if self.lease.check().is_err() {
            return;
        }
        let cut = |text: &str, length: usize| text.chars().take(length).collect::<String>();
        let event = Event {
            type_: if notice.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: cut(&notice.reason, MAX_WORD),
            note: Some(cut_bytes(&notice.message)),
            action: cut(&notice.action, MAX_WORD),
            secondary: None,
        };
        let result = self.events.publish(&event, &rollout.object_ref(&())).await;
        self.telemetry.api_write("create", "events", result.is_ok());
        if let Err(error) = result {
            tracing::warn!(reason = %notice.reason, %error, "an Event could not be published");
        }
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
