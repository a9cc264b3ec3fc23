//! Who reviewed the change and whether its tests passed: of the command line, or else of the commits.

use std::collections::BTreeSet;

use countersign_core::provenance::TestResult;
use countersign_core::text::sanitize_lines;

use super::authorship::Authorship;
use super::git::Repository;
use super::options::Options;
use super::problem::StampError;
use super::visible::{self, name_and_address};

/// The review and the tests of a change.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Those who reviewed it.
    pub reviewers: BTreeSet<String>,
    /// The revision that they approved; empty if it is not known.
    pub approved_revision: String,
    /// The result of the tests, if it is known.
    pub tests: Option<TestResult>,
}

impl Evidence {
    /// The evidence about a range of commits.
    pub(super) fn of(
        options: &Options,
        authorship: &Authorship,
        repository: &Repository,
        head: &str,
    ) -> Result<Self, StampError> {
        let named = named("--reviewer", &options.reviewer)?;
        Ok(Self {
            reviewers: authorship.reviewers.union(&named).cloned().collect(),
            approved_revision: approved(authorship, repository, head, options)?,
            tests: options.tests.map(Into::into),
        })
    }
}

/// People from the command line.
pub(super) fn named(
    option: &'static str,
    values: &[String],
) -> Result<BTreeSet<String>, StampError> {
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
    head: &str,
    options: &Options,
) -> Result<String, StampError> {
    let Some(revision) = &options.approved_revision else {
        let is_head = authorship.is_reviewed && options.reviewer.is_empty();
        return Ok(if is_head {
            head.to_owned()
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
