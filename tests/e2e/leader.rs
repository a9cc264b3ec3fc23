//! One replica leads; another takes over when the leader hangs, and the first writes nothing more.

use std::process::Stdio;
use std::time::{Duration, Instant};

use countersign_api::rollout::Outcome;
use countersign_cluster::{Cluster, wait_for};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::process::{Child, Command};

use crate::support::{App, Scene, TIMEOUT, ended, within};

const OPERATOR: &str = "countersign-system";

/// A second replica, as the chart's Deployment would run it.
fn second_replica(cluster: &Cluster) -> Child {
    Command::new(env!("CARGO_BIN_EXE_countersign"))
        .arg("run")
        .env("KUBECONFIG", cluster.dir().join("operator.kubeconfig"))
        .env("COUNTERSIGN_PROMETHEUS_URL", cluster.prometheus_url())
        .env("COUNTERSIGN_PROMETHEUS_LAG", "3s")
        .env("COUNTERSIGN_LISTEN", "127.0.0.1:8082")
        .env("POD_NAME", "countersign-1")
        .env("POD_NAMESPACE", OPERATOR)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn led_by(cluster: &Cluster, replica: &str) {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), OPERATOR);
    let poll = async || {
        let lease = leases
            .get("countersign")
            .await
            .map_err(|error| error.to_string())?;
        let holder = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .unwrap_or_default();
        if holder == replica {
            Ok(())
        } else {
            Err(format!("the lease is held by `{holder}`"))
        }
    };
    wait_for(&format!("{replica} leads"), TIMEOUT, poll)
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn a_silent_leader_is_replaced_and_writes_nothing_when_it_comes_back() {
    let scene = Scene::alone("leader").await;
    let cluster = &scene.cluster;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    led_by(cluster, "countersign-0").await;

    let mut second = second_replica(cluster);
    cluster.freeze_operator().await.unwrap();
    let silent = Instant::now();
    scene.apply(&app.version("v2")).await;
    led_by(cluster, "countersign-1").await;
    // The time of a lease, and some to notice.
    assert!(silent.elapsed() < Duration::from_secs(20), "{silent:?}");
    assert!(
        ended(&scene.outcome(&app).await, Outcome::Promoted),
        "the second replica decides"
    );

    cluster.start_operator().await.unwrap();
    let poll = async || {
        let log = cluster
            .operator_log_tail(200)
            .map_err(|error| error.to_string())?;
        log.contains("lease was lost")
            .then_some(())
            .ok_or("the first replica has not noticed".to_owned())
    };
    wait_for("the first replica ends", TIMEOUT, poll)
        .await
        .unwrap();
    led_by(cluster, "countersign-1").await;

    // A replica that is terminated releases the lease, so that nobody waits for it.
    let pid = second.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    let end = within("the second replica ends", second.wait()).await;
    assert!(end.unwrap().success(), "it stops in good order");
    led_by(cluster, "countersign-0").await;
}
