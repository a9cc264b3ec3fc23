//! Which channel gets which message. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::notify::config::{ChannelKind, Config};
use crate::notify::message::{Kind, Message};
use crate::notify::record::{self, Record};
use crate::timing::ALERT_LASTS;

/// The messages that a channel has not taken yet, the oldest first; for an Alertmanager, those that are alerts now.
#[must_use]
pub fn due(
    name: &str,
    config: &Config,
    messages: &[Arc<Message>],
    record: &Record,
    now: Timestamp,
) -> Vec<Arc<Message>> {
    let Some((channel, since)) = config.channels.get(name).zip(record.since(name)) else {
        return Vec::new();
    };
    let since = since.max(record::oldest(now));
    let is_due = |message: &&Arc<Message>| {
        let is_past = message.kind.expires() && message.at < since;
        if is_past || !is_for(message, name, config) {
            return false;
        }
        let delivered = record.delivered_at(&message.id, name);
        match channel.kind {
            ChannelKind::Alertmanager => {
                let is_over = |at: Timestamp| now.duration_since(at) >= ALERT_LASTS;
                !(message.kind.is_event() && delivered.is_some_and(is_over))
            }
            ChannelKind::CloudEvents | ChannelKind::Slack | ChannelKind::Webhook => {
                delivered.is_none()
            }
        }
    };
    messages.iter().filter(is_due).cloned().collect()
}

/// How many messages a channel had not taken when they became a day old. They are counted until the record is pruned.
#[must_use]
pub fn expired(
    name: &str,
    config: &Config,
    messages: &[Arc<Message>],
    record: &Record,
    now: Timestamp,
) -> usize {
    let Some(since) = record.since(name) else {
        return 0;
    };
    let lapsed = since..record::oldest(now);
    let is_expired = |message: &&Arc<Message>| {
        message.kind.expires()
            && lapsed.contains(&message.at)
            && is_for(message, name, config)
            && record.delivered_at(&message.id, name).is_none()
    };
    messages.iter().filter(is_expired).count()
}

/// Whether a channel gets a message.
fn is_for(message: &Message, name: &str, config: &Config) -> bool {
    let channel = config.channels.get(name);
    channel.is_some_and(|it| takes(it.kind, message.kind)) && is_addressed(message, name, config)
}

/// Whether a kind of channel takes a kind of message: a promotion and the end of a Freeze are no alerts, and people
/// in a chat need not know of each promotion.
const fn takes(channel: ChannelKind, kind: Kind) -> bool {
    match channel {
        ChannelKind::Alertmanager => !matches!(kind, Kind::Promoted | Kind::FreezeEnded),
        ChannelKind::Slack => !matches!(kind, Kind::Promoted),
        ChannelKind::CloudEvents | ChannelKind::Webhook => true,
    }
}

fn is_addressed(message: &Message, name: &str, config: &Config) -> bool {
    let is = |names: &[String]| names.iter().any(|it| it == name);
    let by_default = || is(&config.default_channels);
    match &message.chosen {
        None => by_default(),
        // A mistyped name must not hide a rollback.
        Some(chosen) if !chosen.is_empty() && unknown(chosen, config).count() == chosen.len() => {
            by_default()
        }
        Some(chosen) => is(chosen) || (message.kind.concerns_everybody() && by_default()),
    }
}

/// The chosen channels that are not configured.
pub fn unknown<'a>(chosen: &'a [String], config: &'a Config) -> impl Iterator<Item = &'a String> {
    let is_unknown = move |name: &&String| !config.channels.contains_key(*name);
    chosen.iter().filter(is_unknown)
}

/// Whether the end of a Freeze is among these messages, and was delivered to each channel that knows of its begin.
#[must_use]
pub fn is_closed(
    began: &str,
    channels: &[String],
    config: &Config,
    (messages, record): (&BTreeSet<&str>, &Record),
) -> bool {
    let ended = format!("{began}/{}", Kind::FreezeEnded.as_str());
    let knows = |name: &String| {
        let channel = config.channels.get(name);
        let takes = channel.is_some_and(|it| takes(it.kind, Kind::FreezeEnded));
        !takes || record.delivered_at(&ended, name).is_some()
    };
    messages.contains(ended.as_str()) && channels.iter().all(knows)
}

