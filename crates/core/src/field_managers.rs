//! Who else wrote a field.

use countersign_api::MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

/// Who set a workload's number of pods last, beside this controller.
#[must_use]
pub fn last_scaler(fields: &[ManagedFieldsEntry]) -> Option<&str> {
    let own = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(MANAGER);
    let scales = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|it| it.0.pointer("/f:spec/f:replicas").is_some())
    };
    let entries = fields.iter().filter(|entry| !own(entry)).filter(scales);
    let last = entries.max_by_key(|entry| entry.time.as_ref().map(|at| at.0))?;
    last.manager.as_deref()
}
