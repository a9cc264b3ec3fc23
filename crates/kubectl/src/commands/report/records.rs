//! RolloutRuns in files, as `kubectl get` prints them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use countersign_api::{GROUP, RolloutRun};
use countersign_core::text::{excerpt, sanitize_to};
use serde_json::Value;

/// Most bytes of one file: some ten thousand records with their templates.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Longest message of a reader, in characters.
const MAX_MESSAGE: usize = 400;

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The file cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, io::Error),
    /// The file is too large.
    #[error("{0} has more than 256 MiB: give several files, each of some namespaces")]
    TooLarge(String),
    /// The file is neither JSON nor YAML.
    #[error("{0} is neither JSON nor YAML: {1}")]
    Invalid(String, String),
    /// A RolloutRun of the file is not as this build knows it.
    #[error("RolloutRun {run} in {file} cannot be read: {why}")]
    InvalidRun {
        /// The file.
        file: String,
        /// The RolloutRun's name.
        run: String,
        /// What is wrong.
        why: String,
    },
    /// The files hold no RolloutRun.
    #[error("there is no RolloutRun in {0}: give what `kubectl get crr -A -o json` prints")]
    None(String),
}

/// The RolloutRuns of these files; other objects are left out.
pub fn read(paths: &[PathBuf]) -> Result<Vec<RolloutRun>, RecordsError> {
    let mut runs = Vec::new();
    for path in paths {
        let name = name_of(path);
        let text = text(path, &name)?;
        let invalid = |why: String| RecordsError::Invalid(name.clone(), shortened(&why));
        let documents: Vec<Value> = if text.trim_start().starts_with('{') {
            let objects = serde_json::Deserializer::from_str(&text).into_iter();
            let objects: Result<Vec<Value>, _> = objects.collect();
            objects.map_err(|error| invalid(error.to_string()))?
        } else {
            serde_saphyr::from_multiple(&text).map_err(|error| invalid(error.to_string()))?
        };
        for document in documents {
            collect(document, &name, &mut runs)?;
        }
    }
    if runs.is_empty() {
        let names: Vec<_> = paths.iter().map(|path| name_of(path)).collect();
        return Err(RecordsError::None(names.join(", ")));
    }
    Ok(runs)
}

fn text(path: &Path, name: &str) -> Result<String, RecordsError> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    let length = read.map_err(|error| RecordsError::Unreadable(name.to_owned(), error))?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_BYTES) {
        return Err(RecordsError::TooLarge(name.to_owned()));
    }
    String::from_utf8(bytes)
        .map_err(|_| RecordsError::Invalid(name.to_owned(), "it is not UTF-8 text".to_owned()))
}

/// Adds a RolloutRun, or those of a list.
fn collect(object: Value, file: &str, runs: &mut Vec<RolloutRun>) -> Result<(), RecordsError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (text("kind"), text("apiVersion"));
    let is_ours = version.split_once('/').is_some_and(|it| it.0 == GROUP);
    if kind == "RolloutRun" && is_ours {
        let run = object.pointer("/metadata/name").and_then(Value::as_str);
        let run = excerpt(run.unwrap_or_default());
        let read = serde_json::from_value(object).map_err(|error| RecordsError::InvalidRun {
            file: file.to_owned(),
            run,
            why: shortened(&error.to_string()),
        });
        runs.push(read?);
        return Ok(());
    }
    if !kind.ends_with("List") {
        return Ok(());
    }
    match object {
        Value::Object(mut fields) => match fields.remove("items") {
            Some(Value::Array(items)) => {
                let mut items = items.into_iter();
                items.try_for_each(|item| collect(item, file, runs))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn shortened(why: &str) -> String {
    sanitize_to(why, MAX_MESSAGE)
}

fn name_of(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "<stdin>".to_owned(),
        _ => sanitize_to(&path.display().to_string(), MAX_MESSAGE),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_runs_of_a_list_are_read_and_other_objects_left_out() {
        let run = |name: &str| {
            json!({ "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun",
                "metadata": { "name": name },
                "spec": { "rollout": "web", "digest": "", "podTemplateHash": "", "revision": 1 } })
        };
        let pod = json!({ "apiVersion": "v1", "kind": "Pod" });
        let list =
            json!({ "apiVersion": "v1", "kind": "List", "items": [run("a"), pod, run("b")] });
        let mut runs = Vec::new();
        collect(list, "file", &mut runs).unwrap();
        assert_eq!(runs.len(), 2);

        let mut broken = run("c");
        broken["spec"]["revision"] = "one".into();
        let error = collect(broken, "file", &mut runs).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("RolloutRun c in file cannot be read: invalid type"),
            "{error}"
        );
    }

    #[test]
    fn a_file_without_a_record_is_refused_with_the_remedy() {
        let error = read(&["Cargo.toml".into()]).unwrap_err().to_string();
        assert!(
            error.starts_with("Cargo.toml is neither JSON nor YAML"),
            "{error}"
        );
        let error = read(&["nowhere.json".into()]).unwrap_err().to_string();
        assert!(error.starts_with("nowhere.json cannot be read"), "{error}");
    }
}
