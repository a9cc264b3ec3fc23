//! An HTTP server on the address of every running pod of the harness.
//!
//! What it does is set in the pod template, in the environment of the first container:
//! - `ERROR_RATE`, 0 to 1: the share of requests answered with 500. Default 0. A request for
//!   `/error-rate/0.5` changes it in the pod that it reaches; see `Cluster::set_error_rate`.
//! - `FAIL_FIRST`: how many requests are answered with 500 before that. Default 0.
//! - `LATENCY`, such as `20ms`: how long each answer takes. Default none.
//! - `SCRAPED`: `false` makes `/metrics` answer 404, for tests without data.
//! - `CODE_LABEL`: the label of `http_requests_total` that has the code. Default `code`, of podinfo `status`.
//! - `SEND_TO`, `PER_SECOND`: it sends so many requests to this Service of its namespace, for at most an hour, and answers
//!   none.
//! - `START_AFTER`, such as `5s`: from when the pod runs until it listens, which it must to become
//!   ready. Default at once.
//! - `STARTS`, such as `CrashLoopBackOff` or `ImagePullBackOff`: the container never starts, and
//!   its status reports that it waits for this reason. With the first of these the pod is `Running`, with
//!   three restarts and a last end with code 1; with any other it is `Pending`. Such pods are kwok's
//!   alone: see `stages/pod-start-and-ready.yaml`. Default, or empty: it starts.
//!
//! podinfo, by the name of the image, is imitated as `docs/get-started.md` runs it: its counter has the label `status`
//! where others have `code`, and with `--random-error=true` in its command it fails a third of the requests.
//!
//! If a port has the name `http-metrics`, it alone serves `/metrics`. Every other path answers with the headers
//! `x-revision` (the pod's `pod-template-hash`)
//! and `x-pod`. A pod serves on its first container's TCP ports from before it is ready until its
//! object is gone, which is 2 to 3 s after its deletion (`stages/pod-delete.yaml`), so that a
//! client that still believes it ready is answered; then it stops listening and finishes what is in flight.

use crate::{
    load::{Limits, Load},
    nodes::Nodes,
};
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{StreamExt as _, future::join_all};
use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, Pod},
    jiff::SignedDuration,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The condition that lets kwok mark a pod as ready; see [`nodes`](crate::nodes).
const LISTENING: &str = "cluster.test/Listening";

/// The name of a port for scrapes alone.
const METRICS_PORT: &str = "http-metrics";

/// Bounds of what one pod sends.
const SENT: Limits = Limits {
    max_requests: 10_000_000,
    max_time: Duration::from_hours(1),
};

/// Upper bounds in seconds: the defaults of Prometheus client libraries.
const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Serves all pods on `nodes`, for as long as it is polled.
pub(crate) async fn serve(client: Client, nodes: Nodes) {
    let watch = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    let mut events = std::pin::pin!(watch.default_backoff());
    let mut serving: BTreeMap<String, DropGuard> = BTreeMap::new();
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod)) => update(&client, &nodes, &mut serving, &pod),
            Ok(Event::Delete(pod)) => drop(serving.remove(&uid(&pod))),
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.insert(uid(&pod));
                update(&client, &nodes, &mut serving, &pod);
            }
            // Pods that are not in the list were deleted while the watch was broken.
            Ok(Event::InitDone) => serving.retain(|uid, _| listed.contains(uid)),
            Err(error) => eprintln!("cluster: watching pods: {error}"),
        }
    }
}

/// Starts serving a running pod, and stops serving one that has ended.
fn update(client: &Client, nodes: &Nodes, serving: &mut BTreeMap<String, DropGuard>, pod: &Pod) {
    let ours = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .is_some_and(|node| nodes.include(node));
    let status = pod.status.clone().unwrap_or_default();
    let address = status.pod_ip.and_then(|ip| ip.parse::<IpAddr>().ok());
    match (status.phase.as_deref(), address) {
        (Some("Running"), Some(address)) if ours => {
            serving.entry(uid(pod)).or_insert_with(|| {
                let stop = CancellationToken::new();
                tokio::spawn(run(client.clone(), pod.clone(), address, stop.clone()));
                stop.drop_guard()
            });
        }
        _ => drop(serving.remove(&uid(pod))),
    }
}

fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

/// One pod, from its start to its end.
async fn run(client: Client, pod: Pod, address: IpAddr, stop: CancellationToken) {
    if let Err(reason) = try_run(&client, &pod, address, stop).await {
        // The pod never becomes ready; this is the reason.
        eprintln!(
            "cluster: pod {}/{} does not serve: {reason}",
            pod.namespace().unwrap_or_default(),
            pod.name_any()
        );
    }
}

