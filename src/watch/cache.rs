//! What a watch has reported of one kind, and whether that includes the controller's own writes.
//!
//! The resource versions of one kind are integers that grow with each write (by contract since Kubernetes 1.35, KEP-5504).
//! So an own write is remembered with the version that the API server answered, and until the watch has reported it, the
//! cache answers nothing about its Rollout. It answers nothing either before the first list, after the API server has ended
//! the watch until the next one, and before it is known what other leaders have written.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher::{self, Event};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::watch::hashing::hash;

/// Most bytes that are kept of one object of most kinds; a larger one is read.
const MOST_OF_ONE: usize = 64 << 10;
/// Most bytes that are kept of all objects of a kind; those beyond it are read.
const MOST_OF_ALL: usize = 64 << 20;
/// The status of a watch whose resource version is too old.
const GONE: u16 = 410;

/// A kind whose objects are cached, by the fields for which its events are watched.
pub(super) trait Cached:
    Resource + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// Most bytes that are kept of one object.
    const MOST: usize = MOST_OF_ONE;

    /// What decisions need of an object.
    fn prune(object: Value) -> Value;

    /// To what the object belongs: the uid of a Rollout, its name, the name of a Service, or an attempt at a change.
    fn of(&self) -> Option<String>;
}

/// An object as its watch decodes it.
#[derive(Clone, Debug)]
pub(super) struct Kept<K> {
    fields: K,
    /// What is kept of the object; `None` if that is too large, or nothing.
    json: Option<Arc<str>>,
}

impl<K: Cached> Kept<K> {
    /// Keeps nothing of the object, unless it belongs to something.
    pub(super) fn forget(&mut self) {
        if self.fields.of().is_none() {
            self.json = None;
        }
    }
}

impl<K: Resource> Resource for Kept<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        self.fields.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.fields.meta_mut()
    }
}

impl<'de, K: Cached> Deserialize<'de> for Kept<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let fields = K::deserialize(&object).map_err(D::Error::custom)?;
        let json = serde_json::to_string(&K::prune(object)).map_err(D::Error::custom)?;
        let json = (json.len() <= K::MOST).then(|| json.into());
        Ok(Self { fields, json })
    }
}

/// Whether the API server has ended a watch for good: changes may be missing until its objects are listed again.
pub(super) fn ends_watch(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == GONE)
}

/// The objects of one kind, as a watch reports them.
#[derive(Clone, Debug, Default)]
pub struct Cache(Arc<Mutex<State>>);

/// A namespace, and a name or a uid in it.
type Key = (String, String);

#[derive(Debug, Default)]
struct State {
    contents: Contents,
    /// The highest version that was reported.
    progress: u64,
    /// The list that is under way.
    listing: Option<Listing>,
    /// Whether the objects were listed, and the watch has not ended since.
    is_complete: bool,
    /// Whether it is known what other leaders have written.
    is_open: bool,
    /// Whether a version was no integer, so that none can be compared.
    is_unordered: bool,
    /// What the watch has to report before anything is answered about a Rollout, by the object.
    awaited: BTreeMap<Key, Awaited>,
}

/// The objects by namespace and name.
#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<Key, Entry>,
    /// The names of all objects by the hash of that to which they belong.
    groups: BTreeSet<(u64, String)>,
    bytes: usize,
}

/// An object. Hashes save memory.
#[derive(Debug)]
struct Entry {
    /// The hash of its uid.
    uid: u64,
    version: u64,
    /// The hash of that to which it belongs.
    of: Option<u64>,
    json: Option<Arc<str>>,
}

#[derive(Debug)]
struct Listing {
    since: Instant,
    contents: Contents,
}

#[derive(Debug)]
struct Awaited {
    /// The hash of the uid of the Rollout, or of its name.
    rollout: u64,
    /// From when on a list shows it.
    since: Instant,
    what: What,
}

/// What an object has to be.
#[derive(Debug)]
enum What {
    /// Of this version, or a later one.
    Version(u64),
    /// Another one than that with the uid of this hash, or none once this version is reached, in which it was still there.
    Gone { uid: u64, after: u64 },
}

