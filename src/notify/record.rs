//! What was delivered, in a ConfigMap, so that a restart neither repeats nor loses a message.
//!
//! It is bounded: what happened is remembered for a day, what lasts for as long as it lasts, and of both no more than a
//! ConfigMap holds.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::timing::NOTIFY_KEEP;

/// The name of the ConfigMap, and of the Lease beside it.
pub(super) const NAME: &str = "countersign-notify";
/// The key of the ConfigMap.
const KEY: &str = "delivered.json";
/// Deliveries that are stored: at 34 bytes each, half of what a ConfigMap holds.
const MOST: usize = 16_000;
/// Freezes that are stored, at 320 bytes each at most.
const MOST_FREEZES: usize = 1_000;

/// What was delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    channels: BTreeMap<String, Channel>,
    /// The Freezes that were said to be in force, by the ids of these messages: their end is a message, too.
    freezes: BTreeMap<String, String>,
}

/// What was delivered to one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Channel {
    /// What happened before is not sent: the first start with this channel, or a day ago.
    since: Timestamp,
    /// When it took each message, in seconds.
    taken: BTreeMap<u64, i64>,
}

/// A message in the record: its id, shortened.
fn key(id: &str) -> u64 {
    let hash: [u8; 32] = Sha256::digest(id).into();
    hash.first_chunk::<8>()
        .map_or(0, |it| u64::from_be_bytes(*it))
}

impl Record {
    /// Begins with the channels that are new, and forgets those that are gone.
    pub fn begin<'a>(&mut self, channels: impl IntoIterator<Item = &'a String>, now: Timestamp) {
        // Stored times have no fractions of a second.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let mut known = std::mem::take(&mut self.channels);
        for name in channels {
            let channel = known.remove(name).unwrap_or_else(|| Channel {
                since: now,
                taken: BTreeMap::new(),
            });
            self.channels.insert(name.clone(), channel);
        }
    }

    /// What happened before this time is not sent to a channel.
    #[must_use]
    pub fn since(&self, channel: &str) -> Option<Timestamp> {
        Some(self.channels.get(channel)?.since)
    }

    /// What happened before this time is not sent to any channel.
    #[must_use]
    pub fn earliest(&self) -> Option<Timestamp> {
        self.channels.values().map(|it| it.since).min()
    }

    /// When a channel took a message.
    #[must_use]
    pub fn delivered_at(&self, id: &str, channel: &str) -> Option<Timestamp> {
        let at = self.channels.get(channel)?.taken.get(&key(id))?;
        Timestamp::from_second(*at).ok()
    }

    /// Notes that a channel took a message, which says that this Freeze is in force, if it does. Returns whether that
    /// is news.
    pub fn note(&mut self, id: &str, channel: &str, at: Timestamp, freeze: Option<&str>) -> bool {
        let Some(channel) = self.channels.get_mut(channel) else {
            return false;
        };
        let Entry::Vacant(entry) = channel.taken.entry(key(id)) else {
            return false;
        };
        entry.insert(at.as_second());
        if let Some(name) = freeze {
            self.freezes.insert(id.to_owned(), name.to_owned());
        }
        true
    }

    /// The Freezes that were said to be in force and whose end was not said yet: id of that message, name, and the
    /// channels that took it.
    pub fn open_freezes(&self) -> impl Iterator<Item = (&str, &str, Vec<String>)> {
        self.freezes.iter().map(move |(id, name)| {
            let began = key(id);
            let all = self.channels.iter();
            let knows = all.filter(|(_, it)| it.taken.contains_key(&began));
            let channels = knows.map(|(channel, _)| channel.clone()).collect();
            (id.as_str(), name.as_str(), channels)
        })
    }

    /// Notes that the end of a Freeze was said to each channel that knows of its begin.
    pub fn close_freeze(&mut self, began: &str) {
        self.freezes.remove(began);
    }

    /// Forgets what none of these messages is about, and what happened longer ago than a day. Returns whether
    /// anything was forgotten.
    pub fn prune(&mut self, current: &BTreeSet<&str>, now: Timestamp) -> bool {
        let open = self.freezes.keys().map(String::as_str);
        let kept: BTreeSet<u64> = current.iter().copied().chain(open).map(key).collect();
        let mut is_news = false;
        for channel in self.channels.values_mut() {
            let before = channel.taken.len();
            channel.taken.retain(|it, _| kept.contains(it));
            channel.since = channel.since.max(oldest(now));
            is_news |= channel.taken.len() != before;
        }
        is_news
    }

    /// All that either has of our channels.
    fn merge(&mut self, other: Self) {
        for (name, theirs) in other.channels {
            if let Some(channel) = self.channels.get_mut(&name) {
                channel.since = channel.since.max(theirs.since);
                for (message, at) in theirs.taken {
                    channel.taken.entry(message).or_insert(at);
                }
            }
        }
        for (id, name) in other.freezes {
            self.freezes.entry(id).or_insert(name);
        }
    }

    /// As much as fits, of what was taken last: a restart repeats what has lasted for longer, and sends nothing that
    /// happened before.
    fn bounded(mut self) -> Self {
        while self.freezes.len() > MOST_FREEZES {
            self.freezes.pop_first();
        }
        let channels = self.channels.values();
        let mut times: Vec<_> = channels.flat_map(|it| it.taken.values().copied()).collect();
        times.sort_unstable();
        let last = times.len().saturating_sub(MOST).checked_sub(1);
        let Some(forgotten) = last.and_then(|it| times.get(it)).copied() else {
            return self;
        };
        for channel in self.channels.values_mut() {
            let before = channel.taken.len();
            channel.taken.retain(|_, at| *at > forgotten);
            let next = Timestamp::from_second(forgotten.saturating_add(1));
            if channel.taken.len() < before {
                channel.since = channel.since.max(next.unwrap_or(channel.since));
            }
        }
        self
    }
}

