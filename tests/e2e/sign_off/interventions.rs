//! Interventions by people during a change: abort, retry, promote, pause, broken glass.

use super::*;

#[tokio::test]
async fn break_glass_skips_waiting_but_not_analysis() {
    let mut policy = requiring(2, &a_senior());
    policy["tiers"]["high"]["minBake"] = json!("10m");
    let mut checkpoint = Checkpoint::new("glass", policy).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 200).await;
    let glass = json!({ "decision": "BreakGlass", "reason": "incident 42" });

    let fix = checkpoint.risky("v2");
    checkpoint.deploy(&fix).await;
    checkpoint.waits("AwaitingSignOff").await;
    let broken = checkpoint.sign(&checkpoint.dave, glass.clone()).await;
    checkpoint.answered(&broken.unwrap(), "Counts").await;
    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::Promoted));
    let message = "waiting and sign-off are skipped, analysis is not, by dave: incident 42";
    assert_eq!(line(&run, "BreakGlass").message, message);
    let events = checkpoint.scene.events(&fix, "BreakGlass").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].contains("by dave: incident 42"), "{events:?}");

    let bad = checkpoint.risky("v3").failing(0.4);
    checkpoint.deploy(&bad).await;
    let broken = checkpoint.sign(&checkpoint.dave, glass).await;
    checkpoint.answered(&broken.unwrap(), "Counts").await;
    checkpoint.until_degraded().await;
    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::RolledBack));
    line(&run, "BreakGlass");
    line(&run, "AnalysisFailed");
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn an_edit_user_may_abort_and_the_canary_is_gone() {
    let mut checkpoint = Checkpoint::new("abort", json!({})).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    checkpoint.waits("Baking").await;
    let words = json!({ "action": "Abort", "reason": "wrong branch" });
    let abort = checkpoint.intervene(&checkpoint.alice, words).await;
    checkpoint.answered(&abort.unwrap(), "Applied").await;
    checkpoint.until_degraded().await;

    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::RolledBack));
    let message = &line(&run, "Aborted").message;
    assert_eq!(message, "aborted by alice: wrong branch");
    let scene = &checkpoint.scene;
    scene.event_once(&next, "Aborted").await;
    assert_eq!(scene.pods(&run.spec.pod_template_hash).await, 0);
    scene.remove_policy().await;
}

#[tokio::test]
async fn a_rolled_back_change_is_retried_only_by_a_person() {
    let mut checkpoint = Checkpoint::new("retry", json!({})).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 200).await;
    let bad = checkpoint.app.version("v2").failing(0.4);
    checkpoint.deploy(&bad).await;
    checkpoint.until_degraded().await;

    // The controller has reconciled the Rollout again, and has kept the change where it is.
    let larger = App { replicas: 5, ..bad };
    checkpoint.apply(&larger).await;
    let what = "stable has another pod";
    let scaled = |rollout: &Rollout| {
        let status = rollout.status.as_ref();
        status.is_some_and(|status| status.available_replicas == 5)
    };
    let rollout = checkpoint.scene.until(&larger, what, scaled).await;
    assert_eq!(phase(&rollout), Phase::Degraded);
    assert_eq!(checkpoint.scene.records(&larger).await.len(), 2);

    let words = json!({ "action": "Retry", "reason": "the database is back" });
    let retry = checkpoint.intervene(&checkpoint.alice, words).await;
    checkpoint.answered(&retry.unwrap(), "Applied").await;
    let poll = async || {
        let runs = checkpoint.scene.records(&larger).await;
        if runs.len() == 3 {
            Ok(())
        } else {
            Err(format!("{} records", runs.len()))
        }
    };
    wait_for("it is tried once more", TIMEOUT, poll)
        .await
        .unwrap();
    let second = checkpoint.outcome().await;
    assert!(ended(&second, Outcome::RolledBack), "it is judged again");
    let runs = checkpoint.scene.records(&larger).await;
    let message = &line(&runs[1], "Retried").message;
    assert_eq!(message, "retried by alice: the database is back");
    assert_eq!(runs[1].spec.digest, second.spec.digest);
    assert_ne!(runs[1].metadata.name, second.metadata.name);
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn promote_skips_the_rest_of_a_bake_with_the_verb_alone() {
    let mut checkpoint = Checkpoint::new("promote", json!({})).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 150).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    checkpoint.waits("Baking").await;
    let promote = json!({ "action": "Promote", "step": 1 });
    let refused = checkpoint
        .intervene(&checkpoint.alice, promote.clone())
        .await;
    assert_refused(&refused, &["403", "\"alice\" may not promote Rollout"]);
    assert_eq!(checkpoint.step().await, "1/2");

    let skipped = checkpoint.intervene(&checkpoint.dave, promote).await;
    checkpoint.answered(&skipped.unwrap(), "Applied").await;
    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::Promoted));
    let message = &line(&run, "BakeSkipped").message;
    assert_eq!(message, "the rest of the bake is skipped by dave");
    checkpoint.scene.remove_policy().await;
}

