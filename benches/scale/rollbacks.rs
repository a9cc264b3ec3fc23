//! The time from evidence to a canary without traffic: real requests through Traefik, real scrapes, and the
//! time at which the API server had written weight 0 into the route.

use std::fmt;
use std::time::Duration;

use countersign_api::Rollout;
use countersign_api::rollout::{Change, Outcome};
use countersign_cluster::{ApiRequest, Cluster, Gateway, Limits, Load, wait_for};
use countersign_core::reason::Reason;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use serde_json::json;

use crate::Result;
use crate::fleet::{self, App, WAIT_TIMEOUT};
use crate::observed::Observed;

/// Applications that are changed in turn.
const APPS: usize = 20;
/// Time between two changes, so that each verdict has the machine to itself as in an incident.
const APART: Duration = Duration::from_secs(2);
const REQUESTS_PER_SECOND: u32 = 10;
/// The lag that the test cluster configures for the operator.
const LAG: SignedDuration = SignedDuration::from_secs(3);

/// Applications behind a gateway, with traffic.
pub struct Rollbacks {
    cluster: Cluster,
    namespace: String,
    loads: Vec<Load>,
    /// Changes of each application so far.
    round: usize,
}

/// The times of one rollback.
struct Rollback {
    /// When the deciding window could be judged: its end plus the lag.
    due: Timestamp,
    /// The reconcile that judged it.
    reconcile: Timestamp,
    /// The verdict is in the status.
    status: Timestamp,
    /// The weight is in the route.
    route: Timestamp,
}

impl Rollbacks {
    /// The first versions of the applications, once they serve.
    pub async fn prepare(cluster: &Cluster) -> Result<Self> {
        let gateway = cluster.gateway().await?;
        let namespace = cluster.namespace("rollbacks").await?;
        fleet::policy(cluster, &namespace, &[50], "2s").await?;
        let mut this = Self {
            cluster: cluster.clone(),
            namespace,
            loads: Vec::new(),
            round: 0,
        };
        for number in 0..APPS {
            this.route(gateway, &name(number)).await?;
        }
        this.change(0.0, Duration::ZERO).await?;
        for number in 0..APPS {
            let limits = Limits {
                max_requests: 1_000_000,
                max_time: Duration::from_mins(90),
            };
            let host = this.host(&name(number));
            let load = Load::through(gateway, &host, REQUESTS_PER_SECOND, limits).await?;
            this.loads.push(load);
        }
        wait_for("they serve", WAIT_TIMEOUT, async || {
            let rollouts = this.rollouts().list(&ListParams::default()).await?;
            let stable = rollouts.items.iter().filter(|it| {
                it.status
                    .as_ref()
                    .is_some_and(|it| it.phase == countersign_api::Phase::Stable)
            });
            Ok::<_, kube::Error>(stable.count() == APPS)
        })
        .await?;
        Ok(this)
    }

    /// Ends the traffic, and returns when the applications are deleted.
    pub async fn end(self) -> Result<()> {
        drop(self.loads);
        fleet::remove(&self.cluster, &self.namespace).await
    }

    /// Rolls each application back `rounds` times.
    pub async fn measure(
        &mut self,
        rounds: usize,
        observed: &mut Observed,
        say: &impl Fn(&str),
    ) -> Result<Latencies> {
        let mut rollbacks = Vec::new();
        let unanswered = observed.unanswered().await?;
        for round in 1..=rounds {
            observed.requests()?;
            let changes = self.round().await?;
            let requests = observed.requests()?.0;
            let reconciles = observed.reconciles_within(&self.namespace)?;
            for (name, change) in &changes {
                let reconciles = reconciles.get(name).map_or(&[][..], Vec::as_slice);
                rollbacks.push(rollback(name, change, &requests, reconciles)?);
            }
            say(&format!("{} rollbacks of {}", round * APPS, rounds * APPS));
        }
        let unanswered = observed.unanswered().await? - unanswered;
        let own = observed.weight_writes().await?;
        Ok(Latencies::of(&rollbacks, unanswered, own))
    }

