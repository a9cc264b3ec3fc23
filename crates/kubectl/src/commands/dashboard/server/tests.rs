use axum::body::Body;
use axum::http::Request as HttpRequest;
use axum::http::request::Builder;
use countersign_api::Person;
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::cluster::connection::tests::nowhere;
use crate::commands::dashboard::fleet::tests::fleet_of;
use crate::commands::dashboard::queue::Queue;
use crate::commands::dashboard::rights::Rights;

const HOST: &str = "127.0.0.1:4711";

fn site(read_only: bool) -> Arc<Site> {
    // Nothing in these tests waits for a Rollout to change, so the sender may be gone. No change waits for
    // people, so nothing is asked of the API server.
    let (_, fleet) = watch::channel(fleet_of(0));
    Arc::new(Site {
        connection: nowhere(),
        me: Person {
            username: "bob".into(),
            groups: vec!["visitors".into()],
        },
        place: "in all namespaces".into(),
        fleet,
        guard: Arc::new(Guard::new(4711)),
        rights: Rights::default(),
        queue: Queue::default(),
        read_only,
    })
}

fn cookie(site: &Site) -> String {
    let opened = site.guard.address();
    let cookie = site.guard.admit(opened.split_once("token=").unwrap().1);
    let cookie = cookie.unwrap();
    cookie
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned()
}

async fn answered(site: &Arc<Site>, request: Builder, body: String) -> Response {
    let request = request.body(Body::from(body)).unwrap();
    router(Arc::clone(site)).oneshot(request).await.unwrap()
}

fn get_with(path: &str, cookie: &str) -> Builder {
    HttpRequest::get(path)
        .header("host", HOST)
        .header("cookie", cookie)
}

#[tokio::test]
async fn the_printed_address_opens_the_page_once() {
    let site = site(false);
    let opened = site.guard.address();
    let path = opened.strip_prefix("http://127.0.0.1:4711").unwrap();
    let first = answered(&site, get_with(path, ""), String::new()).await;
    assert_eq!(first.status(), 200);
    let cookie = first.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let start = site.guard.addresses().at("/");
    let page = answered(&site, get_with(&start, cookie), String::new()).await;
    assert_eq!(page.status(), 200);
    for (name, value) in HEADERS {
        assert_eq!(page.headers()[name], value);
    }
    let again = answered(&site, get_with(path, ""), String::new()).await;
    assert_eq!(again.status(), 403);
}

#[tokio::test]
async fn every_address_is_guarded() {
    let site = site(false);
    let cookie = cookie(&site);
    // Of the addresses without the random path, none but that of the token is there.
    let elsewhere = answered(&site, get_with("/freeze", &cookie), String::new()).await;
    assert_eq!(elsewhere.status(), 404);
    for path in [
        "/",
        "/events",
        "/style.css",
        "/page.js",
        "/freeze",
        "/rollouts/shop/web",
        "/rollouts/shop/web/events",
        "/rollouts/shop/web/approve",
        "/no-such-page",
    ] {
        let path = site.guard.addresses().at(path);
        let stranger = answered(&site, get_with(&path, ""), String::new()).await;
        assert_eq!(stranger.status(), 403, "{path}");
        let rebound = HttpRequest::get(&path)
            .header("host", "evil.example:4711")
            .header("cookie", &cookie);
        let rebound = answered(&site, rebound, String::new()).await;
        assert_eq!(rebound.status(), 421, "{path}");
        assert_eq!(rebound.headers()["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn a_write_needs_its_origin_and_the_token_of_the_forms() {
    let site = site(false);
    let cookie = cookie(&site);
    let post = |origin: &str| {
        HttpRequest::post(site.guard.addresses().at("/freeze"))
            .header("host", HOST)
            .header("cookie", &cookie)
            .header("origin", origin)
    };
    let form = |token: &str| format!("token={token}&reason=why");
    let own = "http://127.0.0.1:4711";
    let token = site.guard.form_token().to_owned();
    let forged = answered(&site, post("https://evil.example"), form(&token)).await;
    assert_eq!(forged.status(), 403);
    let forged = answered(&site, post(own), form("guessed")).await;
    assert_eq!(forged.status(), 403);
    let no_reason = answered(&site, post(own), format!("token={token}")).await;
    assert_eq!(no_reason.status(), 422);
}

#[tokio::test]
async fn a_freeze_ends_when_it_was_shown_to_end() {
    let until = |form: &str| {
        let fields = Fields::read(form.as_bytes());
        freeze_of(&site(false), &fields).map(|object| object.until())
    };
    let shown: Timestamp = "2126-03-01T12:10:00Z".parse().unwrap();
    let confirmed = "reason=why&length=2h&until=2126-03-01T12%3A10%3A00Z";
    assert_eq!(until(confirmed).unwrap(), Some(shown));
    assert_eq!(until("reason=why").unwrap(), None);
    assert!(until("reason=why&until=soon").is_err());
}

#[tokio::test]
async fn read_only_has_no_address_that_writes() {
    let site = site(true);
    let cookie = cookie(&site);
    for path in ["/freeze", "/rollouts/shop/web/abort"] {
        let path = site.guard.addresses().at(path);
        let asked = answered(&site, get_with(&path, &cookie), String::new()).await;
        assert_eq!(asked.status(), 404, "{path}");
        let post = HttpRequest::post(&path)
            .header("host", HOST)
            .header("cookie", &cookie)
            .header("origin", "http://127.0.0.1:4711");
        let form = format!("token={}&reason=why", site.guard.form_token());
        assert_eq!(answered(&site, post, form).await.status(), 404, "{path}");
    }
}
