//! A proxy before the API server or Prometheus that injects faults: it drops requests or responses,
//! responds in place of the server, or kills the client.
//!
//! It serves plain HTTP on the loopback address of the cluster's network namespace, and forwards the
//! credentials of requests.

mod events;
mod place;

use crate::error::{Error, Result};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use http_body_util::BodyExt as _;
use kube::Client;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use events::altered;
use place::Place;

/// Writes at any time, and not for a Rollout. Operators that each see one namespace differ in how many Rollouts
/// a policy governs, so that each writes it after the others.
const UNCOUNTED: [&str; 4] = [
    "leases",
    "rolloutpolicies/status",
    "freezes/status",
    "analysistemplates/status",
];

/// A request, for a test's choice of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxiedRequest {
    /// Its method.
    pub method: Method,
    /// The resource with its subresource after a slash; empty if the path names none, as with Prometheus.
    pub resource: String,
    /// The object's name, if one was named.
    pub name: String,
    /// Whether it is a watch.
    pub watch: bool,
    /// Number of earlier requests with the same method, path, content type and query, apart from a
    /// watch's resourceVersion.
    pub before: usize,
    /// Its index among all writes, from 0, without those of the lease and of policies, Freezes and templates.
    pub write: Option<usize>,
}

impl fmt::Display for ProxiedRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, before) = (&self.method, self.before);
        write!(formatter, "{method} {} {} ", self.resource, self.name)?;
        write!(formatter, "({before} before)")
    }
}

/// The fault of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    Pass,
    /// It is forwarded after this time.
    Delay(Duration),
    /// It is not forwarded; the connection is closed.
    Lose,
    /// It is forwarded, but the connection is closed instead of the response.
    LoseAnswer,
    /// It is not forwarded, and this is the response.
    Answer {
        /// HTTP status.
        status: u16,
        /// `Retry-After`, seconds.
        retry_after: Option<u32>,
    },
    /// The client is killed before it is forwarded.
    KillBefore,
    /// The client is killed after its execution, before the response.
    KillAfter,
    /// A fault of a watch's events.
    Events(Events),
    /// It is neither forwarded nor answered, and the connection stays open.
    Hang,
}

/// The fault of a watch's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Events {
    /// After this many, none arrive, and the connection stays open.
    Stall(usize),
    /// After this many, the connection is closed.
    Close(usize),
    /// After this many, the server reports the version as expired (410), as after a compaction.
    Gone(usize),
    /// Each is delayed by this: a cache that lags.
    Lag(Duration),
    /// After each, the one before is repeated, and then the event itself: a cache that goes back in time.
    Replay,
    /// Each n-th is dropped.
    Miss(usize),
}

/// The name of a fault's variant, under which it is counted.
fn name(fault: &impl fmt::Debug) -> String {
    let name = format!("{fault:?}");
    let name = name.split([' ', '(']).next();
    name.unwrap_or_default().to_owned()
}

/// Chooses the fault of each request.
pub type Plan = Arc<dyn Fn(&ProxiedRequest) -> Fault + Send + Sync>;

/// Kills the client.
pub type Kill = Arc<dyn Fn() + Send + Sync>;

/// A running proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    recorded: Arc<Mutex<Recorded>>,
    _running: DropGuard,
}

/// The recorded requests.
#[derive(Debug, Default)]
struct Recorded {
    alike: BTreeMap<String, usize>,
    writes: Vec<ProxiedRequest>,
    faults: BTreeMap<String, usize>,
}

impl Recorded {
    fn happened(&mut self, fault: &impl fmt::Debug) {
        *self.faults.entry(name(fault)).or_default() += 1;
    }
}

