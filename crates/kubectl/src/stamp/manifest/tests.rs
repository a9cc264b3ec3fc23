use proptest::prelude::*;

use super::*;

fn annotations(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = of
        .iter()
        .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), (*value).to_owned()));
    own.collect()
}

fn stamp(text: &str, of: &[(&str, &str)]) -> Result<Stamped, ManifestError> {
    stamped(text, &annotations(of), None)
}

const NEW: [(&str, &str); 2] = [("agents", "claude a-1"), ("contributor", "mixed")];

/// A Rollout with this text as its metadata.
fn rollout(metadata: &str) -> String {
    format!("apiVersion: countersign.dev/v1alpha1\nkind: Rollout\n{metadata}spec: {{}}\n")
}

#[track_caller]
fn becomes(metadata: &str, expected: &str) {
    let stamped = stamp(&rollout(metadata), &NEW).unwrap();
    assert_eq!(stamped.text, rollout(expected));
    assert_eq!(stamped.rollouts, 1);
    assert_eq!(
        stamp(&stamped.text, &NEW).unwrap().text,
        stamped.text,
        "again"
    );
}

#[test]
fn values_are_replaced_where_they_stand_and_comments_stay() {
    becomes(
        "metadata: # m\n  name: shop # n\n  # before\n  annotations: # an\n    a: b # c\n    provenance.countersign.dev/contributor: human # who\n    # tail\n    \"provenance.countersign.dev/tests\": 'PASSED' # gone\n    z: |\n      text\n\n  # before labels\n  labels:\n    x: y\n\n",
        "metadata: # m\n  name: shop # n\n  # before\n  annotations: # an\n    a: b # c\n    provenance.countersign.dev/contributor: mixed # who\n    # tail\n    provenance.countersign.dev/agents: claude a-1\n    z: |\n      text\n\n  # before labels\n  labels:\n    x: y\n\n",
    );
}

#[test]
fn who_applies_the_rollout_takes_the_place_of_who_applied_it() {
    let mut all = annotations(&[("contributor", "mixed")]);
    all.insert("countersign.dev/changed-by".into(), "ci".into());
    let before = "metadata:\n  annotations:\n    countersign.dev/changed-by: alice # who\n    provenance.countersign.dev/contributor: human\n";
    let after = before.replace("alice", "ci").replace("human", "mixed");
    for manifest in [
        (before, after.as_str()),
        (
            "metadata: { annotations: { countersign.dev/changed-by: alice } }\n",
            "metadata: { annotations: { \"countersign.dev/changed-by\": \"ci\", \"provenance.countersign.dev/contributor\": \"mixed\" } }\n",
        ),
    ] {
        let stamped = stamped(&rollout(manifest.0), &all, None).unwrap();
        assert_eq!(stamped.text, rollout(manifest.1));
    }
}

#[test]
fn a_block_is_added_behind_the_metadata() {
    becomes(
        "metadata:\n    name: shop\n    labels: {app: shop} # l\n\n# spec\n",
        "metadata:\n    name: shop\n    labels: {app: shop} # l\n    annotations:\n      provenance.countersign.dev/agents: claude a-1\n      provenance.countersign.dev/contributor: mixed\n\n# spec\n",
    );
}

#[test]
fn empty_annotations_are_filled() {
    for empty in [
        "annotations: {} # c",
        "annotations: # c",
        "annotations: null # c",
        "annotations: ~ # c",
    ] {
        becomes(
            &format!("metadata:\n  {empty}\n  name: shop\n"),
            "metadata:\n  annotations: # c\n    provenance.countersign.dev/agents: claude a-1\n    provenance.countersign.dev/contributor: mixed\n  name: shop\n",
        );
    }
}

#[test]
fn flow_style_stays_flow_style() {
    becomes(
        "metadata: {name: shop, annotations: {a: b, provenance.countersign.dev/tests: FAILED}} # c\n",
        "metadata: {name: shop, annotations: {a: b, \"provenance.countersign.dev/agents\": \"claude a-1\", \"provenance.countersign.dev/contributor\": \"mixed\"}} # c\n",
    );
    becomes(
        "metadata: { name: shop }\n",
        "metadata: { name: shop, \"annotations\": {\"provenance.countersign.dev/agents\": \"claude a-1\", \"provenance.countersign.dev/contributor\": \"mixed\"} }\n",
    );
    becomes(
        "metadata:\n  annotations: {\n    a: b,\n  }\n",
        "metadata:\n  annotations: {\n    a: b,\n    \"provenance.countersign.dev/agents\": \"claude a-1\",\n    \"provenance.countersign.dev/contributor\": \"mixed\"\n  }\n",
    );
}

