//! Queries that a check can count: a ratio of two rates, and a quantile of a histogram.
//!
//! Another controller asks Prometheus for a ratio and compares it. A check here has the two counters, which the
//! operator counts for each revision.

use std::panic;
use std::time::Duration;

use countersign_core::analysis::query::placeholder;
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};

use crate::commands::convert::condition::Bounds;

/// The workload of a Canary in a query: its pods are those of the Rollout.
pub const TARGET: &str = "{{target}}";
/// The matcher of one revision.
const REVISION: &str = r#"pod_template_hash="{{revision}}""#;
/// The pods of one revision, by their names.
const PODS: &str = r#"=~"{{rollout}}-{{revision}}-[a-z0-9]{5}""#;
/// The label of one revision's pods in Argo Rollouts.
const ARGO_HASH_LABEL: &str = "rollouts_pod_template_hash";

/// What a query asks, as fields of a check.
#[derive(Debug, PartialEq)]
pub enum Question {
    /// The share of failed requests.
    Errors {
        errors: String,
        total: String,
        ceiling: f64,
    },
    /// A quantile of the requests' time.
    Latency {
        buckets: String,
        within: Duration,
        quantile: f64,
        unit: &'static str,
    },
}

impl Question {
    /// Whether the label of the revision had to be added.
    pub fn assumes_label(&self) -> bool {
        match self {
            Self::Errors { total: query, .. } | Self::Latency { buckets: query, .. } => {
                query.contains(REVISION)
            }
        }
    }
}

/// The question of a query whose answer has bounds; `None` if it is another one.
pub fn question(query: &str, bounds: Bounds) -> Option<Question> {
    let expression = parsed(&encoded(query)?)?;
    let errors = ratio(&expression).and_then(|it| it.errors(bounds));
    errors.or_else(|| quantile(&expression).and_then(|it| it.latency(bounds)))
}

/// The query as it is, with placeholders of the Rollout.
pub fn unchanged(query: &str) -> String {
    query.trim().replace(TARGET, "{{rollout}}")
}

/// The query with its placeholders as text that the parser takes, in a regular expression too.
fn encoded(query: &str) -> Option<String> {
    if query.contains("<<") || query.contains(">>") {
        return None;
    }
    let mut text = String::new();
    let mut rest = query;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, further) = after.split_once("}}")?;
        text.extend([before, "<<", name.trim(), ">>"]);
        rest = further;
    }
    text.push_str(rest);
    Some(text)
}

fn decoded(text: &str) -> String {
    unchanged(&text.replace("<<", "{{").replace(">>", "}}"))
}

fn parsed(text: &str) -> Option<Expr> {
    if placeholder::is_too_complex(text) {
        return None;
    }
    // The parser panics on numbers beyond what a duration holds.
    panic::catch_unwind(|| parser::parse(text)).ok()?.ok()
}

/// A ratio of two rates, as `factor * above / below + offset`.
struct Ratio<'a> {
    above: &'a VectorSelector,
    below: &'a VectorSelector,
    factor: f64,
    offset: f64,
}

impl Ratio<'_> {
    fn scaled(self, by: f64) -> Self {
        Self {
            factor: self.factor * by,
            offset: self.offset * by,
            ..self
        }
    }

    fn moved(self, by: f64) -> Self {
        Self {
            offset: self.offset + by,
            ..self
        }
    }

    /// The counters of failed and of all requests. If the ratio is that of good requests, the failed ones are
    /// the others.
    fn errors(&self, bounds: Bounds) -> Option<Question> {
        if !self.factor.is_normal() {
            return None;
        }
        let share = |value: f64| (value - self.offset) / self.factor;
        let (least, most) = (bounds.min.map(share), bounds.max.map(share));
        let (least, most) = if self.factor < 0.0 {
            (most, least)
        } else {
            (least, most)
        };
        // A share is never below 0 nor above 1.
        let (least, most) = (least.filter(|it| *it > 0.0), most.filter(|it| *it < 1.0));
        let (errors, ceiling) = match (least, most) {
            (None, Some(most)) => (selector(self.above, &self.above.matchers.matchers), most),
            (Some(least), None) => (selector(self.below, &self.others()?), 1.0 - least),
            _ => return None,
        };
        // 1 - 0.95 is not quite 0.05.
        let ceiling = (ceiling * 1e9).round() / 1e9;
        let is_valid = (0.000_001..=1.0).contains(&ceiling);
        is_valid.then(|| Question::Errors {
            errors,
            total: selector(self.below, &self.below.matchers.matchers),
            ceiling,
        })
    }

    /// The matchers of all requests that the upper selector leaves out.
    fn others(&self) -> Option<Vec<Matcher>> {
        let (above, below) = (&self.above.matchers.matchers, &self.below.matchers.matchers);
        let mut further = above.iter().filter(|it| !below.contains(it));
        let (only, None) = (further.next()?, further.next()) else {
            return None;
        };
        let same = self.above.name == self.below.name && above.len() == below.len() + 1;
        let op = match &only.op {
            MatchOp::Equal => MatchOp::NotEqual,
            MatchOp::NotEqual => MatchOp::Equal,
            MatchOp::Re(pattern) => MatchOp::NotRe(pattern.clone()),
            MatchOp::NotRe(pattern) => MatchOp::Re(pattern.clone()),
        };
        let inverted = Matcher::new(op, &only.name, &only.value);
        let mut others = below.clone();
        others.push(inverted);
        same.then_some(others)
    }
}

