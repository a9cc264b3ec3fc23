//! `undo`: goes back to an earlier revision.
//!
//! One patch of the Rollout as the user, which fails on a concurrent edit. A change back to the stable
//! template ends the change in progress; any other is staged like every change. The template comes from the
//! annotation of a ReplicaSet, which others may write, so it must have the digest that the controller recorded.

use std::collections::BTreeMap;
use std::process::ExitCode;

use countersign_api::rollout::Outcome;
use countersign_api::{
    HASH_LABEL, PROVENANCE_PREFIX, PodTemplate, REVISION_ANNOTATION, ROLLOUT_UID_LABEL, Rollout,
    RolloutRun, TEMPLATE_ANNOTATION,
};
use countersign_core::provenance::digest::template_digest;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Map, Value, json};

use crate::cluster::change::rejected;
use crate::cluster::changer::edit;
use crate::cluster::connection::Connection;
use crate::cluster::type_name;
use crate::cluster::write::DryRun;
use crate::failure::Failure;
use crate::output::{print, remark};
use countersign_core::text::sanitize;

/// A RolloutRun keeps this many characters of an annotation; a longer one is not restored.
const MAX_ANNOTATION: usize = 256;
/// A RolloutRun keeps this many annotations; if it has as many, none is restored.
const MAX_ANNOTATIONS: usize = 32;

/// Undo a change: back to the stable revision if a change is in progress or rolled back, else to the
/// revision before
#[derive(Clone, Debug, clap::Args)]
pub struct Undo {
    /// Name of the Rollout
    #[arg(value_parser = type_name::rollout)]
    rollout: String,
    /// The revision to roll back to, as numbered by `history`
    #[arg(long, value_name = "NUMBER")]
    to_revision: Option<i64>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Why the Rollout cannot go back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Error {
    #[error("rollout {0} has no stable revision yet, so there is nothing to go back to")]
    NoStable(String),
    #[error(
        "rollout {rollout} has no revision before {revision} whose ReplicaSet still exists (spec.revisionHistoryLimit)"
    )]
    NoPrevious { rollout: String, revision: i64 },
    #[error("rollout {rollout} no longer has revision {revision}: it still has {there}")]
    NoRevision {
        rollout: String,
        revision: i64,
        there: String,
    },
    #[error(
        "ReplicaSet {0} does not hold the template as it was applied (it was too large): apply it from its source"
    )]
    NoTemplate(String),
    #[error(
        "annotation countersign.dev/template of ReplicaSet {set} is not the template that was recorded of revision {revision}, so nothing is applied: apply the revision from its source"
    )]
    Tampered { set: String, revision: i64 },
    #[error(
        "the template of revision {revision} in ReplicaSet {set} cannot be verified, since no RolloutRun of the revision exists: apply it from its source"
    )]
    Unverified { set: String, revision: i64 },
    #[error("rollout {rollout} has the template of revision {revision} already")]
    AlreadyThere { rollout: String, revision: i64 },
    #[error(
        "rollout {rollout} runs the template of Deployment {deployment}: change that back at its source, or by `kubectl rollout undo deployment/{deployment}`"
    )]
    Adopts { rollout: String, deployment: String },
    #[error(
        "revision {revision} of rollout {rollout} was rolled back ({why}), and this would stage its template again: {remedy}"
    )]
    Rejected {
        rollout: String,
        revision: i64,
        why: String,
        remedy: String,
    },
}

