//! The kind of a query, by the grammar of PromQL.
//!
//! The kind of a text never changes, so results are cached: the parser compiles each regular expression of
//! a query, which is not needed here, and every reconcile parses several queries.

use std::collections::BTreeMap;
use std::sync::Mutex;

use promql_parser::parser::value::ValueType;
use promql_parser::parser::{BinaryExpr, Call, Expr, parse};
use sha2::{Digest, Sha256};

/// Most texts in the cache.
const REMEMBERED: usize = 4096;

/// Most by which a query may scale what it counts, up or down: enough for another unit or a sample of the events.
const MOST_SCALE: f64 = 1000.0;

/// By the digests of the texts, since texts may be long.
static KINDS: Mutex<BTreeMap<[u8; 32], Kind>> = Mutex::new(BTreeMap::new());

/// A kind of query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A selector of series and nothing else.
    Selector,
    /// A selector with an offset, a time, or alternatives within braces: not PromQL, although the parser
    /// accepts them.
    OddSelector,
    /// An expression that yields numbers.
    Numbers,
    /// One of which a part is there whatever the series hold, or hides what they hold.
    Fixed,
    /// Anything else that parses.
    Other,
}

/// The kind of a query, or the parser's message if it does not parse.
///
/// Its depth must be bounded before the call: the parser needs stack for each level.
pub fn kind(text: &str) -> Result<Kind, String> {
    let digest = Sha256::digest(text).into();
    let known = KINDS.lock().ok();
    if let Some(kind) = known.and_then(|kinds| kinds.get(&digest).copied()) {
        return Ok(kind);
    }
    // The parser panics on numbers larger than a duration, such as `x[1e300]`.
    let parsed = std::panic::catch_unwind(|| parse(text));
    let parsed = parsed.unwrap_or_else(|_| Err("a number in it is out of range".into()));
    let kind = of(&parsed?);
    if let Ok(mut kinds) = KINDS.lock() {
        if kinds.len() >= REMEMBERED {
            kinds.clear();
        }
        kinds.insert(digest, kind);
    }
    Ok(kind)
}

fn of(expression: &Expr) -> Kind {
    if let Expr::VectorSelector(selector) = expression {
        let bare = selector.offset.is_none() && selector.at.is_none();
        let plain = selector.matchers.or_matchers.is_empty();
        return if bare && plain {
            Kind::Selector
        } else {
            Kind::OddSelector
        };
    }
    match expression.value_type() {
        ValueType::Vector | ValueType::Scalar if counts(expression) => Kind::Numbers,
        ValueType::Vector | ValueType::Scalar => Kind::Fixed,
        ValueType::Matrix | ValueType::String => Kind::Other,
    }
}

/// Whether a query counts nothing but what its series hold.
///
/// What makes a number of events is listed; anything else may have a number of its own.
fn counts(expression: &Expr) -> bool {
    scale(expression).is_some_and(|it| it <= MOST_SCALE)
}

/// Functions whose number is that of the events in their first argument.
const COUNTING: [&str; 21] = [
    "abs",
    "avg_over_time",
    "ceil",
    "changes",
    "count_over_time",
    "delta",
    "floor",
    "histogram_count",
    "histogram_sum",
    "idelta",
    "increase",
    "irate",
    "label_join",
    "label_replace",
    "last_over_time",
    "max_over_time",
    "min_over_time",
    "rate",
    "resets",
    "scalar",
    "sum_over_time",
];

/// By how much an expression scales what its series hold, at most.
///
/// `None` if a part of it is there whatever they hold, or hides what they do: it would count events that never
/// happened, or stand in place of those that did.
fn scale(expression: &Expr) -> Option<f64> {
    match expression {
        // At one time the series hold the same forever.
        Expr::VectorSelector(it) => it.at.is_none().then_some(1.0),
        Expr::MatrixSelector(it) => it.vs.at.is_none().then_some(1.0),
        Expr::Subquery(it) if it.at.is_none() => scale(&it.expr),
        Expr::Paren(it) => scale(&it.expr),
        Expr::Unary(it) => scale(&it.expr),
        Expr::Aggregate(it) => match it.op.to_string().as_str() {
            "sum" => scale(&it.expr),
            "avg" | "max" | "min" | "count" if !has_zero_beside(&it.expr) => scale(&it.expr),
            _ => None,
        },
        Expr::Call(it) => scale_of_call(it),
        Expr::Binary(it) => scale_of_operator(it),
        _ => None,
    }
}

fn scale_of_call(call: &Call) -> Option<f64> {
    let mut args = call.args.args.iter();
    let (first, second) = (args.next()?, args.next());
    let bound = second.and_then(|it| number(it));
    let nearest = |it: f64| it > 0.0 && it <= 1.0;
    match call.func.name {
        name if COUNTING.contains(&name) => scale(first),
        "round" if second.is_none() || bound.is_some_and(nearest) => scale(first),
        // No event is the least that there can be.
        "clamp_min" if bound == Some(0.0) => scale(first),
        "clamp_min" | "clamp_max" => Some(scale(first)?.max(scale(second?)?)),
        // The first two are the bounds of what is counted.
        "histogram_fraction" => scale(args.next()?),
        _ => None,
    }
}

