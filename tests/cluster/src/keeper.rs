//! `cluster up` and `cluster down`: a cluster that is kept by a background process.
//!
//! One per user, in a directory with a fixed name. The keeper and its children inherit one locked file,
//! so that the lock is free exactly when all of them have ended.

use crate::{
    cluster::{KUBECONFIG, PROMETHEUS_URL},
    credentials,
    directory::Directory,
    error::{Error, Result},
    forward,
    harness::{self, API_SERVER_SOCKET, PROMETHEUS_SOCKET, Plan},
    namespace,
    operator::Operator,
    process,
    tools::Tools,
    wait::wait_for,
};
use rustix::process::{Signal, getuid, kill_process, setsid};
use std::{
    convert::Infallible, env, fs, fs::TryLockError, future::pending,
    os::unix::fs::DirBuilderExt as _, path::Path, process::Stdio, time::Duration,
};
use tokio::process::Command;

/// The keeper's name in pid files and logs.
const NAME: &str = "keeper";
/// Timeout of the start: the control plane alone may take half of it on a cold machine.
const TIMEOUT: Duration = Duration::from_mins(3);
/// Longer than the keeper's own grace period for the inside.
const GRACE: Duration = Duration::from_secs(20);

/// Starts a kept cluster, and returns the shell code to `eval` in order to use it. If one is running
/// already, returns that of the running one.
pub async fn up(operator: Option<Operator>) -> Result<String> {
    if harness::given_kubeconfig().is_some() {
        return Err(Error::NothingToKeep);
    }
    let tools = Tools::build().await?;
    let dir = fixed_directory();
    if is_held(&dir)? {
        eprintln!("cluster: one is up already; `cluster down` ends it");
    } else {
        remove(dir.path())?;
        start(&dir, &tools, operator).await?;
    }
    fs::read_to_string(dir.exports()).map_err(Error::file("read", dir.exports()))
}

/// Stops the cluster of `up`, if any.
pub async fn down() -> Result<()> {
    let dir = fixed_directory();
    if is_held(&dir)?
        && let Some(pid) = process::read_pid(&dir.pid_file(NAME))
    {
        // The keeper may just have exited.
        let _ = kill_process(pid, Signal::TERM);
        wait_for("the end of the cluster", GRACE, async || {
            is_held(&dir).ok().filter(|held| !held).map(drop)
        })
        .await
        .map_err(|_| Error::StillUp {
            pid: pid.as_raw_nonzero().get(),
            within: GRACE,
        })?;
    }
    remove(dir.path())
}

/// The background process: runs the cluster and the forwarding.
pub async fn keep(plan: Plan) -> Result<u8> {
    // Detaches from the terminal, which may close. Fails only if already detached.
    let _ = setsid();
    namespace::run(&plan, let_in(&plan.dir)).await
}

/// Opens ports in the host's network once the cluster is up, and writes them down.
async fn let_in(dir: &Directory) -> Result<Infallible> {
    wait_for("the cluster is up", TIMEOUT, async || {
        dir.ready_file().exists().then_some(())
    })
    .await?;
    let api_server = forward::into(dir.join(API_SERVER_SOCKET)).await?;
    let prometheus = forward::into(dir.join(PROMETHEUS_SOCKET)).await?;
    let kubeconfig = dir.outside_kubeconfig();
    credentials::moved(
        &dir.kubeconfig(),
        &kubeconfig,
        &format!("https://{api_server}"),
    )?;
    let exports = format!(
        "export {KUBECONFIG}='{}'\nexport {PROMETHEUS_URL}='http://{prometheus}'\n",
        kubeconfig.display()
    );
    Directory::write(&dir.exports(), exports)?;
    pending().await
}

async fn start(dir: &Directory, tools: &Tools, operator: Option<Operator>) -> Result<()> {
    // Private, since its kubeconfig is the administrator's.
    fs::DirBuilder::new()
        .mode(0o700)
        .create(dir.path())
        .map_err(Error::file("create", dir.path()))?;
    let create = |path: &Path| fs::File::create_new(path).map_err(Error::file("create", path));
    let lock = create(&dir.keeper_lock())?;
    lock.lock()
        .map_err(Error::file("lock", dir.keeper_lock()))?;
    let log = create(&dir.log(NAME))?;
    let errors = log
        .try_clone()
        .map_err(Error::file("write", dir.log(NAME)))?;

    let own = env::current_exe().map_err(Error::file("find", "this program"))?;
    let plan = Plan {
        dir: dir.clone(),
        tools: tools.clone(),
        operator,
        command: Vec::new(),
    };
    let mut keeper = Command::new(own)
        .arg("keep")
        .args(plan.arguments())
        .stdin(Stdio::from(lock))
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|source| Error::Start {
            program: NAME.to_owned(),
            source,
            remedy: "is this program still where it was started from?",
        })?;
    let pid = keeper.id().unwrap_or_default().to_string();
    Directory::write(&dir.pid_file(NAME), pid)?;

    let up = wait_for("the cluster is up", TIMEOUT, async || {
        dir.exports().exists().then_some(())
    });
    let outcome = tokio::select! {
        up = up => up,
        _ = namespace::signalled() => Err(Error::Interrupted),
        status = keeper.wait() => Err(dir.obituary(NAME, process::describe(status))),
    };
    if outcome.is_err() {
        process::end(&mut keeper, GRACE).await;
    }
    outcome
}

fn fixed_directory() -> Directory {
    Directory::at(env::temp_dir().join(format!("countersign-cluster-{}", getuid().as_raw())))
}

/// Whether a process of the cluster lives.
fn is_held(dir: &Directory) -> Result<bool> {
    let path = dir.keeper_lock();
    match fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::file("open", path)(error)),
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(Error::file("lock", path)(error)),
        },
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}
