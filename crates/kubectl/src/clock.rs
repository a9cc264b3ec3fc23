//! The clock. A command is short-lived, so unlike the operator it uses the system clock unchecked.

use k8s_openapi::jiff::Timestamp;

/// The current time of the system clock.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the plugin reads the time"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}
