//! Weights, surge and capacity as numbers of pods.
//!
//! Without a router a revision's share of the traffic is its share of the available pods.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How many pods there may be and must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pods that the workload asks for.
    pub desired: i32,
    /// Pods allowed beyond `desired`.
    pub surge: i32,
    /// Pods of `desired` that may be unavailable.
    pub unavailable: i32,
}

impl Limits {
    /// Resolves percentages as a Deployment does: surge is rounded up, unavailability down, and one
    /// pod may be unavailable where both would be none.
    #[must_use]
    pub fn new(desired: i32, max_surge: &IntOrString, max_unavailable: &IntOrString) -> Self {
        let desired = desired.max(0);
        let surge = resolve(max_surge, desired, 99);
        let unavailable = resolve(max_unavailable, desired, 0).min(desired);
        let stuck = surge == 0 && unavailable == 0;
        Self {
            desired,
            surge,
            unavailable: if stuck { 1 } else { unavailable },
        }
    }

    const fn at_most(self) -> i32 {
        self.desired.saturating_add(self.surge)
    }

    const fn at_least(self) -> i32 {
        self.desired.saturating_sub(self.unavailable)
    }
}

/// A number of pods, where a percentage of `desired` is rounded by adding `rounding` hundredths.
fn resolve(value: &IntOrString, desired: i32, rounding: i64) -> i32 {
    match value {
        IntOrString::Int(count) => (*count).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let pods = (i64::from(desired) * percent.clamp(0, 1_000) + rounding) / 100;
            i32::try_from(pods).unwrap_or(i32::MAX)
        }
    }
}

/// Pods of the two revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Pods of the stable revision.
    pub stable: i32,
    /// Pods of the canary.
    pub canary: i32,
}

/// Pods of one ReplicaSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Pods asked for.
    pub asked: i32,
    /// Pods available.
    pub available: i32,
}

impl Pods {
    /// Pods whose removal takes no capacity away.
    const fn idle(self) -> i32 {
        let idle = self.asked - self.available;
        if idle > 0 { idle } else { 0 }
    }
}

/// The most canary pods whose share beside `stable` pods is at most `weight`; at least one, since
/// no smaller number can serve.
#[must_use]
pub fn canary_beside(stable: i32, weight: i32) -> i32 {
    if weight >= 100 {
        return i32::MAX;
    }
    let pods = i64::from(weight.max(0)) * i64::from(stable.max(0)) / i64::from(100 - weight.max(0));
    i32::try_from(pods).unwrap_or(i32::MAX).max(1)
}

/// The split that a weight in percent asks for.
///
/// The stable revision keeps all its pods while the surge has room for the canary's; where it has
/// not, the pods that may exist are divided by the weight. One pod beyond the surge is allowed where
/// otherwise only one revision could serve.
#[must_use]
pub fn goal(limits: Limits, weight: i32) -> Split {
    let desired = limits.desired;
    if weight <= 0 || desired == 0 {
        return Split {
            stable: desired,
            canary: 0,
        };
    }
    if weight >= 100 {
        return Split {
            stable: 0,
            canary: desired,
        };
    }
    let canary = canary_beside(desired, weight);
    if canary <= limits.surge {
        return Split {
            stable: desired,
            canary,
        };
    }
    let total = limits.at_most();
    let canary = i32::try_from(i64::from(total) * i64::from(weight) / 100)
        .unwrap_or(total)
        .max(1);
    Split {
        stable: (total - canary).clamp(1, desired),
        canary,
    }
}

/// Achieved share of the canary in percent of all available pods, rounded to the nearest.
#[must_use]
pub fn achieved(stable: i32, canary: i32) -> i32 {
    let total = stable.saturating_add(canary);
    if total <= 0 {
        0
    } else {
        (canary.saturating_mul(100) + total / 2) / total
    }
}

/// What is there now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The stable revision's pods.
    pub stable: Pods,
    /// The canary's pods.
    pub canary: Pods,
    /// Pods of revisions that are wanted no more.
    pub others: Vec<Pods>,
}

/// What to ask for next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// Pods of the stable revision.
    pub stable: i32,
    /// Pods of the canary.
    pub canary: i32,
    /// Pods of revisions that are wanted no more, in the order given.
    pub others: Vec<i32>,
}

