//! Faults between the operator and the API server: lost responses, refusals, slowness, absence.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use countersign_cluster::{Events, Fault, ProxiedRequest, wait_for};
use futures::StreamExt as _;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::time::sleep;

use crate::story::{
    Faults, Run, RunResult, Story, TIMEOUT, disturbed, plan, run_story, undisturbed,
};
use crate::{SIDE_BY_SIDE, is_thorough};

/// Runs stories concurrently, each with the kinds of fault that must happen in it, and fails with those
/// that did not end as expected. Returns the total number of each kind of fault.
pub async fn all_end_well<K: AsRef<str>, T: Future<Output = Result<RunResult, String>>>(
    runs: impl IntoIterator<Item = (String, Vec<K>, T)>,
) -> BTreeMap<String, usize> {
    let runs = runs
        .into_iter()
        .map(async |(name, kinds, run)| (name, kinds, run.await));
    let mut ended = futures::stream::iter(runs).buffer_unordered(SIDE_BY_SIDE);
    let (mut tried, mut failures, mut all) = (0, String::new(), BTreeMap::new());
    while let Some((name, kinds, result)) = ended.next().await {
        tried += 1;
        let result = match result {
            Ok(result) => result,
            Err(error) => {
                _ = writeln!(failures, "{name}: {error}\n");
                continue;
            }
        };
        eprintln!("{name}: as without, {:?}", result.faults);
        for kind in kinds.iter().map(AsRef::as_ref) {
            if !result.faults.contains_key(kind) {
                _ = writeln!(failures, "{name}: no {kind} has happened\n");
            }
        }
        for (kind, count) in result.faults {
            *all.entry(kind).or_default() += count;
        }
    }
    eprintln!("{tried} runs");
    assert!(tried > 0 && failures.is_empty(), "{failures}");
    all
}

#[tokio::test]
async fn law_5_an_answer_that_is_lost_is_no_write_that_is_lost() {
    let mut runs = Vec::new();
    for story in Story::ALL {
        let writes = undisturbed(story).await.writes.len();
        let every = if is_thorough() { 1 } else { 9 };
        for write in (0..writes).step_by(every) {
            let faults = Faults::of(move |request| match request.write {
                Some(number) if number == write => Fault::LoseAnswer,
                _ => Fault::Pass,
            });
            let run = async move {
                let result = run_story(story, faults).await?;
                // Not every run takes as many writes as the first.
                if result.writes.len() > write && !result.faults.contains_key("LoseAnswer") {
                    return Err("no answer was lost".to_owned());
                }
                Ok(result)
            };
            runs.push((format!("{story:?}, answer {write}"), NO_KIND, run));
        }
    }
    let faults = all_end_well(runs).await;
    assert!(faults["LoseAnswer"] >= Story::ALL.len(), "{faults:?}");
}

/// If the story defines its own faults.
pub const NO_KIND: Vec<&str> = vec![];

fn refused(status: u16, retry_after: Option<u32>) -> Fault {
    Fault::Answer {
        status,
        retry_after,
    }
}

fn is_lease(request: &ProxiedRequest) -> bool {
    request.resource == "leases"
}

/// The fault if the condition holds, else none.
pub fn when(holds: bool, fault: Fault) -> Fault {
    if holds { fault } else { Fault::Pass }
}

/// Each kind of refusal, with the fault and the refused requests.
fn refusals() -> Vec<(&'static str, &'static str, fn(&ProxiedRequest) -> Fault)> {
    vec![
        ("every second status conflicts", "Answer", |request| {
            let second = request.resource == "rollouts/status" && request.before % 2 == 1;
            when(second, refused(409, None))
        }),
        ("every first attempt is throttled", "Answer", |request| {
            let first = request.write.is_some() && request.before % 2 == 0;
            when(first, refused(429, Some(1)))
        }),
        ("every third request fails", "Answer", |request| {
            let third = !is_lease(request) && request.before % 3 == 2;
            when(third, refused(500, None))
        }),
        ("every third request is not served", "Answer", |request| {
            let third = !is_lease(request) && request.before % 3 == 1;
            when(third, refused(503, None))
        }),
        ("every list is expired once", "Answer", |request| {
            let list = request.name.is_empty() && request.write.is_none() && request.before == 0;
            when(list, refused(410, None))
        }),
        ("no Event is accepted", "Answer", |request| {
            when(request.resource == "events", refused(403, None))
        }),
        ("everything is slow", "Delay", |request| {
            let slow = !request.watch && request.before % 4 == 3;
            when(slow, Fault::Delay(Duration::from_secs(3)))
        }),
        ("every fifth request is lost", "Lose", |request| {
            when(request.before % 5 == 4, Fault::Lose)
        }),
    ]
}

