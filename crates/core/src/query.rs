//! A check's queries, and counts from what Prometheus answers.
//!
//! [`render`] turns a check into PromQL for one revision; [`count`] turns the answers for one arm
//! and one window into [`Counts`](crate::statistics::Counts), or into a typed reason why there are none. A query takes one of
//! two forms:
//!
//! - a **selector** of counters, whose raw samples are differenced here, series by series
//!   ([`increase`]). Nothing is extrapolated, so that disjoint windows add up to exactly what the
//!   counters grew by, and the first error of a new pod counts although no sample precedes it;
//! - an **expression** with `{{window}}` that Prometheus evaluates to one number of events.
//!
//! **Invariant:** no async, no clock. A value enters a query only inside a string literal and
//! escaped, so that no name can change what the query means. What cannot be counted is never
//! counted as zero.

use std::collections::BTreeMap;
use std::fmt;

use countersign_api::analysis::{BucketUnit, Latency};
use countersign_api::evidence::Counts;
use countersign_api::template::{Argument, ArgumentType};
use countersign_api::{Check, Duration, Metric, Objective};

use crate::observation::windows::Uncounted;
use crate::promql::{self, Kind};
use crate::{preset, text};

/// Most characters of a query before its placeholders are filled in; as in the schema. It bounds
/// how deep an expression nests, and with it the parser's stack.
const LONGEST_QUERY: usize = 4096;

/// Most events of one window. Beyond it a number does not count by ones, and the sum of some windows
/// could be infinite, which no status can hold.
const MOST_EVENTS: f64 = 9_007_199_254_740_992.0;

/// Share of the requests by which errors may exceed them, from scrapes that are not simultaneous.
const SCRAPE_SKEW: f64 = 0.05;

/// One revision of a Rollout, as queries name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm<'a> {
    /// Value of `{{namespace}}`.
    pub namespace: &'a str,
    /// Value of `{{service}}`: the Service of this arm, where the Rollout names one.
    pub service: Option<&'a str>,
    /// Value of `{{rollout}}`.
    pub rollout: &'a str,
    /// Value of `{{revision}}`: the pods' label `pod-template-hash`.
    pub revision: &'a str,
}

/// What Prometheus is asked about one arm of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queries {
    /// The failed requests; or, of a latency, those that were fast enough.
    pub errors: Query,
    /// All requests.
    pub total: Query,
    /// Which of the two `errors` asks for.
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

/// A query that parses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Whether it asks for failed or for all requests.
    pub field: Field,
    /// How its answer is counted.
    pub form: Form,
    /// PromQL, with every placeholder filled in.
    pub text: String,
}

impl Query {
    /// PromQL for the raw samples of the last `range`, of a [`Form::Selector`].
    #[must_use]
    pub fn samples(&self, range: Duration) -> String {
        // On a line of its own: the selector may end with a comment.
        format!("{}\n[{range}]", self.text)
    }

    /// PromQL for what all counters together grew by in the last `range`, as Prometheus estimates it.
    #[must_use]
    pub fn growth(&self, range: Duration) -> String {
        format!("sum(increase({}))", self.samples(range))
    }

    /// PromQL for the last value of each series in `range`, of a [`Form::Selector`].
    #[must_use]
    pub fn last_values(&self, range: Duration) -> String {
        format!("last_over_time({})", self.samples(range))
    }
}

/// How an answer is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Counters, whose increase is counted from their samples.
    Selector,
    /// One number of events a window.
    Expression,
}

/// A query's field in the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// `errors`.
    Errors,
    /// `total`.
    Total,
    /// `latency.buckets`.
    Buckets,
    /// `metric.query`.
    Metric,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Errors => "errors",
            Self::Total => "total",
            Self::Buckets => "latency.buckets",
            Self::Metric => "metric.query",
        })
    }
}

/// A check whose queries cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` of check `{check}`: {problem}")]
pub struct QueryError {
    /// The check's name.
    pub check: String,
    /// Which of its queries.
    pub field: Field,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Neither a preset nor both queries, or all of them.
    #[error(
        "a check has either a preset or both an error query (errors) and a total query (total), or it has latency or metric"
    )]
    Incomplete,
    /// A preset without a histogram.
    #[error("the preset has no latency histogram: write its selector into latency.buckets")]
    NoBuckets,
    /// Buckets that are not a selector.
    #[error(
        "the buckets must be a bare selector of a histogram, such as `http_request_duration_seconds_bucket{{pod_template_hash=\"{{{{revision}}}}\"}}`"
    )]
    BucketsForm,
    /// An argument that the template does not declare.
    #[error("`{{{{args.{0}}}}}` is no argument of the template: declare it in spec.args")]
    UnknownArgument(String),
    /// A query longer than the schema allows.
    #[error(
        "the query has more than {LONGEST_QUERY} characters: record it under a rule in Prometheus and use its name"
    )]
    TooLong,
    /// A query of more parts than a person writes.
    #[error(
        "the query has more than {MOST_PARTS} names, numbers and signs: record parts of it under rules in Prometheus and use their names"
    )]
    TooComplex,
    /// `{{` without `}}`.
    #[error("a placeholder is not closed: write it as `{{{{revision}}}}`")]
    Unclosed,
    /// A placeholder of another name.
    #[error(
        "`{{{{{0}}}}}` is no placeholder: use namespace, service, rollout, revision, window or, in a template, args.NAME"
    )]
    Unknown(String),
    /// A placeholder without a value.
    #[error(
        "`{{{{{0}}}}}` resolves to nothing: name it in the Rollout (strategy.canary names the Services), or leave it out of the query"
    )]
    Unresolved(&'static str),
    /// A value outside a string.
    #[error("`{{{{{0}}}}}` must stand inside a quoted string, such as `label=\"{{{{{0}}}}}\"`")]
    Unquoted(&'static str),
    /// The window inside a string or comment.
    #[error(
        "`{{{{window}}}}` must stand outside of strings and comments, such as `increase(x[{{{{window}}}}])`"
    )]
    QuotedWindow,
    /// A value that no string literal holds safely.
    #[error(
        "the value of `{{{{{0}}}}}` holds control characters, or what a backquoted string cannot hold: quote it by `\"`"
    )]
    UnsafeValue(&'static str),
    /// A query that does not tell the revisions apart.
    #[error(
        "the query would measure the pods of every revision: select one by a matcher such as `pod_template_hash=\"{{{{revision}}}}\"`, or by its `{{{{service}}}}`"
    )]
    NoRevision,
    /// A query that does not parse.
    #[error("the query is not PromQL: {0}")]
    Syntax(String),
    /// A query of another kind.
    #[error(
        "the query is neither a bare selector of counters (such as `x{{a=\"b\"}}`, without offset, `@` or functions) nor an expression that holds `{{{{window}}}}` and yields one number (such as `sum(increase(x{{a=\"b\"}}[{{{{window}}}}]))`)"
    )]
    Form,
    /// A metric of another kind.
    #[error(
        "the query yields no number: aggregate it, such as `max(x{{pod_template_hash=\"{{{{revision}}}}\"}})`"
    )]
    NoNumber,
}

