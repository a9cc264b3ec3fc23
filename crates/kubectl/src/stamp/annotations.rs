//! The annotations of a stamp.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::PROVENANCE_PREFIX;
use countersign_api::provenance::ReviewSource;
use countersign_core::provenance::identity::Agent;

use super::areas::Size;
use super::authorship::Authorship;
use super::evidence::Evidence;
use super::git::{Commit, Range, Repository, without_credentials};
use super::options::{Options, word};

/// Largest count that the controller accepts.
const MAX_COUNT: u64 = 1_000_000_000;

/// The collected annotations.
#[derive(Default)]
pub(super) struct Annotations(pub BTreeMap<String, String>);

impl Annotations {
    /// Sets an annotation, unless its value is empty.
    fn set(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.insert(format!("{PROVENANCE_PREFIX}{key}"), value);
        }
    }

    /// Who wrote the change; the command line may name more people who drove the AI.
    pub(super) fn people(&mut self, authorship: &Authorship, operators: &BTreeSet<String>) {
        self.set("contributor", authorship.contributor.as_str());
        if let Some(share) = authorship.ai_share {
            self.set("ai-share", share.to_string());
        }
        let agents: Vec<_> = authorship.agents.iter().map(agent).collect();
        self.set("agents", agents.join(", "));
        self.set("authors", list(&authorship.authors));
        self.set(
            "human-operator",
            list(authorship.operators.union(operators)),
        );
    }

    /// Who reviewed it, and whether its tests passed.
    pub(super) fn evidence(&mut self, evidence: &Evidence) {
        self.set("reviewers", list(&evidence.reviewers));
        self.set("approved-revision", evidence.approved_revision.as_str());
        self.set(
            "review-source",
            evidence.source.map_or("", ReviewSource::as_str),
        );
        self.set("tests", evidence.tests.map_or("", word));
    }

    /// How large it is.
    pub(super) fn size(&mut self, size: &Size) {
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

    /// What all of this is about.
    pub(super) fn subject(
        &mut self,
        repository: &Repository,
        (range, commits): (&Range, &[Commit]),
        options: &Options,
    ) {
        let origin = repository.origin();
        let origin = origin.as_deref().and_then(without_credentials);
        self.set("repository", origin.unwrap_or_default());
        self.set("revision", range.head.as_str());
        let newest = commits.iter().filter_map(|it| it.committed_at).max();
        let newest = newest.map(|at| at.to_string());
        self.set("committed-at", newest.unwrap_or_default());
        self.set("image", options.image.clone().unwrap_or_default());
    }
}

fn agent(agent: &Agent) -> String {
    match &agent.model {
        Some(model) => format!("{} {model}", agent.tool),
        None => agent.tool.clone(),
    }
}

/// A list as the value of an annotation.
pub(super) fn list<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<_> = items.into_iter().map(String::as_str).collect();
    items.join(", ")
}
