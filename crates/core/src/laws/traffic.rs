//! Laws on pods and traffic.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::{Change, Stage};
use countersign_api::traffic::Router;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::decision::{AdoptionAction, Decision, WorkloadAction};
use crate::laws::queue;
use crate::observation::Observation;
use crate::observation::traffic::Route;

/// Whether an action gives a first revision pods that were not allowed before, for this template, however many others have
/// requested.
pub(super) fn gets_first_pods(
    observation: &Observation,
    change: &Change,
    action: &WorkloadAction,
) -> bool {
    let grows = |name: &str, replicas: i32| {
        let mut sets = observation.replica_sets.iter();
        sets.any(|set| {
            set.name == name && set.hash == change.pod_template_hash && set.replicas < replicas
        })
    };
    let before = observation.status.change.as_ref();
    let allowed = before.is_some_and(|before| {
        let same_pods = before.pod_template_hash == change.pod_template_hash;
        before.begun && (before.run == change.run || (before.initial && same_pods))
    });
    change.initial
        && change.outcome.is_none()
        && !allowed
        && match action {
            WorkloadAction::CreateReplicaSet(set) => {
                set.hash == change.pod_template_hash && set.replicas > 0
            }
            WorkloadAction::Scale {
                replica_set,
                replicas,
                ..
            } => grows(replica_set, *replicas),
            WorkloadAction::SetMinReadySeconds { .. }
            | WorkloadAction::Adopt { .. }
            | WorkloadAction::Release { .. }
            | WorkloadAction::DeleteReplicaSet { .. } => false,
        }
}

/// Serving pods that would be removed before others serve in their place.
pub(super) fn unlawful_handover(
    observation: &Observation,
    decision: &Decision,
    action: &AdoptionAction,
) -> Option<String> {
    let stable = decision.status.stable.as_ref();
    let sets = observation.replica_sets.iter().filter(|set| set.owned);
    let available = |hash: Option<&String>| -> i32 {
        let sets = sets
            .clone()
            .filter(|set| hash.is_none_or(|it| *it == set.hash));
        sets.map(|set| set.available.min(set.replicas)).sum()
    };
    let of_stable = stable.map_or(0, |stable| available(Some(&stable.pod_template_hash)));
    match action {
        AdoptionAction::ScaleWorkload(scale) if scale.replicas < scale.from => {
            let pods = Pods::of(observation);
            let least = pods.desired - pods.unavailable;
            let serves = of_stable > 0 && i64::from(available(None)) >= least;
            (!serves).then(|| format!("the adopted workload was scaled to {}", scale.replicas))
        }
        AdoptionAction::SetFinalizer { present: false } if observation.deleting => {
            let wanted = observation.spec.keeps_pods() && !observation.deletion.namespace_ends;
            let others = match &observation.workload {
                Some(Ok(workload)) => workload.available > 0,
                _ => false,
            };
            (wanted && of_stable > 0 && !others)
                .then(|| "pods that are to be kept went with the Rollout".into())
        }
        AdoptionAction::ScaleWorkload(_) | AdoptionAction::SetFinalizer { .. } => None,
    }
}

/// The weights of stable's and of the canary's backend in each rule that has both, read directly from the
/// stored route, of the Gateway API or a VirtualService.
fn shares(
    observation: &Observation,
    counts: fn(&Route) -> bool,
) -> impl Iterator<Item = (i64, i64)> {
    let canary = &observation.spec.strategy.canary;
    let names = canary.stable_service.as_deref();
    let names = names.zip(canary.canary_service.as_deref());
    let counted = observation.traffic.routes.iter();
    let counted = counted.filter(move |route| counts(route));
    counted.flat_map(move |route| {
        let object = route.object.as_ref().ok();
        let subsets = route.reference.destination_rule.as_ref();
        let subsets = subsets.map(|it| (&*it.stable_subset, &*it.canary_subset));
        let router = route.reference.kind.router();
        let (lists, backends): (&[&str], _) = match router {
            Router::GatewayApi => (&["rules"], "backendRefs"),
            Router::Istio => (&["http", "tls", "tcp"], "route"),
        };
        let sides = match router {
            Router::GatewayApi => names,
            Router::Istio => subsets.or(names),
        };
        let name = move |backend: &Value| match router {
            Router::GatewayApi => Some(backend.get("name")?.as_str()?.to_owned()),
            Router::Istio if subsets.is_some() => {
                Some(backend.pointer("/destination/subset")?.as_str()?.to_owned())
            }
            Router::Istio => {
                let host = backend.pointer("/destination/host")?.as_str()?;
                Some(host.split('.').next()?.to_owned())
            }
        };
        let rules = lists.iter().filter_map(move |list| {
            let rules = object?.object.pointer(&format!("/spec/{list}"))?;
            rules.as_array()
        });
        rules.flatten().filter_map(move |rule| {
            let (stable, canary) = sides?;
            let weight = |side: &str| {
                let mut backends = rule.get(backends)?.as_array()?.iter();
                let found = backends.find(|it| name(it).as_deref() == Some(side))?;
                found.get("weight")?.as_i64()
            };
            Some((weight(stable)?, weight(canary)?))
        })
    })
}

