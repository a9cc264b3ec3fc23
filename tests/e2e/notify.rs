//! Notifications by `countersign notify`, under the chart's own `ServiceAccount`, to a sink that fails, hangs and comes
//! back, and to a real Alertmanager.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use countersign_cluster::wait_for;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};

use crate::chart::{APPLY, CHART, helm, kind, kubectl};
use crate::identity::user::path;
use crate::sign_off::Checkpoint;
use crate::support::{Scene, TIMEOUT, risky, within};

/// A free address of this host.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The response to a request, with its head.
fn get(at: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(at).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// What notifications are sent to.
struct Sink {
    at: SocketAddr,
    state: Arc<Received>,
}

/// Every request with the status that it was answered with; 0: it had no answer.
#[derive(Default)]
struct Received {
    status: AtomicU16,
    requests: Mutex<Vec<(u16, Value)>>,
}

async fn receive(State(state): State<Arc<Received>>, body: Bytes) -> StatusCode {
    let status = state.status.load(Ordering::Relaxed);
    let body = serde_json::from_slice(&body).unwrap();
    state.requests.lock().unwrap().push((status, body));
    if status == 0 {
        std::future::pending::<()>().await;
    }
    StatusCode::from_u16(status).unwrap()
}

impl Sink {
    async fn new(status: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let state = Arc::<Received>::default();
        let app = Router::new().fallback(receive).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let sink = Self { at, state };
        sink.answers(status);
        sink
    }

    fn answers(&self, status: u16) {
        self.state.status.store(status, Ordering::Relaxed);
    }

    /// The messages that were answered with this status.
    fn answered(&self, status: u16) -> Vec<Value> {
        let requests = self.state.requests.lock().unwrap();
        let requests = requests.iter().filter(|(with, _)| *with == status);
        requests.map(|(_, body)| body.clone()).collect()
    }

    /// Waits for a message of this kind with this status.
    async fn until(&self, status: u16, kind: &str) -> Value {
        let of_kind = async || {
            let all = self.answered(status);
            let found = all.iter().find(|it| it["kind"] == kind).cloned();
            found.ok_or_else(|| format!("{all:?}"))
        };
        let what = format!("{kind} is answered with {status}");
        wait_for(&what, TIMEOUT, of_kind).await.unwrap()
    }

    /// Each message that was taken, by its id.
    fn taken(&self) -> Vec<String> {
        let taken = self.answered(200);
        let ids = taken.iter().map(|it| it["id"].as_str().unwrap().to_owned());
        ids.collect()
    }
}

/// An installation of the chart's part in the namespace of a scene. No channel is a default one, so that only the
/// scene's own Rollouts are notified of.
struct Home {
    namespace: String,
    dir: PathBuf,
    user: String,
}

impl Home {
    async fn new(scene: &Scene, channels: &Value) -> Self {
        let namespace = scene.namespace.clone();
        let dir = scene.cluster.dir().join(format!("{namespace}-notify"));
        fs::create_dir_all(&dir).unwrap();
        let values = json!({
            "fullnameOverride": namespace,
            "notify": { "enabled": true, "cluster": "test", "channels": channels },
        });
        let file = dir.join("values.json");
        fs::write(&file, values.to_string()).unwrap();
        let rendered = helm(&[
            "template",
            "notify",
            CHART,
            &format!("--namespace={namespace}"),
            &format!("--values={}", file.display()),
            "--show-only=templates/notify.yaml",
        ]);
        let manifests = rendered.split("\n---\n");
        let manifests: Vec<_> = manifests
            .filter(|it| kind(it).is_some_and(|kind| kind != "Deployment"))
            .collect();
        kubectl(&APPLY, &manifests.join("\n---\n")).unwrap();
        let config = manifests.iter().find(|it| it.contains("  config.yaml: |"));
        let config: Value = serde_saphyr::from_str(config.unwrap()).unwrap();
        let config = config["data"]["config.yaml"].as_str().unwrap();
        fs::write(dir.join("config.yaml"), config).unwrap();

        let account = format!("{namespace}-notify");
        let accounts: Api<ServiceAccount> = Api::namespaced(scene.cluster.client(), &namespace);
        let request = TokenRequest::default();
        let parameters = PostParams::default();
        let token = accounts.create_token_request(&account, &parameters, &request);
        let token = token.await.unwrap().status.unwrap().token;
        let mut kubeconfig = Kubeconfig::read_from(scene.cluster.kubeconfig()).unwrap();
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = serde_json::from_value(json!({ "token": token })).ok();
        }
        fs::write(dir.join("kubeconfig"), json!(kubeconfig).to_string()).unwrap();
        Self {
            user: format!("system:serviceaccount:{namespace}:{account}"),
            namespace,
            dir,
        }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command
            .arg("notify")
            .env("KUBECONFIG", self.dir.join("kubeconfig"))
            .env("COUNTERSIGN_NOTIFY_CONFIG", self.dir.join("config.yaml"))
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", &self.namespace)
            .kill_on_drop(true);
        command
    }

    fn replica(&self, name: &str) -> Replica {
        let (at, log) = (free(), self.dir.join(format!("{name}.log")));
        let output = fs::File::create(&log).unwrap();
        let process = self
            .command(name)
            .env("COUNTERSIGN_LISTEN", at.to_string())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .unwrap();
        Replica { at, log, process }
    }

    /// What was delivered, as it is stored.
    async fn record(&self, scene: &Scene) -> Value {
        let maps: Api<ConfigMap> = Api::namespaced(scene.cluster.client(), &self.namespace);
        let map = maps.get("countersign-notify").await.unwrap();
        let text = map.data.and_then(|mut it| it.remove("delivered.json"));
        text.map_or(Value::Null, |it| serde_json::from_str(&it).unwrap())
    }

    /// Sends a test message; returns whether the channel took it, and what was printed.
    async fn test(&self, channel: &str) -> (bool, String) {
        let output = self.command("test").args(["test", channel]).output();
        let output = within("the test ends", output).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        (output.status.success(), text)
    }
}

