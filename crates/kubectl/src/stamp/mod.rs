//! `stamp`: derives provenance annotations from a range of git commits.
//!
//! Runs in CI, without a cluster. Start with [`stamp`]; `trailers`, `assistants` and `authorship` define
//! the traces of AIs, people and reviews.
//!
//! Law: unknown facts are never written as harmless. A trace that could be a person's makes the
//! contributor unknown; a review that does not cover all commits sets no approved revision; and the path
//! rules come from the base of the range, so that a change cannot rewrite its own rules.

pub mod areas;
mod assistants;
pub mod authorship;
mod files;
pub mod git;
pub mod manifest;
mod notes;
mod pattern;
mod trailers;
mod visible;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use countersign_api::{Duration, PROVENANCE_PREFIX, PodTemplate};
use countersign_core::provenance::Provenance;
use countersign_core::provenance::attestation::problem::SigningError;
use countersign_core::provenance::attestation::statement::Statement;
use countersign_core::provenance::digest::image_digest;
use countersign_core::provenance::identity::Agent;
use countersign_core::provenance::problem::Problem;
use countersign_core::text::sanitize_lines;
use serde_json::json;
use thiserror::Error;

use self::areas::{Areas, Size};
use self::authorship::Authorship;
pub use self::git::GitError;
use self::git::{Range, Repository, without_credentials};
pub use self::manifest::ManifestError;
use self::visible::{item, name_and_address};
use crate::clock;

/// Largest count that the controller accepts.
const MAX_COUNT: u64 = 1_000_000_000;

/// Derive provenance annotations from a range of git commits.
#[derive(Args, Debug)]
pub struct Options {
    /// The commits of the change, from the deployed revision to the new one.
    #[arg(long, value_name = "BASE..HEAD")]
    range: String,
    /// Path to the git clone.
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
    /// Path to the path rules [default: .countersign.yaml in the root of the base revision].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The image that was built, preferably by digest.
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// The result of the tests.
    #[arg(long, value_name = "RESULT")]
    tests: Option<Tests>,
    /// A person who reviewed the change. This flag can be repeated.
    #[arg(long, value_name = "NAME")]
    reviewer: Vec<String>,
    /// The revision that the reviewers approved.
    #[arg(long, value_name = "SHA")]
    approved_revision: Option<String>,
    /// A person who drove the AI. This flag can be repeated.
    #[arg(long, value_name = "NAME")]
    human_operator: Vec<String>,
    /// A manifest whose Rollouts get the annotations, `-` for the standard input. This flag can be
    /// repeated.
    #[arg(short = 'f', long = "filename", value_name = "MANIFEST")]
    filename: Vec<PathBuf>,
    /// Only the Rollout of this name.
    #[arg(long, value_name = "NAME", requires = "filename")]
    rollout: Option<String>,
    /// Edit the manifests in place instead of printing them.
    #[arg(long, requires = "filename")]
    write: bool,
    /// Path to a private key (PKCS#8 PEM: ECDSA P-256 or Ed25519) that attests the annotations of the
    /// image.
    #[arg(long, value_name = "KEY.pem", requires = "image", requires = "key")]
    sign: Option<PathBuf>,
    /// The key's name in the policies.
    #[arg(long, value_name = "NAME", requires = "sign")]
    key: Option<String>,
    /// Another image of the same pods that the attestation covers, by digest. This flag can be repeated.
    #[arg(long, value_name = "REF", requires = "sign")]
    also_attest: Vec<String>,
    /// Validity of the attestation, such as `720h` [default: unlimited].
    #[arg(long, value_name = "DURATION", requires = "sign")]
    valid_for: Option<Duration>,
    /// Output format of the annotations.
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "yaml")]
    #[arg(conflicts_with = "filename")]
    output: Output,
}

/// The test result, in the words of in-toto's test-result predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Tests {
    /// All passed.
    Passed,
    /// All passed, with warnings.
    Warned,
    /// At least one failed.
    Failed,
}

/// Output format of the annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// As YAML, one a line.
    Yaml,
    /// As a JSON object.
    Json,
}

/// The provenance of a range of commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The annotations, with their prefix.
    pub annotations: BTreeMap<String, String>,
    /// Remarks for the log.
    pub remarks: Vec<String>,
}

