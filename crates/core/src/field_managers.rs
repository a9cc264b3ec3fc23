//! Other writers of a field.

use countersign_api::MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use k8s_openapi::jiff::Timestamp;

/// Who edited what this controller had written, if only its own name is among the writers: anybody may use it.
const NAMESAKE: &str = "a writer that calls itself countersign";

/// The last writer of a workload's `replicas` except this controller.
#[must_use]
pub fn last_scaler(fields: &[ManagedFieldsEntry]) -> Option<&str> {
    let last = last_other(fields, |entry| sets(entry, "/f:spec/f:replicas"))?;
    last.manager.as_deref()
}

/// The last write of a field of an object, by its path in `fieldsV1`, except this controller's.
#[must_use]
pub fn last_writer<'a>(
    fields: &'a [ManagedFieldsEntry],
    field: &str,
) -> Option<&'a ManagedFieldsEntry> {
    last_other(fields, |entry| {
        entry.subresource.is_none() && sets(entry, field)
    })
}

/// Who edited a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Editor {
    /// The name of the field manager, or in words.
    pub name: String,
    /// When it wrote last.
    pub at: Option<Timestamp>,
}

/// Who edited a field that is not as this controller wrote it, by its path in `fieldsV1`; `None` if nothing shows it.
#[must_use]
pub fn editor(fields: &[ManagedFieldsEntry], field: &str) -> Option<Editor> {
    let own = || fields.iter().find(|entry| sets(entry, field));
    let last = last_writer(fields, field).or_else(own)?;
    let name = last.manager.as_deref().filter(|it| *it != MANAGER);
    Some(Editor {
        name: name.unwrap_or(NAMESAKE).to_owned(),
        at: last.time.as_ref().map(|at| at.0),
    })
}

/// Whether this controller has written a field of an object, by its path in `fieldsV1`, and no other writer has.
#[must_use]
pub fn is_written_by_us_alone(fields: &[ManagedFieldsEntry], field: &str) -> bool {
    let own = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(MANAGER) && sets(entry, field)
    };
    fields.iter().any(own) && last_writer(fields, field).is_none()
}

fn sets(entry: &ManagedFieldsEntry, field: &str) -> bool {
    let fields = entry.fields_v1.as_ref();
    fields.is_some_and(|it| it.0.pointer(field).is_some())
}

fn last_other(
    fields: &[ManagedFieldsEntry],
    wrote: impl Fn(&ManagedFieldsEntry) -> bool,
) -> Option<&ManagedFieldsEntry> {
    let others = fields
        .iter()
        .filter(|entry| entry.manager.as_deref() != Some(MANAGER) && wrote(entry));
    others.max_by_key(|entry| entry.time.as_ref().map(|at| at.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_editor_with_the_name_of_the_controller_is_no_unknown_one() {
        let entry = |manager: &str, at: &str, field: &str| {
            let fields = json!({ "f:spec": { field: {} } });
            let entry = json!({ "manager": manager, "operation": "Update", "time": at, "fieldsV1": fields });
            serde_json::from_value::<ManagedFieldsEntry>(entry).unwrap()
        };
        let field = "/f:spec/f:template";
        let own = entry("countersign", "2026-01-02T00:00:00Z", "f:template");
        let other = entry("kubectl", "2026-01-01T00:00:00Z", "f:template");
        let scaler = entry("autoscaler", "2026-01-03T00:00:00Z", "f:replicas");
        let named = |fields: &[ManagedFieldsEntry]| editor(fields, field).map(|it| it.name);
        assert_eq!(named(&[]), None);
        let alone = [own.clone(), scaler];
        assert_eq!(named(&alone).as_deref(), Some(NAMESAKE));
        assert_eq!(named(&[own, other]).as_deref(), Some("kubectl"));
    }
}