async fn try_run(
    client: &Client,
    pod: &Pod,
    address: IpAddr,
    stop: CancellationToken,
) -> Result<(), String> {
    let app = App::of(pod)?;
    if variable(pod, "STARTS").is_some_and(|reason| !reason.is_empty()) {
        return Ok(());
    }
    let start_after = duration(pod, "START_AFTER")?;
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = tokio::time::sleep(start_after) => {}
    }
    if let Some(service) = variable(pod, "SEND_TO") {
        return send(client, pod, service, stop).await;
    }
    let container = first_container(pod);
    let ports = container
        .iter()
        .flat_map(|container| container.ports.iter().flatten());
    let ports: Vec<_> = ports
        .filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")))
        .collect();
    let of_metrics = |port: &ContainerPort| port.name.as_deref() == Some(METRICS_PORT);
    let apart = ports.iter().any(|port| of_metrics(port));
    let (mut listeners, mut opened) = (Vec::new(), std::collections::BTreeSet::new());
    for port in ports {
        let is_scraped = of_metrics(port) || !apart;
        let port = u16::try_from(port.container_port).map_err(|error| error.to_string())?;
        // One port may have two names.
        if !opened.insert(port) {
            continue;
        }
        let listener = listen(SocketAddr::new(address, port)).await;
        let listener = listener.map_err(|error| format!("listening on port {port}: {error}"))?;
        listeners.push((listener, is_scraped));
    }
    if stop.is_cancelled() {
        return Ok(());
    }
    let app = Arc::new(app);
    let servers = join_all(listeners.into_iter().map(|(listener, is_scraped)| {
        let metrics = if is_scraped {
            get(metrics)
        } else {
            get(|| async { StatusCode::NOT_FOUND })
        };
        let router = Router::new()
            .route("/metrics", metrics)
            .route("/error-rate/{rate}", get(set_error_rate))
            .fallback(answer)
            .with_state(app.clone());
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.clone().cancelled_owned())
            .into_future()
    }));
    tokio::join!(servers, announce(client, pod));
    Ok(())
}

/// Sends requests, until the pod ends.
async fn send(
    client: &Client,
    pod: &Pod,
    service: &str,
    stop: CancellationToken,
) -> Result<(), String> {
    let rate = variable(pod, "PER_SECOND").unwrap_or_default();
    let rate = rate.parse();
    let rate = rate.map_err(|_| "PER_SECOND is not a number of requests".to_owned())?;
    let namespace = pod.namespace().unwrap_or_default();
    let load = Load::start(client.clone(), &namespace, service, rate, SENT).await;
    let load = load.map_err(|error| error.to_string())?;
    announce(client, pod).await;
    stop.cancelled().await;
    load.stop().await;
    Ok(())
}

/// kwok may reuse an address just before its last owner's socket is closed.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let mut attempts = 100;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {
                attempts -= 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Sets the pod's condition that it listens.
async fn announce(client: &Client, pod: &Pod) {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let patch = Patch::Strategic(json!({
        // Never another pod of the same name.
        "metadata": { "uid": pod.uid() },
        "status": { "conditions": [{ "type": LISTENING, "status": "True" }] },
    }));
    while let Err(error) = pods
        .patch_status(&name, &PatchParams::default(), &patch)
        .await
    {
        if matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422)) {
            return; // The pod is deleted.
        }
        eprintln!("cluster: updating pod {namespace}/{name}: {error}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn first_container(pod: &Pod) -> Option<&Container> {
    pod.spec.as_ref()?.containers.first()
}

/// A variable of the pod template.
fn variable<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let mut all = first_container(pod)?.env.iter().flatten();
    all.find(|variable| variable.name == name)?.value.as_deref()
}

/// The variable as a duration, as Go and jiff write it; `0` needs no unit.
fn duration(pod: &Pod, name: &str) -> Result<Duration, String> {
    let text = variable(pod, name).unwrap_or("0");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|duration| duration.try_into().ok())
        .ok_or_else(|| format!("{name} {text:?} is not a duration such as 20ms"))
}

/// Whether a pod runs podinfo, and whether that fails requests.
fn podinfo(pod: &Pod) -> Option<bool> {
    let container = first_container(pod)?;
    let mut command = container.command.iter().flatten();
    let named = container.image.as_deref()?.contains("/podinfo:");
    named.then(|| command.any(|it| it == "--random-error=true"))
}

