//! Deduplicates equal requests: shares pending ones, and caches recent responses.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

use crate::prometheus::failure::Failure;
use crate::prometheus::reply::Reply;
use crate::prometheus::request::Request;
use crate::timing::ANSWER_MAX_AGE;

/// Most bytes of all cached responses; the oldest are dropped.
const MOST_BYTES: usize = 8 << 20;
/// Largest cached response in bytes; larger ones are not cached.
const LARGEST: usize = 1 << 20;

/// Fewest pending requests at which abandoned ones are dropped.
const LEAST_CROWD: usize = 64;

/// A pending request.
pub(super) type Asking = BoxFuture<'static, Result<Reply, Failure>>;

#[derive(Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    /// Weak: a request lives as long as a caller waits for it.
    under_way: BTreeMap<Request, WeakShared<Asking>>,
    /// Number of pending requests at which abandoned ones are dropped.
    crowd: usize,
    kept: BTreeMap<Request, Reply>,
    /// Cached responses, oldest first.
    order: VecDeque<(Instant, Request)>,
    bytes: usize,
}

impl Memory {
    /// The response to a request: cached, pending, or new.
    pub(super) fn get(&self, request: &Request, begin: impl FnOnce() -> Asking) -> Shared<Asking> {
        let mut state = self.state();
        state.forget(0);
        if let Some(reply) = state.kept.get(request) {
            return futures::future::ready(Ok(reply.clone())).boxed().shared();
        }
        let under_way = state.under_way.get(request).and_then(WeakShared::upgrade);
        under_way.unwrap_or_else(|| {
            let asking: Shared<Asking> = begin().shared();
            if state.under_way.len() >= state.crowd {
                state.under_way.retain(|_, it| it.upgrade().is_some());
                state.crowd = LEAST_CROWD.max(2 * state.under_way.len());
            }
            if let Some(weak) = asking.downgrade() {
                state.under_way.insert(request.clone(), weak);
            }
            asking
        })
    }

    /// Caches a response, if it is small.
    pub(super) fn keep(&self, request: Request, reply: &Reply) {
        let size = size(&request, reply);
        if size > LARGEST {
            return;
        }
        let mut state = self.state();
        if state.kept.contains_key(&request) {
            return;
        }
        state.forget(size);
        state.kept.insert(request.clone(), reply.clone());
        state.bytes += size;
        state.order.push_back((Instant::now(), request));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops expired responses, and the oldest until there is room.
    fn forget(&mut self, room: usize) {
        while let Some((at, request)) = self.order.front() {
            if at.elapsed() < ANSWER_MAX_AGE && self.bytes + room <= MOST_BYTES {
                return;
            }
            if let Some(reply) = self.kept.remove(request) {
                self.bytes -= size(request, &reply);
            }
            self.order.pop_front();
        }
    }
}

/// An estimate: labels and samples take more memory than their text.
const fn size(request: &Request, reply: &Reply) -> usize {
    2 * (request.len() + reply.bytes) + 512
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let memory = Memory::default();
        let keep = |time, bytes| {
            let query = "x".repeat(100);
            let reply = Reply {
                series: Arc::default(),
                bytes,
                reading: None,
            };
            memory.keep(Request::At { query, time }, &reply);
        };
        keep(0, LARGEST);
        assert!(memory.state().kept.is_empty(), "it is too large");
        for time in 0..1_000 {
            keep(time, 100_000);
            keep(time, 100_000);
            let state = memory.state();
            let sum: usize = state.kept.iter().map(|(it, reply)| size(it, reply)).sum();
            assert!(sum == state.bytes && sum <= MOST_BYTES);
            assert_eq!(state.kept.len(), state.order.len());
        }
        let state = memory.state();
        assert_eq!(state.kept.len(), 41);
        let newest = |it: &Request| matches!(it, Request::At { time: 999, .. });
        assert!(state.kept.keys().any(newest));
    }
}