impl Proxy {
    /// Starts a proxy. With a `namespace`, lists and watches over all namespaces are limited to it, so
    /// that several operators can share a cluster.
    pub(crate) async fn start(
        upstream: Client,
        namespace: Option<String>,
        plan: Plan,
        kill: Kill,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(Error::file("listen on", "a loopback port"))?;
        let address = listener
            .local_addr()
            .map_err(Error::file("listen on", "a loopback port"))?;
        let recorded = Arc::new(Mutex::new(Recorded::default()));
        let between = Arc::new(Between {
            upstream,
            namespace,
            plan,
            kill,
            recorded: recorded.clone(),
        });
        let router = Router::new().fallback(pass).with_state(between);
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                // It serves until it is dropped; errors are ignored.
                _ = axum::serve(listener, router) => {}
                () = ended.cancelled() => {}
            }
        });
        Ok(Self {
            address,
            recorded,
            _running: end.drop_guard(),
        })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All writes so far without those of the lease and of policies, Freezes and templates, in order.
    #[must_use]
    pub fn writes(&self) -> Vec<ProxiedRequest> {
        self.recorded().writes.clone()
    }

    /// Number of each kind of fault by name (for events, theirs) that had an effect: a watch may have no
    /// event to drop.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<String, usize> {
        self.recorded().faults.clone()
    }

    fn recorded(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Between {
    upstream: Client,
    namespace: Option<String>,
    plan: Plan,
    kill: Kill,
    recorded: Arc<Mutex<Recorded>>,
}

impl Between {
    fn decide(&self, path: &Place, request: &Request) -> (ProxiedRequest, Fault) {
        let (method, uri) = (request.method(), request.uri());
        let watch = has_any_parameter(uri, &["watch=true", "watch=1"]);
        let mut proxied = ProxiedRequest {
            method: method.clone(),
            resource: path.resource.clone(),
            name: path.name.clone(),
            watch,
            before: 0,
            write: None,
        };
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let body = request.headers().get(header::CONTENT_TYPE);
        let question = uri.query().filter(|_| !watch);
        let alike = format!(
            "{method} {} {} {watch} {question:?} {body:?}",
            proxied.resource, proxied.name
        );
        let alike = recorded.alike.entry(alike).or_default();
        proxied.before = *alike;
        *alike += 1;
        if method != Method::GET && !UNCOUNTED.contains(&proxied.resource.as_str()) {
            proxied.write = Some(recorded.writes.len());
            recorded.writes.push(proxied.clone());
        }
        let fault = (self.plan)(&proxied);
        // The others are counted later, if they have an effect.
        if !matches!(fault, Fault::Pass | Fault::Events(_)) {
            recorded.happened(&fault);
        }
        (proxied, fault)
    }

    /// Forwards a request, and returns the response as it begins.
    async fn ask(&self, uri: Uri, request: Request) -> Result<Response, StatusCode> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| StatusCode::BAD_REQUEST)?;
        let mut passed = hyper::Request::new(kube::client::Body::from(body.to_bytes()));
        *passed.method_mut() = head.method;
        *passed.uri_mut() = uri;
        *passed.headers_mut() = end_to_end(head.headers);
        let answer = self.upstream.send(passed).await;
        let answer = answer.map_err(|_| StatusCode::BAD_GATEWAY)?;
        let (head, body) = answer.into_parts();
        let mut answer = Response::new(Body::new(body));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = end_to_end(head.headers);
        Ok(answer)
    }
}

/// Headers without hop-by-hop ones.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
    headers
}

async fn pass(State(between): State<Arc<Between>>, request: Request) -> Response {
    let place = Place::of(request.uri().path());
    let uri = between
        .namespace
        .as_ref()
        .and_then(|namespace| place.within(namespace, request.uri()))
        .unwrap_or_else(|| request.uri().clone());
    let (proxied, fault) = between.decide(&place, &request);
    match fault {
        Fault::Answer {
            status,
            retry_after,
        } => return refusal(status, retry_after),
        Fault::Lose => return broken(),
        Fault::Hang => return std::future::pending().await,
        Fault::KillBefore => {
            (between.kill)();
            return broken();
        }
        Fault::Delay(time) => tokio::time::sleep(time).await,
        Fault::Pass | Fault::LoseAnswer | Fault::KillAfter | Fault::Events(_) => {}
    }
    let answer = match between.ask(uri, request).await {
        Ok(answer) => answer,
        Err(status) => return status.into_response(),
    };
    match fault {
        Fault::LoseAnswer | Fault::KillAfter => {
            // The request is executed once its response is complete, of any status.
            let _ = answer.into_body().collect().await;
            if fault == Fault::KillAfter {
                (between.kill)();
            }
            broken()
        }
        Fault::Events(events) if proxied.watch && answer.status().is_success() => {
            altered(answer, events, between.recorded.clone())
        }
        _ => answer,
    }
}

