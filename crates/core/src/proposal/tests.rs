use countersign_api::PROVENANCE_PREFIX;
use countersign_api::provenance::{ReviewSource, TrustedKey};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::policy;
use crate::provenance::attestation::keys::public_key_pem;
use crate::provenance::attestation::statement::{Predicate, Statement};
use crate::risk::tests::HARMLESS;

/// A key that OpenSSL made for these tests alone.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKC/upcHwprQPZ/md9B50ATU5benfIgaTYS6hHhpNYqD
-----END PRIVATE KEY-----
";

type Annotations = BTreeMap<String, String>;

fn annotations(of: &[(&str, &str)]) -> Annotations {
    of.iter()
        .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), (*value).to_owned()))
        .collect()
}

fn image() -> String {
    format!("shop@sha256:{}", "a".repeat(64))
}

fn attestation_of(image: &str, attested: &Annotations) -> String {
    attestation_from(image, attested, None)
}

/// An attestation that counts from this revision.
fn attestation_from(image: &str, attested: &Annotations, base: Option<&str>) -> String {
    let about = Predicate {
        base: base.map(ToOwned::to_owned),
        ..Predicate::default()
    };
    let statement = Statement::of(&[image], attested, about).unwrap();
    statement.sign(PRIVATE, "ci").unwrap()
}

fn with_attestation(mut declared: Annotations, attestation: String) -> Annotations {
    declared.insert(format!("{PROVENANCE_PREFIX}attestation"), attestation);
    declared
}

fn effective(trust: Trust, keys: usize) -> Effective {
    let key = TrustedKey {
        name: "ci".into(),
        public_key: public_key_pem(PRIVATE).unwrap(),
        ..TrustedKey::default()
    };
    Effective {
        trust,
        keys: vec![vec![key]; keys],
        ..policy::effective(&[])
    }
}

fn sources(annotations: &Annotations, effective: &Effective) -> (Provenance, Option<Provenance>) {
    sources_over(None, annotations, effective)
}

/// The provenance of a change that replaces this revision.
fn sources_over(
    replaced: Option<&Revision>,
    annotations: &Annotations,
    effective: &Effective,
) -> (Provenance, Option<Provenance>) {
    let template = PodTemplate(json!({ "spec": { "containers": [{ "image": image() }] } }));
    let now = Timestamp::UNIX_EPOCH;
    let subject = || Subject {
        namespace: "shop",
        name: "web",
        template: &template,
        stable: None,
        replaced,
        first: false,
        began: now,
    };
    provenance_of(annotations, &template, subject, effective, now)
}

fn risk(annotations: &Annotations, effective: &Effective) -> Risk {
    risk_over(None, annotations, effective)
}

fn risk_over(
    replaced: Option<&Revision>,
    annotations: &Annotations,
    effective: &Effective,
) -> Risk {
    let (declared, attested) = sources_over(replaced, annotations, effective);
    let facts = Facts::default();
    risk::risk_of_both(&declared, attested.as_ref(), &facts, &effective.risk)
}

/// A revision of which the source is known.
fn running(source_revision: &str) -> Revision {
    Revision {
        source_revision: Some(source_revision.to_owned()),
        ..Revision::default()
    }
}

#[test]
fn without_a_key_what_is_declared_counts_as_ever() {
    let declared = with_attestation(annotations(&HARMLESS), "garbage".into());
    let (provenance, attested) = sources(&declared, &effective(Trust::Declared, 0));
    assert_eq!((provenance.state, attested), (State::Declared, None));
    let plain = annotations(&HARMLESS);
    let (provenance, attested) = sources(&plain, &effective(Trust::Declared, 1));
    assert_eq!((provenance.state, attested), (State::Declared, None));
    assert_eq!(risk(&plain, &effective(Trust::Declared, 1)).tier, Tier::Low);
}

#[test]
fn an_attested_harmless_change_is_low_with_or_without_declarations() {
    let attestation = attestation_of(&image(), &annotations(&HARMLESS));
    for declared in [annotations(&HARMLESS), Annotations::new()] {
        let all = with_attestation(declared, attestation.clone());
        for trust in [Trust::Declared, Trust::Attested] {
            let (provenance, attested) = sources(&all, &effective(trust, 1));
            assert_eq!(
                (provenance.state, provenance.problems.len()),
                (State::Declared, 0)
            );
            assert_eq!(attested.unwrap().authors.len(), 1);
            assert_eq!(risk(&all, &effective(trust, 1)).tier, Tier::Low);
        }
    }
}

