//! One `Decision` in, writes to the API server out: the status first, then what follows from it.
//!
//! Every write is idempotent and made only while the lease is held.

mod adoption;
pub mod events;
mod traffic;
pub mod workload;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use countersign_api::{
    GROUP, Intervention, MANAGER, ROLLOUT_UID_LABEL, Rollout, RolloutRun, SignOff, VERSION,
};
use countersign_core::decision::{Action, Answer, AnswerTo, Record};
use countersign_core::{Decision, Observation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{ApiResource, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api_server::sentence;
use crate::clock;
use crate::lease::{Lease, NotLeading};
use crate::observe::reads;
use crate::telemetry::Telemetry;

/// What a refused patch of a route is called.
const WEIGHTS: &str = "the weights of a route";
/// What a refused number of pods is called.
const PODS: &str = "the number of pods of a ReplicaSet";
/// What a refused selector is called.
const SELECTOR: &str = "the selector of a Service";

/// Why a decision could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another replica leads, or may lead.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The API server refused a write.
    #[error("{what} of Rollout {rollout} was refused: {}", sentence(source))]
    Refused {
        /// What was to be written.
        what: String,
        /// Namespace and name of the Rollout.
        rollout: String,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server refuses the ReplicaSet of a revision as invalid: to try again is no use.
    #[error(
        "the API server refuses the ReplicaSet of Rollout {rollout}: {}",
        sentence(source)
    )]
    InvalidRevision {
        /// Namespace and name of the Rollout.
        rollout: String,
        /// Value of the revision's label `pod-template-hash`.
        hash: String,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    /// The revision that can never have pods, where the API server said so.
    #[must_use]
    pub fn invalid_revision(&self) -> Option<&str> {
        match self {
            Self::InvalidRevision { hash, .. } => Some(hash),
            Self::NotLeading(_) | Self::Refused { .. } => None,
        }
    }

    /// Whether the object changed since it was read, so that reading again suffices.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Refused { what, source, .. } = self else {
            return false;
        };
        let kube::Error::Api(status) = &**source else {
            return false;
        };
        // A JSON patch whose test has failed is answered as invalid.
        let is_tested = [WEIGHTS, PODS, SELECTOR].contains(&what.as_str());
        status.is_conflict() || (is_tested && status.code == 422)
    }
}

/// Carries decisions out.
#[derive(Clone)]
pub struct Actor {
    /// The client for writes.
    pub client: Client,
    /// Whether this replica may write.
    pub lease: Arc<Lease>,
    /// Where writes are counted.
    pub telemetry: Arc<Telemetry>,
    /// Where Events go.
    pub recorder: events::Recorder,
}

impl Actor {
    /// Writes the status of a decision, if it is another, and publishes its Events; returns the version
    /// that the Rollout then has. After an error the decision was not taken: nothing of it is true.
    pub async fn write_down(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        decision: &Decision,
    ) -> Result<Option<String>, Error> {
        let namespace = &observation.namespace;
        // What the status will not hold is recorded first, or a crash would lose it.
        if let Some(record) = decision.record.as_ref().filter(|it| !is_held(it, decision)) {
            self.keep_record(rollout, namespace, record).await?;
        }
        let mut version = None;
        if decision.status != observation.status {
            version = self.write_status(rollout, namespace, decision).await?;
        }
        for notice in &decision.notices {
            self.recorder.publish(rollout, notice);
        }
        Ok(version)
    }

    /// Does what follows from a decision that is written down. A refused action does not keep the others
    /// from being tried: the way back to stable must not depend on the way forward.
    pub async fn carry_out(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        decision: &Decision,
        decided: Instant,
    ) -> Result<(), Error> {
        let namespace = &observation.namespace;
        let mut refused = None;
        for action in &decision.actions {
            let done = self.act(rollout, observation, action).await;
            if done.is_ok() && matches!(action, Action::PatchRoute { .. }) {
                self.telemetry.weights_written(decided.elapsed());
            }
            if let Err(error) = done {
                tracing::warn!(rollout = %observation.name, %namespace, %error, "an action was refused");
                refused.get_or_insert(error);
            }
        }
        if let Some(record) = decision.record.as_ref().filter(|it| is_held(it, decision))
            && let Err(error) = self.keep_record(rollout, namespace, record).await
        {
            refused.get_or_insert(error);
        }
        for answer in &decision.answers {
            if let Err(error) = self.answer(rollout, observation, answer).await {
                refused.get_or_insert(error);
            }
        }
        refused.map_or(Ok(()), Err)
    }

