//! AnalysisTemplates: their metrics become the checks of the Rollouts that use them.
//!
//! What an argument stands for is known only where the template is used: a hash is the revision, a name that of
//! the canary's Service. So the metrics are filled in there; a template that no Rollout of the files uses
//! remains a template.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::commands::convert::argo::args::Args;
use crate::commands::convert::argo::metrics::{self, When};
use crate::commands::convert::checks::{Checks, label};
use crate::commands::convert::document::{object, put};
use crate::commands::convert::foreign::{Field, Object, metadata};

/// Most templates that one brings in by naming others.
const MOST_TEMPLATES: usize = 32;
/// The kinds of templates: of a namespace, and of the cluster.
pub const KINDS: [&str; 2] = ["AnalysisTemplate", "ClusterAnalysisTemplate"];

/// The Rollout that uses templates.
pub struct Subject<'a> {
    /// The objects of all files.
    pub objects: &'a [Object<'a>],
    /// The Rollout's metadata.
    pub metadata: &'a Map<String, Value>,
    /// Its canary's Service.
    pub canary_service: Option<&'a str>,
}

/// Adds the checks of an analysis.
pub fn gather(analysis: &Field<'_>, when: When, subject: &Subject<'_>, checks: &mut Checks) {
    analysis.drop_all(
        &["measurementRetention", "analysisRunMetadata"],
        "the RolloutRun of a change keeps its evidence",
    );
    let dry = dry_runs(analysis);
    let given = given(analysis, subject);
    for reference in analysis.items("templates") {
        let Some(template) = referenced(&reference, subject) else {
            reference.lost("this template is not in the files: give its manifest as well");
            continue;
        };
        let mut seen = BTreeSet::new();
        add(template, &given, &dry, when, subject, &mut seen, checks);
        if template.has_losses() {
            reference
                .lost("a part of this template has no counterpart: see what is reported of it");
        }
    }
}

/// How long an analysis takes at least.
pub fn span(analysis: &Field<'_>, subject: &Subject<'_>) -> Duration {
    let references = analysis.items("templates");
    let templates = references.iter().filter_map(|it| referenced(it, subject));
    let spans = templates.flat_map(|template| {
        let metrics = template
            .root()
            .get("spec")
            .map(|spec| spec.items("metrics"));
        let metrics = metrics.into_iter().flatten();
        metrics
            .map(|metric| metrics::span(&metric))
            .collect::<Vec<_>>()
    });
    spans.max().unwrap_or_default()
}

fn referenced<'a>(reference: &Field<'_>, subject: &Subject<'a>) -> Option<&'a Object<'a>> {
    let name = reference.text("templateName")?;
    let of_cluster = reference.flag("clusterScope").unwrap_or_default();
    let [kind, of_the_cluster] = KINDS;
    let kind = if of_cluster { of_the_cluster } else { kind };
    let own = subject.metadata.get("namespace").and_then(Value::as_str);
    subject.objects.iter().find(|it| {
        let same = of_cluster || it.namespace() == own;
        it.group() == super::GROUP && it.kind() == kind && it.name() == name && same
    })
}

fn dry_runs(field: &Field<'_>) -> BTreeSet<String> {
    let metrics = field.items("dryRun");
    let names = metrics.iter().filter_map(|it| it.text("metricName"));
    names.map(ToOwned::to_owned).collect()
}

/// The arguments that a Rollout gives.
fn given(analysis: &Field<'_>, subject: &Subject<'_>) -> Args {
    let args = analysis.items("args");
    let args = args.iter().filter_map(|arg| {
        let name = arg.text("name")?.to_owned();
        let literal = arg.text("value").map(|value| with_service(value, subject));
        Some((name, literal.or_else(|| from_object(arg, subject))))
    });
    args.collect()
}

/// The name of the canary's Service is that of each revision's here.
fn with_service(value: &str, subject: &Subject<'_>) -> String {
    let rest = subject.canary_service.and_then(|it| value.strip_prefix(it));
    match rest {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => format!("{{{{service}}}}{rest}"),
        _ => value.to_owned(),
    }
}

fn from_object(arg: &Field<'_>, subject: &Subject<'_>) -> Option<String> {
    let from = arg.get("valueFrom")?;
    match from.text("podTemplateHashValue") {
        Some("Latest") => return Some("{{revision}}".to_owned()),
        Some(_) => {
            arg.dropped("the hash of the stable revision is not needed: each check queries both");
            return None;
        }
        None => {}
    }
    let path = from.get("fieldRef")?.text("fieldPath")?;
    match path {
        "metadata.name" => return Some("{{rollout}}".to_owned()),
        "metadata.namespace" => return Some("{{namespace}}".to_owned()),
        _ => {}
    }
    let key = path.strip_prefix("metadata.labels['")?.strip_suffix("']")?;
    let label = subject.metadata.get("labels")?.get(key)?;
    label.as_str().map(ToOwned::to_owned)
}

