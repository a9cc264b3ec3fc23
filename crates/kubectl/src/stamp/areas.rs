//! The size of a change and the areas that it touches, by the paths of its files.
//!
//! The rules are in `.countersign.yaml`, with built-in defaults.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::pattern::{Pattern, Patterns};
use countersign_core::text::sanitize_lines;
use serde::Deserialize;

use super::git::Change;
use super::visible::item;
use crate::manifests::yaml;

/// The file in the root of a repository that holds the rules.
pub(super) const FILE: &str = ".countersign.yaml";

/// The default rules.
const BUILT_IN: &str = include_str!("areas.yaml");

/// The rules as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    /// Area to paths; an area that is built in is replaced.
    touches: BTreeMap<String, Vec<Pattern>>,
    /// Subsystem to paths; any other file belongs to its topmost directory.
    subsystems: BTreeMap<String, Vec<Pattern>>,
    /// Paths whose lines do not count; replaces those that are built in.
    ignore: Option<Vec<Pattern>>,
}

impl File {
    fn read(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! { alias_limits: yaml::aliases() };
        serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| sanitize_lines(&error.to_string()))
    }
}

/// The rules by which paths belong to areas.
#[derive(Debug)]
pub struct Areas {
    touches: BTreeMap<String, Patterns>,
    subsystems: BTreeMap<String, Patterns>,
    ignore: Patterns,
}

/// The size of a change and what it touches.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Files that count.
    pub files: usize,
    /// Lines that were added to them.
    pub added: u64,
    /// Lines that were deleted from them.
    pub deleted: u64,
    /// Subsystems that they belong to.
    pub subsystems: usize,
    /// Areas that the change touches, including those of ignored files.
    pub touches: BTreeSet<String>,
    /// Files that count, but whose lines cannot be counted.
    pub binary: BTreeSet<String>,
}

impl Areas {
    /// The rules in a text, over the built-in ones. An error names line and column.
    pub fn read(text: &str) -> Result<Self, String> {
        let (mut rules, own) = (File::read(BUILT_IN)?, File::read(text)?);
        for (area, paths) in own.touches {
            rules.touches.insert(item(&area).to_lowercase(), paths);
        }
        rules.subsystems = own.subsystems;
        rules.ignore = own.ignore.or(rules.ignore);
        Self::of(&rules)
    }

    fn of(rules: &File) -> Result<Self, String> {
        let compiled = |what: &str, paths: &[Pattern], any_case| {
            Patterns::new(paths, any_case)
                .map_err(|error| format!("the patterns of {what} cannot be used: {error}"))
        };
        let named = |kind: &str, paths: &BTreeMap<String, Vec<Pattern>>, any_case| {
            let named = paths.iter().map(|(name, paths)| {
                let what = format!("{kind} `{}`", item(name));
                Ok((name.clone(), compiled(&what, paths, any_case)?))
            });
            named.collect::<Result<_, String>>()
        };
        let ignored = rules.ignore.as_deref().unwrap_or_default();
        Ok(Self {
            // Regardless of case: `src/Auth` equals `src/auth`.
            touches: named("area", &rules.touches, true)?,
            subsystems: named("subsystem", &rules.subsystems, false)?,
            ignore: compiled("`ignore`", ignored, false)?,
        })
    }

    /// Whether the lines of a file do not count.
    pub(super) fn ignores(&self, path: &str) -> bool {
        self.ignore.matches(path)
    }

    /// The size of a change of these files and what it touches.
    pub fn size(&self, changes: &[Change]) -> Size {
        let mut size = Size::default();
        let mut subsystems = BTreeSet::new();
        for change in changes {
            // A renamed file touches the areas of both paths.
            for path in change.from.iter().chain([&change.path]) {
                size.touches
                    .extend(self.touched(path).map(ToOwned::to_owned));
                if !self.ignores(path) {
                    subsystems.insert(self.subsystem(path));
                }
            }
            if !self.ignores(&change.path) {
                let (added, deleted) = change.lines.unwrap_or_default();
                size.files += 1;
                size.added = size.added.saturating_add(added);
                size.deleted = size.deleted.saturating_add(deleted);
                if change.lines.is_none() {
                    size.binary.insert(change.path.clone());
                }
            }
        }
        size.subsystems = subsystems.len();
        size
    }

