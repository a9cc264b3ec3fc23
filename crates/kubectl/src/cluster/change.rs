//! The exact change that a command applies to, and the requesting user.

use countersign_api::rollout::{Change, Outcome};
use countersign_api::{Person, Rollout};
use countersign_core::provenance::digest::template_digest;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Resource, ResourceExt};

use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::cluster::type_name;

/// A Rollout and a change of it.
#[derive(Clone, Debug, clap::Args)]
pub struct Aim {
    /// Name of the Rollout
    #[arg(value_parser = type_name::rollout)]
    pub rollout: String,
    /// Precondition: the name of the change's RolloutRun
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Precondition: the change's digest, or a prefix of at least 8 characters
    #[arg(long, value_name = "PREFIX", value_parser = digest_prefix)]
    pub digest: Option<String>,
}

fn digest_prefix(text: &str) -> Result<String, String> {
    let hexadecimal = text.chars().all(|c| c.is_ascii_hexdigit());
    if hexadecimal && (8..=64).contains(&text.len()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("write 8 to 64 hexadecimal digits, as `status` shows them".into())
    }
}

/// The change that was rolled back, if its template is still the Rollout's template.
#[must_use]
pub fn rejected(rollout: &Rollout) -> Option<&Change> {
    let change = rollout.status.as_ref()?.change.as_ref()?;
    let same = || template_digest(&rollout.spec.template) == change.template_digest;
    (change.outcome == Some(Outcome::RolledBack) && same()).then_some(change)
}

/// Why a command has no change to apply to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No change is in progress.
    #[error("rollout {rollout} has no change in progress, so there is nothing to {what}: {state}")]
    NothingUnderWay {
        /// The Rollout.
        rollout: String,
        /// The requested action.
        what: &'static str,
        /// The Rollout's phase and message.
        state: String,
    },
    /// The change is not the requested one.
    #[error(
        "rollout {rollout} is at another change now, digest {digest}, run {run}: check it with `kubectl countersign status {rollout}` before you decide"
    )]
    OtherChange {
        /// The Rollout.
        rollout: String,
        /// Digest of the current change.
        digest: String,
        /// RolloutRun of the current change.
        run: String,
    },
    /// The controller has not observed the latest generation of the Rollout.
    #[error(
        "the controller has not seen the latest edit of rollout {rollout} yet, which may be another change: repeat the command in a moment"
    )]
    NotSeenYet {
        /// The Rollout.
        rollout: String,
    },
}

impl Aim {
    /// The current or last change of the Rollout, if it is the requested one.
    pub fn at<'a>(&self, rollout: &'a Rollout, what: &'static str) -> Result<&'a Change, Error> {
        let name = self.rollout.clone();
        let status = rollout.status.as_ref();
        if !is_seen(rollout) {
            return Err(Error::NotSeenYet { rollout: name });
        }
        let change = status.and_then(|status| status.change.as_ref());
        let Some(change) = change else {
            return Err(nothing_under_way(rollout, what));
        };
        let other_run = self.run.as_ref().is_some_and(|run| *run != change.run);
        let other_digest = self
            .digest
            .as_ref()
            .is_some_and(|prefix| !change.digest.starts_with(prefix));
        if other_run || other_digest {
            return Err(Error::OtherChange {
                rollout: name,
                digest: change.digest.chars().take(10).collect(),
                run: change.run.clone(),
            });
        }
        Ok(change)
    }

    /// The change in progress, if there is one and it is the requested one.
    pub fn under_way<'a>(
        &self,
        rollout: &'a Rollout,
        what: &'static str,
    ) -> Result<&'a Change, Error> {
        let change = self.at(rollout, what)?;
        if change.outcome.is_some() {
            return Err(nothing_under_way(rollout, what));
        }
        Ok(change)
    }

    /// Whether the command line names the change by run or digest.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.run.is_some() || self.digest.is_some()
    }
}

