//! Rollouts that wait for others, and are reconciled when those have changed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use countersign_api::rollout::RolloutStatus;
use countersign_core::queue::wake;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use crate::watch::claim::Claim;
use crate::watch::trigger::Trigger;

/// Most Rollouts that are reconciled when a change ends; the others are requeued anyway.
const MOST_WOKEN: usize = 16;

/// The Rollouts that wait for others, so that they are reconciled once another change ends.
#[derive(Debug)]
pub struct Waiting {
    since: Mutex<BTreeMap<(String, String), Timestamp>>,
    wake: mpsc::UnboundedSender<Trigger>,
}

impl Waiting {
    /// No Rollout waits yet; triggers are sent to `wake`.
    #[must_use]
    pub const fn new(wake: mpsc::UnboundedSender<Trigger>) -> Self {
        Self {
            since: Mutex::new(BTreeMap::new()),
            wake,
        }
    }

    /// Notes a status change of a Rollout, and triggers those that may have waited for it.
    pub fn note(&self, namespace: &str, name: &str, before: &RolloutStatus, after: &RolloutStatus) {
        if let Ok(mut all) = self.since.lock() {
            let key = (namespace.to_owned(), name.to_owned());
            match wake::waits_since(after) {
                Some(since) => all.insert(key, since),
                None => all.remove(&key),
            };
        }
        if wake::releases_slot(before, after) {
            self.wake();
        }
    }

    /// Forgets a deleted Rollout.
    pub fn forget(&self, namespace: &str, name: &str) {
        if let Ok(mut all) = self.since.lock() {
            all.remove(&(namespace.to_owned(), name.to_owned()));
        }
    }

    /// Triggers those that have waited longest.
    pub fn wake(&self) {
        let Ok(all) = self.since.lock() else {
            return;
        };
        let mut first: Vec<_> = all.iter().collect();
        first.sort_by_key(|(_, since)| **since);
        for ((namespace, name), _) in first.into_iter().take(MOST_WOKEN) {
            let rollout = ObjectRef::<Claim>::new(name).within(namespace);
            // The receiver is gone only when the process ends.
            let _ = self.wake.send(Trigger::Related(rollout));
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_api::rollout::Change;
    use countersign_core::reason::Reason;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn those_who_waited_longest_are_woken_first() {
        let (send, mut woken) = mpsc::unbounded_channel();
        let waiting = Waiting::new(send);
        let status = |second: i64| RolloutStatus {
            waiting_for: Some(Reason::Queued.into()),
            change: Some(Change {
                queued_at: Some(Time(Timestamp::from_second(second).unwrap())),
                ..Change::default()
            }),
            ..RolloutStatus::default()
        };
        let none = RolloutStatus::default();
        for (name, second) in [("a", 3), ("b", 1), ("c", 2)] {
            waiting.note("shop", name, &none, &status(second));
        }
        waiting.note("shop", "c", &status(2), &none);
        assert!(
            woken.try_recv().is_err(),
            "nothing ended that was under way"
        );
        waiting.forget("shop", "gone");
        assert!(woken.try_recv().is_err(), "nobody waited for it");
        waiting.wake();
        let mut names = Vec::new();
        while let Ok(Trigger::Related(rollout)) = woken.try_recv() {
            names.push(rollout.name);
        }
        assert_eq!(names, ["b", "a"]);
    }
}