#[test]
fn a_refused_attestation_makes_all_unknown_whatever_the_policy_trusts() {
    let of_another_image = format!("shop@sha256:{}", "b".repeat(64));
    let attestation = attestation_of(&of_another_image, &annotations(&HARMLESS));
    for carried in [attestation, "garbage".into(), String::new()] {
        let all = with_attestation(annotations(&HARMLESS), carried);
        for trust in [Trust::Declared, Trust::Attested] {
            let (provenance, attested) = sources(&all, &effective(trust, 1));
            assert_eq!(provenance.state, State::Malformed);
            assert!(!provenance.problems.is_empty());
            assert_eq!(
                provenance.authors.len(),
                1,
                "those who must not sign stay known"
            );
            assert_eq!(attested, Some(Provenance::unattested()));
            assert!(risk(&all, &effective(trust, 1)).tier >= Tier::High);
        }
    }
}

#[test]
fn if_only_attestations_are_trusted_none_is_unknown_and_reported() {
    for keys in [0, 1] {
        let demanding = effective(Trust::Attested, keys);
        let (provenance, attested) = sources(&annotations(&HARMLESS), &demanding);
        assert_eq!(provenance.state, State::Unattested);
        assert!(
            provenance.problems[0]
                .to_string()
                .contains("believe only what a trusted key has signed"),
            "{:?}",
            provenance.problems
        );
        assert_eq!(attested, Some(Provenance::unattested()));
        assert!(risk(&annotations(&HARMLESS), &demanding).tier >= Tier::High);
    }
}

/// Finding F6: a large change is rejected, and its last line signed alone.
#[test]
fn an_attestation_of_a_part_of_the_change_counts_as_declared() {
    let stable = running("v1");
    let stamped = |base: &str| {
        let attestation = attestation_from(&image(), &annotations(&HARMLESS), Some(base));
        with_attestation(annotations(&HARMLESS), attestation)
    };
    let (whole, part) = (stamped("v1"), stamped("v2"));
    let (demanding, declaring) = (effective(Trust::Attested, 1), effective(Trust::Declared, 1));
    for effective in [&demanding, &declaring] {
        let (provenance, _) = sources_over(Some(&stable), &whole, effective);
        assert_eq!(
            (provenance.state, &*provenance.problems),
            (State::Declared, &[][..])
        );
        assert_eq!(risk_over(Some(&stable), &whole, effective).tier, Tier::Low);
    }

    let remedy = "counts from `v2`, but stable runs `v1`: stamp with --range v1..HEAD";
    let (provenance, attested) = sources_over(Some(&stable), &part, &demanding);
    let attested = attested.unwrap();
    assert_eq!(provenance.state, State::Unattested);
    assert!(
        provenance.problems[0].to_string().contains(remedy),
        "{provenance:?}"
    );
    assert_eq!((attested.state, attested.lines), (State::Unattested, None));
    assert_eq!(
        attested.authors.len(),
        1,
        "those who must not sign stay known"
    );
    assert_eq!(
        attested.revision.as_deref(),
        Some("9f3c2e1"),
        "the code is known"
    );
    let unattested = risk_over(Some(&stable), &annotations(&HARMLESS), &demanding);
    let found = risk_over(Some(&stable), &part, &demanding);
    assert_eq!(
        (found.score, found.tier),
        (unattested.score, unattested.tier)
    );

    let (provenance, _) = sources_over(Some(&stable), &part, &declaring);
    assert_eq!(provenance.state, State::Declared);
    assert!(
        provenance.problems[0].to_string().contains(remedy),
        "{provenance:?}"
    );
    let declared = risk(&annotations(&HARMLESS), &declaring);
    assert_eq!(risk_over(Some(&stable), &part, &declaring), declared);
}

#[test]
fn an_attestation_proves_nothing_over_a_stable_revision_that_is_not_known() {
    let unknown = Revision::default();
    let demanding = effective(Trust::Attested, 1);
    for base in [None, Some("v1")] {
        let attestation = attestation_from(&image(), &annotations(&HARMLESS), base);
        let all = with_attestation(annotations(&HARMLESS), attestation);
        assert!(risk_over(Some(&unknown), &all, &demanding).tier >= Tier::High);
        assert_eq!(risk(&all, &demanding).tier, Tier::Low, "a first revision");
    }
}

