//! The operator's client of Prometheus, against a server with scripted responses. Only numbers that were
//! certainly counted may become counts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "a test may panic; times and counts are small whole numbers"
)]

mod answers;
mod clocks;
mod connection;
mod counting;
mod credentials;
mod sharing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration as StdDuration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use axum::routing::any;
use countersign::prometheus::{Arm, Ask, ConfigError, Pair, Prometheus, PrometheusConfig};
use countersign_api::{Check, Duration, Preset};
use countersign_core::analysis::statistics::Counts;
use countersign_core::observation::windows::{
    CheckWindows, Unanswered, Uncounted, Window, WindowOutcome,
};
use k8s_openapi::jiff::Timestamp;
use promql_parser::parser::{Expr, MatrixSelector};

/// When the canary first got traffic, in Unix seconds.
const FROM: i64 = 1_700_000_000;
const INTERVAL: i64 = 15;

/// A request as received by the server.
#[derive(Clone, Debug)]
struct Received {
    path: String,
    params: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    authorization: Option<String>,
}

impl Received {
    fn query(&self) -> &str {
        &self.params["query"]
    }

    fn is_about(&self, arm: &str) -> bool {
        self.query().contains(arm)
    }

    fn is_for_errors(&self) -> bool {
        self.query().contains("[5-9]..")
    }
}

/// A server and its received requests.
struct Fake {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Fake {
    async fn start(
        answer: impl Fn(&Received) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::behind(listener, url, answer)
    }

    fn behind<L: axum::serve::Listener<Addr: std::fmt::Debug>>(
        listener: L,
        url: String,
        answer: impl Fn(&Received) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        let received = Arc::new(Mutex::new(vec![]));
        let log = received.clone();
        let serve = move |request: Request| async move {
            let (parts, body) = request.into_parts();
            let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
            let form = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
            let headers = parts.headers.iter();
            let headers = headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect::<BTreeMap<_, _>>();
            let received = Received {
                path: parts.uri.path().to_owned(),
                params: form.query_pairs().into_owned().collect(),
                authorization: headers.get("authorization").cloned(),
                headers,
            };
            log.lock().unwrap().push(received.clone());
            answer(&received)
        };
        let router = axum::Router::new().fallback(any(serve));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, received }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn client(&self) -> Prometheus {
        connect(config(&self.url))
    }
}

fn config(url: &str) -> PrometheusConfig {
    PrometheusConfig {
        url: Some(url.to_owned()),
        timeout: StdDuration::from_secs(5),
        lag: StdDuration::from_secs(30),
        ..PrometheusConfig::default()
    }
}

fn connect(config: PrometheusConfig) -> Prometheus {
    try_connect(config).unwrap()
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "each test writes its settings where it uses them"
)]
fn try_connect(config: PrometheusConfig) -> Result<Prometheus, ConfigError> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    Prometheus::new(&config)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn arm(revision: &str) -> Arm {
    Arm {
        namespace: "shop".into(),
        service: None,
        rollout: "cart".into(),
        revision: revision.into(),
    }
}

/// Requests all windows that ended within this many seconds after the start, none counted yet.
fn ask(seconds: i64) -> Ask {
    let preset = Some(Preset::HttpRequestsTotal);
    Ask {
        check: Check {
            name: "http".into(),
            preset,
            ..Check::default()
        },
        canary: arm("canary"),
        stable: Some(arm("stable")),
        interval: Duration::seconds(INTERVAL.unsigned_abs()),
        from: at(FROM),
        counted_until: at(FROM),
        until: at(FROM + seconds + 30),
        history: Vec::new(),
    }
}

/// The same for a Rollout of another namespace.
fn ask_in(namespace: &str, seconds: i64) -> Ask {
    let mut ask = ask(seconds);
    for arm in [&mut ask.canary].into_iter().chain(&mut ask.stable) {
        namespace.clone_into(&mut arm.namespace);
    }
    ask
}

fn expressions() -> Check {
    let sum = |name: &str| {
        Some(format!(
            "sum(increase({name}{{r=\"{{{{revision}}}}\"}}[{{{{window}}}}]))"
        ))
    };
    Check {
        name: "own".into(),
        errors: sum("bad"),
        total: sum("all"),
        ..Check::default()
    }
}

fn response(status: u16, kind: &str, body: impl Into<Body>) -> Response<Body> {
    let builder = Response::builder().status(StatusCode::from_u16(status).unwrap());
    builder
        .header("content-type", kind)
        .body(body.into())
        .unwrap()
}

fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    response(status, "application/json; charset=utf-8", value.to_string())
}

/// A series of the preset's metric: its labels, and samples by the seconds after the start.
#[derive(Clone)]
struct Counter {
    revision: &'static str,
    code: &'static str,
    pod: &'static str,
    samples: Vec<(i64, String)>,
}

fn counter(
    revision: &'static str,
    code: &'static str,
    pod: &'static str,
    samples: &[(i64, f64)],
) -> Counter {
    let samples = samples
        .iter()
        .map(|(at, value)| (*at, value.to_string()))
        .collect();
    Counter {
        revision,
        code,
        pod,
        samples,
    }
}

/// A counter that was scraped every 15 s from this long before the start, with constant growth.
fn steady(revision: &'static str, code: &'static str, from: i64, by: f64) -> Counter {
    let samples: Vec<_> = (0..400)
        .map(|k| (from + 15 * k, 1000.0 + by * k as f64))
        .collect();
    counter(revision, code, revision, &samples)
}

