mod keys;
mod statement;

use std::collections::BTreeMap;

use base64::engine::Engine;
use countersign_api::provenance::{Trust, TrustedKey};
use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use crate::policy::{Effective, effective};
use crate::provenance::attestation::due;
use crate::provenance::attestation::envelope::{STANDARD, pre_authentication_encoding};
use crate::provenance::attestation::keys::PrivateKey;
use crate::provenance::attestation::keys::public_key_pem;
use crate::provenance::attestation::problem::{PAYLOAD_TYPE, Problem, SigningError};
use crate::provenance::attestation::proof::Subject;
use crate::provenance::attestation::statement::{Predicate, Statement};
use crate::provenance::keys::MAX_ATTESTATION;

// Keys and signatures that OpenSSL 3.0 made (`openssl genpkey`, `openssl pkeyutl -sign -rawin`
// and `openssl dgst -sha256 -sign`) for these tests alone.
const ED25519_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKC/upcHwprQPZ/md9B50ATU5benfIgaTYS6hHhpNYqD
-----END PRIVATE KEY-----
";
const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAuw6iZ4Nu+R2pau8BQYcMDVZjJDIbnkLh54MGZLWILNs=
-----END PUBLIC KEY-----
";
const P256_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjGvczICBMlr2AykC
Jq43SNtc41q41NEiURK9ehd2ZA2hRANCAARSX8IRLWCFkugKauWwZZsmh9P6g/vV
vqONvj0XKj12pLoveTkmp2gr8rREVdPCn7S9gHBE9rjMijn/tS7alIAM
-----END PRIVATE KEY-----
";
const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUl/CES1ghZLoCmrlsGWbJofT+oP7
1b6jjb49Fyo9dqS6L3k5JqdoK/K0RFXTwp+0vYBwRPa4zIo5/7Uu2pSADA==
-----END PUBLIC KEY-----
";
const P256_IN_SEC1: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIDRi6E+VTZyGEouA2ehhCggEsM89J+PuEHA7/GY4Q55JoAoGCCqGSM49
AwEHoUQDQgAE61wGHpwxae6WkdOUCCM0HxGglg+CyAkqySLi3KgayfzpAyqfA6zZ
NbDBVisB8sIlG8Lrx7FLDWOB5NfHSPGiSw==
-----END EC PRIVATE KEY-----
";
const PAYLOAD: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"registry.example/shop","digest":{"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}],"predicateType":"https://countersign.dev/provenance/v1","predicate":{"annotations":{"authors":"jane","contributor":"human"},"expiresAt":"2027-01-01T00:00:00Z"}}"#;
const ED25519_SIGNATURE: &str =
    "nl+i29HSk1eTfRxLzoy5qLvvguuQs8ufyH4FrvlMFXQCxaG3zoWEpsBh8C5Pk/vzc3tmDRK74Y1Z/UCIlH5AAg==";
const P256_SIGNATURE: &str = "MEQCIA5QE3H5doMPCdTVA8isRrE61tr3vADdKMKU+RbUZ5/MAiAiapM/KrnZzOnTrR5dw7zHeQ4Taoy+DPX+NPT92Dh57A==";

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn digest(of: char) -> String {
    of.to_string().repeat(64)
}

fn pinned(name: &str, of: char) -> String {
    format!("registry.example/{name}@sha256:{}", digest(of))
}

fn template(images: &[&str]) -> PodTemplate {
    let containers: Vec<_> = images.iter().map(|it| json!({ "image": it })).collect();
    PodTemplate(json!({ "spec": { "containers": containers } }))
}

fn shop() -> PodTemplate {
    template(&[&pinned("shop", 'a')])
}

fn key(name: &str, pem: &str) -> TrustedKey {
    TrustedKey {
        name: name.into(),
        public_key: pem.into(),
        ..TrustedKey::default()
    }
}

fn ed25519() -> TrustedKey {
    key("ed", ED25519_PUBLIC)
}

fn p256() -> TrustedKey {
    key("ec", P256_PUBLIC)
}

/// An envelope in JSON, put together without the code under test.
fn envelope(payload: &str, signatures: &[(&str, &str)]) -> String {
    let signatures: Vec<_> = signatures
        .iter()
        .map(|(keyid, sig)| json!({ "keyid": keyid, "sig": sig }))
        .collect();
    json!({
        "payloadType": "application/vnd.in-toto+json",
        "payload": STANDARD.encode(payload),
        "signatures": signatures,
    })
    .to_string()
}

fn by_openssl() -> String {
    envelope(PAYLOAD, &[("ed", ED25519_SIGNATURE)])
}

fn annotations(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter()
        .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), (*value).to_owned()))
        .collect()
}

