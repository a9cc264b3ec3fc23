//! What Prometheus may answer, and what the operator makes of it, against a server that answers as
//! each test wants. Nothing but numbers that were surely counted may come out as counts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "a test may panic; times and counts are small whole numbers"
)]

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

/// When the canary was first given traffic, in Unix seconds.
const FROM: i64 = 1_700_000_000;
const INTERVAL: i64 = 15;

/// A question as the server got it.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    params: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    authorization: Option<String>,
}

impl Asked {
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

/// A server and what it was asked.
struct Fake {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    async fn start(
        answer: impl Fn(&Asked) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::behind(listener, url, answer)
    }

    fn behind<L: axum::serve::Listener<Addr: std::fmt::Debug>>(
        listener: L,
        url: String,
        answer: impl Fn(&Asked) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(vec![]));
        let log = asked.clone();
        let serve = move |request: Request| async move {
            let (parts, body) = request.into_parts();
            let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
            let form = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
            let headers = parts.headers.iter();
            let headers = headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect::<BTreeMap<_, _>>();
            let asked = Asked {
                path: parts.uri.path().to_owned(),
                params: form.query_pairs().into_owned().collect(),
                authorization: headers.get("authorization").cloned(),
                headers,
            };
            log.lock().unwrap().push(asked.clone());
            answer(&asked)
        };
        let router = axum::Router::new().fallback(any(serve));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
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

/// Asks for every window that ended until so many seconds after the start, none counted yet.
fn ask(seconds: i64) -> Ask {
    let arm = |revision: &str| Arm {
        namespace: "shop".into(),
        service: None,
        rollout: "cart".into(),
        revision: revision.into(),
    };
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
        want_baseline: false,
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

/// A counter that was scraped every 15 s from so long before the start, and grew by as much each time.
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

/// Evaluates what the operator asks for counters.
fn evaluate(asked: &Asked, counters: &[Counter]) -> Response<Body> {
    let time = asked.params["time"].parse().unwrap();
    let (kind, selector) = match promql_parser::parser::parse(asked.query()).unwrap() {
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

fn success(kind: &str, result: &[serde_json::Value]) -> serde_json::Value {
    serde_json::json!({"status": "success", "data": {"resultType": kind, "result": result}})
}

async fn counting(counters: Vec<Counter>) -> Fake {
    Fake::start(move |asked| evaluate(asked, &counters)).await
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
        "the first window alone says why: {windows:?}"
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

/// What the operator says where every question is answered alike.
async fn answer_to(
    answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
) -> CheckWindows {
    let fake = Fake::start(move |_| answer()).await;
    fake.client().windows(&ask(60)).await
}

#[tokio::test]
async fn both_arms_are_counted_over_the_same_windows() {
    let fake = counting(vec![
        steady("canary", "200", -7, 10.0),
        counter(
            "canary",
            "500",
            "canary",
            &[(20, 1.0), (35, 3.0), (50, 3.0)],
        ),
        steady("stable", "200", -2000, 100.0),
        steady("stable", "503", -1999, 1.0),
    ])
    .await;
    let windows = fake.client().windows(&ask(45)).await;
    let edges: Vec<_> = windows.due.iter().map(|w| (w.start, w.end)).collect();
    assert_eq!(
        edges,
        [
            (at(FROM), at(FROM + 15)),
            (at(FROM + 15), at(FROM + 30)),
            (at(FROM + 30), at(FROM + 45))
        ]
    );
    let counted: Vec<_> = windows.due.iter().map(counts).collect();
    assert_eq!(
        counted,
        [
            [10.0, 0.0, 101.0, 1.0],
            [11.0, 1.0, 101.0, 1.0],
            [12.0, 2.0, 101.0, 1.0]
        ]
    );
    assert_eq!(windows.baseline, None);
    let asked = fake.asked();
    assert_eq!(asked.len(), 4, "one question an arm and query: {asked:?}");
    assert!(
        asked
            .iter()
            .all(|a| a.path == "/api/v1/query" && a.query().ends_with("[5m45s]"))
    );
}

#[tokio::test]
async fn nothing_is_asked_before_a_window_is_due() {
    let fake = counting(vec![]).await;
    for early in [-60, 0, 14] {
        let mut ask = ask(early);
        ask.want_baseline = true;
        assert_eq!(fake.client().windows(&ask).await, CheckWindows::default());
    }
    let mut counted = ask(59);
    counted.counted_until = at(FROM + 45);
    assert_eq!(
        fake.client().windows(&counted).await,
        CheckWindows::default()
    );
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn after_a_long_absence_windows_are_read_in_order_and_in_portions() {
    let fake = counting(vec![
        steady("canary", "200", 5, 10.0),
        steady("stable", "200", -600, 100.0),
    ])
    .await;
    let mut ask = ask(5_000);
    let first = fake.client().windows(&ask).await.due;
    assert_eq!((first.len(), first[0].start), (240, at(FROM)));
    ask.counted_until = first[239].end;
    let second = fake.client().windows(&ask).await.due;
    assert_eq!(
        (second[0].start, second[0].end),
        (at(FROM + 3600), at(FROM + 3615))
    );
    assert_eq!(second.last().unwrap().end, at(FROM + 4995));
    let sum: f64 = first
        .iter()
        .chain(&second)
        .map(|window| counts(window)[0])
        .sum();
    assert_eq!(
        sum,
        1000.0 + 332.0 * 10.0,
        "the first value and every increase, once each"
    );
}

#[tokio::test]
async fn one_look_or_many_count_the_same() {
    // A restart, a scrape that was missed, a pod that joins, an error in its first scrape.
    let joins = [(200, 1.0), (215, 1.0), (230, 2.0)];
    let fake = counting(vec![
        counter(
            "canary",
            "200",
            "a",
            &[(3, 5.0), (18, 9.0), (48, 2.0), (63, 12.0), (303, 13.0)],
        ),
        counter(
            "canary",
            "200",
            "b",
            &[(200, 6.0), (215, 8.0), (230, 9.0), (305, 20.0)],
        ),
        counter("canary", "500", "b", &joins),
        steady("stable", "200", -600, 100.0),
    ])
    .await;
    let total = |windows: &[Window]| {
        let counted = windows
            .iter()
            .filter(|w| matches!(w.outcome, WindowOutcome::Counted { .. }));
        counted
            .map(counts)
            .fold([0.0; 2], |sum, c| [sum[0] + c[0], sum[1] + c[1]])
    };
    let once = fake.client().windows(&ask(600)).await.due;
    assert_eq!(total(&once), [9.0 + 2.0 + 10.0 + 1.0 + 20.0 + 2.0, 2.0]);
    let mut many = vec![];
    for now in (0..=600).step_by(15) {
        let mut ask = ask(now);
        ask.counted_until = many.last().map_or(at(FROM), |window: &Window| window.end);
        many.extend(fake.client().windows(&ask).await.due);
    }
    assert_eq!(total(&many), total(&once));
    assert_eq!(many.len(), once.len());
}

#[tokio::test]
async fn a_canary_pod_out_of_sight_is_not_counted_twice() {
    // Pod b was counted up to 50, was not scraped for an hour, and has not begun anew. Pod c has.
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        counter(
            "canary",
            "200",
            "b",
            &[(10, 40.0), (25, 50.0), (3700, 70.0)],
        ),
        counter("canary", "500", "b", &[(10, 4.0), (25, 5.0), (3700, 7.0)]),
        counter("canary", "500", "c", &[(3701, 1.0)]),
        steady("stable", "200", -600, 100.0),
    ])
    .await;
    let mut ask = ask(3705);
    ask.counted_until = at(FROM + 3690);
    let windows = fake.client().windows(&ask).await;
    assert_eq!(
        counts(&windows.due[0])[..2],
        [10.0 + 20.0 + 2.0 + 1.0, 2.0 + 1.0]
    );
    let looked_back = || {
        let asked = fake.asked().into_iter();
        asked
            .filter(|a| a.query().starts_with("last_over_time"))
            .collect::<Vec<_>>()
    };
    assert!(looked_back().len() == 2 && looked_back().iter().all(|a| a.is_about("canary")));
    // Where nothing appears, nothing more is asked.
    ask.counted_until = at(FROM + 3000);
    ask.until = at(FROM + 3045);
    fake.client().windows(&ask).await;
    assert_eq!(looked_back().len(), 2);
}

#[tokio::test]
async fn stable_pods_that_come_into_sight_do_not_count_their_whole_life() {
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        counter("stable", "200", "a", &[(5, 1_000_000.0), (20, 1_000_100.0)]),
        counter("stable", "500", "a", &[(5, 50_000.0), (20, 50_001.0)]),
        counter("stable", "501", "a", &[(20, 2.0)]),
    ])
    .await;
    let windows = fake.client().windows(&ask(30)).await;
    assert_eq!(counts(&windows.due[0])[2..], [0.0, 0.0]);
    assert_eq!(
        counts(&windows.due[1])[2..],
        [103.0, 3.0],
        "a first error of a known pod counts"
    );
}

#[tokio::test]
async fn the_baseline_is_what_stable_did_before() {
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        steady("stable", "200", -3000, 100.0),
        steady("stable", "500", -3000, 2.0),
    ])
    .await;
    let mut ask = ask(15);
    ask.want_baseline = true;
    let windows = fake.client().windows(&ask).await;
    assert_eq!(windows.due.len(), 1);
    assert_eq!(
        windows.baseline,
        Some(vec![
            Counts {
                requests: 102.0,
                errors: 2.0
            };
            40
        ])
    );
    assert_eq!(fake.asked().len(), 6);
}

#[tokio::test]
async fn nothing_counts_before_the_baseline_is_known() {
    let counters = [
        steady("canary", "200", 0, 10.0),
        steady("stable", "200", -300, 100.0),
    ];
    let fake = Fake::start(move |asked| match asked.params["time"].parse() {
        Ok(FROM) => response(503, "text/plain", "busy"),
        _ => evaluate(asked, &counters),
    })
    .await;
    let mut ask = ask(15);
    ask.want_baseline = true;
    let windows = fake.client().windows(&ask).await;
    let (reason, _) = unanswered(&windows);
    assert_eq!(reason, Unanswered::PrometheusError);
    assert_eq!(windows.baseline, None);
}

#[tokio::test]
async fn expressions_are_one_range_query_each() {
    let fake = Fake::start(|asked| {
        assert_eq!(asked.path, "/api/v1/query_range");
        let number = |name: &str| asked.params[name].parse::<f64>().unwrap();
        let bounds = [number("start"), number("end"), number("step")].map(|x| x - FROM as f64);
        assert_eq!(bounds, [15.0, 45.0, INTERVAL as f64 - FROM as f64]);
        let value = if asked.query().contains("bad") {
            "0.5"
        } else {
            "20"
        };
        // The second step has no value: the expression gave none there.
        let values = [(FROM + 15, value), (FROM + 45, value)];
        json(
            200,
            &success(
                "matrix",
                &[serde_json::json!({"metric": {}, "values": values})],
            ),
        )
    })
    .await;
    let mut ask = ask(45);
    ask.check = expressions();
    let windows = fake.client().windows(&ask).await;
    assert_eq!(counts(&windows.due[0]), [20.0, 0.5, 20.0, 0.5]);
    assert_eq!(counts(&windows.due[2]), [20.0, 0.5, 20.0, 0.5]);
    let WindowOutcome::Uncounted { reason, message } = &windows.due[1].outcome else {
        panic!()
    };
    assert_eq!(*reason, Uncounted::NoSeries);
    assert!(message.contains(r#"canary: the query `total` (sum(increase(all{r="canary"}[15s])))"#));
    assert_eq!(fake.asked().len(), 4);
}

#[tokio::test]
async fn equal_questions_are_asked_once() {
    let fake = counting(vec![]).await;
    let mut ask = ask(15);
    let same = Some("x{pod_template_hash=\"{{revision}}\"}".to_owned());
    ask.check = Check {
        name: "own".into(),
        errors: same.clone(),
        total: same,
        ..Check::default()
    };
    fake.client().windows(&ask).await;
    assert_eq!(fake.asked().len(), 2);
}

#[tokio::test]
async fn odd_numbers_are_named_and_move_no_evidence() {
    let stable = || steady("stable", "200", -600, 100.0);
    let odd = |value: &str| {
        let mut odd = counter("canary", "200", "a", &[(-5, 1.0), (10, 2.0)]);
        odd.samples[1].1 = value.to_owned();
        vec![odd, stable()]
    };
    let table = [
        (odd("NaN"), Uncounted::NotANumber, "gave the value NaN"),
        (odd("+Inf"), Uncounted::NotANumber, "gave the value inf"),
        (odd("-Inf"), Uncounted::NotANumber, "gave the value -inf"),
        (odd("-1"), Uncounted::Negative, "gave the value -1"),
        (vec![stable()], Uncounted::NoSeries, "matched no series"),
        (
            vec![],
            Uncounted::NoSeries,
            "canary: the query `total` (http_requests_total{",
        ),
        (
            vec![steady("canary", "200", 0, 1.0)],
            Uncounted::NoSeries,
            "stable: the query `total`",
        ),
        (
            vec![counter("canary", "200", "a", &[(-40, 1.0)]), stable()],
            Uncounted::StaleSamples,
            "no sample younger than 55 s",
        ),
    ];
    for (counters, expected, says) in table {
        let windows = counting(counters).await.client().windows(&ask(15)).await;
        let (reason, message) = uncounted(&windows);
        assert_eq!(reason, expected, "{message}");
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn several_series_where_one_number_is_expected_are_named() {
    let fake = Fake::start(|_| {
        let row = |pod| serde_json::json!({"metric": {"pod": pod}, "values": [[FROM + 15, "3"]]});
        json(200, &success("matrix", &[row("a"), row("b")]))
    })
    .await;
    let mut ask = ask(15);
    ask.check = expressions();
    let windows = fake.client().windows(&ask).await;
    let (reason, message) = uncounted(&windows);
    assert_eq!(reason, Uncounted::SeveralSeries);
    assert!(
        message.contains(r#"2 series where one number is expected, such as {pod="a"}, {pod="b"}"#)
    );
}

#[tokio::test]
async fn more_errors_than_requests_are_refused() {
    let fake = Fake::start(|asked| {
        let value = if asked.is_for_errors() { "30" } else { "20" };
        let row = serde_json::json!({"metric": {}, "values": [[FROM, "0"], [FROM + 15, value]]});
        json(200, &success("matrix", &[row]))
    })
    .await;
    let windows = fake.client().windows(&ask(15)).await;
    let (reason, message) = uncounted(&windows);
    assert_eq!(reason, Uncounted::ErrorsExceedRequests);
    assert!(message.contains("30 errors of 20 requests"), "{message}");
}

#[tokio::test]
async fn warnings_make_an_answer_partial_and_infos_do_not() {
    let answer = |notes: &'static str| {
        move || {
            let mut answer = success("matrix", &[]);
            answer[notes] = serde_json::json!(["store \u{1b}[31m10.0.0.1 is away", "another"]);
            json(200, &answer)
        }
    };
    let windows = answer_to(answer("warnings")).await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::PartialAnswer);
    assert!(
        message.contains(r"may be partial: store \u{1b}[31m10.0.0.1 is away"),
        "{message}"
    );
    let windows = answer_to(answer("infos")).await;
    assert_eq!(uncounted(&windows).0, Uncounted::NoSeries);
}

#[tokio::test]
async fn errors_of_the_server_are_named_by_status_and_kind() {
    let error = |kind: &str, text: &str| serde_json::json!({"status": "error", "errorType": kind, "error": text});
    let long = format!(
        "{}\u{1b}]0;title\u{7}{}",
        "x".repeat(150),
        "secret".repeat(10_000)
    );
    let refuses = Unanswered::InvalidQuery;
    let fails = Unanswered::PrometheusError;
    let table = [
        (
            400,
            error("bad_data", "parse error: unexpected \"}\""),
            refuses,
            "parse error: unexpected \"}\"",
        ),
        (
            400,
            error("bad_data", &long),
            refuses,
            r"xx\u{1b}]0;title\u{7}secret",
        ),
        (
            422,
            error("execution", "secret"),
            fails,
            "status 422 and the error type `execution`",
        ),
        (
            503,
            error("timeout", "secret"),
            fails,
            "status 503 and the error type `timeout`",
        ),
        (
            500,
            error("bad_data", "secret"),
            fails,
            "status 500 and the error type `bad_data`",
        ),
        (
            500,
            error(&"\u{1b}secret".repeat(99), ""),
            fails,
            r"`\u{1b}secret\u{1b}secret",
        ),
        (
            200,
            error("internal", "secret"),
            fails,
            "status 200 and the error type `internal`",
        ),
        (401, serde_json::json!("secret"), fails, "status 401"),
        (502, serde_json::json!({"secret": 1}), fails, "status 502"),
    ];
    for (status, body, expected, says) in table {
        let answer = body.clone();
        let windows = answer_to(move || json(status, &answer)).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, expected, "{message}");
        assert!(message.contains(says), "{message}");
        assert!(reason == refuses || says.contains("secret") || !message.contains("secret"));
    }
}

#[tokio::test]
async fn what_is_no_answer_of_prometheus_is_not_read_as_one() {
    let html = "<html><script>alert(1)</script>secret</html>";
    let nothing = success("matrix", &[]).to_string();
    let histogram = serde_json::json!({"metric": {}, "histograms": [[FROM, {"count": "1"}]]});
    let word = serde_json::json!({"metric": {}, "values": [[FROM, "secret"]]});
    let scalar = serde_json::json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}});
    let reads_not = Unanswered::UnreadableAnswer;
    let json_type = "application/json";
    let table = [
        (200, "text/html", html.to_owned(), reads_not, "content type"),
        (
            200,
            json_type,
            html.to_owned(),
            reads_not,
            "at line 1, column 1",
        ),
        (
            200,
            "text/plain",
            nothing.clone(),
            reads_not,
            "content type",
        ),
        (
            200,
            json_type,
            nothing.replace('}', ""),
            reads_not,
            "column",
        ),
        (200, json_type, String::new(), reads_not, "column"),
        (200, json_type, "[]".into(), reads_not, "column"),
        (
            200,
            json_type,
            "{\"status\":\"success\"}".into(),
            reads_not,
            "no data",
        ),
        (200, json_type, "[".repeat(1 << 20), reads_not, "column"),
        (
            200,
            json_type,
            success("matrix", &[histogram]).to_string(),
            reads_not,
            "native histograms",
        ),
        (
            200,
            json_type,
            success("matrix", &[word]).to_string(),
            reads_not,
            "column",
        ),
        (200, json_type, scalar.to_string(), reads_not, "scalar"),
        (
            502,
            "text/html",
            html.to_owned(),
            Unanswered::PrometheusError,
            "status 502",
        ),
        (
            404,
            "text/plain",
            html.to_owned(),
            Unanswered::PrometheusError,
            "status 404",
        ),
        (204, json_type, String::new(), reads_not, "column"),
    ];
    for (status, kind, body, expected, says) in table {
        let windows = answer_to(move || response(status, kind, body.clone())).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, expected, "{message}");
        assert!(
            message.contains(says) && !message.contains("secret"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_answer_of_100_mb_is_cut_off() {
    const CHUNK: usize = 64 << 10;
    static SENT: AtomicUsize = AtomicUsize::new(0);
    for status in [200, 500] {
        SENT.store(0, Ordering::SeqCst);
        let windows = answer_to(move || {
            let chunks = (0..(100 << 20) / CHUNK).map(|_| {
                SENT.fetch_add(CHUNK, Ordering::SeqCst);
                Ok::<_, std::io::Error>(vec![b' '; CHUNK])
            });
            response(
                status,
                "application/json",
                Body::from_stream(futures::stream::iter(chunks)),
            )
        })
        .await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::UnreadableAnswer);
        assert!(message.contains("larger than 4 MiB"), "{message}");
        // Of four answers. The kernel takes up to 40 MiB of each into the sockets' buffers; what
        // the client itself holds is at most the limit.
        let sent = SENT.load(Ordering::SeqCst);
        assert!(sent < (4 * (4 + 40)) << 20, "{sent} bytes were read");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let windows = answer_to(|| {
        let chunk = || Ok::<_, std::io::Error>(vec![b'['; 64 << 10]);
        let endless = futures::stream::iter(std::iter::repeat_with(chunk));
        response(200, "application/json", Body::from_stream(endless))
    })
    .await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::UnreadableAnswer);
    assert!(message.contains("larger than 4 MiB"), "{message}");
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_timeout() {
    let hangs = || {
        let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        response(200, "application/json", Body::from_stream(never))
    };
    let fake = Fake::start(move |_| hangs()).await;
    let short = PrometheusConfig {
        timeout: StdDuration::from_millis(300),
        ..config(&fake.url)
    };
    let client = connect(short);
    let started = tokio::time::Instant::now();
    // Far more questions than are asked at once: those that wait for their turn give up as well.
    let asks: Vec<_> = (0..20).map(|n| ask_in(&format!("n{n}"), 60)).collect();
    let windows = futures::future::join_all(asks.iter().map(|ask| client.windows(ask))).await;
    assert!(
        started.elapsed() < StdDuration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    for windows in windows {
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusUnreachable);
        assert!(message.contains("no answer within 300ms"), "{message}");
    }
}

#[tokio::test]
async fn at_most_eight_queries_are_under_way() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(|_| {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let slow = futures::stream::once(async {
            tokio::time::sleep(StdDuration::from_millis(20)).await;
            NOW.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(success("matrix", &[]).to_string())
        });
        response(200, "application/json", Body::from_stream(slow))
    })
    .await;
    let client = fake.client();
    let asks: Vec<_> = (0..20).map(|n| ask_in(&format!("n{n}"), 60)).collect();
    let windows = futures::future::join_all(asks.iter().map(|ask| client.windows(ask))).await;
    assert!(
        windows
            .iter()
            .all(|windows| uncounted(windows).0 == Uncounted::NoSeries)
    );
    assert_eq!((MOST.load(Ordering::SeqCst), fake.asked().len()), (8, 80));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = counting(vec![steady("canary", "200", 0, 1.0)]).await;
    for status in [301, 302, 307, 308] {
        let location = format!("{}/api/v1/query", elsewhere.url);
        let windows = answer_to(move || {
            let builder = Response::builder()
                .status(status)
                .header("location", &location);
            builder.body(Body::empty()).unwrap()
        })
        .await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusError);
        assert!(message.ends_with(&format!("status {status} (redirects are not followed)")));
    }
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn prometheus_away_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let windows = connect(config(&format!("http://{address}")))
        .windows(&ask(60))
        .await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::PrometheusUnreachable);
    assert!(
        message.contains("cannot be reached: Connection refused"),
        "{message}"
    );
    let windows = connect(config("http://no-such-host.invalid"))
        .windows(&ask(60))
        .await;
    assert_eq!(unanswered(&windows).0, Unanswered::PrometheusUnreachable);
    // Plain HTTP where TLS is expected.
    let fake = counting(vec![]).await;
    let windows = connect(config(&fake.url.replace("http:", "https:")))
        .windows(&ask(60))
        .await;
    assert_eq!(unanswered(&windows).0, Unanswered::PrometheusUnreachable);
}

