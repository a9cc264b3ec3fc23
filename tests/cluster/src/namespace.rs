//! Isolates the cluster in namespaces, so that it can neither disturb nor outlive anything.
//!
//! ```text
//! outside: cluster exec …                  waits, forwards signals, cleans up
//!    └─ unshare --kill-child …             makes the user, network, process-id and mount namespaces
//!         └─ inside: cluster inside …      process 1 there; with it, the kernel ends all the others
//!              ├─ etcd, kube-apiserver, …
//!              └─ the command
//! ```
//!
//! The two sides share a *lifeline*, a socket in the state directory: if the outside ends in
//! whatever way, the kernel closes it, and the inside ends. If `unshare` ends, it takes the inside
//! along.

use crate::{
    error::{Error, Result},
    harness::{self, Plan},
    nodes::POD_RANGE,
};
use std::{
    convert::Infallible,
    env,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{UnixListener, UnixStream},
    process::Command,
    signal::unix::{SignalKind, signal},
};

/// Grace period of the inside before it is killed: longer than that of its command.
const GRACE: Duration = Duration::from_secs(10);

/// Exit status of an interrupted inside; unused.
const CUT: u8 = 1;

/// Outside: runs `plan` in new namespaces; returns its exit status, or that of a signal. `meanwhile` runs
/// concurrently outside, and ends the cluster if it fails.
pub(crate) async fn run(
    plan: &Plan,
    meanwhile: impl Future<Output = Result<Infallible>>,
) -> Result<u8> {
    check().await?;
    let path = plan.dir.lifeline();
    let lifeline = UnixListener::bind(&path).map_err(Error::file("listen on", &path))?;
    let own = env::current_exe().map_err(Error::file("find", "this program"))?;
    let mut child = unshare()
        .arg(own)
        .arg("inside")
        .args(plan.arguments())
        .kill_on_drop(true)
        .spawn()
        .map_err(no_unshare)?;

    let hold = async {
        let _held = lifeline.accept().await;
        std::future::pending::<Infallible>().await
    };
    let (outcome, ended) = tokio::select! {
        status = child.wait() => (Ok(status.map_or(1, harness::exit_status)), true),
        status = signalled() => (Ok(status), false),
        Err(error) = meanwhile => (Err(error), false),
        never = hold => match never {},
    };
    // The lifeline is cut here: the `select!` has dropped `hold`.
    drop(lifeline);
    if !ended && tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    outcome
}

/// Inside: sets up the network, and runs `plan`.
pub async fn run_inside(plan: Plan) -> Result<u8> {
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &["route", "add", "local", POD_RANGE, "dev", "lo"],
    ] {
        ip(arguments).await?;
    }
    let lifeline = plan.dir.lifeline();
    harness::run(plan, None, async {
        tokio::select! {
            () = cut(&lifeline) => CUT,
            // Process 1 receives only signals with a handler, so it needs one to be terminated.
            status = signalled() => status,
        }
    })
    .await
}

/// Returns when the outside has ended.
async fn cut(lifeline: &Path) {
    if let Ok(mut stream) = UnixStream::connect(lifeline).await {
        // Nothing is ever written to it.
        let _ = stream.read(&mut [0]).await;
    }
}

/// Returns on a termination signal, with its exit status as in shells.
pub(crate) async fn signalled() -> u8 {
    let wait = async |kind: SignalKind| {
        let Ok(mut signals) = signal(kind) else {
            // Without a handler the signal has its default effect.
            return std::future::pending().await;
        };
        signals.recv().await;
        u8::try_from(128 + kind.as_raw_value()).unwrap_or(1)
    };
    tokio::select! {
        status = wait(SignalKind::interrupt()) => status,
        status = wait(SignalKind::terminate()) => status,
        status = wait(SignalKind::hangup()) => status,
    }
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--net",
        "--pid",
        "--mount-proc",
    ]);
    command.args(["--fork", "--kill-child", "--"]);
    command
}

fn no_unshare(source: std::io::Error) -> Error {
    Error::Start {
        program: "unshare".to_owned(),
        source,
        remedy: "install util-linux",
    }
}

/// Checks that namespaces can be created, before anything is started in one.
async fn check() -> Result<()> {
    let output = unshare()
        .arg("true")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(no_unshare)?;
    succeeded(output.status, &output.stderr, |reason| Error::Namespace {
        reason,
    })
}

async fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        // Its path on systems that keep it out of the PATH of ordinary users.
        .env(
            "PATH",
            env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin",
        )
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| Error::Start {
            program: "ip".to_owned(),
            source,
            remedy: "install iproute2",
        })?;
    succeeded(output.status, &output.stderr, |reason| Error::Command {
        command: format!("ip {}", arguments.join(" ")),
        status: output.status,
        output: reason,
    })
}

fn succeeded(status: ExitStatus, stderr: &[u8], error: impl FnOnce(String) -> Error) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(error(String::from_utf8_lossy(stderr).trim().to_owned()))
}
