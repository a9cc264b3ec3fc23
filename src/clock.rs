//! The operator's clock, the only place that reads the time.
//!
//! The wall clock may be set during a rollout, by an hour or by years. So the time is the wall clock at
//! the start of the process plus monotonic time. The wall clock is adopted again if it differs by less
//! than `CLOCK_SLEW`, or has differed for `CLOCK_STEP`.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::timing::{CLOCK_SLEW, CLOCK_STEP};

static TIME: Mutex<Option<Time>> = Mutex::new(None);

/// The current time.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    let (wall, at) = (Timestamp::now(), Instant::now());
    let mut time = TIME.lock().unwrap_or_else(PoisonError::into_inner);
    time.get_or_insert(Time::from(wall, at)).now(wall, at)
}

/// A time and the monotonic instant at which it was current.
#[derive(Clone, Copy, Debug)]
struct Time {
    known: Timestamp,
    at: Instant,
    /// Since when the wall clock has differed.
    strays_since: Option<Instant>,
}

impl Time {
    const fn from(known: Timestamp, at: Instant) -> Self {
        Self {
            known,
            at,
            strays_since: None,
        }
    }

    /// The time, given the wall clock.
    fn now(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        let passed = at.saturating_duration_since(self.at);
        let now = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
        let now = self.known.saturating_add(now).unwrap_or(wall);
        let since = *self.strays_since.get_or_insert(at);
        let lasts = at.saturating_duration_since(since) >= CLOCK_STEP;
        if wall.duration_since(now).abs() <= CLOCK_SLEW || lasts {
            *self = Self::from(wall, at);
            return wall;
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_is_followed_only_where_it_stays_so() {
        let (start, begun) = (Timestamp::UNIX_EPOCH, Instant::now());
        let mut time = Time::from(start, begun);
        let hour = SignedDuration::from_hours(1);
        let mut read = |seconds: u64, set: SignedDuration| {
            let wall = start + SignedDuration::from_secs(seconds.cast_signed()) + set;
            let now = time.now(wall, begun + Duration::from_secs(seconds));
            now.duration_since(start).as_secs()
        };
        assert_eq!(read(5, SignedDuration::ZERO), 5);
        for (begins, set) in [(10, hour), (130, -hour)] {
            assert_eq!(read(begins, set), begins.cast_signed());
            assert_eq!(read(begins + 110, set), begins.cast_signed() + 110);
            assert_eq!(
                read(begins + 115, SignedDuration::ZERO),
                begins.cast_signed() + 115
            );
        }
        assert_eq!(read(300, hour), 300);
        let (lasts, later) = (420 + 3_600, 422 + 3_601);
        assert_eq!(read(420, hour), lasts, "it has differed for two minutes");
        let slewed = hour + SignedDuration::from_secs(1);
        assert_eq!(read(422, slewed), later);
    }
}
