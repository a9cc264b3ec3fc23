//! The notes that git-ai attaches to commits under `refs/notes/ai`: which lines an AI wrote.
//!
//! Lines that a note attributes to nobody are not known to be a person's, so they count as the AI's.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::provenance::identity::Agent;
use serde_json::Value;

use super::assistants::model_name;

/// The content of a note.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The AI tools that took part.
    pub agents: BTreeSet<Agent>,
    /// By path, the number of lines that a person wrote.
    pub by_people: BTreeMap<String, u64>,
}

/// Parses a note; `None` if it cannot be read.
pub(super) fn note(text: &str) -> Option<Note> {
    let (lines, json) = match text.split_once("\n---\n") {
        Some(parts) => parts,
        None => ("", text.strip_prefix("---\n").unwrap_or(text)),
    };
    let about: Value = serde_json::from_str(json).ok()?;
    let version = about.get("schema_version")?.as_str()?;
    if !version.starts_with("authorship/") {
        return None;
    }
    let mut note = Note {
        agents: agents(&about),
        by_people: BTreeMap::new(),
    };
    let mut path = String::new();
    let mut by_ai = false;
    for line in lines.lines() {
        match line.strip_prefix("  ") {
            None => path = unquoted(line),
            Some(attribution) => {
                let (author, ranges) = attribution.trim().split_once(' ')?;
                let count = count(ranges)?;
                if author.starts_with("h_") {
                    let known = note.by_people.entry(path.clone()).or_default();
                    *known = known.saturating_add(count);
                } else {
                    by_ai = true;
                }
            }
        }
    }
    if by_ai && note.agents.is_empty() {
        note.agents.insert(Agent {
            tool: "ai".into(),
            model: None,
        });
    }
    Some(note)
}

/// Git-ai quotes a path that contains space.
fn unquoted(path: &str) -> String {
    let bare = path
        .strip_prefix('"')
        .and_then(|path| path.strip_suffix('"'));
    bare.unwrap_or(path).to_owned()
}

/// The lines in ranges such as `1-4,9`.
fn count(ranges: &str) -> Option<u64> {
    let mut count: u64 = 0;
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        count = count.saturating_add(last.checked_sub(first)?.saturating_add(1));
    }
    Some(count)
}

/// The tools of all sessions, which older notes call prompts.
fn agents(about: &Value) -> BTreeSet<Agent> {
    let sessions = ["sessions", "prompts"]
        .into_iter()
        .filter_map(|key| about.get(key)?.as_object())
        .flat_map(serde_json::Map::values);
    let word = |value: Option<&Value>| {
        let word = model_name(value?.as_str()?);
        (!word.is_empty()).then_some(word)
    };
    sessions
        .filter_map(|session| {
            let agent = session.get("agent_id")?;
            Some(Agent {
                tool: word(agent.get("tool"))?,
                model: word(agent.get("model")),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOTE: &str = "src/main.rs\n  h_dca485b1adf836 3-4,7-14\n  s_a76964380084ef::t_a3a130d3e145e3 5-6\n\"docs/a b.md\"\n  h_dca485b1adf836 1\n---\n{\"schema_version\":\"authorship/3.0.0\",\"sessions\":{\"s_a76964380084ef\":{\"agent_id\":{\"tool\":\"claude\",\"id\":\"1\",\"model\":\"claude-opus-5\"}}},\"humans\":{}}";

    #[test]
    fn people_and_tools_are_read() {
        let note = note(NOTE).unwrap();
        let tool = note.agents.first().unwrap();
        assert_eq!(
            (tool.tool.as_str(), tool.model.as_deref()),
            ("claude", Some("claude-opus-5"))
        );
        let lines: Vec<_> = note.by_people.into_iter().collect();
        assert_eq!(
            lines,
            [("docs/a b.md".into(), 1), ("src/main.rs".into(), 10)]
        );
    }

    #[test]
    fn older_notes_call_a_session_a_prompt() {
        let older = "a\n  abcd1234abcd1234 1-5\n---\n{\"schema_version\":\"authorship/3.0.0\",\"prompts\":{\"abcd1234abcd1234\":{\"agent_id\":{\"tool\":\"cursor\"}}}}";
        assert_eq!(note(older).unwrap().agents.first().unwrap().tool, "cursor");
    }

    #[test]
    fn lines_of_a_session_that_nobody_names_are_an_ais() {
        let nameless = "a\n  s_1::t_1 1\n---\n{\"schema_version\":\"authorship/3.0.0\"}";
        assert_eq!(note(nameless).unwrap().agents.first().unwrap().tool, "ai");
    }

    #[test]
    fn a_note_of_people_alone_names_no_ai() {
        let people = "a\n  h_1 1-3\n---\n{\"schema_version\":\"authorship/3.0.0\"}";
        assert!(note(people).unwrap().agents.is_empty());
    }

    #[test]
    fn what_is_no_note_of_this_kind_is_none() {
        let ranges = |ranges: &str| NOTE.replace("5-6", ranges);
        for text in [
            "",
            "reviewed by me",
            "---\n{}",
            "---\n{\"schema_version\":\"2\"}",
        ] {
            assert_eq!(note(text), None, "{text}");
        }
        for bad in ["6-5", "x", "-", "1-99999999999999999999"] {
            assert_eq!(note(&ranges(bad)), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_note_is_read_without_a_panic(lines in "(?s).{0,60}", ranges in "[0-9,-]{0,30}") {
            note(&lines);
            note(&NOTE.replace("5-6", &ranges));
            note(&format!("{lines}\n---\n{{\"schema_version\":\"authorship/3.0.0\"}}"));
        }
    }
}
