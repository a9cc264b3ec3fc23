//! Two operators that both believe that they lead, and one that loses its lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use countersign_cluster::{Fault, Replica, wait_for};

use crate::is_thorough;
use crate::requests::{NO_KIND, all_end_well, when};
use crate::story::{Faults, Run, RunResult, Story, TIMEOUT, disturbed, replica};

/// Another operator of the same Rollouts, whose lease is in this namespace.
async fn another(run: &Run, lease_namespace: &str) -> Replica {
    let (cluster, namespace) = (&run.cluster, &run.namespace);
    let faults = Faults::default();
    replica(cluster, namespace, "second", lease_namespace, faults).await
}

/// Waits until an operator leads.
async fn leads(replica: &Replica) {
    let poll = async || replica.log().contains("\"leading\"").then_some(());
    wait_for("it leads", TIMEOUT, poll).await.unwrap();
}

/// Asserts that an operator has written a decision, or has tried to.
fn decided(replica: &Replica) {
    let writes = replica.api_server.writes();
    let decided = writes.iter().any(|it| it.resource == "rollouts/status");
    assert!(decided, "{writes:?}\n{}", replica.log());
}

/// Each holds a lease of its own.
async fn two_lead(story: Story) -> Result<RunResult, String> {
    disturbed(story, Faults::default(), async |run: &Run| {
        let elsewhere = run.cluster.namespace("lease").await.unwrap();
        let second = another(run, &elsewhere).await;
        leads(&second).await;
        assert!(run.is_under_way().await, "both lead while it continues");
        run.until_ended().await.unwrap();
        assert_eq!(run.replica.starts(), 1, "the first has led all along");
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
async fn until_ended(run: &Run) {
    let replica = &run.replica;
    let ended = async || (replica.starts() > 1).then_some(());
    let timeout = Duration::from_secs(30);
    wait_for("it has ended without its lease", timeout, ended)
        .await
        .unwrap();
    assert!(
        replica.log().contains("lease was lost"),
        "the log has the reason"
    );
    assert_eq!(replica.good_ends(), 0, "its exit code shows it");
}

/// The leader is stopped for longer than its lease, and wakes when another leads.
async fn sleeper(story: Story) -> Result<RunResult, String> {
    disturbed(story, Faults::default(), async |run: &Run| {
        let second = another(run, &run.namespace).await;
        run.until_under_way().await;
        run.replica.freeze();
        leads(&second).await;
        let written = || {
            let writes = run.replica.api_server.writes().into_iter();
            // By then the next process has requested its own identity.
            let writes = writes.filter(|it| it.resource != "selfsubjectreviews");
            writes.collect::<Vec<_>>()
        };
        let before = written();
        run.replica.thaw();
        until_ended(run).await;
        assert_eq!(written(), before);
        run.until_ended().await.unwrap();
        decided(&second);
    })
    .await
}

/// Its lease is refused until it has exited.
async fn without_lease(story: Story) -> Result<RunResult, String> {
    let refused = Arc::new(AtomicBool::new(false));
    let switch = refused.clone();
    let faults = Faults::of(move |request| {
        let lease = request.resource == "leases" && switch.load(SeqCst);
        when(
            lease,
            Fault::Answer {
                status: 403,
                retry_after: None,
            },
        )
    });
    disturbed(story, faults, async |run: &Run| {
        run.until_under_way().await;
        refused.store(true, SeqCst);
        until_ended(run).await;
        refused.store(false, SeqCst);
    })
    .await
}

#[tokio::test]
async fn law_5_who_lost_its_lease_writes_nothing_and_another_goes_on() {
    let mut runs: Vec<(
        String,
        Vec<&str>,
        std::pin::Pin<Box<dyn Future<Output = Result<RunResult, String>>>>,
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
