//! The test cluster itself, before anything is tested in it; run by `make harness`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

use countersign_cluster::{Cluster, Kinds, Limits, Load, wait_for};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, PodStatus, Service},
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The cluster of `cluster exec`.
async fn cluster() -> Cluster {
    Cluster::from_env().await.unwrap()
}

fn pod_template(annotations: &Value, env: &Value) -> Value {
    json!({
        "metadata": { "labels": { "app": "shop" }, "annotations": annotations },
        "spec": {
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "shop",
                "image": "shop:1",
                "ports": [{ "containerPort": 8080 }],
                "env": env,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    })
}

async fn create_shop(cluster: &Cluster, namespace: &str, replicas: u32, env: &Value) {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "shop" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "shop" } },
            "template": pod_template(&json!({}), env),
        },
    }))
    .unwrap();
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "shop" },
        "spec": { "selector": { "app": "shop" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))
    .unwrap();
    let (create, client) = (PostParams::default(), cluster.client());
    Api::namespaced(client.clone(), namespace)
        .create(&create, &deployment)
        .await
        .unwrap();
    Api::namespaced(client, namespace)
        .create(&create, &service)
        .await
        .unwrap();
}

async fn shop_is_ready(cluster: &Cluster, namespace: &str, replicas: i32) {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
    wait_for("the shop is ready", Duration::from_secs(20), async || {
        let status = deployments
            .get("shop")
            .await
            .unwrap()
            .status
            .unwrap_or_default();
        if status.ready_replicas == Some(replicas) {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await
    .unwrap();
}

const LIMITS: Limits = Limits {
    max_requests: 1000,
    max_time: Duration::from_secs(30),
};

#[tokio::test]
async fn prometheus_counts_the_requests_that_were_sent() {
    let cluster = cluster().await;
    let namespace = cluster.namespace("smoke").await.unwrap();
    let env =
        json!([{ "name": "ERROR_RATE", "value": "0.5" }, { "name": "LATENCY", "value": "2ms" }]);
    create_shop(&cluster, &namespace, 2, &env).await;
    shop_is_ready(&cluster, &namespace, 2).await;

    let limits = Limits {
        max_requests: 200,
        ..LIMITS
    };
    let load = Load::start(cluster.client(), &namespace, "shop", 100, limits)
        .await
        .unwrap();
    wait_for(
        "all requests are sent",
        Duration::from_secs(20),
        async || {
            let report = load.report();
            if report.requests == 200 {
                Ok(())
            } else {
                Err(format!("{report:?}"))
            }
        },
    )
    .await
    .unwrap();
    let report = load.stop().await;
    assert_eq!(
        (report.requests, report.connection_errors),
        (200, 0),
        "{report:?}"
    );
    assert!(report.http_errors.abs_diff(100) <= 4, "{report:?}");
    let revision = report.by_revision.keys().next().unwrap();
    assert_eq!(report.by_revision[revision].errors, report.http_errors);

    let query = format!(
        "sum by (code, pod_template_hash) (http_requests_total{{namespace='{namespace}'}})"
    );
    wait_for(
        "Prometheus has counted all requests",
        Duration::from_secs(10),
        async || {
            let samples = cluster.query(&query).await.unwrap();
            let count = |code: &str| {
                samples
                    .iter()
                    .find(|(labels, _)| labels["code"] == code)
                    .map_or(0.0, |(_, count)| *count)
            };
            #[expect(clippy::cast_precision_loss, reason = "small counts")]
            let expected = (report.ok as f64, report.http_errors as f64);
            let all_of_revision = samples
                .iter()
                .all(|(labels, _)| labels["pod_template_hash"] == *revision);
            if all_of_revision && (count("200"), count("500")) == expected {
                Ok(())
            } else {
                Err(format!("{samples:?}"))
            }
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn no_request_is_lost_while_pods_are_replaced() {
    let cluster = cluster().await;
    let namespace = cluster.namespace("smoke").await.unwrap();
    create_shop(
        &cluster,
        &namespace,
        3,
        &json!([{ "name": "LATENCY", "value": "10ms" }]),
    )
    .await;
    shop_is_ready(&cluster, &namespace, 3).await;

    let load = Load::start(cluster.client(), &namespace, "shop", 100, LIMITS)
        .await
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), &namespace);
    for _ in 0..3 {
        let pod = pods
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .remove(0);
        let name = pod.metadata.name.unwrap();
        pods.delete(&name, &DeleteParams::default()).await.unwrap();
        wait_for(
            "the pod is gone and replaced",
            Duration::from_secs(10),
            async || pods.get_opt(&name).await.unwrap().is_none().then_some(()),
        )
        .await
        .unwrap();
        shop_is_ready(&cluster, &namespace, 3).await;
    }
    let report = load.stop().await;
    assert!(report.requests > 100, "{report:?}");
    assert_eq!(report.ok, report.requests, "{report:?}");
    assert_eq!(report.last_failure, None);
}

async fn create_pod(pods: &Api<Pod>, name: &str, annotations: &Value, env: &Value) {
    let mut pod = pod_template(annotations, env);
    pod["metadata"]["name"] = name.into();
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
}

fn is_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[tokio::test]
async fn a_deleted_pod_serves_until_it_is_gone_and_by_force_is_gone_at_once() {
    let cluster = cluster().await;
    let namespace = cluster.namespace("smoke").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), &namespace);
    for name in ["gently", "by-force"] {
        create_pod(&pods, name, &json!({}), &json!([])).await;
        wait_for("the pod is ready", Duration::from_secs(20), async || {
            let status = pods.get(name).await.unwrap().status.unwrap();
            is_ready(&status).then_some(())
        })
        .await
        .unwrap();
    }

    let status = pods.get("gently").await.unwrap().status.unwrap();
    let address = format!("{}:8080", status.pod_ip.unwrap());
    let deleted = Instant::now();
    pods.delete("gently", &DeleteParams::default())
        .await
        .unwrap();
    wait_for("the pod is gone", Duration::from_secs(20), async || {
        let serves = TcpStream::connect(&address).await.is_ok();
        let gone = pods.get_opt("gently").await.unwrap().is_none();
        assert!(serves || gone, "it stopped {:?} after", deleted.elapsed());
        gone.then_some(())
    })
    .await
    .unwrap();
    // The API server truncates the deletion time to seconds.
    let took = deleted.elapsed();
    assert!(took > Duration::from_millis(1900), "{took:?}");

    let force = DeleteParams::default().grace_period(0);
    pods.delete("by-force", &force).await.unwrap();
    assert!(pods.get_opt("by-force").await.unwrap().is_none());
}

#[tokio::test]
async fn a_pod_that_does_not_start_reports_the_reason_and_a_slow_one_is_ready_later() {
    let cluster = cluster().await;
    let namespace = cluster.namespace("smoke").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), &namespace);
    let started = Instant::now();
    let slow = json!([{ "name": "START_AFTER", "value": "3s" }]);
    create_pod(&pods, "slow", &json!({}), &slow).await;
    for (name, reason, phase, restarts) in [
        ("crashes", "CrashLoopBackOff", "Running", 3),
        ("no-image", "ImagePullBackOff", "Pending", 0),
    ] {
        let env = json!([{ "name": "STARTS", "value": reason }]);
        create_pod(&pods, name, &json!({}), &env).await;
        let poll = async || {
            let status = pods.get(name).await.unwrap().status.unwrap();
            status.pod_ip.is_some().then_some(status)
        };
        let status = wait_for("the pod is tried", Duration::from_secs(20), poll).await;
        let status = status.unwrap();
        assert_eq!(status.phase.as_deref(), Some(phase));
        assert!(!is_ready(&status), "{status:?}");
        let container = status.container_statuses.unwrap().remove(0);
        assert_eq!(
            (container.ready, container.restart_count),
            (false, restarts)
        );
        let waiting = container.state.unwrap().waiting.unwrap();
        assert_eq!(waiting.reason.as_deref(), Some(reason));
        assert!(waiting.message.is_some());
        let last = container.last_state.and_then(|last| last.terminated);
        assert_eq!(last.map(|last| last.exit_code), (restarts > 0).then_some(1));
    }

    wait_for(
        "the slow pod is ready",
        Duration::from_secs(20),
        async || {
            let status = pods.get("slow").await.unwrap().status.unwrap();
            is_ready(&status).then_some(())
        },
    )
    .await
    .unwrap();
    let took = started.elapsed();
    assert!(took > Duration::from_secs(3), "{took:?}");
    for name in ["crashes", "no-image"] {
        let status = pods.get(name).await.unwrap().status.unwrap();
        let container = status.container_statuses.unwrap().remove(0);
        assert!(container.state.unwrap().waiting.is_some(), "{name} starts");
    }
}

