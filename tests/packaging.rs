//! What is packed is what is needed: the images' build context, their Dockerfile.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files that `docker build` has, in a directory of their own.
fn context(of: &str) -> PathBuf {
    let context = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("context-{of}"));
    // What an earlier run left.
    let _ = fs::remove_dir_all(&context);
    fs::create_dir(&context).unwrap();
    let copy = root().join("tests/packaging/context.sh");
    let copied = Command::new(copy).arg(&context).output().unwrap();
    let why = String::from_utf8_lossy(&copied.stderr);
    assert!(copied.status.success(), "{why}");
    context
}

#[test]
fn cargo_loads_the_workspace_from_the_build_context() {
    let context = context("workspace");
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).args(["--locked", "--offline"]);
        let output = command.current_dir(&context).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), stderr)
    };
    let target = "--filter-platform=x86_64-unknown-linux-musl";
    let (loaded, output) = cargo(&["metadata", "--format-version=1", target]);
    assert!(loaded, "{output}");
    // A build reads the manifest more strictly; for a program that does not exist it ends after that.
    let (_, output) = cargo(&["build", "--bin=nothing"]);
    let is_loaded = output.contains("no bin target named `nothing`");
    assert!(
        is_loaded && output.contains("    countersign\n"),
        "{output}"
    );
}

/// The libraries that the operator and the plugin are made of.
const LIBRARIES: [&str; 4] = [
    "countersign",
    "countersign_kubectl",
    "countersign_core",
    "countersign_api",
];

/// The files of the repository that a library was compiled from, as the compiler listed them when it was
/// last built.
fn compiled_from(library: &str) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_countersign"));
    let built = fs::read_dir(program.with_file_name("deps")).unwrap();
    let lists = built.filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name()?.to_str()?;
        let listed = name.starts_with(&format!("{library}-")) && path.extension()? == "d";
        let text = fs::read_to_string(&path).ok().filter(|_| listed)?;
        // Its tests read more, and are no library.
        let is_library = text.contains(&format!("/lib{library}-")) && text.contains(".rlib:");
        is_library.then_some((path.metadata().unwrap().modified().unwrap(), text))
    });
    let (_, newest) = lists.max().unwrap();
    let files = newest.lines().filter_map(|line| line.strip_suffix(':'));
    let own = files.filter(|file| Path::new(file).is_relative());
    own.map(str::to_owned).collect()
}

#[test]
fn the_build_context_holds_every_file_that_the_programs_are_compiled_from() {
    let context = context("compiled");
    let files: Vec<_> = LIBRARIES.into_iter().flat_map(compiled_from).collect();
    assert!(files.len() > 100, "only {} files", files.len());
    let missing: Vec<_> = files
        .iter()
        .filter(|file| !context.join(file).exists())
        .collect();
    assert!(missing.is_empty(), ".dockerignore hides {missing:?}");
}

/// The stages of the Dockerfile that build, and after them those of the two images.
fn stages() -> [String; 3] {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let joined = dockerfile.replace("\\\n", " ");
    let stages = joined.split("\nFROM scratch AS ");
    let stages: Vec<String> = stages.map(Into::into).collect();
    stages.try_into().unwrap()
}

/// Arguments of the instructions of one kind in a part of the Dockerfile.
fn instructions(part: &str, kind: &str) -> Vec<String> {
    let of_kind = part.lines().filter_map(|line| line.strip_prefix(kind));
    let found: Vec<_> = of_kind.map(|line| line.trim().to_owned()).collect();
    assert!(!found.is_empty(), "the Dockerfile has no {kind}");
    found
}

#[test]
fn the_dockerfile_builds_with_the_compiler_and_the_tools_that_the_repository_names() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut lines = manifest.lines();
    let compiler = lines
        .find_map(|line| line.strip_prefix("rust-version = "))
        .unwrap();
    let image = format!("RUST_IMAGE=rust:{}-alpine", compiler.trim_matches('"'));
    let [build, ..] = stages();
    assert_eq!(instructions(&build, "ARG "), [image]);

    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let release = fs::read_to_string(root().join("docs/release.md")).unwrap();
    let commands = instructions(&build, "RUN ").join(" ");
    let tools: Vec<_> = commands
        .split(' ')
        .filter(|word| word.contains('@'))
        .collect();
    assert_eq!(tools.len(), 2, "{tools:?}");
    for tool in tools {
        assert!(
            makefile.contains(tool),
            "the Makefile does not install {tool}"
        );
        let (name, version) = tool.split_once('@').unwrap();
        let named = format!("`{name}` {version}");
        assert!(
            release.contains(&named),
            "docs/release.md does not name {named}"
        );
    }
}

#[test]
fn each_image_holds_what_its_build_makes_and_runs_it() {
    let [build, plugin, operator] = stages();
    let commands = instructions(&build, "RUN ").join("\n");
    for (image, program, target) in [
        (&operator, "countersign", "--bin countersign "),
        (
            &plugin,
            "kubectl-countersign",
            "--package countersign-kubectl --bins ",
        ),
    ] {
        let command = format!("build --release --locked {target}");
        assert!(commands.contains(&command), "{commands}");
        for copied in instructions(image, "COPY --from=build") {
            let from = copied.split(' ').nth_back(1).unwrap();
            let made = match from.strip_prefix("/src/") {
                // By a command, as the build or as its output.
                Some(file) => {
                    commands.contains(file) || file == format!("target/release/{program}")
                }
                None => from.contains("ca-certificates") && commands.contains("ca-certificates"),
            };
            assert!(made, "nothing makes {from}");
        }
        let entry = format!(r#"["/{program}"]"#);
        assert_eq!(instructions(image, "ENTRYPOINT "), [entry]);
        let held = format!("/src/target/release/{program} /{program}");
        assert!(image.contains(&held), "{image}");
    }

    let [arguments] = &instructions(&operator, "CMD ")[..] else {
        panic!("one CMD")
    };
    let arguments: Vec<String> = serde_json::from_str(arguments).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(arguments)
        .arg("--help")
        .output()
        .unwrap();
    assert!(help.status.success(), "{help:?}");
    let [port] = &instructions(&operator, "EXPOSE ")[..] else {
        panic!("one EXPOSE")
    };
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains(&format!(":{port}]")), "port {port}: {help}");
}