/// Adds the checks of a template and of those that it names.
fn add<'a>(
    template: &'a Object<'a>,
    given: &Args,
    dry: &BTreeSet<String>,
    when: When,
    subject: &Subject<'a>,
    seen: &mut BTreeSet<(&'a str, &'a str)>,
    checks: &mut Checks,
) {
    template.used.set(true);
    if !seen.insert((template.kind(), template.name())) {
        return;
    }
    let root = template.root();
    metadata(&root);
    let Some(spec) = root.get("spec") else {
        return;
    };
    let mut args = given.clone();
    for (name, value) in declared(&spec) {
        args.declare(name, value);
    }
    let own = dry_runs(&spec);
    let dry: BTreeSet<_> = dry.union(&own).cloned().collect();
    add_metrics(&spec, &args, &dry, when, checks);
    for reference in spec.items("templates") {
        match referenced(&reference, subject) {
            Some(inner) if seen.len() < MOST_TEMPLATES => {
                add(inner, given, &dry, when, subject, seen, checks);
            }
            Some(_) => {
                reference.lost("too many templates name each other: name each in the Rollout");
            }
            None => reference.lost("this template is not in the files: give its manifest as well"),
        }
    }
}

fn add_metrics(
    spec: &Field<'_>,
    args: &Args,
    dry: &BTreeSet<String>,
    when: When,
    checks: &mut Checks,
) {
    spec.drop_all(
        &["measurementRetention"],
        "the RolloutRun of a change keeps its evidence",
    );
    for metric in spec.items("metrics") {
        let name = metric.text("name").unwrap_or_default();
        let is_advisory = dry.contains(name) || dry.contains("*");
        metrics::add(&metric, name, args, is_advisory, when, checks);
    }
}

/// The arguments of a template with their values.
fn declared(spec: &Field<'_>) -> Vec<(String, Option<String>)> {
    let args = spec.items("args");
    let args = args.iter().filter_map(|arg| {
        arg.drop_all(&["valueFrom"], "a value from another object is not read");
        let name = arg.text("name")?;
        Some((name.to_owned(), arg.text("value").map(ToOwned::to_owned)))
    });
    args.collect()
}

/// A template that no Rollout of the files uses; that of the cluster becomes a policy.
pub fn convert(template: &Object<'_>) -> Vec<Value> {
    let root = template.root();
    let mut metadata = metadata(&root);
    let Some(spec) = root.get("spec") else {
        root.missing("spec", "there is nothing to convert");
        return Vec::new();
    };
    for reference in spec.items("templates") {
        reference.lost("templates do not name templates here: name each of them in the Rollout");
    }
    let [_, of_the_cluster] = KINDS;
    let of_cluster = template.kind() == of_the_cluster;
    let declared = declared(&spec);
    let args = declared.iter().map(|(name, value)| {
        // A policy has no arguments, so their values are filled in.
        let placeholder = format!("{{{{args.{}}}}}", label(name));
        let value = if of_cluster {
            value.clone()
        } else {
            Some(placeholder)
        };
        (name.clone(), value)
    });
    let args: Args = args.collect();
    let mut checks = Checks::default();
    add_metrics(&spec, &args, &dry_runs(&spec), When::default(), &mut checks);
    for decision in checks.decisions() {
        root.decide(decision);
    }
    let Some(analysis) = checks.analysis() else {
        return Vec::new();
    };
    let mut spec = Map::new();
    if of_cluster {
        metadata.remove("namespace");
        let selector = json!({ "matchLabels": { "analysis": label(template.name()) } });
        put(&mut spec, "rolloutSelector", Some(selector));
        put(&mut spec, "analysis", Some(analysis));
        root.decide("a policy adds its checks to the Rollouts that it selects: give those that used this template the label `analysis`, or change rolloutSelector");
        return vec![object("RolloutPolicy", metadata, spec)];
    }
    let args = declared.iter().map(|(name, value)| {
        let mut arg = Map::new();
        put(&mut arg, "name", Some(label(name)));
        put(&mut arg, "default", value.clone());
        Value::Object(arg)
    });
    let args: Vec<_> = args.collect();
    put(&mut spec, "args", Some(args).filter(|it| !it.is_empty()));
    put(&mut spec, "checks", Some(checks.list()));
    root.decide("Rollouts use it by `analysis.templates`; give its file together with theirs to convert what they use of it");
    vec![object("AnalysisTemplate", metadata, spec)]
}
