//! The policies that govern a Rollout, and their combined demands.
//!
//! Three rules, in this order: the strictest of several policies wins, field by field; fields that none of
//! them names are taken from the built-in policy; and values that break an invariant are corrected (an
//! unknown answer has at least the points of any declared one, a higher tier demands at least as much as a
//! lower one). Start with [`effective`].
//!
//! Invariant: naming a field in one more policy never loosens what another policy names.

pub mod corrections;
pub mod defaults;
pub mod enforcement;
pub mod invariants;
pub mod merge;
pub mod sign_off_demand;
pub mod steps;

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::first_revision::FirstRevision;
use countersign_api::freeze::{FreezeWindow, IncidentQuery};
use countersign_api::policy::{Concurrency, History, People, RiskModel, RolloutPolicySpec, Tiers};
use countersign_api::provenance::{Covers, ReviewSource, Trust, TrustedKey};
use countersign_api::step::{SignOffDemand, Tier};
use countersign_api::{Check, Duration, Objective};

use crate::observation::people::NamedPolicy;
use crate::policy::defaults::BUILT_IN_NAME;

/// The combined demands of all policies that govern a Rollout, with every field set.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// How risk is scored, with every field set.
    pub risk: RiskModel,
    /// What each tier demands, with every field set; a higher tier demands at least what a lower one does.
    pub tiers: Tiers,
    /// The people whom first revisions wait for, of each policy that names some.
    pub first_revision: Vec<FirstRevision>,
    /// The checks of all policies, each under the name `policy/check`.
    pub checks: Vec<(String, Check)>,
    /// The objectives of all policies, each under the name `policy/objective`.
    pub objectives: Vec<(String, Objective)>,
    /// The shortest interval that a policy names.
    pub interval: Option<Duration>,
    /// The longest warm-up that a policy names.
    pub warm_up: Duration,
    /// The longest watch after a promotion that a policy names.
    pub post_promotion: Duration,
    /// Tiers whose changes do not start while an error budget is spent.
    pub budget_tiers: BTreeSet<Tier>,
    /// The sources: each policy as `name@generation`, and `built-in` if it supplied fields.
    pub sources: Vec<String>,
    /// Versions of the risk weights, each as `policy: version`.
    pub versions: Vec<String>,
    /// The names of people and the groups of agents, of all policies.
    pub people: People,
    /// Which provenance may lower the risk.
    pub trust: Trust,
    /// Keys by policy: an attestation must be signed by one key of each policy that has any.
    pub keys: Vec<Vec<TrustedKey>>,
    /// The shortest age of an attestation that a policy names.
    pub max_age: Option<Duration>,
    /// What an attestation must name.
    pub covers: Covers,
    /// The sources of reviews that all policies accept; `None` if they accept any.
    pub review_sources: Option<BTreeSet<ReviewSource>>,
    /// Windows of freezing, each under the name `policy/window`.
    pub windows: Vec<FreezeWindow>,
    /// Incident queries, each with the name of its policy.
    pub incidents: Vec<(String, IncidentQuery)>,
    /// Limits on changes that run at once, each with the name of its policy.
    pub concurrency: Vec<(String, Concurrency)>,
    /// How long records are kept.
    pub history: History,
}

impl Effective {
    /// The sign-offs that all policies together require before the first pod of a first revision of this tier.
    #[must_use]
    pub fn first_sign_off(&self, tier: Tier) -> Vec<SignOffDemand> {
        let requiring = self.first_revision.iter().filter(|it| it.from_tier <= tier);
        requiring.fold(Vec::new(), |all, it| {
            merge::every_demand(&all, &it.sign_off)
        })
    }

    /// Whether a review of this source counts; of an unknown one only if no policy names any.
    #[must_use]
    pub fn accepts_review(&self, source: Option<ReviewSource>) -> bool {
        let accepted = self.review_sources.as_ref();
        accepted.is_none_or(|accepted| source.is_some_and(|it| accepted.contains(&it)))
    }
}

/// Whether sources, each as `name@generation`, name a policy.
#[must_use]
pub fn is_named(policy: &str, sources: &[String]) -> bool {
    let mut names = sources.iter().filter_map(|it| it.rsplit_once('@'));
    names.any(|(name, _)| name == policy)
}

/// Whether a policy governs a Rollout with these labels in a namespace with those.
#[must_use]
pub fn governs(
    spec: &RolloutPolicySpec,
    namespace_labels: &BTreeMap<String, String>,
    rollout_labels: &BTreeMap<String, String>,
) -> bool {
    let selected = |selector: &Option<countersign_api::Selector>,
                    labels: &BTreeMap<String, String>| {
        selector
            .as_ref()
            .is_none_or(|selector| selector.matches(labels))
    };
    selected(&spec.namespace_selector, namespace_labels)
        && selected(&spec.rollout_selector, rollout_labels)
}