fn ratio(expression: &Expr) -> Option<Ratio<'_>> {
    let binary = match expression {
        Expr::Paren(inner) => return ratio(&inner.expr),
        Expr::Binary(binary) => binary,
        _ => return None,
    };
    let (left, right) = (&*binary.lhs, &*binary.rhs);
    let op = binary.op.to_string();
    Some(match (op.as_str(), number(left), number(right)) {
        ("*", None, Some(by)) => ratio(left)?.scaled(by),
        ("*", Some(by), None) => ratio(right)?.scaled(by),
        ("/", None, Some(by)) => ratio(left)?.scaled(1.0 / by),
        ("-", Some(from), None) => ratio(right)?.scaled(-1.0).moved(from),
        ("-", None, Some(by)) => ratio(left)?.moved(-by),
        ("or", None, None) if is_constant(right) => ratio(left)?,
        ("/", None, None) => {
            let ((above, up), (below, down)) = (rate(left)?, rate(right)?);
            Ratio {
                above,
                below,
                factor: up / down,
                offset: 0.0,
            }
        }
        _ => return None,
    })
}

/// The counters of a rate over all series, and its factor.
fn rate(expression: &Expr) -> Option<(&VectorSelector, f64)> {
    match expression {
        Expr::Paren(inner) => rate(&inner.expr),
        Expr::Binary(binary) => {
            let (left, right) = (&*binary.lhs, &*binary.rhs);
            let op = binary.op.to_string();
            match (op.as_str(), number(left), number(right)) {
                ("*", None, Some(by)) => rate(left).map(|(it, factor)| (it, factor * by)),
                ("*", Some(by), None) => rate(right).map(|(it, factor)| (it, factor * by)),
                // No data is not 0 here, and holds.
                ("or", None, None) if is_constant(right) => rate(left),
                _ => None,
            }
        }
        Expr::Aggregate(sum) if sum.op.to_string() == "sum" => {
            let counters = increase(&sum.expr)?;
            grouped_by(sum.modifier.as_ref(), &[]).then_some((counters, 1.0))
        }
        _ => None,
    }
}

/// Whether an aggregation keeps just these labels.
fn grouped_by(modifier: Option<&LabelModifier>, labels: &[&str]) -> bool {
    let Some(modifier) = modifier else {
        return labels.is_empty();
    };
    let kept = &modifier.labels().labels;
    modifier.is_include() && kept.iter().eq(labels)
}

/// The counters of `rate(x[5m])` and its kin.
fn increase(expression: &Expr) -> Option<&VectorSelector> {
    let call = match expression {
        Expr::Paren(inner) => return increase(&inner.expr),
        Expr::Call(call) if ["rate", "irate", "increase"].contains(&call.func.name) => call,
        _ => return None,
    };
    let Expr::MatrixSelector(range) = &**call.args.args.first()? else {
        return None;
    };
    let counters = &range.vs;
    let is_plain = counters.offset.is_none()
        && counters.at.is_none()
        && counters.matchers.or_matchers.is_empty();
    is_plain.then_some(counters)
}

fn number(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::Paren(inner) => number(&inner.expr),
        Expr::NumberLiteral(number) => Some(number.val),
        _ => None,
    }
}

/// Whether an expression stands for a missing value, as `vector(0)` does.
fn is_constant(expression: &Expr) -> bool {
    match expression {
        Expr::Paren(inner) => is_constant(&inner.expr),
        Expr::Call(call) => call.func.name == "vector",
        _ => false,
    }
}

