//! Where the traffic goes, while a change is under way.

use std::panic::resume_unwind;

use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Rollout};
use countersign_cluster::{Kinds, wait_for};
use serde_json::{Value, json};

use super::tampered::unguarded;
use super::{agent, allow, at, editor, label, refused, serving, tried, unenforced};
use crate::identity::user::{User, path, until_enforced};
use crate::routes;
use crate::sign_off::Checkpoint;
use crate::support::{App, Scene, TIMEOUT, condition, ended, phase, waits_for};

fn canary(fields: Value) -> Value {
    json!({ "spec": { "strategy": { "canary": fields } } })
}

#[tokio::test]
async fn where_the_traffic_goes_is_edited_once_the_change_is_aborted() {
    let mut checkpoint = Checkpoint::new("steady", json!({})).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    let own = path(&checkpoint.scene, "rollouts/shop");
    // Each request has this header behind a proxy, so everybody would be a tester.
    let everybody = json!({ "headers": [{ "name": "x-forwarded-proto", "value": "https" }] });
    let routed = json!({
        "stableService": "shop", "canaryService": "shop-canary",
        "traffic": { "routes": [{ "name": "shop" }], "testers": everybody },
    });
    let edits = [
        canary(json!({ "stableService": "shop" })),
        canary(json!({ "canaryService": "shop" })),
        canary(routed),
    ];
    let words = ["403", "is under way: abort it before you edit"];
    for edit in &edits {
        refused(&checkpoint.alice, "PATCH", &own, edit, &words).await;
    }
    let mut copied = edits[2].clone();
    copied["spec"]["strategy"]["canary"]["steps"] = json!([{ "weight": 0, "mirror": 100 }]);
    let words = ["403", "edit stableService, canaryService, traffic, mirror"];
    refused(&checkpoint.alice, "PATCH", &own, &copied, &words).await;
    let larger = json!({ "spec": { "replicas": 5 } });
    tried(&checkpoint.alice, "PATCH", &own, &larger)
        .await
        .unwrap();

    let abort = json!({ "action": "Abort" });
    let abort = checkpoint.intervene(&checkpoint.alice, abort).await;
    checkpoint.answered(&abort.unwrap(), "Applied").await;
    checkpoint.until_degraded().await;
    for edit in &edits {
        tried(&checkpoint.alice, "PATCH", &own, edit).await.unwrap();
    }
    checkpoint.scene.remove_policy().await;
}

/// Finding F3, where no policy refuses the edit: with it the operator itself would send everybody to the canary.
#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn without_the_policy_an_edit_of_where_the_traffic_goes_starts_the_change_again() {
    let people = json!([{ "count": 1, "groups": ["approvers"] }]);
    let policy = json!({ "tiers": { "low": { "signOff": people } } });
    let mut checkpoint = Checkpoint::at(Scene::alone("unsteady").await, policy).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    checkpoint.waits("AwaitingSignOff").await;
    let approved = checkpoint.approve(&checkpoint.bob, json!({})).await;
    checkpoint.answered(&approved.unwrap(), "Counts").await;
    checkpoint.waits("Baking").await;
    let (scene, alice) = (&checkpoint.scene, &checkpoint.alice);
    let signed = scene.get(&next).await.status.unwrap().change.unwrap();

    let own = path(scene, "rollouts/shop");
    let edit = canary(json!({ "canaryService": "shop" }));
    // For as short as it can be: the operator believes no sign-off while it knows that a policy is altered.
    let edited = unenforced(scene, &["steady-traffic"], async || {
        let poll = async || alice.merge(&own, &edit).await;
        let what = "the policy lets the edit pass";
        wait_for(what, TIMEOUT, poll).await.unwrap();
    });
    edited.await.unwrap_or_else(|panic| resume_unwind(panic));
    let again = |rollout: &Rollout| {
        let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
        let begun = change.is_some_and(|it| it.run != signed.run && it.step == 0);
        begun && waits_for(rollout, "AwaitingSignOff")
    };
    let what = "the change waits for people again";
    let change = scene.until(&next, what, again).await.status.unwrap().change;
    let change = change.unwrap();
    assert_ne!(change.digest, signed.digest, "nobody has signed this");
    assert_eq!(change.weight, 0);
    let (admin, service) = (User::admin(scene), at(scene, "v1", "services/shop"));
    let service = admin.get(&service).await.unwrap();
    let selected = &service["spec"]["selector"]["pod-template-hash"];
    assert_ne!(*selected, json!(signed.pod_template_hash));

    let back = canary(json!({ "canaryService": null }));
    let words = ["403", "is under way: abort it before you edit"];
    refused(alice, "PATCH", &own, &back, &words).await;
    let believed = |rollout: &Rollout| {
        let proven = condition(rollout, "SignOffsProven");
        proven.is_none_or(|(status, _, _)| status != "False")
    };
    scene.until(&next, "sign-offs count", believed).await;
    scene.remove_policy().await;
}

