//! Whether one group fails more often than another, stratum by stratum, and how many more would show it.

use serde::Serialize;

use crate::estimate::{DEVIATE, Interval};

/// The odds ratio that a comparison should be able to show: twice the odds of failure.
pub const SOUGHT: f64 = 2.0;

/// The standard normal deviate of a power of 80 %: the chance to see a ratio of [`SOUGHT`] if there is one.
const POWER: f64 = 0.841_621_233_572_914_3;

/// The least distance, in failures, of what is expected from what is possible; below it the interval is not valid.
const LEAST_RANGE: f64 = 5.0;

/// How many of a group failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// Those that failed.
    pub failed: u32,
    /// All of them.
    pub of: u32,
}

/// Two groups of one stratum, alike in everything that the strata are made by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stratum {
    /// The group that is asked about.
    pub group: Failures,
    /// The group that it is compared with.
    pub reference: Failures,
}

/// The odds of failure of a group as a multiple of another one's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OddsRatio {
    /// The estimate over all strata.
    pub ratio: f64,
    /// Its interval.
    pub interval: Interval,
}

/// What a comparison shows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "camelCase")]
pub enum Finding {
    /// The group fails more often.
    More,
    /// The group fails less often.
    Fewer,
    /// No difference was found, though twice the odds would have been seen with a chance of 80 %.
    NoDifference,
    /// There are not enough members yet: about this many more are needed.
    NotEnough {
        /// How many more, of both groups together.
        more: f64,
    },
}

/// The cells of a stratum, as numbers.
#[derive(Default)]
struct Cells {
    group_failed: f64,
    group_passed: f64,
    reference_failed: f64,
    reference_passed: f64,
}

impl Cells {
    fn of(stratum: &Stratum) -> Self {
        let passed = |it: Failures| f64::from(it.of.saturating_sub(it.failed));
        Self {
            group_failed: f64::from(stratum.group.failed),
            group_passed: passed(stratum.group),
            reference_failed: f64::from(stratum.reference.failed),
            reference_passed: passed(stratum.reference),
        }
    }

    fn group(&self) -> f64 {
        self.group_failed + self.group_passed
    }

    fn reference(&self) -> f64 {
        self.reference_failed + self.reference_passed
    }

    fn failed(&self) -> f64 {
        self.group_failed + self.reference_failed
    }

    fn all(&self) -> f64 {
        self.group() + self.reference()
    }

    /// A stratum with members of one group alone says nothing about the other.
    fn compare(&self) -> bool {
        self.group() > 0.0 && self.reference() > 0.0
    }

    /// The variance of the number of the group's failures that equal odds would give: how much the members show.
    fn variance(&self) -> f64 {
        let all = self.all();
        let failure_rate = self.failed() / all;
        self.group() * self.reference() / all * failure_rate * (1.0 - failure_rate)
    }

    fn add(&mut self, other: &Self) {
        self.group_failed += other.group_failed;
        self.group_passed += other.group_passed;
        self.reference_failed += other.reference_failed;
        self.reference_passed += other.reference_passed;
    }
}

/// The odds ratio that all strata have in common; `None` if the strata with both groups cannot give one, since no
/// member of a group failed, or none passed.
///
/// With the cells `a`, `b` (the group's failed and passed), `c`, `d` (the reference's) and `n` of each stratum,
/// `R = ad/n`, `S = bc/n`, `P = (a + d)/n` and `Q = (b + c)/n`, summed over the strata:
///
/// ```text
/// ratio            ΣR / ΣS
/// variance of ln   ΣPR / 2(ΣR)² + Σ(PS + QR) / 2 ΣR ΣS + ΣQS / 2(ΣS)²
/// ```
///
/// Sources: Mantel and Haenszel, "Statistical aspects of the analysis of data from retrospective studies of disease"
/// (1959); the variance, which holds for few large strata and for many small ones, by Robins, Breslow and Greenland,
/// "Estimators of the Mantel-Haenszel variance consistent in both sparse data and large-strata limiting models"
/// (1986).
fn mantel_haenszel(strata: &[Stratum]) -> Option<OddsRatio> {
    let (mut up, mut down) = (0.0, 0.0);
    let (mut of_up, mut of_both, mut of_down) = (0.0, 0.0, 0.0);
    for cells in strata.iter().map(Cells::of).filter(Cells::compare) {
        let all = cells.all();
        let agreeing = (cells.group_failed + cells.reference_passed) / all;
        let differing = (cells.group_passed + cells.reference_failed) / all;
        let for_group = cells.group_failed * cells.reference_passed / all;
        let for_reference = cells.group_passed * cells.reference_failed / all;
        up += for_group;
        down += for_reference;
        of_up += agreeing * for_group;
        of_both += agreeing * for_reference + differing * for_group;
        of_down += differing * for_reference;
    }
    if up <= 0.0 || down <= 0.0 {
        return None;
    }
    let variance =
        of_up / (2.0 * up * up) + of_both / (2.0 * up * down) + of_down / (2.0 * down * down);
    let (ratio, factor) = (up / down, (DEVIATE * variance.sqrt()).exp());
    Some(OddsRatio {
        ratio,
        interval: Interval {
            low: ratio / factor,
            high: ratio * factor,
        },
    })
}

