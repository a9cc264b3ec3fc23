//! The canary strategy.

use serde_json::{Map, Value, json};

use crate::commands::convert::argo::metrics::When;
use crate::commands::convert::argo::steps::{self, Plan, Setting};
use crate::commands::convert::argo::templates::{self, Subject};
use crate::commands::convert::argo::traffic;
use crate::commands::convert::checks::{Checks, written};
use crate::commands::convert::document::{one_person, put};
use crate::commands::convert::foreign::{Field, Object};

/// Fields without a counterpart, none of which holds a promotion.
const DROPPED: [(&str, &str); 7] = [
    (
        "abortScaleDownDelaySeconds",
        "rejected pods go after `drain`",
    ),
    ("antiAffinity", "set it in the pod template"),
    (
        "canaryMetadata",
        "pods are never relabelled: select a revision by pod-template-hash",
    ),
    ("minPodsPerReplicaSet", "set `scale` in the first step"),
    (
        "replicaProgressThreshold",
        "all pods of a step must be available",
    ),
    ("scaleDownDelayRevisionLimit", "one old revision is kept"),
    (
        "stableMetadata",
        "pods are never relabelled: select a revision by pod-template-hash",
    ),
];

/// The strategy of a canary; `replicas` is its number of pods.
pub fn strategy<'a>(
    canary: &Field<'a>,
    replicas: i64,
    metadata: &'a Map<String, Value>,
    objects: &'a [Object<'a>],
) -> Map<String, Value> {
    for (key, why) in DROPPED {
        canary.drop_all(&[key], &format!("has no counterpart: {why}"));
    }
    let (stable, canary_service) = services(canary);
    let namespace = metadata.get("namespace").and_then(Value::as_str);
    let routes = traffic::routes(canary, namespace);
    let subject = Subject {
        objects,
        metadata,
        canary_service,
    };
    let is_routed = !routes.0.is_empty();
    let setting = Setting {
        replicas,
        full_weight: traffic::full_weight(canary),
        weight_0: is_routed || (stable.is_some() && canary_service.is_some()),
        mirrors: routes.have(&["HTTPRoute", "GRPCRoute", "VirtualService"]),
        matches_headers: routes.have(&["HTTPRoute", "GRPCRoute"]),
    };
    let plan = steps::plan(canary, &setting, &|it| templates::span(it, &subject));
    let checks = checks(canary, &plan, &subject);
    decide(canary, &plan, &checks);

    let mut strategy = Map::new();
    put(&mut strategy, "stableService", stable);
    put(&mut strategy, "canaryService", canary_service);
    capacity(canary, is_routed, &mut strategy);
    let delay = canary.span("scaleDownDelaySeconds").unwrap_or_default();
    let delay = Some(delay.max(plan.scale_down_delay)).filter(|it| !it.is_zero());
    put(&mut strategy, "scaleDownDelay", delay.map(written));
    if is_routed {
        let mut traffic = Map::new();
        put(&mut traffic, "routes", Some(routes.0));
        put(&mut traffic, "testers", plan.testers);
        put(&mut strategy, "traffic", Some(traffic));
    }
    put(
        &mut strategy,
        "steps",
        Some(plan.steps).filter(|it| !it.is_empty()),
    );
    let sign_off = plan.promotion_sign_off.then(one_person);
    put(&mut strategy, "promotionSignOff", sign_off);
    put(&mut strategy, "analysis", checks.analysis());
    put(&mut strategy, "smoke", checks.smoke);
    strategy
}

/// The Services of the stable side and the canary's.
fn services<'a>(canary: &Field<'a>) -> (Option<&'a str>, Option<&'a str>) {
    let own = (canary.text("stableService"), canary.text("canaryService"));
    let Some(both) = canary.get("pingPong") else {
        return own;
    };
    both.decide("here each side keeps its Service: name as stableService the one that serves when you migrate");
    (both.text("pingService"), both.text("pongService"))
}

fn checks<'a>(canary: &Field<'a>, plan: &Plan<'a>, subject: &Subject<'a>) -> Checks {
    let mut checks = Checks::default();
    if let Some(background) = canary.get("analysis") {
        let start = background.int("startingStep").unwrap_or_default();
        let start = usize::try_from(start).unwrap_or_default();
        let from = plan.weights.get(start).copied().filter(|_| start > 0);
        let when = When {
            weights: from.map(|from| (from, 100)),
            before_traffic: start == 0,
        };
        templates::gather(&background, when, subject, &mut checks);
    }
    for (analysis, weight) in &plan.analyses {
        let when = When {
            weights: Some((*weight, *weight)),
            before_traffic: *weight == 0,
        };
        templates::gather(analysis, when, subject, &mut checks);
    }
    checks
}

/// What a person must decide.
fn decide(canary: &Field<'_>, plan: &Plan<'_>, checks: &Checks) {
    let mut steps = plan.steps.iter();
    if plan.promotion_sign_off || steps.any(|step| step.get("signOff").is_some()) {
        canary.decide("an indefinite pause is a sign-off by one person: name groups, or bind the role countersign-approver; after waitAtMost the change is rolled back, where Argo Rollouts waits");
    }
    if plan.steps.is_empty() {
        canary.decide("without steps those of the change's tier apply");
    }
    for decision in checks.decisions() {
        canary.decide(decision);
    }
}

/// Surge and unavailable pods. With routes Argo Rollouts ignores both, and keeps all stable pods as is the
/// default here.
fn capacity(canary: &Field<'_>, is_routed: bool, strategy: &mut Map<String, Value>) {
    let limits = ["maxSurge", "maxUnavailable"];
    if canary.get("trafficRouting").is_some() {
        canary.drop_all(&limits, "Argo Rollouts ignores it with trafficRouting");
    } else {
        for key in limits {
            let limit = canary.value(key).unwrap_or_else(|| json!("25%"));
            put(strategy, key, Some(limit));
        }
    }
    match canary.flag("dynamicStableScale") {
        Some(true) if is_routed => put(strategy, "dynamicStable", Some(true)),
        Some(true) => {
            if let Some(scale) = canary.get("dynamicStableScale") {
                scale.dropped("it needs traffic.routes");
            }
        }
        Some(false) | None => {}
    }
}
