//! The CEL rules of the schemas as plain functions, for where there is no API server.
//!
//! A rule is known by its message. Rules that compare with the object's last state hold offline. A
//! test pins every rule's text, so that none is added or changed without its function.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use countersign_api::{Duration, HASH_LABEL, MANAGED_BY_LABEL};

use crate::manifests::yaml::{Node, Yaml};

/// A rule: whether it holds for a value of the right type.
pub type Rule = fn(&Node) -> bool;

/// The rule with this message; `None` for one that needs the object's last state.
#[must_use]
pub fn rule(message: &str) -> Option<Rule> {
    KNOWN
        .iter()
        .find(|(known, _)| *known == message)
        .map(|(_, rule)| *rule)
}

const KNOWN: [(&str, Rule); 50] = [
    (
        "traffic.routes must name each route once: name several of its rules in one entry",
        |traffic| {
            let name = |route: &Node| {
                route
                    .get("name")
                    .and_then(Node::text)
                    .map(ToOwned::to_owned)
            };
            let routes: Vec<_> = routes_of(traffic)
                .map(|route| (kind(route).to_owned(), name(route)))
                .collect();
            let distinct: BTreeSet<_> = routes.iter().collect();
            distinct.len() == routes.len()
        },
    ),
    ("spec has either template or workloadRef", |spec| {
        has(spec, &["template", "workloadRef"])
            .iter()
            .filter(|it| **it)
            .count()
            == 1
    }),
    (
        "spec.selector goes with spec.template; an adopted workload has its own",
        |spec| {
            let has = has(spec, &["template", "selector"]);
            has.first() == has.last()
        },
    ),
    (
        "traffic.testers needs an HTTPRoute or a GRPCRoute: in a VirtualService write a rule of your own that matches them",
        |traffic| {
            traffic.get("testers").is_none()
                || routes_of(traffic).any(|route| ["HTTPRoute", "GRPCRoute"].contains(&kind(route)))
        },
    ),
    (
        "destinationRule goes with a route of kind VirtualService alone",
        |route| route.get("destinationRule").is_none() || kind(route) == "VirtualService",
    ),
    ("stableSubset and canarySubset must be two subsets", |it| {
        let subset = |key| it.get(key).and_then(Node::text);
        subset("stableSubset") != subset("canarySubset")
    }),
    (
        "testers are told by headers, by a cookie, or by both",
        |it| has(it, &["headers", "cookie"]).contains(&true),
    ),
    (
        "traffic.routes need stableService and canaryService, or subsets of a DestinationRule",
        |canary| {
            let by_subsets = canary.get("traffic").is_none_or(|traffic| {
                routes_of(traffic).all(|route| route.get("destinationRule").is_some())
            });
            by_subsets || has_both_services(canary)
        },
    ),
    (
        "dynamicStable needs traffic: without routes a revision's share is its share of the pods",
        |canary| {
            let dynamic = canary.get("dynamicStable").map(|it| &it.value);
            dynamic != Some(&Yaml::Bool(true)) || canary.get("traffic").is_some()
        },
    ),
    (
        "steps of weight 0 need traffic, or stableService and canaryService: else the canary's pods would serve",
        |canary| {
            let steps = canary.get("steps").map(Node::items).unwrap_or_default();
            let zero = |step: &Node| step.get("weight").and_then(Node::number) == Some(0.0);
            !steps.iter().any(zero) || canary.get("traffic").is_some() || has_both_services(canary)
        },
    ),
    (
        "steps with mirror need traffic with an HTTPRoute, a GRPCRoute or a VirtualService",
        |canary| {
            let steps = canary.get("steps").map(Node::items).unwrap_or_default();
            let able = ["HTTPRoute", "GRPCRoute", "VirtualService"];
            let mut routes = canary.get("traffic").into_iter().flat_map(routes_of);
            !steps.iter().any(|step| step.get("mirror").is_some())
                || routes.any(|route| able.contains(&kind(route)))
        },
    ),
    ("drain must be at most 1h", |canary| {
        let drain = canary.get("drain");
        drain.is_none_or(|it| lasts(it, &(Duration::default()..=Duration::minutes(60))))
    }),
    ("scaleDownDelay must be at most 168h", |canary| {
        let delay = canary.get("scaleDownDelay");
        delay.is_none_or(|it| lasts(it, &(Duration::default()..=Duration::minutes(168 * 60))))
    }),
    (
        "mirror goes with a step of weight 0: before the canary answers anybody",
        |step| {
            step.get("mirror").is_none() || step.get("weight").and_then(Node::number) == Some(0.0)
        },
    ),
    (
        "concurrency: name perNamespace, perCluster, or both",
        |it| has(it, &["perNamespace", "perCluster"]).contains(&true),
    ),
    (
        "steps of a tier have a weight of at least 1, and no scale: what a Rollout has to split its traffic by is its own affair",
        |steps| {
            steps.items().iter().all(|step| {
                let weight = step.get("weight").and_then(Node::number);
                weight != Some(0.0) && step.get("scale").is_none()
            })
        },
    ),
    (
        "spec.selector.matchLabels must be labels of spec.template.metadata.labels, or the Rollout would not find its own pods",
        |spec| {
            spec.get("template").is_none()
                || spec.get("selector").is_none()
                || is_selected(spec, &["template", "metadata", "labels"])
        },
    ),
    (
        "spec.progressDeadlineSeconds must be greater than spec.minReadySeconds, or it passes before any new pod counts as available",
        |spec| {
            let seconds =
                |key, otherwise| spec.get(key).and_then(Node::number).unwrap_or(otherwise);
            seconds("progressDeadlineSeconds", 600.0) > seconds("minReadySeconds", 0.0)
        },
    ),
    (
        "spec.selector.matchLabels must not hold pod-template-hash: the controller sets it",
        |spec| !selects(spec, HASH_LABEL),
    ),
    (
        "spec.selector.matchLabels must not hold app.kubernetes.io/managed-by: the controller sets it on its ReplicaSets",
        |spec| !selects(spec, MANAGED_BY_LABEL),
    ),
    (
        "spec.strategy.canary.smoke.template must not have all labels of spec.selector.matchLabels: its pods would count as the workload's",
        |spec| {
            let labels = [
                "strategy", "canary", "smoke", "template", "metadata", "labels",
            ];
            spec.get("selector").is_none() || !is_selected(spec, &labels)
        },
    ),
    ("smoke.timeout must be from 1s to 24h", |smoke| {
        let timeout = smoke.get("timeout").and_then(Node::text);
        let timeout = timeout.map(str::parse::<Duration>);
        timeout.is_none_or(|timeout| {
            timeout.is_ok_and(|it| it >= Duration::seconds(1) && it <= Duration::minutes(24 * 60))
        })
    }),
    (
        "stableService and canaryService must be two Services",
        |canary| {
            let service = |key| canary.get(key).and_then(Node::text);
            service("stableService").is_none()
                || service("stableService") != service("canaryService")
        },
    ),
    (
        "maxSurge and maxUnavailable cannot both be 0: no pod could ever be replaced",
        |canary| {
            // Left out, maxSurge is 100% and maxUnavailable 0.
            let surge = canary.get("maxSurge").is_some_and(is_zero);
            let unavailable = canary.get("maxUnavailable").is_none_or(is_zero);
            !(surge && unavailable)
        },
    ),
    (
        "must be a number of pods or a percentage such as 25%",
        |pods| is_pods_or(pods, |percent| percent.len() <= 3),
    ),
    (
        "must be a number of pods or a percentage from 0% to 100%",
        |pods| {
            is_pods_or(pods, |percent| {
                let plain = percent == "0" || !percent.starts_with('0');
                plain && percent.parse::<u8>().is_ok_and(|percent| percent <= 100)
            })
        },
    ),
    (
        "steps: the weights must not decrease from one step to the next",
        |steps| rises(steps, "weight"),
    ),
    ("analysis.interval must be at least 1s", |analysis| {
        let interval = analysis.get("interval").and_then(Node::text);
        let interval = interval.map(str::parse::<Duration>);
        interval.is_none_or(|interval| interval.is_ok_and(|it| it >= Duration::seconds(1)))
    }),
    (
        "analysis.warmUp must be at most 10m: a canary is never left unjudged for long",
        |it| lasts(it, &(Duration::default()..=Duration::minutes(10))),
    ),
    ("analysis.postPromotion must be at most 168h", |it| {
        lasts(it, &(Duration::default()..=Duration::minutes(168 * 60)))
    }),
    (
        "analysis.templates: AnalysisTemplates belong to namespaces; write the checks into the policy",
        |analysis| has(analysis, &["templates"]) == [false],
    ),
    ("a template has at least one check or objective", |spec| {
        ["checks", "objectives"].into_iter().any(|key| {
            let members = spec.get(key).map(Node::items);
            members.is_some_and(|members| !members.is_empty())
        })
    }),
    (
        "a check has either a preset or both an error query (errors) and a total query (total), or it has latency or metric",
        |check| {
            let has = has(check, &["metric", "latency", "preset", "errors", "total"]);
            match has.as_slice() {
                [false, false, preset, errors, total] => *errors == *total && *errors != *preset,
                _ => true,
            }
        },
    ),
    (
        "a check with latency has either a preset or latency.buckets, and none of errors, total and metric",
        |check| {
            let others = has(check, &["errors", "total", "metric"]).contains(&true);
            check.get("latency").is_none_or(|latency| {
                let preset = check.get("preset").is_some();
                !others && preset != latency.get("buckets").is_some()
            })
        },
    ),
    (
        "latency.quantile is a ceiling of its own: leave out ceiling",
        |check| check.find(&["latency", "quantile"]).is_none() || check.get("ceiling").is_none(),
    ),
    (
        "a check with metric has none of preset, errors, total, ceiling and dispersion",
        |check| {
            let others = ["preset", "errors", "total", "ceiling", "dispersion"];
            check.get("metric").is_none() || !has(check, &others).contains(&true)
        },
    ),
    ("weights.from must not be above weights.to", |weights| {
        let at = |key, otherwise| weights.get(key).and_then(Node::number).unwrap_or(otherwise);
        at("from", 0.0) <= at("to", 100.0)
    }),
    ("latency.within must be above 0s", |latency| {
        latency
            .get("within")
            .is_none_or(|it| !lasts(it, &(Duration::default()..=Duration::default())))
    }),
    ("metric: name min, max or both", |metric| {
        has(metric, &["min", "max"]).contains(&true)
    }),
    ("metric.min must not be above metric.max", |metric| {
        in_order(metric, "min", "max")
    }),
    (
        "objectives: period must be from 24h to 2160h (90 days)",
        |objective| {
            let days = |days: u64| Duration::minutes(days * 24 * 60);
            objective
                .get("period")
                .is_none_or(|it| lasts(it, &(days(1)..=days(90))))
        },
    ),
    (
        "risk.size: bands must be in order of `from`, with points that do not fall",
        |bands| rises(bands, "from") && rises(bands, "points"),
    ),
    ("risk.thresholds: medium must not be above high", |it| {
        in_order(it, "medium", "high")
    }),
    ("risk.thresholds: high must not be above critical", |it| {
        in_order(it, "high", "critical")
    }),
    ("risk.thresholds: medium must not be above critical", |it| {
        in_order(it, "medium", "critical")
    }),
    (
        "tiers: only tier low may promote on scarce evidence (onScarceEvidence: Promote)",
        |tiers| {
            let mut higher = ["medium", "high", "critical"].into_iter();
            higher.all(|tier| {
                let demand = tiers.find(&[tier, "onScarceEvidence"]);
                demand.and_then(Node::text) != Some("Promote")
            })
        },
    ),
    ("write step-N, promotion or evidence-N", |gate| {
        gate.text().is_some_and(is_gate)
    }),
    (
        "spec.reason: say why the change is rejected or waved through",
        |spec| {
            is_approval(spec)
                || spec
                    .get("reason")
                    .and_then(Node::text)
                    .is_some_and(|it| !it.is_empty())
        },
    ),
    (
        "spec.gate is for approvals: a rejection or break-glass is for all gates",
        |spec| is_approval(spec) || spec.get("gate").is_none(),
    ),
    (
        "spec.step names the step whose bake is skipped: it is for Promote, which needs it",
        |spec| {
            let promotes = spec.get("action").and_then(Node::text) == Some("Promote");
            promotes == spec.get("step").is_some()
        },
    ),
];

