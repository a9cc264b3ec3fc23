//! What was delivered, in a ConfigMap, so that a restart neither repeats nor loses a message.
//!
//! It is bounded: what happened is remembered for a day, and what lasts for as long as it lasts.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};

use crate::timing::NOTIFY_KEEP;

/// The name of the ConfigMap, and of the Lease beside it.
pub(super) const NAME: &str = "countersign-notify";
/// The key of the ConfigMap.
const KEY: &str = "delivered.json";

/// What was delivered, by the ids of the messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    /// What happened before is not sent: the first start, or a day ago.
    pub since: Timestamp,
    delivered: BTreeMap<String, Delivered>,
}

/// One message that was delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Delivered {
    /// When each channel took it.
    channels: BTreeMap<String, Timestamp>,
    /// The Freeze that it says is in force; its end is a message, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    freeze: Option<String>,
}

impl Record {
    /// Nothing was delivered yet, and what happened before is not to be.
    #[must_use]
    pub fn from(since: Timestamp) -> Self {
        Self {
            since,
            delivered: BTreeMap::new(),
        }
    }

    /// When a channel took a message.
    #[must_use]
    pub fn delivered_at(&self, id: &str, channel: &str) -> Option<Timestamp> {
        self.delivered.get(id)?.channels.get(channel).copied()
    }

    /// Notes that a channel took a message, which says that this Freeze is in force, if it does. Returns whether that
    /// is news.
    pub fn note(&mut self, id: &str, channel: &str, at: Timestamp, freeze: Option<&str>) -> bool {
        let entry = self.delivered.entry(id.to_owned()).or_default();
        if entry.channels.contains_key(channel) {
            return false;
        }
        entry.channels.insert(channel.to_owned(), at);
        entry.freeze = freeze.map(ToOwned::to_owned);
        true
    }

    /// The Freezes that were said to be in force and whose end was not said yet: id of that message, name, and the
    /// channels that took it.
    pub fn open_freezes(&self) -> impl Iterator<Item = (&str, &str, Vec<String>)> {
        self.delivered.iter().filter_map(|(id, entry)| {
            let channels = entry.channels.keys().cloned().collect();
            Some((id.as_str(), entry.freeze.as_deref()?, channels))
        })
    }

    /// Notes that the end of a Freeze was said to each channel that knows of its begin.
    pub fn close_freeze(&mut self, began: &str) {
        self.delivered.remove(began);
    }

    /// Forgets what none of these messages is about, and what happened longer ago than a day. Returns whether
    /// anything was forgotten.
    pub fn prune(&mut self, current: &BTreeSet<&str>, now: Timestamp) -> bool {
        let before = self.delivered.len();
        self.delivered
            .retain(|id, entry| entry.freeze.is_some() || current.contains(id.as_str()));
        self.since = self.since.max(oldest(now));
        self.delivered.len() != before
    }

    /// All that either has.
    fn merge(&mut self, other: Self) {
        self.since = self.since.max(other.since);
        for (id, theirs) in other.delivered {
            let entry = self.delivered.entry(id).or_default();
            for (channel, at) in theirs.channels {
                entry.channels.entry(channel).or_insert(at);
            }
            entry.freeze = entry.freeze.take().or(theirs.freeze);
        }
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
    /// Reads it; the chart creates it. One that holds nothing, or what this build cannot read, begins now.
    pub(super) async fn read(
        client: Client,
        namespace: &str,
        now: Timestamp,
    ) -> Result<(Self, Record), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(client, namespace);
        let map = api.get(NAME).await?;
        let record = parse(&map).unwrap_or_else(|| Record::from(now));
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
        let text = serde_json::to_string(record).map_err(kube::Error::SerdeError)?;
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

    #[tokio::test]
    async fn what_was_delivered_is_read_again_after_a_restart() {
        let server = server();
        let (begin, later) = (at("2026-12-24T17:00:00Z"), at("2026-12-24T18:00:00Z"));
        let read = async |now| Stored::read(server.client(), "system", now).await.unwrap();
        let (mut stored, mut record) = read(begin).await;
        assert_eq!(record, Record::from(begin), "an empty one begins now");
        record.note("1/RolledBack", "slack", later, None);
        stored.write(&mut record).await.unwrap();
        let (_, again) = read(later).await;
        assert_eq!(again, record);
        assert_eq!(again.delivered_at("1/RolledBack", "slack"), Some(later));
        assert_eq!(again.delivered_at("1/RolledBack", "pager"), None);
        let mut broken = server.get(MAP).unwrap();
        broken["data"][KEY] = json!("{");
        server.put(MAP, broken);
        assert_eq!(read(later).await.1, Record::from(later));
    }

    #[test]
    fn it_holds_what_lasts_and_a_day_of_what_happened() {
        let now = at("2026-12-24T17:00:00Z");
        let mut record = Record::from(at("2026-12-01T00:00:00Z"));
        record.note("1/RolledBack", "slack", now, None);
        record.note("2/AwaitingSignOff", "slack", now, None);
        record.note("3/FreezeBegan", "slack", now, Some("xmas"));
        assert!(record.prune(&BTreeSet::from(["2/AwaitingSignOff"]), now));
        assert_eq!(record.since, at("2026-12-23T17:00:00Z"));
        assert_eq!(record.delivered_at("1/RolledBack", "slack"), None);
        let open: Vec<_> = record.open_freezes().collect();
        let slack = vec!["slack".to_owned()];
        assert_eq!(open, [("3/FreezeBegan", "xmas", slack)]);
        record.close_freeze("3/FreezeBegan");
        assert!(!record.prune(&BTreeSet::from(["2/AwaitingSignOff"]), now));
    }

    #[test]
    fn what_two_senders_delivered_is_known_to_both() {
        let now = at("2026-12-24T17:00:00Z");
        let mut ours = Record::from(now);
        ours.note("1", "slack", now, None);
        let mut theirs = Record::from(now);
        theirs.note("1", "pager", now, None);
        theirs.note("2", "slack", now, Some("xmas"));
        ours.merge(theirs);
        for (id, channel) in [("1", "slack"), ("1", "pager"), ("2", "slack")] {
            assert_eq!(ours.delivered_at(id, channel), Some(now), "{id} {channel}");
        }
        assert_eq!(ours.open_freezes().count(), 1);
    }
}
