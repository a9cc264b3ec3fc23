//! One state of the model: what the cluster holds, what its surroundings are up to, and which faults are left.
//!
//! Time goes by the minute, and every time that matters is a whole number of minutes. Two states are the
//! same where nothing that is left out of [`World::write_key`] could lead to another decision.

mod acts;
mod decisions;
mod evidence;
mod key;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use countersign_api::intervention::{InterventionAction, InterventionSpec};
use countersign_api::rollout::{Change, Outcome, Stage};
use countersign_api::sign_off::{SignOffDecision, SignOffSpec};
use countersign_api::{CHANGED_BY_ANNOTATION, HASH_LABEL, Person, PodTemplate};
use countersign_core::analysis::statistics::Counts;
use countersign_core::change::{is_watched, present_step};
use countersign_core::decision::{Action, HistoryAction, TrafficAction};
use countersign_core::observation::people::{ObservedIntervention, ObservedSignOff};
use countersign_core::observation::windows::{
    CheckWindows, ErrorRates, Unanswered, Uncounted, Window, WindowOutcome,
};
use countersign_core::observation::workload::{JobEnd, NewPods, PastRun, ReplicaSet};
use countersign_core::people::intervention;
use countersign_core::simulation::router;
use countersign_core::simulation::world::{self, Jobs};
use countersign_core::{Decision, Observation, decide};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub use evidence::Evidence;
use evidence::{BURNING, HEALTHY};

/// The one check of every setup.
pub const CHECK: &str = "errors";
/// The one objective of the setups that have one.
pub const OBJECTIVE: &str = "availability";
/// Ages beyond this, in minutes, are alike: every deadline of the setups is shorter.
const OLD: i64 = 7;
/// What a change waits for while no clock of its own runs, and people are awaited or nobody can do anything.
const UNCLOCKED: [&str; 10] = [
    "Paused",
    "Frozen",
    "ScaledToZero",
    "AwaitingDependency",
    "Queued",
    "ErrorBudgetBurn",
    "ErrorBudgetSpent",
    "AwaitingSignOff",
    "AwaitingPerson",
    "Baking",
];

/// How far a decision is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Wholly,
    /// The status and so many actions: then the operator crashes.
    First(usize),
    /// All actions, but neither the record nor the answers.
    Unrecorded,
    /// All but one action, which the API server refuses.
    Without(usize),
}

/// A decision that was made some time ago and is not carried out yet.
#[derive(Clone, Debug)]
pub struct Late {
    decision: Arc<Decision>,
    at: Timestamp,
    key: u64,
    version: u64,
    status_version: u64,
}

#[derive(Clone)]
pub struct World {
    /// What a reconcile observes now.
    pub seen: Observation,
    runs: BTreeMap<String, PastRun>,
    /// Templates that the records keep, by the name of the record.
    templates: BTreeMap<String, PodTemplate>,
    /// What Prometheus holds of the present step, and of what no status has counted yet: by end of window.
    pub log: BTreeMap<Timestamp, Evidence>,
    /// What Prometheus will answer for the next windows.
    pub evidence: Evidence,
    /// Requests of a good window: some are just enough.
    pub requests: u32,
    /// No pod becomes available.
    pub stuck: bool,
    /// Neither routers nor endpoints follow.
    pub deaf: bool,
    /// No Job ends.
    pub hung: bool,
    /// Every pod of the new revision crashes.
    pub crashing: bool,
    /// The error budget burns.
    pub burning: bool,
    /// The change under which it began to, after it had been seen not to.
    blamed: Option<String>,
    /// Acts that cost no fault and were done on this path, by their place in the setup.
    pub spent: u32,
    pub late: Option<Late>,
    /// Versions of the Rollout and of its status, as the API server counts them.
    version: u64,
    status_version: u64,
    /// Deviations that are left on this path.
    pub faults: usize,
    /// Actions on this path so far.
    pub steps: usize,
    /// Whether somebody else set the weights last.
    pub edited: bool,
    /// Digests that were rolled back and neither retried nor pushed again.
    pub condemned: BTreeSet<String>,
    /// What routers and endpoints last followed: the percent of the requests that each revision gets.
    pub believed: BTreeMap<String, i64>,
    /// When each revision last got requests.
    pub used_at: BTreeMap<String, Timestamp>,
    /// When each revision last was stable.
    pub stable_at: BTreeMap<String, Timestamp>,
    /// When the change under way last progressed, by what a Deployment would call progress.
    pub advanced_at: Timestamp,
    /// Most pods of the present stage that were available.
    pub most: i32,
    /// Minutes of the present step in which its revision had pods.
    pub baked: i64,
    /// When the last change ended without a promotion, or the promoted one gave way again.
    pub ended_at: Option<Timestamp>,
    /// Since when each gate that waits for people was seen to wait.
    pub awaited_since: BTreeMap<String, Timestamp>,
    /// Who wrote the change, and who put it into the cluster, and who did so with those that it replaced.
    pub excluded_approvers: BTreeSet<String>,
    /// Laws that the last action broke.
    pub broken: Vec<String>,
    /// Whether the last action was a crash after the status, with actions left undone.
    pub crashed: bool,
    /// Whether the last action made stable's ReplicaSet again, or forgot a revision.
    pub made_again: bool,
    pub forgotten: bool,
    /// Whether the last action was a decision whose write was refused as too old.
    pub refused: bool,
    pub key: u64,
    decision: OnceLock<Arc<Decision>>,
    reconciled: OnceLock<Arc<World>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let pods = self.seen.replica_sets.iter();
        let pods: Vec<_> = pods
            .map(|it| (it.revision, it.replicas, it.available))
            .collect();
        let change = self.change();
        let change = change.map(|it| (it.stage, it.step, it.weight, it.outcome));
        let status = &self.seen.status;
        write!(
            f,
            "{:?}: change {change:?}, pods {pods:?}, share {:?}, behind {:?}, believed {:?}, waits for {:?}, {:?}, broken {:?}",
            self.seen.now,
            self.routed_share(),
            self.seen.traffic.endpoints,
            self.believed,
            status.waiting_for,
            status.message,
            self.broken
        )
    }
}

