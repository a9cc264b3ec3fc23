//! What the user may do, as the API server last answered.

use std::time::Duration;

use crate::cluster::access::{self, Need};
use crate::cluster::connection::Connection;
use crate::commands::dashboard::recent::Recent;

/// How long an answer is used.
const FRESH: Duration = Duration::from_secs(20);

/// A permission: namespace, Rollout and verb on a resource.
type Key = (String, String, Need);

/// Answers of the API server.
pub struct Rights {
    answers: Recent<Key, bool>,
}

impl Default for Rights {
    fn default() -> Self {
        Self {
            answers: Recent::new(FRESH),
        }
    }
}

impl Rights {
    /// Whether the user has a permission. One that cannot be asked for counts as given: the API server decides.
    pub async fn has(&self, connection: &Connection, need: Need, rollout: &str) -> bool {
        let key = (connection.namespace().to_owned(), rollout.to_owned(), need);
        if let Some(answer) = self.answers.get(&key) {
            return answer;
        }
        let named = (!rollout.is_empty()).then_some(rollout);
        let Ok(answer) = access::is_allowed(connection, need, named).await else {
            return true;
        };
        self.answers.keep(key, answer);
        answer
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
