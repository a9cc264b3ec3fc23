//! Sanitizes foreign text for annotations.

use countersign_core::text::is_invisible;

/// Longest name or address of an identity, in characters; longer ones are cut.
const LONGEST: usize = 160;

/// A text as one item of an annotation's list: without commas, which begin another item, angle brackets,
/// which begin another address, and invisible characters, and of limited length.
pub(super) fn item(text: &str) -> String {
    let kept: String = text
        .chars()
        .map(|c| match c {
            ',' | '<' | '>' => ' ',
            c if c.is_whitespace() || c.is_control() => ' ',
            c => c,
        })
        .filter(|c| !is_invisible(*c))
        .collect();
    let words: Vec<_> = kept.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
}

/// `Jane Doe <jane@example.org>`, or one of both; `None` if nothing is left.
pub(super) fn identity(name: &str, address: &str) -> Option<String> {
    let (name, address) = (item(name), item(address));
    match (name.is_empty(), address.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("<{address}>")),
        (false, true) => Some(name),
        (false, false) => Some(format!("{name} <{address}>")),
    }
}

/// Name and address of `Jane Doe <jane@example.org> and whatever follows`.
pub(super) fn name_and_address(text: &str) -> (&str, &str) {
    match text.split_once('<') {
        Some((name, rest)) => {
            let address = rest.split_once('>').map_or(rest, |(address, _)| address);
            (name.trim(), address.trim())
        }
        None if text.contains('@') && !text.contains(char::is_whitespace) => ("", text),
        None => (text.trim(), ""),
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::provenance::identity::Identity;
    use countersign_core::text::{excerpt, sanitize};

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_identity_is_one_item_whatever_it_contains() {
        assert_eq!(
            identity("Doe, Jane", "jane@example.org").unwrap(),
            "Doe Jane <jane@example.org>"
        );
        assert_eq!(
            identity("Bob\u{200b}\n<eve@x>, Eve", "bob@x>,<eve@x").unwrap(),
            "Bob eve@x Eve <bob@x eve@x>"
        );
        assert_eq!(identity(" ,\u{202e}", "<>"), None);
        assert_eq!(identity("", "jane@x").unwrap(), "<jane@x>");
    }

    #[test]
    fn name_and_address_are_those_of_the_first_pair() {
        assert_eq!(name_and_address("A B <a@x> <b@x>"), ("A B", "a@x"));
        assert_eq!(name_and_address("A B <a@x"), ("A B", "a@x"));
        assert_eq!(name_and_address("a@x"), ("", "a@x"));
        assert_eq!(name_and_address(" A B "), ("A B", ""));
    }

    proptest! {
        #[test]
        fn no_name_becomes_two_and_none_is_hidden(name in "(?s).{0,60}", address in "(?s).{0,60}") {
            let Some(identity) = identity(&name, &address) else { return Ok(()) };
            prop_assert!(!identity.contains([',', '\n']) && identity == sanitize(&identity));
            prop_assert_eq!(Identity::of(&identity).to_string(), excerpt(&identity));
        }
    }
}
