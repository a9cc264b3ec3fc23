//! The declared origin of a change, from its annotations, and the digests of the change.
//!
//! Owns the parsing of the annotations, the rule for an independent review, and the three digests. Start
//! with [`Provenance::read`].
//!
//! Invariant: no annotation causes an error. An invalid one is a
//! [`Problem`](crate::provenance::problem::Problem) and counts as unknown, and an unknown answer has more
//! points than any declared one.

pub mod annotations;
pub mod attestation;
pub mod digest;
pub mod identity;
pub mod keys;
pub mod problem;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use countersign_api::provenance::ReviewSource;
use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use k8s_openapi::jiff::Timestamp;

use crate::provenance::annotations::Reader;
use crate::provenance::identity::{Agent, Identity};
use crate::provenance::keys::{KEYS, MAX_PROBLEMS, MAX_TOTAL, SUBJECT_KEYS};
use crate::provenance::problem::Problem;
use crate::text;

/// The declarations of one change. A field that is not declared, or invalid, is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provenance {
    /// Whether it is declared, and valid.
    pub state: State,
    /// Who wrote the change.
    pub contributor: Option<Contributor>,
    /// Percent of the changed lines that an AI wrote, from 0 to 100.
    pub ai_share: Option<f64>,
    /// The AI tools involved.
    pub agents: Vec<Agent>,
    /// The people who drove the AI.
    pub human_operators: Vec<Identity>,
    /// Those who wrote the change.
    pub authors: Vec<Identity>,
    /// Those who approved the change.
    pub reviewers: Vec<Identity>,
    /// The source revision that the reviewers approved.
    pub approved_revision: Option<String>,
    /// Where the review is from.
    pub review_source: Option<ReviewSource>,
    /// Whether the policies accept no review of this source.
    pub review_refused: bool,
    /// The result of the tests.
    pub tests: Option<TestResult>,
    /// Changed files.
    pub files: Option<u32>,
    /// Changed lines: added and deleted ones together.
    pub lines: Option<u32>,
    /// Subsystems that the change touches.
    pub subsystems: Option<u32>,
    /// Areas that the change touches, in lower case.
    pub touches: BTreeSet<String>,
    /// The image that all of this describes.
    pub image: Option<String>,
    /// The source revision that is deployed.
    pub revision: Option<String>,
    /// When its newest commit was made.
    pub committed_at: Option<Timestamp>,
    /// The source repository.
    pub repository: Option<String>,
    /// The attestation as stored; [`attestation`](crate::provenance::attestation) reads it.
    pub attestation: Option<String>,
    /// Annotations that are invalid or not used.
    pub problems: Vec<Problem>,
}

/// Whether provenance is declared, and valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It is declared and valid.
    Declared,
    /// No annotation is about the change.
    #[default]
    Absent,
    /// It describes an image that no container of the template uses, or an earlier change; all of it counts
    /// as unknown.
    Stale,
    /// A part of it is invalid and counts as unknown.
    Malformed,
    /// It is declared, but must be attested and is not; all of it counts as unknown.
    Unattested,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Declared => "Declared",
            Self::Absent => "Absent",
            Self::Stale => "Stale",
            Self::Malformed => "Malformed",
            Self::Unattested => "Unattested",
        })
    }
}

/// Who wrote a change, in the terms of Agent Trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contributor {
    /// People alone.
    Human,
    /// An AI.
    Ai,
    /// People and an AI.
    Mixed,
    /// It is declared as unknown.
    Unknown,
}

impl Contributor {
    /// The value of the annotation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Ai => "ai",
            Self::Mixed => "mixed",
            Self::Unknown => "unknown",
        }
    }
}

/// The result of tests, in the terms of in-toto's test-result predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TestResult {
    /// All passed.
    Passed,
    /// All passed, with warnings.
    Warned,
    /// At least one failed.
    Failed,
}

