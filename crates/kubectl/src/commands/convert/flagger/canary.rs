//! A Canary of Flagger.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::commands::convert::checks::Checks;
use crate::commands::convert::document::{object, put};
use crate::commands::convert::flagger::metrics::{self, Around};
use crate::commands::convert::flagger::routes::{self, Names, Router};
use crate::commands::convert::flagger::steps;
use crate::commands::convert::flagger::webhooks::Gates;
use crate::commands::convert::foreign::{Field, NOTIFY, Object, metadata};

/// Fields of the analysis without a counterpart, none of which holds a promotion.
const DROPPED: [(&str, &str); 4] = [
    (
        "canaryReadyThreshold",
        "all pods of a step must be available",
    ),
    (
        "primaryReadyThreshold",
        "all pods of a step must be available",
    ),
    (
        "sessionAffinity",
        "the router keeps sessions, such as by sessionPersistence of an HTTPRoute",
    ),
    (
        "stepWeightPromotion",
        "the pods of the canary become the stable ones",
    ),
];
/// How a cookie is matched by a regular expression.
const COOKIES: [(&str, &str); 2] = [("^(.*?;)?(", ")(;.*)?$"), ("^(.*?;\\s*)?(", ")(;.*)?$")];

/// The Rollout with the Services and the route of the Canary; none if its workload is not adopted.
pub fn convert<'a>(canary: &'a Object<'a>, objects: &'a [Object<'a>]) -> Vec<Value> {
    let root = canary.root();
    let metadata = metadata(&root);
    let Some(spec) = root.get("spec") else {
        root.missing("spec", "there is nothing to convert");
        return Vec::new();
    };
    let Some(target) = target(&spec) else {
        return Vec::new();
    };
    let Some(service) = spec.get("service") else {
        spec.missing("service", "it names the Services");
        return Vec::new();
    };
    let apex = service.text("name").unwrap_or(target);
    let names = Names {
        namespace: canary.namespace(),
        apex,
        canary: format!("{apex}-canary"),
    };
    let analysis = spec.get("analysis").or_else(|| spec.get("canaryAnalysis"));
    let is_split = analysis
        .as_ref()
        .is_some_and(|it| steps::iterations(it).is_none() || !it.items("match").is_empty());
    let (router, preset) = Router::of(&spec, &service, apex, !is_split);
    let around = Around {
        objects,
        namespace: canary.namespace(),
        apex,
        others: others(&spec),
        preset,
        failures: analysis
            .as_ref()
            .and_then(|it| it.int("threshold"))
            .unwrap_or(1),
    };
    let mut converted = workload(&spec, target, canary.namespace(), objects);
    let mut strategy = Map::new();
    put(&mut strategy, "stableService", Some(apex));
    put(&mut strategy, "canaryService", Some(names.canary.as_str()));
    let mut testers = Vec::new();
    let route = router
        .kind()
        .map(|kind| json!({ "kind": kind, "name": apex }));
    let mut traffic = Map::new();
    put(&mut traffic, "routes", route.map(|route| vec![route]));
    if let Some(analysis) = &analysis {
        testers = analyse(analysis, &router, &around, &mut strategy, &mut traffic);
    }
    put(
        &mut strategy,
        "traffic",
        Some(traffic).filter(|it| !it.is_empty()),
    );
    let strategy = Map::from_iter([("canary".to_owned(), strategy.into())]);
    put(&mut converted, "strategy", Some(strategy));
    let mut documents = vec![object("Rollout", metadata, converted)];
    documents.extend(routes::services(&service, &names));
    documents.extend(router.route(&service, &testers, &names));
    documents
}

/// The name of the Deployment.
fn target<'a>(spec: &Field<'a>) -> Option<&'a str> {
    let Some(target) = spec.get("targetRef") else {
        spec.missing("targetRef", "it names the Deployment");
        return None;
    };
    target.skip_all(&["apiVersion"]);
    if target.text("kind").unwrap_or("Deployment") != "Deployment" {
        target.lost("only a Deployment is adopted");
        return None;
    }
    target.text("name")
}

fn others<'a>(spec: &Field<'a>) -> BTreeMap<&'static str, &'a str> {
    let references = [("ingressRef", "ingress"), ("routeRef", "route")];
    let names = references.into_iter().filter_map(|(key, variable)| {
        let reference = spec.get(key)?;
        let name = reference.text("name");
        reference.skip();
        Some((variable, name?))
    });
    names.collect()
}

