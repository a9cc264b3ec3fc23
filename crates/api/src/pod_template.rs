//! The pod template, kept as stored.
//!
//! A typed template would drop every field that is newer than this build, and the next release
//! would see another template and start a rollout. So the template stays JSON, and its schema is
//! generated from the newest Kubernetes types: known fields are validated, unknown ones are kept.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A pod template exactly as the API server stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub Value);

impl PodTemplate {
    /// Whether the template is absent.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.0.is_null()
    }

    /// Labels of the pods.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.0
            .pointer("/metadata/labels")
            .and_then(Value::as_object)
            .map(|labels| {
                labels
                    .iter()
                    .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Containers of one list of the pod's spec: `containers` or `initContainers`.
    pub fn containers(&self, list: &str) -> impl Iterator<Item = &Value> {
        self.0
            .get("spec")
            .and_then(|spec| spec.get(list))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }

    /// Image references of all containers, init containers first, and of volumes that mount an image.
    #[must_use]
    pub fn images(&self) -> Vec<&str> {
        let containers = ["initContainers", "containers"]
            .into_iter()
            .flat_map(|list| self.containers(list))
            .filter_map(|container| container.get("image")?.as_str());
        let volumes = self.containers("volumes");
        let volumes = volumes.filter_map(|it| it.pointer("/image/reference")?.as_str());
        containers.chain(volumes).collect()
    }

    /// Names of the ConfigMaps and Secrets that containers and volumes reference, init containers first.
    #[must_use]
    pub fn configuration(&self) -> Vec<&str> {
        let containers = ["initContainers", "containers"]
            .into_iter()
            .flat_map(|list| self.containers(list));
        let of_containers = containers.flat_map(|container| {
            let keys = ["/valueFrom/configMapKeyRef", "/valueFrom/secretKeyRef"];
            let all = named_in(container, "envFrom", ["/configMapRef", "/secretRef"]);
            all.chain(named_in(container, "env", keys))
        });
        let of_volumes = self.containers("volumes").flat_map(|volume| {
            let own = ["/configMap/name", "/secret/secretName"].into_iter();
            let own = own.filter_map(move |place| volume.pointer(place)?.as_str());
            let projected = volume.get("projected").into_iter();
            own.chain(projected.flat_map(|it| named_in(it, "sources", ["/configMap", "/secret"])))
        });
        of_containers.chain(of_volumes).collect()
    }
}

/// The names of the objects that the items of a list reference at these places.
fn named_in<'a>(
    of: &'a Value,
    list: &str,
    places: [&'static str; 2],
) -> impl Iterator<Item = &'a str> + use<'a> {
    let items = of.get(list).and_then(Value::as_array);
    items.into_iter().flatten().flat_map(move |item| {
        let places = places.into_iter();
        places.filter_map(move |place| item.pointer(place)?.get("name")?.as_str())
    })
}

/// Lists that merge by key under server-side apply, as they do in Kubernetes' own types. Lists that may repeat
/// a key in a Deployment (`env`, `ports`, `hostAliases`, `imagePullSecrets`) are not among them: the
/// API server refuses such a list in a custom resource.
const LIST_KEYS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    (
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    ("resourceClaims", &["name"]),
    ("schedulingGates", &["name"]),
];

impl JsonSchema for PodTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PodTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut generator = SchemaSettings::openapi3()
            .with(|settings| settings.inline_subschemas = true)
            .into_generator();
        let mut schema = Value::from(PodTemplateSpec::json_schema(&mut generator));
        open("template", &mut schema);
        if let Some(metadata) = schema.pointer_mut("/properties/metadata") {
            *metadata = metadata_schema();
        }
        if let Some(object) = schema.as_object_mut() {
            object.insert("required".into(), json!(["spec"]));
        }
        Schema::try_from(schema).unwrap_or_default()
    }
}

fn metadata_schema() -> Value {
    let map = |what: &str, length: Option<u32>| {
        let mut value = json!({ "type": "string" });
        if let (Some(length), Some(value)) = (length, value.as_object_mut()) {
            value.insert("maxLength".into(), json!(length));
        }
        json!({ "description": what, "type": "object", "maxProperties": 128, "additionalProperties": value })
    };
    json!({
        "description": "Labels and annotations of the pods.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "labels": map("Labels of the pods.", Some(63)),
            "annotations": map("Annotations of the pods.", None),
        },
    })
}

/// Makes the generated schema of a field structural, open to newer fields, mergeable by key and brief.
fn open(field: &str, schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    shorten(object);
    take_any_quantity(field, object);
    if object.contains_key("properties") {
        object.insert(
            "x-kubernetes-preserve-unknown-fields".into(),
            Value::Bool(true),
        );
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties.iter_mut() {
            merge_by_key(name, property);
            open(name, property);
        }
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested) = object.get_mut(nested) {
            open(field, nested);
        }
    }
}

/// Quantities as Kubernetes reads them from text: an amount with at most one suffix.
pub const QUANTITY: &str =
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$";

/// Accepts a quantity as a whole number, a fraction such as `cpu: 0.5` or a text, as Kubernetes' own types do.
/// `x-kubernetes-int-or-string` would refuse the fraction, and a structural schema has no other union.
fn take_any_quantity(field: &str, object: &mut Map<String, Value>) {
    // Ports of probes and hooks are the only other fields that are a number or a text.
    if field != "port" && object.remove("x-kubernetes-int-or-string").is_some() {
        object.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        object.insert("pattern".into(), QUANTITY.into());
    }
}