/// The ids of the messages.
#[must_use]
pub fn ids(messages: &[Arc<Message>]) -> BTreeSet<&str> {
    messages.iter().map(|it| it.id.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::Subject;

    const NOW: &str = "2026-12-24T17:00:00Z";

    fn config() -> Config {
        serde_saphyr::from_str(
            "
cluster: a
defaultChannels: [alerts, chat]
channels:
  alerts: { kind: alertmanager, url: 'http://a' }
  chat: { kind: slack, url: 'http://a' }
  team: { kind: webhook, url: 'http://a' }
",
        )
        .unwrap()
    }

    fn message(kind: Kind, chosen: Option<&str>) -> Message {
        Message {
            id: format!("1/{}", kind.as_str()),
            kind,
            at: NOW.parse().unwrap(),
            subject: Subject::Freeze("xmas".to_owned()),
            text: String::new(),
            command: None,
            chosen: chosen.map(|name| vec![name.to_owned()]),
        }
    }

    /// A record that begins with the first message.
    fn record(config: &Config) -> Record {
        let mut record = Record::default();
        record.begin(config.channels.keys(), NOW.parse().unwrap());
        record
    }

    /// The channels for which a message is due, after these have taken it at these times.
    fn channels(message: &Message, delivered: &[(&str, &str)], now: &str) -> Vec<String> {
        let (config, now) = (config(), now.parse().unwrap());
        let mut record = record(&config);
        for (channel, at) in delivered {
            record.note(&message.id, channel, at.parse().unwrap(), None);
        }
        let all = [Arc::new(message.clone())];
        let due = |name: &&String| !due(name, &config, &all, &record, now).is_empty();
        config.channels.keys().filter(due).cloned().collect()
    }

    #[test]
    fn a_rollout_chooses_its_channels_and_hides_no_break_glass() {
        let to = |kind, chosen| channels(&message(kind, chosen), &[], NOW);
        assert_eq!(to(Kind::RolledBack, None), ["alerts", "chat"]);
        assert_eq!(to(Kind::RolledBack, Some("team")), ["team"]);
        let all = ["alerts", "chat", "team"];
        assert_eq!(to(Kind::BreakGlass, Some("team")), all);
        assert_eq!(to(Kind::SignOffsUnproven, Some("team")), all);
        assert_eq!(to(Kind::Promoted, None), [""; 0], "no alert and no chat");
        assert_eq!(to(Kind::Promoted, Some("team")), ["team"]);
        assert_eq!(to(Kind::FreezeEnded, None), ["chat"]);
    }

    #[test]
    fn who_chooses_only_channels_that_do_not_exist_gets_the_default_ones() {
        let mut message = message(Kind::RolledBack, Some("taem"));
        assert_eq!(channels(&message, &[], NOW), ["alerts", "chat"]);
        message.chosen = Some(vec!["taem".to_owned(), "team".to_owned()]);
        assert_eq!(channels(&message, &[], NOW), ["team"]);
        message.chosen = Some(Vec::new());
        assert_eq!(channels(&message, &[], NOW), [""; 0], "none is wanted");
    }

    #[test]
    fn what_happened_before_a_channel_was_there_is_not_due() {
        let mut message = message(Kind::RolledBack, None);
        message.at = "2026-12-24T16:59:59Z".parse().unwrap();
        assert_eq!(channels(&message, &[], NOW), [""; 0]);
        message.kind = Kind::AwaitingSignOff;
        assert_eq!(channels(&message, &[], NOW), ["alerts", "chat"], "it lasts");
    }

    #[test]
    fn what_is_a_day_old_when_the_process_comes_back_is_counted_and_not_sent() {
        let (config, now) = (config(), "2026-12-27T17:00:00Z".parse().unwrap());
        let (old, mut new) = (
            message(Kind::RolledBack, None),
            message(Kind::RolledBack, None),
        );
        new.id = "2/RolledBack".to_owned();
        new.at = "2026-12-27T16:00:00Z".parse().unwrap();
        let messages = [Arc::new(old), Arc::new(new)];
        let mut record = record(&config);
        record.note("1/RolledBack", "alerts", NOW.parse().unwrap(), None);
        let sent = due("chat", &config, &messages, &record, now);
        assert_eq!(ids(&sent), BTreeSet::from(["2/RolledBack"]));
        let expired = |record: &Record| {
            let count = |name| expired(name, &config, &messages, record, now);
            ["alerts", "chat", "team"].map(count)
        };
        assert_eq!(expired(&record), [0, 1, 0]);
        record.prune(&ids(&messages), now);
        assert_eq!(expired(&record), [0, 0, 0], "once");
    }

    #[test]
    fn what_was_delivered_is_not_due_and_an_alert_lasts() {
        let both = [("alerts", NOW), ("chat", NOW)];
        let (soon, late) = ("2026-12-24T17:14:59Z", "2026-12-24T17:15:00Z");
        let event = message(Kind::RolledBack, None);
        assert_eq!(channels(&event, &both[..1], soon), ["alerts", "chat"]);
        assert_eq!(channels(&event, &both, soon), ["alerts"]);
        assert_eq!(channels(&event, &both, late), [""; 0]);
        let state = message(Kind::AwaitingSignOff, None);
        assert_eq!(channels(&state, &both, late), ["alerts"]);
    }

    #[test]
    fn the_end_of_a_freeze_is_for_those_who_know_of_its_begin() {
        let (config, now) = (config(), NOW.parse().unwrap());
        let mut record = record(&config);
        let knows =
            |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        let ended = "1/FreezeBegan/FreezeEnded";
        let messages = BTreeSet::from([ended]);
        let is_closed = |names: &[&str], messages: &BTreeSet<&str>, record: &Record| {
            is_closed("1/FreezeBegan", &knows(names), &config, (messages, record))
        };
        assert!(is_closed(&["alerts"], &messages, &record));
        assert!(
            !is_closed(&["alerts"], &BTreeSet::new(), &record),
            "it lasts"
        );
        let both = ["alerts", "chat"];
        assert!(!is_closed(&both, &messages, &record));
        record.note(ended, "chat", now, None);
        assert!(is_closed(&both, &messages, &record));
    }
}
