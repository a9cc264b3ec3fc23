//! `status`: shows one Rollout as a tree, or waits for the outcome of its change.

use std::process::ExitCode;
use std::time::Duration;

use countersign_api::rollout::{Change, Outcome, Transition};
use countersign_api::{self as api, Phase, Rollout, RolloutRun};
use countersign_core::provenance::digest::template_digest;
use futures::TryStreamExt;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};

use crate::clock;
use crate::cluster::answer::PENDING;
use crate::cluster::change::is_seen;
use crate::cluster::connection::Connection;
use crate::cluster::type_name;
use crate::failure::Failure;
use crate::output::{Format, Output, print, print_document, remark};
use crate::view::{View, tree};
use countersign_core::text::sanitize;

/// Show one Rollout as a tree: plan, revisions and pods, evidence, gates, risk
///
/// The exit code is 0 if the change is promoted or the Rollout is stable, 1 if the change was rolled back
/// or the Rollout is degraded (and for every error), 3 if the change is in progress or waits.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("waits").args(["wait", "state"]).multiple(true)))]
pub struct Status {
    /// Name of the Rollout
    #[arg(value_parser = type_name::rollout)]
    rollout: String,
    /// Wait until the change in progress has ended; the exit code is its outcome
    #[arg(long)]
    wait: bool,
    /// Wait for this state; the exit code is 0 if it is reached, 1 if the change ends otherwise
    #[arg(long = "for", value_enum, value_name = "STATE")]
    state: Option<Awaited>,
    /// The length of time to wait before giving up, such as 10m; if omitted, there is no limit. The exit
    /// code is then 3
    #[arg(long, value_name = "TIME", requires = "waits")]
    timeout: Option<api::Duration>,
    #[command(flatten)]
    output: Output,
}

/// A state that is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Awaited {
    /// The stable revision serves everything, and no change is under way.
    Stable,
    /// The change in progress is promoted.
    Promoted,
    /// The change in progress is rolled back.
    #[value(name = "rolledback")]
    RolledBack,
}

impl Status {
    /// Shows the Rollout.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let rollout = connection.rollout(&self.rollout).await?;
        if !self.wait && self.state.is_none() {
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
        let ended = async {
            match self.state {
                Some(Awaited::Stable) => until_stable(connection, &self.rollout).await,
                _ => Box::pin(until_ended(connection, &self.rollout)).await,
            }
        };
        let Some(timeout) = self.timeout else {
            return Ok(code_of(self.state, ended.await?));
        };
        if let Ok(ended) = tokio::time::timeout(timeout.std(), ended).await {
            return Ok(code_of(self.state, ended?));
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
    /// No change was in progress.
    AtRest {
        /// The exit code of the Rollout's state.
        code: u8,
        /// Whether its last change was rolled back.
        rolled_back: bool,
    },
    /// The Rollout was deleted.
    Deleted,
}

fn code_of(awaited: Option<Awaited>, ended: Ended) -> u8 {
    match (awaited, ended) {
        (Some(Awaited::RolledBack), Ended::Outcome(outcome)) => {
            u8::from(outcome != Outcome::RolledBack)
        }
        (Some(Awaited::RolledBack), Ended::AtRest { rolled_back, .. }) => u8::from(!rolled_back),
        (_, Ended::Outcome(Outcome::Promoted)) => 0,
        (_, Ended::Outcome(_) | Ended::Deleted) => 1,
        (_, Ended::AtRest { code, .. }) => code,
    }
}

fn at_rest(rollout: &Rollout) -> Ended {
    let status = rollout.status.as_ref();
    let change = status.and_then(|status| status.change.as_ref());
    Ended::AtRest {
        code: code_now(rollout),
        rolled_back: change.is_some_and(|it| it.outcome == Some(Outcome::RolledBack)),
    }
}

/// The exit code for the current state of a Rollout.
#[must_use]
pub fn code_now(rollout: &Rollout) -> u8 {
    let Some(status) = rollout.status.as_ref().filter(|_| is_seen(rollout)) else {
        return PENDING;
    };
    if awaits_change(rollout) {
        return PENDING;
    }
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
            if followed.is_none() && !awaits_change(&rollout) {
                return Ok(at_rest(&rollout));
            }
        }
        if let Some(change) = &followed
            && let Some(ended) = end_of(change, &rollout)
        {
            return conclude(connection, change, ended).await;
        }
    }
}

