//! People decide at a shell: they sign, reject, retry, pause, resume, skip a bake and freeze.

use super::*;

#[tokio::test]
async fn two_people_sign_what_they_saw_and_the_author_does_not_count() {
    let scene = Scene::new("plugin-approve").await;
    demand_sign_off(&scene).await;
    let app = scene.serving(App::new("shop")).await;
    let approves = creates("signoffs", &["approve"]);
    let author = [approves.clone(), vec![edits()]].concat();
    let alice = Person::new(&scene, "alice", &member(author)).await;
    let bob = Person::new(&scene, "bob", &member(approves.clone())).await;
    let carol = Person::new(&scene, "carol", &member(approves)).await;
    let _load = scene.load(&app, 150).await;

    alice.runs("restart shop").await.exits(0);
    let waiting = scene
        .until(&app, "it waits for people", |rollout| {
            waits_for(rollout, "AwaitingSignOff")
        })
        .await;
    let digest = waiting.status.unwrap().change.unwrap().digest;
    alice
        .runs("status shop")
        .await
        .exits(3)
        .out(&["step-1: 0 of 2 people of approvers signed; missing: 2 of approvers"]);
    alice.runs("approve shop --yes").await.exits(1);
    bob.runs("approve shop --yes --reason 'looks good' --expires 1h")
        .await
        .exits(0)
        .out(&["Risk:", &digest[..12], "by bob", "it counts"]);
    bob.runs("approve shop --yes")
        .await
        .exits(1)
        .out(&["SamePerson"]);
    alice
        .runs("status shop")
        .await
        .exits(3)
        .out(&["1 of 2 people of approvers signed (bob); missing: 1 of approvers"]);
    let exact = format!("approve shop --digest {}", &digest[..8]);
    carol.runs(&exact).await.exits(0).out(&["it counts"]);
    assert!(ended(&scene.outcome(&app).await, Outcome::Promoted));
    alice
        .runs("history shop")
        .await
        .exits(0)
        .out(&["bob,carol"]);
}

#[tokio::test]
async fn an_approver_sees_the_changed_command_before_the_approval_counts() {
    let scene = Scene::new("plugin-difference").await;
    demand_sign_off(&scene).await;
    let app = scene.serving(App::new("shop")).await;
    let bob = Person::new(&scene, "bob", &member(creates("signoffs", &["approve"]))).await;
    let mut changed = app.manifest();
    changed["spec"]["template"]["spec"]["containers"][0]["command"] = json!(["/app", "--open"]);
    scene.apply_manifest(&changed).await;
    scene
        .until(&app, "it waits for people", |rollout| {
            waits_for(rollout, "AwaitingSignOff")
        })
        .await;

    let approved = bob.runs("approve shop --yes").await.exits(0).out(&[
        "Difference from revision 1, whose template is verified by its digest",
        "--- stable template\n+++ proposed template\n",
        "+  - command:\n",
    ]);
    let line = approved.out.find("+    - --open\n");
    let counts = approved.out.find("it counts");
    assert!(line.is_some() && line < counts, "{}", approved.out);

    let runs = scene.records(&app).await;
    let difference = runs[1].spec.difference.clone().unwrap_or_default();
    assert!(difference.contains("+    - --open\n"), "{difference}");
}

