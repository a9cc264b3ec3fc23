//! `convert`: objects of Argo Rollouts and Flagger, as objects of this API group.
//!
//! Pure and without a cluster: [`conversion`] is a function of the files' texts. What has no counterpart is
//! reported, every field that was not read among it; nothing is dropped silently.

mod argo;
mod checks;
mod condition;
mod document;
mod fill;
mod flagger;
mod foreign;
mod promql;

use std::process::ExitCode;

use clap::Args;
use countersign_core::text::sanitize_to;

use crate::clock;
use crate::commands::convert::document::Document;
use crate::commands::convert::foreign::Object;
use crate::commands::lint;
use crate::failure::Failure;
use crate::manifests::error::{MAX_MESSAGE, ManifestError};
use crate::manifests::finding::{Finding, Severity};
use crate::manifests::inputs::Inputs;
use crate::manifests::source::Source;
use crate::manifests::yaml::Node;
use crate::output;
use crate::output::report::number;

/// Convert manifests of Argo Rollouts and Flagger, without a cluster.
///
/// Reads Rollouts, AnalysisTemplates and ClusterAnalysisTemplates of Argo Rollouts, and Canaries and
/// MetricTemplates of Flagger; give templates together with what uses them. Prints manifests as YAML with
/// comments, and reports on the standard error, as `file:line:column: lost|dropped|decide: message`: `lost`
/// held promotions and has no counterpart, `dropped` is anything else without one, `decide` is for a person.
/// Then the output is checked as by `lint`. The exit code is 1 if something is lost or `lint` finds an error.
#[derive(Args)]
pub struct Convert {
    #[command(flatten)]
    inputs: Inputs,
}

/// Nothing to convert.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no Rollout, AnalysisTemplate or ClusterAnalysisTemplate of argoproj.io and no Canary of flagger.app in {0}: name other files by -f"
)]
struct Nothing(String);

/// The converted objects, and what was found.
#[derive(Default)]
pub struct Conversion {
    /// In the order of the files, those that use templates first.
    documents: Vec<Document>,
    findings: Vec<Found>,
    has_foreign: bool,
}

/// A finding in a file.
struct Found {
    file: String,
    finding: Finding,
}

impl Convert {
    /// Prints the converted objects, and reports what was found.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let sources = self.inputs.sources().into_iter();
        let sources: Result<Vec<_>, ManifestError> = sources.map(|(_, source)| source).collect();
        let conversion = conversion(&sources?);
        if !conversion.has_foreign && !conversion.has_losses() {
            return Err(Nothing(self.inputs.names()).into());
        }
        let source = Source {
            name: "<stdout>".into(),
            text: conversion.render()?,
        };
        output::print(&source.text);
        let is_sound = is_sound(&source);
        eprint!("{}", conversion.report());
        Ok(if is_sound && !conversion.has_losses() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Reports what `lint` finds in the output; returns whether there is no error.
fn is_sound(source: &Source) -> bool {
    let lines = lint::check(&[lint::Read::source(source)], clock::now());
    for line in &lines {
        eprint!("{}", line.render());
    }
    lines.iter().all(|line| line.severity != Severity::Error)
}

impl Conversion {
    /// The documents as YAML.
    pub fn render(&self) -> Result<String, output::Unwritable> {
        self.documents.iter().map(Document::render).collect()
    }

    /// The findings as lines, and their numbers.
    #[must_use]
    pub fn report(&self) -> String {
        let lines = self.findings.iter().map(|Found { file, finding }| {
            let Finding {
                at,
                severity,
                message,
            } = finding;
            let message = sanitize_to(message, MAX_MESSAGE);
            let (line, column) = (at.line, at.column);
            format!("{file}:{line}:{column}: {}: {message}\n", word(*severity))
        });
        let lines: String = lines.collect();
        let count = |severity| {
            let findings = self.findings.iter();
            findings
                .filter(|it| it.finding.severity == severity)
                .count()
        };
        format!(
            "{lines}{}: {} lost, {} dropped, {} to decide\n",
            number(self.documents.len(), "document"),
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Note)
        )
    }

    /// Whether something that held promotions has no counterpart.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|it| it.finding.severity == Severity::Error)
    }
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "lost",
        Severity::Warning => "dropped",
        Severity::Note => "decide",
    }
}

