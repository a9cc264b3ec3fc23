//! The plugin on a real API server, with the users and rights of different people.

mod browser;
mod check;
mod conventions;
mod people;
mod report;

use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;

use countersign::clock;
use countersign_api::rollout::Outcome;
use countersign_api::{Freeze, Phase};
use kube::Api;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::{App, Scene, create, ended, phase, waits_for, within};

/// The plugin's binary, which `make e2e` builds beside the operator.
static PLUGIN: LazyLock<String> = LazyLock::new(|| {
    let operator = Path::new(env!("CARGO_BIN_EXE_countersign"));
    let plugin = operator.with_file_name("kubectl-countersign");
    plugin.to_str().unwrap().to_owned()
});

/// The output of a command.
pub(crate) struct CommandOutput {
    code: i32,
    out: String,
    err: String,
}

impl CommandOutput {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn out(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.out.contains(part), "{part} is not in:\n{}", self.out);
        }
        self
    }

    #[track_caller]
    pub(crate) fn err(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "{part} is not in:\n{}", self.err);
        }
        self
    }
}

/// A user at a shell.
pub(crate) struct Person<'a> {
    scene: &'a Scene,
    user: &'static str,
}

impl<'a> Person<'a> {
    /// A user with these rights in the scene's namespace, and the right to read freezes.
    pub(crate) async fn new(scene: &'a Scene, user: &'static str, rules: &[Value]) -> Person<'a> {
        scene.grant_rules(user, json!(rules)).await;
        let verbs: &[_] = match user {
            "dave" => &["get", "list", "watch", "create", "patch"],
            _ => &["get", "list", "watch"],
        };
        let freezes =
            json!([{ "apiGroups": ["countersign.dev"], "resources": ["freezes"], "verbs": verbs }]);
        scene.grant_rules_everywhere(user, freezes).await;
        Person { scene, user }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("--kubeconfig")
            .arg(self.scene.cluster.kubeconfig())
            .args(["--context", self.user, "-n", &self.scene.namespace])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command of the plugin, given as one line; arguments with blanks are quoted by `'`.
    pub(crate) async fn runs(&self, line: &str) -> CommandOutput {
        let arguments = words(line);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        output_of(self.command(&PLUGIN, &arguments)).await
    }
}

/// The cluster's administrator.
fn admin(scene: &Scene) -> Person<'_> {
    Person {
        scene,
        user: "admin",
    }
}

fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().map(ToOwned::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

async fn output_of(mut command: Command) -> CommandOutput {
    let output = within("the command ends", command.output()).await;
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let printed = CommandOutput {
        code: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    let all = printed.out.clone() + &printed.err;
    assert!(!all.contains('\u{1b}'), "colours only on a terminal: {all}");
    assert!(
        !all.contains("ValidatingAdmissionPolicy '"),
        "plain words: {all}"
    );
    printed
}

fn reads() -> Value {
    json!({ "apiGroups": ["countersign.dev"], "resources": ["rollouts", "rolloutruns", "signoffs", "interventions"], "verbs": ["get", "list", "watch"] })
}

fn reads_workload() -> Value {
    json!({ "apiGroups": ["", "apps"], "resources": ["pods", "replicasets"], "verbs": ["get", "list", "watch"] })
}

pub(crate) fn edits() -> Value {
    json!({ "apiGroups": ["countersign.dev"], "resources": ["rollouts"], "verbs": ["update", "patch"] })
}

fn creates(resource: &str, verbs: &[&str]) -> Vec<Value> {
    vec![
        json!({ "apiGroups": ["countersign.dev"], "resources": [resource], "verbs": ["create"] }),
        json!({ "apiGroups": ["countersign.dev"], "resources": ["rollouts"], "resourceNames": ["shop"], "verbs": verbs }),
    ]
}

pub(crate) fn member(more: Vec<Value>) -> Vec<Value> {
    [reads(), reads_workload()]
        .into_iter()
        .chain(more)
        .collect()
}

/// A step that outlasts any test.
fn slow() -> Value {
    json!({ "strategy": { "canary": { "steps": [{ "weight": 25, "bake": "10m" }] } } })
}

/// Waits until the canary of a slow step has traffic.
async fn stepping(scene: &Scene, app: &App) {
    let there = |rollout: &countersign_api::Rollout| {
        let status = rollout.status.as_ref();
        let change = status.and_then(|status| status.change.as_ref());
        change.is_some_and(|change| change.available_at.is_some())
    };
    scene.until(app, "the canary serves", there).await;
}

/// Two people of approvers must sign before the first step of any change in this scene.
async fn demand_sign_off(scene: &Scene) {
    let demand = json!([{ "count": 2, "groups": ["approvers"] }]);
    let policy = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy",
        "metadata": { "name": scene.namespace },
        "spec": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": scene.namespace } },
            "tiers": { "low": { "signOff": demand }, "medium": { "signOff": demand }, "high": { "signOff": demand }, "critical": { "signOff": demand } },
        },
    });
    create::<countersign_api::RolloutPolicy>(&Api::all(scene.cluster.client()), policy).await;
}

