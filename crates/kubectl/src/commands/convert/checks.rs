//! Checks gathered from the metrics of another controller.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::commands::convert::condition::Bounds;
use crate::commands::convert::promql::{self, Question};

/// What a person must decide about a query that selects no revision.
const LABEL: &str = "its query selected no revision, so `pod_template_hash=\"{{revision}}\"` was added: check that the series have this label (docs/presets.md), or select by `{{service}}`";
/// What a person must decide about a query that selects no revision and stays as it is.
const WHOLE: &str = "its query selects no revision, so the canary's share of what it measures is small: select by `pod_template_hash=\"{{revision}}\"` or `{{service}}`, or keep it for the whole";
/// What a person must check about a latency.
const BUCKET: &str = "the histogram must have a bucket with just this bound";

/// The parts of an analysis.
#[derive(Default)]
pub struct Checks {
    gathered: Vec<Gathered>,
    interval: Option<Duration>,
    warm_up: Option<Duration>,
    /// Time to watch after a promotion.
    pub post_promotion: Option<Duration>,
    /// The smoke check.
    pub smoke: Option<Value>,
    decisions: BTreeSet<String>,
}

struct Gathered {
    check: Map<String, Value>,
    /// Smallest and largest weight of its steps.
    weights: Option<(i64, i64)>,
}

impl Checks {
    /// Adds a check for the steps of some weights. One that is known runs in the steps of both.
    pub fn add(&mut self, mut check: Map<String, Value>, weights: Option<(i64, i64)>) {
        let name = check.get("name").and_then(Value::as_str);
        let name = label(name.unwrap_or_default());
        check.insert("name".into(), name.clone().into());
        if let Some(known) = self.gathered.iter_mut().find(|it| it.check == check) {
            let both = known.weights.zip(weights);
            known.weights = both.map(|((a, b), (c, d))| (a.min(c), b.max(d)));
            return;
        }
        let mut free = name.clone();
        let mut number = self.gathered.len();
        while self.is_named(&free) {
            number += 1;
            free = format!("{}-{number}", cut(&name, 58));
        }
        check.insert("name".into(), free.into());
        self.gathered.push(Gathered { check, weights });
    }

    fn is_named(&self, name: &str) -> bool {
        let mut gathered = self.gathered.iter();
        gathered.any(|it| it.check.get("name").and_then(Value::as_str) == Some(name))
    }

    /// Adds the check of a query whose answer has bounds; it fails after so many windows out of them.
    pub fn ask(&mut self, asked: &Asked<'_>, weights: Option<(i64, i64)>) {
        let name = label(asked.name);
        let mut check = Map::from_iter([("name".to_owned(), name.clone().into())]);
        let question = promql::question(asked.query, asked.bounds);
        if question.as_ref().is_some_and(Question::assumes_label) {
            self.decide(format!("check {name}: {LABEL}"));
        }
        match question {
            Some(Question::Errors {
                errors,
                total,
                ceiling,
            }) => {
                check.insert("errors".into(), errors.into());
                check.insert("total".into(), total.into());
                check.insert("ceiling".into(), ceiling.into());
            }
            Some(Question::Latency {
                buckets,
                within,
                quantile,
                unit,
            }) => {
                self.decide(format!("check {name}: {BUCKET}"));
                let within = written(within);
                check.insert(
                    "latency".into(),
                    json!({ "buckets": buckets, "within": within, "quantile": quantile, "unit": unit }),
                );
            }
            None => {
                let Bounds { min, max } = asked.bounds;
                let query = promql::unchanged(asked.query);
                if !query.contains("{{revision}}") && !query.contains("{{service}}") {
                    self.decide(format!("check {name}: {WHOLE}"));
                }
                let failures = asked.failures.clamp(1, 1000);
                let mut metric = json!({ "query": query, "failures": failures });
                for (key, bound) in [("min", min), ("max", max)] {
                    if let (Some(bound), Some(metric)) = (bound, metric.as_object_mut()) {
                        metric.insert(key.into(), bound.into());
                    }
                }
                check.insert("metric".into(), metric);
            }
        }
        if asked.is_advisory {
            check.insert("mode".into(), "Advisory".into());
        }
        self.add(check, weights);
    }

