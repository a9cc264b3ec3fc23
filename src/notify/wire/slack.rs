//! A message for an incoming webhook of Slack, as blocks.
//!
//! Everything that is not our own text is escaped: `&`, `<` and `>` alone make links, mentions and pings. `verbatim`
//! keeps Slack from making some of names and addresses.

use serde_json::{Value, json};

use crate::notify::message::{Message, Severity};

/// Characters of a header, by Slack's limit of 150.
const HEADER: usize = 150;
/// Bytes of a text, below Slack's limit of 3,000 characters.
const LONGEST: usize = 2_800;

pub(super) fn body(message: &Message, cluster: &str) -> Value {
    let sign = match message.kind.severity() {
        Severity::Info => ":information_source:",
        Severity::Warning => ":warning:",
        Severity::Critical => ":rotating_light:",
    };
    let title = message.title();
    let header: String = title.chars().take(HEADER).collect();
    let mut blocks = vec![
        json!({ "type": "header", "text": { "type": "plain_text", "text": header, "emoji": false } }),
        section(&escaped(&message.text)),
    ];
    if let Some(command) = &message.command {
        blocks.push(section(&format!("```{}```", escaped(command))));
    }
    let about = message.attempt().map(|attempt| {
        let (risk, run) = (escaped(&attempt.risk), escaped(&attempt.run));
        format!(" · {risk} · run {run}")
    });
    let about = about.unwrap_or_default();
    let context = format!("{sign} cluster *{}*{about}", escaped(cluster));
    blocks.push(json!({ "type": "context", "elements": [text(&context)] }));
    json!({ "text": escaped(&format!("{title} in {cluster}")), "blocks": blocks })
}

fn section(markdown: &str) -> Value {
    json!({ "type": "section", "text": text(markdown) })
}

fn text(markdown: &str) -> Value {
    json!({ "type": "mrkdwn", "text": markdown, "verbatim": true })
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
