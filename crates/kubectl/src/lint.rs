//! `lint`: what is wrong with manifests, before any cluster sees them.
//!
//! An error is what the API server would refuse, or what can never work; a warning is what is most
//! likely not meant. The schema's part is in [`super::schema`]; here is what only the controller
//! would find out.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use countersign_api::analysis::{ArgumentValue, TemplateUse, default_interval};
use countersign_api::policy::{Trust, TrustedKey};
use countersign_api::template::{Argument, ArgumentType};
use countersign_api::{
    Analysis, AnalysisTemplate, CHANGED_BY_ANNOTATION, Check, Duration, HASH_LABEL, Metric,
    Objective, PROVENANCE_PREFIX, Rollout, RolloutPolicy, RouteReference, Selector,
};
use countersign_core::analysis::query::form::{Arm, Field};
use countersign_core::analysis::{checks, query};
use countersign_core::observation::traffic::RouteObject;
use countersign_core::provenance::problem::Problem;
use countersign_core::provenance::{Provenance, State};
use countersign_core::text::shown;
use countersign_core::traffic::route::rule::{self, Sides};
use countersign_core::workload::smoke_job;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{self, Expr};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Failure;
use super::manifests::{
    HELM_TEMPLATE, Inputs, MAX_MESSAGE, ManifestError, Source, is_helm_template,
};
use super::pods::{self, Purpose};
use super::report::{self, Format, number};
use super::schema::{self, Finding, Severity};
use super::yaml::{Node, Position};
use crate::clock;

/// Check manifests without a cluster: Rollouts, RolloutPolicies, AnalysisTemplates, Freezes, sign-offs and interventions.
///
/// Prints a line for each finding, as `file:line:column: error|warning: message`. Objects of other
/// kinds are passed over. Exits with 0 where there is no error, and with 1 where there is one.
#[derive(Args)]
pub struct Lint {
    #[command(flatten)]
    inputs: Inputs,
    /// Exit with 1 on warnings, too.
    #[arg(long)]
    strict: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// A finding as it is printed.
#[derive(Serialize)]
pub struct Printed {
    file: String,
    line: u64,
    column: u64,
    severity: Severity,
    message: String,
}

impl Lint {
    /// Checks the files and prints what was found.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let sources = self.inputs.sources().into_iter();
        let files: Vec<_> = sources
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
            lines.iter().map(Printed::told).collect()
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
    pub fn told(&self) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
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

    /// The objects in a text, or what is wrong with it.
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

/// What is wrong with the objects of some files, by themselves and beside each other.
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
            message: shown(&finding.message, MAX_MESSAGE),
        })
    });
    lines.collect()
}

type Identity<'a> = (&'a str, Option<&'a str>, &'a str);

/// What is applied twice from one file is what was written last.
fn repetition<'a>(
    object: &'a Node,
    known: &mut BTreeMap<Identity<'a>, Position>,
) -> Option<Finding> {
    let kind = schema::kind(object)?;
    let metadata = object.get("metadata")?;
    let name = metadata.get("name")?;
    let namespace = metadata.get("namespace").and_then(Node::text);
    let first = known.insert((kind, namespace, name.text()?), name.at)?;
    let message = format!("{kind} {} is in line {} already", name.text()?, first.line);
    Some(Finding::error(name.at, message))
}

/// What the objects of all files say of each other.
struct Around<'a> {
    now: Timestamp,
    rollouts: Vec<BTreeMap<String, String>>,
    /// Selectors of Services by namespace and name.
    services: BTreeMap<(Option<&'a str>, &'a str), &'a Node>,
    /// Every object by namespace, kind and name.
    objects: BTreeMap<Key<'a>, &'a Node>,
}

impl<'a> Around<'a> {
    fn of(objects: impl Iterator<Item = &'a Node>, now: Timestamp) -> Self {
        let mut around = Self {
            now,
            rollouts: Vec::new(),
            services: BTreeMap::new(),
            objects: BTreeMap::new(),
        };
        for object in objects {
            if schema::kind(object) == Some("Rollout") {
                around
                    .rollouts
                    .push(texts(object.find(&["metadata", "labels"])));
            }
            around.services.extend(service(object));
            around.objects.extend(identified(object));
        }
        around
    }

    fn check(&self, object: &Node) -> Vec<Finding> {
        let Some(kind) = schema::kind(object) else {
            return nameless(object).into_iter().collect();
        };
        let mut findings = schema::check(object);
        let sound = findings.iter().all(|it| it.severity != Severity::Error);
        let metadata = object.get("metadata");
        findings.extend(
            metadata
                .into_iter()
                .flat_map(|it| pods::check_metadata(it, "metadata")),
        );
        if let Some(spec) = object.get("spec") {
            if kind == "Rollout" {
                findings.extend(pods_of(spec));
            }
            if sound {
                findings.extend(self.beyond_schema(kind, object, spec));
            }
        }
        explain_placeholders(object, &mut findings);
        findings
    }

    fn beyond_schema(&self, kind: &str, object: &Node, spec: &Node) -> Vec<Finding> {
        let mut findings = Vec::new();
        match kind {
            "Rollout" => findings.extend(self.rollout(object, spec)),
            "RolloutPolicy" => findings.extend(self.policy(object, spec)),
            "AnalysisTemplate" => findings.extend(template(object, spec)),
            "Freeze" => findings.extend(self.freeze(spec)),
            "SignOff" => findings.extend(self.signature(spec, "approver", "expiresAt")),
            "Intervention" => findings.extend(self.signature(spec, "person", "expiresAt")),
            _ => {}
        }
        findings
    }

