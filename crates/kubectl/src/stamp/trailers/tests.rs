use proptest::prelude::*;

use super::*;

/// What a message declares, as one line: agents, `wholly`, people, and how much is unclear.
fn rendered(message: &str) -> String {
    let traces = traces(message);
    let agent = |agent: &Agent| match &agent.model {
        Some(model) => format!("{} {model}", agent.tool),
        None => agent.tool.clone(),
    };
    let mut items: Vec<String> = traces.agents.iter().map(agent).collect();
    items.extend(traces.wholly.then(|| "wholly".to_owned()));
    items.extend(traces.people.iter().map(|it| format!("by {it}")));
    items.extend(traces.unclear.iter().map(|_| "unclear".to_owned()));
    items.join(", ")
}

/// Messages as the tools and the projects that have conventions write them: who writes so, the
/// message, and what it declares.
const CONVENTIONS: &[(&str, &str, &str)] = &[
    (
        "Claude Code",
        "fix: a\n\n🤖 Generated with [Claude Code](https://claude.com/claude-code)\n\nCo-Authored-By: Claude <noreply@anthropic.com>\n",
        "claude, claude-code",
    ),
    (
        "Claude Code with a model",
        "a\n\nCo-Authored-By: Claude Opus 4.8 (1M context) <noreply@anthropic.com>",
        "claude claude-opus-4.8",
    ),
    (
        "Claude Code, the session's link",
        "a\n\nhttps://claude.ai/code/session_01F5QQ",
        "claude-code",
    ),
    (
        "Claude Code, session trailer",
        "a\n\nClaude-Session: https://claude.ai/code/session_01F5QQ",
        "claude-code",
    ),
    (
        "Copilot CLI",
        "a\n\nCo-authored-by: Copilot <223556219+Copilot@users.noreply.github.com>",
        "copilot",
    ),
    (
        "Copilot coding agent: the person who asked is the co-author",
        "a\n\nAgent-Logs-Url: https://github.com/o/r/sessions/1\n\nCo-authored-by: jane <1+jane@users.noreply.github.com>",
        "copilot, by jane <1+jane@users.noreply.github.com>",
    ),
    (
        "Cursor",
        "a\n\nCo-authored-by: Cursor <cursoragent@cursor.com>",
        "cursor",
    ),
    ("Cursor, trailer", "a\n\nMade-with: Cursor", "cursor"),
    (
        "Cursor, footer",
        "a\n\nMade with [Cursor](https://cursor.com)",
        "cursor",
    ),
    (
        "Codex",
        "a\n\nCo-authored-by: Codex <noreply@openai.com>",
        "codex",
    ),
    (
        "aider",
        "a\n\nCo-authored-by: aider (gpt-5.4) <aider@aider.chat>",
        "aider gpt-5.4",
    ),
    ("aider, subject", "aider: add a flag\n", "aider"),
    (
        "Gemini",
        "a\n\nCo-authored-by: gemini-code-assist[bot] <176961590+gemini-code-assist[bot]@users.noreply.github.com>",
        "gemini",
    ),
    (
        "Jules",
        "a\n\nCo-authored-by: google-labs-jules[bot] <161369871+google-labs-jules[bot]@users.noreply.github.com>",
        "jules",
    ),
    (
        "Devin",
        "a\n\nCo-Authored-By: Devin AI <158243242+devin-ai-integration[bot]@users.noreply.github.com>\nCo-Authored-By: Jane Doe <jane@example.org>",
        "devin, by Jane Doe <jane@example.org>",
    ),
    (
        "Amp",
        "a\n\nAmp-Thread-ID: https://ampcode.com/threads/T-1\nCo-authored-by: Amp <amp@ampcode.com>",
        "amp",
    ),
    (
        "OpenCode",
        "a\n\n🤖 Generated with [OpenCode](https://opencode.ai)\n\nCo-Authored-By: OpenCode <noreply@opencode.ai>",
        "opencode",
    ),
    (
        "Crush",
        "a\n\n💘 Generated with Crush\n\nCo-Authored-By: Crush <crush@charm.land>",
        "crush",
    ),
    (
        "Replit",
        "checkpoint\n\nReplit-Commit-Author: Agent\nReplit-Commit-Session-Id: 0a-1",
        "replit",
    ),
    ("Entire", "a\n\nEntire-Checkpoint: 0a1b2c", "entire"),
    (
        "Linux kernel",
        "pwm: fix it\n\nAssisted-by: Claude:claude-3-opus coccinelle sparse\nSigned-off-by: Jane Doe <jane@example.org>",
        "claude claude-3-opus",
    ),
    (
        "Linux kernel, brackets",
        "a\n\nAssisted-by: Codex:gpt-5.6-sol [sparse]",
        "codex gpt-5.6-sol",
    ),
    (
        "Linux kernel, an agent nobody knows",
        "a\n\nAssisted-by: Orac:v19",
        "orac v19",
    ),
    ("Fedora", "a\n\nAssisted-by: ChatGPTv5", "chatgpt chatgptv5"),
    ("LLVM", "a\n\nAssisted-by: GitHub Copilot", "copilot"),
    (
        "OpenInfra",
        "a\n\nAssisted-By: Claude Sonnet 4.5 <noreply@anthropic.com>",
        "claude claude-sonnet-4.5",
    ),
    (
        "Apache",
        "a\n\nGenerated-by: ChatGPT 4",
        "chatgpt chatgpt-4, wholly",
    ),
    (
        "a generator nobody knows",
        "a\n\nGenerated-by: Orac Mark 1",
        "orac-mark-1, wholly",
    ),
    (
        "curl, a person who helped",
        "a\n\nAssisted-by: Daniel Gustafsson",
        "by Daniel Gustafsson, unclear",
    ),
    (
        "a person with an address",
        "a\n\nAssisted-by: Bob <bob@example.org>",
        "by Bob <bob@example.org>, unclear",
    ),
    ("an empty trace", "a\n\nAssisted-by:", "unclear"),
    (
        "a name of both",
        "a\n\nCo-authored-by: Claude <claude@example.org>",
        "by Claude <claude@example.org>, unclear",
    ),
    (
        "a person",
        "a\n\nCo-authored-by: Claude Dioudonnat <claude@example.org>",
        "by Claude Dioudonnat <claude@example.org>",
    ),
    (
        "a tool nobody knows",
        "a\n\n🤖 Generated with [NewTool](https://new.example)",
        "unclear",
    ),
    (
        "a robot nobody knows",
        "a\n\nCo-authored-by: some-new-ai[bot] <1+some-new-ai[bot]@users.noreply.github.com>",
        "unclear",
    ),
    (
        "a robot nobody knows that signs",
        "a\n\nSigned-off-by: some-new-ai[bot] <1+some-new-ai[bot]@users.noreply.github.com>",
        "unclear",
    ),
    (
        "git merge --squash: each author is one, and a robot's commit is no person's",
        "Squashed commit of the following:\n\ncommit 1\nAuthor: Bob <bob@x>\nDate:   Mon\n\n    fix: a\n\ncommit 2\nAuthor: dependabot[bot] <1+dependabot[bot]@users.noreply.github.com>\nDate:   Mon\n\n    b",
        "by Bob <bob@x>, unclear",
    ),
    (
        "git merge --squash, an AI's commit",
        "Squashed commit of the following:\n\ncommit 1\nAuthor: Claude <noreply@anthropic.com>\nDate:   Mon\n\n    a",
        "claude",
    ),
    ("aider, squashed", "a (#1)\n\n* aider: add a flag", "aider"),
    ("no author but prose", "a\n\nAuthor: the field", ""),
    (
        "a robot",
        "a\n\nCo-authored-by: dependabot[bot] <49699333+dependabot[bot]@users.noreply.github.com>",
        "",
    ),
    (
        "a reviewer, who is git's to find",
        "a\n\nReviewed-by: Bob <bob@x>",
        "",
    ),
    (
        "nothing",
        "fix the codex of the claude cursor\n\nprose: x",
        "",
    ),
];

