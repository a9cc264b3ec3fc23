//! `status`: shows one Rollout as a tree, or waits for the outcome of its change.

use std::process::ExitCode;
use std::time::Duration;

use countersign_api::rollout::{Change, Outcome, Transition};
use countersign_api::{self as api, Phase, Rollout, RolloutRun};
use futures::TryStreamExt;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};

use crate::clock;
use crate::cluster::answer::PENDING;
use crate::cluster::change::is_seen;
use crate::cluster::connection::Connection;
use crate::failure::Failure;
use crate::output::{Format, Output, print, print_document, remark};
use crate::view::{View, tree};
use countersign_core::text::sanitize;

/// Show one Rollout as a tree: plan, revisions and pods, evidence, gates, risk
///
/// The exit code is 0 if the change is promoted or the Rollout is stable, 1 if the change was rolled back
/// or the Rollout is degraded (and for every error), 3 if the change is in progress or waits.
#[derive(Clone, Debug, clap::Args)]
pub struct Status {
    /// Name of the Rollout
    rollout: String,
    /// Wait until the change in progress has ended; the exit code is its outcome
    #[arg(long)]
    wait: bool,
    /// The length of time to wait before giving up, such as 10m; if omitted, there is no limit. The exit
    /// code is then 3
    #[arg(long, value_name = "TIME", requires = "wait")]
    timeout: Option<api::Duration>,
    #[command(flatten)]
    output: Output,
}

impl Status {
    /// Shows the Rollout.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let rollout = connection.rollout(&self.rollout).await?;
        if !self.wait {
            let code = code_now(&rollout);
            self.show(connection, rollout).await?;
            return Ok(code.into());
        }
        let code = self.wait(connection).await?;
        let rollout = connection.rollout(&self.rollout).await?;
        self.show(connection, rollout).await?;
        Ok(code.into())
    }

    async fn show(&self, connection: &Connection, rollout: Rollout) -> Result<(), Failure> {
        let now = clock::now();
        let view = View::of(connection, rollout, now).await;
        match self.output.format {
            Format::Json | Format::Yaml => print_document(&view, self.output.format)?,
            format => print(&tree::whole(&view, now, format == Format::Wide)),
        }
        Ok(())
    }

    async fn wait(&self, connection: &Connection) -> Result<u8, Failure> {
        let ended = until_ended(connection, &self.rollout);
        let Some(timeout) = self.timeout else {
            return Ok(code_of(ended.await?));
        };
        if let Ok(ended) = tokio::time::timeout(timeout.std(), ended).await {
            return Ok(code_of(ended?));
        }
        remark(&format!("the change has not ended within {timeout}"));
        Ok(PENDING)
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The outcome of the change that was in progress.
    Outcome(Outcome),
    /// No change was in progress; the exit code of the Rollout's state.
    AtRest(u8),
    /// The Rollout was deleted.
    Deleted,
}

const fn code_of(ended: Ended) -> u8 {
    match ended {
        Ended::Outcome(Outcome::Promoted) => 0,
        Ended::Outcome(_) | Ended::Deleted => 1,
        Ended::AtRest(code) => code,
    }
}

/// The exit code for the current state of a Rollout.
#[must_use]
pub fn code_now(rollout: &Rollout) -> u8 {
    let Some(status) = rollout.status.as_ref().filter(|_| is_seen(rollout)) else {
        return PENDING;
    };
    let outcome = status.change.as_ref().map(|change| change.outcome);
    match (status.phase, outcome) {
        (Phase::Degraded, _) | (_, Some(Some(Outcome::RolledBack))) => 1,
        (_, Some(Some(Outcome::Promoted))) | (Phase::Stable, None) => 0,
        _ => PENDING,
    }
}

/// Watches a Rollout until the change that was in progress at first has ended.
async fn until_ended(connection: &Connection, name: &str) -> Result<Ended, Failure> {
    let stream = watcher::watch_object(connection.here::<Rollout>(), name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut followed: Option<Change> = None;
    let mut printed = PrintedTransitions::default();
    loop {
        let rollout = match stream.try_next().await {
            Ok(Some(Some(rollout))) => rollout,
            Ok(_) => return Ok(Ended::Deleted),
            Err(error) => {
                lasting(connection, &error)?;
                continue;
            }
        };
        for line in printed.new_in(&rollout) {
            remark(&sanitize(&tree::transition_line(&line)));
        }
        // The controller may not have observed a recent edit yet.
        if followed.is_none() && is_seen(&rollout) {
            followed = under_way(&rollout).cloned();
            if followed.is_none() {
                return Ok(Ended::AtRest(code_now(&rollout)));
            }
        }
        if let Some(change) = &followed
            && let Some(ended) = end_of(change, &rollout)
        {
            return conclude(connection, change, ended).await;
        }
    }
}

/// Returns a watch error that retries cannot resolve; the watcher retries the others.
pub fn lasting(connection: &Connection, error: &watcher::Error) -> Result<(), Failure> {
    let (watcher::Error::InitialListFailed(source)
    | watcher::Error::WatchStartFailed(source)
    | watcher::Error::WatchFailed(source)) = error
    else {
        return Ok(());
    };
    match source {
        kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404) => {
            Err(connection.refusal(source).into())
        }
        _ => Ok(()),
    }
}

fn under_way(rollout: &Rollout) -> Option<&Change> {
    let change = rollout.status.as_ref()?.change.as_ref()?;
    change.outcome.is_none().then_some(change)
}

/// The end of a watched change, as the newest state of its Rollout shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// How it ended.
    Outcome(Outcome),
    /// The Rollout is at another change; the outcome is in the RolloutRun.
    Gone,
}