/// Why a stamp failed.
#[derive(Debug, Error)]
pub enum StampError {
    /// The commits.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The rules.
    #[error("{file} is wrong: {problem}")]
    Config {
        /// The file, and the revision it is from.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A file.
    #[error("cannot {verb} {file}: {source}")]
    File {
        /// The failed operation.
        verb: &'static str,
        /// The file.
        file: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A manifest.
    #[error("cannot stamp {file}: {source}")]
    Manifest {
        /// The manifest.
        file: String,
        /// Why.
        source: ManifestError,
    },
    /// No Rollout to stamp.
    #[error(
        "no Rollout of {group}{named} is in {files}: correct -f or --rollout",
        group = countersign_api::GROUP
    )]
    NoRollout {
        /// The requested name, as a part of the message.
        named: String,
        /// The manifests.
        files: String,
    },
    /// The attestation.
    #[error("cannot attest with {file}: {source}")]
    Signing {
        /// The key's file.
        file: String,
        /// Why.
        source: SigningError,
    },
    /// The controller would not know who made the change.
    #[error(
        "the controller would not read who made the change, so nothing is stamped: {0}: stamp a range with fewer authors"
    )]
    People(Problem),
    /// An option with a wrong value.
    #[error("{option} is `{value}`: {remedy}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What to write.
        remedy: &'static str,
    },
}

