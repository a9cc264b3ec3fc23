//! The API server accepts what the chart renders from each set of values in its `ci/`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign_cluster::wait_for;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::support::{Scene, TIMEOUT};

pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/countersign");
const SYSTEM: &str = "countersign-system";
/// Kinds that at least one set has.
const KINDS: [&str; 8] = [
    "ConfigMap",
    "Deployment",
    "Pod",
    "PodMonitor",
    "PrometheusRule",
    "RolloutPolicy",
    "Service",
    "ServiceMonitor",
];
pub(crate) const APPLY: [&str; 3] = ["apply", "--server-side", "--filename=-"];
const DRY: [&str; 4] = [
    "--force-conflicts",
    "--dry-run=server",
    "--namespace",
    SYSTEM,
];

/// The sets of values, by their files' names.
fn sets() -> Vec<(String, PathBuf)> {
    let files = std::fs::read_dir(Path::new(CHART).join("ci")).unwrap();
    let named = files.map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        (name.trim_end_matches("-values.yaml").to_owned(), path)
    });
    let mut sets: Vec<_> = named.collect();
    sets.sort();
    sets
}

pub(crate) fn helm(arguments: &[&str]) -> String {
    let output = Command::new("helm").args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The manifests of a release with such values.
fn rendered(release: &str, values: &Path) -> Vec<String> {
    let mutating = "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy";
    let values = format!("--values={}", values.display());
    let namespace = format!("--namespace={SYSTEM}");
    let manifests = helm(&["template", release, CHART, &namespace, mutating, &values]);
    manifests.split("\n---\n").map(ToOwned::to_owned).collect()
}

pub(crate) fn kind(manifest: &str) -> Option<&str> {
    manifest
        .lines()
        .find_map(|line| line.strip_prefix("kind: "))
}

/// A pod's account must exist, which a dry run does not create.
fn with_account(pod: &str) -> String {
    let line = |line: &str| match line.strip_prefix("  serviceAccountName: ") {
        Some(_) => "  serviceAccountName: default".to_owned(),
        None => line.to_owned(),
    };
    let lines: Vec<_> = pod.lines().map(line).collect();
    lines.join("\n")
}

pub(crate) fn kubectl(arguments: &[&str], manifests: &str) -> Result<(), String> {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(arguments).stdin(Stdio::piped());
    kubectl.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut kubectl = kubectl.spawn().unwrap();
    let mut input = kubectl.stdin.take().unwrap();
    input.write_all(manifests.as_bytes()).unwrap();
    drop(input);
    let output = kubectl.wait_with_output().unwrap();
    let stderr = || String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or_else(stderr)
}

/// Definitions that take any content, in place of those of the Prometheus operator.
fn monitors() -> String {
    let definition = |kind: &str| {
        let plural = format!("{}s", kind.to_lowercase());
        let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.monitoring.coreos.com") },
            "spec": {
                "group": "monitoring.coreos.com", "scope": "Namespaced", "names": { "kind": kind, "plural": plural },
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": any } }],
            },
        })
    };
    let items = ["PodMonitor", "PrometheusRule", "ServiceMonitor"].map(definition);
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

#[tokio::test]
async fn each_set_of_values_gives_objects_that_the_api_server_accepts() {
    let _scene = Scene::new("chart").await;
    kubectl(&APPLY, &monitors()).unwrap();
    let mut kinds = Vec::new();
    let mut names = Vec::new();
    for (name, values) in sets() {
        // YAML reads this one as a number.
        let release = if name == "hostile" { "1e3" } else { "rival" };
        let mut manifests = rendered(release, &values);
        for manifest in &mut manifests {
            kinds.extend(kind(manifest).map(ToOwned::to_owned));
            if kind(manifest) == Some("Pod") {
                *manifest = with_account(manifest);
            }
        }
        let manifests = manifests.join("\n---\n");
        let options = [&APPLY[..], &DRY].concat();
        // The definitions of the monitors are served a moment after they are stored.
        let accepted = async || kubectl(&options, &manifests);
        wait_for(&format!("values {name} are accepted"), TIMEOUT, accepted)
            .await
            .unwrap();
        names.push(name);
    }
    assert_eq!(names, ["all", "hostile", "least", "long", "openshift"]);
    for expected in KINDS {
        assert!(kinds.iter().any(|it| it == expected), "no {expected}");
    }
    kubectl(&["delete", "--filename=-"], &monitors()).unwrap();
}