/// Finding F3: weights do not bind a route that is not the Rollout's.
#[tokio::test]
async fn a_second_route_to_the_canary_is_noticed_and_the_change_is_rolled_back() {
    let scene = Scene::new("second-route").await;
    let checks = json!([{ "name": "errors", "preset": "Traefik" }]);
    let plan = json!({
        "steps": [{ "weight": 5, "bake": "1s", "minRequests": 1_000_000 }],
        "analysis": { "interval": "1s", "checks": checks },
    });
    let (app, _load) = routes::routed(&scene, &plan).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let stepping = |rollout: &Rollout| {
        let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
        change.is_some_and(|it| it.step == 1 && it.available_at.is_some())
    };
    scene.until(&next, "the canary serves", stepping).await;

    let user = editor(&scene).await;
    let group = "gateway.networking.k8s.io";
    allow(&scene, &user, group, "httproutes", &["create"]).await;
    let gateway = scene.cluster.gateway().await.unwrap();
    // More exact than the Rollout's own rule, so that it comes first.
    let matches = json!([{ "path": { "type": "PathPrefix", "value": "/" }, "method": "GET" }]);
    let backends = json!([{ "name": "shop-canary", "port": 80 }]);
    let second = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "second" },
        "spec": {
            "parentRefs": [gateway.parent_ref()], "hostnames": [routes::host(&scene)],
            "rules": [{ "matches": matches, "backendRefs": backends }],
        },
    });
    let all = at(&scene, "gateway.networking.k8s.io/v1", "httproutes");
    user.create(&all, &second).await.unwrap();
    let held = scene
        .until(&next, "the second way is noticed", |it| {
            waits_for(it, "AboveWeight")
        })
        .await;
    let message = held.status.unwrap().message;
    assert!(message.contains("its weight is 5%"), "{message}");
    scene
        .until(&next, "the change is rolled back", |it| {
            phase(it) == Phase::Degraded
        })
        .await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
}

#[tokio::test]
async fn a_first_revision_may_still_get_its_services() {
    let scene = Scene::new("steady-first").await;
    until_enforced(&scene).await;
    let app = App {
        starts: Some("ImagePullBackOff".into()),
        ..App::new("shop")
    };
    scene.apply(&app).await;
    let begun = |rollout: &countersign_api::Rollout| {
        let status = rollout.status.as_ref();
        status.is_some_and(|it| it.change.as_ref().is_some_and(|it| it.initial))
    };
    scene.until(&app, "its first change began", begun).await;
    let user = editor(&scene).await;
    let own = path(&scene, "rollouts/shop");
    let named = canary(json!({ "stableService": "shop" }));
    tried(&user, "PATCH", &own, &named).await.unwrap();
}