    /// The areas of a path.
    fn touched<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let touched = self.touches.iter().filter(|(_, it)| it.matches(path));
        touched.map(|(area, _)| area.as_str())
    }

    /// The subsystem by the rules, or else the topmost directory, or the root.
    fn subsystem<'a>(&'a self, path: &'a str) -> (bool, &'a str) {
        let ruled = self.subsystems.iter().find(|(_, it)| it.matches(path));
        match ruled {
            Some((name, _)) => (true, name),
            None => (false, path.split_once('/').map_or("", |(top, _)| top)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, lines: (u64, u64)) -> Change {
        Change {
            path: path.into(),
            from: None,
            lines: Some(lines),
        }
    }

    fn touches(areas: &Areas, path: &str) -> String {
        areas.touched(path).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn built_in_areas_are_found_by_common_paths() {
        let areas = Areas::read("").unwrap();
        for (path, expected) in [
            ("db/migrations/0042_pay.sql", "migration"),
            ("src/auth/token.rs", "auth"),
            ("src/auth.rs", "auth"),
            ("src/author.rs", ""),
            ("Cargo.lock", "dependency"),
            ("web/package.json", "dependency"),
            ("Dockerfile", "infra"),
            (".github/workflows/ci.yaml", "infra"),
            ("charts/shop/values.yaml", "infra"),
            (".countersign.yaml", "infra"),
            ("proto/shop.proto", "api"),
            ("services/payments/api/v1.rs", "api payments"),
            ("config/app.toml", "config"),
            ("src/Auth/Login.cs", "auth"),
            ("Payments/Charge.java", "payments"),
            ("db/Init.SQL", "migration"),
            ("DOCKERFILE", "infra"),
            ("README.md", ""),
        ] {
            assert_eq!(touches(&areas, path), expected, "{path}");
        }
    }

    /// An area under another name than the policy's would weigh nothing.
    #[test]
    fn built_in_areas_are_those_of_the_built_in_policy() {
        let policy = countersign_core::policy::effective(&[]);
        for area in Areas::read("").unwrap().touches.keys() {
            assert!(policy.risk.touches.contains_key(area), "{area}");
        }
    }

    #[test]
    fn size_leaves_ignored_files_out_but_what_they_touch_counts() {
        let mut renamed = change("src/new.rs", (1, 1));
        renamed.from = Some("lib/migrations/old.rs".into());
        let mut binary = change("src/logo.png", (0, 0));
        binary.lines = None;
        let size = Areas::read("").unwrap().size(&[
            change("Cargo.lock", (900, 900)),
            change("README.md", (3, 0)),
            renamed,
            binary,
        ]);
        assert_eq!(
            (size.files, size.added, size.deleted, size.binary.len()),
            (3, 4, 1, 1)
        );
        assert_eq!(size.subsystems, 3, "the root, src, lib");
        assert_eq!(
            size.touches.into_iter().collect::<Vec<_>>(),
            ["dependency", "migration"]
        );
    }

    #[test]
    fn a_file_adds_and_replaces() {
        let areas = Areas::read(
            "touches:\n  Auth: [\"src/login/**\"]\n  search: [\"src/search/**\"]\nsubsystems:\n  shop: [\"src/shop/**\", \"src/cart/**\"]\nignore: [\"vendor/**\"]\n",
        )
        .unwrap();
        assert_eq!(touches(&areas, "src/auth/a.rs"), "", "replaced");
        assert_eq!(touches(&areas, "src/login/a.rs"), "auth");
        assert_eq!(touches(&areas, "src/search/a.rs"), "search");
        assert_eq!(touches(&areas, "Dockerfile"), "infra");
        assert!(areas.ignores("vendor/a.go") && !areas.ignores("Cargo.lock"));
        let size = areas.size(&[
            change("src/shop/a.rs", (1, 0)),
            change("src/cart/b.rs", (1, 0)),
        ]);
        assert_eq!(size.subsystems, 1);
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        for (text, line, problem) in [
            (
                "touches:\n  auth: [x]\nignores: []\n",
                "line 3",
                "unknown field `ignores`",
            ),
            ("touches:\n  auth: src/**\n", "line 2", "sequence"),
            (
                "touches:\n  auth:\n    - \"src/[ab].rs\"\n",
                "line 3",
                "src/[ab].rs",
            ),
            ("ignore: [\"\"]\n", "line 1", "empty"),
        ] {
            let error = Areas::read(text).unwrap_err();
            assert!(error.contains(line) && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn patterns_that_are_too_large_are_refused_with_their_area() {
        let pattern = "?".repeat(100_000);
        for (text, area) in [
            (
                format!("touches: {{ Search: [\"{pattern}\"] }}\n"),
                "area `search`",
            ),
            (
                format!("subsystems: {{ shop: [\"{pattern}\"] }}\n"),
                "subsystem `shop`",
            ),
            (format!("ignore: [\"{pattern}\"]\n"), "`ignore`"),
        ] {
            let error = Areas::read(&text).unwrap_err();
            let expected = format!("the patterns of {area} cannot be used: ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
