//! Sign-offs: for which change and gate, and until when.

use countersign_api::HASH_LABEL;
use countersign_core::decision::TrafficAction;
use countersign_core::observation::workload::Service;

use super::*;

#[test]
pub(crate) fn a_sign_off_opens_its_gate_and_the_record_holds_what_the_approver_saw() {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
    assert_eq!(answer_of(&world, 0), (true, "Counts".into()));
    assert_eq!(
        message(&world, "SignedOff"),
        "all gates signed off by bob: looks good"
    );
}

#[test]
pub(crate) fn an_approver_in_mid_rollout_is_recorded_with_the_evidence_so_far() {
    let mut policy = unattended();
    policy.spec.tiers.low.promotion_sign_off = Some(vec![SignOffDemand {
        count: 1,
        groups: vec![],
    }]);
    let mut world = serving();
    world.observation.policies = vec![policy];
    change(&mut world, "v2", harmless());
    go_on(&mut world, 30);
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
    sign(&mut world, person("bob", &[]), |spec| {
        spec.gate = Some("promotion".into());
    });
    let decision = world.reconcile(&mut steady(5_000.0, 0.001, 0.001));
    world.carry_out(&decision, usize::MAX);
    lawful(&world);
    let change = world.observation.status.change.clone().unwrap();
    let line = change
        .transitions
        .iter()
        .find(|line| line.reason == "SignedOff")
        .unwrap();
    assert!(
        line.evidence[0].canary.requests > 1_000.0,
        "{:?}",
        line.evidence
    );
}

/// Only the Rollout itself requires people, or a policy requires others beside them.
#[test]
pub(crate) fn law_2_what_the_rollout_requires_before_its_promotion_is_awaited() {
    let demand = |groups: &[&str]| SignOffDemand {
        count: 1,
        groups: groups.iter().map(|it| (*it).to_owned()).collect(),
    };
    let mut policy = unattended();
    policy.spec.tiers.low.promotion_sign_off = Some(vec![demand(&["senior"])]);
    for (policy, policy_requires) in [(unattended(), false), (policy, true)] {
        let mut world = serving();
        world.observation.policies = vec![policy];
        world.observation.spec.strategy.canary.promotion_sign_off = vec![demand(&["product"])];
        change(&mut world, "v2", harmless());
        go_on(&mut world, 30);
        assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
        let status = &world.observation.status;
        assert_eq!(status.step.as_deref(), Some("3/3"));
        assert!(
            status.message.contains("1 person of product"),
            "{}",
            status.message
        );

        // Taking the demand back loosens the next change, not this one.
        world
            .observation
            .spec
            .strategy
            .canary
            .promotion_sign_off
            .clear();
        world.observation.generation += 1;
        approve(&mut world, "erin", &["senior"]);
        go_on(&mut world, 2);
        assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
        let plan = &world.observation.status.change.as_ref().unwrap().plan;
        let demands = plan.promotion_sign_off.len();
        assert_eq!(demands, 1 + usize::from(policy_requires));
        approve(&mut world, "bob", &["product"]);
        go_on(&mut world, 10);
        assert_eq!(world.observation.status.phase, Phase::Stable);
        assert_eq!(stable_image(&world), "example.org/shop:v2");
    }
}

/// Under the built-in policy no change waits for people who were never named.
#[test]
pub(crate) fn the_built_in_policy_stages_a_risky_change_and_requires_nobody() {
    for (annotations, tier) in [(risky(), Tier::High), (BTreeMap::new(), Tier::Critical)] {
        let mut world = serving();
        world.observation.policies.clear();
        change(&mut world, "v2", annotations);
        go_on(&mut world, 5);
        let change = world.observation.status.change.clone().unwrap();
        assert_eq!((change.tier, change.step, change.weight), (tier, 1, 1));
        go_on(&mut world, 60 * 6);
        assert_eq!(world.observation.status.phase, Phase::Stable, "{tier}");
        assert_eq!(stable_image(&world), "example.org/shop:v2", "{tier}");
    }
}

#[test]
pub(crate) fn a_sign_off_ends_with_its_expiry() {
    let mut world = waiting(requiring(&[(2, &[])], |_| {}));
    let end = minutes_on(&world, 10);
    sign(&mut world, person("bob", &[]), |spec| {
        spec.expires_at = Some(Time(end));
    });
    go_on(&mut world, 1);
    assert_eq!(answer_of(&world, 0), (true, "Counts".into()));
    go_on(&mut world, 15);
    assert_eq!(answer_of(&world, 0), (false, "Expired".into()));
    approve(&mut world, "carol", &[]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 0, "bob's was over when carol signed");
}

#[test]
pub(crate) fn law_6_without_admission_policies_no_sign_off_counts() {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    world.observation.people.admission.problems =
        vec!["ValidatingAdmissionPolicy x is missing".into()];
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 2);
    assert_eq!(
        (step(&world), answer_of(&world, 0).1),
        (0, "Unproven".into())
    );
    let conditions = &world.observation.status.conditions;
    let proven = conditions
        .iter()
        .find(|it| it.type_ == "SignOffsProven")
        .unwrap();
    assert_eq!(
        (proven.status.as_str(), proven.reason.as_str()),
        ("False", "Unproven")
    );
    assert!(proven.message.contains("is missing"));

    // They come back: what was signed meanwhile stays unproven.
    world.observation.people.admission.problems.clear();
    world.observation.people.admission.since = Some(world.observation.now);
    go_on(&mut world, 2);
    assert_eq!(
        (step(&world), answer_of(&world, 0).1),
        (0, "Unproven".into())
    );
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
}

