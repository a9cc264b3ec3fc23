//! Classifies an identity in a commit: an AI assistant, a robot, or a person.
//!
//! Assistants and robots are known by the names and addresses under which they write commits: to add one,
//! add it to `assistants.yaml`.

use std::sync::LazyLock;

use countersign_core::provenance::identity::Agent;
use serde::Deserialize;

use super::visible::item;

/// The names and addresses of `assistants.yaml`, all in lower case.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Known {
    assistants: Vec<Assistant>,
    mailboxes: Vec<String>,
    robots: Vec<String>,
    robot_addresses: Vec<String>,
}

/// A known assistant.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Assistant {
    tool: String,
    names: Vec<String>,
    shared_names: Vec<String>,
    addresses: Vec<String>,
    domains: Vec<String>,
    logins: Vec<String>,
}

const FILE: &str = include_str!("assistants.yaml");

/// A test proves that the file can be read.
static KNOWN: LazyLock<Known> = LazyLock::new(|| serde_saphyr::from_str(FILE).unwrap_or_default());

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|it| it == text)
}

/// The class of a name and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// An AI assistant.
    Assistant(Agent),
    /// A program that is known as no AI.
    Robot,
    /// A program that may be an AI.
    UnknownRobot,
    /// A person, as far as is known.
    Person,
    /// A person or an assistant of the same name.
    Unclear,
}

/// Classifies a name and address.
pub(super) fn who(name: &str, address: &str) -> Who {
    let address = address.trim().to_lowercase();
    let words = words(name);
    if let Some(owner) = owner_of(&address) {
        let named = any_name(&words).unwrap_or(owner);
        return Who::Assistant(agent(named, name));
    }
    if is_marked_bot(name) || is_marked_bot(&address) || has(&KNOWN.robot_addresses, &address) {
        return match known_login(&login(&name.to_lowercase())) {
            Some(assistant) => Who::Assistant(agent(assistant, name)),
            None if is_known_robot(name, &address) => Who::Robot,
            None => Who::UnknownRobot,
        };
    }
    // Aider writes `Jane Doe (aider)` if so configured.
    if words.len() > 1 && words.last().is_some_and(|word| word == "aider") {
        return Who::Assistant(Agent {
            tool: "aider".into(),
            model: None,
        });
    }
    match KNOWN.assistants.iter().find(|it| own_name(it, &words)) {
        Some(assistant) => Who::Assistant(agent(assistant, name)),
        None if any_name(&words).is_some_and(|it| only_shared(it, &words)) => Who::Unclear,
        None => Who::Person,
    }
}

/// The agent that a text names where an AI is expected: `Claude:claude-opus-4`, `Copilot`, `GPT-5`.
pub(super) fn named(text: &str) -> Option<Agent> {
    any_name(&words(text)).map(|assistant| agent(assistant, text))
}

/// The words of an agent's name, in lower case.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// The assistant that a name begins with, under any of its names; the longest one wins.
fn any_name(words: &[String]) -> Option<&'static Assistant> {
    let length = |assistant: &Assistant| {
        let names = assistant.names.iter().chain(&assistant.shared_names);
        names
            .filter(|name| begins_with(words, name))
            .map(String::len)
            .max()
    };
    let known = KNOWN
        .assistants
        .iter()
        .filter_map(|it| length(it).map(|length| (length, it)));
    known.max_by_key(|(length, _)| *length).map(|(_, it)| it)
}

/// Whether the name is an assistant's only: `Claude Opus`, or `Gemini 2.5`.
fn own_name(assistant: &Assistant, words: &[String]) -> bool {
    let with_version = |name: &String| {
        begins_with(words, name) && words.get(1).is_some_and(|word| is_version(word))
    };
    assistant.names.iter().any(|name| begins_with(words, name))
        || assistant.shared_names.iter().any(with_version)
}

/// Whether the whole name is also a person's name.
fn only_shared(assistant: &Assistant, words: &[String]) -> bool {
    words.len() == 1
        && assistant
            .shared_names
            .iter()
            .any(|name| begins_with(words, name))
}

/// Whether the words of a name are the first ones; the last may carry a version (`ChatGPTv5`).
fn begins_with(found: &[String], name: &str) -> bool {
    let name = words(name);
    let last = name.len().saturating_sub(1);
    found.len() >= name.len()
        && found
            .iter()
            .zip(&name)
            .enumerate()
            .all(|(index, (word, expected))| {
                word == expected
                    || index == last && word.strip_prefix(expected.as_str()).is_some_and(is_version)
            })
}

fn is_version(text: &str) -> bool {
    let number = text.strip_prefix('v').unwrap_or(text);
    number.starts_with(|c: char| c.is_ascii_digit())
}

/// The assistant to which an address in lower case belongs.
fn owner_of(address: &str) -> Option<&'static Assistant> {
    if address.ends_with("@users.noreply.github.com") {
        return known_login(&login(address));
    }
    let (local, domain) = address.split_once('@')?;
    let is_mailbox = has(&KNOWN.mailboxes, local);
    KNOWN
        .assistants
        .iter()
        .find(|it| has(&it.addresses, address) || is_mailbox && has(&it.domains, domain))
}

/// The account in `198982749+Copilot@users.noreply.github.com`, without `[bot]`.
fn login(address: &str) -> String {
    let local = address.split('@').next().unwrap_or_default();
    let name = match local.split_once('+') {
        Some((id, name)) if id.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => local,
    };
    name.trim().trim_end_matches("[bot]").to_owned()
}

fn known_login(login: &str) -> Option<&'static Assistant> {
    KNOWN.assistants.iter().find(|it| has(&it.logins, login))
}

/// Whether a robot is known as no AI, by its name, and its address names no other robot.
fn is_known_robot(name: &str, address: &str) -> bool {
    let is_known = |login: &str| has(&KNOWN.robots, login);
    is_known(&login(&name.to_lowercase())) && (!is_marked_bot(address) || is_known(&login(address)))
}

fn is_marked_bot(text: &str) -> bool {
    let text = text.to_lowercase();
    text.trim_end().ends_with("[bot]") || text.contains("[bot]@")
}

/// The agent with the model in its name: `Claude Opus 4.8 (1M context)`, `aider (gpt-5)`.
fn agent(assistant: &Assistant, name: &str) -> Agent {
    let (outside, inside) = match name.split_once('(') {
        Some((outside, rest)) => (outside, rest.split(')').next().unwrap_or_default()),
        None => (name, ""),
    };
    let is_tool = |text: &str| words(text).concat() == words(&assistant.tool).concat();
    let model = [outside, inside].into_iter().find(|text| {
        text.contains(|c: char| c.is_ascii_digit()) && !text.contains('[') && !is_tool(text)
    });
    Agent {
        tool: assistant.tool.clone(),
        model: model.map(model_name).filter(|model| !model.is_empty()),
    }
}

/// A model's name as one word in lower case.
pub(super) fn model_name(text: &str) -> String {
    item(text).to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests;