fn largest_share(observation: &Observation) -> i32 {
    let shares = shares(observation, |_| true)
        .map(|(stable, canary)| canary * 100 / (stable + canary).max(1));
    shares
        .max()
        .and_then(|share| i32::try_from(share).ok())
        .unwrap_or(0)
}

/// Whether no route gives the canary more than the weight of its step, nor much less.
pub(super) fn has_its_share(observation: &Observation, before: &Change) -> bool {
    let weight = i64::from(before.weight);
    shares(observation, |_| true).all(|(stable, canary)| {
        let total = stable + canary;
        // Beside other backends the nearest whole weight below is exact enough.
        canary * 100 <= weight * total && (canary + 1) * 100 > weight * total
    })
}

/// The bounds on pods in a Rollout's spec, resolved as a Deployment does.
pub(super) struct Pods {
    pub(super) desired: i64,
    /// Pods beyond `desired`.
    pub(super) surge: i64,
    /// Pods of `desired` that may be unavailable.
    unavailable: i64,
}

impl Pods {
    pub(super) fn of(observation: &Observation) -> Self {
        let canary = &observation.spec.strategy.canary;
        let desired = i64::from(observation.spec.replicas.max(0));
        let resolve = |value: &IntOrString, up: bool| match value {
            IntOrString::Int(pods) => i64::from(*pods).max(0),
            IntOrString::String(percent) => {
                let percent = percent.trim_end_matches('%').parse().unwrap_or(0);
                let hundredths = desired * i64::clamp(percent, 0, 1_000);
                if up {
                    (hundredths + 99) / 100
                } else {
                    hundredths / 100
                }
            }
        };
        let surge = resolve(&canary.max_surge, true);
        let unavailable = resolve(&canary.max_unavailable, false).min(desired);
        Self {
            desired,
            surge,
            unavailable: if (surge, unavailable) == (0, 0) {
                1
            } else {
                unavailable
            },
        }
    }

    /// Pods for a share in percent.
    fn part(&self, percent: i64) -> i64 {
        (self.desired * percent.clamp(0, 100) + 99) / 100
    }

    /// Available pods that a share in percent needs: the fraction that may be unavailable is that of the
    /// workload, and at least one serves. A share that was rounded down needs no further pod.
    pub(super) fn least(&self, percent: i64) -> i64 {
        if percent <= 0 || self.desired == 0 {
            return 0;
        }
        let whole = if percent >= 100 { 100 } else { percent - 1 };
        let part = self.desired * whole / 100 + i64::from(percent < 100);
        (part - self.unavailable).max(1)
    }

    /// The percentage of the traffic that the available pods carry.
    fn carry(&self, available: i64) -> i64 {
        if available >= (self.desired - self.unavailable).max(1) {
            return 100;
        }
        available * 100 / self.desired.max(1)
    }

    /// Whether the surge has room for all pods of both revisions.
    const fn room_for_both(&self) -> bool {
        self.surge >= self.desired
    }
}

/// Available pods of a revision, counting at most the requested ones.
pub(super) fn available(observation: &Observation, hash: &str) -> i64 {
    let sets = observation.replica_sets.iter();
    let sets = sets.filter(|set| set.owned && set.hash == hash);
    sets.map(|set| i64::from(set.available.min(set.replicas)))
        .sum()
}

