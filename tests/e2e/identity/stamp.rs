//! The stamp `countersign.dev/changed-by` names the users who changed the template, the provenance or where
//! traffic goes, the last one in the last line, regardless of what is written.

mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use countersign_api::{CHANGED_BY_ANNOTATION, PROVENANCE_PREFIX};
use countersign_cluster::wait_for;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

use self::writes::{Edit, How, Write, image, manifest};
use super::user::{APPLY, User, assert_refused, path};
use super::{enforced, installed, with};
use crate::plugin::Person;
use crate::support::{App, Scene, TIMEOUT};

/// The last changer in a Rollout's stamp.
pub fn of(rollout: &Value) -> Option<&str> {
    rollout["metadata"]["annotations"][CHANGED_BY_ANNOTATION]
        .as_str()
        .map(|stamp| stamp.lines().last().unwrap_or(""))
}

/// All changers in a Rollout's stamp.
fn all(rollout: &Value) -> Vec<&str> {
    let stamp = rollout["metadata"]["annotations"][CHANGED_BY_ANNOTATION].as_str();
    stamp.unwrap_or_default().lines().collect()
}

/// The fields whose changers are stamped.
fn substance(rollout: &Value) -> (Value, Value, BTreeMap<String, Value>) {
    let annotations = rollout["metadata"]["annotations"].as_object();
    let provenance = annotations
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with(PROVENANCE_PREFIX))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let uid = rollout["metadata"]["uid"].clone();
    (uid, rollout["spec"]["template"].clone(), provenance)
}

/// Alice and bob, who both may write Rollouts in the scene, and a Rollout that alice has made.
async fn written_by_two(scene: &Scene) -> [User; 2] {
    let mut users = Vec::new();
    for name in ["alice", "bob"] {
        scene.grant(name, "edit").await;
        users.push(User::known(scene, name).await);
    }
    let [alice, bob] = users.try_into().ok().unwrap();
    let mut rollout = manifest();
    if !scene.stamped {
        Edit::Stamp(Some("alice")).make(&mut rollout);
    }
    let made = alice.create(&path(scene, "rollouts"), &rollout).await;
    assert_eq!(of(&made.unwrap()), Some("alice"));
    [alice, bob]
}

#[tokio::test]
async fn no_sequence_of_writes_forges_the_stamp() {
    let scene = enforced("stamp-random").await;
    let users = written_by_two(&scene).await;
    let (admin, own) = (User::admin(&scene), path(&scene, "rollouts/shop"));
    let mut done = BTreeSet::new();
    let mut stamped = BTreeSet::new();
    for seed in [7, 1969] {
        let mut random = StdRng::seed_from_u64(seed);
        let mut before = admin.get(&own).await.unwrap();
        for turn in 0..150 {
            let user = users.choose(&mut random).unwrap();
            let write = Write::any(&mut random);
            let answer = write.send(user, &scene).await;
            let after = admin.get(&own).await.unwrap();
            let changed = substance(&before) != substance(&after);
            let expected = if changed {
                Some(&*user.name)
            } else {
                of(&before)
            };
            let what = format!(
                "seed {seed}, turn {turn}: {} {write:?}: {answer:?}",
                user.name
            );
            assert_eq!(of(&after), expected, "{what}");
            assert!(answer.is_ok() || !changed, "refused, but done: {what}");
            if answer.is_ok() {
                done.insert((user.name.clone(), write.how));
                stamped.insert((of(&after).unwrap().to_owned(), changed));
            }
            before = after;
        }
    }
    // Custom resources have no strategic merge patches, and these users cannot write the status.
    assert_eq!(done.len(), 2 * 7, "{done:?}");
    assert_eq!(stamped.len(), 2 * 2, "{stamped:?}");
}

