//! GitOps tools: what Argo CD's actions create passes admission, and a sync that changes nothing has no effect.

use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Rollout};
use countersign_cluster::wait_for;
use serde_json::{Value, json};

use crate::identity::user::{APPLY, User, path, until_enforced};
use crate::inputs::drift;
use crate::lua::{run, script};
use crate::support::{App, Scene, TIMEOUT, ended, phase, waits_for};

/// What `integrations/argocd/rbac.yaml` grants Argo CD's API server.
fn granted() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/integrations/argocd/rbac.yaml");
    let yaml = std::fs::read_to_string(file).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    documents[0]["rules"].clone()
}

/// As Argo CD runs an action: its script makes an object of the live one, which is created after a dry run.
async fn act(scene: &Scene, user: &User, action: &str) -> Value {
    let live = live(scene).await;
    let made = run(&script(&format!("{action}.lua")), &live);
    assert_eq!(made[0]["operation"], "create");
    let object = &made[0]["resource"];
    let interventions = path(scene, "interventions");
    let dry = format!("{interventions}?dryRun=All");
    // The API server's policies observe the change a moment later.
    let poll = async || user.create(&dry, object).await;
    wait_for("the dry run passes", TIMEOUT, poll).await.unwrap();
    user.create(&interventions, object).await.unwrap()
}

async fn live(scene: &Scene) -> Value {
    let admin = User::admin(scene);
    admin.get(&path(scene, "rollouts/shop")).await.unwrap()
}

/// Whether Argo CD offers to abort and to pause.
fn offered(live: &Value) -> (bool, bool) {
    let actions = run(&script("discovery.lua"), live);
    let is_offered = |name: &str| actions[name]["disabled"] == false;
    (is_offered("abort"), is_offered("pause"))
}

fn health(live: &Value) -> Value {
    run(&script("health.lua"), live)["status"].clone()
}

#[tokio::test]
async fn argo_cd_pauses_a_change_and_aborts_it_with_the_two_verbs() {
    let scene = Scene::new("argo-cd").await;
    until_enforced(&scene).await;
    let app = scene.serving(App::new("shop")).await;
    let stable = live(&scene).await;
    assert_eq!(
        (health(&stable), offered(&stable)),
        (json!("Healthy"), (false, false))
    );
    let argo_cd = User::service_account(&scene, "argocd-server").await;
    scene.grant_rules(&argo_cd.name, granted()).await;
    let _load = scene.load(&app, 50).await;
    let (next, rollout) = scene.baking(&app).await;
    let baking = live(&scene).await;
    assert_eq!(
        (health(&baking), offered(&baking)),
        (json!("Progressing"), (true, true))
    );

    let pause = act(&scene, &argo_cd, "pause").await;
    assert_eq!(pause["spec"]["person"]["username"], argo_cd.name);
    let owner = &pause["metadata"]["ownerReferences"];
    assert_eq!(owner.as_array().unwrap().len(), 1, "{owner}");
    assert_eq!(owner[0]["uid"], rollout.metadata.uid.unwrap());
    scene
        .until(&next, "it is paused", |it| waits_for(it, "Paused"))
        .await;
    let paused = live(&scene).await;
    assert_eq!(
        (health(&paused), offered(&paused)),
        (json!("Suspended"), (true, false))
    );

    act(&scene, &argo_cd, "abort").await;
    scene
        .until(&next, "it is rolled back", |it| {
            phase(it) == Phase::Degraded
        })
        .await;
    let record = scene.outcome(&next).await;
    let progress = &record.spec.progress;
    assert!(ended(&record, Outcome::RolledBack), "{progress:?}");
    let lines = &progress.transitions;
    let message = format!("aborted by {}: requested in Argo CD", argo_cd.name);
    assert!(
        lines.iter().any(|line| line.message == message),
        "{lines:?}"
    );
    let aborted = live(&scene).await;
    assert_eq!(
        (health(&aborted), offered(&aborted)),
        (json!("Degraded"), (false, false))
    );
}

/// Neither what an autoscaler does nor what admission writes is a difference, to a tool that leaves `replicas` out.
#[tokio::test]
async fn a_sync_that_changes_nothing_leaves_the_rollout_as_it_is() {
    let scene = Scene::new("sync").await;
    until_enforced(&scene).await;
    let argo_cd = User::service_account(&scene, "argocd-application-controller").await;
    let writes = json!({ "apiGroups": ["countersign.dev"], "resources": ["rollouts"], "verbs": ["create", "get", "patch"] });
    scene.grant_rules(&argo_cd.name, json!([writes])).await;
    let app = App::new("shop");
    scene.service(&app.name, &app.name).await;
    let mut manifest = app.manifest();
    manifest["spec"].as_object_mut().unwrap().remove("replicas");
    let own = path(&scene, "rollouts/shop") + "?fieldManager=argocd-controller&force=true";
    let sync = async || argo_cd.send("PATCH", &own, APPLY, &manifest).await.unwrap();
    sync().await;
    let serves = |it: &Rollout| phase(it) == Phase::Stable;
    scene.until(&app, "it serves", serves).await;

    let scale = path(&scene, "rollouts/shop/scale");
    let three = json!({ "spec": { "replicas": 3 } });
    User::admin(&scene).merge(&scale, &three).await.unwrap();
    let scaled = |it: &Rollout| {
        let status = it.status.as_ref();
        serves(it) && status.is_some_and(|status| status.available_replicas == 3)
    };
    scene.until(&app, "it is scaled", scaled).await;
    let before = live(&scene).await;
    let stamp = &before["metadata"]["annotations"]["countersign.dev/changed-by"];
    assert_eq!(*stamp, argo_cd.name, "the API server has stamped it");
    let mut found = Vec::new();
    drift(&manifest, &before, "Rollout", &mut found);
    assert!(found.is_empty(), "out of sync: {found:?}");

    let after = sync().await;
    assert_eq!(after["spec"], before["spec"]);
    for field in ["annotations", "generation"] {
        assert_eq!(
            after["metadata"][field], before["metadata"][field],
            "{field}"
        );
    }
    assert_eq!(scene.records(&app).await.len(), 1, "it is no change");
}
