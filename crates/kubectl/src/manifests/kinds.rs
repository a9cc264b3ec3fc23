//! The kinds whose schemas are known.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use countersign_api::GROUP;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube_cel::CompiledSchema;
use serde_json::json;

use crate::manifests::rules;
use crate::manifests::yaml::Node;

pub struct Kind {
    pub(super) schema: JSONSchemaProps,
    pub(super) namespaced: bool,
    rules: OnceLock<CompiledSchema>,
}

impl Kind {
    /// The rules of the schema, compiled once.
    pub(super) fn rules(&self) -> &CompiledSchema {
        self.rules.get_or_init(|| rules::compiled(&self.schema))
    }
}

pub static KINDS: LazyLock<BTreeMap<String, Kind>> = LazyLock::new(|| {
    let kinds = countersign_api::crds().into_iter().filter_map(|crd| {
        let version = crd.spec.versions.into_iter().next()?;
        let mut schema = version.schema?.open_api_v3_schema?;
        complete_smoke_pods(&mut schema);
        let kind = Kind {
            schema,
            namespaced: crd.spec.scope == "Namespaced",
            rules: OnceLock::new(),
        };
        Some((crd.spec.names.kind, kind))
    });
    kinds.collect()
});

/// Gives the pods of a smoke check the schema of the workload's pods: their own is kept brief in the
/// definition, since the API server validates their Job.
pub fn complete_smoke_pods(schema: &mut JSONSchemaProps) -> Option<()> {
    let spec = member(schema, "spec")?;
    let mut pods = member(spec, "template")?.clone();
    let containers = member(member(&mut pods, "spec")?, "containers")?;
    containers.min_items = Some(1);
    if let Some(JSONSchemaPropsOrArray::Schema(container)) = &mut containers.items {
        let required = container.required.get_or_insert_default();
        required.push("image".into());
    }
    let smoke = member(member(member(spec, "strategy")?, "canary")?, "smoke")?;
    *member(smoke, "template")? = pods;
    Some(())
}

pub fn member<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

pub static METADATA: LazyLock<JSONSchemaProps> = LazyLock::new(|| {
    let texts =
        json!({ "type": "object", "nullable": true, "additionalProperties": { "type": "string" } });
    let labels = json!({
        "type": "object",
        "nullable": true,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 253 },
            "generateName": { "type": "string", "minLength": 1, "maxLength": 253 },
            "namespace": { "type": "string", "minLength": 1, "maxLength": 63 },
            "labels": labels,
            "annotations": texts,
            "uid": { "type": "string" },
            "resourceVersion": { "type": "string" },
            "generation": { "type": "integer" },
            "creationTimestamp": { "type": "string", "nullable": true },
            "selfLink": { "type": "string" },
            "finalizers": { "type": "array", "nullable": true, "items": { "type": "string" } },
            "ownerReferences": { "type": "array", "x-kubernetes-preserve-unknown-fields": true },
            "managedFields": { "type": "array", "x-kubernetes-preserve-unknown-fields": true },
        },
    });
    serde_json::from_value(schema).unwrap_or_default()
});

/// The kind of an object of this API group, in any version.
#[must_use]
pub fn kind(object: &Node) -> Option<&str> {
    let version = object.get("apiVersion")?.text()?;
    let ours = version
        .split_once('/')
        .is_some_and(|(group, _)| group == GROUP);
    object.get("kind")?.text().filter(|_| ours)
}