impl Undo {
    /// Goes back.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let patched = async |rollout: &Rollout| self.patch(connection, rollout).await;
        let edited = edit(connection, &self.rollout, self.dry_run, patched).await?;
        let (edited, (revision, lost)) = edited;
        if self.dry_run.shows(&edited)? {
            return Ok(ExitCode::SUCCESS);
        }
        print(&format!(
            "rollout {} goes back to revision {revision}\n",
            sanitize(&self.rollout)
        ));
        if let Some(lost) = lost {
            remark(&format!(
                "its provenance is not restored, so the change counts as unknown: {lost}"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The patch back to a revision, with its number and, if its provenance is not restored, why.
    async fn patch(
        &self,
        connection: &Connection,
        rollout: &Rollout,
    ) -> Result<(Value, (i64, Option<&'static str>)), Failure> {
        let selector = format!("{ROLLOUT_UID_LABEL}={}", rollout.uid().unwrap_or_default());
        let parameters = ListParams::default().labels(&selector);
        let (sets, runs) = (
            connection.here::<ReplicaSet>(),
            connection.here::<RolloutRun>(),
        );
        let (sets, runs) = futures::try_join!(
            connection.ask(sets.list(&parameters)),
            connection.ask(runs.list(&parameters)),
        )?;
        let target = Target::find(rollout, &sets.items, &runs.items, self.to_revision)?;
        let provenance = target.provenance();
        let patch = target.patch(rollout, provenance.as_ref().ok())?;
        Ok((patch, (target.revision, provenance.err())))
    }
}

/// A revision to go back to.
#[derive(Debug)]
struct Target<'a> {
    revision: i64,
    set: &'a ReplicaSet,
    run: Option<&'a RolloutRun>,
    /// The digest of its template, as the controller recorded it.
    digest: Option<String>,
}

impl<'a> Target<'a> {
    fn find(
        rollout: &Rollout,
        sets: &'a [ReplicaSet],
        runs: &'a [RolloutRun],
        wanted: Option<i64>,
    ) -> Result<Self, Error> {
        let mut target = Self::chosen(rollout, sets, runs, wanted)?;
        target.digest = target.recorded_digest(rollout);
        Ok(target)
    }

    fn chosen(
        rollout: &Rollout,
        sets: &'a [ReplicaSet],
        runs: &'a [RolloutRun],
        wanted: Option<i64>,
    ) -> Result<Self, Error> {
        let history = History { sets, runs };
        let name = rollout.name_any();
        if let Some(revision) = wanted {
            let found = history
                .numbered(revision)
                .ok_or_else(|| Error::NoRevision {
                    rollout: name,
                    revision,
                    there: history.there(),
                })?;
            return match found.hash().and_then(|hash| history.rejection(hash)) {
                Some(run) => Err(rejection(rollout, run)),
                None => Ok(found),
            };
        }
        let status = rollout.status.clone().unwrap_or_default();
        let stable = status.stable.ok_or_else(|| Error::NoStable(name.clone()))?;
        let under_way = status
            .change
            .is_some_and(|change| change.outcome != Some(Outcome::Promoted));
        let found = if under_way {
            history.with_hash(&stable.pod_template_hash, stable.revision)
        } else {
            history.before(stable.revision, &stable.pod_template_hash)
        };
        found.ok_or(Error::NoPrevious {
            rollout: name,
            revision: stable.revision,
        })
    }

    fn hash(&self) -> Option<&'a str> {
        self.set.labels().get(HASH_LABEL).map(String::as_str)
    }

    /// The digest of the template in the status, if the revision is stable, else in its RolloutRun.
    fn recorded_digest(&self, rollout: &Rollout) -> Option<String> {
        let status = rollout.status.as_ref();
        let stable = status.and_then(|status| status.stable.as_ref());
        let stable = stable.filter(|it| self.hash() == Some(it.pod_template_hash.as_str()));
        if let Some(stable) = stable {
            return Some(stable.template_digest.clone());
        }
        let record = &self.run?.spec;
        let of_template = || record.template.as_ref().map(template_digest);
        record.template_digest.clone().or_else(of_template)
    }

    /// The template of the revision, verified by its digest.
    fn template(&self) -> Result<Value, Error> {
        let kept = self.set.annotations().get(TEMPLATE_ANNOTATION);
        let template: PodTemplate = kept
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| Error::NoTemplate(self.set.name_any()))?;
        let (set, revision) = (self.set.name_any(), self.revision);
        match &self.digest {
            Some(digest) if template_digest(&template) == *digest => Ok(template.0),
            Some(_) => Err(Error::Tampered { set, revision }),
            None => Err(Error::Unverified { set, revision }),
        }
    }

    /// The provenance annotations of the revision, or why they cannot be restored.
    fn provenance(&self) -> Result<BTreeMap<String, String>, &'static str> {
        let run = self.run.ok_or("its record no longer exists")?;
        let kept = &run.spec.provenance.annotations;
        let cut = kept
            .values()
            .any(|value| value.chars().count() >= MAX_ANNOTATION);
        if cut || kept.len() >= MAX_ANNOTATIONS {
            return Err("its record holds only a part of it");
        }
        let full =
            |(key, value): (&String, &String)| (format!("{PROVENANCE_PREFIX}{key}"), value.clone());
        Ok(kept.iter().map(full).collect())
    }

