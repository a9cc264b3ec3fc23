//! The generated pages and pictures of `docs/`: `make generate` writes them, and this test compares them with the
//! definitions, the command lines, the source and the recorded demo.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod api;
mod cli;
mod markdown;
mod metrics;
mod reasons;
mod recording;
mod source;

use std::fs;
use std::path::Path;

use source::{read, root};

/// Each generated file with its text.
fn generated() -> [(&'static str, String); 5] {
    let demo = read("docs/figures/demo.txt");
    [
        ("docs/reference/api.md", api::page()),
        ("docs/reference/cli.md", cli::page()),
        ("docs/reference/reasons.md", reasons::page()),
        ("docs/reference/metrics.md", metrics::page()),
        ("docs/figures/rollback.svg", recording::picture(&demo)),
    ]
}

#[test]
fn the_committed_documents_are_the_generated_ones() {
    let writes = std::env::var("COUNTERSIGN_GENERATE").is_ok_and(|it| it == "write");
    for (path, text) in generated() {
        let file = root().join(path);
        if writes {
            fs::create_dir_all(file.parent().unwrap_or(Path::new("."))).unwrap();
            fs::write(&file, &text).unwrap();
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == text,
            "{path} is not what the program generates: run `make generate`"
        );
    }
}
