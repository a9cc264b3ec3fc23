//! What the demo prints: a live table while both changes are under way, and their story at the end.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use countersign::api::rollout::Transition;
use countersign::api::run::Contribution;
use countersign::core::reason;
use countersign_cluster::{LoadReport, RevisionCount};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::{Told, Watched};

/// How many reasons for a score the story names.
const REASONS: usize = 3;

/// One line of the table.
pub struct Row {
    name: String,
    phase: String,
    step: String,
    asked: String,
    achieved: String,
    tier: String,
    waiting_for: String,
    new_revision: RevisionCount,
}

impl Row {
    pub fn of(watched: &Watched) -> Self {
        let none = || "-".to_owned();
        let status = watched.rollout.status.clone().unwrap_or_default();
        let run = watched.run.as_ref().map(|run| &run.spec);
        let weight = status
            .change
            .as_ref()
            .map(|change| format!("{}%", change.weight));
        Self {
            name: watched.rollout.name_any(),
            phase: format!("{:?}", status.phase),
            step: status.step.unwrap_or_else(none),
            asked: weight.unwrap_or_else(none),
            achieved: status
                .weight
                .map_or_else(none, |weight| format!("{weight}%")),
            tier: run.map_or_else(none, |run| run.risk.tier.to_string()),
            waiting_for: status.waiting_for.unwrap_or_else(none),
            new_revision: run
                .map(|run| count(&watched.load.report(), &run.pod_template_hash))
                .unwrap_or_default(),
        }
    }

    /// What makes a new line where lines cannot be redrawn.
    fn state(&self) -> [&str; 5] {
        [
            &self.name,
            &self.phase,
            &self.step,
            &self.asked,
            &self.waiting_for,
        ]
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            phase,
            step,
            asked,
            achieved,
            tier,
            waiting_for,
            new_revision,
        } = self;
        let RevisionCount {
            requests, errors, ..
        } = new_revision;
        write!(
            f,
            "{name:<7} {phase:<15} {step:<5} {asked:>5} {achieved:>8}  {tier:<8} {waiting_for:<18} {requests:>8} {errors:>6}"
        )
    }
}

/// The table: redrawn in place on a terminal, else one line for each change of state.
pub struct Table {
    terminal: bool,
    drawn: bool,
    /// The states as they were last printed.
    states: Vec<String>,
}

impl Table {
    pub fn new() -> Self {
        println!(
            "{:>7}  {:<7} {:<15} {:<5} {:>5} {:>8}  {:<8} {:<18} {:>8} {:>6}",
            "TIME",
            "ROLLOUT",
            "PHASE",
            "STEP",
            "ASKED",
            "ACHIEVED",
            "TIER",
            "WAITING FOR",
            "REQUESTS",
            "ERRORS"
        );
        Self {
            terminal: std::io::stdout().is_terminal(),
            drawn: false,
            states: Vec::new(),
        }
    }

    pub fn show(&mut self, elapsed: Duration, rows: &[Row; 2]) {
        if self.terminal && self.drawn {
            print!("\x1b[{}A", rows.len());
        }
        for row in rows {
            let state = row.state().join(" ");
            if self.terminal {
                print!("\r\x1b[K");
            } else if self.states.contains(&state) {
                continue;
            }
            println!("{:>5.1} s  {row}", elapsed.as_secs_f64());
        }
        self.drawn = true;
        self.states = rows.iter().map(|row| row.state().join(" ")).collect();
        // A terminal that is gone is no reason to end: the exit status still says how it went.
        let _ = std::io::stdout().flush();
    }
}

/// What one change was, what was done about it, and why.
pub fn story(told: &Told) {
    let run = &told.run.spec;
    println!("{}: {}", told.name, run.images.join(", "));
    let risk = &run.risk;
    println!(
        "  risk     {} points, tier {}: {}",
        risk.score,
        risk.tier,
        reasons(&risk.contributions)
    );
    let weights: Vec<_> = run
        .plan
        .steps
        .iter()
        .map(|step| format!("{}%", step.weight))
        .collect();
    let transitions = &run.progress.transitions;
    let taken = transitions
        .iter()
        .map(|line| line.step)
        .max()
        .unwrap_or_default();
    println!(
        "  steps    {}: {taken} of {} taken",
        weights.join(", "),
        weights.len()
    );
    if let Some(verdict) = transitions.iter().find(|line| is_verdict(line)) {
        println!("  verdict  {}: {}", verdict.reason, verdict.message);
    }
    let outcome = run
        .progress
        .outcome
        .map_or("none".to_owned(), |outcome| format!("{outcome:?}"));
    let new = count(&told.report, &run.pod_template_hash);
    let (all, served, failed) = (told.report.requests, new.requests, new.errors);
    println!(
        "  outcome  {outcome}; the new version got {served} of {all} requests, {failed} failed"
    );
    if let Some((to_weight_0, to_last_request)) = speed(told, &new) {
        println!(
            "  speed    {to_weight_0:.1} s from its first failed request to weight 0 (seen by polling),"
        );
        println!("           {to_last_request:.1} s to the last request that it got");
    }
}

/// The contributions with most points.
fn reasons(contributions: &[Contribution]) -> String {
    let mut sorted: Vec<_> = contributions.iter().collect();
    sorted.sort_by(|a, b| b.points.total_cmp(&a.points));
    let reasons: Vec<_> = sorted
        .iter()
        .take(REASONS)
        .map(|line| line.reason.as_str())
        .collect();
    reasons.join("; ")
}

/// Seconds from the first failed request of a revision that was withdrawn: to its weight 0, and to
/// its last request.
fn speed(told: &Told, new: &RevisionCount) -> Option<(f64, f64)> {
    let since = |at: Timestamp| Some(at.duration_since(new.first_error_at?).as_secs_f64());
    Some((since(told.withdrawn_at?)?, since(new.last_request_at?)?))
}

fn is_verdict(line: &Transition) -> bool {
    [reason::PROMOTING, reason::ANALYSIS_FAILED].contains(&line.reason.as_str())
}

fn count(report: &LoadReport, revision: &str) -> RevisionCount {
    report
        .by_revision
        .get(revision)
        .cloned()
        .unwrap_or_default()
}
