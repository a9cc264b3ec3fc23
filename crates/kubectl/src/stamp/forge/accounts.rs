//! Which account of the forge an author of a commit has.
//!
//! Commits name people, reviews name accounts. Only with the accounts of all authors is it known that a
//! reviewer is none of them.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::provenance::identity::Identity;

use super::super::visible::identity;

/// Accounts, by the names and addresses under which their owners write commits; all in lower case.
#[derive(Debug, Default)]
pub(super) struct Accounts(BTreeMap<String, BTreeSet<String>>);

/// The beginning of the domain under which a forge hides the addresses of its users.
const HIDDEN: &str = "@users.noreply.";

impl Accounts {
    /// Records that the owner of an account writes under this name and address.
    pub(super) fn learn(&mut self, name: &str, address: &str, account: &str) {
        let Some(person) = identity(name, address) else {
            return;
        };
        for key in Identity::of(&person).keys() {
            let accounts = self.0.entry(key).or_default();
            accounts.insert(account.to_lowercase());
        }
    }

    /// The accounts that this person may have; none if they are not known.
    pub(super) fn of(&self, person: &str) -> BTreeSet<String> {
        let keys = Identity::of(person).keys();
        let hidden = keys.iter().flat_map(|key| of_hidden_address(key));
        let learnt = keys.iter().filter_map(|key| self.0.get(key));
        learnt.flatten().cloned().chain(hidden).collect()
    }
}

/// The accounts in `1234+jane@users.noreply.github.com` and `1234-jane@users.noreply.gitlab.com`. An account
/// may itself begin with digits, so both readings count.
fn of_hidden_address(address: &str) -> Vec<String> {
    let Some((local, _)) = address.split_once(HIDDEN) else {
        return Vec::new();
    };
    let after_id = local
        .split_once(['+', '-'])
        .filter(|(id, _)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|(_, account)| account);
    let whole = (!local.contains('+')).then_some(local);
    let accounts = whole.into_iter().chain(after_id);
    accounts.map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_known_by_name_by_address_or_by_a_hidden_address() {
        let mut accounts = Accounts::default();
        accounts.learn("Jane Doe", "jane@example.org", "Jane-D");
        accounts.learn("", "", "nobody");
        for (person, account) in [
            ("jane doe <other@example.org>", &["jane-d"][..]),
            ("J <JANE@example.org>", &["jane-d"]),
            ("Bob <12+bob@users.noreply.github.com>", &["bob"]),
            ("Bob <bob@users.noreply.github.com>", &["bob"]),
            ("Bob <12-bob@users.noreply.gitlab.com>", &["12-bob", "bob"]),
            ("Bob <bob@example.org>", &[]),
        ] {
            let known: Vec<_> = accounts.of(person).into_iter().collect();
            assert_eq!(known, account, "{person}");
        }
    }
}
