//! Comparison of the definitions of the custom resources with those that an API server has stored.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// A field that Kubernetes before 1.31 does not keep.
const OPTIONAL: &str = "selectableFields";

/// The first place at which a stored definition is not the expected one, such as `spec.versions[0].name`.
#[must_use]
pub fn difference(
    expected: &CustomResourceDefinition,
    stored: &CustomResourceDefinition,
) -> Option<String> {
    let versions = |it: &CustomResourceDefinition| {
        let versions = serde_json::to_value(&it.spec.versions);
        versions.unwrap_or_default()
    };
    let place = place(&versions(expected), &versions(stored))?;
    Some(format!("spec.versions{place}"))
}

/// The first place at which two values differ. A number is the same whether or not it is written with a fraction.
fn place(expected: &Value, stored: &Value) -> Option<String> {
    match (expected, stored) {
        (Value::Object(expected), Value::Object(stored)) => {
            let others = stored.keys().filter(|key| !expected.contains_key(*key));
            let mut keys = expected.keys().chain(others);
            keys.find_map(|key| {
                let inner = match (expected.get(key), stored.get(key)) {
                    (Some(expected), Some(stored)) => place(expected, stored)?,
                    // The API server leaves out what says nothing.
                    (Some(Value::Bool(false) | Value::Null), None) => return None,
                    (Some(_), None) if key == OPTIONAL => return None,
                    _ => String::new(),
                };
                Some(format!(".{key}{inner}"))
            })
        }
        (Value::Array(expected), Value::Array(stored)) if expected.len() == stored.len() => {
            let mut pairs = expected.iter().zip(stored).enumerate();
            pairs.find_map(|(at, (expected, stored))| {
                Some(format!("[{at}]{}", place(expected, stored)?))
            })
        }
        (Value::Number(expected), Value::Number(stored)) => {
            (expected.as_f64() != stored.as_f64()).then(String::new)
        }
        _ => (expected != stored).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_place() {
        let expected = json!({ "a": [{ "b": 1 }, { "c": 2.0 }] });
        let place_in = |stored: Value| place(&expected, &stored);
        assert_eq!(place_in(json!({ "a": [{ "b": 1.0 }, { "c": 2 }] })), None);
        let other = place_in(json!({ "a": [{ "b": 1 }, { "c": 3 }] }));
        assert_eq!(other.as_deref(), Some(".a[1].c"));
        let more = place_in(json!({ "a": [{ "b": 1, "d": 0 }, { "c": 2 }] }));
        assert_eq!(more.as_deref(), Some(".a[0].d"));
        let fewer = place_in(json!({ "a": [] }));
        assert_eq!(fewer.as_deref(), Some(".a"));
    }

    #[test]
    fn what_an_api_server_leaves_out_is_no_difference() {
        let expected = json!({
            "a": [], "nullable": false, "selectableFields": [{ "jsonPath": ".a" }],
        });
        assert_eq!(place(&expected, &json!({ "a": [] })), None);
        let other = json!({ "a": [], "selectableFields": [{ "jsonPath": ".b" }] });
        let other = place(&expected, &other);
        assert_eq!(other.as_deref(), Some(".selectableFields[0].jsonPath"));
    }

    #[test]
    fn a_definition_differs_from_one_without_a_column() {
        let expected = crate::crds().remove(0);
        let mut stored = expected.clone();
        assert_eq!(difference(&expected, &stored), None);
        stored.spec.versions[0].additional_printer_columns = None;
        assert_eq!(
            difference(&expected, &stored).unwrap(),
            "spec.versions[0].additionalPrinterColumns"
        );
    }
}