/// AR#4728: approve A, replace it by B at every moment around the approval; B never uses it.
#[test]
pub(crate) fn an_approval_of_one_change_never_lets_another_through() {
    for approved in 0..4 {
        for replaced in 0..6 {
            let mut world = waiting(requiring(&[(1, &[])], |_| {}));
            let seen = world.observation.status.change.clone().unwrap();
            for moment in 0..6 {
                if moment == approved {
                    sign(&mut world, person("bob", &[]), |spec| {
                        (spec.run, spec.digest) = (seen.run.clone(), seen.digest.clone());
                    });
                }
                if moment == replaced {
                    change(&mut world, "v3", harmless());
                }
                let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
                world.carry_out(&decision, usize::MAX);
            }
            change(&mut world, "v3", harmless());
            go_on(&mut world, 5);
            let change = world.observation.status.change.clone().unwrap();
            let template = countersign_core::provenance::digest::template_digest(
                &world.observation.spec.template,
            );
            assert_eq!(change.template_digest, template, "v3 is under way");
            assert_eq!(
                change.step, 0,
                "approved at {approved}, replaced at {replaced}"
            );
            assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
        }
    }
}

#[test]
pub(crate) fn an_edit_of_the_provenance_voids_the_approval() {
    let mut world = waiting(requiring(&[(2, &[])], |_| {}));
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    let mut edited = harmless();
    edited.extend(annotations(&[("lines-added", "4")]));
    world.observation.annotations = edited;
    go_on(&mut world, 2);
    approve(&mut world, "carol", &[]);
    go_on(&mut world, 2);
    assert_eq!(step(&world), 0, "bob signed another change");
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
}

/// Finding F3: without the admission policy `steady-traffic`.
#[test]
pub(crate) fn law_12_an_edit_of_where_the_traffic_goes_starts_the_change_again_and_voids_its_approvals()
 {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 2);
    let signed = world.observation.status.change.clone().unwrap();
    assert_eq!((signed.step, signed.weight), (1, 5));

    let public = Service {
        kind: "ClusterIP".into(),
        selector: [("app".into(), "shop".into())].into(),
    };
    let seen = &mut world.observation;
    seen.traffic.services.insert("shop".into(), Some(public));
    seen.spec.strategy.canary.canary_service = Some("shop".into());
    seen.generation += 1;
    // Not for a moment either, while pods of the signed attempt are left.
    let selects_canary = |seen: &Observation| {
        let service = seen.traffic.services["shop"].as_ref().unwrap();
        service.selector.get(HASH_LABEL) == Some(&signed.pod_template_hash)
    };
    let soon = minutes_on(&world, 5);
    let traffic = &mut steady(5_000.0, 0.001, 0.001);
    assert!(!world.run(soon, traffic, selects_canary));
    lawful(&world);
    let again = world.observation.status.change.clone().unwrap();
    assert_eq!(again.template_digest, signed.template_digest);
    assert_ne!((again.digest, again.run), (signed.digest, signed.run));
    assert_eq!((again.step, again.weight), (0, 0));
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));

    approve(&mut world, "bob", &[]);
    go_on(&mut world, 2);
    assert_eq!(step(&world), 1);
}

/// Finding F3: what marks testers may be on every request, so that all of them are the canary's.
#[test]
pub(crate) fn law_2_testers_reach_the_canary_once_everybody_has_signed() {
    for allowed in [false, true] {
        let mut world = crate::routes::routed(|seen| {
            let traffic = seen.spec.strategy.canary.traffic.as_mut().unwrap();
            let everybody =
                json!({ "headers": [{ "name": "x-forwarded-proto", "value": "https" }] });
            traffic.testers = serde_json::from_value(everybody).unwrap();
            let low = &mut seen.policies[0].spec.tiers.low;
            low.testers_before_sign_off = Some(allowed);
            low.promotion_sign_off = Some(vec![SignOffDemand {
                count: 1,
                groups: vec!["senior".into()],
            }]);
        });
        change(&mut world, "v2", harmless());
        let reached = |seen: &Observation| {
            let mut actions = decide(seen).actions.into_iter();
            actions.any(|it| matches!(it, Action::Traffic(TrafficAction::ApplyTesters(_))))
        };
        let soon = minutes_on(&world, 30);
        let traffic = &mut steady(5_000.0, 0.0, 0.0);
        assert_eq!(world.run(soon, traffic, reached), allowed);
        assert_eq!(step(&world), i32::from(allowed));
        if !allowed {
            assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
            let plan = &world.observation.status.change.as_ref().unwrap().plan;
            assert!(plan.tightened.iter().any(|it| it.contains("testers")));
            approve(&mut world, "bob", &["senior"]);
            let soon = minutes_on(&world, 30);
            assert!(world.run(soon, traffic, reached));
        }
        lawful(&world);
    }
}

#[test]
pub(crate) fn a_rejection_rolls_back_and_wins_over_approvals() {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    approve(&mut world, "bob", &[]);
    sign(&mut world, person("carol", &[]), |spec| {
        spec.decision = SignOffDecision::Reject;
    });
    go_on(&mut world, 5);
    assert_eq!(world.observation.status.phase, Phase::Degraded);
    assert_eq!(message(&world, "Rejected"), "rejected by carol: looks good");
    go_on(&mut world, 600);
    assert_eq!(world.observation.status.phase, Phase::Degraded, "law 8");
}

#[test]
pub(crate) fn a_sign_off_of_one_attempt_is_none_of_the_next() {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    approve(&mut world, "bob", &[]);
    let until = minutes_on(&world, 60);
    assert!(
        world.run(until, &mut steady(5_000.0, 0.3, 0.0), |o| o.status.phase
            == Phase::Degraded)
    );
    command(&mut world, "alice", InterventionAction::Retry);
    go_on(&mut world, 10);
    assert_eq!(
        (step(&world), waits_for(&world)),
        (0, Some("AwaitingSignOff"))
    );
}
