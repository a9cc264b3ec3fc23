//! The view of people and tools: kubectl, conditions, metrics, the chart.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use countersign_api::rollout::Outcome;
use serde_json::Value;

use crate::support::{App, Scene, TIMEOUT, ended};

/// Runs a program, which must succeed, and returns its output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let limit = TIMEOUT.as_secs().to_string();
    let mut command = Command::new("timeout");
    let command = command.args([&limit, program]).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Sends an HTTP request to the operator; returns the response's head and body.
pub(crate) fn fetch(path: &str) -> String {
    let mut stream = TcpStream::connect("127.0.0.1:8081").unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    answer
}

#[tokio::test]
async fn kubectl_waits_explains_scales_and_shows_how_it_is_going() {
    let scene = Scene::new("kubectl").await;
    let app = scene.serving(App::new("shop")).await;
    let namespace = scene.namespace.as_str();

    run(
        "kubectl",
        &[
            "-n",
            namespace,
            "wait",
            "cro/shop",
            "--for=condition=Ready",
            "--timeout=30s",
        ],
    );
    let columns = run("kubectl", &["-n", namespace, "get", "countersign"]);
    for word in [
        "PHASE",
        "STEP",
        "WEIGHT",
        "TIER",
        "WAITING-FOR",
        "AGE",
        "Stable",
        "shop",
        "OUTCOME",
        "Promoted",
    ] {
        assert!(columns.contains(word), "{word} is not shown:\n{columns}");
    }
    for field in [
        "rollout.spec.strategy.canary.steps.minRequests",
        "rolloutpolicy.spec.tiers.high.signOff",
        "rolloutrun.spec.risk.contributions",
        "rollout.spec.template.spec.containers.image",
    ] {
        let explained = run("kubectl", &["explain", field]);
        assert!(
            explained.contains("DESCRIPTION") && !explained.contains("<empty>"),
            "{explained}"
        );
    }
    run(
        "kubectl",
        &["-n", namespace, "scale", "cro/shop", "--replicas=2"],
    );
    scene
        .until(&app, "it is scaled", |rollout| {
            rollout
                .status
                .as_ref()
                .is_some_and(|status| status.available_replicas == 2)
        })
        .await;
}

#[tokio::test]
async fn the_operator_reports_its_health_and_its_metrics() {
    let scene = Scene::new("metrics").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    scene.apply(&app.version("v2")).await;
    assert!(ended(&scene.outcome(&app).await, Outcome::Promoted));
    assert!(fetch("/healthz").ends_with("ok"));
    assert!(fetch("/readyz").ends_with("ok"));
    let metrics = fetch("/metrics");
    let promoted = format!(
        "countersign_transitions_total{{namespace=\"{}\",reason=\"Promoted\"}} ",
        scene.namespace
    );
    for name in [
        &*promoted,
        "countersign_reconcile_total{result=\"ok\"}",
        "countersign_reconcile_time_seconds_bucket",
        "countersign_leading 1",
        "countersign_api_writes_total{verb=\"update\",resource=\"rollouts/status\",result=\"ok\"}",
        "countersign_rollouts{phase=\"Stable\"",
        "countersign_analysis_answers_total{outcome=\"Counted\"}",
        "countersign_watch_last_event_timestamp_seconds{kind=\"Rollout\"}",
    ] {
        assert!(metrics.contains(name), "{name} is not exported:\n{metrics}");
    }
}

/// The destinations of the TCP connections that a process has opened, and whether it has other sockets.
fn connections(pid: &str) -> (BTreeSet<SocketAddr>, usize) {
    let process = Path::new("/proc").join(pid);
    let links = fs::read_dir(process.join("fd")).unwrap();
    let links = links.filter_map(|it| fs::read_link(it.unwrap().path()).ok());
    let mut sockets: BTreeSet<_> = links
        .filter_map(|it| {
            Some(
                it.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    // Address and port of both ends, the state, and the inode are the 2nd, 3rd, 4th and 10th column.
    let table = fs::read_to_string(process.join("net/tcp")).unwrap();
    let rows: Vec<Vec<_>> = table
        .lines()
        .skip(1)
        .map(|row| row.split_whitespace().collect())
        .collect();
    let own: Vec<_> = rows.iter().filter(|row| sockets.remove(row[9])).collect();
    let listening = own.iter().find(|row| row[3] == "0A").unwrap()[1];
    let opened = own
        .iter()
        .filter(|row| row[3] != "0A" && row[1] != listening);
    let address = |hex: &str| {
        let (ip, port) = hex.split_once(':').unwrap();
        let ip = u32::from_str_radix(ip, 16).unwrap().to_le_bytes();
        SocketAddr::from((ip, u16::from_str_radix(port, 16).unwrap()))
    };
    (opened.map(|row| address(row[2])).collect(), sockets.len())
}

#[tokio::test]
async fn the_operator_is_connected_to_the_api_server_and_prometheus_alone() {
    let scene = Scene::new("connections").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let slow = serde_json::json!({ "strategy": { "canary": { "steps": [{ "weight": 25, "bake": "10m" }] } } });
    scene.apply(&app.version("v2").spec(slow)).await;
    scene
        .until(&app, "it is judged", |rollout| {
            let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
            change.is_some_and(|it| {
                it.evidence
                    .checks
                    .iter()
                    .any(|it| it.summary.canary.requests > 0.0)
            })
        })
        .await;
    let kubeconfig = fs::read_to_string(scene.cluster.dir().join("operator.kubeconfig")).unwrap();
    let kubeconfig: Value = serde_saphyr::from_str(&kubeconfig).unwrap();
    let api_server = kubeconfig["clusters"][0]["cluster"]["server"]
        .as_str()
        .unwrap();
    let expected = [api_server, scene.cluster.prometheus_url()].map(|url| {
        let (_, address) = url.split_once("://").unwrap();
        address.parse::<SocketAddr>().unwrap()
    });
    let pid = fs::read_to_string(scene.cluster.dir().join("operator.pid")).unwrap();
    let (opened, others) = connections(pid.trim());
    assert_eq!(opened, BTreeSet::from(expected));
    // The socket that delivers signals within the process.
    assert!(others <= 2, "{others} sockets are no TCP over IPv4");
}

#[tokio::test]
async fn the_chart_gives_the_operator_no_wildcard_and_no_secret() {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/countersign");
    let rendered = run(
        "helm",
        &[
            "template",
            "countersign",
            chart,
            "--namespace",
            "countersign-system",
        ],
    );
    let mut rules = 0;
    for document in rendered.split("\n---") {
        let Ok(object) = serde_saphyr::from_str::<Value>(document) else {
            continue;
        };
        for rule in object["rules"].as_array().into_iter().flatten() {
            rules += 1;
            let text = rule.to_string();
            assert!(
                !text.contains("\"*\"") && !text.contains("\"secrets\""),
                "{text}"
            );
        }
    }
    assert!(rules >= 8, "the rules were not found");
    let refused = Command::new("helm")
        .args(["template", "countersign", chart, "--set", "typo=1"])
        .output()
        .unwrap();
    assert!(!refused.status.success(), "an unknown value was accepted");
}
