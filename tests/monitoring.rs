//! The alerts and the dashboards of the chart name metrics, labels and values that the program has.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::path::Path;

use countersign::telemetry::Telemetry;
use countersign::telemetry::catalog::Metric;
use countersign::telemetry::notifications::Notifications;
use countersign::telemetry::server::Reported;
use countersign_api::Phase;
use countersign_api::rollout::Outcome;
use countersign_core::observation::windows::{Unanswered, Uncounted};
use countersign_core::reason::Reason;
use promql_parser::label::MatchOp;
use promql_parser::parser::{self, AggregateExpr, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde::de::DeserializeOwned;
use serde_json::Value;

const DASHBOARDS: [&str; 2] = ["fleet", "rollout"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn rules() -> Vec<Value> {
    let file = read("charts/countersign/alerts/rules.yaml");
    let file: Value = serde_saphyr::from_str(&file).unwrap();
    file["groups"][0]["rules"].as_array().unwrap().clone()
}

fn dashboard(name: &str) -> Value {
    let file = read(&format!("charts/countersign/dashboards/{name}.json"));
    serde_json::from_str(&file).unwrap()
}

/// The queries of the alerts, the panels and the variables.
fn queries() -> Vec<String> {
    let mut queries: Vec<_> = rules().iter().map(|rule| text(&rule["expr"])).collect();
    for board in DASHBOARDS.map(dashboard) {
        for panel in board["panels"].as_array().unwrap() {
            let targets = panel["targets"].as_array();
            queries.extend(targets.into_iter().flatten().map(|it| text(&it["expr"])));
        }
        for variable in board["templating"]["list"].as_array().unwrap() {
            let query = variable["query"]["query"].as_str();
            let values = query.and_then(|it| it.strip_prefix("label_values("));
            let selector = values.and_then(|it| it.rsplit_once(", "));
            queries.extend(selector.map(|(selector, _)| selector.to_owned()));
        }
    }
    queries
}

/// What a query names.
#[derive(Default)]
struct Named {
    selectors: Vec<VectorSelector>,
    grouped: BTreeSet<String>,
}

impl ExprVisitor for Named {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        match expression {
            Expr::VectorSelector(selector) => self.selectors.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.selectors.push(matrix.vs.clone()),
            Expr::Aggregate(AggregateExpr {
                modifier: Some(LabelModifier::Include(labels)),
                ..
            }) => self.grouped.extend(labels.labels.iter().cloned()),
            _ => {}
        }
        Ok(true)
    }
}

fn named(query: &str) -> Named {
    let query = query
        .replace("$__rate_interval", "5m")
        .replace("$__range", "1h");
    let expression = parser::parse(&query);
    let expression = expression.unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut named = Named::default();
    let Ok(_) = walk_expr(&mut named, &expression);
    named
}

/// The metric of a selector, and its labels.
fn metric<'a>(metrics: &'a [Metric], selector: &VectorSelector) -> (&'a Metric, Vec<&'a str>) {
    let name = selector.name.as_deref().unwrap_or_default();
    let is = |metric: &&Metric| match name.strip_prefix(&metric.name) {
        Some("_bucket" | "_count" | "_sum") => metric.kind == "histogram",
        rest => rest == Some("") && metric.kind != "histogram",
    };
    let metric = metrics.iter().find(is);
    let metric = metric.unwrap_or_else(|| panic!("there is no metric {name}"));
    let mut labels = metric.labels.to_vec();
    if name.ends_with("_bucket") {
        labels.push("le");
    }
    (metric, labels)
}

/// The metrics of both processes.
fn metrics() -> Vec<Metric> {
    let (operator, notifications) = (Telemetry::new(), Notifications::new([]));
    [operator.metrics(), notifications.metrics()].concat()
}

#[test]
fn every_query_names_metrics_and_labels_that_exist() {
    let metrics = metrics();
    let queries = queries();
    assert!(queries.len() > 35, "only {} queries", queries.len());
    let mut used = BTreeSet::new();
    for query in queries {
        let named = named(&query);
        assert!(!named.selectors.is_empty(), "{query} selects nothing");
        for selector in &named.selectors {
            let (metric, labels) = metric(&metrics, selector);
            used.insert(metric.name.clone());
            let matched = selector.matchers.matchers.iter().map(|it| &it.name);
            for label in named.grouped.iter().chain(matched) {
                assert!(labels.contains(&label.as_str()), "{query}: {label}");
            }
        }
    }
    let telemetry = Telemetry::new();
    let unused = telemetry.metrics().iter();
    let unused = unused.filter(|it| !used.contains(&it.name));
    let unused: Vec<_> = unused.map(|it| it.name.as_str()).collect();
    assert_eq!(unused, ["countersign_watch_last_event_timestamp_seconds"]);
}

