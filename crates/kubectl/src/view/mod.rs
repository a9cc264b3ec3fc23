//! One Rollout with its related objects, as shown by `status` and `watch` and before signing.

pub mod difference;
pub mod evidence;
pub mod gates;
pub mod observed;
pub mod plan;
pub mod tree;

use std::collections::BTreeMap;

use countersign_api::rollout::Change;
use countersign_api::{Freeze, ROLLOUT_UID_LABEL, Rollout, RolloutRun, SignOff};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use serde::Serialize;

use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;

/// Most pods that are read; more are not shown.
const MAX_PODS: u32 = 500;

/// A Rollout with all related objects that the user may read.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The Rollout.
    pub rollout: Rollout,
    /// The RolloutRun of its change.
    pub run: Option<RolloutRun>,
    /// Its ReplicaSets.
    pub replica_sets: Vec<ReplicaSet>,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// Sign-offs for its change.
    pub sign_offs: Vec<SignOff>,
    /// Freezes that select it.
    pub freezes: Vec<Freeze>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

impl View {
    /// Reads the related objects of a Rollout. What the user may not read is listed in `unread`.
    pub async fn of(connection: &Connection, rollout: Rollout, now: Timestamp) -> Self {
        // On the heap, since the future of several requests is large.
        Box::pin(Self::gather(connection, rollout, now)).await
    }

    async fn gather(connection: &Connection, rollout: Rollout, now: Timestamp) -> Self {
        let by_uid = format!("{ROLLOUT_UID_LABEL}={}", rollout.uid().unwrap_or_default());
        let selector = pod_selector(&rollout).unwrap_or_else(|| by_uid.clone());
        let by_uid = ListParams::default().labels(&by_uid);
        let by_selector = ListParams::default().labels(&selector).limit(MAX_PODS);
        let all = ListParams::default();
        let change = change(&rollout).cloned();
        let run = async {
            match &change {
                Some(change) => connection.here::<RolloutRun>().get_opt(&change.run).await,
                None => Ok(None),
            }
        };
        let replica_sets = connection.here::<ReplicaSet>();
        let pods = connection.here::<Pod>();
        let sign_offs = connection.here::<SignOff>();
        let freezes = connection.cluster::<Freeze>();
        let (run, replica_sets, pods, sign_offs, freezes) = futures::join!(
            connection.ask(run),
            connection.ask(replica_sets.list(&by_uid)),
            connection.ask(pods.list(&by_selector)),
            connection.ask(sign_offs.list(&all)),
            connection.ask(freezes.list(&all)),
        );
        let mut unread = Vec::new();
        let mut view = Self {
            run: read("the record of the change", run, &mut unread).flatten(),
            replica_sets: items("the revisions", replica_sets, &mut unread),
            pods: items("the pods", pods, &mut unread),
            sign_offs: items("sign-offs", sign_offs, &mut unread),
            freezes: items("freezes", freezes, &mut unread),
            rollout,
            unread,
        };
        let about = |sign_off: &SignOff| {
            change
                .as_ref()
                .is_some_and(|change| sign_off.spec.run == change.run)
        };
        view.sign_offs.retain(about);
        if !view.freezes.is_empty() {
            let labels = view.namespace_labels(connection).await;
            let rollout = &view.rollout;
            view.freezes
                .retain(|freeze| freezes_it(freeze, rollout, &labels, now));
        }
        view
    }

    /// The current or last change of the Rollout.
    #[must_use]
    pub fn change(&self) -> Option<&Change> {
        change(&self.rollout)
    }

    /// Labels of the Rollout's namespace; only the name label if they cannot be read.
    async fn namespace_labels(&mut self, connection: &Connection) -> BTreeMap<String, String> {
        let name = self.rollout.namespace().unwrap_or_default();
        let namespaces = connection.cluster::<Namespace>();
        let namespace = connection.ask(namespaces.get(&name)).await;
        let what = "the labels of the namespace, by which freezes select";
        read(what, namespace, &mut self.unread).map_or_else(
            || BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name.clone())]),
            |namespace| namespace.labels().clone(),
        )
    }
}

/// The pod selector; that of an adopted workload is in the status.
fn pod_selector(rollout: &Rollout) -> Option<String> {
    let own = rollout.spec.selector.to_string();
    let seen = rollout.status.as_ref().map(|it| it.selector.clone());
    [Some(own), seen]
        .into_iter()
        .flatten()
        .find(|it| !it.is_empty())
}

fn change(rollout: &Rollout) -> Option<&Change> {
    rollout.status.as_ref()?.change.as_ref()
}

fn read<T>(what: &str, answer: Result<T, Refusal>, unread: &mut Vec<String>) -> Option<T> {
    answer
        .map_err(|refusal| unread.push(format!("{what}: {refusal}")))
        .ok()
}

fn items<K: Clone>(
    what: &str,
    answer: Result<kube::api::ObjectList<K>, Refusal>,
    unread: &mut Vec<String>,
) -> Vec<K> {
    read(what, answer, unread).map_or_else(Vec::new, |list| list.items)
}

