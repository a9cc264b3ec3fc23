//! Output of lists, in the formats of `kubectl get`.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::jsonpath::{CustomColumns, Template};
use crate::output::{Columns, Format, Unwritable, document, visible};

/// A format of `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// A table, with all columns if it is wide.
    Table { wide: bool },
    /// JSON or YAML.
    Document(Format),
    /// `TYPE/NAME`.
    Name,
    /// A template.
    JsonPath(Template),
    /// Columns of the user's own.
    CustomColumns(CustomColumns),
}

/// The formats that take no value, and the beginnings of those that do.
const SHAPES: [&str; 7] = [
    "table",
    "wide",
    "json",
    "yaml",
    "name",
    "jsonpath=",
    "custom-columns=",
];

/// Reads a [`Shape`].
#[derive(Clone, Debug)]
struct ShapeParser;

impl TypedValueParser for ShapeParser {
    type Value = Shape;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Shape, clap::Error> {
        shape(&value.to_string_lossy()).map_err(|message| {
            clap::Error::raw(ErrorKind::InvalidValue, message + "\n").with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(SHAPES.into_iter().map(PossibleValue::new)))
    }
}

fn shape(text: &str) -> Result<Shape, String> {
    if let Some(template) = text.strip_prefix("jsonpath=") {
        let template: Result<Template, _> = template.parse();
        return template
            .map(Shape::JsonPath)
            .map_err(|error| format!("jsonpath: {error}"));
    }
    if let Some(columns) = text.strip_prefix("custom-columns=") {
        let columns: Result<CustomColumns, _> = columns.parse();
        return columns
            .map(Shape::CustomColumns)
            .map_err(|error| format!("custom-columns: {error}"));
    }
    match text {
        "table" => Ok(Shape::Table { wide: false }),
        "wide" => Ok(Shape::Table { wide: true }),
        "json" => Ok(Shape::Document(Format::Json)),
        "yaml" => Ok(Shape::Document(Format::Yaml)),
        "name" => Ok(Shape::Name),
        _ => Err(format!("write one of {}", SHAPES.join(", "))),
    }
}

/// The flags `-o` and `--no-headers`.
#[derive(Clone, Debug, clap::Args)]
pub struct ListOutput {
    /// Output format
    #[arg(
        short = 'o',
        long = "output",
        default_value = "table",
        value_parser = ShapeParser,
        value_name = "FORMAT"
    )]
    shape: Shape,
    /// When using the table or custom columns, don't print headers
    #[arg(long)]
    no_headers: bool,
}

/// The table of a kind.
pub trait Listed: Resource<DynamicType = ()> + Serialize {
    /// What the cells are taken from, besides the object.
    type Context;

    /// The names of the columns.
    fn heading(context: &Self::Context, wide: bool) -> Vec<&'static str>;

    /// The cells of an object.
    fn row(&self, context: &Self::Context, wide: bool) -> Vec<String>;
}

/// Objects printed so far.
#[derive(Debug, Default)]
pub struct Printed {
    columns: Columns,
    is_headed: bool,
    /// The version of each object, by its uid.
    versions: BTreeMap<String, String>,
}

impl Printed {
    /// Whether an object has changed since it was printed, or was not.
    pub fn is_new(&mut self, object: &impl ResourceExt) -> bool {
        let version = object.resource_version().unwrap_or_default();
        let before = self
            .versions
            .insert(object.uid().unwrap_or_default(), version.clone());
        before != Some(version)
    }
}

impl ListOutput {
    /// Whether the objects are shown as a table.
    #[must_use]
    pub const fn is_table(&self) -> bool {
        matches!(self.shape, Shape::Table { .. })
    }

    /// One object, which others may follow.
    pub fn one<K: Listed>(
        &self,
        object: &K,
        context: &K::Context,
        printed: &mut Printed,
    ) -> Result<String, Unwritable> {
        match &self.shape {
            Shape::Document(format) => {
                let follows = std::mem::replace(&mut printed.is_headed, true);
                let is_yaml = *format == Format::Yaml;
                let start = if follows && is_yaml { "---\n" } else { "" };
                Ok(visible(start.to_owned() + &document(object, *format)?))
            }
            Shape::JsonPath(template) => Ok(visible(template.render(&value(object)?))),
            _ => self.rows(std::slice::from_ref(object), context, printed),
        }
    }

