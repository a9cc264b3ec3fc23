//! Starts, supervises and stops processes.
//!
//! Two kinds: a *component* runs as long as the cluster, which ends with it; a *supervised* process is
//! restarted whenever it exits, as by a kubelet, so that tests may kill it. Supervision is controlled
//! through files, because tests are other processes: see [`Supervised`].

use crate::{
    directory::Directory,
    error::{Error, Result},
    wait::wait_for,
};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use std::{fs, future::Future, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    sync::mpsc,
    time::sleep,
};

/// Delay of a restart: a kubelet waits 10 s before the first, which is too long for tests.
const RESTART_AFTER: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(50);

/// Starts the processes of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    dir: Directory,
    ended: mpsc::UnboundedSender<Error>,
}

impl Processes {
    /// The receiver gets the error of the first component that exits.
    pub(crate) fn new(dir: Directory) -> (Self, mpsc::UnboundedReceiver<Error>) {
        let (ended, obituaries) = mpsc::unbounded_channel();
        (Self { dir, ended }, obituaries)
    }

    /// Starts a component.
    pub(crate) fn start(&self, name: &'static str, command: Command) -> Result<()> {
        let mut child = spawn(&self.dir, name, command)?;
        let this = self.clone();
        tokio::spawn(async move {
            let status = describe(child.wait().await);
            // The receiver is dropped if the cluster is ending already.
            let _ = this.ended.send(this.dir.obituary(name, status));
        });
        Ok(())
    }

    /// Starts a component that a test may stop and restart. `command` is called for every start.
    pub(crate) fn start_stoppable(
        &self,
        name: &'static str,
        mut command: impl FnMut() -> Command + Send + 'static,
    ) -> Result<()> {
        let mut child = spawn(&self.dir, name, command())?;
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                let status = describe(child.wait().await);
                let (stop, stopped) = (this.dir.stop_file(name), this.dir.stopped_file(name));
                let again = if stop.exists() {
                    let _ = fs::write(&stopped, "");
                    while stop.exists() {
                        sleep(POLL).await;
                    }
                    let _ = fs::remove_file(&stopped);
                    spawn(&this.dir, name, command())
                } else {
                    Err(this.dir.obituary(name, status))
                };
                match again {
                    Ok(another) => child = another,
                    // The receiver is dropped if the cluster is ending already.
                    Err(error) => return drop(this.ended.send(error)),
                }
            }
        });
        Ok(())
    }

    /// Starts a process and keeps it running. `command` is called for every start, so that it can renew
    /// expired credentials.
    pub(crate) fn supervise<F>(
        &self,
        name: &'static str,
        mut command: impl FnMut() -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Command>> + Send,
    {
        let dir = self.dir.clone();
        tokio::spawn(async move {
            loop {
                if dir.stop_file(name).exists() {
                    let _ = fs::write(dir.stopped_file(name), "");
                    while dir.stop_file(name).exists() {
                        sleep(POLL).await;
                    }
                    let _ = fs::remove_file(dir.stopped_file(name));
                }
                match command()
                    .await
                    .and_then(|command| spawn(&dir, name, command))
                {
                    Ok(mut child) => {
                        let status = describe(child.wait().await);
                        let _ = fs::remove_file(dir.pid_file(name));
                        note(&dir, name, &format!("ended ({status})"));
                    }
                    Err(error) => note(&dir, name, &error.to_string()),
                }
                sleep(RESTART_AFTER).await;
            }
        });
    }

    /// The directory of logs and pid files.
    pub(crate) fn dir(&self) -> &Directory {
        &self.dir
    }
}

/// Starts `command` with its output in the component's log and its process id in the pid file.
fn spawn(dir: &Directory, name: &str, mut command: Command) -> Result<Child> {
    let path = dir.log(name);
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(Error::file("write", &path))?;
    let errors = log.try_clone().map_err(Error::file("write", &path))?;
    let child = command
        // A fifth of what the components of Kubernetes compute is garbage collection; memory is cheaper here.
        .env("GOGC", "400")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // A Ctrl-C at the terminal is for the command under test, not for its cluster.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::Start {
            program: name.to_owned(),
            source,
            remedy: "is it there and executable?",
        })?;
    if let Some(pid) = child.id() {
        Directory::write(&dir.pid_file(name), pid.to_string())?;
    }
    Ok(child)
}

