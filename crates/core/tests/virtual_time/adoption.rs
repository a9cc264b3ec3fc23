//! Adopted workloads and farewells in virtual time.

use countersign_api::rollout::Outcome;
use countersign_api::{DeletionPolicy, HASH_LABEL, WorkloadReference};
use countersign_core::decision::Decision;
use countersign_core::observation::workload::{Autoscaler, Deletion, Service, Unusable, Workload};

use super::people::{go_on, waits_for};
use super::*;

fn workload(replicas: i32) -> Workload {
    Workload {
        name: "shop".into(),
        uid: "deployment".into(),
        replicas,
        current: replicas,
        available: replicas,
        observed: true,
        scaled_by: None,
        autoscalers: vec![],
    }
}

/// A Rollout beside a Deployment that serves with 20 pods, behind a named Service.
fn beside_a_deployment() -> World {
    let mut first = observation("v1");
    first.spec.workload_ref = Some(WorkloadReference {
        name: "shop".into(),
        ..WorkloadReference::default()
    });
    first.workload = Some(Ok(workload(20)));
    first.spec.strategy.canary.stable_service = Some("front".into());
    let service = Service {
        kind: "ClusterIP".into(),
        selector: BTreeMap::from([("app".into(), "shop".into())]),
    };
    first.traffic.services = BTreeMap::from([("front".into(), Some(service))]);
    begin(first)
}

fn adopted(world: &World) -> &Workload {
    world
        .observation
        .workload
        .as_ref()
        .unwrap()
        .as_ref()
        .unwrap()
}

fn edit(world: &mut World, edit: impl FnOnce(&mut Workload)) {
    edit(
        world
            .observation
            .workload
            .as_mut()
            .unwrap()
            .as_mut()
            .unwrap(),
    );
}

fn taken_over() -> World {
    let mut world = beside_a_deployment();
    go_on(&mut world, 2);
    assert_eq!(adopted(&world).replicas, 0);
    world
}

fn condition(world: &World) -> (String, String, String) {
    let conditions = &world.observation.status.conditions;
    let found = conditions.iter().find(|it| it.type_ == "Adopted").unwrap();
    (
        found.status.clone(),
        found.reason.clone(),
        found.message.clone(),
    )
}

fn selected(world: &World) -> Option<&String> {
    let service = world.observation.traffic.services["front"]
        .as_ref()
        .unwrap();
    service.selector.get(HASH_LABEL)
}

fn reconcile(world: &mut World) -> Decision {
    let decision = world.reconcile(&mut steady(5_000.0, 0.001, 0.001));
    world.carry_out(&decision, usize::MAX);
    lawful(world);
    decision
}

fn delete(world: &mut World) {
    world.observation.deleting = true;
    world.observation.deletion.since = Some(world.observation.now);
}

fn is_gone(observation: &Observation) -> bool {
    observation.deleting && !observation.deletion.awaited
}

fn until_gone(world: &mut World, minutes: i64) -> bool {
    let until = super::people::minutes_on(world, minutes);
    let gone = world.run(until, &mut steady(5_000.0, 0.001, 0.001), is_gone);
    lawful(world);
    gone
}

#[test]
pub(super) fn a_deployment_gives_up_its_pods_once_the_rollouts_own_have_served_for_the_drain() {
    let mut world = beside_a_deployment();
    world.observation.spec.strategy.canary.drain = Duration::seconds(30);
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    assert!(world.run(after(5), &mut traffic, |it| {
        it.status
            .adopted
            .as_ref()
            .is_some_and(|it| it.handed_over_at.is_some())
    }));
    assert!(selected(&world).is_some(), "the Service has moved first");
    assert!(
        world.observation.deletion.awaited,
        "and the finalizer is set"
    );
    assert_eq!(adopted(&world).replicas, 20);
    let handed_over = world.observation.now;
    assert!(world.run(after(5), &mut traffic, |it| {
        it.status.adopted.as_ref().is_some_and(|it| it.scaled_down)
    }));
    let drained = world.observation.now.duration_since(handed_over);
    assert!(drained >= SignedDuration::from_secs(30), "{drained:?}");
    reconcile(&mut world);
    let (status, reason, message) = condition(&world);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "TakenOver"));
    assert!(message.contains("in place of Deployment shop"), "{message}");
    assert_eq!(adopted(&world).replicas, 0);
    lawful(&world);
}

