//! ReplicaSets that a user with `edit` changes where no admission policy guards them: the operator names the edit,
//! counts nothing of its pods, and replaces it by what was decided.

use std::panic::resume_unwind;

use countersign_api::rollout::{Outcome, Stage};
use countersign_api::{Phase, PodTemplate, Rollout};
use countersign_cluster::wait_for;
use countersign_core::provenance::digest::template_digest;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{at, editor, own_set, owner, refused, tried, unenforced};
use crate::identity::user::{User, until_enforced};
use crate::plugin::{Person, edits, member};
use crate::smoke::checked;
use crate::support::{App, Scene, TIMEOUT, condition, ended, phase};

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
/// The policies that guard ReplicaSets, their templates, and what selects them.
const GUARDS: [&str; 4] = ["owned", "owned-labels", "owned-pods", "owned-scale"];
const OTHER: &str = "example.org/other:v1";

/// The patch that has a ReplicaSet run another image.
fn other_image(set: &Value) -> Value {
    let mut containers = set["spec"]["template"]["spec"]["containers"].clone();
    containers[0]["image"] = OTHER.into();
    json!({ "spec": { "template": { "spec": { "containers": containers } } } })
}

fn image(set: &Value) -> &str {
    let containers = &set["spec"]["template"]["spec"]["containers"];
    containers[0]["image"].as_str().unwrap()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The ReplicaSet after a user has edited its image.
async fn edited_by(user: &User, own: &str, set: &Value) -> Value {
    let as_mallory = format!("{own}?fieldManager=mallory");
    user.merge(&as_mallory, &other_image(set)).await.unwrap()
}

/// The ReplicaSet of a revision.
async fn set_of(scene: &Scene, hash: &str) -> Value {
    let sets = at(scene, "apps/v1", "replicasets");
    let selected = format!("{sets}?labelSelector=pod-template-hash%3D{hash}");
    let sets = User::admin(scene).get(&selected).await.unwrap();
    sets["items"][0].clone()
}

fn stable_hash(rollout: &Rollout) -> Option<&str> {
    let status = rollout.status.as_ref()?;
    Some(&status.stable.as_ref()?.pod_template_hash)
}

/// Waits for an Event that names all of these.
async fn named(scene: &Scene, app: &App, words: &[&str]) {
    let poll = async || {
        let events = scene.events(app, "Tampered").await;
        let complete = |event: &String| words.iter().all(|word| event.contains(word));
        let found = events.iter().any(complete);
        found.then_some(()).ok_or(format!("{events:?}"))
    };
    wait_for("the edit is named", TIMEOUT, poll).await.unwrap();
}

/// A user with `edit` in a scene without the policies that guard ReplicaSets. These are restored once the last of such
/// stories has ended, even if it fails; meanwhile no other test runs.
pub(super) async fn unguarded(scene: &str, story: impl AsyncFnOnce(&Scene, &App, &User)) {
    let scene = Scene::unguarded(scene).await;
    until_enforced(&scene).await;
    // Pods count as available a while after they are ready, so that what happens until then can be observed.
    let slow = json!({ "minReadySeconds": 5 });
    let app = scene.serving(App::new("shop").spec(slow)).await;
    let user = editor(&scene).await;
    let set = own_set(&scene).await;
    let own = at(&scene, "apps/v1", &format!("replicasets/{}", name(&set)));
    let edit = other_image(&set);
    let result = unenforced(&scene, &GUARDS, async || {
        let poll = async || tried(&user, "PATCH", &own, &edit).await;
        let what = "the policies let the edit pass";
        wait_for(what, TIMEOUT, poll).await.unwrap();
        story(&scene, &app, &user).await;
    });
    let result = result.await;
    // Each of them is in force again.
    let scaled = json!({ "spec": { "replicas": 20 } });
    refused(&user, "PATCH", &own, &scaled, &["403", "of a Rollout"]).await;
    let scale = format!("{own}/scale");
    let words = ["403", "scaled by the Countersign operator alone"];
    refused(&user, "PATCH", &scale, &scaled, &words).await;
    let labels = json!({ "app": "shop", "pod-template-hash": "bcdfghjklmn" });
    let mut beside = set["spec"].clone();
    beside["selector"] = json!({ "matchLabels": labels });
    beside["template"]["metadata"]["labels"] = labels;
    let beside = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "beside" }, "spec": beside,
    });
    let sets = at(&scene, "apps/v1", "replicasets");
    let words = ["403", "made of its template alone"];
    refused(&user, "POST", &sets, &beside, &words).await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn law_11_a_stable_replica_set_that_is_edited_is_named_and_replaced() {
    unguarded("tampered-stable", async |scene, app, user| {
        let set = own_set(scene).await;
        let hash = set["metadata"]["labels"]["pod-template-hash"].clone();
        let hash = hash.as_str().unwrap();
        let own = at(scene, "apps/v1", &format!("replicasets/{}", name(&set)));
        assert_eq!(image(&edited_by(user, &own, &set).await), OTHER, "it is");
        let is_named = |rollout: &Rollout| {
            let found = condition(rollout, "Tampered");
            found
                .is_some_and(|(status, _, message)| status == "True" && message.contains("mallory"))
        };
        scene.until(app, "the edit is a condition", is_named).await;
        named(scene, app, &[name(&set), "mallory", "template (image)"]).await;
        // Pods that are deleted now come back with the other image.
        let pods = at(scene, "v1", "pods");
        let listed = user.get(&pods).await.unwrap();
        for pod in listed["items"].as_array().unwrap() {
            let of_it = pod["metadata"]["labels"]["pod-template-hash"] == hash;
            let leaving = !pod["metadata"]["deletionTimestamp"].is_null();
            if of_it && !leaving {
                // The operator may be faster.
                let _ = user.delete(&format!("{pods}/{}", name(pod))).await;
            }
        }
        let replaced = |rollout: &Rollout| {
            let status = rollout.status.as_ref().unwrap();
            let other = stable_hash(rollout).is_some_and(|it| it != hash);
            let named = condition(rollout, "Tampered").is_some();
            other && !named && phase(rollout) == Phase::Stable && status.available_replicas == 4
        };
        let rollout = scene.until(app, "it is replaced", replaced).await;
        let new = set_of(scene, stable_hash(&rollout).unwrap()).await;
        assert_eq!(image(&new), image(&set), "what was promoted");
        assert_eq!(
            image(&set_of(scene, hash).await),
            OTHER,
            "it was not put back"
        );
        assert_eq!(scene.pods(hash).await, 0);
        let poll = async || {
            let pods = user.get(&pods).await.unwrap()["items"].take();
            let pods = pods.as_array().unwrap().iter();
            let images: Vec<_> = pods
                .map(|pod| pod["spec"]["containers"][0]["image"].to_string())
                .collect();
            let promoted = json!(image(&set)).to_string();
            let all = images.len() == 4 && images.iter().all(|it| *it == promoted);
            all.then_some(()).ok_or(format!("{images:?}"))
        };
        let what = "all pods run the promoted image";
        wait_for(what, TIMEOUT, poll).await.unwrap();
        assert_eq!(scene.records(app).await.len(), 1, "it is no change");
    })
    .await;
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn law_11_a_canary_whose_replica_set_is_edited_is_rolled_back() {
    unguarded("tampered-canary", async |scene, app, user| {
        let before = scene.get(app).await;
        let (next, rollout) = scene.baking(app).await;
        let canary = rollout.status.unwrap().change.unwrap().pod_template_hash;
        let set = set_of(scene, &canary).await;
        let own = at(scene, "apps/v1", &format!("replicasets/{}", name(&set)));
        assert_eq!(image(&edited_by(user, &own, &set).await), OTHER, "it is");
        let run = scene.outcome(&next).await;
        assert!(ended(&run, Outcome::RolledBack), "{:?}", run.spec.progress);
        let lines = run.spec.progress.transitions.iter();
        let line = lines.rev().find(|line| line.reason == "Tampered").unwrap();
        for word in [name(&set), "mallory", "template (image)"] {
            assert!(line.message.contains(word), "{}", line.message);
        }
        named(scene, &next, &[name(&set), "mallory"]).await;
        let degraded = |rollout: &Rollout| phase(rollout) == Phase::Degraded;
        let rollout = scene.until(&next, "it is rolled back", degraded).await;
        assert_eq!(stable_hash(&rollout), stable_hash(&before));
        assert_eq!(scene.pods(&canary).await, 0);
    })
    .await;
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn law_11_a_canary_without_labels_is_found_and_goes_with_its_change() {
    unguarded("tampered-hidden", async |scene, app, user| {
        let (next, rollout) = scene.baking(app).await;
        let canary = rollout.status.unwrap().change.unwrap().pod_template_hash;
        let set = set_of(scene, &canary).await;
        let own = at(scene, "apps/v1", &format!("replicasets/{}", name(&set)));
        let hidden = json!({ "metadata": { "labels": null } });
        let found = async || {
            let set = user.get(&own).await.unwrap();
            let labels = set["metadata"]["labels"].clone();
            let is_found = labels["countersign.dev/rollout-uid"].is_string();
            is_found.then_some(set).ok_or(labels)
        };
        user.merge(&own, &hidden).await.unwrap();
        let what = "the operator finds it";
        let seen = wait_for(what, TIMEOUT, found).await.unwrap();
        assert_eq!(seen["metadata"]["uid"], set["metadata"]["uid"]);
        assert_eq!(seen["metadata"]["labels"], set["metadata"]["labels"]);
        // And once more, when it is to go.
        scene.apply(app).await;
        user.merge(&own, &hidden).await.unwrap();
        let gone = async || {
            let set = user.get(&own).await.unwrap();
            let pods = &set["status"]["replicas"];
            (set["spec"]["replicas"] == 0 && *pods == 0)
                .then_some(())
                .ok_or(set)
        };
        wait_for("its pods are gone", TIMEOUT, gone).await.unwrap();
        let run = scene.outcome(&next).await;
        assert!(ended(&run, Outcome::Reverted), "{:?}", run.spec.progress);
        let serves = |rollout: &Rollout| phase(rollout) == Phase::Stable;
        let rollout = scene.until(app, "stable serves alone", serves).await;
        let collisions = rollout.status.unwrap().collision_count;
        assert_eq!(collisions, 0, "no other revision was made");
    })
    .await;
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn law_11_a_replica_set_that_is_planted_for_the_next_change_is_not_taken() {
    unguarded("tampered-plant", async |scene, app, user| {
        let next = app.version("v2");
        let template = PodTemplate(next.manifest()["spec"]["template"].clone());
        let owner = owner(scene, app).await;
        let labels = json!({ "app": "shop", "pod-template-hash": "planted" });
        let mut marks = labels.clone();
        marks["app.kubernetes.io/managed-by"] = "countersign".into();
        marks["countersign.dev/rollout-uid"] = owner["uid"].clone();
        let mut pods = template.0.clone();
        pods["metadata"]["labels"] = labels.clone();
        pods["spec"]["containers"][0]["image"] = OTHER.into();
        let planted = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": "planted", "labels": marks, "ownerReferences": [owner],
                "annotations": {
                    "countersign.dev/template": template.0.to_string(),
                    "countersign.dev/template-digest": template_digest(&template),
                },
            },
            "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": pods },
        });
        let sets = at(scene, "apps/v1", "replicasets");
        user.create(&sets, &planted).await.unwrap();
        let _load = scene.load(app, 100).await;
        scene.apply(&next).await;
        assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
        let rollout = scene.get(app).await;
        let stable = stable_hash(&rollout).unwrap();
        assert_ne!(stable, "planted");
        assert_eq!(image(&set_of(scene, stable).await), "example.org/shop:v2");
        let left = user.get(&format!("{sets}/planted")).await.unwrap();
        assert_eq!(
            (image(&left), &left["spec"]["replicas"]),
            (OTHER, &json!(0))
        );
    })
    .await;
}

