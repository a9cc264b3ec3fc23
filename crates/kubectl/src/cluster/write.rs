//! Writes in the user's name, and `--dry-run`, which shows them.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::connection::{Connection, FIELD_MANAGER};
use crate::cluster::refusal::Refusal;
use crate::output::{Format, Unwritable, print, print_document, remark};
use countersign_core::text::sanitize;

/// The value of `--dry-run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Send the object, and let the API server store it.
    #[default]
    None,
    /// Print the object without sending it.
    Client,
    /// Send the object, and print the API server's answer; the object is not stored.
    Server,
}

/// Output of a dry run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Shape {
    /// YAML.
    #[default]
    Yaml,
    /// JSON.
    Json,
    /// `TYPE/NAME`.
    Name,
}

/// The flags `--dry-run` and `-o`.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct DryRun {
    /// If client, only print the object that would be sent, without sending it. If server, submit the
    /// request without persisting the object, and print what the API server answers
    #[arg(
        long, value_enum, default_value = "none", num_args = 0..=1,
        default_missing_value = "client", require_equals = true
    )]
    dry_run: Mode,
    /// Output format of a dry run; YAML if omitted
    #[arg(short, long, value_enum, value_name = "FORMAT", requires = "dry_run")]
    output: Option<Shape>,
}

impl DryRun {
    /// The API server checks the request and stores nothing.
    #[must_use]
    pub const fn on_the_server() -> Self {
        Self {
            dry_run: Mode::Server,
            output: None,
        }
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.dry_run != Mode::None
    }

    /// Whether the request is sent all the same.
    #[must_use]
    pub fn is_server(self) -> bool {
        self.dry_run == Mode::Server
    }

    /// Whether `-o` is given.
    #[must_use]
    pub const fn has_output(self) -> bool {
        self.output.is_some()
    }

    /// Creates an object; in a dry run, returns what would be created.
    pub async fn create<K>(
        self,
        connection: &Connection,
        objects: &Api<K>,
        object: &K,
    ) -> Result<K, Refusal>
    where
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        if self.dry_run == Mode::Client {
            return Ok(object.clone());
        }
        let parameters = PostParams {
            dry_run: self.is_server(),
            field_manager: Some(FIELD_MANAGER.into()),
        };
        connection.ask(objects.create(&parameters, object)).await
    }

    /// Applies a merge patch to an object as it was read; in a dry run, returns what it would become.
    pub async fn merge<K>(
        self,
        connection: &Connection,
        objects: &Api<K>,
        object: &K,
        patch: Value,
    ) -> Result<K, Refusal>
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned,
    {
        if self.dry_run == Mode::Client {
            return merged(object, &patch).map_err(|error| Refusal::Other(error.to_string()));
        }
        let parameters = PatchParams {
            dry_run: self.is_server(),
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let name = object.name_any();
        let patch = Patch::Merge(patch);
        connection
            .ask(objects.patch(&name, &parameters, &patch))
            .await
    }

    /// Prints an object that was not stored. Returns whether this is a dry run.
    pub fn shows<K>(self, object: &K) -> Result<bool, Unwritable>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        if !self.is_on() {
            return Ok(false);
        }
        match self.output.unwrap_or_default() {
            Shape::Yaml => print_document(object, Format::Yaml)?,
            Shape::Json => print_document(object, Format::Json)?,
            Shape::Name => print(&(sanitize(&type_and_name(object)) + "\n")),
        }
        remark(if self.is_server() {
            "dry run: the API server accepts the request, and nothing is stored"
        } else {
            "dry run: nothing is sent"
        });
        Ok(true)
    }
}

fn type_and_name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let kind = K::kind(&()).to_ascii_lowercase();
    // The API server generates a name of this beginning.
    let generated = object.meta().generate_name.clone();
    let name = object.meta().name.clone().filter(|name| !name.is_empty());
    let name = name.or(generated).unwrap_or_default();
    format!("{kind}.{}/{name}", K::group(&()))
}

fn merged<K>(object: &K, patch: &Value) -> Result<K, serde_json::Error>
where
    K: Serialize + DeserializeOwned,
{
    let mut value = serde_json::to_value(object)?;
    json_patch::merge(&mut value, patch);
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::tests::at_rest;

    fn parsed(arguments: &[&str]) -> Result<DryRun, clap::Error> {
        use clap::{Args, FromArgMatches};
        let command = DryRun::augment_args(clap::Command::new("x").no_binary_name(true));
        DryRun::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    #[test]
    fn a_dry_run_is_the_client_s_unless_the_server_is_named() {
        for (line, on, server) in [
            ("--dry-run", true, false),
            ("--dry-run=client -o json", true, false),
            ("--dry-run=server", true, true),
            ("--dry-run=none", false, false),
        ] {
            let arguments: Vec<_> = line.split(' ').collect();
            let dry_run = parsed(&arguments).unwrap();
            assert_eq!((dry_run.is_on(), dry_run.is_server()), (on, server));
        }
        assert!(!parsed(&[]).unwrap().is_on());
        assert!(parsed(&["-o", "json"]).is_err(), "-o is for dry runs");
    }

    #[test]
    fn what_a_patch_would_make_of_an_object_is_known_without_the_server() {
        let patch = json!({ "spec": { "replicas": 7 } });
        let patched = merged(&at_rest(), &patch).unwrap();
        assert_eq!(patched.spec.replicas, 7);
        assert_eq!(patched.spec.template, at_rest().spec.template);
        assert_eq!(type_and_name(&patched), "rollout.countersign.dev/web");
    }
}
