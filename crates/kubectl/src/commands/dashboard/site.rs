//! What the pages are made from: the connection, the user, the Rollouts, and what is asked of the API server.

use std::sync::Arc;

use countersign_api::{Person, Rollout};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use maud::Markup;
use tokio::sync::watch;

use crate::clock;
use crate::cluster::connection::Connection;
use crate::commands::dashboard::action::Action;
use crate::commands::dashboard::detail::Subject;
use crate::commands::dashboard::fleet::{Fleet, Query};
use crate::commands::dashboard::frame::{self, Frame};
use crate::commands::dashboard::guard::Guard;
use crate::commands::dashboard::overview;
use crate::commands::dashboard::queue::Queue;
use crate::commands::dashboard::rights::Rights;
use crate::commands::sign_off;
use crate::view::View;

/// One run of the dashboard.
pub struct Site {
    /// The API server, as the user.
    pub connection: Connection,
    /// The user, as the API server knows them.
    pub me: Person,
    /// The cluster and the namespaces, for people.
    pub place: String,
    /// The Rollouts.
    pub fleet: watch::Receiver<Fleet>,
    /// Who may use the server.
    pub guard: Arc<Guard>,
    /// What the user may do.
    pub rights: Rights,
    /// What waits for the user.
    pub queue: Queue,
    /// Whether nothing can be changed.
    pub read_only: bool,
}

impl Site {
    /// A page with what every page has.
    #[must_use]
    pub fn page(&self, title: &str, events: Option<&str>, content: &Markup) -> String {
        let frame = Frame {
            addresses: self.guard.addresses(),
            title,
            place: &self.place,
            user: &self.me.username,
            events,
            read_only: self.read_only,
        };
        frame::page(&frame, content).into_string()
    }

    /// The parts of the page of all Rollouts.
    pub async fn overview(&self, query: &Query) -> Vec<Markup> {
        let fleet = self.fleet.borrow().clone();
        let mine = self
            .queue
            .waiting_for(&self.connection, &self.rights, &self.me, &fleet)
            .await;
        let addresses = self.guard.addresses();
        overview::sections(&fleet, &mine, query, addresses, &self.place, clock::now())
    }

    /// A Rollout with all that its page shows.
    pub async fn subject(&self, connection: &Connection, rollout: Rollout) -> Subject {
        let now = clock::now();
        let actions = self.actions(connection, &rollout, now).await;
        let mut view = View::of(connection, rollout, now).await;
        let stable_run = Box::pin(sign_off::stable_run(connection, &mut view)).await;
        Subject {
            view,
            stable_run,
            actions,
            problem: None,
        }
    }

    /// The actions, each with what stands against it: a permission, or the state of the change.
    async fn actions(
        &self,
        connection: &Connection,
        rollout: &Rollout,
        now: Timestamp,
    ) -> Vec<(Action, Option<String>)> {
        let mut actions = Vec::new();
        if self.read_only {
            return actions;
        }
        let name = rollout.name_any();
        for action in Action::ALL {
            let needs = action.needs();
            let missing = self.rights.missing(connection, &needs, &name).await;
            let missing = missing.map(|need| lacks(&need));
            let obstacle = missing.or_else(|| action.obstacle(rollout, now));
            actions.push((action, obstacle));
        }
        actions
    }
}

/// What a user reads who lacks a permission, such as `approve on rollouts`.
#[must_use]
pub fn lacks(need: &str) -> String {
    format!("you lack the permission {need}: ask an administrator to grant it")
}
