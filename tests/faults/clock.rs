//! The clock of the operator's machine jumps, in the middle of a rollout.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::time::sleep;

use crate::requests::all_end_well;
use crate::story::{Faults, Story, Telling, Told, cluster, disturbed};

const HOUR: i64 = 3600;

/// The library that moves a clock.
async fn library() -> PathBuf {
    let library = cluster().await.dir().join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source);
    assert!(
        compiler.status().unwrap().success(),
        "{source} does not compile"
    );
    library
}

async fn jump(story: Story, library: PathBuf, name: String, seconds: i64) -> Result<Told, String> {
    let offset = library.with_file_name(format!("{name}.offset"));
    fs::write(&offset, 0_i64.to_ne_bytes()).unwrap();
    let environment = vec![
        ("LD_PRELOAD".to_owned(), library.display().to_string()),
        ("CLOCK_OFFSET".to_owned(), offset.display().to_string()),
    ];
    let faults = Faults {
        environment,
        ..Faults::default()
    };
    let beside = async move |_: &Telling| {
        sleep(Duration::from_secs(4)).await;
        fs::write(&offset, seconds.to_ne_bytes()).unwrap();
        sleep(Duration::from_secs(20)).await;
        fs::write(&offset, 0_i64.to_ne_bytes()).unwrap();
    };
    disturbed(story, faults, beside).await
}

#[tokio::test]
async fn a_clock_that_jumps_by_an_hour_changes_no_outcome() {
    let library = library().await;
    let mut tellings = Vec::new();
    for story in [Story::Promoted, Story::RolledBack, Story::Routed] {
        for (way, seconds) in [("forward", HOUR), ("back", -HOUR)] {
            let name = format!("{story:?}-{way}");
            tellings.push((name.clone(), jump(story, library.clone(), name, seconds)));
        }
    }
    all_end_well(tellings).await;
}