fn merge_by_key(name: &str, property: &mut Value) {
    let Some((_, keys)) = LIST_KEYS.iter().find(|(list, _)| *list == name) else {
        return;
    };
    let has_keys = keys.iter().all(|key| {
        property
            .pointer(&format!("/items/properties/{key}"))
            .is_some()
    });
    if let Some(property) = property.as_object_mut().filter(|_| has_keys) {
        property.insert("x-kubernetes-list-type".into(), "map".into());
        property.insert("x-kubernetes-list-map-keys".into(), json!(keys));
    }
}

/// Keeps the first sentence of a description: the whole text would make the CRD several times larger.
fn shorten(object: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        let line = text.lines().next().unwrap_or_default();
        let sentence = line.split_once(". ").map_or(line, |(first, _)| first);
        *text = format!("{}.", sentence.trim_end_matches('.'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        Value::from(schemars::SchemaGenerator::default().into_root_schema_for::<PodTemplate>())
    }

    #[test]
    fn every_reference_to_configuration_is_found() {
        let key = |kind: &str, name: &str| json!({ "name": "A", "valueFrom": { kind: { "name": name, "key": "a" } } });
        let template = PodTemplate(json!({ "spec": {
            "initContainers": [{ "name": "i", "envFrom": [{ "secretRef": { "name": "a" } }] }],
            "containers": [
                {
                    "name": "w",
                    "envFrom": [{ "configMapRef": { "name": "b" } }, { "prefix": "X" }],
                    "env": [
                        { "name": "PLAIN", "value": "x" },
                        key("configMapKeyRef", "c"), key("secretKeyRef", "d"), key("fieldRef", "no"),
                    ],
                },
                { "name": "plain" },
            ],
            "volumes": [
                { "name": "e", "configMap": { "name": "e" } },
                { "name": "f", "secret": { "secretName": "f" } },
                { "name": "gh", "projected": { "sources": [
                    { "configMap": { "name": "g" } }, { "secret": { "name": "h" } }, { "serviceAccountToken": {} },
                ] } },
                { "name": "empty", "emptyDir": {} },
            ],
        } }));
        assert_eq!(template.configuration().concat(), "abcdefgh");
        assert!(PodTemplate::default().configuration().is_empty());
    }

    #[test]
    fn every_object_of_the_template_keeps_fields_it_does_not_know() {
        fn walk(value: &Value, path: &str) {
            if let Some(object) = value.as_object() {
                if object
                    .get("properties")
                    .is_some_and(|p| p.is_object() && object.get("type") == Some(&json!("object")))
                {
                    assert_eq!(
                        object.get("x-kubernetes-preserve-unknown-fields"),
                        Some(&json!(true)),
                        "{path}"
                    );
                }
                object
                    .iter()
                    .for_each(|(key, value)| walk(value, &format!("{path}/{key}")));
            }
        }
        walk(&schema(), "");
    }

    #[test]
    fn every_quantity_may_be_a_whole_number_a_fraction_or_a_text() {
        fn walk(field: &str, schema: &Value, found: &mut BTreeMap<String, bool>) {
            let number_or_text = schema.get("x-kubernetes-int-or-string").is_some();
            let quantity = schema.get("pattern") == Some(&json!(QUANTITY));
            if number_or_text || quantity {
                let before = found.insert(field.to_owned(), quantity);
                assert!(before.is_none_or(|before| before == quantity), "{field}");
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                walk(name, property, found);
            }
            for nested in ["items", "additionalProperties"] {
                if let Some(nested) = schema.get(nested) {
                    walk(field, nested, found);
                }
            }
        }
        let mut found = BTreeMap::new();
        walk("template", &schema(), &mut found);
        let others: Vec<_> = found.iter().filter(|it| !*it.1).map(|it| it.0).collect();
        assert_eq!(others, ["port"], "{found:?}");
        for field in ["limits", "requests", "sizeLimit", "divisor", "overhead"] {
            assert_eq!(found.get(field), Some(&true), "{field} of {found:?}");
        }
    }

    #[test]
    fn lists_merge_by_the_keys_that_kubernetes_uses() {
        let schema = schema();
        let container = "/properties/spec/properties/containers";
        assert_eq!(
            schema.pointer(&format!("{container}/x-kubernetes-list-map-keys")),
            Some(&json!(["name"]))
        );
        let mounts = format!("{container}/items/properties/volumeMounts");
        assert_eq!(
            schema.pointer(&format!("{mounts}/x-kubernetes-list-map-keys")),
            Some(&json!(["mountPath"]))
        );
    }

    #[test]
    fn lists_that_may_name_a_key_twice_do_not_merge() {
        let schema = schema();
        let container = "/properties/spec/properties/containers/items/properties";
        for list in [
            &format!("{container}/ports"),
            &format!("{container}/env"),
            "/properties/spec/properties/hostAliases",
            "/properties/spec/properties/imagePullSecrets",
        ] {
            let list = schema.pointer(list).unwrap();
            assert_eq!(list.get("x-kubernetes-list-type"), None);
            assert_eq!(list.get("type"), Some(&json!("array")));
        }
    }
}
