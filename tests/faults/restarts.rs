//! The API server or etcd dies and comes back, under all stories at once.

use std::time::Duration;

use countersign_cluster::Cluster;
use tokio::time::sleep;

use crate::requests::all_end_well;
use crate::story::{Faults, Story, Telling, Told, cluster, disturbed};

/// Tells a story; one of them brings the restart.
async fn shaken(story: Story, restart: Option<impl AsyncFn(&Cluster)>) -> Result<Told, String> {
    disturbed(story, Faults::default(), async |telling: &Telling| {
        sleep(Duration::from_secs(5)).await;
        if let Some(restart) = restart {
            restart(&telling.cluster).await;
        }
    })
    .await
}

async fn all_are_shaken(what: &str, restart: impl AsyncFn(&Cluster) + Copy) {
    cluster().await;
    let tellings = Story::ALL.into_iter().map(|story| {
        let brings = (story == Story::Routed).then_some(restart);
        (format!("{story:?}, {what} restarts"), shaken(story, brings))
    });
    all_end_well(tellings).await;
}

#[tokio::test]
async fn rollouts_go_on_when_the_api_server_has_died() {
    all_are_shaken("the API server", async |cluster: &Cluster| {
        cluster.restart_api_server().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn rollouts_go_on_when_etcd_has_died() {
    all_are_shaken("etcd", async |cluster: &Cluster| {
        cluster.restart_etcd().await.unwrap();
    })
    .await;
}
