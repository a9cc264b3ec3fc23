use countersign_api::provenance::ReviewSource;

use super::*;

#[test]
fn every_annotation_is_read() {
    let read = read(&GOOD);
    assert_eq!(
        (read.state, read.problems.as_slice()),
        (State::Declared, [].as_slice())
    );
    assert_eq!(read.contributor, Some(Contributor::Mixed));
    assert_eq!(read.ai_share, Some(62.5));
    let model = Some("anthropic/claude-opus-4".to_owned());
    assert_eq!(
        read.agents[0],
        Agent {
            tool: "claude-code".into(),
            model
        }
    );
    assert_eq!(
        read.agents[1],
        Agent {
            tool: "Cursor".into(),
            model: None
        }
    );
    assert_eq!(
        (read.files, read.lines, read.subsystems),
        (Some(7), Some(312), Some(3))
    );
    assert_eq!(
        read.touches,
        ["auth".to_owned(), "payments".to_owned()].into()
    );
    assert_eq!(read.tests, Some(TestResult::Passed));
    assert!(
        matches!(read.review(), Review::Independent(carol) if carol.to_string().contains("Carol"))
    );
    assert_eq!(read.review_source, Some(ReviewSource::Forge));
    assert_eq!(read.committed_at, "2026-11-24T12:00:00Z".parse().ok());
    assert!(!read.is_autonomous());
}

#[test]
fn an_assisted_by_trailer_names_tool_and_model() {
    let read = good_but("agents", Some("Claude:claude-3-opus"));
    assert_eq!(read.agents[0].tool, "Claude");
    assert_eq!(read.agents[0].model.as_deref(), Some("claude-3-opus"));
}

#[test]
fn what_no_annotation_declares_is_absent_provenance() {
    for of in [
        vec![],
        vec![
            ("image", IMAGE),
            ("revision", "9f3c2e1"),
            ("repository", "x"),
            ("review-source", "Forge"),
            ("committed-at", "2026-11-24T12:00:00Z"),
            ("attestation", "e30="),
        ],
        vec![("authors", " , "), ("touches", "")],
        vec![("risk", "low")],
    ] {
        assert_eq!(read(&of).state, State::Absent, "{of:?}");
    }
    let foreign = [("example.org/contributor".to_owned(), "human".to_owned())].into();
    assert_eq!(
        Provenance::read(&foreign, &template()),
        Provenance::default()
    );
}

#[test]
fn garbage_is_a_problem_that_names_the_annotation_and_counts_as_unknown() {
    let garbage = [
        ("contributor", "robot"),
        ("contributor", ""),
        ("ai-share", "NaN"),
        ("ai-share", "-1"),
        ("ai-share", "100.1"),
        ("ai-share", "1e1"),
        ("ai-share", "inf"),
        ("ai-share", "62%"),
        ("ai-share", "."),
        ("lines-added", "-5"),
        ("lines-added", "+5"),
        ("lines-added", "0x10"),
        ("lines-added", "1e300"),
        ("lines-added", "99999999999999999999"),
        ("lines-added", "1000000001"),
        ("lines-added", "३"),
        ("lines-deleted", "3.5"),
        ("subsystems", "NaN"),
        ("files-changed", "many"),
        ("tests", "GREEN"),
        ("tests", "passed!"),
        ("authors", "bob\u{200b}"),
        ("reviewers", "\u{202e}bob"),
        ("touches", "auth\u{1b}[2K"),
        ("revision", ""),
        ("review-source", "rumour"),
        ("committed-at", ""),
        ("committed-at", "yesterday"),
        ("committed-at", "1795521600"),
        ("committed-at", "2026-11-24"),
        ("committed-at", "2026-11-24T12:00:00"),
        ("committed-at", "2026-13-24T12:00:00Z"),
    ];
    for (key, value) in garbage {
        let read = good_but(key, Some(value));
        assert_eq!(read.state, State::Malformed, "{key}={value:?}");
        assert_eq!(
            read.problems.len(),
            1,
            "{key}={value:?}: {:?}",
            read.problems
        );
        let message = read.problems[0].to_string();
        assert!(
            message.contains(&format!("{PROVENANCE_PREFIX}{key} ")),
            "{message}"
        );
        let without = good_but(key, None);
        let unknown = Provenance {
            state: State::Malformed,
            problems: read.problems.clone(),
            ..without
        };
        assert_eq!(read, unknown, "{key}={value:?}");
    }
}