#[tokio::test]
async fn without_an_address_nothing_is_asked() {
    let windows = connect(PrometheusConfig::default()).windows(&ask(60)).await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::NotConfigured);
    assert!(message.contains("--prometheus-url"));
}

#[tokio::test]
async fn a_query_that_is_not_promql_is_not_asked() {
    let fake = counting(vec![]).await;
    let mut ask = ask(60);
    let good = Some("x{r=\"{{revision}}\"}".to_owned());
    let bad = Some("x{r=\"{{revision}}\"".to_owned());
    ask.check = Check {
        name: "own".into(),
        errors: good.clone(),
        total: bad,
        ..Check::default()
    };
    let windows = fake.client().windows(&ask).await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::InvalidQuery);
    assert!(message.starts_with("field `total` of check `own`: the query is not PromQL"));
    let service = Some("x{r=\"{{revision}}\",s=\"{{service}}\"}".to_owned());
    ask.check = Check {
        errors: service,
        total: good,
        ..ask.check
    };
    let windows = fake.client().windows(&ask).await;
    assert!(
        unanswered(&windows)
            .1
            .contains("`{{service}}` resolves to nothing")
    );
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn the_token_is_read_at_each_use_and_shown_nowhere() {
    let path = std::env::temp_dir().join(format!("countersign-token-{}", std::process::id()));
    let fake = counting(vec![]).await;
    let client = connect(PrometheusConfig {
        bearer_token_file: Some(path.clone()),
        ..config(&fake.url)
    });
    for (n, token) in (1..).zip(["hunter1", "hunter2"]) {
        std::fs::write(&path, format!("{token}\n")).unwrap();
        client.windows(&ask(15 * n)).await;
        let last = fake.asked().pop().unwrap().authorization;
        assert_eq!(last, Some(format!("Bearer {token}")));
    }
    let mut expressed = ask(15);
    expressed.check = expressions();
    let refusing = Fake::start(|_| response(401, "text/plain", "hunter2")).await;
    let config = PrometheusConfig {
        bearer_token_file: Some(path.clone()),
        ..config(&refusing.url)
    };
    let windows = connect(config).windows(&expressed).await;
    assert!(
        refusing
            .asked()
            .iter()
            .all(|a| a.authorization.as_deref() == Some("Bearer hunter2"))
    );
    assert!(!unanswered(&windows).1.contains("hunter"));

    for (content, says) in [
        ("hunter2\nhunter3", "must be one line"),
        ("  \n", "must be one line"),
    ] {
        std::fs::write(&path, content).unwrap();
        let windows = client.windows(&ask(45)).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusUnreachable);
        assert!(
            message.contains(says) && !message.contains("hunter"),
            "{message}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    let windows = client.windows(&ask(45)).await;
    assert!(unanswered(&windows).1.contains("cannot be read"));
}

#[test]
fn an_unsafe_address_is_refused_and_not_repeated() {
    let table = [
        ("prometheus:9090", "must begin with"),
        ("prometheus", "is no URL"),
        ("file:///etc/passwd", "must begin with"),
        ("ftp://prometheus", "must begin with"),
        ("http://", "is no URL"),
        ("http://user:hunter2@prometheus", "user name or password"),
        ("http://user@prometheus", "user name or password"),
        ("https://:hunter2@prometheus", "user name or password"),
        ("http://prometheus/?token=hunter2", "query or fragment"),
        ("http://prometheus/#hunter2", "query or fragment"),
        ("http://169.254.169.254/latest", "link-local"),
        ("http://0xA9FEA9FE", "link-local"),
        ("http://[fe80::1]:9090", "link-local"),
        ("http://[::ffff:169.254.169.254]", "link-local"),
    ];
    for (url, says) in table {
        let Err(error) = try_connect(config(url)) else {
            panic!("{url} is accepted")
        };
        let error = error.to_string();
        assert!(
            error.contains(says) && !error.contains("hunter2"),
            "{url}: {error}"
        );
    }
    for url in [
        "http://prometheus:9090",
        "https://mimir.example/prometheus/",
        "http://[::1]:9090",
    ] {
        assert!(try_connect(config(url)).is_ok(), "{url}");
    }
}

#[test]
fn a_wrong_file_of_authorities_is_refused() {
    let with = |ca_file: &std::path::Path| {
        let ca_file = Some(ca_file.to_owned());
        try_connect(PrometheusConfig {
            ca_file,
            ..config("https://prometheus")
        })
        .err()
        .unwrap()
    };
    let missing = with(std::path::Path::new("/no/such/ca.pem"));
    assert!(matches!(missing, ConfigError::File { .. }), "{missing}");
    let none = with(std::path::Path::new("/dev/null"));
    assert!(matches!(none, ConfigError::NoCertificate(_)), "{none}");
}

#[tokio::test]
async fn a_path_before_the_api_is_kept() {
    let fake = counting(vec![]).await;
    // Mimir's, the same with a slash, and an account of a VictoriaMetrics cluster.
    for path in ["/prometheus", "/prometheus/", "/select/42:7/prometheus"] {
        connect(config(&format!("{}{path}", fake.url)))
            .windows(&ask(15))
            .await;
        let path = path.trim_end_matches('/');
        assert_eq!(
            fake.asked().pop().unwrap().path,
            format!("{path}/api/v1/query")
        );
        let mut expressed = ask(15);
        expressed.check = expressions();
        connect(config(&format!("{}{path}", fake.url)))
            .windows(&expressed)
            .await;
        assert_eq!(
            fake.asked().pop().unwrap().path,
            format!("{path}/api/v1/query_range")
        );
    }
}

/// A file of the test's own.
fn file(name: &str, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("countersign-{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn headers_are_sent_with_each_question_and_shown_nowhere() {
    let key = file("api-key", "hunter1\n");
    let fake = Fake::start(|_| response(403, "text/plain", "tenant hunter")).await;
    let client = connect(PrometheusConfig {
        headers: vec![
            "X-Scope-OrgID=shop|cart".into(),
            "THANOS-TENANT = a=b".into(),
        ],
        header_files: vec![format!("X-Api-Key={}", key.display()).as_str().into()],
        ..config(&fake.url)
    });
    let mut expressed = ask(15);
    expressed.check = expressions();
    for (ask, secret) in [(ask(15), "hunter1"), (expressed, "hunter2")] {
        std::fs::write(&key, secret).unwrap();
        let before = fake.asked().len();
        let windows = client.windows(&ask).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusError);
        assert!(!message.contains("hunter") && !message.contains("shop|"));
        let asked = fake.asked();
        assert_eq!(asked.len(), before + 4);
        for Asked { headers, .. } in &asked[before..] {
            assert_eq!(headers["x-scope-orgid"], "shop|cart");
            assert_eq!(headers["thanos-tenant"], "a=b");
            assert_eq!(headers["x-api-key"], secret);
        }
    }
    let shown = format!("{:?}", Pair::from("X-Scope-OrgID=hunter2"));
    assert!(!shown.contains("hunter2"), "{shown}");
    std::fs::remove_file(key).unwrap();
    let windows = client.windows(&ask(30)).await;
    let (_, message) = unanswered(&windows);
    assert!(
        message.contains("the header `x-api-key` for Prometheus in"),
        "{message}"
    );
}

#[test]
fn a_wrong_header_is_refused_and_its_value_not_repeated() {
    let table = [
        (
            "X-Scope-OrgID",
            "1. header for Prometheus (--prometheus-header) is not `NAME=VALUE`",
        ),
        ("X-Scope-OrgID:hunter2", "is not `NAME=VALUE`"),
        ("=hunter2", "is not `NAME=VALUE`"),
        ("X-Scope-OrgID=", "is not `NAME=VALUE`"),
        ("X Scope=hunter2", "is not `NAME=VALUE`"),
        ("X-Scope-OrgID=hunter2\r\nX-Evil: 1", "is not `NAME=VALUE`"),
        ("X-Scope-OrgID=hunter2\u{0}", "is not `NAME=VALUE`"),
        ("Authorization=Bearer hunter2", "--prometheus-token-file"),
        ("authorization=Basic hunter2", "--prometheus-username-file"),
        (
            "Host=hunter2",
            "`host` for Prometheus cannot be set: leave it out of --prometheus-header",
        ),
        ("Content-Length=1", "cannot be set"),
        ("Transfer-Encoding=chunked", "cannot be set"),
    ];
    let refused = |config| try_connect(config).err().unwrap().to_string();
    for (header, says) in table {
        let error = refused(PrometheusConfig {
            headers: vec![header.into()],
            ..config("http://prometheus")
        });
        assert!(error.contains(says) && !error.contains("hunter"), "{error}");
    }
    let twice = refused(PrometheusConfig {
        headers: vec!["X-Scope-OrgID=a".into()],
        header_files: vec!["x-scope-orgid=/b".into()],
        ..config("http://prometheus")
    });
    assert!(
        twice.contains("`x-scope-orgid` for Prometheus is given twice"),
        "{twice}"
    );
    let file = refused(PrometheusConfig {
        header_files: vec!["X-Ok=/a".into(), "no".into()],
        ..config("http://prometheus")
    });
    assert!(
        file.contains("the 2. header for Prometheus (--prometheus-header-file) is not `NAME=FILE`")
    );
}

#[tokio::test]
async fn a_password_is_read_at_each_use_and_shown_nowhere() {
    let (username, password) = (file("username", "ops\n"), file("password", "hunter1\n"));
    let fake = Fake::start(|_| response(401, "text/plain", "hunter")).await;
    let client = connect(PrometheusConfig {
        username_file: Some(username.clone()),
        password_file: Some(password.clone()),
        ..config(&fake.url)
    });
    // `ops:hunter1`, and a password with a space and a colon of its own.
    let table = [
        ("hunter1\n", "Basic b3BzOmh1bnRlcjE="),
        (" hunter:2\r\n", "Basic b3BzOiBodW50ZXI6Mg=="),
    ];
    for (content, expected) in table {
        std::fs::write(&password, content).unwrap();
        let windows = client.windows(&ask(15)).await;
        assert!(!unanswered(&windows).1.contains("hunter"));
        let last = fake.asked().pop().unwrap().authorization;
        assert_eq!(last.as_deref(), Some(expected));
    }
    let asked = fake.asked().len();
    for (name, secret, says) in [
        ("o:ps", "hunter2", "the user name for Prometheus in"),
        ("ops", "", "the password for Prometheus in"),
        ("ops", "hunter2\nhunter3", "must be one line"),
        ("hunter2\nhunter3", "x", "must be one line"),
    ] {
        std::fs::write(&username, name).unwrap();
        std::fs::write(&password, secret).unwrap();
        let windows = client.windows(&ask(15)).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusUnreachable);
        assert!(
            message.contains(says) && !message.contains("hunter"),
            "{message}"
        );
    }
    assert_eq!(
        fake.asked().len(),
        asked,
        "nothing is asked without a password"
    );
    std::fs::remove_file(username).unwrap();
    std::fs::remove_file(password).unwrap();
}