/// A running process.
struct Replica {
    at: SocketAddr,
    log: PathBuf,
    process: Child,
}

impl Replica {
    fn sends(&self) -> bool {
        let log = fs::read_to_string(&self.log).unwrap();
        log.contains("\"message\":\"sending\"")
    }

    async fn until_it_sends(&self) {
        let sends = async || {
            let log = fs::read_to_string(&self.log).unwrap();
            self.sends().then_some(()).ok_or(log)
        };
        wait_for("the replica sends", TIMEOUT, sends).await.unwrap();
    }

    fn metrics(&self) -> String {
        get(self.at, "/metrics").unwrap()
    }
}

/// A Rollout that chooses these channels, whose risky changes wait for an approver.
async fn checkpoint(name: &str, channels: &str) -> Checkpoint {
    let demand = json!([{ "count": 1, "groups": ["approvers"] }]);
    let asks = json!({ "signOff": demand });
    let policy = json!({ "tiers": { "high": asks, "critical": asks } });
    let checkpoint = Checkpoint::new(name, policy).await;
    let chooses = json!({ "metadata": { "annotations": { "countersign.dev/notify": channels } } });
    let rollout = path(&checkpoint.scene, "rollouts/shop");
    checkpoint.admin.merge(&rollout, &chooses).await.unwrap();
    checkpoint
}