/// The queries of a check about one arm; of one that counts requests.
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
        let filled = fill(template, arm, window).and_then(|filled| filled.query(field));
        filled.map_err(fail(field))
    };
    Ok(Queries {
        errors: query(Field::Errors, errors)?,
        total: query(Field::Total, total)?,
        counting: Counting::Failed,
    })
}

/// The query of a check that holds a number to bounds, about one arm.
pub fn render_metric(
    check: &Check,
    metric: &Metric,
    arm: Arm<'_>,
    window: Duration,
) -> Result<Query, QueryError> {
    let filled = fill(&metric.query, arm, window).and_then(|filled| match parse(&filled.text)? {
        Kind::Selector | Kind::OddSelector | Kind::Numbers => Ok(Query {
            field: Field::Metric,
            form: Form::Expression,
            text: filled.text.trim().to_owned(),
        }),
        Kind::Other => Err(Problem::NoNumber),
    });
    filled.map_err(|problem| failed(check, Field::Metric, problem))
}

/// The queries of an objective about a whole service: failed requests, then all.
pub fn render_objective(
    name: &str,
    objective: &Objective,
    arm: Arm<'_>,
) -> Result<[Query; 2], QueryError> {
    let query = |field, template: &str| {
        let filled = fill(template, arm, Duration::default());
        let filled = filled.and_then(|filled| match form(parse(&filled.text)?, filled.window)? {
            Form::Selector => Ok(Query {
                field,
                form: Form::Selector,
                text: filled.text.trim().to_owned(),
            }),
            Form::Expression => Err(Problem::Form),
        });
        filled.map_err(|problem| QueryError {
            check: text::shown(name, 80),
            field,
            problem,
        })
    };
    Ok([
        query(Field::Errors, &objective.errors)?,
        query(Field::Total, &objective.total)?,
    ])
}

/// Whether a check's queries tell the revisions apart by their Services.
#[must_use]
pub fn is_told_by_service(check: &Check) -> bool {
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
        check: text::shown(&check.name, 80),
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
    let buckets = fill(template, arm, window).and_then(|filled| filled.query(Field::Buckets));
    let buckets = buckets.map_err(fail)?;
    if buckets.form != Form::Selector {
        return Err(fail(Problem::BucketsForm));
    }
    let bucket = |field, matcher: &str| Query {
        field,
        form: Form::Selector,
        text: with_matcher(&buckets.text, matcher),
    };
    Ok(Queries {
        errors: bucket(Field::Buckets, &at_most(latency.within, unit)),
        total: bucket(Field::Total, r#"le="+Inf""#),
        counting: Counting::Fast,
    })
}

/// A matcher of the bucket with this bound, in the ways in which exporters write it.
fn at_most(within: Duration, unit: BucketUnit) -> String {
    let bound = match unit {
        BucketUnit::Seconds => within.std().as_secs_f64().to_string(),
        BucketUnit::Milliseconds => within.std().as_millis().to_string(),
    };
    let bound = bound.replace('.', "[.]");
    format!(r#"le=~"{bound}([.]0+)?""#)
}

/// A selector with one more matcher.
fn with_matcher(selector: &str, matcher: &str) -> String {
    let mut scanner = Scanner::default();
    for (at, c) in selector.char_indices() {
        if c == '{' && scanner.place == Place::Code {
            let (name, rest) = selector.split_at(at + 1);
            return format!("{name}{matcher},{rest}");
        }
        scanner.step(c);
    }
    // On a line of its own: the selector may end with a comment.
    format!("{selector}\n{{{matcher}}}")
}

/// A template's query with the values of its arguments in the place of `{{args.NAME}}`; its other
/// placeholders stay.
pub fn with_args(template: &str, args: &BTreeMap<String, Value>) -> Result<String, Problem> {
    let mut text = String::with_capacity(template.len());
    scan(template, &mut text, |name, place, text| {
        let Some(name) = name.strip_prefix("args.") else {
            text.extend(["{{", name, "}}"]);
            return Ok(());
        };
        let unknown = || Problem::UnknownArgument(text::shown(name, 40));
        let value = args.get(name).ok_or_else(unknown)?;
        match place {
            Place::Quoted { quote, operator } => {
                let value = literal(&value.text, quote, operator);
                text.push_str(&value.ok_or(Problem::UnsafeValue("args"))?);
            }
            Place::Code if value.is_bare => text.push_str(&value.text),
            Place::Code | Place::Comment => return Err(Problem::Unquoted("args")),
        }
        Ok(())
    })?;
    Ok(text)
}

/// The value of a template's argument, read as the type that is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    text: String,
    /// Whether it is safe outside of strings.
    is_bare: bool,
}

impl Value {
    /// Reads a value; `None` where it is not of the argument's type.
    #[must_use]
    pub fn read(argument: &Argument, text: &str) -> Option<Self> {
        let text = match argument.kind {
            // A value is no place for further placeholders.
            ArgumentType::String => Some(text).filter(|text| !text.contains("{{"))?.to_owned(),
            ArgumentType::Number => {
                let number: f64 = text.trim().parse().ok()?;
                number.is_finite().then(|| number.to_string())?
            }
            ArgumentType::Duration => {
                let length: Duration = text.trim().parse().ok()?;
                (length > Duration::default()).then(|| length.to_string())?
            }
        };
        (!text.is_empty()).then_some(Self {
            text,
            is_bare: argument.kind != ArgumentType::String,
        })
    }
}

/// A template with its placeholders filled in, and what they say of it.
#[derive(Default)]
struct Filled {
    text: String,
    window: bool,
    revision: bool,
}

impl Filled {
    fn put(
        &mut self,
        name: &str,
        place: Place,
        arm: Arm<'_>,
        window: Duration,
        text: &mut String,
    ) -> Result<(), Problem> {
        let (name, value) = match name {
            "window" if place == Place::Code => {
                self.window = true;
                text.push_str(&window.to_string());
                return Ok(());
            }
            "window" => return Err(Problem::QuotedWindow),
            "namespace" => ("namespace", Some(arm.namespace)),
            "service" => ("service", arm.service),
            "rollout" => ("rollout", Some(arm.rollout)),
            "revision" => ("revision", Some(arm.revision)),
            other => return Err(Problem::Unknown(text::shown(other, 40))),
        };
        let Place::Quoted { quote, operator } = place else {
            return Err(Problem::Unquoted(name));
        };
        let value = value
            .filter(|value| !value.is_empty())
            .ok_or(Problem::Unresolved(name))?;
        let value = literal(value, quote, operator).ok_or(Problem::UnsafeValue(name))?;
        text.push_str(&value);
        // A named Service is kept on one revision's pods.
        self.revision |= matches!(name, "revision" | "service") && operator.selects();
        Ok(())
    }

    fn query(self, field: Field) -> Result<Query, Problem> {
        let form = form(parse(&self.text)?, self.window)?;
        if !self.revision {
            return Err(Problem::NoRevision);
        }
        Ok(Query {
            field,
            form,
            text: self.text.trim().to_owned(),
        })
    }
}

fn fill(template: &str, arm: Arm<'_>, window: Duration) -> Result<Filled, Problem> {
    if template.chars().nth(LONGEST_QUERY).is_some() {
        return Err(Problem::TooLong);
    }
    let mut filled = Filled::default();
    let mut text = String::with_capacity(template.len());
    scan(template, &mut text, |name, place, text| {
        filled.put(name, place, arm, window, text)
    })?;
    Ok(Filled { text, ..filled })
}

/// Copies a template, and lets `put` write something for each placeholder.
fn scan(
    template: &str,
    text: &mut String,
    mut put: impl FnMut(&str, Place, &mut String) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut scanner = Scanner::default();
    let mut rest = template.chars();
    loop {
        let opened = rest
            .as_str()
            .strip_prefix("{{")
            .filter(|_| !scanner.escaped);
        if let Some(opened) = opened {
            let (name, after) = opened.split_once("}}").ok_or(Problem::Unclosed)?;
            put(name.trim(), scanner.place, text)?;
            rest = after.chars();
        } else {
            let Some(c) = rest.next() else {
                return Ok(());
            };
            scanner.step(c);
            text.push(c);
        }
    }
}

/// Where in a query a character stands, by the rules of Prometheus' lexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Code,
    Comment,
    Quoted { quote: char, operator: Operator },
}