#[tokio::test]
async fn refused_requests_are_made_again_until_they_are_granted() {
    let stories = if is_thorough() {
        &Story::ALL[..]
    } else {
        &Story::ALL[2..]
    };
    let runs = refusals()
        .into_iter()
        .enumerate()
        .flat_map(|(place, (name, kind, refuse))| {
            // A part of them alternates between the stories.
            let chosen = stories
                .iter()
                .enumerate()
                .filter(move |(n, _)| is_thorough() || n % 2 == place % 2);
            chosen.map(move |(_, story)| {
                (
                    format!("{story:?}, {name}"),
                    vec![kind],
                    run_story(*story, Faults::of(refuse)),
                )
            })
        });
    all_end_well(runs).await;
}

/// Faults of all kinds with equal probability per request, determined by the seed and the request alone.
pub fn by_seed(seed: u64, share: u64) -> impl Fn(&ProxiedRequest) -> Fault + Send + Sync + 'static {
    move |request| {
        let mut hasher = DefaultHasher::new();
        (
            seed,
            request.method.as_str(),
            &request.resource,
            request.before,
            request.watch,
        )
            .hash(&mut hasher);
        let roll = hasher.finish();
        if roll % 100 >= share {
            return Fault::Pass;
        }
        match (roll / 100) % 10 {
            _ if request.watch => match (roll / 1000) % 5 {
                0 => Fault::Events(Events::Close(2)),
                1 => Fault::Events(Events::Gone(1)),
                2 => Fault::Events(Events::Lag(Duration::from_secs(2))),
                3 => Fault::Events(Events::Replay),
                _ => Fault::Events(Events::Miss(3)),
            },
            0 => Fault::Lose,
            1 | 2 => Fault::LoseAnswer,
            3 => refused(409, None),
            4 => refused(429, Some(1)),
            5 => refused(500, None),
            6 => refused(503, None),
            7 => Fault::KillBefore,
            8 => Fault::KillAfter,
            _ => Fault::Delay(Duration::from_secs(1)),
        }
    }
}

/// `COUNTERSIGN_SEED` repeats a failed seed.
fn seeds() -> Vec<u64> {
    match std::env::var("COUNTERSIGN_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) if is_thorough() => (0..24).collect(),
        Err(_) => (0..4).collect(),
    }
}

#[tokio::test]
async fn any_mixture_of_faults_ends_as_without() {
    let runs = seeds().into_iter().map(|seed| {
        let story = Story::ALL[usize::try_from(seed).unwrap() % Story::ALL.len()];
        let faults = Faults {
            prometheus: plan(by_seed(seed, 15)),
            ..Faults::of(by_seed(seed, 15))
        };
        (
            format!("{story:?}, COUNTERSIGN_SEED={seed}"),
            vec!["LoseAnswer", "Answer"],
            run_story(story, faults),
        )
    });
    let faults = all_end_well(runs).await;
    let kinds = ["Lose", "Delay", "KillBefore", "KillAfter", "Lag", "Miss"];
    let missing: Vec<_> = kinds
        .iter()
        .filter(|kind| !faults.contains_key(**kind))
        .collect();
    // One seed alone need not have all.
    let is_one = std::env::var_os("COUNTERSIGN_SEED").is_some();
    assert!(is_one || missing.is_empty(), "no {missing:?} in {faults:?}");
}

/// All requests fail while the switch is on.
fn away(switch: &Arc<AtomicBool>) -> impl Fn(&ProxiedRequest) -> Fault + Send + Sync + 'static {
    let switch = switch.clone();
    move |_| when(switch.load(SeqCst), Fault::Lose)
}

/// Time after Prometheus fails in which a decision may still use its earlier data: the last windows, and
/// the lag.
const LAST_WORD: Duration = Duration::from_secs(6);

