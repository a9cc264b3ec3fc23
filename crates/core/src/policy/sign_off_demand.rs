//! Whether one demand of sign-offs includes another.

use countersign_api::step::SignOffDemand;

/// Whether all signers that meet `a` also meet `b`.
#[must_use]
pub fn includes(a: &SignOffDemand, b: &SignOffDemand) -> bool {
    let each_of_a_may_sign_b = b.groups.is_empty()
        || (!a.groups.is_empty() && a.groups.iter().all(|group| b.groups.contains(group)));
    a.count >= b.count && each_of_a_may_sign_b
}
