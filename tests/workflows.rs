//! The workflows of `.github/`: what they run exists and runs here, where no runner of theirs does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

const REPOSITORY: &str = "https://git.example/acme/countersign";
/// The targets of rustc for which the plugin is released, and their archives.
const ARCHIVES: [(&str, &str); 5] = [
    ("x86_64-unknown-linux-musl", "linux-amd64"),
    ("aarch64-unknown-linux-musl", "linux-arm64"),
    ("x86_64-apple-darwin", "darwin-amd64"),
    ("aarch64-apple-darwin", "darwin-arm64"),
    ("x86_64-pc-windows-msvc", "windows-amd64"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Each workflow with its text.
fn workflows() -> Vec<(Value, String)> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let parsed = serde_saphyr::from_str(&text);
        let parsed = parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (parsed, text)
    };
    let all: Vec<_> = files(".github/workflows").into_iter().map(read).collect();
    assert_eq!(all.len(), 4, "CI, docs, nightly, release");
    all
}

fn steps(workflow: &Value) -> Vec<&Value> {
    let jobs = workflow["jobs"].as_object().unwrap().values();
    let steps = jobs.flat_map(|job| job["steps"].as_array().unwrap());
    steps.collect()
}

#[test]
fn a_workflow_may_read_the_repository_and_a_job_that_may_more_says_so() {
    for (workflow, _) in workflows() {
        assert_eq!(workflow["permissions"], json!({ "contents": "read" }));
        for (name, job) in workflow["jobs"].as_object().unwrap() {
            assert!(job["runs-on"].is_string(), "{name}");
            let may = job["permissions"].as_object();
            let writes = may.is_some_and(|it| it.values().any(|it| it == "write"));
            let publishes = ["image", "publish"].contains(&name.as_str());
            assert_eq!(writes, publishes, "{name}");
        }
        for step in steps(&workflow) {
            let is_checkout = step["uses"]
                .as_str()
                .is_some_and(|it| it.contains("/checkout@"));
            let leaves_token = step["with"]["persist-credentials"] != false;
            assert!(!is_checkout || !leaves_token, "{step}");
        }
    }
}

#[test]
fn every_action_is_pinned_by_its_commit_and_named_on_the_page() {
    let page = read("docs/release.md");
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut actions = 0;
    for (_, text) in workflows() {
        for line in text.lines().filter(|line| line.contains("uses: ")) {
            let (action, version) = line.split_once(" # v").unwrap_or_else(|| panic!("{line}"));
            let (action, commit) = action.split_once('@').unwrap();
            let is_commit = commit.len() == 40 && commit.chars().all(|it| it.is_ascii_hexdigit());
            assert!(is_commit && version.contains('.'), "{line}");
            let (_, action) = action.split_once("uses: ").unwrap();
            let named = format!("`{action}` v{version}");
            assert!(page.contains(&named), "docs/release.md lacks {named}");
            actions += 1;
        }
    }
    assert!(actions > 8, "only {actions} were found");
}

#[test]
fn what_a_workflow_runs_is_there() {
    let makefile = read("Makefile");
    let list = |name: &str| -> BTreeSet<String> {
        let mut lines = makefile.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        found.split_whitespace().map(ToOwned::to_owned).collect()
    };
    let (targets, nightly) = (list(".PHONY:"), list("NIGHTLY :="));
    assert!(nightly.is_subset(&targets), "{nightly:?}");
    let mut scripts = BTreeSet::new();
    for (workflow, _) in workflows() {
        if let Some(parts) = workflow.pointer("/jobs/part/strategy/matrix/part") {
            assert_eq!(
                json!(parts),
                json!(list_in_order(&makefile)),
                "nightly.yaml"
            );
        }
        for step in steps(&workflow) {
            let command = step["run"].as_str().unwrap_or_default();
            let words = command.split(|c: char| c.is_whitespace() || c == '(');
            for word in words {
                let word = word.trim_start_matches("../");
                if word.starts_with(".github/") || word.starts_with(".ci/") {
                    scripts.insert(root().join(word));
                }
            }
        }
    }
    scripts.extend(files(".github/scripts"));
    assert!(scripts.len() > 5, "{scripts:?}");
    for script in scripts {
        let mode = fs::metadata(&script).unwrap_or_else(|_| panic!("{}", script.display()));
        assert_eq!(
            mode.permissions().mode() & 0o111,
            0o111,
            "{}",
            script.display()
        );
        let read = Command::new("bash").arg("-n").arg(&script).status();
        assert!(read.unwrap().success(), "{}", script.display());
    }
}

