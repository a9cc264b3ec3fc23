//! Forms of single values.

use countersign_api::duration::PATTERN as DURATION;
use countersign_api::pod_template::QUANTITY;
use countersign_core::label::is_label;
use serde_json::Number;

use crate::manifests::yaml::Yaml;

pub fn is_whole(number: &Number) -> bool {
    number.as_f64().is_some_and(|value| value.fract() == 0.0)
}

pub fn mismatch(wanted: &str, found: &Yaml) -> String {
    let article = |kind: &str| match kind {
        "object" => "a mapping".to_owned(),
        "array" => "a list".to_owned(),
        "integer" => "a whole number".to_owned(),
        "integer or string" => "a whole number or a text".to_owned(),
        "string" => "a text".to_owned(),
        "quantity" => "a quantity such as 0.5, 500m or 1Gi".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => format!("a {other}"),
    };
    let (found, is_word) = match found {
        Yaml::Null => ("nothing".to_owned(), false),
        Yaml::Bool(value) => (value.to_string(), true),
        Yaml::Number(number) => (number.to_string(), true),
        Yaml::Text(text) => (format!("`{text}`"), false),
        Yaml::List(_) => ("a list".to_owned(), false),
        Yaml::Map(_) => ("a mapping".to_owned(), false),
    };
    let remedy = if wanted == "string" && is_word {
        ": write it in quotes"
    } else {
        ""
    };
    format!("{found} is not {}{remedy}", article(wanted))
}

pub fn one_of(found: &str, known: &[&str]) -> String {
    match nearest(found, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write one of {}", known.join(", ")),
    }
}

/// The known word that differs by a typo or in case.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    const SLIPS: usize = 2;
    if word.len() > 64 {
        return None;
    }
    let typed = word.to_lowercase();
    let distance = |known: &str| strsim::levenshtein(&typed, &known.to_lowercase());
    let distances = known.iter().map(|it| (distance(it), *it));
    let (slips, nearest) = distances.min()?;
    (slips <= SLIPS && slips < word.chars().count()).then_some(nearest)
}

/// A pattern of the schemas as a function.
pub struct Pattern {
    pub(super) text: &'static str,
    pub(super) matches: fn(&str) -> bool,
    pub(super) remedy: &'static str,
}

/// All patterns of the schemas; a test proves that there are no others.
pub const PATTERNS: [Pattern; 6] = [
    Pattern {
        text: QUANTITY,
        matches: is_quantity,
        remedy: "is not a quantity: write a number with at most one suffix, such as 500m, 0.5 or 1Gi",
    },
    Pattern {
        text: DURATION,
        matches: is_duration,
        remedy: "is not a duration: write hours, minutes and seconds such as 90s, 5m or 1h30m",
    },
    Pattern {
        text: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        matches: is_label,
        remedy: "is not a name: write lower-case letters, digits and `-`",
    },
    Pattern {
        text: r"^[A-Za-z0-9!#$%&'*+\-.^_|~]+$",
        matches: |text| is_made_of(text, "!#$%&'*+-.^_|~"),
        remedy: "is not a header name",
    },
    Pattern {
        text: "^[A-Za-z0-9_-]+$",
        matches: |text| is_made_of(text, "_-"),
        remedy: "is not made of letters, digits, `_` and `-` alone",
    },
    Pattern {
        text: r"^[^/\[\]{}\\!][^\[\]{}\\!]*$",
        matches: |text| {
            !text.is_empty()
                && !text.starts_with('/')
                && !text.contains(['[', ']', '{', '}', '\\', '!'])
        },
        remedy: "is not a pattern: write `*`, `?` and `**`, without `[`, `{`, `!` and `\\`, and no `/` first",
    },
];

pub fn is_made_of(text: &str, signs: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
    !text.is_empty() && text.chars().all(known)
}

pub fn is_duration(text: &str) -> bool {
    let mut rest = text;
    for unit in ["h", "m", "s", "ms"] {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let Some((number, after)) = rest.split_at_checked(digits) else {
            return false;
        };
        let follows = after.strip_prefix(unit).filter(|after| {
            // `5ms` is no minutes.
            unit != "m" || !after.starts_with('s')
        });
        if let Some(after) = follows.filter(|_| (1..=5).contains(&number.len())) {
            rest = after;
        }
    }
    rest.is_empty()
}

/// Whether a text is a quantity as Kubernetes reads it.
#[must_use]
pub fn is_quantity(text: &str) -> bool {
    let unsigned = |text: &'_ str| text.strip_prefix(['+', '-']).unwrap_or(text).to_owned();
    let amount = unsigned(text);
    let end = amount.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (amount, suffix) = amount.split_at(end.unwrap_or(amount.len()));
    let is_number =
        amount.matches('.').count() <= 1 && amount.contains(|c: char| c.is_ascii_digit());
    let is_suffix = match suffix.strip_prefix(['e', 'E']).map(unsigned) {
        Some(exponent) if !exponent.is_empty() && exponent != "i" => {
            exponent.bytes().all(|it| it.is_ascii_digit())
        }
        _ => {
            let unit = suffix.strip_suffix('i').unwrap_or(suffix);
            let known = if unit == suffix {
                "numkMGTPE"
            } else {
                "KMGTPE"
            };
            suffix.is_empty() || (unit.len() == 1 && known.contains(unit))
        }
    };
    is_number && is_suffix
}
