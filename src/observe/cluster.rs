//! One Rollout and its surroundings, read live, as an `Observation`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_api::rollout::Change;
use countersign_api::{
    AnalysisTemplate, AnalysisTemplateSpec, HASH_LABEL, PodTemplate, ROLLOUT_UID_LABEL, Rollout,
    RolloutPolicy, RolloutRun, RolloutStatus,
};
use countersign_core::analysis::checks::{self, Checks};
use countersign_core::analysis::gather;
use countersign_core::observation::Failure;
use countersign_core::observation::people::NamedPolicy;
use countersign_core::observation::windows::{CheckWindows, ErrorRates};
use countersign_core::observation::workload::{PastRun, ReplicaSet, Service};
use countersign_core::provenance::digest;
use countersign_core::replicas::present;
use countersign_core::{Observation, change, policy};
use k8s_openapi::api::core::v1::{Namespace, Service as ApiService};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};

use super::admission::AdmissionCheck;
use super::adoption;
use super::clock;
use super::order::{Turn, Turns};
use super::prometheus::{Arm, Ask, Prometheus};
use super::reads::Reads;
use super::watches::{Caches, Claim};
use crate::api_server::sentence;

/// Where observations come from.
#[derive(Clone)]
pub struct Observer {
    /// The client for live reads.
    pub client: Client,
    /// What the watches keep.
    pub caches: Caches,
    /// Where evidence comes from.
    pub prometheus: Prometheus,
    /// Whether the API server proves who wrote what.
    pub admission: AdmissionCheck,
    /// Lets one look at a time count the changes that are under way.
    pub turns: Turns,
    /// How new what is read must be.
    pub reads: Reads,
}

/// A Rollout and its surroundings at one moment.
pub struct Seen {
    /// The Rollout as it was read, to be written back.
    pub rollout: Rollout,
    /// What a decision is made from.
    pub observation: Observation,
}

impl Seen {
    /// The same after a status was written, if it was, to which the API server gave this version.
    #[must_use]
    pub fn written(mut self, status: RolloutStatus, version: Option<String>) -> Self {
        self.observation.status = status;
        if version.is_some() {
            self.rollout.metadata.resource_version = version;
            self.observation.unknown_status = None;
        }
        self
    }
}

/// What was seen, while it is decided upon.
pub struct Observed {
    /// It.
    pub seen: Seen,
    /// Kept until the decision is written, where it counts other changes.
    pub turn: Option<Turn>,
}

impl Observer {
    /// The same, reading what the API server has at hand.
    #[must_use]
    pub fn at_hand(&self) -> Self {
        Self {
            reads: Reads::AtHand,
            ..self.clone()
        }
    }

    /// What was seen, with what Prometheus says now.
    pub async fn count_on(&self, mut seen: Seen) -> Seen {
        seen.observation.now = clock::now();
        seen.observation.windows.clear();
        seen.observation.objectives.clear();
        self.evidence(&mut seen.observation).await;
        seen
    }

    /// Observes one Rollout; `None` if it is gone, or being deleted without waiting for the controller.
    ///
    /// `failure` is why the last look failed, so that it can be named in the status. What
    /// Prometheus said `before` of the same version is not asked again.
    pub async fn observe(
        &self,
        namespace: &str,
        name: &str,
        failure: Option<Failure>,
        before: Option<Seen>,
    ) -> Result<Option<Observed>, kube::Error> {
        let Some((mut rollout, unknown)) = self.stored(namespace, name).await? else {
            return Ok(None);
        };
        if !adoption::is_looked_at(&rollout) {
            return Ok(None);
        }
        // From here on a Rollout that adopts a workload has its template and selector.
        let workload = self.adopt(&mut rollout, namespace).await?;
        let mut observation = self.surroundings(&rollout, namespace).await?;
        observation.workload = workload;
        let failure = failure.map(|it| (it.message, it.invalid_revision));
        let (message, invalid_revision) = failure.unzip();
        observation.write_failure = message;
        observation.invalid_revision = invalid_revision.flatten();
        observation.unknown_status = unknown;
        self.farewell(&rollout, &mut observation);
        // Side by side: how long a look takes is how long a bad canary keeps its traffic.
        let (traffic, history, templates, people, jobs, new_pods) = tokio::join!(
            self.traffic(&rollout, &observation),
            self.history(&observation),
            self.templates(&observation),
            self.people(&observation),
            self.jobs(&observation),
            self.new_pods(&observation),
        );
        (observation.endpoints, observation.routes) = traffic;
        self.note_shared_rules(&mut observation);
        match history {
            Ok(history) => observation.history = history,
            // A rollback under way must not depend on the records of the past.
            Err(problem) => observation.records_unreadable = Some(problem),
        }
        observation.recorded = is_recorded(&observation);
        observation.templates = templates;
        people.note(&mut observation);
        match jobs {
            Ok(jobs) => observation.jobs = jobs,
            Err(problem) => observation.jobs_unreadable = Some(problem),
        }
        observation.new_pods = new_pods;
        // No earlier than what was read: what had expired when something came does not count beside it.
        observation.now = clock::now();
        let version = rollout.resource_version();
        match before.filter(|before| before.rollout.resource_version() == version) {
            Some(Seen {
                observation: it, ..
            }) => {
                (observation.windows, observation.objectives) = (it.windows, it.objectives);
            }
            None => self.evidence(&mut observation).await,
        }
        let turn = self.order(&mut observation).await; // the last, as it may keep others waiting
        let seen = Seen {
            rollout,
            observation,
        };
        Ok(Some(Observed { seen, turn }))
    }

