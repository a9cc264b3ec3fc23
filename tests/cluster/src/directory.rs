//! The state directory: where one cluster keeps its files. The processes of a cluster, and the
//! tests that run in it, find each other through the names given here and through nothing else.

use crate::error::{Error, Result};
use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// The state directory of one cluster.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// The existing directory at `path`.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// The log of a component, over all its restarts.
    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.0.join(format!("{component}.log"))
    }

    /// The process id of a component; the file exists exactly while the component runs.
    pub(crate) fn pid_file(&self, component: &str) -> PathBuf {
        self.0.join(format!("{component}.pid"))
    }

    /// While this file exists, a supervised component is not restarted.
    pub(crate) fn stop_file(&self, component: &str) -> PathBuf {
        self.0.join(format!("{component}.stop"))
    }

    /// The supervisor's confirmation of the stop file: the component is stopped.
    pub(crate) fn stopped_file(&self, component: &str) -> PathBuf {
        self.0.join(format!("{component}.stopped"))
    }

    /// The administrator's kubeconfig, for use inside the cluster's network.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// The same for use outside, through the forwarder.
    pub(crate) fn outside_kubeconfig(&self) -> PathBuf {
        self.0.join("outside.kubeconfig")
    }

    /// kubectl's discovery cache, separate since every cluster has the same address.
    pub(crate) fn kubectl_cache(&self) -> PathBuf {
        self.0.join("kubectl")
    }

    /// A link to the programs that the cluster consists of.
    pub(crate) fn tools(&self) -> PathBuf {
        self.0.join("tools")
    }

    /// The socket whose closing signals the inside that the outside has ended.
    pub(crate) fn lifeline(&self) -> PathBuf {
        self.0.join("lifeline.sock")
    }

    /// Exists once the inside is up.
    pub(crate) fn ready_file(&self) -> PathBuf {
        self.0.join("ready")
    }

    /// Locked for as long as any process of a `cluster up` lives.
    pub(crate) fn keeper_lock(&self) -> PathBuf {
        self.0.join("keeper.lock")
    }

    /// The shell code to `eval` in order to use the cluster of `cluster up`.
    pub(crate) fn exports(&self) -> PathBuf {
        self.0.join("exports")
    }

    /// Writes a file so that readers see all of it or none.
    pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
        let part = path.with_added_extension("part");
        fs::write(&part, content)
            .and_then(|()| fs::rename(&part, path))
            .map_err(Error::file("write", path))
    }

    /// The exit of a component, with the end of its log.
    pub(crate) fn obituary(&self, component: &str, status: String) -> Error {
        let tail = self.log_tail(component, 20).unwrap_or_default();
        Error::Ended {
            name: component.to_owned(),
            status,
            log: self.log(component),
            tail,
        }
    }

    /// The last `lines` lines of a component's log.
    pub(crate) fn log_tail(&self, component: &str, lines: usize) -> Result<String> {
        tail(&self.log(component), lines)
    }
}

fn tail(path: &Path, lines: usize) -> Result<String> {
    /// More than any tail worth printing, less than a log of an hour.
    const MOST: u64 = 256 * 1024;

    let read = || {
        let mut file = fs::File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(MOST);
        file.seek(SeekFrom::Start(start))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    };
    let content = read().map_err(Error::file("read", path))?;
    let mut last: Vec<_> = content.lines().rev().take(lines).collect();
    last.reverse();
    Ok(last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2).unwrap(), "two\nthree");
        assert_eq!(tail(&log, 9).unwrap(), "one\ntwo\nthree");
    }
}
