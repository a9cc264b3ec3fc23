//! What a statement must hold, and the images that it is about.

use serde_json::Value;

use super::*;
use crate::text::excerpt;

fn signed(payload: &Value) -> String {
    Statement(payload.to_string())
        .sign(ED25519_PRIVATE, "ed")
        .unwrap()
}

fn statement_but(pointer: &str, value: Value) -> Value {
    let mut statement: Value = serde_json::from_str(PAYLOAD).unwrap();
    *statement.pointer_mut(pointer).unwrap() = value;
    statement
}

#[test]
fn only_a_statement_of_provenance_is_trusted() {
    let predicate = signed(&statement_but(
        "/predicateType",
        json!("https://slsa.dev/provenance/v1"),
    ));
    assert_eq!(
        problem(&predicate),
        Problem::UnknownPredicate {
            found: "https://slsa.dev/provenance/v1".into()
        }
    );
    for (pointer, value) in [
        ("/_type", json!("https://in-toto.io/Statement/v0.1")),
        ("/subject", json!("shop")),
        ("/predicate", json!([])),
        ("/predicate/annotations", json!({ "lines-added": 1 })),
        ("/predicate/annotations", json!({ "attestation": "e30=" })),
        ("/predicate/expiresAt", json!("tomorrow")),
        (
            "/predicate",
            json!({ "annotations": {}, "expires": "2020-01-01T00:00:00Z" }),
        ),
    ] {
        let found = problem(&signed(&statement_but(pointer, value)));
        assert!(
            matches!(found, Problem::NoStatement { .. }),
            "{pointer}: {found}"
        );
    }
    assert!(matches!(
        problem(&signed(&json!("text"))),
        Problem::NoStatement { .. }
    ));
}

#[test]
fn a_statement_is_trusted_until_it_expires() {
    let at = |time: &str| {
        let envelope = by_openssl();
        verify(
            &envelope,
            &shop(),
            None,
            &[vec![ed25519()]],
            time.parse().unwrap(),
        )
    };
    assert!(at("2026-12-31T23:59:59Z").is_ok());
    let expired = at("2027-01-01T00:00:00Z").unwrap_err();
    assert_eq!(
        expired.to_string(),
        "it expired at 2027-01-01T00:00:00Z: have CI sign it again"
    );
}

#[test]
fn it_is_about_the_images_that_the_change_brings_in() {
    let (shop, old) = (pinned("shop", 'a'), pinned("shop", 'b'));
    let (proxy, other) = (pinned("proxy", 'c'), pinned("other", 'a'));
    let found = |images: &[&str], stable: Option<&[&str]>| {
        let stable = stable.map(template);
        let keys = [vec![ed25519()]];
        verify(
            &by_openssl(),
            &template(images),
            stable.as_ref(),
            &keys,
            now(),
        )
        .map(|_| ())
        .map_err(|problem| problem.to_string())
    };
    assert_eq!(found(&[&shop], None), Ok(()));
    assert_eq!(found(&[&shop, &proxy], Some(&[&old, &proxy])), Ok(()));
    assert_eq!(found(&[&shop, &proxy], Some(&[&shop, &proxy])), Ok(()));
    assert_eq!(
        found(&[&other], None),
        Ok(()),
        "the name of a mirror is no matter"
    );

    let wrong = found(&[&old], None).unwrap_err();
    for part in ["`aaaaaaaaaaaa`", "`registry.example/shop`", "bbbbbbbbbbbb"] {
        assert!(wrong.contains(part), "{wrong}");
    }
    let smuggled = found(&[&shop, &pinned("evil", 'e')], Some(&[&shop, &proxy]));
    assert!(smuggled.unwrap_err().contains("`registry.example/evil`"));
    let first = found(&[&shop, &proxy], None).unwrap_err();
    assert!(first.contains("`registry.example/proxy`"), "{first}");
    let of_another_change = found(&[&proxy], Some(&[&proxy])).unwrap_err();
    assert!(of_another_change.contains("cccccccccccc"));
}

#[test]
fn an_image_that_is_not_pinned_may_be_any() {
    let upper = pinned("shop", 'A');
    for tag in [
        "shop:1.4.2",
        "shop",
        "",
        "shop@sha256:aa",
        &upper,
        "shop@sha512:aa",
    ] {
        for images in [vec![tag], vec![&pinned("shop", 'a'), tag]] {
            let stable = template(&images);
            let keys = [vec![ed25519()]];
            let found = verify(
                &by_openssl(),
                &template(&images),
                Some(&stable),
                &keys,
                now(),
            );
            let image = excerpt(tag);
            assert_eq!(found, Err(Problem::NoDigest { image }), "{images:?}");
        }
    }
    let keys = [vec![ed25519()]];
    let found = verify_at(&by_openssl(), &PodTemplate(json!({})), &keys);
    assert!(matches!(found, Err(Problem::NoDigest { .. })));
    let init = PodTemplate(json!({ "spec": {
            "containers": [{ "image": pinned("shop", 'a') }],
            "initContainers": [{ "image": pinned("init", 'e') }],
        } }));
    assert!(matches!(
        verify_at(&by_openssl(), &init, &keys),
        Err(Problem::WrongDigest { .. })
    ));
}
