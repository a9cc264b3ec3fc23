//! Names of objects that belong to a Rollout or a route.

/// The owner's name and an ending, within this number of bytes in all. The owner's name is cut so that it
/// still ends as a name may; an ending of letters could be a label of its own.
///
/// The owner's name is one that the API server has accepted: ASCII without blanks.
#[must_use]
pub fn ending(owner: &str, ending: &str, longest: usize) -> String {
    let room = longest.saturating_sub(ending.len() + 1);
    let prefix: String = owner.chars().take(room).collect();
    format!("{}-{ending}", prefix.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_ending_whole_and_is_one_that_the_api_server_takes() {
        assert_eq!(ending("shop", "abc-1", 253), "shop-abc-1");
        for cut in [
            "a".repeat(249),
            format!("{}.{}", "a".repeat(244), "b".repeat(8)),
            "a-.".repeat(84),
        ] {
            let name = ending(&cut, "smoke", 250);
            assert!(name.len() <= 250 && name.ends_with("-smoke"), "{name}");
            assert!(
                !name.contains(".-smoke") && !name.contains("--smoke"),
                "{name}"
            );
            assert!(cut.starts_with(name.trim_end_matches("-smoke")), "{name}");
        }
    }
}
