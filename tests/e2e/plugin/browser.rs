//! The dashboard in a real Chromium, driven by the scripts of `tests/browser/`. Only `make browser` runs these tests,
//! where Chromium and Node are installed.

use std::fs::{self, File};
use std::path::PathBuf;

use countersign_api::SignOff;
use kube::api::ListParams;
use tokio::process::{Child, ChildStdout};

use super::*;
use crate::support::{TIMEOUT, risky};

/// A dashboard that ends with the value.
struct Dashboard {
    address: String,
    _process: Child,
}

impl Person<'_> {
    /// Starts the dashboard of this person, and reads the address that it prints.
    async fn dashboard(&self, flags: &[&str]) -> Dashboard {
        let arguments = [&["dashboard", "--no-browser"][..], flags].concat();
        let mut command = self.command(&PLUGIN, &arguments);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = within("the dashboard prints its address", lines.next_line()).await;
        Dashboard {
            address: address.unwrap().unwrap(),
            _process: process,
        }
    }
}

/// A script that uses a dashboard.
struct Story {
    process: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    /// Each step of the browser, and what failed.
    log: PathBuf,
}

impl Story {
    /// Starts the script, which gets the address, the namespace and the other arguments.
    fn begin(script: &str, dashboard: &Dashboard, scene: &Scene, more: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
        let log = std::env::temp_dir().join(format!("{script}-{}.log", scene.namespace));
        let mut command = Command::new("node");
        command
            .arg(folder.join(script))
            .args([&dashboard.address, &scene.namespace])
            .args(more)
            .stdin(Stdio::null())
            .env("DEBUG", "pw:api")
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self {
            process,
            lines,
            log,
        }
    }

    /// Waits until the script prints a line.
    async fn prints(&mut self, line: &str) {
        let printed = within("the story prints a line", self.lines.next_line()).await;
        assert_eq!(printed.unwrap().as_deref(), Some(line));
    }

    /// Waits until the script has ended well.
    async fn passes(mut self) {
        let ended = tokio::time::timeout(TIMEOUT, self.process.wait()).await;
        let passed = ended.is_ok_and(|status| status.unwrap().success());
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rev().take(40).collect::<Vec<_>>();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        assert!(passed, "the story failed, or did not end:\n{last}");
    }
}

#[tokio::test]
#[ignore = "make browser runs it, where there is a browser"]
async fn a_rollback_is_seen_live() {
    let scene = Scene::new("browser-rollback").await;
    let app = App {
        replicas: 10,
        ..App::new("shop")
    };
    let app = scene.serving(app).await;
    let _load = scene.load(&app, 200).await;
    let alice = Person::new(&scene, "alice", &member(vec![])).await;
    // She may not list all Rollouts, so those of the namespace are shown.
    let dashboard = alice.dashboard(&["-A"]).await;
    let mut story = Story::begin("rollback.mjs", &dashboard, &scene, &[]);
    story.prints("watching").await;
    let bad = app.version("v2").failing(0.4).provenance(risky());
    scene.apply(&bad).await;
    story.passes().await;
    assert!(ended(&scene.outcome(&bad).await, Outcome::RolledBack));
}

#[tokio::test]
#[ignore = "make browser runs it, where there is a browser"]
async fn an_approval_by_click_is_proven_and_that_of_the_author_refused() {
    let scene = Scene::new("browser-approval").await;
    demand_sign_off(&scene).await;
    let app = scene.serving(App::new("shop")).await;
    let approves = creates("signoffs", &["approve"]);
    let author = [approves.clone(), vec![edits()]].concat();
    let alice = Person::new(&scene, "alice", &member(author)).await;
    let bob = Person::new(&scene, "bob", &member(approves)).await;
    let _load = scene.load(&app, 150).await;
    alice.runs("restart shop").await.exits(0);
    scene
        .until(&app, "it waits for people", |rollout| {
            waits_for(rollout, "AwaitingSignOff")
        })
        .await;

    let dashboard = alice.dashboard(&[]).await;
    let story = Story::begin("approval.mjs", &dashboard, &scene, &["refused"]);
    story.passes().await;
    let dashboard = bob.dashboard(&[]).await;
    let story = Story::begin("approval.mjs", &dashboard, &scene, &["counts"]);
    story.passes().await;

    let sign_offs: Api<SignOff> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let sign_offs = sign_offs.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sign_offs.len(), 1, "{sign_offs:?}");
    let made = &sign_offs[0];
    assert_eq!(made.spec.approver.username, "bob");
    assert_eq!(made.spec.reason.as_deref(), Some("reviewed <b>twice</b>"));
    let conditions = &made.status.as_ref().unwrap().conditions;
    assert!(
        conditions
            .iter()
            .any(|it| it.type_ == "Counts" && it.status == "True")
    );
}

#[tokio::test]
#[ignore = "make browser runs it, where there is a browser"]
async fn strangers_and_forged_forms_are_refused() {
    let scene = Scene::new("browser-strangers").await;
    let _app = scene.serving(App::new("shop")).await;
    let dave = Person::new(&scene, "dave", &member(vec![])).await;
    let dashboard = dave.dashboard(&[]).await;
    let story = Story::begin("strangers.mjs", &dashboard, &scene, &[]);
    story.passes().await;
    let freezes: Api<Freeze> = Api::all(scene.cluster.client());
    let freezes = freezes.list(&ListParams::default()).await.unwrap().items;
    assert!(freezes.iter().all(|it| it.spec.reason != "forged"));
}
