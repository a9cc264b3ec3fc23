//! `make bench`: the cost of the operator on a real control plane, as one table; `make bench-quick`: the figures for
//! every day; `make bench-hour`: its memory over an hour of changes.
//!
//! Runs in the test cluster, with the operator as released. Requests are counted in the API server's audit
//! log, memory and CPU in `/proc`; each measurement is described in `docs/performance.md`.

mod fleet;
mod observed;
mod rollbacks;
mod table;

use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use countersign_cluster::Cluster;

use fleet::{FiveSteps, Fleet};
use observed::{Observed, Requests};
use rollbacks::{Latencies, Rollbacks, Spread};
use table::{Table, plain};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Until the operator has written how many Rollouts the policy governs.
const COUNT: Duration = Duration::from_secs(32);
const FEW: usize = 100;
const BACKGROUND: usize = 1_000;
const MANY: usize = 5_000;
/// Changes that are under way concurrently.
const IN_PROGRESS: usize = 500;

/// How long changes follow one another for the memory of `make bench-hour`.
const HOUR: Duration = Duration::from_hours(1);
/// The minutes of it that are compared.
const EARLY: Range<Duration> = Duration::from_mins(10)..Duration::from_mins(20);
const LATE: Range<Duration> = Duration::from_mins(50)..Duration::MAX;
/// Changes of each round of it that are reverted, beside those that are rolled back.
const REVERTED: usize = 100;

/// How much is measured.
struct Extent {
    /// Rollouts that are created at once, and how often.
    new: usize,
    repeats: usize,
    /// Idle Rollouts under which others are rolled back.
    background: usize,
    /// Changes of each application that is rolled back.
    rounds: usize,
    /// How long an idle operator is observed.
    idle: Duration,
}

const WHOLE: Extent = Extent {
    new: 500,
    repeats: 3,
    background: BACKGROUND,
    rounds: 10,
    // Longer than the operator's one-minute interval.
    idle: Duration::from_secs(65),
};

/// Under eight minutes.
const QUICK: Extent = Extent {
    new: 200,
    repeats: 1,
    background: 300,
    rounds: 1,
    idle: Duration::from_secs(35),
};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut table = Table::default();
    let outcome = match arguments.as_slice() {
        [operator, decide] => {
            measure(Path::new(operator), Path::new(decide), false, &mut table).await
        }
        [operator, decide, "--quick"] => {
            measure(Path::new(operator), Path::new(decide), true, &mut table).await
        }
        [_, _, "--hour"] => hour(&mut table).await,
        _ => {
            eprintln!("usage: scale OPERATOR DECIDE [--quick | --hour]");
            return ExitCode::FAILURE;
        }
    };
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

