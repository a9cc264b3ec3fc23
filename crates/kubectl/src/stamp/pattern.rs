//! Patterns of paths: `*` and `?` within one part of a path, `**` for any number of parts.
//!
//! No crate for this is among the dependencies, and the rules need no more than this.

use serde::Deserialize;

/// A pattern that a whole path matches or does not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pattern {
    /// What each part of a path must be; `**` stands for any number of parts.
    parts: Vec<String>,
}

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
        Ok(Self::of(&text))
    }
}

impl Pattern {
    /// The pattern that a text is.
    pub(super) fn of(text: &str) -> Self {
        Self {
            parts: text.split('/').map(ToOwned::to_owned).collect(),
        }
    }

    /// Whether the whole path matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        self.matches_by(path, |a, b| a == b)
    }

    /// Whether the whole path matches, in capital or small letters.
    pub(super) fn matches_in_any_case(&self, path: &str) -> bool {
        self.matches_by(path, |a, b| a.to_lowercase().eq(b.to_lowercase()))
    }

    fn matches_by(&self, path: &str, is_same: fn(char, char) -> bool) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        let any = |part: &String| part == "**";
        let same = |part: &String, of_path: &&str| part_matches(part, of_path, is_same);
        wildcard(&self.parts, &path, any, same)
    }
}

/// Whether one part of a path matches one part of a pattern.
fn part_matches(pattern: &str, part: &str, is_same: fn(char, char) -> bool) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let part: Vec<char> = part.chars().collect();
    wildcard(
        &pattern,
        &part,
        |c| *c == '*',
        |c, of_part| *c == '?' || is_same(*c, *of_part),
    )
}

/// Whether a list matches a pattern in which some items stand for any number of items.
///
/// It never goes back further than to the last of those, so it takes at most the product of both
/// lengths.
fn wildcard<P, T>(
    pattern: &[P],
    list: &[T],
    is_any: impl Fn(&P) -> bool,
    is_same: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(element) = list.get(from) {
        match pattern.get(at) {
            Some(wanted) if is_any(wanted) => {
                retry = Some((at + 1, from));
                at += 1;
            }
            Some(wanted) if is_same(wanted, element) => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((after, taken)) = retry else {
                    return false;
                };
                retry = Some((after, taken + 1));
                (at, from) = (after, taken + 1);
            }
        }
    }
    pattern.iter().skip(at).all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, expected) in [
            ("src/auth/**", "src/auth/a/b.rs", true),
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
            ("**", "anything/at/all", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/b/y/b", true),
            ("A", "a", false),
        ] {
            assert_eq!(
                Pattern::of(pattern).matches(path),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn letters_of_any_case_are_the_same_where_that_is_asked_for() {
        for (pattern, path, expected) in [
            ("**/auth/**", "src/AUTH/Login.cs", true),
            ("Über/?.rs", "über/İ.RS", true),
            ("a/**", "B/a", false),
        ] {
            assert_eq!(
                Pattern::of(pattern).matches_in_any_case(path),
                expected,
                "{pattern} {path}"
            );
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
        let pattern = Pattern::of(&"*a".repeat(200));
        assert!(!pattern.matches(&"a".repeat(5_000).replace("aa", "ab")));
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
        fn matching_agrees_with_brute_force(pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
            let matches = part_matches(&pattern, &text, |a, b| a == b);
            prop_assert_eq!(matches, slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