    fn rollout(&self, object: &Node, spec: &Node) -> Vec<Finding> {
        let rollout: Rollout = match typed(object) {
            Ok(rollout) => rollout,
            Err(finding) => return vec![finding],
        };
        // That of an adopted workload may stand there, and describes its template.
        let mut findings = match rollout.spec.workload_ref {
            Some(_) => Vec::new(),
            None => provenance(object, &rollout),
        };
        findings.extend(self.circle(object, spec));
        if let Some(canary) = spec.find(&["strategy", "canary"]) {
            let strategy = &rollout.spec.strategy.canary;
            let services = [&strategy.canary_service, &strategy.stable_service];
            let services = services.map(Option::as_deref);
            if let (Some(node), Some(analysis)) = (canary.get("analysis"), &strategy.analysis) {
                findings.extend(analysis_queries(node, analysis, &services));
            }
            let pods = canary.find(&["smoke", "template"]);
            findings.extend(pods.into_iter().flat_map(smoke_images));
            let namespace = object.find(&["metadata", "namespace"]).and_then(Node::text);
            let routes = canary.find(&["traffic", "routes"]);
            let routes = routes.into_iter().flat_map(Node::items);
            for node in routes {
                findings.extend(self.route(node, namespace, &rollout));
            }
            for key in ["stableService", "canaryService"] {
                let name = canary.get(key);
                findings.extend(name.and_then(|name| self.service(name, namespace, &rollout)));
            }
        }
        findings
    }

    /// A route in the files that could not be split.
    fn route(&self, node: &Node, namespace: Option<&str>, rollout: &Rollout) -> Option<Finding> {
        let reference: RouteReference = serde_json::from_value(node.json()).ok()?;
        let (kind, name) = (reference.kind, reference.name.as_str());
        let found = self.objects.get(&(namespace, kind.as_str(), name))?;
        let object = RouteObject {
            object: found.json(),
            last_writer: None,
        };
        let strategy = &rollout.spec.strategy.canary;
        let sides = match &reference.destination_rule {
            Some(subsets) => Sides::Subsets {
                namespace: namespace.unwrap_or("default"),
                host: None,
                subsets,
            },
            None => Sides::Services {
                namespace: namespace.unwrap_or("default"),
                stable: strategy.stable_service.as_deref()?,
                canary: strategy.canary_service.as_deref()?,
            },
        };
        let problem = rule::rules(kind, &object, &reference.rules, sides).err()?;
        let at = node.get("name").map_or(node.at, |name| name.at);
        Some(Finding::error(at, format!("{kind} {name}: {problem}")))
    }

    /// Rollouts that wait for each other, so that none of them ever begins a change.
    fn circle(&self, object: &Node, spec: &Node) -> Option<Finding> {
        let namespace = object.find(&["metadata", "namespace"]).and_then(Node::text);
        let own = object.find(&["metadata", "name"])?.text()?;
        let list = spec.get("dependsOn")?;
        let mut seen = BTreeSet::new();
        let mut next: Vec<&str> = list.items().iter().filter_map(Node::text).collect();
        while let Some(name) = next.pop() {
            if name == own {
                let message = format!(
                    "dependsOn leads back to {own} itself: its changes would wait for ever"
                );
                return Some(Finding::error(list.at, message));
            }
            let other = self
                .objects
                .get(&(namespace, "Rollout", name))
                .filter(|_| seen.insert(name));
            let further = other.and_then(|it| it.find(&["spec", "dependsOn"]));
            next.extend(
                further
                    .into_iter()
                    .flat_map(Node::items)
                    .filter_map(Node::text),
            );
        }
        None
    }

    /// The selector of a named Service: it never reaches the Rollout's pods, or is applied over the
    /// operator's.
    fn service(&self, name: &Node, namespace: Option<&str>, rollout: &Rollout) -> Option<Finding> {
        let service = name.text()?;
        let selector = texts(Some(self.services.get(&(namespace, service))?));
        // An adopted workload's labels are not in the Rollout, and its Service keeps its selector till then.
        let labels = Some(rollout.spec.template.labels()).filter(|it| !it.is_empty())?;
        let stray = selector
            .iter()
            .find(|(label, value)| *label != HASH_LABEL && labels.get(*label) != Some(value));
        Some(match stray {
            Some((label, value)) => Finding::error(
                name.at,
                format!(
                    "Service {service} selects pods with {label}={value}, which is no label of spec.template: it would never reach them"
                ),
            ),
            None => Finding::warning(
                name.at,
                format!(
                    "the manifest of Service {service} has spec.selector, which is one value for server-side apply: that conflicts with the controller, or takes {HASH_LABEL} out; leave spec.selector out, the controller sets it"
                ),
            ),
        })
    }

    fn policy(&self, object: &Node, spec: &Node) -> Vec<Finding> {
        let policy: RolloutPolicy = match typed(object) {
            Ok(policy) => policy,
            Err(finding) => return vec![finding],
        };
        let mut findings = Vec::new();
        if let (Some(node), Some(analysis)) = (spec.get("analysis"), &policy.spec.analysis) {
            findings.extend(analysis_queries(node, analysis, &[Some("service")]));
        }
        findings.extend(self.selects_nothing(spec));
        findings.extend(windows(spec));
        findings.extend(
            spec.find(&["freeze", "incident", "query"])
                .and_then(incident),
        );
        let demands = &policy.spec.provenance;
        let keys = spec
            .find(&["provenance", "keys"])
            .into_iter()
            .flat_map(Node::items);
        for (node, key) in keys.zip(&demands.keys) {
            findings.extend(self.key(node, key));
        }
        if demands.trust == Some(Trust::Attested) && demands.keys.is_empty() {
            let at = spec
                .find(&["provenance", "trust"])
                .map_or(spec.at, |trust| trust.at);
            let message = "no key is named whose attestations are believed, so every provenance counts as unknown: add one to spec.provenance.keys here or in another policy";
            findings.push(Finding::warning(at, message));
        }
        findings
    }

