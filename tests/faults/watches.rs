//! Watches that stall, close, lag, go back in time or miss events: no decision uses a cache older than
//! the operator's last write, and nothing that has happened is waited for.

use std::time::Duration;

use countersign_cluster::{Events, Fault};

use crate::is_thorough;
use crate::requests::{all_end_well, when};
use crate::story::{Faults, Story, run_story};

#[tokio::test]
async fn law_5_false_watch_events_change_nothing() {
    let faults = [
        Events::Stall(2),
        Events::Close(1),
        Events::Gone(1),
        Events::Lag(Duration::from_secs(5)),
        Events::Replay,
        Events::Miss(2),
    ];
    let stories = if is_thorough() {
        &Story::ALL[..]
    } else {
        &Story::ALL[3..]
    };
    let runs = faults.iter().flat_map(|events| {
        stories.iter().map(move |story| {
            let name = format!("{story:?}, {events:?}");
            let happens = format!("{events:?}");
            let happens = happens.split('(').next().unwrap().to_owned();
            let events = events.clone();
            // A Rollout at rest has no timer, so nothing would tell of an edit whose event is missed.
            let spared = matches!(events, Events::Miss(_)).then_some("rollouts");
            let faults = Faults::of(move |request| {
                let is_hit = request.watch && spared != Some(request.resource.as_str());
                when(is_hit, Fault::Events(events.clone()))
            });
            (name, vec![happens], run_story(*story, faults))
        })
    });
    all_end_well(runs).await;
}

/// One kind at a time is never reported.
#[tokio::test]
async fn one_watch_that_is_refused_for_ever_stalls_no_other() {
    let kinds = [
        "replicasets",
        "httproutes",
        "analysistemplates",
        "signoffs",
        "interventions",
        "freezes",
        "jobs",
        "rolloutruns",
    ];
    let count = if is_thorough() { kinds.len() } else { 3 };
    let runs = kinds.into_iter().take(count).map(|kind| {
        let refuse = Fault::Answer {
            status: 403,
            retry_after: None,
        };
        let faults = Faults::of(move |request| {
            let watched =
                request.name.is_empty() && request.resource == kind && request.write.is_none();
            // Live reads of a namespace are lists too; the first and the watches are the watcher's.
            when(
                watched && (request.watch || request.before == 0),
                refuse.clone(),
            )
        });
        let name = format!("{kind} refused");
        (name, vec!["Answer"], run_story(Story::Routed, faults))
    });
    all_end_well(runs).await;
}
