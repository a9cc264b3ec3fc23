//! ReplicaSets, Jobs and testers' routes.

use countersign_api::PodTemplate;
use countersign_api::rollout::Outcome;
use countersign_cluster::{Kinds, wait_for};
use countersign_core::provenance::digest::template_digest;
use serde_json::{Value, json};

use super::{OPERATOR, agent, allow, at, editor, own_set, owner, refused, serving, tried};
use crate::identity::user::{APPLY, JSON, User, path};
use crate::smoke::checked;
use crate::support::{App, TIMEOUT, ended, merge, waits_for};

const WRITTEN: &[&str] = &["403", "are written by the Countersign operator alone"];
const DELETED: &[&str] = &["403", "are deleted by the Countersign operator alone"];

#[tokio::test]
async fn a_replica_set_of_a_rollout_is_written_by_nobody_else() {
    let (scene, _app) = serving("own-set").await;
    let set = own_set(&scene).await;
    let name = set["metadata"]["name"].as_str().unwrap();
    let all = at(&scene, "apps/v1", "replicasets");
    let own = format!("{all}/{name}");
    let mut template = set["spec"]["template"].clone();
    template["spec"]["containers"][0]["image"] = "example.org/other:v1".into();
    let metadata = |fields: Value| json!({ "metadata": fields });
    let unmarked =
        json!({ "app.kubernetes.io/managed-by": null, "countersign.dev/rollout-uid": null });
    // Of two policies that refuse it, the API server names one.
    let other_template = json!({ "spec": { "template": template } });
    let edits = [
        json!({ "spec": { "replicas": 20 } }),
        metadata(json!({ "annotations": { "countersign.dev/template": "{}" } })),
        metadata(json!({ "annotations": { "countersign.dev/template-digest": null } })),
        metadata(json!({ "annotations": null })),
        metadata(json!({ "labels": { "app": "other" } })),
        metadata(json!({ "labels": unmarked })),
        metadata(json!({ "ownerReferences": null })),
        metadata(json!({ "finalizers": ["example.org/keep"] })),
    ];
    let note = metadata(json!({ "annotations": { "note": "seen" } }));
    for user in [editor(&scene).await, agent(&scene).await] {
        for edit in &edits {
            refused(&user, "PATCH", &own, edit, WRITTEN).await;
        }
        refused(&user, "PATCH", &own, &other_template, &["403", "Rollout"]).await;
        for path in [&own, &all] {
            refused(&user, "DELETE", path, &Value::Null, DELETED).await;
        }
        tried(&user, "PATCH", &own, &note).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_plants_an_object_of_a_rollout() {
    let (scene, app) = serving("planted").await;
    let gateway = Kinds::GatewayApi;
    scene.cluster.install_kinds(gateway).await.unwrap();
    let owner = owner(&scene, &app).await;
    let marks = [
        json!({ "labels": { "app.kubernetes.io/managed-by": "countersign" } }),
        json!({ "labels": { "countersign.dev/rollout-uid": owner["uid"] } }),
        json!({ "ownerReferences": [owner] }),
    ];
    let labels = json!({ "app": "planted" });
    let container = json!({ "name": "app", "image": "example.org/other:v1" });
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "planted" },
        "spec": { "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels }, "spec": { "containers": [container] },
        } },
    });
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "planted" },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [container] } } },
    });
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "planted" },
        "spec": { "rules": [{ "backendRefs": [{ "name": "shop", "port": 80 }] }] },
    });
    let objects = [
        ("apps/v1", "replicasets", set),
        ("batch/v1", "jobs", job.clone()),
        ("gateway.networking.k8s.io/v1", "httproutes", route),
    ];
    for user in [editor(&scene).await, agent(&scene).await] {
        let group = "gateway.networking.k8s.io";
        allow(&scene, &user, group, "httproutes", &["create"]).await;
        for (version, resource, object) in &objects {
            let all = at(&scene, version, resource);
            tried(&user, "POST", &all, object).await.unwrap();
            for mark in &marks {
                let mut marked = object.clone();
                merge(&mut marked["metadata"], mark);
                refused(&user, "POST", &all, &marked, WRITTEN).await;
            }
        }
    }
    // By way of a CronJob, whose controller would create it.
    let controller = "system:serviceaccount:kube-system:cronjob-controller";
    let accounts = ["system:serviceaccounts:kube-system".to_owned()];
    let controller = User::impersonated(&scene, controller, &accounts).await;
    let jobs = at(&scene, "batch/v1", "jobs");
    for mark in &marks {
        let mut marked = job.clone();
        merge(&mut marked["metadata"], mark);
        refused(&controller, "POST", &jobs, &marked, WRITTEN).await;
    }
}