#[tokio::test]
async fn a_member_of_the_team_sees_the_status() {
    let scene = Scene::new("plugin-inspect").await;
    let _app = scene.serving(App::new("shop")).await;
    let alice = Person::new(&scene, "alice", &member(vec![])).await;

    alice
        .runs("get")
        .await
        .exits(0)
        .out(&["NAME   PHASE", "shop   Stable"]);
    let full = format!("Rollout {}/shop: Stable", scene.namespace);
    alice.runs("status shop").await.exits(0).out(&[
        &full,
        "stable: revision 1, shop-",
        "4 of 4 pods available",
        ": Ready",
    ]);
    alice.runs("history shop -o wide").await.exits(0).out(&[
        "REVISION",
        "Promoted",
        "example.org/shop:v1",
    ]);
    let document = alice.runs("status shop -o json").await.exits(0);
    let document: Value = serde_json::from_str(&document.out).unwrap();
    assert_eq!(document["rollout"]["status"]["phase"], "Stable");
    assert_eq!(document["pods"].as_array().unwrap().len(), 4);
    let list = alice.runs("get -o yaml").await.exits(0).out;
    let list: Value = serde_saphyr::from_str(&list).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], "shop");

    // As run by kubectl.
    let directory = Path::new(&*PLUGIN).parent().unwrap();
    let mut path = std::ffi::OsString::from(directory);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut command = alice.command("kubectl", &["countersign", "get", "shop"]);
    command.env("PATH", path);
    output_of(command).await.exits(0).out(&["shop   Stable"]);
}

#[tokio::test]
async fn names_are_completed_from_the_cluster_that_the_line_names() {
    let scene = Scene::new("plugin-complete").await;
    let _app = scene.serving(App::new("shop")).await;
    let kubeconfig = scene.cluster.kubeconfig().to_str().unwrap().to_owned();
    let mut command = Command::new(&*PLUGIN);
    command.args(["__complete", "status", "--kubeconfig", &kubeconfig]);
    command.args(["--context", "admin", "-n", &scene.namespace, "sh"]);
    assert_eq!(output_of(command).await.exits(0).out, "shop\n:4\n");
}