/// How far the number of the group's failures that equal odds would give is from the least and from the most that
/// the numbers of each stratum allow.
///
/// Below 5 the normal approximation does not hold. Source: Mantel and Fleiss, "Minimum expected cell size
/// requirements for the Mantel-Haenszel one-degree-of-freedom chi-square test and a related rapid procedure" (1980).
fn range(strata: &[Stratum]) -> f64 {
    let (mut expected, mut least, mut most) = (0.0, 0.0, 0.0);
    for cells in strata.iter().map(Cells::of).filter(Cells::compare) {
        expected += cells.group() * cells.failed() / cells.all();
        least += (cells.failed() - cells.reference()).max(0.0);
        most += cells.group().min(cells.failed());
    }
    f64::min(expected - least, most - expected)
}

/// The odds ratio that all strata have in common, if its interval is valid by the rule of Mantel and Fleiss.
#[must_use]
pub fn odds_ratio(strata: &[Stratum]) -> Option<OddsRatio> {
    mantel_haenszel(strata).filter(|_| range(strata) >= LEAST_RANGE)
}

/// How many members both groups need together, so that a given odds ratio is seen with a chance of 80 % by a
/// two-sided test of 5 %.
///
/// `share` is the group's share of the members, `rate` the reference's share of failures; each between 0 and 1.
/// With `k` members of the reference to one of the group, `p` the failure rate of the group at that odds ratio, `r`
/// that of the reference and `m = (p + k r)/(1 + k)`, the group needs
///
/// ```text
/// (z √((1 + 1/k) m(1 - m)) + z' √(p(1 - p) + r(1 - r)/k))² / (p - r)²
/// ```
///
/// Source: Fleiss, Levin and Paik, "Statistical methods for rates and proportions" (2003), section 4.2, without
/// continuity correction. For groups of equal size it is R's `power.prop.test`. It holds for one stratum.
#[must_use]
pub fn members_needed(share: f64, rate: f64, odds_ratio: f64) -> f64 {
    let times = (1.0 - share) / share;
    let other_rate = odds_ratio * rate / (1.0 + rate * (odds_ratio - 1.0));
    let mean = (other_rate + times * rate) / (1.0 + times);
    let spread = |rate: f64| rate * (1.0 - rate);
    let equal = ((1.0 + 1.0 / times) * spread(mean)).sqrt();
    let unequal = (spread(other_rate) + spread(rate) / times).sqrt();
    let of_group = ((DEVIATE * equal + POWER * unequal) / (other_rate - rate)).powi(2);
    of_group * (1.0 + times)
}

/// What the strata show about the group.
///
/// A difference is found if the interval of [`odds_ratio`] leaves out 1. If none is found, the numbers are enough only if they would have shown twice the odds with a chance of
/// 80 %. The members that strata with one group alone have do not count for this. More members than in one stratum are
/// needed by as much as the strata together have less variance: where one group is rare, the other's members show
/// little. Source: Cochran, "Some methods for strengthening the common χ² tests" (1954), whose test has this variance.
#[must_use]
pub fn finding(strata: &[Stratum]) -> Finding {
    let range = range(strata);
    let is_valid = range >= LEAST_RANGE;
    match odds_ratio(strata).map(|it| it.interval) {
        Some(Interval { low, .. }) if low > 1.0 => return Finding::More,
        Some(Interval { high, .. }) if high < 1.0 => return Finding::Fewer,
        _ => {}
    }
    let (mut as_one, mut variance) = (Cells::default(), 0.0);
    for cells in strata.iter().map(Cells::of).filter(Cells::compare) {
        as_one.add(&cells);
        variance += cells.variance();
    }
    let compared = as_one.all();
    // One of each more, so that neither a share nor a rate is 0 or 1.
    let share = (as_one.group() + 1.0) / (compared + 2.0);
    let rate = (as_one.reference_failed + 0.5) / (as_one.reference() + 1.0);
    let mut needed = members_needed(share, rate, SOUGHT);
    if variance > 0.0 {
        needed *= as_one.variance() / variance;
    }
    if range > 0.0 {
        needed = needed.max(compared * LEAST_RANGE / range);
    }
    let more = (needed - compared).ceil();
    if is_valid && more <= 0.0 {
        Finding::NoDifference
    } else {
        Finding::NotEnough {
            more: more.max(1.0),
        }
    }
}

#[cfg(test)]
mod tests;
