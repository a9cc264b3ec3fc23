//! First revisions that wait for people before their first pod.

use countersign_api::first_revision::FirstRevision;
use countersign_api::policy::Enforcement;
use countersign_api::run::RolloutRunSpec;
use countersign_core::observation::workload::{Integrity, PastRun, ReplicaSet};
use countersign_core::provenance::digest::{provenance_digest, template_digest};

use super::*;

/// A policy whose first revisions wait for a person of the platform team.
fn platform() -> NamedPolicy {
    let mut policy = unattended();
    policy.spec.first_revision = Some(FirstRevision {
        from_tier: Tier::Low,
        sign_off: vec![SignOffDemand {
            count: 1,
            groups: vec!["platform".into()],
        }],
    });
    policy
}

/// A Rollout that was just created under a policy.
fn created(policy: NamedPolicy) -> World {
    let mut world = begin(observation("v1"));
    world.observation.policies = vec![policy];
    world
}

fn pods(world: &World) -> i32 {
    let sets = world.observation.replica_sets.iter();
    sets.map(|set| set.replicas).sum()
}

#[test]
fn law_2_no_pod_of_a_first_revision_runs_before_its_people_have_signed() {
    let mut world = created(platform());
    go_on(&mut world, 60 * 24 * 3);
    let waits = (waits_for(&world), pods(&world));
    assert_eq!(waits, (Some("AwaitingSignOff"), 0));
    let status = &world.observation.status;
    assert_eq!(status.phase, Phase::AwaitingSignOff);
    let required = "gate first-revision requires 1 person of platform";
    assert!(status.message.contains(required), "{}", status.message);

    approve(&mut world, "alice", &["platform"]);
    approve(&mut world, "bob", &["team"]);
    sign(&mut world, person("bob", &["platform"]), |spec| {
        spec.gate = Some("step-1".into());
    });
    go_on(&mut world, 2);
    let reasons = [0, 1, 2].map(|number| answer_of(&world, number).1);
    let expected = ["ByAuthor", "Counts", "NoSuchGate"].map(ToOwned::to_owned);
    assert_eq!((pods(&world), reasons), (0, expected));

    sign(&mut world, person("carol", &["platform"]), |spec| {
        spec.gate = Some("first-revision".into());
    });
    go_on(&mut world, 5);
    assert_eq!(world.observation.status.phase, Phase::Stable);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
}

#[test]
fn law_2_a_first_revision_without_replicas_waits_all_the_same() {
    let mut world = created(platform());
    world.observation.spec.replicas = 0;
    go_on(&mut world, 10);
    assert_eq!(world.observation.status.stable, None);
    world.observation.spec.replicas = 20;
    world.observation.generation += 1;
    go_on(&mut world, 10);
    let waits = (waits_for(&world), pods(&world));
    assert_eq!(waits, (Some("AwaitingSignOff"), 0));
}

/// Without the admission policies, others may plant its ReplicaSet, or scale it.
#[test]
fn law_2_a_replica_set_that_others_scale_opens_no_gate_of_a_first_revision() {
    let mut world = created(platform());
    go_on(&mut world, 2);
    let seen = &mut world.observation;
    assert_eq!(seen.replica_sets, []);
    let first = seen.status.change.as_ref().unwrap();
    seen.replica_sets.push(ReplicaSet {
        name: format!("shop-{}", first.pod_template_hash),
        uid: "planted".into(),
        version: String::new(),
        hash: first.pod_template_hash.clone(),
        template_digest: first.template_digest.clone(),
        revision: 1,
        owned: true,
        matches: true,
        labels_missing: false,
        replicas: 1,
        min_ready_seconds: 0,
        requested: None,
        current: 1,
        ready: 1,
        available: 1,
        failure: None,
        template: seen.spec.template.clone(),
        integrity: Integrity::Sound,
    });
    go_on(&mut world, 5);
    let waits = (waits_for(&world), pods(&world));
    assert_eq!(waits, (Some("AwaitingSignOff"), 0));
    world.observation.replica_sets[0].ready = 1;
    change(&mut world, "v2", harmless());
    go_on(&mut world, 5);
    assert_eq!(
        world.observation.status.stable, None,
        "it was never allowed"
    );
    let waits = (waits_for(&world), pods(&world));
    assert_eq!(waits, (Some("AwaitingSignOff"), 0));
    lawful(&world);
}