    fn key(&self, node: &Node, key: &TrustedKey) -> Option<Finding> {
        use ed25519_dalek::pkcs8::DecodePublicKey as _;
        let pem = &key.public_key;
        let can_be_read = p256::PublicKey::from_public_key_pem(pem).is_ok()
            || ed25519_dalek::VerifyingKey::from_public_key_pem(pem).is_ok();
        if !can_be_read {
            let at = node.entry("publicKey").map_or(node.at, |entry| entry.at);
            let message = "spec.provenance.keys: this is no public key: give ECDSA P-256 or Ed25519 in PEM, beginning with -----BEGIN PUBLIC KEY-----";
            return Some(Finding::error(at, message));
        }
        self.past(node, "notAfter", "it is believed no more")
    }

    fn freeze(&self, spec: &Node) -> Vec<Finding> {
        let past = self.past(spec, "until", "it freezes nothing");
        past.into_iter().chain(self.selects_nothing(spec)).collect()
    }

    fn signature(&self, spec: &Node, person: &str, expiry: &str) -> Vec<Finding> {
        let mut findings: Vec<_> = self
            .past(spec, expiry, "it counts for nothing")
            .into_iter()
            .collect();
        if let Some(digest) = spec.get("digest")
            && !digest
                .text()
                .is_some_and(|it| it.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')))
        {
            let message =
                "spec.digest is no digest of any change: copy status.change.digest of the Rollout";
            findings.push(Finding::error(digest.at, message));
        }
        if let Some(name) = spec.find(&[person, "username"])
            && name.text().is_some_and(|it| it.starts_with("system:"))
        {
            let message =
                format!("spec.{person}.username is no person, so this counts for nothing");
            findings.push(Finding::error(name.at, message));
        }
        findings
    }

    fn past(&self, node: &Node, key: &str, effect: &str) -> Option<Finding> {
        let value = node.get(key)?;
        let time: Timestamp = value.text()?.parse().ok()?;
        let message = format!("{key} is in the past: {effect}");
        (time <= self.now).then(|| Finding::warning(value.at, message))
    }

    /// A selector that fits none of the Rollouts that are checked with it.
    fn selects_nothing(&self, spec: &Node) -> Option<Finding> {
        let node = spec.get("rolloutSelector")?;
        let selector: Selector = serde_json::from_value(node.json()).ok()?;
        let count = self.rollouts.len();
        let selects = self.rollouts.iter().any(|labels| selector.matches(labels));
        let message = format!(
            "rolloutSelector {selector} fits none of the {count} Rollouts in these files: compare it with their metadata.labels"
        );
        (count > 0 && !selects).then(|| Finding::warning(node.at, message))
    }
}

fn typed<T: DeserializeOwned>(object: &Node) -> Result<T, Finding> {
    serde_json::from_value(schema::stored(object))
        .map_err(|error| Finding::error(object.at, error.to_string()))
}

fn texts(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.into_iter().flat_map(Node::entries);
    entries
        .filter_map(|entry| Some((entry.key.clone(), entry.value.text()?.to_owned())))
        .collect()
}

/// Namespace and name of a Service, with its selector.
fn service(object: &Node) -> Option<((Option<&str>, &str), &Node)> {
    let is_service =
        object.get("kind")?.text()? == "Service" && object.get("apiVersion")?.text()? == "v1";
    let metadata = object.get("metadata").filter(|_| is_service)?;
    let name = metadata.get("name")?.text()?;
    let namespace = metadata.get("namespace").and_then(Node::text);
    Some(((namespace, name), object.find(&["spec", "selector"])?))
}

/// Namespace, kind and name of an object.
type Key<'a> = (Option<&'a str>, &'a str, &'a str);

fn identified(object: &Node) -> Option<(Key<'_>, &Node)> {
    let metadata = object.get("metadata")?;
    let namespace = metadata.get("namespace").and_then(Node::text);
    let (kind, name) = (object.get("kind")?.text()?, metadata.get("name")?.text()?);
    Some(((namespace, kind, name), object))
}

/// A document that is of no kind at all is passed over, but not in silence.
fn nameless(object: &Node) -> Option<Finding> {
    let missing = ["apiVersion", "kind"]
        .into_iter()
        .find(|key| object.get(key).and_then(Node::text).is_none())?;
    let message =
        format!("{missing} is missing: this is no manifest, and nothing in it is checked");
    Some(Finding::warning(object.at, message))
}

// --- Placeholders --------------------------------------------------------------------------------

/// Texts that somebody was to fill in first: an error if the text as it is cannot work, else a warning. What
/// containers run with and annotations may hold templates of other programs.
fn explain_placeholders(object: &Node, findings: &mut Vec<Finding>) {
    let mut placeholders = Vec::new();
    find_placeholders(object, &mut placeholders);
    for (at, message) in placeholders {
        let before = findings.len();
        findings.retain(|finding| finding.at != at || finding.severity != Severity::Error);
        let refused = findings.len() < before;
        findings.push(if refused {
            Finding::error(at, message)
        } else {
            Finding::warning(at, message)
        });
    }
}

