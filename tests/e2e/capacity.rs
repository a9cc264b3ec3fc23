//! Autoscalers, disruption budgets, quotas, and containers that do not start.

use countersign_api::Phase;
use countersign_api::Rollout;
use countersign_api::rollout::Outcome;
use countersign_cluster::wait_for;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::sign_off::line;
use crate::support::{App, Scene, TIMEOUT, condition, ended, phase, waits_for};

fn available(rollout: &Rollout) -> i32 {
    let status = rollout.status.as_ref();
    status.map_or(0, |status| status.available_replicas)
}

fn has_message(rollout: &Rollout, words: &str) -> bool {
    let status = rollout.status.as_ref();
    status.is_some_and(|status| status.message.contains(words))
}

/// An application whose change stays at half of the traffic: as many pods of both revisions.
async fn at_half(scene: &Scene) -> App {
    let app = scene.serving(App::new("shop")).await;
    let slow = json!({
        "progressDeadlineSeconds": 600,
        "strategy": { "canary": { "steps": [{ "weight": 50, "bake": "10m" }] } },
    });
    scene.apply(&app.version("v2").spec(slow)).await;
    scene
        .until(&app, "both revisions serve", |rollout| {
            available(rollout) == 8
        })
        .await;
    app
}

#[tokio::test]
async fn an_autoscaler_scales_the_rollout_in_mid_rollout() {
    let scene = Scene::new("hpa").await;
    let app = at_half(&scene).await;
    let scalers: Api<HorizontalPodAutoscaler> =
        Api::namespaced(scene.cluster.client(), &scene.namespace);
    // Its bounds need no metrics, which this cluster lacks.
    let scaler = json!({
        "metadata": { "name": "shop" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "name": "shop" },
            "minReplicas": 6, "maxReplicas": 10,
        },
    });
    let scaler = serde_json::from_value(scaler).unwrap();
    scalers
        .create(&PostParams::default(), &scaler)
        .await
        .unwrap();
    scene
        .until(&app, "both revisions are larger", |rollout| {
            rollout.spec.replicas == 6 && available(rollout) == 12
        })
        .await;
    let able = async || {
        let status = scalers.get("shop").await.unwrap().status;
        let conditions = status.and_then(|status| status.conditions);
        let mut conditions = conditions.into_iter().flatten();
        let able = conditions.find(|it| it.type_ == "AbleToScale");
        able.filter(|it| it.status == "True")
            .ok_or("it is not able to scale")
    };
    wait_for("the autoscaler reports it", TIMEOUT, able)
        .await
        .unwrap();

    let lower = json!({ "spec": { "minReplicas": 2, "maxReplicas": 3 } });
    scalers
        .patch("shop", &PatchParams::default(), &Patch::Merge(lower))
        .await
        .unwrap();
    let rollout = scene
        .until(&app, "both revisions are smaller", |rollout| {
            rollout.spec.replicas == 3 && available(rollout) == 6
        })
        .await;
    let change = rollout.status.unwrap().change.unwrap();
    assert_eq!((change.step, change.outcome), (1, None));
    assert_eq!(scene.records(&app).await.len(), 2, "scaling is no change");
}

#[tokio::test]
async fn a_disruption_budget_counts_the_pods_of_both_revisions() {
    let scene = Scene::new("pdb").await;
    let app = scene.serving(App::new("shop")).await;
    let budgets: Api<PodDisruptionBudget> =
        Api::namespaced(scene.cluster.client(), &scene.namespace);
    let budget = json!({
        "metadata": { "name": "shop" },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "shop" } } },
    });
    let budget = serde_json::from_value(budget).unwrap();
    budgets
        .create(&PostParams::default(), &budget)
        .await
        .unwrap();
    let expects = async |pods: i32| {
        let poll = async || {
            let status = budgets.get("shop").await.unwrap().status;
            let status = status.ok_or("there is no status")?;
            let seen = (status.expected_pods, status.disruptions_allowed);
            (seen == (Some(pods), Some(1)))
                .then_some(())
                .ok_or("it expects other pods")
        };
        wait_for("the budget counts the pods", TIMEOUT, poll).await
    };
    expects(4).await.unwrap();

    let slow = json!({
        "progressDeadlineSeconds": 600,
        "strategy": { "canary": { "steps": [{ "weight": 50, "bake": "10m" }] } },
    });
    scene.apply(&app.version("v2").spec(slow)).await;
    expects(8).await.unwrap();
}

#[tokio::test]
async fn a_quota_is_named_and_at_the_deadline_the_change_is_rolled_back() {
    let scene = Scene::new("quota").await;
    let app = scene.serving(App::new("shop")).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let quota = json!({ "metadata": { "name": "no-more" }, "spec": { "hard": { "pods": "4" } } });
    let quota = serde_json::from_value(quota).unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    let poll = async || {
        let status = quotas.get("no-more").await.unwrap().status;
        let used = status.and_then(|status| status.used)?;
        (used.get("pods")?.0 == "4").then_some(())
    };
    wait_for("the quota is in force", TIMEOUT, poll)
        .await
        .unwrap();

    let next = app
        .version("v2")
        .spec(json!({ "progressDeadlineSeconds": 10 }));
    scene.apply(&next).await;
    let rollout = scene
        .until(&next, "the refusal is named", |rollout| {
            waits_for(rollout, "AwaitingPods") && has_message(rollout, "exceeded quota: no-more")
        })
        .await;
    let (_, _, message) = condition(&rollout, "Progressing").unwrap();
    assert!(message.contains("exceeded quota: no-more"), "{message}");
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
    let why = &line(&run, "ProgressDeadlineExceeded").message;
    assert!(why.contains("exceeded quota: no-more"), "{why}");
    assert_eq!(available(&scene.get(&next).await), 4, "stable serves on");
}

