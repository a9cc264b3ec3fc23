use proptest::prelude::*;

use super::*;
use crate::view::tests::{at_rest, waiting};

fn run(revision: i64, hash: &str, outcome: &str) -> RolloutRun {
    serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun", "metadata": { "name": format!("web-{revision}") },
            "spec": { "rollout": "web", "digest": "d", "podTemplateHash": hash, "revision": revision,
                "provenance": { "annotations": { "contributor": "human" } }, "progress": { "outcome": outcome } },
        }))
        .unwrap()
}

fn set(hash: &str) -> ReplicaSet {
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "app", "image": hash }] } });
    serde_json::from_value(json!({
        "metadata": { "name": format!("web-{hash}"), "labels": { HASH_LABEL: hash },
            "annotations": { TEMPLATE_ANNOTATION: template.to_string() } },
    }))
    .unwrap()
}

#[test]
fn during_a_change_and_after_its_rollback_the_stable_template_comes_back() {
    let mut view = waiting();
    for outcome in [None, Some(Outcome::RolledBack)] {
        let status = view.rollout.status.as_mut().unwrap();
        status.change.as_mut().unwrap().outcome = outcome;
        let runs = [run(6, "aaa111", "Promoted"), run(7, "bbb222", "RolledBack")];
        let target = Target::find(&view.rollout, &view.replica_sets, &runs, None).unwrap();
        assert_eq!(
            (target.revision, target.set.name_any().as_str()),
            (6, "web-aaa111")
        );
        assert_eq!(target.run.unwrap().spec.revision, 6);
    }
}

#[test]
fn at_rest_the_last_promoted_revision_with_another_template_comes_back() {
    let sets = [set("aaa111"), set("ccc"), set("ddd")];
    let runs = [
        run(2, "ddd", "Promoted"),
        run(3, "ccc", "Promoted"),
        run(4, "eee", "Promoted"),
        run(5, "bbb", "RolledBack"),
        run(6, "aaa111", "Promoted"),
    ];
    let target = Target::find(&at_rest(), &sets, &runs, None).unwrap();
    assert_eq!(target.revision, 3, "4 has no ReplicaSet, 5 was rolled back");
    let target = Target::find(&at_rest(), &sets, &runs, Some(2)).unwrap();
    assert_eq!(target.set.name_any(), "web-ddd");
    let error = Target::find(&at_rest(), &sets, &runs, Some(4)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rollout web no longer has revision 4: it still has 2, 3, 6"
    );
    let error = Target::find(&at_rest(), &sets, &runs[4..], None).unwrap_err();
    assert!(
        matches!(error, Error::NoPrevious { revision: 6, .. }),
        "{error}"
    );
}

#[test]
fn a_revision_that_was_rolled_back_is_not_gone_back_to() {
    let sets = [set("aaa111"), set("bbb"), set("ccc")];
    let mut runs = vec![
        run(2, "ccc", "Promoted"),
        run(3, "bbb", "Promoted"),
        run(5, "bbb", "RolledBack"),
        run(6, "aaa111", "Promoted"),
    ];
    let rollout = at_rest();
    for revision in [3, 5] {
        let refused = Target::find(&rollout, &sets, &runs, Some(revision)).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("revision 5 of rollout web was rolled back"),
            "{refused}"
        );
    }
    let before = Target::find(&rollout, &sets, &runs, None).unwrap();
    assert_eq!(
        before.revision, 2,
        "the last try of 3's template was rolled back"
    );
    runs.push(run(7, "bbb", "Promoted"));
    assert_eq!(
        Target::find(&rollout, &sets, &runs, Some(7))
            .unwrap()
            .revision,
        7
    );
}

#[test]
fn the_edit_removes_what_the_old_template_did_not_have() {
    let view = waiting();
    let runs = [run(6, "aaa111", "Promoted")];
    let target = Target::find(&view.rollout, &view.replica_sets, &runs, None).unwrap();
    let provenance = target.provenance().unwrap();
    let patch = target.patch(&view.rollout, Some(&provenance)).unwrap();
    assert_eq!(
        patch,
        json!({
            "metadata": { "resourceVersion": "4711", "annotations": {
                "provenance.countersign.dev/contributor": "human",
                "provenance.countersign.dev/tests": null,
            } },
            "spec": { "template": { "spec": { "containers": [
                { "name": "app", "image": "example.org/web:v1", "env": [{ "name": "OLD", "value": "1" }] },
            ] } } },
        })
    );
    let patch = target.patch(&view.rollout, None).unwrap();
    assert_eq!(
        patch["metadata"]["annotations"],
        json!({ "provenance.countersign.dev/contributor": null, "provenance.countersign.dev/tests": null })
    );
}

