//! The state of an objective: the error rate of a whole service over several spans.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_api::{Duration, Objective};
use countersign_core::analysis::query;
use countersign_core::analysis::query::form::Query;
use countersign_core::observation::windows::ErrorRates;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Arm, NOT_CONFIGURED, Prometheus};
use crate::prometheus::request::Request;
use crate::prometheus::server::{Answered, Server};

/// Seconds between queries of the short spans; reconciles in between get the cached result.
const SHORT: i64 = 15;
/// Seconds between queries of the period, which hardly changes and is expensive.
const LONG: i64 = 60;

impl Prometheus {
    /// The current error rates of a service, or why they are not known.
    pub async fn error_rates(
        &self,
        name: &str,
        objective: &Objective,
        arm: &Arm,
        now: Timestamp,
    ) -> Result<ErrorRates, String> {
        let queries = query::render_objective(name, objective, arm.named());
        let queries = queries.map_err(|problem| problem.to_string())?;
        let server = self.server.as_ref().ok_or(NOT_CONFIGURED)?;
        // As with windows, the end is old enough for its samples to be available.
        let lag = SignedDuration::try_from(self.lag()).unwrap_or_default();
        let known = now.saturating_sub(lag).unwrap_or(now).as_second();
        let span = |minutes: u64, every: i64| Span {
            range: Duration::minutes(minutes),
            time: known - known.rem_euclid(every),
        };
        let period = Span {
            range: objective.period,
            ..span(0, LONG)
        };
        let spans = [
            span(5, SHORT),
            span(30, SHORT),
            span(60, SHORT),
            span(360, SHORT),
            period,
        ];
        let rates = rates(server, &arm.namespace, &queries, spans).await;
        let [five_minutes, half_hour, hour, six_hours, period] = rates;
        Ok(ErrorRates {
            five_minutes: five_minutes?,
            half_hour: half_hour?,
            hour: hour?,
            six_hours: six_hours?,
            period: period?,
        })
    }
}

/// A span of time and its end.
#[derive(Clone, Copy)]
struct Span {
    range: Duration,
    time: i64,
}

impl Span {
    fn request(self, query: &Query) -> Request {
        Request::At {
            query: query.growth(self.range),
            time: self.time,
        }
    }
}

async fn rates<const N: usize>(
    server: &Arc<Server>,
    namespace: &str,
    queries: &[Query; 2],
    spans: [Span; N],
) -> [Result<f64, String>; N] {
    let requests: BTreeSet<_> = spans
        .iter()
        .flat_map(|span| queries.iter().map(|query| span.request(query)))
        .collect();
    let answered = server.ask_all(namespace, requests).await;
    spans.map(|span| rate(&answered, queries, span))
}

fn rate(answered: &Answered, [errors, total]: &[Query; 2], span: Span) -> Result<f64, String> {
    let total = growth(answered, total, span)?;
    let total = total.ok_or("its total matched no series: do the labels match?")?;
    // No error series beside requests means no errors.
    let errors = growth(answered, errors, span)?.unwrap_or(0.0);
    Ok(if total > 0.0 {
        (errors / total).min(1.0)
    } else {
        0.0
    })
}

fn growth(answered: &Answered, query: &Query, span: Span) -> Result<Option<f64>, String> {
    let series = answered.to(&span.request(query));
    let series = series.map_err(|failure| failure.message)?;
    let value = series.first().and_then(|series| series.samples.last());
    match value {
        Some((_, value)) if !value.is_finite() || *value < 0.0 => Err(format!(
            "the query `{}` gave the value {value}",
            query.field
        )),
        value => Ok(value.map(|(_, value)| *value)),
    }
}