async fn measure(operator: &Path, decide: &Path, quick: bool, table: &mut Table) -> Result<()> {
    let started = Instant::now();
    let say = |what: &str| eprintln!("bench: {:4.0} s: {what}", started.elapsed().as_secs_f64());
    let extent = if quick { QUICK } else { WHOLE };
    table.at_most("binary, MB", size(operator)?, 20.0);
    decisions(decide, table)?;

    let cluster = Cluster::from_env().await?;
    let mut observed = Observed::new(&cluster);
    fleet::served(&cluster).await?;

    say("new Deployments of the control plane alone, then new Rollouts");
    new(&cluster, &mut observed, &extent, table).await?;
    observed.restart(0).await?; // the memory of those that are deleted is no part of what follows

    say("idle, without Rollouts");
    let mut fleet = Fleet::new(&cluster);
    let empty = idle(&mut observed, table, 0, extent.idle).await?;

    say("one change in five steps");
    five_steps(&cluster, &mut observed, table).await?;

    say("100 Rollouts");
    fleet.grow(FEW).await?;
    idle(&mut observed, table, FEW, extent.idle).await?;
    let few = restart(&mut observed, FEW, table).await?;

    say("more Rollouts");
    fleet.grow(extent.background).await?;
    if !quick {
        let resident = idle(&mut observed, table, BACKGROUND, extent.idle).await?;
        table.at_most("resident at 1,000 idle Rollouts, MiB", resident, 48.0);
        growth(table, "from 0 to 1,000", resident - empty, BACKGROUND);
    }

    say("a restart");
    let before = restart(&mut observed, fleet.size(), table).await?;

    say("rollbacks under idle Rollouts");
    let mut rollbacks = Rollbacks::prepare(&cluster).await?;
    observed.at_rest().await?;
    let latencies = rollbacks.measure(extent.rounds, &mut observed, &say);
    let under = format!("{} idle Rollouts", fleet.size());
    report(table, &under, &latencies.await?, 150.0);
    if quick {
        say("done");
        return Ok(());
    }
    let what = "from 100 to 1,000, each after a restart";
    growth(table, what, before - few, BACKGROUND - FEW);

    say("500 changes under way");
    fleet.change(IN_PROGRESS).await?;
    let latencies = rollbacks.measure(extent.rounds, &mut observed, &say);
    report(table, "500 changes in progress", &latencies.await?, 500.0);
    rollbacks.end().await?;
    fleet.change_back(IN_PROGRESS).await?;

    say("5,000 Rollouts");
    fleet.grow(MANY).await?;
    let resident = idle(&mut observed, table, MANY, extent.idle).await?;
    table.at_most("resident at 5,000 idle Rollouts, MiB", resident, 110.0);
    let after = restart(&mut observed, fleet.size(), table).await?;
    let what = "from 1,000 to 5,000, each after a restart";
    growth(table, what, after - before, MANY - BACKGROUND);
    say("done");
    Ok(())
}

/// The memory of the operator while changes are rolled back and reverted without a pause.
async fn hour(table: &mut Table) -> Result<()> {
    let cluster = Cluster::from_env().await?;
    let observed = Observed::new(&cluster);
    fleet::served(&cluster).await?;
    let mut fleet = Fleet::new(&cluster);
    fleet.grow(BACKGROUND).await?;
    let mut rollbacks = Rollbacks::prepare(&cluster).await?;
    let (started, mut seen, mut changes) = (Instant::now(), Vec::new(), 0);
    while started.elapsed() < HOUR {
        fleet.change(REVERTED).await?;
        changes += REVERTED + rollbacks.round().await?.len();
        fleet.change_back(REVERTED).await?;
        let (at, usage) = (started.elapsed(), observed.usage()?);
        eprintln!(
            "bench: {:4.0} s: {changes} changes, {usage:?}",
            at.as_secs_f64()
        );
        seen.push((at, usage.resident));
    }
    table.row(
        "changes that were rolled back or reverted",
        changes.to_string(),
    );
    let mean = |within: Range<Duration>| {
        let part = seen.iter().filter(|(at, _)| within.contains(at));
        let part: Vec<_> = part.map(|(_, resident)| *resident).collect();
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let number = part.len() as f64;
        part.iter().sum::<f64>() / number
    };
    let early = mean(EARLY);
    let late = mean(LATE);
    table.row("resident in minutes 10 to 20, MiB", plain(early, 1));
    table.at_most("resident in the last 10 minutes, MiB", late, early * 1.05);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "few")]
fn growth(table: &mut Table, what: &str, mebibytes: f64, rollouts: usize) {
    let what = format!("memory for each idle Rollout {what}, KiB");
    table.row(&what, plain(mebibytes * 1024.0 / rollouts as f64, 1));
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
        28.0,
    );
    table.row("… of which", sent.listed(true));
    table.row("… and reads", sent.reads().to_string());
    table.row("… of which", sent.listed(false));
    steps.end().await
}

