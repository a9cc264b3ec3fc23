//! `lint`: checks manifests without a cluster.
//!
//! An error is refused by the API server or can never work; a warning is most likely a mistake. The
//! schema is checked in [`crate::manifests::schema`]; this module checks what only the controller would
//! find.

mod fields;
mod objects;
mod people;
mod provenance;
mod queries;
mod windows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use countersign_core::text::sanitize_to;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::clock;
use crate::commands::lint::objects::Around;
use crate::failure::Failure;
use crate::manifests::error::{MAX_MESSAGE, ManifestError};
use crate::manifests::finding::{Finding, Severity};
use crate::manifests::inputs::Inputs;
use crate::manifests::kinds::kind;
use crate::manifests::source::Source;
use crate::manifests::yaml::{Node, Position};
use crate::output::report::{self, Format, number};

/// Check manifests without a cluster: Rollouts, RolloutPolicies, AnalysisTemplates, Freezes, SignOffs and
/// Interventions.
///
/// Prints a line for each finding, as `file:line:column: error|warning|note: message`. Objects of other
/// kinds are ignored. The exit code is 0 if there is no error, otherwise 1.
#[derive(Args)]
#[command(mut_group("Inputs", |group| group.required(false)))]
pub struct Lint {
    #[command(flatten)]
    inputs: Option<Inputs>,
    /// Files or directories with RolloutPolicies, which are checked too.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "Inputs")]
    policy: Vec<PathBuf>,
    /// If true, exit with 1 on warnings as well.
    #[arg(long)]
    strict: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// A finding as it is printed.
#[derive(Serialize)]
pub struct Printed {
    file: String,
    line: u64,
    column: u64,
    pub(crate) severity: Severity,
    message: String,
}

impl Lint {
    /// Checks the files and prints what was found.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let inputs = self.inputs.unwrap_or_default();
        let sources = inputs.sources().into_iter();
        let policies = inputs.beside(&self.policy);
        let files: Vec<_> = sources
            .chain(policies)
            .map(|(name, source)| Read::file(name, source))
            .collect();
        let lines = check(&files, clock::now());
        let count = |severity| {
            lines
                .iter()
                .filter(|line| line.severity == severity)
                .count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        report::print(self.output, &lines, || {
            lines.iter().map(Printed::render).collect()
        })?;
        if self.output == Format::Table {
            let (errors, warnings) = (number(errors, "error"), number(warnings, "warning"));
            eprintln!("{errors} and {warnings} in {}", number(files.len(), "file"));
        }
        let failed = errors > 0 || (self.strict && warnings > 0);
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

impl Printed {
    /// The finding as a line of text.
    #[must_use]
    pub fn render(&self) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let Self {
            file,
            line,
            column,
            message,
            ..
        } = self;
        format!("{file}:{line}:{column}: {severity}: {message}\n")
    }
}

/// A file with what could be read of it.
pub struct Read {
    name: String,
    objects: Vec<Node>,
    findings: Vec<Finding>,
}

impl Read {
    fn file(name: String, source: Result<Source, ManifestError>) -> Self {
        match source {
            Ok(source) => Self::source(&source),
            Err(error) => Self {
                name,
                objects: Vec::new(),
                findings: vec![Finding::error(Position::START, error.to_string())],
            },
        }
    }

    /// The objects in a text, or its syntax error.
    #[must_use]
    pub fn source(source: &Source) -> Self {
        let (objects, findings) = match source.objects() {
            Ok(objects) => (objects, Vec::new()),
            Err(error) => (Vec::new(), vec![Finding::error(error.at, error.message)]),
        };
        Self {
            name: source.name.clone(),
            objects,
            findings,
        }
    }
}

/// Findings on the objects of the files, each alone and in relation to the others.
#[must_use]
pub fn check(files: &[Read], now: Timestamp) -> Vec<Printed> {
    let around = Around::of(files.iter().flat_map(|file| &file.objects), now);
    let lines = files.iter().flat_map(|file| {
        let mut findings = file.findings.clone();
        let mut known = BTreeMap::new();
        for object in &file.objects {
            findings.extend(around.check(object));
            findings.extend(repetition(object, &mut known));
        }
        findings.sort_by_key(|finding| (finding.at, finding.severity));
        findings.into_iter().map(|finding| Printed {
            file: file.name.clone(),
            line: finding.at.line,
            column: finding.at.column,
            severity: finding.severity,
            message: sanitize_to(&finding.message, MAX_MESSAGE),
        })
    });
    lines.collect()
}

type Identity<'a> = (&'a str, Option<&'a str>, &'a str);

/// If a file holds an object twice, the last one is applied.
fn repetition<'a>(
    object: &'a Node,
    known: &mut BTreeMap<Identity<'a>, Position>,
) -> Option<Finding> {
    let kind = kind(object)?;
    let metadata = object.get("metadata")?;
    let name = metadata.get("name")?;
    let namespace = metadata.get("namespace").and_then(Node::text);
    let first = known.insert((kind, namespace, name.text()?), name.at)?;
    let message = format!("{kind} {} is in line {} already", name.text()?, first.line);
    Some(Finding::error(name.at, message))
}

#[cfg(test)]
mod tests;
