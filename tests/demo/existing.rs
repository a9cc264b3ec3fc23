//! A cluster that exists already: with containers, an installed operator, and a Prometheus that scrapes pods.
//!
//! Nothing is installed. The demo creates a namespace, and a policy for that namespace alone, and removes both. The
//! Rollouts of `examples/` run podinfo, and a pod sends the requests.

#![allow(
    clippy::indexing_slicing,
    reason = "of JSON, where an absent field is null"
)]

use std::time::Duration;

use countersign_api::RolloutPolicy;
use countersign_cluster::wait_for;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::config::{Config, KubeConfigOptions};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::Result;

/// It exports `http_requests_total` with the label `status`, and has curl.
const IMAGE: &str = "ghcr.io/stefanprodan/podinfo";
/// Its user `app`, by number, as a pod must name it to run as no root.
const USER: u32 = 100;
/// Its metrics have a port of their own: `--random-error` fails scrapes, too.
const METRICS_PORT: u16 = 9797;

/// No shorter than the usual times between two scrapes.
const INTERVAL: &str = "30s";
/// One of these runs for each 50 requests a second. Each request is a connection, so that each chooses a pod.
const SEND: &str = r#"
for _ in $(seq $((PER_SECOND / 50))); do
  while true; do
    curl --silent --output /dev/null --max-time 5 --header 'Connection: close' --rate 50/s "http://$SEND_TO/?[1-100000]"
    sleep 1
  done &
done
wait
"#;

/// How long an operator may take to lead after its start.
const LEADS_WITHIN: Duration = Duration::from_secs(30);

/// A Rollout whose smallest step is a quarter, so that four pods suffice in place of twenty.
const SMALL: &str = "web";

/// An administrator's client, if an operator is installed there.
pub async fn connect() -> Result<Client> {
    let config = Config::from_kubeconfig(&KubeConfigOptions::default()).await?;
    println!("The cluster is {}", config.cluster_url);
    let client = Client::try_from(config)?;
    let install = "install the chart first, with the address of your Prometheus: README.md, Start";
    let policies: Api<RolloutPolicy> = Api::all(client.clone());
    let served = policies.list(&ListParams::default().limit(1)).await;
    served.map_err(|error| format!("RolloutPolicies cannot be listed ({error}): {install}"))?;
    let leases: Api<Lease> = Api::all(client.clone());
    let lease = ListParams::default().fields("metadata.name=countersign");
    // One that was installed a moment ago leads soon.
    let leads = async || {
        let leases = leases
            .list(&lease)
            .await
            .map_err(|error| error.to_string())?;
        let mut specs = leases.items.iter().filter_map(|it| it.spec.as_ref());
        let leads = specs.any(|it| it.holder_identity.as_ref().is_some_and(|it| !it.is_empty()));
        leads
            .then_some(())
            .ok_or_else(|| "nobody holds it".to_owned())
    };
    let leader = wait_for("an operator leads", LEADS_WITHIN, leads).await;
    leader
        .map_err(|error| format!("no operator holds the Lease countersign ({error}): {install}"))?;
    Ok(client)
}

/// A client that acts as a person of this group, who need not exist.
pub async fn client_as(user: &str, group: &str) -> Result<Client> {
    let mut config = Config::from_kubeconfig(&KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(vec![group.to_owned()]);
    Ok(Client::try_from(config)?)
}

/// The object for this cluster: a policy governs the demo's namespace alone, and a Rollout runs podinfo.
pub fn adapted(mut object: DynamicObject, namespace: &str, tag: &str) -> DynamicObject {
    let kind = object.types.as_ref().map(|types| types.kind.clone());
    match kind.as_deref() {
        Some("RolloutPolicy") => {
            object.metadata.name = Some(namespace.to_owned());
            let labels = json!({ "kubernetes.io/metadata.name": namespace });
            object.data["spec"]["namespaceSelector"] = json!({ "matchLabels": labels });
        }
        Some("Rollout") => run_podinfo(&mut object, tag),
        _ => {}
    }
    object
}

fn run_podinfo(rollout: &mut DynamicObject, tag: &str) {
    let image = format!("{IMAGE}:{tag}");
    let provenance = "provenance.countersign.dev/image".to_owned();
    rollout.annotations_mut().insert(provenance, image.clone());
    let is_small = rollout.name_any() == SMALL;
    let spec = &mut rollout.data["spec"];
    if is_small {
        spec["replicas"] = json!(4);
    }
    spec["strategy"]["canary"]["analysis"] = json!({ "interval": INTERVAL, "checks": [check()] });
    let template = &mut spec["template"];
    template["metadata"]["annotations"] = json!({
        "prometheus.io/scrape": "true", "prometheus.io/port": METRICS_PORT.to_string(),
    });
    template["spec"]["securityContext"]["runAsUser"] = json!(USER);
    let container = &mut template["spec"]["containers"][0];
    container["image"] = json!(image);
    container["ports"] = json!([
        { "name": "http", "containerPort": 8080 }, { "name": "http-metrics", "containerPort": METRICS_PORT },
    ]);
    container["readinessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
    let mut env = vec![
        variable("PODINFO_PORT", "8080"),
        variable("PODINFO_PORT_METRICS", &METRICS_PORT.to_string()),
        // For the simulated pods of the test of this.
        variable("CODE_LABEL", "status"),
    ];
    // In place of the bug of the examples, which stays, since podinfo does not know it.
    if let Some(bug) = container["env"].as_array() {
        env.extend(bug.iter().cloned());
        env.push(variable("PODINFO_RANDOM_ERROR", "true"));
    }
    container["env"] = Value::Array(env);
}

/// As the preset of the examples, but podinfo has another label, and a third of its random errors is from 500 on.
fn check() -> Value {
    let of_revision = r#"namespace="{{namespace}}",pod_template_hash="{{revision}}""#;
    json!({
        "name": "errors",
        "errors": format!(r#"http_requests_total{{{of_revision},status=~"[45].."}}"#),
        "total": format!("http_requests_total{{{of_revision}}}"),
    })
}

/// Creates the pod that sends requests to a Service, for an hour at most.
pub async fn start_sender(
    client: &Client,
    namespace: &str,
    service: &str,
    rate: u32,
) -> Result<()> {
    let pod = serde_json::from_value(json!({
        "metadata": { "name": format!("traffic-{service}"), "labels": { "app": "traffic" } },
        "spec": {
            "activeDeadlineSeconds": 3600,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "curl",
                "image": format!("{IMAGE}:{}", crate::FIRST_TAG),
                "command": ["sh", "-c", SEND],
                "env": [
                    { "name": "SEND_TO", "value": service },
                    { "name": "PER_SECOND", "value": rate.to_string() },
                ],
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    }))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    pods.create(&PostParams::default(), &pod).await?;
    Ok(())
}

/// Deletes the policy and the namespace, and with it all that is there.
pub async fn clean_up(client: &Client, namespace: &str) -> Result<()> {
    let delete = DeleteParams::background();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.delete(namespace, &delete).await?;
    println!("Namespace {namespace} is being deleted.");
    let policies: Api<RolloutPolicy> = Api::all(client.clone());
    match policies.delete(namespace, &delete).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        outcome => drop(outcome?),
    }
    Ok(())
}