impl Counter {
    fn labels(&self) -> BTreeMap<&str, &str> {
        BTreeMap::from([
            ("__name__", "http_requests_total"),
            ("namespace", "shop"),
            ("pod_template_hash", self.revision),
            ("code", self.code),
            ("instance", self.pod),
        ])
    }

    /// The last value of the five minutes before a time.
    fn value_at(&self, time: i64) -> Option<f64> {
        let until = self.samples.iter().map(|(at, value)| (FROM + at, value));
        let last = until.rev().find(|(at, _)| *at <= time)?;
        (time - last.0 < 300).then(|| last.1.parse().unwrap())
    }

    fn row(&self, selector: &MatrixSelector, time: i64, last: bool) -> Option<serde_json::Value> {
        let labels = self.labels();
        let matches = |m: &promql_parser::label::Matcher| m.is_match(labels[m.name.as_str()]);
        let start = time - i64::try_from(selector.range.as_secs()).unwrap();
        let inside = self.samples.iter().map(|(at, value)| (FROM + at, value));
        let inside: Vec<_> = inside
            .filter(|(at, _)| start < *at && *at <= time)
            .collect();
        if !selector.vs.matchers.matchers.iter().all(matches) || inside.is_empty() {
            return None;
        }
        Some(if last {
            serde_json::json!({"metric": labels, "value": [time, inside.last()?.1]})
        } else {
            serde_json::json!({"metric": labels, "values": inside})
        })
    }
}

/// Evaluates the operator's queries of counters.
fn evaluate(received: &Received, counters: &[Counter]) -> Response<Body> {
    if received.path.ends_with("/query_range") {
        return sum_at_each_step(received, counters);
    }
    let time = received.params["time"].parse().unwrap();
    let (kind, selector) = match promql_parser::parser::parse(received.query()).unwrap() {
        Expr::MatrixSelector(selector) => ("matrix", selector),
        Expr::Call(call) if call.func.name == "last_over_time" => {
            match *call.args.first().unwrap() {
                Expr::MatrixSelector(selector) => ("vector", selector),
                other => panic!("{other}"),
            }
        }
        other => panic!("{other}"),
    };
    let rows = counters
        .iter()
        .filter_map(|c| c.row(&selector, time, kind == "vector"));
    json(200, &success(kind, &rows.collect::<Vec<_>>()))
}

/// Evaluates the operator's query for history, the sum of a selector at each step.
fn sum_at_each_step(received: &Received, counters: &[Counter]) -> Response<Body> {
    let Expr::Aggregate(sum) = promql_parser::parser::parse(received.query()).unwrap() else {
        panic!("{}", received.query())
    };
    let Expr::VectorSelector(selector) = *sum.expr else {
        panic!("{}", sum.expr)
    };
    let number = |name: &str| received.params[name].parse::<i64>().unwrap();
    let (start, end, step) = (number("start"), number("end"), number("step"));
    let matching: Vec<_> = counters
        .iter()
        .filter(|counter| {
            let labels = counter.labels();
            let mut matchers = selector.matchers.matchers.iter();
            matchers.all(|m| m.is_match(labels[m.name.as_str()]))
        })
        .collect();
    let at = |time: i64| {
        let values = matching.iter().filter_map(|it| it.value_at(time));
        let values: Vec<f64> = values.collect();
        (!values.is_empty()).then(|| (time, values.iter().sum::<f64>().to_string()))
    };
    let steps = (0..=(end - start) / step).map(|k| start + k * step);
    let values: Vec<_> = steps.filter_map(at).collect();
    let rows = (!values.is_empty()).then(|| serde_json::json!({"metric": {}, "values": values}));
    json(
        200,
        &success("matrix", &rows.into_iter().collect::<Vec<_>>()),
    )
}

fn success(kind: &str, result: &[serde_json::Value]) -> serde_json::Value {
    serde_json::json!({"status": "success", "data": {"resultType": kind, "result": result}})
}

async fn counting(counters: Vec<Counter>) -> Fake {
    Fake::start(move |received| evaluate(received, &counters)).await
}

fn counts(window: &Window) -> [f64; 4] {
    match &window.outcome {
        WindowOutcome::Counted { canary, stable } => [
            canary.requests,
            canary.errors,
            stable.requests,
            stable.errors,
        ],
        other => panic!("{other:?}"),
    }
}

fn uncounted(windows: &CheckWindows) -> (Uncounted, &str) {
    match &windows.due.first().unwrap().outcome {
        WindowOutcome::Uncounted { reason, message } => (*reason, message),
        other => panic!("{other:?}"),
    }
}

fn unanswered(windows: &CheckWindows) -> (Unanswered, &str) {
    assert_eq!(
        windows.due.len(),
        1,
        "the first window alone has the reason: {windows:?}"
    );
    let window = &windows.due[0];
    assert_eq!((window.start, window.end), (at(FROM), at(FROM + INTERVAL)));
    match &window.outcome {
        WindowOutcome::Unanswered { reason, message } => {
            assert!(
                message.len() < 500 && !message.contains(char::is_control),
                "{message}"
            );
            (*reason, message)
        }
        other => panic!("{other:?}"),
    }
}

/// The operator's result if every request gets the same response.
async fn answer_to(
    answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
) -> CheckWindows {
    let fake = Fake::start(move |_| answer()).await;
    fake.client().windows(&ask(60)).await
}