async fn absence(story: Story, time: Duration, of_prometheus: bool) -> Result<RunResult, String> {
    let switch = Arc::new(AtomicBool::new(false));
    let faults = if of_prometheus {
        Faults {
            prometheus: plan(away(&switch)),
            ..Faults::default()
        }
    } else {
        Faults::of(away(&switch))
    };
    let beside = async move |run: &Run| {
        let led = || run.replica.log().matches("\"leading\"").count();
        run.until_under_way().await;
        let before = led();
        switch.store(true, SeqCst);
        sleep(LAST_WORD).await;
        let step = run.step().await;
        sleep(time.saturating_sub(LAST_WORD)).await;
        // Law 6, as far as visible from outside the operator.
        assert_eq!(run.step().await.max(step), step, "nothing rose meanwhile");
        switch.store(false, SeqCst);
        if !of_prometheus {
            // Without its lease the operator has exited, and restarts.
            let leads = async || (led() > before).then_some(());
            wait_for("it leads again", Duration::from_secs(10), leads)
                .await
                .unwrap();
        }
    };
    disturbed(story, faults, beside).await
}

#[tokio::test]
async fn an_api_server_or_prometheus_that_is_away_is_waited_for() {
    let seconds = |n| Duration::from_secs(n);
    let long = if is_thorough() {
        seconds(60)
    } else {
        seconds(20)
    };
    let mut runs = Vec::new();
    for story in Story::ALL
        .into_iter()
        .skip(if is_thorough() { 0 } else { 2 })
    {
        runs.push((
            format!("{story:?}, API server away"),
            vec!["Lose"],
            absence(story, long, false),
        ));
        runs.push((
            format!("{story:?}, Prometheus away"),
            vec!["Lose"],
            absence(story, long, true),
        ));
    }
    all_end_well(runs).await;
}

/// Prometheus fails two in three of its first responses, in each of these ways.
#[tokio::test]
async fn a_prometheus_that_fails_for_a_while_is_queried_again() {
    let faults = [
        ("fails", "Answer", refused(500, None)),
        ("loses", "LoseAnswer", Fault::LoseAnswer),
        ("is slow", "Delay", Fault::Delay(Duration::from_secs(4))),
        ("hangs", "Hang", Fault::Hang),
    ];
    let runs = faults.into_iter().map(|(name, kind, fault)| {
        let decide = move |request: &ProxiedRequest| {
            if request.before.is_multiple_of(3) || request.before > 30 {
                Fault::Pass
            } else {
                fault.clone()
            }
        };
        let faults = Faults {
            prometheus: plan(decide),
            ..Faults::default()
        };
        (
            format!("Prometheus {name}"),
            vec![kind],
            run_story(Story::RolledBack, faults),
        )
    });
    all_end_well(runs).await;
}

/// A token that expires with a Secret, so that a test can revoke it.
async fn mortal_token(cluster: &countersign_cluster::Cluster, name: &str) -> String {
    const NAMESPACE: &str = "countersign-system";
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), NAMESPACE);
    let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    let secret = secrets
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    let request: TokenRequest = serde_json::from_value(json!({ "spec": {
        "audiences": [], "boundObjectRef": { "apiVersion": "v1", "kind": "Secret", "name": name, "uid": secret.metadata.uid },
    } }))
    .unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), NAMESPACE);
    let parameters = PostParams::default();
    let token = accounts.create_token_request("countersign", &parameters, &request);
    token.await.unwrap().status.unwrap().token.unwrap()
}

#[tokio::test]
async fn an_expired_token_is_replaced_by_the_one_in_its_file() {
    let result = disturbed(Story::RolledBack, Faults::default(), async |run: &Run| {
        let (cluster, replica) = (&run.cluster, &run.replica);
        let fresh = std::fs::read(replica.token()).unwrap();
        let mortal = mortal_token(cluster, &run.namespace).await;
        std::fs::write(replica.token(), mortal).unwrap();
        replica.kill();
        wait_for("it is back", TIMEOUT, async || {
            (replica.starts() > 1).then_some(())
        })
        .await
        .unwrap();
        wait_for("it leads", TIMEOUT, async || {
            replica.log().matches("leading").nth(1).map(drop)
        })
        .await
        .unwrap();
        let secrets: Api<Secret> = Api::namespaced(cluster.client(), "countersign-system");
        secrets
            .delete(&run.namespace, &DeleteParams::default())
            .await
            .unwrap();
        wait_for("its token is refused", TIMEOUT, async || {
            replica.log().contains("Unauthorized").then_some(())
        })
        .await
        .unwrap();
        std::fs::write(replica.token(), fresh).unwrap();
    })
    .await;
    result.unwrap();
}