/// The routes of `traffic`.
fn routes_of(traffic: &Node) -> impl Iterator<Item = &Node> {
    traffic.get("routes").into_iter().flat_map(Node::items)
}

/// Kind of a route, as it is where it is left out.
fn kind(route: &Node) -> &str {
    route
        .get("kind")
        .and_then(Node::text)
        .unwrap_or("HTTPRoute")
}

fn has_both_services(canary: &Node) -> bool {
    has(canary, &["stableService", "canaryService"]) == [true, true]
}

/// Which of these members an object has.
fn has(object: &Node, members: &[&str]) -> Vec<bool> {
    let has = |member: &&str| object.get(member).is_some();
    members.iter().map(has).collect()
}

fn lasts(duration: &Node, range: &RangeInclusive<Duration>) -> bool {
    let length = duration.text().and_then(|text| text.parse().ok());
    length.is_some_and(|length| range.contains(&length))
}

/// Whether the Rollout selects pods with the labels at this path.
fn is_selected(spec: &Node, path: &[&str]) -> bool {
    let labels = spec.find(path);
    let selected = spec.find(&["selector", "matchLabels"]);
    labels.is_some_and(|labels| {
        let mut selected = selected.into_iter().flat_map(Node::entries);
        selected.all(|entry| labels.get(&entry.key).and_then(Node::text) == entry.value.text())
    })
}

