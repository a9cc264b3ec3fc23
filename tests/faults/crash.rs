//! Law 5: the operator is killed before or after each write that a rollout takes, one at a time.

use countersign_cluster::Fault;
use futures::StreamExt as _;

use crate::requests::when;
use crate::story::{Faults, Story, run_story, undisturbed};
use crate::{SIDE_BY_SIDE, is_thorough};

async fn law_5_dies_at(story: Story) {
    let writes = undisturbed(story).await.writes.len();
    let every = if is_thorough() { 1 } else { 7 };
    // Each is a crash before or after the write of that number.
    let points: Vec<_> = (0..2 * writes).step_by(every).collect();
    let tried = points.len();
    let runs = points.into_iter().map(async |point| {
        let fault = [Fault::KillBefore, Fault::KillAfter][point % 2].clone();
        let (write, deadly) = (point / 2, fault.clone());
        let faults = Faults::of(move |request| when(request.write == Some(write), deadly.clone()));
        let result = run_story(story, faults).await;
        let result = result.map_err(|error| format!("{fault:?} {write}: {error}"))?;
        // Not every run takes as many writes as the first.
        if result.starts == 1 && result.writes.len() > write {
            return Err(format!("{fault:?} {write}: it did not die"));
        }
        Ok::<_, String>(result.starts - 1)
    });
    let ended: Vec<_> = futures::stream::iter(runs)
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    let (deaths, failures): (Vec<_>, Vec<_>) = ended.into_iter().partition(Result::is_ok);
    let failures: Vec<_> = failures.into_iter().filter_map(Result::err).collect();
    let deaths: usize = deaths.into_iter().flatten().sum();
    eprintln!(
        "{story:?}: {deaths} deaths at {writes} writes, {} failed",
        failures.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(
        deaths * 10 >= tried * 8,
        "it died in {deaths} of {tried} runs"
    );
}

#[tokio::test]
async fn law_5_a_good_change_is_promoted_whenever_the_operator_dies() {
    law_5_dies_at(Story::Promoted).await;
}

#[tokio::test]
async fn law_5_a_bad_change_is_rolled_back_whenever_the_operator_dies() {
    law_5_dies_at(Story::RolledBack).await;
}

#[tokio::test]
async fn law_5_a_signed_change_is_promoted_whenever_the_operator_dies() {
    law_5_dies_at(Story::Signed).await;
}

#[tokio::test]
async fn law_5_a_bad_change_behind_a_route_is_rolled_back_whenever_the_operator_dies() {
    law_5_dies_at(Story::Routed).await;
}