#[test]
fn credentials_that_contradict_each_other_are_refused() {
    let some = || Some(PathBuf::from("/some/file"));
    let refused = |config| try_connect(config).err().unwrap();
    let plain = || config("https://prometheus");
    let both = refused(PrometheusConfig {
        bearer_token_file: some(),
        username_file: some(),
        password_file: some(),
        ..plain()
    });
    assert!(matches!(both, ConfigError::TwoCredentials), "{both}");
    for (username_file, password_file) in [(some(), None), (None, some())] {
        let half = refused(PrometheusConfig {
            username_file,
            password_file,
            ..plain()
        });
        assert!(matches!(half, ConfigError::HalfOfBasic), "{half}");
    }
    for (certificate_file, key_file) in [(some(), None), (None, some())] {
        let half = refused(PrometheusConfig {
            certificate_file,
            key_file,
            ..plain()
        });
        assert!(matches!(half, ConfigError::HalfOfCertificate), "{half}");
    }
    let without_tls = refused(PrometheusConfig {
        certificate_file: some(),
        key_file: some(),
        ..config("http://prometheus")
    });
    assert!(matches!(without_tls, ConfigError::CertificateWithoutTls));
    let missing = refused(PrometheusConfig {
        certificate_file: some(),
        key_file: some(),
        ..plain()
    });
    assert!(matches!(
        missing,
        ConfigError::File {
            flag: "--prometheus-key-file",
            ..
        }
    ));
    let (certificate, key) = (file("no.crt", "no"), file("no.key", "no"));
    let unusable = refused(PrometheusConfig {
        certificate_file: Some(certificate),
        key_file: Some(key),
        ..plain()
    });
    assert!(
        matches!(unusable, ConfigError::ClientCertificate(_)),
        "{unusable}"
    );
}

