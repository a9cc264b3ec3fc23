use super::*;

#[test]
fn the_stricter_of_two_is_taken_field_by_field() {
    let a = Strictness {
        max_false_rollback: 0.05,
        max_false_promotion: 0.1,
        tolerated_ratio: 1.5,
        tolerated_difference: 0.0,
        margin_ratio: 2.0,
        margin_difference: 0.001,
        extend_at_most: Duration::minutes(5),
        on_scarce_evidence: OnScarceEvidence::Promote,
        switch_without_evidence: true,
        wait_at_most: Duration::minutes(5),
    };
    let b = Strictness {
        max_false_rollback: 0.01,
        max_false_promotion: 0.05,
        tolerated_ratio: 1.1,
        tolerated_difference: 0.1,
        margin_ratio: 1.5,
        margin_difference: 0.005,
        extend_at_most: Duration::minutes(60),
        on_scarce_evidence: OnScarceEvidence::Hold,
        switch_without_evidence: false,
        wait_at_most: Duration::minutes(60),
    };
    let both = Strictness {
        max_false_promotion: 0.05,
        tolerated_ratio: 1.1,
        margin_ratio: 1.5,
        extend_at_most: Duration::minutes(60),
        on_scarce_evidence: OnScarceEvidence::Hold,
        switch_without_evidence: false,
        ..a
    };
    assert_eq!(
        (stricter(a, b), stricter(b, a), stricter(a, a)),
        (both, both, a)
    );
}

#[test]
fn the_strictest_steps_hold_the_lesser_weight_and_require_the_more_at_every_moment() {
    for (a, b, both) in [
        (vec![], vec![], vec![]),
        (vec![signed(5, 10, "a")], vec![], vec![signed(5, 10, "a")]),
        // The stricter one comes out as it is, not cut up at the times of the other.
        (
            vec![step(1, 10), step(5, 10)],
            vec![step(5, 5), step(25, 5), step(50, 5)],
            vec![step(1, 10), step(5, 10)],
        ),
        (
            vec![step(5, 10), step(50, 10)],
            vec![step(10, 15), step(20, 10)],
            vec![step(5, 10), step(10, 5), step(20, 10)],
        ),
        (
            vec![with_requests(5, 10, 1)],
            vec![with_requests(50, 5, 9), with_requests(60, 10, 3)],
            vec![
                with_requests(5, 5, 9),
                with_requests(5, 5, 3),
                with_requests(60, 5, 3),
            ],
        ),
        // A sign-off keeps its moment, though the weight does not change there.
        (
            vec![step(5, 20)],
            vec![step(10, 10), signed(50, 5, "a")],
            vec![step(5, 10), signed(5, 10, "a")],
        ),
        (
            vec![signed(5, 10, "b")],
            vec![signed(50, 10, "a")],
            vec![Step {
                sign_off: vec![people(1, &["a"]), people(1, &["b"])],
                ..step(5, 10)
            }],
        ),
        // One more step of the same weight is stricter than one less.
        (
            vec![step(1, 20)],
            vec![step(1, 10), step(1, 10)],
            vec![step(1, 10), step(1, 10)],
        ),
    ] {
        assert_eq!(strictest_steps(&a, &b), both, "{a:?} and {b:?}");
        assert_eq!(strictest_steps(&b, &a), both, "{b:?} and {a:?}");
    }
}

#[test]
fn steps_that_do_not_bake_are_met_in_their_order_and_keep_their_sign_offs() {
    for (a, b, both) in [
        (
            vec![with_requests(5, 0, 100), with_requests(50, 0, 100)],
            vec![with_requests(10, 0, 20)],
            vec![with_requests(5, 0, 100), with_requests(50, 0, 100)],
        ),
        (
            vec![step(1, 10)],
            vec![with_requests(10, 0, 9), with_requests(20, 0, 9)],
            vec![with_requests(1, 0, 9), with_requests(1, 0, 9), step(1, 10)],
        ),
        (
            vec![with_requests(1, 10, 9)],
            vec![with_requests(10, 0, 9), with_requests(20, 0, 9)],
            vec![with_requests(1, 10, 9)],
        ),
        (
            vec![step(1, 10)],
            vec![signed(10, 0, "a"), signed(20, 0, "b"), step(30, 0)],
            vec![signed(1, 0, "a"), signed(1, 10, "b")],
        ),
        (
            vec![step(1, 5), step(9, 5)],
            vec![step(3, 5), signed(4, 0, "a"), signed(5, 9, "b")],
            vec![step(1, 5), signed(4, 0, "a"), signed(5, 9, "b")],
        ),
    ] {
        assert_eq!(strictest_steps(&a, &b), both, "{a:?} and {b:?}");
        assert_eq!(strictest_steps(&b, &a), both, "{b:?} and {a:?}");
    }
}

proptest! {
    #[test]
    fn law_7_the_strictest_steps_are_as_strict_as_either_and_no_stricter_than_needed(
        a in some_steps(0..8), b in some_steps(0..8),
    ) {
        let both = strictest_steps(&a, &b);
        prop_assert!(both.iter().is_sorted_by_key(|it| it.weight), "{both:?}");
        prop_assert!(both.len() <= a.len() + b.len());
        for moment in moments(&[&a, &b, &both]) {
            let (of_a, of_b, of_both) = (at(&a, moment), at(&b, moment), at(&both, moment));
            prop_assert_eq!(of_both.0, of_a.0.min(of_b.0), "weight at {:?}", moment);
            prop_assert_eq!(of_both.1, of_a.1.max(of_b.1), "requests at {:?}", moment);
            prop_assert_eq!(of_both.2, &of_a.2 | &of_b.2, "sign-off at {:?}", moment);
        }
    }

    #[test]
    fn the_strictest_steps_depend_neither_on_order_nor_on_repetition(
        a in some_steps(0..7), b in some_steps(0..7), c in some_steps(0..7),
    ) {
        let both = strictest_steps(&a, &b);
        prop_assert_eq!(&both, &strictest_steps(&b, &a), "commutative");
        prop_assert_eq!(strictest_steps(&both, &c), strictest_steps(&a, &strictest_steps(&b, &c)), "associative");
        prop_assert_eq!(&strictest_steps(&a, &a), &a, "idempotent");
        prop_assert_eq!(&strictest_steps(&both, &a), &both, "absorbing");
        prop_assert_eq!(&strictest_steps(&a, &[]), &a, "the empty list is neutral");
    }

    #[test]
    fn steps_that_are_stricter_everywhere_come_out_unchanged(
        a in some_steps(1..8), more in 1_i32..9, kept in vec(any::<bool>(), 8), sooner in 1_u32..4,
    ) {
        let looser = |step: &Step| Step {
            weight: (step.weight + more).min(99),
            bake: (step.bake.std() / sooner).into(),
            ..Step::default()
        };
        let b: Vec<_> = a.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(it, _)| looser(it)).collect();
        prop_assert_eq!(strictest_steps(&a, &b), a);
    }
}
