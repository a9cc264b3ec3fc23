//! Whose sign-off can count.

use std::collections::BTreeSet;

use countersign_api::policy::{Alias, People};
use countersign_api::rollout::ExcludedApprovers;

use crate::limits::MAX_NAMES;
use crate::proposal::Proposal;
use crate::provenance::Provenance;
use crate::provenance::identity::Identity;

/// The name that stands for anybody: more people may have a hand in a change than can be named. The API server's
/// stamp writes it, too.
pub const ANYBODY: &str = "*";

/// Longest name of a user that a sign-off can hold, in characters.
const LONGEST_USER: usize = 253;

/// Whether a user of the cluster is a service account or another part of the system.
#[must_use]
pub fn is_machine(user: &str, groups: &[String]) -> bool {
    user.starts_with("system:")
        || groups
            .iter()
            .any(|group| group.starts_with("system:serviceaccounts"))
}

/// Adds people to those of a change. If all cannot be named, anybody may be one of them: nobody is forgotten.
pub fn add(names: &mut BTreeSet<String>, more: impl IntoIterator<Item = String>) {
    names.extend(more);
    let length: usize = names.iter().map(String::len).sum();
    if length > MAX_NAMES {
        *names = BTreeSet::from([ANYBODY.to_owned()]);
    }
}

/// Every name of a user in the policies, including the user name itself.
pub(super) fn names(user: &str, people: &People) -> BTreeSet<String> {
    all_names([user.to_lowercase()].into(), people)
}

/// Names with all other names of the same people.
fn all_names(mut names: BTreeSet<String>, people: &People) -> BTreeSet<String> {
    let aliases: Vec<BTreeSet<String>> = people.aliases.iter().map(names_of).collect();
    loop {
        let before = names.len();
        for alias in &aliases {
            if !alias.is_disjoint(&names) {
                names.extend(alias.iter().cloned());
            }
        }
        if names.len() == before {
            return names;
        }
    }
}

/// All names of an alias.
fn names_of(alias: &Alias) -> BTreeSet<String> {
    let identities = alias.identities.iter();
    let identities = identities.flat_map(|it| Identity::of(it).keys());
    identities.chain([alias.user.to_lowercase()]).collect()
}

/// Who is not known, in a sentence, if the policies require that everybody is: the signer with these names, or
/// somebody who wrote, drove or reviewed the change.
pub(super) fn unknown_person(
    proposal: &Proposal,
    user: &str,
    person: &BTreeSet<String>,
) -> Option<String> {
    let people = &proposal.effective.people;
    if !people.require_known {
        return None;
    }
    let is_known = |names: &BTreeSet<String>| {
        let mut aliases = people.aliases.iter();
        aliases.any(|alias| !names_of(alias).is_disjoint(names))
    };
    if !is_known(person) {
        return Some(format!(
            "no alias names {user}: add that user to people.aliases of a policy"
        ));
    }
    if proposal.provenance.authors.is_empty() {
        return Some("the change names no author: declare provenance, which `stamp` writes".into());
    }
    provenances(proposal).find_map(|it| {
        let behind = it.authors.iter().chain(&it.human_operators);
        let mut behind = behind.chain(&it.reviewers);
        let unknown = behind.find(|who| !who.is_agent(&it.agents) && !is_known(&who.keys()))?;
        Some(format!(
            "no alias names {unknown}, who wrote, drove or reviewed the change: add that person to people.aliases of a policy"
        ))
    })
}

/// What is known of the people behind a change: declared, attested, and as policies demand that only observe.
fn provenances(proposal: &Proposal) -> impl Iterator<Item = &Provenance> {
    let observed = proposal.observed.as_ref();
    [
        Some(&proposal.provenance),
        proposal.attested.as_ref(),
        observed.and_then(|it| it.attested.as_ref()),
    ]
    .into_iter()
    .flatten()
}

/// Who must not sign a change off: its authors, the people who drove its AI, and those who applied it. A
/// user whose name is the local part of an author's address counts as that author.
#[must_use]
pub fn excluded_approvers(proposal: &Proposal, changed_by: &BTreeSet<String>) -> ExcludedApprovers {
    let people = |it: &'_ Provenance| [it.authors.clone(), it.human_operators.clone()].concat();
    let people: Vec<Identity> = provenances(proposal).flat_map(people).collect();
    let keys = people.iter().flat_map(Identity::keys);
    let with_local_part = keys.flat_map(|key| {
        let local = key.split_once('@').map(|(local, _)| local.to_owned());
        // `jane+shop@…` is jane, and so is GitHub's private address `12345+jane@…`.
        let parts = local
            .iter()
            .flat_map(|local| local.split('+'))
            .map(ToOwned::to_owned);
        let parts: Vec<_> = parts.chain(local.clone()).chain([key]).collect();
        parts
    });
    let changers = changed_by.iter().map(|user| user.to_lowercase());
    let known = &proposal.effective.people;
    let users = all_names(with_local_part.chain(changers).collect(), known);
    ExcludedApprovers {
        // No user of the cluster has a longer name.
        users: users
            .into_iter()
            .filter(|user| user.chars().count() <= LONGEST_USER)
            .collect(),
        groups: known.agent_groups.iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_people_than_can_be_named_anybody_is_one() {
        let name = |number: usize| format!("{number:0>250}");
        let mut names = BTreeSet::new();
        add(&mut names, (0..200).map(name));
        assert_eq!(names.len(), 200);
        add(&mut names, (200..400).map(name));
        assert_eq!(names, BTreeSet::from([ANYBODY.to_owned()]));
        add(&mut names, [name(1)]);
        assert!(names.contains(ANYBODY), "{names:?}");
    }
}
