//! What users know from kubectl: field selectors, formats, watches, dry runs and `TYPE/NAME`.

use countersign_api::SignOff;
use kube::api::ListParams;

use super::*;

/// A change that waits for two approvers.
async fn waiting(scene: &Scene) -> App {
    demand_sign_off(scene).await;
    let app = scene.serving(App::new("shop")).await;
    scene.apply(&app.version("v2")).await;
    scene
        .until(&app, "it waits for people", |rollout| {
            waits_for(rollout, "AwaitingSignOff")
        })
        .await;
    app
}

#[tokio::test]
async fn what_waits_for_people_is_selected_by_the_api_server() {
    let scene = Scene::new("plugin-fields").await;
    waiting(&scene).await;
    let quiet = scene.serving(App::new("quiet")).await;
    let shop = format!("{}/shop\n", scene.namespace);
    let template = r#"jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}"#;
    let selected =
        "--field-selector status.phase=AwaitingSignOff,status.waitingFor=AwaitingSignOff";
    let line = format!("get -A {selected} -o '{template}'");
    let listed = admin(&scene).runs(&line).await.exits(0).out(&[&shop]);
    let other = format!("{}/{}", scene.namespace, quiet.name);
    assert!(!listed.out.contains(&other), "{}", listed.out);

    // The same by kubectl itself.
    let selected = ["--field-selector", "status.phase=AwaitingSignOff"];
    let kubectl = ["get", "cro", "-A", "-o", template];
    let kubectl = admin(&scene).command("kubectl", &[&kubectl[..], &selected].concat());
    let listed = output_of(kubectl).await.exits(0).out(&[&shop]);
    assert!(!listed.out.contains(&other), "{}", listed.out);

    let line = "history --field-selector spec.rollout=shop --no-headers";
    let changes = admin(&scene).runs(line).await.exits(0).out;
    assert_eq!(changes.lines().count(), 2, "{changes}");
    let line = "history --field-selector spec.rollout=none --no-headers";
    assert_eq!(admin(&scene).runs(line).await.exits(0).out, "");
}

#[tokio::test]
async fn a_dry_run_on_the_server_is_refused_or_accepted_like_the_real_one_and_stores_nothing() {
    let scene = Scene::new("plugin-dry-run").await;
    waiting(&scene).await;
    let alice = Person::new(&scene, "alice", &member(vec![])).await;
    let bob = Person::new(&scene, "bob", &member(creates("signoffs", &["approve"]))).await;

    let line = "approve rollout/shop --dry-run=server -o json";
    alice
        .runs(line)
        .await
        .exits(1)
        .err(&["alice cannot create signoffs"]);
    let accepted = bob.runs(line).await.exits(0);
    let sign_off: Value = serde_json::from_str(&accepted.out).unwrap();
    assert_eq!(sign_off["kind"], "SignOff");
    assert_eq!(sign_off["spec"]["approver"]["username"], "bob");
    assert!(sign_off["metadata"]["uid"].is_string(), "{sign_off}");

    let line = "abort shop --dry-run=client";
    alice.runs(line).await.exits(0).out(&["action: Abort"]);
    let undone = alice.runs("undo cro/shop --dry-run=client").await.exits(0);
    undone.out(&["example.org/shop:v1"]);
    let sign_offs: Api<SignOff> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let stored = sign_offs.list(&ListParams::default()).await.unwrap();
    assert!(stored.items.is_empty(), "{:?}", stored.items);
}

#[tokio::test]
async fn a_followed_list_has_a_line_for_each_change_of_a_rollout() {
    let scene = Scene::new("plugin-follow").await;
    let app = scene.serving(App::new("shop")).await;
    let mut command = admin(&scene).command(&PLUGIN, &["get", "shop", "-w", "--no-headers"]);
    let mut follow = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let first = within("the Rollout is listed", lines.next_line()).await;
    assert!(first.unwrap().unwrap().starts_with("shop   Stable"));
    scene.apply(&app.version("v2").spec(slow())).await;
    let mut printed = String::new();
    while !printed.contains("shop   Progressing") {
        let what = format!("the change is listed after:\n{printed}");
        let line = within(&what, lines.next_line()).await.unwrap();
        printed += &(line.expect("the list continues") + "\n");
    }
}

#[tokio::test]
async fn the_versions_are_those_of_the_plugin_and_of_the_deployment() {
    let scene = Scene::new("plugin-version").await;
    let version = env!("CARGO_PKG_VERSION");
    admin(&scene).runs("version").await.exits(0).out(&[
        &format!("Plugin version: {version}\n"),
        &format!("Operator version: {version} (Deployment countersign-system/countersign)\n"),
    ]);
    admin(&scene)
        .runs("version --client -o json")
        .await
        .exits(0);
}