/// Whether the controller has observed the latest generation.
#[must_use]
pub fn is_seen(rollout: &Rollout) -> bool {
    let observed = rollout
        .status
        .as_ref()
        .map_or(0, |status| status.observed_generation);
    observed >= rollout.metadata.generation.unwrap_or_default()
}

fn nothing_under_way(rollout: &Rollout, what: &'static str) -> Error {
    let status = rollout.status.as_ref();
    let state = status
        .filter(|status| status.observed_generation >= 0)
        .map_or_else(
            || "the controller has not seen it yet".to_owned(),
            |status| format!("it is {:?}, {}", status.phase, status.message),
        );
    Error::NothingUnderWay {
        rollout: rollout.name_any(),
        what,
        state,
    }
}

/// Metadata of an object that the Rollout owns; the API server generates the name.
#[must_use]
pub fn metadata_about(rollout: &Rollout) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: Rollout::api_version(&()).into_owned(),
        kind: Rollout::kind(&()).into_owned(),
        name: rollout.name_any(),
        uid: rollout.uid().unwrap_or_default(),
        ..OwnerReference::default()
    };
    ObjectMeta {
        generate_name: Some(format!("{}-", rollout.name_any())),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

/// The user of the connection, as the API server knows them.
pub async fn requester(connection: &Connection) -> Result<Person, Refusal> {
    let reviews = connection.cluster::<SelfSubjectReview>();
    let question = SelfSubjectReview::default();
    let parameters = PostParams::default();
    let answer = connection
        .ask(reviews.create(&parameters, &question))
        .await?;
    let user = answer.status.and_then(|status| status.user_info);
    let user = user.unwrap_or_default();
    Ok(Person {
        username: user.username.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{at_rest, waiting};

    fn aim(run: Option<&str>, digest: Option<&str>) -> Aim {
        Aim {
            rollout: "web".into(),
            run: run.map(Into::into),
            digest: digest.map(Into::into),
        }
    }

    #[test]
    fn a_change_is_meant_by_its_run_and_by_the_beginning_of_its_digest() {
        let rollout = waiting().rollout;
        let change = rollout.status.as_ref().unwrap().change.as_ref().unwrap();
        for aim in [
            aim(None, None),
            aim(Some(&change.run), None),
            aim(None, Some("1a2b3c4d")),
        ] {
            assert_eq!(aim.under_way(&rollout, "approve").unwrap(), change);
        }
        for aim in [
            aim(Some("web-0-1"), None),
            aim(None, Some("99999999")),
            aim(Some(&change.run), Some("99999999")),
        ] {
            let error = aim.under_way(&rollout, "approve").unwrap_err();
            assert!(matches!(error, Error::OtherChange { .. }), "{error}");
        }
    }

    #[test]
    fn at_rest_and_after_the_end_there_is_nothing_under_way() {
        let error = aim(None, None).under_way(&at_rest(), "abort").unwrap_err();
        assert_eq!(
            error.to_string(),
            "rollout web has no change in progress, so there is nothing to abort: it is Stable, revision 6 serves"
        );
        let mut rollout = waiting().rollout;
        let change = rollout.status.as_mut().unwrap().change.as_mut().unwrap();
        change.outcome = Some(countersign_api::rollout::Outcome::Promoted);
        aim(None, None).under_way(&rollout, "promote").unwrap_err();
    }

    #[test]
    fn an_edit_that_nobody_has_judged_yet_is_not_acted_upon() {
        let mut rollout = waiting().rollout;
        rollout.metadata.generation = Some(99);
        let error = aim(None, None).at(&rollout, "approve").unwrap_err();
        assert!(matches!(error, Error::NotSeenYet { .. }), "{error}");
    }

    #[test]
    fn a_short_digest_means_nothing() {
        assert!(digest_prefix("1a2b3c4").is_err());
        assert!(digest_prefix("1a2b3c4x").is_err());
        assert_eq!(digest_prefix("1A2B3C4D").unwrap(), "1a2b3c4d");
    }
}
