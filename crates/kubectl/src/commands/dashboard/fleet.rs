//! All Rollouts of the scope, from one watch, each as the few values that a list shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_api::rollout::Change;
use countersign_api::{Phase, Rollout};
use countersign_core::reason::Reason;
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use crate::cluster::connection::Connection;

/// Rows on a page.
pub const PAGE: usize = 50;

/// A Rollout in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// Present step of all steps.
    pub step: Option<String>,
    /// Share of the traffic of the canary, in percent.
    pub weight: Option<i32>,
    /// Risk tier of its change.
    pub tier: Option<String>,
    /// The contributor of its change.
    pub contributor: String,
    /// The reason for which its change waits.
    pub waiting_for: Option<String>,
    /// Its state in a sentence.
    pub message: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Its change without evidence and transitions, if it waits for people.
    pub asks: Option<Box<Change>>,
}

impl Row {
    /// The row of a Rollout.
    #[must_use]
    pub fn of(rollout: &Rollout) -> Self {
        let status = rollout.status.clone().unwrap_or_default();
        let change = status.change.unwrap_or_default();
        let people = [Reason::AwaitingSignOff, Reason::AwaitingPerson].map(Reason::as_str);
        let asks = status
            .waiting_for
            .as_deref()
            .is_some_and(|reason| people.contains(&reason));
        Self {
            namespace: rollout.namespace().unwrap_or_default(),
            name: rollout.name_any(),
            phase: status.phase,
            step: status.step,
            weight: status.weight,
            tier: status.tier.map(|tier| tier.to_string()),
            contributor: change.contributor.clone(),
            waiting_for: status.waiting_for,
            message: status.message,
            created: rollout.creation_timestamp().map(|at| at.0),
            asks: asks.then(|| {
                Box::new(Change {
                    evidence: countersign_api::rollout::Evidence::default(),
                    transitions: Vec::new(),
                    ..change
                })
            }),
        }
    }
}

/// The Rollouts as the watch last reported them.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    rows: Arc<BTreeMap<(String, String), Arc<Row>>>,
    /// Whether they have been listed.
    pub listed: bool,
    /// Why the watch fails, if it does.
    pub problem: Option<String>,
}

impl Fleet {
    /// All rows, by namespace and name.
    pub fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }

    /// Adds or replaces a Rollout.
    pub fn insert(&mut self, rollout: &Rollout) {
        let row = Row::of(rollout);
        let key = (row.namespace.clone(), row.name.clone());
        Arc::make_mut(&mut self.rows).insert(key, Arc::new(row));
    }

    fn remove(&mut self, rollout: &Rollout) {
        let key = (rollout.namespace().unwrap_or_default(), rollout.name_any());
        Arc::make_mut(&mut self.rows).remove(&key);
    }
}

/// Follows the Rollouts for as long as somebody reads the fleet.
pub async fn follow(connection: Connection, rollouts: Api<Rollout>, fleet: watch::Sender<Fleet>) {
    let events = watcher(rollouts, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    // A list replaces the fleet once it is complete.
    let mut listing = Fleet::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listing = Fleet::default(),
            Ok(Event::InitApply(rollout)) => listing.insert(&rollout),
            Ok(Event::InitDone) => {
                listing.listed = true;
                fleet.send_replace(std::mem::take(&mut listing));
            }
            Ok(Event::Apply(rollout)) => fleet.send_modify(|fleet| {
                fleet.problem = None;
                fleet.insert(&rollout);
            }),
            Ok(Event::Delete(rollout)) => fleet.send_modify(|fleet| fleet.remove(&rollout)),
            Err(error) => {
                let problem = explained(&connection, &error);
                fleet.send_modify(|fleet| fleet.problem = Some(problem));
            }
        }
    }
}

/// An error of a watch in plain words.
#[must_use]
pub fn explained(connection: &Connection, error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => connection.refusal(source).to_string(),
        other => other.to_string(),
    }
}

/// Which rows a page shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// A part of the name, namespace, message or reason; all if empty.
    pub text: String,
    /// The phase; all if empty.
    pub phase: String,
    /// The page, counted from 0.
    pub page: usize,
}

