//! Arguments of an analysis, and texts with their placeholders.

use std::collections::BTreeMap;

use crate::commands::convert::fill::fill;

/// Values of arguments; `None` if a value is not known here.
#[derive(Clone, Default)]
pub struct Args(BTreeMap<String, Option<String>>);

impl Args {
    /// Adds an argument that has no value yet.
    pub fn declare(&mut self, name: String, default: Option<String>) {
        self.0.entry(name).or_insert(default);
    }

    /// A text with the values, or the argument that has none.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        fill(text, |name| match name.strip_prefix("args.") {
            Some(arg) => {
                let value = self.0.get(arg).cloned().flatten();
                value.ok_or_else(|| arg.to_owned())
            }
            None => Ok(format!("{{{{{name}}}}}")),
        })
    }
}

impl FromIterator<(String, Option<String>)> for Args {
    fn from_iter<I: IntoIterator<Item = (String, Option<String>)>>(args: I) -> Self {
        Self(args.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_filled_in_and_a_missing_one_is_named() {
        let args = Args::from_iter([
            ("service-name".to_owned(), Some("web.shop".to_owned())),
            ("secret".to_owned(), None),
        ]);
        let filled = args
            .fill(r#"x{s="{{args.service-name}}",t="{{ args.service-name }}",n="{{namespace}}"}"#);
        let expected = r#"x{s="web.shop",t="web.shop",n="{{namespace}}"}"#;
        assert_eq!(filled, Ok(expected.to_owned()));
        assert_eq!(args.fill("{{args.secret}}"), Err("secret".to_owned()));
        assert_eq!(args.fill("{{args.other}}"), Err("other".to_owned()));
        assert_eq!(args.fill("{{unclosed"), Ok("{{unclosed}}".to_owned()));
    }
}
