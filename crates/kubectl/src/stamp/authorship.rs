//! Who wrote the commits of a change, who drove the AI in them, and who reviewed them.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::provenance::Contributor;
use countersign_core::provenance::identity::{Agent, Identity};
use countersign_core::text::sanitize_lines;

use super::areas::Areas;
use super::assistants::{Who, who};
use super::git::{Commit, Signature};
use super::notes::{Note, note};
use super::trailers::{Traces, traces};
use super::visible::{identity, name_and_address};

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorship {
    /// People, an AI, or both; unknown if the commits do not show it.
    pub contributor: Contributor,
    /// Percent of the changed lines in commits in which an AI took part, rounded up; `None` if there are
    /// no lines, or the lines of a file cannot be counted.
    pub ai_share: Option<u64>,
    /// The AI tools that took part.
    pub agents: BTreeSet<Agent>,
    /// The authors; an AI or a robot under a name that is no person's.
    pub authors: BTreeSet<String>,
    /// The people who drove the AI.
    pub operators: BTreeSet<String>,
    /// The people who reviewed commits of it.
    pub reviewers: BTreeSet<String>,
    /// The commits that change something, each with the reviewers who did not write it.
    pub reviews: BTreeMap<String, BTreeSet<String>>,
    /// Remarks for the log.
    pub remarks: Vec<String>,
}

impl Authorship {
    /// The authorship of these commits.
    #[must_use]
    pub fn of(commits: &[Commit], areas: &Areas) -> Self {
        let parts: Vec<Part> = commits.iter().map(|it| Part::of(it, areas)).collect();
        let of_all = |select: fn(&Part) -> &BTreeSet<String>| -> BTreeSet<String> {
            parts.iter().flat_map(select).cloned().collect()
        };
        let written = commits.iter().zip(&parts).filter(|(_, part)| part.writes);
        let reviews = written
            .map(|(commit, part)| (commit.id.clone(), part.independent.clone()))
            .collect();
        Self {
            contributor: contributor(&parts),
            ai_share: ai_share(&parts),
            agents: parts
                .iter()
                .flat_map(|part| &part.agents)
                .cloned()
                .collect(),
            authors: of_all(|part| &part.authors),
            operators: of_all(|part| &part.operators),
            reviewers: of_all(|part| &part.reviewers),
            reviews,
            remarks: parts.into_iter().flat_map(|part| part.remarks).collect(),
        }
    }
}

/// An AI took part if any commit shows it. Without such a trace the change is people's, unless a robot
/// wrote some of it or a trace could be a person's name.
fn contributor(parts: &[Part]) -> Contributor {
    let mut writing = parts.iter().filter(|part| part.writes).peekable();
    let any_ai = parts.iter().any(Part::has_ai);
    let any_doubt = parts.iter().any(|part| part.is_doubtful);
    let nobody = writing.peek().is_none();
    match (any_ai, any_doubt || nobody) {
        (true, _) if !nobody && writing.all(|part| part.by_ai_alone) => Contributor::Ai,
        (true, _) => Contributor::Mixed,
        (false, true) => Contributor::Unknown,
        (false, false) => Contributor::Human,
    }
}

fn ai_share(parts: &[Part]) -> Option<u64> {
    match contributor(parts) {
        Contributor::Human => return Some(0),
        Contributor::Unknown => return None,
        Contributor::Ai | Contributor::Mixed if parts.iter().any(|part| part.uncounted > 0) => {
            return None;
        }
        Contributor::Ai | Contributor::Mixed => {}
    }
    let sum = |select: fn(&Part) -> u64| parts.iter().map(select).fold(0, u64::saturating_add);
    let (ai_lines, lines) = (sum(|part| part.ai_lines), sum(|part| part.lines));
    // The controller treats a share of zero as a contradiction.
    (ai_lines > 0).then(|| ai_lines.saturating_mul(100).div_ceil(lines).min(100))
}

/// The contribution of one commit to the authorship.
#[derive(Debug, Default)]
struct Part {
    /// Whether the commit changes anything.
    writes: bool,
    agents: BTreeSet<Agent>,
    authors: BTreeSet<String>,
    operators: BTreeSet<String>,
    reviewers: BTreeSet<String>,
    /// The reviewers who did not write it.
    independent: BTreeSet<String>,
    by_ai_alone: bool,
    /// Whether it may be an AI's or a robot's.
    is_doubtful: bool,
    lines: u64,
    ai_lines: u64,
    /// Changed files whose lines cannot be counted.
    uncounted: usize,
    remarks: Vec<String>,
}

