//! Inputs that broke in real use, each run through the offline commands of the plugin. Those that need a
//! cluster are run by `tests/e2e` as well.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the plugin at the root of the repository, with a text as its standard input.
fn plugin(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no input may end first.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn lines(output: &Output) -> Vec<&str> {
    text(&output.stdout).lines().collect()
}

/// Runs the plugin, which must succeed, and reads its JSON.
fn json(arguments: &[&str], input: &str) -> Value {
    let output = plugin(&[arguments, &["-o", "json"]].concat(), input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn case(name: &str) -> String {
    fs::read_to_string(root().join("tests/cases").join(name)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every manifest but the first with what `lint` reports for it.
const LINTED: [(&str, &[&str]); 13] = [
    (
        "02-linkerd-route.yaml",
        &[
            "33:22: warning: the manifest of Service mesh has spec.selector, which is one value for server-side apply: that conflicts with the controller, or takes pod-template-hash out; leave spec.selector out, the controller sets it",
            "34:22: warning: the manifest of Service mesh-canary has spec.selector, which is one value for server-side apply: that conflicts with the controller, or takes pod-template-hash out; leave spec.selector out, the controller sets it",
        ],
    ),
    (
        "03-second-controller.yaml",
        &[
            "33:22: warning: the manifest of Service api has spec.selector, which is one value for server-side apply: that conflicts with the controller, or takes pod-template-hash out; leave spec.selector out, the controller sets it",
            "34:22: warning: the manifest of Service api-canary has spec.selector, which is one value for server-side apply: that conflicts with the controller, or takes pod-template-hash out; leave spec.selector out, the controller sets it",
        ],
    ),
    ("05-steady-but-slow.yaml", &[]),
    ("06-vault-annotations.yaml", &[]),
    ("07-argo-cd-drift.yaml", &[]),
    ("08-a-sidecar.yaml", &[]),
    ("08-b-variable.yaml", &[]),
    ("08-c-no-image-key-stable.yaml", &[]),
    ("08-c-no-image-key.yaml", &[]),
    ("08-stable.yaml", &[]),
    (
        "18-pods-the-api-server-refuses.yaml",
        &[
            "25:22: error: spec.template.spec.restartPolicy: must be Always, or left out: pods of a ReplicaSet serve until they are deleted",
            "32:23: error: spec.template.spec.containers[0].volumeMounts[0].name: there is no volume `cache`",
        ],
    ),
    (
        "19-keys-without-values.yaml",
        &[
            "26:7: warning: spec.template.spec.nodeSelector has no value: it counts as absent, but server-side apply refuses it (also if Helm or a GitOps tool uses it): remove the key",
            "27:7: warning: spec.template.spec.affinity has no value: it counts as absent, but server-side apply refuses it (also if Helm or a GitOps tool uses it): remove the key",
            "28:7: warning: spec.template.spec.tolerations has no value: it counts as absent, but server-side apply refuses it (also if Helm or a GitOps tool uses it): remove the key",
            "34:11: warning: spec.template.spec.containers[0].resources has no value: it counts as absent, but server-side apply refuses it (also if Helm or a GitOps tool uses it): remove the key",
            "35:11: warning: spec.template.spec.containers[0].env has no value: it counts as absent, but server-side apply refuses it (also if Helm or a GitOps tool uses it): remove the key",
        ],
    ),
    ("20-half-a-cpu.yaml", &[]),
];

#[test]
fn lint_reports_for_each_case_what_the_api_server_would() {
    let first = "01-two-names-for-one-port.yaml".to_owned();
    let known = LINTED.iter().map(|(name, _)| (*name).to_owned());
    let known: BTreeSet<_> = known.chain([first]).collect();
    let files = fs::read_dir(root().join("tests/cases")).unwrap();
    let names = files.map(|it| it.unwrap().file_name().into_string().unwrap());
    let is_yaml = |name: &String| Path::new(name).extension().is_some_and(|it| it == "yaml");
    let manifests: BTreeSet<_> = names.filter(is_yaml).collect();
    assert_eq!(manifests, known, "each case states what is right");
    for (name, expected) in LINTED {
        let path = format!("tests/cases/{name}");
        let output = plugin(&["lint", "-f", &path], "");
        let expected: Vec<_> = expected.iter().map(|it| format!("{path}:{it}")).collect();
        assert_eq!(lines(&output), expected);
        let refused = expected.iter().any(|it| it.contains(": error: "));
        assert_eq!(output.status.code(), Some(i32::from(refused)), "{name}");
    }
}

#[test]
fn whatever_lint_takes_is_explained() {
    for (name, findings) in LINTED {
        if findings.iter().any(|it| it.contains(": error: ")) {
            continue;
        }
        let path = format!("tests/cases/{name}");
        let explained = json(&["explain", "-f", &path], "");
        assert_eq!(explained.as_array().unwrap().len(), 1, "{name}");
        let change = &explained[0]["change"];
        assert_eq!(change["provenance"]["state"], "Declared", "{name}");
        assert!(
            !change["plan"]["steps"].as_array().unwrap().is_empty(),
            "{name}"
        );
    }
}

// --- 01 ------------------------------------------------------------------------------------------

/// A Deployment takes all three. Whether a Rollout does is written in its definition, which merges some lists by
/// their keys and then takes no key twice.
#[test]
fn a_key_that_is_given_twice_is_refused_if_the_definition_merges_by_it() {
    let definition = serde_json::to_value(&countersign_api::crds()[0]).unwrap();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/template/properties/spec/properties";
    let merges = |list: &str| {
        let path = format!("{spec}/{list}/x-kubernetes-list-type");
        definition.pointer(&path).is_some_and(|it| it == "map")
    };
    let container = |list: &str| merges(&format!("containers/items/properties/{list}"));
    let path = "tests/cases/01-two-names-for-one-port.yaml";
    let output = plugin(&["lint", "-f", path], "");
    for (line, list, refused) in [
        (27, "hostAliases", merges("hostAliases")),
        (33, "containers[0].ports", container("ports")),
        (36, "containers[0].env", container("env")),
    ] {
        let place = format!("{path}:{line}:");
        let expected = format!("error: spec.template.spec.{list}: two members have the same");
        let found = lines(&output)
            .into_iter()
            .any(|it| it.starts_with(&place) && it.contains(&expected));
        assert_eq!(found, refused, "{list}: {output:?}");
    }
    let warning = "36:23: warning: spec.template.spec.containers[0].env[1].name: `LOG_LEVEL` is set above already, and the last value counts";
    assert!(
        lines(&output).contains(&format!("{path}:{warning}").as_str()),
        "{output:?}"
    );
}

// --- 08 ------------------------------------------------------------------------------------------

#[test]
fn provenance_that_was_left_as_it_was_is_pointed_at() {
    for (name, stable) in [
        ("08-a-sidecar.yaml", "08-stable.yaml"),
        ("08-b-variable.yaml", "08-stable.yaml"),
        ("08-c-no-image-key.yaml", "08-c-no-image-key-stable.yaml"),
    ] {
        let explain = |change: &str| {
            let stable = format!("tests/cases/{stable}");
            let output = plugin(&["explain", "-f", "-", "--stable", &stable], change);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            text(&output.stdout).to_owned()
        };
        let warning = "are those of an earlier change and say nothing of this one";
        let change = case(name);
        assert!(explain(&change).contains(warning), "{name}");
        let stamped = change.replace("revision: 7c1e0aa", "revision: 9d2f1bb");
        assert!(!explain(&stamped).contains(warning), "{name}");
    }
}

// --- 19, 20 --------------------------------------------------------------------------------------

fn template_hash(manifest: &str) -> String {
    let explained = json(&["explain", "-f", "-"], manifest);
    let hash = &explained[0]["change"]["podTemplateHash"];
    hash.as_str().unwrap().to_owned()
}

#[test]
fn a_key_without_a_value_is_no_key() {
    let blank = case("19-keys-without-values.yaml");
    let nothing = [
        "nodeSelector:",
        "affinity:",
        "tolerations:",
        "resources:",
        "env:",
    ];
    let without: String = blank
        .lines()
        .filter(|line| !nothing.contains(&line.trim()))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(
        blank.lines().count(),
        without.lines().count() + nothing.len()
    );
    assert_eq!(template_hash(&blank), template_hash(&without));
}

#[test]
fn a_quantity_keeps_the_form_that_it_was_given_in() {
    let half = case("20-half-a-cpu.yaml");
    let other = half.replace("cpu: 1.5", "cpu: 1.25");
    assert_eq!(template_hash(&half), template_hash(&half));
    assert_ne!(template_hash(&half), template_hash(&other));
    for (quantity, taken) in [
        ("0.5", true),
        ("1", true),
        ("'0.5'", true),
        ("500m", true),
        ("1e-1", true),
        ("half", false),
        ("true", false),
        ("[0.5]", false),
        ("500mm", false),
    ] {
        let manifest = half.replace("cpu: 0.5", &format!("cpu: {quantity}"));
        let output = plugin(&["lint", "-f", "-"], &manifest);
        let code = i32::from(!taken);
        assert_eq!(output.status.code(), Some(code), "{quantity}: {output:?}");
    }
}

// --- Other inputs of each kind -------------------------------------------------------------------

/// The case of a sound manifest with other lines in place of one.
fn with(line: &str, lines: &str) -> String {
    let sound = case("20-half-a-cpu.yaml");
    assert_eq!(sound.matches(line).count(), 1, "{line}");
    sound.replace(line, lines)
}

#[test]
fn what_a_deployment_takes_is_taken() {
    let labels = "      labels: { app: half }\n";
    let ports = "          ports:\n            - containerPort: 8080\n";
    let annotated =
        |value: &str| format!("{labels}      annotations:\n        example.org/text: {value}\n");
    for (line, lines) in [
        // Templates of other programs.
        (labels, annotated("'{{ .Values.x }} ${A} $(B)'")),
        (labels, annotated("|\n          {{- range . }}\n          ${x}\n          {{ end }}")),
        (ports, "          args: ['{{ .x }}', '${HOME}']\n          command: [sh, -c, 'echo ${A:-b}']\n".into()),
        (ports, "          env: [{ name: A, value: '${B}' }, { name: C, value: '$(A){{ if }}' }]\n".into()),
        // Keys without a value.
        (labels, format!("{labels}      annotations:\n")),
        (labels, format!("{labels}      creationTimestamp: null\n")),
        (ports, "          ports:\n          livenessProbe:\n          lifecycle:\n          securityContext:\n".into()),
        (ports, "          ports: [{ containerPort: 80, name: ~, protocol: ~, hostPort: ~ }]\n".into()),
        ("  replicas: 4\n", "  replicas:\n  paused:\n  minReadySeconds:\n  strategy:\n".into()),
        ("  replicas: 4\n", "  strategy: { canary: { steps: , analysis: , maxSurge: , traffic: } }\n".into()),
        // Empty texts, which are as good as absent.
        (ports, "          imagePullPolicy: ''\n          terminationMessagePolicy: ''\n".into()),
        (labels, format!("{labels}    # a comment\n")),
        // Numbers as YAML has them.
        ("  replicas: 4\n", "  replicas: 4.0\n  minReadySeconds: 0x10\n".into()),
        (ports, "          readinessProbe: { tcpSocket: { port: 8080 } }\n".into()),
        // What is newer than this build.
        (ports, "          somethingNewer: { a: [1, ~, true] }\n".into()),
    ] {
        let manifest = with(line, &lines);
        let output = plugin(&["lint", "-f", "-"], &manifest);
        let errors: Vec<_> = lines_with_errors(&output);
        assert!(errors.is_empty(), "{lines}: {errors:?}");
        json(&["explain", "-f", "-"], &manifest);
    }
}

fn lines_with_errors(output: &Output) -> Vec<&str> {
    let found = lines(output).into_iter();
    found.filter(|it| it.contains(": error: ")).collect()
}

#[test]
fn a_stream_of_documents_is_read_as_kubectl_reads_it() {
    let rollout = case("20-half-a-cpu.yaml");
    let indent = |line| ["    ", line, "\n"];
    let indented: String = rollout.lines().flat_map(indent).collect();
    let item = indented.replacen("    apiVersion", "  - apiVersion", 1);
    for (what, stream) in [
        (
            "comments alone beside it",
            format!("# nothing\n---\n{rollout}---\n# nothing\n---\n"),
        ),
        (
            "empty documents",
            format!("---\n---\n\n---\n{rollout}\n---\n---\n"),
        ),
        ("a null document", format!("null\n---\n{rollout}")),
        (
            "a list",
            format!("apiVersion: v1\nkind: List\nitems:\n{item}"),
        ),
        (
            "a list of the kind",
            format!("apiVersion: countersign.dev/v1alpha1\nkind: RolloutList\nitems:\n{item}"),
        ),
        ("an end of a document", format!("{rollout}...\n")),
        ("directives", format!("%YAML 1.1\n---\n{rollout}")),
        ("lines of Windows", rollout.replace('\n', "\r\n")),
        ("a byte order mark", format!("\u{feff}{rollout}")),
        (
            "JSON",
            serde_json::to_string_pretty(&as_json(&rollout)).unwrap(),
        ),
        (
            "JSON with tabs",
            serde_json::to_string_pretty(&as_json(&rollout))
                .unwrap()
                .replace("  ", "\t"),
        ),
        (
            "other kinds",
            format!(
                "{rollout}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: a }}\ndata: {{ a: '{{{{ .x }}}} ${{y}}' }}\n"
            ),
        ),
        (
            "a secret of the same name",
            format!("{rollout}---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: half }}\n"),
        ),
    ] {
        let output = plugin(&["lint", "--strict", "-f", "-"], &stream);
        assert_eq!(lines(&output), [] as [&str; 0], "{what}");
        let explained = json(&["explain", "-f", "-"], &stream);
        assert_eq!(explained[0]["rollout"], "half", "{what}");
    }
}

fn as_json(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn anchors_and_merges_are_what_they_stand_for() {
    let manifest = with(
        "            requests: { cpu: 0.5, memory: 256Mi }\n            limits: { cpu: 1.5, memory: 512Mi }",
        "            requests: &small { cpu: 0.5, memory: 256Mi }\n            limits: { <<: *small, cpu: 1.5, memory: 512Mi }",
    );
    assert_eq!(
        template_hash(&manifest),
        template_hash(&case("20-half-a-cpu.yaml"))
    );
}

#[test]
fn what_no_api_server_takes_is_an_error_at_its_line() {
    let labels = "      labels: { app: half }\n";
    for (line, lines, expected) in [
        (
            labels,
            "      labels: { app: half, tier: 1 }\n",
            "spec.template.metadata.labels.tier: 1 is not a text",
        ),
        (
            labels,
            "      labels: { app: half, tier: true }\n",
            "spec.template.metadata.labels.tier: true is not a text",
        ),
        (
            labels,
            "      labels: { app: half, tier: 'a b' }\n",
            "spec.template.metadata.labels.tier: `a b` is not a label value",
        ),
        (
            labels,
            "      labels: { app: other }\n",
            "spec.selector.matchLabels must be labels of",
        ),
        (
            labels,
            "      labels: { app: half, x: '${TIER}' }\n",
            "`${TIER}` holds a placeholder",
        ),
        (
            "          image: registry.example/shop/half:1.0.0\n",
            "          image: registry.example/shop/half:{{ .Values.tag }}\n",
            "this is a Helm template",
        ),
        (
            "          image: registry.example/shop/half:1.0.0\n",
            "          image:\n",
            "containers[0].image: is missing",
        ),
        (
            "  replicas: 4\n",
            "  minReadySeconds: 900\n",
            "spec.progressDeadlineSeconds must be greater than",
        ),
        (
            "        - name: web\n",
            "        - name: web\n          env: [{ name: A, value: 1 }]\n",
            "env[0].value: 1 is not a text",
        ),
        (
            "    metadata:\n",
            "    metadata:\n      annotations: { a: yes }\n",
            "annotations.a: true is not a text",
        ),
    ] {
        let manifest = with(line, lines);
        let output = plugin(&["lint", "-f", "-"], &manifest);
        let errors = lines_with_errors(&output);
        assert!(
            !errors.is_empty() && errors.iter().all(|it| it.contains(expected)),
            "{lines}: {errors:?}"
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

// --- Directories, folders and kustomizations -----------------------------------------------------

/// A directory of its own, which is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("countersign-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("more")).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_directory_is_read_as_kubectl_reads_it() {
    let directory = Directory::new("cases");
    let path = directory.path();
    let empty = plugin(&["lint", "-f", path], "");
    assert_eq!(empty.status.code(), Some(1));
    assert!(
        text(&empty.stdout).contains("no .yaml, .yml or .json file"),
        "{empty:?}"
    );
    let rollout = case("20-half-a-cpu.yaml");
    directory.write("b.yml", &rollout);
    directory.write("a.yaml", &rollout.replace("name: half", "name: other"));
    directory.write("notes.txt", "{{ not: a manifest");
    directory.write("more/c.yaml", &rollout.replace("cpu: 0.5", "cpu: half"));
    let names = |arguments: &[&str]| -> Vec<String> {
        let explained = json(arguments, "");
        let explained = explained.as_array().unwrap().clone();
        explained
            .iter()
            .map(|it| it["rollout"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&["explain", "-f", path]), ["other", "half"]);
    assert_eq!(
        names(&["explain", "-f", path, "--stable", path]),
        ["other", "half"]
    );
    let lint = plugin(&["lint", "-f", path], "");
    assert_eq!(lint.status.code(), Some(0), "{lint:?}");
    assert_eq!(text(&lint.stderr), "0 errors and 0 warnings in 2 files\n");
    let all = plugin(&["lint", "-R", "-f", path], "");
    assert_eq!(all.status.code(), Some(1));
    let place = format!("{path}/more/c.yaml:");
    assert!(lines(&all)[0].starts_with(&place), "{all:?}");
    assert_eq!(text(&all.stderr), "1 error and 0 warnings in 3 files\n");
}

#[test]
fn a_kustomization_is_built_by_kubectl() {
    let directory = Directory::new("kustomize");
    let path = directory.path();
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"))
            .args(arguments)
            .env("PATH", path)
            .output()
            .unwrap()
    };
    let none = run(&["lint", "-k", path]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        text(&none.stdout).contains("kubectl, which builds"),
        "{none:?}"
    );
    // The real one runs on the cluster; here only its arguments matter.
    let fake = format!(
        "#!/bin/sh\n[ \"$*\" = 'kustomize -- {path}' ] || {{ echo \"asked for $*\" >&2; exit 1; }}\nwhile IFS= read -r line; do echo \"$line\"; done < {path}/built.yaml\n"
    );
    directory.write("kubectl", &fake);
    let mut mode = fs::metadata(directory.0.join("kubectl"))
        .unwrap()
        .permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(directory.0.join("kubectl"), mode).unwrap();
    directory.write("built.yaml", &case("20-half-a-cpu.yaml"));
    let lint = run(&["lint", "--strict", "-k", path]);
    assert_eq!(lint.status.code(), Some(0), "{lint:?}");
    let explained = run(&["explain", "-k", path, "-o", "json"]);
    let explained: Value = serde_json::from_slice(&explained.stdout).unwrap();
    assert_eq!(explained[0]["rollout"], "half");
    let failed = run(&["explain", "-k", "elsewhere"]);
    let stderr = text(&failed.stderr);
    assert!(
        stderr.contains("`kubectl kustomize elsewhere` fails: asked for"),
        "{stderr}"
    );
    for wrong in [
        &["lint"][..],
        &["lint", "-f", "a.yaml", "-k", "."],
        &["simulate", "-k"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
