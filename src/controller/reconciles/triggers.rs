//! Which Rollouts a trigger reconciles.

use super::*;

/// The names of the Rollouts that these triggers reconcile.
pub(super) async fn reconciled_by(scene: &Scene, triggers: Vec<Trigger>) -> Vec<String> {
    let (send, receive) = mpsc::unbounded_channel();
    for trigger in triggers {
        send.send(trigger).unwrap();
    }
    drop(send);
    let targets = targets(scene.context.clone(), receive);
    let mut names: Vec<_> = targets.map(|it| it.name).collect().await;
    names.sort();
    names
}

#[tokio::test]
async fn a_deletion_concerns_those_alone_who_may_have_waited_for_it() {
    let mut scene = Scene::new();
    let gone = scene.deploy("gone", "app:1");
    scene.deploy("other", "app:1");
    let path = format!("{ROLLOUTS}/same");
    scene.deploy("same", "app:1");
    let mut same = scene.server.get(&path).unwrap();
    same["spec"] = scene.server.get(&format!("{ROLLOUTS}/gone")).unwrap()["spec"].clone();
    scene.server.put(&path, same);
    scene.claim("same");
    scene.deploy("dependent", "app:1");
    let path = format!("{ROLLOUTS}/dependent");
    let mut dependent = scene.server.get(&path).unwrap();
    dependent["spec"]["dependsOn"] = json!(["gone"]);
    scene.server.put(&path, dependent);
    scene.claim("dependent");
    scene
        .claims
        .apply_watcher_event(&Event::Delete((*gone).clone()));
    let twice = vec![Trigger::Deleted(gone.clone()), Trigger::Deleted(gone)];
    assert_eq!(reconciled_by(&scene, twice).await, ["dependent", "same"]);
}

#[tokio::test]
async fn deletions_wake_the_queue_once_and_only_if_one_held_it_up() {
    let mut scene = Scene::new();
    let queued = RolloutStatus {
        waiting_for: Some(Reason::Queued.into()),
        change: Some(Change {
            queued_at: Some(Time(Timestamp::UNIX_EPOCH)),
            ..Change::default()
        }),
        ..RolloutStatus::default()
    };
    let none = RolloutStatus::default();
    scene.context.waiting.note("shop", "next", &none, &queued);
    let changes = |changes: &[Value]| -> Vec<Value> {
        let changes = changes.iter();
        changes.map(|it| json!({ "change": it })).collect()
    };
    let idle = changes(&[
        Value::Null,
        json!({ "stage": "Promoted", "outcome": "Promoted" }),
        json!({ "stage": "RolledBack", "outcome": "RolledBack" }),
        json!({ "stage": "Waiting" }),
        json!({ "stage": "Promoting", "initial": true }),
    ]);
    let mut busy = changes(&[
        json!({ "stage": "Stepping" }),
        json!({ "stage": "RollingBack", "outcome": "RolledBack" }),
    ]);
    busy.push(json!({ "waitingFor": "Queued", "change": { "stage": "Waiting" } }));
    for (statuses, woken) in [(idle, 0), (busy, 1)] {
        let mut deleted = Vec::new();
        for (number, status) in statuses.into_iter().enumerate() {
            let name = format!("gone-{number}");
            scene.deploy(&name, "app:1");
            let path = format!("{ROLLOUTS}/{name}");
            let mut rollout = scene.server.get(&path).unwrap();
            rollout["status"] = status;
            scene.server.put(&path, rollout);
            let claim = scene.claim(&name);
            scene
                .claims
                .apply_watcher_event(&Event::Delete((*claim).clone()));
            deleted.push(Trigger::Deleted(claim));
        }
        assert_eq!(reconciled_by(&scene, deleted).await, [""; 0]);
        let mut count = 0;
        while scene.woken.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, woken);
    }
}

#[tokio::test]
async fn a_freeze_concerns_those_that_it_selects_and_that_change() {
    let mut scene = Scene::new();
    for (name, outcome) in [
        ("idle", None),
        ("over", Some(json!("Promoted"))),
        ("changing", Some(Value::Null)),
    ] {
        scene.deploy(name, "app:1");
        let path = format!("{ROLLOUTS}/{name}");
        let mut rollout = scene.server.get(&path).unwrap();
        rollout["metadata"]["labels"] = json!({ "team": name });
        if let Some(outcome) = outcome {
            rollout["status"] = json!({ "change": { "outcome": outcome } });
        }
        scene.server.put(&path, rollout);
        scene.claim(name);
    }
    let everybody = Scope::default();
    let frozen = vec![
        Trigger::Frozen(everybody.clone()),
        Trigger::Frozen(everybody.clone()),
    ];
    assert_eq!(reconciled_by(&scene, frozen).await, ["changing"]);
    let governed = vec![Trigger::Governed(everybody)];
    assert_eq!(
        reconciled_by(&scene, governed).await,
        ["changing", "idle", "over"]
    );
}
