//! The rights of the chart's roles.

use countersign_cluster::wait_for;
use serde_json::json;

use super::Pending;
use super::user::{JSON, User, assert_refused, path};
use crate::support::{App, Scene, TIMEOUT};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const KINDS: &[&str] = &[
    "rollouts",
    "rolloutpolicies",
    "analysistemplates",
    "rolloutruns",
    "signoffs",
    "interventions",
    "freezes",
];
const STATUS: &[&str] = &[
    "rollouts/status",
    "signoffs/status",
    "interventions/status",
    "rolloutpolicies/status",
    "freezes/status",
    "analysistemplates/status",
];

/// All verbs on the API group's resources.
fn all() -> Vec<(&'static str, &'static str)> {
    let of = |verbs: &[&'static str], resources: &[&'static str]| -> Vec<_> {
        resources
            .iter()
            .flat_map(|resource| verbs.iter().map(move |verb| (*verb, *resource)))
            .collect()
    };
    let decide = [
        "approve",
        "breakglass",
        "abort",
        "retry",
        "promote",
        "pause",
        "resume",
    ];
    [
        of(READ, KINDS),
        of(WRITE, KINDS),
        of(&["update", "patch"], STATUS),
        of(&decide, &["rollouts"]),
        of(&["update", "patch"], &["rollouts/scale"]),
    ]
    .concat()
}

/// The platform team owns the inputs of the analysis.
fn is_policy(resource: &str) -> bool {
    ["rolloutpolicies", "analysistemplates"].contains(&resource)
}

/// Whether a role allows it, beside reading.
fn allows(role: &str, verb: &str, resource: &str) -> bool {
    let service_team = matches!(
        (verb, resource),
        (
            "create"
                | "update"
                | "patch"
                | "delete"
                | "deletecollection"
                | "abort"
                | "retry"
                | "pause"
                | "resume",
            "rollouts"
        ) | ("update" | "patch", "rollouts/scale")
            | ("create", "interventions")
    );
    match role {
        "edit" | "admin" => service_team,
        "countersign-approver" => {
            matches!(
                (verb, resource),
                ("create", "signoffs") | ("approve", "rollouts")
            )
        }
        "countersign-on-call" => matches!(
            (verb, resource),
            ("create", "signoffs" | "interventions")
                | (
                    "breakglass" | "abort" | "retry" | "promote" | "pause" | "resume",
                    "rollouts"
                )
                | ("create" | "update" | "patch" | "delete", "freezes")
        ),
        "countersign-policy-owner" => is_policy(resource) && WRITE.contains(&verb),
        _ => false,
    }
}

#[tokio::test]
async fn each_role_allows_its_own_work_and_no_more() {
    let scene = Scene::new("roles").await;
    for role in [
        "view",
        "edit",
        "admin",
        "countersign-approver",
        "countersign-on-call",
        "countersign-policy-owner",
    ] {
        let user = format!("{role}-of-{}", scene.namespace);
        scene.grant(&user, role).await;
        for (verb, resource) in all() {
            let reads =
                READ.contains(&verb) && (role != "countersign-policy-owner" || is_policy(resource));
            let expected = reads || allows(role, verb, resource);
            let may = scene.may(&user, verb, resource).await;
            assert_eq!(may, expected, "{role}: {verb} {resource}");
        }
    }
}

