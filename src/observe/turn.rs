//! The lock under which the changes of a concurrency limit are counted.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

/// Held by the one look that counts the changes under way.
pub type Turn = OwnedMutexGuard<()>;

/// Gives it out.
pub type Turns = Arc<tokio::sync::Mutex<()>>;