/// The supervisor's own lines in a component's log.
fn note(dir: &Directory, name: &str, message: &str) {
    use std::io::Write as _;
    if let Ok(mut log) = fs::File::options()
        .create(true)
        .append(true)
        .open(dir.log(name))
    {
        let _ = writeln!(log, "--- {name}: {message}");
    }
}

/// The exit of a process in words.
pub(crate) fn describe(status: std::io::Result<std::process::ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Terminates a process, and kills it after `grace`.
pub(crate) async fn end(child: &mut Child, grace: Duration) {
    if let Some(pid) = child.id().and_then(pid) {
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Runs a command, and returns its output.
pub(crate) async fn output(mut command: Command, input: &[u8]) -> Result<Vec<u8>> {
    let line = format!("{:?}", command.as_std());
    let run = async {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // The command may exit without reading all input; then its exit status decides.
                let _ = stdin.write_all(input).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feed);
        output
    };
    let output = run.await.map_err(|source| Error::Start {
        program: line.clone(),
        source,
        remedy: "is it there and executable?",
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Command {
        command: line,
        status: output.status,
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A process group, all of which is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// The group that `child` was started to lead.
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id().and_then(pid))
    }

    /// The leader has exited, so its id may be reused.
    pub(crate) fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::TERM);
        }
    }
}

fn pid(raw: u32) -> Option<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw)
}

/// The process that a pid file names, if there is one.
pub(crate) fn read_pid(path: &Path) -> Option<Pid> {
    fs::read_to_string(path)
        .ok()?
        .trim()
        .parse()
        .ok()
        .and_then(pid)
}

/// Whether the process exists, possibly as a zombie.
pub(crate) fn exists(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

/// Whether every thread of a process is stopped: a signal reaches them one by one.
fn is_frozen(pid: Pid) -> Option<bool> {
    let threads = format!("/proc/{}/task", pid.as_raw_nonzero());
    let mut states = fs::read_dir(threads).ok()?.map(|thread| {
        let stat = fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        // The state comes after the name, which is in parentheses and may hold some itself.
        Some(stat.rsplit_once(") ")?.1.starts_with('T'))
    });
    states.all(|state| state == Some(true)).into()
}

/// A handle on a supervised process.
#[derive(Debug)]
pub(crate) struct Supervised<'a> {
    pub(crate) dir: &'a Directory,
    pub(crate) name: &'static str,
}

