//! Objects that a tenant makes in any number and size: they are read page by page, up to a bound.

use super::*;

/// Makes ReplicaSets with the labels of the Rollout's pods, which are listed before its own.
fn plant(scene: &Scene, numbers: std::ops::Range<usize>, metadata: &Value) {
    let own = scene.server.paths("replicasets");
    let own = own.iter().find(|path| path.contains("/web-")).unwrap();
    let (folder, _) = own.rsplit_once('/').unwrap();
    let mut planted = scene.server.get(own).unwrap();
    for number in numbers {
        let name = format!("planted-{number:03}");
        planted["metadata"] = metadata.clone();
        planted["metadata"]["name"] = json!(name);
        scene
            .server
            .put(&format!("{folder}/{name}"), planted.clone());
    }
}

/// The pages of ReplicaSets that were read since the last call, beside those that were read by name.
fn pages(scene: &Scene) -> usize {
    let mut requests = scene.server.requests();
    requests.retain(|it| it.path.ends_with("/replicasets") && it.method == "GET");
    requests.retain(|it| !it.query.contains("fieldSelector"));
    let paged = requests.iter().all(|it| it.query.contains("limit=20"));
    assert!(paged, "{requests:?}");
    requests.len()
}

#[tokio::test]
async fn replica_sets_are_read_page_by_page_and_up_to_a_bound() {
    let scene = Scene::serving("web").await;
    let foreign = json!({ "labels": { "app": "web" } });
    plant(&scene, 0..45, &foreign);
    scene.server.requests();
    let (snapshot, _) = late(&scene, vec![]).await;
    assert_eq!(pages(&scene), 3);
    let found = &snapshot.observation;
    assert_eq!(found.unread_replica_sets, None);
    assert_eq!(found.foreign_replica_sets.as_ref().unwrap().len(), 45);
    assert_eq!(found.replica_sets.len(), 1);

    plant(&scene, 45..250, &foreign);
    let (snapshot, _) = late(&scene, vec![]).await;
    assert_eq!(pages(&scene), 20, "of each of the two lists, 200");
    let found = &snapshot.observation;
    let problem = "there are more ReplicaSets with the labels of this Rollout's (app=web)";
    let unread = found.unread_replica_sets.as_ref().unwrap();
    assert!(unread.starts_with(problem), "{unread}");
    assert_eq!(found.conflicts, [""; 0], "nobody else claims anything");
    let names: Vec<_> = found.replica_sets.iter().map(|it| &it.name).collect();
    assert!(
        names.len() == 1 && names[0].starts_with("web-"),
        "the stable one is not hidden: {names:?}"
    );
}

#[tokio::test]
async fn templates_of_planted_replica_sets_are_kept_up_to_a_bound() {
    let scene = Scene::serving("web").await;
    let template = json!({ "metadata": { "annotations": { "note": "x".repeat(200_000) } } });
    let marked = json!({
        "labels": { "app": "web", "app.kubernetes.io/managed-by": "countersign" },
        "annotations": { "countersign.dev/template": template.to_string() },
    });
    plant(&scene, 0..120, &marked);
    let (snapshot, _) = late(&scene, vec![]).await;
    let found = &snapshot.observation;
    assert!(found.unread_replica_sets.is_some());
    let bytes: usize = found
        .replica_sets
        .iter()
        .map(|it| it.template.0.to_string().len())
        .sum();
    assert!(
        bytes < 21 << 20,
        "{bytes} bytes are kept, with the last page"
    );
    assert!(
        found
            .replica_sets
            .iter()
            .any(|it| it.name.starts_with("web-"))
    );
}

#[tokio::test]
async fn records_of_deleted_rollouts_are_read_up_to_a_bound_and_beyond_it_people_are_asked() {
    let mut scene = Scene::new();
    scene.deploy("web", "app:1");
    let folder = ROLLOUTS.replace("rollouts", "rolloutruns");
    let known = async |records: std::ops::Range<usize>| {
        for number in records {
            let name = format!("web-{number:04}-1");
            let record = json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun",
                "metadata": { "name": name, "labels": { "countersign.dev/rollout-uid": "former" } },
                "spec": {
                    "rollout": "web", "digest": "d", "podTemplateHash": "h", "revision": 1,
                    "progress": { "outcome": "RolledBack" },
                },
            });
            scene.server.put(&format!("{folder}/{name}"), record);
        }
        let (snapshot, _) = late(&scene, vec![]).await;
        let observation = snapshot.observation;
        let problem = observation.unreadable_history().map(ToOwned::to_owned);
        (observation.former.len(), problem.unwrap_or_default())
    };
    assert_eq!(known(0..2_000).await, (2_000, String::new()));
    let (former, problem) = known(2_000..2_001).await;
    assert_eq!(former, 0);
    assert!(problem.contains("more than the 2000"), "{problem}");
}
