//! Parses single annotations.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::provenance::keys::MAX_COUNT;
use crate::provenance::problem::{self, Problem};
use crate::text;

/// Parses single annotations and collects their problems.
pub(super) struct Reader<'a> {
    pub(super) own: &'a BTreeMap<&'a str, &'a str>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// The value without surrounding space; `None` if it is absent or must not be read.
    fn text(&mut self, key: &'static str) -> Option<&'a str> {
        let value = self.own.get(key)?.trim();
        let problem = if value.len() > problem::longest(key) {
            Problem::TooLong {
                key,
                length: value.len(),
            }
        } else if value.contains(text::is_invisible) {
            Problem::Invisible {
                key,
                value: text::excerpt(value),
            }
        } else {
            return Some(value);
        };
        self.problems.push(problem);
        None
    }

    pub(super) fn scalar(&mut self, key: &'static str) -> Option<&'a str> {
        let value = self.text(key)?;
        if value.is_empty() {
            self.problems.push(Problem::Empty { key });
        }
        Some(value).filter(|value| !value.is_empty())
    }

    /// The parts between commas. An empty list has no parts.
    pub(super) fn list(&mut self, key: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
        let value = self.text(key).unwrap_or_default();
        value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
    }

    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &'static str,
        known: &[(&str, T)],
    ) -> Option<T> {
        let value = self.scalar(key)?;
        let meant = known
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(value));
        if meant.is_none() {
            self.problems.push(Problem::UnknownWord {
                key,
                value: text::excerpt(value),
                words,
            });
        }
        meant.map(|(_, meaning)| *meaning)
    }

    pub(super) fn count(&mut self, key: &'static str) -> Option<u32> {
        let value = self.scalar(key)?;
        // `parse` alone would take a sign.
        let count = value
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| value.parse().ok())
            .flatten()
            .filter(|count| *count <= MAX_COUNT);
        if count.is_none() {
            self.problems.push(Problem::NoCount {
                key,
                value: text::excerpt(value),
            });
        }
        count
    }

    pub(super) fn time(&mut self, key: &'static str) -> Option<Timestamp> {
        let value = self.scalar(key)?;
        let time = value.parse().ok();
        if time.is_none() {
            self.problems.push(Problem::NoTime {
                key,
                value: text::excerpt(value),
            });
        }
        time
    }

    pub(super) fn percentage(&mut self, key: &'static str) -> Option<f64> {
        let value = self.scalar(key)?;
        // `parse` alone would take signs, exponents, infinities and NaN.
        let share = value
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
            .then(|| value.parse().ok())
            .flatten()
            .filter(|share| (0.0..=100.0).contains(share));
        if share.is_none() {
            self.problems.push(Problem::NoPercentage {
                key,
                value: text::excerpt(value),
            });
        }
        share
    }
}