fn selected<'a>(observation: &'a Observation, service: &str) -> Option<&'a str> {
    let service = observation.traffic.services.get(service)?.as_ref()?;
    service.selector.get(HASH_LABEL).map(String::as_str)
}

/// The largest percentage of the requests that a named Service gets: by the routes, or 100 if the Service
/// is stable's and there is no route. Routes to subsets use no named Service's selector.
fn percent_of(observation: &Observation, service: &str) -> i64 {
    let canary = &observation.spec.strategy.canary;
    let is_stable = canary.stable_service.as_deref() == Some(service);
    if canary.traffic.is_none() {
        return if is_stable { 100 } else { 0 };
    }
    let to_services = |route: &Route| route.reference.destination_rule.is_none();
    let percents = shares(observation, to_services).map(|(stable, canary)| {
        let part = if is_stable { stable } else { canary };
        (part * 100 + (stable + canary).max(1) - 1) / (stable + canary).max(1)
    });
    percents.max().unwrap_or(0)
}

/// The percentage of the requests that a revision gets, according to the stored objects.
fn percent_to(observation: &Observation, hash: &str) -> i64 {
    let canary = &observation.spec.strategy.canary;
    let names = [&canary.stable_service, &canary.canary_service];
    let sent = names.into_iter().flatten().map(|service| {
        let selects = selected(observation, service) == Some(hash);
        if selects {
            percent_of(observation, service)
        } else {
            0
        }
    });
    sent.sum::<i64>().min(100)
}

/// Whether the deadline to keep the pods of an ended change has passed.
fn way_back_is_over(observation: &Observation, change: Option<&Change>) -> bool {
    let deadline = i64::from(observation.spec.progress_deadline_seconds);
    change.is_some_and(|change| {
        let since = change.progressed_at.as_ref();
        let age = since.map(|at| observation.now.duration_since(at.0).as_secs());
        change.outcome.is_some() && age.is_none_or(|age| age >= deadline)
    })
}

/// Whether a Service with requests would select fewer available pods than it needs, while it selects more
/// now.
pub(super) fn loses_pods(
    observation: &Observation,
    after: Option<&Change>,
    service: &str,
    hash: &str,
) -> bool {
    let Some(from) = selected(observation, service).filter(|from| *from != hash) else {
        return false;
    };
    let (old, new) = (available(observation, from), available(observation, hash));
    let enough = Pods::of(observation)
        .least(percent_of(observation, service))
        .min(old);
    let over = way_back_is_over(observation, after) && (new > 0 || old == 0);
    new < enough && !over
}

/// Whether a route may give the canary this share now: at most its step's weight; more than now only if its
/// pods are available, and less only as far as stable can carry the rest.
pub(super) fn may_have(observation: &Observation, after: Option<&Change>, weight: i32) -> bool {
    let Some(change) = after else {
        return false;
    };
    let (pods, weight) = (Pods::of(observation), i64::from(weight));
    let canary = available(observation, &change.pod_template_hash);
    let stable = observation.status.stable.as_ref();
    let stable = stable.map_or(0, |it| available(observation, &it.pod_template_hash));
    let rises = shares(observation, |_| true)
        .any(|(stable, canary)| canary * 100 < weight * (stable + canary));
    let carries = canary * 100 >= weight * (pods.desired - pods.unavailable);
    let most = match change.stage {
        Stage::Waiting | Stage::RolledBack => 0,
        Stage::Stepping => i64::from(change.weight),
        Stage::Promoting | Stage::Promoted | Stage::RollingBack => 100,
    };
    let strategy = &observation.spec.strategy.canary;
    let gave_up = strategy.dynamic_stable || !pods.room_for_both();
    // If stable gave up pods, it gets back what it can carry, until the deadline.
    let overloads = change.stage == Stage::RollingBack
        && gave_up
        && canary > 0
        && stable > 0
        && !way_back_is_over(observation, after)
        && 100 - weight > pods.carry(stable);
    weight <= most && (!rises || carries) && !overloads
}

