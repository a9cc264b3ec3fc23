//! One state of the model: what the cluster holds, what its surroundings are up to, and which faults are left.
//!
//! Time goes by the minute, and every time that matters is a whole number of minutes. Two states are the
//! same where nothing that is left out of [`World::write_key`] could lead to another decision.

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
use countersign_core::observation::people::{SeenIntervention, SeenSignOff};
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

/// The one check of every setup.
pub const CHECK: &str = "errors";
/// The one objective of the setups that have one.
pub const OBJECTIVE: &str = "availability";
/// Ages beyond this, in minutes, are alike: every deadline of the setups is shorter.
const OLD: i64 = 7;
/// What a change waits for while no clock of its own runs, and people are asked or nobody can do anything.
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

/// What Prometheus says of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    Good,
    Bad,
    /// Clean, but next to no requests.
    Quiet,
    /// So many errors that what had passed is in doubt, and not so many that it fails.
    Unclear,
    /// Answered, but there is no series.
    NoData,
    /// Not answered; it is asked again.
    Away,
}

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
    /// What a look sees now.
    pub seen: Observation,
    runs: BTreeMap<String, PastRun>,
    /// Templates that the records keep, by the name of the record.
    templates: BTreeMap<String, PodTemplate>,
    /// What Prometheus holds of the present step, and of what no status has counted yet: by end of window.
    pub log: BTreeMap<Timestamp, Evidence>,
    /// What Prometheus will say of the next windows.
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
    /// Digests that were rolled back and neither retried nor pushed anew.
    pub condemned: BTreeSet<String>,
    /// What routers and endpoints last followed: the percent of the requests that each revision gets.
    pub believed: BTreeMap<String, i64>,
    /// When each revision last got requests.
    pub used_at: BTreeMap<String, Timestamp>,
    /// When each revision last was stable.
    pub stable_at: BTreeMap<String, Timestamp>,
    /// When the change under way last went on, by what a Deployment would call progress.
    pub advanced_at: Timestamp,
    /// Most pods of the present stage that were available.
    pub most: i32,
    /// Minutes of the present step in which its revision had pods.
    pub baked: i64,
    /// When the last change ended without a promotion, or the promoted one gave way again.
    pub ended_at: Option<Timestamp>,
    /// Since when each gate that was seen to wait for people does.
    pub asked_at: BTreeMap<String, Timestamp>,
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
    looked: OnceLock<Arc<World>>,
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

/// One in so many requests of a window that is unclear fails, at least one.
const UNCLEAR: f64 = 1_000.0;