/// The annotation that names who wrote a change.
pub const AUTHORS: &str = "provenance.countersign.dev/authors";

/// Who wrote a version, and who puts it into the cluster.
pub fn people_behind(image: &str) -> [&'static str; 2] {
    if image.ends_with(":v3") {
        ["frank", "grace"]
    } else {
        ["alice", "erin"]
    }
}

pub fn after(now: Timestamp, minutes: i64) -> Timestamp {
    now.saturating_add(SignedDuration::from_mins(minutes))
        .unwrap()
}

pub fn template(version: u8) -> Value {
    json!({
        "metadata": { "labels": { "app": "shop" } },
        "spec": { "containers": [{ "name": "app", "image": format!("example.org/shop:v{version}") }] },
    })
}

impl World {
    pub fn new(seen: Observation, faults: usize) -> Self {
        let mut world = Self {
            seen,
            runs: BTreeMap::new(),
            templates: BTreeMap::new(),
            log: BTreeMap::new(),
            evidence: Evidence::Good,
            requests: 100_000,
            stuck: false,
            deaf: false,
            hung: false,
            crashing: false,
            burning: false,
            blamed: None,
            spent: 0,
            late: None,
            version: 0,
            status_version: 0,
            faults,
            steps: 0,
            edited: false,
            condemned: BTreeSet::new(),
            believed: BTreeMap::new(),
            used_at: BTreeMap::new(),
            stable_at: BTreeMap::new(),
            advanced_at: Timestamp::UNIX_EPOCH,
            most: 0,
            baked: 0,
            ended_at: None,
            awaited_since: BTreeMap::new(),
            excluded_approvers: BTreeSet::new(),
            broken: Vec::new(),
            crashed: false,
            made_again: false,
            forgotten: false,
            refused: false,
            key: 0,
            decision: OnceLock::new(),
            reconciled: OnceLock::new(),
        };
        world.advanced_at = world.seen.now;
        world.believed = world.used();
        world.settle();
        world
    }

    /// The world after something has been done to it.
    pub fn with(&self, edit: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        (next.decision, next.reconciled) = (OnceLock::new(), OnceLock::new());
        (next.crashed, next.refused, next.made_again, next.forgotten) = Default::default();
        next.broken.clear();
        next.steps += 1;
        edit(&mut next);
        next.note(self);
        next.settle();
        next
    }

