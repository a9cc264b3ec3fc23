//! Manifests in files: reading them within bounds, and the typed objects in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign_api::{
    AnalysisTemplate, AnalysisTemplateSpec, PROVENANCE_PREFIX, PodTemplate, Rollout, RolloutPolicy,
};
use countersign_core::observation::Observation;
use countersign_core::observation::people::NamedPolicy;
use countersign_core::observation::workload::Service;
use countersign_core::policy;
use countersign_core::simulation::manifest::{self, Surroundings};
use countersign_core::text::shown;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::schema::{self, Severity};
use super::yaml::{self, Node, Position};

/// Most bytes of one file that are read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Most characters of one message that are shown.
pub const MAX_MESSAGE: usize = 600;

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, io::Error),
    /// The file is larger than any manifest.
    #[error("{0} has more than 4 MiB: give files of manifests, each with fewer objects")]
    TooLarge(String),
    /// The directory holds nothing to read.
    #[error(
        "there is no .yaml, .yml or .json file in {0}: name files, or give -R to read its folders too"
    )]
    Empty(String),
    /// The program that builds a kustomization is not there.
    #[error(
        "kubectl, which builds {0}, is not in PATH: install it, or give what kustomize builds by -f -"
    )]
    NoKubectl(String),
    /// A kustomization cannot be built.
    #[error("`kubectl kustomize {directory}` fails: {why}")]
    Kustomize {
        /// Where it is.
        directory: String,
        /// What kubectl says.
        why: String,
    },
    /// The file is no text.
    #[error("{0} is no UTF-8 text: give YAML or JSON manifests")]
    NotText(String),
    /// An object in it is not what the API server would take.
    #[error("{file}:{}:{}: {message}{}", at.line, at.column, more(*.others))]
    Invalid {
        /// The file.
        file: String,
        /// Where in the file.
        at: Position,
        /// What is wrong.
        message: String,
        /// How many other faults the object has.
        others: usize,
    },
    /// There is nothing to look at.
    #[error("there is no Rollout in {0}: give a file with one by -f")]
    NoRollout(String),
    /// The workload that a Rollout adopts is not there.
    #[error(
        "Rollout {rollout} adopts Deployment {deployment}, which is not in the files: give its manifest, too"
    )]
    NoWorkload {
        /// The Rollout's name.
        rollout: String,
        /// The Deployment's name.
        deployment: String,
    },
    /// The file that should say what serves does not.
    #[error("there is no Rollout {0} in the files of --stable: give the manifest that serves now")]
    NoStable(String),
}

fn more(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" (and {others} more: see `kubectl countersign lint`)"),
    }
}

/// The manifests that a command reads, in the words of kubectl.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Inputs {
    /// Files, or directories of .yaml, .yml and .json files; `-` is the standard input
    #[arg(
        short = 'f',
        long = "filename",
        alias = "file",
        value_name = "FILE",
        num_args = 1..,
        required_unless_present = "kustomize",
        conflicts_with = "kustomize"
    )]
    files: Vec<PathBuf>,
    /// Read the folders of directories, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Directory of a kustomization, which `kubectl kustomize` builds
    #[arg(short = 'k', long, value_name = "DIRECTORY")]
    kustomize: Option<PathBuf>,
}

impl Inputs {
    /// Each file's name with its text, or why it cannot be read.
    #[must_use]
    pub fn sources(&self) -> Vec<(String, Result<Source, ManifestError>)> {
        match &self.kustomize {
            Some(directory) => vec![(name_of(directory), kustomized(directory))],
            None => self.beside(&self.files),
        }
    }

    /// The same for files that another option names.
    #[must_use]
    pub fn beside(&self, paths: &[PathBuf]) -> Vec<(String, Result<Source, ManifestError>)> {
        let read = |path: &PathBuf| match files_of(path, self.recursive) {
            Ok(files) => files
                .iter()
                .map(|file| (name_of(file), Source::read(file)))
                .collect(),
            Err(error) => vec![(name_of(path), Err(error))],
        };
        paths.iter().flat_map(read).collect()
    }

    /// What is read, by name.
    #[must_use]
    pub fn names(&self) -> String {
        let paths = self.files.iter().chain(&self.kustomize);
        let names: Vec<_> = paths.map(|path| name_of(path)).collect();
        names.join(", ")
    }
}