fn end_of(followed: &Change, rollout: &Rollout) -> Option<Ending> {
    let status = rollout.status.as_ref()?;
    match &status.change {
        Some(change) if change.run == followed.run => change.outcome.map(Ending::Outcome),
        _ => Some(Ending::Gone),
    }
}

async fn conclude(
    connection: &Connection,
    change: &Change,
    ending: Ending,
) -> Result<Ended, Failure> {
    if let Ending::Outcome(outcome) = ending {
        return Ok(Ended::Outcome(outcome));
    }
    let runs = connection.here::<RolloutRun>();
    let run = connection.ask(runs.get(&change.run)).await?;
    // The RolloutRun is complete before another change begins, unless it could not be written.
    let outcome = run.spec.progress.outcome.unwrap_or(Outcome::Superseded);
    Ok(Ended::Outcome(outcome))
}

/// The RolloutRun and the number of its transitions that were printed.
#[derive(Debug, Default)]
pub struct PrintedTransitions {
    run: String,
    lines: usize,
}

impl PrintedTransitions {
    /// The transitions since the last call.
    pub fn new_in(&mut self, rollout: &Rollout) -> Vec<Transition> {
        let change = rollout
            .status
            .as_ref()
            .and_then(|status| status.change.as_ref());
        let Some(change) = change else {
            return Vec::new();
        };
        if self.run != change.run {
            self.run.clone_from(&change.run);
            self.lines = 0;
        }
        let new = change
            .transitions
            .iter()
            .skip(self.lines)
            .cloned()
            .collect();
        self.lines = change.transitions.len();
        new
    }
}

/// Events within this time are drawn together.
pub const SETTLE: Duration = Duration::from_millis(200);

/// The name of a Rollout with its namespace, escaped.
#[must_use]
pub fn full_name(rollout: &Rollout) -> String {
    let namespace = rollout.namespace().unwrap_or_default();
    sanitize(&format!("{namespace}/{}", rollout.name_any()))
}

#[cfg(test)]
mod tests {
    use countersign_api::rollout::Stage;

    use super::*;
    use crate::view::tests::{at_rest, waiting};

    fn ended(outcome: Outcome, stage: Stage, phase: Phase) -> Rollout {
        let mut rollout = waiting().rollout;
        let status = rollout.status.as_mut().unwrap();
        status.phase = phase;
        let change = status.change.as_mut().unwrap();
        (change.outcome, change.stage) = (Some(outcome), stage);
        rollout
    }

    #[test]
    fn the_exit_code_reports_the_outcome() {
        let promoted = ended(Outcome::Promoted, Stage::Promoted, Phase::Promoted);
        let rolling_back = ended(Outcome::RolledBack, Stage::RollingBack, Phase::RollingBack);
        let rolled_back = ended(Outcome::RolledBack, Stage::RolledBack, Phase::Degraded);
        let reverted = ended(Outcome::Reverted, Stage::RollingBack, Phase::RollingBack);
        let mut unseen = at_rest();
        unseen.metadata.generation = Some(8);
        let mut contested = at_rest();
        contested.status.as_mut().unwrap().phase = Phase::Degraded;
        for (rollout, code) in [
            (Box::new(at_rest()), 0),
            (Box::new(promoted), 0),
            (Box::new(rolling_back), 1),
            (Box::new(rolled_back), 1),
            (Box::new(contested), 1),
            (Box::new(waiting().rollout), 3),
            (Box::new(reverted), 3),
            (Box::new(unseen), 3),
        ] {
            let status = rollout.status.clone().unwrap();
            assert_eq!(code_now(&rollout), code, "{:?}", status.phase);
        }
    }

    #[test]
    fn a_wait_is_about_the_change_that_was_under_way_at_first() {
        let rollout = waiting().rollout;
        let change = under_way(&rollout).unwrap();
        assert_eq!(end_of(change, &rollout), None);
        let promoted = ended(Outcome::Promoted, Stage::Promoted, Phase::Promoted);
        assert_eq!(
            end_of(change, &promoted),
            Some(Ending::Outcome(Outcome::Promoted))
        );
        assert_eq!(end_of(change, &at_rest()), Some(Ending::Gone));
        let mut other = waiting().rollout;
        other.status.as_mut().unwrap().change.as_mut().unwrap().run = "web-other-8".into();
        assert_eq!(end_of(change, &other), Some(Ending::Gone));
    }

    #[test]
    fn a_wait_exits_by_the_outcome() {
        for (ended, code) in [
            (Ended::Outcome(Outcome::Promoted), 0),
            (Ended::Outcome(Outcome::RolledBack), 1),
            (Ended::Outcome(Outcome::Superseded), 1),
            (Ended::Outcome(Outcome::Reverted), 1),
            (Ended::Deleted, 1),
            (Ended::AtRest(0), 0),
        ] {
            assert_eq!(code_of(ended), code, "{ended:?}");
        }
    }

    #[test]
    fn each_transition_is_printed_once() {
        let mut printed = PrintedTransitions::default();
        let mut rollout = waiting().rollout;
        assert_eq!(printed.new_in(&rollout).len(), 2);
        assert_eq!(printed.new_in(&rollout).len(), 0);
        let change = rollout.status.as_mut().unwrap().change.as_mut().unwrap();
        change.transitions.push(Transition::default());
        assert_eq!(printed.new_in(&rollout).len(), 1);
        let change = rollout.status.as_mut().unwrap().change.as_mut().unwrap();
        change.run = "web-other-8".into();
        assert_eq!(printed.new_in(&rollout).len(), 3, "another story begins");
    }
}