/// An authority, and those whom it knows.
struct Authority {
    certificate: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        Self { certificate }
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.certificate).unwrap(), key)
    }
}

/// Asks each client for a certificate, and notes it.
struct TlsListener {
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                let certificates = stream.get_ref().1.peer_certificates().unwrap();
                self.seen.lock().unwrap().push(certificates[0].to_vec());
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_followed_as_it_is_renewed() {
    try_connect(PrometheusConfig::default()).unwrap();
    let authority = Authority::new();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots));
    let (certificate, key) = authority.issue("127.0.0.1");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let tls = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(vec![]));
    let listener = TlsListener {
        listener,
        acceptor: Arc::new(tls).into(),
        seen: seen.clone(),
    };
    let _fake = Fake::behind(listener, url.clone(), |asked| evaluate(asked, &[]));

    let ca_file = file("ca.crt", &authority.certificate.pem());
    let (first, first_key) = authority.issue("operator");
    let certificate_file = file("tls.crt", &first.pem());
    let key_file = file("tls.key", &first_key.serialize_pem());
    let with = PrometheusConfig {
        ca_file: Some(ca_file.clone()),
        certificate_file: Some(certificate_file.clone()),
        key_file: Some(key_file.clone()),
        ..config(&url)
    };
    let client = connect(with.clone());
    let answered = async |seconds| {
        let windows = client.windows(&ask(seconds)).await;
        assert_eq!(uncounted(&windows).0, Uncounted::NoSeries);
        seen.lock().unwrap().last().cloned().unwrap()
    };
    assert_eq!(answered(15).await, first.der().to_vec());

    // A new certificate with the old key is half of a renewal: what was good is used on.
    let (second, second_key) = authority.issue("operator");
    std::fs::write(&certificate_file, second.pem()).unwrap();
    assert_eq!(answered(30).await, first.der().to_vec());
    std::fs::write(&key_file, second_key.serialize_pem()).unwrap();
    assert_eq!(answered(45).await, second.der().to_vec());
    std::fs::remove_file(&key_file).unwrap();
    assert_eq!(answered(60).await, second.der().to_vec());

    let without = PrometheusConfig {
        certificate_file: None,
        key_file: None,
        ..with.clone()
    };
    let windows = connect(without).windows(&ask(15)).await;
    assert_eq!(unanswered(&windows).0, Unanswered::PrometheusUnreachable);
    std::fs::write(&key_file, first_key.serialize_pem()).unwrap();
    let unusable = try_connect(with).err().unwrap();
    assert!(
        matches!(unusable, ConfigError::ClientCertificate(_)),
        "{unusable}"
    );
    for path in [ca_file, certificate_file, key_file] {
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn a_partial_answer_of_victoria_metrics_is_none() {
    for (partial, expected) in [(true, Some(Unanswered::PartialAnswer)), (false, None)] {
        let mut body = success("matrix", &[]);
        body["isPartial"] = partial.into();
        let windows = answer_to(move || json(200, &body)).await;
        match expected {
            Some(expected) => assert_eq!(unanswered(&windows).0, expected),
            None => assert_eq!(uncounted(&windows).0, Uncounted::NoSeries),
        }
    }
}

#[tokio::test]
async fn times_are_the_ones_asked_for() {
    // A frontend that moves them to a multiple of the step.
    let fake = Fake::start(|asked| {
        assert_eq!(asked.params["nocache"], "1");
        assert_eq!(asked.params["latency_offset"], "1ms");
        let moved = (FROM + 15) / 15 * 15;
        let row = serde_json::json!({"metric": {}, "values": [[moved, "3"]]});
        json(200, &success("matrix", &[row]))
    })
    .await;
    let mut ask = ask(15);
    ask.check = expressions();
    let windows = fake.client().windows(&ask).await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::UnreadableAnswer);
    assert!(
        message.contains("its times are not the ones asked for"),
        "{message}"
    );
}