/// Finding F1: somebody on call goes back to a revision whose recorded template is another one by now.
#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn law_11_undo_applies_no_template_that_was_edited_since_it_was_recorded() {
    unguarded("tampered-undo", async |scene, app, user| {
        let set = own_set(scene).await;
        let own = at(scene, "apps/v1", &format!("replicasets/{}", name(&set)));
        let _load = scene.load(app, 100).await;
        let next = app.version("v2");
        scene.apply(&next).await;
        assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
        // Until then the former revision could come back, and its ReplicaSet would be replaced.
        let rests = |rollout: &Rollout| {
            let status = rollout.status.as_ref().unwrap();
            phase(rollout) == Phase::Stable && status.change.is_none()
        };
        let before = scene.until(&next, "it is stable", rests).await;

        let key = "countersign.dev/template";
        let recorded = set["metadata"]["annotations"][key].as_str().unwrap();
        let mut template: Value = serde_json::from_str(recorded).unwrap();
        template["spec"]["containers"][0]["image"] = OTHER.into();
        let annotated =
            |template: &str| json!({ "metadata": { "annotations": { key: template } } });
        let edit = annotated(&template.to_string());
        let edited = user.merge(&own, &edit).await.unwrap();
        let annotations = &edited["metadata"]["annotations"];
        assert_eq!(annotations[key], edit["metadata"]["annotations"][key]);
        let alice = Person::new(scene, "alice", &member(vec![edits()])).await;
        for command in ["undo shop", "undo shop --to-revision 1"] {
            alice.runs(command).await.exits(1).err(&[
                name(&set),
                "is not the template that was recorded of revision 1, so nothing is applied",
            ]);
        }
        let now = scene.get(&next).await;
        assert_eq!(now.metadata.generation, before.metadata.generation);
        assert_eq!(now.spec.template.images(), ["example.org/shop:v2"]);

        // As it was recorded it is taken.
        user.merge(&own, &annotated(recorded)).await.unwrap();
        let taken = alice.runs("undo shop --dry-run=client").await.exits(0);
        taken.out(&["example.org/shop:v1"]);
    })
    .await;
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn law_11_a_planted_job_passes_no_smoke_check_and_the_real_one_is_made_again() {
    unguarded("tampered-smoke", async |scene, app, user| {
        let next = checked(&app.version("v2"), &json!({}));
        scene.apply(&next).await;
        let jobs = at(scene, "batch/v1", "jobs");
        let made = async || {
            let found = user.get(&jobs).await.unwrap()["items"].take();
            found.as_array().and_then(|all| all.first()).cloned()
        };
        let job = wait_for("the Job is made", TIMEOUT, made).await.unwrap();
        let metadata = &job["metadata"];
        // It succeeds without a pod.
        let mut spec = job["spec"].clone();
        spec["completions"] = 0.into();
        spec["parallelism"] = 0.into();
        for field in ["selector", "template"] {
            spec.as_object_mut().unwrap().remove(field);
        }
        let mut pods = job["spec"]["template"].clone();
        pods["metadata"].as_object_mut().unwrap().remove("labels");
        spec["template"] = pods;
        let planted = json!({
            "apiVersion": "batch/v1", "kind": "Job", "spec": spec, "metadata": {
                "name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"],
                "ownerReferences": metadata["ownerReferences"],
            },
        });
        let own = format!("{jobs}/{}", name(&job));
        let as_mallory = format!("{jobs}?fieldManager=mallory");
        // The operator makes the real one again meanwhile, and may be faster.
        let plant = async || {
            let _ = user.delete(&format!("{own}?propagationPolicy=Background")).await;
            user.create(&as_mallory, &planted).await
        };
        let what = "the Job is planted";
        let uid = wait_for(what, TIMEOUT, plant).await.unwrap()["metadata"]["uid"].take();
        named(scene, &next, &[name(&job), "mallory", "spec.completions"]).await;
        let again = async || {
            let found = user.get(&own).await.map_err(|error| error.to_string())?;
            let real = found["spec"]["completions"] == 1 && found["metadata"]["uid"] != uid;
            real.then_some(()).ok_or(found["spec"].to_string())
        };
        let what = "the real one is made again";
        wait_for(what, TIMEOUT, again).await.unwrap();
        let change = scene.get(&next).await.status.unwrap().change.unwrap();
        assert_eq!((change.stage, change.outcome), (Stage::Waiting, None));
        let sets = scene.replica_sets().list(&ListParams::default()).await;
        assert_eq!(sets.unwrap().items.len(), 1, "there is no pod of the change");
    })
    .await;
}

