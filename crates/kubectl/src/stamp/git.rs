//! Reads a git repository with the `git` program.
//!
//! Invariant: nothing from the repository or the command line becomes an option of git, and nothing
//! in the repository's files runs or hides anything: no pager, hook, external diff, text conversion,
//! replaced object, mailmap, or setting that leaves changes out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use countersign_core::text::sanitize_lines;
use k8s_openapi::jiff::Timestamp;
use thiserror::Error;

/// The clone that holds the commits.
pub(super) struct Repository(pub PathBuf);

/// The commits that make up a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Full id of the base revision, which is not part of the change.
    pub base: String,
    /// Full id of the head revision.
    pub head: String,
    /// Commits of the base that the head does not have: the change undoes them.
    pub undone: u64,
    /// Whether the clone lacks some of the history.
    shallow: bool,
}

/// Name and address of an author or committer, as in the commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// The name.
    pub name: String,
    /// The e-mail address.
    pub address: String,
}

/// A commit of the range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Its full id.
    pub id: String,
    /// Number of parents: a merge has several.
    pub parents: usize,
    /// The author.
    pub author: Signature,
    /// The committer.
    pub committer: Signature,
    /// When it was committed, if git knows.
    pub committed_at: Option<Timestamp>,
    /// The values of its trailers `Reviewed-by`, by git's own rules.
    pub reviewed: Vec<String>,
    /// All of its message.
    pub message: String,
    /// Its note of git-ai, or nothing.
    pub note: String,
    /// The changed files; for a merge, the difference from git's automatic merge.
    pub changes: Vec<Change>,
}

impl Commit {
    /// Whether it changes anything; a merge without conflicts does not.
    pub(super) fn writes(&self) -> bool {
        self.parents < 2 || !self.changes.is_empty()
    }
}

/// A changed file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Its path.
    pub path: String,
    /// Its former path, if it was renamed.
    pub from: Option<String>,
    /// Added and deleted lines; `None` if they cannot be counted.
    pub lines: Option<(u64, u64)>,
}

/// Why a repository cannot be read.
#[derive(Debug, Error)]
pub enum GitError {
    /// git cannot be run.
    #[error("cannot run the program `git`: {0}: install git 2.35 or newer")]
    NoProgram(#[source] std::io::Error),
    /// git failed.
    #[error("git cannot read {what} of the repository: {stderr}")]
    Failed {
        /// The data that was read.
        what: &'static str,
        /// The error message of git.
        stderr: String,
    },
    /// Not a range.
    #[error("--range is `{0}`: write BASE..HEAD, for instance v1.4.1..v1.4.2")]
    NoRange(String),
    /// No such revision.
    #[error(
        "--range names `{0}`, which is not a commit of the repository: fetch it, or correct it"
    )]
    NoRevision(String),
    /// No such revision in a clone without its history.
    #[error(
        "--range names `{0}`, which this shallow clone lacks: fetch the whole history, for instance with `git fetch --unshallow` or `fetch-depth: 0`"
    )]
    NoRevisionInShallow(String),
    /// The clone has only some of the commits in the range.
    #[error(
        "this shallow clone lacks commits of --range {0}: fetch the whole history, for instance with `git fetch --unshallow` or `fetch-depth: 0`"
    )]
    CutHistory(String),
    /// Nothing to describe.
    #[error(
        "--range {0} has no commits, so there is nothing to stamp: name the revision that is deployed now as its base"
    )]
    Empty(String),
    /// The output of git is not in the expected format.
    #[error("cannot read git's list of {0}: use git 2.35 or newer")]
    Unreadable(&'static str),
}

/// Options of each listing of changed files.
const LISTING: [&str; 9] = [
    "-z",
    "--numstat",
    "--find-renames",
    "-l1000",
    "--diff-algorithm=myers",
    "--no-ext-diff",
    "--no-textconv",
    "--no-relative",
    "--ignore-submodules=none",
];

/// The fields of a commit: as many as [`commit`] takes.
const FIELDS: &str = "--format=tformat:%H%x00%P%x00%an%x00%ae%x00%cn%x00%ce%x00%ct%x00\
                      %(trailers:key=Reviewed-by,only,unfold,valueonly)%x00%B%x00%N";

