//! Which changes wait for this person.

use std::sync::Arc;

use countersign_api::rollout::Change;
use countersign_api::{Person, SignOff};
use countersign_core::people::eligibility::{ANYBODY, is_machine};
use kube::api::ListParams;

use crate::cluster::connection::Connection;
use crate::commands::dashboard::action::Action;
use crate::commands::dashboard::fleet::{Fleet, Row};
use crate::commands::dashboard::rights::Rights;
use crate::view::gates;

/// Most changes whose sign-offs and permissions are asked for at a time.
const MOST: usize = 50;

/// The Rollouts that wait for people of whom this is one.
pub async fn waiting_for(
    connection: &Connection,
    rights: &Rights,
    me: &Person,
    fleet: &Fleet,
) -> Vec<Arc<Row>> {
    let asked = fleet.rows().filter_map(|row| {
        let change = row.asks.as_deref()?;
        could_sign(me, change, &[]).then(|| Arc::clone(row))
    });
    let asked = asked
        .take(MOST)
        .map(|row| waits(connection, rights, me, row));
    let asked = futures::future::join_all(asked).await;
    asked.into_iter().flatten().collect()
}

/// The row, if the person has not signed and may.
async fn waits(
    connection: &Connection,
    rights: &Rights,
    me: &Person,
    row: Arc<Row>,
) -> Option<Arc<Row>> {
    let connection = connection.in_namespace(&row.namespace);
    let change = row.asks.as_deref()?;
    let needs = Action::Approve.needs();
    if rights
        .missing(&connection, &needs, &row.name)
        .await
        .is_some()
    {
        return None;
    }
    // Who may not read them signs twice at worst, and is told so.
    let of_change = ListParams::default().fields(&format!("spec.run={}", change.run));
    let sign_offs = connection.here::<SignOff>().list(&of_change).await;
    let sign_offs = sign_offs.map(|list| list.items).unwrap_or_default();
    let waits = could_sign(me, change, &sign_offs);
    waits.then_some(row)
}

/// Whether a person could still sign the change off, by its excluded people, the groups of the next gate and
/// the sign-offs so far. The controller decides.
#[must_use]
pub fn could_sign(me: &Person, change: &Change, sign_offs: &[SignOff]) -> bool {
    let user = me.username.to_lowercase();
    let excluded = &change.excluded_approvers;
    let is_excluded = excluded.users.contains(&user)
        || excluded.users.contains(ANYBODY)
        || me
            .groups
            .iter()
            .any(|group| excluded.groups.contains(group));
    if is_excluded || is_machine(&me.username, &me.groups) {
        return false;
    }
    let gates = gates::gates(change, sign_offs);
    let missing = |gate: &&gates::Gate| {
        !gate.passed && gate.demands.iter().any(|demand| demand.missing() > 0)
    };
    let Some(gate) = gates.iter().find(missing) else {
        // Scarce evidence is accepted by whoever may approve.
        return true;
    };
    gate.demands.iter().any(|demand| {
        let of_group =
            demand.groups.is_empty() || me.groups.iter().any(|group| demand.groups.contains(group));
        let has_signed = demand.signed.iter().any(|name| name.to_lowercase() == user);
        demand.missing() > 0 && of_group && !has_signed
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{sign_off, waiting};

    fn person(username: &str, groups: &str) -> Person {
        Person {
            username: username.into(),
            groups: groups.split(' ').map(ToOwned::to_owned).collect(),
        }
    }

    #[test]
    fn a_change_waits_for_those_who_are_missing_and_not_excluded() {
        let mut change = waiting().change().unwrap().clone();
        change.excluded_approvers.users = ["erin".to_owned()].into();
        change.excluded_approvers.groups = ["agents".to_owned()].into();
        let signed = [sign_off("bob", &["approvers"], None, "True", "Counts")];
        for (who, groups, expected) in [
            ("carol", "approvers", true),
            ("carol", "senior", true),
            ("carol", "visitors", false),
            ("Bob", "approvers", false),
            ("Erin", "approvers", false),
            ("gpt", "approvers agents", false),
            ("system:serviceaccount:ci:bot", "approvers", false),
        ] {
            let me = person(who, groups);
            assert_eq!(could_sign(&me, &change, &signed), expected, "{who}");
        }
        change.excluded_approvers.users = [ANYBODY.to_owned()].into();
        let carol = person("carol", "approvers");
        assert!(!could_sign(&carol, &change, &signed));
    }
}