/// What webhooks do, a mutating policy does here: each ReplicaSet gets a further variable.
#[tokio::test]
async fn what_admission_changes_in_a_replica_set_is_no_edit() {
    let scene = Scene::new("admitted").await;
    let admin = User::admin(&scene);
    let policies = format!("{ADMISSION}/mutatingadmissionpolicies");
    let bindings = format!("{ADMISSION}/mutatingadmissionpolicybindings");
    let own = &scene.namespace;
    let added = "JSONPatch{op: 'add', path: '/spec/template/spec/containers/0/env/-', value: {'name': 'ADMITTED', 'value': 'yes'}}";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": { "name": own },
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": own } },
                "resourceRules": [{
                    "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["replicasets"],
                }],
            },
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": format!("[{added}]") } }],
        },
    });
    let bound = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": { "name": own }, "spec": { "policyName": own },
    });
    admin.create(&policies, &policy).await.unwrap();
    admin.create(&bindings, &bound).await.unwrap();
    let template = App::new("tried").manifest()["spec"]["template"].clone();
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "tried" },
        "spec": { "replicas": 0, "selector": { "matchLabels": { "app": "tried" } }, "template": template },
    });
    let is_admitted = |set: &Value| {
        let env = &set["spec"]["template"]["spec"]["containers"][0]["env"];
        env.as_array()
            .unwrap()
            .iter()
            .any(|it| it["name"] == "ADMITTED")
    };
    let sets = at(&scene, "apps/v1", "replicasets");
    let poll = async || {
        let made = tried(&admin, "POST", &sets, &set).await.unwrap();
        is_admitted(&made).then_some(()).ok_or(made)
    };
    let what = "the policy is enforced";
    wait_for(what, TIMEOUT, poll).await.unwrap();

    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
    let rests = |rollout: &Rollout| phase(rollout) == Phase::Stable;
    let rollout = scene.until(&next, "it is stable", rests).await;
    let stable = rollout.status.as_ref().unwrap().stable.clone().unwrap();
    assert!(is_admitted(
        &set_of(&scene, &stable.pod_template_hash).await
    ));
    let stored = stable.stored_template_digest.as_ref();
    assert!(stored.is_some_and(|it| !it.is_empty()), "{stable:?}");
    // The digest is known from then on, whatever admission makes of the template later.
    admin.delete(&format!("{bindings}/{own}")).await.unwrap();
    admin.delete(&format!("{policies}/{own}")).await.unwrap();
    let larger = App {
        replicas: 5,
        ..next.clone()
    };
    scene.apply(&larger).await;
    let scaled = |rollout: &Rollout| {
        let status = rollout.status.as_ref().unwrap();
        phase(rollout) == Phase::Stable && status.available_replicas == 5
    };
    let rollout = scene.until(&larger, "it is scaled", scaled).await;
    assert_eq!(condition(&rollout, "Tampered"), None);
    assert_eq!(
        stable_hash(&rollout),
        Some(stable.pod_template_hash.as_str())
    );
    assert_eq!(scene.events(&app, "Tampered").await, [""; 0]);
}
