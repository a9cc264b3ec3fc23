use proptest::prelude::*;

use super::*;

fn stratum(group: (u32, u32), reference: (u32, u32)) -> Stratum {
    let failures = |(failed, passed)| Failures {
        failed,
        of: failed + passed,
    };
    Stratum {
        group: failures(group),
        reference: failures(reference),
    }
}

/// Admitted and rejected men and women, by department: Bickel, Hammel and O'Connell, "Sex bias in graduate
/// admissions: data from Berkeley" (1975), the data set `UCBAdmissions` of R.
fn admissions() -> Vec<Stratum> {
    vec![
        stratum((512, 313), (89, 19)),
        stratum((353, 207), (17, 8)),
        stratum((120, 205), (202, 391)),
        stratum((138, 279), (131, 244)),
        stratum((53, 138), (94, 299)),
        stratum((22, 351), (24, 317)),
    ]
}

#[test]
fn the_published_common_odds_ratio_is_found() {
    // `mantelhaen.test(UCBAdmissions)` of R.
    let found = mantel_haenszel(&admissions()).unwrap();
    for (value, expected) in [
        (found.ratio, 0.904_696_8),
        (found.interval.low, 0.771_907_4),
        (found.interval.high, 1.060_329_8),
    ] {
        assert!((value - expected).abs() < 1e-6, "{found:?}");
    }
    assert_eq!(finding(&admissions()), Finding::NoDifference);
}

/// Without strata men seem to be admitted more often: what the departments explain is no difference.
#[test]
fn what_the_strata_explain_is_no_difference() {
    let sum = admissions().iter().fold(Stratum::default(), |sum, it| {
        let add = |a: Failures, b: Failures| Failures {
            failed: a.failed + b.failed,
            of: a.of + b.of,
        };
        Stratum {
            group: add(sum.group, it.group),
            reference: add(sum.reference, it.reference),
        }
    });
    assert_eq!(finding(&[sum]), Finding::More);
}

#[test]
fn the_published_numbers_are_needed() {
    // `power.prop.test` of R: p1 = 0.25 and p2 = 0.40 need 151.87 in each group, 0.50 and 0.75 need 57.67.
    for (rate, odds_ratio, of_each) in [(0.25, 2.0, 151.868_9), (0.5, 3.0, 57.673_4)] {
        let needed = members_needed(0.5, rate, odds_ratio);
        assert!((needed / 2.0 - of_each).abs() < 1e-3, "{needed}");
    }
    assert!(members_needed(0.1, 0.1, 2.0) > members_needed(0.5, 0.1, 2.0));
    assert!(members_needed(0.5, 0.01, 2.0) > members_needed(0.5, 0.1, 2.0));
}

#[test]
fn few_members_are_not_enough_whatever_their_share_of_failures() {
    for strata in [
        vec![],
        vec![stratum((3, 0), (0, 9))],
        vec![stratum((1, 9), (1, 9))],
        vec![stratum((30, 70), (0, 0)), stratum((0, 0), (5, 95))],
    ] {
        let found = finding(&strata);
        assert!(
            matches!(found, Finding::NotEnough { more } if more >= 1.0),
            "{strata:?}: {found:?}"
        );
    }
    assert_eq!(mantel_haenszel(&[stratum((3, 0), (0, 9))]), None);
    assert_eq!(finding(&[stratum((40, 60), (10, 90))]), Finding::More);
    assert_eq!(finding(&[stratum((10, 90), (40, 60))]), Finding::Fewer);
}

#[test]
fn an_odds_ratio_of_few_failures_is_not_given() {
    let few = [stratum((4, 16), (4, 16))];
    assert!(mantel_haenszel(&few).is_some());
    assert_eq!(odds_ratio(&few), None);
    let enough = [stratum((5, 15), (5, 15))];
    assert_eq!(odds_ratio(&enough), mantel_haenszel(&enough));
    assert!(odds_ratio(&enough).is_some());
}

/// The odds ratio of the stratum with both groups is 1.0 (0.38 to 2.63), far from leaving 2 out.
#[test]
fn members_without_a_counterpart_do_not_make_a_comparison_large() {
    let alone = stratum((60, 140), (0, 0));
    let both = stratum((6, 14), (240, 560));
    let found = finding(&[alone, both]);
    // Of 2,684 members with a share of 21/822 and the reference's rate of 240.5/801, 820 are there.
    assert_eq!(found, Finding::NotEnough { more: 1_864.0 });
    assert_eq!(found, finding(&[both]));
}

/// Taken as one, the members would be enough: half of them are of each group, and 562 are needed. But with a
/// tenth of the one group in each stratum, 562 members show twice the odds with a chance of 38 %, and 1,561 with
/// one of 81 %, in a simulation.
#[test]
fn unequal_shares_of_the_strata_need_more_members() {
    let strata = [stratum((5, 45), (45, 405)), stratum((45, 405), (5, 45))];
    assert_eq!(finding(&strata), Finding::NotEnough { more: 561.0 });
}

fn strata() -> impl Strategy<Value = Vec<Stratum>> {
    let group = || (0_u32..40, 0_u32..40);
    let one = (group(), group()).prop_map(|(group, reference)| stratum(group, reference));
    proptest::collection::vec(one, 0..6)
}

proptest! {
    #[test]
    fn changing_the_groups_places_turns_the_ratio_over(strata in strata()) {
        let turned: Vec<_> = strata
            .iter()
            .map(|it| Stratum { group: it.reference, reference: it.group })
            .collect();
        match (mantel_haenszel(&strata), mantel_haenszel(&turned)) {
            (Some(one), Some(other)) => {
                prop_assert!((one.ratio * other.ratio - 1.0).abs() < 1e-9);
                prop_assert!((one.interval.low * other.interval.high - 1.0).abs() < 1e-9);
                prop_assert!(one.interval.low <= one.ratio && one.ratio <= one.interval.high);
            }
            (one, other) => prop_assert_eq!((one, other), (None, None)),
        }
        let (found, of_turned) = (finding(&strata), finding(&turned));
        prop_assert_eq!(found == Finding::More, of_turned == Finding::Fewer);
    }

    #[test]
    fn the_number_that_is_missing_is_finite(strata in strata()) {
        if let Finding::NotEnough { more } = finding(&strata) {
            prop_assert!(more.is_finite() && more >= 1.0);
        }
    }
}
