//! The chart's admission policies as this version has them. The operator compares the installed ones with
//! them before it counts a sign-off, and `kubectl countersign check` for a person.

use serde_json::Value;

macro_rules! chart_file {
    ($name:literal) => {
        include_str!(concat!(
            "../../../charts/countersign/admission/",
            $name,
            ".yaml"
        ))
    };
}

/// The chart's files that prove the author of an object, which the installed objects must equal before each
/// use of one.
pub const PROOF: &[&str] = &[
    chart_file!("validating-changed-by"),
    chart_file!("validating-controller-only"),
    chart_file!("validating-exact-change"),
    chart_file!("validating-intervention"),
    chart_file!("validating-separate-duties"),
    chart_file!("validating-sign-off"),
    chart_file!("validating-stamped"),
];
/// The chart's other files, which the installed objects must equal, too. What the mutating ones write is
/// verified by validating ones.
pub const PROTECTION: &[&str] = &[
    chart_file!("mutating-changed-by"),
    chart_file!("mutating-person"),
    chart_file!("validating-declared-by"),
    chart_file!("validating-freeze"),
    chart_file!("validating-fresh-provenance"),
    chart_file!("validating-immutable-config"),
    chart_file!("validating-operator-confined"),
    chart_file!("validating-owned"),
    chart_file!("validating-owned-labels"),
    chart_file!("validating-owned-pods"),
    chart_file!("validating-owned-scale"),
    chart_file!("validating-pinned-images"),
    chart_file!("validating-rollouts-only"),
    chart_file!("validating-steady-traffic"),
    chart_file!("validating-traffic-rights"),
];
/// The chart's placeholder for the operator's user.
const OPERATOR: &str = "system:serviceaccount:NAMESPACE:NAME";

/// Every policy and binding of these files for an operator of this user name. A test proves that all files can
/// be parsed.
#[must_use]
pub fn objects(files: &[&str], operator: &str) -> Vec<Value> {
    let documents = files.iter().flat_map(|file| {
        let file = file.replace(OPERATOR, operator);
        serde_saphyr::from_multiple::<Value>(&file).unwrap_or_default()
    });
    documents.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_chart_is_expected_and_can_be_read() {
        let directory = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../charts/countersign/admission"
        );
        let files = std::fs::read_dir(directory).unwrap();
        let mut texts: Vec<_> = files
            .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        let mut known = [PROOF, PROTECTION].concat();
        texts.sort();
        known.sort_unstable();
        assert_eq!(texts, known);

        let objects = objects(&known, "system:serviceaccount:here:countersign");
        let kind = |object: &Value| object["kind"].as_str().unwrap().to_owned();
        let policies = objects.iter().filter(|it| kind(it).ends_with("Policy"));
        assert_eq!(
            (policies.count(), objects.len()),
            (known.len(), 2 * known.len())
        );
        for object in &objects {
            let text = object.to_string();
            assert!(
                object["spec"].is_object() && !text.contains("NAMESPACE"),
                "{text}"
            );
        }
        let all = serde_json::to_string(&objects).unwrap();
        assert!(all.contains("system:serviceaccount:here:countersign"));
    }

    /// The API server evaluates a policy once for each parameter, so those with parameters are for rare writes.
    #[test]
    fn policies_with_parameters_match_rare_writes_alone() {
        let objects = objects(&[PROOF, PROTECTION].concat(), OPERATOR);
        let with_parameters = objects
            .iter()
            .filter(|it| !it["spec"]["paramKind"].is_null());
        let rules = with_parameters.flat_map(|it| {
            let rules = it["spec"]["matchConstraints"]["resourceRules"].as_array();
            rules.unwrap()
        });
        let mut matched = 0;
        for rule in rules {
            let operations = rule["operations"].as_array().unwrap();
            for resource in rule["resources"].as_array().unwrap() {
                let is_rare = match resource.as_str().unwrap() {
                    "pods" | "pods/ephemeralcontainers" | "pods/resize" => {
                        operations.iter().all(|it| it == "UPDATE")
                    }
                    resource => ["signoffs", "interventions", "replicasets/scale", "services"]
                        .contains(&resource),
                };
                assert!(is_rare, "{operations:?} {resource}");
                matched += 1;
            }
        }
        assert!(matched > 0);
    }
}