    async fn write_status(
        &self,
        rollout: &Rollout,
        namespace: &str,
        decision: &Decision,
    ) -> Result<Option<String>, Error> {
        let api: Api<Rollout> = Api::namespaced(self.client.clone(), namespace);
        // With the version that was read: a decision on anything older is refused.
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Rollout",
            "metadata": { "name": rollout.name_any(), "resourceVersion": rollout.resource_version() },
            "status": decision.status,
        });
        let (name, parameters, patch) = (rollout.name_any(), apply(), Patch::Apply(body));
        let write = api.patch_status(&name, &parameters, &patch);
        let written = self.write("the status", rollout, "patch", "rollouts/status", write);
        Ok(written.await?.resource_version())
    }

    async fn act(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &Action,
    ) -> Result<(), Error> {
        match action {
            Action::DeleteRun { run } => {
                // The record goes last: until then the rest of it is still to be removed.
                for (kind, resource) in [
                    (ApiResource::erase::<SignOff>(&()), "signoffs"),
                    (ApiResource::erase::<Intervention>(&()), "interventions"),
                ] {
                    self.remove_wishes(rollout, &kind, resource, run).await?;
                }
                let api: Api<RolloutRun> =
                    Api::namespaced(self.client.clone(), &observation.namespace);
                let mut seen = observation.history.iter();
                let seen = seen.find(|it| it.name == *run);
                let as_seen = as_seen(seen.map(|it| &it.uid), None);
                let (what, at) = (
                    "the removal of an old record",
                    ("rolloutruns", run.as_str()),
                );
                self.remove(what, rollout, &api, at, as_seen).await
            }
            Action::ScaleWorkload { .. }
            | Action::ReleaseService { .. }
            | Action::SetFinalizer { .. } => {
                self.act_on_adoption(rollout, observation, action).await
            }
            Action::PatchRoute { .. }
            | Action::SelectSubsets { .. }
            | Action::ApplyTesters { .. }
            | Action::DeleteTesters { .. } => {
                self.act_on_traffic(rollout, observation, action).await
            }
            _ => self.act_on_workload(rollout, observation, action).await,
        }
    }

    /// Removes what people decided on the change of a record.
    async fn remove_wishes(
        &self,
        rollout: &Rollout,
        kind: &ApiResource,
        resource: &'static str,
        run: &str,
    ) -> Result<(), Error> {
        let what = format!("the removal of old {resource}");
        let namespace = rollout.namespace().unwrap_or_default();
        let uid = rollout.uid().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, kind);
        let is_old = |it: &DynamicObject| {
            let field = |name: &str| it.data.get("spec")?.get(name)?.as_str();
            field("rolloutUid") == Some(&uid) && field("run") == Some(run)
        };
        let mut after = None;
        loop {
            let page = reads::page(&api, after.as_deref()).await;
            let (page, more) = page.map_err(|source| refused(&what, rollout, source))?;
            for it in page.iter().filter(|it| is_old(it)) {
                let (name, uid) = (it.name_any(), it.uid());
                let (at, as_seen) = ((resource, name.as_str()), as_seen(uid.as_ref(), None));
                self.remove(&what, rollout, &api, at, as_seen).await?;
            }
            after = more;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Adds to the record of a change, and makes it where it is not there yet.
    async fn keep_record(
        &self,
        rollout: &Rollout,
        namespace: &str,
        record: &Record,
    ) -> Result<(), Error> {
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), namespace);
        let spec = &record.spec;
        let begun = spec.progress.transitions.len() > 1;
        if begun {
            let news = json!({ "spec": {
                "progress": spec.progress,
                "plan": spec.plan,
                "risk": { "score": spec.risk.score, "tier": spec.risk.tier },
            } });
            let (parameters, patch) = (field_manager(), Patch::Merge(news));
            let write = absent_as_none(api.patch(&record.name, &parameters, &patch));
            if self
                .write("the record", rollout, "patch", "rolloutruns", write)
                .await?
                .is_some()
            {
                return Ok(());
            }
        }
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "RolloutRun",
            "metadata": {
                "name": record.name,
                "labels": { ROLLOUT_UID_LABEL: rollout.uid() },
                "ownerReferences": [owner(rollout)],
            },
            "spec": spec,
        });
        let (parameters, patch) = (apply(), Patch::Apply(body));
        let write = api.patch(&record.name, &parameters, &patch);
        self.write("the record", rollout, "patch", "rolloutruns", write)
            .await?;
        Ok(())
    }

    /// Writes what became of a sign-off or an intervention into its status.
    async fn answer(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        answer: &Answer,
    ) -> Result<(), Error> {
        let (resource, type_, kind, uid) = match answer.to {
            AnswerTo::SignOff => {
                let kind = ApiResource::erase::<SignOff>(&());
                let mut seen = observation.sign_offs.iter();
                let uid = seen.find(|it| it.name == answer.name).map(|it| &it.uid);
                ("signoffs/status", "Counts", kind, uid)
            }
            AnswerTo::Intervention => {
                let kind = ApiResource::erase::<Intervention>(&());
                let mut seen = observation.interventions.iter();
                let uid = seen.find(|it| it.name == answer.name).map(|it| &it.uid);
                ("interventions/status", "Applied", kind, uid)
            }
        };
        let status = if answer.yes { "True" } else { "False" };
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: answer.reason.clone(),
            message: answer.message.clone(),
            observed_generation: None,
            last_transition_time: Time(clock::now()),
        };
        let namespace = &observation.namespace;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        // Only the object that was read: one of the same name made since says something else.
        let body = Patch::Merge(json!({
            "metadata": { "uid": uid },
            "status": { "conditions": [condition] },
        }));
        let parameters = field_manager();
        let write = ignoring_absence(api.patch_status(&answer.name, &parameters, &body));
        self.write("an answer", rollout, "patch", resource, write)
            .await
    }

    /// Changes single places of an object, each of which must still be what was seen, so that what was
    /// decided long ago changes nothing.
    async fn patch_places<K>(
        &self,
        what: &str,
        rollout: &Rollout,
        objects: &Api<K>,
        (resource, name): (&'static str, &str),
        operations: &[Value],
    ) -> Result<(), Error>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let write = async {
            let patch = serde_json::from_value(json!(operations));
            let patch: json_patch::Patch = patch.map_err(kube::Error::SerdeError)?;
            let patch = Patch::Json::<()>(patch);
            objects
                .patch(name, &field_manager(), &patch)
                .await
                .map(|_| ())
        };
        self.write(what, rollout, "patch", resource, write).await
    }

    /// Deletes an object as it was seen: what another leader has made or changed since is left alone.
    async fn remove<K>(
        &self,
        what: &str,
        rollout: &Rollout,
        objects: &Api<K>,
        (resource, name): (&'static str, &str),
        as_seen: Preconditions,
    ) -> Result<(), Error>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let parameters = DeleteParams::background().preconditions(as_seen);
        let write = ignoring_absence(objects.delete(name, &parameters));
        self.write(what, rollout, "delete", resource, write).await
    }

    /// Makes one write, if this replica leads, and counts it.
    async fn write<T>(
        &self,
        what: &str,
        rollout: &Rollout,
        verb: &'static str,
        resource: &'static str,
        write: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        self.lease.check()?;
        let result = write.await;
        self.telemetry.api_write(verb, resource, result.is_ok());
        result.map_err(|source| refused(what, rollout, source))
    }
}

