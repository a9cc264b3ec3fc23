//! An API server that has too much to do.

use axum::http::Method;

use super::order::with_a_change_under_way;
use super::*;

#[tokio::test]
async fn while_the_api_server_pushes_back_no_change_begins_and_one_under_way_is_taken_back() {
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
    scene.deploy("api", "app:1");
    scene.reconcile("api").await.unwrap();
    assert_eq!(scene.status("api")["change"]["outcome"], "Reverted");

    *scene.context.pushed_back_until.lock().unwrap() = None;
    scene.reconcile("new").await.unwrap();
    assert_eq!(scene.status("new")["phase"], "Progressing");
}
