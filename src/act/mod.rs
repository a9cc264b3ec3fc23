//! Carries out a `Decision` as writes to the API server: the status first, then the actions.
//!
//! Every write is idempotent and made only while the lease is held.

mod adoption;
mod error;
pub mod events;
mod history;
mod job;
mod pruning;
mod traffic;
pub mod workload;

pub use error::{Error, Target};

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use countersign_api::{Intervention, MANAGER, Rollout, SignOff};
use countersign_core::decision::{Action, Answer, AnswerTo, TrafficAction};
use countersign_core::{Decision, Observation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{ApiResource, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api_resource::untyped;
use crate::clock;
use crate::lease::Lease;
use crate::telemetry::Telemetry;
use crate::watch::Written;

/// Carries decisions out.
#[derive(Clone)]
pub struct Actor {
    /// The client for writes.
    pub client: Client,
    /// The lease, without which nothing is written.
    pub lease: Arc<Lease>,
    /// Counts writes.
    pub telemetry: Arc<Telemetry>,
    /// Publishes Events.
    pub recorder: events::Recorder,
    /// The caches that have to reach its writes.
    pub written: Written,
}

impl Actor {
    /// Writes the status of a decision, if it changed, and publishes its Events. After an error, the
    /// decision is void.
    pub async fn write_down(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        decision: &Decision,
    ) -> Result<(), Error> {
        let namespace = &observation.namespace;
        // RolloutRuns that the new status no longer holds are written first, or a crash would lose them.
        if let Some(record) = decision.record.as_ref().filter(|it| !decision.holds(it)) {
            self.keep_record(rollout, namespace, record).await?;
        }
        if decision.status != observation.status {
            self.write_status(rollout, namespace, decision).await?;
        }
        for notice in &decision.notices {
            self.recorder.publish(rollout, notice);
        }
        Ok(())
    }

    /// Carries out the actions of a written decision. A refused action does not stop the others: a
    /// rollback must not depend on the rollout's own writes.
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
            let weighs = matches!(action, Action::Traffic(TrafficAction::PatchRoute(_)));
            if done.is_ok() && weighs {
                self.telemetry.weights_written(decided.elapsed());
            }
            if let Err(error) = done {
                tracing::warn!(rollout = %observation.name, %namespace, %error, "an action was refused");
                refused.get_or_insert(error);
            }
        }
        if let Some(record) = decision.record.as_ref().filter(|it| decision.holds(it))
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
    ) -> Result<(), Error> {
        // A typed object would have defaults for what the API server has dropped.
        let api = untyped::<Rollout>(&self.client, namespace);
        let name = rollout.name_any();
        let mut body = DynamicObject::new(&name, &ApiResource::erase::<Rollout>(&()));
        // The version that was read, so a decision on a stale Rollout is refused.
        body.metadata.resource_version = rollout.resource_version();
        body.data = json!({ "status": decision.status });
        let parameters = as_manager();
        let write = api.replace_status(&name, &parameters, &body);
        let written = self.write(Target::Status, rollout, "update", write).await?;
        self.written
            .rollouts
            .reaches(&rollout.uid().unwrap_or_default(), &written.metadata);
        self.warn_of_pruning(&body.data, &written.data);
        Ok(())
    }

    /// Definitions that are older than this program drop fields of a status without an error, and a change may then
    /// wait forever.
    fn warn_of_pruning(&self, written: &Value, stored: &Value) {
        let (Some(written), Some(stored)) = (written.get("status"), stored.get("status")) else {
            return;
        };
        if let Some(field) = pruning::dropped(written, stored)
            && self.telemetry.status_pruned()
        {
            tracing::warn!(
                "CustomResourceDefinition rollouts.countersign.dev is older than this operator: the API server dropped status{field}, so changes may wait forever: install the definitions of this version, by the chart or by `kubectl countersign crds | kubectl apply --server-side -f -`"
            );
        }
    }

    async fn act(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &Action,
    ) -> Result<(), Error> {
        match action {
            Action::Workload(action) => self.act_on_workload(rollout, observation, action).await,
            Action::Traffic(action) => self.act_on_traffic(rollout, observation, action).await,
            Action::Adoption(action) => self.act_on_adoption(rollout, observation, action).await,
            Action::Job(action) => self.act_on_job(rollout, observation, action).await,
            Action::History(action) => self.act_on_history(rollout, observation, action).await,
        }
    }

    /// Writes the condition of a SignOff or an Intervention.
    async fn answer(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        answer: &Answer,
    ) -> Result<(), Error> {
        let (type_, kind, uid) = match answer.to {
            AnswerTo::SignOff => {
                let kind = ApiResource::erase::<SignOff>(&());
                let mut seen = observation.people.sign_offs.iter();
                let uid = seen.find(|it| it.name == answer.name).map(|it| &it.uid);
                ("Counts", kind, uid)
            }
            AnswerTo::Intervention => {
                let kind = ApiResource::erase::<Intervention>(&());
                let mut seen = observation.people.interventions.iter();
                let uid = seen.find(|it| it.name == answer.name).map(|it| &it.uid);
                ("Applied", kind, uid)
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
        // The uid limits the write to the observed object, not a later one of the same name.
        let body = Patch::Merge(json!({
            "metadata": { "uid": uid },
            "status": { "conditions": [condition] },
        }));
        let parameters = field_manager();
        let write = ignoring_absence(api.patch_status(&answer.name, &parameters, &body));
        self.write(Target::Answer(answer.to), rollout, "patch", write)
            .await
    }

    /// Deletes an object as observed: if another leader has recreated or changed it, it is kept.
    async fn remove<K>(
        &self,
        target: Target,
        rollout: &Rollout,
        objects: &Api<K>,
        name: &str,
        as_observed: Preconditions,
    ) -> Result<(), Error>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let parameters = DeleteParams::background().preconditions(as_observed);
        let write = ignoring_absence(objects.delete(name, &parameters));
        self.write(target, rollout, "delete", write).await
    }

    /// Sends one write, if this replica leads, and counts it.
    async fn write<T>(
        &self,
        target: Target,
        rollout: &Rollout,
        verb: &'static str,
        write: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        self.lease.check()?;
        let result = write.await;
        self.telemetry
            .api_write(verb, target.resource(), result.is_ok());
        result.map_err(|source| Error::refused(target, rollout, source))
    }
}

/// Applies a JSON patch whose tests require the observed values, so that a stale decision changes
/// nothing; returns the object.
async fn patch_places<K>(
    objects: &Api<K>,
    name: &str,
    operations: &[Value],
) -> Result<K, kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let patch = serde_json::from_value(json!(operations));
    let patch: json_patch::Patch = patch.map_err(kube::Error::SerdeError)?;
    let patch = Patch::Json::<()>(patch);
    objects.patch(name, &field_manager(), &patch).await
}

/// The preconditions for deleting an observed object.
fn as_observed(uid: Option<&String>, version: Option<&String>) -> Preconditions {
    Preconditions {
        uid: uid.filter(|it| !it.is_empty()).cloned(),
        resource_version: version.filter(|it| !it.is_empty()).cloned(),
    }
}

fn as_manager() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    }
}

fn field_manager() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    }
}

fn is_taken(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
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
