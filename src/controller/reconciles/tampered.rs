//! ReplicaSets that are not as the operator created them.

use countersign_api::PodTemplate;
use countersign_core::decision::NewReplicaSet;
use countersign_core::provenance::digest::template_digest;

use super::*;

/// The path of the only ReplicaSet.
fn only_set(scene: &Scene) -> String {
    let mut paths = scene.server.paths("replicasets");
    assert_eq!(paths.len(), 1);
    paths.remove(0)
}

fn set_image(set: &mut Value, image: &str) {
    set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
}

fn image_of(set: &Value) -> &str {
    let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
    image.as_str().unwrap()
}

/// The dry runs since the last call.
fn dry_runs(scene: &Scene) -> usize {
    let requests = scene.server.requests();
    let dry = |it: &&RecordedRequest| it.query.contains("dryRun=All");
    requests.iter().filter(dry).count()
}

fn tampered(scene: &Scene) -> Option<String> {
    let status = scene.status("web");
    let mut conditions = status["conditions"].as_array().unwrap().iter();
    let found = conditions.find(|it| it["type"] == "Tampered")?;
    assert_eq!(found["status"], "True");
    Some(found["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn law_11_an_edited_stable_replica_set_is_named_after_one_dry_run_and_replaced() {
    let mut scene = Scene::serving("web").await;
    let path = only_set(&scene);
    let mut set = scene.server.get(&path).unwrap();
    set_image(&mut set, "evil:1");
    set["metadata"]["managedFields"] = json!([{
        "manager": "kubectl-patch", "operation": "Update", "time": "2026-01-01T00:00:00Z",
        "fieldsV1": { "f:spec": { "f:template": { "f:spec": {} } } },
    }]);
    scene.server.put(&path, set);
    dry_runs(&scene);
    scene.reconcile("web").await.unwrap();
    let message = tampered(&scene).unwrap();
    for word in ["kubectl-patch", "template (image)", "2026-01-01T00:00:00Z"] {
        assert!(message.contains(word), "{message}");
    }
    let before = path.rsplit('-').next().unwrap();
    let stable = scene.status("web")["stable"]["podTemplateHash"].clone();
    assert_ne!(stable, before);
    let edited = scene.server.get(&path).unwrap();
    assert_eq!(
        edited["spec"]["replicas"], 1,
        "its pods serve until others do"
    );
    for _ in 0..3 {
        scene.pods_are_ready();
        scene.reconcile("web").await.unwrap();
    }
    assert_eq!(dry_runs(&scene), 1);
    for path in scene.server.paths("replicasets") {
        let set = scene.server.get(&path).unwrap();
        let is_edited = image_of(&set) == "evil:1";
        assert_eq!(set["spec"]["replicas"], i32::from(!is_edited), "{path}");
    }
    scene.pods_are_ready();
    scene.reconcile("web").await.unwrap();
    assert_eq!(tampered(&scene), None);
    assert_eq!(scene.status("web")["phase"], "Stable");
}

/// Its annotations, too, so that all of it agrees.
#[tokio::test]
async fn law_11_an_edit_of_template_and_annotations_stays_named_while_its_pods_serve() {
    let mut scene = Scene::serving("web").await;
    let path = only_set(&scene);
    let mut set = scene.server.get(&path).unwrap();
    set_image(&mut set, "evil:1");
    let annotations = &mut set["metadata"]["annotations"];
    let recorded = annotations["countersign.dev/template"].as_str().unwrap();
    let mut recorded: Value = serde_json::from_str(recorded).unwrap();
    recorded["spec"]["containers"][0]["image"] = json!("evil:1");
    annotations["countersign.dev/template"] = json!(recorded.to_string());
    let digest = template_digest(&PodTemplate(recorded));
    annotations["countersign.dev/template-digest"] = json!(digest);
    scene.server.put(&path, set);
    scene.reconcile("web").await.unwrap();
    assert!(tampered(&scene).is_some());
    scene.reconcile("web").await.unwrap();
    let edited = scene.server.get(&path).unwrap();
    assert_eq!(
        (&edited["spec"]["replicas"], image_of(&edited)),
        (&json!(1), "evil:1")
    );
    assert!(tampered(&scene).is_some(), "no revision names it any more");
    for _ in 0..4 {
        scene.pods_are_ready();
        scene.reconcile("web").await.unwrap();
    }
    assert_eq!(tampered(&scene), None);
}

#[tokio::test]
async fn what_a_webhook_changes_is_verified_once_and_known_from_then_on() {
    let mut scene = Scene::new();
    scene.server.admits(|object| {
        if object["kind"] == "ReplicaSet" {
            let image = format!("proxy/{}", image_of(object));
            set_image(object, &image);
        }
    });
    scene.deploy("web", "app:1");
    for _ in 0..3 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    let status = scene.status("web");
    assert_eq!(status["phase"], "Stable");
    assert_eq!(stored_digest(&status).map(str::len), Some(64));
    assert_eq!((dry_runs(&scene), tampered(&scene)), (1, None));
    // Another version of the webhook, and another process.
    scene.server.admits(|_| ());
    let context = Arc::get_mut(&mut scene.context).unwrap();
    context.observer.dry_runs = DryRuns::default();
    scene.reconcile("web").await.unwrap();
    assert_eq!((dry_runs(&scene), tampered(&scene)), (0, None));
}

fn stored_digest(status: &Value) -> Option<&str> {
    status["stable"]["storedTemplateDigest"].as_str()
}

/// A revision of a build that did not compare, and a webhook that has changed since.
#[tokio::test]
async fn what_a_webhook_changed_before_an_upgrade_is_admitted_if_nobody_else_wrote_it() {
    for (others, is_admitted) in [(&[][..], true), (&["kubectl-patch"][..], false)] {
        let mut scene = Scene::new();
        scene.server.admits(|object| {
            if object["kind"] == "ReplicaSet" {
                set_image(object, "proxy/app:1");
            }
        });
        scene.deploy("web", "app:1");
        for _ in 0..3 {
            scene.reconcile("web").await.unwrap();
            scene.pods_are_ready();
        }
        assert_eq!(scene.status("web")["phase"], "Stable");
        let rollout = format!("{ROLLOUTS}/web");
        let mut before = scene.server.get(&rollout).unwrap();
        let stable = before["status"]["stable"].as_object_mut().unwrap();
        stable.remove("storedTemplateDigest").unwrap();
        scene.server.put(&rollout, before);
        let path = only_set(&scene);
        let mut set = scene.server.get(&path).unwrap();
        let managers = std::iter::once(&"countersign").chain(others);
        let entries: Vec<_> = managers
            .map(|manager| {
                json!({
                    "manager": manager, "operation": "Update", "time": "2026-01-01T00:00:00Z",
                    "fieldsV1": { "f:spec": { "f:template": { "f:spec": {} } } },
                })
            })
            .collect();
        set["metadata"]["managedFields"] = json!(entries);
        scene.server.put(&path, set);
        scene.server.admits(|_| ());
        let context = Arc::get_mut(&mut scene.context).unwrap();
        context.observer.dry_runs = DryRuns::default();
        scene.reconcile("web").await.unwrap();
        let status = scene.status("web");
        assert_eq!(tampered(&scene).is_none(), is_admitted, "{others:?}");
        if is_admitted {
            assert_eq!(stored_digest(&status).map(str::len), Some(64));
        }
    }
}

#[tokio::test]
async fn of_a_lost_revision_only_its_own_record_is_read() {
    let scene = Scene::serving("web").await;
    let record = scene.server.paths("rolloutruns").remove(0);
    let mut other = scene.server.get(&record).unwrap();
    other["metadata"] = json!({ "name": "another", "labels": other["metadata"]["labels"] });
    scene
        .server
        .put(&record.replace("/web-", "/another-"), other);
    scene.server.remove(&only_set(&scene));
    scene.server.requests();
    let (snapshot, _) = late(&scene, vec![]).await;
    assert_eq!(snapshot.observation.promoted.len(), 1);
    let requests = scene.server.requests();
    let reads: Vec<_> = requests
        .iter()
        .filter(|it| it.path.ends_with("/rolloutruns"))
        .collect();
    let [read] = reads[..] else {
        panic!("{reads:?}");
    };
    assert!(
        read.query.contains("fieldSelector=metadata.name"),
        "{read:?}"
    );
}

#[tokio::test]
async fn without_webhooks_no_dry_run_is_sent() {
    let mut scene = Scene::serving("web").await;
    scene.deploy("web", "app:2");
    for _ in 0..3 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    assert!(scene.status("web")["change"].is_object());
    assert_eq!(dry_runs(&scene), 0);
}

#[tokio::test]
async fn law_6_a_dry_run_that_fails_is_no_edit_and_is_repeated() {
    let mut scene = Scene::new();
    scene.server.admits(|object| {
        if object["kind"] == "ReplicaSet" {
            set_image(object, "proxy/app:1");
        }
    });
    let dry = |request: &RecordedRequest| request.query.contains("dryRun=All");
    scene
        .server
        .fails(move |request| dry(request).then_some(Fault::Refuse(403)));
    scene.deploy("web", "app:1");
    for _ in 0..3 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    let status = scene.status("web");
    assert_eq!(status["waitingFor"], "TemplateUnverified");
    assert_eq!((status.get("stable"), tampered(&scene)), (None, None));
    assert!(dry_runs(&scene) >= 2);
    scene.server.fails(|_| None);
    for _ in 0..2 {
        scene.reconcile("web").await.unwrap();
    }
    assert_eq!(scene.status("web")["phase"], "Stable");
}

#[tokio::test]
async fn a_foreign_replica_set_of_the_needed_name_is_not_merged_with_and_named() {
    let scene = Scene::serving("web").await;
    let path = only_set(&scene);
    let set = scene.server.get(&path).unwrap();
    let mut planted = set.clone();
    planted["metadata"]["labels"] = json!({});
    scene.server.put(&path, planted.clone());
    let exists = |request: &RecordedRequest| {
        let creates = request.method == "POST" && to("replicasets")(request);
        creates.then_some(Fault::Taken)
    };
    scene.server.fails(exists);
    let (snapshot, decision) = late(&scene, vec![create(&set)]).await;
    let (actor, it) = (&scene.context.actor, &snapshot.observation);
    let carry_out = actor.carry_out(&snapshot.rollout, it, &decision, Instant::now());
    let refused = carry_out.await.unwrap_err();
    assert!(matches!(refused, act::Error::NameTaken { .. }), "{refused}");
    let name = set["metadata"]["name"].as_str().unwrap();
    assert!(refused.to_string().contains(name), "{refused}");
    let stored = scene.server.get(&path).unwrap();
    assert_eq!(stored["spec"], planted["spec"]);

    // An own one, of which the answer was lost.
    scene.server.put(&path, set.clone());
    let carry_out = actor.carry_out(&snapshot.rollout, it, &decision, Instant::now());
    carry_out.await.unwrap();
}

#[tokio::test]
async fn a_revision_whose_name_is_taken_gets_another_one() {
    let mut scene = Scene::new();
    scene.deploy("web", "app:1");
    let taken = Mutex::new(None);
    scene.server.fails(move |request| {
        if request.method != "POST" || !to("replicasets")(request) {
            return None;
        }
        let name = request.body["metadata"]["name"].clone();
        let mut taken = taken.lock().unwrap();
        let first = taken.get_or_insert_with(|| name.clone());
        (*first == name).then_some(Fault::Taken)
    });
    let refused = scene.reconcile("web").await.unwrap_err();
    let is_taken = matches!(refused, Error::Write(act::Error::NameTaken { .. }));
    assert!(is_taken, "{refused}");
    for _ in 0..3 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    let status = scene.status("web");
    assert_eq!(
        (&status["phase"], &status["collisionCount"]),
        (&json!("Stable"), &json!(1))
    );
    assert!(only_set(&scene).ends_with(status["stable"]["podTemplateHash"].as_str().unwrap()));
}

/// The action that creates a ReplicaSet like this one.
fn create(set: &Value) -> Write {
    let text = |place: &str| set.pointer(place).unwrap().as_str().unwrap().to_owned();
    let template = text("/metadata/annotations/countersign.dev~1template");
    let new = NewReplicaSet {
        name: text("/metadata/name"),
        hash: text("/metadata/labels/pod-template-hash"),
        template_digest: text("/metadata/annotations/countersign.dev~1template-digest"),
        revision: 1,
        replicas: 1,
        template: serde_json::from_str(&template).unwrap(),
    };
    Write::Workload(WorkloadAction::CreateReplicaSet(new))
}
