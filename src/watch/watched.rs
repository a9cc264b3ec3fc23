//! Policies, Freezes and AnalysisTemplates as the watches keep them: with a spec that this build may not be able to
//! read, and the status beside it.

use countersign_api::{
    AnalysisTemplate, AnalysisTemplateStatus, Freeze, FreezeSpec, FreezeStatus, RolloutPolicy,
    RolloutPolicySpec, RolloutPolicyStatus,
};
use countersign_core::acceptance::template::{Acceptance, acceptance};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::watch::cache::Cached;

/// A policy.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "RolloutPolicy")]
pub struct WatchedPolicy {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its spec, or why this build cannot read it.
    #[serde(default = "absent", deserialize_with = "readable")]
    pub spec: Result<RolloutPolicySpec, String>,
    /// Its status.
    #[serde(default)]
    pub status: Option<RolloutPolicyStatus>,
}

/// A Freeze.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Freeze")]
pub struct WatchedFreeze {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its spec, or why this build cannot read it.
    #[serde(default = "absent", deserialize_with = "readable")]
    pub spec: Result<FreezeSpec, String>,
    /// Its status.
    #[serde(default)]
    pub status: Option<FreezeStatus>,
}

/// An AnalysisTemplate, without its spec, which has a cache of its own: a tenant may write any number of them, each as large
/// as an object can be.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "AnalysisTemplate")]
pub struct WatchedTemplate {
    /// Its identity.
    #[serde(deserialize_with = "identity")]
    pub metadata: ObjectMeta,
    /// What its conditions say.
    #[serde(
        rename = "spec",
        default = "unaccepted",
        deserialize_with = "acceptable"
    )]
    pub acceptance: Acceptance,
    /// Its status.
    #[serde(default)]
    pub status: Option<AnalysisTemplateStatus>,
}

impl Cached for WatchedTemplate {
    /// A tenant may write any number of them, each as large as an object can be; those that Rollouts use have a few KiB.
    const MOST: usize = 8 << 10;

    /// The spec. One that this build cannot read is read again where it is used, which reports the problem.
    fn prune(mut template: Value) -> Value {
        let spec = template.get_mut("spec");
        spec.map(Value::take).unwrap_or_default()
    }

    fn of(&self) -> Option<String> {
        None
    }
}

fn absent<T>() -> Result<T, String> {
    Err("it has no spec".to_owned())
}

fn unaccepted() -> Acceptance {
    acceptance(&absent())
}

fn acceptable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Acceptance, D::Error> {
    readable(deserializer).map(|spec| acceptance(&spec))
}

/// The metadata by which a status is written: what else a tenant adds takes no memory.
fn identity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let all = ObjectMeta::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: all.name,
        namespace: all.namespace,
        uid: all.uid,
        resource_version: all.resource_version,
        generation: all.generation,
        ..ObjectMeta::default()
    })
}

fn readable<'de, D, T>(deserializer: D) -> Result<Result<T, String>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let spec = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(spec).map_err(|error| error.to_string()))
}

/// Removes what takes memory and no one reads.
pub(super) fn strip(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.annotations = None;
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::watch::cache::{Cache, Kept};

    #[test]
    fn a_policy_of_another_build_is_kept_with_the_problem_and_its_status() {
        let policy = |spec: Value| -> WatchedPolicy {
            serde_json::from_value(json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy",
                "metadata": { "name": "p", "generation": 4 }, "spec": spec,
                "status": { "observedGeneration": 3 },
            }))
            .unwrap()
        };
        let sound = policy(json!({ "risk": { "version": "a" } }));
        assert_eq!(sound.spec.unwrap().risk.version.as_deref(), Some("a"));
        for spec in [json!({ "enforcement": "Foresee" }), Value::Null] {
            let other = policy(spec);
            other.spec.unwrap_err();
            assert_eq!(other.metadata.generation, Some(4));
            assert_eq!(other.status.unwrap().observed_generation, 3);
        }
        let bare = json!({ "metadata": { "name": "p" } });
        let bare: WatchedPolicy = serde_json::from_value(bare).unwrap();
        bare.spec.unwrap_err();
    }

    #[test]
    fn of_a_template_no_more_is_kept_than_its_status_needs() {
        let template = |spec: Value| -> WatchedTemplate {
            serde_json::from_value(json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "AnalysisTemplate",
                "metadata": {
                    "name": "http", "namespace": "shop", "uid": "1", "resourceVersion": "7",
                    "generation": 4, "labels": { "a": "b" }, "annotations": { "a": "b" },
                    "finalizers": ["example.org/kept"],
                },
                "spec": spec, "status": { "observedGeneration": 3, "usedBy": 2 },
            }))
            .unwrap()
        };
        let long = "x".repeat(4_000);
        let check = json!({ "name": "errors", "errors": long, "total": long });
        for spec in [
            json!({ "checks": [check] }),
            json!({ "args": [{ "name": "a", "type": "Percentage" }] }),
            Value::Null,
        ] {
            let kept = template(spec);
            let status = kept.status.clone().unwrap();
            assert_eq!((status.observed_generation, status.used_by), (3, 2));
            let expected = ObjectMeta {
                name: Some("http".into()),
                namespace: Some("shop".into()),
                uid: Some("1".into()),
                resource_version: Some("7".into()),
                generation: Some(4),
                ..ObjectMeta::default()
            };
            assert_eq!(kept.metadata, expected);
            let size = format!("{kept:?}").len();
            assert!(size < 4_000, "{size}: {kept:?}");
        }
        let bare = json!({ "metadata": { "name": "p" } });
        let bare: WatchedTemplate = serde_json::from_value(bare).unwrap();
        let words = "it has no spec";
        assert!(format!("{:?}", bare.acceptance).contains(words), "{bare:?}");
    }

    #[test]
    fn of_a_template_that_is_not_large_the_spec_is_kept() {
        let template = |name: &str, length: usize| -> Event<Kept<WatchedTemplate>> {
            let check = json!({ "name": "errors", "errors": "x".repeat(length), "total": "y" });
            let template = json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "AnalysisTemplate",
                "metadata": {
                    "name": name, "namespace": "shop", "uid": name, "resourceVersion": "7",
                    "annotations": { "note": "of no use" },
                },
                "spec": { "checks": [check] },
            });
            Event::InitApply(serde_json::from_value(template).unwrap())
        };
        let cache = Cache::opened();
        let listed = [template("small", 1_000), template("large", 9_000)];
        let events = std::iter::once(Event::Init).chain(listed);
        for event in events.chain([Event::InitDone]) {
            cache.take(Ok(event)).unwrap();
        }
        let kept = cache.get("shop", "small").unwrap();
        let kept: Value = serde_json::from_str(&kept).unwrap();
        assert_eq!(kept["checks"][0]["total"], "y");
        assert!(!kept.to_string().contains("of no use"), "{kept}");
        assert_eq!(cache.get("shop", "large"), None, "it has to be read");
    }
}
