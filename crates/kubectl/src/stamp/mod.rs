//! `stamp`: derives provenance annotations from a range of git commits, and from what forges and CI systems
//! know of its reviews and checks.
//!
//! Runs in CI, without a cluster and without a network. Start with [`run`]; `trailers`, `assistants` and
//! `authorship` define the traces of AIs, people and reviews, `forge` reads the documents of `--event`.
//!
//! Law: unknown facts are never written as harmless. A trace that could be a person's makes the
//! contributor unknown; a review that does not cover all commits sets no approved revision; and the path
//! rules come from the base of the range, so that a change cannot rewrite its own rules.

mod annotations;
pub mod areas;
mod assistants;
pub mod authorship;
mod evidence;
mod files;
pub mod forge;
pub mod git;
pub mod manifest;
mod notes;
mod options;
mod problem;
mod pusher;
mod signatures;
mod signing;
mod trailers;
mod visible;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use countersign_api::{CHANGED_BY_ANNOTATION, PROVENANCE_PREFIX, PodTemplate};
use countersign_core::provenance::Provenance;
use countersign_core::provenance::digest::image_digest;
use countersign_core::text::sanitize_lines;
use serde_json::json;

use self::annotations::{Annotations, list};
use self::areas::{Areas, Size};
use self::authorship::Authorship;
use self::evidence::{Evidence, named};
pub use self::forge::EventError;
use self::forge::coverage::Reviewable;
pub use self::git::GitError;
use self::git::{Change, Range, Repository};
pub use self::manifest::ManifestError;
pub use self::options::Options;
use self::options::Output;
pub use self::problem::StampError;
use self::problem::shown_path;
use self::signatures::Signers;
use self::visible::item;

/// The provenance of a range of commits.
struct Stamp {
    /// The annotations, with their prefix.
    annotations: BTreeMap<String, String>,
    /// Remarks for the log.
    remarks: Vec<String>,
}

/// Prints the annotations or the manifests, or edits the manifests.
pub fn run(options: &Options) -> Result<ExitCode, StampError> {
    let manifests = manifests(options)?;
    let stamp = stamp(options, &manifests)?;
    for remark in &stamp.remarks {
        anstream::eprintln!("note: {}", sanitize_lines(remark));
    }
    if manifests.is_empty() {
        print_annotations(&stamp.annotations, options.output);
    } else {
        stamp_manifests(options, &stamp.annotations, &manifests)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Derives the provenance of the range of commits.
fn stamp(options: &Options, manifests: &[(&Path, String)]) -> Result<Stamp, StampError> {
    options.image.as_deref().map_or(Ok(()), check_image)?;
    let repository = Repository(options.repo.clone());
    let range = repository.range(&options.range)?;
    let areas = areas(options, &repository, &range)?;
    let commits = repository.commits(&range)?;
    let mut authorship = Authorship::of(&commits, &areas);
    let operators = named("--human-operator", &options.human_operator)?;
    let signers = signers(options, &repository, &range, &authorship)?;
    let evidence = Evidence::of(
        options,
        &authorship,
        &Reviewable {
            repository: &repository,
            head: &range.head,
            commits: &commits,
            signers: &signers,
            operators: &operators,
            areas: &areas,
        },
    )?;
    if options.require_signed_commits {
        let committers = signatures::required(&signers, &commits)?;
        authorship.authors.extend(committers);
    }
    let variable = |name: &str| std::env::var(name).ok();
    let pusher = pusher::further_author(variable, &evidence.by_forge);
    authorship.authors.extend(pusher);
    let changes = repository.changes(&range)?;
    let size = areas.size(&changes);

    let mut remarks = authorship.remarks.clone();
    remarks.extend(remarks_on_size(options, &range, &changes, &size));
    remarks.extend(evidence.remarks.iter().cloned());

    let mut annotations = Annotations::default();
    annotations.people(&authorship, &operators);
    annotations.evidence(&evidence);
    annotations.size(&size);
    annotations.subject(&repository, (&range, &commits), options);
    let mut annotations = annotations.0;
    if let Some(path) = &options.sign {
        let key = read(path)?;
        let (attestation, remark) =
            signing::attestation(options, &key, &annotations, &evidence, &range, manifests)?;
        annotations.insert(format!("{PROVENANCE_PREFIX}attestation"), attestation);
        remarks.extend(remark.map(ToOwned::to_owned));
    }
    remarks.extend(problems(&annotations, options.image.as_deref())?);
    let user = options.changed_by.clone();
    annotations.extend(user.map(|user| (CHANGED_BY_ANNOTATION.to_owned(), user)));
    Ok(Stamp {
        annotations,
        remarks,
    })
}

fn remarks_on_size(
    options: &Options,
    range: &Range,
    changes: &[Change],
    size: &Size,
) -> Vec<String> {
    let mut remarks = Vec::new();
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
    remarks
}

/// Who signed the commits, if that matters: each signature takes a run of a program.
fn signers(
    options: &Options,
    repository: &Repository,
    range: &Range,
    authorship: &Authorship,
) -> Result<Signers, GitError> {
    if options.require_signed_commits || !authorship.reviewers.is_empty() {
        Signers::of(repository, range)
    } else {
        Ok(Signers::default())
    }
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

/// The manifests to stamp, each with its path.
fn manifests(options: &Options) -> Result<Vec<(&Path, String)>, StampError> {
    let mut manifests = Vec::new();
    for path in &options.filename {
        if options.write && is_standard_input(path) {
            return Err(StampError::Option {
                option: "--write",
                value: "true".into(),
                remedy: "the standard input cannot be edited: name a file with -f",
            });
        }
        manifests.push((path.as_path(), read(path)?));
    }
    Ok(manifests)
}

/// Prints or writes the manifests with the annotations. All are edited before the first is written.
fn stamp_manifests(
    options: &Options,
    annotations: &BTreeMap<String, String>,
    manifests: &[(&Path, String)],
) -> Result<(), StampError> {
    let mut edited = Vec::new();
    for (path, text) in manifests {
        let stamped = manifest::stamped(text, annotations, options.rollout.as_deref());
        let stamped = stamped.map_err(|source| StampError::Manifest {
            file: shown_path(path),
            source,
        })?;
        edited.push((path, text, stamped));
    }
    if edited.iter().all(|(_, _, stamped)| stamped.rollouts == 0) {
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
    for (index, (path, text, stamped)) in edited.iter().enumerate() {
        if !options.write {
            print_manifest(index, &stamped.text);
        } else if **text != stamped.text {
            files::replace(path, &stamped.text)
                .map_err(|source| StampError::file("write", path, source))?;
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
    text.map_err(|source| StampError::file("read", path, source))
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