#[tokio::test]
async fn those_who_ask_the_same_at_the_same_time_share_an_answer() {
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        steady("stable", "200", -600, 100.0),
    ])
    .await;
    let client = fake.client();
    let asks: Vec<_> = (0..50).map(|_| ask(45)).collect();
    let windows = futures::future::join_all(asks.iter().map(|ask| client.windows(ask))).await;
    assert!(windows.iter().all(|it| it == &windows[0]));
    assert_eq!(
        (counts(&windows[0].due[2])[0], fake.asked().len()),
        (10.0, 4)
    );
    // A moment later it is still the answer; other times are another question.
    client.windows(&asks[0]).await;
    assert_eq!(fake.asked().len(), 4);
    client.windows(&ask(60)).await;
    assert_eq!(fake.asked().len(), 8);
    // One who goes away takes nothing with him.
    let hurried = tokio::time::timeout(StdDuration::ZERO, client.windows(&ask(75))).await;
    assert!(hurried.is_err());
    assert_eq!(client.windows(&ask(75)).await.due.len(), 5);
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    static ANSWERS: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(|asked| match ANSWERS.fetch_add(1, Ordering::SeqCst) {
        0..4 => response(503, "text/plain", "busy"),
        _ => evaluate(asked, &[]),
    })
    .await;
    let client = fake.client();
    let windows = client.windows(&ask(15)).await;
    assert_eq!(unanswered(&windows).0, Unanswered::PrometheusError);
    let windows = client.windows(&ask(15)).await;
    assert_eq!(uncounted(&windows).0, Uncounted::NoSeries);
}

