//! A manifest is stamped, and nothing else in it is changed.

use super::*;

/// A manifest with everything that a careless editor loses.
#[test]
fn a_manifest_is_printed_or_edited_with_nothing_else_changed() {
    let it = Repository::assisted();
    let head = it.git(&["rev-parse", "HEAD"]);
    let expected = STAMPED.replace("HEAD_REVISION", &head);
    it.write("rollout.yaml", MANIFEST);
    let range = ["--range", "base..HEAD"];
    let printed = it.run(&[&range[..], &["-f", "rollout.yaml"]].concat());
    assert!(printed.ok, "{}", printed.err);
    assert_eq!(printed.out, expected);
    assert_eq!(
        fs::read_to_string(it.0.join("rollout.yaml")).unwrap(),
        MANIFEST
    );
    let piped = it.run_with(&[&range[..], &["-f", "-"]].concat(), MANIFEST);
    assert_eq!(piped.out, expected);

    let written = it.run(&[&range[..], &["-f", "rollout.yaml", "--write"]].concat());
    assert!(written.ok && written.out.is_empty(), "{}", written.err);
    assert_eq!(
        fs::read_to_string(it.0.join("rollout.yaml")).unwrap(),
        expected
    );
    let again = it.run(&[&range[..], &["-f", "rollout.yaml"]].concat());
    assert_eq!(again.out, expected, "stamping twice is stamping once");
}

#[test]
fn a_manifest_that_cannot_be_stamped_leaves_all_files_as_they_are() {
    let it = Repository::assisted();
    it.write("good.yaml", MANIFEST);
    it.write("template.yaml", "kind: {{ .Values.kind }}\n");
    it.write("none.yaml", "kind: Service\n");
    let stamp = |more: &[&str]| it.refusal(&[&["--range", "base..HEAD", "--write"], more].concat());
    assert!(
        stamp(&["-f", "good.yaml", "-f", "template.yaml"])
            .contains("template.yaml: it is a template")
    );
    assert!(stamp(&["-f", "none.yaml"]).contains("no Rollout"));
    assert!(stamp(&["-f", "good.yaml", "--rollout", "other"]).contains("`other`"));
    assert!(stamp(&["-f", "absent.yaml"]).contains("absent.yaml"));
    assert!(stamp(&["-f", "-"]).contains("--write"));
    assert_eq!(
        fs::read_to_string(it.0.join("good.yaml")).unwrap(),
        MANIFEST
    );
}
