//! The digests that identify a change.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use countersign_api::rollout::CanaryStrategy;
use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::provenance::keys::KEYS;

/// SHA-256, in hexadecimal, of a change: its template, its provenance, and the Services and routes that send
/// traffic to it, each in canonical form. What is not named is left out.
#[must_use]
pub fn change_digest(
    template: &PodTemplate,
    annotations: &BTreeMap<String, String>,
    canary: &CanaryStrategy,
) -> String {
    let mut text = String::from(r#"{"provenance":"#);
    write_canonical(&provenance(annotations), &mut text);
    text.push_str(r#","template":"#);
    text.push_str(&canonical(template));
    let traffic = traffic(canary);
    if !traffic.is_empty() {
        text.push_str(r#","traffic":"#);
        write_canonical(&Value::Object(traffic), &mut text);
    }
    text.push('}');
    hexadecimal(&Sha256::digest(text))
}

/// The fields that decide where traffic goes, as far as they are set, and the copies of requests that the steps
/// send to the canary, in their order.
#[must_use]
pub fn traffic(canary: &CanaryStrategy) -> Map<String, Value> {
    let CanaryStrategy {
        stable_service,
        canary_service,
        traffic,
        dynamic_stable,
        steps,
        ..
    } = canary;
    let mirrors: Vec<_> = steps.iter().filter_map(|step| step.mirror).collect();
    let fields = [
        ("stableService", json!(stable_service)),
        ("canaryService", json!(canary_service)),
        ("traffic", json!(traffic)),
        ("dynamicStable", json!(dynamic_stable.then_some(true))),
        ("mirrors", json!((!mirrors.is_empty()).then_some(mirrors))),
    ];
    let set = fields.into_iter().filter(|(_, value)| !value.is_null());
    set.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// SHA-256, in hexadecimal, of what a provenance declares, in canonical form; `None` if there is no annotation of it.
///
/// Unlike the digest of a change it leaves out annotations that mean nothing: one more would make old provenance new.
#[must_use]
pub fn provenance_digest(annotations: &BTreeMap<String, String>) -> Option<String> {
    let known = annotations.iter().filter(|(key, _)| {
        let name = key.strip_prefix(PROVENANCE_PREFIX);
        name.is_some_and(|name| KEYS.contains(&name))
    });
    let members: BTreeMap<_, _> = known.collect();
    let mut text = String::new();
    write_canonical(&json!(members), &mut text);
    (!members.is_empty()).then(|| hexadecimal(&Sha256::digest(text)))
}

fn provenance(annotations: &BTreeMap<String, String>) -> Value {
    let own = annotations
        .iter()
        .filter(|(key, _)| key.starts_with(PROVENANCE_PREFIX));
    let members: Map<_, _> = own
        .map(|(key, value)| (key.clone(), Value::String(value.clone())))
        .collect();
    Value::Object(members)
}

/// SHA-256, in hexadecimal, of a template in canonical form.
#[must_use]
pub fn template_digest(template: &PodTemplate) -> String {
    hexadecimal(&Sha256::digest(canonical(template)))
}

/// SHA-256, in hexadecimal, of a text.
#[must_use]
pub(crate) fn text_digest(text: &str) -> String {
    hexadecimal(&Sha256::digest(text))
}

/// The SHA-256, in hexadecimal, of the image in a reference: the part after `name@sha256:`, or after
/// `sha256:` alone.
#[must_use]
pub fn image_digest(reference: &str) -> Option<&str> {
    let digest = reference.rsplit_once('@');
    let digest = digest.map_or(reference, |(_, digest)| digest);
    let hexadecimal = digest.strip_prefix("sha256:")?;
    let mut digits = hexadecimal.bytes();
    let is_one =
        hexadecimal.len() == 64 && digits.all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    is_one.then_some(hexadecimal)
}

/// Whether a reference names an image by its digest. A name that only looks like a digest has no `@`.
#[must_use]
pub fn is_pinned(reference: &str) -> bool {
    reference.contains('@') && image_digest(reference).is_some()
}

/// Whether the name of a ConfigMap or Secret ends with the hash of its content, as kustomize and `kubectl create
/// --append-hash` write it. The admission policy `immutable-config` has the same rule.
#[must_use]
pub fn is_hashed(name: &str) -> bool {
    const ALPHABET: &str = "bcdfghkmt2456789";
    let hash = name.rsplit_once('-').map(|(_, hash)| hash);
    hash.is_some_and(|hash| hash.len() == 10 && hash.chars().all(|it| ALPHABET.contains(it)))
}

/// Eleven characters that name a template, fit for a label and a DNS name.
///
/// They are drawn from Kubernetes' alphabet of 27 without vowels, so that they form no word. The hash of a Deployment has
/// ten at most, so the admission policy `owned-pods` knows the pods of a Rollout by theirs. A collision count above zero
/// gives another name to the same template.
#[must_use]
pub fn pod_template_hash(template: &PodTemplate, collision_count: i32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let hash = Sha256::digest(format!("{collision_count}\n{}", canonical(template)));
    let mut number = hash
        .iter()
        .take(8)
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let mut name = String::new();
    for _ in 0..11 {
        let index = usize::try_from(number % 27).unwrap_or_default();
        name.extend(ALPHABET.get(index).copied().map(char::from));
        number /= 27;
    }
    name
}

/// Whether a hash names a template. Earlier builds wrote the first ten characters alone.
#[must_use]
pub fn is_hash_of(hash: &str, template: &PodTemplate, collision_count: i32) -> bool {
    let own = pod_template_hash(template, collision_count);
    hash == own || (hash.len() == 10 && own.starts_with(hash))
}

/// A template as canonical text that depends only on its content.
///
/// Members of objects are in the byte order of their keys; null members are omitted, and so is an empty
/// `creationTimestamp` of the pods, which Go's types write if it is unset; lists keep their order; there is no space
/// between tokens; strings and numbers are as `serde_json` writes them, so `1` and `1.0` are two numbers. A
/// container's port without a protocol is one of `TCP`, as earlier definitions stored it. Nothing else is
/// omitted or added: an unknown field counts like any other.
#[must_use]
pub fn canonical(template: &PodTemplate) -> String {
    let mut text = String::new();
    let mut template = template.0.clone();
    fill_in_protocols(&mut template);
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, value| key != "creationTimestamp" || value.as_str() != Some(""));
    }
    write_canonical(&template, &mut text);
    text
}

fn fill_in_protocols(template: &mut Value) {
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = template.pointer_mut(&format!("/spec/{list}"));
        let containers = containers.and_then(Value::as_array_mut);
        let ports = containers
            .into_iter()
            .flatten()
            .filter_map(|it| it.get_mut("ports")?.as_array_mut());
        for port in ports.flatten().filter_map(Value::as_object_mut) {
            let protocol = port.entry("protocol").or_insert(Value::Null);
            if protocol.is_null() {
                *protocol = "TCP".into();
            }
        }
    }
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            // Sorted here, since a dependency may enable serde_json's insertion order.
            let members: BTreeMap<_, _> = members
                .iter()
                .filter(|(_, value)| !value.is_null())
                .collect();
            text.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                write_canonical(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
