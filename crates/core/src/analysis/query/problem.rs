//! Problems of a query.

use crate::analysis::query::form::Field;

/// Most characters of a query before its placeholders are filled in, as in the schema. It bounds the
/// nesting of an expression, and with it the parser's stack.
pub(super) const LONGEST_QUERY: usize = 4096;

/// A check whose queries are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` of check `{check}`: {problem}")]
pub struct QueryError {
    /// The check's name.
    pub check: String,
    /// The field of the query.
    pub field: Field,
    /// The problem.
    pub problem: Problem,
}

/// A problem of a query.
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
    #[error("`{{{{args.{0}}}}}` is not an argument of the template: declare it in spec.args")]
    UnknownArgument(String),
    /// A query longer than the schema allows.
    #[error(
        "the query has more than {LONGEST_QUERY} characters: record it under a rule in Prometheus and use its name"
    )]
    TooLong,
    /// A query with too many parts.
    #[error(
        "the query has more than {MOST_PARTS} names, numbers and signs: record parts of it under rules in Prometheus and use their names"
    )]
    TooComplex,
    /// `{{` without `}}`.
    #[error("a placeholder is not closed: write it as `{{{{revision}}}}`")]
    Unclosed,
    /// A placeholder of another name.
    #[error(
        "`{{{{{0}}}}}` is not a placeholder: use namespace, service, rollout, revision, window or, in a template, args.NAME"
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
    /// A query that does not distinguish the revisions.
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
    /// A query of which a part is no series, or hides one.
    #[error(
        "a part of the query is there whatever the series hold, or hides what they hold, such as `or vector(1000)`, `+ 1000`, `clamp_max(x, 10)` or `* 0`: leave it out; `or vector(0)`, `> 0`, and factors and divisors of together at most 1000 are allowed"
    )]
    Fixed,
    /// A metric of another kind.
    #[error(
        "the query yields no number: aggregate it, such as `max(x{{pod_template_hash=\"{{{{revision}}}}\"}})`"
    )]
    NoNumber,
}

/// Most names, numbers and signs of a query: the parser and the walk over its tree need stack for each.
pub(super) const MOST_PARTS: usize = 400;