fn find_placeholders(node: &Node, found: &mut Vec<(Position, String)>) {
    if let Some(text) = node.text() {
        let shell = text.split("${").skip(1).any(|rest| {
            rest.split_once('}')
                .is_some_and(|(name, _)| !name.is_empty())
        });
        if is_helm_template(text) {
            found.push((node.at, HELM_TEMPLATE.to_owned()));
        } else if shell {
            let text = shown(text, 80);
            let message = format!(
                "`{text}` holds a placeholder that was not filled in: render the manifest first, such as by envsubst or kustomize"
            );
            found.push((node.at, message));
        }
    }
    for entry in node.entries() {
        match entry.key.as_str() {
            "command" | "args" | "env" | "lifecycle" => {}
            "annotations" => {
                let entries = entry.value.entries().iter();
                let ours = entries.filter(|it| it.key.starts_with(PROVENANCE_PREFIX));
                ours.for_each(|it| find_placeholders(&it.value, found));
            }
            _ => find_placeholders(&entry.value, found),
        }
    }
    for item in node.items() {
        find_placeholders(item, found);
    }
}

// --- Provenance ----------------------------------------------------------------------------------

fn provenance(object: &Node, rollout: &Rollout) -> Vec<Finding> {
    let nothing = BTreeMap::new();
    let metadata = object.get("metadata");
    let annotations = rollout.metadata.annotations.as_ref().unwrap_or(&nothing);
    let read = Provenance::read(annotations, &rollout.spec.template);
    let node = metadata.and_then(|metadata| metadata.get("annotations"));
    let otherwise = node.or(metadata).map_or(object.at, |node| node.at);
    let entry = |name: &str| node.and_then(|node| node.entry(name));
    let place = |key: &str| {
        let entry = entry(&format!("{PROVENANCE_PREFIX}{key}"));
        entry.map_or(otherwise, |entry| entry.at)
    };
    let problems = read.problems.iter();
    let mut findings: Vec<_> = problems
        .map(|problem| {
            Finding::warning(
                key_of(problem).map_or(otherwise, place),
                problem.to_string(),
            )
        })
        .collect();
    if read.state == State::Absent {
        let message = format!(
            "no annotation {PROVENANCE_PREFIX}* says where the change comes from, so it counts as unknown and takes small steps: have the pipeline write them, by `kubectl countersign stamp`"
        );
        findings.push(Finding::warning(otherwise, message));
    }
    if let Some(stamp) = entry(CHANGED_BY_ANNOTATION) {
        let message =
            format!("annotation {CHANGED_BY_ANNOTATION} is written by the API server: remove it");
        findings.push(Finding::warning(stamp.at, message));
    }
    findings
}

/// The annotation that a problem is about.
fn key_of(problem: &Problem) -> Option<&str> {
    match problem {
        Problem::UnknownWord { key, .. }
        | Problem::NoCount { key, .. }
        | Problem::NoPercentage { key, .. }
        | Problem::Empty { key }
        | Problem::Invisible { key, .. }
        | Problem::TooLong { key, .. }
        | Problem::Contradiction { key, .. } => Some(key),
        Problem::OtherImage { .. } => Some("image"),
        Problem::Attestation(_) | Problem::Attested(_) => Some("attestation"),
        Problem::UnknownKeys { names } => names.split(',').next(),
        Problem::AllTooLong { .. } => None,
    }
}

// --- Pods ----------------------------------------------------------------------------------------

/// What is wrong with the pods of a Rollout and of its smoke check, and with how they are selected.
fn pods_of(spec: &Node) -> Vec<Finding> {
    let smoke = ["strategy", "canary", "smoke", "template"];
    let labels = spec.find(&["selector", "matchLabels"]).into_iter();
    let serving = spec.get("template").into_iter();
    let smoke = spec.find(&smoke).into_iter();
    labels
        .flat_map(|it| pods::check_labels(it, "spec.selector.matchLabels"))
        .chain(serving.flat_map(|it| pods::check(it, "spec.template", Purpose::Serve)))
        .chain(smoke.flat_map(|it| {
            pods::check(it, "spec.strategy.canary.smoke.template", Purpose::RunOnce)
        }))
        .collect()
}

// --- Smoke checks --------------------------------------------------------------------------------

/// Images of a smoke check that look like the placeholder, and would stay what they are.
fn smoke_images(template: &Node) -> Vec<Finding> {
    let lists = ["containers", "initContainers"].map(|list| template.find(&["spec", list]));
    let containers = lists.into_iter().flatten().flat_map(Node::items);
    let images = containers.filter_map(|container| container.get("image"));
    let images = images.filter_map(|image| {
        let text = image.text()?;
        let message = format!(
            "`{}` is no image: write {} alone, which becomes the image of the Rollout's first container",
            shown(text, 80),
            smoke_job::IMAGE
        );
        (text.contains("{{") && text != smoke_job::IMAGE).then(|| Finding::error(image.at, message))
    });
    images.collect()
}

// --- Queries -------------------------------------------------------------------------------------

/// What the controller would say of an analysis; `services` are those of the two arms.
fn analysis_queries(node: &Node, analysis: &Analysis, services: &[Option<&str>]) -> Vec<Finding> {
    let mut findings = queries(node, &analysis.checks, analysis.interval, services);
    findings.extend(objectives(node, &analysis.objectives));
    findings
}

