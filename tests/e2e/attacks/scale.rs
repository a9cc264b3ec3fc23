//! The number of pods of a ReplicaSet, which decides how much a revision serves where there are no routes.

use countersign_cluster::wait_for;
use serde_json::{Value, json};

use super::{agent, at, editor, own_set, refused, serving, tried};
use crate::identity::user::{JSON, User, path};
use crate::support::{Scene, TIMEOUT};

const SCALED: &[&str] = &["403", "are scaled by the Countersign operator alone"];

/// The path of the scale of a scene's only ReplicaSet.
async fn own_scale(scene: &Scene) -> String {
    let set = own_set(scene).await;
    let name = set["metadata"]["name"].as_str().unwrap();
    at(scene, "apps/v1", &format!("replicasets/{name}/scale"))
}

#[tokio::test]
async fn a_replica_set_of_a_rollout_is_scaled_by_nobody_else() {
    let (scene, _app) = serving("own-scale").await;
    let own = own_scale(&scene).await;
    let more = json!({ "spec": { "replicas": 20 } });
    for user in [editor(&scene).await, agent(&scene).await] {
        refused(&user, "PATCH", &own, &more, SCALED).await;
    }
    // An autoscaler scales what anybody points it at.
    let mut scale = User::admin(&scene).get(&own).await.unwrap();
    scale["spec"]["replicas"] = 20.into();
    let metadata = scale["metadata"].as_object_mut().unwrap();
    metadata.remove("resourceVersion");
    let accounts = ["system:serviceaccounts:kube-system".to_owned()];
    let autoscaler = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
    let autoscaler = User::impersonated(&scene, autoscaler, &accounts).await;
    refused(&autoscaler, "PUT", &own, &scale, SCALED).await;
}

#[tokio::test]
async fn what_is_of_no_rollout_is_scaled_by_its_team() {
    let (scene, _app) = serving("other-scale").await;
    let user = editor(&scene).await;
    let labels = json!({ "app": "other", "pod-template-hash": "other" });
    let container = json!({ "name": "app", "image": "example.org/other:v1" });
    let other = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "other" },
        "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels }, "spec": { "containers": [container] },
        } },
    });
    let sets = at(&scene, "apps/v1", "replicasets");
    let own = own_scale(&scene).await;
    user.create(&sets, &other).await.unwrap();
    let (scale, more) = (
        format!("{sets}/other/scale"),
        json!({ "spec": { "replicas": 1 } }),
    );
    tried(&user, "PATCH", &scale, &more).await.unwrap();

    // What a deleted Rollout left behind. The API server's policies observe the deletion a moment later.
    refused(&user, "PATCH", &own, &more, SCALED).await;
    let orphan = json!({ "propagationPolicy": "Orphan" });
    let rollout = path(&scene, "rollouts/shop");
    User::admin(&scene)
        .send("DELETE", &rollout, JSON, &orphan)
        .await
        .unwrap();
    let poll = async || tried(&user, "PATCH", &own, &more).await;
    wait_for("it may be scaled", TIMEOUT, poll).await.unwrap();
    tried(&user, "DELETE", &format!("{sets}/other"), &Value::Null)
        .await
        .unwrap();
}
