//! A healthy change is promoted automatically, in steps that suit its risk.

use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Tier};

use crate::support::{App, Scene, condition, ended, harmless, phase, risky, tier};

#[tokio::test]
async fn a_low_risk_change_is_promoted_by_itself() {
    let scene = Scene::new("promoted").await;
    let app = scene.serving(App::new("shop")).await;
    let load = scene.load(&app, 150).await;
    let stable = scene.get(&app).await.status.unwrap().stable.unwrap();

    let next = app.version("v2");
    scene.apply(&next).await;
    let rollout = scene
        .until(&next, "the change is promoted", |rollout| {
            phase(rollout) == Phase::Stable
                && rollout
                    .status
                    .as_ref()
                    .and_then(|status| status.stable.as_ref())
                    .is_some_and(|now| *now != stable)
        })
        .await;

    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::Promoted));
    assert_eq!(tier(&run), Tier::Low, "{:?}", run.spec.risk);
    let weights: Vec<_> = run
        .spec
        .progress
        .transitions
        .iter()
        .map(|line| line.weight)
        .collect();
    assert_eq!(
        weights,
        [0, 25, 50, 100, 100],
        "every step was taken, in order"
    );
    let evidence = run
        .spec
        .progress
        .transitions
        .iter()
        .find(|line| line.reason == "Promoting")
        .unwrap();
    assert!(
        evidence.evidence[0].canary.requests >= 20.0,
        "the record holds the numbers: {evidence:?}"
    );
    assert_eq!(condition(&rollout, "Ready").unwrap().0, "True");
    assert_eq!(condition(&rollout, "Stalled").unwrap().0, "False");
    let status = rollout.status.unwrap();
    assert_eq!(
        (
            status.replicas,
            status.updated_replicas,
            status.available_replicas
        ),
        (4, 4, 4)
    );
    assert_eq!(
        scene.pods(&stable.pod_template_hash).await,
        0,
        "the last revision has no pods left"
    );
    let report = load.stop().await;
    assert_eq!(report.http_errors, 0, "{report:?}");
}

#[tokio::test]
async fn a_high_risk_change_takes_smaller_steps_than_the_same_change_at_low_risk() {
    let scene = Scene::new("by-risk").await;
    let harmless_app = scene
        .serving(App {
            replicas: 20,
            ..App::new("harmless")
        })
        .await;
    let risky_app = scene
        .serving(App {
            replicas: 20,
            ..App::new("risky")
        })
        .await;
    let _loads = (
        scene.load(&harmless_app, 150).await,
        scene.load(&risky_app, 300).await,
    );

    scene
        .apply(&harmless_app.version("v2").provenance(harmless()))
        .await;
    scene
        .apply(&risky_app.version("v2").provenance(risky()))
        .await;
    let (low, high) = (
        scene.outcome(&harmless_app).await,
        scene.outcome(&risky_app).await,
    );

    assert_eq!(
        (tier(&low), tier(&high)),
        (Tier::Low, Tier::High),
        "{:?}",
        high.spec.risk
    );
    assert!(ended(&low, Outcome::Promoted) && ended(&high, Outcome::Promoted));
    let weights = |run: &countersign_api::RolloutRun| {
        run.spec
            .plan
            .steps
            .iter()
            .map(|step| step.weight)
            .collect::<Vec<_>>()
    };
    assert!(weights(&high)[0] < weights(&low)[0]);
    assert!(weights(&high).len() > weights(&low).len());
    let reasons: Vec<_> = high
        .spec
        .risk
        .contributions
        .iter()
        .map(|line| line.reason.as_str())
        .collect();
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("500 changed lines")),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn a_change_without_provenance_is_treated_as_unknown_and_at_least_high() {
    let scene = Scene::new("unknown").await;
    let app = scene
        .serving(App {
            replicas: 10,
            ..App::new("shop")
        })
        .await;
    let _load = scene.load(&app, 200).await;

    let next = app.version("v2").provenance(serde_json::json!({}));
    scene.apply(&next).await;
    let rollout = scene
        .until(&next, "the change is under way", |rollout| {
            rollout
                .status
                .as_ref()
                .is_some_and(|status| status.step.is_some())
        })
        .await;

    let (status, reason, _) = condition(&rollout, "Provenance").unwrap();
    assert_eq!((status, reason), ("False", "Absent"));
    let run = scene.outcome(&next).await;
    assert!(tier(&run) >= Tier::High, "{:?}", run.spec.risk);
    assert_eq!(run.spec.provenance.state, "Absent");
}