/// The combined demands of these policies; the built-in policy alone if there are none.
#[must_use]
pub fn effective(policies: &[NamedPolicy]) -> Effective {
    let mut policies: Vec<&NamedPolicy> = policies.iter().collect();
    policies.sort_by(|a, b| (&a.name, a.generation).cmp(&(&b.name, b.generation)));
    policies.dedup();

    let (risk, tiers) = policies.iter().fold(
        (RiskModel::default(), Tiers::default()),
        |(risk, tiers), NamedPolicy { spec, .. }| {
            (
                merge::strictest_risk(&risk, &spec.risk),
                merge::each_tier(&tiers, &spec.tiers, merge::strictest_demands),
            )
        },
    );
    let filled_risk = defaults::filled_risk(&risk, &defaults::built_in().risk);
    let filled_tiers = merge::each_tier(
        &tiers,
        &defaults::built_in().tiers,
        defaults::filled_demands,
    );
    let fills = policies.is_empty() || filled_risk != risk || filled_tiers != tiers;
    let (sources, versions) = sources_and_versions(&policies, fills);
    let analyses = || {
        policies
            .iter()
            .filter_map(|it| Some((&it.name, it.spec.analysis.as_ref()?)))
    };
    let provenance = || policies.iter().map(|it| &it.spec.provenance);
    Effective {
        risk: invariants::ordered(filled_risk),
        tiers: invariants::rising(&filled_tiers),
        first_revision: policies
            .iter()
            .filter_map(|it| it.spec.first_revision.clone())
            .collect(),
        checks: analyses()
            .flat_map(|(policy, analysis)| analysis.checks.iter().map(move |check| (policy, check)))
            .map(|(policy, check)| (format!("{policy}/{}", check.name), check.clone()))
            .collect(),
        objectives: analyses()
            .flat_map(|(policy, analysis)| analysis.objectives.iter().map(move |it| (policy, it)))
            .map(|(policy, it)| (format!("{policy}/{}", it.name), it.clone()))
            .collect(),
        interval: analyses().map(|(_, analysis)| analysis.interval).min(),
        warm_up: greatest(analyses().filter_map(|(_, analysis)| analysis.warm_up)),
        post_promotion: greatest(analyses().filter_map(|(_, analysis)| analysis.post_promotion)),
        budget_tiers: policies
            .iter()
            .flat_map(|it| it.spec.error_budget.tiers.iter().copied())
            .collect(),
        sources,
        versions,
        people: all_people(&policies),
        trust: greatest(provenance().filter_map(|it| it.trust)),
        keys: provenance()
            .map(|it| it.keys.clone())
            .filter(|keys| !keys.is_empty())
            .collect(),
        max_age: provenance().filter_map(|it| it.max_age).min(),
        covers: greatest(provenance().filter_map(|it| it.covers)),
        review_sources: accepted_by_all(provenance().filter_map(|it| it.review_sources.as_ref())),
        windows: policies.iter().flat_map(|it| named_windows(it)).collect(),
        incidents: policies
            .iter()
            .filter_map(|it| Some((it.name.clone(), it.spec.freeze.incident.clone()?)))
            .collect(),
        concurrency: policies
            .iter()
            .filter_map(|it| Some((it.name.clone(), it.spec.concurrency.clone()?)))
            .collect(),
        history: longest_history(&policies),
    }
}

/// The policies by name and generation, and the versions of their risk models; the built-in policy is among
/// them if it `fills` what the others leave out.
fn sources_and_versions(policies: &[&NamedPolicy], fills: bool) -> (Vec<String>, Vec<String>) {
    let sources = policies.iter();
    let sources = sources.map(|policy| format!("{}@{}", policy.name, policy.generation));
    let built_in = &defaults::built_in().risk;
    let models = policies.iter().map(|it| (&*it.name, &it.spec.risk));
    let models = models.chain(fills.then_some((BUILT_IN_NAME, built_in)));
    let versions =
        models.filter_map(|(name, risk)| Some(format!("{name}: {}", risk.version.as_ref()?)));
    let built_in = fills.then(|| BUILT_IN_NAME.to_owned());
    (sources.chain(built_in).collect(), versions.collect())
}

fn greatest<T: Default + Ord>(values: impl Iterator<Item = T>) -> T {
    values.max().unwrap_or_default()
}

/// The sources that every one of these lists has; `None` if there is no list.
fn accepted_by_all<'a>(
    lists: impl Iterator<Item = &'a Vec<ReviewSource>>,
) -> Option<BTreeSet<ReviewSource>> {
    lists
        .map(|list| list.iter().copied().collect::<BTreeSet<_>>())
        .reduce(|all, one| all.intersection(&one).copied().collect())
}

fn longest_history(policies: &[&NamedPolicy]) -> History {
    let named = policies.iter().map(|it| it.spec.history);
    let named = named.fold(History::default(), merge::longest_history);
    let built_in = defaults::built_in().history;
    History {
        runs: named.runs.or(built_in.runs),
        keep_for: named.keep_for.or(built_in.keep_for),
    }
}

fn all_people(policies: &[&NamedPolicy]) -> People {
    let all = || policies.iter().map(|it| &it.spec.people);
    People {
        aliases: all().flat_map(|it| it.aliases.clone()).collect(),
        agent_groups: all().flat_map(|it| it.agent_groups.clone()).collect(),
        require_known: all().any(|it| it.require_known),
    }
}

fn named_windows(policy: &NamedPolicy) -> impl Iterator<Item = FreezeWindow> {
    policy
        .spec
        .freeze
        .windows
        .iter()
        .map(|window| FreezeWindow {
            name: format!("{}/{}", policy.name, window.name),
            ..window.clone()
        })
}

/// A risk model with every field set, corrected to keep the invariants. Scores are only computed by
/// such a model, so that the laws hold for any policy.
#[must_use]
pub fn complete(risk: &RiskModel) -> RiskModel {
    invariants::ordered(defaults::filled_risk(
        &merge::strictest_risk(&RiskModel::default(), risk),
        &defaults::built_in().risk,
    ))
}

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;
