//! Approvers: who counts, and who is excluded.

use super::*;

#[test]
pub(crate) fn law_2_only_the_right_people_count_and_each_answer_has_the_reason() {
    let policy = requiring(&[(1, &["approvers"])], |spec| {
        spec.people = People {
            aliases: vec![Alias {
                user: "al".into(),
                identities: vec!["Alice".into()],
            }],
            agent_groups: vec!["agents".into()],
            ..People::default()
        };
    });
    let mut world = waiting(policy);
    let now = world.observation.now;
    world
        .observation
        .annotations
        .insert(CHANGED_BY_ANNOTATION.into(), "Erin".into());
    let group = &["approvers"][..];
    approve(&mut world, "ALICE", group);
    approve(&mut world, "al", group);
    approve(&mut world, "erin", group);
    approve(&mut world, "robot", &["approvers", "agents"]);
    approve(&mut world, "system:serviceaccount:ci:deployer", group);
    sign(&mut world, person("bob", group), |spec| {
        spec.digest = "0".repeat(64);
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.run = "shop-other-1".into();
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.rollout_uid = "another".into();
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.expires_at = Some(Time(now));
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.gate = Some("step-99".into());
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.gate = Some("promotion".into());
    });
    approve(&mut world, "carol", &["senior"]);
    go_on(&mut world, 2);
    assert_eq!(step(&world), 0, "nobody who may has signed this gate");
    let reasons: Vec<_> = (0..12).map(|number| answer_of(&world, number).1).collect();
    let expected = [
        "ByAuthor",
        "ByAuthor",
        "ByAuthor",
        "ByAgent",
        "NotAPerson",
        "OtherChange",
        "OtherChange",
        "OtherChange",
        "Expired",
        "NoSuchGate",
        "Counts",
        "Counts",
    ];
    assert_eq!(reasons, expected);
    approve(&mut world, "bob", group);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
}

#[test]
pub(crate) fn two_people_are_two_people() {
    let policy = requiring(&[(2, &[]), (1, &["senior"])], |spec| {
        let bob = Alias {
            user: "bob".into(),
            identities: vec!["bob-admin".into()],
        };
        spec.people.aliases = vec![bob];
    });
    let mut world = waiting(policy);
    approve(&mut world, "bob", &[]);
    approve(&mut world, "Bob", &[]);
    approve(&mut world, "bob-admin", &["senior"]);
    go_on(&mut world, 2);
    assert_eq!(step(&world), 0);
    assert_eq!(answer_of(&world, 1).1, "SamePerson");
    let message = world.observation.status.message.clone();
    assert!(message.contains("2 people (1 so far: bob)"), "{message}");
    approve(&mut world, "carol", &["senior"]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
}

#[test]
pub(crate) fn nobody_is_excluded_from_rejecting() {
    let hidden = format!("alice{}", ", x".repeat(2_000));
    for (user, groups, authors) in [
        ("alice", &["approvers"][..], "alice@example.org"),
        ("mallory", &["approvers"], "alice@example.org"),
        ("robot", &["approvers", "agents"], "alice@example.org"),
        ("bob", &["approvers"], hidden.as_str()),
    ] {
        let mut world = serving();
        world.observation.policies = vec![requiring(&[(1, &["approvers"])], |spec| {
            spec.people.agent_groups = vec!["agents".into()];
            let low = spec.tiers.low.clone();
            spec.tiers.high = low.clone();
            spec.tiers.critical = low;
        })];
        let mut provenance = harmless();
        provenance.extend(annotations(&[("authors", authors)]));
        provenance.insert(CHANGED_BY_ANNOTATION.into(), "mallory".into());
        change(&mut world, "v2", provenance);
        go_on(&mut world, 2);
        assert_eq!(waits_for(&world), Some("AwaitingSignOff"), "{user}");
        for decision in [SignOffDecision::Approve, SignOffDecision::BreakGlass] {
            sign(&mut world, person(user, groups), |spec| {
                spec.decision = decision;
            });
        }
        go_on(&mut world, 2);
        assert_eq!(step(&world), 0, "{user}");
        assert!(!answer_of(&world, 0).0 && !answer_of(&world, 1).0, "{user}");

        sign(&mut world, person(user, groups), |spec| {
            spec.decision = SignOffDecision::Reject;
        });
        go_on(&mut world, 5);
        assert_eq!(answer_of(&world, 2), (true, "Counts".into()), "{user}");
        assert_eq!(world.observation.status.phase, Phase::Degraded, "{user}");
    }
}

#[test]
pub(crate) fn the_user_who_changed_the_pods_does_not_sign_whatever_the_provenance_becomes() {
    let mut world = serving();
    world.observation.policies = vec![requiring(&[(1, &[])], |_| {})];
    change(
        &mut world,
        "v2",
        annotations(&[("contributor", "human"), ("authors", "zoe")]),
    );
    world
        .observation
        .annotations
        .insert(CHANGED_BY_ANNOTATION.into(), "mallory".into());
    go_on(&mut world, 1);
    // The pipeline adds what it knows, which is another change by another user.
    let mut known = harmless();
    known.insert(CHANGED_BY_ANNOTATION.into(), "pipeline".into());
    world.observation.annotations = known;
    go_on(&mut world, 2);
    approve(&mut world, "mallory", &[]);
    go_on(&mut world, 2);
    assert_eq!(
        (step(&world), answer_of(&world, 0).1),
        (0, "ByAuthor".into())
    );
}

#[test]
pub(crate) fn authors_that_cannot_be_read_may_be_anybody() {
    let mut world = serving();
    world.observation.policies = vec![requiring(&[(1, &[])], |spec| {
        let high = spec.tiers.low.clone();
        spec.tiers.high = high.clone();
        spec.tiers.critical = high;
    })];
    let mut hidden = harmless();
    hidden.extend(annotations(&[(
        "authors",
        &format!("alice{}", ", x".repeat(2_000)),
    )]));
    change(&mut world, "v2", hidden);
    go_on(&mut world, 1);
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 2);
    assert_eq!(
        (step(&world), answer_of(&world, 0).1),
        (0, "ByAuthor".into())
    );
}

