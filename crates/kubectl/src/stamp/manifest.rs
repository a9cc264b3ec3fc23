//! Provenance annotations written into manifests, with everything else kept byte for byte.
//!
//! `yaml-edit` only gives positions; the text is changed by splices, so nothing else can change. A second
//! parser guards the meaning: read again, the text must differ from the original in the provenance of its
//! Rollouts and in nothing else.

use std::collections::BTreeMap;
use std::ops::Range;

use countersign_api::{GROUP, PROVENANCE_PREFIX, PodTemplate};
use countersign_core::text::{excerpt, sanitize_lines};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use thiserror::Error;
use yaml_edit::{Mapping, TextPosition, YamlFile, YamlNode};

use crate::manifests::yaml;

/// A manifest with its annotations.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The manifest.
    pub text: String,
    /// How many Rollouts in it were stamped.
    pub rollouts: usize,
}

/// Why a manifest cannot be stamped.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Not YAML.
    #[error("it is not valid YAML: {0}")]
    Invalid(String),
    /// A template of YAML.
    #[error(
        "it is a template and not YAML yet: render it first, for instance `helm template … | kubectl countersign stamp … -f -`"
    )]
    Template,
    /// A Rollout whose metadata cannot be edited.
    #[error("Rollout `{0}` has no metadata in a form that can be edited: write it as a mapping")]
    NoMetadata(String),
    /// A form for which there is no safe edit.
    #[error(
        "the annotations of Rollout `{0}` cannot be edited without a change to something else: write them as a block, one per line, without anchors and merge keys"
    )]
    Unsafe(String),
    /// The result would differ in more than the provenance.
    #[error(
        "stamping would change more than the provenance of its Rollouts, so it is left as it is: write their metadata without anchors, aliases and merge keys"
    )]
    OtherChange,
}

/// The text with these provenance annotations, and no others, on each of its Rollouts, or on the Rollout
/// of this name.
pub fn stamped(
    text: &str,
    annotations: &BTreeMap<String, String>,
    only: Option<&str>,
) -> Result<Stamped, ManifestError> {
    let mut expected = documents(text)?;
    let mut rollouts = 0;
    for document in &mut expected {
        rollouts += for_each(document, only, &mut |it| annotate(it, annotations));
    }
    let edited = if rollouts == 0 {
        text.to_owned()
    } else {
        let mut editor = Editor::new(text, annotations);
        editor.edit(only)?;
        editor.edited()
    };
    if documents(&edited).ok().as_ref() != Some(&expected) {
        return Err(ManifestError::OtherChange);
    }
    Ok(Stamped {
        text: edited,
        rollouts,
    })
}

fn documents(text: &str) -> Result<Vec<Value>, ManifestError> {
    let options = serde_saphyr::options! { alias_limits: yaml::aliases() };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        if text.contains("{{") {
            ManifestError::Template
        } else {
            ManifestError::Invalid(sanitize_lines(&error.to_string()))
        }
    })
}

/// Whether an object is a Rollout of this API group and of the requested name.
fn is_wanted(
    api_version: Option<&str>,
    kind: Option<&str>,
    name: Option<&str>,
    only: Option<&str>,
) -> bool {
    let group = api_version.and_then(|version| version.split('/').next());
    group == Some(GROUP) && kind == Some("Rollout") && (only.is_none() || name == only)
}

/// The pod templates of the Rollouts in a text, or of the Rollout of this name.
pub(super) fn templates(text: &str, only: Option<&str>) -> Result<Vec<PodTemplate>, ManifestError> {
    let mut templates = Vec::new();
    for mut document in documents(text)? {
        for_each(&mut document, only, &mut |rollout| {
            let template = rollout.pointer("/spec/template");
            let template = template.filter(|template| !template.is_null());
            templates.extend(template.cloned().map(PodTemplate));
        });
    }
    Ok(templates)
}

/// Does something with each Rollout of a parsed document, or with that of this name; returns how many there are.
fn for_each(document: &mut Value, only: Option<&str>, act: &mut dyn FnMut(&mut Value)) -> usize {
    if let Some(items) = document.get_mut("items").and_then(Value::as_array_mut) {
        return items.iter_mut().map(|it| for_each(it, only, act)).sum();
    }
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let api_version = document.get("apiVersion").and_then(text);
    let kind = document.get("kind").and_then(text);
    let name = document.pointer("/metadata/name").and_then(text);
    let wanted = is_wanted(
        api_version.as_deref(),
        kind.as_deref(),
        name.as_deref(),
        only,
    );
    if wanted {
        act(document);
    }
    usize::from(wanted)
}

