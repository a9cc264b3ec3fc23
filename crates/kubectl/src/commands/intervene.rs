//! `abort`, `retry`, `promote`, `pause` and `resume`: create an Intervention for the current change.

use std::process::ExitCode;

use countersign_api::rollout::{Change, Outcome, Stage};
use countersign_api::{
    Duration, Intervention, InterventionAction, InterventionSpec, Person, Rollout,
};
use countersign_core::reason::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::clock;
use crate::cluster::answer::{Waiting, condition};
use crate::cluster::change::{self, Aim};
use crate::cluster::connection::Connection;
use crate::cluster::write::DryRun;
use crate::failure::Failure;
use crate::output::print;
use countersign_core::text::sanitize;

/// Arguments of all interventions.
#[derive(Clone, Debug, clap::Args)]
pub struct Intervene {
    #[command(flatten)]
    aim: Aim,
    /// Reason, which the Intervention records
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Why no Intervention was created.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The change is not there, or is another one.
    #[error(transparent)]
    NoChange(#[from] change::Error),
    /// There is nothing to retry.
    #[error(
        "the change of rollout {rollout} was not rolled back, so there is nothing to retry: {state}"
    )]
    NotRolledBack {
        /// The Rollout.
        rollout: String,
        /// The state of the change.
        state: String,
    },
    /// There is no bake to skip.
    #[error(
        "rollout {rollout} is in no step that bakes, so there is no bake to skip: it waits for {waits_for}, which `promote` does not skip"
    )]
    NoBake {
        /// The Rollout.
        rollout: String,
        /// What it waits for.
        waits_for: String,
    },
    /// The change is paused.
    #[error("the change of rollout {rollout} is paused by {person} already")]
    PausedAlready {
        /// The Rollout.
        rollout: String,
        /// Who paused it.
        person: String,
    },
    /// There is no pause to end.
    #[error("nobody has paused the change of rollout {rollout} with `pause`{hint}")]
    NotPaused {
        /// The Rollout.
        rollout: String,
        /// What to do instead.
        hint: &'static str,
    },
}

impl Intervene {
    /// Creates the Intervention.
    pub async fn run(
        self,
        action: InterventionAction,
        connection: &Connection,
    ) -> Result<ExitCode, Failure> {
        let rollout = connection.rollout(&self.aim.rollout).await?;
        let change = fitting(&self.aim, action, &rollout, clock::now())?;
        let person = change::requester(connection).await?;
        let intervention = intervention(action, &rollout, change, self.reason, person);
        let interventions = connection.here::<Intervention>();
        let made = self
            .dry_run
            .create(connection, &interventions, &intervention)
            .await?;
        if self.dry_run.shows(&made)? {
            return Ok(ExitCode::SUCCESS);
        }
        print(&summary(&made));
        let name = made.name_any();
        Ok(self
            .waiting
            .for_condition(interventions, &name, applied)
            .await)
    }
}

/// The change, if the action applies to it. The controller checks this again.
pub fn fitting<'a>(
    aim: &Aim,
    action: InterventionAction,
    rollout: &'a Rollout,
    now: Timestamp,
) -> Result<&'a Change, Error> {
    let name = aim.rollout.clone();
    if action == InterventionAction::Retry {
        let change = aim.at(rollout, action.verb())?;
        return if change.outcome == Some(Outcome::RolledBack) {
            Ok(change)
        } else {
            Err(Error::NotRolledBack {
                rollout: name,
                state: format!("it is {:?}", change.stage),
            })
        };
    }
    let change = aim.under_way(rollout, action.verb())?;
    match (action, &change.paused_by) {
        (InterventionAction::Promote, _) if !bakes(change, now) => Err(Error::NoBake {
            rollout: name,
            waits_for: waits_for(rollout),
        }),
        (InterventionAction::Pause, Some(person)) => Err(Error::PausedAlready {
            rollout: name,
            person: person.clone(),
        }),
        (InterventionAction::Resume, None) => Err(Error::NotPaused {
            rollout: name,
            hint: if rollout.spec.paused {
                ": spec.paused is set, which an edit of the Rollout unsets"
            } else {
                ""
            },
        }),
        _ => Ok(change),
    }
}

/// The Intervention for a change, in the name of a person.
#[must_use]
pub fn intervention(
    action: InterventionAction,
    rollout: &Rollout,
    change: &Change,
    reason: Option<String>,
    person: Person,
) -> Intervention {
    let promotes = action == InterventionAction::Promote;
    let spec = InterventionSpec {
        rollout: rollout.name_any(),
        rollout_uid: rollout.uid().unwrap_or_default(),
        run: change.run.clone(),
        digest: change.digest.clone(),
        action,
        step: promotes.then_some(change.step),
        reason,
        person,
    };
    let mut intervention = Intervention::new("", spec);
    intervention.metadata = change::metadata_about(rollout);
    intervention
}

