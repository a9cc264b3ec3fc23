//! Authenticated metrics, if the chart requires that.

use std::collections::BTreeSet;
use std::process::Command;

use countersign_cluster::wait_for;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::replica::{Replica, account, bind};
use super::{NAME, SYSTEM, granted};
use crate::support::{Permission, Scene, TIMEOUT};

/// The chart's output with these options.
fn rendered(options: &[&str]) -> Vec<Value> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/countersign");
    let command = [
        "template",
        NAME,
        chart,
        "--namespace",
        SYSTEM,
        "--set=crds.enabled=false",
    ];
    let output = Command::new("helm")
        .args(command)
        .args(options)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rendered = String::from_utf8(output.stdout).unwrap();
    let objects = rendered
        .split("\n---")
        .map(|it| serde_saphyr::from_str(it).unwrap());
    objects.collect()
}

fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects
        .iter()
        .find(|it| it["kind"] == kind && it["metadata"]["name"] == name)
}

/// The rules of a `ClusterRole` of the chart with required tokens.
fn rules(role: &str) -> Vec<PolicyRule> {
    let objects = rendered(&["--set=metrics.auth=true"]);
    let role = object(&objects, "ClusterRole", role).unwrap();
    serde_json::from_value(role["rules"].clone()).unwrap()
}

#[test]
fn the_chart_requires_a_token_if_set_and_shows_prometheus_where_one_is() {
    const OPTION: &str = "COUNTERSIGN_METRICS_AUTH";
    let open = rendered(&["--set=podMonitor.enabled=true"]);
    assert!(object(&open, "ClusterRole", "countersign-metrics-reader").is_none());
    let text = json!(open).to_string();
    assert!(
        !text.contains("reviews") && !text.contains(OPTION) && !text.contains("credentials\":")
    );
    let guarded = rendered(&[
        "--set=podMonitor.enabled=true",
        "--set=metrics.auth=true",
        "--set=podMonitor.tokenSecret.name=reader",
    ]);
    let deployment = object(&guarded, "Deployment", NAME).unwrap();
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    assert!(
        env.as_array()
            .unwrap()
            .contains(&json!({ "name": OPTION, "value": "true" })),
        "{env}"
    );
    let monitor = object(&guarded, "PodMonitor", NAME).unwrap();
    let expected = json!({ "type": "Bearer", "credentials": { "name": "reader", "key": "token" } });
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["authorization"], expected);
    // Otherwise the namespace of a Rollout's series would be the operator's.
    assert_eq!(endpoint["honorLabels"], true);
}

#[tokio::test]
async fn metrics_are_for_whom_the_api_server_knows_and_rbac_lets_in() {
    let scene = Scene::new("metrics-auth").await;
    let client = scene.cluster.client();
    let all = Permission::of(&rules(NAME));
    let without = granted(&scene).await;
    let more: BTreeSet<_> = all.difference(&without).collect();
    let names: BTreeSet<_> = more.iter().map(ToString::to_string).collect();
    let reviews = ["create tokenreviews", "create subjectaccessreviews"].map(ToOwned::to_owned);
    assert_eq!(names, BTreeSet::from(reviews));
    assert_eq!(all.len(), without.len() + 2);

    let (stranger, prometheus) = (
        account(&scene, "stranger").await,
        account(&scene, "prometheus").await,
    );
    let reader = rules("countersign-metrics-reader");
    bind(&client, &prometheus, None, &reader).await;
    let may_read = async || {
        let question = json!({ "spec": {
            "user": format!("system:serviceaccount:{}:{}", scene.namespace, prometheus.name),
            "nonResourceAttributes": { "path": "/metrics", "verb": "get" },
        } });
        let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
        let answer = reviews
            .create(
                &PostParams::default(),
                &serde_json::from_value(question).unwrap(),
            )
            .await;
        answer.unwrap().status.unwrap().allowed.then_some(())
    };
    wait_for("the role is in force", TIMEOUT, may_read)
        .await
        .unwrap();

    let own: Vec<_> = all.iter().map(Permission::rule).collect();
    let options = [("COUNTERSIGN_METRICS_AUTH", "true")];
    let replica = Replica::start(&scene, "metrics", &own, (SYSTEM, &[]), &options).await;
    let ready = async || (replica.answers("/readyz", None).await.0 == 200).then_some(());
    wait_for("it is ready, which everybody may know", TIMEOUT, ready)
        .await
        .unwrap();
    assert_eq!(replica.answers("/healthz", None).await.0, 200);

    let (code, answer) = replica.answers("/metrics", None).await;
    assert_eq!(code, 401);
    assert!(
        answer.to_lowercase().contains("www-authenticate: bearer"),
        "{answer}"
    );
    assert_eq!(replica.answers("/metrics", Some("made-up")).await.0, 401);
    let (code, answer) = replica.answers("/metrics", Some(&stranger.token)).await;
    assert!(code == 403 && !answer.contains("countersign_"), "{answer}");
    let (code, answer) = replica.answers("/metrics", Some(&prometheus.token)).await;
    assert!(
        code == 200 && answer.contains("countersign_leading 0"),
        "{answer}"
    );

    // Without either review, new readers are refused, with the reason.
    let roles: Api<ClusterRole> = Api::all(client.clone());
    for lacking in more {
        let patch = Patch::Merge(json!({ "rules": lacking.lacking(&all) }));
        roles
            .patch(replica.name(), &PatchParams::default(), &patch)
            .await
            .unwrap();
        let user = format!(
            "system:serviceaccount:{}:{}",
            scene.namespace,
            replica.name()
        );
        let gone =
            async || (!lacking.is_granted(&client, &user, &scene.namespace).await).then_some(());
        wait_for("the permission is gone", TIMEOUT, gone)
            .await
            .unwrap();
        let newcomer = account(&scene, &lacking.resource).await;
        assert_eq!(
            replica.answers("/metrics", Some(&newcomer.token)).await.0,
            503
        );
        replica.names(lacking).await;
        assert_eq!(
            replica.answers("/metrics", Some(&prometheus.token)).await.0,
            200,
            "known for a while"
        );
    }
}
