//! RolloutRuns, which another leader or an earlier build may have written.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use countersign_core::observation::workload::PastRun;

use super::costs::kinds_read;
use super::*;

#[tokio::test]
async fn a_late_leader_deletes_no_record_of_the_same_name() {
    let scene = Scene::serving("web").await;
    let path = scene.server.paths("rolloutruns").remove(0);
    let run = path.rsplit('/').next().unwrap().to_owned();
    let delete = Write::History(HistoryAction::DeleteRun { run: run.clone() });
    let (mut snapshot, decision) = late(&scene, vec![delete]).await;
    let recorded = serde_json::from_value(scene.server.get(&path).unwrap()).unwrap();
    let recorded: countersign_api::RolloutRun = recorded;
    snapshot.observation.history = Some(Ok(vec![PastRun {
        uid: "the one before".into(),
        ..PastRun::of(&run, &recorded.spec)
    }]));
    let (actor, it) = (&scene.context.actor, &snapshot.observation);
    let refused = actor.carry_out(&snapshot.rollout, it, &decision, Instant::now());
    assert!(refused.await.unwrap_err().is_conflict());
    assert!(scene.server.get(&path).is_some());
}

#[tokio::test]
async fn a_record_that_an_earlier_build_began_is_made_to_outlive_its_rollout() {
    let mut scene = Scene::serving("web").await;
    scene.deploy("web", "app:2");
    scene.reconcile("web").await.unwrap();
    let run = scene.status("web")["change"]["run"].clone();
    let folder = ROLLOUTS.replace("rollouts", "rolloutruns");
    let path = format!("{folder}/{}", run.as_str().unwrap());
    let mut record = scene.server.get(&path).unwrap();
    let metadata = record["metadata"].as_object_mut().unwrap();
    metadata["labels"] =
        json!({ "countersign.dev/rollout-uid": metadata["labels"]["countersign.dev/rollout-uid"] });
    let owner = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "u",
    });
    metadata.insert("ownerReferences".into(), json!([owner]));
    scene.server.put(&path, record);
    scene.deploy("web", "app:1");
    for _ in 0..3 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    let record = scene.server.get(&path).unwrap();
    let labels = &record["metadata"]["labels"];
    assert_eq!(labels["countersign.dev/keep-for"], "168h", "{record}");
    assert_eq!(labels["countersign.dev/rollout"], "web");
    assert_eq!(record["metadata"].get("ownerReferences"), None);
}

#[tokio::test]
async fn records_whose_list_has_expired_are_listed_again() {
    let mut scene = Scene::serving("web").await;
    scene.deploy("web", "app:2");
    let (is_run, expired) = (to("rolloutruns"), AtomicBool::new(false));
    scene.server.fails(move |request| {
        let is_first = is_run(request) && request.method == "GET" && !expired.swap(true, SeqCst);
        is_first.then_some(Fault::Refuse(410))
    });
    scene.server.requests();
    scene.reconcile("web").await.unwrap();
    let lists = kinds_read(&scene).into_iter();
    assert_eq!(lists.filter(|it| it == "rolloutruns").count(), 2);
    let message = scene.status("web")["change"]["transitions"][0]["message"].clone();
    let message = message.as_str().unwrap();
    assert!(!message.contains("cannot be read"), "{message}");
}
