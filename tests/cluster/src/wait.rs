//! Waits for the cluster to reach a state.

use crate::error::{Error, Result};
use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// Poll interval: short enough for fast tests, long enough not to load the API server.
const POLL: Duration = Duration::from_millis(75);

/// The outcome of a poll: `Some` or `Ok` ends the wait; an `Err` is reported as the last observed state
/// on timeout.
pub trait Polled<T> {
    /// The awaited value, or the current state.
    fn found(self) -> Result<T, String>;
}

impl<T> Polled<T> for Option<T> {
    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Display> Polled<T> for Result<T, E> {
    fn found(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Polls until a value is returned.
///
/// ```
/// # use countersign_cluster::wait_for;
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut phases = ["Pending", "Running"].into_iter();
/// let phase = wait_for("the pod runs", Duration::from_secs(5), async || match phases.next() {
///     Some("Running") => Ok("Running"),
///     other => Err(format!("phase {other:?}")),
/// });
/// assert_eq!(phase.await.unwrap(), "Running");
/// # }
/// ```
pub async fn wait_for<T, L: Polled<T>>(
    what: &str,
    timeout: Duration,
    mut poll: impl AsyncFnMut() -> L,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut last = "nothing yet".to_owned();
    loop {
        // A poll may itself hang, for instance on a frozen server.
        let left = deadline.saturating_duration_since(Instant::now());
        if let Ok(seen) = tokio::time::timeout(left, poll()).await {
            match seen.found() {
                Ok(found) => return Ok(found),
                Err(state) => last = state,
            }
        }
        if Instant::now() >= deadline {
            return Err(Error::TimedOut {
                what: what.to_owned(),
                within: timeout,
                last,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timeout_reports_what_was_awaited_and_what_was_seen() {
        let error = wait_for("ten pods", Duration::from_millis(200), async || {
            Err::<(), _>("three pods")
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "ten pods: not so within 200ms; last seen: three pods"
        );
    }

    #[tokio::test]
    async fn a_poll_that_hangs_does_not_outlast_the_timeout() {
        let hangs = wait_for("an answer", Duration::from_millis(50), async || {
            std::future::pending::<Option<()>>().await
        });
        assert!(
            tokio::time::timeout(Duration::from_secs(5), hangs)
                .await
                .unwrap()
                .is_err()
        );
    }
}