impl Repository {
    /// The commits of `BASE..HEAD`.
    pub(super) fn range(&self, text: &str) -> Result<Range, GitError> {
        let no_range = || GitError::NoRange(sanitize_lines(text));
        let (base, head) = text.split_once("..").ok_or_else(no_range)?;
        if base.is_empty() || head.starts_with('.') || head.contains("..") {
            return Err(no_range());
        }
        let shallow = self.read("the state", &["rev-parse", "--is-shallow-repository"])?;
        let shallow = shallow.trim() == "true";
        let head = if head.is_empty() { "HEAD" } else { head };
        let base = self.revision(base, shallow)?;
        let head = self.revision(head, shallow)?;
        let undone = format!("{head}..{base}");
        let undone = self.read("the history", &["rev-list", "--count", &undone, "--"])?;
        let undone = undone
            .trim()
            .parse()
            .map_err(|_| GitError::Unreadable("commits"))?;
        if shallow && undone > 0 {
            return Err(GitError::CutHistory(sanitize_lines(text)));
        }
        Ok(Range {
            base,
            head,
            undone,
            shallow,
        })
    }

    fn revision(&self, name: &str, shallow: bool) -> Result<String, GitError> {
        self.resolved(name)?.ok_or_else(|| {
            let name = sanitize_lines(name);
            if shallow {
                GitError::NoRevisionInShallow(name)
            } else {
                GitError::NoRevision(name)
            }
        })
    }

