//! The custom resources of `countersign.dev/v1alpha1`: types, validation and defaults, no behaviour.

pub mod analysis;
mod conditions;
pub mod counts;
pub mod definition;
pub mod duration;
pub mod first_revision;
pub mod freeze;
pub mod intervention;
pub mod objective;
pub mod person;
pub mod pod_template;
pub mod policy;
pub mod provenance;
pub mod rollout;
pub mod run;
pub mod selector;
pub mod sign_off;
pub mod smoke;
pub mod step;
pub mod template;
pub mod traffic;
pub mod workload_ref;

pub use analysis::{Analysis, Check, CheckMode, Latency, Metric, Preset};
pub use duration::Duration;
pub use freeze::{Freeze, FreezeAction, FreezeSpec, FreezeStatus};
pub use intervention::{Intervention, InterventionAction, InterventionSpec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
pub use objective::Objective;
pub use person::Person;
pub use pod_template::PodTemplate;
pub use policy::{RolloutPolicy, RolloutPolicySpec, RolloutPolicyStatus};
pub use rollout::{Phase, Rollout, RolloutSpec, RolloutStatus};
pub use run::{RolloutRun, RolloutRunSpec};
pub use selector::Selector;
pub use sign_off::{SignOff, SignOffDecision, SignOffSpec};
pub use smoke::Smoke;
pub use step::{SignOffDemand, Step, Tier};
pub use template::{AnalysisTemplate, AnalysisTemplateSpec, AnalysisTemplateStatus};
pub use traffic::{RouteKind, RouteReference, Traffic};
pub use workload_ref::{DeletionPolicy, WorkloadKind, WorkloadReference};

/// API group of every custom resource.
pub const GROUP: &str = "countersign.dev";
/// API version of every custom resource.
pub const VERSION: &str = "v1alpha1";
/// Field manager of every write, and reporter of every Event.
pub const MANAGER: &str = "countersign";
/// Prefix of the annotations that carry provenance.
pub const PROVENANCE_PREFIX: &str = "provenance.countersign.dev/";
/// Label on pods and ReplicaSets: the revision that they run.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Label on every object that the controller owns; the watches select by it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Annotation on a ReplicaSet: the full SHA-256 of its template, which shows a hash collision.
pub const TEMPLATE_DIGEST_ANNOTATION: &str = "countersign.dev/template-digest";
/// Annotation on a ReplicaSet: its template as the Rollout had it, since the API server fills in
/// defaults that would read as differences.
pub const TEMPLATE_ANNOTATION: &str = "countersign.dev/template";
/// Annotation on a ReplicaSet: the number of revisions of its Rollout when the ReplicaSet was created.
pub const REVISION_ANNOTATION: &str = "countersign.dev/revision";
/// Annotation on a ReplicaSet: the number of pods that the controller requested last, and when.
pub const REQUESTED_ANNOTATION: &str = "countersign.dev/requested-replicas";
/// Label on a RolloutRun and on owned objects: the uid of the Rollout, a valid label
/// value for every name.
pub const ROLLOUT_UID_LABEL: &str = "countersign.dev/rollout-uid";
/// Label on a RolloutRun: the name of its Rollout, if it fits into the value of a label.
pub const ROLLOUT_LABEL: &str = "countersign.dev/rollout";
/// Label on a RolloutRun that outlives its Rollout: the time for which it is kept.
pub const KEEP_FOR_LABEL: &str = "countersign.dev/keep-for";
/// Annotation on a RolloutRun: when its Rollout was first found to be deleted, from which that time counts.
pub const DELETED_AT_ANNOTATION: &str = "countersign.dev/rollout-deleted-at";
/// Annotation on the Job of a smoke check: the RolloutRun of its attempt.
pub const RUN_ANNOTATION: &str = "countersign.dev/run";
/// Readiness gate of a smoke check's pods. Nothing ever opens it, so they are never ready, and no
/// Service sends them traffic whatever labels they have.
pub const NEVER_SERVES: &str = "countersign.dev/Serves";

/// Finalizer of a Rollout whose pods keep serving after its deletion: removed once they do.
pub const KEEP_FINALIZER: &str = "countersign.dev/keep";

/// Annotation on a Rollout: the user who last changed its template or its provenance, stamped by the
/// API server; empty if not known.
pub const CHANGED_BY_ANNOTATION: &str = "countersign.dev/changed-by";

/// Whether the API server serves an installed definition.
#[must_use]
pub fn is_established(definition: &CustomResourceDefinition) -> bool {
    let status = definition.status.as_ref();
    let mut conditions = status
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|it| it.type_ == "Established" && it.status == "True")
}

/// The definitions of all custom resources, in the order in which they are installed.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        Rollout::crd(),
        RolloutPolicy::crd(),
        AnalysisTemplate::crd(),
        RolloutRun::crd(),
        SignOff::crd(),
        Intervention::crd(),
        Freeze::crd(),
    ];
    let versions = crds.iter_mut().flat_map(|crd| &mut crd.spec.versions);
    let schemas = versions.filter_map(|it| it.schema.as_mut()?.open_api_v3_schema.as_mut());
    for schema in schemas {
        let spec = schema.properties.as_mut().and_then(|it| it.get_mut("spec"));
        if let Some(spec) = spec {
            without_defaults_in_lists(spec, false);
        }
    }
    crds
}

/// Removes the defaults of fields within lists; an absent field has the default anyway. Tools
/// that compare a manifest with the live object, such as Argo CD, compare lists as a whole, and would see
/// a difference forever.
fn without_defaults_in_lists(schema: &mut JSONSchemaProps, in_list: bool) {
    if in_list {
        schema.default = None;
    }
    for property in schema.properties.iter_mut().flat_map(|it| it.values_mut()) {
        without_defaults_in_lists(property, in_list);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => without_defaults_in_lists(item, true),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            for item in items {
                without_defaults_in_lists(item, true);
            }
        }
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        without_defaults_in_lists(value, in_list);
    }
}

/// The definitions as YAML, each with the name of the file that holds it.
pub fn crd_files() -> Result<Vec<(String, String)>, serde_saphyr::SerializeError> {
    let file = |crd: CustomResourceDefinition| {
        Ok((
            format!("{}.yaml", crd.spec.names.plural),
            serde_saphyr::to_string(&crd)?,
        ))
    };
    crds().into_iter().map(file).collect()
}
