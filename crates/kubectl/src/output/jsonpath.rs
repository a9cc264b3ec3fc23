//! kubectl's templates: `jsonpath=` and `custom-columns=`.
//!
//! A path of kubectl's dialect becomes one of RFC 9535, which a library evaluates.

use std::str::FromStr;

use jsonpath_rust::JsonPath;
use jsonpath_rust::parser::parse_json_path;
use serde_json::Value;

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace, bracket or quote has no end.
    #[error("{0} has no end: write a template such as {{.metadata.name}}")]
    Open(String),
    /// A range or an end stands alone.
    #[error("each {{range …}} needs an {{end}}, and each {{end}} a range")]
    Range,
    /// A path is none.
    #[error("{0} is not a path: write one such as .status.conditions[?(@.type==\"Ready\")].status")]
    Path(String),
    /// A column is none.
    #[error("{0} is not a column: write NAME:PATH, such as PHASE:.status.phase")]
    Column(String),
}

/// A template of `-o jsonpath=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Path(Path),
    Range(Path, Vec<Part>),
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The open ranges, each with the parts before it.
        let mut outer: Vec<(Vec<Part>, Path)> = Vec::new();
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let end = end(after, '}').ok_or_else(|| TemplateError::Open(format!("{{{after}")))?;
            let (inner, after) = after.split_at(end);
            rest = after.strip_prefix('}').unwrap_or(after);
            let inner = inner.trim();
            if let Some(text) = literal(inner) {
                parts.push(Part::Text(text));
            } else if let Some(path) = inner.strip_prefix("range ") {
                outer.push((std::mem::take(&mut parts), path.parse()?));
            } else if inner == "end" {
                let (before, path) = outer.pop().ok_or(TemplateError::Range)?;
                let inner = std::mem::replace(&mut parts, before);
                parts.push(Part::Range(path, inner));
            } else {
                parts.push(Part::Path(inner.parse()?));
            }
        }
        if !outer.is_empty() {
            return Err(TemplateError::Range);
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// The template with the values of an object.
    #[must_use]
    pub fn render(&self, object: &Value) -> String {
        rendered(&self.0, object)
    }
}

fn rendered(parts: &[Part], object: &Value) -> String {
    let texts = parts.iter().map(|part| match part {
        Part::Text(text) => text.clone(),
        Part::Path(path) => path.texts(object).join(" "),
        Part::Range(path, inner) => {
            let values = path.values(object).into_iter();
            values.map(|value| rendered(inner, value)).collect()
        }
    });
    texts.collect()
}

/// A quoted text, without its quotes.
fn literal(text: &str) -> Option<String> {
    if text.starts_with('"') {
        return serde_json::from_str(text).ok();
    }
    let text = text.strip_prefix('\'')?.strip_suffix('\'')?;
    serde_json::from_str(&format!("\"{}\"", text.replace('"', "\\\""))).ok()
}

/// The place of the first `closing` that is in no quotes and no brackets.
fn end(text: &str, closing: char) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_usize;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if quote.is_some() {
            quote = quote.filter(|open| *open != c);
        } else if matches!(c, '"' | '\'') {
            quote = Some(c);
        } else if c == closing && depth == 0 {
            return Some(at);
        } else if c == '[' {
            depth += 1;
        } else if c == ']' {
            depth = depth.saturating_sub(1);
        }
    }
    None
}

/// A path, as RFC 9535 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path(String);

impl FromStr for Path {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = standard(text).ok_or_else(|| TemplateError::Path(text.to_owned()))?;
        match parse_json_path(&path) {
            Ok(_) => Ok(Self(path)),
            Err(_) => Err(TemplateError::Path(text.to_owned())),
        }
    }
}

impl Path {
    fn values<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        object.query(&self.0).unwrap_or_default()
    }

    fn texts(&self, object: &Value) -> Vec<String> {
        let values = self.values(object).into_iter();
        values
            .map(|value| match value {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect()
    }
}

/// kubectl's path in the notation of RFC 9535: names in quotes, since they may hold any character.
fn standard(text: &str) -> Option<String> {
    let mut path = "$".to_owned();
    let mut rest = text.trim().trim_start_matches(['$', '@']);
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (inner, after) = inner.split_at(end(inner, ']')?);
            path.push_str(&["[", inner, "]"].concat());
            rest = after.strip_prefix(']')?;
            continue;
        }
        if let Some(after) = rest.strip_prefix("..") {
            path.push_str("..");
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        if rest.starts_with('[') {
            continue;
        }
        let (name, after) = first_name(rest);
        rest = after;
        match name.as_str() {
            // The path `.` is the object itself.
            "" if path == "$" && rest.is_empty() => {}
            "" => return None,
            "*" => path.push_str("[*]"),
            name => {
                let name = name.replace('\\', "\\\\").replace('\'', "\\'");
                path.push_str(&["['", &name, "']"].concat());
            }
        }
    }
    Some(path)
}