#[test]
pub(super) fn editing_the_deployment_is_a_change_and_its_pods_stay_away() {
    let mut world = taken_over();
    change(&mut world, "v2", harmless());
    assert!(
        world.run(after(240), &mut steady(5_000.0, 0.001, 0.001), |it| {
            World::at_rest(it) && it.status.revision == 2
        })
    );
    assert_eq!(stable_image(&world), "example.org/shop:v2");
    assert_eq!(adopted(&world).replicas, 0);
    lawful(&world);
}

#[test]
pub(super) fn a_foreign_scale_up_is_reported_and_undone_at_most_once_a_minute() {
    let mut world = taken_over();
    let scale_up = |world: &mut World| {
        edit(world, |it| {
            (it.replicas, it.scaled_by) = (4, Some("argocd-controller".into()));
        });
    };
    scale_up(&mut world);
    let decision = reconcile(&mut world);
    let reasons: Vec<_> = decision.notices.iter().map(|it| &it.reason).collect();
    assert_eq!(reasons, ["WorkloadScaledDown"]);
    let notice = &decision.notices[0];
    assert!(
        notice.warning
            && notice
                .message
                .starts_with("argocd-controller scaled Deployment shop to 4 pods")
    );
    assert_eq!(adopted(&world).replicas, 0);

    scale_up(&mut world);
    let decision = reconcile(&mut world);
    assert!(decision.notices.is_empty(), "{:?}", decision.notices);
    assert_eq!(adopted(&world).replicas, 4, "not at once again");
    assert_eq!(condition(&world).1, "WorkloadScaledDown");
    world.observation.now = decision.requeue_at.unwrap();
    assert_eq!(reconcile(&mut world).notices.len(), 1);
    assert_eq!(adopted(&world).replicas, 0);
}

#[test]
pub(super) fn a_deployment_is_not_scaled_down_while_stable_cannot_serve() {
    let mut world = taken_over();
    for set in &mut world.observation.replica_sets {
        (set.available, set.ready) = (0, 0);
    }
    edit(&mut world, |it| it.replicas = 4);
    reconcile(&mut world);
    assert_eq!(adopted(&world).replicas, 4);
}

#[test]
pub(super) fn a_rollout_of_fewer_pods_does_not_take_over() {
    let mut world = beside_a_deployment();
    world.observation.spec.replicas = 1;
    go_on(&mut world, 30);
    assert_eq!(waits_for(&world), Some("WorkloadInvalid"));
    assert!(
        world
            .observation
            .status
            .message
            .contains("set spec.replicas to 20")
    );
    assert_eq!((adopted(&world).replicas, selected(&world)), (20, None));
    world.observation.spec.replicas = 20;
    go_on(&mut world, 2);
    assert_eq!(adopted(&world).replicas, 0);
}

