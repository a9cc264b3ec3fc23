//! Texts with placeholders.

/// A text with a value for each of its placeholders, or the name of one without a value.
pub fn fill(text: &str, value: impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, further) = after.split_once("}}").unwrap_or((after, ""));
        filled.push_str(before);
        filled.push_str(&value(name.trim())?);
        rest = further;
    }
    filled.push_str(rest);
    Ok(filled)
}