fn name_of(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "<stdin>".to_owned(),
        _ => shown(&path.display().to_string(), MAX_MESSAGE),
    }
}

/// The file itself, or the manifests of a directory in the order of their names, as kubectl reads them.
fn files_of(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, ManifestError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    collect_files(path, recursive, &mut files)
        .map_err(|error| ManifestError::Unreadable(name_of(path), error))?;
    if files.is_empty() {
        return Err(ManifestError::Empty(name_of(path)));
    }
    Ok(files)
}

fn collect_files(directory: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = std::fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let extension = path.extension().and_then(std::ffi::OsStr::to_str);
        // Links to directories are not followed, so that there is no circle.
        if entry.file_type()?.is_dir() {
            if recursive {
                collect_files(&path, recursive, files)?;
            }
        } else if matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// What `kubectl kustomize` builds.
fn kustomized(directory: &Path) -> Result<Source, ManifestError> {
    let name = name_of(directory);
    let mut command = Command::new("kubectl");
    command.arg("kustomize").arg("--").arg(directory);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ManifestError::NoKubectl(name.clone()),
        _ => ManifestError::Unreadable(name.clone(), error),
    })?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(ManifestError::Kustomize {
            directory: name,
            why: shown(why.trim(), MAX_MESSAGE),
        });
    }
    Source::of(name, output.stdout)
}

/// A text with the name under which messages speak of it.
pub struct Source {
    /// The file's name.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl Source {
    /// Reads a file, or the standard input for `-`.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let name = name_of(path);
        let mut bytes = Vec::new();
        let read = if path.as_os_str() == "-" {
            io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)
        } else {
            File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        };
        read.map_err(|error| ManifestError::Unreadable(name.clone(), error))?;
        Self::of(name, bytes)
    }

    fn of(name: String, bytes: Vec<u8>) -> Result<Self, ManifestError> {
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
            return Err(ManifestError::TooLarge(name));
        }
        let text = String::from_utf8(bytes).map_err(|_| ManifestError::NotText(name.clone()))?;
        Ok(Self { name, text })
    }

    /// The objects in the text; those of a `List` one by one.
    pub fn objects(&self) -> Result<Vec<Node>, yaml::SyntaxError> {
        let documents = yaml::documents(&self.text).map_err(|error| self.hinted(error))?;
        Ok(documents.into_iter().flat_map(unpacked).collect())
    }

    /// What is wrong with a line is most often that it is a template's. Others may stand in texts for other
    /// programs, so only the line of the error counts, and the one before, where it may have begun.
    fn hinted(&self, error: yaml::SyntaxError) -> yaml::SyntaxError {
        let mut lines = (1..).zip(self.text.lines());
        let near = |line| line <= error.at.line && line + 1 >= error.at.line;
        match lines.find(|(number, line)| near(*number) && is_helm_template(line)) {
            Some((line, _)) => yaml::SyntaxError {
                at: Position { line, column: 1 },
                message: HELM_TEMPLATE.to_owned(),
            },
            None => error,
        }
    }

    fn invalid(&self, at: Position, message: &str, others: usize) -> ManifestError {
        ManifestError::Invalid {
            file: self.name.clone(),
            at,
            message: shown(message, MAX_MESSAGE),
            others,
        }
    }
}

/// What to say to a template that is no manifest yet.
pub const HELM_TEMPLATE: &str =
    "this is a Helm template, not a manifest: render it first, by `helm template`";

/// Whether a text holds an action of Helm's templates. Placeholders of queries are single words.
#[must_use]
pub fn is_helm_template(text: &str) -> bool {
    const WORDS: [&str; 14] = [
        ".",
        "$",
        "/*",
        "include ",
        "if ",
        "else",
        "end",
        "range ",
        "with ",
        "template ",
        "define ",
        "toYaml ",
        "tpl ",
        "required ",
    ];
    text.split("{{").skip(1).any(|action| {
        let action = action.trim_start_matches('-').trim_start();
        WORDS.iter().any(|word| action.starts_with(word))
    })
}

/// The members of a list of any kind, such as `List` or `RolloutList`, as kubectl takes it apart.
fn unpacked(document: Node) -> Vec<Node> {
    let kind = document.get("kind").and_then(Node::text);
    let is_list = kind.is_some_and(|kind| kind.ends_with("List"));
    match document.get("items") {
        Some(items) if is_list => items.items().iter().cloned().flat_map(unpacked).collect(),
        _ => vec![document],
    }
}