/// Whether an independent person reviewed the deployed revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Review {
    /// This person did.
    Independent(Identity),
    /// An independent person reviewed another revision.
    Stale {
        /// The revision that was reviewed.
        approved: String,
        /// The revision that is deployed.
        deployed: String,
    },
    /// No independent review is known. The sentence is complete, and names what would show one.
    Missing(&'static str),
}

impl Provenance {
    /// The declarations of a change to this template.
    #[must_use]
    pub fn read(annotations: &BTreeMap<String, String>, template: &PodTemplate) -> Self {
        let own: BTreeMap<&str, &str> = annotations
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(PROVENANCE_PREFIX)?, value.as_str())))
            .collect();
        let length = own.iter().map(|(key, value)| key.len() + value.len()).sum();
        if length > MAX_TOTAL {
            let problems = vec![Problem::AllTooLong { length }];
            return Self {
                state: State::Malformed,
                problems,
                ..Self::default()
            };
        }
        let mut reader = Reader {
            own: &own,
            problems: Vec::new(),
        };
        let mut read = Self::declared(&mut reader);
        read.problems = reader.problems;
        read.refuse_contradictions();

        let is_annotated = KEYS
            .iter()
            .filter(|key| !SUBJECT_KEYS.contains(key))
            .any(|key| {
                own.get(key)
                    .is_some_and(|it| it.contains(|c: char| c != ',' && !c.is_whitespace()))
            });
        read.state = match (read.problems.is_empty(), is_annotated) {
            (false, _) => State::Malformed,
            (true, true) => State::Declared,
            (true, false) => State::Absent,
        };
        if let Some(image) = own
            .get("image")
            .filter(|image| !describes(image.trim(), template))
        {
            let image = text::excerpt(image);
            read = read.stale(Problem::OtherImage { image });
        }
        let unknown: Vec<_> = own.keys().filter(|key| !KEYS.contains(key)).collect();
        if !unknown.is_empty() {
            let more = if unknown.len() > 4 { ", …" } else { "" };
            let names: Vec<_> = unknown
                .iter()
                .take(4)
                .map(|key| text::excerpt(key))
                .collect();
            read.problems.push(Problem::UnknownKeys {
                names: names.join(", ") + more,
            });
        }
        read
    }

    /// The declared provenance, with open fields completed by the attested one; and the attested provenance
    /// alone. The problems of both are in the first.
    #[must_use]
    pub fn read_both(
        declared: &BTreeMap<String, String>,
        attested: &BTreeMap<String, String>,
        template: &PodTemplate,
    ) -> (Self, Self) {
        let mut all = attested.clone();
        all.extend(declared.clone());
        let mut both = Self::read(&all, template);
        let alone = Self::read(attested, template);
        both.problems.extend(
            alone
                .problems
                .iter()
                .map(|problem| Problem::Attested(Box::new(problem.clone()))),
        );
        both.problems.truncate(MAX_PROBLEMS);
        (both, alone)
    }

    /// The provenance of a change without an attestation: all of it is unknown.
    #[must_use]
    pub fn unattested() -> Self {
        Self {
            state: State::Unattested,
            ..Self::default()
        }
    }

    /// The declared provenance, if its attestation is missing, invalid or, where one is demanded, of something else.
    #[must_use]
    pub fn refused(mut self, why: attestation::problem::Problem) -> Self {
        use attestation::problem::Problem::{Missing, NoKeys, Unproven};
        self.state = match (self.state, &why) {
            (State::Declared, Missing | NoKeys | Unproven(_)) => State::Unattested,
            (state, Missing | NoKeys | Unproven(_)) | (state @ State::Stale, _) => state,
            _ => State::Malformed,
        };
        self.with_attestation_problem(why)
    }

    /// The same, with a problem of its attestation.
    #[must_use]
    pub fn with_attestation_problem(mut self, why: attestation::problem::Problem) -> Self {
        // First, so that it is kept if the message is cut.
        self.problems.insert(0, Problem::Attestation(why));
        self.problems.truncate(MAX_PROBLEMS);
        self
    }

    /// What counts of an attested provenance that is not of this change: which code it is of, and its people, who must
    /// not sign the change off.
    #[must_use]
    pub fn unproven(self) -> Self {
        Self {
            authors: [self.authors, self.human_operators].concat(),
            revision: self.revision,
            ..Self::unattested()
        }
    }

    fn declared(reader: &mut Reader<'_>) -> Self {
        let added = reader.count("lines-added");
        let deleted = reader.count("lines-deleted");
        Self {
            state: State::default(),
            contributor: reader.word(
                "contributor",
                "human, ai, mixed, unknown",
                &[
                    ("human", Contributor::Human),
                    ("ai", Contributor::Ai),
                    ("mixed", Contributor::Mixed),
                    ("unknown", Contributor::Unknown),
                ],
            ),
            ai_share: reader.percentage("ai-share"),
            agents: reader.list("agents").map(identity::agent).collect(),
            human_operators: reader.list("human-operator").map(Identity::of).collect(),
            authors: reader.list("authors").map(Identity::of).collect(),
            reviewers: reader.list("reviewers").map(Identity::of).collect(),
            approved_revision: reader.scalar("approved-revision").map(ToOwned::to_owned),
            review_source: reader.word(
                "review-source",
                "Forge, SignedCommit, Trailer, Flag",
                &ReviewSource::ALL.map(|it| (it.as_str(), it)),
            ),
            review_refused: false,
            tests: reader.word(
                "tests",
                "PASSED, WARNED, FAILED",
                &[
                    ("PASSED", TestResult::Passed),
                    ("WARNED", TestResult::Warned),
                    ("FAILED", TestResult::Failed),
                ],
            ),
            files: reader.count("files-changed"),
            lines: added
                .zip(deleted)
                .map(|(added, deleted)| added.saturating_add(deleted)),
            subsystems: reader.count("subsystems"),
            touches: reader.list("touches").map(str::to_lowercase).collect(),
            image: reader.scalar("image").map(ToOwned::to_owned),
            revision: reader.scalar("revision").map(ToOwned::to_owned),
            committed_at: reader.time("committed-at"),
            repository: reader.scalar("repository").map(ToOwned::to_owned),
            attestation: reader.scalar("attestation").map(ToOwned::to_owned),
            problems: Vec::new(),
        }
    }

    /// Contradictory answers do not count.
    fn refuse_contradictions(&mut self) {
        let contradiction = match (self.contributor, self.ai_share, self.agents.first()) {
            (Some(Contributor::Human), Some(share), _) if share > 0.0 => {
                Some(("human", "ai-share", share.to_string()))
            }
            (Some(Contributor::Human), _, Some(agent)) => {
                Some(("human", "agents", text::excerpt(&agent.tool)))
            }
            (Some(Contributor::Ai), Some(share), _) if share <= 0.0 => {
                Some(("ai", "ai-share", share.to_string()))
            }
            _ => None,
        };
        if let Some((contributor, key, value)) = contradiction {
            self.contributor = None;
            self.ai_share = None;
            self.problems.push(Problem::Contradiction {
                contributor,
                key,
                value,
            });
        }
    }

    /// The same declarations for another template than that of the change which they describe: they do not
    /// count.
    #[must_use]
    pub fn of_earlier_change(self) -> Self {
        match self.state {
            State::Declared => self.stale(Problem::EarlierChange),
            // Nothing of it counts anyway, or part of it, which is now as unknown.
            State::Absent | State::Stale | State::Unattested => self,
            State::Malformed => Self {
                state: State::Malformed,
                ..self.stale(Problem::EarlierChange)
            },
        }
    }

    /// Declarations about something else do not count. Their people are kept, since they must not sign their
    /// own change off.
    fn stale(self, problem: Problem) -> Self {
        let mut problems = self.problems;
        problems.push(problem);
        Self {
            state: State::Stale,
            agents: self.agents,
            human_operators: self.human_operators,
            authors: self.authors,
            image: self.image,
            revision: self.revision,
            repository: self.repository,
            attestation: self.attestation,
            problems,
            ..Self::default()
        }
    }

    /// Whether an independent person reviewed the deployed revision (SLSA source level 4).
    ///
    /// A review of another revision does not count, nor does one by an agent. Authors and AI operators only
    /// review their own change, so both must be named: otherwise the reviewer may be one of them.
    #[must_use]
    pub fn review(&self) -> Review {
        if self.reviewers.is_empty() {
            return Review::Missing("no review is known; `stamp --event FILE` reads it");
        }
        if self.review_refused {
            return Review::Missing(
                "the policies accept no review of its source (`review-source`); `stamp --event FILE` reads the forge's",
            );
        }
        if self.authors.is_empty() {
            return Review::Missing(
                "no independent review: the authors are not known, and a reviewer may be one of them; `stamp` names them",
            );
        }
        // People alone wrote a human change: a named operator has no part in it.
        let operators = match self.contributor {
            Some(Contributor::Human) => None,
            _ => Some(&self.human_operators),
        };
        if operators.is_some_and(|operators| !self.a_person_is_among(operators)) {
            return Review::Missing(
                "no independent review: the person who drove the AI is not known, and may be the reviewer; `stamp --human-operator NAME` names that person",
            );
        }
        let own = || self.authors.iter().chain(operators.into_iter().flatten());
        let Some(reviewer) = self.reviewers.iter().find(|reviewer| {
            !reviewer.is_agent(&self.agents) && !own().any(|person| person.is(reviewer))
        }) else {
            return Review::Missing(
                "no independent review: every reviewer is an author, the AI's operator or an agent",
            );
        };
        match (&self.approved_revision, &self.revision) {
            (Some(approved), Some(deployed)) if approved == deployed => {
                Review::Independent(reviewer.clone())
            }
            (Some(approved), Some(deployed)) => Review::Stale {
                approved: approved.clone(),
                deployed: deployed.clone(),
            },
            _ => Review::Missing(
                "no review of the deployed revision is known; `stamp --event FILE` reads it",
            ),
        }
    }

    /// Whether an AI may have written the change, and no responsible person is named. An unknown
    /// contributor may be an AI; of a mixed change an author may have driven the AI.
    #[must_use]
    pub fn is_autonomous(&self) -> bool {
        let by_people = match self.contributor {
            _ if self.state == State::Stale => false,
            Some(Contributor::Human) => true,
            Some(Contributor::Mixed) => self.a_person_is_among(&self.authors),
            Some(Contributor::Ai | Contributor::Unknown) | None => false,
        };
        !by_people && (self.state == State::Stale || !self.a_person_is_among(&self.human_operators))
    }

    /// Why the people behind the change cannot be distinguished from others, if so.
    #[must_use]
    pub fn hidden_people(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| match problem {
            Problem::Invisible { key, .. } | Problem::TooLong { key, .. } => {
                ["authors", "human-operator"].contains(key)
            }
            Problem::AllTooLong { .. } => true,
            Problem::Attested(problem) => matches!(**problem, Problem::AllTooLong { .. }),
            _ => false,
        })
    }

    fn a_person_is_among(&self, identities: &[Identity]) -> bool {
        identities
            .iter()
            .any(|identity| !identity.is_agent(&self.agents))
    }
}

/// Whether a container uses this image, named by reference or by digest.
fn describes(image: &str, template: &PodTemplate) -> bool {
    let described = digest::image_digest(image);
    let mut used = template.images().into_iter();
    used.any(|used| {
        used == image || (described.is_some() && digest::image_digest(used) == described)
    })
}

#[cfg(test)]
mod tests;
