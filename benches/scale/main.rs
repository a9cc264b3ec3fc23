//! `make bench`: the cost of the operator on a real control plane, as one table.
//!
//! Runs in the test cluster, with the operator as released. Requests are counted in the API server's audit
//! log, memory and CPU in `/proc`; each measurement is described in `docs/performance.md`.

mod fleet;
mod observed;
mod rollbacks;
mod table;

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use countersign_cluster::Cluster;

use fleet::{FiveSteps, Fleet};
use observed::{Observed, Requests};
use rollbacks::{Latencies, Rollbacks};
use table::{Table, plain};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Until the operator has written how many Rollouts the policy governs.
const COUNT: Duration = Duration::from_secs(32);
/// How long an idle operator is observed: longer than its one-minute interval.
const IDLE: Duration = Duration::from_secs(65);
/// Rollouts that are created at once.
const NEW: usize = 500;
const FEW: usize = 100;
const BACKGROUND: usize = 1_000;
const MANY: usize = 5_000;
/// Changes that are under way concurrently.
const IN_PROGRESS: usize = 500;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [operator, decide] = arguments.as_slice() else {
        eprintln!("usage: scale OPERATOR DECIDE");
        return ExitCode::FAILURE;
    };
    let mut table = Table::default();
    let outcome = measure(Path::new(operator), Path::new(decide), &mut table).await;
    // Figures measured before a failure are valid.
    println!("{table}");
    let missed = table.missed();
    if !missed.is_empty() {
        eprintln!("bench: missed: {}", missed.join("; "));
    }
    match outcome {
        Ok(()) if missed.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(operator: &Path, decide: &Path, table: &mut Table) -> Result<()> {
    let started = Instant::now();
    let say = |what: &str| eprintln!("bench: {:4.0} s: {what}", started.elapsed().as_secs_f64());
    table.at_most("binary, MB", size(operator)?, 20.0);
    decisions(decide, table)?;

    let cluster = Cluster::from_env().await?;
    let mut observed = Observed::new(&cluster);
    fleet::served(&cluster).await?;
    let mut fleet = Fleet::new(&cluster);

    say("idle, without Rollouts");
    let empty = idle(&mut observed, table, 0).await?;

    say("500 ReplicaSets of the control plane alone");
    let alone = fleet::replica_sets_alone(&cluster, NEW).await?;
    table.row("500 plain ReplicaSets to ready pods, s", plain(alone, 1));

    say("one change in five steps");
    five_steps(&cluster, &mut observed, table).await?;

    say("100 Rollouts");
    fleet.grow(FEW).await?;
    idle(&mut observed, table, FEW).await?;
    let few = restart(&mut observed, FEW, table).await?;

    say("500 new Rollouts");
    new(&mut observed, &mut fleet, table).await?;

    say("1,000 Rollouts");
    fleet.grow(BACKGROUND).await?;
    let grown = idle(&mut observed, table, BACKGROUND).await?;
    table.at_most("resident at 1,000 idle Rollouts, MiB", grown.resident, 48.0);
    table.at_most(
        "requests then but for watches and the lease",
        grown.requests,
        0.0,
    );
    growth(
        table,
        "from 0 to 1,000",
        grown.resident - empty.resident,
        BACKGROUND,
    );

    say("a restart");
    let before = restart(&mut observed, fleet.size(), table).await?;
    growth(
        table,
        "from 100 to 1,000, each after a restart",
        before - few,
        BACKGROUND - FEW,
    );

    say("200 rollbacks under 1,000 idle Rollouts");
    let mut rollbacks = Rollbacks::prepare(&cluster).await?;
    observed.at_rest().await?;
    let latencies = rollbacks.measure(&mut observed, &say).await?;
    report(table, "1,000 idle Rollouts", &latencies);

    say("500 changes under way");
    fleet.change(IN_PROGRESS).await?;
    let latencies = rollbacks.measure(&mut observed, &say).await?;
    report(table, "500 changes in progress", &latencies);
    rollbacks.end().await?;
    fleet.change_back(IN_PROGRESS).await?;

    say("5,000 Rollouts");
    fleet.grow(MANY).await?;
    idle(&mut observed, table, MANY).await?;
    let after = restart(&mut observed, fleet.size(), table).await?;
    growth(
        table,
        "from 1,000 to 5,000, each after a restart",
        after - before,
        MANY - BACKGROUND,
    );
    say("done");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "few")]
fn growth(table: &mut Table, what: &str, mebibytes: f64, rollouts: usize) {
    let what = format!("memory for each idle Rollout {what}, KiB");
    table.at_most(&what, mebibytes * 1024.0 / rollouts as f64, 12.0);
}

