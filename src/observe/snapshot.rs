//! One Rollout and its surroundings, from the caches or as they are read live, as an `Observation`.

use countersign_api::Rollout;
use countersign_core::Observation;
use countersign_core::observation::Failure;
use countersign_core::observation::windows::AnalysisInputs;
use countersign_core::policy;
use kube::ResourceExt;

use crate::clock;
use crate::observe::adoption;
use crate::observe::observer::Observer;
use crate::observe::queue_lock::QueueLock;

impl Observer {
    /// Observes one Rollout; `None` if it does not exist. One in deletion is observed as long as it exists: whatever
    /// keeps it, its canary must not keep its share.
    ///
    /// `failure` is the error of the last reconcile, for the status.
    pub async fn observe(
        &self,
        namespace: &str,
        name: &str,
        failure: Option<Failure>,
    ) -> Result<Option<Observed>, kube::Error> {
        let Some((rollout, unknown)) = self.stored(namespace, name).await? else {
            return Ok(None);
        };
        let mut observed = Box::pin(self.around(rollout, failure)).await?;
        observed.snapshot.observation.unknown_status = unknown;
        Ok(Some(observed))
    }

    /// Observes what surrounds a Rollout with this status, stored or still to be written.
    pub async fn around(
        &self,
        mut rollout: Rollout,
        failure: Option<Failure>,
    ) -> Result<Observed, kube::Error> {
        let namespace = &rollout.namespace().unwrap_or_default();
        // From here on, the Rollout has the template and selector of its adopted workload.
        let workload = self.adopt(&mut rollout, namespace).await?;
        let moved = adoption::keep_selector(&mut rollout);
        let mut observation = self.surroundings(&rollout, namespace).await?;
        observation.workload = workload;
        observation.conflicts.extend(moved);
        if let Some(failure) = failure {
            observation.write_failure = Some(failure.message);
            observation.invalid_revision = failure.invalid_revision;
            observation.taken_revision = failure.taken_revision;
        }
        self.deletion(&rollout, &mut observation);
        let effective = policy::effective(&observation.policies);
        // Concurrently: a bad canary keeps its traffic as long as a reconcile takes.
        let (traffic, history, templates, people, jobs, new_pods) = tokio::join!(
            self.traffic(&rollout, &observation),
            self.history(&observation),
            self.templates(&observation),
            self.people(&observation, &effective),
            self.jobs(&rollout, &observation),
            self.new_pods(&observation),
        );
        (observation.traffic.endpoints, observation.traffic.routes) = traffic;
        self.note_shared_rules(&mut observation);
        observation.history = history.own; // a rollback under way does not depend on it
        observation.former = history.former;
        observation.recorded = is_recorded(&observation);
        observation.analysis.templates = templates;
        (observation.people, observation.jobs) = (people, jobs);
        observation.new_pods = new_pods;
        // The time after all reads, so that an input that expired before another was created does not
        // count.
        observation.now = clock::now();
        self.evidence(&mut observation, &effective).await;
        let lock = self.order(&mut observation, &effective).await; // last, since it holds the lock
        let snapshot = Snapshot {
            rollout,
            observation,
        };
        Ok(Observed { snapshot, lock })
    }

    pub(super) async fn surroundings(
        &self,
        rollout: &Rollout,
        namespace: &str,
    ) -> Result<Observation, kube::Error> {
        let namespace_labels = self.namespace_labels(namespace);
        let (policies, mut unreadable_policies) =
            self.policies(namespace_labels.as_ref(), rollout.labels());
        unreadable_policies.extend(self.caches.policies_unknown());
        if namespace_labels.is_none() {
            let unknown = format!(
                "the labels of namespace {namespace} are not known yet, so neither is which policies govern it"
            );
            unreadable_policies.push(unknown);
        }
        let (replica_sets, traffic) = tokio::try_join!(
            self.replica_sets(rollout, namespace),
            self.services(rollout, namespace)
        )?;
        let promoted = self.promoted(rollout, namespace, &replica_sets.own).await;
        Ok(Observation {
            now: clock::now(),
            uid: rollout.uid().unwrap_or_default(),
            generation: rollout.metadata.generation.unwrap_or_default(),
            labels: rollout.labels().clone(),
            annotations: rollout.annotations().clone(),
            status: rollout.status.clone().unwrap_or_default(),
            namespace_labels: namespace_labels.unwrap_or_default(),
            policies,
            unreadable_policies,
            replica_sets: replica_sets.own,
            promoted,
            unread_replica_sets: replica_sets.problem,
            foreign_replica_sets: replica_sets.foreign,
            traffic,
            conflicts: self.conflicts(rollout, namespace),
            analysis: AnalysisInputs {
                lag: self.prometheus.lag().into(),
                ..AnalysisInputs::default()
            },
            ..Observation::of(namespace, &rollout.name_any(), rollout.spec.clone())
        })
    }
}

/// A Rollout and its surroundings at one time.
pub struct Snapshot {
    /// The Rollout as read, for writing its status.
    pub rollout: Rollout,
    /// The input of the decision.
    pub observation: Observation,
}

/// A snapshot with the lock for its decision.
pub struct Observed {
    /// The snapshot to decide on.
    pub snapshot: Snapshot,
    /// The lock, kept until the decision is written, if other changes are counted.
    pub lock: Option<QueueLock>,
}

/// Whether the RolloutRun of the change in the status has its outcome.
pub(super) fn is_recorded(observation: &Observation) -> bool {
    let Some(change) = &observation.status.change else {
        return true;
    };
    let mut runs = observation.history().iter();
    runs.any(|run| run.name == change.run && run.outcome == change.outcome)
}
