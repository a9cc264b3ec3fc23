//! The caches of the watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;

use crate::watch::claim::Claim;
use crate::watch::watched::{WatchedFreeze, WatchedPolicy, WatchedTemplate};

/// The caches of the watches.
#[derive(Clone, Debug)]
pub struct Caches {
    /// Every Rollout's claims.
    pub claims: Store<Claim>,
    /// Every policy.
    pub policies: Store<WatchedPolicy>,
    /// Every Freeze, for its status alone: decisions read Freezes live.
    pub freezes: Store<WatchedFreeze>,
    /// Every AnalysisTemplate without its spec, for its status alone: decisions read AnalysisTemplates live.
    pub templates: Store<WatchedTemplate>,
    /// Every namespace's labels.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Whether policies or namespaces may have changed unseen.
    pub gaps: [Gap; 2],
}

/// Whether a cache may miss changes: the API server ended its watch for good, and the objects are not
/// listed again yet.
#[derive(Clone, Debug, Default)]
pub struct Gap(Arc<AtomicBool>);

impl Gap {
    /// Notes what an event or error of the watch says about its cache.
    pub(super) fn note<K>(&self, event: &Result<watcher::Event<K>, watcher::Error>) {
        match event {
            Ok(watcher::Event::InitDone) => self.0.store(false, Ordering::Release),
            Err(watcher::Error::WatchError(status)) if status.code == GONE => {
                self.0.store(true, Ordering::Release);
            }
            _ => {}
        }
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The status of a watch whose resource version is too old.
const GONE: u16 = 410;

impl Caches {
    /// Waits until every cache that decisions use has been filled once.
    pub async fn ready(&self) -> bool {
        self.claims.wait_until_ready().await.is_ok()
            && self.policies.wait_until_ready().await.is_ok()
            && self.namespaces.wait_until_ready().await.is_ok()
    }

    /// Why it is not known at present which policies govern a Rollout.
    #[must_use]
    pub fn policies_unknown(&self) -> Option<String> {
        self.gaps.iter().any(Gap::is_open).then(|| {
            "the API server ended a watch, and RolloutPolicies and namespaces are not listed again yet"
                .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::core::Status;
    use kube::runtime::reflector::{self, store::Writer};

    use super::*;

    fn fill<K>(mut writer: Writer<K>)
    where
        K: kube::Resource<DynamicType = ()> + Clone + 'static,
    {
        writer.apply_watcher_event(&watcher::Event::Init);
        writer.apply_watcher_event(&watcher::Event::InitDone);
    }

    #[tokio::test]
    async fn nothing_waits_for_what_serves_statuses_alone() {
        let (claims, of_claims) = reflector::store();
        let (policies, of_policies) = reflector::store();
        let (namespaces, of_namespaces) = reflector::store();
        // Their lists are refused, and so never complete.
        let (freezes, _of_freezes) = reflector::store();
        let (templates, _of_templates) = reflector::store();
        let caches = Caches {
            claims,
            policies,
            freezes,
            templates,
            namespaces,
            gaps: Default::default(),
        };
        fill(of_claims);
        fill(of_policies);
        fill(of_namespaces);
        let ready = tokio::time::timeout(Duration::from_secs(10), caches.ready());
        assert!(ready.await.unwrap());
    }

    #[test]
    fn a_cache_misses_changes_from_an_ended_watch_until_its_objects_are_listed() {
        type Event = Result<watcher::Event<()>, watcher::Error>;
        let ended = |code| -> Event {
            let status = Status::failure("too old resource version", "Expired").with_code(code);
            Err(watcher::Error::WatchError(Box::new(status)))
        };
        let gap = Gap::default();
        for (event, open) in [
            (ended(500), false),
            (ended(410), true),
            (Ok(watcher::Event::Init), true),
            (Ok(watcher::Event::InitApply(())), true),
            (Ok(watcher::Event::InitDone), false),
            (Ok(watcher::Event::Apply(())), false),
        ] {
            gap.note(&event);
            assert_eq!(gap.is_open(), open, "{event:?}");
        }
    }
}
