//! A whole rollout in virtual time: a small world of pods and traffic around `decide`.
//!
//! The world is deterministic; the caller supplies the results of the traffic.

use std::collections::BTreeMap;

use countersign_api::counts::Counts;
use countersign_api::{HASH_LABEL, PodTemplate};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::decision::{
    Action, AdoptionAction, Answer, AnswerTo, Decision, HistoryAction, JobAction, NewReplicaSet,
    RoutePatch, TrafficAction, WorkloadAction,
};
use crate::laws::{self, Broken};
use crate::observation::Observation;
use crate::observation::people::HumanInputs;
use crate::observation::windows::WindowOutcome;
use crate::observation::workload::{
    Integrity, Job, JobEnd, PastRun, ReplicaSet, RequestedReplicas,
};
use crate::reason::Reason;
use crate::rollout::decide::decide;
use crate::simulation::router::{self, Belief};

/// The result of Prometheus for one window, from its end and the canary's share of the traffic (a
/// fraction).
pub type Traffic<'a> = dyn FnMut(Timestamp, f64) -> WindowOutcome + 'a;

/// The fate of created Jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// They run for this time, and end like this.
    End(SignedDuration, JobEnd),
    /// They run until their deadline.
    Hang,
    /// They run, and do not end at their deadline.
    Stick,
    /// None of their pods starts, and they do not end at their deadline.
    Idle,
    /// The API server rejects them with this message.
    Refused(String),
}

/// A window of requests without errors, and the number of windows in a day's history.
const CALM: Counts = Counts {
    requests: 1.0,
    errors: 0.0,
};
const DAY: usize = 1_920;

/// A world around one Rollout.
#[derive(Clone, Debug)]
pub struct World {
    /// What the controller observes.
    pub observation: Observation,
    /// How long a pod takes to become available; `None`: it never does.
    pub pods_ready_after: Option<SignedDuration>,
    /// Why the API server rejects new ReplicaSets; `None` if it accepts them.
    pub template_refusal: Option<String>,
    /// Why the API server does not list the RolloutRuns.
    pub unreadable_records: Option<String>,
    /// The additional delay of each further pod that is requested at once.
    pub pods_apart: SignedDuration,
    /// The fate of created Jobs; they succeed by default.
    pub jobs: Jobs,
    /// The number of created Jobs.
    pub jobs_made: usize,
    /// When Jobs end, by uid.
    ending: BTreeMap<String, (Timestamp, JobEnd)>,
    /// The counts of the service before the change; by default a day without errors.
    pub history: Vec<Counts>,
    /// The value of every metric; a passing one if `None`.
    pub metric: Option<f64>,
    /// When requested pods become available: time, ReplicaSet and number available then.
    pending: Vec<(Timestamp, String, i32)>,
    /// Answers for windows that no status holds yet: a repeated query gets the same answer.
    pub(super) answered: BTreeMap<(String, Timestamp), WindowOutcome>,
    /// RolloutRuns as last written.
    pub(super) runs: BTreeMap<String, PastRun>,
    /// The templates in the RolloutRuns, by name.
    templates: BTreeMap<String, PodTemplate>,
    /// Every law broken so far.
    pub broken: Vec<Broken>,
    /// The number of status writes.
    pub status_writes: usize,
    /// The delay of routers until they accept a written route, and until they observe ready pods.
    pub routers_take: SignedDuration,
    /// What routers write into the status of an accepted route.
    pub routers_report: fn(&mut Value),
    /// When routers accept the routes, by index.
    accepting: BTreeMap<usize, Timestamp>,
    /// States that routers may still act on: the time, the shares of the sides, and the pods behind the
    /// Services.
    beliefs: Vec<(Timestamp, Belief)>,
    /// Times at which a router would have sent to no pod, each in a sentence.
    pub lost: Vec<String>,
    /// Called with every decision and its observation.
    pub note: fn(&Observation, &Decision),
}