/// The requests of one change in five steps, from its creation until it is settled.
async fn five_steps(cluster: &Cluster, observed: &mut Observed, table: &mut Table) -> Result<()> {
    let steps = FiveSteps::serving(cluster).await?;
    observed.at_rest().await?;
    steps.change().await?;
    observed.until_quiet().await?;
    let sent = observed.requests()?.within(&[steps.namespace()]);
    eprintln!("bench: five steps: {sent}");
    #[expect(clippy::cast_precision_loss, reason = "few")]
    table.at_most(
        "writes for one change in five steps, with analysis",
        sent.writes() as f64,
        30.0,
    );
    table.row("… of which", sent.listed(true));
    table.row("… and reads", sent.listed(false));
    steps.end().await
}

/// The cost of an idle operator.
struct Idle {
    /// Resident memory in MiB.
    resident: f64,
    /// Requests that are neither watches nor the lease's.
    requests: f64,
}

async fn idle(observed: &mut Observed, table: &mut Table, rollouts: usize) -> Result<Idle> {
    tokio::time::sleep(COUNT).await;
    observed.at_rest().await?;
    let before = observed.usage()?;
    tokio::time::sleep(IDLE).await;
    let (after, sent) = (observed.usage()?, observed.requests()?);
    let others = sent.other_than_keeping_up();
    let cpu = (after.cpu - before.cpu) / IDLE.as_secs_f64() * 100.0;
    eprintln!("bench: idle at {rollouts}: {after:?}, {cpu:.2} % of a core; {sent}");
    let (resident, anonymous) = (plain(after.resident, 1), plain(after.anonymous, 1));
    table.row(
        &format!("idle at {rollouts}: resident (anonymous) MiB, CPU of a core"),
        format!("{resident} ({anonymous}), {cpu:.2} %"),
    );
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let requests = others.len() as f64;
    Ok(Idle {
        resident: after.resident,
        requests,
    })
}

/// 500 new Rollouts at once.
async fn new(observed: &mut Observed, fleet: &mut Fleet, table: &mut Table) -> Result<()> {
    observed.at_rest().await?;
    let (before, reconciles) = (observed.usage()?, observed.reconciles().await?);
    let took = fleet.grow(fleet.size() + NEW).await?;
    let cpu = observed.usage()?.cpu - before.cpu;
    observed.until_quiet().await?;
    let reconciles = observed.reconciles().await? - reconciles;
    let sent = observed.requests()?.within(&fleet.namespaces());
    eprintln!("bench: 500 new in {took:.1} s, {cpu:.2} s of CPU, {reconciles} reconciles; {sent}");
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let each = |number: usize| number as f64 / NEW as f64;
    table.at_most("500 new Rollouts to Healthy, s", took, 25.0);
    table.at_most("writes for each of them", each(sent.writes()), 5.0);
    table.row("… of which, in all", sent.listed(true));
    table.row("… and reads", sent.listed(false));
    table.row(
        "… reconciles of each",
        plain(reconciles / each(NEW * NEW), 1),
    );
    table.row("… CPU, s", plain(cpu, 1));
    Ok(())
}

/// From the start of the process until it has reconciled every Rollout; returns its resident memory then,
/// in MiB.
async fn restart(observed: &mut Observed, rollouts: usize, table: &mut Table) -> Result<f64> {
    observed.until_quiet().await?;
    observed.restart(rollouts).await?;
    let (took, cpu) = (observed.age()?, observed.usage()?.cpu);
    observed.until_quiet().await?;
    let sent: Requests = observed.requests()?;
    let usage = observed.usage()?;
    eprintln!("bench: restart at {rollouts}: {took:.1} s, {cpu:.2} s of CPU; {usage:?}; {sent}");
    let what = format!("restart at {rollouts} to all reconciled, s");
    if rollouts == BACKGROUND {
        table.at_most(&what, took, 5.0);
    } else {
        table.row(&what, plain(took, 1));
    }
    table.row("… requests", sent.listed(false));
    table.row(
        "… CPU, s; resident (anonymous) afterwards, MiB",
        format!(
            "{}; {} ({})",
            plain(cpu, 1),
            plain(usage.resident, 1),
            plain(usage.anonymous, 1)
        ),
    );
    Ok(usage.resident)
}

fn report(table: &mut Table, what: &str, latencies: &Latencies) {
    eprintln!("bench: {what}: {latencies}");
    let number = latencies.number();
    table.row(
        &format!("verdict due to weight 0 under {what}, median of {number}, ms"),
        plain(latencies.whole.at(0.5), 0),
    );
    table.at_most(
        &format!("verdict due to weight 0 under {what}, p99, ms"),
        latencies.whole.at(0.99),
        300.0,
    );
    table.row("… parts, median and p99", latencies.parts());
}

#[expect(clippy::cast_precision_loss, reason = "some MB")]
fn size(program: &Path) -> Result<f64> {
    Ok(std::fs::metadata(program)?.len() as f64 / 1e6)
}

/// `decide` is timed by its own program, built like the released operator.
fn decisions(program: &Path, table: &mut Table) -> Result<()> {
    let output = Command::new(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    for line in text.lines() {
        let (what, nanoseconds) = line
            .split_once('\t')
            .ok_or("decide printed something else")?;
        table.row(&format!("decide, {what}, ns"), nanoseconds.to_owned());
    }
    Ok(())
}
