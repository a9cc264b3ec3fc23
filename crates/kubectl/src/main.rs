//! The plugin's command line.

fn main() -> std::process::ExitCode {
    countersign_kubectl::main()
}
