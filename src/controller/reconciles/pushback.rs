//! An API server that has too much to do.

use axum::http::Method;

use super::order::with_a_change_under_way;
use super::*;

#[tokio::test]
async fn while_the_api_server_pushes_back_nothing_is_written_but_what_is_urgent() {
    let mut scene = with_a_change_under_way(false).await;
    scene.deploy("web", "app:2");
    scene
        .server
        .fails(|request| (request.method != Method::GET).then_some(Fault::Refuse(429)));
    let refused = scene.reconcile("web").await;
    assert!(matches!(refused, Err(Error::Write(_))), "{refused:?}");
    scene.server.fails(|_| None);
    scene.server.requests();

    scene.deploy("new", "app:1");
    for idle in ["new", "web"] {
        scene.reconcile(idle).await.unwrap();
    }
    assert!(scene.server.requests().is_empty(), "they wait");
    let pushback = *scene.context.pushed_back_until.lock().unwrap();
    let before = scene.status("api");
    for path in scene.server.paths("replicasets") {
        let mut set = scene.server.get(&path).unwrap();
        set["status"] = json!({});
        scene.server.put(&path, set);
    }
    scene.reconcile("api").await.unwrap();
    assert_eq!(scene.status("api"), before, "what goes on waits as well");
    *scene.context.pushed_back_until.lock().unwrap() = None;
    scene.reconcile("api").await.unwrap();
    let after = scene.status("api");
    assert_ne!(after["readyReplicas"], before["readyReplicas"]);

    *scene.context.pushed_back_until.lock().unwrap() = pushback;
    let mut sets = scene.server.paths("replicasets").into_iter();
    let of_api = sets.find(|path| path.contains("/api-")).unwrap();
    scene.server.remove(&of_api);
    scene.reconcile("api").await.unwrap();
    assert!(scene.server.get(&of_api).is_some(), "pods are corrected");
    scene.deploy("api", "app:1");
    scene.reconcile("api").await.unwrap();
    assert_eq!(scene.status("api")["change"]["outcome"], "Reverted");

    *scene.context.pushed_back_until.lock().unwrap() = None;
    scene.reconcile("new").await.unwrap();
    assert_eq!(scene.status("new")["phase"], "Progressing");
}

#[tokio::test]
async fn after_an_outage_a_change_under_way_is_looked_at_again_within_seconds() {
    let mut scene = with_a_change_under_way(false).await;
    let (api, web) = (scene.claim("api"), scene.claim("web"));
    assert!(api.is_under_way() && !web.is_under_way());
    for claim in [&api, &web] {
        let mut failures = scene.context.failures.lock().unwrap();
        failures.entry(claim.uid().unwrap()).or_default().attempts = 20;
    }
    let waits = |claim: &Arc<Claim>, code: u16, retry_after: u32| {
        let mut status = kube::core::Status::failure("no", "Reason").with_code(code);
        let details = serde_json::from_value(json!({ "retryAfterSeconds": retry_after })).unwrap();
        status.details = Some(details);
        let error = Error::Read(Box::new(kube::Error::Api(Box::new(status))));
        back_off(claim.clone(), &error, scene.context.clone())
    };
    let after = |seconds: u64| Action::requeue(Duration::from_secs(seconds));
    assert_eq!(waits(&api, 503, 0), after(5));
    assert_eq!(waits(&web, 503, 0), after(60));
    assert_eq!(waits(&api, 403, 0), after(60), "it will not end by itself");
    assert_eq!(
        waits(&api, 429, 9),
        after(9),
        "the API server asks for more"
    );
}