    /// The edit of the Rollout; it fails if the Rollout has been edited since it was read.
    fn patch(
        &self,
        rollout: &Rollout,
        provenance: Option<&BTreeMap<String, String>>,
    ) -> Result<Value, Error> {
        if let Some(adopted) = &rollout.spec.workload_ref {
            return Err(Error::Adopts {
                rollout: rollout.name_any(),
                deployment: adopted.name.clone(),
            });
        }
        let template = difference(&rollout.spec.template.0, &self.template()?);
        if template == json!({}) {
            return Err(Error::AlreadyThere {
                rollout: rollout.name_any(),
                revision: self.revision,
            });
        }
        let own = rollout.annotations().iter();
        let own: Map<String, Value> = own
            .filter(|(key, _)| key.starts_with(PROVENANCE_PREFIX))
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let annotations = difference(
            &Value::Object(own),
            &json!(provenance.cloned().unwrap_or_default()),
        );
        Ok(json!({
            "metadata": { "resourceVersion": rollout.resource_version(), "annotations": annotations },
            "spec": { "template": template },
        }))
    }
}

fn rejection(rollout: &Rollout, run: &RolloutRun) -> Error {
    let name = rollout.name_any();
    let revision = run.spec.revision;
    let is_requested = rejected(rollout).is_some_and(|change| change.revision == revision);
    let remedy = if is_requested {
        format!("`kubectl countersign retry {name}` tries it once more")
    } else {
        "apply it from its source to try it again".to_owned()
    };
    Error::Rejected {
        rollout: name,
        revision,
        why: sanitize(&run.spec.progress.message),
        remedy,
    }
}

/// The ReplicaSets that still exist, and their RolloutRuns.
struct History<'a> {
    sets: &'a [ReplicaSet],
    runs: &'a [RolloutRun],
}

impl<'a> History<'a> {
    fn numbered(&self, revision: i64) -> Option<Target<'a>> {
        let run = self.runs.iter().find(|run| run.spec.revision == revision);
        if let Some(run) = run {
            return self.of_run(run);
        }
        let mut sets = self.sets.iter();
        let set = sets.find(|set| annotated(set) == Some(revision))?;
        Some(Target {
            revision,
            set,
            run: None,
            digest: None,
        })
    }

    fn with_hash(&self, hash: &str, revision: i64) -> Option<Target<'a>> {
        let set = self.set(hash)?;
        let run = self
            .runs
            .iter()
            .filter(|run| run.spec.pod_template_hash == hash && was_promoted(run))
            .max_by_key(|run| run.spec.revision);
        Some(Target {
            revision,
            set,
            run,
            digest: None,
        })
    }

    /// The last revision before this one that was promoted and has another template.
    fn before(&self, revision: i64, hash: &str) -> Option<Target<'a>> {
        self.runs
            .iter()
            .filter(|run| was_promoted(run) && run.spec.revision < revision)
            .filter(|run| run.spec.pod_template_hash != hash)
            .filter(|run| self.rejection(&run.spec.pod_template_hash).is_none())
            .filter_map(|run| self.of_run(run))
            .max_by_key(|target| target.revision)
    }

    /// The RolloutRun of the last change to this template, if that was rolled back.
    fn rejection(&self, hash: &str) -> Option<&'a RolloutRun> {
        let same = |run: &&RolloutRun| run.spec.pod_template_hash == hash;
        let began = |run: &&RolloutRun| {
            let progress = &run.spec.progress;
            (
                progress.started_at.as_ref().map(|at| at.0),
                run.spec.revision,
            )
        };
        let last = self.runs.iter().filter(same).max_by_key(began)?;
        (last.spec.progress.outcome == Some(Outcome::RolledBack)).then_some(last)
    }

    fn of_run(&self, run: &'a RolloutRun) -> Option<Target<'a>> {
        Some(Target {
            revision: run.spec.revision,
            set: self.set(&run.spec.pod_template_hash)?,
            run: Some(run),
            digest: None,
        })
    }

    fn set(&self, hash: &str) -> Option<&'a ReplicaSet> {
        let is = |set: &&ReplicaSet| set.labels().get(HASH_LABEL).is_some_and(|own| own == hash);
        self.sets.iter().find(is)
    }

    /// The numbers of all available revisions.
    fn there(&self) -> String {
        let recorded = self.runs.iter().filter_map(|run| self.of_run(run));
        let recorded = recorded.map(|target| target.revision);
        let mut numbers: Vec<_> = recorded
            .chain(self.sets.iter().filter_map(annotated))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        numbers.join(", ")
    }
}

fn was_promoted(run: &RolloutRun) -> bool {
    run.spec.progress.outcome == Some(Outcome::Promoted)
}

fn annotated(set: &ReplicaSet) -> Option<i64> {
    set.annotations().get(REVISION_ANNOTATION)?.parse().ok()
}

/// The JSON merge patch (RFC 7386) from one value to another.
fn difference(from: &Value, to: &Value) -> Value {
    let (Some(old), Some(new)) = (from.as_object(), to.as_object()) else {
        return to.clone();
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) if before.is_object() && value.is_object() => {
                patch.insert(key.clone(), difference(before, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests;
