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
        ValueType::Vector | ValueType::Scalar => Kind::Numbers,
        ValueType::Matrix | ValueType::String => Kind::Other,
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
            ("1", Kind::Numbers),
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
