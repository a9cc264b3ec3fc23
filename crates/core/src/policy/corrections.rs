//! Values of a policy that do not count as they are written, since they break an invariant.

use countersign_api::policy::{RiskModel, RolloutPolicySpec, Tiers};
use serde::Serialize;
use serde_json::Value;

use crate::policy::{complete, defaults, invariants, merge};

/// The values of a policy that count as others, if no further policy governs a Rollout; each in a sentence.
#[must_use]
pub fn corrections(spec: &RolloutPolicySpec) -> Vec<String> {
    let risk = merge::strictest_risk(&RiskModel::default(), &spec.risk);
    let demands = merge::strictest_demands;
    let tiers = merge::each_tier(&Tiers::default(), &spec.tiers, demands);
    let built_in = &defaults::built_in().tiers;
    let filled = merge::each_tier(&tiers, built_in, defaults::filled_demands);
    let mut found = Vec::new();
    compare(
        "risk",
        &plain(&risk),
        &plain(&complete(&spec.risk)),
        &mut found,
    );
    let counted = invariants::rising(&filled);
    compare("tiers", &plain(&tiers), &plain(&counted), &mut found);
    found
}

fn plain(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// Adds the written values that differ from those that count.
fn compare(path: &str, written: &Value, counted: &Value, found: &mut Vec<String>) {
    match (written, counted) {
        (Value::Object(written), Value::Object(counted)) => {
            for (key, value) in written {
                let counted = counted.get(key).unwrap_or(&Value::Null);
                compare(&format!("{path}.{key}"), value, counted, found);
            }
        }
        (written, counted) if written == counted => {}
        (Value::Array(_), _) => {
            found.push(format!(
                "{path} counts together with that of the tiers below"
            ));
        }
        (written, counted) => found.push(format!(
            "{path} is {} and counts as {}",
            shown(written),
            shown(counted)
        )),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value
            .as_f64()
            .map_or_else(|| value.to_string(), |number| number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrections_of(spec: &str) -> Vec<String> {
        corrections(&serde_saphyr::from_str(spec).unwrap())
    }

    #[test]
    fn a_value_that_counts_as_another_is_named_with_both() {
        for (spec, expected) in [
            (
                "risk: { points: { aiShare: 9, contributorUnknown: 1.5 } }",
                "risk.points.contributorUnknown is 1.5 and counts as 9",
            ),
            (
                "risk: { touches: { auth: 120 } }",
                "risk.touches.auth is 120 and counts as 100",
            ),
            (
                "risk: { thresholds: { high: 900, critical: 800 } }",
                "risk.thresholds.high is 900 and counts as 800",
            ),
            (
                "tiers: { medium: { minBake: 20m }, high: { minBake: 2m } }",
                "tiers.high.minBake is 2m and counts as 20m",
            ),
            (
                "tiers: { medium: { signOff: [{ count: 2, groups: [a] }] }, high: { signOff: [] } }",
                "tiers.high.signOff counts together with that of the tiers below",
            ),
        ] {
            assert_eq!(corrections_of(spec), [expected], "{spec}");
        }
    }

    #[test]
    fn a_policy_in_order_is_taken_as_it_is() {
        for spec in [
            "{}",
            "risk: { version: a, points: { aiShare: 6 }, touches: { Auth: 5 } }",
            "tiers: { high: { minBake: 20m, signOff: [{ count: 1, groups: [b, a] }] } }",
        ] {
            assert_eq!(corrections_of(spec), [""; 0], "{spec}");
        }
        assert_eq!(corrections(defaults::built_in()), [""; 0]);
    }
}