/// An object of which another leader may have written this version.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) rollout: String,
    pub(super) version: Option<u64>,
}

/// The integer of a resource version.
pub(super) fn integer(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

fn key_of(object: &ObjectMeta) -> Key {
    let name = object.name.clone().unwrap_or_default();
    (object.namespace.clone().unwrap_or_default(), name)
}

/// The hash of that to which an object belongs.
fn belonging(namespace: &str, of: &str) -> u64 {
    hash(&(namespace, of))
}

/// An attempt at a change of the Rollout with this uid.
pub(super) fn attempt(uid: &str, run: &str) -> String {
    format!("{uid}/{run}")
}

impl Cache {
    /// A cache of what the controller does not write, so that there is nothing to wait for but the first list.
    pub(crate) fn opened() -> Self {
        let cache = Self::default();
        cache.change(|state| state.is_open = true);
        cache
    }

    /// Whether it answers at all.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.answer(|_| Some(())).is_some()
    }

    /// Whether the objects are listed.
    pub(super) fn is_complete(&self) -> bool {
        self.0.lock().is_ok_and(|state| state.is_complete)
    }

    /// Whether it is known that there are no objects of an attempt at a change.
    #[must_use]
    pub fn has_none(&self, namespace: &str, uid: &str, run: &str) -> bool {
        let of = belonging(namespace, &attempt(uid, run));
        let none = self.answer(|state| Some(state.contents.names(of).next().is_none()));
        none.unwrap_or_default()
    }

    /// The object of this name; `None` if it has to be read.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<str>> {
        self.answer(|state| {
            let key = (namespace.to_owned(), name.to_owned());
            let awaited = state.awaited.get(&key);
            if awaited.is_some_and(|it| !state.has_reached(&key, it)) {
                return None;
            }
            state.contents.objects.get(&key)?.json.clone()
        })
    }

    /// Whether the watch has reported nothing newer of an object, and every own write to it.
    #[must_use]
    pub fn is_latest(&self, object: &ObjectMeta) -> bool {
        let key = key_of(object);
        let version = integer(object.resource_version.as_deref());
        let is_latest = self.answer(|state| {
            let awaited = state.awaited.get(&key);
            let is_reached = awaited.is_none_or(|it| state.has_reached(&key, it));
            let known = state.contents.objects.get(&key)?;
            Some(is_reached && Some(known.version) == version)
        });
        is_latest.unwrap_or_default()
    }

    /// The objects of the Rollout with this uid, or of those with this name; `None` if they have to be read.
    #[must_use]
    pub fn of_rollout(&self, namespace: &str, rollout: &str) -> Option<Vec<Arc<str>>> {
        let of = belonging(namespace, rollout);
        self.answer(|state| {
            let mut awaited = state.awaited.iter();
            if awaited.any(|(key, it)| it.rollout == of && !state.has_reached(key, it)) {
                return None;
            }
            let objects = state.contents.names(of).map(|name| {
                let key = (namespace.to_owned(), name.to_owned());
                state.contents.objects.get(&key)?.json.clone()
            });
            objects.collect()
        })
    }

    /// The objects of the Service of this name; `None` if they have to be read.
    #[must_use]
    pub fn of_service(&self, namespace: &str, service: &str) -> Option<Vec<Arc<str>>> {
        self.of_rollout(namespace, service)
    }

    /// Notes an own write, or what was read live: nothing is answered about its Rollout until the watch has reported that
    /// object.
    pub fn reaches(&self, rollout: &str, object: &ObjectMeta) {
        let version = integer(object.resource_version.as_deref());
        // What is no integer is awaited until the next list.
        let what = What::Version(version.unwrap_or(u64::MAX));
        self.await_own(key_of(object), rollout, what);
    }

    /// Notes an own deletion of the object with this uid.
    pub fn deleted(&self, rollout: &str, namespace: &str, name: &str, uid: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let uid = hash(&uid);
        self.await_own(key, rollout, What::Gone { uid, after: 0 });
    }

    fn await_own(&self, key: Key, rollout: &str, what: What) {
        let awaited = Awaited {
            rollout: belonging(&key.0, rollout),
            since: Instant::now(),
            what,
        };
        self.change(|state| {
            state.settle_all();
            state.wait_for(key, awaited);
        });
    }

    /// Answers from now on, as soon as the watch has reported what this list of all objects has, which began at `since`
    /// and is of this version.
    pub(super) fn open(&self, since: Instant, version: u64, all: Vec<Listed>) {
        self.change(|state| {
            let mut there = BTreeSet::new();
            for it in all {
                let key = (it.namespace, it.name);
                there.insert(key.clone());
                let awaited = Awaited {
                    rollout: belonging(&key.0, &it.rollout),
                    since,
                    what: What::Version(it.version.unwrap_or(u64::MAX)),
                };
                state.wait_for(key, awaited);
            }
            let objects = state.contents.objects.iter();
            let gone = objects.filter(|(key, it)| it.version <= version && !there.contains(*key));
            let gone = gone.map(|(key, it)| {
                let awaited = Awaited {
                    rollout: it.of.unwrap_or_default(),
                    since,
                    what: What::Gone {
                        uid: it.uid,
                        after: 0,
                    },
                };
                (key.clone(), awaited)
            });
            let gone: Vec<_> = gone.collect();
            for (key, awaited) in gone {
                state.wait_for(key, awaited);
            }
            state.is_open = true;
        });
    }

    /// Answers nothing until the objects are listed again.
    pub(super) fn expire(&self) {
        self.change(|state| state.is_complete = false);
    }

    /// Notes an event, and passes on the fields for which its kind is watched.
    pub(super) fn take<K: Cached>(
        &self,
        event: Result<Event<Kept<K>>, watcher::Error>,
    ) -> Result<Event<K>, watcher::Error> {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                if ends_watch(&error) {
                    self.expire();
                }
                return Err(error);
            }
        };
        Ok(match event {
            Event::Init => {
                self.change(State::begin_list);
                Event::Init
            }
            Event::InitApply(kept) => {
                self.note(&kept, State::list);
                Event::InitApply(kept.fields)
            }
            Event::InitDone => {
                self.change(State::end_list);
                Event::InitDone
            }
            Event::Apply(kept) => {
                self.note(&kept, |state, key, entry| state.apply(&key, entry));
                Event::Apply(kept.fields)
            }
            Event::Delete(kept) => {
                self.note(&kept, |state, key, entry| state.delete(&key, entry.version));
                Event::Delete(kept.fields)
            }
        })
    }

    fn note<K: Cached>(&self, kept: &Kept<K>, note: impl FnOnce(&mut State, Key, Entry)) {
        let metadata = kept.meta();
        let key = key_of(metadata);
        let version = integer(metadata.resource_version.as_deref());
        self.change(|state| {
            let Some(version) = version else {
                state.is_unordered = true;
                return;
            };
            let entry = Entry {
                uid: hash(&metadata.uid.as_deref().unwrap_or_default()),
                version,
                of: kept.fields.of().map(|of| belonging(&key.0, &of)),
                json: kept.json.clone(),
            };
            note(state, key, entry);
        });
    }

    fn answer<T>(&self, answer: impl FnOnce(&State) -> Option<T>) -> Option<T> {
        let state = self.0.lock().ok()?;
        let answers = state.is_open && state.is_complete && !state.is_unordered;
        answers.then(|| answer(&state)).flatten()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // Nothing panics while it is locked.
        if let Ok(mut state) = self.0.lock() {
            change(&mut state);
        }
    }
}

