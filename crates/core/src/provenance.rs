//! Where a change comes from, as its annotations declare it, and what identifies the change.
//!
//! Owns the reading of the annotations, the rule for what an independent review is, and the three
//! hashes. Start with [`Provenance::read`].
//!
//! Invariant: nothing in an annotation is an error that stops anything. What cannot be read is a
//! [`Problem`] and counts as unknown, and an unknown answer weighs more than any declared one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;

use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::attestation;

/// The annotations that are read, without their prefix.
pub const KEYS: [&str; 17] = [
    "agents",
    "ai-share",
    "approved-revision",
    "attestation",
    "authors",
    "contributor",
    "files-changed",
    "human-operator",
    "image",
    "lines-added",
    "lines-deleted",
    "repository",
    "reviewers",
    "revision",
    "subsystems",
    "tests",
    "touches",
];

/// The annotations that say only what the others speak of: alone they declare no provenance.
const SUBJECT_KEYS: [&str; 4] = ["attestation", "image", "repository", "revision"];

/// Longest value of one annotation that is read, in bytes.
pub const MAX_VALUE: usize = 4 * 1024;
/// Longest attestation that is read, in bytes.
pub const MAX_ATTESTATION: usize = 32 * 1024;
/// Longest sum of all provenance annotations that is read, in bytes.
pub const MAX_TOTAL: usize = 64 * 1024;
/// Greatest number that a count can be.
const MAX_COUNT: u32 = 1_000_000_000;
/// Most problems that a RolloutRun records.
const MAX_PROBLEMS: usize = 32;

/// What the annotations declare of one change. What is not declared, or cannot be read, is `None`
/// or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provenance {
    /// Whether there is any, and whether it can be used.
    pub state: State,
    /// Who wrote the change.
    pub contributor: Option<Contributor>,
    /// Percent of the changed lines that an AI wrote, from 0 to 100.
    pub ai_share: Option<f64>,
    /// The AI tools that took part.
    pub agents: Vec<Agent>,
    /// The people who drove the AI.
    pub human_operators: Vec<Identity>,
    /// Those who wrote the change.
    pub authors: Vec<Identity>,
    /// Those who approved the change.
    pub reviewers: Vec<Identity>,
    /// The source revision that they approved.
    pub approved_revision: Option<String>,
    /// How the tests ended.
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
    /// The source repository.
    pub repository: Option<String>,
    /// An attestation as it is carried; [`attestation`] reads it.
    pub attestation: Option<String>,
    /// What could not be read, or is not used.
    pub problems: Vec<Problem>,
}

/// Whether there is provenance, and whether it can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It is declared and can be read.
    Declared,
    /// No annotation says anything of the change.
    #[default]
    Absent,
    /// It describes an image that no container of the template uses; all of it counts as unknown.
    Stale,
    /// Some of it cannot be read; that part counts as unknown.
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

/// Who wrote a change, in the words of Agent Trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contributor {
    /// People alone.
    Human,
    /// An AI.
    Ai,
    /// People and an AI.
    Mixed,
    /// It is said to be unknown.
    Unknown,
}

impl Contributor {
    /// The word of the annotation.
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

/// How tests ended, in the words of in-toto's test-result predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TestResult {
    /// All passed.
    Passed,
    /// All passed, with warnings.
    Warned,
    /// At least one failed.
    Failed,
}

/// An AI tool that took part in a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Agent {
    /// The tool, such as `claude-code`.
    pub tool: String,
    /// The model, such as `anthropic/claude-opus-4`.
    pub model: Option<String>,
}

/// Someone named in an annotation: `Jane Doe <jane@example.org>`, or one of both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity(String);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl Identity {
    /// The identity that a text names.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Name and e-mail address, each in the form in which it is compared.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<String> {
        let text = self.0.to_lowercase();
        let (name, mail) = match text.split_once('<') {
            Some((name, mail)) => (name, mail.trim_end_matches('>')),
            None => (text.as_str(), ""),
        };
        [name.trim().trim_start_matches('@'), mail]
            .into_iter()
            .map(|key| key.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|key| !key.is_empty())
            .collect()
    }

    /// Whether both name the same: the name or the e-mail address is equal but for its case.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        !self.keys().is_disjoint(&other.keys())
    }

    /// Whether this is a robot by its name, or one of these agents; neither is ever a person.
    #[must_use]
    pub fn is_agent(&self, agents: &[Agent]) -> bool {
        let named: BTreeSet<String> = agents
            .iter()
            .flat_map(|agent| std::iter::once(agent.tool.as_str()).chain(agent.model.as_deref()))
            .flat_map(|name| std::iter::once(name).chain(name.split('/')))
            .map(letters)
            .filter(|name| !name.is_empty())
            .collect();
        self.keys().iter().any(|key| {
            key.ends_with("[bot]") || key.contains("[bot]@") || named.contains(&letters(key))
        })
    }
}