/// A filter that matches no test passes.
#[test]
fn what_is_tested_on_older_versions_is_there() {
    let makefile = read("Makefile");
    let versions = makefile
        .lines()
        .find_map(|it| it.strip_prefix("KUBERNETES := "));
    for version in versions.unwrap().split(' ') {
        for ending in ["mod", "sum"] {
            let file = format!("tests/cluster/tools/controlplane/{version}.{ending}");
            assert!(root().join(&file).exists(), "{file}");
        }
    }
    let (_, filters) = makefile.split_once("\nOLDER := ").unwrap();
    let (filters, _) = filters.split_once("\n##").unwrap();
    let filters = filters.split_whitespace().filter(|word| *word != "\\");
    let mut count = 0;
    for filter in filters {
        let mut path = root().join("tests/e2e");
        for name in filter.split("::").filter(|name| !name.is_empty()) {
            let file = path.join(name).with_extension("rs");
            if file.exists() {
                path.push(name);
            } else {
                let source = fs::read_to_string(path.with_extension("rs")).unwrap();
                assert!(source.contains(&format!("fn {name}")), "{filter}");
            }
        }
        count += 1;
    }
    assert!(count > 10, "only {count} were found");
}

/// The parts of `make nightly`.
fn list_in_order(makefile: &str) -> Vec<&str> {
    let mut lines = makefile.lines();
    let parts = lines.find_map(|line| line.strip_prefix("NIGHTLY :="));
    parts.unwrap().split_whitespace().collect()
}

#[test]
fn the_page_on_releases_names_the_parts_of_the_night() {
    let page = read("docs/release.md");
    let mut rows = page.lines();
    let row = rows.find_map(|row| row.strip_prefix("| `nightly.yaml` | each night | "));
    let (_, parts) = row.unwrap().split_once(": ").unwrap();
    let named: Vec<_> = parts.split('`').skip(1).step_by(2).collect();
    assert_eq!(named, list_in_order(&read("Makefile")));
}

/// The first page promises that they need no root.
#[test]
fn an_ordinary_user_runs_the_commands_of_the_readme() {
    let readme = read("README.md");
    let (_, block) = readme.split_once("\n## See it\n\n```console\n").unwrap();
    let (block, _) = block.split_once("\n```").unwrap();
    let target = |line: &str| {
        let rest = line.strip_prefix("make ").unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let targets: Vec<_> = block.lines().map(target).collect();
    let script = read("tests/cluster/ordinary-user.sh");
    let (_, run) = script.split_once("\nfor target in ").unwrap();
    let (run, _) = run.split_once("; do").unwrap();
    assert_eq!(targets, run.split(' ').collect::<Vec<_>>());
}

/// The files that scripts of the release read, where the changelog describes this version.
fn released(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("released-{name}"));
    // What an earlier run left.
    let _ = fs::remove_dir_all(&directory);
    for folder in [".github/scripts", "charts/countersign"] {
        fs::create_dir_all(directory.join(folder)).unwrap();
    }
    for script in files(".github/scripts") {
        let to = directory
            .join(".github/scripts")
            .join(script.file_name().unwrap());
        fs::copy(script, to).unwrap();
    }
    for file in [
        "Cargo.toml",
        "LICENSE",
        ".krew.yaml",
        "charts/countersign/Chart.yaml",
    ] {
        fs::copy(root().join(file), directory.join(file)).unwrap();
    }
    let changes = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let item = "### Security\n\n- A \"quoted\" item \\d: of\n  two lines\n";
    let section = format!("\n## [{version}] - 2026-12-01\n\n{item}\n");
    let older = "\n## [0.0.1]\n\n### Added\n\n- Older\n";
    let changes = changes.replace("\n## [Unreleased]\n", &section) + older;
    fs::write(directory.join("CHANGELOG.md"), changes).unwrap();
    directory
}

/// What a script prints, or its error.
fn run(directory: &Path, script: &str, arguments: &[&str]) -> Result<String, String> {
    let script = directory.join(".github/scripts").join(script);
    let output = Command::new(script).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let succeeded = output.status.success().then_some(text(output.stdout));
    succeeded.ok_or_else(|| text(output.stderr))
}

