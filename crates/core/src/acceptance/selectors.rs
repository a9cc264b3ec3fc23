//! Selectors that no object can match.

use countersign_api::Selector;

use crate::label::{is_label_value, is_qualified};
use crate::text::excerpt;

/// The labels of both selectors that no object can have, each in a sentence.
pub(super) fn problems<'a>(
    namespaces: Option<&'a Selector>,
    rollouts: Option<&'a Selector>,
) -> impl Iterator<Item = String> + use<'a> {
    let selectors = [
        ("namespaceSelector", namespaces),
        ("rolloutSelector", rollouts),
    ];
    let selectors = selectors.into_iter();
    let labels = selectors.flat_map(|(field, selector)| {
        let labels = selector.into_iter().flat_map(|it| &it.match_labels);
        labels.map(move |label| (field, label))
    });
    labels
        .filter(|(_, (key, value))| !is_qualified(key) || !is_label_value(value))
        .map(|(field, (key, value))| {
            format!(
                "{field}.matchLabels: no object can have the label `{}={}`, so nothing is selected",
                excerpt(key),
                excerpt(value)
            )
        })
}