#[tokio::test]
async fn who_rules_a_namespace_still_cannot_make_themselves_an_approver() {
    let scene = Scene::new("escalation").await;
    let owner = format!("owner-of-{}", scene.namespace);
    scene.grant(&owner, "admin").await;
    let owner = User::impersonated(&scene, &owner, &[]).await;
    let rbac = format!(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/{}",
        scene.namespace
    );
    let role = json!({
        "metadata": { "name": "mine" },
        "rules": [{ "apiGroups": ["countersign.dev"], "resources": ["rollouts"], "verbs": ["approve"] }],
    });
    let made = owner.create(&format!("{rbac}/roles"), &role).await;
    assert_refused(&made, &["403", "not currently held"]);
    let binding = json!({
        "metadata": { "name": "mine" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "countersign-approver" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": owner.name }],
    });
    let bound = owner
        .create(&format!("{rbac}/rolebindings"), &binding)
        .await;
    assert_refused(&bound, &["403", "not currently held"]);
}

#[tokio::test]
async fn only_the_operator_writes_status_and_records_though_a_role_allows_more() {
    let pending = Pending::new("word").await;
    let scene = &pending.scene;
    let user = format!("everything-of-{}", scene.namespace);
    let everything =
        json!([{ "apiGroups": ["countersign.dev"], "resources": ["*"], "verbs": ["*"] }]);
    scene.grant_rules(&user, everything).await;
    let user = User::impersonated(scene, &user, &[]).await;
    pending.sign(&user, "mine", json!({})).await.unwrap();
    let pause = json!({ "action": "Pause" });
    pending.intervene(&user, "mine", pause).await.unwrap();

    let words = ["403", "written by the Countersign operator alone"];
    let counts = |kind: &str| {
        json!({ "status": { "conditions": [{
            "type": kind, "status": "True", "reason": "Invented", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }] } })
    };
    for (resource, patch) in [
        (
            "rollouts/shop/status",
            json!({ "status": { "message": "all is well" } }),
        ),
        ("signoffs/mine/status", counts("Counts")),
        ("interventions/mine/status", counts("Applied")),
    ] {
        let answer = user.merge(&path(scene, resource), &patch).await;
        assert_refused(&answer, &words);
    }
    let run = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun", "metadata": { "name": "mine" },
        "spec": { "rollout": "shop", "digest": "a", "podTemplateHash": "a", "revision": 1 },
    });
    assert_refused(
        &user.create(&path(scene, "rolloutruns"), &run).await,
        &words,
    );
    let record = format!("rolloutruns/{}", pending.change["run"].as_str().unwrap());
    let record = path(scene, &record);
    let better = json!({ "spec": { "digest": "0".repeat(64) } });
    assert_refused(&user.merge(&record, &better).await, &words);
    // The RolloutRun is listed by this label, and the garbage collector would delete it for an owner that is gone.
    let lost = json!({ "metadata": { "labels": { "countersign.dev/rollout-uid": null } } });
    assert_refused(&user.merge(&record, &lost).await, &words);
    // From this time on its days would be counted.
    let stamp = json!({ "countersign.dev/rollout-deleted-at": "2026-01-01T00:00:00Z" });
    let aged = json!({ "metadata": { "annotations": stamp } });
    assert_refused(&user.merge(&record, &aged).await, &words);
    let gone = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone" });
    let adopted = json!({ "metadata": { "ownerReferences": [gone] } });
    assert_refused(&user.merge(&record, &adopted).await, &words);
    let words = ["403", "deleted by the Countersign operator alone"];
    assert_refused(&user.delete(&record).await, &words);
    assert_refused(&user.delete(&path(scene, "rolloutruns")).await, &words);
    // What leaves it as it was passes.
    let label = json!({ "metadata": { "labels": { "seen": "yes" } } });
    user.merge(&record, &label).await.unwrap();
}

#[tokio::test]
async fn records_go_with_their_namespace_and_outlive_their_rollout() {
    let pending = Pending::new("records-go").await;
    let scene = &pending.scene;
    let records = path(scene, "rolloutruns");
    let record = format!("{records}/{}", pending.change["run"].as_str().unwrap());
    let everything =
        json!([{ "apiGroups": ["countersign.dev"], "resources": ["*"], "verbs": ["*"] }]);
    let accounts = ["system:serviceaccounts:kube-system".to_owned()];
    let collector = format!("collector-of-{}", scene.namespace);
    // A cluster's controllers have accounts of their own, or all the same user.
    for (name, groups) in [
        (&*collector, &accounts[..]),
        ("system:kube-controller-manager", &[]),
    ] {
        scene.grant_rules(name, everything.clone()).await;
        let collector = User::impersonated(scene, name, groups).await;
        let orphaned = json!({ "metadata": { "ownerReferences": null } });
        for (patch, allowed) in [
            (orphaned, true),
            (json!({ "spec": { "digest": "0".repeat(64) } }), false),
        ] {
            let answer = collector
                .merge(&(record.clone() + "?dryRun=All"), &patch)
                .await;
            assert_eq!(answer.is_ok(), allowed, "{name}: {patch}: {answer:?}");
        }
        let dry = json!({ "dryRun": ["All"] });
        for own in [&record, &records] {
            let answer = collector.send("DELETE", own, JSON, &dry).await;
            answer.unwrap();
        }
    }
    User::admin(scene)
        .delete(&path(scene, "rollouts/shop"))
        .await
        .unwrap();
    let poll = async || {
        let rollout = scene.rollouts().get_opt(&pending.app.name).await;
        let gone = rollout.is_ok_and(|it| it.is_none());
        gone.then_some(())
    };
    wait_for("the Rollout is gone", TIMEOUT, poll)
        .await
        .unwrap();
    let left = scene.records(&pending.app).await;
    let mut owners = left.iter().map(|it| &it.metadata.owner_references);
    assert!(!left.is_empty() && owners.all(Option::is_none), "{left:?}");
}