#[test]
fn answers_that_contradict_each_other_are_not_trusted() {
    for (of, key) in [
        (&[("contributor", "human"), ("ai-share", "80")], "ai-share"),
        (&[("contributor", "human"), ("agents", "Claude")], "agents"),
        (&[("contributor", "ai"), ("ai-share", "0")], "ai-share"),
    ] {
        let read = read(of);
        assert_eq!(
            (read.state, read.contributor, read.ai_share),
            (State::Malformed, None, None)
        );
        assert!(
            read.problems[0].to_string().contains(key),
            "{}",
            read.problems[0]
        );
    }
}

#[test]
fn a_200_kib_annotation_is_a_problem_and_no_panic() {
    let huge = "x".repeat(200 * 1024);
    let read = good_but("attestation", Some(&huge));
    assert_eq!((read.state, read.lines), (State::Malformed, None));
    assert!(
        read.problems[0]
            .to_string()
            .contains("shorten them to 65536"),
        "{}",
        read.problems[0]
    );
    let long = good_but("authors", Some(&"x".repeat(MAX_VALUE + 1)));
    assert_eq!(
        (long.state, long.authors.len(), long.lines),
        (State::Malformed, 0, Some(312))
    );
    assert_eq!(
        long.problems,
        [Problem::TooLong {
            key: "authors",
            length: MAX_VALUE + 1
        }]
    );
}

#[test]
fn an_attestation_may_be_longer_than_the_others() {
    let of = |length: usize| good_but("attestation", Some(&"x".repeat(length)));
    let longest = of(MAX_ATTESTATION);
    assert_eq!(
        (longest.state, longest.problems.len()),
        (State::Declared, 0)
    );
    let longer = of(MAX_ATTESTATION + 1);
    assert_eq!((longer.state, longer.attestation), (State::Malformed, None));
    assert!(
        longer.problems[0]
            .to_string()
            .contains("has 32769 bytes: shorten it to 32768"),
        "{}",
        longer.problems[0]
    );
}

#[test]
fn what_is_attested_completes_what_is_declared() {
    let both = |declared: &[(&str, &str)], attested: &[(&str, &str)]| {
        Provenance::read_both(&annotations(declared), &annotations(attested), &template())
    };
    let (declared, alone) = both(&[("attestation", "e30=")], &GOOD);
    assert_eq!(
        (declared.state, declared.lines),
        (State::Declared, Some(312))
    );
    assert_eq!((alone.state, alone.attestation), (State::Declared, None));

    let (declared, alone) = both(&[("authors", "mallory"), ("tests", "FAILED")], &GOOD);
    assert_eq!(declared.authors, [Identity::of("mallory")]);
    assert_eq!(
        (declared.tests, declared.lines),
        (Some(TestResult::Failed), Some(312))
    );
    assert_eq!(
        (alone.authors.len(), alone.tests),
        (2, Some(TestResult::Passed))
    );

    let (declared, alone) = both(&[("contributor", "human")], &GOOD);
    assert_eq!(
        (declared.state, alone.state),
        (State::Malformed, State::Declared)
    );
    assert!(
        declared.problems[0]
            .to_string()
            .contains("correct one of them"),
        "{}",
        declared.problems[0]
    );

    let (declared, alone) = both(&[("tests", "PASSED")], &[("tests", "GREEN")]);
    assert_eq!(
        (declared.state, alone.state),
        (State::Declared, State::Malformed)
    );
    assert!(
        declared.problems[0]
            .to_string()
            .starts_with("in the attestation: "),
        "{}",
        declared.problems[0]
    );
}

#[test]
fn a_refused_attestation_is_reported_first() {
    use problem::Problem::{Missing, UnknownPredicate};
    let failed = || UnknownPredicate { found: "x".into() };
    let state = |of: &[(&str, &str)], why| read(of).refused(why).state;
    assert_eq!(state(&GOOD, failed()), State::Malformed);
    assert_eq!(state(&GOOD, Missing), State::Unattested);
    assert_eq!(state(&[], failed()), State::Malformed);
    assert_eq!(state(&[], Missing), State::Absent);
    assert_eq!(state(&[("image", "other")], failed()), State::Stale);
    assert_eq!(state(&[("tests", "GREEN")], Missing), State::Malformed);
    let both = read(&[("tests", "GREEN")]).refused(failed());
    assert_eq!(both.problems.len(), 2);
    let first = both.problems[0].to_string();
    assert!(
        first.starts_with("annotation provenance.countersign.dev/attestation: its predicate"),
        "{first}"
    );
}