fn counts(requests: f64, errors: f64) -> Counts {
    Counts { requests, errors }
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
            asked_at: BTreeMap::new(),
            excluded_approvers: BTreeSet::new(),
            broken: Vec::new(),
            crashed: false,
            made_again: false,
            forgotten: false,
            refused: false,
            key: 0,
            decision: OnceLock::new(),
            looked: OnceLock::new(),
        };
        world.advanced_at = world.seen.now;
        world.believed = world.used();
        world.settle();
        world
    }

    /// The world after something has been done to it.
    pub fn with(&self, edit: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        (next.decision, next.looked) = (OnceLock::new(), OnceLock::new());
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
            self.asked_at.clear();
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
        // Pods that are asked for while evidence is waited for have their own time.
        let scaled_up =
            self.seen.spec.replicas > before.seen.spec.replicas && waits == "AwaitingEvidence";
        let grown = scaled_up || available > self.most;
        // What comes after the clock has run out is too late.
        let grown = grown && after(self.advanced_at, deadline) > now;
        // A bake that is over without having been looked at is over.
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
            // By when it was decided, which a late write tells of afterwards.
            let line = self.change().and_then(|it| it.transitions.last());
            self.ended_at = line.and_then(|it| it.at.as_ref()).map(|at| at.0);
        }
        match waits.as_str() {
            "AwaitingSignOff" | "AwaitingPerson" => {
                if let Some(gate) = gate_of(&self.seen.status.message) {
                    self.asked_at.entry(gate).or_insert(now);
                }
            }
            "Paused" | "Frozen" | "ScaledToZero" | "ErrorBudgetBurn" => self.asked_at.clear(),
            _ => {}
        }
        for hash in self.believed.keys().chain(before.believed.keys()) {
            self.used_at.insert(hash.clone(), now);
        }
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

    /// Brings up to date what a look would see, and the key.
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
        (self.decision, self.looked) = (OnceLock::new(), OnceLock::new());
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

    fn fill_windows(&mut self) {
        let (due, alone) = (self.due(), self.change().is_some_and(is_watched));
        let since = self.change().and_then(|it| it.step_started_at.clone());
        let oldest = due.first().map(|(start, _)| *start);
        let kept = since.map(|it| it.0).into_iter().chain(oldest).min();
        let live = self
            .change()
            .is_some_and(|it| it.outcome.is_none() || alone);
        self.log
            .retain(|end, _| live && kept.is_some_and(|kept| *end > kept));
        self.seen.analysis.windows.clear();
        if self
            .change()
            .is_none_or(|it| it.evidence.from.is_none() || !live)
        {
            return;
        }
        let mut windows = Vec::new();
        for (start, end) in due {
            let answer = self.log.get(&end).copied().unwrap_or(Evidence::Away);
            windows.push(Window {
                start,
                end,
                outcome: outcome(answer, f64::from(self.requests), alone),
            });
            if answer == Evidence::Away {
                break; // nothing after it is asked
            }
        }
        let windows = CheckWindows {
            due: windows,
            baseline: None,
        };
        self.seen.analysis.windows.insert(CHECK.into(), windows);
    }

    /// What the operator decides when it looks now.
    pub fn decision(&self) -> &Arc<Decision> {
        self.decision.get_or_init(|| Arc::new(decide(&self.seen)))
    }

    /// The world after a whole look.
    pub fn looked(&self) -> &Arc<World> {
        self.looked
            .get_or_init(|| Arc::new(self.carry_out(self.decision(), How::Wholly)))
    }

    pub fn carry_out(&self, decision: &Decision, how: How) -> World {
        let mut after = self.clone();
        (after.decision, after.looked) = (OnceLock::new(), OnceLock::new());
        (
            after.crashed,
            after.refused,
            after.made_again,
            after.forgotten,
        ) = Default::default();
        after.broken.clear();
        after.steps += 1;
        let total = decision.actions.len();
        let actions: Vec<_> = match how {
            How::Wholly | How::Unrecorded => decision.actions.clone(),
            How::First(some) => decision.actions[..some].to_vec(),
            How::Without(one) => {
                let mut all = decision.actions.clone();
                all.remove(one);
                all
            }
        };
        after.crashed = matches!(how, How::First(some) if some < total);
        let patches = |it: &Action| matches!(it, Action::Traffic(TrafficAction::PatchRoute(_)));
        after.edited &= !actions.iter().any(patches);
        let tells = matches!(how, How::Wholly | How::Without(_));
        let done = Decision {
            actions,
            answers: if tells {
                decision.answers.clone()
            } else {
                Vec::new()
            },
            ..decision.clone()
        };
        if done.status != after.seen.status {
            after.version += 1;
            after.status_version += 1;
        }
        for action in &done.actions {
            if let Action::History(HistoryAction::DeleteRun { run }) = action {
                after.runs.remove(run);
                after.templates.remove(run);
            }
        }
        let mut hands = world::World::new(after.seen);
        hands.pods_ready_after = None;
        hands.jobs = Jobs::Stick;
        hands.carry_out(&done, usize::MAX);
        after.seen = hands.observation;
        for job in after.seen.jobs.iter_mut().flatten().flatten() {
            job.uid = format!("uid-{}", job.name);
        }
        if let Some(record) = decision.record.as_ref().filter(|_| tells) {
            let run = PastRun::of(&record.name, &record.spec);
            after.runs.insert(record.name.clone(), run);
            if let Some(template) = record.spec.template.clone() {
                after.templates.insert(record.name.clone(), template);
            }
        }
        let rolled_back = |world: &World| {
            let change = world.change();
            let change = change.filter(|it| it.outcome == Some(Outcome::RolledBack));
            change.map(|it| (it.run.clone(), it.digest.clone()))
        };
        if let Some((run, digest)) = rolled_back(&after)
            && rolled_back(self).is_none_or(|(before, _)| before != run)
        {
            after.condemned.insert(digest);
        }
        let had_stable = self.seen.status.stable.is_none() || self.stable_set().is_some();
        after.made_again = !had_stable && after.stable_set().is_some();
        after.forgotten = after.seen.replica_sets.len() < self.seen.replica_sets.len();
        after.note(self);
        after.settle();
        after
    }

    /// Keeps what a look decides now for later.
    pub fn read(&self) -> Self {
        let (decision, key) = (Arc::clone(self.decision()), self.key);
        self.with(|next| {
            next.late = Some(Late {
                decision,
                at: next.seen.now,
                key,
                version: next.version,
                status_version: next.status_version,
            });
        })
    }

    /// Carries out what was decided earlier: the API server refuses a status of an older version, and
    /// where another operator has written since, this one has lost the lease and writes nothing.
    pub fn write_late(&self) -> Option<Self> {
        let late = self.late.clone()?;
        // A reconcile is given up after a minute.
        let given_up = after(late.at, 1) < self.seen.now;
        let lost = given_up || late.status_version != self.status_version;
        if lost || (self.late_writes_status() && late.version != self.version) {
            return Some(self.with(|next| {
                next.late = None;
                next.refused = true;
            }));
        }
        let mut done = self.carry_out(&late.decision, How::Wholly);
        done.late = None;
        // What the decision began or ended, it did by then.
        let holds = |world: &Self| {
            let waits = world.seen.status.waiting_for.as_deref();
            waits.is_some_and(|it| UNCLOCKED.contains(&it))
        };
        let ends_a_hold = holds(self) && !holds(&done);
        if ends_a_hold || done.advanced_at != self.advanced_at {
            done.advanced_at = done.advanced_at.min(late.at);
        }
        // People have been asked since it was decided.
        let asked = done.asked_at.iter_mut();
        let asked = asked.filter(|(gate, _)| !self.asked_at.contains_key(*gate));
        asked.for_each(|(_, at)| *at = late.at);
        done.settle();
        Some(done)
    }

    /// Whether what was decided earlier has a status to write.
    pub fn late_writes_status(&self) -> bool {
        let late = self.late.as_ref();
        late.is_some_and(|it| it.decision.status != self.seen.status)
    }

    // What the surroundings do.

    /// The API server counts a change of the Rollout.
    pub fn edit_spec(&self, edit: impl FnOnce(&mut Observation)) -> Self {
        self.with(|next| {
            edit(&mut next.seen);
            next.seen.generation += 1;
            next.version += 1;
        })
    }

    pub fn version_of_template(&self) -> String {
        self.seen.spec.template.images()[0].to_owned()
    }

    pub fn push(&self, version: u8) -> Self {
        let pushed = self.edit_spec(|seen| {
            seen.spec.template.0 = template(version);
            let [author, changer] = people_behind(seen.spec.template.images()[0]);
            let annotations = [(AUTHORS, author), (CHANGED_BY_ANNOTATION, changer)];
            let annotations = annotations.map(|(key, who)| (key.to_owned(), who.to_owned()));
            seen.annotations.extend(annotations);
        });
        // Whoever pushes it again has asked for it again.
        pushed.with(|next| {
            next.condemned.clear();
            next.crashing = false;
            next.steps -= 1;
        })
    }

    /// The error budget begins to burn, or does not any more.
    pub fn burn(&self, on: bool) -> Self {
        let known = |change: &&Change| {
            let mut budgets = change.evidence.objectives.iter();
            budgets.any(|budget| budget.known && !budget.burning)
        };
        let blamed = self.canary().filter(known).map(|change| change.run.clone());
        self.with(|next| (next.burning, next.blamed) = (on, blamed))
    }

    /// Whether the error budget burns through the fault of the change under way.
    pub fn burns(&self) -> bool {
        let run = self.canary().map(|change| &change.run);
        self.burning && run.is_some() && self.blamed.as_ref() == run
    }

    /// Whether any pod could become available.
    pub fn pods_pend(&self) -> bool {
        self.seen
            .replica_sets
            .iter()
            .any(|set| set.available < set.replicas && !self.crashes(set))
    }

    /// Minutes that the present step bakes.
    fn bake(&self) -> i64 {
        let step = self.canary().and_then(present_step);
        step.map_or(0, |it| it.bake.signed().as_mins())
    }

    pub fn crashes(&self, set: &ReplicaSet) -> bool {
        let new = self.change().map(|it| it.pod_template_hash.as_str());
        self.crashing && new == Some(&set.hash)
    }

    pub fn pods_come(&self) -> Self {
        let crashes = self.seen.replica_sets.iter();
        let crashes: Vec<_> = crashes.map(|set| self.crashes(set)).collect();
        self.with(|next| {
            for (set, crashes) in next.seen.replica_sets.iter_mut().zip(crashes) {
                if !crashes {
                    (set.available, set.ready) = (set.replicas, set.replicas);
                }
            }
        })
    }

    /// One pod of a revision becomes available.
    pub fn pod_comes(&self, hash: &str) -> Self {
        self.with(|next| {
            for set in &mut next.seen.replica_sets {
                if set.hash == hash {
                    set.available += 1;
                    set.ready = set.available;
                }
            }
        })
    }

    /// Somebody deletes a ReplicaSet, and its pods with it.
    pub fn set_goes(&self, hash: &str) -> Self {
        self.with(|next| next.seen.replica_sets.retain(|set| set.hash != hash))
    }

    pub fn pod_goes(&self, hash: &str) -> Self {
        self.with(|next| {
            for set in &mut next.seen.replica_sets {
                if set.hash == hash {
                    set.available -= 1;
                    set.ready = set.available;
                }
            }
        })
    }

    pub fn pods_crash(&self) -> Self {
        let hash = self.change().map(|it| it.pod_template_hash.clone());
        self.with(|next| {
            next.crashing = true;
            for set in &mut next.seen.replica_sets {
                if Some(&set.hash) == hash.as_ref() {
                    (set.available, set.ready) = (0, 0);
                }
            }
        })
    }

    fn endpoints_now(&self) -> BTreeMap<String, BTreeMap<String, i32>> {
        let services = self
            .seen
            .traffic
            .services
            .iter()
            .filter_map(|(name, service)| {
                let hash = service.as_ref()?.selector.get(HASH_LABEL)?;
                let ready = self.set(hash).map_or(0, |set| set.available);
                let behind = (ready > 0).then(|| (hash.clone(), ready));
                Some((name.clone(), behind.into_iter().collect()))
            });
        services.collect()
    }

    fn route_is_taken(&self) -> bool {
        self.seen.traffic.routes.iter().all(|route| {
            let object = &route.object.as_ref().unwrap().object;
            let seen = object.pointer("/status/parents/0/conditions/0/observedGeneration");
            seen == object.pointer("/metadata/generation")
        })
    }

    pub fn follows(&self) -> bool {
        self.route_is_taken() && self.seen.traffic.endpoints == self.endpoints_now()
    }

    pub fn follow(&self) -> Self {
        let (endpoints, used) = (self.endpoints_now(), self.used());
        self.with(|next| {
            next.seen.traffic.endpoints = endpoints;
            next.believed = used;
            for route in &mut next.seen.traffic.routes {
                router::accept(&mut route.object.as_mut().unwrap().object);
            }
        })
    }

    /// Somebody else gives the canary half of the traffic.
    pub fn edit_route(&self) -> Self {
        self.with(|next| {
            next.edited = true;
            let route = next.seen.traffic.routes[0].object.as_mut().unwrap();
            route.last_writer = Some("argocd".into());
            let object = &mut route.object;
            for backend in [0, 1] {
                object["spec"]["rules"][0]["backendRefs"][backend]["weight"] = json!(50);
            }
            let generation = object["metadata"]["generation"].as_i64().unwrap();
            object["metadata"]["generation"] = json!(generation + 1);
        })
    }

    pub fn job_runs(&self) -> bool {
        self.seen.jobs().iter().any(|job| job.end.is_none())
    }

    pub fn job_ends(&self, well: bool) -> Self {
        let end = if well {
            JobEnd::Succeeded
        } else {
            JobEnd::Failed {
                reason: "BackoffLimitExceeded".into(),
                message: "Job has reached the specified backoff limit".into(),
            }
        };
        self.with(|next| {
            for job in next.seen.jobs.iter_mut().flatten().flatten() {
                job.end.get_or_insert_with(|| end.clone());
            }
        })
    }

    /// A minute passes, and Prometheus answers what it is asked.
    pub fn tick(&self) -> Self {
        // A bake stands still once the operator has seen that its pods are missing.
        let unseen = self.looked().key != self.key;
        self.with(|next| {
            let stepping = next.canary().is_some_and(|it| it.stage == Stage::Stepping);
            let serves = next.canary_set().is_some_and(|set| set.available > 0);
            next.baked += i64::from(stepping && (serves || unseen));
            // Endpoints take no minute, where no router has to follow them.
            if next.seen.traffic.routes.is_empty() {
                (next.seen.traffic.endpoints, next.believed) = (next.endpoints_now(), next.used());
            }
            next.seen.now = after(next.seen.now, 1);
            // Pods that are not there get no requests.
            let answer = if serves {
                next.evidence
            } else {
                Evidence::NoData
            };
            if next.evidence != Evidence::Away {
                for (_, end) in next.due() {
                    next.log.entry(end).or_insert(answer);
                }
            }
        })
    }

    pub fn sign(
        &self,
        user: &str,
        decision: SignOffDecision,
        gate: Option<String>,
    ) -> Option<Self> {
        let change = self.canary()?.clone();
        let named = |it: &SeenSignOff| {
            it.spec.run == change.run
                && it.spec.approver.username == user
                && it.spec.decision == decision
                && it.spec.gate == gate
        };
        if self.seen.people.sign_offs.iter().any(named) {
            return None;
        }
        Some(self.with(|next| {
            let number = next.seen.people.sign_offs.len();
            next.seen.people.sign_offs.push(SeenSignOff {
                name: format!("shop-{number}"),
                uid: format!("sign-off-{number}"),
                created_at: next.seen.now,
                spec: SignOffSpec {
                    rollout: "shop".into(),
                    rollout_uid: "uid".into(),
                    run: change.run,
                    digest: change.digest,
                    decision,
                    gate,
                    reason: Some("so be it".into()),
                    approver: person(user),
                    expires_at: None,
                },
                answer: None,
            });
        }))
    }

    pub fn command(&self, action: InterventionAction) -> Option<Self> {
        let change = self.change()?.clone();
        let pending = intervention::pending(&self.seen, &change);
        if pending.iter().any(|it| it.spec.action == action) {
            return None;
        }
        Some(self.with(|next| {
            if action == InterventionAction::Retry {
                next.condemned.remove(&change.digest);
            }
            let number = next.seen.people.interventions.len();
            next.seen.people.interventions.push(SeenIntervention {
                name: format!("shop-{number}"),
                uid: format!("intervention-{number}"),
                created_at: next.seen.now,
                version: u64::try_from(number).unwrap(),
                spec: InterventionSpec {
                    rollout: "shop".into(),
                    rollout_uid: "uid".into(),
                    step: (action == InterventionAction::Promote).then_some(change.step),
                    run: change.run,
                    digest: change.digest,
                    action,
                    reason: None,
                    person: person("dana"),
                },
                answered: false,
            });
        }))
    }

    /// Whether nothing happens but that time passes: the operator has nothing to do, and whatever it
    /// waits for is kept from coming.
    pub fn is_quiet(&self) -> bool {
        (self.stuck || !self.pods_pend())
            && (self.deaf || self.follows())
            && (self.hung || !self.job_runs())
            && self.late.is_none()
            && self.looked().key == self.key
    }

    /// Everything that a decision could depend on, without what only tells apart states that behave
    /// alike: absolute times, names with numbers, words, and how strong the evidence is.
    fn write_key(&self, key: &mut String) {
        let seen = &self.seen;
        let status = &seen.status;
        let ago = |at: Option<&Time>| {
            let minutes = at.map(|at| seen.now.duration_since(at.0).as_mins());
            minutes.map(|it| i8::try_from(it.clamp(-OLD, OLD)).unwrap())
        };
        let spec = (
            &seen.spec.template.images()[0],
            seen.spec.replicas,
            seen.spec.paused,
            seen.people.freezes.len(),
            seen.policies.first().map(|it| it.generation),
        );
        write!(key, "{spec:?}").unwrap();
        let stable = status.stable.as_ref();
        let stable = stable.map(|it| (&it.digest[..6], &it.pod_template_hash));
        write!(
            key,
            "{stable:?}{:?}{:?}",
            status.waiting_for, status.waiting_kind
        )
        .unwrap();
        if let Some(change) = &status.change {
            let last = change.transitions.last();
            let regressed = change.transitions.iter().any(|it| it.reason == "Regressed");
            let (smoke, plan) = (change.smoke.as_ref(), &change.plan);
            let bits = (
                &change.digest[..6],
                change.initial,
                change.tier,
                change.after_rollback,
                change.paused_by.is_some(),
                change.bake_skipped,
                smoke.map(|it| {
                    (
                        it.passed,
                        ago(it.since.as_ref()),
                        ago(it.started_at.as_ref()),
                    )
                }),
                (change.stage, change.step, change.weight, change.outcome),
                change.progress,
                (change.extended, change.previous.is_some(), regressed),
                last.map(|it| (&it.reason, ago(it.at.as_ref()))),
            );
            let steps = plan.steps.iter();
            let steps = steps.map(|it| (it.weight, it.bake, it.sign_off.len()));
            let steps: Vec<_> = steps.collect();
            let times = [
                &change.step_started_at,
                &change.available_at,
                &change.progressed_at,
                &change.evidence_since,
                &change.warm_from,
                &change.lost.as_ref().map(|lost| lost.since.clone()),
                &change.awaited_gates.values().next().cloned(),
                &change.watched_until,
                &change.kept_until,
                &change.evidence.from,
            ];
            let times = times.map(|at| ago(at.as_ref()));
            let signs = plan.promotion_sign_off.len();
            write!(key, "{bits:?}{steps:?}{signs}{times:?}").unwrap();
            for check in &change.evidence.checks {
                let counted = ago(check.last_window_end.as_ref());
                let enough = check.step_requests >= 10.0;
                let (last, verdict) = (&check.last, check.summary.verdict);
                write!(key, "{counted:?}{last:?}{verdict:?}{enough}").unwrap();
                if self.log.values().any(|it| *it == Evidence::Unclear) {
                    write!(key, "{:?}", check.canary).unwrap(); // it matters how strong the evidence is
                }
            }
            for budget in &change.evidence.objectives {
                let budget = (budget.burning, budget.burnt_before, budget.known);
                write!(key, "{budget:?}").unwrap();
            }
            let newest = self.log.values().next_back();
            let good = self.good_in_step();
            write!(key, "{newest:?}{good}").unwrap();
            let run = &change.run;
            let signed = seen
                .people
                .sign_offs
                .iter()
                .filter(|it| it.spec.run == *run);
            for it in signed {
                let (user, decision) = (&it.spec.approver.username, it.spec.decision);
                write!(key, "{user}{decision:?}{:?}{:?}", it.spec.gate, it.answer).unwrap();
            }
            if plan.steps.iter().any(|it| !it.sign_off.is_empty()) {
                write!(key, "{:?}", self.excluded_approvers).unwrap();
            }
            for it in intervention::pending(seen, change) {
                write!(key, "{:?}{:?}", it.spec.action, it.spec.step).unwrap();
            }
        }
        if let Some(split) = &status.traffic {
            let times = [&split.settled_at, &split.corrected_at];
            let times = times.map(|at| ago(at.as_ref()));
            let weights = (split.weight, split.settled_weight);
            let weights = (weights, split.lowest_weight, split.highest_weight);
            write!(key, "{weights:?}{times:?}").unwrap();
        }
        for set in &seen.replica_sets {
            let pods = (&set.hash, set.replicas, set.available, set.owned);
            write!(key, "{pods:?}").unwrap();
        }
        for service in seen.traffic.services.values().flatten() {
            write!(key, "{:?}", service.selector.get(HASH_LABEL)).unwrap();
        }
        let (share, taken) = (self.routed_share(), self.route_is_taken());
        write!(key, "{:?}{share:?}{taken}", seen.traffic.endpoints).unwrap();
        for job in seen.jobs() {
            let own = status.change.as_ref();
            let own = own.is_some_and(|it| job.name.starts_with(&it.run));
            write!(key, "{own}{:?}", job.end).unwrap();
        }
        for window in seen.analysis.windows.values().flat_map(|it| &it.due) {
            write!(key, "{:?}", self.log.get(&window.end)).unwrap();
        }
        let rolled_back = seen.history().iter();
        let rolled_back = rolled_back.filter(|it| it.outcome == Some(Outcome::RolledBack));
        let ever = rolled_back.count() > 0;
        let late = self.late.as_ref().map(|it| {
            let same = it.version == self.version;
            (it.key, same, it.status_version == self.status_version)
        });
        let age = |at: &Timestamp| seen.now.duration_since(*at).as_mins().clamp(0, OLD);
        let fresh = self.used_at.iter().filter(|(_, at)| **at == seen.now);
        let fresh: Vec<_> = fresh.map(|(hash, _)| hash).collect();
        let mut order: Vec<_> = seen.replica_sets.iter().map(|set| &set.hash).collect();
        order.sort_by_key(|hash| self.stable_at.get(*hash));
        let asked: Vec<_> = self
            .asked_at
            .iter()
            .map(|(gate, at)| (gate, age(at)))
            .collect();
        let ages = (age(&self.advanced_at), self.ended_at.as_ref().map(age));
        let past = (&self.believed, fresh, order, asked, ages, self.most);
        write!(
            key,
            "{past:?}{:?}",
            (self.baked, self.burning, self.burns(), self.spent)
        )
        .unwrap();
        let rest = (
            seen.recorded,
            ever,
            self.evidence,
            (self.stuck, self.deaf, self.hung, self.crashing),
            (self.crashed, self.refused, self.made_again, self.forgotten), // so that they are seen
            late,
            self.faults,
            self.edited,
            self.condemned.len(),
            &self.broken,
        );
        write!(key, "{rest:?}").unwrap();
    }

    /// Whether a window of the present step was good.
    pub fn good_in_step(&self) -> bool {
        let since = self.change().and_then(|it| it.step_started_at.as_ref());
        since.is_some_and(|since| {
            let mut log = self.log.iter();
            log.any(|(end, it)| *it == Evidence::Good && *end >= after(since.0, 1))
        })
    }
}

