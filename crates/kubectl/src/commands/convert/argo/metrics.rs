//! The metrics of an analysis.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::commands::convert::argo::args::Args;
use crate::commands::convert::checks::{Asked, Checks, written};
use crate::commands::convert::condition::{self, Bounds};
use crate::commands::convert::document::put;
use crate::commands::convert::foreign::Field;

/// When the checks of an analysis run.
#[derive(Clone, Copy, Default)]
pub struct When {
    /// Smallest and largest weight of the steps; all steps if not set.
    pub weights: Option<(i64, i64)>,
    /// Whether it runs before the canary has a share of the requests.
    pub before_traffic: bool,
}

/// The least time that a metric is measured.
pub fn span(metric: &Field<'_>) -> Duration {
    let interval = metric.span("interval").unwrap_or_default();
    let delay = metric.span("initialDelay").unwrap_or_default();
    let counts = [
        metric.count("count"),
        metric.count("consecutiveSuccessLimit"),
    ];
    let count = counts.into_iter().flatten().max().unwrap_or(1);
    let further = u32::try_from(count - 1).unwrap_or_default();
    interval.saturating_mul(further).saturating_add(delay)
}

/// Adds the check of a metric.
pub fn add(
    metric: &Field<'_>,
    name: &str,
    args: &Args,
    is_advisory: bool,
    when: When,
    checks: &mut Checks,
) {
    // An error holds here, until the deadline; an answer between the two conditions counts as a failure.
    metric.skip_all(&["consecutiveErrorLimit", "inconclusiveLimit"]);
    // Only the analysis of a step makes a change wait as long; elsewhere the count has no meaning here.
    span(metric);
    let Some(provider) = metric.get("provider") else {
        metric.lost("it has no provider");
        return;
    };
    if provider.get("job").is_some() {
        job(metric, &provider, args, when, checks);
        return;
    }
    let Some(prometheus) = provider.get("prometheus") else {
        metric.lost("only Prometheus is queried here: write a check for what it measures, or require a sign-off");
        return;
    };
    prometheus.skip_all(&["address"]);
    prometheus.drop_all(
        &[
            "authentication",
            "headers",
            "insecure",
            "rangeQuery",
            "timeout",
        ],
        "the operator queries one Prometheus, which its own options name",
    );
    let query = prometheus.text("query").unwrap_or_default();
    let query = match args.fill(query) {
        Ok(query) => query,
        Err(argument) => {
            metric.lost(&format!(
                "its query needs the argument {argument}, which has no value here"
            ));
            return;
        }
    };
    let Some(bounds) = bounds(metric, args) else {
        return;
    };
    let limit = metric.count("failureLimit").unwrap_or_default();
    // -1 is no limit.
    let failures = if limit < 0 {
        i64::MAX
    } else {
        limit.saturating_add(1)
    };
    if let Some(interval) = metric.span("interval") {
        checks.every(interval);
    }
    checks.warm_up(metric.span("initialDelay").unwrap_or_default());
    let asked = Asked {
        name,
        query: &query,
        bounds,
        failures,
        is_advisory,
    };
    checks.ask(&asked, when.weights);
}

/// The answers that pass, or a report of what has none.
fn bounds(metric: &Field<'_>, args: &Args) -> Option<Bounds> {
    let filled = |key| {
        metric
            .text(key)
            .map(|text| args.fill(text).unwrap_or_default())
    };
    let bounds = match (filled("successCondition"), filled("failureCondition")) {
        (Some(success), Some(failure)) => condition::passes(&success)
            .zip(condition::fails_not(&failure))
            .map(|(success, failure)| success.and(failure)),
        (Some(success), None) => condition::passes(&success),
        (None, Some(failure)) => condition::fails_not(&failure),
        (None, None) => {
            metric.dropped("it has no condition, so every answer passed");
            return None;
        }
    };
    if bounds.is_none() {
        metric.lost("a condition of it is not a comparison of the result with a number: write the bounds into a check");
    }
    bounds
}

/// A Job that runs before the canary has traffic is a smoke check.
fn job(metric: &Field<'_>, provider: &Field<'_>, args: &Args, when: When, checks: &mut Checks) {
    let once = metric
        .count("count")
        .map_or(metric.get("interval").is_none(), |it| it == 1);
    if !when.before_traffic || !once {
        metric.lost("a Job runs once and before the first step here: write a check for what it measures, or a smoke check");
        return;
    }
    if checks.smoke.is_some() {
        metric.lost("there is one smoke check: let one Job do both");
        return;
    }
    metric.skip_all(&["successCondition", "failureCondition", "failureLimit"]);
    let Some(spec) = provider.get("job").and_then(|job| job.get("spec")) else {
        metric.lost("its Job has no spec");
        return;
    };
    let mut smoke = Map::new();
    put(
        &mut smoke,
        "timeout",
        spec.span("activeDeadlineSeconds").map(written),
    );
    let template = spec
        .value("template")
        .map(|template| filled(&template, args));
    match template {
        Some(Ok(template)) => put(&mut smoke, "template", Some(template)),
        Some(Err(argument)) => {
            metric.lost(&format!(
                "its Job needs the argument {argument}, which has no value here"
            ));
            return;
        }
        None => {
            metric.lost("its Job has no template");
            return;
        }
    }
    if let Some(job) = provider.get("job") {
        job.skip();
    }
    metric.decide("the Job is a smoke check: it runs before the first pod of the canary exists, so it cannot call the canary");
    checks.smoke = Some(smoke.into());
}

/// A pod template with the values of arguments. A value that only a query can have is none.
fn filled(template: &Value, args: &Args) -> Result<Value, String> {
    Ok(match template {
        Value::String(text) => {
            let filled = args.fill(text)?;
            if filled != *text && filled.contains("{{") {
                return Err(text.trim().to_owned());
            }
            Value::String(filled)
        }
        Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(|it| self::filled(it, args)).collect();
            Value::Array(items?)
        }
        Value::Object(members) => {
            let members = members.iter();
            let members = members.map(|(key, it)| Ok((key.clone(), self::filled(it, args)?)));
            Value::Object(members.collect::<Result<_, String>>()?)
        }
        other => other.clone(),
    })
}