#[tokio::test]
async fn what_is_absent_or_not_allowed_is_reported_in_plain_words() {
    let scene = Scene::new("plugin-refused").await;
    let app = scene.serving(App::new("shop")).await;
    let alice = Person::new(&scene, "alice", &member(vec![])).await;
    let namespace = format!("in namespace {:?}", scene.namespace);

    alice
        .runs("status shopp")
        .await
        .exits(1)
        .err(&["there is no Rollout \"shopp\"", &namespace]);
    alice.runs("get -A").await.exits(1).err(&[
        "alice cannot list rollouts in the whole cluster",
        "the verb list",
    ]);
    for command in [
        "approve shop --yes",
        "abort shop",
        "promote shop",
        "retry shop",
        "pause shop",
    ] {
        let at_rest = alice.runs(command).await.exits(1);
        at_rest.err(&["has no change in progress, so there is nothing to"]);
    }

    let _load = scene.load(&app, 100).await;
    let next = app.version("v2").spec(slow());
    scene.apply(&next).await;
    stepping(&scene, &next).await;
    alice
        .runs("abort shop --reason 'no right'")
        .await
        .exits(1)
        .err(&["alice cannot create interventions", &namespace]);
    alice
        .runs("approve shop --yes")
        .await
        .exits(1)
        .err(&["alice cannot create signoffs", &namespace]);
    alice
        .runs("approve shop")
        .await
        .exits(1)
        .err(&["without a terminal: add --yes"]);
    alice
        .runs("approve shop --digest 00000000")
        .await
        .exits(1)
        .err(&["is at another change now"]);
    alice
        .runs("approve shop --gate step-9 --yes")
        .await
        .exits(1)
        .err(&["no gate step-9"]);
    alice
        .runs("undo shop")
        .await
        .exits(1)
        .err(&["alice cannot patch rollouts"]);
    alice
        .runs("freeze --reason x")
        .await
        .exits(1)
        .err(&["alice cannot create freezes in the whole cluster"]);

    let mut unreachable = Command::new(&*PLUGIN);
    unreachable.args(["get", "--kubeconfig", "/nonexistent"]);
    output_of(unreachable)
        .await
        .exits(1)
        .err(&["the kubeconfig cannot be used", "/nonexistent"]);
}

#[tokio::test]
async fn a_wait_ends_by_the_outcome() {
    let scene = Scene::new("plugin-wait").await;
    let app = scene.serving(App::new("shop")).await;
    let alice = Person::new(&scene, "alice", &member(vec![])).await;
    let _load = scene.load(&app, 150).await;

    alice.runs("status shop --wait").await.exits(0);
    scene.apply(&app.version("v2")).await;
    alice
        .runs("status shop --wait --timeout 90s")
        .await
        .exits(0)
        .err(&["StepStarted", "Promoted"]);

    scene.apply(&app.version("v3").failing(0.5)).await;
    alice
        .runs("status shop --wait --timeout 90s")
        .await
        .exits(1)
        .out(&["✘ step"])
        .err(&["AnalysisFailed"]);
    alice.runs("status shop").await.exits(1);

    scene.apply(&app.version("v4").spec(slow())).await;
    alice
        .runs("status shop --wait --timeout 3s")
        .await
        .exits(3)
        .err(&["has not ended within 3s"]);
    let counted = |rollout: &countersign_api::Rollout| {
        let status = rollout.status.as_ref();
        let change = status.and_then(|status| status.change.as_ref());
        change.is_some_and(|change| {
            let checks = &change.evidence.checks;
            checks.iter().any(|check| check.canary.requests > 0.0)
        })
    };
    scene.until(&app, "a window is counted", counted).await;
    alice
        .runs("status shop")
        .await
        .exits(3)
        .out(&["▶ step 1", "error rate: canary"]);

    // The change that it takes the place of is not its outcome.
    scene.apply(&app.version("v5")).await;
    alice
        .runs("status shop --wait --timeout 90s")
        .await
        .exits(0)
        .err(&["Promoted"]);
}