/// Prints the annotations or the manifests, or edits the manifests.
pub fn run(options: &Options) -> Result<ExitCode, StampError> {
    let stamp = stamp(options)?;
    for remark in &stamp.remarks {
        anstream::eprintln!("note: {}", sanitize_lines(remark));
    }
    if options.filename.is_empty() {
        print_annotations(&stamp.annotations, options.output);
    } else {
        stamp_manifests(options, &stamp.annotations)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Derives the provenance of the range of commits.
pub fn stamp(options: &Options) -> Result<Stamp, StampError> {
    options.image.as_deref().map_or(Ok(()), check_image)?;
    let repository = Repository(options.repo.clone());
    let range = repository.range(&options.range)?;
    let areas = areas(options, &repository, &range)?;
    let authorship = Authorship::of(&repository.commits(&range)?, &areas);
    let changes = repository.changes(&range)?;
    let size = areas.size(&changes);

    let mut remarks = authorship.remarks.clone();
    if range.undone > 0 {
        remarks.push(format!(
            "the base has {} commits that the head has not: the change undoes them, and their authors are not named",
            range.undone
        ));
    }
    if !size.binary.is_empty() {
        remarks.push(format!(
            "the lines of binary files cannot be counted, so lines-added and lines-deleted are left out: {}: if they are not code, name them under `ignore` in {}",
            list(&size.binary),
            areas::FILE
        ));
    }
    if options.config.is_none() && changes.iter().any(|change| change.path == areas::FILE) {
        remarks.push(format!(
            "the range changes {}: the rules of its base hold",
            areas::FILE
        ));
    }

    let mut annotations = Annotations::default();
    annotations.people(&authorship, options)?;
    annotations.set(
        "approved-revision",
        approved(&authorship, &repository, &range, options)?,
    );
    annotations.size(&size);
    annotations.subject(&repository, &range, options);
    let mut annotations = annotations.0;
    if let Some(attestation) = attestation(options, &annotations)? {
        annotations.insert(format!("{PROVENANCE_PREFIX}attestation"), attestation);
    }
    remarks.extend(problems(&annotations, options.image.as_deref())?);
    Ok(Stamp {
        annotations,
        remarks,
    })
}

/// The path rules: of the given file, or of the base of the range, or built in.
fn areas(options: &Options, repository: &Repository, range: &Range) -> Result<Areas, StampError> {
    let (file, text) = if let Some(path) = &options.config {
        (shown_path(path), Some(read(path)?))
    } else {
        let text = repository.root_file(&range.base, areas::FILE)?;
        let id: String = range.base.chars().take(12).collect();
        (format!("{} of revision {id}", areas::FILE), text)
    };
    Areas::read(&text.unwrap_or_default()).map_err(|problem| StampError::Config { file, problem })
}

/// The attestation of the annotations, if a key is given.
fn attestation(
    options: &Options,
    annotations: &BTreeMap<String, String>,
) -> Result<Option<String>, StampError> {
    let Some(path) = &options.sign else {
        return Ok(None);
    };
    let images = options.image.iter().chain(&options.also_attest);
    let images: Vec<_> = images.map(String::as_str).collect();
    let expires_at = options
        .valid_for
        .and_then(|valid| clock::now().saturating_add(valid.signed()).ok());
    let key = read(path)?;
    let signed = Statement::of(&images, annotations, expires_at)
        .and_then(|it| it.sign(&key, options.key.as_deref().unwrap_or_default()));
    signed.map(Some).map_err(|source| StampError::Signing {
        file: shown_path(path),
        source,
    })
}

/// Refuses a reference that the controller would not accept.
fn check_image(reference: &str) -> Result<(), StampError> {
    let refused = |remedy| StampError::Option {
        option: "--image",
        value: sanitize_lines(reference),
        remedy,
    };
    if reference.is_empty() || item(reference) != reference || reference.contains(' ') {
        return Err(refused("write a reference such as shop@sha256:…"));
    }
    let has_digest = reference.contains('@') || reference.starts_with("sha256:");
    if !has_digest || image_digest(reference).is_some() {
        Ok(())
    } else {
        Err(refused(
            "a digest is sha256: and 64 hexadecimal digits in lower case",
        ))
    }
}

/// The collected annotations.
#[derive(Default)]
struct Annotations(BTreeMap<String, String>);

impl Annotations {
    /// Sets an annotation, unless its value is empty.
    fn set(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.insert(format!("{PROVENANCE_PREFIX}{key}"), value);
        }
    }

    fn people(&mut self, authorship: &Authorship, options: &Options) -> Result<(), StampError> {
        self.set("contributor", authorship.contributor.as_str());
        if let Some(share) = authorship.ai_share {
            self.set("ai-share", share.to_string());
        }
        let agents: Vec<_> = authorship.agents.iter().map(agent).collect();
        self.set("agents", agents.join(", "));
        self.set("authors", list(&authorship.authors));
        let operators = named("--human-operator", &options.human_operator)?;
        self.set(
            "human-operator",
            list(authorship.operators.union(&operators)),
        );
        let reviewers = named("--reviewer", &options.reviewer)?;
        self.set("reviewers", list(authorship.reviewers.union(&reviewers)));
        Ok(())
    }

    fn size(&mut self, size: &Size) {
        let is_counted = size.binary.is_empty();
        let counts = [
            ("files-changed", Some(size.files as u64)),
            ("lines-added", is_counted.then_some(size.added)),
            ("lines-deleted", is_counted.then_some(size.deleted)),
            ("subsystems", Some(size.subsystems as u64)),
        ];
        for (key, count) in counts {
            let count = count.map(|count| count.min(MAX_COUNT).to_string());
            self.set(key, count.unwrap_or_default());
        }
        self.set("touches", list(&size.touches));
    }

    fn subject(&mut self, repository: &Repository, range: &Range, options: &Options) {
        let origin = repository.origin();
        let origin = origin.as_deref().and_then(without_credentials);
        self.set("repository", origin.unwrap_or_default());
        self.set("revision", range.head.as_str());
        self.set("image", options.image.clone().unwrap_or_default());
        let tests = options.tests.and_then(|it| it.to_possible_value());
        self.set(
            "tests",
            tests.map_or_else(String::new, |it| it.get_name().to_owned()),
        );
    }
}

fn agent(agent: &Agent) -> String {
    match &agent.model {
        Some(model) => format!("{} {model}", agent.tool),
        None => agent.tool.clone(),
    }
}

fn list<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<_> = items.into_iter().map(String::as_str).collect();
    items.join(", ")
}

/// People from the command line.
fn named(option: &'static str, values: &[String]) -> Result<BTreeSet<String>, StampError> {
    let person = |value: &String| {
        let (name, address) = name_and_address(value);
        visible::identity(name, address)
            .filter(|_| !value.contains(','))
            .ok_or_else(|| StampError::Option {
                option,
                value: sanitize_lines(value),
                remedy: "write one name, or `Name <address>`, and repeat the option for more",
            })
    };
    values.iter().map(person).collect()
}