#[tokio::test]
async fn a_rejection_rolls_back_and_a_retry_tries_once_more() {
    let scene = Scene::new("plugin-reject").await;
    let app = scene.serving(App::new("shop")).await;
    let bob = Person::new(&scene, "bob", &member(creates("signoffs", &["approve"]))).await;
    let on_call = creates(
        "interventions",
        &["abort", "retry", "promote", "pause", "resume"],
    );
    let dave = Person::new(&scene, "dave", &member(on_call)).await;
    let _load = scene.load(&app, 150).await;
    let next = app.version("v2").spec(slow());
    scene.apply(&next).await;
    stepping(&scene, &next).await;

    bob.runs("reject shop --yes --reason 'wrong customer'")
        .await
        .exits(0)
        .out(&["rejected by bob", "it counts"]);
    assert!(ended(&scene.outcome(&next).await, Outcome::RolledBack));
    dave.runs("abort shop")
        .await
        .exits(1)
        .err(&["nothing to abort"]);
    dave.runs("retry shop --reason 'right after all'")
        .await
        .exits(0)
        .out(&["done"]);
    scene
        .until(&next, "the new attempt has begun", |rollout| {
            phase(rollout) != Phase::Degraded
        })
        .await;
    stepping(&scene, &next).await;
    dave.runs("abort shop")
        .await
        .exits(0)
        .out(&["abort", "by dave", "done"]);
    scene
        .until(&next, "it is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
}

#[tokio::test]
async fn the_person_on_call_pauses_resumes_and_skips_a_bake() {
    let scene = Scene::new("plugin-pause").await;
    let app = scene.serving(App::new("shop")).await;
    let on_call = creates(
        "interventions",
        &["abort", "retry", "promote", "pause", "resume"],
    );
    let dave = Person::new(&scene, "dave", &member(on_call)).await;
    let _load = scene.load(&app, 150).await;
    let next = app.version("v2").spec(slow());
    scene.apply(&next).await;
    stepping(&scene, &next).await;

    dave.runs("resume shop")
        .await
        .exits(1)
        .err(&["nobody has paused"]);
    dave.runs("pause shop").await.exits(0).out(&["done"]);
    dave.runs("pause shop")
        .await
        .exits(1)
        .err(&["paused by dave already"]);
    dave.runs("status shop")
        .await
        .exits(3)
        .out(&["paused by dave"]);
    dave.runs("resume shop").await.exits(0).out(&["done"]);
    dave.runs("promote shop --reason 'it is Friday'")
        .await
        .exits(0)
        .out(&["promote", "past the bake of step 1", "done"]);
    scene
        .until(&next, "the bake is left behind", |rollout| {
            let status = rollout.status.as_ref();
            let change = status.and_then(|status| status.change.as_ref());
            change.is_none_or(|change| change.step != 1)
        })
        .await;
}

#[tokio::test]
async fn a_freeze_holds_promotions_until_it_is_lifted() {
    let scene = Scene::new("plugin-freeze").await;
    let app = scene.serving(App::new("shop")).await;
    let dave = Person::new(&scene, "dave", &member(vec![])).await;
    let _load = scene.load(&app, 150).await;
    let name = format!("incident-{}", scene.namespace);
    let freeze = format!("freeze {name} --reason 'payments are down' --for 1h");
    dave.runs(&freeze).await.exits(0).out(&[
        "wait in namespaces with",
        &scene.namespace,
        "unfreeze",
    ]);
    scene.apply(&app.version("v2")).await;
    scene
        .until(&app, "it is frozen", |rollout| waits_for(rollout, "Frozen"))
        .await;
    dave.runs("status shop")
        .await
        .exits(3)
        .out(&[&name, "by dave", "payments are down"]);
    dave.runs("unfreeze nothing")
        .await
        .exits(1)
        .err(&["there is no freeze", &name]);
    let admin = admin(&scene);
    let unfrozen = admin.runs(&format!("unfreeze {name}")).await.exits(0);
    unfrozen.out(&["has ended, by admin at", "remains as the record"]);
    let freezes: Api<Freeze> = Api::all(scene.cluster.client());
    let record = freezes.get(&name).await.unwrap().spec;
    assert_eq!(record.person.username, "admin");
    assert!(record.until.unwrap().0 <= clock::now());
    dave.runs(&format!("unfreeze {name}"))
        .await
        .exits(1)
        .err(&["has ended already"]);
    dave.runs(&freeze)
        .await
        .exits(1)
        .err(&["exists already", "give another name"]);
    assert!(ended(&scene.outcome(&app).await, Outcome::Promoted));
}
