//! A message for an incoming webhook of Slack, as blocks.
//!
//! Only the command is markup. All else is plain text, in which a log cannot show a command of its own as code. Both
//! are escaped, since `&`, `<` and `>` make links, mentions and pings.

use serde_json::{Value, json};

use crate::notify::message::{Message, Severity};

/// Characters of a header, by Slack's limit of 150.
const HEADER: usize = 150;
/// Bytes of a text, below Slack's limit of 3,000 characters.
const LONGEST: usize = 2_800;

pub(super) fn body(message: &Message, cluster: &str) -> Value {
    let sign = match message.kind.severity() {
        Severity::Info => "ℹ️",
        Severity::Warning => "⚠️",
        Severity::Critical => "🚨",
    };
    let title = message.title();
    let header: String = title.chars().take(HEADER).collect();
    let mut blocks = vec![
        json!({ "type": "header", "text": plain(&header) }),
        section(&plain(&escaped(&message.text))),
    ];
    if let Some(command) = &message.command {
        let code = format!("```{}```", escaped(command));
        // `verbatim` keeps Slack from making links of names.
        let code = json!({ "type": "mrkdwn", "text": code, "verbatim": true });
        blocks.push(section(&code));
    }
    let about = message
        .attempt()
        .map(|attempt| format!(" · {} · run {}", attempt.risk, attempt.run));
    let about = about.unwrap_or_default();
    let context = escaped(&format!("{sign} cluster {cluster}{about}"));
    blocks.push(json!({ "type": "context", "elements": [plain(&context)] }));
    json!({ "text": escaped(&format!("{title} in {cluster}")), "blocks": blocks })
}

fn section(text: &Value) -> Value {
    json!({ "type": "section", "text": text })
}

fn plain(text: &str) -> Value {
    json!({ "type": "plain_text", "text": text, "emoji": false })
}

/// By Slack's rules these three characters and no others; cut where a block would be too long.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if escaped.len() > LONGEST {
            escaped.push('…');
            break;
        }
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c => escaped.push(c),
        }
    }
    escaped
}
