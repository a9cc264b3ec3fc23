//! Fills values into the placeholders of a query.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::Duration;
use countersign_api::template::{Argument, ArgumentType};

use crate::analysis::query::form::{Arm, Field, Form, Query};
use crate::analysis::query::problem::{LONGEST_QUERY, MOST_PARTS, Problem};
use crate::analysis::query::promql::{self, Kind};
use crate::text;

/// A selector with one more matcher.
pub(super) fn with_matcher(selector: &str, matcher: &str) -> String {
    let mut scanner = Scanner::default();
    for (at, c) in selector.char_indices() {
        if c == '{' && scanner.place == Place::Code {
            let (name, rest) = selector.split_at(at + 1);
            return format!("{name}{matcher},{rest}");
        }
        scanner.step(c);
    }
    // On a new line: the selector may end with a comment.
    format!("{selector}\n{{{matcher}}}")
}

/// A template's query with the values of its arguments for `{{args.NAME}}`; its other placeholders stay.
pub fn with_args(template: &str, args: &BTreeMap<String, Value>) -> Result<String, Problem> {
    let mut text = String::with_capacity(template.len());
    scan(template, &mut text, |name, place, text| {
        let Some(name) = name.strip_prefix("args.") else {
            text.extend(["{{", name, "}}"]);
            return Ok(());
        };
        let unknown = || Problem::UnknownArgument(text::sanitize_to(name, 40));
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

/// The names of the arguments that a template's query uses.
pub(crate) fn arguments(template: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // A placeholder that is not closed is an error of `with_args`.
    let _ = scan(template, &mut String::new(), |name, _, _| {
        names.extend(name.strip_prefix("args.").map(ToOwned::to_owned));
        Ok(())
    });
    names
}

/// The value of a template's argument, parsed as its declared type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    text: String,
    /// Whether it is safe outside of strings.
    is_bare: bool,
}

impl Value {
    /// Parses a value; `None` if it is not of the argument's type.
    #[must_use]
    pub fn read(argument: &Argument, text: &str) -> Option<Self> {
        let text = match argument.kind {
            // A value must not contain further placeholders.
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

/// A template with its placeholders filled in, and which of them it has.
#[derive(Default)]
pub(super) struct Filled {
    pub(super) text: String,
    pub(super) window: bool,
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
            other => return Err(Problem::Unknown(text::sanitize_to(other, 40))),
        };
        let Place::Quoted { quote, operator } = place else {
            return Err(Problem::Unquoted(name));
        };
        let value = value
            .filter(|value| !value.is_empty())
            .ok_or(Problem::Unresolved(name))?;
        let value = literal(value, quote, operator).ok_or(Problem::UnsafeValue(name))?;
        text.push_str(&value);
        // A named Service selects one revision's pods.
        self.revision |= matches!(name, "revision" | "service") && operator.selects();
        Ok(())
    }

    pub(super) fn query(self, field: Field) -> Result<Query, Problem> {
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

pub(super) fn fill(template: &str, arm: Arm<'_>, window: Duration) -> Result<Filled, Problem> {
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

/// Copies a template; `put` writes the value of each placeholder.
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

/// The lexical context of a character in a query, by the rules of Prometheus' lexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Code,
    Comment,
    Quoted { quote: char, operator: Operator },
}

/// The operator before a string.
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
    // A backquoted string has no escapes.
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

/// Whether a query has too many parts to be parsed safely.
#[must_use]
pub fn is_too_complex(text: &str) -> bool {
    parts(text) > MOST_PARTS
}

pub(super) fn parts(text: &str) -> usize {
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

pub(super) fn parse(text: &str) -> Result<Kind, Problem> {
    if is_too_complex(text) {
        return Err(Problem::TooComplex);
    }
    promql::kind(text).map_err(|message| Problem::Syntax(text::sanitize_to(&message, 200)))
}

pub(super) fn form(kind: Kind, window: bool) -> Result<Form, Problem> {
    match kind {
        Kind::Selector if !window => Ok(Form::Selector),
        Kind::Numbers if window => Ok(Form::Expression),
        Kind::Fixed => Err(Problem::Fixed),
        _ => Err(Problem::Form),
    }
}
