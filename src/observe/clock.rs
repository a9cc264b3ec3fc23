//! The one place where the time is read.

use k8s_openapi::jiff::Timestamp;

/// The present moment.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    Timestamp::now()
}