#[tokio::test]
async fn who_names_a_route_may_patch_it() {
    let (scene, _app) = serving("named").await;
    label(&scene, "countersign.dev/traffic", "authorized").await;
    // It may write Rollouts and nothing else.
    let writer = format!("writer-of-{}", scene.namespace);
    let writer = User::impersonated(&scene, &writer, &[]).await;
    let verbs = ["create", "patch"];
    allow(&scene, &writer, "countersign.dev", "rollouts", &verbs).await;
    let routed = canary(json!({
        "stableService": "shop", "canaryService": "shop-canary",
        "traffic": { "routes": [
            { "name": "shop" },
            { "kind": "VirtualService", "name": "shop", "destinationRule": {
                "name": "shop", "stableSubset": "stable", "canarySubset": "canary",
            } },
        ] },
    }));
    let mut other = App::new("other").manifest();
    crate::support::merge(&mut other, &routed);
    let (all, own) = (path(&scene, "rollouts"), path(&scene, "rollouts/shop"));
    let words = [
        "403",
        "may not patch each of services shop, services shop-canary, httproutes shop, virtualservices shop, destinationrules shop",
    ];
    refused(&writer, "POST", &all, &other, &words).await;
    refused(&writer, "PATCH", &own, &routed, &words).await;
    // The operator would scale the Deployment to 0.
    let mut adopting = App::new("adopting").manifest();
    adopting["spec"] = json!({ "replicas": 2, "workloadRef": { "name": "payments" } });
    let words_adopted = ["403", "may not patch each of deployments payments"];
    refused(&writer, "POST", &all, &adopting, &words_adopted).await;
    // What names none is nobody else's.
    let larger = json!({ "spec": { "replicas": 5 } });
    tried(&writer, "PATCH", &own, &larger).await.unwrap();

    for (group, resource) in [
        ("", "services"),
        ("gateway.networking.k8s.io", "httproutes"),
        ("networking.istio.io", "virtualservices"),
    ] {
        allow(&scene, &writer, group, resource, &["patch"]).await;
        refused(&writer, "PATCH", &own, &routed, &words).await;
    }
    let (group, resource) = ("networking.istio.io", "destinationrules");
    allow(&scene, &writer, group, resource, &["patch"]).await;
    tried(&writer, "PATCH", &own, &routed).await.unwrap();
    allow(&scene, &writer, "apps", "deployments", &["patch"]).await;
    let poll = async || tried(&writer, "POST", &all, &adopting).await;
    wait_for("it may be adopted", TIMEOUT, poll).await.unwrap();

    // What is named already stays for everybody who edits the Rollout.
    User::admin(&scene).merge(&own, &routed).await.unwrap();
    let another = format!("another-of-{}", scene.namespace);
    let another = User::impersonated(&scene, &another, &[]).await;
    allow(&scene, &another, "countersign.dev", "rollouts", &["patch"]).await;
    tried(&another, "PATCH", &own, &larger).await.unwrap();
}

const SELECTED: &[&str] = &["403", "is written by the Countersign operator alone"];
const SIDES: [&str; 2] = ["shop-stable", "shop-canary"];

/// The patch that has a Service select a revision, or no single one.
fn selecting(hash: Value) -> Value {
    json!({ "spec": { "selector": { "pod-template-hash": hash } } })
}

/// A change under way with a Service for each side, and what these select.
async fn two_sided(scene: &Scene, app: &App) -> (App, [String; 2]) {
    for side in SIDES {
        scene.service(side, "shop").await;
    }
    let next = app.version("v2").spec(json!({ "strategy": { "canary": {
        "stableService": SIDES[0], "canaryService": SIDES[1], "steps": [{ "weight": 25, "bake": "10m" }],
    } } }));
    scene.apply(&next).await;
    let poll = async || {
        let (stable, canary) = (
            selected(scene, SIDES[0]).await,
            selected(scene, SIDES[1]).await,
        );
        let both = !stable.is_empty() && !canary.is_empty() && stable != canary;
        let state = format!("{stable:?} {canary:?}");
        both.then_some([stable, canary]).ok_or(state)
    };
    let what = "each Service selects its side";
    (next, wait_for(what, TIMEOUT, poll).await.unwrap())
}

