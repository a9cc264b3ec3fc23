//! The metrics of a Canary.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use crate::commands::convert::checks::{Asked, Checks};
use crate::commands::convert::condition::Bounds;
use crate::commands::convert::document::put;
use crate::commands::convert::fill::fill;
use crate::commands::convert::foreign::{Field, Object, metadata};
use crate::commands::convert::promql::TARGET;

/// The Service of a Canary in a query, which is on the old version.
const APEX: &str = "{{apex}}";
/// The preset for pods that report themselves.
const OF_PODS: &str = "HttpRequestsTotal";

/// The Canary whose metrics are converted.
pub struct Around<'a> {
    pub objects: &'a [Object<'a>],
    pub namespace: Option<&'a str>,
    pub apex: &'a str,
    /// Names of an Ingress and of a route, which a query may have.
    pub others: BTreeMap<&'static str, &'a str>,
    /// The preset of its router.
    pub preset: Option<&'static str>,
    /// Number of failed measurements after which it is rolled back.
    pub failures: i64,
}

/// Adds the check of a metric.
pub fn add(metric: &Field<'_>, around: &Around<'_>, checks: &mut Checks) {
    let name = metric.text("name").unwrap_or_default();
    let bounds = bounds(metric);
    let interval = metric.text("interval").unwrap_or("1m");
    let query = match metric.get("templateRef") {
        Some(reference) => template(&reference, around),
        None => metric.text("query"),
    };
    let Some(query) = query else {
        if metric.get("templateRef").is_none() {
            built_in(metric, name, bounds, around, checks);
        }
        metric.skip();
        return;
    };
    if bounds == Bounds::default() {
        metric.dropped("it has no threshold, so every answer passed");
        return;
    }
    let variables = metric.entries("templateVariables");
    let variables = variables.iter().filter_map(|(key, _)| {
        let all = metric.get("templateVariables")?;
        Some(((*key).to_owned(), all.text(key)?.to_owned()))
    });
    let variables: BTreeMap<_, _> = variables.collect();
    match filled(query, interval, &variables, around) {
        Ok(query) => {
            let asked = Asked {
                name,
                query: &query,
                bounds,
                failures: around.failures,
                is_advisory: false,
            };
            checks.ask(&asked, None);
        }
        Err(why) => metric.lost(&format!("its query {why}")),
    }
}

fn bounds(metric: &Field<'_>) -> Bounds {
    let range = metric.get("thresholdRange");
    let bound = |key| range.as_ref().and_then(|range| range.number(key));
    let (min, max) = (bound("min"), bound("max"));
    // The former field: the least success rate, and the most of anything else.
    let former = metric.number("threshold").filter(|_| range.is_none());
    let of_success = metric.text("name") == Some("request-success-rate");
    Bounds {
        min: min.or(former.filter(|_| of_success)),
        max: max.or(former.filter(|_| !of_success)),
    }
}

/// Flagger's own metrics.
fn built_in(
    metric: &Field<'_>,
    name: &str,
    bounds: Bounds,
    around: &Around<'_>,
    checks: &mut Checks,
) {
    let mut check = Map::new();
    put(&mut check, "name", Some(name));
    put(&mut check, "preset", Some(around.preset.unwrap_or(OF_PODS)));
    match (name, bounds.min, bounds.max, around.preset) {
        ("request-success-rate", Some(least), ..) => {
            let ceiling = ((100.0 - least) / 100.0 * 1e9).round() / 1e9;
            put(&mut check, "ceiling", Some(ceiling.clamp(0.000_001, 1.0)));
        }
        ("request-duration", _, Some(most), Some(_)) => {
            let within = format!("{:.0}ms", most.max(1.0));
            put(
                &mut check,
                "latency",
                Some(json!({ "within": within, "quantile": 0.99 })),
            );
            checks.decide(format!(
                "check {name}: the histogram must have a bucket with just this bound"
            ));
        }
        ("request-duration", _, Some(_), None) => {
            metric.lost("name the preset of your router, or the histogram: `latency` with `buckets` (docs/analysis.md)");
            return;
        }
        ("request-success-rate" | "request-duration", ..) => {
            metric.lost("its thresholdRange does not have the bound that this metric needs");
            return;
        }
        _ => {
            metric.lost("it has neither templateRef nor query");
            return;
        }
    }
    if around.preset.is_none() {
        checks.decide(format!("check {name}: name the preset of your router (docs/presets.md): {OF_PODS} reads what the pods report"));
    }
    checks.add(check, None);
}