#[tokio::test]
async fn the_job_of_a_smoke_check_is_neither_ended_nor_deleted() {
    let (scene, app) = serving("own-job").await;
    let next = checked(&app.version("v2"), &json!({}));
    scene.apply(&next).await;
    let awaited = |rollout: &countersign_api::Rollout| waits_for(rollout, "AwaitingSmoke");
    let what = "the smoke check is waited for";
    scene.until(&next, what, awaited).await;
    let (admin, jobs) = (User::admin(&scene), at(&scene, "batch/v1", "jobs"));
    let poll = async || {
        let all = admin.get(&jobs).await.unwrap();
        let name = all["items"][0]["metadata"]["name"].as_str();
        name.map(ToOwned::to_owned).ok_or("there is no Job")
    };
    let name = wait_for("it has a Job", TIMEOUT, poll).await.unwrap();
    let own = format!("{jobs}/{name}");
    let suspended = json!({ "spec": { "suspend": true } });
    let unmarked = json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } } });
    for user in [editor(&scene).await, agent(&scene).await] {
        for edit in [&suspended, &unmarked] {
            refused(&user, "PATCH", &own, edit, WRITTEN).await;
        }
        refused(&user, "DELETE", &own, &Value::Null, DELETED).await;
    }
}

#[tokio::test]
async fn a_route_for_testers_is_written_by_nobody_else() {
    let (scene, app) = serving("own-route").await;
    let gateway = Kinds::GatewayApi;
    scene.cluster.install_kinds(gateway).await.unwrap();
    let (version, owner) = ("gateway.networking.k8s.io/v1", owner(&scene, &app).await);
    let routes = at(&scene, version, "httproutes");
    let testers = json!({
        "apiVersion": version, "kind": "HTTPRoute",
        "metadata": {
            "name": "shop-testers", "ownerReferences": [owner],
            "labels": { "app.kubernetes.io/managed-by": "countersign", "countersign.dev/rollout-uid": owner["uid"] },
        },
        "spec": { "rules": [{ "backendRefs": [{ "name": "shop", "port": 80 }] }] },
    });
    let operator = User::impersonated(&scene, OPERATOR, &[]).await;
    operator.create(&routes, &testers).await.unwrap();
    let own = format!("{routes}/shop-testers");
    let everybody = json!({ "spec": { "hostnames": ["shop.example.org"] } });
    let user = editor(&scene).await;
    let (group, verbs) = ("gateway.networking.k8s.io", ["patch", "delete"]);
    allow(&scene, &user, group, "httproutes", &verbs).await;
    refused(&user, "PATCH", &own, &everybody, WRITTEN).await;
    refused(&user, "DELETE", &own, &Value::Null, DELETED).await;
    tried(&operator, "PATCH", &own, &everybody).await.unwrap();
    tried(&operator, "DELETE", &own, &Value::Null)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_deleted_rollout_left_behind_may_be_deleted_but_not_edited() {
    let (scene, _app) = serving("left-behind").await;
    let (admin, user) = (User::admin(&scene), editor(&scene).await);
    let orphan = json!({ "propagationPolicy": "Orphan" });
    let rollout = path(&scene, "rollouts/shop");
    admin.send("DELETE", &rollout, JSON, &orphan).await.unwrap();
    let poll = async || {
        let set = own_set(&scene).await;
        let owners = set["metadata"]["ownerReferences"].clone();
        owners.is_null().then_some(set).ok_or(owners)
    };
    let set = wait_for("it has no owner", TIMEOUT, poll).await.unwrap();
    let name = set["metadata"]["name"].as_str().unwrap();
    let own = at(&scene, "apps/v1", &format!("replicasets/{name}"));
    let mut template = set["spec"]["template"].clone();
    template["spec"]["containers"][0]["image"] = "example.org/other:v1".into();
    let other = json!({ "spec": { "template": template } });
    // The Rollout may be a parameter of another policy that refuses it for a moment longer.
    refused(&user, "PATCH", &own, &other, &["403", "Rollout"]).await;
    tried(&user, "DELETE", &own, &Value::Null).await.unwrap();
}

#[tokio::test]
async fn kubernetes_own_controllers_collect_what_a_rollout_owns() {
    let (scene, _app) = serving("collected").await;
    let set = own_set(&scene).await;
    let name = set["metadata"]["name"].as_str().unwrap();
    let own = at(&scene, "apps/v1", &format!("replicasets/{name}"));
    let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
    let accounts = ["system:serviceaccounts:kube-system".to_owned()];
    let collector = User::impersonated(&scene, collector, &accounts).await;
    let orphaned = json!({ "metadata": { "ownerReferences": null } });
    tried(&collector, "PATCH", &own, &orphaned).await.unwrap();
    tried(&collector, "DELETE", &own, &Value::Null)
        .await
        .unwrap();
}

/// A user of the service team scales, deletes a pod, restarts a Deployment of the team's own, and deploys.
#[tokio::test]
async fn ordinary_work_continues() {
    let (scene, app) = serving("ordinary").await;
    let _load = scene.load(&app, 100).await;
    let user = editor(&scene).await;
    let scale = json!({ "spec": { "replicas": 5 } });
    let own = path(&scene, "rollouts/shop/scale");
    user.merge(&own, &scale).await.unwrap();
    let larger = |rollout: &countersign_api::Rollout| {
        let status = rollout.status.as_ref();
        status.is_some_and(|status| status.available_replicas == 5)
    };
    scene.until(&app, "it is larger", larger).await;

    let pods = at(&scene, "v1", "pods");
    let pod = user.get(&pods).await.unwrap()["items"][0]["metadata"].clone();
    let deleted = format!("{pods}/{}", pod["name"].as_str().unwrap());
    user.delete(&deleted).await.unwrap();
    let poll = async || {
        let now = user.get(&pods).await.unwrap();
        let items = now["items"].as_array().unwrap();
        let is_left = items.iter().any(|it| it["metadata"]["uid"] == pod["uid"]);
        (!is_left && items.len() == 5)
            .then_some(())
            .ok_or(format!("{} pods", items.len()))
    };
    wait_for("the pod is replaced", TIMEOUT, poll)
        .await
        .unwrap();

    let template = App::new("tool").manifest()["spec"]["template"].clone();
    let tool = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "tool" },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "tool" } }, "template": template },
    });
    let deployments = at(&scene, "apps/v1", "deployments");
    user.create(&deployments, &tool).await.unwrap();
    let tool = format!("{deployments}/tool");
    let now = json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" });
    let restart = json!({ "spec": { "template": { "metadata": { "annotations": now } } } });
    user.merge(&tool, &restart).await.unwrap();
    let poll = async || {
        let status = user.get(&tool).await.unwrap()["status"].clone();
        let done = status["observedGeneration"] == 2 && status["updatedReplicas"] == 1;
        (done && status["availableReplicas"] == 1 && status["replicas"] == 1)
            .then_some(())
            .ok_or(status)
    };
    wait_for("it is restarted", TIMEOUT, poll).await.unwrap();

    let apply = path(&scene, "rollouts/shop?fieldManager=service-team&force=true");
    let next = app.version("v2").manifest();
    user.send("PATCH", &apply, APPLY, &next).await.unwrap();
    assert!(ended(&scene.outcome(&app).await, Outcome::Promoted));
}

