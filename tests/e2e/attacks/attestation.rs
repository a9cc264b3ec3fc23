//! Past the gates by an attestation that is true, and of something else.

use countersign_api::rollout::Change;
use countersign_api::{PROVENANCE_PREFIX, PodTemplate, Rollout, Tier};
use countersign_core::provenance::attestation::statement::{Predicate, Statement};
use countersign_core::provenance::digest::template_digest;

use super::*;
use crate::support::{condition, harmless, waits_for};

// A pair of keys that OpenSSL made for tests alone.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKC/upcHwprQPZ/md9B50ATU5benfIgaTYS6hHhpNYqD
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAuw6iZ4Nu+R2pau8BQYcMDVZjJDIbnkLh54MGZLWILNs=
-----END PUBLIC KEY-----
";

/// The application with an image of its own and a signed provenance of this revision, counted from that base.
fn attested(scene: &Scene, app: &App, image: char, revision: &str, base: &str) -> App {
    let digest = image.to_string().repeat(64);
    let next = app.version(&format!("{revision}@sha256:{digest}"));
    let mut provenance = harmless();
    for key in ["revision", "approved-revision"] {
        provenance[key] = json!(revision);
    }
    let annotations = provenance.as_object().unwrap().iter().map(|(key, value)| {
        let key = format!("{PROVENANCE_PREFIX}{key}");
        (key, value.as_str().unwrap().to_owned())
    });
    let template = PodTemplate(next.manifest()["spec"]["template"].clone());
    let about = Predicate {
        base: Some(base.to_owned()),
        repository: Some("https://git.example/shop".into()),
        rollouts: [format!("{}/{}", scene.namespace, app.name)].into(),
        template_digest: Some(template_digest(&template)),
        ..Predicate::default()
    };
    let image = template.images()[0];
    let statement = Statement::of(&[image], &annotations.collect(), about).unwrap();
    // No annotation but the signed one, so that nothing is declared beside it.
    let attestation = statement.sign(PRIVATE, "ci").unwrap();
    next.provenance(json!({ "attestation": attestation }))
}

/// The change under way, if it has this source revision.
fn change_to<'a>(rollout: &'a Rollout, revision: &str) -> Option<&'a Change> {
    let change = rollout.status.as_ref()?.change.as_ref()?;
    (change.source_revision.as_deref() == Some(revision)).then_some(change)
}

/// Finding F6: v2 is large and waits for people. v2.1 adds a line to it, and only that line is signed.
#[tokio::test]
async fn a_part_of_a_change_that_is_signed_alone_waits_for_people_like_the_whole() {
    let scene = Scene::new("split").await;
    let demand = json!({ "signOff": [{ "count": 1, "groups": ["approvers"] }] });
    let key = json!({
        "name": "ci", "publicKey": PUBLIC, "repositories": ["https://git.example/*"],
    });
    scene
        .policy(json!({
            "tiers": { "high": demand, "critical": demand },
            "provenance": { "trust": "Attested", "covers": "Template", "keys": [key] },
        }))
        .await;
    let shop = App {
        pod_annotations: json!({ "team": "shop" }),
        ..App::new("shop")
    };
    let app = scene
        .serving(attested(&scene, &shop, '1', "v1", "v0"))
        .await;
    let stable = scene.get(&app).await.status.unwrap().stable.unwrap();
    assert_eq!(stable.source_revision.as_deref(), Some("v1"));

    let part = attested(&scene, &shop, '2', "v2.1", "v2");
    scene.apply(&part).await;
    let waiting = scene
        .until(&part, "it waits for people", |it| {
            waits_for(it, "AwaitingSignOff") && change_to(it, "v2.1").is_some()
        })
        .await;
    let change = change_to(&waiting, "v2.1").unwrap();
    assert!(change.tier >= Tier::High, "{change:?}");
    assert_eq!((change.step, change.weight), (0, 0));
    let excluded = &change.excluded_approvers.users;
    assert!(excluded.contains("alice@example.org"), "{excluded:?}");
    let (status, reason, message) = condition(&waiting, "Provenance").unwrap();
    assert_eq!((status, reason), ("False", "Unattested"), "{message}");
    let remedy = "counts from `v2`, but stable runs `v1`: stamp with --range v1..HEAD";
    assert!(message.contains(remedy), "{message}");

    // The same code with all of its changes signed needs nobody.
    let whole = attested(&scene, &shop, '2', "v2.1", "v1");
    scene.apply(&whole).await;
    let proven = scene
        .until(&whole, "the whole change is believed", |it| {
            let change = change_to(it, "v2.1");
            change.is_some_and(|it| it.tier == Tier::Low)
        })
        .await;
    let (status, _, message) = condition(&proven, "Provenance").unwrap();
    assert_eq!(status, "True", "{message}");
}