/// The settings and counters of a pod.
#[derive(Debug)]
struct App {
    pod: String,
    revision: String,
    /// The label of the counter with the status.
    label: String,
    errors: Errors,
    latency: Duration,
    scraped: bool,
    ok: AtomicU64,
    failed: AtomicU64,
    /// Requests by the first bucket that they fit in; the last bucket is unbounded.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
}

impl App {
    fn of(pod: &Pod) -> Result<Self, String> {
        let mut seed = DefaultHasher::new();
        pod.uid().hash(&mut seed);
        let podinfo = podinfo(pod);
        let rate = if podinfo == Some(true) { "0.33" } else { "0" };
        let label = if podinfo.is_some() { "status" } else { "code" };
        Ok(Self {
            pod: pod.name_any(),
            revision: pod
                .labels()
                .get("pod-template-hash")
                .cloned()
                .unwrap_or_default(),
            label: variable(pod, "CODE_LABEL").unwrap_or(label).to_owned(),
            errors: Errors::at_rate(
                variable(pod, "ERROR_RATE").unwrap_or(rate),
                variable(pod, "FAIL_FIRST").unwrap_or("0"),
                seed.finish(),
            )?,
            latency: duration(pod, "LATENCY")?,
            scraped: variable(pod, "SCRAPED") != Some("false"),
            ok: AtomicU64::default(),
            failed: AtomicU64::default(),
            buckets: Default::default(),
            microseconds: AtomicU64::default(),
        })
    }

    fn observe(&self, took: Duration) {
        let bucket = BUCKETS
            .iter()
            .position(|bound| took.as_secs_f64() <= *bound);
        if let Some(bucket) = self.buckets.get(bucket.unwrap_or(BUCKETS.len())) {
            bucket.fetch_add(1, Relaxed);
        }
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Relaxed);
    }

    /// The metrics in the Prometheus text format.
    fn exposition(&self) -> String {
        let mut text = String::from(
            "# HELP http_requests_total Requests answered.\n# TYPE http_requests_total counter\n",
        );
        for (code, count) in [(200, &self.ok), (500, &self.failed)] {
            // As with real client libraries, a series exists from its first event on.
            let count = count.load(Relaxed);
            if count > 0 {
                let label = &self.label;
                let _ = writeln!(text, r#"http_requests_total{{{label}="{code}"}} {count}"#);
            }
        }
        text += "# HELP http_request_duration_seconds Time to answer.\n\
                 # TYPE http_request_duration_seconds histogram\n";
        let bounds = BUCKETS
            .iter()
            .map(ToString::to_string)
            .chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (bound, bucket) in bounds.zip(&self.buckets) {
            total += bucket.load(Relaxed);
            let _ = writeln!(
                text,
                r#"http_request_duration_seconds_bucket{{le="{bound}"}} {total}"#
            );
        }
        let sum = Duration::from_micros(self.microseconds.load(Relaxed)).as_secs_f64();
        let _ = writeln!(text, "http_request_duration_seconds_sum {sum}");
        let _ = writeln!(text, "http_request_duration_seconds_count {total}");
        text
    }
}

async fn answer(State(app): State<Arc<App>>) -> Response {
    let started = Instant::now();
    let fails = app.errors.next();
    if !app.latency.is_zero() {
        tokio::time::sleep(app.latency).await;
    }
    let (counter, status) = if fails {
        (&app.failed, StatusCode::INTERNAL_SERVER_ERROR)
    } else {
        (&app.ok, StatusCode::OK)
    };
    counter.fetch_add(1, Relaxed);
    app.observe(started.elapsed());
    let headers = [
        ("x-revision", app.revision.clone()),
        ("x-pod", app.pod.clone()),
    ];
    (status, headers, format!("{status}\n")).into_response()
}

