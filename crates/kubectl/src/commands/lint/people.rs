//! Demands of sign-offs that name nobody.

use countersign_api::step::{SignOffDemand, Tier};

use crate::manifests::finding::{Finding, join};
use crate::manifests::yaml::Node;

/// The demands of a policy, each of a tier or of one of its steps.
pub(super) fn of_policy(spec: &Node) -> Vec<Finding> {
    let tiers = Tier::ALL.into_iter().filter_map(|tier| {
        let path = format!("tiers.{tier}");
        Some((spec.find(&["tiers", tier.as_str()])?, path))
    });
    let first = spec.get("firstRevision");
    let first = first.map(|node| lists(node, "firstRevision", &["signOff"]));
    tiers
        .flat_map(|(tier, path)| {
            let own = lists(tier, &path, &["signOff", "promotionSignOff"]);
            own.into_iter().chain(of_steps(tier, &path))
        })
        .chain(first.into_iter().flatten())
        .collect()
}

/// The demands that a Rollout makes itself.
pub(super) fn of_canary(canary: &Node) -> Vec<Finding> {
    let path = "strategy.canary";
    let own = lists(canary, path, &["promotionSignOff"]);
    own.into_iter().chain(of_steps(canary, path)).collect()
}

fn of_steps(node: &Node, path: &str) -> Vec<Finding> {
    let steps = node.get("steps").into_iter().flat_map(Node::items);
    let indexed = steps.enumerate();
    indexed
        .flat_map(|(index, step)| lists(step, &format!("{path}.steps[{index}]"), &["signOff"]))
        .collect()
}

fn lists(node: &Node, path: &str, keys: &[&str]) -> Vec<Finding> {
    let named = |key: &&str| Some((join(path, key), node.get(key)?));
    let lists = keys.iter().filter_map(named);
    lists
        .flat_map(|(path, list)| list.items().iter().filter_map(move |it| unnamed(it, &path)))
        .collect()
}

/// A demand without groups: any user with the role may sign, and nobody else.
fn unnamed(node: &Node, path: &str) -> Option<Finding> {
    let demand: SignOffDemand = serde_json::from_value(node.json()).ok()?;
    let people = match demand.count {
        1 => "1 person".to_owned(),
        count => format!("{count} people"),
    };
    let message = format!(
        "spec.{path} requires {people} and names no groups: all users with the verb approve can sign, such as those with a role of verbs [\"*\"], and if there are none the change is rolled back after waitAtMost; name groups"
    );
    demand
        .groups
        .is_empty()
        .then(|| Finding::warning(node.at, message))
}