/// Whether a freeze holds this Rollout now.
fn freezes_it(
    freeze: &Freeze,
    rollout: &Rollout,
    namespace_labels: &BTreeMap<String, String>,
    now: Timestamp,
) -> bool {
    let spec = &freeze.spec;
    let tier = rollout.status.as_ref().and_then(|status| status.tier);
    let selected = |selector: &Option<countersign_api::Selector>,
                    labels: &BTreeMap<String, String>| {
        selector
            .as_ref()
            .is_none_or(|selector| selector.matches(labels))
    };
    let lasts = spec.until.as_ref().is_none_or(|until| now < until.0);
    let of_tier = spec.tiers.is_empty() || tier.is_some_and(|tier| spec.tiers.contains(&tier));
    lasts
        && of_tier
        && selected(&spec.namespace_selector, namespace_labels)
        && selected(&spec.rollout_selector, rollout.labels())
}

#[cfg(test)]
pub mod tests {
    //! Saved objects that the tests of all commands share.

    use serde_json::json;

    use super::*;

    /// The moment at which the saved objects were read.
    pub fn now() -> Timestamp {
        "2026-03-01T12:10:00Z".parse().unwrap()
    }

    fn saved() -> Vec<serde_json::Value> {
        serde_saphyr::from_multiple(include_str!("saved_rollout.yaml")).unwrap()
    }

    fn saved_of<K: serde::de::DeserializeOwned>(kind: &str) -> Vec<K> {
        saved()
            .into_iter()
            .filter(|object| object["kind"] == kind)
            .map(|object| serde_json::from_value(object).unwrap())
            .collect()
    }

    /// A Rollout in the middle of a change that waits for people.
    pub fn waiting() -> View {
        View {
            rollout: saved_of("Rollout").remove(0),
            run: saved_of("RolloutRun").pop(),
            replica_sets: saved_of("ReplicaSet"),
            pods: saved_of("Pod"),
            sign_offs: vec![
                sign_off("bob", &["approvers"], Some("step-2"), "True", "Counts"),
                sign_off("alice", &["service-team"], None, "False", "ByAuthor"),
            ],
            freezes: saved_of("Freeze"),
            unread: Vec::new(),
        }
    }

    /// The same Rollout before the change.
    pub fn at_rest() -> Rollout {
        let mut rollout = waiting().rollout;
        let status = rollout.status.as_mut().unwrap();
        status.change = None;
        status.phase = countersign_api::Phase::Stable;
        status.message = "revision 6 serves".into();
        status.waiting_for = None;
        rollout
    }

    /// A sign-off for the saved change with the controller's answer.
    pub fn sign_off(
        who: &str,
        groups: &[&str],
        gate: Option<&str>,
        status: &str,
        reason: &str,
    ) -> SignOff {
        serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "SignOff",
            "metadata": { "name": format!("web-{who}"), "namespace": "shop", "creationTimestamp": "2026-03-01T12:09:00Z" },
            "spec": {
                "rollout": "web", "rolloutUid": "uid-web", "run": "web-1a2b3c4d5e-7",
                "digest": "1a2b3c4d5e6f7a8b".repeat(4), "decision": "Approve", "gate": gate,
                "approver": { "username": who, "groups": groups },
            },
            "status": { "conditions": [{
                "type": "Counts", "status": status, "reason": reason, "message": "reported by the controller",
                "lastTransitionTime": "2026-03-01T12:09:01Z",
            }] },
        }))
        .unwrap()
    }

    #[test]
    fn a_freeze_holds_what_it_selects_as_long_as_it_lasts() {
        let view = waiting();
        let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        let freeze = |spec: serde_json::Value| -> Freeze {
            let mut object = json!({ "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze", "metadata": { "name": "f" },
                "spec": { "reason": "r", "person": { "username": "dave" } } });
            for (key, value) in spec.as_object().unwrap() {
                object["spec"][key] = value.clone();
            }
            serde_json::from_value(object).unwrap()
        };
        for (spec, expected) in [
            (json!({}), true),
            (json!({ "tiers": ["high"] }), true),
            (json!({ "tiers": ["low"] }), false),
            (json!({ "until": "2026-03-01T12:10:01Z" }), true),
            (json!({ "until": "2026-03-01T12:10:00Z" }), false),
            (
                json!({ "namespaceSelector": { "matchLabels": { "team": "shop" } } }),
                true,
            ),
            (
                json!({ "namespaceSelector": { "matchLabels": { "team": "x" } } }),
                false,
            ),
            (
                json!({ "rolloutSelector": { "matchLabels": { "app": "x" } } }),
                false,
            ),
        ] {
            let freeze = freeze(spec.clone());
            assert_eq!(
                freezes_it(&freeze, &view.rollout, &labels, now()),
                expected,
                "{spec}"
            );
        }
    }
}