/// Sets the annotations of a parsed Rollout.
fn annotate(rollout: &mut Value, annotations: &BTreeMap<String, String>) {
    if let Some(metadata) = rollout.get_mut("metadata").and_then(Value::as_object_mut) {
        let own = metadata.entry("annotations").or_insert(Value::Null);
        let mut all = own.as_object().cloned().unwrap_or_default();
        all.retain(|key, _| !key.starts_with(PROVENANCE_PREFIX));
        all.extend(
            annotations
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().into())),
        );
        *own = Value::Object(all);
    }
}

/// An entry of a mapping and its position in the text.
struct Entry {
    key: String,
    key_at: Range<usize>,
    value_at: Option<Range<usize>>,
    value: Option<YamlNode>,
}

impl Entry {
    fn end(&self) -> usize {
        self.value_at.as_ref().unwrap_or(&self.key_at).end
    }
}

/// Collects the splices that stamp a text.
struct Editor<'a> {
    text: &'a str,
    newline: &'static str,
    annotations: &'a BTreeMap<String, String>,
    splices: Vec<(Range<usize>, String)>,
}

impl<'a> Editor<'a> {
    fn new(text: &'a str, annotations: &'a BTreeMap<String, String>) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Self {
            text,
            newline,
            annotations,
            splices: Vec::new(),
        }
    }

    /// Whether a stamp sets or removes an annotation.
    fn is_own(&self, key: &str) -> bool {
        key.starts_with(PROVENANCE_PREFIX) || self.annotations.contains_key(key)
    }

    fn edit(&mut self, only: Option<&str>) -> Result<(), ManifestError> {
        let file = YamlFile::parse(self.text).tree();
        for document in file.documents() {
            if let Some(mapping) = document.as_mapping() {
                self.edit_object(&mapping, only)?;
            }
        }
        Ok(())
    }

    fn edit_object(&mut self, object: &Mapping, only: Option<&str>) -> Result<(), ManifestError> {
        if let Some(items) = object.get_sequence("items") {
            for item in items.values() {
                if let Some(mapping) = item.as_mapping() {
                    self.edit_object(mapping, only)?;
                }
            }
            return Ok(());
        }
        let metadata = object.get_mapping("metadata");
        let name = metadata.as_ref().and_then(|it| text_of(it, "name"));
        let (api_version, kind) = (text_of(object, "apiVersion"), text_of(object, "kind"));
        if !is_wanted(
            api_version.as_deref(),
            kind.as_deref(),
            name.as_deref(),
            only,
        ) {
            return Ok(());
        }
        let name = excerpt(name.as_deref().unwrap_or_default());
        let metadata = metadata.ok_or_else(|| ManifestError::NoMetadata(name.clone()))?;
        self.edit_metadata(&metadata)
            .ok_or(ManifestError::Unsafe(name))
    }

    /// `None` if there is no safe edit.
    fn edit_metadata(&mut self, metadata: &Mapping) -> Option<()> {
        let entries = self.entries(metadata)?;
        let annotations = entries.iter().find(|entry| entry.key == "annotations");
        let filled = annotations
            .and_then(|entry| entry.value.as_ref()?.as_mapping())
            .filter(|mapping| !mapping.is_empty());
        match (annotations, filled) {
            (_, Some(mapping)) if mapping.is_flow_style() => self.edit_flow(mapping),
            (_, Some(mapping)) => self.edit_block(mapping),
            (Some(entry), None) => self.fill(entry, metadata.is_flow_style()),
            (None, _) if metadata.is_flow_style() => {
                let added = format!("\"annotations\": {}", self.flow());
                self.rewrite_flow(metadata, &entries, &[added])
            }
            (None, _) => self.add_block(&entries),
        }
    }

    /// The entries of a mapping; `None` if a key is no text.
    fn entries(&self, mapping: &Mapping) -> Option<Vec<Entry>> {
        let entry = |entry: yaml_edit::MappingEntry| {
            let key = entry.key_node()?;
            let value = entry.value_node();
            let value_at = value.as_ref().map(|node| self.trimmed(node.byte_range()));
            Some(Entry {
                key: key.as_scalar()?.as_string(),
                key_at: self.trimmed(key.byte_range())?,
                value_at: value_at.flatten(),
                value,
            })
        };
        mapping.entries().map(entry).collect()
    }

    /// The range of a node without the space behind it; `None` for a node without text.
    fn trimmed(&self, at: TextPosition) -> Option<Range<usize>> {
        let (start, end) = (
            usize::try_from(at.start).ok()?,
            usize::try_from(at.end).ok()?,
        );
        let text = self.text.get(start..end)?.trim_end();
        (!text.is_empty()).then(|| start..start + text.len())
    }

    /// Changes single lines of a block: values that differ, entries that are stale, new ones.
    fn edit_block(&mut self, mapping: &Mapping) -> Option<()> {
        let entries = self.entries(mapping)?;
        let indent = self.indent(entries.first()?)?;
        let mut missing = self.annotations.clone();
        for entry in &entries {
            // Also refuses entries that share a line.
            self.indent(entry)?;
            if !self.is_own(&entry.key) {
                continue;
            }
            let value = missing.remove(&entry.key);
            match (value, &entry.value_at) {
                (Some(value), Some(at)) if self.is_one_line(at) => self.set(entry, at, &value),
                (value, _) => {
                    self.remove_lines(entry);
                    missing.extend(value.map(|value| (entry.key.clone(), value)));
                }
            }
        }
        let own = entries.iter().rfind(|it| self.is_own(&it.key));
        let after = own.or(entries.last())?.end();
        self.insert_lines(after, &indent, &missing);
        Some(())
    }

    fn is_one_line(&self, at: &Range<usize>) -> bool {
        let text = self.text.get(at.clone()).unwrap_or_default();
        !text.contains('\n') && !text.starts_with(['|', '>', '*', '{', '['])
    }

    fn set(&mut self, entry: &Entry, at: &Range<usize>, value: &str) {
        let present = entry.value.as_ref().and_then(YamlNode::as_scalar);
        if present.map(yaml_edit::Scalar::as_string).as_deref() != Some(value) {
            self.splices.push((at.clone(), block_scalar(value)));
        }
    }

    fn remove_lines(&mut self, entry: &Entry) {
        let lines = self.line_start(entry.key_at.start)..self.line_end(entry.end());
        self.splices.push((lines, String::new()));
    }

    fn insert_lines(&mut self, after: usize, indent: &str, lines: &BTreeMap<String, String>) {
        if lines.is_empty() {
            return;
        }
        let at = self.line_end(after);
        let before = self.text.get(..at).unwrap_or_default();
        let mut block = String::new();
        if !before.ends_with('\n') {
            block.push_str(self.newline);
        }
        for (key, value) in lines {
            block.push_str(indent);
            block.push_str(key);
            block.push_str(": ");
            block.push_str(&block_scalar(value));
            block.push_str(self.newline);
        }
        self.splices.push((at..at, block));
    }

    /// Fills empty annotations: `annotations:`, `annotations: null`, `annotations: {}`.
    fn fill(&mut self, entry: &Entry, in_flow: bool) -> Option<()> {
        let present = entry.value_at.clone();
        let text = present.clone().and_then(|at| self.text.get(at));
        let is_nothing = |text: &str| {
            let bare: String = text.split_whitespace().collect();
            matches!(&*bare, "{}" | "~" | "null" | "Null" | "NULL")
        };
        if text.is_some_and(|text| !is_nothing(text)) {
            return None;
        }
        if in_flow {
            let flow = self.flow();
            self.splices.push((present?, flow));
            return Some(());
        }
        let indent = self.indent(entry)?;
        if let Some(at) = present {
            let line = self.line_start(at.start);
            let before = self.text.get(line..at.start)?;
            self.splices
                .push((line + before.trim_end().len()..at.end, String::new()));
        }
        self.insert_lines(entry.end(), &(indent + "  "), self.annotations);
        Some(())
    }

    /// Adds a block of annotations after the last entry of a block of metadata.
    fn add_block(&mut self, entries: &[Entry]) -> Option<()> {
        // The first entry may follow a dash; the indent of its siblings is its column.
        let first = entries.first()?;
        let column = first.key_at.start - self.line_start(first.key_at.start);
        let indent = " ".repeat(column);
        let last = entries.last()?;
        let inner = format!("{indent}  ");
        let at = self.splices.len();
        self.insert_lines(last.end(), &inner, self.annotations);
        let (_, block) = self.splices.get_mut(at)?;
        let heading = format!("{indent}annotations:{}", self.newline);
        let position = block.len() - block.trim_start_matches(['\r', '\n']).len();
        block.insert_str(position, &heading);
        Some(())
    }

    fn edit_flow(&mut self, mapping: &Mapping) -> Option<()> {
        let entries = self.entries(mapping)?;
        let (own, others): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|entry| self.is_own(&entry.key));
        let is_same = |entry: &Entry| {
            let present = entry.value.as_ref().and_then(YamlNode::as_scalar);
            present.map(yaml_edit::Scalar::as_string).as_ref() == self.annotations.get(&entry.key)
        };
        if own.len() == self.annotations.len() && own.iter().all(is_same) {
            return Some(());
        }
        let added = self.annotations.iter().map(|(key, value)| pair(key, value));
        let added: Vec<_> = added.collect();
        self.rewrite_flow(mapping, &others, &added)
    }

    /// Rewrites a mapping in flow style from the kept entries, unchanged, and the added ones.
    fn rewrite_flow(&mut self, mapping: &Mapping, kept: &[Entry], added: &[String]) -> Option<()> {
        let at = self.trimmed(mapping.byte_range())?;
        let inside = self
            .text
            .get(at.clone())?
            .strip_prefix('{')?
            .strip_suffix('}')?;
        let piece = |entry: &Entry| self.text.get(entry.key_at.start..entry.end());
        let mut pieces: Vec<&str> = kept.iter().map(piece).collect::<Option<_>>()?;
        pieces.extend(added.iter().map(String::as_str));
        let (open, separator) = self.flow_layout(inside);
        // A comment between the entries would be lost.
        if [" #", "\t#", "\n#"]
            .iter()
            .any(|comment| inside.contains(comment))
        {
            return None;
        }
        let close = inside.get(inside.trim_end().trim_end_matches(',').len()..)?;
        let close = close.trim_start_matches(',');
        let text = format!("{{{open}{}{close}}}", pieces.join(&separator));
        self.splices.push((at, text));
        Some(())
    }

    /// The space before the first entry of a flow mapping, and between any two.
    fn flow_layout(&self, inside: &str) -> (String, String) {
        let open = inside.len() - inside.trim_start().len();
        let open = inside.get(..open).unwrap_or_default().to_owned();
        let separator = match open.rsplit_once('\n') {
            Some((_, indent)) => format!(",{}{indent}", self.newline),
            None => ", ".to_owned(),
        };
        (open, separator)
    }

    /// All annotations as a mapping in flow style.
    fn flow(&self) -> String {
        let pairs: Vec<_> = self
            .annotations
            .iter()
            .map(|(key, value)| pair(key, value))
            .collect();
        format!("{{{}}}", pairs.join(", "))
    }

    /// The space before a key; `None` if anything else precedes the key.
    fn indent(&self, entry: &Entry) -> Option<String> {
        let start = entry.key_at.start;
        let before = self.text.get(self.line_start(start)..start)?;
        before
            .bytes()
            .all(|byte| byte == b' ')
            .then(|| before.to_owned())
    }

    fn line_start(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        before.rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// The offset after the end of the line.
    fn line_end(&self, at: usize) -> usize {
        let after = self.text.get(at..).unwrap_or_default();
        after
            .find('\n')
            .map_or(self.text.len(), |newline| at + newline + 1)
    }

    /// The text with all splices; those at the same place keep their order.
    fn edited(mut self) -> String {
        self.splices.sort_by_key(|(at, _)| (at.start, at.end));
        let mut edited = String::new();
        let mut from = 0;
        for (at, replacement) in &self.splices {
            edited.push_str(self.text.get(from..at.start).unwrap_or_default());
            edited.push_str(replacement);
            from = at.end.max(from);
        }
        edited.push_str(self.text.get(from..).unwrap_or_default());
        edited
    }
}

fn text_of(mapping: &Mapping, key: &str) -> Option<String> {
    Some(mapping.get(key)?.as_scalar()?.as_string())
}

/// `"key": "value"`, which is the same in flow style and in JSON.
fn pair(key: &str, value: &str) -> String {
    format!("{}: {}", Value::from(key), Value::from(value))
}

/// A text as a value on a line of its own, with quotes if YAML needs them.
pub(super) fn block_scalar(text: &str) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let plain = serde_saphyr::to_string_with_options(&text, options).unwrap_or_default();
    let plain = plain.trim_end_matches('\n');
    let means_the_text = serde_saphyr::from_str::<Value>(plain).is_ok_and(|it| it == text);
    // Readers of YAML 1.1 take it for a time, and an annotation is a text.
    let is_time = text.parse::<Timestamp>().is_ok();
    if means_the_text && !is_time && !plain.contains('\n') {
        plain.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests;