/// The objects of some texts, converted.
#[must_use]
pub fn conversion(sources: &[Source]) -> Conversion {
    let mut conversion = Conversion::default();
    let mut nodes: Vec<(&str, Node)> = Vec::new();
    for source in sources {
        match source.objects() {
            Ok(objects) => nodes.extend(objects.into_iter().map(|it| (source.name.as_str(), it))),
            Err(error) => conversion.findings.push(Found {
                file: source.name.clone(),
                finding: Finding::error(error.at, error.message),
            }),
        }
    }
    let objects: Vec<_> = nodes
        .iter()
        .map(|(file, node)| Object::new(file, node))
        .collect();
    // Those that use templates first: templates that none of them uses stay templates.
    let (templates, users): (Vec<_>, Vec<_>) = objects.iter().partition(|it| is_template(it));
    for object in users {
        let is_foreign = conversion.add(object, &objects);
        conversion.has_foreign |= is_foreign;
    }
    for object in templates {
        conversion.has_foreign = true;
        if object.used.get() {
            object.report_unread();
            conversion.found(object);
        } else {
            conversion.add(object, &objects);
        }
    }
    conversion
}

fn is_template(object: &Object<'_>) -> bool {
    let of_argo = object.group() == argo::GROUP && argo::templates::KINDS.contains(&object.kind());
    of_argo || (object.group() == flagger::GROUP && object.kind() == "MetricTemplate")
}

impl Conversion {
    /// Converts an object; returns whether it is one of another controller.
    fn add<'a>(&mut self, object: &'a Object<'a>, objects: &'a [Object<'a>]) -> bool {
        let converted = match (object.group(), object.kind()) {
            (argo::GROUP, "Rollout") => argo::rollout::convert(object, objects),
            (argo::GROUP, kind) if argo::templates::KINDS.contains(&kind) => {
                argo::templates::convert(object)
            }
            (flagger::GROUP, "Canary") => flagger::canary::convert(object, objects),
            (argo::GROUP | flagger::GROUP, kind) => {
                let why = match kind {
                    "MetricTemplate" => "no Canary of the files uses it",
                    _ => "its kind has no counterpart",
                };
                let name = object.name();
                object.root().dropped(&format!("{kind} {name}: {why}"));
                Vec::new()
            }
            _ => {
                retarget(object);
                self.found(object);
                return false;
            }
        };
        object.report_unread();
        let mut comments = self.found(object);
        for object in converted {
            let comments = std::mem::take(&mut comments);
            self.documents.push(Document { comments, object });
        }
        true
    }

    /// Adds the findings of an object; returns those that a person must see in its manifest.
    fn found(&mut self, object: &Object<'_>) -> Vec<String> {
        let mut comments = Vec::new();
        for finding in object.findings() {
            if finding.severity != Severity::Warning {
                comments.push(format!("{}: {}", word(finding.severity), finding.message));
            }
            self.findings.push(Found {
                file: object.file.to_owned(),
                finding,
            });
        }
        comments
    }
}

/// An autoscaler of a Rollout of Argo Rollouts, which has to target the new one.
fn retarget(object: &Object<'_>) {
    let target = object.root().get("spec");
    let target = target.and_then(|spec| spec.get("scaleTargetRef"));
    if let Some(target) = target
        && target
            .text("apiVersion")
            .is_some_and(|it| it.starts_with(argo::GROUP))
    {
        target.decide("let it target the Rollout of countersign.dev/v1alpha1 once that serves");
    }
}
