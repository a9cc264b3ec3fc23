//! What one reconcile asks the API server, so that its cost grows in no commit unseen.

use super::*;

/// The kinds of the objects that one reconcile with a full read reads, in their order by name.
async fn read_by_one(scene: &mut Scene) -> Vec<String> {
    scene.server.requests();
    scene.reconcile("web").await.unwrap();
    kinds_read(scene)
}

/// The kinds of the objects that were read since the last call, in their order by name.
pub(super) fn kinds_read(scene: &Scene) -> Vec<String> {
    let requests = scene.server.requests().into_iter();
    let reads = requests.filter(|it| it.method == "GET");
    let kind = |it: RecordedRequest| {
        let (_, after) = it.path.split_once("/v1alpha1/").unwrap_or_default();
        let (_, named) = it
            .path
            .split_once("/namespaces/shop/")
            .unwrap_or(("", after));
        named.split('/').next().unwrap_or_default().to_owned()
    };
    let mut kinds: Vec<_> = reads.map(kind).collect();
    kinds.sort();
    kinds
}

#[tokio::test]
async fn a_rollout_at_rest_costs_two_reads_and_no_write() {
    let mut scene = Scene::serving("web").await;
    for _ in 0..3 {
        scene.reconcile("web").await.unwrap();
    }
    assert!(scene.status("web")["change"].is_null());
    let before = scene.server.get(&format!("{ROLLOUTS}/web"));
    assert_eq!(read_by_one(&mut scene).await, ["replicasets", "rollouts"]);
    assert_eq!(scene.server.get(&format!("{ROLLOUTS}/web")), before);
}

#[tokio::test]
async fn a_canary_without_services_costs_five_reads() {
    let mut scene = Scene::serving("web").await;
    scene.deploy("web", "app:2");
    for _ in 0..4 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    assert_eq!(scene.status("web")["change"]["stage"], "Stepping");
    assert_eq!(
        read_by_one(&mut scene).await,
        [
            "freezes",
            "interventions",
            "replicasets",
            "rollouts",
            "signoffs"
        ]
    );
}