/// The namespace of the operator enforces `restricted`.
#[tokio::test]
async fn the_pod_of_notify_is_admitted_where_restricted_is_enforced() {
    let scene = Scene::new("notify-pod").await;
    let manifests = rendered("countersign", &Path::new(CHART).join("ci/all-values.yaml"));
    let is_notify = |it: &&String| {
        kind(it) == Some("Deployment") && it.contains("\n  name: countersign-notify\n")
    };
    let deployment = manifests.iter().find(is_notify).unwrap();
    let deployment: Value = serde_saphyr::from_str(deployment).unwrap();
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    spec["serviceAccountName"] = json!("default");
    let container = &spec["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["volumeMounts"][0]["readOnly"], true);
    let pod = json!({ "metadata": { "generateName": "notify-" }, "spec": spec });
    let pods: Api<Pod> = Api::namespaced(scene.cluster.client(), SYSTEM);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&dry, &pod).await.unwrap();
}

/// `restricted-v2` of `OpenShift` assigns ids, and refuses pods that name others.
#[test]
fn with_the_values_for_openshift_no_pod_names_a_user_or_a_group() {
    let openshift = Path::new(CHART).join("ci/openshift-values.yaml");
    let manifests = rendered("countersign", &openshift);
    let pods = ["Pod", "Deployment"].map(|of| {
        let mut manifests = manifests.iter();
        let found = manifests.find(|it| kind(it) == Some(of)).unwrap();
        let object: Value = serde_saphyr::from_str(found).unwrap();
        let template = object.pointer("/spec/template/spec");
        template.unwrap_or(&object["spec"]).clone()
    });
    for pod in pods {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let text = pod.to_string();
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert!(!text.contains(id), "{id}: {text}");
        }
    }
}

#[test]
fn the_name_of_the_image_takes_a_mirror_and_a_digest() {
    let image = |options: &[&str]| {
        let shown = "--show-only=templates/deployment.yaml";
        let template = ["template", "countersign", CHART, shown];
        let rendered = helm(&[&template[..], options].concat());
        let deployment: Value = serde_saphyr::from_str(&rendered).unwrap();
        let containers = &deployment["spec"]["template"]["spec"]["containers"];
        containers[0]["image"].as_str().unwrap().to_owned()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(&[]), format!("localhost/countersign:{version}"));
    let (registry, tag) = ("--set=image.registry=a.example", "--set-string=image.tag=1");
    let mirror = "--set=global.imageRegistry=mirror.example:5000";
    assert_eq!(image(&[registry, tag]), "a.example/countersign:1");
    let mirrored = "mirror.example:5000/countersign";
    assert_eq!(image(&[registry, mirror, tag]), format!("{mirrored}:1"));
    let digest = format!("sha256:{}", "0".repeat(64));
    let option = format!("--set=image.digest={digest}");
    assert_eq!(image(&[mirror, &option]), format!("{mirrored}@{digest}"));
    // Values of an older release, over which `--reset-then-reuse-values` puts the new default.
    for repository in ["a.example/b", "a:5000/b", "localhost/b"] {
        let earlier = format!("--set=image.repository={repository}");
        assert_eq!(image(&[tag, &earlier]), format!("{repository}:1"));
    }
    let nested = "--set=image.repository=b/c";
    assert_eq!(image(&[nested, tag]), "localhost/b/c:1");
}

/// Helm removes a value that is null.
#[test]
fn a_value_that_is_removed_is_off_but_for_the_admission_policies() {
    let removed = "--set=metrics=null,serviceMonitor=null,podMonitor=null,admission=null";
    let without = "--set=metrics.service=null,admission.install=false";
    for (option, policies) in [(removed, true), (without, false)] {
        let rendered = helm(&["template", "countersign", CHART, option]);
        let has = rendered.contains("\nkind: ValidatingAdmissionPolicy\n");
        assert_eq!(has, policies, "{option}");
        assert!(!rendered.contains("\nkind: Service\n"), "{option}");
    }
}

#[test]
fn values_by_their_names_in_an_earlier_chart_are_those_of_the_present_names() {
    let rendered = |option: &str| helm(&["template", "countersign", CHART, option]);
    let pairs = [
        ("replicas=3", "replicaCount=3"),
        ("replicas=1", "replicaCount=1"),
        ("replicas=0", "replicaCount=0"),
        ("crds.install=false", "crds.enabled=false"),
        ("crds.install=true", "crds.enabled=true"),
        ("replicas=null", "crds.install=null"),
    ];
    for (earlier, present) in pairs {
        let [of_earlier, of_present] = [earlier, present].map(|it| format!("--set={it}"));
        let same = rendered(&of_earlier) == rendered(&of_present);
        assert!(same, "{earlier} is not {present}");
    }
    assert!(rendered("--set=replicas=3").contains("\n  replicas: 3\n"));
}

