//! The forms of Kubernetes' labels and names.

/// Longest value of a label, in characters.
pub const MAX_VALUE: usize = 63;

/// Whether a text is made of lower-case letters, digits and `-`, with no `-` at its ends.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(letter)
        && text.ends_with(letter)
        && text.chars().all(|c| letter(c) || c == '-')
}

/// Whether a text is made of such labels with `.` between them.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// Letters and digits at both ends, with `-`, `_` and `.` between.
#[must_use]
pub fn is_word(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric();
    text.len() <= MAX_VALUE
        && text.starts_with(letter)
        && text.ends_with(letter)
        && text.chars().all(|c| letter(c) || "-_.".contains(c))
}

/// Whether a label of an object can have this value.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_word(text)
}

/// Whether a label or an annotation of an object can have this key.
#[must_use]
pub fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => domain.len() <= 253 && is_subdomain(domain) && is_word(name),
        None => is_word(text),
    }
}