    /// Rolls each application back once.
    pub async fn round(&mut self) -> Result<Vec<(String, Change)>> {
        self.change(0.5, APART).await?;
        self.rolled_back().await
    }

    fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    fn host(&self, app: &str) -> String {
        format!("{app}.{}.example.org", self.namespace)
    }

    async fn route(&self, gateway: Gateway, app: &str) -> Result<()> {
        let client = self.cluster.client();
        let canary = format!("{app}-canary");
        fleet::service(&client, &self.namespace, app, app).await?;
        fleet::service(&client, &self.namespace, &canary, app).await?;
        let backend =
            |name: &str, weight: i32| json!({ "name": name, "port": 80, "weight": weight });
        let route = serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": app },
            "spec": {
                "parentRefs": [gateway.parent_ref()], "hostnames": [self.host(app)],
                "rules": [{ "backendRefs": [backend(app, 1), backend(&canary, 0)] }],
            },
        }))?;
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let kind = ApiResource::from_gvk(&kind);
        let routes: Api<DynamicObject> = Api::namespaced_with(client, &self.namespace, &kind);
        routes.create(&PostParams::default(), &route).await?;
        Ok(())
    }

    /// Changes all applications in turn.
    async fn change(&mut self, error_rate: f64, apart: Duration) -> Result<()> {
        self.round += 1;
        let (rollouts, version) = (self.rollouts(), format!("v{}", self.round));
        for number in 0..APPS {
            let name = name(number);
            let app = App {
                name: &name,
                version: &version,
                replicas: 2,
                serves: Some(error_rate),
                interval: "1s",
                canary: json!({
                    "stableService": name, "canaryService": format!("{name}-canary"), "drain": "1s",
                    "traffic": { "routes": [{ "name": name }] },
                }),
            };
            fleet::apply(&rollouts, app.name, &app.manifest()).await?;
            tokio::time::sleep(apart).await;
        }
        Ok(())
    }

    /// Waits until the present change of each is rolled back and its pods are gone.
    async fn rolled_back(&self) -> Result<Vec<(String, Change)>> {
        let (rollouts, image) = (self.rollouts(), format!(":v{}", self.round));
        let changes = wait_for("all are rolled back", WAIT_TIMEOUT, async || {
            // Polling would distort the measurement.
            tokio::time::sleep(APART).await;
            let rollouts = rollouts.list(&ListParams::default()).await;
            let rollouts = rollouts.map_err(|error| error.to_string())?.items;
            let ended = rollouts.into_iter().filter_map(|it| {
                let status = it.status?;
                let seen = status.observed_generation == it.metadata.generation?;
                let change = status
                    .change
                    .filter(|it| it.outcome == Some(Outcome::RolledBack))?;
                let idle = status.phase == countersign_api::Phase::Degraded;
                (seen && idle).then_some((it.metadata.name?, change))
            });
            let ended: Vec<_> = ended.collect();
            if ended.len() == APPS {
                Ok(ended)
            } else {
                Err(format!("{} of {APPS} with {image}", ended.len()))
            }
        });
        Ok(changes.await?)
    }
}

fn name(number: usize) -> String {
    format!("shop-{number:02}")
}