#[tokio::test]
async fn a_thousand_rollouts_at_once_are_answered_within_an_interval() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(|_| {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let soon = futures::stream::once(async {
            tokio::task::yield_now().await;
            NOW.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(success("matrix", &[]).to_string())
        });
        response(200, "application/json", Body::from_stream(soon))
    })
    .await;
    // A minute, since tests share their machine.
    let interval = StdDuration::from_mins(1);
    let client = connect(PrometheusConfig {
        timeout: interval,
        ..config(&fake.url)
    });
    let asks: Vec<_> = (0..1_000)
        .map(|n| {
            let mut ask = ask_in(&format!("n{}", n % 20), 60);
            ask.interval = interval.into();
            ask.canary.revision = format!("canary{n}");
            ask.stable.as_mut().unwrap().revision = format!("stable{n}");
            ask
        })
        .collect();
    let started = tokio::time::Instant::now();
    let windows = futures::future::join_all(asks.iter().map(|ask| client.windows(ask))).await;
    assert!(started.elapsed() < interval, "{:?}", started.elapsed());
    let all = windows.iter().map(|windows| uncounted(windows).0);
    assert!(all.eq(std::iter::repeat_n(Uncounted::NoSeries, 1_000)));
    assert_eq!(fake.asked().len(), 4_000);
    assert!(MOST.load(Ordering::SeqCst) <= 8, "{MOST:?}");
}

