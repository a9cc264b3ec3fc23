//! Many Rollouts change at random for a long time under random faults: memory and connections stay flat,
//! no law is broken, nothing is left behind.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use countersign_api::{Phase, Rollout};
use countersign_cluster::{Cluster, Fault, Limits, Load, Replica, wait_for};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::is_thorough;
use crate::ledger::Ledger;
use crate::requests::by_seed;
use crate::story::{Faults, TIMEOUT, cluster, phase, plan, replica};
use crate::support::{App, make_service};

/// One in this many Rollouts has traffic, and is analysed.
const ONE_IN: usize = 10;

/// Resident memory (KiB) and open files of a process.
fn cost(pid: i32) -> Option<(u64, usize)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident = resident.trim().trim_end_matches(" kB").parse().ok()?;
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some((resident, files))
}

fn app(number: usize) -> App {
    let spec = json!({
        "progressDeadlineSeconds": 300, "revisionHistoryLimit": 2, "strategy": { "canary": { "drain": "1s" } },
    });
    let checks = number.is_multiple_of(ONE_IN);
    let app = App::new(&format!("app-{number}")).spec(spec);
    App {
        replicas: 2,
        checks,
        ..app
    }
}

struct Soak {
    cluster: Cluster,
    namespace: String,
    ledger: Ledger,
    replica: Replica,
    loads: Vec<Load>,
}

impl Soak {
    fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    async fn apply(&self, app: &App) {
        let parameters = PatchParams::apply("service-team").force();
        let manifest = Patch::Apply(app.manifest());
        self.rollouts()
            .patch(&app.name, &parameters, &manifest)
            .await
            .unwrap();
    }

    /// Starts all Rollouts, with traffic for those that are analysed.
    async fn begin(&mut self, apps: &[App]) {
        for app in apps {
            self.apply(app).await;
            if !app.checks {
                continue;
            }
            make_service(&self.cluster, &self.namespace, &app.name, &app.name).await;
            let limits = Limits {
                max_requests: 100_000,
                max_time: Duration::from_mins(30),
            };
            let load = Load::start(
                self.cluster.client(),
                &self.namespace,
                &app.name,
                10,
                limits,
            );
            self.loads.push(load.await.unwrap());
        }
        self.settled(apps.len()).await;
    }

    /// Waits until no Rollout has a change in progress.
    async fn settled(&self, count: usize) {
        let poll = async || {
            let rollouts = self.rollouts().list(&ListParams::default()).await;
            let rollouts = rollouts.map_err(|error| error.to_string())?.items;
            let rests = |it: &&Rollout| {
                let observed = it.status.as_ref().map(|status| status.observed_generation);
                observed == it.metadata.generation
                    && matches!(phase(it), Phase::Stable | Phase::Degraded)
            };
            let resting = rollouts.iter().filter(rests).count();
            if resting == count {
                Ok(())
            } else {
                Err(format!("{resting} of {count} are at rest"))
            }
        };
        let settled = wait_for("all are at rest", TIMEOUT * 2, poll).await;
        settled.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Changes one at random: another version, a bad one, the one before, or another number of pods.
    async fn change(&self, app: &mut App, random: &mut StdRng) {
        match random.random_range(0..10) {
            0 | 1 => app.replicas = random.random_range(1..=4),
            2 => app.version = "v1".into(),
            3 if app.checks => {
                app.version = format!("bad-{}", random.random::<u32>());
                app.error_rate = 0.6;
            }
            _ => {
                app.version = format!("v{}", random.random::<u32>());
                app.error_rate = 0.0;
            }
        }
        self.apply(app).await;
    }
}

#[tokio::test]
async fn random_changes_under_random_faults_leave_nothing_behind() {
    let (count, time) = if is_thorough() { (200, 600) } else { (30, 60) };
    let time = Duration::from_secs(time);
    let seed = std::env::var("COUNTERSIGN_SEED").map_or(1, |seed| seed.parse().unwrap());
    let calm = Arc::new(AtomicBool::new(false));
    let faults = || {
        let (calm, decide) = (calm.clone(), by_seed(seed, 4));
        plan(move |request| match decide(request) {
            // The process must live, since its memory is measured.
            Fault::KillBefore | Fault::KillAfter => Fault::Lose,
            _ if calm.load(SeqCst) => Fault::Pass,
            fault => fault,
        })
    };
    let cluster = cluster().await;
    let namespace = cluster.namespace("soak").await.unwrap();
    let faults = Faults {
        api_server: faults(),
        prometheus: faults(),
        ..Faults::default()
    };
    let mut soak = Soak {
        ledger: Ledger::open(&cluster, &namespace, false),
        replica: replica(&cluster, &namespace, "soak", &namespace, faults).await,
        loads: vec![],
        cluster,
        namespace,
    };
    let mut apps: Vec<_> = (0..count).map(app).collect();
    soak.begin(&apps).await;

    let (mut random, begun) = (StdRng::seed_from_u64(seed), Instant::now());
    let (mut costs, mut changes, mut sampled) = (Vec::new(), 0, Instant::now());
    let mut pace = tokio::time::interval(Duration::from_millis(
        u64::try_from(60_000 / count).unwrap(),
    ));
    while begun.elapsed() < time {
        pace.tick().await;
        let chosen = random.random_range(0..apps.len());
        soak.change(&mut apps[chosen], &mut random).await;
        changes += 1;
        if sampled.elapsed() > time / 30 {
            sampled = Instant::now();
            costs.extend(soak.replica.pid().and_then(cost));
            soak.ledger.keep_small();
        }
    }
    calm.store(true, SeqCst);
    soak.settled(count).await;
    soak.ledger
        .quiet(Duration::from_secs(5), TIMEOUT)
        .await
        .unwrap();

    let faults = (
        soak.replica.api_server.faults(),
        soak.replica.prometheus.faults(),
    );
    eprintln!("COUNTERSIGN_SEED={seed}: {changes} changes of {count} Rollouts under {faults:?}");
    eprintln!("memory (KiB) and open files: {costs:?}");
    for kind in ["Lose", "LoseAnswer", "Answer", "Delay"] {
        let happened = faults.0.contains_key(kind) && changes > 20;
        assert!(happened, "{changes} changes, no {kind} in {faults:?}");
    }
    assert!(
        costs.len() > 15,
        "its memory was seen {} times",
        costs.len()
    );
    let broken = soak.ledger.broken();
    assert!(
        broken.is_empty(),
        "{broken:#?}\n{}",
        soak.ledger.tale(broken[0].split(' ').next().unwrap())
    );
    assert_eq!(soak.replica.starts(), 1, "{}", soak.replica.log());
    assert_eq!(soak.ledger.orphans(), 0);
    for app in &apps {
        let tale = soak.ledger.tale(&app.name);
        assert_eq!(
            soak.ledger.pods(&app.name),
            app.replicas,
            "{}: {tale}",
            app.name
        );
    }
    let third = costs.len() / 3;
    let mean = |costs: &[(u64, usize)]| {
        let (memory, files) = costs.iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        let count = costs.len().max(1);
        (memory / u64::try_from(count).unwrap(), files / count)
    };
    let (middle, last) = (mean(&costs[third..2 * third]), mean(&costs[2 * third..]));
    assert!(
        last.0 * 10 <= middle.0 * 12,
        "memory grows: {middle:?}, {last:?}"
    );
    assert!(
        last.1 * 10 <= middle.1 * 15,
        "connections grow: {middle:?}, {last:?}"
    );
}
