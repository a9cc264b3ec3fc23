//! The site of `docs/`: each page is in its summary, and every link leads to a file and a heading, in the repository as
//! well as in the site, where `docs/build.sh` puts files at the same paths.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

const SUMMARY: &str = "docs/SUMMARY.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn is_page(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|it| it == "md")
}

/// The Markdown files of a folder, and of the folders in it unless it is the repository itself.
fn pages_in(folder: &str, pages: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = Path::new(folder).join(entry.file_name());
        let path = path.to_str().unwrap().to_owned();
        if is_page(&path) {
            pages.insert(path);
        } else if entry.file_type().unwrap().is_dir() && !folder.is_empty() {
            pages_in(&path, pages);
        }
    }
}

/// Every page for people.
fn pages() -> BTreeSet<String> {
    let mut pages = BTreeSet::new();
    for folder in ["", "docs", "examples", "charts", ".github"] {
        pages_in(folder, &mut pages);
    }
    pages
}

/// The pages of the site: those of the summary, and the decisions, which the build adds to it.
fn pages_of_site() -> BTreeSet<String> {
    let mut pages: BTreeSet<_> = links(SUMMARY).into_iter().map(|it| it.path).collect();
    pages_in("docs/decisions", &mut pages);
    pages
}

/// The text without blocks of code.
fn without_blocks(text: &str) -> String {
    let mut kept = String::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// A link within the repository: the path from its root, and the heading if it names one.
struct Link {
    path: String,
    heading: Option<String>,
}

fn links(page: &str) -> Vec<Link> {
    let text = without_blocks(&read(page));
    let prose: String = text.split('`').step_by(2).collect();
    let targets = prose.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split([')', ' ']).next());
    let within = targets.filter(|it| !it.contains("://") && !it.starts_with("mailto:"));
    within.map(|target| link(page, target)).collect()
}

fn link(page: &str, target: &str) -> Link {
    let (path, heading) = match target.split_once('#') {
        Some((path, heading)) => (path, Some(heading.to_owned())),
        None => (target, None),
    };
    let folder = Path::new(page).parent().unwrap();
    let mut to = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => assert!(to.pop(), "{page}: {target} is above the repository"),
            Component::CurDir => {}
            part => to.push(part),
        }
    }
    let path = if path.is_empty() {
        page.to_owned()
    } else {
        to.to_str().unwrap().to_owned()
    };
    Link { path, heading }
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let text = without_blocks(&read(page));
    let headings = text.lines().filter_map(|line| {
        let heading = line.trim_start_matches('#');
        let is_one = heading.len() < line.len() && heading.starts_with(' ');
        is_one.then(|| heading.trim())
    });
    let anchors = headings.map(|heading| {
        let letters = heading.to_lowercase().replace(' ', "-");
        let anchor = letters
            .chars()
            .filter(|it| it.is_alphanumeric() || "-_".contains(*it));
        let anchor: String = anchor.collect();
        let before = seen.entry(anchor.clone()).or_default();
        *before += 1;
        match *before - 1 {
            0 => anchor,
            others => format!("{anchor}-{others}"),
        }
    });
    anchors.collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut found = 0;
    let mut broken = Vec::new();
    for page in pages() {
        for Link { path, heading } in links(&page) {
            found += 1;
            if !root().join(&path).exists() {
                broken.push(format!("{page}: there is no {path}"));
            } else if let Some(heading) = heading.filter(|_| is_page(&path))
                && !anchors(&path).contains(&heading)
            {
                broken.push(format!("{page}: {path} has no heading #{heading}"));
            }
        }
    }
    assert!(found > 250, "only {found} links were found");
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A section may move to another page, and the link to it still show the name of the first.
#[test]
fn a_link_that_shows_the_name_of_a_page_leads_there() {
    let mut found = 0;
    for page in pages() {
        let text = without_blocks(&read(&page));
        let prose: String = text.split('`').step_by(2).collect();
        let parts: Vec<_> = prose.split("](").collect();
        for link in parts.windows(2) {
            let shown = link[0].rsplit('[').next().unwrap();
            if is_page(shown) {
                let target = link[1].split([')', '#', ' ']).next().unwrap();
                let [shown, target] = [shown, target].map(|it| Path::new(it).file_name());
                assert_eq!(shown, target, "{page}");
                found += 1;
            }
        }
    }
    assert!(found > 50, "only {found} were found");
}

#[test]
fn every_page_of_docs_is_in_the_summary_once() {
    let listed: Vec<_> = links(SUMMARY).into_iter().map(|it| it.path).collect();
    let pages = pages_of_site();
    let once: BTreeSet<_> = listed.iter().collect();
    assert_eq!(
        once.len(),
        listed.len(),
        "a page is named twice: {listed:?}"
    );
    let mut all = BTreeSet::new();
    pages_in("docs", &mut all);
    all.remove(SUMMARY);
    let missing: Vec<_> = all.difference(&pages).collect();
    assert!(missing.is_empty(), "{SUMMARY} lacks {missing:?}");
}

#[test]
fn every_link_of_the_site_stays_in_it() {
    let script = read("docs/build.sh");
    let (_, files) = script.split_once("\nfiles=(").unwrap();
    let (files, _) = files.split_once(')').unwrap();
    let files: Vec<_> = files.split_whitespace().collect();
    let is_copied = |path: &str| files.iter().any(|it| Path::new(path).starts_with(it));
    let pages = pages_of_site();
    let mut outside = Vec::new();
    for page in &pages {
        assert!(is_copied(page), "docs/build.sh does not copy {page}");
        for Link { path, .. } in links(page) {
            // A folder has no page in the site.
            let is_file = is_copied(&path) && root().join(&path).is_file();
            let is_there = if is_page(&path) {
                pages.contains(&path)
            } else {
                is_file
            };
            if !is_there {
                outside.push(format!("{page}: {path}"));
            }
        }
    }
    assert!(outside.is_empty(), "not in the site: {outside:#?}");
}