/// A quantile of a histogram, times a factor.
struct Histogram<'a> {
    quantile: f64,
    buckets: &'a VectorSelector,
    factor: f64,
}

impl Histogram<'_> {
    fn latency(&self, bounds: Bounds) -> Option<Question> {
        if bounds.min.is_some_and(|min| min > 0.0) || !(0.5..=0.999_999).contains(&self.quantile) {
            return None;
        }
        let name = self.buckets.name.as_deref().unwrap_or_default();
        let (unit, of_a_second) = if name.contains("millisecond") || name.contains("_ms") {
            ("Milliseconds", 1000.0)
        } else {
            ("Seconds", 1.0)
        };
        let seconds = bounds.max? / self.factor / of_a_second;
        let within = Duration::try_from_secs_f64(seconds).ok()?;
        let matchers = self.buckets.matchers.matchers.iter();
        let matchers: Vec<_> = matchers.filter(|it| it.name != "le").cloned().collect();
        (within.as_millis() > 0).then(|| Question::Latency {
            buckets: selector(self.buckets, &matchers),
            within,
            quantile: self.quantile,
            unit,
        })
    }
}

fn quantile(expression: &Expr) -> Option<Histogram<'_>> {
    match expression {
        Expr::Paren(inner) => quantile(&inner.expr),
        Expr::Binary(binary) => {
            let (left, right) = (&*binary.lhs, &*binary.rhs);
            let op = binary.op.to_string();
            let (inner, by) = match (op.as_str(), number(left), number(right)) {
                ("*", None, Some(by)) => (quantile(left)?, by),
                ("*", Some(by), None) => (quantile(right)?, by),
                ("/", None, Some(by)) => (quantile(left)?, 1.0 / by),
                ("or", None, None) if is_constant(right) => (quantile(left)?, 1.0),
                _ => return None,
            };
            Some(Histogram {
                factor: inner.factor * by,
                ..inner
            })
        }
        Expr::Call(call) if call.func.name == "histogram_quantile" => {
            let [share, buckets] = call.args.args.as_slice() else {
                return None;
            };
            let Expr::Aggregate(sum) = &**buckets else {
                return None;
            };
            let is_sum = sum.op.to_string() == "sum";
            let by_bound = grouped_by(sum.modifier.as_ref(), &["le"]);
            Some(Histogram {
                quantile: number(share)?,
                buckets: increase(&sum.expr).filter(|_| is_sum && by_bound)?,
                factor: 1.0,
            })
        }
        _ => None,
    }
}

