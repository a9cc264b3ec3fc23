//! Durations as people write them: `90s`, `5m`, `1h30m`.

use std::fmt;
use std::time::Duration as StdDuration;

use k8s_openapi::jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Gateway API durations (GEP-2257) with their units in order: bounded, so no value can overflow.
pub const PATTERN: &str = "^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?([0-9]{1,5}ms)?$";

/// A length of time, not negative, in the format of Go and the Gateway API, such as `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(StdDuration);

/// What is wrong with a duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a duration: write hours, minutes and seconds such as `90s`, `5m` or `1h30m`")]
pub struct InvalidDuration(String);

impl Duration {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(StdDuration::from_secs(seconds))
    }

    /// A duration of whole minutes.
    #[must_use]
    pub const fn minutes(minutes: u64) -> Self {
        Self(StdDuration::from_secs(minutes * 60))
    }

    /// The same length as the standard library's type.
    #[must_use]
    pub const fn std(self) -> StdDuration {
        self.0
    }

    /// The same length as jiff's type, for arithmetic with timestamps.
    #[must_use]
    pub fn signed(self) -> SignedDuration {
        SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX)
    }
}

impl From<StdDuration> for Duration {
    fn from(length: StdDuration) -> Self {
        Self(length)
    }
}

impl std::str::FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDuration(text.chars().take(40).collect());
        // jiff also takes signs, years and words; the schema's pattern does not.
        if text.len() > 32 || !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(invalid());
        }
        let signed: SignedDuration = text.parse().map_err(|_| invalid())?;
        signed.try_into().map(Self).map_err(|_| invalid())
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_millis();
        let parts = [
            (total / 3_600_000, "h"),
            (total / 60_000 % 60, "m"),
            (total / 1_000 % 60, "s"),
            (total % 1_000, "ms"),
        ];
        if total == 0 {
            return f.write_str("0s");
        }
        parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .try_for_each(|(count, unit)| write!(f, "{count}{unit}"))
    }
}

impl Serialize for Duration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "minLength": 2, "maxLength": 32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written_and_write_shortest() {
        for (text, seconds, shown) in [
            ("90s", 90, "1m30s"),
            ("5m", 300, "5m"),
            ("1h30m", 5400, "1h30m"),
            ("0s", 0, "0s"),
            ("99999h", 359_996_400, "99999h"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration, Duration::seconds(seconds), "{text}");
            assert_eq!(duration.to_string(), shown);
            assert_eq!(shown.parse::<Duration>().unwrap(), duration);
        }
        assert_eq!("1500ms".parse::<Duration>().unwrap().to_string(), "1s500ms");
    }

    #[test]
    fn what_is_no_duration_is_an_error_that_shows_it() {
        for text in [
            "",
            "-5m",
            "1e9h",
            "five minutes",
            "5",
            "5m ago",
            "P1Y",
            "1h\u{202e}",
            &"1h".repeat(40),
        ] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(
                error.to_string().contains("is not a duration"),
                "{text}: {error}"
            );
        }
    }
}