#[test]
pub(super) fn law_6_while_the_deployment_cannot_be_read_nothing_begins_and_nothing_is_lost() {
    let mut world = beside_a_deployment();
    let (template, sound) = (
        world.observation.spec.template.clone(),
        world.observation.workload.clone(),
    );
    let unreadable = |world: &mut World| {
        world.observation.spec.template.0 = Value::Null;
        world.observation.workload = Some(Err(Unusable::Missing));
    };
    unreadable(&mut world);
    go_on(&mut world, 10);
    assert_eq!(waits_for(&world), Some("WorkloadInvalid"));
    assert_eq!(world.observation.status.attempts, 0);
    assert!(world.observation.status.message.contains("Deployment shop"));
    (world.observation.spec.template, world.observation.workload) = (template, sound.clone());
    go_on(&mut world, 2);
    assert_eq!(adopted(&world).replicas, 0);

    let before = world.observation.status.stable.clone();
    let rests = world.observation.spec.template.clone();
    unreadable(&mut world);
    go_on(&mut world, 10);
    assert_eq!(world.observation.status.stable, before);
    assert_eq!(world.observation.status.attempts, 1);

    (world.observation.spec.template, world.observation.workload) = (rests, sound);
    edit(&mut world, |it| it.replicas = 0);
    change(&mut world, "v2", harmless());
    let traffic = &mut steady(5_000.0, 0.001, 0.001);
    assert!(world.run(after(240), traffic, |it| {
        it.status
            .change
            .as_ref()
            .is_some_and(|it| it.step == 1 && it.available_at.is_some())
    }));
    let run = world
        .observation
        .status
        .change
        .as_ref()
        .unwrap()
        .run
        .clone();
    unreadable(&mut world);
    reconcile(&mut world);
    let change = world.observation.status.change.as_ref().unwrap();
    assert_eq!((&change.run, change.outcome), (&run, None), "it continues");
    assert_eq!(waits_for(&world), Some("WorkloadInvalid"));
    // Bad evidence counts all the same.
    let bad = &mut steady(5_000.0, 0.5, 0.001);
    assert!(world.run(after(480), bad, |it| {
        it.status
            .change
            .as_ref()
            .is_some_and(|it| it.outcome.is_some())
    }));
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    go_on(&mut world, 30);
    assert_eq!(
        world.observation.status.attempts, 2,
        "and nothing else begins"
    );
    lawful(&world);
}

#[test]
pub(super) fn deletion_gives_the_pods_back_before_the_rollouts_own_go() {
    let mut world = taken_over();
    delete(&mut world);
    reconcile(&mut world);
    assert_eq!(adopted(&world).replicas, 20);
    assert!(selected(&world).is_some(), "the Services wait for its pods");
    edit(&mut world, |it| it.available = 3);
    reconcile(&mut world);
    assert!(
        world
            .observation
            .status
            .message
            .contains("3 of 20 pods of Deployment shop")
    );
    assert_eq!(waits_for(&world), Some("GivingBack"));
    edit(&mut world, |it| it.available = 20);
    reconcile(&mut world);
    assert_eq!(selected(&world), None);
    assert!(
        world.observation.deletion.awaited,
        "connections drain first"
    );
    assert!(until_gone(&mut world, 1));
    let stable = &world.observation.replica_sets[0];
    assert_eq!(
        (stable.replicas, stable.owned),
        (20, true),
        "it goes with the Rollout"
    );
}

#[test]
pub(super) fn a_deployment_with_a_rejected_template_gets_no_pods_back() {
    let mut world = taken_over();
    change(&mut world, "v2", harmless());
    let traffic = &mut steady(5_000.0, 0.001, 0.001);
    assert!(world.run(after(240), traffic, |it| {
        it.status.change.as_ref().is_some_and(|it| it.step == 1)
    }));
    delete(&mut world);
    assert!(!until_gone(&mut world, 60));
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    assert_eq!(waits_for(&world), Some("WorkloadInvalid"));
    assert!(
        world
            .observation
            .status
            .message
            .contains("kubectl rollout undo deployment/shop")
    );
    assert_eq!(adopted(&world).replicas, 0);
    world.observation.spec.template.0 = template("v1");
    assert!(until_gone(&mut world, 5));
    assert_eq!(adopted(&world).replicas, 20);
}

