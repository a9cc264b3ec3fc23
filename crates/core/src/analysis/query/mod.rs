//! A check's queries, and counts from the answers of Prometheus.
//!
//! [`render`] turns a check into PromQL for one revision; [`count`](crate::analysis::count::count) turns the answers for one arm
//! and one window into [`Counts`](crate::analysis::statistics::Counts), or into a typed reason why there are none. A query takes one of
//! two forms:
//!
//! - a **selector** of counters, whose raw samples are differenced here, series by series
//!   ([`increase`](crate::analysis::series::increase)). Nothing is extrapolated, so that disjoint windows add up to exactly what the
//!   counters grew by, and the first error of a new pod counts although no sample precedes it;
//! - an **expression** with `{{window}}` that Prometheus evaluates to one number of events.
//!
//! **Invariant:** no async, no clock. A value enters a query only inside a string literal and
//! escaped, so that no name can change what the query means. What cannot be counted is never
//! counted as zero.

pub mod form;
pub mod placeholder;
pub(crate) mod preset;
pub mod problem;
pub(crate) mod promql;

use countersign_api::analysis::{BucketUnit, Latency};
use countersign_api::{Check, Duration, Metric, Objective};

use crate::analysis::query::form::{Arm, Field, Form, Query};
use crate::analysis::query::problem::{Problem, QueryError};
use crate::analysis::query::promql::Kind;
use crate::text;

/// Most events of one window. A larger number does not count by ones, and the sum of some windows could be
/// infinite, which a status cannot store.
pub(super) const MOST_EVENTS: f64 = 9_007_199_254_740_992.0;

/// Share of the requests by which errors may exceed them, from scrapes that are not simultaneous.
pub(super) const SCRAPE_SKEW: f64 = 0.05;

/// The queries to Prometheus about one arm of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queries {
    /// The failed requests; for a latency, the fast ones.
    pub errors: Query,
    /// All requests.
    pub total: Query,
    /// Which of the two `errors` counts.
    pub counting: Counting,
}

/// What the query beside the total counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Requests that failed.
    Failed,
    /// Requests that were not slow: a bucket of a histogram counts those.
    Fast,
}

/// The queries of a check that counts requests, for one arm.
pub fn render(check: &Check, arm: Arm<'_>, window: Duration) -> Result<Queries, QueryError> {
    if let Some(latency) = &check.latency {
        return histogram(check, latency, arm, window);
    }
    let fail = |field| move |problem| failed(check, field, problem);
    let preset = check.preset.and_then(preset::queries);
    let (errors, total) = match (preset, &check.errors, &check.total) {
        (Some(preset), None, None) => (&preset.errors, &preset.total),
        (None, Some(errors), Some(total)) => (errors, total),
        (None, Some(_), None) => return Err(fail(Field::Total)(Problem::Incomplete)),
        _ => return Err(fail(Field::Errors)(Problem::Incomplete)),
    };
    let query = |field, template| {
        let filled =
            placeholder::fill(template, arm, window).and_then(|filled| filled.query(field));
        filled.map_err(fail(field))
    };
    Ok(Queries {
        errors: query(Field::Errors, errors)?,
        total: query(Field::Total, total)?,
        counting: Counting::Failed,
    })
}

/// The query of a check that holds a metric to bounds, for one arm.
pub fn render_metric(
    check: &Check,
    metric: &Metric,
    arm: Arm<'_>,
    window: Duration,
) -> Result<Query, QueryError> {
    let filled =
        placeholder::fill(&metric.query, arm, window).and_then(|filled| match placeholder::parse(
            &filled.text,
        )? {
            Kind::Selector | Kind::OddSelector | Kind::Numbers | Kind::Fixed => Ok(Query {
                field: Field::Metric,
                form: Form::Expression,
                text: filled.text.trim().to_owned(),
            }),
            Kind::Other => Err(Problem::NoNumber),
        });
    filled.map_err(|problem| failed(check, Field::Metric, problem))
}