/// A number of pods that breaks a law.
pub(super) fn unlawful_scale(
    observation: &Observation,
    decision: &Decision,
    action: &WorkloadAction,
) -> Option<(u8, String)> {
    let (hash, replicas, current) = match action {
        WorkloadAction::Scale {
            replica_set,
            replicas,
            ..
        } => {
            let mut sets = observation.replica_sets.iter();
            let set = sets.find(|set| set.name == *replica_set)?;
            (&set.hash, i64::from(*replicas), i64::from(set.replicas))
        }
        WorkloadAction::CreateReplicaSet(set) => (&set.hash, i64::from(set.replicas), 0),
        WorkloadAction::SetMinReadySeconds { .. }
        | WorkloadAction::Adopt { .. }
        | WorkloadAction::Release { .. }
        | WorkloadAction::DeleteReplicaSet { .. } => return None,
    };
    let pods = Pods::of(observation);
    let change = decision.status.change.as_ref();
    let serves = available(observation, hash);
    if replicas < current && replicas < serves && !way_back_is_over(observation, change) {
        let percent = percent_to(observation, hash);
        let least = pods.least(percent).min(serves);
        if replicas < least {
            let what = format!(
                "pods that serve {percent}% of the requests were scaled to {replicas}, below {least}"
            );
            return Some((4, what));
        }
    }
    let change = change?;
    if gets_first_pods(observation, change, action) && !queue::dependencies_are_stable(observation)
    {
        let what = "a first revision got pods before what it depends on was stable";
        return Some((1, what.into()));
    }
    let stable = decision.status.stable.as_ref();
    let is_stable = stable.is_some_and(|stable| stable.pod_template_hash == *hash);
    if is_stable && replicas < current {
        let least = stable_needs(observation, change, &pods, serves);
        if replicas < least {
            let what = format!("stable was scaled to {replicas} below {least}");
            return Some((4, what));
        }
    }
    if !is_stable && *hash == change.pod_template_hash && replicas > current {
        let most = canary_may_have(observation, decision, change, &pods);
        if replicas > most {
            let what = format!("the canary was scaled to {replicas} above {most}");
            return Some((1, what));
        }
    }
    None
}

/// The least number of pods that stable must request: all of them, except those that it may give up.
fn stable_needs(observation: &Observation, change: &Change, pods: &Pods, serves: i64) -> i64 {
    let under_way = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    if change.initial {
        return 0;
    }
    let canary = &observation.spec.strategy.canary;
    let routed = canary.traffic.is_some();
    if !under_way || (canary.stable_service.is_some() && !routed) {
        return pods.desired;
    }
    if routed && (canary.dynamic_stable || !pods.room_for_both()) {
        return pods.least(100 - i64::from(largest_share(observation)));
    }
    // Above 50% the canary is the larger side, and may be larger than the surge.
    let weight = i64::from(change.weight);
    let outgrows =
        change.stage == Stage::Stepping && weight * pods.desired > (100 - weight) * pods.surge;
    if routed || (pods.room_for_both() && !outgrows) {
        return pods.desired;
    }
    // If a revision's share is its share of the pods, stable need not serve the canary's part, and pods
    // without traffic make room for those that will serve.
    let beside = available(observation, &change.pod_template_hash);
    (pods.least(100) - beside).clamp(0, serves)
}

/// The largest number of pods for a canary.
fn canary_may_have(
    observation: &Observation,
    decision: &Decision,
    change: &Change,
    pods: &Pods,
) -> i64 {
    if change.stage == Stage::Promoting {
        return pods.desired;
    }
    if change.stage != Stage::Stepping {
        return 0;
    }
    let weight = i64::from(change.weight);
    if observation.spec.strategy.canary.traffic.is_some() || weight <= 0 {
        let begun = usize::try_from(change.step).unwrap_or(0);
        let sizes = change.plan.steps.iter().take(begun);
        let size = sizes.filter_map(|step| step.scale).next_back();
        let size = pods.part(i64::from(size.unwrap_or(0)));
        return pods.part(weight).max(size).max(1);
    }
    // If a revision's share is its share of the pods, the canary has at most what stable's pods balance.
    let stable = decision.status.stable.as_ref();
    let stable = stable.map_or(0, |it| available(observation, &it.pod_template_hash));
    (weight * stable / (100 - weight).max(1)).max(1)
}
