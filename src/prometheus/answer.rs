//! Parses a response of Prometheus into series.

use std::collections::BTreeMap;

use countersign_core::analysis::series::Series;
use countersign_core::observation::windows::Unanswered;
use countersign_core::text::sanitize_to;
use reqwest::StatusCode;
use serde::{Deserialize, Deserializer};

use crate::prometheus::failure::{Failure, refused};
use crate::prometheus::request::Request;

/// A response of Prometheus' API. Its `infos` do not make it partial. `VictoriaMetrics` has a field of
/// its own for partial responses.
#[derive(Deserialize)]
pub struct Answer {
    status: String,
    data: Option<Data>,
    warnings: Option<Vec<String>>,
    #[serde(rename = "isPartial")]
    is_partial: Option<bool>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Matrix(Vec<Row>),
    Vector(Vec<Row>),
    Scalar(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Row {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, Number)>,
    value: Option<(f64, Number)>,
    #[serde(alias = "histograms")]
    histogram: Option<serde::de::IgnoredAny>,
}

/// A number as Prometheus writes it, including `NaN` and `+Inf`.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl Answer {
    /// Parses a response.
    pub fn parse(body: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            // The parser's message may quote the response.
            let (line, column) = (error.line(), error.column());
            Failure::unreadable(format_args!(
                "at line {line}, column {column} it is not what the API of Prometheus gives"
            ))
        })
    }

    /// The series of a response to this request.
    pub fn series(self, status: StatusCode, request: &Request) -> Result<Vec<Series>, Failure> {
        let series = self.rows(status)?;
        if series.iter().all(|series| is_as_requested(series, request)) {
            Ok(series)
        } else {
            Err(Failure::unreadable(
                "its times are not the requested ones; keep the store from aligning them to the step, or bypass its query frontend",
            ))
        }
    }

    fn rows(self, status: StatusCode) -> Result<Vec<Series>, Failure> {
        let kind = self.error_type.as_deref();
        if kind == Some("bad_data") && status.is_client_error() {
            let error = sanitize_to(self.error.as_deref().unwrap_or_default(), 200);
            let message = format!("Prometheus refused the query: {error}");
            return Err(Failure::new(Unanswered::InvalidQuery, message));
        }
        if self.status != "success" || !status.is_success() {
            return Err(refused(status, kind));
        }
        if let Some(warning) = self.warnings.iter().flatten().next() {
            let message = format!("the answer may be partial: {}", sanitize_to(warning, 200));
            return Err(Failure::new(Unanswered::PartialAnswer, message));
        }
        if self.is_partial == Some(true) {
            let message = "the answer is partial: a part of the store did not answer";
            return Err(Failure::new(Unanswered::PartialAnswer, message));
        }
        match self.data {
            Some(Data::Matrix(rows) | Data::Vector(rows)) => {
                rows.into_iter().map(Row::series).collect()
            }
            Some(Data::Scalar(_) | Data::String(_)) => Err(Failure::unreadable(
                "it is a scalar or a string, not series",
            )),
            None => Err(Failure::unreadable("it holds no data")),
        }
    }
}

/// Whether the values have the requested times.
fn is_as_requested(series: &Series, request: &Request) -> bool {
    let Request::Steps { start, step, .. } = request else {
        return true;
    };
    let (start, step) = (
        super::window::seconds(*start),
        super::window::seconds(*step),
    );
    let mut times = series.samples.iter().map(|(at, _)| (at - start) / step);
    times.all(|steps| (steps - steps.round()).abs() * step < 0.001)
}

impl Row {
    fn series(self) -> Result<Series, Failure> {
        if self.histogram.is_some() {
            return Err(Failure::unreadable(
                "it holds native histograms; ask for `histogram_count(...)` by an expression",
            ));
        }
        let samples = self.values.into_iter().chain(self.value);
        let mut samples: Vec<_> = samples.map(|(at, Number(value))| (at, value)).collect();
        samples.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Series {
            labels: self.metric,
            samples,
        })
    }
}