/// Watches a Rollout until the stable revision serves everything, or it waits for people after a rollback.
async fn until_stable(connection: &Connection, name: &str) -> Result<Ended, Failure> {
    let stream = watcher::watch_object(connection.here::<Rollout>(), name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    loop {
        match stream.try_next().await {
            Ok(Some(Some(rollout))) if has_settled(&rollout) => return Ok(at_rest(&rollout)),
            Ok(Some(Some(_))) => {}
            Ok(_) => return Ok(Ended::Deleted),
            Err(error) => lasting(connection, &error)?,
        }
    }
}

fn has_settled(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref().filter(|_| is_seen(rollout));
    status.is_some_and(|status| matches!(status.phase, Phase::Stable | Phase::Degraded))
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

/// Whether the requested template is yet to become a change, or the stable one again: until then the status holds the change
/// that it takes the place of.
fn awaits_change(rollout: &Rollout) -> bool {
    let Some(status) = &rollout.status else {
        return false;
    };
    let mut conditions = status.conditions.iter();
    let reconciling = conditions.any(|it| it.type_ == "Reconciling" && it.status == "True");
    let is_of_template = |change: &Change| {
        // The template of an adopted workload is not in the Rollout.
        rollout.spec.workload_ref.is_some()
            || template_digest(&rollout.spec.template) == change.template_digest
    };
    let is_over = |change: &Change| match change.outcome {
        None => true,
        Some(Outcome::Promoted | Outcome::RolledBack) => is_of_template(change),
        Some(Outcome::Superseded | Outcome::Reverted) => false,
    };
    reconciling && !status.change.as_ref().is_some_and(is_over)
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
    use serde_json::json;

    use super::*;
    use crate::view::tests::{at_rest as resting, waiting};

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
        let mut unseen = resting();
        unseen.metadata.generation = Some(8);
        let mut contested = resting();
        contested.status.as_mut().unwrap().phase = Phase::Degraded;
        for (rollout, code) in [
            (Box::new(resting()), 0),
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
    fn a_change_that_has_ended_is_not_the_outcome_of_the_template_that_takes_its_place() {
        for (outcome, same, awaits) in [
            (Outcome::Superseded, false, true),
            (Outcome::Reverted, false, true),
            (Outcome::RolledBack, false, true),
            (Outcome::Promoted, false, true),
            (Outcome::Promoted, true, false),
        ] {
            let mut rollout = ended(outcome, Stage::RolledBack, Phase::Progressing);
            let digest = template_digest(&rollout.spec.template);
            let status = rollout.status.as_mut().unwrap();
            let reconciling = json!({
                "type": "Reconciling", "status": "True", "reason": "Superseded", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            status.conditions = vec![serde_json::from_value(reconciling).unwrap()];
            let change = status.change.as_mut().unwrap();
            change.template_digest = if same { digest } else { "other".into() };
            assert_eq!(awaits_change(&rollout), awaits, "{outcome:?}");
            let code = if awaits { 3 } else { 0 };
            assert_eq!(code_now(&rollout), code, "{outcome:?}");
            // Something refuses it, which no wait ends.
            rollout.status.as_mut().unwrap().conditions[0].status = "False".into();
            assert!(!awaits_change(&rollout), "{outcome:?}");
        }
        assert!(!awaits_change(&resting()) && !awaits_change(&waiting().rollout));
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
        assert_eq!(end_of(change, &resting()), Some(Ending::Gone));
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
            (at_rest(&resting()), 0),
        ] {
            assert_eq!(code_of(None, ended), code, "{ended:?}");
        }
    }

    #[test]
    fn a_wait_for_a_state_exits_by_whether_it_was_reached() {
        let rolled_back = ended(Outcome::RolledBack, Stage::RolledBack, Phase::Degraded);
        for (awaited, ended, code) in [
            (Awaited::Promoted, Ended::Outcome(Outcome::Promoted), 0),
            (Awaited::Promoted, Ended::Outcome(Outcome::RolledBack), 1),
            (Awaited::RolledBack, Ended::Outcome(Outcome::RolledBack), 0),
            (Awaited::RolledBack, Ended::Outcome(Outcome::Promoted), 1),
            (Awaited::RolledBack, at_rest(&rolled_back), 0),
            (Awaited::RolledBack, at_rest(&resting()), 1),
            (Awaited::RolledBack, Ended::Deleted, 1),
            (Awaited::Stable, at_rest(&resting()), 0),
        ] {
            assert_eq!(code_of(Some(awaited), ended), code, "{awaited:?} {ended:?}");
        }
        assert!(has_settled(&resting()) && !has_settled(&waiting().rollout));
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
