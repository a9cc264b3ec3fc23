//! Weights, surge and capacity as numbers of pods.
//!
//! Without routes a revision's share of the traffic is its share of the available pods. With routes its
//! number of pods follows from its share.

pub mod present;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Upper and lower bounds on the number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pods that the workload requests.
    pub desired: i32,
    /// Pods allowed beyond `desired`.
    pub surge: i32,
    /// Pods of `desired` that may be unavailable.
    pub unavailable: i32,
    /// How the canary gets its share.
    pub share: Share,
}

/// How the canary gets its share of the traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// Its share of the pods.
    #[default]
    Pods,
    /// Named Services without routes: stable's Service may carry everything until it moves, so stable
    /// keeps all its pods until the promotion.
    Services,
    /// Routes; stable keeps all its pods.
    Routes,
    /// Routes; stable gives up the pods that its share no longer needs.
    RoutesAlone,
}

impl Limits {
    /// Resolves percentages as a Deployment does: surge is rounded up, unavailability down. One pod may be
    /// unavailable if both would be 0.
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
            share: Share::Pods,
        }
    }

    /// The same limits with another kind of share.
    #[must_use]
    pub const fn with(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Pods that may exist.
    #[must_use]
    pub const fn at_most(self) -> i32 {
        self.desired.saturating_add(self.surge)
    }

    /// Pods that must be available at all times.
    #[must_use]
    pub const fn at_least(self) -> i32 {
        self.desired.saturating_sub(self.unavailable)
    }
}

/// Resolves a number of pods; a percentage of `desired` is rounded by adding `rounding` hundredths.
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

impl Split {
    /// Pods of both; a made-up status may have more than can be counted.
    #[must_use]
    pub const fn total(self) -> i32 {
        self.stable.saturating_add(self.canary)
    }
}

/// Pods of one ReplicaSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Requested pods.
    pub requested: i32,
    /// Available pods, counting at most the requested ones.
    pub available: i32,
}

impl Pods {
    /// Pods whose removal takes no capacity away.
    const fn idle(self) -> i32 {
        let idle = self.requested - self.available;
        if idle > 0 { idle } else { 0 }
    }
}

/// The largest number of canary pods whose share beside `stable` pods is at most `weight`; at least one,
/// since no smaller number can serve.
#[must_use]
pub fn canary_beside(stable: i32, weight: i32) -> i32 {
    if weight >= 100 {
        return i32::MAX;
    }
    let pods = i64::from(weight.max(0)) * i64::from(stable.max(0)) / i64::from(100 - weight.max(0));
    i32::try_from(pods).unwrap_or(i32::MAX).max(1)
}

