//! Statuses of what a Rollout owns, of policies, templates and Freezes. No built-in role may write them; who may,
//! reports nothing of a Rollout, and nothing in the operator's name.

use countersign_cluster::wait_for;
use serde_json::{Value, json};

use super::{allow, at, editor, own_set, refused, serving, tried};
use crate::identity::user::{User, until_enforced};
use crate::smoke::checked;
use crate::support::{Scene, TIMEOUT, waits_for};

#[tokio::test]
async fn nobody_else_reports_how_a_rollout_is() {
    let (scene, app) = serving("own-status").await;
    let (admin, user) = (User::admin(&scene), editor(&scene).await);
    for (group, resource) in [
        ("apps", "replicasets/status"),
        ("batch", "jobs/status"),
        ("", "pods/status"),
    ] {
        allow(&scene, &user, group, resource, &["patch"]).await;
    }
    let set = own_set(&scene).await;
    let name = set["metadata"]["name"].as_str().unwrap();
    let set = at(&scene, "apps/v1", &format!("replicasets/{name}/status"));
    let all = json!({
        "replicas": 20, "fullyLabeledReplicas": 20, "readyReplicas": 20, "availableReplicas": 20,
    });
    let ready = json!({ "status": all });
    let template = json!({ "metadata": { "annotations": { "countersign.dev/template": "{}" } } });
    let words = [
        "403",
        "replicasets/status of a Rollout are written by Kubernetes' own controllers alone",
    ];
    for edit in [&ready, &template] {
        refused(&user, "PATCH", &set, edit, &words).await;
    }
    let controller = "system:serviceaccount:kube-system:generic-garbage-collector";
    let accounts = ["system:serviceaccounts:kube-system".to_owned()];
    let controller = User::impersonated(&scene, controller, &accounts).await;
    tried(&controller, "PATCH", &set, &ready).await.unwrap();

    let pods = at(&scene, "v1", "pods");
    let pod = admin.get(&pods).await.unwrap()["items"][0].clone();
    let own = format!(
        "{pods}/{}/status",
        pod["metadata"]["name"].as_str().unwrap()
    );
    let mut conditions = pod["status"]["conditions"].as_array().unwrap().clone();
    let gate = json!({ "type": "example.org/gate", "status": "True" });
    let gated = [&conditions[..], &[gate]].concat();
    let named =
        |number: i32| json!({ "type": format!("example.org/gate-{number}"), "status": "True" });
    let condition = conditions.iter_mut().find(|it| it["type"] == "Ready");
    condition.unwrap()["status"] = "False".into();
    let words = ["403", "is ready, and its address, are reported by its node"];
    // Many conditions do not hide one.
    let many = [(0..65).map(named).collect(), conditions.clone()].concat();
    for status in [
        json!({ "conditions": conditions }),
        json!({ "conditions": many }),
        json!({ "podIP": "192.0.2.1", "podIPs": [{ "ip": "192.0.2.1" }] }),
    ] {
        let edit = json!({ "status": status });
        refused(&user, "PATCH", &own, &edit, &words).await;
    }
    let gated = json!({ "status": { "conditions": gated } });
    tried(&user, "PATCH", &own, &gated).await.unwrap();

    let next = checked(&app.version("v2"), &json!({}));
    scene.apply(&next).await;
    let awaited = |rollout: &countersign_api::Rollout| waits_for(rollout, "AwaitingSmoke");
    let what = "the smoke check is waited for";
    scene.until(&next, what, awaited).await;
    let jobs = at(&scene, "batch/v1", "jobs");
    let poll = async || {
        let all: Value = admin.get(&jobs).await.unwrap();
        let name = all["items"][0]["metadata"]["name"].as_str();
        name.map(ToOwned::to_owned).ok_or("there is no Job")
    };
    let name = wait_for("it has a Job", TIMEOUT, poll).await.unwrap();
    let ended = json!({ "status": { "failed": 3 } });
    let words = ["403", "jobs/status of a Rollout are written by Kubernetes"];
    refused(
        &user,
        "PATCH",
        &format!("{jobs}/{name}/status"),
        &ended,
        &words,
    )
    .await;
}

#[tokio::test]
async fn nobody_else_writes_the_status_of_a_policy_a_template_or_a_freeze() {
    let scene = Scene::new("forged-status").await;
    until_enforced(&scene).await;
    let admin = User::admin(&scene);
    let role = format!("everything-of-{}", scene.namespace);
    let everything =
        json!([{ "apiGroups": ["countersign.dev"], "resources": ["*"], "verbs": ["*"] }]);
    let everything = json!({ "metadata": { "name": role }, "rules": everything });
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    admin.create(roles, &everything).await.unwrap();
    scene.grant_everywhere(&role, &role).await;
    let user = User::impersonated(&scene, &role, &[]).await;

    scene.policy(json!({})).await;
    let freezes = "/apis/countersign.dev/v1alpha1/freezes";
    let freeze = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze",
        "metadata": { "name": scene.namespace },
        // Kubernetes before 1.36 does not write the person.
        "spec": { "reason": "a test", "until": "2026-01-01T00:00:00Z", "person": { "username": "admin" } },
    });
    admin.create(freezes, &freeze).await.unwrap();
    let template = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AnalysisTemplate",
        "metadata": { "name": scene.namespace },
        "spec": { "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }] },
    });
    let templates = at(&scene, "countersign.dev/v1alpha1", "analysistemplates");
    admin.create(&templates, &template).await.unwrap();
    let forged = json!({ "status": { "conditions": [{
        "type": "Accepted", "status": "True", "reason": "Invented", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }] } });
    let label = json!({ "metadata": { "labels": { "seen": "yes" } } });
    let policies = "/apis/countersign.dev/v1alpha1/rolloutpolicies";
    for (resource, all) in [
        ("rolloutpolicies", policies),
        ("freezes", freezes),
        ("analysistemplates", templates.as_str()),
    ] {
        let own = format!("{all}/{}", scene.namespace);
        tried(&user, "PATCH", &own, &label).await.unwrap();
        let words = format!("{resource}/status are written by the Countersign operator alone");
        let status = format!("{own}/status");
        refused(&user, "PATCH", &status, &forged, &["403", words.as_str()]).await;
    }
    scene.remove_policy().await;
    let freeze = format!("{freezes}/{}", scene.namespace);
    admin.delete(&freeze).await.unwrap();
}
