//! The parsers of foreign text on the kept corpus of `tests/fuzz`, and on a bounded number of its
//! mutations: what `make fuzz` has found once stays fixed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "fuzz/src/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use targets::{TARGETS, Target};

/// Mutations of each target with each run of the tests.
const MUTATIONS: u64 = 400;
/// No input takes longer, and here the code is not optimised.
const LONGEST: Duration = Duration::from_secs(5);

/// What is likely to be taken for something else.
const ODD: [&str; 28] = [
    "",
    "-1",
    "0",
    "1e308",
    "-9223372036854775808",
    "9223372036854775807",
    "18446744073709551616",
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    "\"",
    "'",
    "`",
    "\\",
    "\n",
    "\n%%\n",
    "{{",
    "}}",
    "\u{0}",
    "\u{1b}[31m",
    "\u{202e}",
    "é",
    "😀",
    "%",
    "*",
    "&a ",
];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn names(path: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory().join(path)).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        path.file_stem().unwrap().to_str().unwrap().to_owned()
    };
    entries.map(name).collect()
}

/// The inputs of a target with their names, in order.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = directory().join("corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs a target on the stack that the operator's threads have: that of a test's thread.
fn holds((target, hold): Target, name: &str, input: &[u8]) {
    // A stack that overflows reports nothing else.
    println!("{target}, {name}");
    let begun = Instant::now();
    let ended = std::panic::catch_unwind(|| hold(input));
    let took = begun.elapsed();
    assert!(
        ended.is_ok() && took < LONGEST,
        "{target}, {name}, {took:?}: {:?}",
        String::from_utf8_lossy(input)
    );
}

#[test]
fn each_parser_has_a_target_a_binary_and_a_corpus() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets);
    let manifest = std::fs::read_to_string(directory().join("Cargo.toml")).unwrap();
    for target in &targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")));
        assert!(!corpus(target).is_empty(), "{target} has inputs");
    }
}

#[test]
fn no_kept_input_makes_a_parser_panic_or_tarry() {
    for target in TARGETS {
        for (name, input) in corpus(target.0) {
            holds(target, &name, &input);
        }
    }
}

#[test]
fn no_mutation_of_a_kept_input_makes_a_parser_panic_or_tarry() {
    for target in TARGETS {
        let corpus = corpus(target.0);
        for seed in 0..MUTATIONS {
            let input = mutated(&corpus, &mut StdRng::seed_from_u64(seed));
            holds(target, &format!("mutation {seed}"), &input);
        }
    }
}

/// One of the inputs with a few places that are replaced by something odd, by a part of another input,
/// or by another byte.
fn mutated(corpus: &[(String, Vec<u8>)], random: &mut StdRng) -> Vec<u8> {
    let any = |random: &mut StdRng| corpus[random.random_range(0..corpus.len())].1.clone();
    let mut input = any(random);
    for _ in 0..random.random_range(1..6) {
        let range = range(input.len(), random);
        let put = match random.random_range(0..3) {
            0 => ODD[random.random_range(0..ODD.len())].as_bytes().to_vec(),
            1 => {
                let other = any(random);
                let part = self::range(other.len(), random);
                other[part].to_vec()
            }
            _ => vec![random.random()],
        };
        input.splice(range, put);
    }
    input
}

fn range(length: usize, random: &mut StdRng) -> std::ops::Range<usize> {
    let start = random.random_range(0..=length);
    start..(start + random.random_range(0..24)).min(length)
}