    /// Keeps what the laws ask of the past, by what was seen and not by what the operator has noted.
    fn note(&mut self, before: &Self) {
        let now = self.seen.now;
        let stage = |world: &Self| {
            let change = world.change();
            change.map(|it| (it.run.clone(), it.stage, it.step, it.available_at.is_some()))
        };
        let begun = stage(self) != stage(before);
        let step = |world: &Self| stage(world).map(|(run, _, step, _)| (run, step));
        if step(self) != step(before) {
            self.baked = 0;
            self.awaited_since.clear();
        }
        let run = |world: &Self| world.change().map(|it| it.run.clone());
        if run(self).is_some() && run(self) != run(before) {
            let last = before.change().and_then(|it| it.outcome);
            if before.change().is_none() || last == Some(Outcome::Promoted) {
                self.excluded_approvers.clear();
            }
            let people = people_behind(&self.version_of_template());
            self.excluded_approvers
                .extend(people.map(ToOwned::to_owned));
        }
        let available = self.canary_set().map_or(0, |set| set.available);
        let waits = self.seen.status.waiting_for.clone().unwrap_or_default();
        let deadline = i64::from(self.seen.spec.progress_deadline_seconds) / 60;
        // Pods that are requested while evidence is awaited have their own time.
        let scaled_up =
            self.seen.spec.replicas > before.seen.spec.replicas && waits == "AwaitingEvidence";
        let grown = scaled_up || available > self.most;
        // What comes after the clock has run out is too late.
        let grown = grown && after(self.advanced_at, deadline) > now;
        // A bake that is over without a reconcile is over.
        let bakes = waits != "Baking" || self.baked <= self.bake();
        if begun || grown || (bakes && UNCLOCKED.contains(&waits.as_str())) {
            self.advanced_at = now;
        }
        self.most = available.max(if begun { 0 } else { self.most });
        let outcome = |world: &Self| {
            let change = world.change();
            change.and_then(|it| Some((it.run.clone(), it.outcome?)))
        };
        if let Some((_, ended)) = outcome(self)
            && outcome(self) != outcome(before)
            && ended != Outcome::Promoted
        {
            // By when it was decided, which a late write shows afterwards.
            let line = self.change().and_then(|it| it.transitions.last());
            self.ended_at = line.and_then(|it| it.at.as_ref()).map(|at| at.0);
        }
        match waits.as_str() {
            "AwaitingSignOff" | "AwaitingPerson" => {
                if let Some(gate) = gate_of(&self.seen.status.message) {
                    self.awaited_since.entry(gate).or_insert(now);
                }
            }
            "Paused" | "Frozen" | "ScaledToZero" | "ErrorBudgetBurn" => self.awaited_since.clear(),
            _ => {}
        }
        let mut used_at = std::mem::take(&mut self.used_at);
        for (world, at) in [(before, before.seen.now), (&*self, now)] {
            let used = world.believed.keys().map(|hash| (hash.clone(), at));
            used_at.extend(used);
        }
        self.used_at = used_at;
        let status = &self.seen.status;
        if let Some(stable) = &status.stable {
            self.stable_at.insert(stable.pod_template_hash.clone(), now);
        }
    }

    /// The percent of the requests that each revision gets, as Services and routes are written.
    pub fn used(&self) -> BTreeMap<String, i64> {
        let named = self.seen.spec.strategy.canary.stable_service.is_some();
        let shares = match self.routed_share() {
            Some(share) => [100 - share, share],
            None if named => [100, 0],
            None => return BTreeMap::new(),
        };
        let mut used = BTreeMap::new();
        for (service, share) in crate::SERVICES.into_iter().zip(shares) {
            let hash = self.selected(service);
            if let Some(hash) = hash.filter(|_| share > 0) {
                *used.entry(hash.to_owned()).or_insert(0) += share;
            }
        }
        used
    }

    /// The revision that a Service selects.
    pub fn selected(&self, service: &str) -> Option<&str> {
        let service = self.seen.traffic.services.get(service)?.as_ref()?;
        service.selector.get(HASH_LABEL).map(String::as_str)
    }

    /// Whether a revision is stable, or the one under way.
    pub fn is_wanted(&self, hash: &str) -> bool {
        let roles = [self.stable_set(), self.canary_set()];
        roles.into_iter().flatten().any(|set| set.hash == hash)
    }

    /// Whether the deadline for the way back is over.
    pub fn is_overdue(&self) -> bool {
        let deadline = i64::from(self.seen.spec.progress_deadline_seconds) / 60;
        self.ended_at
            .is_some_and(|at| after(at, deadline) <= self.seen.now)
    }

