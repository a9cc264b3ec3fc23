//! The lock under which the changes of a concurrency limit are counted.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

/// The lock guard, held by the reconcile that counts the changes in progress.
pub type QueueLock = OwnedMutexGuard<()>;

/// The lock.
pub type QueueMutex = Arc<tokio::sync::Mutex<()>>;