async fn selected(scene: &Scene, service: &str) -> String {
    let service = at(scene, "v1", &format!("services/{service}"));
    let service = User::admin(scene).get(&service).await.unwrap();
    let hash = &service["spec"]["selector"]["pod-template-hash"];
    hash.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn nobody_points_a_service_at_the_canary() {
    let (scene, app) = serving("pointed").await;
    let (_, [stable, canary]) = two_sided(&scene, &app).await;
    let services = at(&scene, "v1", "services");
    let own = format!("{services}/{}", SIDES[0]);
    // A label of one revision's pods does as well as its hash.
    let one_sided =
        json!({ "spec": { "selector": { "pod-template-hash": null, "track": "next" } } });
    let labelled = json!({ "metadata": { "labels": { "team": "shop" } } });
    for user in [editor(&scene).await, agent(&scene).await] {
        for hash in [canary.as_str(), "planted"] {
            refused(&user, "PATCH", &own, &selecting(json!(hash)), SELECTED).await;
        }
        refused(&user, "PATCH", &own, &one_sided, SELECTED).await;
        // A forced apply takes the key: the revert of the change may be in the same sync.
        let taken = selecting(Value::Null);
        tried(&user, "PATCH", &own, &taken).await.unwrap();
        // All else is its team's, and so are the Services that the Rollout does not name.
        tried(&user, "PATCH", &own, &labelled).await.unwrap();
        let other = format!("{services}/shop");
        let pointed = selecting(json!(canary));
        tried(&user, "PATCH", &other, &pointed).await.unwrap();
    }
    let user = editor(&scene).await;
    made_again_it_selects_no_canary(&user, &services, [stable.as_str(), canary.as_str()]).await;
}

/// Policies are asked before the API server sees that there is such a Service.
async fn made_again_it_selects_no_canary(user: &User, services: &str, hashes: [&str; 2]) {
    let [stable, canary] = hashes;
    let made_again = |selector: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": SIDES[0] },
            "spec": { "selector": selector, "ports": [{ "port": 80 }] },
        })
    };
    for selector in [
        json!({ "app": "shop", "pod-template-hash": canary }),
        json!({ "app": "shop", "pod-template-hash": "planted" }),
        json!({ "app": "shop", "track": "next" }),
        json!({ "track": "next" }),
    ] {
        refused(user, "POST", services, &made_again(selector), SELECTED).await;
    }
    let exists = ["409", "already exists"];
    for selector in [
        json!({ "app": "shop", "pod-template-hash": stable }),
        json!({ "app": "shop" }),
        Value::Null,
    ] {
        refused(user, "POST", services, &made_again(selector), &exists).await;
    }
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn law_11_a_service_that_points_at_the_canary_is_put_right_and_the_writer_named() {
    unguarded("tampered-service", async |scene, app, user| {
        let (next, [stable, canary]) = two_sided(scene, app).await;
        let own = at(scene, "v1", &format!("services/{}", SIDES[0]));
        let as_mallory = format!("{own}?fieldManager=mallory");
        let pointed = selecting(json!(canary));
        let poll = async || user.merge(&as_mallory, &pointed).await;
        let what = "the policy lets it pass";
        wait_for(what, TIMEOUT, poll).await.unwrap();
        // Services are read and not watched.
        let touched = json!({ "metadata": { "annotations": { "touched": "now" } } });
        let rollout = path(scene, "rollouts/shop");
        User::admin(scene).merge(&rollout, &touched).await.unwrap();
        let poll = async || {
            let now = selected(scene, SIDES[0]).await;
            (now == stable).then_some(()).ok_or(now)
        };
        let what = "it selects the stable revision";
        wait_for(what, TIMEOUT, poll).await.unwrap();
        let poll = async || {
            let events = scene.events(&next, "SelectorCorrected").await;
            let names = |event: &String| {
                let words = [SIDES[0], "mallory", canary.as_str(), stable.as_str()];
                words.iter().all(|word| event.contains(word))
            };
            let found = events.iter().any(names);
            found.then_some(()).ok_or(format!("{events:?}"))
        };
        let what = "the writer is named";
        wait_for(what, TIMEOUT, poll).await.unwrap();
    })
    .await;
}

/// Finding F1: a filter or a hostname that somebody adds is in nothing that was decided.
#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn law_11_a_route_for_testers_that_is_edited_is_put_right_and_the_writer_named() {
    let scene = Scene::unguarded("tampered-testers").await;
    let testers = json!({ "headers": [{ "name": "x-tester", "value": "yes" }] });
    let steps = json!([{ "weight": 25, "bake": "10m" }]);
    let plan = json!({ "steps": steps, "traffic": { "testers": testers } });
    let (app, _load) = routes::routed(&scene, &plan).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let settled = |rollout: &Rollout| routes::settled(rollout, 25);
    let what = "the canary has its share";
    scene.until(&next, what, settled).await;
    let user = editor(&scene).await;
    let group = "gateway.networking.k8s.io";
    allow(&scene, &user, group, "httproutes", &["get", "patch"]).await;
    let own = at(&scene, &format!("{group}/v1"), "httproutes/shop-testers");
    let before = user.get(&own).await.unwrap();
    let mut rules = before["spec"]["rules"].clone();
    let path = json!({ "type": "ReplaceFullPath", "replaceFullPath": "/healthy" });
    rules[0]["filters"] = json!([{ "type": "URLRewrite", "urlRewrite": { "path": path } }]);
    let hosts = json!([routes::host(&scene), "everybody.example.org"]);
    let edit = json!({ "spec": { "rules": rules, "hostnames": hosts } });

    let edited = unenforced(&scene, &["owned"], async || {
        let as_mallory = format!("{own}?fieldManager=mallory");
        let poll = async || user.merge(&as_mallory, &edit).await;
        let what = "the policy lets the edit pass";
        let edited = wait_for(what, TIMEOUT, poll).await.unwrap();
        for field in ["rules", "hostnames"] {
            assert_eq!(edited["spec"][field], edit["spec"][field], "it is edited");
        }
        let poll = async || {
            let spec = user.get(&own).await.unwrap()["spec"].take();
            (spec == before["spec"]).then_some(()).ok_or(spec)
        };
        let what = "it is as it was decided";
        wait_for(what, TIMEOUT, poll).await.unwrap();
        scene.event_once(&next, "TestersCorrected").await;
        let events = scene.events(&next, "TestersCorrected").await;
        for word in ["HTTPRoute shop-testers", "mallory", "hostnames, rules"] {
            assert!(events[0].contains(word), "{word} is not in {events:?}");
        }
        let what = "the router has it as it was decided";
        let rollout = scene.until(&next, what, settled).await;
        let change = rollout.status.unwrap().change.unwrap();
        assert_eq!((change.step, change.outcome), (1, None));
    });
    edited.await.unwrap_or_else(|panic| resume_unwind(panic));
    let words = ["403", "are written by the Countersign operator alone"];
    refused(&user, "PATCH", &own, &edit, &words).await;
}

