//! The faults of the test cluster. Separate from the smoke tests, which need a healthy cluster; run by
//! `make harness`.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use countersign_cluster::Cluster;
use std::time::Duration;

#[tokio::test]
async fn prometheus_can_be_away_and_can_hang() {
    let cluster = Cluster::from_env().await.unwrap();
    let query =
        async || tokio::time::timeout(Duration::from_secs(2), cluster.query("vector(1)")).await;

    cluster.stop_prometheus().await.unwrap();
    let refusal = query().await.unwrap().unwrap_err().to_string();
    assert!(refusal.contains("refused"), "{refusal}");
    cluster.start_prometheus().await.unwrap();
    assert_eq!(query().await.unwrap().unwrap().len(), 1);

    cluster.freeze_prometheus().await.unwrap();
    assert!(query().await.is_err(), "a frozen Prometheus answered");
    cluster.start_prometheus().await.unwrap();
    assert_eq!(query().await.unwrap().unwrap().len(), 1);
}