pub fn person(user: &str) -> Person {
    Person {
        username: user.into(),
        groups: vec![],
    }
}

const HEALTHY: ErrorRates = ErrorRates {
    five_minutes: 0.0001,
    half_hour: 0.0001,
    hour: 0.0001,
    six_hours: 0.0001,
    period: 0.0001,
};

/// Twenty times as fast as an objective of 99.9% allows.
const BURNING: ErrorRates = ErrorRates {
    five_minutes: 0.02,
    half_hour: 0.02,
    hour: 0.02,
    six_hours: 0.02,
    period: 0.0005,
};

/// The gate for people that a message names.
pub fn gate_of(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("gate ")?;
    rest.split_whitespace().next().map(ToOwned::to_owned)
}

fn outcome(evidence: Evidence, requests: f64, alone: bool) -> WindowOutcome {
    let stable = if alone {
        Counts::default()
    } else {
        counts(100_000.0, 10.0)
    };
    match evidence {
        Evidence::Good => WindowOutcome::Counted {
            canary: counts(requests, requests / 10_000.0),
            stable,
        },
        Evidence::Bad => WindowOutcome::Counted {
            canary: counts(100_000.0, 60_000.0),
            stable,
        },
        Evidence::Quiet => WindowOutcome::Counted {
            canary: counts(1.0, 0.0),
            stable,
        },
        Evidence::Unclear => WindowOutcome::Counted {
            canary: counts(requests, (requests / UNCLEAR).max(1.0)),
            stable,
        },
        Evidence::NoData => WindowOutcome::Uncounted {
            reason: Uncounted::NoSeries,
            message: "nothing".into(),
        },
        Evidence::Away => WindowOutcome::Unanswered {
            reason: Unanswered::PrometheusUnreachable,
            message: "connection refused".into(),
        },
    }
}