/// Whether a label of a metric may have this value.
fn is_value(metric: &str, label: &str, value: &str) -> bool {
    match (metric, label) {
        // Whatever people call their objects.
        (_, "namespace" | "rollout") => true,
        (_, "reason" | "waiting_for") => Reason::parse(value).is_some(),
        (_, "phase") => is::<Phase>(value),
        ("countersign_analysis_answers_total", "outcome") => {
            value == "Counted" || is::<Uncounted>(value) || is::<Unanswered>(value)
        }
        (_, "outcome") => is::<Outcome>(value),
        ("countersign_reconcile_total", "result") => results().contains(value),
        ("countersign_notifications_total", "result") => {
            let all = Notifications::new([&"slack".to_owned()]).encode();
            all.contains(&format!("result=\"{value}\""))
        }
        _ => panic!("the values of {metric} by {label} are not known to this test"),
    }
}

/// Whether a value is one of an enum.
fn is<T: DeserializeOwned>(value: &str) -> bool {
    serde_json::from_value::<T>(value.into()).is_ok()
}

/// How a reconcile ends.
fn results() -> BTreeSet<String> {
    let source = read("src/controller/error.rs");
    let (_, body) = source.split_once(" fn result(&self) -> ").unwrap();
    let (body, _) = body.split_once("\n    }\n").unwrap();
    let errors = body.split('"').skip(1).step_by(2);
    errors.chain(["ok"]).map(ToOwned::to_owned).collect()
}

/// A value that is misspelt selects nothing, or excludes nothing, without an error.
#[test]
fn every_value_in_a_query_is_one_that_the_program_has() {
    let (metrics, mut seen) = (metrics(), 0);
    for query in queries() {
        for selector in named(&query).selectors {
            let (metric, _) = metric(&metrics, &selector);
            for matcher in &selector.matchers.matchers {
                let words = match matcher.op {
                    MatchOp::Equal | MatchOp::NotEqual => vec![matcher.value.as_str()],
                    MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
                };
                for word in words.into_iter().filter(|it| !it.is_empty()) {
                    let is_known = is_value(&metric.name, &matcher.name, word);
                    assert!(is_known, "{query}: {word}");
                    seen += usize::from(!word.starts_with('$'));
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} values were seen");
}

#[test]
fn a_misspelt_value_is_found() {
    for (metric, label, right, wrong) in [
        ("countersign_rollout_info", "phase", "Held", "OnHold"),
        (
            "countersign_rollout_info",
            "waiting_for",
            "Frozen",
            "Freezed",
        ),
        (
            "countersign_rollout_outcomes_total",
            "outcome",
            "RolledBack",
            "Rolledback",
        ),
        (
            "countersign_analysis_answers_total",
            "outcome",
            "PrometheusUnreachable",
            "RolledBack",
        ),
        ("countersign_reconcile_total", "result", "panic", "panicked"),
        (
            "countersign_notifications_total",
            "result",
            "refused",
            "rejected",
        ),
    ] {
        assert!(is_value(metric, label, right), "{right}");
        assert!(!is_value(metric, label, wrong), "{wrong}");
    }
}

/// Every alert is explained on the page that it links to, and tested by promtool.
#[test]
fn every_alert_has_a_section_of_the_page_and_a_test() {
    let page = read("docs/alerts.md");
    let sections = page.lines().filter_map(|line| line.strip_prefix("## "));
    let sections: Vec<_> = sections.filter(|it| !it.contains(' ')).collect();
    let rules = rules();
    let alerts: Vec<_> = rules.iter().map(|rule| text(&rule["alert"])).collect();
    assert_eq!(sections, alerts);
    let tests = ["operator", "rollouts"].map(|it| read(&format!("tests/alerts/{it}.yaml")));
    let tests = tests.concat();
    for (alert, rule) in alerts.iter().zip(&rules) {
        let anchor = format!("RUNBOOKS#{}", alert.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], anchor.as_str());
        assert!(["warning", "critical"].contains(&&*text(&rule["labels"]["severity"])));
        // Its own link stands only where the alert is expected to fire.
        assert!(tests.contains(&format!("{anchor}\n")), "{alert}");
        let silent = format!("alertname: {alert}, exp_alerts: []");
        assert!(tests.contains(&silent), "{alert} is never silent");
    }
}

/// The values at these keys, wherever they are.
fn at<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|it| at(it, key, found));
        }
        Value::Array(items) => items.iter().for_each(|it| at(it, key, found)),
        _ => {}
    }
}

#[test]
fn a_dashboard_takes_its_prometheus_from_a_variable_and_has_no_fixed_uid() {
    for board in DASHBOARDS.map(dashboard) {
        assert!(board.get("uid").is_none() && board.get("id").is_none());
        assert_eq!(board["templating"]["list"][0]["name"], "datasource");
        let (mut sources, mut uids) = (Vec::new(), Vec::new());
        at(&board, "datasource", &mut sources);
        at(&board, "uid", &mut uids);
        assert!(sources.len() > 10, "{sources:?}");
        assert!(sources.iter().all(|it| it["type"] == "prometheus"));
        assert_eq!(sources.len(), uids.len(), "{uids:?}");
        assert!(uids.iter().all(|it| **it == "${datasource}"), "{uids:?}");
    }
}