fn git(directory: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(directory).args(["-c", "user.name=ci"]);
    git.args(["-c", "user.email=ci@example.com"]);
    assert!(git.args(arguments).status().unwrap().success());
}

#[test]
fn a_tag_is_released_if_everything_names_its_version() {
    let directory = released("tag");
    let version = env!("CARGO_PKG_VERSION");
    let tag = format!("v{version}");
    let commit = ["commit", "--quiet", "--allow-empty", "--message=any"];
    git(&directory, &["init", "--quiet"]);
    git(&directory, &commit);
    let main = ["update-ref", "refs/remotes/origin/main", "HEAD"];
    git(&directory, &main);
    let on_main = run(&directory, "version.sh", &[&tag]);
    assert_eq!(on_main.unwrap().trim(), version);
    git(&directory, &commit);
    let beside = run(&directory, "version.sh", &[&tag]).unwrap_err();
    assert!(beside.contains("is not on main"), "{beside}");
    let other = run(&directory, "version.sh", &["v99.0.0"]).unwrap_err();
    assert!(other.contains("Cargo.toml has no line"), "{other}");
    let other = run(&directory, "version.sh", &["99"]).unwrap_err();
    assert!(other.contains("is no vX.Y.Z"), "{other}");
    fs::copy(root().join("CHANGELOG.md"), directory.join("CHANGELOG.md")).unwrap();
    if !fs::read_to_string(directory.join("CHANGELOG.md"))
        .unwrap()
        .contains(version)
    {
        let undescribed = run(&directory, "version.sh", &[&tag]).unwrap_err();
        assert!(undescribed.contains("does not describe"), "{undescribed}");
    }
}

#[test]
fn the_image_is_named_as_registries_take_it() {
    let directory = released("image");
    let image = run(&directory, "image.sh", &["name", "Acme/Counter-Sign"]);
    assert_eq!(image.unwrap().trim(), "ghcr.io/acme/counter-sign");
}

/// Each image is a target of the Dockerfile, which leaves a digest for each architecture.
#[test]
fn every_image_of_the_dockerfile_is_released_and_signed() {
    let dockerfile = read("Dockerfile");
    let workflow = read(".github/workflows/release.yaml");
    let targets = dockerfile.split("\nFROM scratch AS ").skip(1);
    let targets = targets.map(|it| it.lines().next().unwrap());
    let mut released = 0;
    for target in targets {
        let built = format!(" {target} > \"digests/{target}-$ARCH\"\n");
        let (_, published) = workflow
            .split_once(&built)
            .unwrap_or_else(|| panic!("{target}"));
        let (_, signed) = published
            .split_once(&format!(" $(cat digests/{target}-*))\n"))
            .unwrap_or_else(|| panic!("{target}"));
        let next = signed.lines().next().unwrap().trim_start();
        assert!(next.starts_with("cosign sign --yes "), "{next}");
        released += 1;
    }
    assert_eq!(released, 2, "operator and plugin");
}

/// A merge may leave both versions of an item behind, which begin alike.
#[test]
fn no_two_items_of_a_version_begin_alike_in_the_changelog() {
    let changes = read("CHANGELOG.md");
    let mut items = 0;
    for version in changes.split("\n## ").skip(1) {
        let mut beginnings = BTreeSet::new();
        for item in version.lines().filter(|line| line.starts_with("- ")) {
            let beginning: Vec<_> = item.split(' ').take(5).collect();
            assert!(beginnings.insert(beginning), "CHANGELOG.md: {item}");
            items += 1;
        }
    }
    assert!(items > 50, "only {items} items were found");
}

#[test]
fn the_changes_of_a_version_are_a_list_for_artifact_hub() {
    let directory = released("changes");
    let version = env!("CARGO_PKG_VERSION");
    let section = run(&directory, "changes.sh", &[version]).unwrap();
    assert!(
        section.contains("### Security") && !section.contains("Older"),
        "{section}"
    );
    let list = run(&directory, "changes.sh", &[version, "--artifacthub"]).unwrap();
    let list: Vec<Value> = serde_saphyr::from_str(&list).unwrap();
    let kinds = [
        "added",
        "changed",
        "deprecated",
        "removed",
        "fixed",
        "security",
    ];
    for change in &list {
        assert!(
            kinds.contains(&change["kind"].as_str().unwrap()),
            "{change}"
        );
        assert!(
            change["description"].as_str().unwrap().len() > 5,
            "{change}"
        );
    }
    let expected =
        json!({ "kind": "security", "description": "A \"quoted\" item \\d: of two lines" });
    assert_eq!(list.first(), Some(&expected));
    assert_eq!(section.matches("\n- ").count(), list.len());
}