/// The typed objects of some files.
#[derive(Default)]
pub struct Manifests {
    /// The Rollouts in their order.
    pub rollouts: Vec<Rollout>,
    /// The policies in their order.
    pub policies: Vec<RolloutPolicy>,
    /// The Services by namespace and name.
    services: BTreeMap<(String, String), Service>,
    /// The AnalysisTemplates in their order.
    templates: Vec<AnalysisTemplate>,
    /// The Deployments in their order, as they are written.
    deployments: Vec<Value>,
}

impl Manifests {
    /// The objects in what was read; what the API server would refuse is an error here as well.
    pub fn read(
        sources: Vec<(String, Result<Source, ManifestError>)>,
    ) -> Result<Self, ManifestError> {
        let sources: Result<Vec<_>, _> = sources.into_iter().map(|(_, source)| source).collect();
        Self::of(&sources?)
    }

    /// The objects in some texts.
    pub fn of(sources: &[Source]) -> Result<Self, ManifestError> {
        let mut all = Self::default();
        for source in sources {
            let objects = source
                .objects()
                .map_err(|error| source.invalid(error.at, &error.message, 0))?;
            for object in objects {
                all.add(source, &object)?;
            }
        }
        all.adopt()?;
        Ok(all)
    }

    /// Gives each Rollout that adopts a Deployment what it takes over: template, selector, provenance.
    fn adopt(&mut self) -> Result<(), ManifestError> {
        for rollout in &mut self.rollouts {
            let Some(workload) = &rollout.spec.workload_ref else {
                continue;
            };
            let namespace = rollout.metadata.namespace.as_deref();
            let same = |it: &&Value| {
                let text = |path: &str| it.pointer(path).and_then(Value::as_str);
                text("/metadata/name") == Some(&workload.name)
                    && text("/metadata/namespace") == namespace
            };
            let found = self.deployments.iter().find(same);
            let missing = || ManifestError::NoWorkload {
                rollout: shown(&rollout.name_any(), MAX_MESSAGE),
                deployment: shown(&workload.name, MAX_MESSAGE),
            };
            let found = found.ok_or_else(missing)?;
            let part = |path: &str| found.pointer(path).cloned().unwrap_or_default();
            rollout.spec.template = PodTemplate(part("/spec/template"));
            rollout.spec.selector =
                serde_json::from_value(part("/spec/selector")).unwrap_or_default();
            let declared = rollout.annotations().keys();
            if !declared
                .into_iter()
                .any(|key| key.starts_with(PROVENANCE_PREFIX))
            {
                let annotations: BTreeMap<String, String> =
                    serde_json::from_value(part("/metadata/annotations")).unwrap_or_default();
                let provenance = annotations
                    .into_iter()
                    .filter(|(key, _)| key.starts_with(PROVENANCE_PREFIX));
                rollout.annotations_mut().extend(provenance);
            }
        }
        Ok(())
    }

    fn add(&mut self, source: &Source, object: &Node) -> Result<(), ManifestError> {
        match schema::kind(object) {
            Some("Rollout") => self.rollouts.push(typed(source, object)?),
            Some("RolloutPolicy") => self.policies.push(typed(source, object)?),
            Some("AnalysisTemplate") => self.templates.push(typed(source, object)?),
            None if is_deployment(object) => self.deployments.push(object.json()),
            _ => self.services.extend(service(object)),
        }
        Ok(())
    }

