//! Shared by `migrate` and `unmigrate`.

use std::process::ExitCode;

use countersign_api::{Duration, KEEP_FINALIZER};

use crate::cluster::answer::PENDING;
use crate::output::remark;
use countersign_core::text::sanitize;

/// Default of `--timeout`; the operator continues a migration that takes longer.
pub(super) const MIGRATION_TIMEOUT: Duration = Duration::minutes(10);

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Common {
    /// Skip the confirmation prompt
    #[arg(short, long)]
    pub(super) yes: bool,
    /// The length of time to wait before giving up; the operator continues
    #[arg(long, value_name = "TIME", default_value_t = MIGRATION_TIMEOUT)]
    pub(super) timeout: Duration,
}

/// Why a workload is not migrated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "deployment {0} selects its pods by matchExpressions, which a Rollout cannot: recreate it with matchLabels alone"
    )]
    Expressions(String),
    #[error(
        "deployment {0} has spec.replicas 0, so there are no pods to take over: scale it up first"
    )]
    NoPods(String),
    #[error("deployment {0} is being deleted")]
    Deleted(String),
    #[error("rollout {name} adopts deployment {deployment} already")]
    Adopted { name: String, deployment: String },
    #[error(
        "rollout {0} exists already and adopts no deployment of that name: delete it, or rename one of the two"
    )]
    Taken(String),
    #[error("rollout {0} adopts no workload, so there is nothing to restore")]
    AdoptsNothing(String),
    #[error(
        "the pods of rollout {0} would be deleted with it (spec.deletionPolicy: Delete): set Keep, or leave the field out"
    )]
    WouldDelete(String),
    #[error(
        "rollout {0} has no finalizer {KEEP_FINALIZER} yet, so its pods would be deleted with it: is the operator running, and not older than this plugin?"
    )]
    NotKept(String),
    #[error(
        "the template of deployment {deployment} is not what rollout {rollout} serves, and its pods would run it: {state}. Wait for the end of the change, or put the template back by `kubectl rollout undo deployment/{deployment}`"
    )]
    OtherTemplate {
        rollout: String,
        deployment: String,
        state: String,
    },
    #[error("rollout {0} was deleted in the meantime")]
    Gone(String),
}

pub(super) fn numbered(steps: &[String]) -> String {
    let lines = steps.iter().enumerate();
    let lines = lines.map(|(index, step)| format!("  {}. {step}", index + 1));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

pub(super) fn pending(name: &str, timeout: Duration) -> ExitCode {
    remark(&format!(
        "timed out after {timeout}; the operator continues: see `kubectl countersign status {}`",
        sanitize(name)
    ));
    PENDING.into()
}

/// Prints a status message if it differs from the last one by more than its numbers.
#[derive(Default)]
pub(super) struct Progress {
    last: String,
}

impl Progress {
    pub(super) fn report(&mut self, message: &str) {
        if !message.is_empty() && self.last != message {
            message.clone_into(&mut self.last);
            remark(&sanitize(message));
        }
    }
}