/// The text up to the next dot or bracket, without the backslashes that escape these.
fn first_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                name.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '[' => return (name, text.get(at..).unwrap_or_default()),
            _ => name.push(c),
        }
    }
    (name, "")
}

/// The columns of `-o custom-columns=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomColumns(Vec<(String, Path)>);

impl FromStr for CustomColumns {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut columns = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (column, after) = rest.split_at(end(rest, ',').unwrap_or(rest.len()));
            rest = after.strip_prefix(',').unwrap_or(after);
            let wrong = || TemplateError::Column(column.to_owned());
            let (name, path) = column.split_once(':').ok_or_else(wrong)?;
            let path = path.trim_start_matches('{').trim_end_matches('}');
            columns.push((name.to_owned(), path.parse()?));
        }
        if columns.is_empty() {
            return Err(TemplateError::Column("an empty text".to_owned()));
        }
        Ok(Self(columns))
    }
}

impl CustomColumns {
    /// The names of the columns.
    #[must_use]
    pub fn heading(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The cells of an object.
    #[must_use]
    pub fn row(&self, object: &Value) -> Vec<String> {
        let cells = self.0.iter().map(|(_, path)| path.texts(object).join(","));
        cells
            .map(|cell| {
                if cell.is_empty() {
                    "<none>".to_owned()
                } else {
                    cell
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> Value {
        json!({
            "metadata": { "name": "web", "annotations": { "countersign.dev/changed-by": "alice" } },
            "status": {
                "weight": 20, "step": null,
                "conditions": [
                    { "type": "Ready", "status": "False" },
                    { "type": "Stalled", "status": "True" },
                ],
            },
        })
    }

    #[test]
    fn templates_give_what_kubectl_gives() {
        for (template, expected) in [
            ("{.metadata.name}", "web"),
            ("{$.metadata.name}{'\\n'}", "web\n"),
            (r#"{.metadata.name}{"\t"}{.status.weight}%"#, "web\t20%"),
            ("{.metadata['name']}", "web"),
            (
                r"{.metadata.annotations.countersign\.dev/changed-by}",
                "alice",
            ),
            ("{.status.conditions[*].type}", "Ready Stalled"),
            ("{.status.conditions[-1].type}", "Stalled"),
            (
                r#"{.status.conditions[?(@.type=="Ready")].status}"#,
                "False",
            ),
            ("{.status.conditions[?(@.type=='Ready')].status}", "False"),
            (
                "{range .status.conditions[*]}{.type}={.status};{end}.",
                "Ready=False;Stalled=True;.",
            ),
            ("{..type}", "Ready Stalled"),
            ("{.status.step}{.none}", ""),
            (
                "{.status.conditions[0]}",
                r#"{"status":"False","type":"Ready"}"#,
            ),
            ("text", "text"),
        ] {
            let parsed: Template = template.parse().unwrap();
            assert_eq!(parsed.render(&object()), expected, "{template}");
        }
    }

    #[test]
    fn a_wrong_template_is_refused() {
        for (template, expected) in [
            ("{.metadata", TemplateError::Open("{.metadata".into())),
            ("{range .items[*]}", TemplateError::Range),
            ("{end}", TemplateError::Range),
            ("{.a[}", TemplateError::Open("{.a[}".into())),
            ("{.a..}", TemplateError::Path(".a..".into())),
        ] {
            assert_eq!(template.parse::<Template>(), Err(expected), "{template}");
        }
    }

    #[test]
    fn custom_columns_are_named_paths() {
        let text = r#"NAME:.metadata.name,READY:.status.conditions[?(@.type=="Ready")].status,NONE:.spec,ALL:{.status.conditions[*].type}"#;
        let columns: CustomColumns = text.parse().unwrap();
        assert_eq!(columns.heading(), ["NAME", "READY", "NONE", "ALL"]);
        assert_eq!(
            columns.row(&object()),
            ["web", "False", "<none>", "Ready,Stalled"]
        );
        assert!("NAME".parse::<CustomColumns>().is_err());
        assert!("".parse::<CustomColumns>().is_err());
    }
}
