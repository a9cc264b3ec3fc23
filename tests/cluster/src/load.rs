//! Real requests through a Service's endpoints or the gateway, bounded in number and time.

use crate::{
    error::{Error, Result},
    gateway::Gateway,
    http,
    nodes::is_pod_address,
    wait::wait_for,
};
use axum::http::StatusCode;
use futures::StreamExt as _;
use k8s_openapi::{api::discovery::v1::EndpointSlice, jiff::Timestamp};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher::{self, watcher},
    },
};
use rand::seq::IndexedRandom as _;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Timeout of a response, which then counts as a connection error.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout until the gateway serves a route.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(30);

/// The limits of a [`Load`], which apply even if its owner does not stop it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most this many requests.
    pub max_requests: u64,
    /// For at most this long.
    pub max_time: Duration,
}

/// The counts of the requests so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// All completed requests: the sum of the three below.
    pub requests: u64,
    /// Answered with success.
    pub ok: u64,
    /// Answered with any other status.
    pub http_errors: u64,
    /// Without a response, or because the Service had no ready endpoint.
    pub connection_errors: u64,
    /// The responses by revision (`pod-template-hash`); those of the gateway itself under `unknown`.
    pub by_revision: BTreeMap<String, RevisionCount>,
    /// The cause of the last failure: `503 by` a revision or `unknown`, or the connection error.
    pub last_failure: Option<String>,
}

/// The responses of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionCount {
    /// All responses.
    pub requests: u64,
    /// Unsuccessful responses.
    pub errors: u64,
    /// When the first of these arrived.
    pub first_error_at: Option<Timestamp>,
    /// When the last response arrived.
    pub last_request_at: Option<Timestamp>,
}

/// Requests at a constant rate, until stopped, dropped or at its limits.
#[derive(Debug)]
pub struct Load {
    report: watch::Receiver<LoadReport>,
    running: JoinHandle<()>,
    stop: DropGuard,
}

impl Load {
    /// Sends `requests_per_second` to the ready endpoints of a Service, chosen per request. The first is
    /// sent once the Service has a ready endpoint; from then on, the lack of one is an error of the
    /// Service.
    pub async fn start(
        client: Client,
        namespace: &str,
        service: &str,
        requests_per_second: u32,
        limits: Limits,
    ) -> Result<Self> {
        let endpoints = Endpoints::watch(client, namespace, service).await?;
        let target = Target::Service(endpoints);
        Ok(Self::on(target, requests_per_second, limits))
    }

