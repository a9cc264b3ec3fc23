//! The operator's pod under the restricted pod security standard, which its namespace enforces.

use countersign_cluster::wait_for;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Scene, TIMEOUT, merge};

const SYSTEM: &str = "countersign-system";

/// A pod as the chart's Deployment had it made.
async fn own_pod(scene: &Scene) -> Pod {
    let pods: Api<Pod> = Api::namespaced(scene.cluster.client(), SYSTEM);
    let own = ListParams::default().labels("app.kubernetes.io/name=countersign");
    let poll = async || pods.list(&own).await.unwrap().items.pop();
    wait_for("the chart's Deployment has a pod", TIMEOUT, poll)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_pod_of_the_chart_is_admitted_where_restricted_is_enforced_and_none_with_a_restriction_lifted()
 {
    let scene = Scene::new("pod-security").await;
    let namespaces: Api<Namespace> = Api::all(scene.cluster.client());
    let labels = namespaces
        .get(SYSTEM)
        .await
        .unwrap()
        .metadata
        .labels
        .unwrap();
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");

    let found = own_pod(&scene).await;
    let owner = &found.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(owner.kind, "ReplicaSet", "the Deployment made it");
    let spec = json!(found.spec.unwrap());
    let container = &spec["containers"][0];
    // Beyond the standard's requirements.
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(spec["securityContext"]["runAsUser"], 65532);
    assert!(
        container["resources"]["limits"]["memory"].is_string(),
        "{container}"
    );
    let mounted = container["volumeMounts"].as_array().unwrap().iter();
    let writable = mounted.filter(|it| it["readOnly"] != true);
    assert_eq!(writable.collect::<Vec<_>>(), Vec::<&Value>::new());

    let pods: Api<Pod> = Api::namespaced(scene.cluster.client(), SYSTEM);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let ask = async |lifted: &Value| {
        let mut spec = spec.clone();
        merge(&mut spec, lifted);
        if let Some(context) = lifted.get("container") {
            merge(&mut spec["containers"][0]["securityContext"], context);
            spec.as_object_mut().unwrap().remove("container");
        }
        // It is scheduled and has its token already.
        spec["nodeName"] = Value::Null;
        let pod = json!({ "metadata": { "generateName": "test-" }, "spec": spec });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        pods.create(&dry, &pod)
            .await
            .map_err(|error| error.to_string())
    };
    ask(&json!({})).await.unwrap();
    let mut volumes = spec["volumes"].clone();
    let host = json!({ "name": "host", "hostPath": { "path": "/" } });
    volumes.as_array_mut().unwrap().push(host);
    for lifted in [
        json!({ "volumes": volumes }),
        json!({ "hostNetwork": true }),
        json!({ "hostPID": true }),
        json!({ "hostIPC": true }),
        json!({ "securityContext": { "runAsNonRoot": false } }),
        json!({ "securityContext": { "runAsUser": 0 } }),
        json!({ "securityContext": { "seccompProfile": { "type": "Unconfined" } } }),
        json!({ "securityContext": { "seccompProfile": null } }),
        json!({ "container": { "allowPrivilegeEscalation": true } }),
        json!({ "container": { "capabilities": { "drop": [] } } }),
        json!({ "container": { "capabilities": { "add": ["NET_ADMIN"] } } }),
    ] {
        let refusal = ask(&lifted).await.expect_err(&lifted.to_string());
        let why = "violates PodSecurity \"restricted";
        assert!(refusal.contains(why), "{lifted}: {refusal}");
    }
}