/// Finding F3: no policy guards subsets, and the DestinationRule is its team's.
#[tokio::test]
async fn law_11_a_subset_that_points_at_the_canary_is_put_right_and_the_writer_named() {
    let scene = Scene::new("tampered-subset").await;
    scene.cluster.install_kinds(Kinds::Istio).await.unwrap();
    let (admin, version) = (User::admin(&scene), "networking.istio.io/v1");
    let to = |subset: &str, weight: i32| json!({ "destination": { "host": "shop", "subset": subset }, "weight": weight });
    let service = json!({
        "apiVersion": version, "kind": "VirtualService", "metadata": { "name": "shop" },
        "spec": { "hosts": ["shop"], "http": [{ "route": [to("stable", 100), to("canary", 0)] }] },
    });
    let services = at(&scene, version, "virtualservices");
    admin.create(&services, &service).await.unwrap();
    let labels = json!({ "app": "shop" });
    let rule = json!({
        "apiVersion": version, "kind": "DestinationRule", "metadata": { "name": "shop" },
        "spec": { "host": "shop", "subsets": [
            { "name": "stable", "labels": labels }, { "name": "canary", "labels": labels },
        ] },
    });
    let rules = at(&scene, version, "destinationrules");
    admin.create(&rules, &rule).await.unwrap();
    let route = json!({ "kind": "VirtualService", "name": "shop", "destinationRule": {
        "name": "shop", "stableSubset": "stable", "canarySubset": "canary",
    } });
    let mut routed = canary(json!({
        "steps": [{ "weight": 25, "bake": "10m" }], "traffic": { "routes": [route] },
    }));
    let app = App {
        checks: false,
        ..App::new("shop")
    };
    let app = scene.serving(app.spec(routed["spec"].take())).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let settled = |rollout: &Rollout| routes::settled(rollout, 25);
    let what = "the canary has its share";
    let status = scene.until(&next, what, settled).await.status.unwrap();
    let stable = status.stable.unwrap().pod_template_hash;
    let canary = status.change.unwrap().pod_template_hash;
    let subset = |name: &str, hash: &str| json!({ "name": name, "labels": { "app": "shop", "pod-template-hash": hash } });
    let decided = json!([subset("stable", &stable), subset("canary", &canary)]);
    let own = format!("{rules}/shop");
    let before = admin.get(&own).await.unwrap();
    assert_eq!(before["spec"]["subsets"], decided);

    let user = editor(&scene).await;
    let group = "networking.istio.io";
    allow(&scene, &user, group, "destinationrules", &["patch"]).await;
    let pointed = json!([subset("stable", &canary), subset("canary", &canary)]);
    let edit = json!({ "spec": { "subsets": pointed } });
    let as_mallory = format!("{own}?fieldManager=mallory");
    let edited = user.merge(&as_mallory, &edit).await.unwrap();
    assert_eq!(edited["spec"]["subsets"], pointed, "it is edited");
    // DestinationRules are read and not watched.
    let touched = json!({ "metadata": { "annotations": { "touched": "now" } } });
    let rollout = path(&scene, "rollouts/shop");
    admin.merge(&rollout, &touched).await.unwrap();
    let poll = async || {
        let subsets = admin.get(&own).await.unwrap()["spec"]["subsets"].take();
        (subsets == decided).then_some(()).ok_or(subsets)
    };
    let what = "the subsets are as they were decided";
    wait_for(what, TIMEOUT, poll).await.unwrap();
    scene.event_once(&next, "SubsetsCorrected").await;
    let events = scene.events(&next, "SubsetsCorrected").await;
    for word in ["DestinationRule shop", "mallory", &stable, &canary] {
        assert!(events[0].contains(word), "{word} is not in {events:?}");
    }
    let change = scene.get(&next).await.status.unwrap().change.unwrap();
    assert_eq!((change.step, change.outcome), (1, None));
}
