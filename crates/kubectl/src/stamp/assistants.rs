//! The AI assistants that are known by the names and addresses under which they write commits, and
//! what an identity in a commit stands for: an assistant, a robot, or a person.
//!
//! To add an assistant, add a row to [`ASSISTANTS`].

use countersign_core::provenance::identity::Agent;

use super::visible::item;

/// A known assistant.
struct Assistant {
    /// How `agents` names it: one word.
    tool: &'static str,
    /// Names that no person has; an identity is the assistant's if its name begins with one.
    names: &'static [&'static str],
    /// Names that people have too: alone they prove nothing.
    shared_names: &'static [&'static str],
    /// Its e-mail addresses.
    addresses: &'static [&'static str],
    /// Its maker's domains, where addresses such as `noreply@` are the assistant's.
    domains: &'static [&'static str],
    /// Its accounts at GitHub, without `[bot]`.
    logins: &'static [&'static str],
}

/// A row of the table with nothing in it.
const NONE: Assistant = Assistant {
    tool: "",
    names: &[],
    shared_names: &[],
    addresses: &[],
    domains: &[],
    logins: &[],
};

const ASSISTANTS: [Assistant; 40] = [
    Assistant {
        tool: "claude-code",
        names: &["claude code"],
        logins: &["claude-code-action"],
        ..NONE
    },
    Assistant {
        tool: "claude",
        names: &[
            "claude opus",
            "claude sonnet",
            "claude haiku",
            "claude ai",
            "anthropic",
        ],
        shared_names: &["claude"],
        domains: &["anthropic.com", "claude.ai", "claude.com"],
        logins: &["claude", "anthropic-claude"],
        ..NONE
    },
    Assistant {
        tool: "copilot",
        names: &["copilot", "github copilot", "copilot-swe-agent"],
        addresses: &["copilot@github.com"],
        logins: &["copilot", "copilot-swe-agent", "github-copilot"],
        ..NONE
    },
    Assistant {
        tool: "cursor",
        names: &["cursor agent", "cursoragent"],
        shared_names: &["cursor"],
        addresses: &["cursoragent@cursor.com"],
        domains: &["cursor.com"],
        logins: &["cursor", "cursoragent"],
    },
    Assistant {
        tool: "codex",
        names: &["codex", "openai codex", "chatgpt codex"],
        addresses: &["codex@openai.com"],
        domains: &["openai.com"],
        logins: &["codex", "openai-codex", "chatgpt-codex-connector"],
        ..NONE
    },
    Assistant {
        tool: "chatgpt",
        names: &["chatgpt", "gpt", "openai"],
        ..NONE
    },
    Assistant {
        tool: "gemini",
        names: &[
            "gemini cli",
            "gemini code assist",
            "google gemini",
            "gemini pro",
        ],
        shared_names: &["gemini"],
        addresses: &["gemini@google.com", "noreply@gemini.google.com"],
        logins: &["gemini-code-assist", "gemini-cli", "google-gemini"],
        ..NONE
    },
    Assistant {
        tool: "jules",
        names: &["google labs jules", "google-labs-jules"],
        shared_names: &["jules"],
        addresses: &["jules@google.com"],
        logins: &["google-labs-jules"],
        ..NONE
    },
    Assistant {
        tool: "antigravity",
        names: &["antigravity"],
        ..NONE
    },
    Assistant {
        tool: "devin",
        names: &["devin ai", "devin-ai-integration"],
        shared_names: &["devin"],
        addresses: &["devin@cognition.ai"],
        domains: &["cognition.ai", "devin.ai"],
        logins: &["devin-ai-integration"],
    },
    Assistant {
        tool: "aider",
        names: &["aider"],
        addresses: &["aider@aider.chat"],
        domains: &["aider.chat"],
        ..NONE
    },
    Assistant {
        tool: "amp",
        names: &["sourcegraph amp"],
        shared_names: &["amp"],
        addresses: &["amp@ampcode.com"],
        domains: &["ampcode.com"],
        ..NONE
    },
    Assistant {
        tool: "cody",
        names: &["sourcegraph cody"],
        shared_names: &["cody"],
        domains: &["sourcegraph.com"],
        logins: &["sourcegraph-cody"],
        ..NONE
    },
    Assistant {
        tool: "opencode",
        names: &["opencode"],
        domains: &["opencode.ai"],
        logins: &["opencode-agent", "opencode"],
        ..NONE
    },
    Assistant {
        tool: "openhands",
        names: &["openhands"],
        addresses: &["openhands@all-hands.dev"],
        domains: &["all-hands.dev"],
        logins: &["openhands-agent", "openhands-ai"],
        ..NONE
    },
    Assistant {
        tool: "amazon-q",
        names: &["amazon q", "codewhisperer"],
        logins: &["amazon-q-developer"],
        ..NONE
    },
    Assistant {
        tool: "kiro",
        names: &["kiro agent"],
        shared_names: &["kiro"],
        domains: &["kiro.dev"],
        logins: &["kiro-agent"],
        ..NONE
    },
    Assistant {
        tool: "windsurf",
        names: &["windsurf", "codeium"],
        shared_names: &["cascade"],
        addresses: &["cascade@windsurf.ai"],
        domains: &["windsurf.ai", "windsurf.com", "codeium.com"],
        ..NONE
    },
    Assistant {
        tool: "cline",
        shared_names: &["cline"],
        domains: &["cline.bot"],
        logins: &["cline"],
        ..NONE
    },
    Assistant {
        tool: "roo-code",
        names: &["roo code", "roocode", "roomote"],
        shared_names: &["roo"],
        domains: &["roocode.com"],
        logins: &["roomote"],
        ..NONE
    },
    Assistant {
        tool: "continue",
        names: &["continue.dev", "continue cli", "continue agent"],
        shared_names: &["continue"],
        domains: &["continue.dev"],
        logins: &["continue"],
        ..NONE
    },
    Assistant {
        tool: "crush",
        shared_names: &["crush"],
        addresses: &["crush@charm.land"],
        domains: &["charm.land"],
        ..NONE
    },
    Assistant {
        tool: "goose",
        shared_names: &["goose"],
        addresses: &["goose@opensource.block.xyz"],
        ..NONE
    },
    Assistant {
        tool: "droid",
        names: &["factory droid", "factory-droid"],
        shared_names: &["droid"],
        addresses: &["droid@factory.ai"],
        domains: &["factory.ai"],
        logins: &["factory-droid"],
    },
    Assistant {
        tool: "junie",
        names: &["jetbrains ai", "jetbrains junie", "junie-agent"],
        shared_names: &["junie"],
        addresses: &["junie@jetbrains.com"],
        logins: &["jetbrains-ai", "junie-agent"],
        ..NONE
    },
    Assistant {
        tool: "zed",
        names: &["zed ai", "zed agent"],
        shared_names: &["zed"],
        domains: &["zed.dev"],
        ..NONE
    },
    Assistant {
        tool: "replit",
        names: &["replit agent", "replit ai", "replit assistant"],
        shared_names: &["replit"],
        addresses: &["agent@replit.com"],
        domains: &["replit.com"],
        ..NONE
    },
    Assistant {
        tool: "augment",
        names: &["augment code", "augment agent"],
        shared_names: &["augment"],
        domains: &["augmentcode.com"],
        logins: &["augmentcode"],
        ..NONE
    },
    Assistant {
        tool: "trae",
        names: &["trae cli", "trae ai", "trae agent"],
        shared_names: &["trae"],
        addresses: &["traecli@bytedance.com"],
        domains: &["trae.ai"],
        ..NONE
    },
    Assistant {
        tool: "tabnine",
        names: &["tabnine"],
        domains: &["tabnine.com"],
        ..NONE
    },
    Assistant {
        tool: "qwen",
        names: &["qwen", "qwen code", "qwen-coder"],
        addresses: &["qwen-coder@alibabacloud.com"],
        ..NONE
    },
    Assistant {
        tool: "kimi",
        names: &["kimi code", "kimi cli"],
        shared_names: &["kimi"],
        domains: &["moonshot.ai", "moonshot.cn"],
        ..NONE
    },
    Assistant {
        tool: "deepseek",
        names: &["deepseek"],
        domains: &["deepseek.com"],
        ..NONE
    },
    Assistant {
        tool: "glm",
        names: &["glm", "chatglm", "z.ai", "zhipu ai"],
        addresses: &["service@zhipuai.cn"],
        logins: &["bigmodel88"],
        ..NONE
    },
    Assistant {
        tool: "grok",
        names: &["grok", "xai grok"],
        domains: &["x.ai"],
        ..NONE
    },
    Assistant {
        tool: "mistral",
        names: &["codestral", "devstral", "mistral vibe", "mistral ai"],
        shared_names: &["mistral"],
        domains: &["mistral.ai"],
        ..NONE
    },
    Assistant {
        tool: "llama",
        names: &["code llama", "codellama", "meta llama"],
        shared_names: &["llama"],
        ..NONE
    },
    Assistant {
        tool: "warp",
        names: &["warp agent", "warp ai"],
        shared_names: &["warp"],
        addresses: &["agent@warp.dev"],
        domains: &["warp.dev"],
        ..NONE
    },
    Assistant {
        tool: "vibe",
        names: &["v0", "v0.dev", "bolt.new", "lovable", "lovable.dev"],
        shared_names: &["bolt"],
        domains: &["v0.dev", "bolt.new", "lovable.dev"],
        logins: &["v0", "lovable-dev", "gpt-engineer-app"],
        ..NONE
    },
    Assistant {
        tool: "ai",
        names: &["ai assistant", "ai agent", "llm", "generative ai"],
        shared_names: &["ai"],
        ..NONE
    },
];