/// The letters and digits of a name, so that `Claude Code` is `claude-code`.
fn letters(name: &str) -> String {
    name.chars()
        .filter(|it| it.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Whether an independent person reviewed what is deployed.
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
    /// Nobody did, as far as can be told.
    Missing(&'static str),
}

/// What is wrong with an annotation, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not one of the known words.
    #[error("annotation {PROVENANCE_PREFIX}{key} is `{value}`: write one of {words}")]
    UnknownWord {
        /// The annotation.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
        /// The words that are known.
        words: &'static str,
    },
    /// Not a whole number.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: write a whole number from 0 to {MAX_COUNT}"
    )]
    NoCount {
        /// The annotation.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
    },
    /// Not a percentage.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: write a percentage from 0 to 100, without a sign"
    )]
    NoPercentage {
        /// The annotation.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
    },
    /// Nothing where something is needed.
    #[error("annotation {PROVENANCE_PREFIX}{key} is empty: give it a value or remove it")]
    Empty {
        /// The annotation.
        key: &'static str,
    },
    /// Characters that nobody can see, which make two names look like one.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: remove the control and invisible characters"
    )]
    Invisible {
        /// The annotation.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
    },
    /// A value that is too long to be read.
    #[error("annotation {PROVENANCE_PREFIX}{key} has {length} bytes: shorten it to {}", longest(.key))]
    TooLong {
        /// The annotation.
        key: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// All annotations together are too long to be read.
    #[error(
        "the annotations {PROVENANCE_PREFIX}* have {length} bytes in all and none is read: shorten them to {MAX_TOTAL}"
    )]
    AllTooLong {
        /// Their length in bytes.
        length: usize,
    },
    /// Two annotations that cannot both be true; neither counts.
    #[error(
        "annotation {PROVENANCE_PREFIX}contributor says {contributor}, but {PROVENANCE_PREFIX}{key} is `{value}`: correct one of them"
    )]
    Contradiction {
        /// What the contributor is said to be.
        contributor: &'static str,
        /// The annotation that contradicts it.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
    },
    /// The provenance describes another image than the one that is deployed.
    #[error(
        "annotation {PROVENANCE_PREFIX}image is `{image}`, which no container of the template uses: have the pipeline write the provenance and the image together"
    )]
    OtherImage {
        /// The image that is described, as it can be shown.
        image: String,
    },
    /// Annotations under the prefix that this version does not know; they are not used.
    #[error("ignoring unknown annotations {names} under {PROVENANCE_PREFIX}: known are {}", KEYS.join(", "))]
    UnknownKeys {
        /// Their names, as they can be shown.
        names: String,
    },
    /// Nothing is attested, though something claims to be or has to be.
    #[error("annotation {PROVENANCE_PREFIX}attestation: {0}")]
    Attestation(attestation::Problem),
    /// What is attested cannot be read.
    #[error("in the attestation: {0}")]
    Attested(Box<Problem>),
}

/// Longest value of an annotation that is read, in bytes.
fn longest(key: &str) -> usize {
    if key == attestation::ANNOTATION {
        MAX_ATTESTATION
    } else {
        MAX_VALUE
    }
}

impl Provenance {
    /// What the annotations declare of a change to this template.
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

