//! The sums of a report. Pure: the same records give the same sums.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::rollout::{Observed, Outcome, Plan};
use countersign_api::step::Tier;
use countersign_api::{Duration, RolloutRun};
use countersign_core::plan;
use countersign_core::reason::Reason;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use crate::commands::report::coverage::{began, full_name, incomplete};

/// What enforcing would have done to the changes that policies only observed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Begin of the reported time.
    pub since: Timestamp,
    /// All changes.
    pub total: Sums,
    /// The changes of each tier, by all policies.
    pub tiers: BTreeMap<&'static str, Sums>,
    /// The changes of each policy that only observes.
    pub policies: BTreeMap<String, Sums>,
    /// The changes of each namespace.
    pub namespaces: BTreeMap<String, Sums>,
    /// Changes that would have waited, by the reason.
    pub reasons: BTreeMap<String, usize>,
    /// Changes that were rolled back by their evidence, and would have waited or gone in other steps.
    pub caught: Vec<Caught>,
    /// Rollouts whose older records within the time were removed.
    pub incomplete: Vec<String>,
}

/// Sums over some changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sums {
    /// Number of changes.
    pub changes: usize,
    /// Changes that would have waited for people.
    pub people: usize,
    /// Changes that would have taken more steps.
    pub more_steps: usize,
    /// Changes that would have waited for anything else than people and time.
    pub held: usize,
    /// Changes that were rolled back by their evidence.
    pub rolled_back: usize,
    /// Changes that were rolled back by their evidence and would have waited or gone in other steps.
    pub caught: usize,
    /// Least time that the steps would have added, in all.
    pub added_time: Duration,
    /// Median of the least time that the steps would have added to a change.
    pub median_added_time: Duration,
    #[serde(skip)]
    added: Vec<Duration>,
}

/// A change that was rolled back by its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Caught {
    /// Namespace and name of the Rollout.
    pub rollout: String,
    /// Number of the revision.
    pub revision: i64,
    /// Name of the RolloutRun.
    pub run: String,
    /// Tier by all policies.
    pub tier: Tier,
    /// Reason of the rollback.
    pub reason: String,
    /// Share of the traffic that the canary had then, in percent.
    pub weight: i32,
    /// What enforcing would have done.
    pub would: Vec<String>,
}

impl Summary {
    /// Sums up the changes that began at this time or later.
    #[must_use]
    pub fn of(runs: &[RolloutRun], since: Timestamp) -> Self {
        let mut summary = Self {
            since,
            total: Sums::default(),
            tiers: Tier::ALL
                .map(|tier| (tier.as_str(), Sums::default()))
                .into(),
            policies: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            reasons: BTreeMap::new(),
            caught: Vec::new(),
            incomplete: incomplete(runs, since),
        };
        let mut runs: Vec<_> = runs
            .iter()
            .filter(|run| began(run) >= Some(since))
            .collect();
        runs.sort_by_key(|run| (began(run), full_name(run), run.spec.revision));
        for run in runs {
            if let Some(observed) = &run.spec.observed {
                summary.add(run, observed);
            }
        }
        let parts = [&mut summary.policies, &mut summary.namespaces];
        let parts = parts.into_iter().flat_map(BTreeMap::values_mut);
        let parts = parts.chain(summary.tiers.values_mut());
        parts.chain([&mut summary.total]).for_each(Sums::finish);
        summary
    }

    fn add(&mut self, run: &RolloutRun, observed: &Observed) {
        let one = One::of(run, observed);
        self.total.add(&one);
        let tier = self.tiers.entry(observed.tier.as_str());
        tier.or_default().add(&one);
        let names = observed.policies.iter();
        let names = names.map(|it| it.rsplit_once('@').map_or(it.as_str(), |it| it.0));
        for name in names.collect::<BTreeSet<_>>() {
            let policy = self.policies.entry(name.to_owned());
            policy.or_default().add(&one);
        }
        let namespace = run.namespace().unwrap_or_default();
        self.namespaces.entry(namespace).or_default().add(&one);
        for reason in &one.reasons {
            *self.reasons.entry((*reason).to_owned()).or_default() += 1;
        }
        self.caught.extend(one.caught(run, observed));
    }
}

