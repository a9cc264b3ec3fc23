//! Fields that the API server has dropped from what was written, since its definition of the kind does not have them.

use serde_json::Value;

/// The first field of a written value that the stored one lacks, such as `.change.begun`.
pub(super) fn dropped(written: &Value, stored: &Value) -> Option<String> {
    match (written, stored) {
        (Value::Object(written), Value::Object(stored)) => {
            written
                .iter()
                .find_map(|(key, written)| match stored.get(key) {
                    Some(stored) => Some(format!(".{key}{}", dropped(written, stored)?)),
                    None => (!written.is_null()).then(|| format!(".{key}")),
                })
        }
        // Another writer may have added items to a list, of which the pairs are then not known.
        (Value::Array(written), Value::Array(stored)) if written.len() == stored.len() => {
            let mut pairs = written.iter().zip(stored).enumerate();
            pairs.find_map(|(at, (written, stored))| {
                Some(format!("[{at}]{}", dropped(written, stored)?))
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_field_that_is_not_stored_is_named_by_its_place() {
        let written =
            json!({ "change": { "begun": true, "lines": [{ "at": 1, "step": 2 }] }, "none": null });
        let stored = |change: Value| json!({ "change": change, "more": 1 });
        let dropped_of = |change: Value| dropped(&written, &stored(change));
        let lines = json!([{ "at": 1, "step": 2.0, "more": 3 }]);
        assert_eq!(dropped_of(json!({ "begun": true, "lines": lines })), None);
        let begun = dropped_of(json!({ "lines": lines }));
        assert_eq!(begun.as_deref(), Some(".change.begun"));
        let step = dropped_of(json!({ "begun": true, "lines": [{ "at": 1 }] }));
        assert_eq!(step.as_deref(), Some(".change.lines[0].step"));
        let other = json!({ "begun": true, "lines": [] });
        assert_eq!(dropped_of(other), None, "another list");
    }
}