#[test]
fn json_is_yaml_too() {
    let json = "{\n  \"apiVersion\": \"countersign.dev/v1alpha1\",\n  \"kind\": \"Rollout\",\n  \"metadata\": {\n    \"name\": \"shop\"\n  }\n}\n";
    let text = stamp(json, &NEW[1..]).unwrap().text;
    assert_eq!(
            text,
            json.replace("\"shop\"", "\"shop\",\n    \"annotations\": {\"provenance.countersign.dev/contributor\": \"mixed\"}")
        );
    serde_json::from_str::<Value>(&text).unwrap();
}

#[test]
fn values_of_several_lines_are_replaced_whole() {
    becomes(
        "metadata:\n  annotations:\n    provenance.countersign.dev/agents: >-\n      long\n      text\n\n    a: b\n    provenance.countersign.dev/contributor: \"two\n      lines\"\n",
        "metadata:\n  annotations:\n\n    a: b\n    provenance.countersign.dev/agents: claude a-1\n    provenance.countersign.dev/contributor: mixed\n",
    );
}

#[test]
fn windows_line_ends_stay() {
    let windows = |text: &str| text.replace('\n', "\r\n");
    for metadata in [
        "metadata:\n  name: shop\n",
        "metadata:\n  annotations:\n    a: b\n    provenance.countersign.dev/tests: PASSED\n",
    ] {
        let expected = windows(&stamp(&rollout(metadata), &NEW).unwrap().text);
        assert_eq!(
            stamp(&windows(&rollout(metadata)), &NEW).unwrap().text,
            expected
        );
    }
}

#[test]
fn a_last_line_without_an_end_is_ended() {
    let text = "apiVersion: countersign.dev/v1alpha1\nkind: Rollout\nmetadata:\n  name: shop";
    assert_eq!(
        stamp(text, &NEW[1..]).unwrap().text,
        format!("{text}\n  annotations:\n    provenance.countersign.dev/contributor: mixed\n")
    );
}

#[test]
fn each_rollout_of_many_documents_and_lists_is_stamped_and_nothing_else() {
    let text = "%YAML 1.2\n---\n# first\nkind: Service\nmetadata:\n  name: shop\n...\n--- # second\napiVersion: countersign.dev/v1alpha1\nkind: \"Rollout\"\nmetadata:\n  name: &n shop\n  labels:\n    app: *n\n---\n---\nkind: Rollout\napiVersion: argoproj.io/v1alpha1\nmetadata:\n  name: other\n---\nkind: List\napiVersion: v1\nitems:\n- metadata:\n    name: cart\n  kind: Rollout\n  apiVersion: countersign.dev/v1alpha1\n- kind: ConfigMap\n  metadata:\n    name: x\n";
    let line = "provenance.countersign.dev/contributor: mixed";
    let stamped = stamp(text, &NEW[1..]).unwrap();
    assert_eq!(stamped.rollouts, 2);
    assert_eq!(
        stamped.text,
        text.replace(
            "    app: *n\n",
            &format!("    app: *n\n  annotations:\n    {line}\n")
        )
        .replace(
            "    name: cart\n",
            &format!("    name: cart\n    annotations:\n      {line}\n")
        )
    );
    let one = stamped_only(text, "cart");
    assert_eq!((one.rollouts, one.text.matches(line).count()), (1, 1));
    assert_eq!(
        stamped_only(text, "other"),
        Stamped {
            text: text.into(),
            rollouts: 0
        }
    );
}

fn stamped_only(text: &str, name: &str) -> Stamped {
    stamped(text, &annotations(&NEW[1..]), Some(name)).unwrap()
}