    /// Brings up to date what a reconcile would observe, and the key.
    pub fn settle(&mut self) {
        self.fill_windows();
        self.seen.history = Some(Ok(self.runs.values().cloned().collect()));
        self.seen.promoted = self.promoted();
        let change = self.seen.status.change.as_ref();
        self.seen.recorded = change.is_none_or(|change| {
            let run = self.runs.get(&change.run);
            run.is_some_and(|run| run.outcome.is_some())
        });
        let rates = if self.burning { BURNING } else { HEALTHY };
        if let Some(answer) = self.seen.analysis.objectives.get_mut(OBJECTIVE) {
            *answer = Ok(rates);
        }
        let change = self.seen.status.change.as_ref();
        let new = change.and_then(|change| self.set(&change.pod_template_hash));
        let existing = new.map_or(0, |set| set.current);
        self.seen.new_pods = Some(NewPods {
            existing,
            crashing: if self.crashing { existing } else { 0 },
            ..NewPods::default()
        });
        let mut key = String::with_capacity(1_000);
        self.write_key(&mut key);
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.key = hasher.finish();
    }

    /// The templates of promoted revisions whose ReplicaSet is missing, as the operator reads them.
    fn promoted(&self) -> BTreeMap<String, PodTemplate> {
        let status = &self.seen.status;
        let previous = self.change().and_then(|it| it.previous.as_ref());
        let lost = status.stable.iter().chain(previous);
        let lost = lost.filter(|it| self.set(&it.pod_template_hash).is_none());
        let found = lost.filter_map(|it| {
            let template = self.templates.get(it.run.as_ref()?)?;
            Some((it.template_digest.clone(), template.clone()))
        });
        found.collect()
    }

    /// The same world before anything has happened on its path: what came before is remembered.
    pub fn begun(mut self, seen: Observation, faults: usize) -> Self {
        (self.decision, self.reconciled) = (OnceLock::new(), OnceLock::new());
        (self.seen, self.faults, self.steps) = (seen, faults, 0);
        self.settle();
        self
    }

    pub fn change(&self) -> Option<&Change> {
        self.seen.status.change.as_ref()
    }

    /// The change that is under way and may have traffic.
    pub fn canary(&self) -> Option<&Change> {
        let change = self.change()?;
        (change.outcome.is_none() && !change.initial).then_some(change)
    }

    pub fn set(&self, hash: &str) -> Option<&ReplicaSet> {
        self.seen.replica_sets.iter().find(|set| set.hash == hash)
    }

    pub fn stable_set(&self) -> Option<&ReplicaSet> {
        self.set(&self.seen.status.stable.as_ref()?.pod_template_hash)
    }

    pub fn canary_set(&self) -> Option<&ReplicaSet> {
        self.set(&self.change()?.pod_template_hash)
    }

    /// The ReplicaSet of stable, or of the change.
    pub fn side(&self, stable: bool) -> Option<&ReplicaSet> {
        if stable {
            self.stable_set()
        } else {
            self.canary_set()
        }
    }

    /// The share that the route gives the canary's Service, in percent.
    pub fn routed_share(&self) -> Option<i64> {
        let route = self.seen.traffic.routes.first()?.object.as_ref().ok()?;
        let backends = route.object.pointer("/spec/rules/0/backendRefs")?;
        backends.get(1)?.get("weight")?.as_i64()
    }

    /// The windows that are due, as the status stands: start and end.
    pub fn due(&self) -> Vec<(Timestamp, Timestamp)> {
        let live = self
            .change()
            .filter(|it| it.outcome.is_none() || is_watched(it));
        let Some((change, from)) = live.and_then(|it| Some((it, it.evidence.from.as_ref()?.0)))
        else {
            return Vec::new();
        };
        let counted = change.evidence.checks.iter();
        let counted = counted.filter_map(|it| Some(it.last_window_end.as_ref()?.0));
        let mut start = counted.max().unwrap_or(from);
        let mut due = Vec::new();
        while after(start, 1) <= self.seen.now {
            due.push((start, after(start, 1)));
            start = after(start, 1);
        }
        due
    }

    /// Whether nothing happens but that time passes: the operator has nothing to do, and whatever it
    /// waits for is kept from coming.
    pub fn is_quiet(&self) -> bool {
        (self.stuck || !self.pods_pend())
            && (self.deaf || self.follows())
            && (self.hung || !self.job_runs())
            && self.late.is_none()
            && self.reconciled().key == self.key
    }
}

pub fn person(user: &str) -> Person {
    Person {
        username: user.into(),
        groups: vec![],
    }
}

/// The gate for people that a message names.
pub fn gate_of(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("gate ")?;
    rest.split_whitespace().next().map(ToOwned::to_owned)
}