    /// A list of objects.
    pub fn list<K: Listed>(
        &self,
        objects: &[K],
        context: &K::Context,
        printed: &mut Printed,
    ) -> Result<String, Unwritable> {
        let list = || json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        match &self.shape {
            Shape::Document(format) => Ok(visible(document(&list(), *format)?)),
            Shape::JsonPath(template) => Ok(visible(template.render(&list()))),
            _ => self.rows(objects, context, printed),
        }
    }

    /// The objects as lines.
    fn rows<K: Listed>(
        &self,
        objects: &[K],
        context: &K::Context,
        printed: &mut Printed,
    ) -> Result<String, Unwritable> {
        let mut lines = Vec::new();
        let mut heading = Vec::new();
        match &self.shape {
            Shape::Table { wide } => {
                let names = K::heading(context, *wide);
                heading = names.into_iter().map(ToOwned::to_owned).collect();
                lines.extend(objects.iter().map(|object| object.row(context, *wide)));
            }
            Shape::CustomColumns(columns) => {
                heading = columns.heading();
                for object in objects {
                    lines.push(columns.row(&value(object)?));
                }
            }
            _ => lines.extend(objects.iter().map(|object| vec![type_and_name(object)])),
        }
        let is_headed = std::mem::replace(&mut printed.is_headed, true);
        if !heading.is_empty() && !is_headed && !self.no_headers {
            lines.insert(0, heading);
        }
        Ok(printed.columns.lines(&lines))
    }
}

/// The object as kubectl names it, such as `rollout.countersign.dev/web`.
fn type_and_name<K: Listed>(object: &K) -> String {
    let kind = K::kind(&()).to_ascii_lowercase();
    format!("{kind}.{}/{}", K::group(&()), object.name_any())
}

fn value(object: &impl Serialize) -> Result<Value, Unwritable> {
    serde_json::to_value(object).map_err(|error| Unwritable {
        format: "text",
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use countersign_api::Rollout;

    use super::*;
    use crate::view::tests::{at_rest, waiting};

    impl ListOutput {
        /// The output of these flags.
        pub fn parsed(arguments: &[&str]) -> Self {
            use clap::{Args, FromArgMatches};
            let command = Self::augment_args(clap::Command::new("x").no_binary_name(true));
            Self::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
        }
    }

    fn listed(arguments: &[&str]) -> String {
        let rollouts: [Rollout; 2] = [waiting().rollout, at_rest()];
        let output = ListOutput::parsed(arguments);
        let context = crate::commands::get::Context {
            namespaces: false,
            now: crate::view::tests::now(),
        };
        output
            .list(&rollouts, &context, &mut Printed::default())
            .unwrap()
    }

    #[test]
    fn a_list_has_the_formats_of_kubectl() {
        assert_eq!(
            listed(&["-o", "name"]),
            "rollout.countersign.dev/web\nrollout.countersign.dev/web\n"
        );
        let template = "jsonpath={range .items[*]}{.metadata.name}={.status.phase}{\"\\n\"}{end}";
        assert_eq!(
            listed(&["-o", template]),
            "web=AwaitingSignOff\nweb=Stable\n"
        );
        let columns = "custom-columns=NAME:.metadata.name,TIER:.status.tier,X:.none";
        assert_eq!(
            listed(&["-o", columns]),
            "NAME   TIER   X\nweb    high   <none>\nweb    high   <none>\n"
        );
        let text = listed(&["--no-headers"]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains("PHASE"), "{text}");
        let read: Value = serde_json::from_str(&listed(&["-o", "json"])).unwrap();
        assert_eq!(read["items"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_wrong_format_is_refused_with_those_that_there_are() {
        let message = shape("xml").unwrap_err();
        assert!(message.ends_with("jsonpath=, custom-columns="), "{message}");
        assert!(shape("jsonpath={.a").unwrap_err().contains("has no end"));
    }

    #[test]
    fn an_object_is_printed_again_once_it_has_changed() {
        let mut printed = Printed::default();
        let mut rollout = at_rest();
        assert!(printed.is_new(&rollout) && !printed.is_new(&rollout));
        rollout.metadata.resource_version = Some("4712".into());
        assert!(printed.is_new(&rollout));
    }
}