fn scale_of_operator(binary: &BinaryExpr) -> Option<f64> {
    let (lhs, rhs) = (&*binary.lhs, &*binary.rhs);
    let fills = binary.modifier.as_ref().map(|it| &it.fill_values);
    let mut filled = fills.into_iter().flat_map(|it| [it.lhs, it.rhs]).flatten();
    if binary.return_bool() || filled.any(|value| value != 0.0) {
        return None;
    }
    let operator = binary.op.to_string();
    // Of operands that are equal but for a factor the same is left whatever they are.
    let differ = without_factors(lhs) != without_factors(rhs);
    match (operator.as_str(), number(lhs), number(rhs)) {
        ("*" | "/", None, Some(factor)) => Some(scale(lhs)? * spread(factor)?),
        ("*", Some(factor), None) => Some(scale(rhs)? * spread(factor)?),
        // No series is no event, and only what is an event is more than none.
        ("or" | ">" | ">=" | "!=", None, Some(0.0)) => scale(lhs),
        ("*", ..) => Some(scale(lhs)? * scale(rhs)?),
        ("/", ..) if differ => Some(scale(lhs)? * scale(rhs)?),
        // It may leave the zero alone.
        ("and" | "unless", ..) if has_zero_beside(lhs) => None,
        ("+" | "or" | "and" | "==" | ">=" | "<=", ..) => Some(scale(lhs)?.max(scale(rhs)?)),
        ("-" | "unless" | ">" | "<" | "!=", ..) if differ => Some(scale(lhs)?.max(scale(rhs)?)),
        _ => None,
    }
}

/// By how much a factor or divisor scales, up or down.
fn spread(factor: f64) -> Option<f64> {
    (factor > 0.0 && factor.is_finite()).then(|| factor.max(factor.recip()))
}

/// The value of an expression that is a number.
fn number(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::NumberLiteral(it) => Some(it.val),
        Expr::Paren(it) => number(&it.expr),
        Expr::Unary(it) => number(&it.expr).map(|value| -value),
        Expr::Call(it) if it.func.name == "vector" => number(it.args.args.first()?),
        Expr::Binary(it) => {
            let (lhs, rhs) = (number(&it.lhs)?, number(&it.rhs)?);
            match it.op.to_string().as_str() {
                "*" => Some(lhs * rhs),
                "/" => Some(lhs / rhs),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether a zero stands beside what the series hold, as in `x or vector(0)` where `x` has labels: the least of both is
/// always zero.
fn has_zero_beside(expression: &Expr) -> bool {
    match expression {
        Expr::Paren(it) => has_zero_beside(&it.expr),
        Expr::Unary(it) => has_zero_beside(&it.expr),
        Expr::Subquery(it) => has_zero_beside(&it.expr),
        Expr::Call(it) => it.args.args.iter().any(|it| has_zero_beside(it)),
        Expr::Aggregate(it) => it.modifier.is_some() && has_zero_beside(&it.expr),
        Expr::Binary(it) => {
            let is_added = it.op.to_string() == "or" && number(&it.rhs) == Some(0.0);
            let beside_many = is_added && !is_one_number(&it.lhs);
            beside_many || has_zero_beside(&it.lhs) || has_zero_beside(&it.rhs)
        }
        _ => false,
    }
}

/// Whether an expression yields one number without labels, which a zero only stands in for.
fn is_one_number(expression: &Expr) -> bool {
    matches!(without_parens(expression), Expr::Aggregate(it) if it.modifier.is_none())
}

fn without_factors(expression: &Expr) -> &Expr {
    let expression = without_parens(expression);
    let Expr::Binary(it) = expression else {
        return expression;
    };
    match (it.op.to_string().as_str(), number(&it.lhs), number(&it.rhs)) {
        ("*" | "/", None, Some(_)) => without_factors(&it.lhs),
        ("*", Some(_), None) => without_factors(&it.rhs),
        _ => expression,
    }
}

fn without_parens(expression: &Expr) -> &Expr {
    match expression {
        Expr::Paren(it) => without_parens(&it.expr),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_of_the_same_kind_when_it_is_remembered() {
        for (text, expected) in [
            (r#"x{a=~"b.*"}"#, Kind::Selector),
            ("x offset 5m", Kind::OddSelector),
            (r#"{a="b" or c="d"}"#, Kind::OddSelector),
            ("sum(x)", Kind::Numbers),
            ("sum(x) or vector(0)", Kind::Numbers),
            ("1", Kind::Fixed),
            ("sum(x) or vector(1)", Kind::Fixed),
            ("x[5m]", Kind::Other),
            (r#""x""#, Kind::Other),
        ] {
            assert_eq!(kind(text), Ok(expected), "{text}");
            assert_eq!(kind(text), Ok(expected), "{text}");
        }
        for broken in ["sum(", "x[1e300]"] {
            assert_eq!(kind(broken), kind(broken));
            assert!(kind(broken).is_err());
        }
    }

    #[test]
    fn no_more_is_remembered_than_is_bounded() {
        for number in 0..=REMEMBERED {
            assert_eq!(kind(&format!("x{number}")), Ok(Kind::Selector));
        }
        assert!(KINDS.lock().unwrap().len() <= REMEMBERED);
    }
}