/// Pods that a share of the traffic needs, rounded up.
#[must_use]
pub fn part(desired: i32, percent: i32) -> i32 {
    let percent = i64::from(percent.clamp(0, 100));
    let pods = (i64::from(desired.max(0)) * percent + 99) / 100;
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// Canary pods that must be ready before routes give it a share; at least one if any are requested.
#[must_use]
pub fn canary_for(limits: Limits, share: i32) -> i32 {
    let full = limits.desired - limits.unavailable;
    part(limits.desired, share)
        .min(full.max(1))
        .max(limits.desired.min(1))
}

/// Whether the available pods are too few for a share in percent, allowing the same fraction of them to be
/// unavailable as of the workload.
#[must_use]
pub fn is_short(limits: Limits, share: i32, available: i32) -> bool {
    let needed = i64::from(part(limits.desired, share)) * i64::from(limits.at_least());
    i64::from(available) * i64::from(limits.desired) < needed
}

/// Share of the traffic, in percent, that the available pods can carry.
#[must_use]
pub fn carried(available: i32, limits: Limits) -> i32 {
    if available >= limits.at_least().max(1) {
        return 100;
    }
    let share = i64::from(available.max(0)) * 100 / i64::from(limits.desired.max(1));
    i32::try_from(share).unwrap_or(100)
}

/// Stable pods that must stay beside the available canary pods at a share in percent. Shares are whole
/// percents: capacity of the canary beyond its share does not keep a stable pod, since with little surge
/// that pod would block the growth of the share.
#[must_use]
pub fn stable_for(limits: Limits, share: i32, canary: i32) -> i32 {
    let carriers = canary.min(part(limits.desired, share.saturating_add(1)) - 1);
    let needed = part(limits.desired, 100 - share).min(limits.desired - carriers);
    (needed - limits.unavailable).max(needed.min(1))
}

/// The split for a weight in percent, with a canary of at least `scale` percent.
#[must_use]
pub fn goal(limits: Limits, weight: i32, scale: i32) -> Split {
    let (desired, ahead) = (limits.desired, part(limits.desired, scale));
    match limits.share {
        Share::Pods if weight > 0 || scale == 0 => by_pods(limits, weight),
        Share::Services => beside_stable(limits, weight, ahead),
        _ if desired == 0 || (weight <= 0 && scale == 0) => Split {
            stable: desired,
            canary: 0,
        },
        share => {
            let needed = part(desired, 100 - weight).max(1);
            let kept = if share == Share::RoutesAlone {
                needed
            } else {
                desired
            };
            // A canary larger than its share needs must fit beside the pods that stable needs.
            let room = (limits.at_most() - needed)
                .max(part(desired, weight))
                .max(1);
            let canary = part(desired, weight).max(ahead).clamp(1, room);
            Split {
                stable: kept.min(limits.at_most() - canary).max(needed),
                canary,
            }
        }
    }
}

/// The split if stable keeps all its pods: the canary is limited to the surge, except at the switch, when
/// it has its full size.
fn beside_stable(limits: Limits, weight: i32, ahead: i32) -> Split {
    let desired = limits.desired;
    let canary = match weight {
        100.. => desired,
        1.. => canary_beside(desired, weight).min(limits.surge.max(1)),
        _ => ahead.min(limits.surge.max(1)),
    };
    Split {
        stable: desired,
        canary: canary.min(desired),
    }
}

/// The split if a revision's share is its share of the pods.
///
/// The stable revision keeps all its pods while the surge has room for the canary's; otherwise the allowed
/// pods are divided by the weight. One pod beyond the surge is allowed if only one revision could serve
/// otherwise.
fn by_pods(limits: Limits, weight: i32) -> Split {
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

/// The split of a workload that may have been scaled meanwhile: if it has too few or too many pods, both
/// sides are scaled alike. The size of `begun` is always allowed.
#[must_use]
pub fn scaled(limits: Limits, begun: Split, split: Split) -> Split {
    let total = split.total();
    let most = limits.at_most().max(begun.total());
    let wanted = if total < limits.at_least() {
        limits.desired
    } else {
        total.min(most)
    };
    if total <= 0 || wanted == total {
        return split;
    }
    let canary = i64::from(split.canary) * i64::from(wanted) / i64::from(total);
    let canary = i32::try_from(canary).unwrap_or(wanted);
    let canary = canary.max(split.canary.min(1)).min(wanted);
    Split {
        stable: wanted - canary,
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

/// The present pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The stable revision's pods.
    pub stable: Pods,
    /// The canary's pods.
    pub canary: Pods,
    /// Pods of revisions that are no longer needed.
    pub others: Vec<Pods>,
}

/// The pods to request next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// Pods of the stable revision.
    pub stable: i32,
    /// Pods of the canary.
    pub canary: i32,
    /// Pods of revisions that are no longer needed, in the order given.
    pub others: Vec<i32>,
}

/// The largest number of canary pods beside these stable pods.
#[must_use]
pub fn balanced(limits: Limits, stable: i32, weight: i32) -> i32 {
    if matches!(limits.share, Share::Pods | Share::Services) && weight > 0 {
        canary_beside(stable, weight)
    } else {
        i32::MAX
    }
}

/// The next step from `present` towards `goal`: pods are added as far as the surge has room, stable's
/// first, and removed as far as enough pods stay available, pods that are no longer needed first.
///
/// If a revision's share is its share of the pods, the canary grows no faster than stable can balance it at
/// `weight`. If both shrink, the canary shrinks first, so that its share never exceeds the weight. At
/// weight 0 its pods receive no requests.
#[must_use]
pub fn next(limits: Limits, weight: i32, goal: Split, present: &Present) -> Next {
    let Present {
        stable,
        canary,
        others,
    } = present;
    let all = || [stable, canary].into_iter().chain(others);
    let sum = |of: fn(&Pods) -> i32| all().map(of).fold(0, i32::saturating_add);
    let requested = sum(|pods| pods.requested);
    let mut room = limits.at_most().max(goal.total()) - requested;
    let mut grow = |pods: &Pods, goal: i32| {
        let added = (goal - pods.requested).min(room).max(0);
        room -= added;
        added
    };
    let stable_added = grow(stable, goal.stable);
    let balanced = goal.canary.min(balanced(limits, stable.available, weight));
    let canary_added = grow(canary, balanced);

    let mut spare = (sum(|pods| pods.available) - limits.at_least()).max(0);
    let mut shrink = |pods: &Pods, goal: i32| {
        let removed = (pods.requested - goal)
            .min(pods.idle().saturating_add(spare))
            .max(0);
        spare -= (removed - pods.idle()).max(0);
        removed
    };
    let others = others
        .iter()
        .map(|pods| pods.requested - shrink(pods, 0))
        .collect();
    let canary_removed = shrink(canary, goal.canary);
    let stable_removed = if canary_removed > 0 {
        0
    } else {
        shrink(stable, goal.stable)
    };
    Next {
        stable: stable.requested + stable_added - stable_removed,
        canary: canary.requested + canary_added - canary_removed,
        others,
    }
}

#[cfg(test)]
mod tests;