/// A later edit, by somebody with no part in the lines, makes nobody an approver of them.
#[test]
pub(crate) fn who_had_a_hand_in_a_superseded_change_approves_none_that_takes_its_place() {
    let mut world = serving();
    world.observation.policies = vec![requiring(&[(1, &[])], |_| {})];
    let by = |author: &str, changer: &str| {
        let mut provenance = harmless();
        provenance.extend(annotations(&[("authors", author)]));
        provenance.insert(CHANGED_BY_ANNOTATION.into(), changer.into());
        provenance
    };
    change(&mut world, "v2", by("mallory", "eve"));
    go_on(&mut world, 2);
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
    let first = world.observation.status.change.clone().unwrap();
    change(&mut world, "v3", by("alice", "pipeline"));
    go_on(&mut world, 3);
    let next = world.observation.status.change.clone().unwrap();
    assert_ne!(next.digest, first.digest);
    approve(&mut world, "mallory", &[]);
    approve(&mut world, "eve", &[]);
    go_on(&mut world, 2);
    let reasons = [0, 1].map(|number| answer_of(&world, number).1);
    assert_eq!(
        (step(&world), reasons),
        (0, ["ByAuthor", "ByAuthor"].map(Into::into))
    );

    // Once the stable template is back, nothing is left of what they did.
    change(&mut world, "v1", harmless());
    go_on(&mut world, 3);
    assert_eq!(world.observation.status.phase, Phase::Stable);
    change(&mut world, "v4", by("alice", "pipeline"));
    go_on(&mut world, 2);
    approve(&mut world, "mallory", &[]);
    go_on(&mut world, 1);
    assert_eq!((step(&world), answer_of(&world, 2).1), (1, "Counts".into()));
}

/// Finding F5: an account that no commit name belongs to could be the author's second one.
#[test]
pub(crate) fn law_2_if_everybody_must_be_known_an_unknown_person_makes_approvals_void() {
    let alias = |user: &str, identity: &str| Alias {
        user: user.into(),
        identities: vec![identity.into()],
    };
    let policy = requiring(&[(1, &[])], |spec| {
        spec.people = People {
            aliases: vec![
                alias("oidc:alice", "alice"),
                alias("oidc:bob", "bob"),
                alias("carol", "Carol Cole <carol@example.org>"),
            ],
            require_known: true,
            ..People::default()
        };
    });
    let mut world = waiting(policy.clone());
    approve(&mut world, "dave", &[]);
    sign(&mut world, person("dave", &[]), |spec| {
        spec.decision = SignOffDecision::BreakGlass;
    });
    go_on(&mut world, 2);
    let reasons = [0, 1].map(|number| answer_of(&world, number).1);
    let unknown = ["UnknownPerson", "UnknownPerson"].map(ToOwned::to_owned);
    assert_eq!((step(&world), reasons), (0, unknown));
    approve(&mut world, "carol", &[]);
    go_on(&mut world, 1);
    assert_eq!((step(&world), answer_of(&world, 2).1), (1, "Counts".into()));

    for (key, unknown) in [("authors", "zoe"), ("reviewers", "zoe"), ("authors", "")] {
        let mut world = serving();
        world.observation.policies = vec![policy.clone()];
        let mut provenance = harmless();
        provenance.extend(annotations(&[(key, unknown)]));
        change(&mut world, "v2", provenance);
        go_on(&mut world, 2);
        assert_eq!(waits_for(&world), Some("AwaitingSignOff"), "{key}");
        approve(&mut world, "carol", &[]);
        go_on(&mut world, 2);
        let answer = answer_of(&world, 0);
        assert_eq!(
            (step(&world), answer.1),
            (0, "UnknownPerson".into()),
            "{key}"
        );
    }
}

#[test]
pub(crate) fn law_2_of_more_changers_than_can_be_named_anybody_may_be_one() {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    let stamp = "*\nzoe".to_owned();
    world
        .observation
        .annotations
        .insert(CHANGED_BY_ANNOTATION.into(), stamp);
    go_on(&mut world, 1);
    approve(&mut world, "bob", &[]);
    sign(&mut world, person("dave", &[]), |spec| {
        spec.decision = SignOffDecision::BreakGlass;
    });
    go_on(&mut world, 2);
    let reasons = [0, 1].map(|number| answer_of(&world, number).1);
    assert_eq!(
        (step(&world), reasons),
        (0, ["ByAuthor", "ByAuthor"].map(Into::into))
    );
    let mut conditions = world.observation.status.conditions.iter();
    let proven = conditions.find(|it| it.type_ == "SignOffsProven").unwrap();
    assert_eq!(proven.reason, "ChangerUnknown");
    assert!(proven.message.contains("more people"), "{}", proven.message);
}
