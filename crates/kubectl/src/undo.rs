//! `undo`: back to a revision that was there before.
//!
//! It is one edit of the Rollout by the user, refused if somebody else edits it at the same time. A
//! change back to the stable template ends the change under way; any other is staged like every change.

use std::collections::BTreeMap;
use std::process::ExitCode;

use countersign_api::rollout::Outcome;
use countersign_api::{
    HASH_LABEL, PROVENANCE_PREFIX, REVISION_ANNOTATION, ROLLOUT_UID_LABEL, Rollout, RolloutRun,
    TEMPLATE_ANNOTATION,
};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::Failure;
use super::change::rejected;
use super::connection::{Connection, FIELD_MANAGER};
use super::output::{print, remark, shown};
use super::refusal::Refusal;

/// A record keeps this much of an annotation, so that a longer one is not what it was.
const MAX_ANNOTATION: usize = 256;
/// A record keeps this many annotations.
const MAX_ANNOTATIONS: usize = 32;

/// Go back: to the stable revision while a change is under way or rolled back, else to the one before
#[derive(Clone, Debug, clap::Args)]
pub struct Undo {
    /// Name of the Rollout
    rollout: String,
    /// Revision to go back to, as `history` numbers them
    #[arg(long, value_name = "NUMBER")]
    to_revision: Option<i64>,
}

/// Why there is nothing to go back to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Error {
    #[error("rollout {0} has no stable revision yet, so there is nothing to go back to")]
    NoStable(String),
    #[error(
        "rollout {rollout} has no revision before {revision} whose ReplicaSet is still there (spec.revisionHistoryLimit)"
    )]
    NoPrevious { rollout: String, revision: i64 },
    #[error("rollout {rollout} has no revision {revision} any more: it still has {there}")]
    NoRevision {
        rollout: String,
        revision: i64,
        there: String,
    },
    #[error(
        "ReplicaSet {0} does not hold the template as it was applied (it was too large): apply it from where it comes from"
    )]
    NoTemplate(String),
    #[error("rollout {rollout} has the template of revision {revision} already")]
    AlreadyThere { rollout: String, revision: i64 },
    #[error(
        "rollout {rollout} runs the template of Deployment {deployment}: change that back where it comes from, or by `kubectl rollout undo deployment/{deployment}`"
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
        connection
            .edit(async || self.attempt(connection).await)
            .await?;
        Ok(ExitCode::SUCCESS)
    }

    /// Goes back from what is there now; or says that it was written meanwhile.
    async fn attempt(&self, connection: &Connection) -> Result<Option<Refusal>, Failure> {
        let rollout = connection.rollout(&self.rollout).await?;
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
        let target = Target::find(&rollout, &sets.items, &runs.items, self.to_revision)?;
        let provenance = target.provenance();
        let patch = target.patch(&rollout, provenance.as_ref().ok())?;
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let rollouts = connection.here::<Rollout>();
        let patch = Patch::Merge(patch);
        let request = rollouts.patch(&self.rollout, &parameters, &patch);
        match connection.ask(request).await {
            Ok(_) => {}
            Err(conflict @ Refusal::Conflict) => return Ok(Some(conflict)),
            Err(other) => return Err(other.into()),
        }
        print(&format!(
            "rollout {} goes back to revision {}\n",
            shown(&self.rollout),
            target.revision
        ));
        if let Err(lost) = provenance {
            remark(&format!(
                "its provenance is not taken along, so the change counts as unknown: {lost}"
            ));
        }
        Ok(None)
    }
}

/// A revision to go back to.
#[derive(Debug)]
struct Target<'a> {
    revision: i64,
    set: &'a ReplicaSet,
    run: Option<&'a RolloutRun>,
}

impl<'a> Target<'a> {
    fn find(
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

    fn template(&self) -> Result<Value, Error> {
        let kept = self.set.annotations().get(TEMPLATE_ANNOTATION);
        kept.and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| Error::NoTemplate(self.set.name_any()))
    }

    /// The annotations that the revision came with, by their full names, or why they are lost.
    fn provenance(&self) -> Result<BTreeMap<String, String>, &'static str> {
        let run = self.run.ok_or("its record is gone")?;
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
    let asked_for = rejected(rollout).is_some_and(|change| change.revision == revision);
    let remedy = if asked_for {
        format!("`kubectl countersign retry {name}` tries it once more")
    } else {
        "apply it from where it comes from if you want to try it once more".to_owned()
    };
    Error::Rejected {
        rollout: name,
        revision,
        why: shown(&run.spec.progress.message),
        remedy,
    }
}

