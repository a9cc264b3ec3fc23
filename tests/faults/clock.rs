//! The operator's clock jumps during a rollout.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use countersign_cluster::wait_for;
use tokio::time::sleep;

use crate::requests::{NO_KIND, all_end_well};
use crate::story::{Faults, Run, RunResult, Story, TIMEOUT, cluster, disturbed};

const HOUR: i64 = 3600;
/// Duration of the wrong clock.
const JUMPED: Duration = Duration::from_secs(20);

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

async fn jump(
    story: Story,
    library: PathBuf,
    name: String,
    seconds: i64,
) -> Result<RunResult, String> {
    let offset = library.with_file_name(format!("{name}.offset"));
    // The offset, and how often a moved clock was read; written in place, since it is mapped.
    fs::write(&offset, [0; 16]).unwrap();
    let environment = vec![
        ("LD_PRELOAD".to_owned(), library.display().to_string()),
        ("CLOCK_OFFSET".to_owned(), offset.display().to_string()),
    ];
    let faults = Faults {
        environment,
        ..Faults::default()
    };
    let beside = async move |run: &Run| {
        let file = fs::File::options().write(true).open(&offset).unwrap();
        let set = |seconds: i64| file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
        run.until_under_way().await;
        set(seconds);
        wait_for("the moved clock is read", TIMEOUT, async || {
            let read = fs::read(&offset).unwrap();
            read[8..].iter().any(|byte| *byte != 0).then_some(())
        })
        .await
        .unwrap();
        sleep(JUMPED).await;
        set(0);
    };
    disturbed(story, faults, beside).await
}

#[tokio::test]
async fn a_clock_that_jumps_by_an_hour_changes_no_outcome() {
    let library = library().await;
    let mut runs = Vec::new();
    for story in [Story::Promoted, Story::RolledBack, Story::Routed] {
        for (way, seconds) in [("forward", HOUR), ("back", -HOUR)] {
            let name = format!("{story:?}-{way}");
            runs.push((
                name.clone(),
                NO_KIND,
                jump(story, library.clone(), name, seconds),
            ));
        }
    }
    all_end_well(runs).await;
}