#[test]
fn a_review_counts_if_the_policies_accept_its_source() {
    let no_review = |source: &str, accepted: &[ReviewSource]| {
        let mut all = annotations(&HARMLESS);
        all.extend(annotations(&[("review-source", source)]));
        let effective = Effective {
            review_sources: Some(accepted.iter().copied().collect()),
            ..policy::effective(&[])
        };
        let mut contributions = risk(&all, &effective).contributions.into_iter();
        contributions.any(|it| it.factor == "noReview")
    };
    let forge = [ReviewSource::Forge];
    assert!(!no_review("Forge", &forge) && !no_review("forge", &forge));
    for source in ["Trailer", "SignedCommit", "Flag", "rumour", ""] {
        assert!(no_review(source, &forge), "{source}");
    }
    assert!(!no_review("Trailer", &ReviewSource::ALL));
    assert!(no_review("Forge", &[]));
}

/// Annotations of every shape, garbage among them.
fn any_annotations() -> impl Strategy<Value = Annotations> {
    let pairs = [
        (
            "contributor",
            vec!["human", "ai", "mixed", "unknown", "robot"],
        ),
        ("ai-share", vec!["0", "40", "100", "x"]),
        ("agents", vec!["claude-code", ""]),
        ("human-operator", vec!["jane", ""]),
        ("authors", vec!["jane", "bob, carol", ""]),
        ("reviewers", vec!["carol", "jane", ""]),
        ("revision", vec!["1", "2"]),
        ("approved-revision", vec!["1", "2"]),
        ("tests", vec!["PASSED", "FAILED", "WARNED", "?"]),
        ("lines-added", vec!["0", "5000", "-1"]),
        ("lines-deleted", vec!["0", "50"]),
        ("subsystems", vec!["0", "9"]),
        ("touches", vec!["migration", "auth, api", ""]),
        ("image", vec!["shop", "other"]),
        ("review-source", vec!["Forge", "Trailer", "x"]),
    ];
    let each: Vec<_> = pairs
        .into_iter()
        .map(|(key, values)| {
            proptest::option::weighted(0.7, select(values)).prop_map(move |it| (key, it))
        })
        .collect();
    each.prop_map(|pairs| {
        let given: Vec<_> = pairs
            .into_iter()
            .filter_map(|(key, it)| Some((key, it?)))
            .collect();
        annotations(&given)
    })
}

proptest! {
    #[test]
    fn law_7_what_is_declared_raises_what_is_attested_and_never_lowers_it(
        declared in any_annotations(), attested in any_annotations(), trust in select(&[Trust::Declared, Trust::Attested]),
    ) {
        let believing = effective(trust, 1);
        let attestation = attestation_of(&image(), &attested);
        let alone = risk(&with_attestation(Annotations::new(), attestation.clone()), &believing);
        let both = risk(&with_attestation(declared.clone(), attestation), &believing);
        prop_assert!(both.score >= alone.score && both.tier >= alone.tier, "{:?} {:?}", alone, both);

        let demanding = effective(Trust::Attested, 1);
        let unknown = risk::risk_of(&Provenance::unattested(), &Facts::default(), &demanding.risk);
        for nothing in [declared.clone(), with_attestation(declared, "garbage".into())] {
            let found = risk(&nothing, &demanding);
            prop_assert!(found.score >= unknown.score && found.tier >= unknown.tier, "{:?} {:?}", unknown, found);
        }
    }

    #[test]
    fn law_7_an_attestation_of_something_else_is_worth_no_more_than_a_declaration(
        declared in any_annotations(), attested in any_annotations(),
    ) {
        let stable = running("v1");
        let part = attestation_from(&image(), &attested, Some("v2"));
        let signed = with_attestation(declared.clone(), part);
        let mut written = attested;
        written.extend(declared);
        let declaring = effective(Trust::Declared, 1);
        let (plain, found) = (risk(&written, &declaring), risk_over(Some(&stable), &signed, &declaring));
        prop_assert!(found.score >= plain.score && found.tier >= plain.tier, "{:?} {:?}", plain, found);

        let demanding = effective(Trust::Attested, 1);
        let unknown = risk::risk_of(&Provenance::unattested(), &Facts::default(), &demanding.risk);
        let found = risk_over(Some(&stable), &signed, &demanding);
        prop_assert!(found.score >= unknown.score && found.tier >= unknown.tier, "{:?} {:?}", unknown, found);
    }

    #[test]
    fn law_7_accepting_fewer_sources_of_reviews_never_lowers_the_risk(
        declared in any_annotations(), kept in proptest::sample::subsequence(ReviewSource::ALL.to_vec(), 0..=4),
    ) {
        let any = effective(Trust::Declared, 0);
        let some = Effective { review_sources: Some(kept.into_iter().collect()), ..any.clone() };
        let (any, some) = (risk(&declared, &any), risk(&declared, &some));
        prop_assert!(some.score >= any.score && some.tier >= any.tier, "{:?} {:?}", any, some);
    }
}
