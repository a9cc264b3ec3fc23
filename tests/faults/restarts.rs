//! The API server or etcd is killed and restarted while all stories run.

use countersign_cluster::Cluster;

use crate::requests::{NO_KIND, all_end_well};
use crate::story::{Faults, Run, RunResult, Story, cluster, disturbed};

/// Runs a story; one of them causes the restart, during its own change and others.
async fn shaken(
    story: Story,
    restart: Option<impl AsyncFn(&Cluster)>,
) -> Result<RunResult, String> {
    disturbed(story, Faults::default(), async |run: &Run| {
        run.until_under_way().await;
        if let Some(restart) = restart {
            restart(&run.cluster).await;
        }
    })
    .await
}

async fn all_are_shaken(what: &str, restart: impl AsyncFn(&Cluster) + Copy) {
    cluster().await;
    let runs = Story::ALL.into_iter().map(|story| {
        let brings = (story == Story::Routed).then_some(restart);
        let name = format!("{story:?}, {what} restarts");
        (name, NO_KIND, shaken(story, brings))
    });
    all_end_well(runs).await;
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