/// What the controller would say of a template that is used with its defaults.
fn template(object: &Node, spec: &Node) -> Vec<Finding> {
    let template: AnalysisTemplate = match typed(object) {
        Ok(template) => template,
        Err(finding) => return vec![finding],
    };
    let needed = template.spec.args.iter().filter(|it| it.default.is_none());
    let sample = |argument: &Argument| ArgumentValue {
        name: argument.name.clone(),
        value: match argument.kind {
            ArgumentType::String => "value".into(),
            ArgumentType::Number => "1".into(),
            ArgumentType::Duration => "1m".into(),
        },
    };
    let used = TemplateUse {
        args: needed.map(sample).collect(),
        ..TemplateUse::default()
    };
    let resolved = checks::resolve(&used, &template.spec);
    if !resolved.problems.is_empty() {
        let problems = resolved.problems.iter();
        return problems
            .map(|problem| Finding::error(spec.at, problem.clone()))
            .collect();
    }
    let services = [Some("service")];
    let mut findings = queries(spec, &resolved.checks, default_interval(), &services);
    findings.extend(objectives(spec, &resolved.objectives));
    findings
}

/// What the controller would say of each check's queries.
fn queries(
    node: &Node,
    checks: &[Check],
    interval: Duration,
    services: &[Option<&str>],
) -> Vec<Finding> {
    let nodes = node.get("checks").into_iter().flat_map(Node::items);
    let mut findings = Vec::new();
    for (node, check) in nodes.zip(checks) {
        let mut told = BTreeSet::new();
        for service in services {
            let rendered = match &check.metric {
                Some(metric) => {
                    query::render_metric(check, metric, arm(*service), interval).map(|_| ())
                }
                None => query::render(check, arm(*service), interval).map(|_| ()),
            };
            if let Err(error) = rendered {
                let message = error.to_string();
                if told.insert(message.clone()) {
                    findings.push(Finding::error(place(node, error.field), message));
                }
            }
        }
        findings.extend(check.metric.as_ref().and_then(|it| blind(node, it)));
    }
    findings
}

fn objectives(node: &Node, objectives: &[Objective]) -> Vec<Finding> {
    let nodes = node.get("objectives").into_iter().flat_map(Node::items);
    let problems = nodes.zip(objectives).filter_map(|(node, objective)| {
        let error = query::render_objective(&objective.name, objective, arm(None)).err()?;
        Some(Finding::error(place(node, error.field), error.to_string()))
    });
    problems.collect()
}

fn arm(service: Option<&str>) -> Arm<'_> {
    Arm {
        namespace: "namespace",
        service,
        rollout: "rollout",
        revision: "revision",
    }
}

/// Where a query stands in its check.
fn place(check: &Node, field: Field) -> Position {
    let field = field.to_string();
    let path: Vec<_> = field.split('.').collect();
    check.find(&path).map_or(check.at, |query| query.at)
}

/// A metric that does not tell the canary from the stable revision may be meant so, or be a slip.
fn blind(check: &Node, metric: &Metric) -> Option<Finding> {
    let names = ["{{revision}}", "{{service}}"];
    let told = names
        .iter()
        .any(|name| metric.query.replace(' ', "").contains(name));
    let message = "metric.query holds neither `{{revision}}` nor `{{service}}`, so it measures the stable revision too: leave it so only if that is meant";
    (!told).then(|| Finding::warning(place(check, Field::Metric), message))
}

/// An incident query that Prometheus would refuse, or that may answer nothing.
fn incident(node: &Node) -> Option<Finding> {
    // The parser panics on numbers beyond what a duration holds.
    let text = node.text()?;
    let parsed = std::panic::catch_unwind(|| parser::parse(text));
    let expression = match parsed.unwrap_or_else(|_| Err("a number in it is out of range".into())) {
        Ok(expression) => expression,
        Err(message) => {
            let message = format!(
                "spec.freeze.incident.query is not PromQL, so promotions would wait: {}",
                shown(&message, 200)
            );
            return Some(Finding::error(node.at, message));
        }
    };
    match expression.value_type() {
        ValueType::Scalar => None,
        ValueType::Vector if ends_in_vector(&expression) => None,
        ValueType::Vector => {
            let message = "spec.freeze.incident.query may answer with nothing, which is no number, so promotions would wait: end it with `or vector(0)`";
            Some(Finding::warning(node.at, message))
        }
        ValueType::Matrix | ValueType::String => {
            let message = "spec.freeze.incident.query yields no number: count something, such as `count(ALERTS{alertstate=\"firing\"}) or vector(0)`";
            Some(Finding::error(node.at, message))
        }
    }
}

/// Whether something is answered in any case.
fn ends_in_vector(expression: &Expr) -> bool {
    match expression {
        Expr::Paren(inner) => ends_in_vector(&inner.expr),
        Expr::Binary(binary) => binary.op.to_string() == "or" && ends_in_vector(&binary.rhs),
        Expr::Call(call) => call.func.name == "vector",
        _ => false,
    }
}

// --- Freeze windows ------------------------------------------------------------------------------

fn windows(spec: &Node) -> Vec<Finding> {
    let windows = spec
        .find(&["freeze", "windows"])
        .into_iter()
        .flat_map(Node::items);
    windows.filter_map(window).collect()
}

fn window(node: &Node) -> Option<Finding> {
    let zone = node.get("timeZone");
    let zone_name = zone.map_or(Some("UTC"), Node::text)?;
    if let Some(zone) = zone.filter(|_| TimeZone::get(zone_name).is_err()) {
        let name = shown(zone_name, 64);
        let message =
            format!("timeZone: `{name}` is no time zone: write an IANA name such as Europe/Berlin");
        return Some(Finding::error(zone.at, message));
    }
    let schedule = node.get("schedule")?;
    if let Err(problem) = cron(schedule.text()?, zone_name) {
        let message = format!("schedule: {problem}");
        return Some(Finding::error(schedule.at, message));
    }
    let duration = node.get("duration")?;
    let is_empty = duration.text()?.parse() == Ok(countersign_api::Duration::default());
    let message = "duration is 0: the window freezes nothing";
    is_empty.then(|| Finding::warning(duration.at, message))
}