    /// The shortest interval counts.
    pub fn every(&mut self, interval: Duration) {
        let shortest = self.interval.map_or(interval, |it| it.min(interval));
        self.interval = Some(shortest);
    }

    /// The longest warm-up counts, within the most that there is.
    pub fn warm_up(&mut self, delay: Duration) {
        let delay = delay.min(Duration::from_mins(10));
        self.warm_up = self.warm_up.max(Some(delay).filter(|it| !it.is_zero()));
    }

    /// Something that a person must decide.
    pub fn decide(&mut self, what: String) {
        self.decisions.insert(what);
    }

    pub fn decisions(&self) -> impl Iterator<Item = &String> {
        self.decisions.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    /// The checks alone.
    pub fn list(&self) -> Vec<Value> {
        let checks = self.gathered.iter().map(|it| {
            let mut check = it.check.clone();
            if let Some((from, to)) = it.weights {
                check.insert("weights".into(), json!({ "from": from, "to": to }));
            }
            Value::Object(check)
        });
        checks.collect()
    }

    /// The analysis, if there is one.
    pub fn analysis(&self) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        let mut analysis = Map::from_iter([("checks".to_owned(), self.list().into())]);
        let spans = [
            ("interval", self.interval),
            ("warmUp", self.warm_up),
            ("postPromotion", self.post_promotion),
        ];
        let spans = spans.into_iter();
        let spans = spans.filter_map(|(key, span)| Some((key.to_owned(), written(span?).into())));
        analysis.extend(spans);
        Some(analysis.into())
    }
}

/// A query with the bounds of its answer.
pub struct Asked<'a> {
    pub name: &'a str,
    pub query: &'a str,
    pub bounds: Bounds,
    /// Number of windows out of bounds after which the check fails.
    pub failures: i64,
    /// Whether the check is only shown.
    pub is_advisory: bool,
}

/// A length of time as manifests have it.
pub fn written(span: Duration) -> String {
    countersign_api::Duration::from(span).to_string()
}

/// A name in lower-case letters, digits and `-`.
pub fn label(name: &str) -> String {
    let name = name.to_lowercase();
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let name = words.join("-");
    match cut(&name, 63) {
        "" => "check".to_owned(),
        name => name.to_owned(),
    }
}

/// The first characters of a name, which are ASCII.
fn cut(name: &str, most: usize) -> &str {
    let end = name.len().min(most);
    name.get(..end).unwrap_or(name).trim_end_matches('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str) -> Map<String, Value> {
        Map::from_iter([
            ("name".to_owned(), name.into()),
            ("preset".to_owned(), "Istio".into()),
        ])
    }

    #[test]
    fn one_check_in_two_steps_runs_from_the_first_to_the_last() {
        let mut checks = Checks::default();
        checks.add(check("errors"), Some((20, 20)));
        checks.add(check("errors"), Some((60, 60)));
        let expected =
            json!([{ "name": "errors", "preset": "Istio", "weights": { "from": 20, "to": 60 } }]);
        assert_eq!(Value::from(checks.list()), expected);
        checks.add(check("errors"), None);
        let expected = json!([{ "name": "errors", "preset": "Istio" }]);
        assert_eq!(Value::from(checks.list()), expected, "in every step");
    }

    #[test]
    fn names_are_labels_and_each_is_used_once() {
        let mut checks = Checks::default();
        checks.add(check("404s percentage"), None);
        let mut other = check("404s percentage");
        other.insert("preset".into(), "Traefik".into());
        checks.add(other, None);
        let names: Vec<_> = checks
            .list()
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["404s-percentage", "404s-percentage-2"]);
        assert_eq!(label("--ä--"), "check");
        assert_eq!(label(&"a".repeat(80)).len(), 63);
    }

    #[test]
    fn the_shortest_interval_and_the_longest_warm_up_count() {
        let mut checks = Checks::default();
        assert_eq!(checks.analysis(), None);
        checks.add(check("errors"), None);
        checks.every(Duration::from_mins(5));
        checks.every(Duration::from_secs(30));
        checks.warm_up(Duration::from_mins(1));
        checks.warm_up(Duration::from_hours(2));
        let expected = json!({
            "checks": [{ "name": "errors", "preset": "Istio" }],
            "interval": "30s",
            "warmUp": "10m",
        });
        assert_eq!(checks.analysis(), Some(expected));
    }
}
