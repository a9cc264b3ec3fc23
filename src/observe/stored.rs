//! Reads a Rollout whose status this build cannot parse: written by a newer build, or past admission.

use countersign_api::{Rollout, RolloutStatus};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::observer::Observer;
use super::reads::tried;

use crate::api_resource::untyped;

/// Fields that can be dropped: they are derived, except the change, which starts again.
const DISPENSABLE: [&str; 5] = ["phase", "tier", "conditions", "waitingKind", "change"];

impl Observer {
    /// Reads a Rollout, unless it may be as its watch has reported it, with the errors of the status fields that were
    /// dropped.
    ///
    /// # Errors If the Rollout cannot be read, or a field that cannot be dropped cannot be parsed.
    pub(super) async fn stored(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<(Rollout, Option<String>)>, kube::Error> {
        if let Some(rollout) = self.watched(namespace, name) {
            return Ok(Some((rollout, None)));
        }
        let rollouts: Api<Rollout> = Api::namespaced(self.client.clone(), namespace);
        match tried(|| rollouts.get_opt(name)).await {
            Err(kube::Error::SerdeError(_)) => {}
            found => {
                let found = found?;
                if let Some(rollout) = &found {
                    let (uid, cache) = (rollout.uid(), &self.caches.written.rollouts);
                    cache.reaches(&uid.unwrap_or_default(), &rollout.metadata);
                }
                return Ok(found.map(|rollout| (rollout, None)));
            }
        }
        let rollouts = untyped::<Rollout>(&self.client, namespace);
        let Some(mut object) = tried(|| rollouts.get_opt(name)).await? else {
            return Ok(None);
        };
        let status = object.data.pointer_mut("/status");
        let left_out = status.and_then(Value::as_object_mut).map(leave_out);
        let rollout = parsed(&object).map_err(kube::Error::SerdeError)?;
        let left_out = left_out.unwrap_or_default();
        tracing::warn!(%namespace, rollout = %name, left_out = %left_out.join("; "), "the status has fields that this build cannot read");
        Ok(Some((rollout, Some(left_out.join("; ")))))
    }

    /// A Rollout as its watch has reported it, if it need not be read.
    pub(super) fn watched(&self, namespace: &str, name: &str) -> Option<Rollout> {
        if !self.from_watches {
            return None;
        }
        let json = self.caches.written.rollouts.get(namespace, name)?;
        serde_json::from_str(&json).ok()
    }
}

/// The typed object, unless this build cannot read it.
pub(super) fn parsed<K: DeserializeOwned>(object: &DynamicObject) -> Result<K, serde_json::Error> {
    serde_json::to_value(object).and_then(serde_json::from_value)
}

/// Removes droppable fields that cannot be parsed; returns their errors.
fn leave_out(status: &mut Map<String, Value>) -> Vec<String> {
    let mut left_out = Vec::new();
    for field in DISPENSABLE {
        let Some(value) = status.get(field) else {
            continue;
        };
        let alone = Map::from_iter([(field.to_owned(), value.clone())]);
        let read: Result<RolloutStatus, _> = serde_json::from_value(Value::Object(alone));
        if let Err(problem) = read {
            status.remove(field);
            left_out.push(format!("status.{field}: {problem}"));
        }
    }
    left_out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_newer_build_wrote_is_left_out_and_named() {
        let mut status = json!({
            "phase": "Dreaming",
            "message": "kept",
            "change": { "stage": "Stepping", "step": 2, "tier": "Enormous" },
            "stable": { "podTemplateHash": "abc" },
        });
        let status = status.as_object_mut().unwrap();
        let left_out = leave_out(status);
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        assert!(left_out[0].starts_with("status.phase: unknown variant `Dreaming`"));
        assert!(left_out[1].starts_with("status.change: unknown variant `Enormous`"));
        let kept: Vec<_> = status.keys().collect();
        assert_eq!(kept, ["message", "stable"]);
    }

    #[test]
    fn a_stable_revision_is_never_left_out() {
        let mut status = json!({ "stable": { "revision": "none" } });
        let status = status.as_object_mut().unwrap();
        assert!(leave_out(status).is_empty());
        assert!(status.contains_key("stable"));
    }
}
