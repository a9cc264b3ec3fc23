//! The steps of `docs/get-started.md`, in the shell of a reader. What needs containers, or a Prometheus operator, is
//! left out, as the page says: the cluster of the tests takes its place.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use countersign_api::rollout::Outcome;
use countersign_api::{RolloutRun, Tier};
use countersign_cluster::{Limits, Load};
use countersign_core::reason::Reason;
use kube::Api;
use kube::api::ListParams;
use tokio::process::Command;

use crate::support::Scene;

const PAGE: &str = include_str!("../../docs/get-started.md");
const NAMESPACE: &str = "podinfo";
/// What a step may take at most: the page's own commands wait for ten minutes.
const WITHIN: Duration = Duration::from_mins(11);

/// The page's shell commands, block by block.
fn steps() -> Vec<&'static str> {
    let blocks = PAGE.split("\n```sh\n").skip(1);
    blocks
        .map(|it| it.split_once("\n```\n").unwrap().0)
        .collect()
}

/// The word by which the page names what cannot run here.
fn left_out(step: &str) -> Option<&str> {
    let programs = ["docker", "cargo", "kind", "helm"];
    let first = step.split_whitespace().next();
    let monitor = step.contains("kind: PodMonitor").then_some("PodMonitor");
    first.filter(|it| programs.contains(it)).or(monitor)
}

/// A shell with the plugin on its path and a kubeconfig of its own.
struct Shell {
    directory: PathBuf,
    path: String,
}

impl Shell {
    fn new(scene: &Scene) -> Self {
        let directory = std::env::temp_dir().join(&scene.namespace);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::copy(scene.cluster.kubeconfig(), directory.join("config")).unwrap();
        let programs = Path::new(env!("CARGO_BIN_EXE_countersign"));
        let programs = programs.parent().unwrap().display();
        let path = std::env::var("PATH").unwrap();
        Self {
            directory,
            path: format!("{programs}:{path}"),
        }
    }

    async fn runs(&self, step: &str) -> String {
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", step])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .env("PATH", &self.path)
            .env("KUBECONFIG", self.directory.join("config"))
            .kill_on_drop(true);
        let output = tokio::time::timeout(WITHIN, shell.output()).await;
        let output = output.unwrap_or_else(|_| panic!("not within {WITHIN:?}: {step}"));
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let printed = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{step}\n{printed}");
        printed
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn the_steps_of_the_page_promote_roll_back_and_wait_for_a_person() {
    let scene = Scene::new("get-started").await;
    let shell = Shell::new(&scene);
    let client = scene.cluster.client();
    let limits = Limits {
        max_requests: 200_000,
        max_time: WITHIN,
    };
    let load = Load::start(client.clone(), NAMESPACE, "podinfo", 400, limits)
        .await
        .unwrap();

    let (mut skipped, mut printed) = (Vec::new(), String::new());
    let steps = steps();
    let [story @ .., clean_up, last] = &steps[..] else {
        panic!("{PAGE} has no steps")
    };
    for step in story {
        match left_out(step) {
            Some(word) => skipped.push(word),
            None => printed += &shell.runs(step).await,
        }
    }
    assert_eq!(
        skipped,
        ["docker", "cargo", "kind", "helm", "helm", "PodMonitor"]
    );
    // The author's approval.
    assert!(printed.contains("\nrefused\n"), "{printed}");

    let runs: Api<RolloutRun> = Api::namespaced(client, NAMESPACE);
    let runs = runs.list(&ListParams::default()).await.unwrap().items;
    let mut runs: Vec<_> = runs.into_iter().map(|it| it.spec).collect();
    runs.sort_by_key(|it| it.revision);
    let ends: Vec<_> = runs[1..]
        .iter()
        .map(|it| (it.risk.tier, it.progress.outcome))
        .collect();
    assert_eq!(
        ends,
        [
            (Tier::Low, Some(Outcome::Promoted)),
            (Tier::Low, Some(Outcome::RolledBack)),
            (Tier::High, Some(Outcome::Promoted)),
        ]
    );
    let has = |run: usize, reason: Reason| {
        let mut lines = runs[run].progress.transitions.iter();
        lines.any(|line| line.reason == reason)
    };
    assert!(has(2, Reason::AnalysisFailed) && has(3, Reason::SignedOff));
    assert!(load.stop().await.requests > 1_000);

    shell.runs(clean_up).await;
    assert_eq!(left_out(last), Some("kind"), "{last}");
}