    /// Sends `requests_per_second` for a host to the gateway, from when it has answered one for
    /// that host with success.
    pub async fn through(
        gateway: Gateway,
        host: &str,
        requests_per_second: u32,
        limits: Limits,
    ) -> Result<Self> {
        let what = format!("the gateway routes {host}");
        wait_for(&what, ROUTE_TIMEOUT, async || {
            match http::get(gateway.address(), host, "/", TIMEOUT).await {
                Ok(response) if response.status().is_success() => Ok(()),
                Ok(response) => Err(response.status().to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        let host = host.to_owned();
        let target = Target::Gateway { gateway, host };
        Ok(Self::on(target, requests_per_second, limits))
    }

    fn on(target: Target, requests_per_second: u32, limits: Limits) -> Self {
        let (writer, report) = watch::channel(LoadReport::default());
        let stop = CancellationToken::new();
        let pace = Duration::from_secs(1) / requests_per_second.max(1);
        let running = tokio::spawn(run(target, pace, limits, writer, stop.clone()));
        Self {
            report,
            running,
            stop: stop.drop_guard(),
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn report(&self) -> LoadReport {
        self.report.borrow().clone()
    }

    /// Stops, waits for pending requests, and returns the counts.
    pub async fn stop(self) -> LoadReport {
        drop(self.stop);
        // A panic in the task is not possible short of a bug, and would show in the counts.
        let _ = self.running.await;
        self.report.borrow().clone()
    }
}

async fn run(
    target: Target,
    pace: Duration,
    limits: Limits,
    report: watch::Sender<LoadReport>,
    stop: CancellationToken,
) {
    let mut ticks = interval(pace);
    // After a pause of this process, continue at the same pace, without a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut end = std::pin::pin!(sleep(limits.max_time));
    let mut under_way = JoinSet::new();
    let mut sent = 0;
    while sent < limits.max_requests {
        tokio::select! {
            () = stop.cancelled() => break,
            () = &mut end => break,
            _ = ticks.tick() => match target.choose() {
                None if sent == 0 => {}
                address => {
                    sent += 1;
                    under_way.spawn(request(address, target.host().to_owned()));
                }
            },
            Some(Ok(outcome)) = under_way.join_next() => {
                report.send_modify(|report| report.count(outcome));
            }
        }
    }
    while let Some(Ok(outcome)) = under_way.join_next().await {
        report.send_modify(|report| report.count(outcome));
    }
}

/// The responder and the status.
struct Answer {
    revision: String,
    status: StatusCode,
}

/// A response, or the connection error.
async fn request(address: Option<SocketAddr>, host: String) -> Result<Answer, String> {
    let address = address.ok_or("the Service has no ready endpoint")?;
    let response = http::get(address, &host, "/", TIMEOUT).await;
    let response = response.map_err(|error| format!("{address}: {error}"))?;
    let revision = response
        .headers()
        .get("x-revision")
        .and_then(|value| value.to_str().ok());
    Ok(Answer {
        revision: revision.unwrap_or("unknown").to_owned(),
        status: response.status(),
    })
}

impl LoadReport {
    fn count(&mut self, outcome: Result<Answer, String>) {
        self.requests += 1;
        let Answer { revision, status } = match outcome {
            Ok(answer) => answer,
            Err(reason) => {
                self.connection_errors += 1;
                self.last_failure = Some(reason);
                return;
            }
        };
        if !status.is_success() {
            self.last_failure = Some(format!("{} by {revision}", status.as_u16()));
        }
        #[expect(clippy::disallowed_methods, reason = "a measurement, no decision")]
        let now = Timestamp::now();
        let revision = self.by_revision.entry(revision).or_default();
        revision.requests += 1;
        revision.last_request_at = Some(now);
        if status.is_success() {
            self.ok += 1;
        } else {
            self.http_errors += 1;
            revision.errors += 1;
            revision.first_error_at.get_or_insert(now);
        }
    }
}

/// The target of requests.
enum Target {
    Service(Endpoints),
    Gateway { gateway: Gateway, host: String },
}

impl Target {
    /// The address of the next request, if any.
    fn choose(&self) -> Option<SocketAddr> {
        match self {
            Self::Service(endpoints) => endpoints.choose(),
            Self::Gateway { gateway, .. } => Some(gateway.address()),
        }
    }

    fn host(&self) -> &str {
        match self {
            Self::Service(endpoints) => &endpoints.service,
            Self::Gateway { host, .. } => host,
        }
    }
}

/// The endpoints of one Service, kept current by a watch.
struct Endpoints {
    service: String,
    slices: Store<EndpointSlice>,
    watch: JoinHandle<()>,
}

impl Endpoints {
    async fn watch(client: Client, namespace: &str, service: &str) -> Result<Self> {
        let (slices, writer) = reflector::store();
        let config =
            watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
        let events = watcher(Api::<EndpointSlice>::namespaced(client, namespace), config)
            .default_backoff()
            .reflect(writer);
        let watch = tokio::spawn(events.for_each(async |_| ()));
        let endpoints = Self {
            service: service.to_owned(),
            slices,
            watch,
        };
        tokio::time::timeout(TIMEOUT, endpoints.slices.wait_until_ready())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| Error::TimedOut {
                what: format!("a list of the endpoints of service {namespace}/{service}"),
                within: TIMEOUT,
                last: "no answer from the API server".to_owned(),
            })?;
        Ok(endpoints)
    }

    /// One of the ready endpoints, each as likely as the other.
    fn choose(&self) -> Option<SocketAddr> {
        let slices = self.slices.state();
        let ready: Vec<_> = slices
            .iter()
            .flat_map(|slice| ready_addresses(slice))
            .collect();
        ready.choose(&mut rand::rng()).copied()
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Only addresses of the harness' pods: a test must send traffic nowhere else.
fn ready_addresses(slice: &EndpointSlice) -> impl Iterator<Item = SocketAddr> {
    let port = slice.ports.iter().flatten().find_map(|port| port.port);
    let port = port.and_then(|port| u16::try_from(port).ok());
    slice
        .endpoints
        .iter()
        .flatten()
        // The API server documents that an absent condition means ready.
        .filter(|endpoint| {
            endpoint.conditions.as_ref().is_none_or(|conditions| {
                conditions.ready.unwrap_or(true) && conditions.serving.unwrap_or(true)
            })
        })
        .filter_map(|endpoint| endpoint.addresses.first()?.parse().ok())
        .filter(|address| is_pod_address(*address))
        .filter_map(move |address| Some(SocketAddr::new(IpAddr::V4(address), port?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_pods_of_the_cluster_are_sent_to() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": {},
            "ports": [{ "port": 8080 }],
            "endpoints": [
                { "addresses": ["10.0.0.1"] },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": true, "serving": true } },
                { "addresses": ["10.0.0.3"], "conditions": { "ready": false, "serving": true } },
                { "addresses": ["192.0.2.1"], "conditions": { "ready": true } },
            ],
        }))
        .unwrap();
        let ready: Vec<_> = ready_addresses(&slice)
            .map(|address| address.to_string())
            .collect();
        assert_eq!(ready, ["10.0.0.1:8080", "10.0.0.2:8080"]);
    }

    #[test]
    fn a_report_adds_up() {
        let mut report = LoadReport::default();
        for status in [200, 500, 503] {
            report.count(Ok(Answer {
                revision: "a".to_owned(),
                status: StatusCode::from_u16(status).unwrap(),
            }));
        }
        assert_eq!(report.last_failure.as_deref(), Some("503 by a"));
        report.count(Err("refused".to_owned()));
        assert_eq!(report.last_failure.as_deref(), Some("refused"));
        assert_eq!((report.requests, report.ok), (4, 1));
        assert_eq!((report.http_errors, report.connection_errors), (2, 1));
        let revision = &report.by_revision["a"];
        assert_eq!((revision.requests, revision.errors), (3, 2));
        assert!(revision.first_error_at <= revision.last_request_at);
    }
}
