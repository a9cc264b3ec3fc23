//! The interval of a number of events.

use crate::estimate::{DEVIATE, Interval};

/// The interval of the expected number of events where this many were counted, if they are independent of each
/// other. Divided by the time of the count, it is the interval of their rate.
///
/// Byar's approximation to the exact (Garwood) interval, with `z` the deviate:
///
/// ```text
/// low  = n (1 - 1/9n - z/3√n)³
/// high = m (1 - 1/9m + z/3√m)³,  m = n + 1
/// ```
///
/// Off by less than 0.03 events at any count. Source: Breslow and Day, "Statistical methods in cancer research",
/// volume II (1987), equation 2.10.
#[must_use]
pub fn poisson(events: u32) -> Interval {
    let side = |count: f64, deviate: f64| {
        let root = 1.0 - 1.0 / (9.0 * count) + deviate / (3.0 * count.sqrt());
        count * root.powi(3)
    };
    let low = if events == 0 {
        0.0
    } else {
        side(f64::from(events), -DEVIATE).max(0.0)
    };
    Interval {
        low,
        high: side(f64::from(events) + 1.0, DEVIATE),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_exact_intervals_are_approximated() {
        // Garwood, "Fiducial limits for the Poisson distribution" (1936).
        for (events, low, high) in [
            (0, 0.0, 3.689),
            (1, 0.025, 5.572),
            (2, 0.242, 7.225),
            (5, 1.623, 11.668),
            (10, 4.795, 18.390),
            (50, 37.111, 65.919),
            (100, 81.364, 121.627),
        ] {
            let found = poisson(events);
            assert!((found.low - low).abs() < 0.03, "{events}: {found:?}");
            assert!((found.high - high).abs() < 0.03, "{events}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn it_holds_the_count_and_grows_with_it(events in 0_u32..1_000_000) {
            let (found, next) = (poisson(events), poisson(events + 1));
            prop_assert!(found.low <= f64::from(events) && f64::from(events) < found.high);
            prop_assert!(found.low <= next.low && found.high < next.high);
        }
    }
}
