//! The installed policies equal the chart's files.

use std::path::Path;
use std::process::Command;

use countersign_cluster::wait_for;
use serde_json::{Value, json};

use super::enforced;
use super::user::User;
use crate::support::{Scene, TIMEOUT};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/countersign");

/// Every policy and binding of the chart, with the operator's user filled in.
pub fn files() -> Vec<Value> {
    let mut paths: Vec<_> = std::fs::read_dir(Path::new(CHART).join("admission"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let parse = |path| {
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.replace("NAMESPACE:NAME", "countersign-system:countersign");
        let documents: Vec<Value> = text
            .split("\n---\n")
            .map(|document| serde_saphyr::from_str(document).unwrap())
            .collect();
        documents
    };
    paths.iter().flat_map(parse).collect()
}

/// Whether a kind ends so.
fn is_of(file: &Value, ending: &str) -> bool {
    file["kind"].as_str().unwrap().ends_with(ending)
}

/// The path of a policy or a binding.
pub fn path(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    };
    let name = name_of(object);
    format!("/apis/admissionregistration.k8s.io/v1/{plural}/{name}")
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

#[test]
fn the_rendered_chart_is_that_of_this_commit() {
    let charts = Path::new(CHART).parent().unwrap();
    let rendered = Command::new(charts.join("render.sh")).output().unwrap();
    assert!(
        rendered.status.success(),
        "{}",
        String::from_utf8_lossy(&rendered.stderr)
    );
    let committed = std::fs::read(charts.join("install.yaml")).unwrap();
    assert!(rendered.stdout == committed, "run `make generate`");
}

#[tokio::test]
async fn the_api_server_stores_the_policies_as_the_chart_has_them() {
    let scene = Scene::new("policies").await;
    let admin = User::admin(&scene);
    let mut files = files();
    // Kubernetes before 1.36 has none.
    files.retain(|it| scene.stamped || !it["kind"].as_str().unwrap().starts_with("Mutating"));
    let bindings = files.iter().filter(|file| is_of(file, "Binding"));
    assert_eq!(files.len(), 2 * bindings.count(), "each with its binding");
    for file in files {
        let stored = admin.get(&path(&file)).await.unwrap();
        assert_eq!(stored["spec"], file["spec"], "{}", path(&file));
    }
}

#[tokio::test]
async fn the_api_server_finds_no_fault_with_the_policies() {
    let scene = enforced("policies").await;
    let admin = User::admin(&scene);
    let checked = files()
        .into_iter()
        .filter(|file| file["kind"] == "ValidatingAdmissionPolicy");
    for mut file in checked {
        // Without a binding it has no effect. An API server checks a policy once, asynchronously, and one that was made
        // before the definitions were served was checked without them.
        let name = format!("{}.{}", scene.namespace, name_of(&file));
        file["metadata"]["name"] = name.into();
        let own = path(&file);
        let all = own.rsplit_once('/').unwrap().0;
        let poll = async || {
            admin.create(all, &file).await.unwrap();
            let poll = async || {
                let status = admin.get(&own).await.unwrap()["status"].clone();
                let found = status["typeChecking"].clone();
                found.is_object().then_some(found).ok_or("not checked")
            };
            let found = wait_for("a policy is checked", TIMEOUT, poll).await;
            admin.delete(&own).await.unwrap();
            let found = found.unwrap();
            (found == json!({})).then_some(()).ok_or(found.to_string())
        };
        wait_for("a policy without faults", TIMEOUT, poll)
            .await
            .unwrap();
    }
}

#[test]
fn no_other_version_of_the_chart_or_the_operator_writes_the_policies() {
    let helm = |arguments: &[&str]| {
        let output = Command::new("helm").args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    let rendered = |chart: &str| {
        let written = helm(&[
            "template",
            "countersign",
            chart,
            "--show-only=templates/admission.yaml",
            "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
        ]);
        let labels = "app.kubernetes.io/instance: countersign";
        assert_eq!(written.matches(labels).count(), files().len(), "{written}");
        written
    };
    let packed = std::env::temp_dir().join(format!("countersign-chart-{}", std::process::id()));
    let directory = packed.display().to_string();
    let versions = ["--version=9.8.7", "--app-version=6.5.4"];
    helm(
        &[
            &["package", CHART, "--destination", &directory][..],
            &versions,
        ]
        .concat(),
    );
    let other = rendered(&format!("{directory}/countersign-9.8.7.tgz"));
    std::fs::remove_dir_all(&packed).unwrap();
    assert_eq!(other, rendered(CHART));
}

/// Its files are all that it needs.
#[test]
fn a_packed_chart_installs_what_the_checkout_s_does() {
    let helm = |arguments: &[&str]| {
        let output = Command::new("helm").args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    let packed = std::env::temp_dir().join(format!("countersign-packed-{}", std::process::id()));
    let directory = packed.display().to_string();
    helm(&["package", CHART, "--destination", &directory]);
    let chart = std::fs::read_dir(&packed)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let rendered = helm(&["template", "countersign", &chart.display().to_string()]);
    std::fs::remove_dir_all(&packed).unwrap();
    let definitions = rendered.matches("kind: CustomResourceDefinition").count();
    assert_eq!(definitions, countersign_api::crds().len());
    assert_eq!(rendered, helm(&["template", "countersign", CHART]));
}

#[test]
fn the_chart_leaves_out_what_the_api_server_does_not_have() {
    let kinds = |arguments: &[&str]| {
        let output = Command::new("helm")
            .args(["template", "countersign", CHART])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}");
        let rendered = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = |kind: &str| {
            rendered
                .matches(&format!("kind: {kind}AdmissionPolicy"))
                .count()
        };
        (count("Validating"), count("Mutating"))
    };
    let mutating = "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy";
    let of = |kind: &str| {
        let files = files();
        let kinds = files.iter().map(|file| file["kind"].as_str().unwrap());
        kinds.filter(|it| it.starts_with(kind)).count()
    };
    let (validating, all) = (of("Validating"), files().len());
    let whole = (validating, all - validating);
    assert_eq!(kinds(&[mutating]), whole);
    assert_eq!(kinds(&[]), (validating, 0));
    // `helm template` queries no API server, so the mode can be stated.
    for set in ["--set", "--set-string"] {
        let mode = |mode: &str| format!("{set}=admission.mutating={mode}");
        assert_eq!(kinds(&[&mode("true")]), whole);
        assert_eq!(kinds(&[mutating, &mode("false")]), (validating, 0));
        assert_eq!(kinds(&[mutating, &mode("auto")]), whole);
    }
    // As `--reuse-values` has it after an upgrade from a chart without the value.
    assert_eq!(kinds(&[mutating, "--set=admission.mutating=null"]), whole);
    assert_eq!(kinds(&[mutating, "--set=admission.install=false"]), (0, 0));
}