/// Local parts that no employee of an assistant's maker has.
const TOOL_ADDRESSES: [&str; 4] = ["noreply", "no-reply", "agent", "bot"];

/// Robots that are known as no AI, by their names or accounts in lower case and without `[bot]`.
const ROBOTS: [&str; 22] = [
    "allcontributors",
    "bors",
    "codecov",
    "crowdin-bot",
    "dependabot",
    "dependabot-preview",
    "github",
    "github actions",
    "github-actions",
    "github-merge-queue",
    "greenkeeper",
    "imgbot",
    "kodiakhq",
    "mergify",
    "pre-commit-ci",
    "pyup-bot",
    "release-please",
    "renovate",
    "renovate bot",
    "semantic-release-bot",
    "snyk-bot",
    "weblate",
];

/// Robots that write commits and do not call themselves `[bot]`.
const ROBOT_ADDRESSES: [&str; 4] = [
    "noreply@github.com",
    "actions@github.com",
    "action@github.com",
    "bot@renovateapp.com",
];

/// What the name and address of a commit stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// An AI assistant.
    Assistant(Agent),
    /// A program that is known as no AI.
    Robot,
    /// A program that may be an AI.
    UnknownRobot,
    /// A person, as far as can be told.
    Person,
    /// A person or an assistant of the same name.
    Unclear,
}

