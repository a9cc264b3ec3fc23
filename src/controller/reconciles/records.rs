//! RolloutRuns, which another leader or an earlier build may have written.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use countersign_core::decision::Record;
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

#[tokio::test]
async fn law_5_a_record_whose_creation_was_not_answered_is_updated() {
    let scene = Scene::serving("web").await;
    let path = scene.server.paths("rolloutruns").remove(0);
    let mut stored = scene.server.get(&path).unwrap();
    let recorded: countersign_api::RolloutRun = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(recorded.spec.progress.transitions.len(), 1);
    stored["metadata"]["labels"] = json!({});
    stored["spec"]["progress"] = json!({ "transitions": [] });
    scene.server.put(&path, stored);
    let (snapshot, mut decision) = late(&scene, vec![]).await;
    decision.record = Some(Record {
        name: path.rsplit('/').next().unwrap().to_owned(),
        spec: recorded.spec.clone(),
        keep_for: countersign_api::Duration::minutes(60),
    });
    scene.server.requests();
    let actor = &scene.context.actor;
    let written = actor.write_down(&snapshot.rollout, &snapshot.observation, &decision);
    written.await.unwrap();
    let requests = scene.server.requests().into_iter();
    let to_record = requests.filter(|it| it.path.contains("rolloutruns") && it.method != "GET");
    let methods: Vec<_> = to_record.map(|it| it.method.to_string()).collect();
    assert_eq!(methods, ["POST", "PATCH"]);
    let stored = scene.server.get(&path).unwrap();
    let uid = &stored["metadata"]["labels"]["countersign.dev/rollout-uid"];
    assert_eq!(*uid, json!(snapshot.rollout.metadata.uid));
    let stored: countersign_api::RolloutRun = serde_json::from_value(stored).unwrap();
    assert_eq!(stored.spec, recorded.spec);
}
