//! Whose signature counts, of what, and until when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::provenance::attestation::envelope::URL_SAFE;

#[test]
fn the_encoding_is_that_of_the_protocol() {
    // The example of the DSSE protocol's text.
    assert_eq!(
        pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    let message = pre_authentication_encoding(PAYLOAD_TYPE, "ü".as_bytes());
    assert_eq!(
        message,
        "DSSEv1 28 application/vnd.in-toto+json 2 ü".as_bytes()
    );
}

#[test]
fn what_openssl_signed_is_trusted() {
    let with_ed25519 = by_openssl();
    let with_p256 = envelope(PAYLOAD, &[("ec", P256_SIGNATURE)]);
    for (json, key) in [(with_ed25519, ed25519()), (with_p256, p256())] {
        let keys = [vec![key]];
        let url_safe = URL_SAFE.encode(&json);
        let unpadded = STANDARD.encode(&json).trim_end_matches('=').to_owned();
        for form in [STANDARD.encode(&json), url_safe, unpadded, json] {
            assert_eq!(verify_at(&form, &shop(), &keys), Ok(attested()), "{form}");
        }
    }
}

#[test]
fn a_key_id_is_a_hint_and_no_more() {
    let keys = [vec![p256(), ed25519()]];
    for id in ["ed", "ec", "", "\u{1b}[2K"] {
        let envelope = envelope(PAYLOAD, &[(id, ED25519_SIGNATURE)]);
        assert_eq!(verify_at(&envelope, &shop(), &keys), Ok(attested()), "{id}");
    }
    let without = by_openssl().replace(r#""keyid":"ed","#, "");
    assert_eq!(verify_at(&without, &shop(), &keys), Ok(attested()));
}

#[test]
fn one_key_of_each_policy_must_have_signed() {
    let one = by_openssl();
    let both = envelope(
        PAYLOAD,
        &[("ed", ED25519_SIGNATURE), ("ec", P256_SIGNATURE)],
    );
    let (either, each) = ([vec![p256(), ed25519()]], [vec![p256()], vec![ed25519()]]);
    assert!(verify_at(&one, &shop(), &either).is_ok());
    assert!(verify_at(&both, &shop(), &each).is_ok());
    assert_eq!(
        verify_at(&one, &shop(), &each),
        Err(Problem::UnknownKey {
            found: "`ed`".into(),
            trusted: "`ec`".into()
        })
    );
    assert_eq!(verify_at(&one, &shop(), &[]), Err(Problem::NoKeys));
    assert!(verify_at(&one, &shop(), &[vec![], vec![ed25519()]]).is_err());
}

#[test]
fn a_key_is_trusted_until_it_expires() {
    let until = |at: &str| TrustedKey {
        not_after: Some(Time(at.parse().unwrap())),
        ..ed25519()
    };
    let with = |keys: Vec<TrustedKey>| verify_at(&by_openssl(), &shop(), &[keys]);
    assert!(with(vec![until("2026-11-24T12:00:01Z")]).is_ok());
    let expired = with(vec![until("2026-11-24T12:00:00Z"), p256()]).unwrap_err();
    assert!(
        expired
            .to_string()
            .contains("key `ed`, which expired at 2026-11-24T12:00:00Z"),
        "{expired}"
    );
    assert!(
        with(vec![until("2026-01-01T00:00:00Z"), ed25519()]).is_ok(),
        "the same key under a name that is still believed"
    );
}

#[test]
fn a_key_speaks_for_its_repositories_alone() {
    let of = |patterns: &[&str]| TrustedKey {
        repositories: patterns.iter().map(|it| (*it).to_owned()).collect(),
        ..ed25519()
    };
    let shop_git = "https://git.example/shop/web";
    let claimed = Predicate {
        repository: Some(shop_git.into()),
        ..Predicate::default()
    };
    let annotated = annotations(&[("repository", shop_git)]);
    let image = pinned("shop", 'a');
    let statements = [
        Statement::of(&[&image], &attested(), claimed),
        bare(&[&image], &annotated),
    ];
    for statement in statements {
        let envelope = statement.unwrap().sign(ED25519_PRIVATE, "ed").unwrap();
        let with = |keys: &[Vec<TrustedKey>]| verify_at(&envelope, &shop(), keys);
        for patterns in [&["https://git.example/shop/**"][..], &["no", shop_git], &[]] {
            assert!(with(&[vec![of(patterns)]]).is_ok(), "{patterns:?}");
        }
        let repository = Some(shop_git.to_owned());
        let foreign = Err(Problem::OtherRepository { repository });
        for patterns in [&["https://git.example/*"][..], &["[", "/"]] {
            assert_eq!(with(&[vec![of(patterns)]]), foreign, "{patterns:?}");
        }
        let each = [vec![ed25519()], vec![of(&["https://git.example/pay/**"])]];
        assert_eq!(with(&each), foreign, "a key of each policy must be trusted");
    }
    let nowhere = verify_at(&by_openssl(), &shop(), &[vec![of(&["**"])]]);
    assert_eq!(nowhere, Err(Problem::OtherRepository { repository: None }));
}

#[test]
fn a_changed_payload_or_signature_is_a_bad_signature() {
    let forged = PAYLOAD.replace("jane", "mary");
    let other = STANDARD.encode([7_u8; 64]);
    let in_raw_form = STANDARD.encode([1_u8; 64]);
    for envelope in [
        envelope(&forged, &[("ed", ED25519_SIGNATURE)]),
        envelope(&forged, &[("", ED25519_SIGNATURE)]),
        envelope(PAYLOAD, &[("ed", &other)]),
        envelope(PAYLOAD, &[("ed", P256_SIGNATURE)]),
        envelope(PAYLOAD, &[("ed", "")]),
        envelope(PAYLOAD, &[("ed", "%")]),
        envelope(PAYLOAD, &[("other", &in_raw_form), ("ed", &in_raw_form)]),
    ] {
        let keys = "`ed`".to_owned();
        assert_eq!(problem(&envelope), Problem::BadSignature { keys });
    }
    let unsigned = envelope(PAYLOAD, &[]);
    assert!(
        problem(&unsigned).to_string().contains("signed by nobody"),
        "{}",
        problem(&unsigned)
    );
}

#[test]
fn a_key_that_cannot_be_read_is_named() {
    for pem in ["", "garbage", ED25519_PRIVATE, P256_PRIVATE] {
        let found = verify_at(&by_openssl(), &shop(), &[vec![key("ci", pem)]]);
        assert_eq!(found, Err(Problem::UnreadableKey { key: "ci".into() }));
        let beside = [vec![key("ci", pem), ed25519()]];
        assert!(verify_at(&by_openssl(), &shop(), &beside).is_ok());
    }
    let in_yaml = ED25519_PUBLIC.replace('\n', "\r\n") + "\n";
    assert!(verify_at(&by_openssl(), &shop(), &[vec![key("ci", &in_yaml)]]).is_ok());
}
