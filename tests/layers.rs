//! No file and no folder of a crate imports another one in a circle; between crates Cargo sees to that.
//!
//! Read from the source itself: what a file names by `crate::…` or `super::…`, tests aside. Within a
//! folder its files and folders must have an order, from those that import nothing to those that import the
//! others; the folders of the crate, too. And no file is too long to be read, tests aside.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A file as a path of modules: `traffic::route` is `traffic/route/mod.rs`.
type Module = Vec<String>;

fn modules(folder: &Path, of: &[String], into: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "tests" {
            // What only tests see may name everything.
        } else if path.is_dir() {
            modules(&path, &[of, &[name]].concat(), into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let module = match name.as_str() {
                "mod" | "lib" => of.to_vec(),
                _ => [of, &[name]].concat(),
            };
            into.insert(module, without_tests(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The source without what only tests see.
fn without_tests(source: &str) -> String {
    let mut code = String::new();
    let mut skipped = false;
    for line in source.lines() {
        if line == "#[cfg(test)]" {
            skipped = true;
        } else if skipped {
            // What it stands before ends with a line of its own, or is one line.
            skipped = !matches!(line, "}" | "];" | "});") && !line.ends_with(';');
            skipped |= line.starts_with(' ');
        } else {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

fn without_comments(source: &str) -> String {
    let lines = source.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The paths that begin with `crate::` or `super::`, groups written out.
fn paths(code: &str, module: &[String], is_root: bool) -> Vec<Module> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || before == ':' || before == '$' {
                continue;
            }
            let mut prefix = Module::new();
            let mut rest = &code[at..];
            if start == "super::" {
                prefix = module.to_vec();
                while let Some(further) = rest.strip_prefix("super::") {
                    prefix.pop();
                    rest = further;
                }
            } else {
                rest = &rest["crate::".len()..];
            }
            expand(rest, &prefix, &mut paths);
        }
    }
    if is_root {
        paths.clear();
    }
    paths
}

/// Adds what a path or a group of paths names, and returns what follows it.
fn expand<'a>(mut rest: &'a str, prefix: &[String], into: &mut Vec<Module>) -> &'a str {
    let mut path = prefix.to_vec();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            rest = group;
            loop {
                rest = rest.trim_start().trim_start_matches(',').trim_start();
                if let Some(after) = rest.strip_prefix('}') {
                    return after;
                }
                if rest.is_empty() {
                    return rest;
                }
                rest = expand(rest, &path, into);
                // Another name, by `as`.
                if let Some(end) = rest.find([',', '}']) {
                    rest = &rest[end..];
                }
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        if name != "self" {
            path.push(name.to_owned());
        }
        match after.strip_prefix("::") {
            Some(further) if !further.starts_with('<') => rest = further,
            _ => {
                into.push(path);
                return after;
            }
        }
    }
}

/// The circle that this place is in, if it is in one.
fn circle<T: Ord + Clone>(from: &T, imports: &BTreeMap<T, BTreeSet<T>>) -> Option<Vec<T>> {
    let mut ways = vec![vec![from.clone()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in imports.get(way.last()?).into_iter().flatten() {
            let longer = [&way[..], std::slice::from_ref(next)].concat();
            if next == from {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                ways.push(longer);
            }
        }
    }
    None
}

/// The sources of each crate, and how many imports and folders there are at least.
const CRATES: [(&str, usize, usize); 4] = [
    ("src", 100, 5),
    ("crates/api/src", 20, 1),
    ("crates/core/src", 200, 8),
    ("crates/kubectl/src", 100, 5),
];

/// Each file of a crate, without what only tests see.
fn files(sources: &str) -> BTreeMap<Module, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(sources);
    let mut all = BTreeMap::new();
    modules(&root, &[], &mut all);
    all
}

fn imports(sources: &str) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut all = files(sources);
    for source in all.values_mut() {
        *source = without_comments(source);
    }
    let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, code) in &all {
        imports.entry(module.clone()).or_default();
        for path in paths(code, module, module.is_empty()) {
            // The file that the path leads to: the longest part of it that is one.
            let found = (1..=path.len()).rev().map(|long| &path[..long]);
            let found = found
                .map(<[String]>::to_vec)
                .find(|it| all.contains_key(it));
            let found = found.filter(|it| it != module);
            imports.entry(module.clone()).or_default().extend(found);
        }
        // A folder's own file reaches its files by their names alone.
        for (child, _) in all
            .iter()
            .filter(|(it, _)| !module.is_empty() && it.len() == module.len() + 1)
        {
            let name = child.last().unwrap();
            let named = |(at, _): (usize, &str)| {
                let before = code[..at].chars().next_back().unwrap_or(' ');
                !before.is_alphanumeric() && before != '_' && before != ':'
            };
            if child.starts_with(module) && code.match_indices(&format!("{name}::")).any(named) {
                imports
                    .entry(module.clone())
                    .or_default()
                    .insert(child.clone());
            }
        }
    }
    imports
}

#[test]
fn no_file_imports_in_a_circle() {
    for (sources, least, _) in CRATES {
        let imports = imports(sources);
        let edges: usize = imports.values().map(BTreeSet::len).sum();
        assert!(
            edges > least,
            "only {edges} imports were found in {sources}"
        );
        for file in imports.keys() {
            let circle = circle(file, &imports);
            let circle = circle.map(|it| it.iter().map(|it| it.join("/")).collect::<Vec<_>>());
            assert_eq!(circle.map(|it| it.join(" -> ")), None, "in {sources}");
        }
    }
}

#[test]
fn no_folder_imports_in_a_circle() {
    for (sources, _, least) in CRATES {
        no_folder_of_a_crate_does(sources, least);
    }
}

fn no_folder_of_a_crate_does(sources: &str, least: usize) {
    // Of each folder: what is in it imports what is in it. Its own file counts as one of them.
    let mut within: BTreeMap<&[String], BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    let imports = imports(sources);
    for (file, others) in &imports {
        for other in others {
            let common = file.iter().zip(other).take_while(|(a, b)| a == b).count();
            let place = |of: &'_ Module| -> Option<usize> { (of.len() > common).then_some(common) };
            let a = place(file).map_or("mod", |at| file[at].as_str());
            let b = place(other).map_or("mod", |at| other[at].as_str());
            let folder = within.entry(&file[..common]).or_default();
            folder.entry(a).or_default().insert(b);
        }
    }
    let folders = within.len();
    assert!(
        folders >= least,
        "only {folders} folders were found in {sources}"
    );
    for (folder, imports) in within {
        for part in imports.keys() {
            let circle = circle(part, &imports).map(|it| it.join(" -> "));
            assert_eq!(circle, None, "in {sources}/{}", folder.join("/"));
        }
    }
}

/// Reads the table of floors in ARCHITECTURE.md: the floor of each file and folder of `crates/core/src`.
fn floors() -> BTreeMap<String, u32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let page = fs::read_to_string(path).unwrap();
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with("| Floor |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut floors = BTreeMap::new();
    for row in rows {
        let (floor, names) = row[1..].split_once('|').unwrap();
        let floor: u32 = floor.trim().parse().unwrap();
        floors.extend(
            names
                .split('`')
                .skip(1)
                .step_by(2)
                .map(|name| (name.to_owned(), floor)),
        );
    }
    floors
}

#[test]
fn the_core_imports_lower_floors_alone() {
    let floors = floors();
    let imports = imports("crates/core/src");
    let parts: BTreeSet<_> = imports
        .keys()
        .chain(imports.values().flatten())
        .filter_map(|file| file.first().cloned())
        .collect();
    let named: BTreeSet<_> = floors.keys().cloned().collect();
    assert_eq!(named, parts, "ARCHITECTURE.md, table of floors");
    for (file, others) in &imports {
        for other in others {
            let (Some(from), Some(to)) = (file.first(), other.first()) else {
                continue;
            };
            assert!(
                from == to || floors[to] < floors[from],
                "{} imports {}",
                file.join("/"),
                other.join("/")
            );
        }
    }
}

#[test]
fn no_file_has_more_than_600_lines_without_its_tests() {
    for (sources, _, folders) in CRATES {
        let files = files(sources);
        assert!(
            files.len() > folders,
            "only {} files were found in {sources}",
            files.len()
        );
        for (file, source) in files {
            let lines = source.lines().count();
            assert!(lines <= 600, "{sources}/{}: {lines}", file.join("/"));
        }
    }
}
