use proptest::prelude::*;

use super::*;

fn assistant(name: &str, address: &str) -> Option<String> {
    match who(name, address) {
        Who::Assistant(Agent { tool, model }) => Some(
            [tool]
                .into_iter()
                .chain(model)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        _ => None,
    }
}

/// Identities that the tools write, as seen in public commits.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn assistants_are_known_by_what_they_write() {
    for (name, address, expected) in [
        ("Claude", "noreply@anthropic.com", "claude"),
        (
            "Claude Opus 4.8 (1M context)",
            "noreply@anthropic.com",
            "claude claude-opus-4.8",
        ),
        ("Claude Code", "NoReply@Anthropic.com", "claude-code"),
        (
            "claude[bot]",
            "209825114+claude[bot]@users.noreply.github.com",
            "claude",
        ),
        ("goose", "noreply@anthropic.com", "goose"),
        (
            "Copilot",
            "223556219+Copilot@users.noreply.github.com",
            "copilot",
        ),
        (
            "copilot-swe-agent[bot]",
            "198982749+Copilot@users.noreply.github.com",
            "copilot",
        ),
        ("Copilot", "copilot@github.com", "copilot"),
        ("GitHub Copilot", "", "copilot"),
        ("Cursor", "cursoragent@cursor.com", "cursor"),
        ("Cursor Agent", "", "cursor"),
        ("Codex", "noreply@openai.com", "codex"),
        ("Codex", "codex@openai.com", "codex"),
        (
            "Codex",
            "199175422+chatgpt-codex-connector[bot]@users.noreply.github.com",
            "codex",
        ),
        (
            "GPT-5.3-Codex",
            "noreply@openai.com",
            "chatgpt gpt-5.3-codex",
        ),
        (
            "gemini-code-assist[bot]",
            "176961590+gemini-code-assist[bot]@users.noreply.github.com",
            "gemini",
        ),
        ("Gemini 2.5 Pro", "", "gemini gemini-2.5-pro"),
        (
            "google-labs-jules[bot]",
            "161369871+google-labs-jules[bot]@users.noreply.github.com",
            "jules",
        ),
        ("Google Labs Jules", "jules@google.com", "jules"),
        (
            "Devin AI",
            "158243242+devin-ai-integration[bot]@users.noreply.github.com",
            "devin",
        ),
        ("aider (gpt-5.4)", "aider@aider.chat", "aider gpt-5.4"),
        (
            "aider (openai/gpt-4o)",
            "noreply@aider.chat",
            "aider openai/gpt-4o",
        ),
        ("Jane Doe (aider)", "jane@example.org", "aider"),
        ("Amp", "amp@ampcode.com", "amp"),
        ("opencode", "noreply@opencode.ai", "opencode"),
        ("openhands", "openhands@all-hands.dev", "openhands"),
        ("Droid", "droid@factory.ai", "droid"),
        ("Kiro", "noreply@kiro.dev", "kiro"),
        (
            "Kiro",
            "244629292+kiro-agent@users.noreply.github.com",
            "kiro",
        ),
        ("Crush", "crush@charm.land", "crush"),
        ("Continue", "noreply@continue.dev", "continue"),
        ("Qwen-Coder", "qwen-coder@alibabacloud.com", "qwen"),
        ("TRAE CLI", "traecli@bytedance.com", "trae"),
        ("Windsurf Cascade", "cascade@windsurf.ai", "windsurf"),
        ("Replit Agent", "agent@replit.com", "replit"),
        (
            "amazon-q-developer[bot]",
            "208079219+amazon-q-developer[bot]@users.noreply.github.com",
            "amazon-q",
        ),
    ] {
        assert_eq!(
            assistant(name, address).as_deref(),
            Some(expected),
            "{name} <{address}>"
        );
    }
}

#[test]
fn people_stay_people() {
    for (name, address) in [
        ("Claude Dioudonnat", "claude@dioudonnat.example"),
        ("Claude Paroz", "claude@example.net"),
        ("Devin Smith", "devin@example.org"),
        ("Jane Doe", "jane@openai.com"),
        ("Boris", "boris@anthropic.com"),
        ("Michael", "michael@cursor.com"),
        ("Jane", "1234+jane@users.noreply.github.com"),
        ("", "jane@example.org"),
    ] {
        assert_eq!(who(name, address), Who::Person, "{name} <{address}>");
    }
}

#[test]
fn a_name_of_both_is_unclear() {
    for name in ["Claude", "devin", "JULES", "Gemini", "Cursor"] {
        assert_eq!(who(name, "someone@example.org"), Who::Unclear, "{name}");
    }
}

#[test]
fn a_robot_that_is_not_known_may_be_an_ai() {
    for (name, address) in [
        (
            "some-new-ai[bot]",
            "1+some-new-ai[bot]@users.noreply.github.com",
        ),
        ("some-new-ai[bot]", ""),
        (
            "dependabot[bot]",
            "1+some-new-ai[bot]@users.noreply.github.com",
        ),
        ("Jane Doe", "1+some-new-ai[bot]@users.noreply.github.com"),
        ("New AI", "noreply@github.com"),
    ] {
        assert_eq!(who(name, address), Who::UnknownRobot, "{name} <{address}>");
    }
}

#[test]
fn robots_are_neither() {
    for (name, address) in [
        (
            "dependabot[bot]",
            "49699333+dependabot[bot]@users.noreply.github.com",
        ),
        ("renovate[bot]", "x@example.org"),
        ("GitHub", "noreply@github.com"),
        ("GitHub Actions", "actions@github.com"),
        ("Renovate Bot", "bot@renovateapp.com"),
    ] {
        assert_eq!(who(name, address), Who::Robot, "{name}");
    }
}

#[test]
fn where_an_ai_is_expected_its_bare_name_is_enough() {
    let tool = |text: &str| named(text).map(|agent| agent.tool);
    for (text, expected) in [
        ("Claude", "claude"),
        ("Claude Code", "claude-code"),
        ("ChatGPTv5", "chatgpt"),
        ("GPT-5", "chatgpt"),
        ("Gemini", "gemini"),
        ("LLM", "ai"),
    ] {
        assert_eq!(tool(text).as_deref(), Some(expected), "{text}");
    }
    assert_eq!(tool("Daniel Gustafsson"), None);
    assert_eq!(tool("coccinelle"), None);
}

#[test]
fn the_file_can_be_read_and_holds_everything_in_lower_case() {
    let known: Known = serde_saphyr::from_str(FILE).unwrap();
    assert!(known.assistants.len() >= 40 && known.robots.len() > 20);
    assert!(known.mailboxes.len() > 3 && known.robot_addresses.len() > 3);
    assert!(!FILE.lines().any(|line| !line.starts_with('#')
        && line != line.to_lowercase()
        && !line.contains("sharedNames:")
        && !line.starts_with("robotAddresses")));
    for assistant in &known.assistants {
        let tool = &assistant.tool;
        assert!(
            !tool.is_empty() && !tool.contains([' ', ',', ':']),
            "{tool}"
        );
    }
}

proptest! {
    #[test]
    fn any_identity_stands_for_something(name in "(?s).{0,40}", address in "(?s).{0,40}") {
        who(&name, &address);
        named(&name);
    }
}