impl World {
    /// A world that starts from an observation.
    #[must_use]
    pub fn new(observation: Observation) -> Self {
        Self {
            observation,
            pods_ready_after: Some(SignedDuration::from_secs(2)),
            pods_apart: SignedDuration::ZERO,
            history: vec![CALM; DAY],
            metric: None,
            template_refusal: None,
            unreadable_records: None,
            jobs: Jobs::End(SignedDuration::from_secs(2), JobEnd::Succeeded),
            jobs_made: 0,
            ending: BTreeMap::new(),
            pending: Vec::new(),
            answered: BTreeMap::new(),
            runs: BTreeMap::new(),
            templates: BTreeMap::new(),
            broken: Vec::new(),
            status_writes: 0,
            routers_take: SignedDuration::from_millis(300),
            routers_report: router::accept,
            accepting: BTreeMap::new(),
            beliefs: Vec::new(),
            lost: Vec::new(),
            note: |_, _| (),
        }
    }

    /// Runs until `done` holds or `until` has passed; returns whether `done` held.
    pub fn run(
        &mut self,
        until: Timestamp,
        traffic: &mut Traffic,
        mut done: impl FnMut(&Observation) -> bool,
    ) -> bool {
        let mut follows = false;
        while self.observation.now < until {
            let decision = self.reconcile(traffic);
            follows = !follows && decision.goes_on(&self.observation);
            self.carry_out(&decision, usize::MAX);
            if done(&self.observation) {
                return true;
            }
            // The controller writes this decision with the next.
            if follows {
                self.status_writes -= 1;
            } else {
                self.wait(&decision);
            }
        }
        false
    }

    /// Observes and decides, and checks the decision against the laws.
    pub fn reconcile(&mut self, traffic: &mut Traffic) -> Decision {
        self.route();
        self.count_windows(traffic);
        let unreadable = self.unreadable_records.clone();
        let records = unreadable.map_or_else(|| Ok(self.runs.values().cloned().collect()), Err);
        self.observation.history = Some(records);
        self.observation.recorded = self
            .observation
            .status
            .change
            .as_ref()
            .is_none_or(|change| {
                self.runs
                    .get(&change.run)
                    .is_some_and(|run| run.outcome.is_some())
            });
        self.observation.promoted = self.promoted();
        let decision = decide(&self.observation);
        (self.note)(&self.observation, &decision);
        self.broken
            .extend(laws::broken(&self.observation, &decision));
        decision
    }

    /// The templates of promoted revisions whose ReplicaSet is missing or edited, from their RolloutRuns.
    fn promoted(&self) -> BTreeMap<String, PodTemplate> {
        let status = &self.observation.status;
        let previous = status.change.as_ref().and_then(|it| it.previous.as_ref());
        let promoted = status.stable.iter().chain(previous);
        let lost = promoted.filter(|revision| {
            let mut sets = self.observation.replica_sets.iter();
            !sets.any(|set| set.hash == revision.pod_template_hash && set.edit().is_none())
        });
        let found = lost.filter_map(|revision| {
            let template = self.templates.get(revision.run.as_ref()?)?;
            Some((revision.template_digest.clone(), template.clone()))
        });
        found.collect()
    }

    /// Writes the status and carries out the first `actions` of a decision: fewer than all is a crash.
    pub fn carry_out(&mut self, decision: &Decision, actions: usize) {
        if self.observation.status != decision.status {
            self.status_writes += 1;
            self.observation.status = decision.status.clone();
        }
        for action in decision.actions.iter().take(actions) {
            self.act(action);
        }
        if actions < decision.actions.len() {
            return;
        }
        for answer in &decision.answers {
            self.answer(answer);
        }
        if let Some(record) = &decision.record {
            let mut run = PastRun::of(&record.name, &record.spec);
            // What describes its begin is written once.
            if let Some(begun) = self.runs.get(&record.name).cloned() {
                run.provenance_digest = begun.provenance_digest;
                run.provenance_state = begun.provenance_state;
                run.provenance = begun.provenance;
                run.traffic = begun.traffic;
            }
            self.runs.insert(record.name.clone(), run);
            if let Some(template) = &record.spec.template {
                self.templates.insert(record.name.clone(), template.clone());
            }
        }
    }

