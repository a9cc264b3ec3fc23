//! `report`: the figures of changes that were really promoted and rolled back.

use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::support::{harmless, risky};

#[tokio::test]
async fn the_report_has_the_figures_of_a_promotion_and_a_rollback() {
    let scene = Scene::new("plugin-report").await;
    let app = App {
        replicas: 10,
        ..App::new("shop")
    };
    let app = scene.serving(app).await;
    let _load = scene.load(&app, 200).await;
    let mut by_people = harmless();
    let hour_ago = clock::now() - SignedDuration::from_hours(1);
    by_people["committed-at"] = json!(hour_ago.to_string());
    let good = app.version("v2").provenance(by_people);
    scene.apply(&good).await;
    let promoted = scene.outcome(&good).await;
    assert!(ended(&promoted, Outcome::Promoted));
    let committed = &promoted.spec.provenance.annotations["committed-at"];
    assert_eq!(*committed, hour_ago.to_string());
    let bad = app.version("v3").failing(0.4).provenance(risky());
    scene.apply(&bad).await;
    scene
        .until(&bad, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    assert!(ended(&scene.outcome(&bad).await, Outcome::RolledBack));

    let alice = Person::new(&scene, "alice", &member(vec![])).await;
    let table = alice.runs("report --by contributor").await.exits(0);
    table.out(&[
        "2 deployments from ",
        "CONTRIBUTOR   DEPLOYMENTS   PER-WEEK ",
        "\nhuman         1 ",
        "1 of 2: 50.0% (9.5% to 90.5%)",
        "not enough changes yet: about ",
    ]);
    let found = alice.runs("report -o json").await.exits(0);
    let found: Value = serde_json::from_str(&found.out).unwrap();
    let total = &found["total"];
    for figure in ["leadTime", "timeToRestore", "changeFailureRate"] {
        assert_eq!(total[figure]["count"], 1, "{figure} of {total}");
    }
    assert_eq!(total["reworkRate"]["count"], 0);
    let median = total["leadTime"]["median"].as_str().unwrap();
    assert!(median.starts_with("1h"), "{median}");
    assert_eq!(found["comparison"]["unknown"], 0);
    let by_team = "report --by team --team-label app -o csv";
    let row = "\nshop,change failure rate,1,2,0.5000,";
    alice.runs(by_team).await.exits(0).out(&[row]);
    let others = alice.runs("report -l app=other").await.exits(0);
    others.out(&["0 deployments from "]);
    let nobody = Person::new(&scene, "bob", &[reads_workload()]).await;
    nobody.runs("report").await.exits(1).err(&["rolloutruns"]);
}