/// The query of a MetricTemplate.
fn template<'a>(reference: &Field<'_>, around: &Around<'a>) -> Option<&'a str> {
    let name = reference.text("name")?;
    let namespace = reference.text("namespace").or(around.namespace);
    let found = around.objects.iter().find(|it| {
        let named = it.name() == name && it.namespace() == namespace;
        it.group() == super::GROUP && it.kind() == "MetricTemplate" && named
    });
    let Some(template) = found else {
        reference.lost("this MetricTemplate is not in the files: give its manifest as well");
        return None;
    };
    template.used.set(true);
    let root = template.root();
    metadata(&root);
    let spec = root.get("spec")?;
    let provider = spec.get("provider");
    let kind = provider.as_ref().and_then(|it| it.text("type"));
    if let Some(provider) = &provider {
        provider.skip_all(&["address"]);
        provider.drop_all(
            &["headers", "insecureSkipVerify", "region", "secretRef"],
            "the operator queries one Prometheus, which its own options name",
        );
    }
    let query = spec.text("query");
    if kind != Some("prometheus") {
        reference.lost("only Prometheus is queried here: write a check for what it measures, or require a sign-off");
        return None;
    }
    query
}

/// A query with the values of its variables; of the canary alone.
fn filled(
    query: &str,
    interval: &str,
    variables: &BTreeMap<String, String>,
    around: &Around<'_>,
) -> Result<String, String> {
    let text = fill(query, |name| {
        let name = name.trim_matches('-').trim();
        let value = match name {
            "name" => Some("{{rollout}}".to_owned()),
            "namespace" => Some("{{namespace}}".to_owned()),
            "target" => Some(TARGET.to_owned()),
            "service" => Some(APEX.to_owned()),
            "interval" => Some(interval.to_owned()),
            _ => match name.strip_prefix("variables.") {
                Some(variable) => variables.get(variable).cloned(),
                None => around.others.get(name).map(|it| (*it).to_owned()),
            },
        };
        value.ok_or_else(|| format!("needs the variable {name}, which has no value"))
    })?;
    for side in [TARGET, APEX] {
        if text.contains(&format!("{side}-primary")) {
            return Err("is about the old version, too: each check compares with it".to_owned());
        }
    }
    // Flagger's canary is a workload and a Service of its own; here its Service is the canary's.
    let text = text.replace(&format!("{TARGET}-canary"), "{{service}}");
    let text = text.replace(&format!("{APEX}-canary"), "{{service}}");
    Ok(text.replace(APEX, around.apex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_query_have_their_values() {
        let variables = BTreeMap::from([("direction".to_owned(), "inbound".to_owned())]);
        let around = Around {
            objects: &[],
            namespace: None,
            apex: "web",
            others: BTreeMap::from([("ingress", "front")]),
            preset: None,
            failures: 1,
        };
        let filled = |query: &str| filled(query, "2m", &variables, &around);
        assert_eq!(
            filled(
                r#"x{n="{{ namespace }}",d="{{ variables.direction }}",i="{{- ingress -}}"}[{{ interval }}]"#
            ),
            Ok(r#"x{n="{{namespace}}",d="inbound",i="front"}[2m]"#.to_owned())
        );
        assert_eq!(
            filled(r#"x{s="{{ service }}-canary",t="{{ target }}-canary-80",a="{{ service }}"}"#),
            Ok(r#"x{s="{{service}}",t="{{service}}-80",a="web"}"#.to_owned())
        );
        assert!(filled("{{ target }}-primary").is_err());
        assert!(filled("{{ route }}").is_err());
    }
}
