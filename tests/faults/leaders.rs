//! Two operators that both believe that they lead, and one that loses its lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use countersign_cluster::{Fault, Replica, wait_for};

use crate::is_thorough;
use crate::requests::{NO_KIND, all_end_well, when};
use crate::story::{Faults, Run, Story, TIMEOUT, Told, disturbed, replica};

/// Another operator of the same Rollouts, whose lease is in this namespace.
async fn another(telling: &Run, lease_namespace: &str) -> Replica {
    let (cluster, namespace) = (&telling.cluster, &telling.namespace);
    let faults = Faults::default();
    replica(cluster, namespace, "second", lease_namespace, faults).await
}

/// Waits until an operator leads.
async fn leads(replica: &Replica) {
    let look = async || replica.log().contains("\"leading\"").then_some(());
    wait_for("it leads", TIMEOUT, look).await.unwrap();
}

/// Asserts that an operator has written a decision, or has tried to.
fn decided(replica: &Replica) {
    let writes = replica.api_server.writes();
    let decided = writes.iter().any(|it| it.resource == "rollouts/status");
    assert!(decided, "{writes:?}\n{}", replica.log());
}

/// Each holds a lease of its own.
async fn two_lead(story: Story) -> Result<Told, String> {
    disturbed(story, Faults::default(), async |telling: &Run| {
        let elsewhere = telling.cluster.namespace("lease").await.unwrap();
        let second = another(telling, &elsewhere).await;
        leads(&second).await;
        assert!(telling.is_under_way().await, "both lead while it goes on");
        telling.until_ended().await.unwrap();
        assert_eq!(telling.replica.starts(), 1, "the first has led all along");
        decided(&second);
    })
    .await
}

#[tokio::test]
async fn law_5_two_that_both_lead_decide_once() {
    let stories = if is_thorough() {
        &Story::ALL[..]
    } else {
        &Story::ALL[2..]
    };
    all_end_well(
        stories
            .iter()
            .map(|story| (format!("{story:?}, two lead"), NO_KIND, two_lead(*story))),
    )
    .await;
}

/// Waits until the operator has exited with an error message, to be restarted.
async fn until_ended(telling: &Run) {
    let replica = &telling.replica;
    let ended = async || (replica.starts() > 1).then_some(());
    let patience = Duration::from_secs(30);
    wait_for("it has ended without its lease", patience, ended)
        .await
        .unwrap();
    assert!(replica.log().contains("lease was lost"), "it says why");
    assert_eq!(replica.good_ends(), 0, "whoever starts it knows");
}

/// The leader is stopped for longer than its lease, and wakes when another leads.
async fn sleeper(story: Story) -> Result<Told, String> {
    disturbed(story, Faults::default(), async |telling: &Run| {
        let second = another(telling, &telling.namespace).await;
        telling.until_under_way().await;
        telling.replica.freeze();
        leads(&second).await;
        let written = || {
            let asked = telling.replica.api_server.writes().into_iter();
            // By then the next process has requested its own identity.
            let writes = asked.filter(|it| it.resource != "selfsubjectreviews");
            writes.collect::<Vec<_>>()
        };
        let before = written();
        telling.replica.thaw();
        until_ended(telling).await;
        assert_eq!(written(), before);
        telling.until_ended().await.unwrap();
        decided(&second);
    })
    .await
}

/// Its lease is refused until it has exited.
async fn without_lease(story: Story) -> Result<Told, String> {
    let refused = Arc::new(AtomicBool::new(false));
    let switch = refused.clone();
    let faults = Faults::of(move |asked| {
        let lease = asked.resource == "leases" && switch.load(SeqCst);
        when(
            lease,
            Fault::Answer {
                status: 403,
                retry_after: None,
            },
        )
    });
    disturbed(story, faults, async |telling: &Run| {
        telling.until_under_way().await;
        refused.store(true, SeqCst);
        until_ended(telling).await;
        refused.store(false, SeqCst);
    })
    .await
}

#[tokio::test]
async fn law_5_who_lost_its_lease_writes_nothing_and_another_goes_on() {
    let mut runs: Vec<(
        String,
        Vec<&str>,
        std::pin::Pin<Box<dyn Future<Output = Result<Told, String>>>>,
    )> = Vec::new();
    for story in [Story::Promoted, Story::Routed] {
        let stopped = format!("{story:?}, stopped");
        runs.push((stopped, NO_KIND, Box::pin(sleeper(story))));
        runs.push((
            format!("{story:?}, refused"),
            vec!["Answer"],
            Box::pin(without_lease(story)),
        ));
    }
    all_end_well(runs).await;
}