fn has_any_parameter(uri: &Uri, pairs: &[&str]) -> bool {
    let mut query = uri.query().into_iter().flat_map(|query| query.split('&'));
    query.any(|pair| pairs.contains(&pair))
}

/// A response that ends before it is complete.
fn broken() -> Response {
    let lost = futures::stream::once(async { Err::<Bytes, _>(io::Error::other("lost")) });
    let mut response = Response::new(Body::from_stream(lost));
    let length = HeaderValue::from_static("1");
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    response
}

/// A refusal as by the API server.
fn refusal(status: u16, retry_after: Option<u32>) -> Response {
    let reason = match status {
        401 => "Unauthorized",
        403 => "Forbidden",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let message = "a fault that a test wants";
    // With Retry-After, the API server responds in plain text and a header.
    let (kind, body) = if retry_after.is_some() {
        ("text/plain; charset=utf-8", message.to_owned())
    } else {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason,
            "message": message,
        });
        ("application/json", status.to_string())
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::events::Lines;
    use super::*;

    #[test]
    fn a_path_names_a_resource_and_perhaps_an_object() {
        let place = |path: &str| {
            let place = Place::of(path);
            (place.resource, place.name)
        };
        let named = |resource: &str, name: &str| (resource.to_owned(), name.to_owned());
        assert_eq!(
            place("/apis/apps/v1/namespaces/shop/replicasets/web-1"),
            named("replicasets", "web-1")
        );
        assert_eq!(
            place("/apis/countersign.dev/v1alpha1/namespaces/shop/rollouts/web/status"),
            named("rollouts/status", "web")
        );
        assert_eq!(place("/api/v1/namespaces"), named("namespaces", ""));
        assert_eq!(place("/api/v1/query"), named("query", ""));
        assert_eq!(place("/readyz"), named("", ""));
    }

    #[test]
    fn what_spans_all_namespaces_is_requested_of_one() {
        let within = |uri: &str| {
            let uri: Uri = uri.parse().unwrap();
            let within = Place::of(uri.path()).within("shop", &uri);
            within.map(|uri| uri.to_string())
        };
        assert_eq!(
            within("/apis/apps/v1/replicasets?watch=true").as_deref(),
            Some("/apis/apps/v1/namespaces/shop/replicasets?watch=true")
        );
        assert_eq!(within("/api/v1/namespaces?limit=1"), None);
        assert_eq!(within("/apis/apps/v1/namespaces/a/replicasets"), None);
    }

    async fn altered_lines(events: Events) -> Vec<String> {
        let body = Body::from("one\ntwo\nthree\n");
        let happened = Arc::default();
        let altered = altered(Response::new(body), events.clone(), Arc::clone(&happened));
        let mut lines = Lines::of(altered.into_body());
        let mut recorded = Vec::new();
        while let Some(line) = lines.next().await {
            recorded.push(String::from_utf8(line.to_vec()).unwrap().trim().to_owned());
        }
        let faults = happened.lock().unwrap().faults.clone();
        assert_eq!(faults.into_keys().collect::<Vec<_>>(), [name(&events)]);
        recorded
    }

    #[tokio::test]
    async fn events_are_closed_missed_and_replayed() {
        assert_eq!(altered_lines(Events::Close(2)).await, ["one", "two"]);
        assert_eq!(altered_lines(Events::Miss(2)).await, ["one", "three"]);
        let replayed = altered_lines(Events::Replay).await;
        assert_eq!(
            replayed,
            ["one", "two", "one", "two", "three", "two", "three"]
        );
        let gone = altered_lines(Events::Gone(1)).await;
        assert_eq!(gone[0], "one");
        assert!(gone[1].contains("410"), "{gone:?}");
        let lagging = altered_lines(Events::Lag(Duration::from_millis(5))).await;
        assert_eq!(lagging, ["one", "two", "three"]);
    }
}