/// The Rollout but for its strategy.
fn workload(
    spec: &Field<'_>,
    target: &str,
    namespace: Option<&str>,
    objects: &[Object<'_>],
) -> Map<String, Value> {
    let mut converted = Map::new();
    put(
        &mut converted,
        "workloadRef",
        Some(json!({ "name": target })),
    );
    let deadline = spec.int("progressDeadlineSeconds");
    put(&mut converted, "progressDeadlineSeconds", deadline);
    put(
        &mut converted,
        "paused",
        spec.flag("suspend").filter(|it| *it),
    );
    let deployment = objects.iter().find(|it| {
        let named = it.name() == target && it.namespace() == namespace;
        it.group() == "apps" && it.kind() == "Deployment" && named
    });
    let replicas = deployment.and_then(|it| it.root().get("spec")?.int("replicas"));
    put(&mut converted, "replicas", replicas.filter(|it| *it > 0));
    if replicas.is_none_or(|it| it < 1) {
        spec.decide("set spec.replicas of the Rollout to the number of pods that serve: with fewer it does not take over");
    }
    if let Some(scaler) = spec.get("autoscalerRef") {
        scaler.skip();
        scaler.decide("let it target the Rollout (apiVersion countersign.dev/v1alpha1, kind Rollout) once that has taken over");
    }
    if spec.flag("skipAnalysis") == Some(true) {
        spec.decide("skipAnalysis: the Rollout is analysed; `kubectl countersign break-glass` skips gates for one change");
    }
    if spec.flag("revertOnDeletion") != Some(true) {
        spec.decide("set revertOnDeletion: true in the Canary before you delete it, or its Deployment stays at 0 pods (docs/migrate-flagger.md)");
    }
    spec.drop_all(
        &["metricsServer"],
        "the operator queries one Prometheus, which its own options name",
    );
    spec.drop_all(&["upstreamRef"], "has no counterpart");
    converted
}

/// Steps, gates and checks. Returns the requests of testers for a VirtualService.
fn analyse(
    analysis: &Field<'_>,
    router: &Router,
    around: &Around<'_>,
    strategy: &mut Map<String, Value>,
    traffic: &mut Map<String, Value>,
) -> Vec<Value> {
    for (key, why) in DROPPED {
        analysis.drop_all(&[key], &format!("has no counterpart: {why}"));
    }
    for alert in analysis.items("alerts") {
        alert.decide(NOTIFY);
        alert.skip();
    }
    let mut checks = Checks::default();
    checks.every(steps::interval(analysis));
    for metric in analysis.items("metrics") {
        metrics::add(&metric, around, &mut checks);
    }
    let is_routed = router.kind().is_some();
    let mut steps = steps::steps(analysis, is_routed, !checks.is_empty());
    Gates::of(analysis).require(&mut steps, strategy);
    if steps
        .iter()
        .all(|step| step.get("weight") == Some(&json!(0)))
    {
        analysis.decide(if steps.is_empty() {
            "without steps those of the change's tier apply"
        } else {
            "one switch of all requests needs a policy with minFinalWeight: 0; else the tier's steps are added"
        });
    }
    put(
        strategy,
        "steps",
        Some(steps_of(steps)).filter(|it| !it.is_empty()),
    );
    for decision in checks.decisions() {
        analysis.decide(decision);
    }
    put(strategy, "analysis", checks.analysis());
    match router {
        Router::Istio => match analysis.value("match") {
            Some(Value::Array(testers)) => testers,
            _ => Vec::new(),
        },
        Router::GatewayApi { .. } => {
            put(traffic, "testers", testers(analysis));
            Vec::new()
        }
        Router::Services => {
            if let Some(matched) = analysis.get("match") {
                matched.lost("testers need an HTTPRoute or a VirtualService");
            }
            Vec::new()
        }
    }
}

fn steps_of(steps: Vec<Map<String, Value>>) -> Vec<Value> {
    steps.into_iter().map(Value::Object).collect()
}

/// The testers of an A/B test: one set of exact headers, or a cookie.
fn testers(analysis: &Field<'_>) -> Option<Value> {
    let matched = analysis.items("match");
    let mut converted = None;
    for request in &matched {
        match tester(request) {
            Some(testers) if converted.is_none() => converted = Some(testers),
            Some(_) => request.lost("there is one set of testers: write a rule of your own that sends these to the canary's Service"),
            None => request.lost("testers are matched by exact values alone: write a rule of your own that sends them to the canary's Service"),
        }
    }
    converted
}

fn tester(request: &Field<'_>) -> Option<Value> {
    let (mut headers, mut cookie) = (Vec::new(), None);
    for (name, header) in request.entries("headers") {
        if name.eq_ignore_ascii_case("cookie") {
            let (name, value) = cookie_of(header.text("regex")?)?;
            cookie = Some(json!({ "name": name, "value": value }));
        } else {
            headers.push(json!({ "name": name, "value": header.text("exact")? }));
        }
    }
    let mut testers = Map::new();
    put(
        &mut testers,
        "headers",
        Some(headers).filter(|it| !it.is_empty()),
    );
    put(&mut testers, "cookie", cookie);
    (!testers.is_empty()).then_some(testers.into())
}

/// The cookie that a regular expression matches, in the forms of Flagger's documentation.
fn cookie_of(pattern: &str) -> Option<(&str, &str)> {
    let inner = COOKIES
        .iter()
        .find_map(|(start, end)| pattern.strip_prefix(start)?.strip_suffix(end))?;
    let (name, value) = inner.split_once('=')?;
    let is_plain = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        !text.is_empty() && text.chars().all(plain)
    };
    (is_plain(name) && is_plain(value)).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_read_from_the_usual_patterns() {
        for (pattern, expected) in [
            ("^(.*?;)?(canary=always)(;.*)?$", Some(("canary", "always"))),
            (
                r"^(.*?;\s*)?(type=insider)(;.*)?$",
                Some(("type", "insider")),
            ),
            ("^(.*?;)?(canary=.*)(;.*)?$", None),
            ("canary=always", None),
            (".*Firefox.*", None),
        ] {
            assert_eq!(cookie_of(pattern), expected, "{pattern}");
        }
    }
}