/// The next step from what is there towards `goal`: pods are added as far as the surge has room,
/// stable's first, and removed as far as enough pods stay available, unwanted ones first.
///
/// The canary grows no faster than stable can balance it at `weight`, and where both shrink the
/// canary shrinks first, so that its share never passes the weight on the way.
#[must_use]
pub fn next(limits: Limits, weight: i32, goal: Split, present: &Present) -> Next {
    let Present {
        stable,
        canary,
        others,
    } = present;
    let asked = stable.asked + canary.asked + others.iter().map(|pods| pods.asked).sum::<i32>();
    let mut room = limits.at_most().max(goal.stable + goal.canary) - asked;
    let mut grow = |pods: &Pods, goal: i32| {
        let added = (goal - pods.asked).min(room).max(0);
        room -= added;
        added
    };
    let stable_added = grow(stable, goal.stable);
    let balanced = goal.canary.min(canary_beside(stable.available, weight));
    let canary_added = grow(canary, balanced);

    let available =
        stable.available + canary.available + others.iter().map(|pods| pods.available).sum::<i32>();
    let mut spare = (available - limits.at_least()).max(0);
    let mut shrink = |pods: &Pods, goal: i32| {
        let removed = (pods.asked - goal).min(pods.idle() + spare).max(0);
        spare -= (removed - pods.idle()).max(0);
        removed
    };
    let others = others
        .iter()
        .map(|pods| pods.asked - shrink(pods, 0))
        .collect();
    let canary_removed = shrink(canary, goal.canary);
    let stable_removed = if canary_removed > 0 {
        0
    } else {
        shrink(stable, goal.stable)
    };
    Next {
        stable: stable.asked + stable_added - stable_removed,
        canary: canary.asked + canary_added - canary_removed,
        others,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            let split = goal(limits(desired, surge, "25%"), weight);
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
                unavailable: 2
            }
        );
        assert_eq!(
            limits(1, "25%", "25%"),
            Limits {
                desired: 1,
                surge: 1,
                unavailable: 0
            }
        );
        assert_eq!(
            limits(2, "0%", "25%"),
            Limits {
                desired: 2,
                surge: 0,
                unavailable: 1
            }
        );
        assert_eq!(
            limits(3, "junk", "junk"),
            Limits {
                desired: 3,
                surge: 0,
                unavailable: 1
            }
        );
    }

    #[test]
    fn a_rollback_takes_the_canary_away_at_once_where_stable_can_carry_everything() {
        let present = Present {
            stable: Pods {
                asked: 10,
                available: 10,
            },
            canary: Pods {
                asked: 10,
                available: 10,
            },
            others: vec![],
        };
        let limits = limits(10, "100%", "0%");
        assert_eq!(
            next(limits, 0, goal(limits, 0), &present),
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
                asked: 6,
                available: 6,
            },
            canary: Pods {
                asked: 6,
                available: 6,
            },
            others: vec![],
        };
        let first = next(limits, 0, goal(limits, 0), &present);
        assert_eq!((first.stable, first.canary), (6, 4));
        let present = Present {
            canary: Pods {
                asked: 4,
                available: 4,
            },
            ..present
        };
        let second = next(limits, 0, goal(limits, 0), &present);
        assert_eq!((second.stable, second.canary), (8, 4));
    }

    #[test]
    fn broken_stable_pods_do_not_keep_a_fix_from_being_promoted() {
        let limits = limits(4, "100%", "0%");
        let present = Present {
            stable: Pods {
                asked: 4,
                available: 0,
            },
            canary: Pods {
                asked: 4,
                available: 4,
            },
            others: vec![],
        };
        assert_eq!(next(limits, 100, goal(limits, 100), &present).stable, 0);
    }

    fn pods() -> impl Strategy<Value = Pods> {
        (0..60i32, 0..60i32).prop_map(|(asked, available)| Pods {
            asked,
            available: available.min(asked),
        })
    }

    /// Any state, run to its end: pods become available one round after they were asked for.
    fn settle(limits: Limits, weight: i32, mut present: Present) -> (Present, Vec<Present>) {
        let goal = goal(limits, weight);
        let mut seen = vec![present.clone()];
        for _ in 0..2_000 {
            let next = next(limits, weight, goal, &present);
            let after = |asked: i32, before: Pods| Pods {
                asked,
                available: before.asked.min(asked),
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
            let Split { stable, canary } = goal(limits, weight);
            prop_assert!(stable >= 1 && canary >= 1);
            prop_assert!(canary == 1 || canary * 100 <= weight * (stable + canary));
            prop_assert!(stable + canary <= (limits.desired + limits.surge).max(2));
        }

        #[test]
        fn laws_1_and_4_hold_on_the_way_from_anywhere_to_any_weight(
            desired in 1..40i32, surge in 0..40i32, unavailable in 0..4i32, weight in 0..=100i32,
            stable in pods(), canary in pods(), other in pods(),
        ) {
            let limits = Limits::new(desired, &IntOrString::Int(surge), &IntOrString::Int(unavailable));
            let start = Present { stable, canary, others: vec![other] };
            let goal = goal(limits, weight);
            let (end, seen) = settle(limits, weight, start);
            prop_assert_eq!((end.stable.asked, end.canary.asked, end.others[0].asked), (goal.stable, goal.canary, 0));
            for pair in seen.windows(2) {
                let available = |p: &Present| p.stable.available + p.canary.available + p.others[0].available;
                let lost = available(&pair[1]) < available(&pair[0]);
                prop_assert!(!lost || available(&pair[1]) >= limits.desired - limits.unavailable, "{pair:?}");
                prop_assert!(pair[1].canary.asked <= pair[0].canary.asked.max(goal.canary));
            }
        }
    }
}