/// What stands before a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Regex,
    NotEqual,
    NotRegex,
    Other,
}

impl Operator {
    const fn selects(self) -> bool {
        matches!(self, Self::Equal | Self::Regex)
    }
}

struct Scanner {
    place: Place,
    /// Whether the next character of a string is escaped.
    escaped: bool,
    /// The last two characters of code that are not space.
    before: [char; 2],
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            place: Place::Code,
            escaped: false,
            before: [' '; 2],
        }
    }
}

impl Scanner {
    fn step(&mut self, c: char) {
        match self.place {
            Place::Code => self.code(c),
            Place::Comment if matches!(c, '\n' | '\r') => self.place = Place::Code,
            Place::Comment => {}
            Place::Quoted { .. } if self.escaped => self.escaped = false,
            Place::Quoted { quote, .. } if c == quote => {
                self.place = Place::Code;
                self.before = [' ', quote];
            }
            // A backquoted string is raw.
            Place::Quoted { quote, .. } => self.escaped = c == '\\' && quote != '`',
        }
    }

    fn code(&mut self, c: char) {
        match c {
            '#' => self.place = Place::Comment,
            '"' | '\'' | '`' => {
                let operator = match self.before {
                    ['!', '='] => Operator::NotEqual,
                    ['!', '~'] => Operator::NotRegex,
                    ['=', '~'] => Operator::Regex,
                    [_, '='] => Operator::Equal,
                    _ => Operator::Other,
                };
                self.place = Place::Quoted { quote: c, operator };
            }
            c if c.is_whitespace() => {}
            c => self.before = [self.before[1], c],
        }
    }
}

/// A value as part of a string literal, and taken literally by a regular expression as well.
fn literal(value: &str, quote: char, operator: Operator) -> Option<String> {
    let regex = matches!(operator, Operator::Regex | Operator::NotRegex);
    // A backquoted string knows no escapes.
    let raw = quote == '`';
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        let special = regex && r"\.+*?()|[]{}^$".contains(c);
        if (c.is_control() && c != '\n') || (raw && (special || matches!(c, '`' | '\\'))) {
            return None;
        }
        if special {
            text.push_str(r"\\");
        }
        match c {
            '\n' if !raw => text.push_str(r"\n"),
            '\\' => text.push_str(r"\\"),
            c if c == quote => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    Some(text)
}

/// Most names, numbers and signs of a query: the parser and what walks its trees need stack for each.
const MOST_PARTS: usize = 400;

/// Whether a query has more parts than a person writes, so that it must not be parsed.
#[must_use]
pub fn is_too_complex(text: &str) -> bool {
    parts(text) > MOST_PARTS
}

fn parts(text: &str) -> usize {
    let (mut scanner, mut parts, mut in_word) = (Scanner::default(), 0, false);
    for c in text.chars() {
        let code = scanner.place == Place::Code && !c.is_whitespace();
        let word = code && (c.is_alphanumeric() || matches!(c, '_' | ':' | '.'));
        parts += usize::from(code && !(word && in_word));
        in_word = word;
        scanner.step(c);
    }
    parts
}

fn parse(text: &str) -> Result<Kind, Problem> {
    if is_too_complex(text) {
        return Err(Problem::TooComplex);
    }
    promql::kind(text).map_err(|message| Problem::Syntax(text::shown(&message, 200)))
}

fn form(kind: Kind, window: bool) -> Result<Form, Problem> {
    match kind {
        Kind::Selector if !window => Ok(Form::Selector),
        Kind::Numbers if window => Ok(Form::Expression),
        _ => Err(Problem::Form),
    }
}

/// A series that Prometheus answered with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its labels, its name (`__name__`) among them.
    pub labels: BTreeMap<String, String>,
    /// Unix time in seconds and value of each sample, oldest first.
    pub samples: Vec<(f64, f64)>,
}

