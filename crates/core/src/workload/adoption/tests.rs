//! Whole stories are in `tests/virtual_time/adoption.rs`.

use countersign_api::rollout::RolloutStatus;
use countersign_api::{HASH_LABEL, MANAGER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::json;

use crate::change::releases_services;
use crate::decision::{Action, AdoptionAction, Serving, TrafficAction, WorkloadScale};
use crate::field_managers::last_scaler;
use crate::observation::Observation;
use crate::observation::workload::{Autoscaler, Unusable, Workload};
use crate::proposal::Proposal;
use crate::reason::Reason;
use crate::simulation::manifest;
use crate::traffic::routes::Routes;
use crate::traffic::settle::drained_at;
use crate::traffic::view::View;
use crate::workload::adoption::step::Step;
use crate::workload::adoption::take_over::autoscaler_targets_workload;
use crate::workload::adoption::{obstacle, step};

fn adopting() -> Observation {
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "image": "web:1" }] } });
    let rollout = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 4, "workloadRef": { "name": "web" },
            "selector": { "matchLabels": { "app": "web" } }, "template": template,
        },
    }));
    let template = countersign_api::PodTemplate(template);
    let around = manifest::Surroundings::default();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut observation = manifest::observe(&rollout.unwrap(), &template, around, now);
    observation.deletion.awaited = true;
    observation.workload = Some(Ok(Workload {
        name: "web".into(),
        uid: "1".into(),
        replicas: 4,
        current: 4,
        available: 4,
        observed: true,
        scaled_by: None,
        autoscalers: Vec::new(),
    }));
    observation
}

fn next(observation: &Observation) -> (Step, RolloutStatus) {
    let mut status = observation.status.clone();
    let proposal = Proposal::of(observation);
    let routes = Routes::of(observation);
    let seen = &observation.status;
    let (stable, change, split) = (
        seen.stable.as_ref(),
        seen.change.as_ref(),
        seen.traffic.as_ref(),
    );
    let view = View::of(observation, &routes, stable, change, split);
    let step = step(&view, &proposal, &mut status.adopted, &[]);
    (step, status)
}

#[test]
fn pods_are_taken_away_after_the_drain_and_only_with_the_finalizer() {
    let mut observation = adopting();
    let (step, status) = next(&observation);
    assert!(step.actions.is_empty());
    assert_eq!(
        step.requeue_at,
        Some(drained_at(&observation, observation.now))
    );
    observation.status = status;
    observation.now = step.requeue_at.unwrap();
    let (step, _) = next(&observation);
    let serving = Serving {
        hash: observation.replica_sets[0].hash.clone(),
        available: 4,
    };
    assert_eq!(
        step.actions,
        [Action::Adoption(AdoptionAction::ScaleWorkload(
            WorkloadScale {
                name: "web".into(),
                uid: "1".into(),
                from: 4,
                replicas: 0,
                beside: Some(serving),
            }
        ))]
    );
    observation.deletion.awaited = false;
    let (step, _) = next(&observation);
    let finalizer = AdoptionAction::SetFinalizer { present: true };
    assert_eq!(step.actions, [Action::Adoption(finalizer)]);
}

#[test]
fn an_autoscaler_at_each_of_the_two_is_one_too_many() {
    let mut observation = adopting();
    let autoscaler = |name: &str, targets_rollout| Autoscaler {
        name: name.into(),
        targets_rollout,
    };
    let Some(Ok(workload)) = &mut observation.workload else {
        panic!("it is adopted");
    };
    workload.autoscalers = vec![
        autoscaler("a", false),
        autoscaler("b", false),
        autoscaler("c", true),
    ];
    assert_eq!(
        autoscaler_targets_workload(&observation).unwrap(),
        "HorizontalPodAutoscaler a targets Deployment web, which gives up its pods, and so do 1 more: remove it, as HorizontalPodAutoscaler c targets Rollout web"
    );
}

#[test]
fn the_last_who_scaled_is_the_newest_other_owner_of_the_number() {
    let entry = |manager: &str, at: &str, path: &str| -> ManagedFieldsEntry {
        serde_json::from_value(json!({
            "manager": manager, "operation": "Update", "time": at,
            "fieldsV1": { "f:spec": { path: {} } },
        }))
        .unwrap()
    };
    let fields = [
        entry("kubectl", "2026-01-01T00:00:00Z", "f:replicas"),
        entry("argocd", "2026-01-02T00:00:00Z", "f:replicas"),
        entry("editor", "2026-01-03T00:00:00Z", "f:template"),
        entry(MANAGER, "2026-01-04T00:00:00Z", "f:replicas"),
    ];
    assert_eq!(last_scaler(&fields), Some("argocd"));
    assert_eq!(last_scaler(&fields[2..]), None);
}

#[test]
fn what_cannot_be_used_is_reported_with_its_name() {
    let mut observation = adopting();
    for (unusable, expected) in [
        (Unusable::Missing, "create it"),
        (
            Unusable::Unreadable {
                message: "no\u{1b}[2J right".into(),
            },
            "Deployment web cannot be read: no",
        ),
        (
            Unusable::Unfit {
                message: "selects nothing".into(),
            },
            "Deployment web selects nothing",
        ),
    ] {
        observation.workload = Some(Err(unusable));
        let hold = obstacle(&observation, None).unwrap();
        assert_eq!(hold.reason, Reason::WorkloadInvalid);
        assert!(hold.message.contains(expected) && !hold.message.contains('\u{1b}'));
        let proposal = Proposal::of(&observation);
        let stable = observation.status.stable.clone().unwrap();
        assert_eq!(proposal.template_digest, stable.template_digest);
    }
}

#[test]
fn services_are_let_go_only_once_the_workload_serves() {
    let mut observation = adopting();
    observation.deleting = true;
    let hash = observation.replica_sets[0].hash.clone();
    observation.spec.strategy.canary.stable_service = Some("front".into());
    let service = crate::observation::workload::Service {
        kind: "ClusterIP".into(),
        selector: [(HASH_LABEL.to_owned(), hash)].into(),
    };
    observation
        .traffic
        .services
        .insert("front".into(), Some(service));
    let set = |observation: &mut Observation, replicas, available| {
        if let Some(Ok(it)) = &mut observation.workload {
            (it.replicas, it.available) = (replicas, available);
        }
    };
    set(&mut observation, 0, 0);
    let (step, _) = next(&observation);
    assert!(matches!(
        step.actions[..],
        [Action::Adoption(AdoptionAction::ScaleWorkload(
            WorkloadScale {
                replicas: 4,
                beside: None,
                ..
            }
        ))]
    ));
    set(&mut observation, 4, 3);
    assert!(next(&observation).0.actions.is_empty());
    set(&mut observation, 4, 4);
    let (step, status) = next(&observation);
    let release = TrafficAction::ReleaseService {
        service: "front".into(),
    };
    assert_eq!(step.actions, [Action::Traffic(release)]);
    assert!(releases_services(&observation, status.adopted.as_ref()));
}
