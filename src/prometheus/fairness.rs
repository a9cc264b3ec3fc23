//! Who is asked next: few questions are under way, and of one namespace fewer still.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Most questions under way.
const AT_ONCE: usize = 8;
/// Most of them on behalf of one namespace, so that slow queries of one team leave room for others.
const OF_ONE_NAMESPACE: usize = 4;

/// Those who wait for their turn. A namespace's questions wait for each other first, and no more of
/// them than may be under way stand in the common line.
pub(super) struct Queue {
    all: Semaphore,
    each: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

/// The right to ask one question, until it is dropped.
pub(super) struct Turn<'a> {
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
    /// Waits for a turn. Neither semaphore is ever closed.
    pub(super) async fn turn(&self, namespace: &str) -> Turn<'_> {
        let own = self.of(namespace).acquire_owned().await.ok();
        let all = self.all.acquire().await.ok();
        Turn {
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
