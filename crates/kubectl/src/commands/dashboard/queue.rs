//! Which changes wait for this person.

use std::sync::Arc;
use std::time::Duration;

use countersign_api::rollout::Change;
use countersign_api::{Person, SignOff};
use countersign_core::people::eligibility::{ANYBODY, is_machine};
use kube::api::ListParams;

use crate::cluster::connection::Connection;
use crate::commands::dashboard::action::Action;
use crate::commands::dashboard::fleet::{Fleet, Row};
use crate::commands::dashboard::recent::Recent;
use crate::commands::dashboard::rights::Rights;
use crate::view::gates;

/// Most changes whose sign-offs and permissions are asked for at a time.
pub const MOST: usize = 50;

/// How long the sign-offs of a change are used: who has just signed sees the change go as soon.
const FRESH: Duration = Duration::from_secs(5);

/// What waits for a person.
#[derive(Debug)]
pub struct Waiting {
    /// The Rollouts whose changes wait.
    pub rows: Vec<Arc<Row>>,
    /// How many more changes there are for which nothing was asked.
    pub unasked: usize,
}

/// The sign-offs of changes, each by its namespace and its run, as the API server last answered.
pub struct Queue {
    sign_offs: Recent<(String, String), Arc<Vec<SignOff>>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            sign_offs: Recent::new(FRESH),
        }
    }
}

impl Queue {
    /// The Rollouts that wait for people of whom this is one.
    pub async fn waiting_for(
        &self,
        connection: &Connection,
        rights: &Rights,
        me: &Person,
        fleet: &Fleet,
    ) -> Waiting {
        let (asked, unasked) = asked(me, fleet);
        let asked = asked.into_iter();
        let asked = asked.map(|row| self.waits(connection, rights, me, row));
        let rows = futures::future::join_all(asked).await;
        Waiting {
            rows: rows.into_iter().flatten().collect(),
            unasked,
        }
    }

    /// The row, if the person has not signed and may.
    async fn waits(
        &self,
        connection: &Connection,
        rights: &Rights,
        me: &Person,
        row: Arc<Row>,
    ) -> Option<Arc<Row>> {
        let connection = connection.in_namespace(&row.namespace);
        let change = row.asks.as_deref()?;
        let needs = Action::Approve.needs();
        let missing = rights.missing(&connection, &needs, &row.name).await;
        if missing.is_some() {
            return None;
        }
        let sign_offs = self.sign_offs(&connection, &change.run).await;
        could_sign(me, change, &sign_offs).then_some(row)
    }

    /// The sign-offs of a run. A user who may not read them signs twice at worst, and gets the answer `SamePerson`.
    async fn sign_offs(&self, connection: &Connection, run: &str) -> Arc<Vec<SignOff>> {
        let key = (connection.namespace().to_owned(), run.to_owned());
        if let Some(known) = self.sign_offs.get(&key) {
            return known;
        }
        let of_change = ListParams::default().fields(&format!("spec.run={run}"));
        let sign_offs = connection.here::<SignOff>().list(&of_change).await;
        let sign_offs = Arc::new(sign_offs.map(|list| list.items).unwrap_or_default());
        self.sign_offs.keep(key, Arc::clone(&sign_offs));
        sign_offs
    }
}

/// The first changes that wait for people of whom this may be one, and the number of the others.
fn asked(me: &Person, fleet: &Fleet) -> (Vec<Arc<Row>>, usize) {
    let could = |row: &&Arc<Row>| {
        let change = row.asks.as_deref();
        change.is_some_and(|change| could_sign(me, change, &[]))
    };
    let mut asked: Vec<_> = fleet.rows().filter(could).cloned().collect();
    let unasked = asked.len().saturating_sub(MOST);
    asked.truncate(MOST);
    (asked, unasked)
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
        // Any approver may accept scarce evidence.
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
    use crate::cluster::connection::tests::nowhere;
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

    #[test]
    fn what_is_not_asked_about_is_counted() {
        let mut fleet = Fleet::default();
        for number in 0..MOST + 3 {
            let mut rollout = waiting().rollout;
            rollout.metadata.name = Some(format!("web-{number}"));
            fleet.insert(&rollout);
        }
        let (rows, unasked) = asked(&person("carol", "approvers"), &fleet);
        assert_eq!((rows.len(), unasked), (MOST, 3));
        let (rows, unasked) = asked(&person("carol", "visitors"), &fleet);
        assert_eq!((rows.len(), unasked), (0, 0));
    }

    #[tokio::test]
    async fn sign_offs_are_asked_for_once_in_a_while() {
        let queue = Queue::default();
        let connection = nowhere().in_namespace("shop");
        let known = Arc::new(vec![sign_off("bob", &[], None, "True", "Counts")]);
        let key = ("shop".to_owned(), "web-7".to_owned());
        queue.sign_offs.keep(key, Arc::clone(&known));
        // The server does not answer, so this is what was known.
        assert_eq!(queue.sign_offs(&connection, "web-7").await.len(), 1);
    }
}