    /// What each Rollout would be observed as right after it was applied over what serves now:
    /// the one of the same name in `stable`, or where there are no such files another image.
    pub fn observations(
        self,
        stable: Option<&Self>,
        namespace_labels: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<Vec<Observed>, ManifestError> {
        let observe = |rollout: &Rollout| {
            let before = stable.map(|stable| stable.same(rollout)).transpose()?;
            let serving = match before {
                Some(before) => before.spec.template.clone(),
                None => manifest::with_another_image(&rollout.spec.template),
            };
            let (governing, others): (Vec<_>, Vec<_>) = self.policies.iter().partition(|policy| {
                policy::governs(&policy.spec, namespace_labels, rollout.labels())
            });
            let around = Surroundings {
                namespace_labels: namespace_labels.clone(),
                policies: governing.into_iter().map(named).collect(),
                services: self.services_of(rollout),
                templates: self.templates_beside(rollout),
            };
            Ok(Observed {
                observation: manifest::observe(rollout, &serving, around, now),
                namespace: rollout.namespace(),
                not_governing: others.into_iter().map(|it| reason(it, rollout)).collect(),
                provenance_as_before: before
                    .is_some_and(|it| provenance(it).eq(provenance(rollout))),
            })
        };
        self.rollouts.iter().map(observe).collect()
    }

    /// The Rollout of the same name.
    fn same(&self, rollout: &Rollout) -> Result<&Rollout, ManifestError> {
        let same = |other: &&Rollout| {
            other.name_any() == rollout.name_any() && other.namespace() == rollout.namespace()
        };
        let found = self.rollouts.iter().find(same);
        let missing = || ManifestError::NoStable(shown(&rollout.name_any(), MAX_MESSAGE));
        found.ok_or_else(missing)
    }

    /// The AnalysisTemplates of a Rollout's namespace.
    fn templates_beside(&self, rollout: &Rollout) -> BTreeMap<String, AnalysisTemplateSpec> {
        let beside = self.templates.iter();
        let beside = beside.filter(|template| template.namespace() == rollout.namespace());
        beside
            .map(|template| (template.name_any(), template.spec.clone()))
            .collect()
    }

    /// The Services that a Rollout names, as far as the files hold them.
    fn services_of(&self, rollout: &Rollout) -> BTreeMap<String, Option<Service>> {
        let canary = &rollout.spec.strategy.canary;
        let names = canary.stable_service.iter().chain(&canary.canary_service);
        let known = names.filter_map(|name| {
            let key = (rollout.namespace().unwrap_or_default(), name.clone());
            Some((name.clone(), Some(self.services.get(&key)?.clone())))
        });
        known.collect()
    }
}

/// A Rollout as the controller would observe it.
pub struct Observed {
    /// What a decision is made from.
    pub observation: Observation,
    /// The namespace that the manifest names.
    pub namespace: Option<String>,
    /// The policies that do not govern it, each with the reason.
    pub not_governing: Vec<String>,
    /// Whether its provenance is word for word that of the manifest that serves.
    pub provenance_as_before: bool,
}

fn provenance(rollout: &Rollout) -> impl Iterator<Item = (&String, &String)> {
    let annotations = rollout.annotations().iter();
    annotations.filter(|(key, _)| key.starts_with(PROVENANCE_PREFIX))
}

fn named(policy: &RolloutPolicy) -> NamedPolicy {
    NamedPolicy {
        name: policy.name_any(),
        generation: policy.metadata.generation.unwrap_or_default(),
        spec: policy.spec.clone(),
    }
}

/// Why a policy does not govern a Rollout.
fn reason(policy: &RolloutPolicy, rollout: &Rollout) -> String {
    let selector = &policy.spec.rollout_selector;
    let by_rollout = selector.as_ref().filter(|it| !it.matches(rollout.labels()));
    let (what, selector) = match (by_rollout, &policy.spec.namespace_selector) {
        (None, Some(selector)) => ("namespace", selector.to_string()),
        (selector, _) => (
            "Rollout",
            selector.map(ToString::to_string).unwrap_or_default(),
        ),
    };
    let (name, selector) = (shown(&policy.name_any(), 80), shown(&selector, 200));
    format!("{name}: the {what} does not have the labels {selector}")
}

/// An object of a known kind that the API server would take.
fn typed<T: DeserializeOwned>(source: &Source, object: &Node) -> Result<T, ManifestError> {
    let mut errors = schema::check(object);
    errors.retain(|finding| finding.severity == Severity::Error);
    if let Some(first) = errors.first() {
        return Err(source.invalid(first.at, &first.message, errors.len() - 1));
    }
    serde_json::from_value(schema::stored(object))
        .map_err(|error| source.invalid(object.at, &error.to_string(), 0))
}

fn is_deployment(object: &Node) -> bool {
    let text = |key| object.get(key).and_then(Node::text);
    text("kind") == Some("Deployment") && text("apiVersion") == Some("apps/v1")
}

/// Namespace, name and what matters of a Service.
fn service(object: &Node) -> Option<((String, String), Service)> {
    let is_service =
        object.get("kind")?.text()? == "Service" && object.get("apiVersion")?.text()? == "v1";
    let metadata = object.get("metadata").filter(|_| is_service)?;
    let text = |key| {
        metadata
            .get(key)
            .and_then(Node::text)
            .map(ToOwned::to_owned)
    };
    let spec = object.get("spec")?;
    let selector = spec.get("selector").into_iter().flat_map(Node::entries);
    let service = Service {
        kind: spec
            .get("type")
            .and_then(Node::text)
            .unwrap_or("ClusterIP")
            .to_owned(),
        selector: selector
            .filter_map(|entry| Some((entry.key.clone(), entry.value.text()?.to_owned())))
            .collect(),
    };
    Some((
        (text("namespace").unwrap_or_default(), text("name")?),
        service,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source {
            name: "a.yaml".into(),
            text: text.into(),
        }
    }

    #[test]
    fn helm_templates_are_told_from_queries() {
        for template in [
            "{{ .Values.name }}",
            "{{- if .Values.x }}",
            "a: {{ include \"x\" . }}",
            "{{- end }}",
            "{{/* note */}}",
            "{{ $name }}",
            "{{ toYaml .x | nindent 2 }}",
        ] {
            assert!(is_helm_template(template), "{template}");
        }
        for other in [
            "x{a=\"{{revision}}\"}",
            "{{ window }}",
            "no braces",
            "{a: {b: c}}",
        ] {
            assert!(!is_helm_template(other), "{other}");
        }
    }

    #[test]
    fn a_helm_template_that_is_no_yaml_is_called_one_at_its_line() {
        let error = source("kind: Rollout\nname: {{ .Values.name }}\n")
            .objects()
            .unwrap_err();
        assert_eq!((error.at.line, error.message.as_str()), (2, HELM_TEMPLATE));
    }

    #[test]
    fn the_objects_of_a_list_are_read_one_by_one() {
        let list = "apiVersion: v1\nkind: List\nitems:\n  - kind: A\n  - kind: B\n---\nkind: C\n";
        let objects = source(list).objects().unwrap();
        let kinds: Vec<_> = objects
            .iter()
            .map(|it| it.get("kind").unwrap().text())
            .collect();
        assert_eq!(kinds, [Some("A"), Some("B"), Some("C")]);
    }

    #[test]
    fn what_the_api_server_would_refuse_is_refused_with_its_place() {
        let policy = "apiVersion: countersign.dev/v1alpha1
kind: RolloutPolicy
metadata: { name: a }
spec:
  tiers: { low: { minBake: 5 } }
  risks: {}
";
        let source = source(policy);
        let object = source.objects().unwrap().remove(0);
        let error = Manifests::default().add(&source, &object).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.yaml:5:28: spec.tiers.low.minBake: 5 is not a text: write it in quotes (and 1 more: see `kubectl countersign lint`)"
        );
    }

    #[test]
    fn a_rollout_that_adopts_a_deployment_takes_its_template_and_provenance() {
        let rollout = "apiVersion: countersign.dev/v1alpha1
kind: Rollout
metadata: { name: web }
spec: { workloadRef: { name: web } }
";
        let deployment = "apiVersion: apps/v1
kind: Deployment
metadata: { name: web, annotations: { provenance.countersign.dev/contributor: human } }
spec:
  selector: { matchLabels: { app: web } }
  template: { metadata: { labels: { app: web } }, spec: { containers: [{ name: web, image: a:1 }] } }
";
        let read = |text: &str| {
            let source = source(text);
            let mut all = Manifests::default();
            for object in source.objects().unwrap() {
                all.add(&source, &object).unwrap();
            }
            all.adopt().map(|()| all)
        };
        let missing = read(rollout).map(drop).unwrap_err();
        assert!(
            matches!(missing, ManifestError::NoWorkload { .. }),
            "{missing}"
        );
        let all = read(&format!("{rollout}---\n{deployment}")).unwrap();
        let rollout = &all.rollouts[0];
        assert_eq!(rollout.spec.template.images(), ["a:1"]);
        assert_eq!(rollout.spec.selector.to_string(), "app=web");
        assert!(
            rollout
                .annotations()
                .contains_key("provenance.countersign.dev/contributor")
        );
    }

    #[test]
    fn a_service_is_read_as_far_as_it_matters() {
        let text = "apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { type: LoadBalancer, selector: { app: web } }
";
        let (key, service) = service(&source(text).objects().unwrap()[0]).unwrap();
        assert_eq!(key, ("shop".into(), "web".into()));
        assert_eq!(
            (service.kind.as_str(), service.selector.len()),
            ("LoadBalancer", 1)
        );
    }
}