impl Part {
    fn of(commit: &Commit, areas: &Areas) -> Self {
        let traces = traces(&commit.message);
        let mut part = Self {
            writes: commit.writes(),
            agents: traces.agents.clone(),
            authors: traces.people.clone(),
            is_doubtful: !traces.unclear.is_empty(),
            by_ai_alone: traces.wholly,
            ..Self::default()
        };
        for line in &traces.unclear {
            part.remark(
                commit,
                &format!("cannot tell an AI from a person in `{line}`"),
            );
        }
        if part.writes {
            part.sign(&commit.author);
            part.commit(&commit.committer);
        }
        let note = part.note(commit);
        if part.has_ai() && part.writes {
            part.operators = operators(commit, &traces);
        }
        part.count_lines(commit, note.as_ref(), areas);
        part.review(commit);
        part
    }

    fn has_ai(&self) -> bool {
        !self.agents.is_empty()
    }

    fn remark(&mut self, commit: &Commit, remark: &str) {
        let id: String = commit.id.chars().take(12).collect();
        self.remarks
            .push(format!("commit {}: {remark}", sanitize_lines(&id)));
    }

    /// Records the author of the commit. A non-person gets a name that the controller treats as such.
    fn sign(&mut self, author: &Signature) {
        let named = identity(&author.name, &author.address);
        match who(&author.name, &author.address) {
            Who::Person => self.authors.extend(named),
            Who::Unclear => {
                self.authors.extend(named);
                self.is_doubtful = true;
            }
            Who::Assistant(agent) => {
                self.authors.insert(agent.tool.clone());
                self.agents.insert(agent);
                self.by_ai_alone = true;
            }
            Who::Robot | Who::UnknownRobot => {
                let name = identity(&author.name, "").unwrap_or_default();
                self.authors
                    .insert(format!("{}[bot]", name.trim_end_matches("[bot]")));
                self.is_doubtful = true;
            }
        }
    }

    /// Records the committer, unless the committer is or may be an AI.
    fn commit(&mut self, committer: &Signature) {
        match who(&committer.name, &committer.address) {
            Who::Assistant(agent) => drop(self.agents.insert(agent)),
            Who::UnknownRobot => self.is_doubtful = true,
            Who::Robot | Who::Person | Who::Unclear => {}
        }
    }

    fn note(&mut self, commit: &Commit) -> Option<Note> {
        if commit.note.trim().is_empty() {
            return None;
        }
        let note = note(&commit.note);
        if let Some(note) = &note {
            self.agents.extend(note.agents.iter().cloned());
        } else {
            self.is_doubtful = true;
            self.remark(commit, "its note under refs/notes/ai cannot be read");
        }
        note
    }

    /// All lines of a commit in which an AI took part are the AI's, except those that a note of git-ai
    /// attributes to a person.
    fn count_lines(&mut self, commit: &Commit, note: Option<&Note>, areas: &Areas) {
        let has_ai = self.has_ai();
        // A note without an AI contradicts a trailer with one, so all lines count as the AI's.
        let note = note.filter(|note| !note.agents.is_empty() && !self.by_ai_alone);
        for change in commit.changes.iter().filter(|it| !areas.ignores(&it.path)) {
            self.uncounted += usize::from(change.lines.is_none());
            let (added, deleted) = change.lines.unwrap_or_default();
            let by_people = note.and_then(|note| note.by_people.get(&change.path));
            let by_ai = added.saturating_sub(by_people.copied().unwrap_or_default());
            self.lines = self.lines.saturating_add(added).saturating_add(deleted);
            if has_ai {
                self.ai_lines = self.ai_lines.saturating_add(by_ai).saturating_add(deleted);
            }
        }
    }

    /// The people in `Reviewed-by`. `Acked-by` and `Tested-by` promise no review.
    fn review(&mut self, commit: &Commit) {
        let own: Vec<_> = self
            .authors
            .iter()
            .chain(&self.operators)
            .map(|it| Identity::of(it))
            .collect();
        for value in &commit.reviewed {
            let (name, address) = name_and_address(value);
            let Some(reviewer) = identity(name, address) else {
                continue;
            };
            if who(name, address) == Who::Person {
                let reviewer_is = Identity::of(&reviewer);
                if !own.iter().any(|it| it.is(&reviewer_is)) {
                    self.independent.insert(reviewer.clone());
                }
                self.reviewers.insert(reviewer);
            } else {
                self.remark(
                    commit,
                    &format!("`{reviewer}` is not a person, so its review does not count"),
                );
            }
        }
    }
}

/// The people who drove the AI in a commit: its author; if the author is the AI, the committer, or else
/// the co-authors that the AI names.
fn operators(commit: &Commit, traces: &Traces) -> BTreeSet<String> {
    let person = |it: &Signature| match who(&it.name, &it.address) {
        Who::Person | Who::Unclear => identity(&it.name, &it.address),
        Who::Assistant(_) | Who::Robot | Who::UnknownRobot => None,
    };
    person(&commit.author)
        .or_else(|| person(&commit.committer))
        .map_or_else(|| traces.people.clone(), |it| BTreeSet::from([it]))
}

#[cfg(test)]
mod tests;