#[test]
fn the_plugin_is_packed_for_every_system_and_krew_finds_each() {
    let directory = released("plugin");
    let (built, out) = (directory.join("built"), directory.join("dist"));
    fs::create_dir(&built).unwrap();
    for program in ["kubectl-countersign", "kubectl-countersign.exe"] {
        fs::write(built.join(program), program).unwrap();
    }
    let (built, packed) = (built.to_str().unwrap(), out.to_str().unwrap());
    let mut sums = Vec::new();
    for (number, (target, system)) in ARCHIVES.into_iter().enumerate() {
        run(&directory, "plugin.sh", &["pack", target, packed, built]).unwrap();
        let name = format!("kubectl-countersign-{system}.tar.gz");
        let archive = out.join(&name);
        let held = Command::new("tar")
            .arg("-tzf")
            .arg(&archive)
            .output()
            .unwrap();
        let held = String::from_utf8(held.stdout).unwrap();
        let program = if system.starts_with("windows") {
            "kubectl-countersign.exe"
        } else {
            "kubectl-countersign"
        };
        let lines: BTreeSet<_> = held.lines().map(|it| it.trim_start_matches("./")).collect();
        assert!(
            lines.contains(program) && lines.contains("LICENSE"),
            "{held}"
        );
        sums.push(format!("{number:064}  {name}\n"));
    }
    let file = directory.join("SHA256SUMS");
    fs::write(&file, sums.concat()).unwrap();
    let manifest = run(
        &directory,
        "krew.sh",
        &["1.2.3", REPOSITORY, file.to_str().unwrap()],
    )
    .unwrap();
    let manifest: Value = serde_saphyr::from_str(&manifest).unwrap();
    assert_eq!(manifest["spec"]["version"], "v1.2.3");
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), ARCHIVES.len());
    for (number, (platform, (_, system))) in platforms.iter().zip(ARCHIVES).enumerate() {
        let labels = &platform["selector"]["matchLabels"];
        let named = [&labels["os"], &labels["arch"]].map(|it| it.as_str().unwrap());
        assert_eq!(named.join("-"), system);
        let uri =
            format!("{REPOSITORY}/releases/download/v1.2.3/kubectl-countersign-{system}.tar.gz");
        assert_eq!(platform["uri"], uri);
        assert_eq!(platform["sha256"], format!("{number:064}"));
    }

    fs::write(&file, "0  something else\n").unwrap();
    let lacking = run(
        &directory,
        "krew.sh",
        &["1.2.3", REPOSITORY, file.to_str().unwrap()],
    );
    assert!(
        lacking
            .unwrap_err()
            .contains("has no line for kubectl-countersign-linux-amd64")
    );
}

#[test]
fn the_plugin_is_built_with_the_tools_of_the_makefile() {
    let makefile = read("Makefile");
    let script = read(".github/scripts/plugin.sh");
    let tools = script.split_whitespace().filter(|word| word.contains('@'));
    let tools: Vec<_> = tools.collect();
    assert_eq!(tools.len(), 2, "{tools:?}");
    assert!(
        tools.iter().all(|tool| makefile.contains(tool)),
        "{tools:?}"
    );
}

#[test]
fn the_plugin_is_released_for_the_targets_that_the_script_knows() {
    let (release, _) = workflows().pop().unwrap();
    assert_eq!(release["name"], "Release");
    let built = release
        .pointer("/jobs/plugin/strategy/matrix/include")
        .unwrap();
    let built = built.as_array().unwrap().iter();
    let built: Vec<_> = built.map(|it| it["target"].as_str().unwrap()).collect();
    assert_eq!(built, ARCHIVES.map(|(target, _)| target));
    let deny = read("deny.toml");
    for target in built {
        let is_checked = deny.contains(&format!("    \"{target}\",\n"));
        assert!(is_checked, "deny.toml lacks {target}");
    }
}
