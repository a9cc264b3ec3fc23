//! Files, directories and kustomizations as arguments of a command.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign_core::text::sanitize_to;

use crate::manifests::error::{MAX_MESSAGE, ManifestError};
use crate::manifests::source::{Source, name_of};

/// The manifests that a command reads, with kubectl's flags.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Inputs {
    /// Filename or directory (.yaml, .yml and .json) of the manifests; `-` is the standard input
    #[arg(
        short = 'f',
        long = "filename",
        alias = "file",
        value_name = "FILE",
        num_args = 1..,
        conflicts_with = "kustomize"
    )]
    files: Vec<PathBuf>,
    /// Process the directory used in -f, --filename recursively
    #[arg(short = 'R', long, requires = "files")]
    recursive: bool,
    /// Process the kustomization directory. This flag can't be used together with -f
    #[arg(short = 'k', long, value_name = "DIRECTORY")]
    kustomize: Option<PathBuf>,
}

impl Inputs {
    /// Each file's name with its text, or why it cannot be read.
    #[must_use]
    pub fn sources(&self) -> Vec<(String, Result<Source, ManifestError>)> {
        match &self.kustomize {
            Some(directory) => vec![(name_of(directory), kustomized(directory))],
            None => self.beside(&self.files),
        }
    }

    /// The same for the files of another option.
    #[must_use]
    pub fn beside(&self, paths: &[PathBuf]) -> Vec<(String, Result<Source, ManifestError>)> {
        let read = |path: &PathBuf| match files_of(path, self.recursive) {
            Ok(files) => files
                .iter()
                .map(|file| (name_of(file), Source::read(file)))
                .collect(),
            Err(error) => vec![(name_of(path), Err(error))],
        };
        paths.iter().flat_map(read).collect()
    }

    /// What is read, by name.
    #[must_use]
    pub fn names(&self) -> String {
        let paths = self.files.iter().chain(&self.kustomize);
        let names: Vec<_> = paths.map(|path| name_of(path)).collect();
        names.join(", ")
    }
}

/// The file itself, or the manifests of a directory ordered by name, as in kubectl.
pub(super) fn files_of(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, ManifestError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    collect_files(path, recursive, &mut files)
        .map_err(|error| ManifestError::Unreadable(name_of(path), error))?;
    if files.is_empty() {
        return Err(ManifestError::Empty(name_of(path)));
    }
    Ok(files)
}

pub(super) fn collect_files(
    directory: &Path,
    recursive: bool,
    files: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let mut entries = std::fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let extension = path.extension().and_then(std::ffi::OsStr::to_str);
        // Links to directories are not followed, which rules out cycles.
        if entry.file_type()?.is_dir() {
            if recursive {
                collect_files(&path, recursive, files)?;
            }
        } else if matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// The output of `kubectl kustomize`.
pub(super) fn kustomized(directory: &Path) -> Result<Source, ManifestError> {
    let name = name_of(directory);
    let mut command = Command::new("kubectl");
    command.arg("kustomize").arg("--").arg(directory);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ManifestError::NoKubectl(name.clone()),
        _ => ManifestError::Unreadable(name.clone(), error),
    })?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(ManifestError::Kustomize {
            directory: name,
            why: sanitize_to(why.trim(), MAX_MESSAGE),
        });
    }
    Source::of(name, output.stdout)
}
