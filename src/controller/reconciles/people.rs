//! What people decided: how it is read, and deleted with its record.

use super::*;

/// A sign-off of a person for a run.
fn sign_off(scene: &Scene, name: &str, run: &str) -> String {
    let path = ROLLOUTS.replace("rollouts", &format!("signoffs/{name}"));
    scene.server.put(
        &path,
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "SignOff", "metadata": { "name": name },
            "spec": {
                "rollout": "web", "rolloutUid": format!("uid-of-{ROLLOUTS}/web"), "run": run,
                "digest": "d", "decision": "Approve", "approver": { "username": "alice" },
            },
        }),
    );
    path
}

/// A scene with a change under way, and the name of its RolloutRun.
async fn changing() -> (Scene, String) {
    let mut scene = Scene::serving("web").await;
    scene.deploy("web", "app:2");
    scene.reconcile("web").await.unwrap();
    let run = scene.status("web")["change"]["run"]
        .as_str()
        .unwrap()
        .to_owned();
    (scene, run)
}

/// The pages of sign-offs that were read since the last call.
fn pages(scene: &Scene) -> Vec<RecordedRequest> {
    let mut requests = scene.server.requests();
    requests.retain(|it| to("signoffs")(it) && it.query.contains("limit=100"));
    requests
}

#[tokio::test]
async fn sign_offs_are_read_page_by_page_however_long_all_of_them_take() {
    let (scene, run) = changing().await;
    for number in 0..250 {
        sign_off(&scene, &format!("own-{number}"), &run);
        sign_off(&scene, &format!("old-{number}"), "web-0");
    }
    let is_sign_off = to("signoffs");
    scene
        .server
        .fails(move |request| is_sign_off(request).then_some(Fault::Delay(Duration::from_secs(2))));
    pages(&scene);
    let (snapshot, _) = late(&scene, vec![]).await;
    assert_eq!(snapshot.observation.people.unreadable_requests, [""; 0]);
    assert_eq!(snapshot.observation.people.sign_offs.len(), 250);
    let pages = pages(&scene);
    let selects = |it: &&RecordedRequest| it.query.contains("fieldSelector=spec.rolloutUid");
    assert_eq!(pages.iter().filter(selects).count(), 3, "{pages:?}");
    assert_eq!(pages.len(), 3, "those of other attempts are not read");
}

#[tokio::test]
async fn where_the_api_server_selects_by_no_field_the_operator_does() {
    let (scene, run) = changing().await;
    sign_off(&scene, "own", &run);
    for number in 0..150 {
        sign_off(&scene, &format!("old-{number}"), "web-0");
    }
    scene.server.fails(|_| Some(Fault::NoFields));
    for refused in [2, 0] {
        pages(&scene);
        let (snapshot, _) = late(&scene, vec![]).await;
        let people = &snapshot.observation.people;
        assert_eq!(people.unreadable_requests, [""; 0]);
        let names: Vec<_> = people.sign_offs.iter().map(|it| &*it.name).collect();
        assert_eq!(names, ["own"]);
        // Both kinds may be asked at the same time, and none again.
        let pages = pages(&scene);
        let selecting = pages.iter().filter(|it| it.query.contains("fieldSelector"));
        assert!(selecting.count() <= refused, "{pages:?}");
        assert!(pages.len() >= 2, "{pages:?}");
    }
}

#[tokio::test]
async fn more_sign_offs_than_are_read_hold_the_change_and_hide_no_rejection() {
    let (scene, run) = changing().await;
    for number in 0..1_001 {
        sign_off(&scene, &format!("a-{number}"), &run);
    }
    // More than a page of them: those of the attacker count for nothing.
    for number in 0..150 {
        let rejection = sign_off(&scene, &format!("z-{number:03}"), &run);
        let mut rejected = scene.server.get(&rejection).unwrap();
        rejected["spec"]["decision"] = json!("Reject");
        scene.server.put(&rejection, rejected);
    }
    let (snapshot, _) = late(&scene, vec![]).await;
    let people = &snapshot.observation.people;
    let problem = &people.unreadable_requests[0];
    let expected = "there are more sign-offs than the 1150 that are read: abort the change";
    assert!(problem.starts_with(expected), "{problem}");
    assert!(people.sign_offs.iter().any(|it| it.name == "z-149"));
}

#[tokio::test]
async fn what_people_decided_on_a_change_goes_with_its_record() {
    let scene = Scene::serving("web").await;
    let record = scene.server.paths("rolloutruns").remove(0);
    let run = record.rsplit('/').next().unwrap().to_owned();
    let (old, other) = (sign_off(&scene, "a", &run), sign_off(&scene, "b", "web-9"));
    let delete = Write::History(HistoryAction::DeleteRun { run });
    let (snapshot, decision) = late(&scene, vec![delete]).await;
    let (actor, it) = (&scene.context.actor, &snapshot.observation);
    let is_sign_off = to("signoffs");
    scene.server.fails(move |request| {
        (is_sign_off(request) && request.method == "DELETE").then_some(Fault::Refuse(403))
    });
    let refused = actor.carry_out(&snapshot.rollout, it, &decision, Instant::now());
    assert!(refused.await.is_err());
    assert!(scene.server.get(&record).is_some(), "the record goes last");

    scene.server.fails(|_| None);
    let done = actor.carry_out(&snapshot.rollout, it, &decision, Instant::now());
    done.await.unwrap();
    assert_eq!(scene.server.get(&record), None);
    assert_eq!(scene.server.get(&old), None);
    assert!(scene.server.get(&other).is_some());
}