/// Whether the current step has a bake that has not ended.
fn bakes(change: &Change, now: Timestamp) -> bool {
    let step = countersign_core::change::present_step(change);
    let has_bake = step.is_some_and(|step| step.bake > Duration::default());
    change.stage == Stage::Stepping
        && has_bake
        && change.bake_skipped != Some(change.step)
        && countersign_core::change::bake_ends(change).is_none_or(|end| now < end)
}

fn waits_for(rollout: &Rollout) -> String {
    let status = rollout.status.as_ref();
    let reason = status.and_then(|status| status.waiting_for.clone());
    reason.unwrap_or_else(|| "nothing that a person decides".into())
}

/// The controller's condition on an Intervention, if it is set.
#[must_use]
pub fn applied(intervention: &Intervention) -> Option<&Condition> {
    let status = intervention.status.as_ref()?;
    condition(&status.conditions, Reason::Applied.as_str())
}

fn summary(made: &Intervention) -> String {
    let spec = &made.spec;
    let step = spec
        .step
        .map(|step| format!(" past the bake of step {step}"));
    let digest: String = spec.digest.chars().take(12).collect();
    let line = format!(
        "{} {digest} of {}{} requested by {}: {}",
        spec.action.verb(),
        spec.rollout,
        step.unwrap_or_default(),
        spec.person.username,
        made.name_any()
    );
    sanitize(&line) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{at_rest, now, waiting};

    fn aim() -> Aim {
        parsed(&["web", "--reason", "why"]).aim
    }

    fn parsed(arguments: &[&str]) -> Intervene {
        use clap::{Args, FromArgMatches};
        let command = Intervene::augment_args(clap::Command::new("x").no_binary_name(true));
        Intervene::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
    }

    fn refused(action: InterventionAction, rollout: &Rollout) -> String {
        let error = fitting(&aim(), action, rollout, now()).unwrap_err();
        error.to_string()
    }

    fn edited(edit: impl FnOnce(&mut Change)) -> Rollout {
        let mut rollout = waiting().rollout;
        edit(rollout.status.as_mut().unwrap().change.as_mut().unwrap());
        rollout
    }

    #[test]
    fn promote_names_the_present_step_and_skips_only_a_bake() {
        let earlier: Timestamp = "2026-03-01T12:02:00Z".parse().unwrap();
        let rollout = waiting().rollout;
        let promote = InterventionAction::Promote;
        let change = fitting(&aim(), promote, &rollout, earlier).unwrap();
        let why = Some("why".to_owned());
        let made = intervention(promote, &rollout, change, why, Person::default());
        assert_eq!(made.spec.step, Some(1));
        assert_eq!(
            refused(promote, &rollout),
            "rollout web is in no step that bakes, so there is no bake to skip: it waits for AwaitingSignOff, which `promote` does not skip"
        );
        let waits = edited(|change| change.stage = Stage::Waiting);
        fitting(&aim(), promote, &waits, earlier).unwrap_err();
        let skipped = edited(|change| change.bake_skipped = Some(1));
        fitting(&aim(), promote, &skipped, earlier).unwrap_err();
        let no_pods = edited(|change| change.available_at = None);
        fitting(&aim(), promote, &no_pods, now()).unwrap();
    }

    #[test]
    fn at_rest_there_is_nothing_to_intervene_in() {
        for action in [
            InterventionAction::Abort,
            InterventionAction::Retry,
            InterventionAction::Promote,
            InterventionAction::Pause,
            InterventionAction::Resume,
        ] {
            let refusal = refused(action, &at_rest());
            assert!(
                refusal.contains(&format!("nothing to {}", action.verb())),
                "{refusal}"
            );
        }
    }

    #[test]
    fn only_what_was_rolled_back_is_retried() {
        let retry = InterventionAction::Retry;
        let refusal = refused(retry, &waiting().rollout);
        assert!(refusal.contains("was not rolled back"), "{refusal}");
        let rolled_back = edited(|change| change.outcome = Some(Outcome::RolledBack));
        fitting(&aim(), retry, &rolled_back, now()).unwrap();
        let abort = refused(InterventionAction::Abort, &rolled_back);
        assert!(abort.contains("nothing to abort"), "{abort}");
    }

    #[test]
    fn a_pause_is_lifted_once_and_only_where_there_is_one() {
        let paused = edited(|change| change.paused_by = Some("dave".into()));
        assert_eq!(
            refused(InterventionAction::Pause, &paused),
            "the change of rollout web is paused by dave already"
        );
        let resume = InterventionAction::Resume;
        fitting(&aim(), resume, &paused, now()).unwrap();
        let mut by_spec = waiting().rollout;
        by_spec.spec.paused = true;
        let refusal = refused(resume, &by_spec);
        assert!(
            refusal.ends_with("an edit of the Rollout unsets"),
            "{refusal}"
        );
    }
}