/// The cost of an idle operator; returns its resident memory in MiB.
async fn idle(
    observed: &mut Observed,
    table: &mut Table,
    rollouts: usize,
    observe: Duration,
) -> Result<f64> {
    if rollouts > 0 {
        tokio::time::sleep(COUNT).await;
    }
    observed.at_rest().await?;
    let before = observed.usage()?;
    tokio::time::sleep(observe).await;
    let (after, sent) = (observed.usage()?, observed.requests()?);
    let others = sent.other_than_keeping_up();
    let cpu = (after.cpu - before.cpu) / observe.as_secs_f64() * 100.0;
    eprintln!("bench: idle at {rollouts}: {after:?}, {cpu:.2} % of a core; {sent}");
    let (resident, anonymous) = (plain(after.resident, 1), plain(after.anonymous, 1));
    table.row(
        &format!("idle at {rollouts}: resident (anonymous) MiB, CPU of a core"),
        format!("{resident} ({anonymous}), {cpu:.2} %"),
    );
    #[expect(clippy::cast_precision_loss, reason = "few")]
    table.at_most(
        &format!("idle at {rollouts}: requests but for watches and the lease"),
        others.len() as f64,
        0.0,
    );
    Ok(after.resident)
}

/// New Rollouts at once, and how long they take compared with as many plain Deployments, the median of some repetitions.
#[expect(clippy::cast_precision_loss, reason = "some hundreds")]
async fn new(
    cluster: &Cluster,
    observed: &mut Observed,
    extent: &Extent,
    table: &mut Table,
) -> Result<()> {
    let number = extent.new;
    let (mut alone, mut took, mut multiples) = (Vec::new(), Vec::new(), Vec::new());
    let (mut writes, mut reads, mut reconciles, mut cpu) = (0, 0, 0.0, 0.0);
    let mut listed = (String::new(), String::new());
    for _ in 0..extent.repeats {
        observed.at_rest().await?;
        let deployments = fleet::plain_deployments(cluster, number).await?;
        observed.at_rest().await?;
        let (usage, before) = (observed.usage()?, observed.reconciles().await?);
        let mut fleet = Fleet::new(cluster);
        let rollouts = fleet.grow(number).await?;
        cpu += observed.usage()?.cpu - usage.cpu;
        observed.until_quiet().await?;
        reconciles += observed.reconciles().await? - before;
        let sent = observed.requests()?.within(&fleet.namespaces());
        eprintln!(
            "bench: {number} new in {rollouts:.1} s, Deployments in {deployments:.1} s; {sent}"
        );
        writes += sent.writes();
        reads += sent.reads();
        listed = (sent.listed(true), sent.listed(false));
        fleet.end().await?;
        alone.push(deployments);
        took.push(rollouts);
        multiples.push(rollouts / deployments);
    }
    let median = |of| Spread::new(of).at(0.5);
    let each = |all: f64| all / (number * extent.repeats) as f64;
    let what = format!("{number} plain Deployments to available, s");
    table.row(&what, plain(median(alone), 1));
    let what = format!("{number} new Rollouts to Healthy, s");
    table.row(&what, plain(median(took), 1));
    let what = "… as a multiple of the plain Deployments";
    table.at_most(what, median(multiples), 1.4);
    table.at_most("writes for each new Rollout", each(writes as f64), 5.0);
    table.row("… of which, in all", listed.0);
    table.row("… and reads for each", plain(each(reads as f64), 1));
    table.row("… of which, in all", listed.1);
    table.row("… reconciles of each", plain(each(reconciles), 1));
    table.row("… CPU, s", plain(cpu / extent.repeats as f64, 1));
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
    let target = if rollouts > BACKGROUND { 8.0 } else { 2.0 };
    table.at_most(&what, took, target);
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

fn report(table: &mut Table, what: &str, latencies: &Latencies, target: f64) {
    eprintln!("bench: {what}: {latencies}");
    let number = latencies.number();
    table.row(
        &format!("verdict due to weight 0 under {what}, median of {number}, ms"),
        plain(latencies.whole.at(0.5), 0),
    );
    table.at_most(
        &format!("verdict due to weight 0 under {what}, p99, ms"),
        latencies.whole.at(0.99),
        target,
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
