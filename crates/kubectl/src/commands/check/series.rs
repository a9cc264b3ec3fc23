//! Why a query selects no series: the metric, a label or a value is missing.

use std::convert::Infallible;

use promql_parser::label::Matcher;
use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

/// The label with the name of a metric.
const NAME: &str = "__name__";
/// Labels and values that a message lists; more are left out.
const LISTED: usize = 12;

/// The recent series of a Prometheus.
pub trait Series {
    /// Why it does not answer.
    type Error;

    /// Whether there is a series that this selects.
    async fn exist(&self, selector: &str) -> Result<bool, Self::Error>;

    /// The labels of the series that this selects.
    async fn labels(&self, selector: &str) -> Result<Vec<String>, Self::Error>;

    /// The values of a label of the series that this selects.
    async fn values(&self, label: &str, selector: &str) -> Result<Vec<String>, Self::Error>;
}

/// What is missing for a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Every series of the metric.
    Metric,
    /// Labels.
    Labels {
        /// Those that the selector has and no series has.
        missing: Vec<String>,
        /// Those that the nearest series have.
        present: Vec<String>,
        /// The scrape job of these.
        job: Option<String>,
    },
    /// A value of a label.
    Value {
        /// The matcher, such as `code=~"5.."`.
        matcher: String,
        /// The label.
        label: String,
        /// The values that the nearest series have.
        present: Vec<String>,
    },
}

/// The selectors of a query that parses.
#[must_use]
pub fn selectors(query: &str) -> Vec<VectorSelector> {
    struct Collected(Vec<VectorSelector>);
    impl ExprVisitor for Collected {
        type Error = Infallible;

        fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
            match expression {
                Expr::VectorSelector(selector) => self.0.push(selector.clone()),
                Expr::MatrixSelector(matrix) => self.0.push(matrix.vs.clone()),
                _ => {}
            }
            Ok(true)
        }
    }
    let mut collected = Collected(Vec::new());
    if let Ok(expression) = parser::parse(query) {
        let Ok(_) = walk_expr(&mut collected, &expression);
    }
    collected.0
}

/// The name of a selector's metric, or the whole selector if it has none.
#[must_use]
pub fn metric(selector: &VectorSelector) -> String {
    selector
        .name
        .clone()
        .unwrap_or_else(|| selector.to_string())
}

/// What is missing for a selector to select a series; `None` if nothing is. Matchers are added one by one
/// to the metric's name, so that the labels named are those of the nearest series.
pub async fn lack<S: Series>(
    series: &S,
    selector: &VectorSelector,
) -> Result<Option<Lack>, S::Error> {
    let name = selector.name.as_deref();
    let matchers = selector.matchers.matchers.iter();
    let (mut kept, others): (Vec<&Matcher>, Vec<_>) = matchers.partition(|it| it.name == NAME);
    let all: Vec<_> = kept.iter().chain(&others).copied().collect();
    if series.exist(&written(name, &all)).await? {
        return Ok(None);
    }
    let is_named = name.is_some() || !kept.is_empty();
    if !is_named || !series.exist(&written(name, &kept)).await? {
        return Ok(Some(Lack::Metric));
    }
    let mut rejected = Vec::new();
    for matcher in others {
        kept.push(matcher);
        if !series.exist(&written(name, &kept)).await? {
            kept.pop();
            rejected.push(matcher);
        }
    }
    let nearest = written(name, &kept);
    let mut present = series.labels(&nearest).await?;
    present.retain(|label| label != NAME);
    let missing: Vec<_> = rejected
        .iter()
        .filter(|matcher| !present.contains(&matcher.name))
        .map(|matcher| matcher.name.clone())
        .collect();
    if !missing.is_empty() {
        let jobs = series.values("job", &nearest).await?;
        present.truncate(LISTED);
        return Ok(Some(Lack::Labels {
            missing,
            present,
            job: jobs.into_iter().next(),
        }));
    }
    let Some(matcher) = rejected.first() else {
        return Ok(None); // A series has appeared meanwhile.
    };
    let mut present = series.values(&matcher.name, &nearest).await?;
    present.truncate(LISTED);
    Ok(Some(Lack::Value {
        matcher: matcher.to_string(),
        label: matcher.name.clone(),
        present,
    }))
}

