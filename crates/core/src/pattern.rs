//! Patterns of paths: `*` and `?` within one part of a path, `**` for any number of parts.
//!
//! Patterns become regular expressions. The crate globset is not used: its `?` is one byte, so `?.rs`
//! would not match `é.rs`, and it ignores case only in ASCII.

use regex::{RegexSet, RegexSetBuilder};
use serde::Deserialize;

/// A pattern that a whole path matches or does not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(String);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() {
            return Err("the pattern is empty: write a path such as `src/auth/**`".into());
        }
        if text.starts_with('/') {
            return Err(format!(
                "the pattern `{text}` begins with a slash: paths begin at the repository's root, write `{}`",
                text.trim_start_matches('/')
            ));
        }
        if text.contains(['[', ']', '{', '}', '\\', '!']) {
            return Err(format!(
                "the pattern `{text}` has one of []{{}}\\! in it, which mean nothing here: use `*`, `?` and `**`, in several patterns if need be"
            ));
        }
        Ok(Self(text))
    }
}

impl Pattern {
    /// The expression for a path that ends with a slash, so that each of its parts does.
    fn expression(&self) -> String {
        let parts = self.0.split('/').map(|part| match part {
            "**" => "(?:[^/]*/)*".to_owned(),
            part => {
                let part = regex::escape(part);
                part.replace(r"\*", "[^/]*").replace(r"\?", "[^/]") + "/"
            }
        });
        format!(r"\A{}\z", parts.collect::<String>())
    }
}

/// A set of patterns.
#[derive(Clone, Debug)]
pub struct Patterns(RegexSet);

impl Patterns {
    /// Compiles the patterns, ignoring case if `any_case`; fails if there are too many.
    pub fn new(patterns: &[Pattern], any_case: bool) -> Result<Self, regex::Error> {
        RegexSetBuilder::new(patterns.iter().map(Pattern::expression))
            .case_insensitive(any_case)
            .build()
            .map(Self)
    }

    /// Whether the whole path matches one of them.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(&format!("{path}/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, path: &str, any_case: bool) -> bool {
        let pattern = Pattern::try_from(pattern.to_owned()).unwrap();
        Patterns::new(&[pattern], any_case).unwrap().matches(path)
    }

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, expected) in [
            ("src/auth/**", "src/auth/a/b.rs", true),
            ("src/auth/**", "src/auth", true),
            ("src/auth/**", "src/author.rs", false),
            ("**/migrations/**", "migrations/1.sql", true),
            ("**/migrations/**", "a/b/migrations/c/1.sql", true),
            ("**/migrations/**", "a/migrations.rs", false),
            ("**/*.lock", "Cargo.lock", true),
            ("**/*.lock", "a/b/yarn.lock", true),
            ("*.lock", "a/yarn.lock", false),
            ("**/Dockerfile*", "x/Dockerfile.debug", true),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/b/c", false),
            ("a/?.rs", "a/é.rs", true),
            ("a/?.rs", "a/.rs", false),
            ("a/?.rs", "a/x-rs", false),
            ("**", "anything/at/all", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/b/y/b", true),
            ("a**", "ab/c", false),
            ("a+(b|c)", "a+(b|c)", true),
            ("*", "two\nlines", true),
            ("A", "a", false),
        ] {
            assert_eq!(matches(pattern, path, false), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn case_is_ignored_only_on_request() {
        for (pattern, path, expected) in [
            ("**/auth/**", "src/AUTH/Login.cs", true),
            ("Über/?.rs", "über/İ.RS", true),
            ("a/**", "B/a", false),
        ] {
            assert_eq!(matches(pattern, path, true), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_would_not_mean_what_it_seems_is_refused() {
        for text in ["", "/src/**", "src/{a,b}", "src/[ab]", "!src", "a\\b"] {
            assert!(Pattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn many_wildcards_take_no_time() {
        let path = "a".repeat(5_000).replace("aa", "ab");
        assert!(!matches(&"*a".repeat(200), &path, false));
    }

    #[test]
    fn patterns_without_end_are_refused() {
        let pattern = Pattern::try_from("?".repeat(100_000)).unwrap();
        assert!(Patterns::new(&[pattern], true).is_err());
    }

    /// The law, by brute force: `*` is any number of items.
    fn slow(pattern: &[u8], list: &[u8]) -> bool {
        match (pattern.split_first(), list.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                slow(rest, list) || !list.is_empty() && slow(pattern, &list[1..])
            }
            (Some((p, rest)), Some((c, others))) => p == c && slow(rest, others),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_brute_force(pattern in "x[ab*]{0,8}", text in "x[ab]{0,8}") {
            let expected = slow(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(&pattern, &text, false), expected);
        }
    }
}
