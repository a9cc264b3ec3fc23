//! Subsets of a DestinationRule.

use countersign_api::HASH_LABEL;
use countersign_api::traffic::Subsets;
use serde_json::{Value, json};

use crate::observation::traffic::RouteObject;
use crate::traffic::route::patch;
use crate::traffic::route::rule::Problem;

/// The subset of a DestinationRule: its index, and the revision that it selects.
fn subset<'a>(rule: &'a Value, name: &str) -> Result<(usize, &'a Value, Option<&'a str>), Problem> {
    let subsets = rule.pointer("/spec/subsets").and_then(Value::as_array);
    let mut subsets = subsets.into_iter().flatten().enumerate();
    let found = subsets.find(|(_, it)| it.get("name").and_then(Value::as_str) == Some(name));
    let (index, subset) = found.ok_or_else(|| format!("it has no subset {name}"))?;
    let labels = subset.get("labels");
    Ok((
        index,
        subset,
        labels.and_then(|it| it.get(HASH_LABEL)?.as_str()),
    ))
}

/// The revisions that the two subsets select, stable first.
pub fn selected<'a>(
    rule: &'a RouteObject,
    subsets: &Subsets,
) -> Result<(Option<&'a str>, Option<&'a str>), Problem> {
    let (_, _, stable) = subset(&rule.object, &subsets.stable_subset)?;
    let (_, _, canary) = subset(&rule.object, &subsets.canary_subset)?;
    Ok((stable, canary))
}

/// The patch that makes the subsets select these revisions; empty if they do.
pub fn select(
    rule: &RouteObject,
    subsets: &Subsets,
    stable: Option<&str>,
    canary: Option<&str>,
) -> Result<Vec<Value>, Problem> {
    let mut operations = Vec::new();
    for (name, wanted) in [
        (&subsets.stable_subset, stable),
        (&subsets.canary_subset, canary),
    ] {
        let (index, seen, selected) = subset(&rule.object, name)?;
        let Some(wanted) = wanted.filter(|wanted| selected != Some(*wanted)) else {
            continue;
        };
        let path = format!("/spec/subsets/{index}");
        operations.push(patch::test(&path, seen));
        if seen.get("labels").is_none() {
            operations.push(patch::add(&format!("{path}/labels"), &json!({})));
        }
        operations.push(patch::add(
            &format!("{path}/labels/{HASH_LABEL}"),
            &json!(wanted),
        ));
    }
    if !operations.is_empty() {
        operations.insert(0, patch::same(rule));
    }
    Ok(operations)
}

/// The patch that makes the subsets select the pods of all revisions again, and those of other controllers.
pub fn release(rule: &RouteObject, subsets: &Subsets) -> Result<Vec<Value>, Problem> {
    let mut operations = Vec::new();
    for name in [&subsets.stable_subset, &subsets.canary_subset] {
        let (index, seen, selected) = subset(&rule.object, name)?;
        if selected.is_some() {
            let path = format!("/spec/subsets/{index}");
            operations.push(patch::test(&path, seen));
            operations
                .push(json!({ "op": "remove", "path": format!("{path}/labels/{HASH_LABEL}") }));
        }
    }
    if !operations.is_empty() {
        operations.insert(0, patch::same(rule));
    }
    Ok(operations)
}