#[test]
fn conventions_of_real_tools() {
    for (tool, message, expected) in CONVENTIONS {
        assert_eq!(rendered(message), *expected, "{tool}");
    }
}

/// Where git's own rules see no trailer.
#[test]
fn an_ai_is_found_in_every_shape_of_message() {
    let trailer = "co-AUTHORED-by : Claude Opus 5 <noreply@anthropic.com>";
    for message in [
        format!("fix\n{trailer}"),
        format!("fix\n\n{trailer}\n\nProse below it.\n"),
        format!("feat: squashed (#12)\n\n* one\n\n{trailer}\n\n* two\n\n---------\n"),
        format!("fix\r\n\r\n{trailer}\r\n"),
        "fix\n\nCo-authored-by: Claude Opus 5\n <noreply@anthropic.com>".to_owned(),
        format!("Squashed commit\n\n    fix: a\n    {trailer}"),
        format!(
            "Squashed commit\n\n    Reviewed-by: B <b@x>\n    {trailer}\n    Reviewed-by: C <c@x>"
        ),
        format!("fix\n\nReviewed-by: B <b@x>\n    {trailer}"),
        "fix\n\n    Co-authored-by: Claude Opus 5\n     <noreply@anthropic.com>".to_owned(),
        "fix\n\nAssisted-by:\n Claude:claude-opus-5".to_owned(),
        "fix\n\nReviewed-by: B <b@x>\n  Generated with Claude Opus 5".to_owned(),
        format!("fix\n\n* {trailer}"),
        format!("fix\n\n- {trailer}"),
        format!("fix\n\n> {trailer}"),
        format!("fix\n\n>\t* \u{200b}{trailer}"),
    ] {
        assert_eq!(rendered(&message), "claude claude-opus-5", "{message}");
    }
}

#[test]
fn a_mentioned_trailer_is_none() {
    for message in [
        "Assisted-by: parse the trailer",
        "a\n\nwe discussed Co-authored-by: Claude <noreply@anthropic.com>",
        "a\n\nGenerated with protoc 3",
    ] {
        assert_eq!(rendered(message), "", "{message}");
    }
}

proptest! {
    #[test]
    fn any_message_is_read_without_a_panic(message in "(?s).{0,200}") {
        traces(&message);
    }

    #[test]
    fn a_hostile_name_is_at_most_one_author_and_one_agent(
        key in proptest::sample::select(vec!["Co-authored-by", "Assisted-by", "Generated-by"]),
        value in "[^\n]{0,40}",
    ) {
        let traces = traces(&format!("subject\n\n{key}: {value}"));
        prop_assert!(traces.people.len() + traces.agents.len() <= 1, "{traces:?}");
        let agents = traces.agents.iter().flat_map(|it| [Some(&it.tool), it.model.as_ref()]);
        for text in traces.people.iter().chain(agents.flatten()) {
            prop_assert!(!text.contains([',', '\n', '\r']) && *text == sanitize_lines(text), "{text:?}");
        }
        prop_assert!(traces.agents.iter().all(|it| !it.tool.contains(char::is_whitespace)));
    }
}
