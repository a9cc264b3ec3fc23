//! Other writers of a field.

use countersign_api::MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

/// The last writer of a workload's `replicas` except this controller.
#[must_use]
pub fn last_scaler(fields: &[ManagedFieldsEntry]) -> Option<&str> {
    let last = last_other(fields, |entry| sets(entry, "/f:spec/f:replicas"))?;
    last.manager.as_deref()
}

/// The last writer of an object's spec except this controller.
#[must_use]
pub fn last_spec_writer(fields: &[ManagedFieldsEntry]) -> Option<&str> {
    last_writer(fields, "/f:spec")?.manager.as_deref()
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