    fn answer(&mut self, answer: &Answer) {
        let HumanInputs {
            sign_offs,
            interventions,
            ..
        } = &mut self.observation.people;
        match answer.to {
            AnswerTo::SignOff => sign_offs
                .iter_mut()
                .filter(|it| it.name == answer.name)
                .for_each(|it| it.answer = Some((answer.yes, answer.reason.clone()))),
            AnswerTo::Intervention => interventions
                .iter_mut()
                .filter(|it| it.name == answer.name)
                .for_each(|it| it.answered = true),
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Workload(action) => self.act_on_workload(action),
            Action::Traffic(action) => self.act_on_traffic(action),
            Action::Adoption(AdoptionAction::ScaleWorkload(scale)) => {
                if let Some(Ok(workload)) = &mut self.observation.workload {
                    workload.replicas = scale.replicas;
                    workload.current = scale.replicas;
                    workload.available = scale.replicas;
                }
            }
            Action::Adoption(AdoptionAction::SetFinalizer { present }) => {
                self.observation.deletion.awaited = *present;
            }
            Action::Job(JobAction::CreateJob(job)) => {
                self.make_job(&job.name, job.deadline.signed());
            }
            Action::Job(JobAction::DeleteJob { uid, .. }) => {
                if let Some(Ok(jobs)) = &mut self.observation.jobs {
                    jobs.retain(|job| job.uid != *uid);
                }
            }
            Action::History(HistoryAction::DeleteRun { run }) => {
                self.runs.remove(run);
            }
        }
    }

    fn act_on_workload(&mut self, action: &WorkloadAction) {
        match action {
            WorkloadAction::CreateReplicaSet(set) => self.create(set),
            WorkloadAction::Scale {
                replica_set,
                replicas,
                revision,
            } => {
                self.scale(replica_set, *replicas);
                self.edit(replica_set, |set| set.revision = *revision);
            }
            WorkloadAction::SetMinReadySeconds {
                replica_set,
                seconds,
            } => {
                self.edit(replica_set, |set| set.min_ready_seconds = *seconds);
            }
            WorkloadAction::Adopt { replica_set } => {
                self.edit(replica_set, |set| {
                    (set.owned, set.labels_missing) = (true, false);
                });
            }
            WorkloadAction::Release { replica_set } => {
                self.edit(replica_set, |set| set.owned = false);
            }
            WorkloadAction::DeleteReplicaSet { replica_set } => {
                let sets = &mut self.observation.replica_sets;
                sets.retain(|set| set.name != *replica_set);
            }
        }
    }