/// What has begun is not asked again, though all of its pods are lost.
#[test]
fn a_first_revision_that_has_begun_waits_for_nobody_again() {
    let mut world = created(platform());
    world.pods_ready_after = None;
    go_on(&mut world, 2);
    approve(&mut world, "carol", &["platform"]);
    go_on(&mut world, 2);
    assert_eq!(pods(&world), 20);
    world.observation.people.sign_offs.clear();
    world.observation.replica_sets.clear();
    world.pods_ready_after = Some(SignedDuration::from_secs(2));
    go_on(&mut world, 5);
    assert_eq!(world.observation.status.phase, Phase::Stable);
    lawful(&world);
}

#[test]
fn law_8_a_rejected_first_revision_gets_no_pod_until_it_is_changed() {
    let mut world = created(platform());
    go_on(&mut world, 2);
    approve(&mut world, "carol", &["platform"]);
    sign(&mut world, person("alice", &[]), |spec| {
        spec.decision = SignOffDecision::Reject;
    });
    go_on(&mut world, 10);
    assert_eq!((waits_for(&world), pods(&world)), (Some("Rejected"), 0));
    world.observation.people.sign_offs.clear();
    go_on(&mut world, 10);
    assert_eq!((waits_for(&world), pods(&world)), (Some("Rejected"), 0));
    let message = &world.observation.status.message;
    assert!(message.contains("rejected by alice"), "{message}");

    change(&mut world, "v2", harmless());
    go_on(&mut world, 3);
    let waits = (waits_for(&world), pods(&world));
    assert_eq!(waits, (Some("AwaitingSignOff"), 0));
    approve(&mut world, "carol", &["platform"]);
    go_on(&mut world, 5);
    assert_eq!(world.observation.status.phase, Phase::Stable);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
fn break_glass_gives_a_first_revision_its_pods() {
    let mut world = created(platform());
    go_on(&mut world, 2);
    sign(&mut world, person("dave", &[]), |spec| {
        spec.decision = SignOffDecision::BreakGlass;
    });
    go_on(&mut world, 5);
    assert_eq!(world.observation.status.phase, Phase::Stable);
}

#[test]
fn law_6_while_nobody_is_proven_no_pod_of_a_first_revision_runs() {
    let mut world = created(platform());
    world.observation.people.admission.problems =
        vec!["ValidatingAdmissionPolicy x is missing".into()];
    go_on(&mut world, 2);
    approve(&mut world, "carol", &["platform"]);
    go_on(&mut world, 5);
    let waits = (waits_for(&world), pods(&world));
    assert_eq!(waits, (Some("AwaitingSignOff"), 0));
    assert_eq!(answer_of(&world, 0).1, "Unproven");
}

#[test]
fn law_7_a_first_revision_that_waits_is_not_let_go_by_a_loosened_policy() {
    let mut world = created(platform());
    go_on(&mut world, 2);
    let policy = &mut world.observation.policies[0];
    policy.spec.first_revision = None;
    policy.generation += 1;
    go_on(&mut world, 5);
    let waits = (waits_for(&world), pods(&world));
    assert_eq!(waits, (Some("AwaitingSignOff"), 0));
}

#[test]
fn a_policy_that_only_observes_reports_whom_a_first_revision_would_have_waited_for() {
    let mut policy = platform();
    policy.spec.enforcement = Enforcement::Observe;
    let mut world = created(policy);
    let decision = world.reconcile(&mut steady(1_000.0, 0.0, 0.0));
    let change = decision.status.change.clone().unwrap();
    let demand = &change.observed.unwrap().would[0];
    assert_eq!(
        (demand.reason.as_str(), demand.message.as_str()),
        (
            "AwaitingSignOff",
            "would have waited for 1 person of platform before the first pod"
        )
    );
    world.carry_out(&decision, usize::MAX);
    go_on(&mut world, 5);
    assert_eq!(world.observation.status.phase, Phase::Stable);
}

/// The record of a change that a deleted Rollout of the same name promoted, with the provenance of the present one.
fn former(template_digest: String) -> PastRun {
    let mut record = RolloutRunSpec {
        template_digest: Some(template_digest),
        ..RolloutRunSpec::default()
    };
    record.progress.outcome = Some(Outcome::Promoted);
    record.provenance.digest = provenance_digest(&observation("v1").annotations);
    PastRun::of("shop-former-3", &record)
}

/// Deleting a Rollout is no way around the people of its changes, as far as its records are left.
#[test]
fn law_2_a_rollout_made_again_with_another_template_waits_for_the_people_of_a_change() {
    let own = template_digest(&observation("v1").spec.template);
    for (template, records, asked) in [
        (None, None, false),
        (Some(own), None, false),
        (Some("f".repeat(64)), None, true),
        (None, Some("the API server is slow"), true),
    ] {
        let mut world = created(requiring(&[(1, &["approvers"])], |_| {}));
        world.observation.former = template.clone().map(former).into_iter().collect();
        world.unreadable_records = records.map(ToOwned::to_owned);
        go_on(&mut world, 1);
        // Once the change began, what it waits for is fixed.
        world.observation.former.clear();
        world.unreadable_records = None;
        go_on(&mut world, 5);
        let waits = waits_for(&world) == Some("AwaitingSignOff");
        assert_eq!((waits, pods(&world) == 0), (asked, asked), "{template:?}");
        if asked {
            let message = world.observation.status.message.clone();
            assert!(message.contains("1 person of approvers"), "{message}");
            assert!(message.contains("a deleted Rollout"), "{message}");
            approve(&mut world, "bob", &["approvers"]);
            go_on(&mut world, 5);
        }
        assert_eq!(
            world.observation.status.phase,
            Phase::Stable,
            "{template:?}"
        );
    }
}

/// Neither the old provenance nor the missing stable revision makes the new template harmless.
#[test]
fn law_7_a_rollout_made_again_with_the_old_provenance_has_the_tier_of_unknown_code() {
    let mut world = created(attended());
    world.observation.former = vec![former("f".repeat(64))];
    go_on(&mut world, 2);
    let change = world.observation.status.change.clone().unwrap();
    assert!(change.made_again && change.inherited_provenance);
    assert!(change.tier >= Tier::High, "{:?}", change.tier);
    assert!(change.run.ends_with("-4"), "{}", change.run);
    let waits = (waits_for(&world), pods(&world));
    assert_eq!(waits, (Some("AwaitingSignOff"), 0));
}

/// Its records would be written over those of the deleted Rollout.
#[test]
fn a_rollout_whose_former_records_cannot_be_found_has_runs_of_other_names() {
    let created_at = |edit: &dyn Fn(&mut World)| {
        let mut world = created(platform());
        world.observation.now = after(60 * 24);
        edit(&mut world);
        let decision = world.reconcile(&mut steady(1_000.0, 0.0, 0.0));
        decision.status.change.unwrap().run
    };
    assert!(created_at(&|_| {}).ends_with("-1"));
    let unreadable = created_at(&|it| it.unreadable_records = Some("slow".into()));
    let long = created_at(&|it| it.observation.name = "x".repeat(64));
    for run in [unreadable, long] {
        assert!(run.ends_with("-86401"), "{run}");
    }
}

/// The template is the one that was signed, and its pods serve.
#[test]
fn law_4_a_first_revision_keeps_its_pods_when_its_provenance_is_edited() {
    let mut world = created(platform());
    world.pods_apart = SignedDuration::from_mins(1);
    go_on(&mut world, 2);
    approve(&mut world, "carol", &["platform"]);
    go_on(&mut world, 8);
    let available = |world: &World| world.observation.replica_sets[0].available;
    let before = available(&world);
    assert!((1..20).contains(&before), "{before}");
    let stamped = annotations(&[("lines-added", "4")]);
    world.observation.annotations.extend(stamped);
    world.observation.generation += 1;
    go_on(&mut world, 1);
    assert!(available(&world) >= before, "{}", available(&world));
    assert_eq!(pods(&world), 20);
    go_on(&mut world, 30);
    assert_eq!(world.observation.status.phase, Phase::Stable);
}
