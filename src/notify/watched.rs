//! What is watched: Rollouts, RolloutRuns and Freezes, each with the fields that messages are made of.
//!
//! A field of a newer build leaves its object without messages and stops no watch.

use std::fmt::Debug;
use std::sync::Arc;

use countersign_api::rollout::{Evidence, ExcludedApprovers};
use countersign_api::run::{Progress, RecordedRisk};
use countersign_api::{Rollout, RolloutRun, RolloutStatus};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::Notify;

use crate::api_server::watch_sentence;
use crate::telemetry::notifications::Notifications;
use crate::watch::WatchedFreeze;
use crate::watch::task::{CappedBackoff, LARGE, SMALL, config};

/// Annotation of a Rollout: the names of the channels that get its messages, with commas.
pub const NOTIFY_ANNOTATION: &str = "countersign.dev/notify";
/// Channels that one Rollout may choose; more are not read.
const MOST_CHANNELS: usize = 16;

/// A Rollout.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Rollout")]
pub struct WatchedRollout {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its status, if this build can read it.
    #[serde(default, deserialize_with = "readable")]
    pub status: Option<RolloutStatus>,
}

/// A RolloutRun.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "RolloutRun")]
pub struct WatchedRun {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What it records, if this build can read it.
    #[serde(default, deserialize_with = "readable")]
    pub spec: Option<Recorded>,
}

/// The fields of a RolloutRun, without its template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Recorded {
    /// Name of the Rollout.
    pub rollout: String,
    /// The change, by its digest.
    pub digest: String,
    /// Number of the revision.
    pub revision: i64,
    /// Images of the template.
    pub images: Vec<String>,
    /// The risk with its contributions.
    pub risk: RecordedRisk,
    /// The transitions and the outcome.
    pub progress: Progress,
}

fn readable<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

impl WatchedRollout {
    /// The channels that it chooses; `None` if it has no such annotation.
    #[must_use]
    pub fn chosen(&self) -> Option<Vec<String>> {
        let annotations = self.metadata.annotations.as_ref()?;
        let names = annotations.get(NOTIFY_ANNOTATION)?.split(',');
        let names = names.map(str::trim).filter(|name| !name.is_empty());
        Some(names.take(MOST_CHANNELS).map(ToOwned::to_owned).collect())
    }
}

/// The caches.
pub(super) struct Watched {
    pub(super) rollouts: Store<WatchedRollout>,
    pub(super) runs: Store<WatchedRun>,
    pub(super) freezes: Store<WatchedFreeze>,
}

impl Watched {
    /// Starts the watches, which notify of each event; they end with the process.
    pub(super) fn start(
        client: &Client,
        telemetry: &Arc<Notifications>,
        changed: &Arc<Notify>,
    ) -> Self {
        Self {
            rollouts: watch("Rollout", client, LARGE, telemetry, changed, strip_rollout),
            runs: watch("RolloutRun", client, LARGE, telemetry, changed, strip_run),
            freezes: watch(
                "Freeze",
                client,
                SMALL,
                telemetry,
                changed,
                |it: &mut WatchedFreeze| {
                    it.metadata.managed_fields = None;
                },
            ),
        }
    }

    /// Waits until every cache has been filled once.
    pub(super) async fn ready(&self) -> bool {
        self.rollouts.wait_until_ready().await.is_ok()
            && self.runs.wait_until_ready().await.is_ok()
            && self.freezes.wait_until_ready().await.is_ok()
    }
}

/// Removes what takes memory and is in no message.
fn strip_rollout(rollout: &mut WatchedRollout) {
    rollout.metadata.managed_fields = None;
    if let Some(annotations) = &mut rollout.metadata.annotations {
        annotations.retain(|name, _| name == NOTIFY_ANNOTATION);
    }
    let change = rollout.status.as_mut().and_then(|it| it.change.as_mut());
    if let Some(change) = change {
        change.evidence = Evidence::default();
        change.checks.clear();
        change.objectives.clear();
        change.excluded_approvers = ExcludedApprovers::default();
        for line in &mut change.transitions {
            line.evidence.clear();
        }
    }
}

fn strip_run(run: &mut WatchedRun) {
    run.metadata.managed_fields = None;
    run.metadata.annotations = None;
    run.metadata.labels = None;
    for line in run
        .spec
        .iter_mut()
        .flat_map(|spec| &mut spec.progress.transitions)
    {
        line.evidence.clear();
    }
}

fn watch<K>(
    kind: &'static str,
    client: &Client,
    page: u32,
    telemetry: &Arc<Notifications>,
    changed: &Arc<Notify>,
    strip: impl FnMut(&mut K) + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(Api::<K>::all(client.clone()), config(page)).modify(strip);
    let events = reflector::reflector(writer, events);
    let (telemetry, changed) = (telemetry.clone(), changed.clone());
    tokio::spawn(async move {
        let mut events = events.backoff(CappedBackoff::default()).boxed();
        loop {
            match events.try_next().await {
                Ok(Some(_)) => changed.notify_one(),
                Ok(None) => return,
                Err(error) => {
                    telemetry.watch_error(kind);
                    tracing::warn!(kind, error = %watch_sentence(&error), "watch failed; retrying");
                }
            }
        }
    });
    store
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_chooses_channels_by_name() {
        let chosen = |annotations: Value| {
            let rollout = json!({ "metadata": { "name": "web", "annotations": annotations } });
            let rollout: WatchedRollout = serde_json::from_value(rollout).unwrap();
            rollout.chosen()
        };
        assert_eq!(chosen(json!({})), None);
        let two = Some(vec!["team-a".to_owned(), "pager".to_owned()]);
        assert_eq!(chosen(json!({ NOTIFY_ANNOTATION: "team-a, pager," })), two);
        assert_eq!(chosen(json!({ NOTIFY_ANNOTATION: "" })), Some(Vec::new()));
        let many = chosen(json!({ NOTIFY_ANNOTATION: "a,".repeat(100) }));
        assert_eq!(many.unwrap().len(), MOST_CHANNELS);
    }

    #[test]
    fn what_this_build_cannot_read_leaves_an_object_without_messages() {
        let rollout = json!({ "metadata": { "name": "web" }, "status": { "phase": "Dreaming" } });
        let rollout: WatchedRollout = serde_json::from_value(rollout).unwrap();
        assert!(rollout.status.is_none());
        let run = json!({ "metadata": { "name": "web-1" }, "spec": { "rollout": 7 } });
        let run: WatchedRun = serde_json::from_value(run).unwrap();
        assert!(run.spec.is_none());
    }
}