impl Series {
    /// Number of samples up to and including a moment.
    fn until(&self, moment: f64) -> usize {
        self.samples.partition_point(|(at, _)| *at <= moment)
    }

    /// The last sample at or before a moment.
    fn at(&self, moment: f64) -> Option<(f64, f64)> {
        self.until(moment)
            .checked_sub(1)
            .and_then(|last| self.samples.get(last))
            .copied()
    }

    /// Since when it is known.
    #[must_use]
    pub fn since(&self) -> f64 {
        self.samples.first().map_or(f64::INFINITY, |(at, _)| *at)
    }

    /// What is scraped: series with the same target come from the same process.
    fn target(&self) -> [Option<&String>; 3] {
        ["job", "instance", "pod"].map(|label| self.labels.get(label))
    }

    /// Whether its target had been scraped before it appeared, by what `others` show. Then it began
    /// from zero: at the earlier scrape it was not there.
    #[must_use]
    pub fn is_new_on_known_target(&self, others: &[&[Self]]) -> bool {
        let mut others = others.iter().copied().flatten();
        others.any(|other| other.since() < self.since() && other.target() == self.target())
    }

    fn growth(&self, span: Span, from_zero: bool) -> Result<f64, Odd> {
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
            // A counter that went down began again from zero.
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
    /// Two intervals, after which a sample is stale.
    fn patience(self) -> f64 {
        2.0 * (self.end - self.start)
    }
}

/// How the first value of a series counts that has no sample before the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstIncrement {
    /// From zero: it is certain that the series began within the analysis.
    FromZero,
    /// Not at all, unless its target had been scraped before ([`Series::is_new_on_known_target`]):
    /// an old counter that was merely not scraped for a while has not just grown from zero.
    FromFirstSample,
}

/// A value that cannot be counted, and why.
type Odd = (Uncounted, f64);

fn countable(value: f64) -> Result<f64, Odd> {
    match value {
        value if !value.is_finite() => Err((Uncounted::NotANumber, value)),
        value if value < 0.0 => Err((Uncounted::Negative, value)),
        value => Ok(value),
    }
}

/// By how much counters grew in a window: each series by itself, resets counted from zero, then the
/// sum. Disjoint windows tile: their increases add up to that of their union.
///
/// `others` are further series of the same arm, which tell known targets.
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

/// What Prometheus answered to one query about one arm.
#[derive(Clone, Copy, Debug)]
pub struct ArmAnswer<'a> {
    /// The arm, as messages name it.
    pub arm: &'a str,
    /// The query.
    pub query: &'a Query,
    /// The answer: raw samples of a selector, or one value at each window's end of an expression.
    pub series: &'a [Series],
    /// How the first value of a new series counts.
    pub first_increment: FirstIncrement,
}

/// Why a window is not counted, in one word and in a sentence.
pub type NotCounted = (Uncounted, String);

impl ArmAnswer<'_> {
    fn says(&self, reason: Uncounted, what: impl fmt::Display) -> NotCounted {
        let Self { arm, query, .. } = self;
        let text = text::shown(&query.text, 120);
        (
            reason,
            format!("{arm}: the query `{}` ({text}) {what}", query.field),
        )
    }

    /// Events in the window; `None` where no series has any sample for it.
    fn events(&self, other: &Self, span: Span) -> Result<Option<f64>, NotCounted> {
        let events = match self.query.form {
            Form::Expression => self.number_at(span.end)?.map(countable).transpose(),
            Form::Selector if self.newest(span.end).is_none() => Ok(None),
            Form::Selector => {
                increase(self.series, other.series, span, self.first_increment).map(Some)
            }
        };
        let events = events.and_then(|events| match events {
            Some(events) if events > MOST_EVENTS => Err((Uncounted::NotANumber, events)),
            events => Ok(events),
        });
        events.map_err(|(reason, value)| self.says(reason, format_args!("gave the value {value}")))
    }

    /// The value of an expression at a moment.
    fn number_at(&self, moment: f64) -> Result<Option<f64>, NotCounted> {
        let at = |series: &Series| {
            // Times have milliseconds.
            let near = series.at(moment + 0.0005)?;
            (near.0 > moment - 0.0005).then_some(near.1)
        };
        let found: Vec<_> = self
            .series
            .iter()
            .filter_map(|s| Some((s, at(s)?)))
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
        self.says(
            Uncounted::SeveralSeries,
            format_args!("gave {count} series where one number is expected, such as {named}: wrap it in sum(...)"),
        )
    }

    /// Time of the newest sample at or before a moment.
    fn newest(&self, moment: f64) -> Option<f64> {
        let newest = self.series.iter().filter_map(|series| series.at(moment));
        newest.map(|(at, _)| at).max_by(f64::total_cmp)
    }

    /// Refuses samples that are too old to say anything of the window.
    fn fresh(&self, span: Span) -> Result<(), NotCounted> {
        let Some(newest) = self.newest(span.end) else {
            return Ok(());
        };
        let age = span.end - newest;
        if self.query.form == Form::Expression || age <= span.patience() {
            return Ok(());
        }
        let what = format!(
            "has no sample younger than {age:.0} s, more than two intervals: its pods are no longer scraped, or are scraped less often than the analysis' interval"
        );
        Err(self.says(Uncounted::StaleSamples, what))
    }

    /// Whether these series come from elsewhere than those of `other`.
    fn is_foreign_to(&self, other: &Self) -> bool {
        let known = |s: &Series| other.series.iter().any(|o| o.target() == s.target());
        !self.series.iter().all(known)
    }
}

