//! The cluster's programs: their paths and commands.

use crate::{
    error::{Error, Result},
    namespace, process,
};
use std::{
    env,
    ffi::OsStr,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

/// The programs, built or given.
#[derive(Clone, Debug)]
pub struct Tools {
    dir: PathBuf,
    /// Whether programs must be killed with this process, because no namespace ends them.
    tied: bool,
}

impl Tools {
    /// Builds the programs, or finds them where they have been built before. It needs the network
    /// when there is something to build, and shows its progress on the terminal.
    pub async fn build() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build.sh");
        let output = async {
            let child = Command::new(&script)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()?;
            // A build has many processes, none of which may outlive this one.
            let group = process::Group::of(&child);
            let output = tokio::select! {
                output = child.wait_with_output() => output,
                _ = namespace::signalled() => Err(ErrorKind::Interrupted.into()),
            }?;
            group.has_ended();
            Ok(output)
        };
        let output = output.await.map_err(|source| Error::Start {
            program: script.display().to_string(),
            source,
            remedy: "it continues where it was interrupted when it is started again",
        })?;
        if !output.status.success() {
            return Err(Error::Tools(output.status));
        }
        Ok(Self::at(String::from_utf8_lossy(&output.stdout).trim()))
    }

    /// The programs in `dir`, as [`build`](Self::build) left them.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            tied: false,
        }
    }

    /// The same, but every program is killed by the kernel when this process ends.
    #[must_use]
    pub(crate) fn tied(self) -> Self {
        Self { tied: true, ..self }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file that comes with the programs.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// etcd or a part of the control plane. Those that `KUBEBUILDER_ASSETS` holds come from there,
    /// as in any envtest.
    pub(crate) fn control_plane(&self, part: &str) -> Command {
        if matches!(part, "etcd" | "kube-apiserver")
            && let Some(assets) = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from)
            && ["etcd", "kube-apiserver"]
                .iter()
                .all(|part| assets.join(part).is_file())
        {
            return self.launch(assets.join(part));
        }
        let mut command = self.program("controlplane");
        command.arg(part);
        command
    }

    /// One of the other programs.
    pub(crate) fn program(&self, name: &str) -> Command {
        self.launch(self.dir.join(name))
    }

    /// Any program, which ends with the cluster.
    pub(crate) fn launch(&self, program: impl AsRef<OsStr>) -> Command {
        if !self.tied {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }
}