/// Whether a schedule has five fields that can be read.
fn cron(schedule: &str, zone: &str) -> Result<(), String> {
    let fields = schedule.split_ascii_whitespace().count();
    if fields != 5 {
        return Err(format!(
            "`{}` has {fields} fields: write five, minute, hour, day of month, month and day of week, such as `0 18 * * FRI`",
            shown(schedule, 80)
        ));
    }
    let parsed = cronexpr::parse_crontab(&format!("{schedule} {zone}"));
    parsed.map(|_| ()).map_err(|error| {
        let error = error.to_string();
        let why = error.rsplit("^ ").next().unwrap_or_default();
        format!("`{}` is no cron: {why}", shown(schedule, 80))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMxbnqlaeV2B/+wMyb2u78we8+H6r\n          jhkmgYTuOVvbua1Mo6/5j97Ptt6K9k4fk6RilwtI1AIvsNNVoHX21m7CZg==";
    const ED25519: &str = "MCowBQYDK2VwAyEAXMyh4wPRenJAHrbIKiZSSIBIJJSZNiFk1TQjfapxIoU=";

    /// Line, severity and message of each finding, in files of these texts.
    fn linted(texts: &[&str]) -> Vec<(u64, Severity, String)> {
        let read = |text: &&str| {
            Read::source(&Source {
                name: "a.yaml".into(),
                text: (*text).to_owned(),
            })
        };
        let files: Vec<_> = texts.iter().map(read).collect();
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let lines = check(&files, now).into_iter();
        lines.map(|it| (it.line, it.severity, it.message)).collect()
    }

    /// A sound Rollout whose last lines, from line 23 on, are the canary's.
    fn rollout(canary: &str) -> String {
        format!(
            "apiVersion: countersign.dev/v1alpha1
kind: Rollout
metadata:
  name: web
  labels: {{ team: shop }}
  annotations:
    provenance.countersign.dev/image: example.org/web:1
    provenance.countersign.dev/contributor: human
    provenance.countersign.dev/authors: alice
spec:
  selector:
    matchLabels: {{ app: web }}
  template:
    metadata:
      labels: {{ app: web }}
    spec:
      containers:
        - name: web
          image: example.org/web:1
          args: ['${{HOME}}', '{{{{ .Name }}}}']
  strategy:
    canary:
{canary}"
        )
    }

    fn check_of(errors: &str, total: &str) -> String {
        rollout(&format!(
            "      analysis:
        checks:
          - name: own
            errors: '{errors}'
            total: '{total}'
"
        ))
    }

    fn policy(spec: &str) -> String {
        format!(
            "apiVersion: countersign.dev/v1alpha1
kind: RolloutPolicy
metadata:
  name: strict
spec:
{spec}"
        )
    }

    #[test]
    fn what_is_sound_has_no_findings() {
        let sound = check_of(
            "x{h=\"{{revision}}\",code=~\"5..\"}",
            "sum(increase(x{h=\"{{revision}}\"}[{{window}}]))",
        );
        assert_eq!(linted(&[&sound]), []);
        assert_eq!(
            linted(&["", "kind: Service\napiVersion: v1\n", "---\n"]),
            []
        );
    }

    #[test]
    fn a_smoke_check_is_a_pod_template_whose_placeholder_is_spelt_right() {
        let smoke = |image: &str, rest: &str| {
            rollout(&format!(
                "      smoke:
        timeout: 2m
        template:
          spec:
            {rest}
            containers:
              - {{ name: smoke, image: '{image}', args: ['{{{{ .Name }}}}'] }}
"
            ))
        };
        assert_eq!(linted(&[&smoke("{{image}}", "hostNetwork: false")]), []);
        for (image, rest, line, told) in [
            (
                "{{ image }}",
                "hostNetwork: false",
                29,
                "`{{ image }}` is no image: write {{image}} alone",
            ),
            (
                "{{image}}",
                "hostNetwork: often",
                27,
                "spec.strategy.canary.smoke.template.spec.hostNetwork: ",
            ),
            (
                "{{image}}",
                "hostNetwerk: true",
                27,
                "did you mean `hostNetwork`?",
            ),
        ] {
            let found = linted(&[&smoke(image, rest)]);
            assert!(
                found.len() == 1 && found[0].0 == line && found[0].2.contains(told),
                "{found:?}"
            );
        }
    }

    #[test]
    fn queries_are_held_to_the_controllers_own_rules() {
        let good = "x{h=\"{{revision}}\"}";
        for (errors, total, line, message) in [
            (
                "x{",
                good,
                26,
                "field `errors` of check `own`: the query is not PromQL",
            ),
            (
                good,
                "y",
                27,
                "field `total` of check `own`: the query would measure the pods of every revision",
            ),
            (
                good,
                "x{h=\"{{revison}}\"}",
                27,
                "field `total` of check `own`: `{{revison}}` is no placeholder",
            ),
            (
                "x{s=\"{{service}}\",h=\"{{revision}}\"}",
                good,
                26,
                "field `errors` of check `own`: `{{service}}` resolves to nothing",
            ),
        ] {
            let findings = linted(&[&check_of(errors, total)]);
            let [(at, Severity::Error, told)] = &findings[..] else {
                panic!("{findings:?}")
            };
            assert_eq!(*at, line, "{told}");
            assert!(told.starts_with(message), "{told}");
        }
        let of_policy = policy(
            "  analysis: { checks: [{ name: a, errors: 'x{s=\"{{service}}\",h=\"{{revision}}\"}', total: z }] }\n",
        );
        let findings = linted(&[&of_policy]);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].2.contains("every revision"));
    }

    #[test]
    fn a_route_that_cannot_be_split_is_an_error_at_its_name() {
        let canary = "      stableService: web
      canaryService: web-canary
      traffic: { routes: [{ name: web }] }
";
        let route = |backends: &str| {
            let head = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: web }\n";
            format!("{head}spec: {{ rules: [{{ backendRefs: [{backends}] }}] }}\n")
        };
        let both = route("{ name: web }, { name: web-canary, weight: 0 }");
        assert_eq!(linted(&[&rollout(canary), &both]), []);
        let findings = linted(&[&rollout(canary), &route("{ name: web }")]);
        let [(_, Severity::Error, told)] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert!(
            told.starts_with("HTTPRoute web: none of its rules sends to both"),
            "{told}"
        );
    }

    #[test]
    fn rollouts_that_wait_for_each_other_are_an_error() {
        let web = rollout("  dependsOn: [api]\n");
        let api = rollout("  dependsOn: [web]\n").replace("name: web", "name: api");
        let findings = linted(&[&web, &api]);
        let circles = findings
            .iter()
            .filter(|it| it.2.contains("dependsOn leads back"));
        assert_eq!(circles.count(), 2, "{findings:?}");
        assert_eq!(
            linted(&[&web]),
            [],
            "what is not in the files may be in the cluster"
        );
    }

    #[test]
    fn problems_of_provenance_are_warnings_at_their_annotation() {
        let text = rollout("").replace("contributor: human", "contributor: humann");
        let findings = linted(&[&text]);
        assert_eq!(
            findings,
            [(8, Severity::Warning, "annotation provenance.countersign.dev/contributor is `humann`: write one of human, ai, mixed, unknown".into())]
        );
        let text = rollout("").replace(
            "image: example.org/web:1\n    prov",
            "image: other\n    prov",
        );
        let [(7, Severity::Warning, message)] = &linted(&[&text])[..] else {
            panic!()
        };
        assert!(message.contains("which no container of the template uses"));
        let text = rollout("").replace(
            "provenance.countersign.dev/authors: alice",
            "countersign.dev/changed-by: alice",
        );
        assert_eq!(linted(&[&text])[0].0, 9);
        let none = rollout("").replace("provenance.", "another.");
        let [(7, Severity::Warning, message)] = &linted(&[&none])[..] else {
            panic!("{:?}", linted(&[&none]))
        };
        assert!(message.contains("counts as unknown"), "{message}");
    }

    #[test]
    fn the_selector_of_a_named_service_is_an_error_or_a_warning() {
        let service = |selector: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{ name: web }}\nspec: {{ selector: {selector} }}\n"
            )
        };
        let named = rollout("      stableService: web\n");
        assert_eq!(
            linted(&[&named, &service("{ app: web, pod-template-hash: x }")]),
            [(23, Severity::Warning, "the manifest of Service web has spec.selector, which is one value for server-side apply: that conflicts with the controller, or takes pod-template-hash out; leave spec.selector out, the controller sets it".into())]
        );
        let findings = linted(&[&named, &service("{ app: shop }")]);
        assert_eq!(
            findings,
            [(23, Severity::Error, "Service web selects pods with app=shop, which is no label of spec.template: it would never reach them".into())]
        );
    }

    #[test]
    fn freeze_windows_need_a_cron_and_a_time_zone() {
        let window = |schedule: &str, zone: &str, duration: &str| {
            policy(&format!(
                "  freeze:
    windows:
      - name: weekend
        schedule: '{schedule}'
        timeZone: {zone}
        duration: {duration}
"
            ))
        };
        assert_eq!(
            linted(&[&window("0 18 * * FRI", "Europe/Berlin", "62h")]),
            []
        );
        for (schedule, zone, duration, line, severity, message) in [
            (
                "0 18 * * FRY",
                "UTC",
                "1h",
                9,
                Severity::Error,
                "schedule: `0 18 * * FRY` is no cron:",
            ),
            (
                "0 18 * * * *",
                "UTC",
                "1h",
                9,
                Severity::Error,
                "schedule: `0 18 * * * *` has 6 fields: write five",
            ),
            (
                "0 25 * * FRI",
                "UTC",
                "1h",
                9,
                Severity::Error,
                "schedule: `0 25 * * FRI` is no cron: ",
            ),
            (
                "0 18 * * FRI",
                "Europe/Berlim",
                "1h",
                10,
                Severity::Error,
                "timeZone: `Europe/Berlim` is no time zone",
            ),
            (
                "0 18 * * FRI",
                "UTC",
                "0s",
                11,
                Severity::Warning,
                "duration is 0",
            ),
        ] {
            let findings = linted(&[&window(schedule, zone, duration)]);
            let [(at, how_bad, told)] = &findings[..] else {
                panic!("{findings:?}")
            };
            assert_eq!((*at, *how_bad), (line, severity), "{told}");
            assert!(told.starts_with(message), "{told}");
        }
    }

    #[test]
    fn incident_queries_must_parse_and_should_answer_in_any_case() {
        let incident = |query: &str| {
            linted(&[&policy(&format!(
                "  freeze: {{ incident: {{ query: '{query}' }} }}\n"
            ))])
        };
        for good in [
            "count(ALERTS) or vector(0)",
            "(count(ALERTS) > 3) or (vector(0))",
            "vector(1)",
            "scalar(x) + 1",
        ] {
            assert_eq!(incident(good), [], "{good}");
        }
        for (query, severity, message) in [
            ("count(ALERTS", Severity::Error, "is not PromQL"),
            ("x[5m]", Severity::Error, "yields no number"),
            ("count(ALERTS)", Severity::Warning, "or vector(0)"),
            (
                "vector(0) or count(ALERTS)",
                Severity::Warning,
                "or vector(0)",
            ),
            ("x and vector(0)", Severity::Warning, "or vector(0)"),
        ] {
            let [(6, how_bad, told)] = &incident(query)[..] else {
                panic!("{query}")
            };
            assert_eq!(*how_bad, severity, "{query}");
            assert!(told.contains(message), "{told}");
        }
    }

    #[test]
    fn keys_must_be_of_a_kind_that_is_known_and_not_over() {
        let keys = |key: &str, more: &str| {
            policy(&format!(
                "  provenance:
    trust: Attested
    keys:
      - name: ci
        publicKey: |
          -----BEGIN PUBLIC KEY-----
          {key}
          -----END PUBLIC KEY-----
{more}"
            ))
        };
        for key in [P256, ED25519] {
            assert_eq!(linted(&[&keys(key, "")]), [], "{key}");
        }
        let past = keys(P256, "        notAfter: 2026-01-01T00:00:00Z\n");
        assert_eq!(
            linted(&[&past]),
            [(
                15,
                Severity::Warning,
                "notAfter is in the past: it is believed no more".into()
            )]
        );
        let [(10, Severity::Error, message)] = &linted(&[&keys("MFkwEwYH", "")])[..] else {
            panic!()
        };
        assert!(message.contains("this is no public key"), "{message}");
        let [(6, Severity::Warning, message)] =
            &linted(&[&policy("  provenance: { trust: Attested }\n")])[..]
        else {
            panic!()
        };
        assert!(message.starts_with("no key is named"), "{message}");
    }

    #[test]
    fn a_selector_that_fits_no_rollout_beside_it_is_a_warning() {
        let own = policy("  rolloutSelector: { matchLabels: { team: shop } }\n");
        let other = policy("  rolloutSelector: { matchLabels: { team: shipping } }\n");
        assert_eq!(linted(&[&own, &rollout("")]), []);
        assert_eq!(linted(&[&other]), [], "there is nothing to compare it with");
        assert_eq!(
            linted(&[&other, &rollout("")]),
            [(6, Severity::Warning, "rolloutSelector team=shipping fits none of the 1 Rollouts in these files: compare it with their metadata.labels".into())]
        );
    }

    #[test]
    fn signatures_that_could_never_count_are_found() {
        let sign_off = "apiVersion: countersign.dev/v1alpha1
kind: SignOff
metadata: { name: a }
spec:
  rollout: web
  rolloutUid: u
  run: web-1
  digest: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  decision: Approve
  approver: { username: alice }
";
        assert_eq!(linted(&[sign_off]), []);
        let unstamped = sign_off.replace("  approver: { username: alice }\n", "");
        assert_eq!(linted(&[&unstamped]), [], "the API server fills it in");
        for (from, to, line, severity) in [
            ("cdef\n", "cdeF\n", 8, Severity::Error),
            ("alice", "system:serviceaccount:a:b", 10, Severity::Error),
            ("decision: Approve", "decision: Reject", 5, Severity::Error),
            (
                "decision: Approve",
                "decision: Approve\n  gate: step-0",
                10,
                Severity::Error,
            ),
            (
                "decision: Approve",
                "decision: Approve\n  expiresAt: 2026-01-01T00:00:00Z",
                10,
                Severity::Warning,
            ),
        ] {
            let findings = linted(&[&sign_off.replace(from, to)]);
            let told: Vec<_> = findings.iter().map(|it| (it.0, it.1)).collect();
            assert_eq!(told, [(line, severity)], "{findings:?}");
        }
    }

    #[test]
    fn an_object_that_is_given_twice_in_a_file_is_an_error() {
        let twice = format!("{}---\n{}", rollout(""), rollout(""));
        assert_eq!(
            linted(&[&twice]),
            [(
                27,
                Severity::Error,
                "Rollout web is in line 4 already".into()
            )]
        );
        assert_eq!(
            linted(&[&rollout(""), &rollout("")]),
            [],
            "versions of one object"
        );
    }

    #[test]
    fn placeholders_are_named_for_what_they_are() {
        let helm = rollout("").replace(
            "name: web\n  labels",
            "name: '{{ .Values.name }}'\n  labels",
        );
        assert_eq!(
            linted(&[&helm]),
            [(4, Severity::Error, HELM_TEMPLATE.into())]
        );
        let shell = rollout("").replace(
            "image: example.org/web:1\n          args",
            "image: example.org/web:${TAG}\n          args",
        );
        let findings = linted(&[&shell]);
        assert_eq!(
            (findings[1].0, findings[1].1),
            (19, Severity::Error),
            "{findings:?}"
        );
        assert!(
            findings[1]
                .2
                .starts_with("`example.org/web:${TAG}` holds a placeholder")
        );
    }

    #[test]
    fn what_is_no_manifest_is_passed_over_but_not_in_silence() {
        let findings = linted(&["replicas: 3\n"]);
        assert_eq!((findings[0].0, findings[0].1), (1, Severity::Warning));
    }
}