/// Counts one window of one arm, or says why it cannot be counted.
///
/// No error series beside requests means no errors; that needs a total, since no series at all means
/// that nothing was measured. A histogram without the bucket that is asked for says nothing.
pub fn count(
    errors: ArmAnswer<'_>,
    total: ArmAnswer<'_>,
    counting: Counting,
    span: Span,
) -> Result<Counts, NotCounted> {
    let requests = total.events(&errors, span)?.ok_or_else(|| {
        total.says(
            Uncounted::NoSeries,
            "matched no series: are the pods scraped, and do the labels match?",
        )
    })?;
    total.fresh(span)?;
    // An error series may end with its pod, beside a total that goes on; but errors measured
    // elsewhere than the total are missed if that place falls silent.
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
            return Err(errors.says(Uncounted::NoBucket, what));
        }
    };
    if failed - requests > f64::max(1.0, SCRAPE_SKEW * requests) {
        let query = text::shown(&total.query.text, 120);
        let what = format!(
            "counted {failed} errors of {requests} requests: it counts what the query `total` ({query}) leaves out"
        );
        return Err(errors.says(Uncounted::ErrorsExceedRequests, what));
    }
    Ok(Counts {
        requests,
        errors: failed.min(requests),
    })
}

/// The number that a metric had at a moment, or why there is none.
pub fn measure(answer: ArmAnswer<'_>, moment: f64) -> Result<f64, NotCounted> {
    let number = answer.number_at(moment)?.ok_or_else(|| {
        answer.says(
            Uncounted::NoSeries,
            "gave nothing: does its metric exist, and do the labels match?",
        )
    })?;
    if number.is_finite() {
        return Ok(number);
    }
    let what = format_args!("gave the value {number}");
    Err(answer.says(Uncounted::NotANumber, what))
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    format!("{{{}}}", text::shown(&pairs.join(","), 80))
}

#[cfg(test)]
mod tests {
    use countersign_api::Preset;
    use countersign_api::evidence::Counts;
    use promql_parser::parser::Expr;
    use promql_parser::util::visitor::{ExprVisitor, walk_expr};
    use proptest::prelude::*;

    use super::*;
    use crate::text::shown;

    #[test]
    fn a_long_string_is_one_part_of_a_query() {
        let long = format!(r#"sum(rate(x{{path=~"{}"}}[1m]))"#, "(a|b)".repeat(500));
        assert_eq!(parts(&long), 16);
        assert!(parse(&long).is_ok());
    }

    const WINDOW: Duration = Duration::seconds(15);
    const ARM: Arm<'_> = Arm {
        namespace: "shop",
        service: Some("cart-canary"),
        rollout: "cart",
        revision: "abc12",
    };

    fn own(errors: &str, total: &str) -> Check {
        Check {
            name: "own".into(),
            errors: Some(errors.into()),
            total: Some(total.into()),
            ..Check::default()
        }
    }

