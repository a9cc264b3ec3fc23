//! Samples of one series, and the increase of a counter.

use std::collections::BTreeMap;

use crate::observation::windows::Uncounted;

/// A series in an answer of Prometheus.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its labels, its name (`__name__`) among them.
    pub labels: BTreeMap<String, String>,
    /// Unix time in seconds and value of each sample, oldest first.
    pub samples: Vec<(f64, f64)>,
}

impl Series {
    /// Number of samples up to and including a time.
    pub(super) fn until(&self, moment: f64) -> usize {
        self.samples.partition_point(|(at, _)| *at <= moment)
    }

    /// The last sample at or before a time.
    pub(super) fn at(&self, moment: f64) -> Option<(f64, f64)> {
        self.until(moment)
            .checked_sub(1)
            .and_then(|last| self.samples.get(last))
            .copied()
    }

    /// The value at a time, to the millisecond that Prometheus' times have.
    pub(super) fn value_at(&self, moment: f64) -> Option<f64> {
        let near = self.at(moment + 0.0005)?;
        (near.0 > moment - 0.0005).then_some(near.1)
    }

    /// The time of its first sample.
    #[must_use]
    pub fn since(&self) -> f64 {
        self.samples.first().map_or(f64::INFINITY, |(at, _)| *at)
    }

    /// The scrape target: series with the same target come from the same process.
    pub(super) fn target(&self) -> [Option<&String>; 3] {
        ["job", "instance", "pod"].map(|label| self.labels.get(label))
    }

    /// Whether its target had been scraped before it appeared, according to `others`. Then it began from
    /// zero, since the earlier scrape did not have it.
    #[must_use]
    pub fn is_new_on_known_target(&self, others: &[&[Self]]) -> bool {
        let mut others = others.iter().copied().flatten();
        others.any(|other| other.since() < self.since() && other.target() == self.target())
    }

    fn growth(&self, span: Span, from_zero: bool) -> Result<f64, InvalidSample> {
        let (first, past) = (self.until(span.start), self.until(span.end));
        let inside = self.samples.get(first..past).unwrap_or_default();
        let Some((_, earliest)) = inside.first() else {
            return Ok(0.0);
        };
        let mut last = match self.at(span.start) {
            Some((_, base)) => countable(base)?,
            None if from_zero => 0.0,
            None => countable(*earliest)?,
        };
        let mut sum = 0.0;
        for (_, value) in inside {
            let value = countable(*value)?;
            // A counter that went down was reset to zero.
            sum += if value < last { value } else { value - last };
            last = value;
        }
        Ok(sum)
    }
}

/// A window in Unix time: after `start`, up to and including `end`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Its exclusive start, in seconds.
    pub start: f64,
    /// Its inclusive end, in seconds.
    pub end: f64,
}

impl Span {
    /// Two intervals in seconds; an older sample is stale.
    pub(super) fn stale_after(self) -> f64 {
        2.0 * (self.end - self.start)
    }
}

/// How the first value of a series without a sample before the window is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstIncrement {
    /// From zero: it is certain that the series began within the analysis.
    FromZero,
    /// Not at all, unless its target had been scraped before ([`Series::is_new_on_known_target`]): an old
    /// counter that was not scraped for a while has not just grown from zero.
    FromFirstSample,
}

/// A value that cannot be counted, with the reason.
type InvalidSample = (Uncounted, f64);

pub(super) fn countable(value: f64) -> Result<f64, InvalidSample> {
    match value {
        value if !value.is_finite() => Err((Uncounted::NotANumber, value)),
        value if value < 0.0 => Err((Uncounted::Negative, value)),
        value => Ok(value),
    }
}

/// The increase of counters in a window: per series, with resets counted from zero, then summed. Disjoint
/// windows tile: their increases add up to that of their union.
///
/// `others` are further series of the same arm, which show known targets.
pub fn increase(
    series: &[Series],
    others: &[Series],
    span: Span,
    first: FirstIncrement,
) -> Result<f64, (Uncounted, f64)> {
    let growth = |one: &Series| {
        // Only a series that appears within the window needs to be looked up.
        let appears = one.since() > span.start && one.since() <= span.end;
        let certain = || one.is_new_on_known_target(&[series, others]);
        one.growth(
            span,
            appears && (first == FirstIncrement::FromZero || certain()),
        )
    };
    series.iter().map(growth).sum()
}