#[test]
pub(super) fn pods_without_an_adopted_workload_are_left_to_serve() {
    let mut world = serving();
    world.observation.spec.deletion_policy = Some(DeletionPolicy::Keep);
    reconcile(&mut world);
    assert!(world.observation.deletion.awaited);
    delete(&mut world);
    assert!(until_gone(&mut world, 1));
    let left = &world.observation.replica_sets[0];
    assert_eq!((left.replicas, left.owned), (20, false));
}

#[test]
pub(super) fn where_the_deployment_is_gone_the_pods_are_left_to_serve() {
    let mut world = taken_over();
    world.observation.spec.template.0 = Value::Null;
    world.observation.workload = Some(Err(Unusable::Missing));
    delete(&mut world);
    assert!(until_gone(&mut world, 1));
    assert!(!world.observation.replica_sets[0].owned);
}

#[test]
pub(super) fn without_keeping_pods_nothing_waits() {
    let mut world = serving();
    go_on(&mut world, 5);
    assert!(!world.observation.deletion.awaited);
    let mut world = taken_over();
    world.observation.spec.deletion_policy = Some(DeletionPolicy::Delete);
    reconcile(&mut world);
    assert!(!world.observation.deletion.awaited);
}

#[test]
pub(super) fn a_namespace_that_ends_is_not_held_up_and_neither_is_what_serves_nobody() {
    let mut world = taken_over();
    delete(&mut world);
    world.observation.deletion.namespace_ends = true;
    reconcile(&mut world);
    assert!(is_gone(&world.observation));

    let mut world = taken_over();
    delete(&mut world);
    world.pods_ready_after = None;
    world.observation.workload = Some(Err(Unusable::Unreadable {
        message: "etcd is full".into(),
    }));
    for set in &mut world.observation.replica_sets {
        (set.available, set.ready) = (0, 0);
    }
    assert!(until_gone(&mut world, 11));
    let waited = world
        .observation
        .now
        .duration_since(world.observation.deletion.since.unwrap());
    assert!(waited >= SignedDuration::from_mins(10), "{waited:?}");
}

#[test]
pub(super) fn an_autoscaler_of_the_deployment_is_named_once() {
    let mut world = taken_over();
    edit(&mut world, |it| {
        it.autoscalers = vec![Autoscaler {
            name: "web".into(),
            targets_rollout: false,
        }];
    });
    let decision = reconcile(&mut world);
    let sentence = "HorizontalPodAutoscaler web targets Deployment shop, which gives up its pods: set its target to Rollout shop";
    assert_eq!(decision.notices.len(), 1);
    assert_eq!(decision.notices[0].message, sentence);
    assert!(condition(&world).2.starts_with(sentence));
    assert_eq!(condition(&world).0, "True", "it is disabled at 0 pods");
    assert!(reconcile(&mut world).notices.is_empty());
}

#[test]
pub(super) fn nothing_is_done_about_a_deployment_that_another_rollout_adopts() {
    let mut world = beside_a_deployment();
    world.observation.conflicts = vec!["Rollout web already adopts Deployment shop".into()];
    go_on(&mut world, 30);
    assert_eq!(waits_for(&world), Some("Conflict"));
    assert_eq!(adopted(&world).replicas, 20);
    delete(&mut world);
    assert!(until_gone(&mut world, 1));
    assert_eq!(adopted(&world).replicas, 20);
}

#[test]
pub(super) fn the_user_who_changed_the_deployment_is_not_claimed_to_be_known() {
    let mut world = taken_over();
    let stamp = countersign_api::CHANGED_BY_ANNOTATION.to_owned();
    change(&mut world, "v2", harmless());
    world
        .observation
        .annotations
        .insert(stamp, "mallory".into());
    reconcile(&mut world);
    reconcile(&mut world);
    let change = world.observation.status.change.as_ref().unwrap();
    assert!(change.changed_by.is_empty());
    assert!(
        change.excluded_approvers.users.contains("mallory"),
        "excluded all the same"
    );
    assert_eq!(
        world.observation.deletion,
        Deletion {
            awaited: true,
            ..Deletion::default()
        }
    );
}