/// One rollback, from the audit log and the reconciles in the operator's log.
fn rollback(
    name: &str,
    change: &Change,
    requests: &[ApiRequest],
    reconciles: &[Timestamp],
) -> Result<Rollback> {
    let missing = |what: &str| format!("{name}: {what} is not in the logs");
    let of = |verb: &'static str, resource: &'static str| {
        requests.iter().filter(move |it| {
            it.name.as_deref() == Some(name) && it.verb == verb && it.resource == resource
        })
    };
    let verdict = change
        .transitions
        .iter()
        .find(|it| it.reason == Reason::AnalysisFailed)
        .and_then(|it| Some(it.at.as_ref()?.0))
        .ok_or_else(|| missing("a verdict"))?;
    let written = |verb, resource, from: Timestamp| {
        let writes = of(verb, resource).filter(move |it| it.at >= from && it.code < 300);
        writes.min_by_key(|it| it.at)
    };
    let status =
        written("update", "rollouts/status", verdict).ok_or_else(|| missing("the status"))?;
    // A reconcile observes nothing from before it began.
    let before = |until: Timestamp| reconciles.iter().copied().filter(|at| *at < until).max();
    let reconcile = before(status.at).ok_or_else(|| missing("the reconcile"))?;
    let last_reconcile = before(reconcile).ok_or_else(|| missing("the reconcile before"))?;
    let route = written("patch", "httproutes", reconcile).ok_or_else(|| missing("the route"))?;
    let due = due(change, last_reconcile).ok_or_else(|| missing("the grid of windows"))?;
    Ok(Rollback {
        due,
        reconcile,
        status: status.answered_at,
        route: route.answered_at,
    })
}

/// When the first window could be judged that the last reconcile without a verdict could not: if several
/// were due at once, the verdict was due with the first.
fn due(change: &Change, last_reconcile: Timestamp) -> Option<Timestamp> {
    let interval = change.interval.signed().as_secs();
    let from = change.evidence.from.as_ref()?.0.as_second();
    let known = last_reconcile.checked_sub(LAG).ok()?.as_second() - from;
    let next = known.max(0).div_euclid(interval) + 1;
    let end = Timestamp::from_second(from + next * interval).ok()?;
    end.checked_add(LAG).ok()
}

/// Durations, or multiples of one, sorted.
pub struct Spread(Vec<f64>);

impl Spread {
    fn of(rollbacks: &[Rollback], part: impl Fn(&Rollback) -> SignedDuration) -> Self {
        let all = rollbacks.iter().map(|it| part(it).as_secs_f64() * 1e3);
        Self::new(all.collect())
    }

    pub fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// The least duration that this share of them does not exceed.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a short list"
    )]
    pub fn at(&self, share: f64) -> f64 {
        let place = (share * self.0.len() as f64).ceil() as usize;
        let found = self.0.get(place.saturating_sub(1));
        found.copied().unwrap_or(f64::NAN)
    }
}

/// All of them.
pub struct Latencies {
    /// From when the deciding window could be judged to weight 0 in the route.
    pub whole: Spread,
    waiting: Spread,
    reading: Spread,
    writing: Spread,
    unanswered: f64,
    own: (f64, f64),
}

impl Latencies {
    fn of(rollbacks: &[Rollback], unanswered: f64, own: (f64, f64)) -> Self {
        let spread = |from: fn(&Rollback) -> Timestamp, to: fn(&Rollback) -> Timestamp| {
            Spread::of(rollbacks, |it| to(it).duration_since(from(it)))
        };
        Self {
            whole: spread(|it| it.due, |it| it.route),
            waiting: spread(|it| it.due, |it| it.reconcile),
            reading: spread(|it| it.reconcile, |it| it.status),
            writing: spread(|it| it.status, |it| it.route),
            unanswered,
            own,
        }
    }

    pub fn number(&self) -> usize {
        self.whole.0.len()
    }

    pub fn parts(&self) -> String {
        let part = |what, spread: &Spread| {
            format!("{what} {:.0} and {:.0} ms", spread.at(0.5), spread.at(0.99))
        };
        [
            part("until the reconcile", &self.waiting),
            part("to the written status", &self.reading),
            part("to the written route", &self.writing),
        ]
        .join(", ")
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            unanswered, own, ..
        } = self;
        let whole = &self.whole;
        write!(
            formatter,
            "{} rollbacks, median {:.0} ms, p99 {:.0} ms, most {:.0} ms; {}; {unanswered} windows not counted; \
             the operator's own account of decision to route: {own:?} ms at most",
            self.number(),
            whole.at(0.5),
            whole.at(0.99),
            whole.at(1.0),
            self.parts()
        )
    }
}
