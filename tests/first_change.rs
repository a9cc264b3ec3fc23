//! A newcomer's first change, in real time: `helm install`, the Rollout that its notes show, and a change of it; then
//! with groups of approvers. It takes the time of the bakes, so it is run by `make first-change` and not by `make test`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use countersign_api::rollout::{Change, Outcome};
use countersign_api::{Phase, Rollout, RolloutRun, SignOff, Tier};
use countersign_cluster::{Cluster, Fault, Limits, Load, Replica, ReplicaPlan, wait_for};
use countersign_core::change;
use countersign_core::reason::Reason;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/countersign");
const NAMESPACE: &str = "default";
const SYSTEM: &str = "countersign-system";
/// The bakes of tier low are three times five minutes.
const WITHIN: Duration = Duration::from_mins(25);
const SOON: Duration = Duration::from_mins(2);

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The manifest between the marks of the shell command in the notes.
fn shown_rollout(notes: &str) -> Value {
    let (_, rest) = notes.split_once("<<'YAML'\n").unwrap();
    let (indented, _) = rest.split_once("     YAML\n").unwrap();
    let text: Vec<_> = indented
        .lines()
        .map(|line| line.strip_prefix("     ").unwrap_or(line))
        .collect();
    serde_saphyr::from_str(&text.join("\n")).unwrap()
}

struct Newcomer {
    client: Client,
    rollouts: Api<Rollout>,
}

impl Newcomer {
    async fn apply(&self, rollout: &Value) {
        let parameters = PatchParams::apply("newcomer").force();
        let patch = Patch::Apply(rollout);
        self.rollouts
            .patch("web", &parameters, &patch)
            .await
            .unwrap();
    }

    async fn until(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Rollout) -> bool,
    ) -> Rollout {
        let poll = async || {
            let rollout = self.rollouts.get("web").await;
            let rollout = rollout.map_err(|error| error.to_string())?;
            let status = rollout.status.as_ref();
            let now = format!("{:?}", status.map(|it| (it.phase, &it.message)));
            wanted(&rollout).then_some(rollout).ok_or(now)
        };
        wait_for(what, within, poll).await.unwrap()
    }

    async fn last_run(&self) -> RolloutRun {
        let runs: Api<RolloutRun> = Api::namespaced(self.client.clone(), NAMESPACE);
        let runs = runs.list(&ListParams::default()).await.unwrap().items;
        runs.into_iter().max_by_key(|it| it.spec.revision).unwrap()
    }

    async fn sign_offs(&self) -> usize {
        let sign_offs: Api<SignOff> = Api::namespaced(self.client.clone(), NAMESPACE);
        sign_offs
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len()
    }
}

fn is_stable(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    status.is_some_and(|it| it.phase == Phase::Stable && it.change.is_none())
}

fn change_of(rollout: &Rollout) -> Option<&Change> {
    rollout.status.as_ref()?.change.as_ref()
}

