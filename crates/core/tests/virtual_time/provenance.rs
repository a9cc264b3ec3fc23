//! Provenance speaks for one change, and not for the next.

use countersign_api::PROVENANCE_PREFIX;
use countersign_api::rollout::Change;
use countersign_core::decide;
use countersign_core::provenance::attestation::statement::{Predicate, Statement};
use countersign_core::provenance::digest::template_digest;

use super::*;

// A pair of keys that OpenSSL made for tests alone.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKC/upcHwprQPZ/md9B50ATU5benfIgaTYS6hHhpNYqD
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAuw6iZ4Nu+R2pau8BQYcMDVZjJDIbnkLh54MGZLWILNs=
-----END PUBLIC KEY-----
";

/// The change that begins now.
fn begun(world: &World) -> Change {
    decide(&world.observation).status.change.unwrap()
}

fn edit(world: &mut World, path: &str, value: Value) {
    let template = &mut world.observation.spec.template.0;
    let (parent, key) = path.rsplit_once('/').unwrap();
    template.pointer_mut(parent).unwrap()[key] = value;
    world.observation.generation += 1;
}

#[test]
pub(super) fn law_12_the_provenance_of_the_stable_revision_says_nothing_of_another_image() {
    let mut world = serving();
    edit(
        &mut world,
        "/spec/containers/0/image",
        json!("example.org/shop:v2"),
    );
    let inherited = begun(&world);
    assert!(
        inherited.inherited_provenance && inherited.tier >= Tier::High,
        "{inherited:?}"
    );
    let more = annotations(&[("note", "something else")]);
    world.observation.annotations.extend(more);
    assert!(
        begun(&world).inherited_provenance,
        "a key that means nothing"
    );
    world.observation.annotations = of_version(harmless(), "v2");
    let fresh = begun(&world);
    assert!(!fresh.inherited_provenance);
    assert_eq!(fresh.tier, Tier::Low);
}

/// Annotations alone start no change, so nobody would be asked about them.
#[test]
fn law_12_provenance_that_is_placed_on_the_stable_revision_says_nothing_of_the_next_template() {
    let mut world = serving();
    world.observation.annotations = of_version(harmless(), "placed");
    let traffic = &mut steady(5_000.0, 0.0, 0.0);
    let minutes_on =
        |world: &World, minutes| world.observation.now + SignedDuration::from_mins(minutes);
    let until = minutes_on(&world, 2);
    world.run(until, traffic, |_| false);
    // A detour does not make it new.
    for version in ["v2", "v3", "v2"] {
        let image = json!(format!("example.org/shop:{version}"));
        edit(&mut world, "/spec/containers/0/image", image);
        let digest = template_digest(&world.observation.spec.template);
        let until = minutes_on(&world, 60);
        assert!(world.run(until, traffic, |o| {
            let change = o.status.change.as_ref();
            change.is_some_and(|it| it.template_digest == digest && it.outcome.is_none())
        }));
        let change = world.observation.status.change.clone().unwrap();
        assert!(change.inherited_provenance, "{version}");
        assert!(change.tier >= Tier::High, "{version}");
    }
    world.observation.annotations = of_version(harmless(), "v2");
    world.observation.generation += 1;
    let until = minutes_on(&world, 60);
    assert!(world.run(until, traffic, |o| {
        let change = o.status.change.as_ref();
        change.is_some_and(|it| it.tier == Tier::Low && !it.inherited_provenance)
    }));
    lawful(&world);
}

/// The chain of replaced changes ends where provenance comes with its template.
#[test]
pub(super) fn law_12_a_change_that_replaces_another_does_not_speak_with_its_provenance() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    let traffic = &mut steady(5_000.0, 0.0, 0.0);
    assert!(world.run(after(60), traffic, |o| o.status.step.is_some()));
    for version in ["v3", "v4"] {
        let image = json!(format!("example.org/shop:{version}"));
        edit(&mut world, "/spec/containers/0/image", image);
        let digest = template_digest(&world.observation.spec.template);
        assert!(world.run(after(120), traffic, |o| {
            let change = o.status.change.as_ref();
            change.is_some_and(|it| it.template_digest == digest && it.outcome.is_none())
        }));
        let change = world.observation.status.change.clone().unwrap();
        assert!(
            change.inherited_provenance && change.tier >= Tier::High,
            "{change:?}"
        );
        // It stays so while the change is under way and the one before is forgotten.
        world.reconcile(traffic);
        assert!(begun(&world).inherited_provenance);
    }
    lawful(&world);
}