    fn act_on_traffic(&mut self, action: &TrafficAction) {
        match action {
            TrafficAction::SelectRevision { service, hash } => {
                self.observation.traffic.selected_by.remove(service);
                if let Some(Some(service)) = self.observation.traffic.services.get_mut(service) {
                    service.selector.insert(HASH_LABEL.into(), hash.clone());
                }
            }
            TrafficAction::ReleaseService { service } => {
                if let Some(Some(service)) = self.observation.traffic.services.get_mut(service) {
                    service.selector.remove(HASH_LABEL);
                }
                self.observation.traffic.former_services.remove(service);
            }
            TrafficAction::PatchRoute(patch) => self.patch_route(patch),
            // No router of this world has subsets or testers.
            TrafficAction::SelectSubsets { .. }
            | TrafficAction::ApplyTesters(_)
            | TrafficAction::DeleteTesters { .. } => {}
        }
    }

    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut ReplicaSet)) {
        let mut sets = self.observation.replica_sets.iter_mut();
        if let Some(set) = sets.find(|set| set.name == name) {
            edit(set);
        }
    }

    fn create(&mut self, new: &NewReplicaSet) {
        if let Some(why) = &self.template_refusal {
            self.observation.write_failure = Some(why.clone());
            self.observation.invalid_revision = Some(new.hash.clone());
            return;
        }
        let mut sets = self.observation.replica_sets.iter();
        // An existing ReplicaSet is kept.
        if !sets.any(|set| set.name == new.name) {
            self.observation.replica_sets.push(ReplicaSet {
                name: new.name.clone(),
                uid: format!("uid-{}", new.name),
                version: String::new(),
                hash: new.hash.clone(),
                template_digest: new.template_digest.clone(),
                revision: new.revision,
                owned: true,
                matches: true,
                labels_missing: false,
                replicas: 0,
                min_ready_seconds: self.observation.spec.min_ready_seconds,
                requested: None,
                current: 0,
                ready: 0,
                available: 0,
                failure: None,
                template: new.template.clone(),
                integrity: Integrity::Sound,
            });
        }
        self.scale(&new.name, new.replicas);
    }

    fn scale(&mut self, name: &str, replicas: i32) {
        let (now, apart) = (self.observation.now, self.pods_apart);
        let ready_at = self
            .pods_ready_after
            .and_then(|after| now.saturating_add(after).ok());
        let Some(set) = self
            .observation
            .replica_sets
            .iter_mut()
            .find(|set| set.name == name)
        else {
            return;
        };
        (set.replicas, set.current) = (replicas, replicas);
        set.requested = Some(RequestedReplicas { replicas, at: now });
        set.available = set.available.min(replicas);
        set.ready = set.available;
        let from = set.available;
        if let Some(mut at) = ready_at.filter(|_| replicas > from) {
            if apart > SignedDuration::ZERO {
                // Pods requested earlier become available first.
                self.pending.retain(|it| it.1 != name || it.2 <= replicas);
                let on_their_way = self.pending.iter().filter(|it| it.1 == name);
                let last = on_their_way.map(|it| (it.0, it.2)).max();
                let known = last.map_or(from, |(_, number)| number);
                at = last.map_or(at, |(last, _)| {
                    at.max(last.saturating_add(apart).unwrap_or(at))
                });
                for number in known + 1..=replicas {
                    self.pending.push((at, name.to_owned(), number));
                    at = at.saturating_add(apart).unwrap_or(at);
                }
            } else {
                self.pending.push((at, name.to_owned(), replicas));
            }
        }
    }

    /// Patches a route as the API server does: completely, or not at all.
    fn patch_route(&mut self, route: &RoutePatch) {
        let RoutePatch { kind, name, .. } = route;
        let Ok(patch) = serde_json::from_value::<json_patch::Patch>(json!(route.operations)) else {
            return;
        };
        let (now, take) = (self.observation.now, self.routers_take);
        for (place, route) in self.observation.traffic.routes.iter_mut().enumerate() {
            let named = route.reference.kind == *kind && route.reference.name == *name;
            if named
                && let Ok(route) = &mut route.object
                && json_patch::patch(&mut route.object, &patch).is_ok()
            {
                let generation = route.object.pointer_mut("/metadata/generation");
                if let Some(generation) = generation {
                    *generation = json!(generation.as_i64().unwrap_or(0) + 1);
                }
                self.accepting
                    .insert(place, now.saturating_add(take).unwrap_or(now));
            }
        }
    }

    /// Makes routers and endpoints catch up, and checks whether any request would be lost.
    fn route(&mut self) {
        let observation = &mut self.observation;
        let now = observation.now;
        self.accepting.retain(|place, at| {
            let due = *at <= now;
            let route = observation
                .traffic
                .routes
                .get_mut(*place)
                .map(|it| &mut it.object);
            if let Some(Ok(route)) = route.filter(|_| due) {
                (self.routers_report)(&mut route.object);
            }
            !due
        });
        let available = |hash: &str| {
            let sets = observation.replica_sets.iter();
            sets.filter(|set| set.hash == hash)
                .map(|set| set.available)
                .sum::<i32>()
        };
        let endpoints = observation
            .traffic
            .services
            .iter()
            .filter_map(|(name, service)| {
                let hash = service.as_ref()?.selector.get(HASH_LABEL)?;
                let ready = Some((hash.clone(), available(hash))).filter(|(_, ready)| *ready > 0);
                Some((name.clone(), ready.into_iter().collect()))
            });
        observation.traffic.endpoints = endpoints.collect();
        let present = router::belief(observation);
        self.beliefs.push((now, present));
        let oldest = now.saturating_sub(self.routers_take).unwrap_or(now);
        let kept = self.beliefs.iter().rposition(|(at, _)| *at <= oldest);
        self.beliefs.drain(..kept.unwrap_or(0));
        for (_, sends) in &self.beliefs {
            for (_, knows) in &self.beliefs {
                for service in &sends.used {
                    let behind = knows.behind.get(service);
                    let behind: Vec<_> = behind.into_iter().flatten().collect();
                    if behind.is_empty() || behind.iter().any(|hash| available(hash) == 0) {
                        self.lost
                            .push(format!("{now}: Service {service} has {behind:?}"));
                    }
                }
            }
        }
    }

    fn make_job(&mut self, name: &str, deadline: SignedDuration) {
        let too_long = || JobEnd::Failed {
            reason: "DeadlineExceeded".into(),
            message: "Job was active longer than specified deadline".into(),
        };
        let ends = match &self.jobs {
            Jobs::Refused(why) => {
                self.observation.write_failure = Some(why.clone());
                return;
            }
            Jobs::Stick | Jobs::Idle => None,
            Jobs::Hang => Some((deadline, too_long())),
            Jobs::End(after, _) if *after >= deadline => Some((deadline, too_long())),
            Jobs::End(after, end) => Some((*after, end.clone())),
        };
        self.observation.write_failure = None;
        self.jobs_made += 1;
        let uid = format!("job-{}", self.jobs_made);
        let now = self.observation.now;
        if let Some((after, end)) = ends
            && let Ok(at) = now.saturating_add(after)
        {
            self.ending.insert(uid.clone(), (at, end));
        }
        let started = self.jobs != Jobs::Idle;
        let job = Job {
            name: name.to_owned(),
            uid,
            started,
            ..Job::default()
        };
        let jobs = self.observation.jobs.get_or_insert_with(|| Ok(Vec::new()));
        if let Ok(jobs) = jobs {
            jobs.push(job);
        }
    }

    fn end_jobs(&mut self) {
        let now = self.observation.now;
        let ending = &mut self.ending;
        for job in self.observation.jobs.iter_mut().flatten().flatten() {
            if ending.get(&job.uid).is_some_and(|(at, _)| *at <= now) {
                job.end = ending.remove(&job.uid).map(|(_, end)| end);
            }
        }
    }

    /// Advances time to the next event.
    fn wait(&mut self, decision: &Decision) {
        let now = self.observation.now;
        let soonest = now
            .saturating_add(SignedDuration::from_millis(100))
            .unwrap_or(now);
        let latest = now
            .saturating_add(SignedDuration::from_mins(1))
            .unwrap_or(now);
        let reconcile = decision.requeue_at.unwrap_or(latest).max(soonest);
        let pods = self
            .pending
            .iter()
            .map(|(at, ..)| *at)
            .min()
            .unwrap_or(latest);
        let jobs = self.ending.values().map(|(at, _)| *at).min();
        let jobs = jobs.unwrap_or(latest);
        let routes = self.accepting.values().copied().min().unwrap_or(latest);
        let events = pods.min(jobs).min(routes).max(soonest);
        self.observation.now = reconcile.min(events).min(latest);
        self.end_jobs();
        let now = self.observation.now;
        let (due, pending) = self.pending.drain(..).partition(|(at, ..)| *at <= now);
        self.pending = pending;
        let due: Vec<(Timestamp, String, i32)> = due;
        for (_, name, available) in due {
            if let Some(set) = self
                .observation
                .replica_sets
                .iter_mut()
                .find(|set| set.name == name)
            {
                set.available = available.min(set.replicas).max(set.available);
                set.ready = set.available;
            }
        }
    }

    /// Whether no change is under way and no writes are pending.
    #[must_use]
    pub fn at_rest(observation: &Observation) -> bool {
        let over = observation.status.change.as_ref().is_none_or(|change| {
            change
                .transitions
                .last()
                .is_some_and(|line| line.reason == Reason::RolledBack)
        });
        over && observation.status.stable.is_some()
    }
}

/// A promoted revision that is watched has no stable counts to compare with.
pub(super) fn alone(outcome: WindowOutcome) -> WindowOutcome {
    match outcome {
        WindowOutcome::Counted { canary, .. } => WindowOutcome::Counted {
            canary,
            stable: Counts::default(),
        },
        other => other,
    }
}