#[test]
fn what_an_anchor_would_change_elsewhere_is_refused() {
    for metadata in [
        "metadata:\n  annotations: &a\n    x: y\n  labels: *a\n",
        "metadata:\n  annotations:\n    provenance.countersign.dev/agents: &a old\n  labels:\n    x: *a\n",
        "base: &b\n  provenance.countersign.dev/tests: PASSED\nmetadata:\n  annotations:\n    <<: *b\n    x: y\n",
        "base: &b {x: y}\nmetadata:\n  annotations: *b\n",
    ] {
        let refused = stamp(&rollout(metadata), &NEW).unwrap_err();
        assert!(
            matches!(
                refused,
                ManifestError::OtherChange | ManifestError::Unsafe(_)
            ),
            "{refused}"
        );
    }
}

#[test]
fn a_template_is_refused_as_a_template() {
    for metadata in [
        "metadata:\n  name: {{ .Values.name }}\n",
        "{{- if .Values.on }}\nmetadata:\n  name: shop\n{{- end }}\n",
    ] {
        let refused = stamp(&rollout(metadata), &NEW).unwrap_err();
        assert!(matches!(refused, ManifestError::Template), "{refused}");
    }
    let refused = stamp("a: [\n", &NEW).unwrap_err();
    assert!(matches!(refused, ManifestError::Invalid(_)), "{refused}");
}

#[test]
fn a_rollout_without_metadata_is_refused() {
    for metadata in ["", "metadata: []\n", "metadata:\n"] {
        assert!(stamp(&rollout(metadata), &NEW).is_err(), "{metadata}");
    }
}

#[test]
fn a_comment_in_a_flow_mapping_is_refused_and_not_lost() {
    let metadata = "metadata:\n  annotations: {\n    # why\n    a: b }\n";
    assert!(stamp(&rollout(metadata), &NEW).is_err());
}

#[test]
fn no_value_becomes_yaml() {
    let evil = "x\n  labels: {evil: \"yes\"}\n# \u{2028}: &a *b";
    for metadata in [
        "metadata:\n  name: shop\n",
        "metadata: {name: shop}\n",
        "metadata:\n  annotations:\n    provenance.countersign.dev/authors: x\n",
    ] {
        let text = stamp(&rollout(metadata), &[("authors", evil)])
            .unwrap()
            .text;
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        let annotations = &read["metadata"]["annotations"];
        assert_eq!(annotations["provenance.countersign.dev/authors"], evil);
        assert!(read["metadata"].get("labels").is_none());
    }
}

proptest! {
    #[test]
    fn whatever_is_stamped_keeps_every_other_line(
        value in "[ -~]{0,90}",
        before in "( *#[ a-z]{0,6}\n|\n){0,3}",
        others in proptest::collection::btree_map("[a-m]{1,6}", "[a-z0-9]{1,6}", 0..4),
        old in proptest::option::of("[a-zA-Z0-9]{1,8}"),
        crlf in proptest::bool::ANY,
    ) {
        let mut lines = vec![format!("metadata:\n  name: shop\n{before}  annotations:\n")];
        let other = |(key, value)| format!("    {key}: \"{value}\" # {key}\n{before}");
        lines.extend(others.iter().map(other));
        lines.extend(old.map(|old| format!("    {PROVENANCE_PREFIX}tests: {old}\n")));
        let mut text = rollout(&lines.concat());
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        let stamped = stamp(&text, &[("authors", &value)]).unwrap().text;
        let kept = |text: &str| -> Vec<String> {
            let lines = text.split_inclusive('\n');
            lines.filter(|it| !it.contains(PROVENANCE_PREFIX)).map(ToOwned::to_owned).collect()
        };
        prop_assert_eq!(kept(&text), kept(&stamped));
        prop_assert_eq!(&stamp(&stamped, &[("authors", &value)]).unwrap().text, &stamped);
    }

    #[test]
    fn any_text_is_stamped_or_refused_without_a_panic(text in "[a-z:{}\\[\\]&*|>?,# \n\"'-]{0,60}") {
        let _ = stamp(&text, &NEW);
        let _ = stamp(&rollout(&format!("metadata:\n  name: x\n  annotations: {text}\n")), &NEW);
    }

    #[test]
    fn any_value_is_one_line_of_yaml(value in "(?s).{0,60}") {
        let scalar = block_scalar(&value);
        prop_assert!(!scalar.contains('\n'));
        prop_assert_eq!(serde_saphyr::from_str::<String>(&scalar).unwrap(), value);
    }
}