/// The code is that of the stable revision, so a manifest counts by what differs and by its own review.
#[test]
pub(super) fn a_change_of_the_manifest_alone_has_the_risk_of_what_differs() {
    let tier = |path: &str, value: Value, annotations: Option<BTreeMap<String, String>>| {
        let mut world = serving();
        edit(&mut world, path, value);
        if let Some(annotations) = annotations {
            world.observation.annotations = annotations;
        }
        begun(&world).tier
    };
    let reviewed = || Some(of_version(harmless(), "of the manifest"));
    let environment = (
        "/spec/containers/0/env",
        json!([{ "name": "A", "value": "1" }]),
    );
    let account = ("/spec/serviceAccountName", json!("admin"));
    let restart = (
        "/metadata/annotations",
        json!({ "kubectl.kubernetes.io/restartedAt": "now" }),
    );
    let injected = (
        "/metadata/annotations",
        json!({ "sidecar.istio.io/proxyImage": "evil" }),
    );
    let cases = [
        (&environment, None, Tier::Medium),
        (&environment, reviewed(), Tier::Low),
        (&environment, Some(BTreeMap::new()), Tier::Medium),
        (&account, None, Tier::High),
        (&account, reviewed(), Tier::High),
        (&restart, None, Tier::Low),
        (&injected, None, Tier::Critical),
    ];
    for ((path, value), annotations, expected) in cases {
        let known = annotations.is_some();
        let found = tier(path, value.clone(), annotations);
        assert_eq!(found, expected, "{path} {value}, new provenance: {known}");
    }
}

/// What a tag names can change after it was signed.
#[test]
pub(super) fn law_12_a_tier_that_requires_digests_holds_an_image_that_is_named_by_a_tag() {
    let mut world = serving();
    world.observation.policies[0].spec.tiers.low.require_digest = Some(true);
    change(&mut world, "v2", harmless());
    let traffic = &mut steady(5_000.0, 0.0, 0.0);
    let waits = |o: &Observation| o.status.waiting_for.as_deref() == Some("ImageNotPinned");
    assert!(
        world.run(after(20), traffic, waits),
        "{:?}",
        world.observation.status
    );
    let status = &world.observation.status;
    assert_eq!(status.change.as_ref().unwrap().weight, 0);
    assert!(
        status.message.contains("example.org/shop:v2"),
        "{}",
        status.message
    );

    let digest = format!("example.org/shop@sha256:{}", "a".repeat(64));
    edit(&mut world, "/spec/containers/0/image", json!(digest));
    world.observation.annotations = of_version(harmless(), "pinned");
    let promoted = |o: &Observation| o.status.phase == Phase::Stable && World::at_rest(o);
    assert!(
        world.run(after(180), traffic, promoted),
        "{:?}",
        world.observation.status
    );
    assert_eq!(stable_image(&world), digest);
    lawful(&world);
}

/// What is in a ConfigMap or Secret can change after it was signed.
#[test]
fn law_12_a_tier_that_requires_immutable_configuration_holds_a_name_without_a_hash() {
    let mut world = serving();
    let low = &mut world.observation.policies[0].spec.tiers.low;
    low.require_immutable_config = Some(true);
    let named = |name: &str| json!([{ "configMapRef": { "name": name } }]);
    change(&mut world, "v2", harmless());
    let container = &mut world.observation.spec.template.0["spec"]["containers"][0];
    container["envFrom"] = named("settings");
    let traffic = &mut steady(5_000.0, 0.0, 0.0);
    let waits = |o: &Observation| o.status.waiting_for.as_deref() == Some("ConfigNotImmutable");
    assert!(
        world.run(after(20), traffic, waits),
        "{:?}",
        world.observation.status
    );
    let status = &world.observation.status;
    assert_eq!(status.change.as_ref().unwrap().weight, 0);
    let named_in_message = status.message.contains("settings is not");
    assert!(named_in_message, "{}", status.message);

    world.observation.spec.template.0["spec"]["containers"][0]["envFrom"] =
        named("settings-2g5h8k9bcd");
    world.observation.generation += 1;
    world.observation.annotations = of_version(harmless(), "hashed");
    let promoted = |o: &Observation| o.status.phase == Phase::Stable && World::at_rest(o);
    assert!(
        world.run(after(180), traffic, promoted),
        "{:?}",
        world.observation.status
    );
    lawful(&world);
}

/// Annotations of a version with a signature, which count from this revision and were signed at that minute.
fn signed(image: &str, version: &str, base: &str, minute: i64) -> BTreeMap<String, String> {
    let mut annotations = of_version(harmless(), version);
    let about = Predicate {
        base: Some(base.to_owned()),
        signed_at: Some(after(minute)),
        ..Predicate::default()
    };
    let statement = Statement::of(&[image], &annotations, about).unwrap();
    let attestation = statement.sign(PRIVATE, "ci").unwrap();
    annotations.insert(format!("{PROVENANCE_PREFIX}attestation"), attestation);
    annotations
}

