//! Limits concurrent queries, in total and per namespace.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Most concurrent queries; others wait.
const AT_ONCE: usize = 8;
/// Most concurrent queries of one namespace, so that slow queries of one team leave room for others.
const OF_ONE_NAMESPACE: usize = 4;

/// Two semaphores: at most `OF_ONE_NAMESPACE` queries per namespace, then at most `AT_ONCE` in total, so
/// that one namespace cannot fill the queue.
pub(super) struct Queue {
    all: Semaphore,
    each: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

/// The permit for one query, until it is dropped.
pub(super) struct QueryPermit<'a> {
    _all: Option<SemaphorePermit<'a>>,
    _own: Option<OwnedSemaphorePermit>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            all: Semaphore::new(AT_ONCE),
            each: Mutex::default(),
        }
    }
}

impl Queue {
    /// Waits for a permit. Neither semaphore is ever closed.
    pub(super) async fn acquire(&self, namespace: &str) -> QueryPermit<'_> {
        let own = self.of(namespace).acquire_owned().await.ok();
        let all = self.all.acquire().await.ok();
        QueryPermit {
            _all: all,
            _own: own,
        }
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = each.get(namespace).and_then(Weak::upgrade) {
            return known;
        }
        each.retain(|_, semaphore| semaphore.strong_count() > 0);
        let new = Arc::new(Semaphore::new(OF_ONE_NAMESPACE));
        each.insert(namespace.to_owned(), Arc::downgrade(&new));
        new
    }
}