/// Finding F14: what one person may write is not used up by another.
#[tokio::test]
async fn a_flood_of_pauses_by_one_person_leaves_room_for_another() {
    let mut checkpoint = Checkpoint::new("pauses", json!({})).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    checkpoint.waits("Baking").await;
    for _ in 0..25 {
        for action in ["Pause", "Resume"] {
            let words = json!({ "action": action });
            let command = checkpoint.intervene(&checkpoint.alice, words).await;
            checkpoint.answered(&command.unwrap(), "Applied").await;
        }
    }
    let pause = json!({ "action": "Pause", "reason": "an incident" });
    let pause = checkpoint.intervene(&checkpoint.dave, pause).await;
    checkpoint.answered(&pause.unwrap(), "Applied").await;
    let message = checkpoint.waits("Paused").await;
    assert!(message.contains("paused by dave"), "{message}");
    let abort = json!({ "action": "Abort" });
    let abort = checkpoint.intervene(&checkpoint.dave, abort).await;
    checkpoint.answered(&abort.unwrap(), "Applied").await;
    checkpoint.until_degraded().await;
    let run = checkpoint.outcome().await;
    let lines = run.spec.progress.transitions.iter();
    let lines: Vec<_> = lines.map(|line| line.message.as_str()).collect();
    let by_alice = |it: &&&str| it.ends_with("ed by alice") && !it.starts_with("tier");
    assert_eq!(lines.iter().filter(by_alice).count(), 10, "{lines:?}");
    assert!(lines.contains(&"paused by dave: an incident"), "{lines:?}");
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn pause_and_resume_by_object() {
    let mut checkpoint = Checkpoint::new("pause-object", json!({})).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 150).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    checkpoint.waits("Baking").await;
    let pause = json!({ "action": "Pause" });
    let pause = checkpoint.intervene(&checkpoint.alice, pause).await;
    checkpoint.answered(&pause.unwrap(), "Applied").await;
    let message = checkpoint.waits("Paused").await;
    assert!(message.contains("paused by alice"), "{message}");

    // Its bake may be over: it is still paused.
    let promote = json!({ "action": "Promote", "step": 1 });
    let promote = checkpoint.intervene(&checkpoint.dave, promote).await;
    checkpoint.answered(&promote.unwrap(), "Applied").await;
    checkpoint.waits("Paused").await;
    assert_eq!(checkpoint.step().await, "1/2");

    let resume = json!({ "action": "Resume" });
    let resume = checkpoint.intervene(&checkpoint.alice, resume).await;
    checkpoint.answered(&resume.unwrap(), "Applied").await;
    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::Promoted));
    assert_eq!(line(&run, "PausedByPerson").message, "paused by alice");
    assert_eq!(line(&run, "Resumed").message, "resumed by alice");
    checkpoint.scene.remove_policy().await;
}