#[tokio::test]
async fn kinds_are_served_once_installed_and_no_more_once_removed() {
    let cluster = cluster().await;
    for (kinds, group, version, kind) in [
        (
            Kinds::GatewayApi,
            "gateway.networking.k8s.io",
            "v1",
            "HTTPRoute",
        ),
        (
            Kinds::GatewayApiExperimental,
            "gateway.networking.k8s.io",
            "v1alpha2",
            "TCPRoute",
        ),
        (Kinds::Istio, "networking.istio.io", "v1", "VirtualService"),
    ] {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let objects: Api<DynamicObject> = Api::all_with(cluster.client(), &kind);
        // Existing objects are fine.
        for _ in 0..2 {
            cluster.install_kinds(kinds).await.unwrap();
            objects.list(&ListParams::default()).await.unwrap();
        }
        for _ in 0..2 {
            cluster.remove_kinds(kinds).await.unwrap();
            let refused = objects.list(&ListParams::default()).await.unwrap_err();
            assert!(
                matches!(&refused, kube::Error::Api(status) if status.code == 404),
                "{refused}"
            );
        }
    }
}

#[tokio::test]
async fn a_pod_is_ready_when_its_annotations_let_it() {
    let cluster = cluster().await;
    let namespace = cluster.namespace("smoke").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), &namespace);
    for (name, annotations) in [
        ("now", json!({})),
        ("later", json!({ "cluster.test/ready-after": "3s" })),
        ("never", json!({ "cluster.test/ready": "never" })),
    ] {
        create_pod(&pods, name, &annotations, &json!([])).await;
    }
    let started = Instant::now();
    let ready =
        async |name: &str| is_ready(&pods.get(name).await.unwrap().status.unwrap_or_default());
    wait_for(
        "the first pod is ready",
        Duration::from_secs(3),
        async || ready("now").await.then_some(()),
    )
    .await
    .unwrap();
    assert!(!ready("later").await);
    wait_for(
        "the second pod is ready",
        Duration::from_secs(6),
        async || ready("later").await.then_some(()),
    )
    .await
    .unwrap();
    assert!(
        started.elapsed() > Duration::from_millis(2500),
        "{:?}",
        started.elapsed()
    );
    assert!(!ready("never").await);
}

#[tokio::test]
async fn users_may_do_nothing_that_was_not_granted() {
    let cluster = cluster().await;
    for user in ["alice", "bob", "carol", "dave"] {
        let client = cluster.client_as(user).await.unwrap();
        let refused = Api::<Pod>::default_namespaced(client)
            .list(&ListParams::default())
            .await;
        let refusal = refused.unwrap_err().to_string();
        assert!(
            refusal.contains(&format!(r#"User "{user}" cannot list resource"#)),
            "{refusal}"
        );
    }
    assert!(cluster.client_as("mallory").await.is_err());
}
