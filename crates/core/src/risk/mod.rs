//! The risk of a change, with its causes: points for declared and for observed facts.
//!
//! Start with [`risk_of`]. The score is a sum that can be computed by hand (`docs/risk.md`), and the
//! contributions are its terms. Invariant (law 7): more of any risk never gives a lower score or tier.

pub(crate) mod differences;
pub mod score;
pub(crate) mod template_defaults;

pub use crate::risk::differences::{differences, names_of};

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::policy::RiskModel;
use countersign_api::run::Contribution;
use countersign_api::step::Tier;

use crate::policy;
use crate::policy::invariants::CRITICAL;
use crate::provenance::Provenance;
use crate::risk::score::{Facts, Scale};

/// The risk of a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Risk {
    /// Sum of all points; five points double the odds.
    pub score: f64,
    /// The tier of the score, or the highest floor if that is higher.
    pub tier: Tier,
    /// Everything that adds points or demands a tier.
    pub contributions: Vec<Contribution>,
}

/// The risk of a change with this provenance and these facts.
///
/// Fields that the model omits are taken from the built-in policy, and its order is restored by
/// [`policy::complete`](crate::policy::complete).
#[must_use]
pub fn risk_of(provenance: &Provenance, facts: &Facts, model: &RiskModel) -> Risk {
    risk_of_both(provenance, None, facts, model)
}

/// The risk of a change with a declared and an attested provenance.
///
/// The worse of both counts, per factor, and every area of either: a declaration may raise the risk above
/// that of the attested provenance, and never lowers it.
#[must_use]
pub fn risk_of_both(
    declared: &Provenance,
    attested: Option<&Provenance>,
    facts: &Facts,
    model: &RiskModel,
) -> Risk {
    let scale = Scale(policy::complete(model));
    let both = || attested.into_iter().chain([declared]);
    let worst = |of: &dyn Fn(&Provenance) -> Option<Contribution>| {
        both().filter_map(of).reduce(score::worse)
    };
    let areas: BTreeSet<String> = both().flat_map(|it| it.touches.clone()).collect();
    let of_code =
        |contribution: Option<Contribution>| contribution.filter(|_| !facts.manifest_only);
    let contributions: Vec<Contribution> = [
        of_code(worst(&|it| scale.authorship(it))),
        of_code(worst(&|it| scale.autonomy(it))),
        of_code(worst(&|it| scale.size(it.lines))),
        of_code(worst(&|it| scale.subsystems(it.subsystems))),
        worst(&|it| scale.review(&it.review())).filter(|_| facts.needs_review()),
        of_code(worst(&|it| scale.tests(it.tests))),
        of_code(scale.touches(&areas)),
        scale.differences(&facts.differences),
        scale.criticality(facts.criticality.as_deref()),
        scale.exposure(facts.exposed),
        scale.rollbacks(facts),
    ]
    .into_iter()
    .flatten()
    .map(score::with_numbers)
    .collect();

    let score = score::rounded(
        contributions
            .iter()
            .map(|contribution| contribution.points)
            .sum(),
    );
    let floors = contributions
        .iter()
        .filter_map(|contribution| contribution.floor);
    let tier = floors.fold(scale.tier(score), Tier::max);
    Risk {
        score,
        tier,
        contributions,
    }
}

/// The criticality of a service, by the model's label on its Rollout and its namespace. If both have one,
/// or the model has several labels, the value with most points counts: a service team cannot lower the
/// criticality of its namespace.
#[must_use]
pub fn criticality(
    model: &RiskModel,
    rollout_labels: &BTreeMap<String, String>,
    namespace_labels: &BTreeMap<String, String>,
) -> Option<String> {
    let scale = Scale(policy::complete(model));
    let labels = scale.0.criticality.label.as_deref().unwrap_or_default();
    let values = labels.split(',').flat_map(|label| {
        [rollout_labels, namespace_labels]
            .into_iter()
            .filter_map(move |labels| labels.get(label))
    });
    values.map(|value| value.to_lowercase()).max_by(|a, b| {
        let weight = |value| scale.points_of_criticality(value);
        weight(a)
            .total_cmp(&weight(b))
            .then_with(|| (a == CRITICAL).cmp(&(b == CRITICAL)))
    })
}

#[cfg(test)]
pub(crate) mod tests;
