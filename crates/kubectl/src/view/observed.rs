//! What policies that only observe would have demanded of a change, for people.

use countersign_api::rollout::Observed;

/// The heading of what would have been otherwise.
#[must_use]
pub fn heading(observed: &Observed) -> String {
    format!(
        "Not enforced: {} (tier {}, {:.1} points)",
        observed.policies.join(", "),
        observed.tier,
        observed.score
    )
}

/// What would have been otherwise, in sentences.
#[must_use]
pub fn lines(observed: &Observed) -> Vec<String> {
    let would: Vec<_> = observed.would.iter().map(|it| it.message.clone()).collect();
    if would.is_empty() {
        return vec!["would have gone the same way".to_owned()];
    }
    would
}
