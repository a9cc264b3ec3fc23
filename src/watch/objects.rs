//! What a watch has seen of its objects. After a disconnection too long to resume, the new list is compared with it, so that
//! only Rollouts are reconciled whose objects have changed in between.

use std::collections::{BTreeMap, BTreeSet};

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;

use crate::watch::claim::Claim;
use crate::watch::hashing::hash;
use crate::watch::trigger::{Trigger, related};

/// The objects of one watch, by hashes of their uids; all values are hashes, to save memory.
#[derive(Default)]
pub(super) struct Objects {
    seen: BTreeMap<u64, Seen>,
    /// The objects that were known when the current list began, and are not listed yet.
    before: BTreeMap<u64, Seen>,
    listed: bool,
}

/// An object as it was last seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The hash of what decisions depend on.
    pub(super) version: u64,
    /// The hash of the name by which the Rollouts of the object are found after its deletion.
    pub(super) subject: u64,
}

/// What an event says about the objects.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing that a decision depends on.
    Nothing,
    /// The object is seen for the first time.
    New,
    /// The object has changed, or was deleted.
    Changed,
    /// All objects were listed for the first time.
    Listed,
    /// All objects were listed again: the subjects of those that were deleted in between.
    Gone(BTreeSet<u64>),
}

/// The hash of a namespaced name.
pub(super) fn subject(namespace: Option<&str>, name: &str) -> u64 {
    hash(&(namespace, name))
}

/// The hash of the name of a Rollout.
pub(super) fn subject_of(rollout: &ObjectRef<Claim>) -> u64 {
    subject(rollout.namespace.as_deref(), &rollout.name)
}

/// Triggers the Rollouts with these subjects.
pub(super) fn among(claims: &Store<Claim>, rollouts: &BTreeSet<u64>) -> Vec<Trigger> {
    related(claims, |claim| {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        rollouts.contains(&subject(claim.metadata.namespace.as_deref(), name))
    })
}

/// The object of an event.
pub(super) fn object<K>(event: watcher::Event<K>) -> Option<K> {
    match event {
        watcher::Event::Apply(it) | watcher::Event::InitApply(it) | watcher::Event::Delete(it) => {
            Some(it)
        }
        watcher::Event::Init | watcher::Event::InitDone => None,
    }
}

impl Objects {
    /// Whether all objects were listed once.
    pub(super) const fn is_listed(&self) -> bool {
        self.listed
    }

    /// What an event says, compared with what was seen before.
    pub(super) fn news<K: Resource>(
        &mut self,
        event: &watcher::Event<K>,
        seen: impl Fn(&K) -> Seen,
    ) -> News {
        let key = |it: &K| hash(&it.meta().uid);
        match event {
            watcher::Event::Apply(it) => {
                let now = seen(it);
                News::of(self.seen.insert(key(it), now), now)
            }
            watcher::Event::Delete(it) => {
                self.seen.remove(&key(it));
                News::Changed
            }
            // A list that was interrupted begins again.
            watcher::Event::Init => {
                self.before.append(&mut self.seen);
                News::Nothing
            }
            watcher::Event::InitApply(it) => {
                let now = seen(it);
                let before = self.before.remove(&key(it));
                self.seen.insert(key(it), now);
                // The first list, too, is news: it may come long after the Rollouts were reconciled at the start.
                News::of(before, now)
            }
            watcher::Event::InitDone => {
                let gone = std::mem::take(&mut self.before).into_values();
                if std::mem::replace(&mut self.listed, true) {
                    News::Gone(gone.map(|it| it.subject).collect())
                } else {
                    News::Listed
                }
            }
        }
    }
}

impl News {
    fn of(before: Option<Seen>, now: Seen) -> Self {
        match before {
            None => Self::New,
            Some(before) if before.version == now.version => Self::Nothing,
            Some(_) => Self::Changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn object(uid: &str, version: &str) -> ConfigMap {
        let metadata =
            json!({ "name": uid, "namespace": "shop", "uid": uid, "resourceVersion": version });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn a_new_list_is_compared_with_what_was_seen_before() {
        let mut objects = Objects::default();
        let seen = |it: &ConfigMap| Seen {
            version: hash(&it.metadata.resource_version),
            subject: subject(Some("shop"), it.metadata.name.as_deref().unwrap()),
        };
        let mut news = |event: watcher::Event<ConfigMap>| objects.news(&event, seen);
        assert_eq!(news(watcher::Event::Init), News::Nothing);
        for uid in ["a", "b", "c"] {
            let listed = watcher::Event::InitApply(object(uid, "1"));
            assert_eq!(news(listed), News::New, "the list may be late");
        }
        assert_eq!(news(watcher::Event::InitDone), News::Listed);
        assert_eq!(news(watcher::Event::Apply(object("d", "1"))), News::New);
        let same = watcher::Event::Apply(object("a", "1"));
        assert_eq!(news(same), News::Nothing);
        let edited = watcher::Event::Apply(object("a", "2"));
        assert_eq!(news(edited), News::Changed);
        let deleted = watcher::Event::Delete(object("d", "1"));
        assert_eq!(news(deleted), News::Changed);

        // The watch was disconnected: b was deleted, c edited and e created. The first new list is interrupted.
        assert_eq!(news(watcher::Event::Init), News::Nothing);
        let listed = watcher::Event::InitApply(object("a", "2"));
        assert_eq!(news(listed), News::Nothing);
        assert_eq!(news(watcher::Event::Init), News::Nothing);
        for (uid, version, expected) in [
            ("a", "2", News::Nothing),
            ("c", "2", News::Changed),
            ("e", "1", News::New),
        ] {
            let listed = watcher::Event::InitApply(object(uid, version));
            assert_eq!(news(listed), expected, "{uid}");
        }
        let gone = News::Gone([subject(Some("shop"), "b")].into());
        assert_eq!(news(watcher::Event::InitDone), gone);
    }
}