    async fn surroundings(
        &self,
        rollout: &Rollout,
        namespace: &str,
    ) -> Result<Observation, kube::Error> {
        let namespace_labels = self.namespace_labels(namespace);
        let (policies, mut unreadable_policies) =
            self.policies(namespace_labels.as_ref(), rollout.labels());
        if namespace_labels.is_none() {
            let unknown = format!(
                "the labels of namespace {namespace} are not known yet, so neither is which policies govern it"
            );
            unreadable_policies.push(unknown);
        }
        let (replica_sets, (services, former_services)) = tokio::try_join!(
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
            foreign_replica_sets: replica_sets.foreign,
            services,
            former_services,
            conflicts: self.conflicts(rollout, namespace),
            lag: self.prometheus.lag().into(),
            ..Observation::of(namespace, &rollout.name_any(), rollout.spec.clone())
        })
    }

    /// The labels of a namespace, if the watch has reported it.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let key = ObjectRef::<PartialObjectMeta<Namespace>>::new(namespace);
        self.caches
            .namespaces
            .get(&key)
            .map(|found| found.labels().clone())
    }

    fn policies(
        &self,
        namespace_labels: Option<&BTreeMap<String, String>>,
        labels: &BTreeMap<String, String>,
    ) -> (Vec<NamedPolicy>, Vec<String>) {
        let none = BTreeMap::new();
        let namespace_labels = namespace_labels.unwrap_or(&none);
        let mut readable = Vec::new();
        let mut unreadable = Vec::new();
        for policy in self.caches.policies.state() {
            match read_policy(&policy) {
                Ok(policy) if policy::governs(&policy.spec, namespace_labels, labels) => {
                    readable.push(policy);
                }
                Ok(_) => {}
                Err(problem) => unreadable.push(problem),
            }
        }
        readable.sort_by(|a, b| a.name.cmp(&b.name));
        unreadable.sort();
        (readable, unreadable)
    }

    /// The templates of promoted revisions whose ReplicaSet is missing, from their records, each verified by
    /// the digest that the status has of it.
    async fn promoted(
        &self,
        rollout: &Rollout,
        namespace: &str,
        sets: &[ReplicaSet],
    ) -> BTreeMap<String, PodTemplate> {
        let Some(status) = &rollout.status else {
            return BTreeMap::new();
        };
        let previous = status.change.as_ref().and_then(|it| it.previous.as_ref());
        let promoted = status.stable.iter().chain(previous);
        let lost = promoted.filter_map(|revision| {
            let mut sets = sets.iter();
            let found = sets.any(|set| set.hash == revision.pod_template_hash);
            (!found).then_some((revision.run.as_ref()?, &revision.template_digest))
        });
        let lost: Vec<_> = lost.collect();
        if lost.is_empty() {
            return BTreeMap::new();
        }
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), namespace);
        let selector = format!("{ROLLOUT_UID_LABEL}={}", rollout.uid().unwrap_or_default());
        let runs = match self.reads.list(&api, &selector).await {
            Ok(runs) => runs.items,
            Err(error) => {
                tracing::warn!(%error, "the records of a lost revision could not be read");
                return BTreeMap::new();
            }
        };
        let templates = lost.into_iter().filter_map(|(run, digest)| {
            let record = runs.iter().find(|record| record.name_any() == *run)?;
            let template = record.spec.template.as_ref()?;
            (digest::template_digest(template) == *digest)
                .then(|| (digest.clone(), template.clone()))
        });
        templates.collect()
    }

    /// The Services that the spec names, and those that it names no more and that still select a revision.
    async fn services(
        &self,
        rollout: &Rollout,
        namespace: &str,
    ) -> Result<(BTreeMap<String, Option<Service>>, BTreeMap<String, Service>), kube::Error> {
        let api: Api<ApiService> = Api::namespaced(self.client.clone(), namespace);
        let canary = &rollout.spec.strategy.canary;
        let named: BTreeSet<_> = canary
            .stable_service
            .iter()
            .chain(&canary.canary_service)
            .collect();
        let remembered = rollout.status.iter().flat_map(|status| &status.services);
        let former = remembered.filter(|it| !named.contains(it));
        let services = named.iter().copied().chain(former).map(async |name| {
            let service = self.reads.get_opt(&api, name).await?;
            let service = service.and_then(|service| service.spec);
            let service = service.map(|spec| Service {
                kind: spec.type_.unwrap_or_default(),
                selector: spec.selector.unwrap_or_default(),
            });
            Ok::<_, kube::Error>((name.clone(), service))
        });
        let services = futures::future::try_join_all(services).await?;
        let (services, former): (Vec<_>, Vec<_>) = services
            .into_iter()
            .partition(|(name, _)| named.contains(name));
        let former = former.into_iter().filter_map(|(name, service)| {
            let service = service.filter(|it: &Service| it.selector.contains_key(HASH_LABEL))?;
            Some((name, service))
        });
        Ok((services.into_iter().collect(), former.collect()))
    }

    fn conflicts(&self, rollout: &Rollout, namespace: &str) -> Vec<String> {
        let name = rollout.name_any();
        let key = ObjectRef::<Claim>::new(&name).within(namespace);
        let own = self.caches.claims.get(&key);
        let Some(own) = own.filter(|own| own.metadata.uid == rollout.metadata.uid) else {
            return vec![format!(
                "the watch has not reported Rollout {name} yet, so what others claim is not known: nothing is begun before it has"
            )];
        };
        let earlier = self.earlier_claims(&name, namespace);
        let conflicts = earlier.iter().filter_map(|other| own.conflict(other));
        let mut conflicts: Vec<_> = conflicts.collect();
        conflicts.sort();
        conflicts
    }

    /// What the Rollouts of a namespace claim that were there before this one.
    pub(super) fn earlier_claims(&self, name: &str, namespace: &str) -> Vec<Arc<Claim>> {
        let key = ObjectRef::<Claim>::new(name).within(namespace);
        let Some(own) = self.caches.claims.get(&key) else {
            return Vec::new();
        };
        let is_earlier = |other: &Arc<Claim>| {
            other.namespace().as_deref() == Some(namespace) && other.precedes(&own)
        };
        self.caches
            .claims
            .state()
            .into_iter()
            .filter(is_earlier)
            .collect()
    }

    /// Earlier records are read only where a change may start or end.
    async fn history(&self, observation: &Observation) -> Result<Vec<PastRun>, String> {
        let status = &observation.status;
        let template = digest::template_digest(&observation.spec.template);
        let settled = status
            .stable
            .as_ref()
            .is_some_and(|stable| stable.template_digest == template);
        let needed = match &status.change {
            None => !settled,
            // A watch may be long, and ends with nothing that the past decides.
            Some(change) if change::is_watched(change) => change.template_digest != template,
            Some(change) => change.outcome.is_some(),
        };
        if !needed {
            return Ok(Vec::new());
        }
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), &observation.namespace);
        let selector = format!("{ROLLOUT_UID_LABEL}={}", observation.uid);
        let runs = self.reads.list(&api, &selector).await.map_err(|error| {
            tracing::warn!(%error, "the records of a Rollout could not be read");
            format!("the records of earlier changes cannot be read: {error}")
        })?;
        let runs = runs.items.iter();
        let history = runs.map(|run| PastRun {
            uid: run.uid().unwrap_or_default(),
            ..PastRun::of(&run.name_any(), &run.spec)
        });
        Ok(history.collect())
    }

    /// Asks Prometheus for the windows that are due, where a canary has had traffic, and how the
    /// objectives stand.
    async fn evidence(&self, observation: &mut Observation) {
        let Some(change) = observation
            .status
            .change
            .as_ref()
            .filter(|it| is_judged(it))
        else {
            return;
        };
        // Not the whole proposal: its hashes and provenance are the decision's business.
        let effective = policy::effective(&observation.policies);
        let current = checks::checks(observation, &effective);
        let checks = checks::in_force(change, &current);
        (observation.windows, observation.objectives) = tokio::join!(
            self.windows(observation, change, &checks),
            self.objectives(observation, &checks),
        );
    }

    async fn windows(
        &self,
        observation: &Observation,
        change: &Change,
        checks: &Checks,
    ) -> BTreeMap<String, CheckWindows> {
        let (Some(from), Some(stable)) = (&change.evidence.from, &observation.status.stable) else {
            return BTreeMap::new();
        };
        let strategy = &observation.spec.strategy.canary;
        let arm = |service: &Option<String>, revision: &str| Arm {
            service: service.clone(),
            revision: revision.to_owned(),
            ..whole_service(observation)
        };
        let alone = change.outcome.is_some();
        // A stable revision without pods answers nothing that a canary could be compared with, and must
        // not keep its own mending out: what the canary alone shows is scarce, and the tier decides.
        let serves = present::available(observation, Some(&stable.pod_template_hash)) > 0;
        let stable = arm(&strategy.stable_service, &stable.pod_template_hash);
        let canary = if alone {
            stable.clone()
        } else {
            arm(&strategy.canary_service, &change.pod_template_hash)
        };
        let active = checks
            .checks
            .iter()
            .filter(|(_, check)| checks::is_active(check, &change.plan, change.weight));
        let asks = active.map(|(name, check)| {
            let mut known = change.evidence.checks.iter();
            let known = known.find(|evidence| &evidence.name == name);
            let counts = check.metric.is_none();
            let ask = Ask {
                check: check.clone(),
                canary: canary.clone(),
                stable: (!alone && serves).then(|| stable.clone()),
                interval: change.interval,
                from: from.0,
                counted_until: gather::counted_until(change, name).unwrap_or(from.0),
                until: observation.now,
                want_baseline: counts
                    && (alone || serves)
                    && known.is_none_or(|known| known.dispersion.is_none()),
            };
            async move { (name.clone(), self.prometheus.windows(&ask).await) }
        });
        futures::future::join_all(asks).await.into_iter().collect()
    }

    async fn objectives(
        &self,
        observation: &Observation,
        checks: &Checks,
    ) -> BTreeMap<String, Result<ErrorRates, String>> {
        let arm = whole_service(observation);
        let asks = checks.objectives.iter().map(|(name, objective)| {
            let rates = self
                .prometheus
                .error_rates(name, objective, &arm, observation.now);
            async move { (name.clone(), rates.await) }
        });
        futures::future::join_all(asks).await.into_iter().collect()
    }

    /// The AnalysisTemplates that the Rollout names, where a change is judged by them.
    async fn templates(
        &self,
        observation: &Observation,
    ) -> BTreeMap<String, Result<AnalysisTemplateSpec, String>> {
        let judged = observation.status.change.as_ref().is_some_and(is_judged);
        let analysis = observation.spec.strategy.canary.analysis.as_ref();
        let Some(analysis) = analysis.filter(|_| judged) else {
            return BTreeMap::new();
        };
        let api: Api<AnalysisTemplate> =
            Api::namespaced(self.client.clone(), &observation.namespace);
        let names = analysis.templates.iter().map(|used| &used.name);
        let templates = names.map(async |name| {
            let template = match Reads::Newest.get_opt(&api, name).await {
                Ok(Some(template)) => Ok(template.spec),
                Ok(None) => Err(format!(
                    "AnalysisTemplate {name} does not exist in this namespace: create it, or remove it from analysis.templates"
                )),
                // Whatever the reason: the checks that count already go on, and nothing is promoted.
                Err(error) => Err(format!(
                    "AnalysisTemplate {name} cannot be read: {}",
                    sentence(&error)
                )),
            };
            (name.clone(), template)
        });
        let templates = futures::future::join_all(templates).await;
        templates.into_iter().collect()
    }
}