/// The reviewed revision: the given one, or the head if each commit has a review by another person.
/// Reviewers from the command line do not count for this, since what they reviewed is unknown.
fn approved(
    authorship: &Authorship,
    repository: &Repository,
    range: &Range,
    options: &Options,
) -> Result<String, StampError> {
    let Some(revision) = &options.approved_revision else {
        let is_head = authorship.is_reviewed && options.reviewer.is_empty();
        return Ok(if is_head {
            range.head.clone()
        } else {
            String::new()
        });
    };
    if let Some(id) = repository.resolved(revision)? {
        return Ok(id);
    }
    // A force-push may have removed the revision from the branch.
    let is_id =
        matches!(revision.len(), 40 | 64) && revision.bytes().all(|c| c.is_ascii_hexdigit());
    if is_id {
        Ok(revision.to_ascii_lowercase())
    } else {
        Err(StampError::Option {
            option: "--approved-revision",
            value: sanitize_lines(revision),
            remedy: "it is no commit of the repository: write its full id",
        })
    }
}

/// The annotations that the controller will not accept, in its own words. The authors must be accepted:
/// unknown authors cannot be excluded from signing off.
fn problems(
    annotations: &BTreeMap<String, String>,
    image: Option<&str>,
) -> Result<Vec<String>, StampError> {
    let container = json!({ "name": "it", "image": image.unwrap_or_default() });
    let template = PodTemplate(json!({ "spec": { "containers": [container] } }));
    let read = Provenance::read(annotations, &template);
    if let Some(problem) = read.hidden_people() {
        return Err(StampError::People(problem.clone()));
    }
    Ok(read.problems.iter().map(ToString::to_string).collect())
}

fn print_annotations(annotations: &BTreeMap<String, String>, output: Output) {
    match output {
        Output::Yaml => {
            for (key, value) in annotations {
                anstream::println!("{key}: {}", manifest::block_scalar(value));
            }
        }
        Output::Json => anstream::println!("{:#}", json!(annotations)),
    }
}

/// Prints or writes the manifests with the annotations. All manifests are read before the first is
/// written.
fn stamp_manifests(
    options: &Options,
    annotations: &BTreeMap<String, String>,
) -> Result<(), StampError> {
    let mut manifests = Vec::new();
    for path in &options.filename {
        if options.write && is_standard_input(path) {
            return Err(StampError::Option {
                option: "--write",
                value: "true".into(),
                remedy: "the standard input cannot be edited: name a file with -f",
            });
        }
        let text = read(path)?;
        let stamped = manifest::stamped(&text, annotations, options.rollout.as_deref());
        let stamped = stamped.map_err(|source| StampError::Manifest {
            file: shown_path(path),
            source,
        })?;
        manifests.push((path, text, stamped));
    }
    if manifests
        .iter()
        .all(|(_, _, stamped)| stamped.rollouts == 0)
    {
        let files: Vec<_> = options
            .filename
            .iter()
            .map(|path| shown_path(path))
            .collect();
        let name = options.rollout.as_deref().map(sanitize_lines);
        return Err(StampError::NoRollout {
            named: name.map_or_else(String::new, |name| format!(" with the name `{name}`")),
            files: files.join(", "),
        });
    }
    for (index, (path, text, stamped)) in manifests.iter().enumerate() {
        if !options.write {
            print_manifest(index, &stamped.text);
        } else if *text != stamped.text {
            files::replace(path, &stamped.text)
                .map_err(|source| file_error("write", path, source))?;
        }
    }
    Ok(())
}

/// Prints a manifest as one of a stream of documents.
fn print_manifest(index: usize, text: &str) {
    if index > 0 && !text.starts_with("---") {
        println!("---");
    }
    print!("{text}");
    if !text.ends_with('\n') {
        println!();
    }
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

fn read(path: &Path) -> Result<String, StampError> {
    let text = if is_standard_input(path) {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|source| file_error("read", path, source))
}

fn file_error(verb: &'static str, path: &Path, source: std::io::Error) -> StampError {
    StampError::File {
        verb,
        file: shown_path(path),
        source,
    }
}

fn shown_path(path: &Path) -> String {
    sanitize_lines(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_whom_the_controller_would_not_read_are_refused() {
        let authors = |authors: &str| {
            BTreeMap::from([(format!("{PROVENANCE_PREFIX}authors"), authors.to_owned())])
        };
        for (names, problem) in [
            ("Bo\u{200b}b".to_owned(), "invisible"),
            ("Bob, ".repeat(1_000), "shorten it to 4096"),
        ] {
            let refusal = problems(&authors(names.trim_end()), None).unwrap_err();
            assert!(refusal.to_string().contains(problem), "{refusal}");
        }
        assert!(problems(&authors("Bob"), None).is_ok());
    }
}
