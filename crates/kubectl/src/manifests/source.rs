//! A text of manifests, read within bounds.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use countersign_core::text::sanitize_to;

use crate::manifests::error::{MAX_MESSAGE, ManifestError};
use crate::manifests::yaml;
use crate::manifests::yaml::{Node, Position};

/// Most bytes of one file; a larger file is an error.
pub(super) const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A text with its name in messages.
pub struct Source {
    /// The file's name.
    pub name: String,
    /// The content.
    pub text: String,
}

impl Source {
    /// Reads a file, or the standard input for `-`.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let name = name_of(path);
        let mut bytes = Vec::new();
        let read = if path.as_os_str() == "-" {
            io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)
        } else {
            File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        };
        read.map_err(|error| ManifestError::Unreadable(name.clone(), error))?;
        Self::of(name, bytes)
    }

    pub(super) fn of(name: String, bytes: Vec<u8>) -> Result<Self, ManifestError> {
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
            return Err(ManifestError::TooLarge(name));
        }
        let text = String::from_utf8(bytes).map_err(|_| ManifestError::NotText(name.clone()))?;
        Ok(Self { name, text })
    }

    /// The objects in the text; those of a `List` one by one.
    pub fn objects(&self) -> Result<Vec<Node>, yaml::SyntaxError> {
        let documents = yaml::documents(&self.text).map_err(|error| self.hinted(error))?;
        Ok(documents.into_iter().flat_map(unpacked).collect())
    }

    /// Most syntax errors are in lines of a Helm template. Other lines may hold templates of other
    /// programs, so only the line of the error and the line before are checked.
    fn hinted(&self, error: yaml::SyntaxError) -> yaml::SyntaxError {
        let mut lines = (1..).zip(self.text.lines());
        let near = |line| line <= error.at.line && line + 1 >= error.at.line;
        match lines.find(|(number, line)| near(*number) && is_helm_template(line)) {
            Some((line, _)) => yaml::SyntaxError {
                at: Position { line, column: 1 },
                message: HELM_TEMPLATE.to_owned(),
            },
            None => error,
        }
    }

    pub(super) fn invalid(&self, at: Position, message: &str, others: usize) -> ManifestError {
        ManifestError::Invalid {
            file: self.name.clone(),
            at,
            message: sanitize_to(message, MAX_MESSAGE),
            others,
        }
    }
}

/// The message for a template that is not rendered yet.
pub const HELM_TEMPLATE: &str =
    "this is a Helm template, not a manifest: render it first, by `helm template`";

/// Whether a text holds a Helm template action. Placeholders of queries are single words.
#[must_use]
pub fn is_helm_template(text: &str) -> bool {
    const WORDS: [&str; 14] = [
        ".",
        "$",
        "/*",
        "include ",
        "if ",
        "else",
        "end",
        "range ",
        "with ",
        "template ",
        "define ",
        "toYaml ",
        "tpl ",
        "required ",
    ];
    text.split("{{").skip(1).any(|action| {
        let action = action.trim_start_matches('-').trim_start();
        WORDS.iter().any(|word| action.starts_with(word))
    })
}

/// The members of a list of any kind, such as `List` or `RolloutList`, as in kubectl.
pub(super) fn unpacked(document: Node) -> Vec<Node> {
    let kind = document.get("kind").and_then(Node::text);
    let is_list = kind.is_some_and(|kind| kind.ends_with("List"));
    match document.get("items") {
        Some(items) if is_list => items.items().iter().cloned().flat_map(unpacked).collect(),
        _ => vec![document],
    }
}

pub(super) fn name_of(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "<stdin>".to_owned(),
        _ => sanitize_to(&path.display().to_string(), MAX_MESSAGE),
    }
}
