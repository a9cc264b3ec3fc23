//! What the user may do, as the API server last answered.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::access::{self, Need};
use crate::cluster::connection::Connection;

/// How long an answer is used: a page asks for several permissions, and is drawn often.
const FRESH: Duration = Duration::from_secs(20);

/// A permission: namespace, Rollout and verb on a resource.
type Key = (String, String, Need);

/// Answers of the API server.
#[derive(Default)]
pub struct Rights {
    answers: Mutex<BTreeMap<Key, (Instant, bool)>>,
}

impl Rights {
    /// Whether the user has a permission. One that cannot be asked for counts as given: the API server decides.
    pub async fn has(&self, connection: &Connection, need: Need, rollout: &str) -> bool {
        let key = (connection.namespace().to_owned(), rollout.to_owned(), need);
        let now = Instant::now();
        if let Some(answer) = self.known(&key, now) {
            return answer;
        }
        let named = (!rollout.is_empty()).then_some(rollout);
        let Ok(answer) = access::is_allowed(connection, need, named).await else {
            return true;
        };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (at, _)| now.duration_since(*at) < FRESH);
        answers.insert(key, (now, answer));
        answer
    }

    fn known(&self, key: &Key, now: Instant) -> Option<bool> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = answers.get(key)?;
        (now.duration_since(*at) < FRESH).then_some(*answer)
    }

    /// The first of the permissions that the user lacks, such as `approve rollouts`.
    pub async fn missing(
        &self,
        connection: &Connection,
        needs: &[Need],
        rollout: &str,
    ) -> Option<String> {
        for need in needs {
            if !self.has(connection, *need, rollout).await {
                let (verb, resource) = need;
                return Some(format!("{verb} on {resource}"));
            }
        }
        None
    }
}
