//! Answers of the API server that are used again for some seconds, since pages are drawn often.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The answers to questions of one kind.
pub struct Recent<K, V> {
    fresh: Duration,
    answers: Mutex<BTreeMap<K, (Instant, V)>>,
}

impl<K: Ord, V: Clone> Recent<K, V> {
    /// Answers that are used for so long.
    #[must_use]
    pub const fn new(fresh: Duration) -> Self {
        Self {
            fresh,
            answers: Mutex::new(BTreeMap::new()),
        }
    }

    /// The answer, if there was one lately.
    #[must_use]
    pub fn get(&self, question: &K) -> Option<V> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = answers.get(question)?;
        (at.elapsed() < self.fresh).then(|| answer.clone())
    }

    /// Remembers an answer, and forgets old ones.
    pub fn keep(&self, question: K, answer: V) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (at, _)| at.elapsed() < self.fresh);
        answers.insert(question, (Instant::now(), answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_used_while_it_is_fresh() {
        let lasting = Recent::new(Duration::from_hours(1));
        lasting.keep("shop/web", 1);
        lasting.keep("shop/api", 2);
        assert_eq!(lasting.get(&"shop/web"), Some(1));
        assert_eq!(lasting.get(&"shop/login"), None);
        let passing = Recent::new(Duration::ZERO);
        passing.keep("shop/web", 1);
        assert_eq!(passing.get(&"shop/web"), None);
    }
}
