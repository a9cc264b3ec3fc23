//! The user who pushed the commits, in CI.

use std::collections::BTreeSet;

use countersign_core::provenance::identity::Identity;

use super::assistants::{Who, who};
use super::visible::identity;

/// CI systems: the variable that is `true` in one, and the variable with the account of the user.
const SYSTEMS: [(&str, &str); 2] = [
    ("GITHUB_ACTIONS", "GITHUB_ACTOR"),
    ("GITLAB_CI", "GITLAB_USER_LOGIN"),
];

/// The person who pushed, whatever the commits name as their author. One of these reviewers, whose review of each
/// commit the forge shows, pushed what others wrote: the forge knows their accounts.
pub(super) fn further_author(
    variable: impl Fn(&str) -> Option<String>,
    reviewers: &BTreeSet<String>,
) -> Option<String> {
    let mut systems = SYSTEMS.iter();
    let (_, account) = systems.find(|(system, _)| variable(system).as_deref() == Some("true"))?;
    let account = variable(account)?;
    if !matches!(who(&account, ""), Who::Person | Who::Unclear) {
        return None;
    }
    let pusher = identity(&account, "")?;
    let own = Identity::of(&pusher);
    let mut reviewers = reviewers.iter();
    (!reviewers.any(|it| Identity::of(it).is(&own))).then_some(pusher)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pusher(variables: &[(&str, &str)], reviewers: &[&str]) -> Option<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let reviewers = reviewers.iter().map(|it| (*it).to_owned()).collect();
        further_author(variable, &reviewers)
    }

    #[test]
    fn the_user_who_pushed_is_an_author_in_ci() {
        let github = |account| [("GITHUB_ACTIONS", "true"), ("GITHUB_ACTOR", account)];
        let gitlab = [("GITLAB_CI", "true"), ("GITLAB_USER_LOGIN", "mallory")];
        let mallory = Some("mallory".to_owned());
        assert_eq!(pusher(&github("mallory"), &["bobby"]), mallory);
        assert_eq!(pusher(&gitlab, &[]), mallory);
        for (variables, reviewers) in [
            // Outside of CI.
            (vec![("GITHUB_ACTOR", "mallory")], &[][..]),
            (github("dependabot[bot]").to_vec(), &[]),
            (github("").to_vec(), &[]),
            // A reviewer who merges what others wrote.
            (github("Mallory").to_vec(), &["mallory"]),
        ] {
            assert_eq!(pusher(&variables, reviewers), None, "{variables:?}");
        }
    }
}
