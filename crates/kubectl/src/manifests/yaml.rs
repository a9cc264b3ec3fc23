//! YAML with the position of every value.
//!
//! The parser's budgets limit depth, nodes, documents and alias expansion, which bounds its time and
//! memory.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, MessageFormatter, Spanned, UserMessageFormatter};

/// A position in a text, counted from 1 as in editors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl Position {
    /// The first character of a text.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        Self {
            line: location.line().max(1),
            column: location.column().max(1),
        }
    }
}

/// A text that is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// The position of the error.
    pub at: Position,
    /// The error message.
    pub message: String,
}

/// A value with its position.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// The value.
    pub value: Yaml,
}

/// A value of YAML 1.1, the version that kubectl reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Yaml {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in its order, with every key as often as it is written.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub at: Position,
    /// The value.
    pub value: Node,
}

/// Limits of alias expansion: far more than people write, and too little for a bomb.
#[must_use]
pub fn aliases() -> serde_saphyr::options::AliasLimits {
    serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 }
}

/// The documents of a text, without empty ones.
pub fn documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        alias_limits: aliases(),
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        SyntaxError {
            at: error.location().map_or(Position::START, Position::from),
            message: UserMessageFormatter.format_message(error).into_owned(),
        }
    })
}

impl Node {
    /// The entries of a mapping; none of anything else.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Yaml::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The members of a list; none of anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Yaml::List(items) => items,
            _ => &[],
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Yaml::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match &self.value {
            Yaml::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// The entry of a mapping; the last one if the key occurs more than once.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().rfind(|entry| entry.key == key)
    }

    /// The value under a key, if it is not null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let value = &self.entry(key)?.value;
        (value.value != Yaml::Null).then_some(value)
    }

    /// The value at a path of keys.
    #[must_use]
    pub fn find(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The value as JSON; of a repeated key the last value counts.
    #[must_use]
    pub fn json(&self) -> Value {
        match &self.value {
            Yaml::Null => Value::Null,
            Yaml::Bool(value) => Value::Bool(*value),
            Yaml::Number(number) => Value::Number(number.clone()),
            Yaml::Text(text) => Value::String(text.clone()),
            Yaml::List(items) => Value::Array(items.iter().map(Self::json).collect()),
            Yaml::Map(entries) => {
                let json = |entry: &Entry| (entry.key.clone(), entry.value.json());
                Value::Object(entries.iter().map(json).collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Yaml>::deserialize(deserializer)?;
        Ok(Self {
            at: spanned.referenced.into(),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyYaml)
    }
}

struct AnyYaml;

impl<'de> Visitor<'de> for AnyYaml {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("YAML that JSON can hold")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Yaml, E> {
        // As in kubectl's conversion from YAML to JSON, a whole number has no fraction.
        if let Some(whole) = whole(value) {
            return Ok(Yaml::Number(whole.into()));
        }
        let number = Number::from_f64(value).ok_or_else(|| E::custom("JSON has no such number"))?;
        Ok(Yaml::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Key>>()? {
            let value = map.next_value()?;
            entries.push(Entry {
                key: key.value.0,
                at: key.referenced.into(),
                value,
            });
        }
        Ok(Yaml::Map(entries))
    }
}

/// A key, converted to JSON as in kubectl.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Yaml::deserialize(deserializer)? {
            Yaml::Text(text) => Ok(Self(text)),
            Yaml::Number(number) => Ok(Self(number.to_string())),
            Yaml::Bool(value) => Ok(Self(value.to_string())),
            Yaml::Null | Yaml::List(_) | Yaml::Map(_) => {
                Err(D::Error::custom("a key must be a text"))
            }
        }
    }
}

/// The integer that a number is, if every digit of it is exact.
fn whole(value: f64) -> Option<i64> {
    let exact = value.fract() == 0.0 && value.abs() < 9.0e15;
    exact.then(|| format!("{value:.0}").parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Node {
        documents(text).unwrap().remove(0)
    }

    const fn at(line: u64, column: u64) -> Position {
        Position { line, column }
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let node = one("# first\na:\n  b: [1, 'x']\n  c: |\n    text\n");
        let a = node.entry("a").unwrap();
        assert_eq!(a.at, at(2, 1));
        let b = a.value.entry("b").unwrap();
        assert_eq!((b.at, b.value.at), (at(3, 3), at(3, 6)));
        assert_eq!(b.value.items()[1].at, at(3, 10));
        assert_eq!(a.value.at, at(3, 3));
        assert_eq!(a.value.get("c").unwrap().text(), Some("text\n"));
    }

    #[test]
    fn lines_count_through_all_documents_and_empty_ones_are_left_out() {
        let documents = documents("---\na: 1\n---\n---\n# nothing\n---\nb: 2\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1].entry("b").unwrap().at, at(7, 1));
    }

    #[test]
    fn values_are_those_that_kubectl_reads() {
        let node = one(
            "{a: yes, b: 0644, c: 1.5, d: ~, e: 8e21b7f, f: '1', g: 2026-01-01T00:00:00Z, 1: x, true: z}",
        );
        assert_eq!(
            node.json(),
            json!({ "a": true, "b": 420, "c": 1.5, "d": null, "e": "8e21b7f", "f": "1",
                    "g": "2026-01-01T00:00:00Z", "1": "x", "true": "z" })
        );
    }

    #[test]
    fn a_key_that_is_written_twice_is_kept_twice() {
        let node = one("a: 1\nb: 2\na: 3\n");
        assert_eq!(node.entries().len(), 3);
        assert_eq!(node.get("a").unwrap().number(), Some(3.0));
        assert_eq!(node.json(), json!({ "a": 3, "b": 2 }));
    }

    #[test]
    fn aliases_and_merges_are_expanded_where_they_stand() {
        let node = one("a: &x { b: 1 }\nc: *x\nd:\n  <<: *x\n  e: 2\n");
        assert_eq!(
            node.json(),
            json!({ "a": { "b": 1 }, "c": { "b": 1 }, "d": { "b": 1, "e": 2 } })
        );
        assert_eq!(node.get("c").unwrap().at.line, 2);
    }

    #[test]
    fn what_is_no_yaml_is_reported_with_its_place() {
        for (text, line) in [
            ("a: b: c\n", 1),
            ("a:\n  - 1\n b: 2\n", 3),
            ("a: 'x\n", 1),
            ("? [a]\n: b\n", 1),
            ("a: .nan\n", 1),
            ("a: *nobody\n", 1),
        ] {
            let error = documents(text).unwrap_err();
            assert!(error.at.line >= line, "{text:?}: {error:?}");
            assert!(!error.message.is_empty() && !error.message.contains('\n'));
        }
    }

    #[test]
    fn bombs_are_refused_by_the_budgets() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            writeln!(laughs, "a{level}: &a{level} [{before}]").unwrap();
        }
        for bomb in [
            laughs,
            "[".repeat(100_000),
            "{a: ".repeat(100_000),
            "- ".repeat(100_000),
            "x: [".to_owned() + &"1,".repeat(2_000_000) + "]",
            "---\na: 1\n".repeat(5_000),
        ] {
            assert!(documents(&bomb).is_err(), "{}", &bomb[..40]);
        }
    }
}
