use super::*;

/// Templates with their digest, their hash with a collision count of 0 and of 1, and the digest
/// of a change to them; computed by another program (Python's json and hashlib).
fn golden() -> Vec<(Value, [&'static str; 4])> {
    vec![
        (
            json!({ "metadata": { "labels": { "app": "shop" } }, "spec": { "containers": [
                    { "name": "web", "image": "registry.example/shop:1.4.2" },
                ] } }),
            [
                "a1325c0c911e970286c905a3974eac86d0b4151c0133672bb132b3008a738e97",
                "nplzfzbdjvp",
                "r89cd82vsk8",
                "1868e0e577100df8ed636cc8a491f1f3e851a134a8296f73e5f08003dd83c729",
            ],
        ),
        (
            json!({
                "metadata": {
                    "labels": { "app": "pay", "team": "café" },
                    "annotations": { "note": "a \"b\"\n\t\\ \u{1}\u{202e}" },
                },
                "spec": {
                    "serviceAccountName": "pay", "terminationGracePeriodSeconds": 45,
                    "containers": [{
                        "name": "web", "image": format!("pay@sha256:{}", "a".repeat(64)),
                        "env": [{ "name": "RATE", "value": "0.1" }],
                        "resources": {
                            "requests": { "cpu": "100m", "memory": "64Mi" },
                            "limits": { "memory": "64Mi" },
                        },
                        // Stored with the protocol by definitions that filled it in.
                        "ports": [{ "containerPort": 8080, "protocol": "TCP" }],
                    }],
                    "volumes": [{ "name": "tmp", "emptyDir": {} }],
                },
            }),
            [
                "8e438867e7cfcdf752675ea3a14d7b63bb5d62980c62626cfca2fc8b50d87494",
                "gk2mpnvslnl",
                "g5nhrwgk8k4",
                "75704004897135206128cbabbf1de43b8082084e9ba099d94502aa0bd4d58a48",
            ],
        ),
        (
            json!({ "metadata": { "labels": { "app": "new" } }, "spec": {
                    "containers": [{ "name": "web", "image": "x:1", "futureField": {
                        "ratio": 0.25, "on": true, "off": false, "n": -3, "big": 12_345_678_901_i64,
                        "list": [null, [], {}, "z"],
                    } }],
                    "hostUsers": false,
                    "futureSpec": [1.5, 2],
                } }),
            [
                "ef71a72db0eca5a890f65b90451c7477a589e8199aa21f217717d1a78e7e3034",
                "nhzq2sclqbq",
                "bw9jkhmrgw7",
                "ce06dde79e8bf8946ce6b874dee2125921653588b629bbea8ac66525d5cefe4c",
            ],
        ),
    ]
}

#[test]
fn hashes_stay_the_same_across_operator_versions() {
    let mut annotations = annotations(&[("contributor", "ai"), ("revision", "9f3c2e1")]);
    annotations.insert("other/key".into(), "no".into());
    let no_traffic = CanaryStrategy::default();
    for (template, expected) in golden() {
        let template = PodTemplate(template);
        let found = [
            template_digest(&template),
            pod_template_hash(&template, 0),
            pod_template_hash(&template, 1),
            change_digest(&template, &annotations, &no_traffic),
        ];
        assert_eq!(
            found, expected,
            "never change these: every rollout would start again"
        );
    }
}

#[test]
fn a_port_without_a_protocol_is_one_of_tcp() {
    let digests = |port: Value| {
        let pods = json!({ "spec": { "containers": [{ "name": "w", "ports": [port] }] } });
        let template = PodTemplate(pods);
        let change = change_digest(&template, &BTreeMap::new(), &CanaryStrategy::default());
        (template_digest(&template), change)
    };
    let with = |protocol: &str| digests(json!({ "containerPort": 80, "protocol": protocol }));
    assert_eq!(digests(json!({ "containerPort": 80 })), with("TCP"));
    assert_eq!(
        digests(json!({ "containerPort": 80, "protocol": null })),
        with("TCP")
    );
    assert_ne!(with("UDP"), with("TCP"));
}

#[test]
fn order_of_keys_nulls_and_empty_timestamps_do_not_matter() {
    let texts = [
        r#"{"metadata":{"labels":{"a":"1","b":"2"}},"spec":{"containers":[{"image":"x","name":"w"}]}}"#,
        r#"{"spec":{"containers":[{"name":"w","image":"x","env":null}]},"metadata":{"creationTimestamp":null,"labels":{"b":"2","a":"1"}}}"#,
        r#"{"spec":{"containers":[{"name":"w","image":"x"}],"nodeName":null},"metadata":{"creationTimestamp":"","labels":{"b":"2","a":"1"}}}"#,
    ];
    let digests: BTreeSet<_> = texts
        .iter()
        .map(|text| template_digest(&serde_json::from_str(text).unwrap()))
        .collect();
    assert_eq!(digests.len(), 1);
}

/// Finding F14: only the timestamp of the pods' metadata is Go's.
#[test]
fn a_label_that_is_named_like_the_timestamp_is_in_the_digest() {
    let with = |labels: Value| {
        let metadata = json!({ "labels": labels, "creationTimestamp": "" });
        template_digest(&PodTemplate(json!({ "metadata": metadata, "spec": {} })))
    };
    let labelled = with(json!({ "creationTimestamp": "" }));
    assert_ne!(labelled, with(json!({})));
    let selected = json!({ "spec": { "nodeSelector": { "creationTimestamp": "" } } });
    let unselected = json!({ "spec": { "nodeSelector": {} } });
    assert_ne!(
        template_digest(&PodTemplate(selected)),
        template_digest(&PodTemplate(unselected))
    );
}

#[test]
fn a_name_that_ends_with_a_hash_stands_for_its_content() {
    for hashed in ["settings-2g5h8k9bcd", "a-b-tttttttttt"] {
        assert!(is_hashed(hashed), "{hashed}");
    }
    for plain in [
        "settings",
        "settings-2g5h8k9bc",
        "settings-2g5h8k9bcdd",
        "settings-2g5h8k9bca",
        "settings-production",
        "2g5h8k9bcd",
        "",
    ] {
        assert!(!is_hashed(plain), "{plain}");
    }
}

#[test]
fn a_field_unknown_to_this_build_changes_the_hash() {
    let mut newer = template();
    newer.0["spec"]["containers"][0]["fieldOfKubernetes2030"] = json!({ "mode": "Fast" });
    assert_ne!(
        pod_template_hash(&newer, 0),
        pod_template_hash(&template(), 0)
    );
    assert_ne!(template_digest(&newer), template_digest(&template()));
}

#[test]
fn the_change_digest_binds_to_template_provenance_and_traffic_and_to_nothing_else() {
    let canary = CanaryStrategy::default();
    let digest = |of: &[(&str, &str)]| change_digest(&template(), &annotations(of), &canary);
    let mut others = annotations(&GOOD);
    others.insert(
        "kubectl.kubernetes.io/last-applied-configuration".into(),
        "{}".into(),
    );
    assert_eq!(change_digest(&template(), &others, &canary), digest(&GOOD));
    let of_strategy = |fields: Value| {
        let canary: CanaryStrategy = serde_json::from_value(fields).unwrap();
        change_digest(&template(), &annotations(&GOOD), &canary)
    };
    let route = |testers: Value| {
        let route = json!({ "kind": "HTTPRoute", "name": "web" });
        json!({ "traffic": { "routes": [route], "testers": testers } })
    };
    let everybody = json!({ "headers": [{ "name": "x-forwarded-proto", "value": "https" }] });
    let directed = [
        json!({}),
        json!({ "stableService": "web" }),
        json!({ "canaryService": "web" }),
        json!({ "dynamicStable": true }),
        route(json!(null)),
        route(everybody),
        json!({ "steps": [{ "weight": 0, "mirror": 10 }, { "weight": 50 }] }),
        json!({ "steps": [{ "weight": 0, "mirror": 100 }, { "weight": 50 }] }),
        json!({ "steps": [{ "weight": 0, "mirror": 10 }, { "weight": 0, "mirror": 100 }] }),
    ];
    let digests: BTreeSet<_> = directed.into_iter().map(of_strategy).collect();
    assert_eq!(digests.len(), 9);
    let paced = of_strategy(json!({ "steps": [{ "weight": 50, "bake": "1m" }], "drain": "9s" }));
    assert_eq!(
        paced,
        digest(&GOOD),
        "the plan is fixed and tightened elsewhere"
    );
    assert_ne!(digest(&GOOD), digest(&GOOD[1..]));
    assert_ne!(digest(&[("future-key", "1")]), digest(&[]));
    let same_pods = pod_template_hash(&template(), 0);
    assert_eq!(
        same_pods,
        pod_template_hash(&template(), 0),
        "provenance restarts no pod"
    );
}

proptest! {
    #[test]
    fn any_annotations_are_read_without_a_panic_and_shown_harmlessly(
        values in proptest::collection::btree_map(
            prop_oneof![proptest::sample::select(KEYS.as_slice()).prop_map(ToOwned::to_owned), ".{0,8}"],
            prop_oneof![".{0,60}", "[0-9.eE+-]{0,12}", "[a-z<>@,\\[\\] ]{0,40}"],
            0..20,
        ),
    ) {
        let of: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let read = read(&of);
        prop_assert!(read.problems.len() <= MAX_PROBLEMS);
        for problem in &read.problems {
            let text = problem.to_string();
            prop_assert!(!text.contains(is_invisible) && text.len() < 1024, "{text:?}");
        }
        let (both, _) = Provenance::read_both(&annotations(&of), &annotations(&of), &template());
        prop_assert!(both.refused(problem::Problem::Missing).problems.len() <= MAX_PROBLEMS);
        let _ = (read.review(), read.is_autonomous());
    }

    #[test]
    fn a_hash_is_a_label_and_a_part_of_a_dns_name(text in ".{0,40}", count in 0..i32::MAX) {
        let hash = pod_template_hash(&PodTemplate(json!({ "spec": text })), count);
        prop_assert!(hash.len() == 11 && hash.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    }
}