/// Whether the change in the status is recorded as it ended.
fn is_recorded(observation: &Observation) -> bool {
    let Some(change) = &observation.status.change else {
        return true;
    };
    let mut runs = observation.history.iter();
    runs.any(|run| run.name == change.run && run.outcome == change.outcome)
}

/// Whether evidence is gathered on a change: while it is under way, and while it is watched after its
/// promotion.
fn is_judged(change: &Change) -> bool {
    !change.initial && (change.outcome.is_none() || change::is_watched(change))
}

/// All pods of a Rollout, whatever they run.
fn whole_service(observation: &Observation) -> Arm {
    Arm {
        namespace: observation.namespace.clone(),
        service: None,
        rollout: observation.name.clone(),
        revision: String::new(),
    }
}

fn read_policy(policy: &DeserializeGuard<RolloutPolicy>) -> Result<NamedPolicy, String> {
    match &policy.0 {
        Ok(policy) => Ok(NamedPolicy {
            name: policy.name_any(),
            generation: policy.metadata.generation.unwrap_or_default(),
            spec: policy.spec.clone(),
        }),
        Err(invalid) => {
            let name = invalid.metadata.name.as_deref().unwrap_or_default();
            Err(format!(
                "RolloutPolicy {name} cannot be read by this build: {invalid}"
            ))
        }
    }
}
