//! Who signed the commits of a range, as `git verify-commit` finds it.
//!
//! A signature counts if git knows its key as valid: in the keyring with full trust, or in the file of
//! `gpg.ssh.allowedSignersFile`. It shows one person: who signed a review of their own did review, and who signed
//! their own commit did write it.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::assistants::{Who, who};
use super::git::{Commit, GitError, Range, Repository, Signature};
use super::visible::{identity, name_and_address};

/// What verifies signatures: no setting of the clone may choose another program.
const PROGRAMS: [&str; 8] = [
    "-c",
    "gpg.program=gpg",
    "-c",
    "gpg.openpgp.program=gpg",
    "-c",
    "gpg.x509.program=gpgsm",
    "-c",
    "gpg.ssh.program=ssh-keygen",
];
/// The mark of a good signature by a key that is known as valid.
const GOOD: &str = "G";
/// Most commits that a message names.
const NAMED: usize = 5;

/// Commits without a signature, where each needs one.
#[derive(Debug, Error)]
#[error(
    "{count} commits have no good signature of their author or committer ({commits}): have them sign with `git commit -S`, and give git their keys: gpg.ssh.allowedSignersFile, or `gpg --import` and full trust"
)]
pub struct Unsigned {
    /// How many there are.
    count: usize,
    /// The first of them.
    commits: String,
}

/// The signers of the commits with a good signature, by id.
#[derive(Debug, Default)]
pub(super) struct Signers(BTreeMap<String, String>);

impl Signers {
    /// The signers of the commits of a range.
    pub(super) fn of(repository: &Repository, range: &Range) -> Result<Self, GitError> {
        let between = format!("{}..{}", range.base, range.head);
        let mut arguments = PROGRAMS.to_vec();
        arguments.extend([
            "log",
            "--no-color",
            "--no-show-signature",
            "--format=tformat:%H%x00%G?%x00%GS",
            &between,
            "--",
        ]);
        let listed = repository.read("the signatures", &arguments)?;
        let signer = |line: &str| {
            let mut items = line.split('\0');
            let (id, mark, signer) = (items.next()?, items.next()?, items.next()?);
            (mark == GOOD).then(|| (id.to_owned(), signer.to_owned()))
        };
        Ok(Self(listed.lines().filter_map(signer).collect()))
    }

    /// Whether a person with this address signed a commit. Anybody may have the same name.
    pub(super) fn signed(&self, commit: &str, address: &str) -> bool {
        let signer = self.0.get(commit);
        signer.is_some_and(|signer| {
            let (_, own) = name_and_address(signer);
            !own.is_empty() && own.eq_ignore_ascii_case(address)
        })
    }
}

/// Refuses commits that neither their author nor their committer signed; returns the people who signed the
/// commits of others as their committers, since nothing else shows who wrote those.
pub(super) fn required(
    signers: &Signers,
    commits: &[Commit],
) -> Result<BTreeSet<String>, Unsigned> {
    let mut committers = BTreeSet::new();
    let mut unsigned = Vec::new();
    for commit in commits.iter().filter(|it| it.writes()) {
        let signed = |by: &Signature| signers.signed(&commit.id, &by.address);
        if signed(&commit.author) {
            continue;
        }
        let Signature { name, address } = &commit.committer;
        if !signed(&commit.committer) {
            unsigned.push(commit.id.chars().take(12).collect::<String>());
        } else if who(name, address) == Who::Person {
            committers.extend(identity(name, address));
        }
    }
    if unsigned.is_empty() {
        return Ok(committers);
    }
    let count = unsigned.len();
    unsigned.truncate(NAMED);
    Err(Unsigned {
        count,
        commits: unsigned.join(", "),
    })
}
