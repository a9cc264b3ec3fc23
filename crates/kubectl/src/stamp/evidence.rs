//! Who reviewed the change and whether its tests passed: of the command line, or else of the commits and
//! the files of `--event`.

use std::collections::BTreeSet;

use countersign_api::provenance::ReviewSource;
use countersign_core::provenance::TestResult;
use countersign_core::text::sanitize_lines;

use super::authorship::Authorship;
use super::forge::coverage::Reviewable;
use super::forge::{Approvals, Forge};
use super::options::{Options, word};
use super::problem::{StampError, shown_path};
use super::signatures::Signers;
use super::visible::{self, name_and_address};

/// Most commits that a remark names.
const NAMED: usize = 5;

/// The review and the tests of a change.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Those who reviewed it.
    pub reviewers: BTreeSet<String>,
    /// The revision that they approved; empty if it is not known.
    pub approved_revision: String,
    /// Where that review is from; the weakest of several sources.
    pub source: Option<ReviewSource>,
    /// The reviewers, if the forge shows their review of each commit.
    pub by_forge: BTreeSet<String>,
    /// The result of the tests, if it is known.
    pub tests: Option<TestResult>,
    /// Remarks for the log.
    pub remarks: Vec<String>,
}

impl Evidence {
    /// The evidence about a range of commits. The command line wins over documents.
    pub(super) fn of(
        options: &Options,
        authorship: &Authorship,
        range: &Reviewable<'_>,
    ) -> Result<Self, StampError> {
        let mut forge = Forge::default();
        for path in &options.event {
            forge.read(path, shown_path(path))?;
        }
        let approvals = forge.approvals(range)?;
        let named = named("--reviewer", &options.reviewer)?;
        let mut evidence = Self {
            reviewers: authorship.reviewers.union(&named).cloned().collect(),
            tests: options.tests.map(Into::into),
            ..Self::default()
        };
        if named.is_empty() && options.approved_revision.is_none() {
            evidence.add_reviews(options, &forge, approvals, authorship, range);
        } else {
            evidence.approved_revision = given_revision(range, options)?;
            evidence.source = Some(ReviewSource::Flag);
            if forge.has_reviews() {
                evidence.remarks.push(format!(
                    "the command line names the review, so the reviews of --event do not count: {}",
                    summary(&approvals)
                ));
            }
        }
        if !options.event.is_empty() {
            evidence.add_tests(&forge, options, range.head);
        }
        Ok(evidence)
    }

    /// Whether the forge shows the review, or its reviewers signed it.
    pub(super) fn is_verified(&self) -> bool {
        let verified = [ReviewSource::Forge, ReviewSource::SignedCommit];
        self.source.is_some_and(|it| verified.contains(&it))
    }

    /// The reviews that the forge shows, or else those of trailers.
    fn add_reviews(
        &mut self,
        options: &Options,
        forge: &Forge,
        approvals: Approvals,
        authorship: &Authorship,
        range: &Reviewable<'_>,
    ) {
        let covered = approvals.commits;
        let open = authorship.reviews.iter();
        let open = open.filter(|(id, by)| by.is_empty() && !covered.contains(*id));
        let open: Vec<_> = open.map(|(id, _)| id).collect();
        let stale = approvals.stale.filter(|_| covered.is_empty());
        self.remarks.extend(approvals.remarks);
        self.reviewers.extend(approvals.reviewers.iter().cloned());
        if !open.is_empty() && !options.event.is_empty() && !forge.has_reviews() {
            self.remarks.push(
                "the files of --event hold no review: pass pulls/N/reviews of GitHub or merge_requests/IID/approvals of GitLab, too".into(),
            );
        }
        if open.is_empty() {
            // A change of merges alone has nothing to review, and nobody who reviewed it.
            if !authorship.reviews.is_empty() {
                range.head.clone_into(&mut self.approved_revision);
                self.weigh(&covered, approvals.reviewers, authorship, range.signers);
            }
        } else if let Some((reviewer, revision)) = stale {
            self.reviewers = BTreeSet::from([reviewer]);
            self.approved_revision = revision;
            self.source = Some(ReviewSource::Forge);
        } else if forge.has_reviews() {
            self.remarks.push(format!(
                "no review is known of {} of the commits: {}",
                open.len(),
                some(&open)
            ));
        }
    }

    /// The source of a review of all commits: the weakest of those that it needs. Beside a verified review nobody is
    /// named who stands in a trailer alone.
    fn weigh(
        &mut self,
        covered: &BTreeSet<String>,
        mut verified: BTreeSet<String>,
        authorship: &Authorship,
        signers: &Signers,
    ) {
        let mut source = ReviewSource::Forge;
        for (commit, reviewers) in &authorship.reviews {
            if covered.contains(commit) {
                continue;
            }
            let signed = |it: &&String| signers.signed(commit, name_and_address(it).1);
            let Some(reviewer) = reviewers.iter().find(signed) else {
                self.source = Some(ReviewSource::Trailer);
                return;
            };
            verified.insert(reviewer.clone());
            source = ReviewSource::SignedCommit;
        }
        if source == ReviewSource::Forge {
            self.by_forge.clone_from(&verified);
        }
        self.reviewers = verified;
        self.source = Some(source);
    }

    fn add_tests(&mut self, forge: &Forge, options: &Options, revision: &str) {
        let (result, remarks) = forge.tests(revision, &options.own_check);
        match (self.tests, result) {
            (Some(given), Some(found)) if given != found => self.remarks.push(format!(
                "--tests is {}, so the checks of --event do not count: they are {}",
                word(given),
                word(found)
            )),
            (Some(_), _) => {}
            (None, found) => {
                self.tests = found;
                self.remarks.extend(remarks);
            }
        }
    }
}

/// What the reviews of documents would have shown.
fn summary(approvals: &Approvals) -> String {
    let stale = approvals.stale.iter().map(|(reviewer, _)| reviewer);
    let reviewers: Vec<_> = approvals.reviewers.iter().chain(stale).cloned().collect();
    match (reviewers.is_empty(), &approvals.stale) {
        (true, _) => "they hold no approval that would".to_owned(),
        (false, Some((_, revision))) if approvals.commits.is_empty() => {
            format!("{} approved {revision}", reviewers.join(", "))
        }
        (false, _) => format!("{} approved the change", reviewers.join(", ")),
    }
}

fn some(commits: &[&String]) -> String {
    let short = commits.iter().take(NAMED);
    let mut short: Vec<String> = short.map(|id| id.chars().take(12).collect()).collect();
    if commits.len() > NAMED {
        short.push("…".into());
    }
    short.join(", ")
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

/// The reviewed revision of the command line; empty if it names none. The trailers do not count for this, since
/// what the named reviewers reviewed is unknown.
fn given_revision(range: &Reviewable<'_>, options: &Options) -> Result<String, StampError> {
    let Some(revision) = &options.approved_revision else {
        return Ok(String::new());
    };
    if let Some(id) = range.repository.resolved(revision)? {
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
            remedy: "it is not a commit of the repository: write its full id",
        })
    }
}