#[test]
fn everything_follows_the_namespace_that_a_value_names() {
    let all = "--set=serviceMonitor.enabled=true,podMonitor.enabled=true,prometheusRule.enabled=true,\
               dashboards.enabled=true,metrics.auth=true";
    let namespace = format!("--namespace={SYSTEM}");
    let template = ["template", "countersign", CHART, &namespace, all];
    let of_release = helm(&template);
    let overridden = "--set=namespaceOverride=platform-operators";
    let of_value = helm(&[&template[..], &[overridden]].concat());
    assert!(!of_value.contains(SYSTEM), "{of_value}");
    assert!(of_value.replace("platform-operators", SYSTEM) == of_release);
}

/// The chart as a release packs it, in a copy of the repository whose changelog describes the version.
#[test]
fn a_release_packs_a_chart_that_names_its_image_and_its_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = std::env::temp_dir().join(format!("countersign-release-{}", std::process::id()));
    std::fs::create_dir(&copy).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for path in [".github", "charts", "crds"] {
        let mut copied = Command::new("cp");
        copied.arg("-R").arg(root.join(path)).arg(&copy);
        assert!(copied.status().unwrap().success(), "{path}");
    }
    let changes = std::fs::read_to_string(root.join("CHANGELOG.md")).unwrap();
    let changes = changes.replace("\n## [Unreleased]\n", &format!("\n## [{version}]\n"));
    std::fs::write(copy.join("CHANGELOG.md"), changes).unwrap();
    let (image, digest) = (
        "ghcr.example/acme/countersign",
        format!("sha256:{}", "1".repeat(64)),
    );
    let packed = Command::new(copy.join(".github/scripts/package-chart.sh"))
        .args([
            version,
            "https://git.example/acme/countersign",
            image,
            &digest,
            "out",
        ])
        .current_dir(&copy)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&packed.stderr);
    assert!(packed.status.success(), "{stderr}");

    let archive = copy.join(format!("out/countersign-{version}.tgz"));
    let archive = archive.to_str().unwrap();
    let metadata: Value = serde_saphyr::from_str(&helm(&["show", "chart", archive])).unwrap();
    assert_eq!(metadata["home"], "https://git.example/acme/countersign");
    let annotations = &metadata["annotations"];
    let list = |name: &str| -> Vec<Value> {
        let text = annotations[&format!("artifacthub.io/{name}")].as_str();
        serde_saphyr::from_str(text.unwrap()).unwrap()
    };
    let named = format!("{image}:{version}@{digest}");
    assert_eq!(list("images")[0]["image"], named.as_str());
    assert!(list("changes").iter().all(|it| it["kind"].is_string()));
    let kinds: Vec<_> = list("crds").iter().map(|it| it["kind"].clone()).collect();
    let defined: Vec<_> = countersign_api::crds()
        .into_iter()
        .map(|it| json!(it.spec.names.kind))
        .collect();
    assert_eq!(kinds, defined);
    let readme = helm(&["show", "readme", archive]);
    assert!(
        !readme.contains("](../"),
        "a link that leads nowhere outside the repository"
    );

    let earlier = "--set=image.repository=a.example/b";
    let upgraded = helm(&["template", "countersign", archive, earlier]);
    let reused = format!("image: \"a.example/b@{digest}\"");
    assert_eq!(upgraded.matches(&reused).count(), 2, "{upgraded}");

    let install = std::fs::read_to_string(copy.join("out/install.yaml")).unwrap();
    assert!(install.contains(&format!("image: \"{image}@{digest}\"")));
    let definitions = install
        .matches("\nkind: CustomResourceDefinition\n")
        .count();
    assert_eq!(definitions, countersign_api::crds().len());
    let mut kustomize = Command::new("kubectl");
    let built = kustomize.arg("kustomize").arg(copy.join("out")).output();
    let built = built.unwrap();
    let stderr = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{stderr}");
    let objects = |text: &str| text.matches("\nkind: ").count();
    let built = String::from_utf8(built.stdout).unwrap();
    assert_eq!(objects(&built), objects(&install));
    std::fs::remove_dir_all(&copy).unwrap();
}