/// Whether the queries of a check can be sent for one arm.
pub fn verify(check: &Check, arm: Arm<'_>, window: Duration) -> Result<(), QueryError> {
    match &check.metric {
        Some(metric) => render_metric(check, metric, arm, window).map(|_| ()),
        None => render(check, arm, window).map(|_| ()),
    }
}

/// Whether a query without placeholders yields numbers.
pub fn yields_numbers(query: &str) -> Result<bool, Problem> {
    Ok(placeholder::parse(query)? != Kind::Other)
}

/// The queries of an objective about a whole service: failed requests, then all.
pub fn render_objective(
    name: &str,
    objective: &Objective,
    arm: Arm<'_>,
) -> Result<[Query; 2], QueryError> {
    let query = |field, template: &str| {
        let filled = placeholder::fill(template, arm, Duration::default());
        let filled = filled.and_then(|filled| {
            match placeholder::form(placeholder::parse(&filled.text)?, filled.window)? {
                Form::Selector => Ok(Query {
                    field,
                    form: Form::Selector,
                    text: filled.text.trim().to_owned(),
                }),
                Form::Expression => Err(Problem::Form),
            }
        });
        filled.map_err(|problem| QueryError {
            check: text::sanitize_to(name, 80),
            field,
            problem,
        })
    };
    Ok([
        query(Field::Errors, &objective.errors)?,
        query(Field::Total, &objective.total)?,
    ])
}

/// Whether a check's queries distinguish the revisions by their Services.
#[must_use]
pub fn is_split_by_service(check: &Check) -> bool {
    let preset = check.preset.and_then(preset::queries);
    let preset = preset
        .into_iter()
        .flat_map(|it| [Some(&it.total), it.buckets.as_ref()]);
    let buckets = check.latency.as_ref().and_then(|it| it.buckets.as_ref());
    let queries = [check.errors.as_ref(), check.total.as_ref(), buckets];
    let mut queries = preset.chain(queries).flatten();
    queries.any(|query| query.replace(' ', "").contains("{{service}}"))
}

fn failed(check: &Check, field: Field, problem: Problem) -> QueryError {
    QueryError {
        check: text::sanitize_to(&check.name, 80),
        field,
        problem,
    }
}

/// All requests, and the fast ones, by two buckets of a histogram.
fn histogram(
    check: &Check,
    latency: &Latency,
    arm: Arm<'_>,
    window: Duration,
) -> Result<Queries, QueryError> {
    let fail = |problem| failed(check, Field::Buckets, problem);
    let (template, unit) = match (check.preset.and_then(preset::queries), &latency.buckets) {
        (Some(preset), None) => (preset.buckets.as_ref(), preset.unit),
        (None, buckets) => (buckets.as_ref(), latency.unit),
        (Some(_), Some(_)) => return Err(fail(Problem::Incomplete)),
    };
    let template = template.ok_or_else(|| fail(Problem::NoBuckets))?;
    let buckets =
        placeholder::fill(template, arm, window).and_then(|filled| filled.query(Field::Buckets));
    let buckets = buckets.map_err(fail)?;
    if buckets.form != Form::Selector {
        return Err(fail(Problem::BucketsForm));
    }
    let bucket = |field, matcher: &str| Query {
        field,
        form: Form::Selector,
        text: placeholder::with_matcher(&buckets.text, matcher),
    };
    Ok(Queries {
        errors: bucket(Field::Buckets, &at_most(latency.within, unit)),
        total: bucket(Field::Total, r#"le="+Inf""#),
        counting: Counting::Fast,
    })
}

/// A matcher of the bucket with this bound, in the notations of different exporters.
fn at_most(within: Duration, unit: BucketUnit) -> String {
    let bound = match unit {
        BucketUnit::Seconds => within.std().as_secs_f64().to_string(),
        BucketUnit::Milliseconds => within.std().as_millis().to_string(),
    };
    let bound = bound.replace('.', "[.]");
    format!(r#"le=~"{bound}([.]0+)?""#)
}

#[cfg(test)]
mod tests;