#[tokio::test]
async fn a_sink_that_fails_hangs_and_comes_back_gets_each_message_once_of_two_replicas() {
    let mut checkpoint = checkpoint("notify", "flaky,steady,unknown").await;
    let (flaky, steady) = (Sink::new(500).await, Sink::new(200).await);
    let url = |sink: &Sink| format!("http://{}/", sink.at);
    let channels = json!({
        "flaky": { "kind": "webhook", "url": url(&flaky) },
        "steady": { "kind": "webhook", "url": url(&steady) },
    });
    let home = Home::new(&checkpoint.scene, &channels).await;
    let replicas = [home.replica("a"), home.replica("b")];
    let one_sends = async || replicas.iter().any(Replica::sends).then_some(());
    wait_for("a replica sends", TIMEOUT, one_sends)
        .await
        .unwrap();

    let next = checkpoint.app.version("v2").provenance(risky());
    checkpoint.deploy(&next).await;
    let digest = checkpoint.scene.get(&next).await.status.unwrap();
    let digest = digest.change.unwrap().digest;
    let waits = steady.until(200, "AwaitingSignOff").await;
    let text = waits["text"].as_str().unwrap();
    let missing = "gate step-1 requires 1 person of approvers; it is rolled back at ";
    assert!(text.starts_with(missing), "{text}");
    let command = waits["command"].as_str().unwrap();
    let namespace = &checkpoint.scene.namespace;
    let approve = format!("kubectl countersign approve shop -n {namespace} --digest ");
    let prefix = command.strip_prefix(&approve).unwrap();
    assert!(prefix.len() >= 8 && digest.starts_with(prefix), "{command}");
    assert_eq!(
        (&waits["cluster"], &waits["change"]["tier"]),
        (&json!("test"), &json!("high"))
    );

    // The other channel has taken nothing, and delays nobody.
    flaky.until(500, "AwaitingSignOff").await;
    flaky.answers(0);
    flaky.until(0, "AwaitingSignOff").await;
    let no = json!({ "decision": "Reject", "reason": "not today" });
    checkpoint.sign(&checkpoint.bob, no).await.unwrap();
    let back = steady.until(200, "RolledBack").await;
    assert!(
        back["text"].as_str().unwrap().starts_with("Rejected: "),
        "{back}"
    );
    assert_eq!(flaky.taken(), [""; 0]);

    // It comes back: what has happened meanwhile arrives, and what no longer waits does not.
    flaky.answers(200);
    let late = flaky.until(200, "RolledBack").await;
    assert_eq!(late, back, "with the same id");
    assert_eq!(flaky.taken().len(), 1);
    let sender = usize::from(replicas[1].sends());
    let metrics = replicas[sender].metrics();
    for line in [
        r#"countersign_notifications_total{channel="flaky",result="delivered"} 1"#,
        "countersign_notify_sending 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    for none in [
        r#"countersign_notifications_total{channel="flaky",result="failed"} 0"#,
        "countersign_notify_unknown_channels 0",
    ] {
        assert!(!metrics.contains(none), "{none}: {metrics}");
    }
    let log = fs::read_to_string(&replicas[sender].log).unwrap();
    let named = format!("{namespace}/shop");
    let is_named = |line: &str| line.contains("is not configured") && line.contains(&named);
    assert!(log.lines().any(is_named), "{log}");

    // The other replica takes over, and repeats nothing.
    let recorded = async || {
        let record = home.record(&checkpoint.scene).await;
        let taken = record["channels"]["flaky"]["taken"].as_object();
        let is_recorded = taken.is_some_and(|it| !it.is_empty());
        is_recorded.then_some(()).ok_or_else(|| record.to_string())
    };
    wait_for("what was delivered is recorded", TIMEOUT, recorded)
        .await
        .unwrap();
    let known = steady.taken().len();
    let mut replicas = Vec::from(replicas);
    let mut first = replicas.remove(sender);
    first.process.kill().await.unwrap();
    replicas[0].until_it_sends().await;
    let again = checkpoint.app.version("v3").provenance(risky());
    checkpoint.deploy(&again).await;
    let more = async || (steady.taken().len() > known).then_some(());
    wait_for("the next change is sent", TIMEOUT, more)
        .await
        .unwrap();
    let mut taken = steady.taken();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), steady.taken().len(), "{:?}", steady.taken());
    checkpoint.scene.remove_policy().await;
}

/// A real Alertmanager, without a receiver.
struct Alertmanager {
    at: SocketAddr,
    _process: Child,
}