    /// The full id of the named commit; `None` if there is none.
    pub(super) fn resolved(&self, name: &str) -> Result<Option<String>, GitError> {
        let commit = format!("{name}^{{commit}}");
        let arguments = [
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &commit,
        ];
        match self.read("a revision", &arguments) {
            Ok(id) => Ok(Some(id.trim().to_owned())),
            Err(GitError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The ids of a commit's parents. The id must be one of the repository.
    pub(super) fn parents(&self, id: &str) -> Result<Vec<String>, GitError> {
        let arguments = ["rev-list", "--parents", "--max-count=1", id, "--"];
        let listed = self.read("the parents of a commit", &arguments)?;
        Ok(listed.split_whitespace().skip(1).map(Into::into).collect())
    }

    /// The commits that `id` has and `base` has not; only those of the branch itself, if so wanted. Both
    /// must be ids of the repository.
    pub(super) fn ahead(
        &self,
        id: &str,
        base: &str,
        first_parent: bool,
    ) -> Result<BTreeSet<String>, GitError> {
        let excluded = format!("^{base}");
        let mut arguments = vec!["rev-list", id, &excluded];
        if first_parent {
            arguments.insert(1, "--first-parent");
        }
        arguments.push("--");
        let listed = self.read("the history", &arguments)?;
        Ok(listed.lines().map(Into::into).collect())
    }

    /// Whether the history of `head` has this commit; `head` must be an id of the repository.
    pub(super) fn is_ancestor(&self, id: &str, head: &str) -> Result<bool, GitError> {
        Ok(self.resolved(id)?.is_some() && self.ahead(id, head, false)?.is_empty())
    }

    /// The commits of a range, each with its changed files.
    pub(super) fn commits(&self, range: &Range) -> Result<Vec<Commit>, GitError> {
        let between = format!("{}..{}", range.base, range.head);
        let mut arguments = vec![
            "log",
            "--no-color",
            "--no-show-signature",
            "--encoding=UTF-8",
            "--no-notes",
            "--notes=ai",
            "--diff-merges=remerge",
            FIELDS,
        ];
        arguments.extend(LISTING);
        arguments.extend([between.as_str(), "--"]);
        let listed = self.read("the commits", &arguments)?;
        let mut commits = commits(&listed).ok_or(GitError::Unreadable("commits"))?;
        if commits.is_empty() {
            return Err(GitError::Empty(between));
        }
        if range.shallow && commits.iter().any(|commit| commit.parents == 0) {
            return Err(GitError::CutHistory(between));
        }
        for commit in &mut commits {
            let before = match commit.parents {
                0 => None,
                1 => Some(format!("{}^1", commit.id)),
                // Changes that git would have merged automatically are dropped.
                _ => continue,
            };
            self.count_hidden(&mut commit.changes, before.as_deref(), &commit.id)?;
        }
        Ok(commits)
    }

    /// The difference between the two ends of a range.
    pub(super) fn changes(&self, range: &Range) -> Result<Vec<Change>, GitError> {
        let mut arguments = vec!["diff", "--no-color"];
        arguments.extend(LISTING);
        arguments.extend([range.base.as_str(), range.head.as_str(), "--"]);
        let listed = self.read("the changed files", &arguments)?;
        let mut changes = changes(&listed).ok_or(GitError::Unreadable("changed files"))?;
        self.count_hidden(&mut changes, Some(&range.base), &range.head)?;
        Ok(changes)
    }

    /// Counts the lines of text files that `.gitattributes` or a setting marks as binary: all lines of
    /// both sides, since git does not show which of them differ.
    fn count_hidden(
        &self,
        changes: &mut [Change],
        before: Option<&str>,
        after: &str,
    ) -> Result<(), GitError> {
        for change in changes.iter_mut().filter(|it| it.lines.is_none()) {
            let former = change.from.as_ref().unwrap_or(&change.path);
            let deleted = match before {
                Some(before) => self.lines(before, former)?,
                None => Some(0),
            };
            change.lines = self.lines(after, &change.path)?.zip(deleted);
        }
        Ok(())
    }

    /// The number of lines of a file in a revision: 0 if the file does not exist, `None` if it is no
    /// text.
    fn lines(&self, revision: &str, path: &str) -> Result<Option<u64>, GitError> {
        let listing = ["ls-tree", "-z", "--full-tree", revision, "--", path];
        let listed = self.read("the files", &listing)?;
        if listed.split(' ').nth(1) != Some("blob") {
            return Ok(Some(0));
        }
        let object = format!("{revision}:{path}");
        let text = self.read("a file", &["cat-file", "blob", &object])?;
        Ok((!text.contains('\0')).then(|| text.lines().count() as u64))
    }

    /// A file in the root of a revision; `None` if there is none.
    pub(super) fn root_file(&self, revision: &str, name: &str) -> Result<Option<String>, GitError> {
        let listing = ["ls-tree", "-z", "--full-tree", revision, "--", name];
        if self.read("the files", &listing)?.is_empty() {
            return Ok(None);
        }
        let object = format!("{revision}:{name}");
        self.read("a file", &["cat-file", "blob", &object])
            .map(Some)
    }

    /// The URL of `origin`, if it is set.
    pub(super) fn origin(&self) -> Option<String> {
        let url = self.read("the origin", &["config", "--get", "remote.origin.url"]);
        url.ok().map(|url| url.trim().to_owned())
    }

    pub(super) fn read(&self, what: &'static str, arguments: &[&str]) -> Result<String, GitError> {
        let output = Command::new("git")
            .args(["--no-pager", "--literal-pathspecs"])
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "core.fsmonitor=false",
            ])
            .args(["-c", "trailer.separators=:"])
            .arg("-C")
            .arg(&self.0)
            .args(arguments)
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_GRAFT_FILE", "/dev/null")
            .env_remove("GIT_EXTERNAL_DIFF")
            .stdin(Stdio::null())
            .output()
            .map_err(GitError::NoProgram)?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let stderr = sanitize_lines(stderr.trim());
            return Err(GitError::Failed { what, stderr });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A list whose items end with NUL.
struct Items<'a>(std::iter::Peekable<std::str::Split<'a, char>>);

impl<'a> Items<'a> {
    fn of(listed: &'a str) -> Self {
        Self(listed.split('\0').peekable())
    }

    /// Whether another item follows, apart from the empty one after the last NUL.
    fn more(&mut self) -> bool {
        self.0.peek().is_some_and(|item| !item.is_empty())
    }

    fn text(&mut self) -> Option<String> {
        self.0.next().map(ToOwned::to_owned)
    }

    /// The next changed file, if the next item is one: only those have tabs.
    fn change(&mut self) -> Option<Change> {
        let item = self.0.next_if(|item| item.contains('\t'))?;
        let mut columns = item.trim_start_matches('\n').splitn(3, '\t');
        let added = columns.next()?.parse().ok();
        let deleted = columns.next()?.parse().ok();
        let path = columns.next()?;
        let renamed = path.is_empty();
        let from = if renamed { Some(self.text()?) } else { None };
        let path = if renamed {
            self.text()?
        } else {
            path.to_owned()
        };
        Some(Change {
            path,
            from,
            lines: added.zip(deleted),
        })
    }

    fn commit(&mut self) -> Option<Commit> {
        let lines = |text: &str| text.lines().map(ToOwned::to_owned).collect();
        let mut commit = Commit {
            id: self.text()?,
            parents: self.text()?.split_whitespace().count(),
            author: self.signature()?,
            committer: self.signature()?,
            committed_at: unix_time(&self.text()?),
            reviewed: lines(&self.text()?),
            message: self.text()?,
            note: self.text()?,
            changes: Vec::new(),
        };
        commit.changes = std::iter::from_fn(|| self.change()).collect();
        Some(commit)
    }

    fn signature(&mut self) -> Option<Signature> {
        Some(Signature {
            name: self.text()?,
            address: self.text()?,
        })
    }
}

/// Seconds of Unix time; a commit may name a time that does not exist.
fn unix_time(seconds: &str) -> Option<Timestamp> {
    Timestamp::from_second(seconds.parse().ok()?).ok()
}

/// The commits in a listing of `git log`.
#[must_use]
pub fn commits(listed: &str) -> Option<Vec<Commit>> {
    let mut items = Items::of(listed);
    let mut commits = Vec::new();
    while items.more() {
        commits.push(items.commit()?);
    }
    Some(commits)
}

/// The changed files in a listing of `git diff`.
#[must_use]
pub fn changes(listed: &str) -> Option<Vec<Change>> {
    let mut items = Items::of(listed);
    let mut changes = Vec::new();
    while items.more() {
        changes.push(items.change()?);
    }
    Some(changes)
}

/// A repository's URL without anything that could be a credential; `None` if the URL cannot be parsed or
/// is a local path.
pub(super) fn without_credentials(url: &str) -> Option<String> {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let bare = match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/')?;
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}/{path}")
        }
        // `git@host:path`.
        None => match url.split_once(':')?.0.rsplit_once('@') {
            Some((user, _)) => url.strip_prefix(user)?.strip_prefix('@')?.to_owned(),
            None => url.to_owned(),
        },
    };
    let is_safe = !bare.contains(['@', ' ', ',']) && !bare.starts_with("file:");
    (is_safe && sanitize_lines(&bare) == bare).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_listing_is_read_with_merges_renames_and_binary_files() {
        let listed = "1\0a b\0J\0j@x\0C\0c@x\x0060\0Bob <b@x>\nCarol\0two\n\nbody\n\0note\n\0\
                      \n1\t2\ta\0-\t-\t\0old\0new\0\
                      2\0a\0J\0j@x\0C\0c@x\0soon\0\0empty\n\0\0";
        let commits = commits(listed).unwrap();
        assert_eq!((commits[0].parents, commits[0].reviewed.len()), (2, 2));
        assert_eq!(
            (&*commits[0].note, &*commits[0].committer.name),
            ("note\n", "C")
        );
        let times: Vec<_> = commits.iter().map(|it| it.committed_at).collect();
        assert_eq!(times, [Timestamp::from_second(60).ok(), None]);
        let change = |path: &str, from: Option<&str>, lines| Change {
            path: path.into(),
            from: from.map(Into::into),
            lines,
        };
        assert_eq!(
            commits[0].changes,
            [
                change("a", None, Some((1, 2))),
                change("new", Some("old"), None)
            ]
        );
        assert_eq!((&*commits[1].id, commits[1].changes.len()), ("2", 0));
    }

    #[test]
    fn credentials_never_leave_the_clone() {
        for (url, expected) in [
            (
                "https://git.example/shop.git",
                Some("https://git.example/shop.git"),
            ),
            (
                "https://user:token@git.example/shop?private_token=x#y",
                Some("https://git.example/shop"),
            ),
            (
                "https://x-access-token:a@b@git.example/shop",
                Some("https://git.example/shop"),
            ),
            ("https://user:a/b@git.example/shop", None),
            (
                "ssh://git@git.example:2222/shop",
                Some("ssh://git.example:2222/shop"),
            ),
            ("git@git.example:shop.git", Some("git.example:shop.git")),
            ("/srv/git/shop", None),
            ("file:///srv/git/shop", None),
            ("", None),
        ] {
            assert_eq!(without_credentials(url).as_deref(), expected, "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_listing_is_read_without_a_panic(listed in "[a-z0-9\t\n\0-]{0,80}") {
            let _ = commits(&listed);
            let _ = changes(&listed);
        }

        #[test]
        fn no_password_is_left(user in "[a-z]{1,8}", word in "[^/]{1,20}", path in "[a-z/]{1,12}") {
            let word = format!("SECRET{word}");
            if let Some(bare) = without_credentials(&format!("https://{user}:{word}@git.example/{path}")) {
                prop_assert!(!bare.contains("SECRET"), "{bare}");
            }
        }
    }
}