/// The API server takes any kind beside a uid, and the policy asks for the kind Rollout.
#[tokio::test]
async fn a_replica_set_that_claims_the_uid_under_another_kind_is_never_taken() {
    let (scene, app) = serving("claimed").await;
    let next = app.version("v2");
    let template = PodTemplate(next.manifest()["spec"]["template"].clone());
    let annotations = json!({
        "countersign.dev/template": template.0.to_string(),
        "countersign.dev/template-digest": template_digest(&template),
    });
    let uid = owner(&scene, &app).await["uid"].clone();
    let claim = json!({ "apiVersion": "example.org/v1", "kind": "X", "name": "x", "uid": uid, "controller": true });
    let mut pods = template.0.clone();
    pods["metadata"]["labels"] = json!({ "app": "shop", "plant": "x" });
    let planted = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": "planted", "ownerReferences": [claim], "annotations": annotations,
            "labels": { "app": "shop", "pod-template-hash": "planted" },
        },
        "spec": { "replicas": 0, "selector": { "matchLabels": { "plant": "x" } }, "template": pods },
    });
    let sets = at(&scene, "apps/v1", "replicasets");
    editor(&scene).await.create(&sets, &planted).await.unwrap();
    scene.apply(&next).await;
    let change_of = |rollout: &countersign_api::Rollout| rollout.status.as_ref()?.change.clone();
    let begins = |rollout: &countersign_api::Rollout| change_of(rollout).is_some();
    let rollout = scene.until(&next, "the change begins", begins).await;
    assert_ne!(change_of(&rollout).unwrap().pod_template_hash, "planted");
    let left = User::admin(&scene).get(&format!("{sets}/planted")).await;
    assert_eq!(
        left.unwrap()["spec"]["replicas"],
        0,
        "it was there to be taken"
    );
}