impl State {
    fn begin_list(&mut self) {
        self.listing = Some(Listing {
            since: Instant::now(),
            contents: Contents::default(),
        });
    }

    fn list(&mut self, key: Key, entry: Entry) {
        if let Some(listing) = &mut self.listing {
            listing.contents.insert(key, entry);
        }
    }

    /// The list replaces what was known. Versions may have gone back, as after a restored backup.
    fn end_list(&mut self) {
        let Some(Listing { since, contents }) = self.listing.take() else {
            return;
        };
        let versions = contents.objects.values().map(|it| it.version);
        self.progress = versions.max().unwrap_or_default();
        self.contents = contents;
        self.is_complete = true;
        let awaited = std::mem::take(&mut self.awaited).into_iter();
        let left = awaited.filter(|(key, it)| it.since >= since && !self.has_reached(key, it));
        self.awaited = left.collect();
    }

    fn apply(&mut self, key: &Key, entry: Entry) {
        // Events come in the order of their versions, so an earlier one is a repetition.
        if entry.version <= self.progress {
            return;
        }
        self.progress = entry.version;
        self.contents.insert(key.clone(), entry);
        self.settle(key);
    }

    fn delete(&mut self, key: &Key, version: u64) {
        self.progress = self.progress.max(version);
        let known = self.contents.objects.get(key);
        if known.is_some_and(|it| it.version <= version) {
            self.contents.remove(key);
        }
        self.settle(key);
    }