    fn total(template: &str, arm: Arm<'_>) -> Result<Query, QueryError> {
        render(&own(r#"e{r="{{revision}}"}"#, template), arm, WINDOW).map(|queries| queries.total)
    }

    fn problem(template: &str) -> Problem {
        let error = total(template, ARM).unwrap_err();
        assert_eq!(
            (error.check.as_str(), error.field),
            ("own", Field::Total),
            "{template}"
        );
        error.problem
    }

    #[test]
    fn the_preset_selects_one_revision() {
        let preset = Some(Preset::HttpRequestsTotal);
        let check = Check {
            name: "http".into(),
            preset,
            ..Check::default()
        };
        let queries = render(
            &check,
            Arm {
                service: None,
                ..ARM
            },
            WINDOW,
        )
        .unwrap();
        let all = r#"http_requests_total{namespace="shop",pod_template_hash="abc12""#;
        assert_eq!(queries.total.text, format!("{all}}}"));
        assert_eq!(queries.errors.text, format!(r#"{all},code=~"[5-9].."}}"#));
        assert_eq!(
            (queries.total.form, queries.errors.form),
            (Form::Selector, Form::Selector)
        );
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        let template = r#"sum(increase(x{a="{{namespace}}", b='{{ service }}', c=`{{rollout}}`, d=~"{{	revision}}-.*"}[{{ window }}]))"#;
        let query = total(template, ARM).unwrap();
        assert_eq!(
            query.text,
            r#"sum(increase(x{a="shop", b='cart-canary', c=`cart`, d=~"abc12-.*"}[15s]))"#
        );
        assert_eq!(query.form, Form::Expression);
    }

    #[test]
    fn a_query_that_cannot_be_asked_is_refused_by_name() {
        let table = [
            (r#"x{a="{{revison}}"}"#, "`{{revison}}` is no placeholder"),
            (r#"x{a="{{revision}}", b="{{"}"#, "not closed"),
            (r#"x{a="{{revision"}"#, "not closed"),
            (
                r"x{a={{revision}}}",
                "`{{revision}}` must stand inside a quoted string",
            ),
            (r"{{revision}}", "`label=\"{{revision}}\"`"),
            ("x # \"{{revision}}\"", "must stand inside a quoted string"),
            (
                r#"x{a="{{revision}}", b="{{window}}"}"#,
                "outside of strings",
            ),
            ("x{a=\"{{revision}}\"} # {{window}}", "outside of strings"),
            (r#"x{a="b"}"#, "pods of every revision"),
            (r#"x{a!="{{revision}}"}"#, "pods of every revision"),
            (r#"x{a!~"{{revision}}"}"#, "pods of every revision"),
            (
                r#"label_replace(increase(x[{{window}}]), "a", "{{revision}}", "", "")"#,
                "pods of every revision",
            ),
            (
                r#"x{a="{{revision}}""#,
                "not PromQL: unexpected end of input inside braces",
            ),
            (r#"x{a=="{{revision}}"}"#, "not PromQL"),
            ("", "not PromQL: no expression found"),
            (
                r#"x{a="{{revision}}"} offset 1e300"#,
                "not PromQL: a number in it is out of range",
            ),
            (r#"sum(x{a="{{revision}}"})"#, "neither a bare selector"),
            (r#"(x{a="{{revision}}"})"#, "neither a bare selector"),
            (
                r#"x{a="{{revision}}"} offset 5m"#,
                "neither a bare selector",
            ),
            (r#"x{a="{{revision}}"} @ 5"#, "neither a bare selector"),
            (r#"x{a="{{revision}}" or b="c"}"#, "neither a bare selector"),
            (
                r#"increase(x{a="{{revision}}"}[1m])"#,
                "an expression that holds `{{window}}`",
            ),
            (
                r#"x{a="{{revision}}"}[{{window}}]"#,
                "neither a bare selector",
            ),
            (
                r#"x{a="{{revision}}"} offset {{window}}"#,
                "neither a bare selector",
            ),
            (r#""{{revision}}" {{window}}"#, "not PromQL"),
        ];
        for (template, message) in table {
            let problem = problem(template).to_string();
            assert!(problem.contains(message), "{template}: {problem}");
        }
        assert_eq!(problem(&"x".repeat(4097)), Problem::TooLong);
    }

    #[test]
    fn the_error_names_check_and_field() {
        let error = render(&own("(", "x"), ARM, WINDOW).unwrap_err();
        assert_eq!(
            error.to_string(),
            "field `errors` of check `own`: the query is not PromQL: unclosed left parenthesis"
        );
        let lone = Check {
            total: None,
            ..own("x", "x")
        };
        assert_eq!(render(&lone, ARM, WINDOW).unwrap_err().field, Field::Total);
        let both = Check {
            preset: Some(Preset::HttpRequestsTotal),
            ..own("x", "x")
        };
        assert_eq!(
            render(&both, ARM, WINDOW).unwrap_err().problem,
            Problem::Incomplete
        );
        let neither = render(&Check::default(), ARM, WINDOW).unwrap_err();
        assert_eq!(neither.problem, Problem::Incomplete);
    }

    #[test]
    fn a_placeholder_without_a_value_is_no_query_that_matches_nothing() {
        for service in [None, Some("")] {
            let arm = Arm { service, ..ARM };
            let error = total(r#"x{s="{{service}}",r="{{revision}}"}"#, arm).unwrap_err();
            assert_eq!(error.problem, Problem::Unresolved("service"));
            assert!(total(r#"x{r="{{revision}}"}"#, arm).is_ok());
        }
    }

    #[test]
    fn a_deep_query_is_refused_before_it_takes_stack_and_time() {
        let selector = r#"x{a="{{revision}}"}"#;
        for (open, close) in [("(", ")"), ("sum(", ")"), ("-", ""), ("1+", ""), ("1^", "")] {
            let depth = (LONGEST_QUERY - selector.len()) / (open.len() + close.len());
            let query = format!("{}{selector}{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(problem(&query), Problem::TooComplex);
        }
    }

    /// The tree of an expression, but for the values of its matchers.
    fn shape(text: &str) -> Vec<String> {
        struct Shape(Vec<String>);
        impl ExprVisitor for Shape {
            type Error = ();
            fn pre_visit(&mut self, expression: &Expr) -> Result<bool, ()> {
                let (kind, selector) = match expression {
                    Expr::VectorSelector(vs) => ("selector", Some(vs)),
                    Expr::MatrixSelector(ms) => ("range", Some(&ms.vs)),
                    Expr::Call(call) => (call.func.name, None),
                    Expr::Aggregate(_) => ("aggregate", None),
                    Expr::Binary(_) => ("binary", None),
                    _ => ("other", None),
                };
                let matchers = selector.map(|vs| {
                    let each = vs
                        .matchers
                        .matchers
                        .iter()
                        .map(|m| format!("{}{}", m.name, m.op));
                    (
                        vs.name.clone(),
                        each.collect::<Vec<_>>(),
                        vs.matchers.or_matchers.len(),
                    )
                });
                self.0.push(format!("{kind} {matchers:?}"));
                Ok(true)
            }
        }
        let mut shape = Shape(vec![]);
        walk_expr(&mut shape, &promql_parser::parser::parse(text).unwrap()).unwrap();
        shape.0
    }

    const TEMPLATES: [&str; 3] = [
        r#"x{r="{{revision}}",s="{{service}}"}"#,
        r#"x{r='{{revision}}',s=~"{{service}}-.*",t!~'a{{service}}'} # by "name""#,
        r##"sum by (a) (increase(x{r=~"{{revision}}",a="\"#{",s='{{service}}'}[{{window}}])) or vector(0)"##,
    ];

    fn hostile(value: &str) {
        let arm = Arm {
            service: Some(value),
            ..ARM
        };
        for template in TEMPLATES {
            let text = total(template, arm).unwrap().text;
            assert_eq!(
                shape(&text),
                shape(&total(template, ARM).unwrap().text),
                "{text}"
            );
            let Ok(Expr::VectorSelector(selector)) = promql_parser::parser::parse(&text) else {
                continue;
            };
            let found = |name: &str| {
                selector
                    .matchers
                    .matchers
                    .iter()
                    .find(|m| m.name == name)
                    .cloned()
                    .unwrap()
            };
            if found("s").op.to_string() == "=" {
                assert_eq!(found("s").value, value);
            } else {
                assert!(found("s").is_match(&format!("{value}-1")), "{text}");
                assert!(!found("t").is_match(&format!("a{value}")), "{text}");
            }
        }
    }

    #[test]
    fn a_hostile_value_stays_a_value() {
        let long = "x\"\\}{".repeat(2_000);
        let values = [
            r#""} or vector(1) or x{a=""#,
            r#"\"} or vector(1) or x{a=""#,
            "'} or vector(1) or x{a='",
            "line\nbreak",
            "a\\",
            "\\n",
            ".*",
            "a|b",
            "(",
            "[{{namespace}}]",
            "# no comment",
            "日本語 – ß 🦀",
            "`",
            long.as_str(),
        ];
        values.into_iter().for_each(hostile);
        assert!(values.iter().any(|value| value.len() >= 10_000));
    }

    #[test]
    fn a_value_that_no_string_holds_safely_is_refused() {
        for value in ["\0", "a\u{1b}[2J", "\r", "a\u{7f}", "\u{85}"] {
            let error = total(
                TEMPLATES[0],
                Arm {
                    service: Some(value),
                    ..ARM
                },
            )
            .unwrap_err();
            assert_eq!(error.problem, Problem::UnsafeValue("service"));
        }
        let raw = "x{r=`{{revision}}`,s=~`{{service}}`}";
        let arm = |service| Arm {
            service: Some(service),
            ..ARM
        };
        assert_eq!(
            total(raw, arm("ab\"'")).unwrap().text,
            "x{r=`abc12`,s=~`ab\"'`}"
        );
        for value in ["a`b", "a.b", "a\\"] {
            let error = total(raw, arm(value)).unwrap_err();
            assert_eq!(error.problem, Problem::UnsafeValue("service"));
        }
    }

    #[test]
    fn a_selector_with_a_comment_still_asks_for_its_samples() {
        let query = total("x{r=\"{{revision}}\"} # all of them", ARM).unwrap();
        let minutes = Duration::minutes(5);
        assert!(matches!(
            promql_parser::parser::parse(&query.samples(minutes)),
            Ok(Expr::MatrixSelector(_))
        ));
        assert!(matches!(
            promql_parser::parser::parse(&query.last_values(minutes)),
            Ok(Expr::Call(_))
        ));
    }

    proptest! {
        #[test]
        fn no_value_changes_the_shape_of_a_query(value in "[^\\p{Cc}]{1,40}|[\"'\\\\{}()\\[\\]#`,=~!.\n ]{1,20}") {
            hostile(&value);
        }

        #[test]
        fn any_query_is_answered_without_a_panic(query in "[xa(){}\\[\\]\"'`=~!#@:{}{}0-9smeE +-]{0,60}|\\PC{0,40}") {
            let _ = total(&query, ARM);
            let _ = total(&format!("x{{r=\"{{{{revision}}}}\"}}{query}"), ARM);
        }
    }

    fn series(labels: &str, samples: &[(f64, f64)]) -> Series {
        let labels = labels.split(',').filter_map(|pair| pair.split_once('='));
        let labels = labels
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Series {
            labels,
            samples: samples.to_vec(),
        }
    }

    fn every_15s(from: i32, values: &[f64]) -> Vec<(f64, f64)> {
        (0..)
            .map(|step| f64::from(from + 15 * step))
            .zip(values.iter().copied())
            .collect()
    }

    const SPAN: Span = Span {
        start: 100.0,
        end: 115.0,
    };

    fn query(field: Field, form: Form) -> Query {
        Query {
            field,
            form,
            text: format!("{field}_total{{r=\"abc12\"}}"),
        }
    }

    fn counted(
        form: Form,
        errors: &[Series],
        total: &[Series],
        first_increment: FirstIncrement,
    ) -> Result<Counts, NotCounted> {
        let queries = (query(Field::Errors, form), query(Field::Total, form));
        let answer = |query, series| ArmAnswer {
            arm: "canary",
            query,
            series,
            first_increment,
        };
        count(
            answer(&queries.0, errors),
            answer(&queries.1, total),
            Counting::Failed,
            SPAN,
        )
    }

    #[test]
    fn a_window_counts_what_the_counters_grew_by() {
        use FirstIncrement::{FromFirstSample, FromZero};
        let pod = "instance=1,code=200";
        let steady = series(pod, &[(99.0, 40.0), (114.0, 90.0), (116.0, 999.0)]);
        let failing = series("instance=1,code=500", &[(114.0, 1.0)]);
        let other_pod = series("instance=2,code=500", &[(114.0, 7.0)]);
        let restarted = series(
            pod,
            &[(99.0, 40.0), (104.0, 45.0), (109.0, 3.0), (114.0, 4.0)],
        );
        let at_the_edges = series(
            pod,
            &[(85.0, 1.0), (100.0, 2.0), (115.0, 4.0), (130.0, 8.0)],
        );
        let check = |name: &str, errors: &[&Series], total: &[&Series], first, expected| {
            let own = |series: &[&Series]| series.iter().copied().cloned().collect::<Vec<_>>();
            let counts = counted(Form::Selector, &own(errors), &own(total), first).unwrap();
            assert_eq!((counts.requests, counts.errors), expected, "{name}");
        };
        check(
            "no error series",
            &[],
            &[&steady],
            FromFirstSample,
            (50.0, 0.0),
        );
        let all = [&steady, &failing];
        check(
            "the first error of a known pod",
            &[&failing],
            &all,
            FromFirstSample,
            (51.0, 1.0),
        );
        let all = [&steady, &other_pod];
        check(
            "a pod that may be old",
            &[&other_pod],
            &all,
            FromFirstSample,
            (50.0, 0.0),
        );
        let all = [&failing];
        check(
            "one error in a new pod's first scrape",
            &all,
            &all,
            FromZero,
            (1.0, 1.0),
        );
        check("a restart", &[], &[&restarted], FromFirstSample, (9.0, 0.0));
        check("edges", &[], &[&at_the_edges], FromFirstSample, (2.0, 0.0));
        let idle = series(pod, &[(99.0, 40.0), (114.0, 40.0)]);
        let ended = series(pod, &[(1.0, 5.0)]);
        check(
            "idle, and an ended error series",
            &[&ended],
            &[&idle],
            FromFirstSample,
            (0.0, 0.0),
        );
        let two_intervals_old = series(pod, &[(85.0, 40.0)]);
        check(
            "no news yet",
            &[],
            &[&two_intervals_old],
            FromFirstSample,
            (0.0, 0.0),
        );
        let [more, fewer] = [11.0, 10.0].map(|by| series(pod, &[(99.0, 0.0), (114.0, by)]));
        check(
            "skewed scrapes",
            &[&more],
            &[&fewer],
            FromFirstSample,
            (10.0, 10.0),
        );
    }

    #[test]
    fn what_cannot_be_counted_says_why() {
        let grown = |by: f64| vec![series("instance=1", &[(99.0, 0.0), (114.0, by)])];
        let none = vec![];
        let table = [
            (
                none.clone(),
                none.clone(),
                Uncounted::NoSeries,
                "query `total` (total_total{r=\"abc12\"}) matched no series",
            ),
            (
                none.clone(),
                vec![series("a=b", &[(120.0, 1.0)])],
                Uncounted::NoSeries,
                "canary",
            ),
            (
                none.clone(),
                vec![series("a=b", &[(84.0, 1.0)])],
                Uncounted::StaleSamples,
                "no sample younger than 31 s",
            ),
            (
                vec![series("instance=2", &[(84.0, 1.0)])],
                grown(5.0),
                Uncounted::StaleSamples,
                "query `errors`",
            ),
            (
                none.clone(),
                grown(f64::NAN),
                Uncounted::NotANumber,
                "gave the value NaN",
            ),
            (
                none.clone(),
                grown(f64::INFINITY),
                Uncounted::NotANumber,
                "gave the value inf",
            ),
            (
                grown(f64::NEG_INFINITY),
                grown(1.0),
                Uncounted::NotANumber,
                "query `errors`",
            ),
            (
                none.clone(),
                grown(1.7e308),
                Uncounted::NotANumber,
                "gave the value 17000",
            ),
            (
                none.clone(),
                vec![series("", &[(99.0, f64::NAN), (114.0, 1.0)])],
                Uncounted::NotANumber,
                "NaN",
            ),
            (
                none.clone(),
                grown(-3.0),
                Uncounted::Negative,
                "gave the value -3",
            ),
            (
                grown(12.0),
                grown(10.0),
                Uncounted::ErrorsExceedRequests,
                "counted 12 errors of 10 requests",
            ),
        ];
        for (errors, total, reason, message) in table {
            let first = FirstIncrement::FromFirstSample;
            let (found, says) = counted(Form::Selector, &errors, &total, first).unwrap_err();
            assert_eq!(found, reason, "{says}");
            assert!(
                says.starts_with("canary: the query `") && says.contains(message),
                "{says}"
            );
        }
    }

    #[test]
    fn an_expression_is_one_number_at_the_end_of_the_window() {
        let at_end =
            |labels, value| series(labels, &[(100.0, 77.0), (115.0, value), (130.0, 88.0)]);
        let count = |errors: &[Series], total: &[Series]| {
            counted(
                Form::Expression,
                errors,
                total,
                FirstIncrement::FromFirstSample,
            )
        };
        let counts = count(&[at_end("", 2.5)], &[at_end("", 10.0)]).unwrap();
        assert_eq!(
            counts,
            Counts {
                requests: 10.0,
                errors: 2.5
            }
        );
        let counts = count(&[], &[at_end("", 10.0)]).unwrap();
        assert_eq!(
            counts,
            Counts {
                requests: 10.0,
                errors: 0.0
            }
        );
        let earlier = [series("", &[(100.0, 4.0)])];
        assert_eq!(count(&[], &earlier).unwrap_err().0, Uncounted::NoSeries);
        assert_eq!(
            count(&[], &[at_end("", f64::NAN)]).unwrap_err().0,
            Uncounted::NotANumber
        );
        assert_eq!(
            count(&[], &[at_end("", -1.0)]).unwrap_err().0,
            Uncounted::Negative
        );
        let each = ["p=1", "p=2", "p=3", "p=4"].map(|labels| at_end(labels, 1.0));
        let (reason, says) = count(&[], &each).unwrap_err();
        assert_eq!(reason, Uncounted::SeveralSeries);
        assert!(
            says.contains("4 series") && says.contains(r#"{p="1"}, {p="2"}, {p="3"}: wrap"#),
            "{says}"
        );
        let of_another_time = [at_end("p=1", 3.0), series("p=2", &[(100.0, 4.0)])];
        let counts = count(&[], &of_another_time).unwrap();
        assert_eq!(
            counts,
            Counts {
                requests: 3.0,
                errors: 0.0
            }
        );
    }

    #[test]
    fn messages_hold_nothing_that_moves_a_terminal() {
        assert_eq!(
            shown("a\u{1b}[2J\nb\u{202e}c", 20),
            "a\\u{1b}[2J b\\u{202e}c"
        );
        assert_eq!(shown("ééééé", 3), "ééé…");
        assert_eq!(shown("ééé", 3), "ééé");
    }

    #[test]
    fn counters_with_a_known_past_lose_nothing() {
        let old = series("", &every_15s(0, &[5.0, 6.0, 6.0, 9.0, 2.0, 4.0]));
        let span = Span {
            start: 0.0,
            end: 75.0,
        };
        let all = increase(&[old], &[], span, FirstIncrement::FromFirstSample);
        assert_eq!(all, Ok(1.0 + 3.0 + 2.0 + 2.0));
    }

    fn counter() -> impl Strategy<Value = Series> {
        // Each scrape: seconds after the last, requests since, whether the process restarted.
        let scrape = (
            prop_oneof![8 => 14_000..16_000u32, 1 => 20_000..200_000u32],
            0..50u32,
            0..20u8,
        );
        (
            0..400_000u32,
            0..1_000u32,
            prop::collection::vec(scrape, 0..60),
            0..3u8,
        )
            .prop_map(|(from, value, scrapes, instance)| {
                let (mut at, mut value, mut samples) = (from, value, vec![]);
                for (later, more, restart) in scrapes {
                    at += later;
                    value = if restart == 0 { more } else { value + more };
                    samples.push((f64::from(at) / 1000.0, f64::from(value)));
                }
                series(&format!("instance={instance}"), &[]).with(samples)
            })
    }

    impl Series {
        fn with(self, samples: Vec<(f64, f64)>) -> Self {
            Self { samples, ..self }
        }
    }

    proptest! {
        #[test]
        fn disjoint_windows_tile(
            series in prop::collection::vec(counter(), 0..6),
            others in prop::collection::vec(counter(), 0..3),
            start in 0..300_000u32,
            interval in 1_000..60_000u32,
            zero: bool,
        ) {
            let first = if zero { FirstIncrement::FromZero } else { FirstIncrement::FromFirstSample };
            let edge = |k: u32| f64::from(start + k * interval) / 1000.0;
            let each = (0..40).map(|k| increase(&series, &others, Span { start: edge(k), end: edge(k + 1) }, first));
            let sum: f64 = each.map(Result::unwrap).sum();
            let whole = increase(&series, &others, Span { start: edge(0), end: edge(40) }, first);
            prop_assert_eq!(Ok(sum), whole);
        }

        #[test]
        fn a_shorter_look_back_counts_the_same(series in counter(), back in 1..5usize) {
            // What one query answers and the next one forgets is counted once.
            let at = series.samples.get(10).map_or(0.0, |(at, _)| *at);
            let span = Span { start: at, end: at + 60.0 };
            let forgets = series.until(at).saturating_sub(back);
            let later = series.clone().with(series.samples.get(forgets..).unwrap_or_default().to_vec());
            let first = FirstIncrement::FromZero;
            prop_assume!(series.until(at) > 0);
            prop_assert_eq!(increase(&[later], &[], span, first), increase(&[series], &[], span, first));
        }
    }
}