/// Revisions that are still there, and the records of them.
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
        })
    }

    fn with_hash(&self, hash: &str, revision: i64) -> Option<Target<'a>> {
        let set = self.set(hash)?;
        let run = self
            .runs
            .iter()
            .filter(|run| run.spec.pod_template_hash == hash && was_promoted(run))
            .max_by_key(|run| run.spec.revision);
        Some(Target { revision, set, run })
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

    /// The record of the last change to this template, if it was rolled back.
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
        })
    }

    fn set(&self, hash: &str) -> Option<&'a ReplicaSet> {
        let is = |set: &&ReplicaSet| set.labels().get(HASH_LABEL).is_some_and(|own| own == hash);
        self.sets.iter().find(is)
    }

    /// The numbers of all revisions that one can go back to.
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

/// The JSON merge patch (RFC 7386) that makes one value of another.
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
mod tests {
    use super::*;
    use crate::view::tests::{at_rest, waiting};
    use proptest::prelude::*;

    fn run(revision: i64, hash: &str, outcome: &str) -> RolloutRun {
        serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun", "metadata": { "name": format!("web-{revision}") },
            "spec": { "rollout": "web", "digest": "d", "podTemplateHash": hash, "revision": revision,
                "provenance": { "annotations": { "contributor": "human" } }, "progress": { "outcome": outcome } },
        }))
        .unwrap()
    }

    fn set(hash: &str) -> ReplicaSet {
        let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "app", "image": hash }] } });
        serde_json::from_value(json!({
            "metadata": { "name": format!("web-{hash}"), "labels": { HASH_LABEL: hash },
                "annotations": { TEMPLATE_ANNOTATION: template.to_string() } },
        }))
        .unwrap()
    }

    #[test]
    fn during_a_change_and_after_its_rollback_the_stable_template_comes_back() {
        let mut view = waiting();
        for outcome in [None, Some(Outcome::RolledBack)] {
            let status = view.rollout.status.as_mut().unwrap();
            status.change.as_mut().unwrap().outcome = outcome;
            let runs = [run(6, "aaa111", "Promoted"), run(7, "bbb222", "RolledBack")];
            let target = Target::find(&view.rollout, &view.replica_sets, &runs, None).unwrap();
            assert_eq!(
                (target.revision, target.set.name_any().as_str()),
                (6, "web-aaa111")
            );
            assert_eq!(target.run.unwrap().spec.revision, 6);
        }
    }

    #[test]
    fn at_rest_the_last_promoted_revision_with_another_template_comes_back() {
        let sets = [set("aaa111"), set("ccc"), set("ddd")];
        let runs = [
            run(2, "ddd", "Promoted"),
            run(3, "ccc", "Promoted"),
            run(4, "eee", "Promoted"),
            run(5, "bbb", "RolledBack"),
            run(6, "aaa111", "Promoted"),
        ];
        let target = Target::find(&at_rest(), &sets, &runs, None).unwrap();
        assert_eq!(target.revision, 3, "4 has no ReplicaSet, 5 was rolled back");
        let target = Target::find(&at_rest(), &sets, &runs, Some(2)).unwrap();
        assert_eq!(target.set.name_any(), "web-ddd");
        let error = Target::find(&at_rest(), &sets, &runs, Some(4)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rollout web has no revision 4 any more: it still has 2, 3, 6"
        );
        let error = Target::find(&at_rest(), &sets, &runs[4..], None).unwrap_err();
        assert!(
            matches!(error, Error::NoPrevious { revision: 6, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_revision_that_was_rolled_back_is_not_gone_back_to() {
        let sets = [set("aaa111"), set("bbb"), set("ccc")];
        let mut runs = vec![
            run(2, "ccc", "Promoted"),
            run(3, "bbb", "Promoted"),
            run(5, "bbb", "RolledBack"),
            run(6, "aaa111", "Promoted"),
        ];
        let rollout = at_rest();
        for revision in [3, 5] {
            let refused = Target::find(&rollout, &sets, &runs, Some(revision)).unwrap_err();
            assert!(
                refused
                    .to_string()
                    .starts_with("revision 5 of rollout web was rolled back"),
                "{refused}"
            );
        }
        let before = Target::find(&rollout, &sets, &runs, None).unwrap();
        assert_eq!(
            before.revision, 2,
            "the last try of 3's template was rolled back"
        );
        runs.push(run(7, "bbb", "Promoted"));
        assert_eq!(
            Target::find(&rollout, &sets, &runs, Some(7))
                .unwrap()
                .revision,
            7
        );
    }

    #[test]
    fn the_edit_removes_what_the_old_template_did_not_have() {
        let view = waiting();
        let runs = [run(6, "aaa111", "Promoted")];
        let target = Target::find(&view.rollout, &view.replica_sets, &runs, None).unwrap();
        let provenance = target.provenance().unwrap();
        let patch = target.patch(&view.rollout, Some(&provenance)).unwrap();
        assert_eq!(
            patch,
            json!({
                "metadata": { "resourceVersion": "4711", "annotations": {
                    "provenance.countersign.dev/contributor": "human",
                    "provenance.countersign.dev/tests": null,
                } },
                "spec": { "template": { "spec": { "containers": [
                    { "name": "app", "image": "example.org/web:v1", "env": [{ "name": "OLD", "value": "1" }] },
                ] } } },
            })
        );
        let patch = target.patch(&view.rollout, None).unwrap();
        assert_eq!(
            patch["metadata"]["annotations"],
            json!({ "provenance.countersign.dev/contributor": null, "provenance.countersign.dev/tests": null })
        );
    }

    #[test]
    fn the_template_that_is_there_already_is_no_change() {
        let mut view = waiting();
        let target = Target::find(&view.rollout, &view.replica_sets, &[], None).unwrap();
        view.rollout.spec.template.0 = target.template().unwrap();
        let error = target.patch(&view.rollout, None).unwrap_err();
        assert!(
            matches!(error, Error::AlreadyThere { revision: 6, .. }),
            "{error}"
        );
        view.replica_sets[0].metadata.annotations = None;
        let target = Target::find(&view.rollout, &view.replica_sets, &[], None).unwrap();
        assert!(matches!(
            target.template().unwrap_err(),
            Error::NoTemplate(_)
        ));
    }

    #[test]
    fn provenance_that_was_cut_is_not_reused() {
        let sets = [set("aaa111")];
        let provenance = |annotations: Value| {
            let mut run = run(6, "aaa111", "Promoted");
            run.spec.provenance.annotations = serde_json::from_value(annotations).unwrap();
            let runs = [run];
            let found = Target::find(&waiting().rollout, &sets, &runs, None);
            found.unwrap().provenance()
        };
        assert_eq!(
            provenance(json!({ "authors": "a" })).unwrap(),
            BTreeMap::from([("provenance.countersign.dev/authors".into(), "a".into())])
        );
        provenance(json!({ "authors": "a".repeat(255) })).unwrap();
        provenance(json!({ "authors": "ä".repeat(256) })).unwrap_err();
        let many: BTreeMap<_, _> = (0..32).map(|n| (n.to_string(), "x")).collect();
        provenance(json!(many)).unwrap_err();
    }

    /// RFC 7386, as the API server applies it.
    fn merged(into: &Value, patch: &Value) -> Value {
        let Some(patch) = patch.as_object() else {
            return patch.clone();
        };
        let mut result = into.as_object().cloned().unwrap_or_default();
        for (key, value) in patch {
            if value.is_null() {
                result.remove(key);
            } else {
                let before = result.get(key).cloned().unwrap_or_default();
                result.insert(key.clone(), merged(&before, value));
            }
        }
        Value::Object(result)
    }

    fn object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            "[ab]".prop_map(Value::from)
        ];
        let inner = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", inner, 0..4).prop_map(|map| json!(map)),
            ]
        });
        proptest::collection::btree_map("[a-c]", inner, 0..4).prop_map(|map| json!(map))
    }

    proptest! {
        #[test]
        fn the_difference_makes_one_object_of_the_other(from in object(), to in object()) {
            let patch = difference(&from, &to);
            prop_assert_eq!(merged(&from, &patch), to.clone());
            prop_assert_eq!(difference(&to, &to), json!({}));
        }
    }
}
