//! The time. A command ends soon, so unlike the operator it takes the machine's clock as it is.

use k8s_openapi::jiff::Timestamp;

/// The present moment, by the machine's clock.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the plugin reads the time"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}
