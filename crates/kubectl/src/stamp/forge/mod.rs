//! Reviews and check results from what forges and CI systems give: event payloads and answers of their
//! APIs, as files of `--event`.
//!
//! Start with [`Forge::read`]; `github` and `gitlab` list the recognised documents, `reviews` decides which
//! reviews count, `checks` what the checks show.
//!
//! Invariant: a document is foreign text. What it does not show stays unknown, with a remark that names
//! what would show it; nothing here uses the network.

mod accounts;
mod checks;
pub(super) mod coverage;
mod document;
mod facts;
mod github;
mod gitlab;
mod problem;
mod reviews;
mod shape;

use std::io::Read;
use std::path::Path;

use countersign_core::provenance::TestResult;

use super::git::GitError;
use coverage::Reviewable;
use facts::Facts;
pub use problem::EventError;
use problem::MAX_BYTES;
pub use reviews::Approvals;

/// What the files of `--event` show.
#[derive(Debug, Default)]
pub struct Forge(Facts);

impl Forge {
    /// Adds the facts of a file, which has this name for people.
    pub(super) fn read(&mut self, path: &Path, name: String) -> Result<(), EventError> {
        let mut text = Vec::new();
        let read = if path == Path::new("-") {
            let mut input = std::io::stdin().take(MAX_BYTES + 1);
            input.read_to_end(&mut text)
        } else {
            std::fs::File::open(path)
                .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text))
        };
        match read {
            Err(source) => Err(EventError::File { file: name, source }),
            Ok(length) if length as u64 > MAX_BYTES => Err(EventError::TooLarge { file: name }),
            Ok(_) => self.parse(&name, &text),
        }
    }

    /// Adds the facts of a file with this name and content. After an error some of them may be added.
    pub fn parse(&mut self, name: &str, text: &[u8]) -> Result<(), EventError> {
        document::read(name, text, &mut self.0)
    }

    /// Whether it has any review at all.
    pub(super) fn has_reviews(&self) -> bool {
        !self.0.reviews.is_empty()
    }

    /// The reviews of a range that count.
    pub(super) fn approvals(&self, range: &Reviewable<'_>) -> Result<Approvals, GitError> {
        reviews::approvals(&self.0, range)
    }

    /// The result of the checks of a revision, if it is known, and remarks. Unfinished checks of these names
    /// are left out: they run `stamp`.
    #[must_use]
    pub fn tests(&self, revision: &str, own: &[String]) -> (Option<TestResult>, Vec<String>) {
        checks::result(&self.0, revision, own)
    }
}

#[cfg(test)]
mod tests;