    fn wait_for(&mut self, key: Key, mut awaited: Awaited) {
        if let Some(before) = self.awaited.get(&key) {
            if before.since > awaited.since {
                return;
            }
            match (&mut awaited.what, &before.what) {
                // A read that was older than the last write.
                (What::Version(new), What::Version(old)) if *old > *new && *old < u64::MAX => {
                    return;
                }
                (What::Gone { after, .. }, What::Version(old)) if *old < u64::MAX => *after = *old,
                _ => {}
            }
        }
        if self.has_reached(&key, &awaited) {
            self.awaited.remove(&key);
        } else {
            self.awaited.insert(key, awaited);
        }
    }

    /// Forgets all that has been reached.
    fn settle_all(&mut self) {
        let mut all = std::mem::take(&mut self.awaited);
        all.retain(|key, it| !self.has_reached(key, it));
        self.awaited = all;
    }

    /// Forgets what is no longer awaited of an object.
    fn settle(&mut self, key: &Key) {
        let awaited = self.awaited.get(key);
        if awaited.is_some_and(|it| self.has_reached(key, it)) {
            self.awaited.remove(key);
        }
    }

    fn has_reached(&self, key: &Key, awaited: &Awaited) -> bool {
        let known = self.contents.objects.get(key);
        match (&awaited.what, known) {
            (What::Version(version), Some(known)) => known.version >= *version,
            // It was deleted since, or its creation is not reported yet.
            (What::Version(version), None) => self.progress >= *version,
            (What::Gone { uid, .. }, Some(known)) => known.uid != *uid,
            (What::Gone { after, .. }, None) => self.progress >= *after,
        }
    }
}

impl Contents {
    fn insert(&mut self, key: Key, mut entry: Entry) {
        self.remove(&key);
        // An object that is not there is read, as one of which nothing is kept.
        if entry.json.is_none() && entry.of.is_none() {
            return;
        }
        let bytes = self.bytes.saturating_add(entry.length());
        if bytes > MOST_OF_ALL {
            entry.json = None;
        } else {
            self.bytes = bytes;
        }
        if let Some(of) = entry.of {
            self.groups.insert((of, key.1.clone()));
        }
        self.objects.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) {
        let Some(gone) = self.objects.remove(key) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(gone.length());
        if let Some(of) = gone.of {
            self.groups.remove(&(of, key.1.clone()));
        }
    }

    /// The names of the objects that belong to this.
    fn names(&self, of: u64) -> impl Iterator<Item = &str> {
        let names = self.groups.range((of, String::new())..);
        let own = names.take_while(move |(it, _)| *it == of);
        own.map(|(_, name)| name.as_str())
    }
}

impl Entry {
    fn length(&self) -> usize {
        self.json.as_ref().map_or(0, |json| json.len())
    }
}

#[cfg(test)]
mod tests;
