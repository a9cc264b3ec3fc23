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
    let mut scene = Scene::at_rest("web").await;
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

/// The writes of one reconcile, without Events.
async fn written_by_one(scene: &mut Scene) -> Vec<String> {
    scene.server.requests();
    scene.reconcile("web").await.unwrap();
    let requests = scene.server.requests().into_iter();
    let writes = requests.filter(|it| it.method != "GET" && !to("events")(it));
    let what = writes.map(|it| {
        let (_, named) = it.path.split_once("/namespaces/shop/").unwrap();
        let mut parts = named.split('/');
        let kind = parts.next().unwrap_or_default();
        match parts.nth(1) {
            Some(part) => format!("{kind}/{part}"),
            None => kind.to_owned(),
        }
    });
    what.collect()
}

/// The reasons of the transitions of the change.
fn lines(scene: &Scene) -> Vec<Value> {
    let change = scene.status("web")["change"].clone();
    let lines = change["transitions"].as_array().unwrap().iter();
    lines.map(|line| line["reason"].clone()).collect()
}

/// The RolloutRun of the change.
fn record(scene: &Scene) -> Value {
    let run = &scene.status("web")["change"]["run"];
    let path = format!("rolloutruns/{}", run.as_str().unwrap());
    let path = ROLLOUTS.replace("rollouts", &path);
    scene.server.get(&path).unwrap()
}

#[tokio::test]
async fn a_change_that_awaits_nothing_takes_its_first_step_with_its_first_status() {
    let mut scene = Scene::at_rest("web").await;
    scene.deploy("web", "app:2");
    assert_eq!(
        written_by_one(&mut scene).await,
        ["rollouts/status", "replicasets", "rolloutruns"],
        "law 5: the status comes first"
    );
    let change = &scene.status("web")["change"];
    assert_eq!(change["stage"], "Stepping");
    assert_eq!(lines(&scene), ["ChangeStarted", "StepStarted"]);
    assert_eq!(record(&scene)["spec"]["digest"], change["digest"]);
}

#[tokio::test]
async fn a_change_that_waits_says_so_in_its_first_status() {
    let mut scene = Scene::at_rest("web").await;
    scene.server.put(
        "/apis/countersign.dev/v1alpha1/freezes/all",
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze", "metadata": { "name": "all" },
            "spec": { "reason": "an incident", "action": "Hold", "person": { "username": "alice" } },
        }),
    );
    scene.deploy("web", "app:2");
    let written = written_by_one(&mut scene).await;
    assert_eq!(written, ["rollouts/status", "rolloutruns"]);
    let status = scene.status("web");
    assert_eq!(status["change"]["stage"], "Waiting");
    assert_eq!(status["waitingFor"], "Frozen");
    assert_eq!(lines(&scene), ["ChangeStarted"]);
}

#[tokio::test]
async fn a_status_that_is_refused_leaves_nothing_of_the_decisions_in_it() {
    let mut scene = Scene::at_rest("web").await;
    let sets = scene.server.paths("replicasets");
    let runs = scene.server.paths("rolloutruns");
    scene.deploy("web", "app:2");
    let status = |it: &RecordedRequest| it.method != "GET" && it.path.ends_with("/status");
    scene
        .server
        .fails(move |it| status(it).then_some(Fault::Refuse(409)));
    scene.reconcile("web").await.unwrap_err();
    assert!(scene.status("web")["change"].is_null());
    assert_eq!(scene.server.paths("replicasets"), sets);
    assert_eq!(scene.server.paths("rolloutruns"), runs);
}

#[tokio::test]
async fn the_record_of_a_change_describes_its_begin_whatever_its_first_status_tells_beside() {
    let mut scene = Scene::new();
    let tier = json!({ "signOff": [{ "count": 1 }] });
    let policy = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy",
        "metadata": { "name": "observed", "generation": 1 },
        "spec": {
            "enforcement": "Observe",
            "tiers": { "low": tier, "medium": tier, "high": tier, "critical": tier },
        },
    });
    scene.govern(policy);
    scene.deploy("web", "app:1");
    let path = format!("{ROLLOUTS}/web");
    let mut rollout = scene.server.get(&path).unwrap();
    rollout["metadata"]["annotations"] =
        json!({ "provenance.countersign.dev/contributor": "human" });
    scene.server.put(&path, rollout);
    for _ in 0..6 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    scene.deploy("web", "app:2");
    scene.reconcile("web").await.unwrap();
    assert_eq!(
        lines(&scene),
        ["ChangeStarted", "Observed", "StepStarted"],
        "in one status"
    );
    let spec = &record(&scene)["spec"];
    let difference = spec["difference"].as_str().unwrap();
    assert!(difference.contains("image: app:2"), "{difference}");
    assert!(
        !difference.contains("provenance"),
        "the same as before: {difference}"
    );
    let transitions = spec["progress"]["transitions"].as_array().unwrap();
    assert_eq!(transitions.len(), 3);
}