/// Before this time, nothing that happened is sent.
#[must_use]
pub fn oldest(now: Timestamp) -> Timestamp {
    now.saturating_sub(NOTIFY_KEEP).unwrap_or(now)
}

/// The ConfigMap as it was last read or written.
pub(super) struct Stored {
    api: Api<ConfigMap>,
    map: ConfigMap,
}

impl Stored {
    /// Reads it; the chart creates it. One that holds nothing, or what this build cannot read, begins again.
    pub(super) async fn read(
        client: Client,
        namespace: &str,
    ) -> Result<(Self, Record), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(client, namespace);
        let map = api.get(NAME).await?;
        let record = parse(&map).unwrap_or_default();
        Ok((Self { api, map }, record))
    }

    /// Writes it over what was read. If others wrote meanwhile, what they delivered is added.
    pub(super) async fn write(&mut self, record: &mut Record) -> Result<(), kube::Error> {
        match self.replace(record).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                self.map = self.api.get(NAME).await?;
                if let Some(theirs) = parse(&self.map) {
                    record.merge(theirs);
                }
                self.replace(record).await
            }
            done => done,
        }
    }

    async fn replace(&mut self, record: &Record) -> Result<(), kube::Error> {
        let stored = record.clone().bounded();
        let text = serde_json::to_string(&stored).map_err(kube::Error::SerdeError)?;
        let mut map = self.map.clone();
        map.data = Some(BTreeMap::from([(KEY.to_owned(), text)]));
        self.map = self.api.replace(NAME, &PostParams::default(), &map).await?;
        Ok(())
    }
}

