//! The median, and its interval, without an assumption about the distribution.

use std::f64::consts::LN_2;

/// What an interval of 95 % leaves out on each side.
const TAIL: f64 = 0.025;

/// The middle of sorted values, the upper one of two; `None` if there is no value.
#[must_use]
pub fn median<T: Copy>(sorted: &[T]) -> Option<T> {
    sorted.get(sorted.len() / 2).copied()
}

/// The two of the sorted values between which the median of their distribution lies, with a confidence of at least
/// 95 %; `None` below six values, which cannot give it.
///
/// Each value is below the median with a chance of one half, so the number of those below has a binomial
/// distribution. The lower value is the last one that at most 2.5 % of samples would have above the median, and the
/// upper one mirrors it.
///
/// Source: Thompson, "On confidence ranges for the median" (1936); Conover, "Practical nonparametric statistics"
/// (1999), section 3.2.
#[must_use]
pub fn interval<T: Copy>(sorted: &[T]) -> Option<(T, T)> {
    let count = f64::from(u32::try_from(sorted.len()).ok()?);
    // The logarithm of the chance that `below` values are below the median, since powers of one half vanish.
    let mut ln_chance = -count * LN_2;
    let mut at_most = ln_chance.exp();
    let (mut rank, mut below) = (0_usize, 0.0);
    while at_most <= TAIL && rank < sorted.len() {
        ln_chance += ((count - below) / (below + 1.0)).ln();
        below += 1.0;
        rank += 1;
        at_most += ln_chance.exp();
    }
    let low = sorted.get(rank.checked_sub(1)?)?;
    let high = sorted.get(sorted.len() - rank)?;
    Some((*low, *high))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_ranks_are_found() {
        // Hahn and Meeker, "Statistical intervals" (1991), section 5.2, two-sided, at least 95 %; ranks from 1.
        for (count, low, high) in [
            (6, 1, 6),
            (8, 1, 8),
            (9, 2, 8),
            (10, 2, 9),
            (15, 4, 12),
            (20, 6, 15),
            (25, 8, 18),
            (50, 18, 33),
            (100, 40, 61),
            (3_000, 1_446, 1_555),
        ] {
            let ranks: Vec<u32> = (1..=count).collect();
            assert_eq!(interval(&ranks), Some((low, high)), "{count}");
        }
        for count in 0..6_u32 {
            let ranks: Vec<u32> = (1..=count).collect();
            assert_eq!(interval(&ranks), None, "{count}");
        }
        assert_eq!(median::<u32>(&[]), None);
        assert_eq!((median(&[1, 2, 3]), median(&[1, 2])), (Some(2), Some(2)));
    }

    proptest! {
        #[test]
        fn it_holds_the_median(mut values in proptest::collection::vec(0_u32..100, 6..300)) {
            values.sort_unstable();
            let (low, high) = interval(&values).unwrap();
            let middle = median(&values).unwrap();
            prop_assert!(low <= middle && middle <= high);
        }
    }
}
