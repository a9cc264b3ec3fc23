//! The difference between a revision and a change, for people: a unified diff of YAML.
//!
//! Start with [`Diff::between`]. It compares the pod template without Kubernetes' defaults, the provenance, and
//! where the traffic goes. All of it is foreign text, so every line is sanitized. What is compared is bounded, so
//! that no template makes a decision slow.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use countersign_api::rollout::CanaryStrategy;
use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use serde_json::{Map, Value};
use similar::{Algorithm, udiff};

use crate::limits::{RECORDED_ANNOTATION, RECORDED_LINE};
use crate::provenance::digest;
use crate::risk::template_defaults;
use crate::text;

/// Lines that are shown before and after each difference.
const CONTEXT: usize = 3;
/// Bytes of YAML that are compared; a larger text is not shown.
const MAX_TEXT: usize = 1 << 20;
/// Lines of both sides that are compared one by one; more are shown as replaced, since the time for all of
/// them grows with the square of their number.
const MAX_COMPARED: usize = 4_000;
/// Characters of an attestation that are shown.
const MAX_ATTESTATION: usize = 48;
/// Bytes that remain for the line that says how many lines are missing.
const MARK: usize = 40;

/// One side of a difference; `None` stands for what is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side<'a> {
    /// The pod template.
    pub template: Option<&'a PodTemplate>,
    /// The provenance annotations, by their names without prefix, as [`provenance`] returns them.
    pub provenance: Option<BTreeMap<String, String>>,
    /// Where the traffic goes, as [`traffic`] returns it.
    pub traffic: Option<Value>,
}

/// The provenance among the annotations of a Rollout, by their names without prefix.
#[must_use]
pub fn provenance(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = annotations.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(PROVENANCE_PREFIX)?.to_owned();
        Some((name, value.clone()))
    });
    own.collect()
}

/// The fields of a strategy that decide where the traffic goes.
#[must_use]
pub fn traffic(canary: &CanaryStrategy) -> Value {
    Value::Object(digest::traffic(canary))
}

/// A unified diff.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Its lines, sanitized; none if nothing differs.
    pub lines: Vec<String>,
    /// Whether a part of it is too large to be compared, which a line says in its place.
    pub too_large: bool,
}

impl Diff {
    /// The difference from a stable revision to a proposed change.
    ///
    /// A part that is not known of the stable side is shown as added; one that is not known of the
    /// proposed side is left out.
    #[must_use]
    pub fn between(stable: &Side, proposed: &Side) -> Self {
        let template = |side: &Side| side.template.map(template_defaults::as_written);
        let provenance = |side: &Side| side.provenance.as_ref().map(shown_provenance);
        let mut diff = Self::default();
        diff.add("template", template(stable), template(proposed));
        diff.add("provenance", provenance(stable), provenance(proposed));
        diff.add("traffic", stable.traffic.clone(), proposed.traffic.clone());
        diff
    }

    fn add(&mut self, part: &str, stable: Option<Value>, proposed: Option<Value>) {
        let Some(proposed) = proposed else {
            return;
        };
        let unknown = if stable.is_none() { " (unknown)" } else { "" };
        let (Some(old), Some(new)) = (yaml(&stable.unwrap_or_default()), yaml(&proposed)) else {
            self.too_large = true;
            self.lines
                .push(format!("… the {part} is too large to be compared"));
            return;
        };
        if old == new {
            return;
        }
        self.lines.push(format!("--- stable {part}{unknown}"));
        self.lines.push(format!("+++ proposed {part}"));
        self.lines
            .extend(hunks(&old, &new).lines().map(text::sanitize));
    }

    /// The lines as one text of at most so many bytes. Long lines are cut, and if lines are missing, the last
    /// one says how many.
    #[must_use]
    pub fn text(&self, max: usize) -> String {
        let mut kept = String::new();
        for (at, line) in self.lines.iter().enumerate() {
            let line = text::sanitize_to(line, RECORDED_LINE);
            if kept.len() + line.len() + MARK > max {
                let missing = self.lines.len() - at;
                // Writing to a String cannot fail.
                let _ = writeln!(kept, "… and {missing} more lines");
                break;
            }
            kept.push_str(&line);
            kept.push('\n');
        }
        kept
    }
}

/// Provenance as it is compared. A RolloutRun keeps only the beginning of a long annotation, so such a one is
/// shown by its beginning, its length and its digest.
fn shown_provenance(provenance: &BTreeMap<String, String>) -> Value {
    let shown = provenance.iter().map(|(name, value)| {
        let max = match name.as_str() {
            "attestation" => MAX_ATTESTATION,
            _ => RECORDED_ANNOTATION,
        };
        let length = value.chars().count();
        if length < max {
            return (name.clone(), Value::String(value.clone()));
        }
        let beginning: String = value.chars().take(max).collect();
        let digest = digest::text_digest(value);
        let shown = format!("{beginning}… ({length} characters, SHA-256 {digest})");
        (name.clone(), Value::String(shown))
    });
    Value::Object(shown.collect())
}

/// The hunks of the unified diff of two texts, with lines that end.
fn hunks(old: &str, new: &str) -> String {
    let before: Vec<_> = old.lines().collect();
    let after: Vec<_> = new.lines().collect();
    let forwards = before.iter().zip(after.iter());
    let head = forwards.take_while(|(a, b)| a == b).count();
    let backwards = before.iter().rev().zip(after.iter().rev());
    let tail = backwards.take_while(|(a, b)| a == b).count();
    let compared = (before.len() + after.len()).saturating_sub(2 * (head + tail));
    if compared <= MAX_COMPARED {
        return udiff::unified_diff(Algorithm::Myers, old, new, CONTEXT, None);
    }
    let mut replaced = format!("@@ -1,{} +1,{} @@\n", before.len(), after.len());
    for (sign, lines) in [('-', before), ('+', after)] {
        for line in lines {
            replaced.push(sign);
            replaced.push_str(line);
            replaced.push('\n');
        }
    }
    replaced
}

/// A value as YAML, with the keys in their byte order; `None` if it is too large. Nothing and an object without
/// members have no lines.
fn yaml(value: &Value) -> Option<String> {
    if value.is_null() || value.as_object().is_some_and(Map::is_empty) {
        return Some(String::new());
    }
    let mut value = value.clone();
    value.sort_all_objects();
    // A folded text would differ in more lines than were edited.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    let yaml = serde_saphyr::to_string_with_options(&value, options).ok()?;
    (yaml.len() <= MAX_TEXT).then_some(yaml)
}

#[cfg(test)]
mod tests;