#[tokio::test]
async fn a_watch_prints_each_transition_and_ends_when_it_is_interrupted() {
    let scene = Scene::new("plugin-watch").await;
    let app = scene.serving(App::new("shop")).await;
    let alice = Person::new(&scene, "alice", &member(vec![])).await;
    let _load = scene.load(&app, 150).await;
    let mut command = alice.command(&PLUGIN, &["watch", "shop"]);
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    scene.apply(&app.version("v2")).await;
    let mut printed = String::new();
    while !printed.contains(" Promoted: ") {
        let what = format!("the watch continues to the promotion after:\n{printed}");
        let line = within(&what, lines.next_line()).await.unwrap();
        printed += &(line.expect("the watch continues") + "\n");
    }
    for part in ["ChangeStarted", "StepStarted", "shop: Progressing"] {
        assert!(printed.contains(part), "{part} is not in:\n{printed}");
    }
    let id = watch.id().unwrap().to_string();
    let interrupt = Command::new("kill").args(["-INT", &id]).status().await;
    assert!(interrupt.unwrap().success());
    let end = within("the watch ends", watch.wait()).await;
    assert_eq!(end.unwrap().code(), Some(0));
}

#[tokio::test]
async fn undo_goes_back_and_restart_is_a_change() {
    let scene = Scene::new("plugin-undo").await;
    let app = scene.serving(App::new("shop")).await;
    let alice = Person::new(&scene, "alice", &member(vec![edits()])).await;
    let _load = scene.load(&app, 150).await;

    let next = app.version("v2").spec(slow());
    scene.apply(&next).await;
    stepping(&scene, &next).await;
    alice
        .runs("restart shop")
        .await
        .exits(1)
        .err(&["has a change in progress"]);
    let back = alice.runs("undo shop").await.exits(0);
    assert_eq!(back.out, "rollout shop goes back to revision 1\n");
    assert_eq!(back.err, "", "the provenance comes along");
    assert!(ended(&scene.outcome(&next).await, Outcome::Reverted));
    scene
        .until(&app, "stable serves alone", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;
    let rollout = scene.get(&app).await;
    assert_eq!(rollout.spec.template.images(), ["example.org/shop:v1"]);
    let left: Vec<_> = rollout.metadata.managed_fields.unwrap_or_default();
    assert!(
        left.iter()
            .any(|entry| entry.manager.as_deref() == Some("kubectl-countersign")),
        "the edit has a name on it"
    );
    alice
        .runs("undo shop")
        .await
        .exits(1)
        .err(&["no revision before 1"]);

    scene.apply(&app.version("v3")).await;
    alice
        .runs("status shop --wait --timeout 90s")
        .await
        .exits(0);
    alice.runs("restart shop").await.exits(0);
    alice
        .runs("status shop --wait --timeout 90s")
        .await
        .exits(0);
    let runs = scene.records(&app).await;
    assert_eq!(runs.len(), 4, "the restart was staged and recorded");
    assert!(ended(&runs[3], Outcome::Promoted));
    alice.runs("undo shop --to-revision 1").await.exits(0);
    alice
        .runs("status shop --wait --timeout 90s")
        .await
        .exits(0);
    let rollout = scene.get(&app).await;
    assert_eq!(rollout.spec.template.images(), ["example.org/shop:v1"]);
    alice
        .runs("history shop")
        .await
        .exits(0)
        .out(&["Reverted", "Promoted"]);
}

/// The policy asks for people, and only observes: nobody is waited for, and what it would have held is summed up.
#[tokio::test]
async fn what_a_policy_only_observes_holds_nothing_and_is_reported() {
    let scene = Scene::new("plugin-observed").await;
    let demand = json!([{ "count": 2, "groups": ["approvers"] }]);
    let low = json!({ "low": { "signOff": demand } });
    scene
        .policy(json!({ "enforcement": "Observe", "tiers": low }))
        .await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 150).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
    let alice = Person::new(&scene, "alice", &member(vec![])).await;
    let policy = scene.namespace.as_str();
    alice.runs("report --observed").await.exits(0).out(&[
        "1 change that policies only observed",
        policy,
        "WAIT-FOR-PEOPLE",
    ]);
    let report = alice.runs("report --observed -o json").await.exits(0);
    let report: Value = serde_json::from_str(&report.out).unwrap();
    assert_eq!(report["total"]["changes"], 1);
    assert_eq!(report["total"]["people"], 1, "{report}");
    scene.remove_policy().await;
}