#[tokio::test]
async fn slow_queries_of_one_namespace_leave_room_for_others() {
    static SLOW: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(|asked| {
        if asked.is_about("slow") {
            SLOW.fetch_add(1, Ordering::SeqCst);
            let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
            return response(200, "application/json", Body::from_stream(never));
        }
        json(200, &success("matrix", &[]))
    })
    .await;
    let client = fake.client();
    let slow: Vec<_> = (1..=20).map(|n| ask_in("slow", 15 * n)).collect();
    let quick: Vec<_> = (1..=20).map(|n| ask_in("quick", 15 * n)).collect();
    tokio::select! {
        _ = futures::future::join_all(slow.iter().map(|ask| client.windows(ask))) => {
            panic!("the slow ones come last")
        }
        windows = async {
            tokio::time::sleep(StdDuration::from_millis(50)).await;
            futures::future::join_all(quick.iter().map(|ask| client.windows(ask))).await
        } => {
            let all = windows.iter().map(|windows| uncounted(windows).0);
            assert!(all.eq(std::iter::repeat_n(Uncounted::NoSeries, 20)));
        }
    }
    assert_eq!(SLOW.load(Ordering::SeqCst), 4);
}

/// Answers whose `Date` is that many seconds from the present.
async fn with_clock(offset: i64) -> Fake {
    Fake::start(move |_| {
        let mut response = json(200, &success("matrix", &[]));
        let then = now() + offset;
        let date = jiff::fmt::rfc2822::DateTimePrinter::new();
        let date = date.timestamp_to_rfc9110_string(&at(then)).unwrap();
        response.headers_mut().insert("date", date.parse().unwrap());
        response
    })
    .await
}