/// A part of a change, signed alone, and a signature of long ago do not speak for the change that is rolled out.
#[test]
pub(super) fn law_12_an_attestation_counts_from_what_stable_runs_and_not_for_ever() {
    let mut world = serving();
    let keys = json!([{ "name": "ci", "publicKey": PUBLIC }]);
    let demands = json!({ "trust": "Attested", "keys": keys, "maxAge": "1h" });
    world.observation.policies[0].spec.provenance = serde_json::from_value(demands).unwrap();
    let image = |of: char| format!("example.org/shop@sha256:{}", of.to_string().repeat(64));
    let stable = |world: &World| {
        let stable = world.observation.status.stable.clone().unwrap();
        stable.source_revision.unwrap()
    };
    assert_eq!(stable(&world), "1111111v1");
    edit(&mut world, "/spec/containers/0/image", json!(image('2')));
    let now = world.observation.now.as_second() / 60;
    for (base, minute, tier) in [
        ("1111111v1.9", now, Tier::High),
        ("1111111v1", now - 90, Tier::High),
        ("1111111v1", now, Tier::Low),
    ] {
        world.observation.annotations = signed(&image('2'), "v2", base, minute);
        let begun = begun(&world);
        assert_eq!(
            begun.tier >= Tier::High,
            tier == Tier::High,
            "{base} {minute}"
        );
    }

    // It grows old in the course of the change, which began in time and stays in its tier.
    let traffic = &mut steady(1_000.0, 0.0, 0.0);
    let long = json!([{ "weight": 25, "bake": "2h" }]);
    world.observation.spec.strategy.canary.steps = serde_json::from_value(long).unwrap();
    let promoted = |o: &Observation| o.status.phase == Phase::Stable && World::at_rest(o);
    assert!(world.run(after(now + 300), traffic, promoted));
    assert!(world.observation.now > after(now + 61));
    assert_eq!(stable_image(&world), image('2'));
    assert_eq!(stable(&world), "1111111v2", "the next one counts from here");
    let conditions = &world.observation.status.conditions;
    let provenance = conditions.iter().find(|it| it.type_ == "Provenance");
    assert_eq!(provenance.unwrap().status, "True", "{provenance:?}");
    lawful(&world);
}

/// Pods write their own metrics, and a team its own queries.
#[test]
pub(super) fn a_tier_may_require_a_check_that_neither_pods_nor_their_team_control() {
    let own = json!({ "name": "own", "total": "sum(up{{labels}}) or vector(1000)", "errors": "vector(0)" });
    let of_pods = json!({ "name": "errors", "preset": "HttpRequestsTotal" });
    let of_router = json!({ "name": "errors", "preset": "Traefik" });
    let of_policy = Some(of_pods.clone());
    let cases = [
        (vec![own, of_pods.clone()], None, true),
        (vec![of_router], None, false),
        (vec![of_pods], of_policy, false),
    ];
    for (checks, of_policy, holds) in cases {
        let mut world = serving();
        let policy = &mut world.observation.policies[0].spec;
        policy.tiers.low.require_policy_check = Some(true);
        if let Some(check) = of_policy {
            policy.analysis = serde_json::from_value(json!({ "checks": [check] })).unwrap();
        }
        let analysis = json!({ "interval": "10s", "checks": checks });
        let canary = &mut world.observation.spec.strategy.canary;
        canary.analysis = serde_json::from_value(analysis).unwrap();
        change(&mut world, "v2", harmless());
        let change = begun(&world);
        world.observation.status.change = Some(change);
        let decided = decide(&world.observation).status.waiting_for;
        assert_eq!(
            decided.as_deref() == Some("PolicyCheckRequired"),
            holds,
            "{checks:?}: {decided:?}"
        );
    }
}

/// What came in between does not matter: the first template that had a provenance is the one that it describes.
#[test]
pub(super) fn law_12_provenance_stays_with_the_template_that_had_it_first() {
    let traffic = &mut steady(5_000.0, 0.0, 0.0);
    let mut world = serving();
    change(&mut world, "v2", harmless());
    assert!(world.run(after(60), traffic, |o| o.status.step.is_some()));
    let until = |world: &mut World, traffic: &mut _, version: &str| {
        let image = json!(format!("example.org/shop:{version}"));
        edit(world, "/spec/containers/0/image", image);
        let digest = template_digest(&world.observation.spec.template);
        let begins = |o: &Observation| {
            let change = o.status.change.as_ref();
            change.is_some_and(|it| it.template_digest == digest && it.outcome.is_none())
        };
        assert!(world.run(after(600), traffic, begins), "{version}");
        world
            .observation
            .status
            .change
            .clone()
            .unwrap()
            .inherited_provenance
    };
    assert!(until(&mut world, traffic, "v3"));
    assert!(!until(&mut world, traffic, "v2"), "a tool has set it back");
    // By way of the stable template, too.
    edit(
        &mut world,
        "/spec/containers/0/image",
        json!("example.org/shop:v1"),
    );
    assert!(world.run(after(900), traffic, |o| o.status.change.is_none()));
    assert!(until(&mut world, traffic, "v4"));
    lawful(&world);
}

/// Where traffic goes is part of the digest, and no reason to try again what was rejected.
#[test]
pub(super) fn law_8_an_edit_of_the_traffic_does_not_retry_a_rejected_change() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    let degraded = |o: &Observation| o.status.phase == Phase::Degraded && World::at_rest(o);
    assert!(world.run(after(120), &mut steady(5_000.0, 0.5, 0.0), degraded));
    let attempts = world.observation.status.attempts;
    world.observation.spec.strategy.canary.dynamic_stable = true;
    world.observation.generation += 1;
    world.run(after(180), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(world.observation.status.attempts, attempts);
    assert!(degraded(&world.observation));
    lawful(&world);
}