/// The rows of a page.
#[derive(Debug)]
pub struct Selected {
    /// The rows.
    pub rows: Vec<Arc<Row>>,
    /// How many match on all pages.
    pub total: usize,
    /// The page, counted from 0, which exists.
    pub page: usize,
    /// Number of pages, at least 1.
    pub pages: usize,
}

impl Query {
    /// The query of an address.
    #[must_use]
    pub fn read(query: Option<&str>) -> Self {
        let mut read = Self::default();
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*key {
                "text" => value.trim().clone_into(&mut read.text),
                "phase" => read.phase = value.into_owned(),
                "page" => read.page = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        read
    }

    /// The query of an address with another page.
    #[must_use]
    pub fn at(&self, page: usize) -> String {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("text", &self.text)
            .append_pair("phase", &self.phase)
            .append_pair("page", &page.to_string())
            .finish()
    }

    /// The rows of the page; the last page if there are fewer.
    #[must_use]
    pub fn select(&self, fleet: &Fleet) -> Selected {
        let text = self.text.to_lowercase();
        let has_text = |part: &str| part.to_lowercase().contains(&text);
        let matches = |row: &&Arc<Row>| {
            let full = format!("{}/{}", row.namespace, row.name);
            let of_phase = self.phase.is_empty() || format!("{:?}", row.phase) == self.phase;
            let reason = row.waiting_for.as_deref().unwrap_or_default();
            of_phase && (has_text(&full) || has_text(&row.message) || has_text(reason))
        };
        let all: Vec<_> = fleet.rows().filter(matches).cloned().collect();
        let total = all.len();
        let pages = total.div_ceil(PAGE).max(1);
        let page = self.page.min(pages - 1);
        let rows = all.into_iter().skip(page * PAGE).take(PAGE).collect();
        Selected {
            rows,
            total,
            page,
            pages,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::view::tests::{at_rest, waiting};

    /// So many Rollouts of a few namespaces, of which the last one waits for people.
    pub fn fleet_of(count: usize) -> Fleet {
        let mut fleet = Fleet {
            listed: true,
            ..Fleet::default()
        };
        for number in 1..count {
            let mut rollout = at_rest();
            rollout.metadata.name = Some(format!("service-{number:04}"));
            rollout.metadata.namespace = Some(format!("team-{}", number % 7));
            fleet.insert(&rollout);
        }
        if count > 0 {
            fleet.insert(&waiting().rollout);
        }
        fleet
    }

    #[test]
    fn a_page_has_a_bound_and_a_filter_leaves_what_matches() {
        let fleet = fleet_of(1_000);
        let page = |query: &str| Query::read(Some(query)).select(&fleet);
        let first = page("");
        assert_eq!(
            (first.rows.len(), first.total, first.pages),
            (50, 1_000, 20)
        );
        assert_eq!(page("page=19").rows.len(), 50);
        assert_eq!(page("page=99").page, 19);
        assert_eq!(page("page=-1").page, 0);
        assert_eq!(page("text=SERVICE-0042").total, 1);
        assert_eq!(page("text=shop%2Fweb").total, 1);
        assert_eq!(page("text=approvers").total, 1, "of the message");
        assert_eq!(page("phase=AwaitingSignOff").total, 1);
        let none = page("text=nothing+of+the+kind");
        assert_eq!((none.total, none.pages, none.page), (0, 1, 0));
    }

    #[test]
    fn a_query_survives_its_address() {
        let query = Query {
            text: "a&b=c d".into(),
            phase: "Held".into(),
            page: 3,
        };
        assert_eq!(Query::read(Some(&query.at(3))), query);
    }

    #[test]
    fn a_row_keeps_the_change_only_while_people_are_asked() {
        let row = Row::of(&waiting().rollout);
        let change = row.asks.unwrap();
        assert_eq!(change.run, "web-1a2b3c4d5e-7");
        assert!(change.evidence.checks.is_empty() && change.transitions.is_empty());
        assert_eq!(Row::of(&at_rest()).asks, None);
    }
}
