//! From the answers for one arm and one window to counts.

use std::collections::BTreeMap;
use std::fmt;

use countersign_api::counts::Counts;

use crate::analysis::query::form::{Form, Query};
use crate::analysis::query::{Counting, MOST_EVENTS, Queries, SCRAPE_SKEW};
use crate::analysis::series::{self, FirstIncrement, Series, Span};
use crate::analysis::statistics::CountsExt;
use crate::observation::windows::Uncounted;
use crate::text;

/// The answer of Prometheus to one query about one arm.
#[derive(Clone, Copy, Debug)]
pub struct ArmAnswer<'a> {
    /// The name of the arm in messages.
    pub arm: &'a str,
    /// The query.
    pub query: &'a Query,
    /// The answer: raw samples of a selector, or the value of an expression at each window's end.
    pub series: &'a [Series],
    /// How the first value of a new series is counted.
    pub first_increment: FirstIncrement,
}

/// Why a window is not counted: reason and message.
pub type NotCounted = (Uncounted, String);

impl ArmAnswer<'_> {
    fn not_counted(&self, reason: Uncounted, what: impl fmt::Display) -> NotCounted {
        let Self { arm, query, .. } = self;
        let text = text::sanitize_to(&query.text, 120);
        (
            reason,
            format!("{arm}: the query `{}` ({text}) {what}", query.field),
        )
    }

    /// Events in the window; `None` if no series has a sample in it.
    fn events(&self, other: &Self, span: Span) -> Result<Option<f64>, NotCounted> {
        let events = match self.query.form {
            Form::Expression => self.number_at(span.end)?.map(series::countable).transpose(),
            Form::Selector if self.newest(span.end).is_none() => Ok(None),
            Form::Selector => {
                series::increase(self.series, other.series, span, self.first_increment).map(Some)
            }
        };
        let events = events.and_then(|events| match events {
            Some(events) if events > MOST_EVENTS => Err((Uncounted::NotANumber, events)),
            events => Ok(events),
        });
        events.map_err(|(reason, value)| {
            self.not_counted(reason, format_args!("gave the value {value}"))
        })
    }

    /// The value of an expression at a time.
    fn number_at(&self, moment: f64) -> Result<Option<f64>, NotCounted> {
        let found: Vec<_> = self
            .series
            .iter()
            .filter_map(|series| Some((series, series.value_at(moment)?)))
            .collect();
        match found.as_slice() {
            [] => Ok(None),
            [(_, value)] => Ok(Some(*value)),
            several => Err(self.several(several.iter().map(|(series, _)| *series))),
        }
    }

    fn several<'a>(&self, series: impl ExactSizeIterator<Item = &'a Series>) -> NotCounted {
        let count = series.len();
        let named: Vec<_> = series
            .take(3)
            .map(|series| labels(&series.labels))
            .collect();
        let named = named.join(", ");
        self.not_counted(
            Uncounted::SeveralSeries,
            format_args!("gave {count} series where one number is expected, such as {named}: wrap it in sum(...)"),
        )
    }

    /// Time of the newest sample at or before a time.
    fn newest(&self, moment: f64) -> Option<f64> {
        let newest = self.series.iter().filter_map(|series| series.at(moment));
        newest.map(|(at, _)| at).max_by(f64::total_cmp)
    }

    /// Rejects samples that are too old for the window.
    fn fresh(&self, span: Span) -> Result<(), NotCounted> {
        let Some(newest) = self.newest(span.end) else {
            return Ok(());
        };
        let age = span.end - newest;
        if self.query.form == Form::Expression || age <= span.stale_after() {
            return Ok(());
        }
        let what = format!(
            "has no sample younger than {age:.0} s, more than two intervals: its pods are no longer scraped, or are scraped less often than the analysis' interval"
        );
        Err(self.not_counted(Uncounted::StaleSamples, what))
    }

    /// Whether these series come from other targets than those of `other`.
    fn is_foreign_to(&self, other: &Self) -> bool {
        let known = |s: &Series| other.series.iter().any(|o| o.target() == s.target());
        !self.series.iter().all(known)
    }
}

/// Counts one window of one arm, or returns why it cannot be counted.
///
/// Requests without an error series have no errors; that needs a total, since no series at all means that
/// nothing was measured. A histogram without the requested bucket gives no counts.
pub fn count(
    errors: ArmAnswer<'_>,
    total: ArmAnswer<'_>,
    counting: Counting,
    span: Span,
) -> Result<Counts, NotCounted> {
    let requests = total.events(&errors, span)?.ok_or_else(|| {
        total.not_counted(
            Uncounted::NoSeries,
            "matched no series: are the pods scraped, and do the labels match?",
        )
    })?;
    total.fresh(span)?;
    // An error series may end with its pod, beside a total that continues; but errors measured at another
    // target than the total are missed if that target is no longer scraped.
    if let Err(stale) = errors.fresh(span)
        && errors.is_foreign_to(&total)
    {
        return Err(stale);
    }
    let failed = match (counting, errors.events(&total, span)?) {
        (Counting::Failed, failed) => failed.unwrap_or(0.0),
        (Counting::Fast, Some(fast)) => (requests - fast).max(0.0),
        (Counting::Fast, None) => {
            let what = "matched no series: the histogram must have a bucket with just this bound";
            return Err(errors.not_counted(Uncounted::NoBucket, what));
        }
    };
    if failed - requests > f64::max(1.0, SCRAPE_SKEW * requests) {
        let query = text::sanitize_to(&total.query.text, 120);
        let what = format!(
            "counted {failed} errors of {requests} requests: it counts what the query `total` ({query}) leaves out"
        );
        return Err(errors.not_counted(Uncounted::ErrorsExceedRequests, what));
    }
    Ok(Counts {
        requests,
        errors: failed.min(requests),
    })
}

/// The counts of one revision in windows of the past, from a counter's sum at each window's end, or the
/// value of an expression there. Windows in which a counter was reset, or nothing was measured, are left out.
pub fn history(
    queries: &Queries,
    errors: &[Series],
    total: &[Series],
    windows: impl Iterator<Item = Span>,
) -> Vec<Counts> {
    let at = |series: &[Series], moment: f64| series.first()?.value_at(moment);
    let events = |query: &Query, series: &[Series], span: Span| match query.form {
        Form::Expression => at(series, span.end),
        Form::Selector => {
            let end = at(series, span.end)?;
            // A counter that appears within the window counts from zero.
            Some(end - at(series, span.start).unwrap_or(0.0))
        }
    };
    let window = |span: Span| {
        let known = queries.total.form == Form::Expression || at(total, span.start).is_some();
        let requests = events(&queries.total, total, span).filter(|_| known)?;
        let counted = events(&queries.errors, errors, span);
        let errors = match queries.counting {
            Counting::Failed => counted.unwrap_or(0.0),
            Counting::Fast => requests - counted?,
        };
        let counts = Counts { requests, errors };
        counts.is_usable().then_some(counts)
    };
    windows.filter_map(window).collect()
}

/// The value of a metric at a time, or why there is none.
pub fn measure(answer: ArmAnswer<'_>, moment: f64) -> Result<f64, NotCounted> {
    let number = answer.number_at(moment)?.ok_or_else(|| {
        answer.not_counted(
            Uncounted::NoSeries,
            "gave nothing: does its metric exist, and do the labels match?",
        )
    })?;
    if number.is_finite() {
        return Ok(number);
    }
    let what = format_args!("gave the value {number}");
    Err(answer.not_counted(Uncounted::NotANumber, what))
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    format!("{{{}}}", text::sanitize_to(&pairs.join(","), 80))
}