fn with_image(mut rollout: Value, image: &str) -> Value {
    rollout["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    rollout
}

fn install(arguments: &[&str]) -> String {
    let helm = ["--namespace", SYSTEM, "--create-namespace"];
    run("helm", &[arguments, &helm].concat())
}

#[tokio::test]
async fn a_first_change_is_promoted_and_with_groups_the_next_one_waits_for_them() {
    let cluster = Cluster::from_env().await.unwrap();
    let url = format!("--set=prometheus.url={}", cluster.prometheus_url());
    let notes = install(&["install", "countersign", CHART, &url]);
    assert!(
        notes.contains("no policy of this chart requires a sign-off"),
        "{notes}"
    );
    let mut first = shown_rollout(&notes);
    // Prometheus of the test cluster scrapes the ports that pods declare.
    let container = &mut first["spec"]["template"]["spec"]["containers"][0];
    container["ports"] = json!([{ "containerPort": 8080 }]);

    let client = cluster.client();
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let service = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }));
    services
        .create(&PostParams::default(), &service.unwrap())
        .await
        .unwrap();
    let _operator = operator(&cluster).await;
    let newcomer = Newcomer {
        rollouts: Api::namespaced(client.clone(), NAMESPACE),
        client: client.clone(),
    };
    newcomer.apply(&first).await;
    newcomer
        .until("the first revision is stable", SOON, is_stable)
        .await;
    let limits = Limits {
        max_requests: 200_000,
        max_time: WITHIN + WITHIN,
    };
    let load = Load::start(client.clone(), NAMESPACE, "web", 50, limits)
        .await
        .unwrap();

    let image = "registry.example.com/web:1.0.1";
    let mut second = with_image(first.clone(), image);
    second["metadata"]["annotations"]["provenance.countersign.dev/image"] = json!(image);
    newcomer.apply(&second).await;
    let promoted =
        |it: &Rollout| is_stable(it) && it.status.as_ref().is_some_and(|it| it.revision == 2);
    newcomer
        .until("the change is promoted", WITHIN, promoted)
        .await;
    let record = newcomer.last_run().await.spec;
    assert_eq!(
        (record.risk.tier, record.progress.outcome),
        (Tier::Low, Some(Outcome::Promoted))
    );
    assert_eq!(newcomer.sign_offs().await, 0);

    let groups = "--set=signOff.approverGroups={approvers}";
    let reuse = "--reset-then-reuse-values";
    let notes = install(&["upgrade", "countersign", CHART, reuse, groups]);
    assert!(
        notes.contains("requires sign-offs of the groups approvers:"),
        "{notes}"
    );
    // The provenance still describes the image before, so it is unknown what this change is.
    newcomer
        .apply(&with_image(second, "registry.example.com/web:2.0.0"))
        .await;
    let awaits = |it: &Rollout| {
        let status = it.status.as_ref();
        status.is_some_and(|it| change::waits_for(it, Reason::AwaitingSignOff))
    };
    let waiting = newcomer.until("it waits for people", SOON, awaits).await;
    let change = change_of(&waiting).unwrap();
    assert_eq!((change.step, change.weight), (0, 0));
    approve(&cluster, &waiting, change).await;
    let serves = |it: &Rollout| change_of(it).is_some_and(|it| it.weight > 0);
    newcomer.until("the canary has traffic", SOON, serves).await;
    let report = load.stop().await;
    assert_eq!(
        (report.http_errors, report.connection_errors),
        (0, 0),
        "{:?}",
        report.last_failure
    );
}

/// The pods of the chart's Deployment run nothing here, so this process does their work under their `ServiceAccount`.
async fn operator(cluster: &Cluster) -> Replica {
    let plan = ReplicaPlan {
        program: Path::new(env!("CARGO_BIN_EXE_countersign")).to_owned(),
        namespace: Some(NAMESPACE.to_owned()),
        identity: "countersign-0".to_owned(),
        lease_namespace: NAMESPACE.to_owned(),
        api_server: Arc::new(|_| Fault::Pass),
        prometheus: Arc::new(|_| Fault::Pass),
        environment: Vec::new(),
    };
    Replica::start(cluster, plan).await.unwrap()
}

/// bob is in the group of the chart's binding.
async fn approve(cluster: &Cluster, rollout: &Rollout, change: &Change) {
    let sign_off: SignOff = serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "SignOff",
        "metadata": { "generateName": "web-" },
        "spec": {
            "rollout": "web", "rolloutUid": rollout.uid(), "run": change.run, "digest": change.digest,
            "decision": "Approve", "gate": "step-1", "reason": "seen", "approver": { "username": "bob" },
        },
    }))
    .unwrap();
    let bob: Api<SignOff> = Api::namespaced(cluster.client_as("bob").await.unwrap(), NAMESPACE);
    let create = async || {
        let made = bob.create(&PostParams::default(), &sign_off).await;
        made.map(|_| ()).map_err(|error| error.to_string())
    };
    wait_for("bob's approval is accepted", SOON, create)
        .await
        .unwrap();
}
