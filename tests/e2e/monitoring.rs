//! Alerts and dashboards of the chart, with the real promtool, Helm and Prometheus.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use countersign_api::rollout::Outcome;
use countersign_cluster::wait_for;
use serde_json::{Value, json};

use crate::support::{App, Scene, ended, waits_for};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const RULES: &str = "charts/countersign/alerts/rules.yaml";
/// Metrics that have no series until a watch fails or a person has signed.
const RARE: [&str; 2] = [
    "countersign_watch_errors_total",
    "countersign_sign_off_wait_seconds",
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// An object that the chart renders with these options.
fn rendered(template: &str, options: &[&str]) -> Value {
    let chart = Path::new(ROOT).join("charts/countersign");
    let mut helm = Command::new("helm");
    helm.args(["template", "countersign"]).arg(chart);
    helm.arg(format!("--show-only=templates/{template}.yaml"));
    let output = helm.args(options).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_saphyr::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

#[test]
fn every_alert_fires_when_it_should_and_names_the_rollout() {
    let files = fs::read_dir(Path::new(ROOT).join("tests/alerts")).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    let mut promtool = Command::new("promtool");
    let output = promtool.args(["test", "rules"]).args(&files).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = text + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("SUCCESS").count(), files.len(), "{text}");
}

#[test]
fn the_chart_s_rules_are_those_that_are_tested() {
    const PAGE: &str = "https://wiki.example/alerts";
    let page = format!("--set=prometheusRule.runbookUrl={PAGE}");
    let enabled = "--set=prometheusRule.enabled=true";
    let spec = |options: &[&str]| rendered("prometheusrule", options)["spec"].clone();
    let text = read(RULES);
    let tested = text.replace("RUNBOOKS#", &format!("{PAGE}#"));
    let tested: Value = serde_saphyr::from_str(&tested).unwrap();
    assert_eq!(spec(&[enabled, &page]), tested);

    let unlinked = text.lines().filter(|line| !line.contains("runbook_url:"));
    let unlinked: Vec<_> = unlinked.collect();
    let unlinked: Value = serde_saphyr::from_str(&unlinked.join("\n")).unwrap();
    assert_eq!(spec(&[enabled]), unlinked, "without a page to link to");
}

#[test]
fn the_chart_s_dashboards_are_the_files_in_the_folder_that_a_value_names() {
    let options = [
        "--set=dashboards.enabled=true",
        "--set=dashboards.folder=Delivery",
    ];
    let map = rendered("dashboards", &options);
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(map["metadata"]["annotations"]["grafana_folder"], "Delivery");
    for name in ["fleet", "rollout"] {
        let board = map["data"][format!("countersign-{name}.json")].as_str();
        let file = read(&format!("charts/countersign/dashboards/{name}.json"));
        assert_eq!(board, Some(file.trim()), "{name}");
    }
}

/// The queries of a dashboard, each with the title of its panel.
fn queries(name: &str) -> Vec<(String, String)> {
    let board = read(&format!("charts/countersign/dashboards/{name}.json"));
    let board: Value = serde_json::from_str(&board).unwrap();
    let mut queries = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    assert!(queries.len() > 5, "{name}: {queries:?}");
    queries
}

#[tokio::test]
async fn every_query_of_the_dashboards_has_an_answer_while_a_canary_waits_for_people() {
    let scene = Scene::new("dashboards").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    scene.apply(&app.version("v2")).await;
    assert!(ended(&scene.outcome(&app).await, Outcome::Promoted));
    let demand = json!([{ "count": 1 }]);
    let asks = json!({ "tiers": { "low": { "promotionSignOff": demand } } });
    scene.policy(asks).await;
    let next = app.version("v3");
    scene.apply(&next).await;
    let awaits = "people are awaited";
    scene
        .until(&next, awaits, |rollout| {
            waits_for(rollout, "AwaitingSignOff")
        })
        .await;
    // First the Rollout's own: people are awaited for a minute.
    for board in ["rollout", "fleet"] {
        for (panel, query) in queries(board) {
            let query = query
                .replace("$namespace", &scene.namespace)
                .replace("$rollout", &app.name)
                .replace("$__rate_interval", "1m")
                .replace("$__range", "1h");
            let is_rare = RARE.iter().any(|metric| query.contains(metric));
            let answered = async || {
                let samples = scene.cluster.query(&query).await;
                let samples = samples.map_err(|error| error.to_string())?;
                let enough = is_rare || !samples.is_empty();
                enough.then_some(()).ok_or_else(|| "no data".to_owned())
            };
            let what = format!("{board}: {panel}: {query}");
            wait_for(&what, Duration::from_secs(30), answered)
                .await
                .unwrap();
        }
    }
}
