use proptest::prelude::*;

use super::*;

fn limits(desired: i32, surge: &str, unavailable: &str) -> Limits {
    Limits::new(
        desired,
        &IntOrString::String(surge.into()),
        &IntOrString::String(unavailable.into()),
    )
}

#[test]
fn a_weight_becomes_the_largest_number_of_pods_that_does_not_pass_it() {
    for (desired, surge, weight, stable, canary) in [
        (20, "100%", 5, 20, 1),
        (20, "100%", 50, 20, 20),
        (20, "100%", 25, 20, 6),
        (10, "100%", 5, 10, 1), // one of eleven: no smaller number serves
        (10, "25%", 50, 7, 6),  // 13 pods may exist, stable gives up three
        (10, "0%", 50, 5, 5),
        (1, "0%", 5, 1, 1), // one pod beyond the surge, or nothing could be compared
        (1, "100%", 5, 1, 1),
        (0, "100%", 50, 0, 0),
        (10, "100%", 0, 10, 0),
        (10, "100%", 100, 0, 10),
    ] {
        let split = goal(limits(desired, surge, "25%"), weight, 0);
        assert_eq!(
            split,
            Split { stable, canary },
            "{desired} pods, surge {surge}, weight {weight}"
        );
    }
}

#[test]
fn percentages_round_as_a_deployment_rounds_them() {
    assert_eq!(
        limits(10, "25%", "25%"),
        Limits {
            desired: 10,
            surge: 3,
            unavailable: 2,
            share: Share::Pods,
        }
    );
    assert_eq!(
        limits(1, "25%", "25%"),
        Limits {
            desired: 1,
            surge: 1,
            unavailable: 0,
            share: Share::Pods,
        }
    );
    assert_eq!(
        limits(2, "0%", "25%"),
        Limits {
            desired: 2,
            surge: 0,
            unavailable: 1,
            share: Share::Pods,
        }
    );
    assert_eq!(
        limits(3, "junk", "junk"),
        Limits {
            desired: 3,
            surge: 0,
            unavailable: 1,
            share: Share::Pods,
        }
    );
}

#[test]
fn a_rollback_takes_the_canary_away_at_once_where_stable_can_carry_everything() {
    let present = Present {
        stable: Pods {
            requested: 10,
            available: 10,
        },
        canary: Pods {
            requested: 10,
            available: 10,
        },
        others: vec![],
    };
    let limits = limits(10, "100%", "0%");
    assert_eq!(
        next(limits, 0, goal(limits, 0, 0), &present),
        Next {
            stable: 10,
            canary: 0,
            others: vec![]
        }
    );
}

#[test]
fn a_rollback_moves_at_once_what_stable_can_carry_and_the_rest_as_it_grows() {
    let limits = limits(10, "20%", "0%");
    let present = Present {
        stable: Pods {
            requested: 6,
            available: 6,
        },
        canary: Pods {
            requested: 6,
            available: 6,
        },
        others: vec![],
    };
    let first = next(limits, 0, goal(limits, 0, 0), &present);
    assert_eq!((first.stable, first.canary), (6, 4));
    let present = Present {
        canary: Pods {
            requested: 4,
            available: 4,
        },
        ..present
    };
    let second = next(limits, 0, goal(limits, 0, 0), &present);
    assert_eq!((second.stable, second.canary), (8, 4));
}

#[test]
fn broken_stable_pods_do_not_keep_a_fix_from_being_promoted() {
    let limits = limits(4, "100%", "0%");
    let present = Present {
        stable: Pods {
            requested: 4,
            available: 0,
        },
        canary: Pods {
            requested: 4,
            available: 4,
        },
        others: vec![],
    };
    assert_eq!(next(limits, 100, goal(limits, 100, 0), &present).stable, 0);
}

fn pods() -> impl Strategy<Value = Pods> {
    (0..60i32, 0..60i32).prop_map(|(requested, available)| Pods {
        requested,
        available: available.min(requested),
    })
}

/// Any state, run to its end: pods become available one round after they were requested.
fn settle(limits: Limits, weight: i32, mut present: Present) -> (Present, Vec<Present>) {
    let goal = goal(limits, weight, 0);
    let mut seen = vec![present.clone()];
    for _ in 0..2_000 {
        let next = next(limits, weight, goal, &present);
        let after = |requested: i32, before: Pods| Pods {
            requested,
            available: before.requested.min(requested),
        };
        let moved = Present {
            stable: after(next.stable, present.stable),
            canary: after(next.canary, present.canary),
            others: next
                .others
                .iter()
                .zip(&present.others)
                .map(|(n, p)| after(*n, *p))
                .collect(),
        };
        if moved == present {
            break;
        }
        present = moved;
        seen.push(present.clone());
    }
    (present, seen)
}

proptest! {
    #[test]
    fn law_1_the_goal_never_passes_the_weight_unless_one_pod_is_the_least(
        desired in 1..200i32, surge in 0..200i32, unavailable in 0..5i32, weight in 1..100i32,
    ) {
        let limits = Limits::new(desired, &IntOrString::Int(surge), &IntOrString::Int(unavailable));
        let Split { stable, canary } = goal(limits, weight, 0);
        prop_assert!(stable >= 1 && canary >= 1);
        prop_assert!(canary == 1 || canary * 100 <= weight * (stable + canary));
        prop_assert!(stable + canary <= (limits.desired + limits.surge).max(2));
    }

    #[test]
    fn with_routes_each_side_has_the_pods_that_its_share_needs(
        desired in 1..200i32, surge in 0..200i32, weight in 0..100i32, scale in 0..=100i32, alone in any::<bool>(),
    ) {
        let share = if alone { Share::RoutesAlone } else { Share::Routes };
        let limits = Limits::new(desired, &IntOrString::Int(surge), &IntOrString::Int(0)).with(share);
        let Split { stable, canary } = goal(limits, weight, scale);
        prop_assert!(stable >= part(desired, 100 - weight).min(desired), "law 4");
        if weight > 0 || scale > 0 {
            prop_assert!(canary >= canary_for(limits, weight));
        }
        // Rounding up on both sides allows one pod more.
        prop_assert!(stable + canary <= limits.at_most() + 1);
        if !alone && surge >= desired {
            prop_assert!(stable == desired && (scale == 0 || canary >= part(desired, scale)));
        }
    }

    #[test]
    fn laws_1_and_4_hold_on_the_way_from_anywhere_to_any_weight(
        desired in 1..40i32, surge in 0..40i32, unavailable in 0..4i32, weight in 0..=100i32,
        stable in pods(), canary in pods(), other in pods(),
    ) {
        let limits = Limits::new(desired, &IntOrString::Int(surge), &IntOrString::Int(unavailable));
        let start = Present { stable, canary, others: vec![other] };
        let goal = goal(limits, weight, 0);
        let (end, seen) = settle(limits, weight, start);
        prop_assert_eq!((end.stable.requested, end.canary.requested, end.others[0].requested), (goal.stable, goal.canary, 0));
        for pair in seen.windows(2) {
            let available = |p: &Present| p.stable.available + p.canary.available + p.others[0].available;
            let lost = available(&pair[1]) < available(&pair[0]);
            prop_assert!(!lost || available(&pair[1]) >= limits.desired - limits.unavailable, "{pair:?}");
            prop_assert!(pair[1].canary.requested <= pair[0].canary.requested.max(goal.canary));
        }
    }
}