#[test]
fn unknown_keys_are_named_and_ignored() {
    let read = good_but("ai_share", Some("\u{1b}[31m"));
    assert_eq!(read.state, State::Declared);
    let message = read.problems[0].to_string();
    assert!(
        message.contains("ai_share") && message.contains("ai-share"),
        "{message}"
    );
}

#[test]
fn provenance_of_another_image_is_stale() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let by_digest = PodTemplate(json!({ "spec": {
            "initContainers": [{ "name": "init", "image": "busybox" }],
            "containers": [{ "name": "web", "image": format!("shop:1.4.2@{digest}") }],
        } }));
    let state = |image: &str| {
        Provenance::read(
            &annotations(&[("contributor", "human"), ("image", image)]),
            &by_digest,
        )
        .state
    };
    assert_eq!(state(&digest), State::Declared);
    assert_eq!(
        state(&format!("mirror.example/shop@{digest}")),
        State::Declared
    );
    assert_eq!(state("busybox"), State::Declared);
    assert_eq!(state(" busybox "), State::Declared);
    assert_eq!(state("shop:1.4.2"), State::Stale);
    assert_eq!(state(&digest.replace('a', "b")), State::Stale);
    assert_eq!(state("sha256:"), State::Stale);
    assert_eq!(state(""), State::Stale);
}

#[test]
fn nothing_stale_counts_but_its_people_stay_known() {
    let stale = good_but("image", Some("shop:old"));
    let message = stale.problems[0].to_string();
    assert!(message.contains("shop:old"), "{message}");
    assert_eq!(stale.state, State::Stale);
    assert_eq!(
        (stale.contributor, stale.lines, stale.tests),
        (None, None, None)
    );
    assert!(matches!(stale.review(), Review::Missing(_)) && stale.is_autonomous());
    assert_eq!(stale.authors.len(), 2);
}

#[test]
fn only_an_independent_person_reviews() {
    let reviewed = |reviewers: &str| {
        matches!(
            good_but("reviewers", Some(reviewers)).review(),
            Review::Independent(_)
        )
    };
    assert!(reviewed("carol"));
    assert!(reviewed("bob, carol"));
    for nobody in [
        "",
        "bob",
        "@Bob",
        "BOB <someone@else>",
        "<JANE@example.org>",
        "Jane Doe",
        "jane  doe <other@example.org>",
        "Claude Code <noreply@anthropic.com>",
        "anthropic/claude-opus-4",
        "cursor",
        "dependabot[bot]",
        "49699333+dependabot[bot]@users.noreply.github.com",
        "Renovate[BOT] <r@example.org>, bob",
    ] {
        assert!(!reviewed(nobody), "{nobody}");
    }
}

#[test]
fn a_review_of_another_revision_is_none() {
    let other = good_but("approved-revision", Some("0000000"));
    assert!(matches!(other.review(), Review::Stale { .. }));
    for key in ["approved-revision", "revision"] {
        assert!(
            matches!(good_but(key, None).review(), Review::Missing(_)),
            "{key}"
        );
    }
}

#[test]
fn who_hides_an_author_or_the_operator_has_no_review() {
    for key in ["authors", "human-operator"] {
        assert!(
            matches!(good_but(key, None).review(), Review::Missing(_)),
            "{key}"
        );
    }
    let bot = good_but("human-operator", Some("Claude Code"));
    assert!(matches!(bot.review(), Review::Missing(_)));
}

#[test]
fn an_agent_without_a_person_is_autonomous() {
    let autonomous = |of: &[(&str, &str)]| read(of).is_autonomous();
    assert!(autonomous(&[("contributor", "ai")]));
    assert!(autonomous(&[
        ("contributor", "ai"),
        ("human-operator", "renovate[bot]")
    ]));
    assert!(autonomous(&[("contributor", "ai"), ("authors", "jane")]));
    assert!(autonomous(&[
        ("contributor", "mixed"),
        ("agents", "Claude"),
        ("authors", "claude")
    ]));
    assert!(autonomous(&[
        ("contributor", "unknown"),
        ("authors", "jane")
    ]));
    assert!(autonomous(&[]));
    assert!(!autonomous(&[
        ("contributor", "ai"),
        ("human-operator", "jane")
    ]));
    assert!(!autonomous(&[
        ("contributor", "mixed"),
        ("authors", "jane")
    ]));
    assert!(!autonomous(&[("contributor", "human")]));
}