fn attested() -> BTreeMap<String, String> {
    annotations(&[("authors", "jane"), ("contributor", "human")])
}

/// What an envelope attests of the first revision of a Rollout, or of a change of one.
fn verify(
    envelope: &str,
    template: &PodTemplate,
    stable: Option<&PodTemplate>,
    keys: &[Vec<TrustedKey>],
    at: Timestamp,
) -> Result<BTreeMap<String, String>, Problem> {
    let subject = Subject {
        namespace: "shop",
        name: "web",
        template,
        stable,
        replaced: None,
        first: false,
        began: at,
    };
    let effective = Effective {
        keys: keys.to_vec(),
        ..effective(&[])
    };
    super::verify(envelope, &subject, &effective, at).map(|it| it.annotations)
}

fn verify_at(
    envelope: &str,
    template: &PodTemplate,
    keys: &[Vec<TrustedKey>],
) -> Result<BTreeMap<String, String>, Problem> {
    verify(envelope, template, None, keys, now())
}

/// A statement without anything but its annotations, as older signers write it.
fn bare(
    images: &[&str],
    annotations: &BTreeMap<String, String>,
) -> Result<Statement, SigningError> {
    Statement::of(images, annotations, Predicate::default())
}

fn problem(envelope: &str) -> Problem {
    verify_at(envelope, &shop(), &[vec![ed25519()]]).unwrap_err()
}

#[test]
fn what_is_no_envelope_is_refused() {
    for garbage in [
        "",
        "{",
        "{}",
        "e30=",
        "not base64!",
        "[]",
        "null",
        "bnVsbA==",
    ] {
        let found = problem(garbage);
        assert!(
            matches!(found, Problem::NoEnvelope { .. }),
            "{garbage}: {found}"
        );
    }
    let length = MAX_ATTESTATION + 1;
    assert_eq!(problem(&"A".repeat(length)), Problem::TooLong { length });
    let nested = "[".repeat(MAX_ATTESTATION);
    assert!(matches!(problem(&nested), Problem::NoEnvelope { .. }));
    let many = envelope(PAYLOAD, &[("ed", ED25519_SIGNATURE); 9]);
    assert_eq!(problem(&many), Problem::TooManySignatures { count: 9 });
    let found = problem(&by_openssl().replace("in-toto", "other"));
    assert!(found.to_string().contains("vnd.other+json"), "{found}");
}

#[test]
fn what_is_signed_here_is_what_is_trusted() {
    let image = pinned("shop", 'a');
    let mut given = annotations(&[("tests", "PASSED"), ("attestation", "e30=")]);
    given.insert("other/key".into(), "no".into());
    let about = Predicate {
        base: Some("v1".into()),
        repository: Some("https://git.example/shop".into()),
        rollouts: ["shop/web".to_owned()].into(),
        template_digest: Some(digest('c')),
        signed_at: Some(now()),
        expires_at: Some("2027-01-01T00:00:00Z".parse().unwrap()),
        ..Predicate::default()
    };
    let statement = Statement::of(&[&image, &pinned("init", 'b')], &given, about).unwrap();
    for (private, key) in [(ED25519_PRIVATE, ed25519()), (P256_PRIVATE, p256())] {
        assert_eq!(public_key_pem(private).as_ref(), Ok(&key.public_key));
        let envelope = statement.sign(private, "ci").unwrap();
        assert_eq!(
            envelope,
            statement.sign(private, "ci").unwrap(),
            "deterministic"
        );
        let both = template(&[&image, &pinned("init", 'b')]);
        let expected = annotations(&[("tests", "PASSED")]);
        assert_eq!(verify_at(&envelope, &both, &[vec![key]]), Ok(expected));
    }
    let bare = bare(&[&format!("sha256:{}", digest('a'))], &given).unwrap();
    let envelope = bare.sign(ED25519_PRIVATE, "ed").unwrap();
    assert!(verify_at(&envelope, &shop(), &[vec![ed25519()]]).is_ok());
}

#[test]
fn signatures_are_those_of_the_standards() {
    let message = pre_authentication_encoding(PAYLOAD_TYPE, PAYLOAD.as_bytes());
    let signature = PrivateKey::read(ED25519_PRIVATE).unwrap().sign(&message);
    assert_eq!(STANDARD.encode(signature), ED25519_SIGNATURE);
}