/// A selector in PromQL.
fn written(name: Option<&str>, matchers: &[&Matcher]) -> String {
    let matchers: Vec<_> = matchers.iter().map(ToString::to_string).collect();
    format!("{}{{{}}}", name.unwrap_or_default(), matchers.join(","))
}

#[cfg(test)]
pub mod tests {
    //! A Prometheus whose series the tests set.

    use std::collections::BTreeMap;

    use futures::executor::block_on;

    use super::*;

    /// Series by their labels.
    pub struct Stored(pub Vec<BTreeMap<String, String>>);

    impl Stored {
        /// One series for each list of `label=value`.
        pub fn new(series: &[&str]) -> Self {
            let labels = |text: &&str| {
                let pairs = text.split(' ').map(|pair| pair.split_once('=').unwrap());
                pairs
                    .map(|(label, value)| (label.to_owned(), value.to_owned()))
                    .collect()
            };
            Self(series.iter().map(labels).collect())
        }

        fn selected(&self, selector: &str) -> Vec<&BTreeMap<String, String>> {
            let selector = selectors(selector).remove(0);
            let fits = |series: &&BTreeMap<String, String>| {
                let value = |label: &str| series.get(label).map_or("", String::as_str);
                let named = selector.name.as_deref().is_none_or(|it| it == value(NAME));
                let mut matchers = selector.matchers.matchers.iter();
                named && matchers.all(|it| it.is_match(value(&it.name)))
            };
            self.0.iter().filter(fits).collect()
        }
    }

    impl Series for Stored {
        type Error = Infallible;

        async fn exist(&self, selector: &str) -> Result<bool, Infallible> {
            Ok(!self.selected(selector).is_empty())
        }

        async fn labels(&self, selector: &str) -> Result<Vec<String>, Infallible> {
            let series = self.selected(selector).into_iter();
            Ok(series.flat_map(|it| it.keys().cloned()).collect())
        }

        async fn values(&self, label: &str, selector: &str) -> Result<Vec<String>, Infallible> {
            let series = self.selected(selector).into_iter();
            Ok(series.filter_map(|it| it.get(label).cloned()).collect())
        }
    }

    fn lacks(stored: &Stored, query: &str) -> Option<Lack> {
        let selector = selectors(query).remove(0);
        let Ok(lack) = block_on(lack(stored, &selector));
        lack
    }

    #[test]
    fn what_a_selector_lacks_is_named() {
        let stored = Stored::new(&[
            "__name__=requests_total namespace=shop status=200 job=shop/web",
            "__name__=requests_total namespace=other code=200 hash=1 job=other/api",
        ]);
        assert_eq!(lacks(&stored, r#"requests_total{namespace="shop"}"#), None);
        assert_eq!(lacks(&stored, "seconds_total"), Some(Lack::Metric));
        assert_eq!(lacks(&stored, r#"{job="none"}"#), Some(Lack::Metric));
        assert_eq!(
            lacks(
                &stored,
                r#"requests_total{namespace="shop",hash="1",code=~"5.."}"#
            ),
            Some(Lack::Labels {
                missing: vec!["hash".into(), "code".into()],
                present: vec!["job".into(), "namespace".into(), "status".into()],
                job: Some("shop/web".into()),
            })
        );
        assert_eq!(
            lacks(&stored, r#"requests_total{namespace="shop",status=~"5.."}"#),
            Some(Lack::Value {
                matcher: r#"status=~"5..""#.into(),
                label: "status".into(),
                present: vec!["200".into()],
            })
        );
    }

    #[test]
    fn every_selector_of_an_expression_is_found() {
        let query = r#"sum(rate(a{x="1"}[5m])) / (b or vector(0)) > bool scalar(c)"#;
        let names: Vec<_> = selectors(query).iter().map(metric).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