impl Sums {
    fn add(&mut self, one: &One) {
        self.changes += 1;
        self.people += usize::from(one.waits_for_people());
        self.more_steps += usize::from(one.more_steps);
        self.held += usize::from(one.is_held());
        self.rolled_back += usize::from(one.rolled_back.is_some());
        self.caught += usize::from(one.is_caught());
        let sum = self.added_time.std().saturating_add(one.added.std());
        self.added_time = sum.into();
        self.added.push(one.added);
    }

    /// Sets what all changes together are needed for.
    fn finish(&mut self) {
        self.added.sort_unstable();
        let middle = self.added.get(self.added.len() / 2);
        self.median_added_time = middle.copied().unwrap_or_default();
    }
}

/// One change.
struct One<'a> {
    /// The reasons for which it would have waited, each once.
    reasons: BTreeSet<&'a str>,
    more_steps: bool,
    added: Duration,
    /// Reason of the rollback and the weight before it, if evidence rolled it back.
    rolled_back: Option<(String, i32)>,
}

impl<'a> One<'a> {
    fn of(run: &RolloutRun, observed: &'a Observed) -> Self {
        let Plan { steps, .. } = &run.spec.plan;
        let taken = plan::least_time(&run.spec.plan).std();
        Self {
            reasons: observed.would.iter().map(|it| it.reason.as_str()).collect(),
            more_steps: usize::try_from(observed.steps).is_ok_and(|it| it > steps.len()),
            added: observed.least_time.std().saturating_sub(taken).into(),
            rolled_back: rolled_back(run),
        }
    }

    fn has(&self, reasons: &[Reason]) -> bool {
        let mut reasons = reasons.iter();
        reasons.any(|reason| self.reasons.contains(reason.as_str()))
    }

    fn waits_for_people(&self) -> bool {
        self.has(&[Reason::AwaitingSignOff, Reason::AwaitingPerson])
    }

    fn is_held(&self) -> bool {
        let others = [
            Reason::AwaitingSignOff.as_str(),
            Reason::AwaitingPerson.as_str(),
            Reason::Baking.as_str(),
        ];
        self.reasons.iter().any(|reason| !others.contains(reason))
    }

    fn is_caught(&self) -> bool {
        self.rolled_back.is_some() && !self.reasons.is_empty()
    }

    fn caught(&self, run: &RolloutRun, observed: &Observed) -> Option<Caught> {
        let (reason, weight) = self.rolled_back.clone().filter(|_| self.is_caught())?;
        Some(Caught {
            rollout: full_name(run),
            revision: run.spec.revision,
            run: run.name_any(),
            tier: observed.tier,
            reason,
            weight,
            would: observed.would.iter().map(|it| it.message.clone()).collect(),
        })
    }
}

/// The reason for which evidence rolled a change back, and the canary's weight until then.
fn rolled_back(run: &RolloutRun) -> Option<(String, i32)> {
    let progress = &run.spec.progress;
    let by_evidence = [
        Reason::AnalysisFailed,
        Reason::ErrorBudgetBurn,
        Reason::Regressed,
    ];
    let at = progress.transitions.iter().rposition(|line| {
        let mut reasons = by_evidence.iter();
        reasons.any(|reason| line.reason == *reason)
    })?;
    let line = progress.transitions.get(at)?;
    let before = at
        .checked_sub(1)
        .and_then(|at| progress.transitions.get(at));
    let weight = before.map_or(0, |line| line.weight);
    (progress.outcome == Some(Outcome::RolledBack)).then(|| (line.reason.clone(), weight))
}