        let says_something = KEYS
            .iter()
            .filter(|key| !SUBJECT_KEYS.contains(key))
            .any(|key| {
                own.get(key)
                    .is_some_and(|it| it.contains(|c: char| c != ',' && !c.is_whitespace()))
            });
        read.state = match (read.problems.is_empty(), says_something) {
            (false, _) => State::Malformed,
            (true, true) => State::Declared,
            (true, false) => State::Absent,
        };
        if let Some(image) = own
            .get("image")
            .filter(|image| !describes(image.trim(), template))
        {
            read = read.stale(image);
        }
        let unknown: Vec<_> = own.keys().filter(|key| !KEYS.contains(key)).collect();
        if !unknown.is_empty() {
            let more = if unknown.len() > 4 { ", …" } else { "" };
            let names: Vec<_> = unknown.iter().take(4).map(|key| shown(key)).collect();
            read.problems.push(Problem::UnknownKeys {
                names: names.join(", ") + more,
            });
        }
        read
    }

    /// What is declared of a change, where it leaves something open completed by what is attested;
    /// and what is attested alone. The problems of both are told by the first.
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

    /// The provenance of a change of which nothing is attested: all of it is unknown.
    #[must_use]
    pub fn unattested() -> Self {
        Self {
            state: State::Unattested,
            ..Self::default()
        }
    }

    /// What is declared, where its attestation is missing or refused.
    #[must_use]
    pub fn refused(mut self, why: attestation::Problem) -> Self {
        use attestation::Problem::{Missing, NoKeys};
        self.state = match (self.state, &why) {
            (State::Declared, Missing | NoKeys) => State::Unattested,
            (state, Missing | NoKeys) | (state @ State::Stale, _) => state,
            _ => State::Malformed,
        };
        // First, so that it is told where a message is cut.
        self.problems.insert(0, Problem::Attestation(why));
        self.problems.truncate(MAX_PROBLEMS);
        self
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
            agents: reader.list("agents").map(agent).collect(),
            human_operators: reader.list("human-operator").map(Identity::of).collect(),
            authors: reader.list("authors").map(Identity::of).collect(),
            reviewers: reader.list("reviewers").map(Identity::of).collect(),
            approved_revision: reader.scalar("approved-revision").map(ToOwned::to_owned),
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
            repository: reader.scalar("repository").map(ToOwned::to_owned),
            attestation: reader.scalar("attestation").map(ToOwned::to_owned),
            problems: Vec::new(),
        }
    }

    /// Of answers that contradict each other none can be believed.
    fn refuse_contradictions(&mut self) {
        let contradiction = match (self.contributor, self.ai_share, self.agents.first()) {
            (Some(Contributor::Human), Some(share), _) if share > 0.0 => {
                Some(("human", "ai-share", share.to_string()))
            }
            (Some(Contributor::Human), _, Some(agent)) => {
                Some(("human", "agents", shown(&agent.tool)))
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

    /// Nothing that is declared of another image counts. Its people are kept, since whoever they
    /// are, they should not sign their own change off.
    fn stale(self, image: &str) -> Self {
        let mut problems = self.problems;
        problems.push(Problem::OtherImage {
            image: shown(image),
        });
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

    /// Whether an independent person reviewed what is deployed (SLSA source level 4).
    ///
    /// A review of another revision is none. An agent is no person. Neither an author nor whoever
    /// drove the AI reviews anything but their own change, so both must be named: otherwise nobody
    /// can tell that the reviewer is someone else.
    #[must_use]
    pub fn review(&self) -> Review {
        if self.reviewers.is_empty() {
            return Review::Missing("no reviewer is named");
        }
        if self.authors.is_empty() {
            return Review::Missing("the authors are not named, so a reviewer may be one of them");
        }
        // People alone wrote a human change: whoever is named as operator drove nothing in it.
        let operators = match self.contributor {
            Some(Contributor::Human) => None,
            _ => Some(&self.human_operators),
        };
        if operators.is_some_and(|operators| !self.a_person_is_among(operators)) {
            return Review::Missing(
                "the person who drove the AI is not named, so a reviewer may be that person",
            );
        }
        let own = || self.authors.iter().chain(operators.into_iter().flatten());
        let Some(reviewer) = self.reviewers.iter().find(|reviewer| {
            !reviewer.is_agent(&self.agents) && !own().any(|person| person.is(reviewer))
        }) else {
            return Review::Missing("every reviewer is an author, the AI's operator or an agent");
        };
        match (&self.approved_revision, &self.revision) {
            (Some(approved), Some(deployed)) if approved == deployed => {
                Review::Independent(reviewer.clone())
            }
            (Some(approved), Some(deployed)) => Review::Stale {
                approved: approved.clone(),
                deployed: deployed.clone(),
            },
            _ => Review::Missing("the reviewed revision and the deployed one are not both named"),
        }
    }

    /// Whether an AI wrote it, for all that is known, and nobody is named who answers for that. An
    /// unknown contributor may be an AI; of a mixed change an author may have driven it.
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

    /// Why the people behind the change cannot be told from others, where that is so.
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

/// Reads single annotations and notes what is wrong with them.
struct Reader<'a> {
    own: &'a BTreeMap<&'a str, &'a str>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// The value without surrounding space; `None` where it is absent or must not be read.
    fn text(&mut self, key: &'static str) -> Option<&'a str> {
        let value = self.own.get(key)?.trim();
        let problem = if value.len() > longest(key) {
            Problem::TooLong {
                key,
                length: value.len(),
            }
        } else if value.contains(is_invisible) {
            Problem::Invisible {
                key,
                value: shown(value),
            }
        } else {
            return Some(value);
        };
        self.problems.push(problem);
        None
    }

    fn scalar(&mut self, key: &'static str) -> Option<&'a str> {
        let value = self.text(key)?;
        if value.is_empty() {
            self.problems.push(Problem::Empty { key });
        }
        Some(value).filter(|value| !value.is_empty())
    }

    /// The parts between commas. An empty list is one with nothing in it.
    fn list(&mut self, key: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
        let value = self.text(key).unwrap_or_default();
        value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
    }

    fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &'static str,
        known: &[(&str, T)],
    ) -> Option<T> {
        let value = self.scalar(key)?;
        let meant = known
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(value));
        if meant.is_none() {
            self.problems.push(Problem::UnknownWord {
                key,
                value: shown(value),
                words,
            });
        }
        meant.map(|(_, meaning)| *meaning)
    }

    fn count(&mut self, key: &'static str) -> Option<u32> {
        let value = self.scalar(key)?;
        // `parse` alone would take a sign.
        let count = value
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| value.parse().ok())
            .flatten()
            .filter(|count| *count <= MAX_COUNT);
        if count.is_none() {
            self.problems.push(Problem::NoCount {
                key,
                value: shown(value),
            });
        }
        count
    }

    fn percentage(&mut self, key: &'static str) -> Option<f64> {
        let value = self.scalar(key)?;
        // `parse` alone would take signs, exponents, infinities and NaN.
        let share = value
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
            .then(|| value.parse().ok())
            .flatten()
            .filter(|share| (0.0..=100.0).contains(share));
        if share.is_none() {
            self.problems.push(Problem::NoPercentage {
                key,
                value: shown(value),
            });
        }
        share
    }
}

/// An agent as Linux' `Assisted-by` writes it (`Claude:claude-3-opus`) or with a space in between.
fn agent(text: &str) -> Agent {
    match text.split_once(|c: char| c == ':' || c.is_whitespace()) {
        Some((tool, model)) => Agent {
            tool: tool.to_owned(),
            model: Some(model.trim().to_owned()).filter(|model| !model.is_empty()),
        },
        None => Agent {
            tool: text.to_owned(),
            model: None,
        },
    }
}

/// Whether a container uses this image, named by reference or by digest.
fn describes(image: &str, template: &PodTemplate) -> bool {
    fn digest(reference: &str) -> Option<&str> {
        let digest = reference
            .rsplit_once('@')
            .map_or(reference, |(_, digest)| digest);
        digest.starts_with("sha256:").then_some(digest)
    }
    template.images().into_iter().any(|used| {
        used == image || digest(image).is_some_and(|described| digest(used) == Some(described))
    })
}

/// Characters without a shape of their own: they hide, reorder or imitate what is written.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A value as it can be shown anywhere: short, and with nothing in it that acts on a terminal.
#[must_use]
pub fn shown(value: &str) -> String {
    const LONGEST: usize = 48;
    let mut text = String::new();
    for c in value.chars().take(LONGEST) {
        if is_invisible(c) {
            text.extend(c.escape_unicode());
        } else {
            text.push(c);
        }
    }
    if value.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

// --- What identifies a change --------------------------------------------------------------------

/// SHA-256, in hexadecimal, of a change: its template and its provenance, both in canonical form.
#[must_use]
pub fn change_digest(template: &PodTemplate, annotations: &BTreeMap<String, String>) -> String {
    let own = annotations
        .iter()
        .filter(|(key, _)| key.starts_with(PROVENANCE_PREFIX));
    let provenance: serde_json::Map<_, _> = own
        .map(|(key, value)| (key.clone(), Value::String(value.clone())))
        .collect();
    let mut text = String::from(r#"{"provenance":"#);
    write_canonical(&Value::Object(provenance), &mut text);
    text.push_str(r#","template":"#);
    text.push_str(&canonical(template));
    text.push('}');
    hexadecimal(&Sha256::digest(text))
}

/// SHA-256, in hexadecimal, of a template in canonical form.
#[must_use]
pub fn template_digest(template: &PodTemplate) -> String {
    hexadecimal(&Sha256::digest(canonical(template)))
}

/// Ten characters that name a template, fit for a label and a DNS name.
///
/// They are drawn from Kubernetes' alphabet of 27 without vowels, so that they form no word. A
/// collision count above zero gives another name to the same template.
#[must_use]
pub fn pod_template_hash(template: &PodTemplate, collision_count: i32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let hash = Sha256::digest(format!("{collision_count}\n{}", canonical(template)));
    let mut number = hash
        .iter()
        .take(8)
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let mut name = String::new();
    for _ in 0..10 {
        let index = usize::try_from(number % 27).unwrap_or_default();
        name.extend(ALPHABET.get(index).copied().map(char::from));
        number /= 27;
    }
    name
}

/// A template as text that depends on nothing but its content.
///
/// Members of objects are in the byte order of their keys; members that are null are left out, and
/// so is an empty `creationTimestamp`, which Go's types write where nobody set one; lists keep their
/// order; there is no space between tokens; strings and numbers are as `serde_json` writes them, so
/// `1` and `1.0` are two numbers. A container's port without a protocol is one of `TCP`, as earlier
/// definitions stored it. Nothing else is left out or filled in: a field that this build does not know
/// counts like any other.
#[must_use]
pub fn canonical(template: &PodTemplate) -> String {
    let mut text = String::new();
    let mut template = template.0.clone();
    fill_in_protocols(&mut template);
    write_canonical(&template, &mut text);
    text
}

fn fill_in_protocols(template: &mut Value) {
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = template.pointer_mut(&format!("/spec/{list}"));
        let containers = containers.and_then(Value::as_array_mut);
        let ports = containers
            .into_iter()
            .flatten()
            .filter_map(|it| it.get_mut("ports")?.as_array_mut());
        for port in ports.flatten().filter_map(Value::as_object_mut) {
            let protocol = port.entry("protocol").or_insert(Value::Null);
            if protocol.is_null() {
                *protocol = "TCP".into();
            }
        }
    }
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            // Sorted here, since some crate may switch on serde_json's insertion order.
            let members: BTreeMap<_, _> = members
                .iter()
                .filter(|(key, value)| {
                    let unset = *key == "creationTimestamp" && value.as_str() == Some("");
                    !unset && !value.is_null()
                })
                .collect();
            text.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                write_canonical(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const IMAGE: &str = "registry.example/shop:1.4.2";

    fn template() -> PodTemplate {
        PodTemplate(json!({
            "metadata": { "labels": { "app": "shop" } },
            "spec": { "containers": [{ "name": "web", "image": IMAGE }] },
        }))
    }

    fn annotations(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter()
            .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), (*value).to_owned()))
            .collect()
    }

    fn read(of: &[(&str, &str)]) -> Provenance {
        Provenance::read(&annotations(of), &template())
    }

    const GOOD: [(&str, &str); 16] = [
        ("agents", "claude-code anthropic/claude-opus-4, Cursor"),
        ("ai-share", "62.5"),
        ("approved-revision", "9f3c2e1"),
        ("authors", "Jane Doe <jane@example.org>, bob"),
        ("contributor", "mixed"),
        ("files-changed", "7"),
        ("human-operator", "jane@example.org"),
        ("image", IMAGE),
        ("lines-added", "300"),
        ("lines-deleted", "12"),
        ("repository", "https://git.example/shop"),
        ("reviewers", "Carol <carol@example.org>"),
        ("revision", "9f3c2e1"),
        ("subsystems", "3"),
        ("tests", "PASSED"),
        ("touches", "Auth, payments"),
    ];

    fn good_but(key: &str, value: Option<&str>) -> Provenance {
        let mut of: Vec<_> = GOOD
            .into_iter()
            .filter(|(other, _)| *other != key)
            .collect();
        of.extend(value.map(|value| (key, value)));
        read(&of)
    }

    #[test]
    fn every_annotation_is_read() {
        let read = read(&GOOD);
        assert_eq!(
            (read.state, read.problems.as_slice()),
            (State::Declared, [].as_slice())
        );
        assert_eq!(read.contributor, Some(Contributor::Mixed));
        assert_eq!(read.ai_share, Some(62.5));
        let model = Some("anthropic/claude-opus-4".to_owned());
        assert_eq!(
            read.agents[0],
            Agent {
                tool: "claude-code".into(),
                model
            }
        );
        assert_eq!(
            read.agents[1],
            Agent {
                tool: "Cursor".into(),
                model: None
            }
        );
        assert_eq!(
            (read.files, read.lines, read.subsystems),
            (Some(7), Some(312), Some(3))
        );
        assert_eq!(
            read.touches,
            ["auth".to_owned(), "payments".to_owned()].into()
        );
        assert_eq!(read.tests, Some(TestResult::Passed));
        assert!(
            matches!(read.review(), Review::Independent(carol) if carol.to_string().contains("Carol"))
        );
        assert!(!read.is_autonomous());
    }

    #[test]
    fn an_assisted_by_trailer_names_tool_and_model() {
        let read = good_but("agents", Some("Claude:claude-3-opus"));
        assert_eq!(read.agents[0].tool, "Claude");
        assert_eq!(read.agents[0].model.as_deref(), Some("claude-3-opus"));
    }

    #[test]
    fn what_no_annotation_says_is_absent_provenance() {
        for of in [
            vec![],
            vec![
                ("image", IMAGE),
                ("revision", "9f3c2e1"),
                ("repository", "x"),
                ("attestation", "e30="),
            ],
            vec![("authors", " , "), ("touches", "")],
            vec![("risk", "low")],
        ] {
            assert_eq!(read(&of).state, State::Absent, "{of:?}");
        }
        let foreign = [("example.org/contributor".to_owned(), "human".to_owned())].into();
        assert_eq!(
            Provenance::read(&foreign, &template()),
            Provenance::default()
        );
    }

    #[test]
    fn garbage_is_a_problem_that_names_the_annotation_and_counts_as_unknown() {
        let garbage = [
            ("contributor", "robot"),
            ("contributor", ""),
            ("ai-share", "NaN"),
            ("ai-share", "-1"),
            ("ai-share", "100.1"),
            ("ai-share", "1e1"),
            ("ai-share", "inf"),
            ("ai-share", "62%"),
            ("ai-share", "."),
            ("lines-added", "-5"),
            ("lines-added", "+5"),
            ("lines-added", "0x10"),
            ("lines-added", "1e300"),
            ("lines-added", "99999999999999999999"),
            ("lines-added", "1000000001"),
            ("lines-added", "३"),
            ("lines-deleted", "3.5"),
            ("subsystems", "NaN"),
            ("files-changed", "many"),
            ("tests", "GREEN"),
            ("tests", "passed!"),
            ("authors", "bob\u{200b}"),
            ("reviewers", "\u{202e}bob"),
            ("touches", "auth\u{1b}[2K"),
            ("revision", ""),
        ];
        for (key, value) in garbage {
            let read = good_but(key, Some(value));
            assert_eq!(read.state, State::Malformed, "{key}={value:?}");
            assert_eq!(
                read.problems.len(),
                1,
                "{key}={value:?}: {:?}",
                read.problems
            );
            let message = read.problems[0].to_string();
            assert!(
                message.contains(&format!("{PROVENANCE_PREFIX}{key} ")),
                "{message}"
            );
            let without = good_but(key, None);
            let unknown = Provenance {
                state: State::Malformed,
                problems: read.problems.clone(),
                ..without
            };
            assert_eq!(read, unknown, "{key}={value:?}");
        }
    }

    #[test]
    fn answers_that_contradict_each_other_are_not_believed() {
        for (of, key) in [
            (&[("contributor", "human"), ("ai-share", "80")], "ai-share"),
            (&[("contributor", "human"), ("agents", "Claude")], "agents"),
            (&[("contributor", "ai"), ("ai-share", "0")], "ai-share"),
        ] {
            let read = read(of);
            assert_eq!(
                (read.state, read.contributor, read.ai_share),
                (State::Malformed, None, None)
            );
            assert!(
                read.problems[0].to_string().contains(key),
                "{}",
                read.problems[0]
            );
        }
    }

    #[test]
    fn a_200_kib_annotation_is_a_problem_and_no_panic() {
        let huge = "x".repeat(200 * 1024);
        let read = good_but("attestation", Some(&huge));
        assert_eq!((read.state, read.lines), (State::Malformed, None));
        assert!(
            read.problems[0]
                .to_string()
                .contains("shorten them to 65536"),
            "{}",
            read.problems[0]
        );
        let long = good_but("authors", Some(&"x".repeat(MAX_VALUE + 1)));
        assert_eq!(
            (long.state, long.authors.len(), long.lines),
            (State::Malformed, 0, Some(312))
        );
        assert_eq!(
            long.problems,
            [Problem::TooLong {
                key: "authors",
                length: MAX_VALUE + 1
            }]
        );
    }

    #[test]
    fn an_attestation_may_be_longer_than_the_others() {
        let of = |length: usize| good_but("attestation", Some(&"x".repeat(length)));
        let longest = of(MAX_ATTESTATION);
        assert_eq!(
            (longest.state, longest.problems.len()),
            (State::Declared, 0)
        );
        let longer = of(MAX_ATTESTATION + 1);
        assert_eq!((longer.state, longer.attestation), (State::Malformed, None));
        assert!(
            longer.problems[0]
                .to_string()
                .contains("has 32769 bytes: shorten it to 32768"),
            "{}",
            longer.problems[0]
        );
    }

    #[test]
    fn what_is_attested_completes_what_is_declared() {
        let both = |declared: &[(&str, &str)], attested: &[(&str, &str)]| {
            Provenance::read_both(&annotations(declared), &annotations(attested), &template())
        };
        let (declared, alone) = both(&[("attestation", "e30=")], &GOOD);
        assert_eq!(
            (declared.state, declared.lines),
            (State::Declared, Some(312))
        );
        assert_eq!((alone.state, alone.attestation), (State::Declared, None));

        let (declared, alone) = both(&[("authors", "mallory"), ("tests", "FAILED")], &GOOD);
        assert_eq!(declared.authors, [Identity::of("mallory")]);
        assert_eq!(
            (declared.tests, declared.lines),
            (Some(TestResult::Failed), Some(312))
        );
        assert_eq!(
            (alone.authors.len(), alone.tests),
            (2, Some(TestResult::Passed))
        );

        let (declared, alone) = both(&[("contributor", "human")], &GOOD);
        assert_eq!(
            (declared.state, alone.state),
            (State::Malformed, State::Declared)
        );
        assert!(
            declared.problems[0]
                .to_string()
                .contains("correct one of them"),
            "{}",
            declared.problems[0]
        );

        let (declared, alone) = both(&[("tests", "PASSED")], &[("tests", "GREEN")]);
        assert_eq!(
            (declared.state, alone.state),
            (State::Declared, State::Malformed)
        );
        assert!(
            declared.problems[0]
                .to_string()
                .starts_with("in the attestation: "),
            "{}",
            declared.problems[0]
        );
    }

    #[test]
    fn a_refused_attestation_is_told_first() {
        use attestation::Problem::{Missing, UnknownPredicate};
        let failed = || UnknownPredicate { found: "x".into() };
        let state = |of: &[(&str, &str)], why| read(of).refused(why).state;
        assert_eq!(state(&GOOD, failed()), State::Malformed);
        assert_eq!(state(&GOOD, Missing), State::Unattested);
        assert_eq!(state(&[], failed()), State::Malformed);
        assert_eq!(state(&[], Missing), State::Absent);
        assert_eq!(state(&[("image", "other")], failed()), State::Stale);
        assert_eq!(state(&[("tests", "GREEN")], Missing), State::Malformed);
        let both = read(&[("tests", "GREEN")]).refused(failed());
        assert_eq!(both.problems.len(), 2);
        let first = both.problems[0].to_string();
        assert!(
            first.starts_with("annotation provenance.countersign.dev/attestation: its predicate"),
            "{first}"
        );
    }

    #[test]
    fn unknown_keys_are_named_and_ignored() {
        let read = good_but("ai_share", Some("\u{1b}[31m"));
        assert_eq!(read.state, State::Declared);
        let message = read.problems[0].to_string();
        assert!(
            message.contains("ai_share") && message.contains("ai-share"),
            "{message}"
        );
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        let evil = "\u{1b}[31mred\u{202e}abc\n<script>é";
        assert_eq!(shown(evil), "\\u{1b}[31mred\\u{202e}abc\\u{a}<script>é");
        assert_eq!(shown(&"é".repeat(60)), format!("{}…", "é".repeat(48)));
    }

    #[test]
    fn provenance_of_another_image_is_stale() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let by_digest = PodTemplate(json!({ "spec": {
            "initContainers": [{ "name": "init", "image": "busybox" }],
            "containers": [{ "name": "web", "image": format!("shop:1.4.2@{digest}") }],
        } }));
        let state = |image: &str| {
            Provenance::read(
                &annotations(&[("contributor", "human"), ("image", image)]),
                &by_digest,
            )
            .state
        };
        assert_eq!(state(&digest), State::Declared);
        assert_eq!(
            state(&format!("mirror.example/shop@{digest}")),
            State::Declared
        );
        assert_eq!(state("busybox"), State::Declared);
        assert_eq!(state(" busybox "), State::Declared);
        assert_eq!(state("shop:1.4.2"), State::Stale);
        assert_eq!(state(&digest.replace('a', "b")), State::Stale);
        assert_eq!(state("sha256:"), State::Stale);
        assert_eq!(state(""), State::Stale);
    }

    #[test]
    fn nothing_stale_counts_but_its_people_stay_known() {
        let stale = good_but("image", Some("shop:old"));
        let message = stale.problems[0].to_string();
        assert!(message.contains("shop:old"), "{message}");
        assert_eq!(stale.state, State::Stale);
        assert_eq!(
            (stale.contributor, stale.lines, stale.tests),
            (None, None, None)
        );
        assert!(matches!(stale.review(), Review::Missing(_)) && stale.is_autonomous());
        assert_eq!(stale.authors.len(), 2);
    }

    #[test]
    fn only_an_independent_person_reviews() {
        let reviewed = |reviewers: &str| {
            matches!(
                good_but("reviewers", Some(reviewers)).review(),
                Review::Independent(_)
            )
        };
        assert!(reviewed("carol"));
        assert!(reviewed("bob, carol"));
        for nobody in [
            "",
            "bob",
            "@Bob",
            "BOB <someone@else>",
            "<JANE@example.org>",
            "Jane Doe",
            "jane  doe <other@example.org>",
            "Claude Code <noreply@anthropic.com>",
            "anthropic/claude-opus-4",
            "cursor",
            "dependabot[bot]",
            "49699333+dependabot[bot]@users.noreply.github.com",
            "Renovate[BOT] <r@example.org>, bob",
        ] {
            assert!(!reviewed(nobody), "{nobody}");
        }
    }

    #[test]
    fn a_review_of_another_revision_is_none() {
        let other = good_but("approved-revision", Some("0000000"));
        assert!(matches!(other.review(), Review::Stale { .. }));
        for key in ["approved-revision", "revision"] {
            assert!(
                matches!(good_but(key, None).review(), Review::Missing(_)),
                "{key}"
            );
        }
    }

    #[test]
    fn who_hides_an_author_or_the_operator_has_no_review() {
        for key in ["authors", "human-operator"] {
            assert!(
                matches!(good_but(key, None).review(), Review::Missing(_)),
                "{key}"
            );
        }
        let bot = good_but("human-operator", Some("Claude Code"));
        assert!(matches!(bot.review(), Review::Missing(_)));
    }

    #[test]
    fn an_agent_without_a_person_is_autonomous() {
        let autonomous = |of: &[(&str, &str)]| read(of).is_autonomous();
        assert!(autonomous(&[("contributor", "ai")]));
        assert!(autonomous(&[
            ("contributor", "ai"),
            ("human-operator", "renovate[bot]")
        ]));
        assert!(autonomous(&[("contributor", "ai"), ("authors", "jane")]));
        assert!(autonomous(&[
            ("contributor", "mixed"),
            ("agents", "Claude"),
            ("authors", "claude")
        ]));
        assert!(autonomous(&[
            ("contributor", "unknown"),
            ("authors", "jane")
        ]));
        assert!(autonomous(&[]));
        assert!(!autonomous(&[
            ("contributor", "ai"),
            ("human-operator", "jane")
        ]));
        assert!(!autonomous(&[
            ("contributor", "mixed"),
            ("authors", "jane")
        ]));
        assert!(!autonomous(&[("contributor", "human")]));
    }

    /// Templates with their digest, their hash with a collision count of 0 and of 1, and the digest
    /// of a change to them; computed by another program (Python's json and hashlib).
    fn golden() -> Vec<(Value, [&'static str; 4])> {
        vec![
            (
                json!({ "metadata": { "labels": { "app": "shop" } }, "spec": { "containers": [
                    { "name": "web", "image": "registry.example/shop:1.4.2" },
                ] } }),
                [
                    "a1325c0c911e970286c905a3974eac86d0b4151c0133672bb132b3008a738e97",
                    "nplzfzbdjv",
                    "r89cd82vsk",
                    "1868e0e577100df8ed636cc8a491f1f3e851a134a8296f73e5f08003dd83c729",
                ],
            ),
            (
                json!({
                    "metadata": {
                        "labels": { "app": "pay", "team": "café" },
                        "annotations": { "note": "a \"b\"\n\t\\ \u{1}\u{202e}" },
                    },
                    "spec": {
                        "serviceAccountName": "pay", "terminationGracePeriodSeconds": 45,
                        "containers": [{
                            "name": "web", "image": format!("pay@sha256:{}", "a".repeat(64)),
                            "env": [{ "name": "RATE", "value": "0.1" }],
                            "resources": {
                                "requests": { "cpu": "100m", "memory": "64Mi" },
                                "limits": { "memory": "64Mi" },
                            },
                            // Stored with the protocol by definitions that filled it in.
                            "ports": [{ "containerPort": 8080, "protocol": "TCP" }],
                        }],
                        "volumes": [{ "name": "tmp", "emptyDir": {} }],
                    },
                }),
                [
                    "8e438867e7cfcdf752675ea3a14d7b63bb5d62980c62626cfca2fc8b50d87494",
                    "gk2mpnvsln",
                    "g5nhrwgk8k",
                    "75704004897135206128cbabbf1de43b8082084e9ba099d94502aa0bd4d58a48",
                ],
            ),
            (
                json!({ "metadata": { "labels": { "app": "new" } }, "spec": {
                    "containers": [{ "name": "web", "image": "x:1", "futureField": {
                        "ratio": 0.25, "on": true, "off": false, "n": -3, "big": 12_345_678_901_i64,
                        "list": [null, [], {}, "z"],
                    } }],
                    "hostUsers": false,
                    "futureSpec": [1.5, 2],
                } }),
                [
                    "ef71a72db0eca5a890f65b90451c7477a589e8199aa21f217717d1a78e7e3034",
                    "nhzq2sclqb",
                    "bw9jkhmrgw",
                    "ce06dde79e8bf8946ce6b874dee2125921653588b629bbea8ac66525d5cefe4c",
                ],
            ),
        ]
    }

    #[test]
    fn hashes_stay_the_same_across_operator_versions() {
        let mut annotations = annotations(&[("contributor", "ai"), ("revision", "9f3c2e1")]);
        annotations.insert("other/key".into(), "no".into());
        for (template, expected) in golden() {
            let template = PodTemplate(template);
            let found = [
                template_digest(&template),
                pod_template_hash(&template, 0),
                pod_template_hash(&template, 1),
                change_digest(&template, &annotations),
            ];
            assert_eq!(
                found, expected,
                "never change these: every rollout would start anew"
            );
        }
    }

    #[test]
    fn a_port_without_a_protocol_is_one_of_tcp() {
        let digests = |port: Value| {
            let pods = json!({ "spec": { "containers": [{ "name": "w", "ports": [port] }] } });
            let template = PodTemplate(pods);
            let change = change_digest(&template, &BTreeMap::new());
            (template_digest(&template), change)
        };
        let with = |protocol: &str| digests(json!({ "containerPort": 80, "protocol": protocol }));
        assert_eq!(digests(json!({ "containerPort": 80 })), with("TCP"));
        assert_eq!(
            digests(json!({ "containerPort": 80, "protocol": null })),
            with("TCP")
        );
        assert_ne!(with("UDP"), with("TCP"));
    }

    #[test]
    fn order_of_keys_nulls_and_empty_timestamps_do_not_matter() {
        let texts = [
            r#"{"metadata":{"labels":{"a":"1","b":"2"}},"spec":{"containers":[{"image":"x","name":"w"}]}}"#,
            r#"{"spec":{"containers":[{"name":"w","image":"x","env":null}]},"metadata":{"creationTimestamp":null,"labels":{"b":"2","a":"1"}}}"#,
            r#"{"spec":{"containers":[{"name":"w","image":"x"}],"nodeName":null},"metadata":{"creationTimestamp":"","labels":{"b":"2","a":"1"}}}"#,
        ];
        let digests: BTreeSet<_> = texts
            .iter()
            .map(|text| template_digest(&serde_json::from_str(text).unwrap()))
            .collect();
        assert_eq!(digests.len(), 1);
    }

    #[test]
    fn a_field_unknown_to_this_build_changes_the_hash() {
        let mut newer = template();
        newer.0["spec"]["containers"][0]["fieldOfKubernetes2030"] = json!({ "mode": "Fast" });
        assert_ne!(
            pod_template_hash(&newer, 0),
            pod_template_hash(&template(), 0)
        );
        assert_ne!(template_digest(&newer), template_digest(&template()));
    }

    #[test]
    fn the_change_digest_binds_to_template_and_provenance_and_to_nothing_else() {
        let digest = |of: &[(&str, &str)]| change_digest(&template(), &annotations(of));
        let mut others = annotations(&GOOD);
        others.insert(
            "kubectl.kubernetes.io/last-applied-configuration".into(),
            "{}".into(),
        );
        assert_eq!(change_digest(&template(), &others), digest(&GOOD));
        assert_ne!(digest(&GOOD), digest(&GOOD[1..]));
        assert_ne!(digest(&[("future-key", "1")]), digest(&[]));
        let same_pods = pod_template_hash(&template(), 0);
        assert_eq!(
            same_pods,
            pod_template_hash(&template(), 0),
            "provenance restarts no pod"
        );
    }

    proptest! {
        #[test]
        fn any_annotations_are_read_without_a_panic_and_shown_harmlessly(
            values in proptest::collection::btree_map(
                prop_oneof![proptest::sample::select(KEYS.as_slice()).prop_map(ToOwned::to_owned), ".{0,8}"],
                prop_oneof![".{0,60}", "[0-9.eE+-]{0,12}", "[a-z<>@,\\[\\] ]{0,40}"],
                0..20,
            ),
        ) {
            let of: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let read = read(&of);
            prop_assert!(read.problems.len() <= MAX_PROBLEMS);
            for problem in &read.problems {
                let text = problem.to_string();
                prop_assert!(!text.contains(is_invisible) && text.len() < 1024, "{text:?}");
            }
            let (both, _) = Provenance::read_both(&annotations(&of), &annotations(&of), &template());
            prop_assert!(both.refused(attestation::Problem::Missing).problems.len() <= MAX_PROBLEMS);
            let _ = (read.review(), read.is_autonomous());
        }

        #[test]
        fn a_hash_is_a_label_and_a_part_of_a_dns_name(text in ".{0,40}", count in 0..i32::MAX) {
            let hash = pod_template_hash(&PodTemplate(json!({ "spec": text })), count);
            prop_assert!(hash.len() == 10 && hash.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        }
    }
}