impl Alertmanager {
    async fn start(home: &Home, at: SocketAddr) -> Self {
        let config = home.dir.join("alertmanager.yaml");
        fs::write(
            &config,
            "route: {receiver: none}\nreceivers: [{name: none}]\n",
        )
        .unwrap();
        let process = Command::new("alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", home.dir.display()))
            .arg(format!("--web.listen-address={at}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(fs::File::create(home.dir.join("alertmanager.log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let ready = async || {
            let answer = get(at, "/-/ready").unwrap_or_default();
            answer.starts_with("HTTP/1.0 200").then_some(())
        };
        wait_for("the Alertmanager is ready", TIMEOUT, ready)
            .await
            .unwrap();
        Self {
            at,
            _process: process,
        }
    }

    /// The alerts that fire, by their names.
    fn firing(&self) -> Vec<(String, Value)> {
        let answer = get(self.at, "/api/v2/alerts?active=true").unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let alerts: Vec<Value> = serde_json::from_str(body).unwrap();
        let named = alerts.into_iter().map(|alert| {
            let name = alert["labels"]["alertname"].as_str().unwrap();
            (
                name.trim_start_matches("CountersignNotify").to_owned(),
                alert,
            )
        });
        named.collect()
    }

    /// Waits until exactly these alerts fire.
    async fn until(&self, expected: &[&str]) -> Vec<(String, Value)> {
        let fire = async || {
            let mut alerts = self.firing();
            alerts.sort_by(|a, b| a.0.cmp(&b.0));
            let same = alerts
                .iter()
                .map(|(name, _)| name.as_str())
                .eq(expected.iter().copied());
            if same {
                Ok(alerts)
            } else {
                Err(format!("{alerts:?}"))
            }
        };
        let what = format!("the alerts {expected:?} fire");
        wait_for(&what, TIMEOUT, fire).await.unwrap()
    }
}

#[tokio::test]
async fn an_alertmanager_has_an_alert_for_as_long_as_a_change_waits_for_people() {
    let mut checkpoint = checkpoint("notify-alerts", "alerts").await;
    // It is bound until the Alertmanager starts, and does not listen: nobody else gets the address, or an answer.
    let held = TcpSocket::new_v4().unwrap();
    held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let at = held.local_addr().unwrap();
    let channels = json!({ "alerts": { "kind": "alertmanager", "url": format!("http://{at}") } });
    let home = Home::new(&checkpoint.scene, &channels).await;
    let (taken, text) = home.test("alerts").await;
    assert!(
        !taken && text.starts_with("channel alerts: the channel cannot be reached: "),
        "{text}"
    );
    let (taken, text) = home.test("pager").await;
    assert!(
        !taken && text.contains("there is no channel `pager`: name one of alerts"),
        "{text}"
    );

    let replica = home.replica("a");
    replica.until_it_sends().await;
    let next = checkpoint.app.version("v2").provenance(risky());
    checkpoint.deploy(&next).await;
    // It comes up when the change waits already.
    drop(held);
    let alertmanager = Alertmanager::start(&home, at).await;
    let alerts = alertmanager.until(&["AwaitingSignOff"]).await;
    let (mut labels, annotations) = (alerts[0].1["labels"].clone(), &alerts[0].1["annotations"]);
    for unique in ["id", "run"] {
        let value = labels.as_object_mut().unwrap().remove(unique);
        assert!(value.is_some(), "{unique}: {labels}");
    }
    assert_eq!(
        labels,
        json!({
            "alertname": "CountersignNotifyAwaitingSignOff", "cluster": "test", "rollout": "shop",
            "namespace": checkpoint.scene.namespace, "severity": "warning", "tier": "high",
        })
    );
    let command = annotations["command"].as_str().unwrap();
    assert!(
        command.starts_with("kubectl countersign approve shop -n "),
        "{command}"
    );

    let no = json!({ "decision": "Reject", "reason": "not today" });
    checkpoint.sign(&checkpoint.bob, no).await.unwrap();
    alertmanager.until(&["RolledBack"]).await;
    let (taken, text) = home.test("alerts").await;
    assert!(taken, "{text}");
    alertmanager.until(&["RolledBack", "Test"]).await;
    checkpoint.scene.remove_policy().await;
}

/// It reads what it notifies of, and writes its own Lease and its own record.
#[tokio::test]
async fn the_account_of_notify_reads_three_kinds_and_writes_its_lease_and_its_record() {
    let scene = Scene::new("notify-rights").await;
    let home = Home::new(&scene, &json!({})).await;
    let granted = async || {
        scene
            .may(&home.user, "watch", "freezes")
            .await
            .then_some(())
    };
    wait_for("a grant is in force", TIMEOUT, granted)
        .await
        .unwrap();
    for resource in ["rollouts", "rolloutruns", "freezes"] {
        assert!(scene.may(&home.user, "list", resource).await, "{resource}");
        for verb in ["create", "update", "patch", "delete"] {
            assert!(
                !scene.may(&home.user, verb, resource).await,
                "{verb} {resource}"
            );
            let status = format!("{resource}/status");
            assert!(
                !scene.may(&home.user, verb, &status).await,
                "{verb} {status}"
            );
        }
    }
    for resource in ["signoffs", "interventions", "rolloutpolicies"] {
        for verb in ["list", "create", "delete"] {
            assert!(
                !scene.may(&home.user, verb, resource).await,
                "{verb} {resource}"
            );
        }
    }
    for (verb, resource) in [
        ("get", "secrets"),
        ("create", "configmaps"),
        ("list", "configmaps"),
        ("update", "configmaps"),
        ("create", "pods"),
    ] {
        let may = scene.may_of("", &home.user, verb, resource).await;
        assert!(!may, "{verb} {resource}");
    }
    let replica = home.replica("a");
    replica.until_it_sends().await;
    let recorded = async || {
        let record = home.record(&scene).await;
        let is_written = record["channels"].is_object();
        is_written.then_some(()).ok_or_else(|| record.to_string())
    };
    wait_for("the record is written", TIMEOUT, recorded)
        .await
        .unwrap();
}