#[tokio::test]
async fn kubectl_cannot_forge_the_stamp_either() {
    let scene = enforced("stamp-kubectl").await;
    written_by_two(&scene).await;
    let (admin, own) = (User::admin(&scene), path(&scene, "rollouts/shop"));
    let directory = scene.cluster.dir().join(&scene.namespace);
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, edits: &[Edit]| {
        let mut rollout = manifest();
        for edit in edits {
            edit.make(&mut rollout);
        }
        let file = directory.join(name);
        std::fs::write(&file, rollout.to_string()).unwrap();
        file.display().to_string()
    };
    let forged = Edit::Stamp(Some("mallory"));
    let (v1, v2) = (
        file("v1", std::slice::from_ref(&forged)),
        file("v2", &[forged, Edit::Image(2)]),
    );
    let plain = file("plain", &[Edit::Image(2)]);
    let forge = "countersign.dev/changed-by=mallory";
    let remove = "countersign.dev/changed-by-";
    let tests = "provenance.countersign.dev/tests=FAILED";
    for (user, line, expected) in [
        // The manifest's provenance and template are the live ones: only a stamp is claimed.
        ("bob", format!("apply -f {v1}"), "alice"),
        (
            "bob",
            format!("annotate --overwrite cro/shop {forge}"),
            "alice",
        ),
        ("bob", format!("annotate cro/shop {remove}"), "alice"),
        ("bob", format!("apply -f {v2}"), "bob"),
        ("alice", "label cro/shop team=shop".into(), "bob"),
        ("alice", "scale cro/shop --replicas=1".into(), "bob"),
        ("alice", "scale cro/shop --replicas=0".into(), "bob"),
        (
            "alice",
            format!("annotate --overwrite cro/shop {forge} {tests}"),
            "alice",
        ),
        (
            "bob",
            format!("annotate --overwrite cro/shop {forge} {tests}"),
            "alice",
        ),
        (
            "bob",
            "annotate cro/shop provenance.countersign.dev/tests-".into(),
            "bob",
        ),
        (
            "alice",
            format!("apply --server-side --force-conflicts -f {v2}"),
            "alice",
        ),
        (
            "bob",
            format!("apply --server-side --force-conflicts --field-manager=other -f {v2}"),
            "alice",
        ),
        (
            "bob",
            format!("apply --server-side --force-conflicts -f {plain}"),
            "alice",
        ),
        (
            "bob",
            format!("apply --server-side --force-conflicts --field-manager=other -f {plain}"),
            "alice",
        ),
        ("bob", format!("replace -f {v1}"), "bob"),
        ("alice", format!("replace -f {v1}"), "bob"),
        ("alice", format!("replace --force -f {v1}"), "alice"),
        (
            "bob",
            "patch cro/shop --type=merge -p {\"metadata\":{\"annotations\":null}}".into(),
            "bob",
        ),
    ] {
        // The operator may write the status between a replace's read and its write.
        let poll = async || {
            let output = Command::new("timeout")
                .args([
                    "60",
                    "kubectl",
                    "--context",
                    user,
                    "--namespace",
                    &scene.namespace,
                ])
                .args(line.split(' '))
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let conflict = stderr.contains("the object has been modified");
            assert!(
                output.status.success() || conflict,
                "{user}: kubectl {line}: {stderr}"
            );
            output.status.success().then_some(()).ok_or(stderr)
        };
        wait_for("kubectl is done", TIMEOUT, poll).await.unwrap();
        let stamp = admin.get(&own).await.unwrap();
        assert_eq!(of(&stamp), Some(expected), "{user}: kubectl {line}");
    }
}

fn canary(fields: Value) -> Value {
    json!({ "spec": { "strategy": { "canary": fields } } })
}

/// The digest binds it, so a change of it is one that its author does not sign off.
#[tokio::test]
async fn who_changes_where_traffic_goes_is_stamped() {
    let scene = enforced("stamp-traffic").await;
    let [alice, bob] = written_by_two(&scene).await;
    // Nothing is stored, so no change begins under which traffic stays as it is.
    let dry = path(&scene, "rollouts/shop?dryRun=All");
    let services = json!({ "stableService": "shop", "canaryService": "shop-canary" });
    let traffic = json!({ "routes": [{ "name": "shop" }] });
    for (fields, changer) in [
        (json!({ "stableService": "shop" }), "bob"),
        (json!({ "canaryService": "shop" }), "bob"),
        (with(services.clone(), json!({ "traffic": traffic })), "bob"),
        (
            with(
                services.clone(),
                json!({ "traffic": traffic, "dynamicStable": true }),
            ),
            "bob",
        ),
        (json!({ "maxSurge": 2 }), "alice"),
    ] {
        let written = bob.merge(&dry, &canary(fields.clone())).await.unwrap();
        assert_eq!(of(&written), Some(changer), "{fields}");
    }
    let routed = canary(with(services, json!({ "traffic": traffic })));
    let own = path(&scene, "rollouts/shop");
    alice.merge(&own, &routed).await.unwrap();
    for (steps, changer) in [
        (json!([{ "weight": 0, "mirror": 100 }]), "bob"),
        (json!([{ "weight": 0 }, { "weight": 50 }]), "alice"),
    ] {
        let steps = canary(json!({ "steps": steps }));
        let written = bob.merge(&dry, &steps).await.unwrap();
        assert_eq!(of(&written), Some(changer), "{steps}");
    }
}

