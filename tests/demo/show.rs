//! The demo's output: a live table while the changes are in progress, and a summary at the end.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use countersign_api::RolloutRun;
use countersign_api::rollout::Transition;
use countersign_api::run::Contribution;
use countersign_cluster::{LoadReport, RevisionCount};
use countersign_core::reason::Reason;
use countersign_kubectl::report;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{Finished, Watched};

/// Reasons for a score that the summary lists.
const REASONS: usize = 3;
/// The time that the report goes back.
const REPORTED: SignedDuration = SignedDuration::from_hours(24);
/// Line width of the summary.
const WIDTH: usize = 100;

const HEAD: [&str; 9] = [
    "ROLLOUT",
    "PHASE",
    "STEP",
    "WEIGHT",
    "ACHIEVED",
    "TIER",
    "WAITING-FOR",
    "SERVED",
    "FAILED",
];

/// One line of the table, in the order of [`HEAD`].
pub struct Row([String; 9]);

impl Row {
    pub fn of(watched: &Watched) -> Self {
        let status = watched.rollout.status.clone().unwrap_or_default();
        let run = watched.run.as_ref().map(|run| &run.spec);
        let new = watched.load.as_ref().map(|load| {
            let new = run.map(|run| count(&load.report(), &run.pod_template_hash));
            new.unwrap_or_default()
        });
        let percent = |weight: i32| format!("{weight}%");
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        Self([
            watched.rollout.name_any(),
            format!("{:?}", status.phase),
            or_none(status.step),
            or_none(status.change.map(|change| percent(change.weight))),
            or_none(status.weight.map(percent)),
            or_none(run.map(|run| run.risk.tier.to_string())),
            or_none(status.waiting_for),
            or_none(new.as_ref().map(|new| new.requests.to_string())),
            or_none(new.as_ref().map(|new| new.errors.to_string())),
        ])
    }

    /// The fields whose change prints a new line if lines cannot be redrawn: all but the counts.
    fn state(&self) -> Vec<String> {
        let Self([name, phase, step, weight, _, _, waiting_for, ..]) = self;
        [name, phase, step, weight, waiting_for]
            .map(Clone::clone)
            .to_vec()
    }
}

fn line(time: &str, cells: [&str; 9]) -> String {
    let [
        name,
        phase,
        step,
        weight,
        achieved,
        tier,
        waiting_for,
        served,
        failed,
    ] = cells;
    let plan = format!("{step:<4} {weight:>6} {achieved:>8}  {tier:<8}");
    format!("{time:>7}  {name:<7} {phase:<15} {plan} {waiting_for:<18} {served:>6} {failed:>6}")
}

/// The table: redrawn in place on a terminal, else one line for each change of state.
pub struct Table {
    terminal: bool,
    drawn: bool,
    /// The states as they were last printed.
    states: Vec<Vec<String>>,
}

impl Table {
    pub fn new() -> Self {
        println!("{}", line("TIME", HEAD));
        Self {
            terminal: std::io::stdout().is_terminal(),
            drawn: false,
            states: Vec::new(),
        }
    }

    pub fn show(&mut self, elapsed: Duration, rows: &[Row]) {
        if self.terminal && self.drawn {
            print!("\x1b[{}A", rows.len());
        }
        let time = format!("{:.1} s", elapsed.as_secs_f64());
        for row in rows {
            let text = line(&time, row.0.each_ref().map(String::as_str));
            if self.terminal {
                // Cut rather than wrapped if the terminal is narrow.
                println!("\r\x1b[K\x1b[?7l{text}\x1b[?7h");
            } else if !self.states.contains(&row.state()) {
                println!("{text}");
            }
        }
        self.drawn = true;
        self.states = rows.iter().map(Row::state).collect();
        // A closed terminal does not end the demo: the exit code still shows the result.
        let _ = std::io::stdout().flush();
    }
}

/// Prints a change, its outcome and the reasons.
pub fn story(finished: &Finished) {
    let run = &finished.run.spec;
    println!("{}: {}", finished.name, run.images.join(", "));
    let (risk, transitions) = (&run.risk, &run.progress.transitions);
    let reasons = reasons(&risk.contributions);
    print_fact(
        "risk",
        &format!("{} points, tier {}: {reasons}", risk.score, risk.tier),
    );
    let weights: Vec<_> = run
        .plan
        .steps
        .iter()
        .map(|step| format!("{}%", step.weight))
        .collect();
    let taken = transitions
        .iter()
        .map(|line| line.step)
        .max()
        .unwrap_or_default();
    print_fact(
        "steps",
        &format!("{}; {taken} of {} taken", weights.join(", "), weights.len()),
    );
    if let Some(verdict) = transitions.iter().find(|line| is_verdict(line)) {
        print_fact(
            "verdict",
            &format!("{}: {}", verdict.reason, verdict.message),
        );
    }
    if let Some(answers) = &finished.answers {
        let refusal = answers.refusal.as_deref().unwrap_or("accepted");
        print_fact("alice", &format!("approves her own change: {refusal}"));
    }
    if let Some(line) = transitions
        .iter()
        .find(|line| line.reason == Reason::SignedOff)
    {
        print_fact("sign-off", &line.message);
    }
    let outcome = run
        .progress
        .outcome
        .map_or("none".to_owned(), |it| format!("{it:?}"));
    let Some(report) = &finished.report else {
        print_fact("outcome", &outcome);
        return;
    };
    let new = count(report, &run.pod_template_hash);
    let (all, served, failed) = (report.requests, new.requests, new.errors);
    print_fact(
        "outcome",
        &format!("{outcome}; the new version served {served} of {all} requests, {failed} failed"),
    );
    if let Some((to_weight_0, to_last_request)) = speed(finished, &new) {
        print_fact(
            "speed",
            &format!(
                "from the first failed request {to_weight_0:.1} s to weight 0, {to_last_request:.1} s to the last request served"
            ),
        );
    }
}

/// Prints what `kubectl countersign report` makes of the changes.
pub fn figures(runs: &[RolloutRun]) {
    let ended = runs
        .iter()
        .filter_map(|run| run.spec.progress.ended_at.as_ref());
    let Some(until) = ended.map(|at| at.0).max() else {
        return;
    };
    let since = until.saturating_sub(REPORTED).unwrap_or_default();
    println!("\n$ kubectl countersign report --since 1d --by contributor");
    let report = report::table(runs, since, until, Some(report::By::Contributor));
    println!("{report}");
}

/// Prints one fact of the summary, wrapped.
fn print_fact(what: &str, text: &str) {
    let mut line = format!("  {what:<8}");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            println!("{line}");
            line = " ".repeat(10);
        }
        line = line + " " + word;
    }
    println!("{line}");
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

/// Seconds from the first failed request of a rolled-back revision to weight 0, and to its last response.
fn speed(finished: &Finished, new: &RevisionCount) -> Option<(f64, f64)> {
    let since = |at: Timestamp| Some(at.duration_since(new.first_error_at?).as_secs_f64());
    Some((since(finished.withdrawn_at?)?, since(new.last_request_at?)?))
}

fn is_verdict(line: &Transition) -> bool {
    line.reason == Reason::Promoting || line.reason == Reason::AnalysisFailed
}

fn count(report: &LoadReport, revision: &str) -> RevisionCount {
    report
        .by_revision
        .get(revision)
        .cloned()
        .unwrap_or_default()
}
