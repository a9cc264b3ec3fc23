//! Identities of authors and agents.

use std::collections::BTreeSet;
use std::fmt;

use crate::text;

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
        f.write_str(&text::excerpt(&self.0))
    }
}

impl Identity {
    /// Parses an identity.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Name and e-mail address, normalised for comparison.
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

    /// Whether both are the same: the name or the e-mail address is equal, ignoring case.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        !self.keys().is_disjoint(&other.keys())
    }

    /// Whether this is a robot by its name, or one of these agents; neither is a person.
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

/// An agent in the format of Linux' `Assisted-by` (`Claude:claude-3-opus`), or with a space in between.
pub(super) fn agent(text: &str) -> Agent {
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