#[test]
fn what_cannot_be_signed_is_refused_with_the_reason() {
    let image = pinned("shop", 'a');
    let none = BTreeMap::new();
    assert_eq!(bare(&[], &none), Err(SigningError::NoImage));
    let tag = bare(&[&image, "shop:1"], &none).unwrap_err();
    assert!(tag.to_string().contains("`shop:1`"), "{tag}");
    let statement = bare(&[&image], &none).unwrap();
    for pem in ["", "garbage", ED25519_PUBLIC, P256_IN_SEC1] {
        assert_eq!(
            statement.sign(pem, "ci"),
            Err(SigningError::UnreadableKey),
            "{pem}"
        );
        assert_eq!(public_key_pem(pem), Err(SigningError::UnreadableKey));
    }
    let long = annotations(&[("authors", &"x".repeat(MAX_ATTESTATION))]);
    let long = bare(&[&image], &long).unwrap();
    assert!(matches!(
        long.sign(ED25519_PRIVATE, "ci"),
        Err(SigningError::TooLong { .. })
    ));
}

#[test]
fn it_is_read_if_a_policy_names_keys_and_required_if_only_it_is_trusted() {
    let mut effective = effective(&[]);
    let (with, without) = (annotations(&[("attestation", " e30= ")]), attested());
    assert_eq!(
        due(&with, &effective),
        Ok(None),
        "no key: carried, not read"
    );
    effective.trust = Trust::Attested;
    assert_eq!(due(&with, &effective), Err(Problem::NoKeys));
    effective.keys = vec![vec![ed25519()]];
    assert_eq!(due(&with, &effective), Ok(Some("e30=")));
    assert_eq!(due(&without, &effective), Err(Problem::Missing));
    effective.trust = Trust::Declared;
    assert_eq!(due(&with, &effective), Ok(Some("e30=")));
    assert_eq!(due(&without, &effective), Ok(None));
}

fn flipped(text: &str, byte: usize, bit: u8) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let byte = byte % bytes.len();
    bytes[byte] ^= 1 << bit;
    String::from_utf8(bytes).ok()
}

proptest! {
    #[test]
    fn no_flipped_bit_attests_anything_else(byte in any::<usize>(), bit in 0..8_u8) {
        for key in [("ed", ED25519_SIGNATURE, ed25519()), ("ec", P256_SIGNATURE, p256())] {
            let json = envelope(PAYLOAD, &[(key.0, key.1)]);
            for form in [STANDARD.encode(&json), json] {
                let Some(form) = flipped(&form, byte, bit) else { continue };
                if let Ok(found) = verify_at(&form, &shop(), &[vec![key.2.clone()]]) {
                    prop_assert_eq!(found, attested());
                }
            }
        }
    }

    #[test]
    fn no_flipped_bit_of_the_payload_attests_anything(byte in any::<usize>(), bit in 0..7_u8) {
        let payload = flipped(PAYLOAD, byte, bit).unwrap();
        let forged = envelope(&payload, &[("ed", ED25519_SIGNATURE), ("ec", P256_SIGNATURE)]);
        prop_assert!(verify_at(&forged, &shop(), &[vec![ed25519(), p256()]]).is_err());
    }

    #[test]
    fn any_text_is_refused_without_a_panic(
        text in prop_oneof![".{0,80}", "[A-Za-z0-9+/=]{0,80}", "[{}\\[\\]\":,a-z0-9]{0,80}"],
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let keys = [vec![ed25519(), p256()]];
        for text in [text.clone(), STANDARD.encode(&bytes), String::from_utf8_lossy(&bytes).into()] {
            prop_assert!(verify_at(&text, &shop(), &keys).is_err());
        }
        let unsigned = envelope(&text, &[(&text, &text), ("ed", &STANDARD.encode(&bytes))]);
        prop_assert!(verify_at(&unsigned, &shop(), &keys).is_err());
    }

    #[test]
    fn any_signed_payload_is_read_without_a_panic(
        text in prop_oneof![".{0,80}", "[{}\\[\\]\":,a-z0-9]{0,80}"],
        images in proptest::collection::vec(".{0,80}", 0..4),
    ) {
        let envelope = Statement(text.clone()).sign(P256_PRIVATE, &text).unwrap();
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        prop_assert!(verify_at(&envelope, &template(&images), &[vec![p256()]]).is_err());
        let _ = (bare(&images, &BTreeMap::new()), public_key_pem(&text));
    }
}
