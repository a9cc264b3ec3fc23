//! Forms of single values of a pod template.

use countersign_core::label::{is_label, is_word};
use countersign_core::text::sanitize_to;
use countersign_core::workload::smoke_job;

use crate::manifests::schema::forms::is_quantity;
use crate::manifests::yaml::{Node, Yaml};

/// Longest value in a message, in characters; longer ones are cut.
pub(super) const MAX_SHOWN: usize = 80;

pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", sanitize_to(text, MAX_SHOWN))
}

pub(super) fn is_true(of: &Node, key: &str) -> bool {
    of.get(key).map(|it| &it.value) == Some(&Yaml::Bool(true))
}

pub(super) const NAME: &str = "is not a name: write lower-case letters, digits, `-` and `.`";

pub(super) const LABEL: &str = "is not a name: write at most 63 lower-case letters, digits and `-`";

pub(super) const PORT: &str = "is not a port name: write at most 15 lower-case letters, digits and `-`, at least one a letter";

pub(super) const QUALIFIED: &str =
    "is not a key: write [DOMAIN/]NAME, the name of at most 63 letters, digits, `-`, `_` and `.`";

pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_label(text)
}

pub(super) fn is_port_name(text: &str) -> bool {
    is_label(text)
        && text.len() <= 15
        && text.contains(|c: char| c.is_ascii_lowercase())
        && !text.contains("--")
}

pub(super) fn is_field(text: &str) -> bool {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let of_map = ["metadata.labels['", "metadata.annotations['"];
    FIELDS.contains(&text) || (text.ends_with("']") && of_map.iter().any(|it| text.starts_with(it)))
}

/// Whether a text is an image reference by the grammar of the distribution project.
pub(super) fn is_image(text: &str) -> bool {
    if text == smoke_job::IMAGE {
        return false;
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    let is_digest = |digest: &str| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            is_word(algorithm) && hex.len() >= 32 && hex.bytes().all(|it| it.is_ascii_hexdigit())
        })
    };
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    let is_tag = |tag: &str| {
        (1..=128).contains(&tag.len())
            && !tag.starts_with(['.', '-'])
            && tag
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"_.-".contains(&it))
    };
    let is_part = |part: &str| {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(letter)
            && part.ends_with(letter)
            && part.chars().all(|c| letter(c) || "._-".contains(c))
    };
    let is_host = |host: &str| {
        let named = host.contains(['.', ':']) || host == "localhost" || host.to_lowercase() != host;
        named
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(c))
    };
    let path = match name.split_once('/') {
        Some((host, path)) if is_host(host) => path,
        _ => name,
    };
    path.split('/').all(is_part) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

/// A quantity as a number.
pub(super) fn amount(node: &Node) -> Option<f64> {
    let Some(text) = node.text() else {
        return node.number();
    };
    let end = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => f64::from(1 << 20),
        "Gi" => f64::from(1 << 30),
        "Ti" => 2_f64.powi(40),
        "Pi" => 2_f64.powi(50),
        "Ei" => 2_f64.powi(60),
        _ => return text.parse().ok().filter(|_| is_quantity(text)),
    };
    Some(number.parse::<f64>().ok()? * factor)
}