#[tokio::test]
async fn pods_that_the_namespace_forbids_are_named_and_rolled_back_at_the_deadline() {
    let scene = Scene::new("restricted").await;
    let app = scene.serving(App::new("shop")).await;
    let namespaces: Api<Namespace> = Api::all(scene.cluster.client());
    let restricted =
        json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    namespaces
        .patch(
            &scene.namespace,
            &PatchParams::default(),
            &Patch::Merge(restricted),
        )
        .await
        .unwrap();
    let volumes = json!([{ "name": "root", "hostPath": { "path": "/" } }]);
    let next = app.version("v2").spec(json!({
        "progressDeadlineSeconds": 10, "template": { "spec": { "volumes": volumes } },
    }));
    scene.apply(&next).await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
    let why = &line(&run, "ProgressDeadlineExceeded").message;
    assert!(why.contains("violates PodSecurity"), "{why}");
    assert_eq!(available(&scene.get(&next).await), 4, "stable serves on");
}

#[tokio::test]
async fn what_admission_refuses_is_named_and_goes_on_once_it_is_allowed() {
    let scene = Scene::new("refusing").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let name = scene.namespace.as_str();
    let policy = json!({ "metadata": { "name": name }, "spec": {
        "matchConstraints": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } },
            "resourceRules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["replicasets"], "operations": ["CREATE"],
            }],
        },
        "validations": [{ "expression": "false", "message": "no new revisions today" }],
    } });
    let binding = json!({ "metadata": { "name": name }, "spec": {
        "policyName": name, "validationActions": ["Deny"],
    } });
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(scene.cluster.client());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(scene.cluster.client());
    let (policy, binding) = (
        serde_json::from_value(policy).unwrap(),
        serde_json::from_value(binding).unwrap(),
    );
    let post = PostParams::default();
    policies.create(&post, &policy).await.unwrap();
    bindings.create(&post, &binding).await.unwrap();
    let sets = scene.replica_sets();
    let mut probe = sets.list(&ListParams::default()).await.unwrap().items[0].clone();
    probe.metadata = ObjectMeta {
        name: Some("probe".into()),
        ..ObjectMeta::default()
    };
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let refused = async || {
        let error = sets.create(&dry, &probe).await.err()?;
        error.to_string().contains("no new revisions").then_some(())
    };
    wait_for("it is refused", TIMEOUT, refused).await.unwrap();

    let next = app
        .version("v2")
        .spec(json!({ "progressDeadlineSeconds": 600 }));
    scene.apply(&next).await;
    scene
        .until(&next, "the refusal is named", |rollout| {
            has_message(rollout, "no new revisions today")
        })
        .await;
    bindings
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    policies
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_named_and_at_the_deadline_the_change_is_rolled_back() {
    let scene = Scene::new("image").await;
    let app = scene.serving(App::new("shop")).await;
    let next = App {
        starts: Some("ImagePullBackOff".into()),
        ..app
            .version("v2")
            .spec(json!({ "progressDeadlineSeconds": 15 }))
    };
    scene.apply(&next).await;
    let named = "0 of 1 pods of the new revision are available: container app: ImagePullBackOff: Back-off pulling image";
    scene
        .until(&next, "the trouble is named", |rollout| {
            waits_for(rollout, "AwaitingPods") && has_message(rollout, named)
        })
        .await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
    let why = &line(&run, "ProgressDeadlineExceeded").message;
    assert!(why.contains(named), "{why}");
    assert_eq!(available(&scene.get(&next).await), 4, "stable serves on");
}

#[tokio::test]
async fn pods_that_all_crash_are_rolled_back_long_before_the_deadline() {
    let scene = Scene::new("crash").await;
    let app = scene.serving(App::new("shop")).await;
    let next = App {
        starts: Some("CrashLoopBackOff".into()),
        ..app
            .version("v2")
            .spec(json!({ "progressDeadlineSeconds": 3600 }))
    };
    scene.apply(&next).await;
    let rollout = scene
        .until(&next, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
    assert_eq!(
        line(&run, "CrashLooping").message,
        "the only pod of the new revision crashes repeatedly: container app exited with 1 (Error); it left no message"
    );
    assert_eq!(condition(&rollout, "Stalled").unwrap().1, "CrashLooping");
    scene.event_once(&next, "CrashLooping").await;
    assert_eq!(available(&rollout), 4, "stable serves on");
}

#[tokio::test]
async fn a_first_revision_that_crashes_is_named_and_another_takes_its_place() {
    let scene = Scene::new("first-crash").await;
    let app = App::new("shop");
    scene.service(&app.name, &app.name).await;
    let broken = App {
        starts: Some("CrashLoopBackOff".into()),
        ..app.clone()
    };
    scene.apply(&broken).await;
    let words = "container app: CrashLoopBackOff: it exited with 1 (Error)";
    let rollout = scene
        .until(&broken, "the trouble is named", |rollout| {
            has_message(rollout, words)
        })
        .await;
    assert_eq!(rollout.status.unwrap().change.unwrap().outcome, None);
    scene.apply(&app).await;
    scene
        .until(&app, "the fixed one serves", |rollout| {
            phase(rollout) == Phase::Stable && available(rollout) == 4
        })
        .await;
}
