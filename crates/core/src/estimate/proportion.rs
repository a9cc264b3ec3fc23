//! The interval of a proportion.

use crate::estimate::{DEVIATE, Interval};

/// The score interval of a proportion, without continuity correction: it holds for few trials and for proportions
/// near 0 and 1. `None` without trials, or with more successes than trials.
///
/// With `p = successes / trials` and the deviate `z`:
///
/// ```text
/// (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n)
/// ```
///
/// Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927); compared with
/// others by Newcombe, "Two-sided confidence intervals for the single proportion" (1998), method 3.
#[must_use]
pub fn wilson(successes: u32, trials: u32) -> Option<Interval> {
    if trials == 0 || successes > trials {
        return None;
    }
    let count = f64::from(trials);
    let share = f64::from(successes) / count;
    let spread = DEVIATE * DEVIATE / count;
    let half = (spread * (share * (1.0 - share) + spread / 4.0)).sqrt();
    let middle = share + spread / 2.0;
    Some(Interval {
        low: ((middle - half) / (1.0 + spread)).clamp(0.0, share),
        high: ((middle + half) / (1.0 + spread)).clamp(share, 1.0),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_intervals_are_found() {
        // Newcombe (1998), table I, method 3.
        for (successes, trials, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let found = wilson(successes, trials).unwrap();
            assert!((found.low - low).abs() < 1e-4, "{found:?}");
            assert!((found.high - high).abs() < 1e-4, "{found:?}");
        }
        assert_eq!(wilson(0, 0), None);
        assert_eq!(wilson(2, 1), None);
    }

    proptest! {
        #[test]
        fn it_holds_the_proportion_mirrors_and_narrows(trials in 1_u32..5_000, share in 0.0..=1.0) {
            let successes = (0..=trials).find(|it| f64::from(*it) >= share * f64::from(trials));
            let successes = successes.unwrap_or(trials);
            let found = wilson(successes, trials).unwrap();
            let proportion = f64::from(successes) / f64::from(trials);
            prop_assert!(0.0 <= found.low && found.low <= proportion);
            prop_assert!(proportion <= found.high && found.high <= 1.0);
            let failures = wilson(trials - successes, trials).unwrap();
            prop_assert!((found.low - (1.0 - failures.high)).abs() < 1e-9);
            let more = wilson(successes * 4, trials * 4).unwrap();
            prop_assert!(more.high - more.low < found.high - found.low);
        }
    }
}