#[tokio::test]
async fn the_operator_may_do_what_it_does_with_our_resources_and_no_more() {
    let scene = Scene::new("operator").await;
    let operator = "system:serviceaccount:countersign-system:countersign";
    for (verb, resource) in all() {
        let expected = match resource {
            // Patched for their finalizer alone.
            "rollouts" => READ.contains(&verb) || verb == "patch",
            "rolloutpolicies" | "freezes" => ["list", "watch"].contains(&verb),
            // They are deleted with the RolloutRun of their change.
            "signoffs" | "interventions" => ["list", "watch", "delete"].contains(&verb),
            "analysistemplates" => READ.contains(&verb),
            "rolloutruns" => ["list", "watch", "create", "patch", "delete"].contains(&verb),
            // Replaced.
            "rollouts/status" => verb == "update",
            other => STATUS.contains(&other) && verb == "patch",
        };
        let may = scene.may(operator, verb, resource).await;
        assert_eq!(may, expected, "{verb} {resource}");
    }
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/countersign";
    let role = User::admin(&scene).get(role).await.unwrap();
    let rules = role["rules"].as_array().unwrap().iter();
    let rules = rules.filter(|rule| rule["verbs"].as_array().unwrap().contains(&json!("get")));
    let read_by_name: Vec<_> = rules
        .filter(|rule| rule["resourceNames"].is_null())
        .flat_map(|rule| rule["resources"].as_array().unwrap())
        .collect();
    assert_eq!(
        read_by_name,
        [
            "rollouts",
            "analysistemplates",
            "deployments",
            "services",
            "httproutes",
            "grpcroutes",
            "tlsroutes",
            "tcproutes",
            "virtualservices",
            "destinationrules",
        ]
    );
    // Only the rights on Jobs and pods that smoke checks need: no logs, no updates, no exec.
    for (group, resource, verbs) in [
        ("batch", "jobs", &["list", "watch", "create", "delete"][..]),
        ("", "pods", &["list"]),
        ("apps", "deployments", READ),
        ("apps", "deployments/scale", &["patch"]),
        ("", "pods/log", &[]),
        ("", "pods/exec", &[]),
        ("", "secrets", &[]),
    ] {
        for verb in READ
            .iter()
            .copied()
            .chain(["create", "update", "patch", "delete"])
        {
            let may = scene.may_of(group, operator, verb, resource).await;
            assert_eq!(may, verbs.contains(&verb), "{verb} {resource}");
        }
    }
}

#[tokio::test]
async fn a_status_that_this_build_cannot_read_begins_its_change_again() {
    let scene = Scene::new("unreadable-status").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let (next, begun) = scene.baking(&app).await;
    let before = begun.status.unwrap();
    // The API server accepts this UTC offset, which the operator cannot parse, like a newer operator's
    // values.
    let operator = "system:serviceaccount:countersign-system:countersign";
    let operator = User::impersonated(&scene, operator, &[]).await;
    let shop = path(&scene, "rollouts/shop");
    // The operator may write the status in between.
    let poll = async || {
        let mut rollout = operator.get(&shop).await?;
        rollout["status"]["change"]["startedAt"] = json!("2026-11-26T22:00:00+99:00");
        let status = format!("{shop}/status");
        operator.send("PUT", &status, JSON, &rollout).await
    };
    wait_for("the status is replaced", TIMEOUT, poll)
        .await
        .unwrap();
    let after = scene
        .until(&next, "the change has begun again", |rollout| {
            let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
            change.is_some_and(|change| change.step == 1)
        })
        .await;
    let after = after.status.unwrap();
    assert_eq!(after.attempts, before.attempts + 1);
    assert_eq!(after.stable, before.stable);
    let transition = &after.change.unwrap().transitions[0];
    let parts = ["begins again", "status.change", "time zone offset"];
    assert!(
        parts.iter().all(|part| transition.message.contains(part)),
        "{transition:?}"
    );
}
