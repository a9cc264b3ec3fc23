//! Freezes by people on call, attributed to whom the API server recorded.

use serde_json::{Value, json};

use super::enforced;
use super::user::{APPLY, User, assert_refused};

const FREEZES: &str = "/apis/countersign.dev/v1alpha1/freezes";

#[tokio::test]
async fn a_freeze_names_who_changed_it_last_and_nobody_else() {
    let scene = enforced("freeze").await;
    scene.grant_everywhere("dave", "countersign-on-call").await;
    let second = format!("second-of-{}", scene.namespace);
    scene.grant_everywhere(&second, "countersign-on-call").await;
    let dave = User::known(&scene, "dave").await;
    let second = User::impersonated(&scene, &second, &["oncall".to_owned()]).await;
    let named = |person: &Value| {
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze", "metadata": { "name": scene.namespace },
            "spec": super::with(json!({
                "reason": "incident 42",
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": scene.namespace } },
            }), person.clone()),
        })
    };
    let other = named(&json!({ "person": { "username": "carol" } }));
    let other = dave.create(FREEZES, &other).await;
    assert_refused(&other, &["403", "you are \"dave\""]);
    let group = named(&json!({ "person": { "groups": ["senior"] } }));
    let group = dave.create(FREEZES, &group).await;
    assert_refused(&group, &["403", "\"dave\" is not in senior"]);

    let made = dave.create(FREEZES, &named(&json!({}))).await.unwrap();
    let as_dave = json!({ "username": "dave", "groups": ["oncall", "system:authenticated"] });
    assert_eq!(made["spec"]["person"], as_dave);

    let own = format!("{FREEZES}/{}", scene.namespace);
    let label = json!({ "metadata": { "labels": { "seen": "yes" } } });
    let labelled = second.merge(&own, &label).await.unwrap();
    assert_eq!(
        labelled["spec"]["person"], as_dave,
        "a label changes nobody"
    );
    let longer = json!({ "spec": { "reason": "incident 42, still" } });
    let edited = second.merge(&own, &longer).await.unwrap();
    assert_eq!(edited["spec"]["person"]["username"], second.name);
    let apply = format!("{own}?fieldManager=on-call&force=true");
    let applied = dave
        .send("PATCH", &apply, APPLY, &named(&json!({})))
        .await
        .unwrap();
    assert_eq!(applied["spec"]["person"], as_dave);
    let third = json!({ "spec": { "person": { "username": "carol" } } });
    let third = second.merge(&own, &third).await;
    assert_refused(&third, &["403", "freeze in your own name"]);
    dave.delete(&own).await.unwrap();
}