fn parse(map: &ConfigMap) -> Option<Record> {
    let text = map.data.as_ref()?.get(KEY)?;
    let record = serde_json::from_str(text);
    if let Err(error) = &record {
        tracing::warn!(%error, "ConfigMap {NAME} cannot be read; what happened before now is not sent");
    }
    record.ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stand_in::StandIn;

    const MAP: &str = "/api/v1/namespaces/system/configmaps/countersign-notify";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn server() -> StandIn {
        let server = StandIn::new();
        let metadata = json!({ "name": NAME, "namespace": "system" });
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
        server.put(MAP, map);
        server
    }

    /// A record that begins at this time.
    fn begun(channels: &[&str], now: Timestamp) -> Record {
        let mut record = Record::default();
        let names: Vec<_> = channels.iter().map(ToString::to_string).collect();
        record.begin(&names, now);
        record
    }

    #[tokio::test]
    async fn what_was_delivered_is_read_again_after_a_restart() {
        let server = server();
        let (begin, later) = (at("2026-12-24T17:00:00Z"), at("2026-12-24T18:00:00Z"));
        let read = async || Stored::read(server.client(), "system").await.unwrap();
        let (mut stored, mut record) = read().await;
        assert_eq!(record, Record::default());
        record.begin([&"slack".to_owned()], begin);
        record.note("1/RolledBack", "slack", later, None);
        stored.write(&mut record).await.unwrap();
        let (_, again) = read().await;
        assert_eq!(again, record);
        assert_eq!(again.delivered_at("1/RolledBack", "slack"), Some(later));
        assert_eq!(again.delivered_at("1/RolledBack", "pager"), None);
        let mut broken = server.get(MAP).unwrap();
        broken["data"][KEY] = json!("{");
        server.put(MAP, broken);
        assert_eq!(read().await.1, Record::default());
    }

    #[test]
    fn a_channel_begins_when_it_is_added() {
        let (first, second) = (at("2026-12-24T17:00:00Z"), at("2026-12-24T18:00:00Z"));
        let mut record = begun(&["pager", "slack"], first);
        record.note("1", "slack", first, None);
        let within = at("2026-12-24T18:00:00.9Z");
        record.begin([&"bus".to_owned(), &"slack".to_owned()], within);
        assert_eq!(record.since("slack"), Some(first));
        assert_eq!(record.delivered_at("1", "slack"), Some(first));
        assert_eq!(record.since("bus"), Some(second), "nothing old");
        assert_eq!(record.since("pager"), None);
        assert_eq!(record.earliest(), Some(first));
    }

    #[test]
    fn it_holds_what_lasts_and_a_day_of_what_happened() {
        let now = at("2026-12-24T17:00:00Z");
        let mut record = begun(&["slack"], at("2026-12-01T00:00:00Z"));
        record.note("1/RolledBack", "slack", now, None);
        record.note("2/AwaitingSignOff", "slack", now, None);
        record.note("3/FreezeBegan", "slack", now, Some("xmas"));
        assert!(record.prune(&BTreeSet::from(["2/AwaitingSignOff"]), now));
        assert_eq!(record.since("slack"), Some(at("2026-12-23T17:00:00Z")));
        assert_eq!(record.delivered_at("1/RolledBack", "slack"), None);
        let open: Vec<_> = record.open_freezes().collect();
        let slack = vec!["slack".to_owned()];
        assert_eq!(open, [("3/FreezeBegan", "xmas", slack)]);
        record.close_freeze("3/FreezeBegan");
        assert!(record.prune(&BTreeSet::from(["2/AwaitingSignOff"]), now));
        assert_eq!(record.delivered_at("3/FreezeBegan", "slack"), None);
    }

    #[test]
    fn what_two_senders_delivered_is_known_to_both() {
        let now = at("2026-12-24T17:00:00Z");
        let mut ours = begun(&["pager", "slack"], now);
        ours.note("1", "slack", now, None);
        let mut theirs = begun(&["gone", "pager", "slack"], now);
        theirs.note("1", "pager", now, None);
        theirs.note("2", "slack", now, Some("xmas"));
        ours.merge(theirs);
        for (id, channel) in [("1", "slack"), ("1", "pager"), ("2", "slack")] {
            assert_eq!(ours.delivered_at(id, channel), Some(now), "{id} {channel}");
        }
        assert_eq!(ours.open_freezes().count(), 1);
        assert_eq!(ours.since("gone"), None);
    }

    #[test]
    fn it_always_fits_into_a_config_map_and_repeats_nothing_that_happened() {
        let begin = at("2026-12-24T17:00:00Z");
        let mut record = begun(&["busy", "quiet"], begin);
        let second = |nth: i64| Timestamp::from_second(begin.as_second() + nth).unwrap();
        for nth in 0..20_000 {
            record.note(&format!("{nth}"), "busy", second(nth), None);
        }
        for nth in 0..2_000 {
            let id = format!("{}/FreezeBegan/{nth:010}", "f".repeat(36));
            let name = "f".repeat(253);
            record.note(&id, "quiet", second(30_000), Some(&name));
        }
        let stored = record.clone().bounded();
        let text = serde_json::to_string(&stored).unwrap();
        assert!(text.len() < 1 << 20, "{} bytes", text.len());
        // Of 22,000 deliveries, 6,000 are forgotten.
        assert_eq!(stored.delivered_at("5999", "busy"), None);
        assert_eq!(stored.delivered_at("6000", "busy"), Some(second(6_000)));
        assert_eq!(stored.since("busy"), Some(second(6_000)));
        assert_eq!(stored.since("quiet"), Some(begin), "it lost nothing");
        assert_eq!(stored.open_freezes().count(), MOST_FREEZES);
        assert_eq!(stored.clone().bounded(), stored);
    }
}