#[allow(clippy::disallowed_methods, reason = "the clocks are what is tested")]
fn now() -> i64 {
    Timestamp::now().as_second()
}

#[tokio::test]
async fn clocks_that_differ_by_more_than_the_lag_are_named() {
    for (offset, says) in [
        (-60, "s behind the operator's"),
        (60, "s ahead of the operator's"),
    ] {
        let windows = with_clock(offset).await.client().windows(&ask(15)).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::ClockSkew);
        assert!(message.contains("Prometheus' clock is 5"), "{message}");
        assert!(message.contains(says), "{message}");
        assert!(message.contains("more than the lag of 30 s"), "{message}");
    }
}

#[tokio::test]
async fn clocks_that_differ_by_less_are_named_beside_another_reason() {
    for (offset, says) in [
        (-20, Some("s behind the operator's")),
        (20, Some("s ahead of the operator's")),
        (-4, None),
        (4, None),
        (0, None),
    ] {
        let windows = with_clock(offset).await.client().windows(&ask(15)).await;
        let (reason, message) = uncounted(&windows);
        assert_eq!(reason, Uncounted::NoSeries);
        match says {
            Some(says) => assert!(message.contains(says), "{message}"),
            None => assert!(!message.contains("clock"), "{message}"),
        }
    }
}

#[tokio::test]
async fn samples_of_a_clock_that_is_behind_are_waited_for() {
    let fake = with_clock(-20).await;
    let client = fake.client();
    assert_eq!(client.lag(), StdDuration::from_secs(30));
    // A window that has just become due: by Prometheus' clock its samples are not there yet.
    let mut present = ask(15);
    present.until = at(now());
    present.from = at(now() - 46);
    present.counted_until = present.from;
    let windows = client.windows(&present).await;
    let WindowOutcome::Unanswered { reason, message } = &windows.due[0].outcome else {
        panic!("{windows:?}")
    };
    assert_eq!(*reason, Unanswered::ClockSkew);
    assert!(message.contains("they are waited for longer"), "{message}");
    // From now on the window is due when they are.
    let lag = client.lag().as_secs();
    assert!((45..=50).contains(&lag), "{lag}");
    assert_eq!(client.windows(&present).await, CheckWindows::default());
    present.from = at(now() - 75);
    present.counted_until = present.from;
    let windows = client.windows(&present).await;
    assert_eq!(uncounted(&windows).0, Uncounted::NoSeries);
}