fn selects(spec: &Node, label: &str) -> bool {
    let labels = spec.find(&["selector", "matchLabels"]);
    labels.is_some_and(|labels| labels.entry(label).is_some())
}

fn is_zero(pods: &Node) -> bool {
    matches!(pods.text(), Some("0" | "0%")) || pods.number() == Some(0.0)
}

/// A number of pods, or a percentage of which `holds`.
fn is_pods_or(pods: &Node, holds: impl Fn(&str) -> bool) -> bool {
    match &pods.value {
        Yaml::Number(_) => pods
            .number()
            .is_some_and(|pods| (0.0..=100_000.0).contains(&pods)),
        Yaml::Text(text) => text.strip_suffix('%').is_some_and(|percent| {
            let digits = !percent.is_empty() && percent.bytes().all(|it| it.is_ascii_digit());
            digits && holds(percent)
        }),
        _ => false,
    }
}

fn rises(list: &Node, key: &str) -> bool {
    let numbers = list
        .items()
        .iter()
        .filter_map(|item| item.get(key)?.number());
    numbers.is_sorted()
}

fn in_order(thresholds: &Node, lower: &str, higher: &str) -> bool {
    let at = |key| thresholds.get(key).and_then(Node::number);
    match (at(lower), at(higher)) {
        (Some(lower), Some(higher)) => lower <= higher,
        _ => true,
    }
}

fn is_approval(spec: &Node) -> bool {
    spec.get("decision").and_then(Node::text) == Some("Approve")
}

fn is_gate(text: &str) -> bool {
    let number = text
        .strip_prefix("step-")
        .or_else(|| text.strip_prefix("evidence-"));
    let is_number = |number: &str| {
        (1..=3).contains(&number.len())
            && number.bytes().all(|it| it.is_ascii_digit())
            && !number.starts_with('0')
    };
    text == "promotion" || number.is_some_and(is_number)
}

#[cfg(test)]
mod tests;