/// Disables the mutating policy during an attempt; if the API server has none, the stamp is demanded in the scene from
/// then on.
async fn unstamped<T>(scene: &Scene, attempt: impl Future<Output = T>) -> T {
    let admin = User::admin(scene);
    let is_binding = |file: &Value| {
        file["kind"] == "MutatingAdmissionPolicyBinding"
            && file["metadata"]["name"] == "changed-by.countersign.dev"
    };
    let binding = installed::files().into_iter().find(is_binding).unwrap();
    let own = installed::path(&binding);
    let stamps = async |wanted: bool| {
        let dry = path(scene, "rollouts") + "?dryRun=All";
        let mut rollout = manifest();
        rollout["metadata"]["name"] = "stamped".into();
        // Without it the stamp is demanded, also of administrators.
        let poll = async || {
            let made = admin.create(&dry, &rollout).await;
            let named = made.as_ref().is_ok_and(|made| of(made).is_some());
            (named == wanted).then_some(()).ok_or(format!("{made:?}"))
        };
        wait_for("the policy is in force, or is not", TIMEOUT, poll)
            .await
            .unwrap();
    };
    if scene.stamped {
        admin.delete(&own).await.unwrap();
    } else {
        let demanded = json!({ "metadata": { "labels": { "countersign.dev/stamp": null } } });
        let namespace = format!("/api/v1/namespaces/{}", scene.namespace);
        admin.merge(&namespace, &demanded).await.unwrap();
    }
    stamps(false).await;
    let outcome = attempt.await;
    if scene.stamped {
        let apply = own + "?fieldManager=test&force=true";
        let made = admin.send("PATCH", &apply, APPLY, &binding).await;
        made.unwrap();
        stamps(true).await;
    }
    outcome
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn the_stamp_is_demanded_where_there_are_no_mutating_policies() {
    let scene = Scene::alone("stamp-demanded").await;
    super::until_enforced(&scene).await;
    let [alice, bob] = written_by_two(&scene).await;
    let web = scene.serving(App::new("web")).await;
    let (admin, own) = (User::admin(&scene), path(&scene, "rollouts/shop"));
    let write = |edits: &[Edit]| Write {
        how: How::MergePatch,
        edits: edits.to_vec(),
        manager: "ci",
    };
    let attempts = async {
        let moved = with(
            canary(json!({ "stableService": "shop" })),
            Edit::Stamp(None).merge_patch(),
        );
        let moved = bob.merge(&format!("{own}?dryRun=All"), &moved).await;
        let mut answers = Vec::new();
        for (user, edits) in [
            (&bob, &[Edit::Stamp(Some("bob"))][..]),
            (&bob, &[Edit::Image(2), Edit::Stamp(Some("alice"))]),
            // The stamp still names alice, who did not make this change.
            (&bob, &[Edit::Image(2)]),
            (&bob, &[Edit::Image(2), Edit::Stamp(None)]),
            (&bob, &[Edit::Stamp(None)]),
            (&alice, &[Edit::Label(1)]),
            (
                &alice,
                &[Edit::Provenance(Some(2)), Edit::Stamp(Some("alice"))],
            ),
            // One of these two: alice belongs in the stamp unless her change is promoted already.
            (&bob, &[Edit::Image(2), Edit::Stamp(Some("alice\nbob"))]),
            (&bob, &[Edit::Image(2), Edit::Stamp(Some("bob"))]),
        ] {
            answers.push(write(edits).send(user, &scene).await);
        }
        let stamped = admin.get(&own).await.unwrap();
        let shell = Person::new(&scene, "alice", &[]).await;
        shell.runs("restart web").await.exits(0);
        let restarted = admin.get(&path(&scene, "rollouts/web")).await.unwrap();

        let optional = json!({ "metadata": { "labels": { "countersign.dev/stamp": "optional" } } });
        let namespace = format!("/api/v1/namespaces/{}", scene.namespace);
        admin.merge(&namespace, &optional).await.unwrap();
        let unnamed = write(&[Edit::Image(3), Edit::Stamp(None)]);
        let poll = async || unnamed.send(&bob, &scene).await;
        wait_for("the stamp is optional", TIMEOUT, poll)
            .await
            .unwrap();
        // Server-side apply leaves a null where the last annotation was, and admission policies see it.
        admin.delete(&own).await.unwrap();
        let mut bare = Ok(Value::Null);
        for edit in [Edit::Provenance(Some(3)), Edit::NoAnnotations] {
            let apply = Write {
                how: How::ForcedApply,
                ..write(&[edit])
            };
            bare = apply.send(&bob, &scene).await;
        }
        (moved, answers, stamped, restarted, bare)
    };
    let (moved, answers, stamped, restarted, bare) = unstamped(&scene, attempts).await;
    assert_refused(&moved, &["422", "countersign.dev/changed-by to \"bob\""]);
    let done: Vec<_> = answers.iter().map(Result::is_ok).collect();
    let expected = [false, false, false, false, false, true, true];
    assert_eq!(done[..7], expected, "{answers:?}");
    assert_ne!(done[7], done[8], "{answers:?}");
    for (answer, words) in [
        (0, &["403", "must be \"alice\""][..]),
        (3, &["422", "countersign.dev/changed-by to \"bob\""]),
        (4, &["422", "names who changed it", "leave it as it is"]),
    ] {
        assert_refused(&answers[answer], words);
    }
    assert_eq!(of(&stamped), Some("bob"));
    let template = &restarted["spec"]["template"]["metadata"]["annotations"];
    assert!(
        !template["kubectl.kubernetes.io/restartedAt"].is_null(),
        "{web:?} is restarted: {template}"
    );
    assert_eq!(of(&restarted), Some("alice"));
    let annotations = &bare.unwrap()["metadata"]["annotations"];
    assert!(annotations.is_null(), "{annotations}");
}

/// `edit` may act as any `ServiceAccount` of its namespace.
#[tokio::test]
async fn a_second_write_as_a_service_account_does_not_hide_the_first() {
    let scene = enforced("stamp-second").await;
    let [_, bob] = written_by_two(&scene).await;
    let account = User::service_account(&scene, "ci").await;
    scene.grant(&account.name, "edit").await;
    let own = path(&scene, "rollouts/shop");
    // The change waits for replicas, so it is not promoted between the two.
    bob.merge(&own, &Edit::Image(12).merge_patch())
        .await
        .unwrap();
    let written = account
        .merge(&own, &Edit::Image(13).merge_patch())
        .await
        .unwrap();
    let stamp = all(&written);
    assert!(stamp.ends_with(&["bob", &*account.name]), "{stamp:?}");

    let seen = |rollout: &countersign_api::Rollout| {
        let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
        let both = ["bob", &*account.name];
        change.is_some_and(|it| {
            let images = rollout.spec.template.images();
            images == [image(13)]
                && both.iter().all(|user| it.changed_by.contains(*user))
                && it.excluded_approvers.users.contains("bob")
        })
    };
    let app = App::new("shop");
    scene
        .until(&app, "both are known to have changed it", seen)
        .await;
}

#[tokio::test]
async fn beyond_64_changers_the_stamp_stands_for_anybody() {
    let scene = enforced("stamp-many").await;
    written_by_two(&scene).await;
    let own = path(&scene, "rollouts/shop");
    let groups = ["system:masters".to_owned()];
    for number in 0..66 {
        let name = format!("writer-{number}");
        let user = User::impersonated(&scene, &name, &groups).await;
        let edit = Edit::Image(10 + number).merge_patch();
        let written = user.merge(&own, &edit).await.unwrap();
        let stamp = all(&written);
        assert_eq!(stamp.last(), Some(&&*name));
        let named = stamp.contains(&"writer-0") && !stamp.contains(&"*");
        match number {
            0..63 => assert!(named, "{stamp:?}"),
            65.. => assert!(stamp.starts_with(&["*"]) && stamp.len() < 5, "{stamp:?}"),
            _ => {}
        }
    }
}