impl Supervised<'_> {
    /// Kills it as a node failure would; returns once it has exited. It is restarted automatically.
    pub(crate) async fn kill(&self) -> Result<()> {
        let pid = self.running().await?;
        let _ = kill_process(pid, Signal::KILL);
        self.gone(pid).await
    }

    /// Kills it until [`start`](Self::start); returns once it has exited.
    pub(crate) async fn stop(&self) -> Result<()> {
        Directory::write(&self.dir.stop_file(self.name), "")?;
        let stopped = self.dir.stopped_file(self.name);
        // A start may be in progress, so kill until the supervisor has confirmed the stop.
        wait_for(
            &format!("{} stopped", self.name),
            Duration::from_secs(10),
            async || {
                if stopped.exists() {
                    return Some(());
                }
                if let Some(pid) = read_pid(&self.dir.pid_file(self.name)) {
                    let _ = kill_process(pid, Signal::KILL);
                }
                None
            },
        )
        .await
    }

    /// Ends a [`stop`](Self::stop) or a [`freeze`](Self::freeze); returns once the process runs.
    pub(crate) async fn start(&self) -> Result<()> {
        let marker = self.dir.stop_file(self.name);
        if marker.exists() {
            fs::remove_file(&marker).map_err(Error::file("remove", &marker))?;
            let stopped = self.dir.stopped_file(self.name);
            wait_for(
                &format!("{} starting", self.name),
                Duration::from_secs(5),
                async || (!stopped.exists()).then_some(()),
            )
            .await?;
        }
        let pid = self.running().await?;
        let _ = kill_process(pid, Signal::CONT);
        Ok(())
    }

    /// Freezes it: the kernel accepts connections, but there is no response. Returns once the last of its
    /// threads has stopped.
    pub(crate) async fn freeze(&self) -> Result<()> {
        let pid = self.running().await?;
        let _ = kill_process(pid, Signal::STOP);
        let what = format!("{} frozen", self.name);
        wait_for(&what, Duration::from_secs(5), async || {
            is_frozen(pid).filter(|frozen| *frozen)
        })
        .await
        .map(drop)
    }

    async fn running(&self) -> Result<Pid> {
        let file = self.dir.pid_file(self.name);
        let name = self.name;
        wait_for(
            &format!("a running {name}"),
            Duration::from_secs(5),
            async || {
                // Right after its exit, the file may still hold the old process id.
                read_pid(&file)
                    .filter(|pid| exists(*pid))
                    .ok_or(format!("no process id in {}", file.display()))
            },
        )
        .await
    }

    async fn gone(&self, pid: Pid) -> Result<()> {
        wait_for(
            &format!("the end of {}", self.name),
            Duration::from_secs(5),
            async || {
                if exists(pid) {
                    Err(format!("process {pid:?} is there"))
                } else {
                    Ok(())
                }
            },
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A supervised `sleep`.
    fn sleeper() -> (tempfile::TempDir, Directory) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Directory::at(temporary.path());
        let (processes, _) = Processes::new(dir.clone());
        processes.supervise("sleeper", || async {
            let mut command = Command::new("sleep");
            command.arg("60");
            Ok(command)
        });
        (temporary, dir)
    }

    #[tokio::test]
    async fn a_supervised_process_that_is_killed_comes_back() {
        let (_temporary, dir) = sleeper();
        let sleeper = Supervised {
            dir: &dir,
            name: "sleeper",
        };
        let first = sleeper.running().await.unwrap();
        sleeper.kill().await.unwrap();
        assert!(!exists(first));
        let second = wait_for("another process", Duration::from_secs(5), async || {
            read_pid(&dir.pid_file("sleeper")).filter(|pid| *pid != first)
        });
        assert!(exists(second.await.unwrap()));
    }

    #[tokio::test]
    async fn a_supervised_process_that_is_stopped_stays_away_until_started() {
        let (_temporary, dir) = sleeper();
        let sleeper = Supervised {
            dir: &dir,
            name: "sleeper",
        };
        for _ in 0..2 {
            sleeper.stop().await.unwrap();
            tokio::time::sleep(2 * RESTART_AFTER).await;
            assert_eq!(read_pid(&dir.pid_file("sleeper")), None);
            sleeper.start().await.unwrap();
            assert!(exists(sleeper.running().await.unwrap()));
        }
    }

    #[tokio::test]
    async fn a_supervised_process_that_is_frozen_thaws_when_started() {
        let (_temporary, dir) = sleeper();
        let sleeper = Supervised {
            dir: &dir,
            name: "sleeper",
        };
        let pid = sleeper.running().await.unwrap();
        sleeper.freeze().await.unwrap();
        assert_eq!(is_frozen(pid), Some(true));
        sleeper.start().await.unwrap();
        wait_for("a thaw", Duration::from_secs(5), async || {
            is_frozen(pid).filter(|frozen| !frozen)
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_component_that_ends_is_quoted() {
        let temporary = tempfile::tempdir().unwrap();
        let (processes, mut obituaries) = Processes::new(Directory::at(temporary.path()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo out of luck; exit 3"]);
        processes.start("unlucky", command).unwrap();
        let obituary = obituaries.recv().await.unwrap().to_string();
        assert!(
            obituary.contains("unlucky ended (exit status: 3)"),
            "{obituary}"
        );
        assert!(obituary.ends_with("out of luck"), "{obituary}");
    }
}