#[test]
fn the_template_that_is_there_already_is_no_change() {
    let mut view = waiting();
    let target = Target::find(&view.rollout, &view.replica_sets, &[], None).unwrap();
    view.rollout.spec.template.0 = target.template().unwrap();
    let error = target.patch(&view.rollout, None).unwrap_err();
    assert!(
        matches!(error, Error::AlreadyThere { revision: 6, .. }),
        "{error}"
    );
    view.replica_sets[0].metadata.annotations = None;
    let target = Target::find(&view.rollout, &view.replica_sets, &[], None).unwrap();
    assert!(matches!(
        target.template().unwrap_err(),
        Error::NoTemplate(_)
    ));
}

#[test]
fn a_template_that_is_not_the_recorded_one_is_refused() {
    let mut view = waiting();
    let evil = json!({ "spec": { "containers": [{ "name": "app", "image": "evil" }] } });
    let annotations = view.replica_sets[0].annotations_mut();
    annotations.insert(TEMPLATE_ANNOTATION.into(), evil.to_string());
    let target = Target::find(&view.rollout, &view.replica_sets, &[], None).unwrap();
    let refused = target.patch(&view.rollout, None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "annotation countersign.dev/template of ReplicaSet web-aaa111 is not the template that was recorded of revision 6, so nothing is applied: apply the revision from its source"
    );
}

#[test]
fn an_older_template_is_verified_by_its_record() {
    let sets = [set("aaa111"), set("ccc")];
    let kept: Value = serde_json::from_str(&sets[1].annotations()[TEMPLATE_ANNOTATION]).unwrap();
    let digest = template_digest(&PodTemplate(kept.clone()));
    let template = |older: &RolloutRun| {
        let runs = [older.clone()];
        let target = Target::find(&at_rest(), &sets, &runs, Some(3)).unwrap();
        target.template()
    };
    let (set, revision) = ("web-ccc".to_owned(), 3);
    let mut older = run(3, "ccc", "Promoted");
    let unverified = Error::Unverified {
        set: set.clone(),
        revision,
    };
    assert_eq!(template(&older), Err(unverified));
    older.spec.template = Some(PodTemplate(kept.clone()));
    assert_eq!(template(&older), Ok(kept.clone()));
    older.spec.template_digest = Some("of another template".into());
    assert_eq!(template(&older), Err(Error::Tampered { set, revision }));
    older.spec.template_digest = Some(digest);
    assert_eq!(template(&older), Ok(kept));
}

#[test]
fn provenance_that_was_cut_is_not_reused() {
    let sets = [set("aaa111")];
    let provenance = |annotations: Value| {
        let mut run = run(6, "aaa111", "Promoted");
        run.spec.provenance.annotations = serde_json::from_value(annotations).unwrap();
        let runs = [run];
        let found = Target::find(&waiting().rollout, &sets, &runs, None);
        found.unwrap().provenance()
    };
    assert_eq!(
        provenance(json!({ "authors": "a" })).unwrap(),
        BTreeMap::from([("provenance.countersign.dev/authors".into(), "a".into())])
    );
    provenance(json!({ "authors": "a".repeat(255) })).unwrap();
    provenance(json!({ "authors": "ä".repeat(256) })).unwrap_err();
    let many: BTreeMap<_, _> = (0..32).map(|n| (n.to_string(), "x")).collect();
    provenance(json!(many)).unwrap_err();
}

/// RFC 7386, as the API server applies it.
fn merged(into: &Value, patch: &Value) -> Value {
    let Some(patch) = patch.as_object() else {
        return patch.clone();
    };
    let mut result = into.as_object().cloned().unwrap_or_default();
    for (key, value) in patch {
        if value.is_null() {
            result.remove(key);
        } else {
            let before = result.get(key).cloned().unwrap_or_default();
            result.insert(key.clone(), merged(&before, value));
        }
    }
    Value::Object(result)
}

fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        "[ab]".prop_map(Value::from)
    ];
    let inner = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    });
    proptest::collection::btree_map("[a-c]", inner, 0..4).prop_map(|map| json!(map))
}

proptest! {
    #[test]
    fn the_difference_makes_one_object_of_the_other(from in object(), to in object()) {
        let patch = difference(&from, &to);
        prop_assert_eq!(merged(&from, &patch), to.clone());
        prop_assert_eq!(difference(&to, &to), json!({}));
    }
}
