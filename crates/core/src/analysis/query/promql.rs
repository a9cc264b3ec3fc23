//! The kind of a query, by the grammar of PromQL.
//!
//! The kind of a text never changes, so results are cached: the parser compiles each regular expression of
//! a query, which is not needed here, and every reconcile parses several queries.

use std::collections::BTreeMap;
use std::sync::Mutex;

use promql_parser::parser::value::ValueType;
use promql_parser::parser::{Expr, parse};
use sha2::{Digest, Sha256};

/// Most texts in the cache.
const REMEMBERED: usize = 4096;

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
    /// One of which a part is there whatever the series hold.
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
        ValueType::Vector | ValueType::Scalar if is_fixed(expression) => Kind::Fixed,
        ValueType::Vector | ValueType::Scalar => Kind::Numbers,
        ValueType::Matrix | ValueType::String => Kind::Other,
    }
}

/// Whether a part of the number is there whatever the series hold: it would count events that never happened, or
/// stand in place of those that did.
fn is_fixed(expression: &Expr) -> bool {
    let varies = |it: &Expr| !is_constant(it) && is_fixed(it);
    let part = match expression {
        Expr::Binary(binary) => {
            let (lhs, rhs) = (&*binary.lhs, &*binary.rhs);
            let added = match binary.op.to_string().as_str() {
                // No series is no event.
                "or" => is_constant(lhs) || (is_constant(rhs) && !is_no_event(rhs)),
                "+" => is_constant(lhs) || is_constant(rhs),
                _ => false,
            };
            added || varies(lhs) || varies(rhs)
        }
        Expr::Aggregate(it) => varies(&it.expr),
        Expr::Unary(it) => varies(&it.expr),
        Expr::Paren(it) => varies(&it.expr),
        Expr::Subquery(it) => varies(&it.expr),
        Expr::Call(call) => call.args.args.iter().any(|it| varies(it)),
        _ => false,
    };
    part || is_constant(expression)
}

/// Whether an expression has no series in it.
fn is_constant(expression: &Expr) -> bool {
    match expression {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => true,
        Expr::VectorSelector(_) | Expr::MatrixSelector(_) | Expr::Extension(_) => false,
        Expr::Binary(binary) => is_constant(&binary.lhs) && is_constant(&binary.rhs),
        Expr::Aggregate(it) => is_constant(&it.expr),
        Expr::Unary(it) => is_constant(&it.expr),
        Expr::Paren(it) => is_constant(&it.expr),
        Expr::Subquery(it) => is_constant(&it.expr),
        Expr::Call(call) => call.args.args.iter().all(|it| is_constant(it)),
    }
}

/// Whether an expression is `vector(0)`.
fn is_no_event(expression: &Expr) -> bool {
    match expression {
        Expr::Paren(it) => is_no_event(&it.expr),
        Expr::Call(call) if call.func.name == "vector" => {
            let mut args = call.args.args.iter();
            args.all(|it| matches!(&**it, Expr::NumberLiteral(number) if number.val == 0.0))
        }
        _ => false,
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