fn refused(what: &str, rollout: &Rollout, source: kube::Error) -> Error {
    let (namespace, name) = (rollout.namespace(), rollout.name_any());
    Error::Refused {
        what: what.to_owned(),
        rollout: format!("{}/{name}", namespace.unwrap_or_default()),
        source: Box::new(source),
    }
}

/// What must still be so of an object that is deleted.
fn as_seen(uid: Option<&String>, version: Option<&String>) -> Preconditions {
    Preconditions {
        uid: uid.filter(|it| !it.is_empty()).cloned(),
        resource_version: version.filter(|it| !it.is_empty()).cloned(),
    }
}

/// Whether the status holds the change that is recorded, so that the record can be made again.
fn is_held(record: &Record, decision: &Decision) -> bool {
    let change = decision.status.change.as_ref();
    change.is_some_and(|change| change.run == record.name)
}

fn owner(rollout: &Rollout) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "Rollout",
        "name": rollout.name_any(),
        "uid": rollout.uid(),
        "controller": true,
    })
}

fn apply() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

fn field_manager() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    }
}

async fn absent_as_none<T>(
    write: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Option<T>, kube::Error> {
    match write.await {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn ignoring_absence<T>(
    write: impl Future<Output = Result<T, kube::Error>>,
) -> Result<(), kube::Error> {
    absent_as_none(write).await.map(|_| ())
}
