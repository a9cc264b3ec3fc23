//! The blue-green strategy: a canary at full size without any share, then one switch.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::commands::convert::argo::metrics::When;
use crate::commands::convert::argo::templates::{self, Subject};
use crate::commands::convert::checks::{Checks, written};
use crate::commands::convert::document::{one_person, put};
use crate::commands::convert::foreign::{Field, Object};

/// Fields without a counterpart, none of which holds a promotion.
const DROPPED: [(&str, &str); 6] = [
    (
        "abortScaleDownDelaySeconds",
        "rejected pods go after `drain`",
    ),
    (
        "activeMetadata",
        "pods are never relabelled: select a revision by pod-template-hash",
    ),
    ("antiAffinity", "set it in the pod template"),
    (
        "maxUnavailable",
        "it limited restarts, which are changes here",
    ),
    (
        "previewMetadata",
        "pods are never relabelled: select a revision by pod-template-hash",
    ),
    ("scaleDownDelayRevisionLimit", "one old revision is kept"),
];
/// Time for which the old pods are kept unless the Rollout names another.
const SCALE_DOWN_DELAY: Duration = Duration::from_secs(30);

/// The strategy of a blue-green Rollout; `replicas` is its number of pods.
pub fn strategy<'a>(
    blue_green: &Field<'a>,
    replicas: i64,
    metadata: &'a Map<String, Value>,
    objects: &'a [Object<'a>],
) -> Map<String, Value> {
    for (key, why) in DROPPED {
        blue_green.drop_all(&[key], &format!("has no counterpart: {why}"));
    }
    let active = blue_green.text("activeService").unwrap_or_default();
    let preview = blue_green.text("previewService");
    let canary_service = preview.map_or_else(|| format!("{active}-preview"), ToOwned::to_owned);
    if preview.is_none() {
        blue_green.decide(&format!(
            "the new version runs behind a Service of its own before it serves: create Service {canary_service}"
        ));
    }
    let subject = Subject {
        objects,
        metadata,
        canary_service: Some(&canary_service),
    };
    let mut checks = Checks::default();
    let step = step(blue_green, replicas, &subject, &mut checks);
    after_promotion(blue_green, &subject, &mut checks);
    blue_green.decide("one switch of all requests needs a policy with minFinalWeight: 0, and requests to the preview as evidence or switchWithoutEvidence: true; else the tier's steps are added");
    for decision in checks.decisions() {
        blue_green.decide(decision);
    }

    let mut strategy = Map::new();
    put(&mut strategy, "stableService", Some(active));
    put(
        &mut strategy,
        "canaryService",
        Some(canary_service.as_str()),
    );
    put(&mut strategy, "steps", Some(vec![step]));
    let delay = blue_green.span("scaleDownDelaySeconds");
    let delay = written(delay.unwrap_or(SCALE_DOWN_DELAY));
    put(&mut strategy, "scaleDownDelay", Some(delay));
    if blue_green.flag("autoPromotionEnabled") == Some(false) {
        blue_green.decide("autoPromotionEnabled: false is a sign-off by one person: name groups, or bind the role countersign-approver; after waitAtMost the change is rolled back, where Argo Rollouts waits");
        put(&mut strategy, "promotionSignOff", Some(one_person()));
    }
    put(&mut strategy, "analysis", checks.analysis());
    put(&mut strategy, "smoke", checks.smoke);
    strategy
}

/// The step of the preview, with what is checked in it.
fn step(
    blue_green: &Field<'_>,
    replicas: i64,
    subject: &Subject<'_>,
    checks: &mut Checks,
) -> Value {
    let mut bake = blue_green.span("autoPromotionSeconds").unwrap_or_default();
    if let Some(analysis) = blue_green.get("prePromotionAnalysis") {
        bake = bake.max(templates::span(&analysis, subject));
        let when = When {
            weights: Some((0, 0)),
            before_traffic: true,
        };
        templates::gather(&analysis, when, subject, checks);
    }
    let pods = blue_green.int("previewReplicaCount").unwrap_or(replicas);
    let percent = pods.saturating_mul(100) / replicas.max(1);
    let mut step = Map::new();
    put(&mut step, "weight", Some(0_i64));
    put(&mut step, "scale", Some(percent.clamp(1, 100)));
    let bake = Some(bake).filter(|it| !it.is_zero());
    put(&mut step, "bake", bake.map(written));
    // Without it no evidence is asked for at weight 0.
    put(
        &mut step,
        "minRequests",
        (!checks.is_empty()).then(|| json!(1)),
    );
    step.into()
}

fn after_promotion(blue_green: &Field<'_>, subject: &Subject<'_>, checks: &mut Checks) {
    let Some(analysis) = blue_green.get("postPromotionAnalysis") else {
        return;
    };
    let span = templates::span(&analysis, subject);
    checks.post_promotion = Some(span).filter(|it| !it.is_zero());
    if span.is_zero() {
        analysis.decide("set analysis.postPromotion to the time for which it is to be watched");
        checks.post_promotion = Some(Duration::from_mins(10));
    }
    templates::gather(&analysis, When::default(), subject, checks);
}