/// The selector of one revision's counters.
fn selector(counters: &VectorSelector, matchers: &[Matcher]) -> String {
    let mut is_of_one = false;
    let mut written = Vec::new();
    for matcher in matchers {
        let Matcher { op, name, value } = matcher;
        let selects = matches!(op, MatchOp::Equal | MatchOp::Re(_));
        let text = if name == ARGO_HASH_LABEL && selects {
            is_of_one = true;
            REVISION.to_owned()
        } else if name.contains("pod") && value.starts_with("<<target>>") && selects {
            is_of_one = true;
            format!("{name}{PODS}")
        } else {
            let of_one = ["<<revision>>", "<<service>>"];
            is_of_one |= selects && of_one.iter().any(|it| value.contains(it));
            decoded(&matcher.to_string())
        };
        written.push(text);
    }
    if !is_of_one {
        written.push(REVISION.to_owned());
    }
    let name = counters.name.as_deref().unwrap_or_default();
    format!("{name}{{{}}}", written.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at_most(max: f64) -> Bounds {
        Bounds {
            min: None,
            max: Some(max),
        }
    }

    const fn at_least(min: f64) -> Bounds {
        Bounds {
            min: Some(min),
            max: None,
        }
    }

    fn errors(query: &str, bounds: Bounds) -> (String, String, f64) {
        match question(query, bounds) {
            Some(Question::Errors {
                errors,
                total,
                ceiling,
            }) => (errors, total, ceiling),
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn a_ratio_of_rates_is_errors_and_total() {
        let found = errors(
            r#"sum(rate(http_requests_total{h="{{revision}}",code=~"5.."}[5m]))
               / sum(rate(http_requests_total{h="{{revision}}"}[5m]))"#,
            at_most(0.05),
        );
        let expected = (
            r#"http_requests_total{h="{{revision}}",code=~"5.."}"#.to_owned(),
            r#"http_requests_total{h="{{revision}}"}"#.to_owned(),
            0.05,
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn a_success_rate_is_the_errors_that_it_leaves_out() {
        for (query, bounds) in [
            (
                r#"sum(irate(x{s=~"{{service}}",code!~"5.*"}[5m])) / sum(irate(x{s=~"{{service}}"}[5m]))"#,
                at_least(0.95),
            ),
            (
                r#"(sum(rate(x{s=~"{{service}}",code!~"5.*"}[1m])) / sum(rate(x{s=~"{{service}}"}[1m]))) * 100"#,
                at_least(95.0),
            ),
            (
                r#"100 - sum(rate(x{s=~"{{service}}",code!~"5.*"}[1m])) / sum(rate(x{s=~"{{service}}"}[1m])) * 100"#,
                at_most(5.0),
            ),
        ] {
            let expected = (
                r#"x{s=~"{{service}}",code=~"5.*"}"#.to_owned(),
                r#"x{s=~"{{service}}"}"#.to_owned(),
                0.05,
            );
            assert_eq!(errors(query, bounds), expected, "{query}");
        }
    }

    #[test]
    fn a_missing_numerator_is_left_out() {
        let query = r#"(sum(rate(x{h="{{revision}}",code="500"}[1m])) or vector(0)) / sum(rate(x{h="{{revision}}"}[1m]))"#;
        let (errors, ..) = errors(query, at_most(0.1));
        assert_eq!(errors, r#"x{h="{{revision}}",code="500"}"#);
    }

    #[test]
    fn the_revision_is_selected_by_its_label_if_nothing_selects_it() {
        let query = r#"sum(rate(x{app="web",code="500"}[1m])) / sum(rate(x{app="web"}[1m]))"#;
        let found = question(query, at_most(0.1)).unwrap();
        assert!(found.assumes_label());
        let (_, total, _) = errors(query, at_most(0.1));
        assert_eq!(total, r#"x{app="web",pod_template_hash="{{revision}}"}"#);
        let argo = query.replace("app=\"web\"", "rollouts_pod_template_hash=\"abc\"");
        let (_, total, _) = errors(&argo, at_most(0.1));
        assert_eq!(total, r#"x{pod_template_hash="{{revision}}"}"#);
        let canary = query.replace("app=\"web\"", "pod=~\"{{target}}-[0-9a-z]+(-[0-9a-z]+)\"");
        let (_, total, _) = errors(&canary, at_most(0.1));
        assert_eq!(total, r#"x{pod=~"{{rollout}}-{{revision}}-[a-z0-9]{5}"}"#);
    }

    #[test]
    fn a_quantile_of_a_histogram_is_a_latency() {
        let query = r#"histogram_quantile(0.99, sum(rate(response_latency_ms_bucket{pod="{{revision}}"}[1m])) by (le))"#;
        let expected = Question::Latency {
            buckets: r#"response_latency_ms_bucket{pod="{{revision}}"}"#.into(),
            within: Duration::from_millis(500),
            quantile: 0.99,
            unit: "Milliseconds",
        };
        assert_eq!(question(query, at_most(500.0)), Some(expected));
        let in_seconds = format!("{query} / 1000");
        let latency = question(&in_seconds, at_most(0.5)).unwrap();
        assert!(matches!(latency, Question::Latency { within, .. } if within.as_millis() == 500));
    }

    #[test]
    fn another_query_is_not_guessed() {
        for query in [
            "sum(x) / sum(y)",
            "sum by (pod) (rate(x[1m])) / sum by (pod) (rate(y[1m]))",
            "sum(rate(x[1m] offset 1h)) / sum(rate(y[1m]))",
            "max(rate(x[1m])) / sum(rate(y[1m]))",
            "histogram_quantile(0.2, sum(rate(x_bucket[1m])) by (le))",
            "histogram_quantile(0.99, sum(rate(x_bucket[1m])) by (le, pod))",
            "sum(rate(x[{{interval}}])) / sum(rate(y[1m]))",
            "sum(rate(x[1m]",
            "x{a=\"<<b>>\"}",
            "",
        ] {
            assert_eq!(question(query, at_most(0.5)), None, "{query}");
        }
        let ratio = "sum(rate(x[1m])) / sum(rate(y[1m]))";
        for bounds in [at_most(0.0), at_most(2.0), at_least(0.5), Bounds::default()] {
            assert_eq!(question(ratio, bounds), None, "{bounds:?}");
        }
    }
}