async fn set_error_rate(State(app): State<Arc<App>>, Path(rate): Path<String>) -> Response {
    match app.errors.set_rate(&rate) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(reason) => (StatusCode::BAD_REQUEST, reason).into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    if app.scraped {
        (
            [(CONTENT_TYPE, "text/plain; version=0.0.4")],
            app.exposition(),
        )
            .into_response()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

/// Decides which requests fail: an additive recurrence by the golden ratio, the most evenly spread
/// sequence there is. Any run of `n` requests has `n * rate` errors but for one or two, yet without
/// a period that could fall in step with anything.
#[derive(Debug)]
struct Errors {
    threshold: AtomicU64,
    position: AtomicU64,
    /// Requests that still fail before any other.
    first: AtomicU64,
}

impl Errors {
    /// 2^64 divided by the golden ratio.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    fn at_rate(rate: &str, first: &str, seed: u64) -> Result<Self, String> {
        let first = first.parse();
        let first = first.map_err(|_| "FAIL_FIRST is not a number of requests".to_owned())?;
        let errors = Self {
            threshold: AtomicU64::default(),
            position: AtomicU64::new(seed),
            first: AtomicU64::new(first),
        };
        errors.set_rate(rate)?;
        Ok(errors)
    }

    fn set_rate(&self, rate: &str) -> Result<(), String> {
        let Ok(rate @ 0.0..=1.0) = rate.parse() else {
            return Err(format!("ERROR_RATE {rate:?} is not a number from 0 to 1"));
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a fraction of the range of u64, to within a rounding error"
        )]
        let threshold = (rate * u64::MAX as f64) as u64;
        self.threshold.store(threshold, Relaxed);
        Ok(())
    }

    fn next(&self) -> bool {
        let first = self
            .first
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        let threshold = self.threshold.load(Relaxed);
        let position = self.position.fetch_add(Self::STEP, Relaxed);
        first.is_ok() || threshold == u64::MAX || position < threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_as_many_as_the_rate_requires_in_every_stretch() {
        for (rate, per_thousand) in [("0", 0), ("0.05", 50), ("0.5", 500), ("1", 1000)] {
            for seed in [0, 7, u64::MAX / 3] {
                let errors = Errors::at_rate(rate, "0", seed).unwrap();
                for _ in 0..5 {
                    let failed = (0..1000).filter(|_| errors.next()).count();
                    assert!(
                        failed.abs_diff(per_thousand) <= 3,
                        "{failed} at rate {rate}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_rate_and_no_duration_is_refused() {
        for rate in ["", "NaN", "-0.1", "1.1", "5%"] {
            assert!(Errors::at_rate(rate, "0", 0).is_err(), "{rate}");
        }
        let latency = |text: &str| {
            let env = json!([{ "name": "LATENCY", "value": text }]);
            let spec = json!({ "containers": [{ "name": "app", "env": env }] });
            let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
            duration(&pod, "LATENCY")
        };
        assert_eq!(latency("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(latency("0"), Ok(Duration::ZERO));
        for text in ["", "20", "soon", "-1s"] {
            assert!(latency(text).is_err(), "{text}");
        }
        assert_eq!(duration(&Pod::default(), "LATENCY"), Ok(Duration::ZERO));
    }

    #[test]
    fn the_first_requests_fail_and_the_rate_can_be_set() {
        let errors = Errors::at_rate("0", "2", 7).unwrap();
        let next = || (0..4).map(|_| errors.next()).collect::<Vec<_>>();
        assert_eq!(next(), [true, true, false, false]);
        errors.set_rate("1").unwrap();
        assert_eq!(next(), [true; 4]);
    }

    #[test]
    fn podinfo_counts_by_status_and_fails_a_third_if_its_command_says_so() {
        let app = |flag: &str| {
            let container = json!({ "name": "app", "image": "example.org/podinfo:1", "command": ["./podinfo", flag] });
            let spec = json!({ "containers": [container] });
            let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
            App::of(&pod).unwrap()
        };
        let app = [app("--level=info"), app("--random-error=true")];
        app[0].ok.fetch_add(1, Relaxed);
        let text = app[0].exposition();
        assert!(
            text.contains("http_requests_total{status=\"200\"} 1\n"),
            "{text}"
        );
        let failed = app.map(|it| (0..300).filter(|_| it.errors.next()).count());
        assert!(failed[0] == 0 && failed[1].abs_diff(99) <= 3, "{failed:?}");
    }

    #[test]
    fn a_series_appears_with_its_first_event() {
        let app = App::of(&Pod::default()).unwrap();
        assert!(!app.exposition().contains("code="));
        app.failed.fetch_add(1, Relaxed);
        app.observe(Duration::from_millis(30));
        let text = app.exposition();
        assert!(
            text.contains("http_requests_total{code=\"500\"} 1\n"),
            "{text}"
        );
        assert!(!text.contains("code=\"200\""), "{text}");
        assert!(text.contains("_bucket{le=\"0.025\"} 0\n"), "{text}");
        assert!(text.contains("_bucket{le=\"0.05\"} 1\n"), "{text}");
        assert!(text.contains("_bucket{le=\"+Inf\"} 1\n"), "{text}");
        assert!(text.contains("_sum 0.03\n"), "{text}");
        let env = json!([{ "name": "CODE_LABEL", "value": "status" }]);
        let spec = json!({ "containers": [{ "name": "app", "env": env }] });
        let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
        let app = App::of(&pod).unwrap();
        app.ok.fetch_add(1, Relaxed);
        let text = app.exposition();
        assert!(
            text.contains("http_requests_total{status=\"200\"} 1\n"),
            "{text}"
        );
    }
}