/// What a name and an address stand for.
pub(super) fn who(name: &str, address: &str) -> Who {
    let address = address.trim().to_lowercase();
    let words = words(name);
    if let Some(owner) = owner_of(&address) {
        let named = any_name(&words).unwrap_or(owner);
        return Who::Assistant(agent(named, name));
    }
    if is_marked_bot(name) || is_marked_bot(&address) || ROBOT_ADDRESSES.contains(&&*address) {
        return match known_login(&login(&name.to_lowercase())) {
            Some(assistant) => Who::Assistant(agent(assistant, name)),
            None if is_known_robot(name, &address) => Who::Robot,
            None => Who::UnknownRobot,
        };
    }
    // Aider writes `Jane Doe (aider)` where the person lets it.
    if words.len() > 1 && words.last().is_some_and(|word| word == "aider") {
        return Who::Assistant(Agent {
            tool: "aider".into(),
            model: None,
        });
    }
    match ASSISTANTS.iter().find(|it| own_name(it, &words)) {
        Some(assistant) => Who::Assistant(agent(assistant, name)),
        None if any_name(&words).is_some_and(|it| only_shared(it, &words)) => Who::Unclear,
        None => Who::Person,
    }
}

/// The agent that a text names where an AI is expected: `Claude:claude-opus-4`, `Copilot`, `GPT-5`.
pub(super) fn named(text: &str) -> Option<Agent> {
    any_name(&words(text)).map(|assistant| agent(assistant, text))
}

/// The words that tell an agent's name, in lower case.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// The assistant that a name begins with, under whichever of its names; the longest one wins.
fn any_name(words: &[String]) -> Option<&'static Assistant> {
    let length = |assistant: &Assistant| {
        let names = assistant.names.iter().chain(assistant.shared_names);
        names
            .filter(|name| begins_with(words, name))
            .map(|name| name.len())
            .max()
    };
    let known = ASSISTANTS
        .iter()
        .filter_map(|it| length(it).map(|length| (length, it)));
    known.max_by_key(|(length, _)| *length).map(|(_, it)| it)
}

/// Whether no person is called this: `Claude Opus`, or `Gemini 2.5`.
fn own_name(assistant: &Assistant, words: &[String]) -> bool {
    let with_version =
        |name: &&str| begins_with(words, name) && words.get(1).is_some_and(|word| is_version(word));
    assistant.names.iter().any(|name| begins_with(words, name))
        || assistant.shared_names.iter().any(with_version)
}

/// Whether the whole name is one that people have too.
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
    ASSISTANTS.iter().find(|it| {
        it.addresses.contains(&address)
            || it.domains.contains(&domain) && TOOL_ADDRESSES.contains(&local)
    })
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
    ASSISTANTS.iter().find(|it| it.logins.contains(&login))
}

/// Whether a robot is known as no AI, by its name, and its address names no other robot.
fn is_known_robot(name: &str, address: &str) -> bool {
    let is_known = |login: &str| ROBOTS.contains(&login);
    is_known(&login(&name.to_lowercase())) && (!is_marked_bot(address) || is_known(&login(address)))
}

fn is_marked_bot(text: &str) -> bool {
    let text = text.to_lowercase();
    text.trim_end().ends_with("[bot]") || text.contains("[bot]@")
}

/// The agent with the model that its name tells: `Claude Opus 4.8 (1M context)`, `aider (gpt-5)`.
fn agent(assistant: &Assistant, name: &str) -> Agent {
    let (outside, inside) = match name.split_once('(') {
        Some((outside, rest)) => (outside, rest.split(')').next().unwrap_or_default()),
        None => (name, ""),
    };
    let is_tool = |text: &str| words(text).concat() == words(assistant.tool).concat();
    let model = [outside, inside].into_iter().find(|text| {
        text.contains(|c: char| c.is_ascii_digit()) && !text.contains('[') && !is_tool(text)
    });
    Agent {
        tool: assistant.tool.to_owned(),
        model: model.map(model_name).filter(|model| !model.is_empty()),
    }
}

/// A model's name as one word in lower case.
pub(super) fn model_name(text: &str) -> String {
    item(text).to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests;
