//! Streams of what changes on a page: whole sections, as a browser puts them into their places.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use maud::Markup;
use tokio::sync::watch;

use crate::clock;
use crate::cluster::connection::Connection;
use crate::commands::dashboard::detail::{self, Subject};
use crate::commands::dashboard::fleet::{Fleet, Query, explained};
use crate::commands::dashboard::site::Site;
use crate::commands::status::SETTLE;
use crate::commands::watch::{Update, settled, updates};

/// How often ages and times that remain are drawn again.
const TICK: Duration = Duration::from_secs(10);

/// The sections that differ from those that were sent before, which they replace.
fn changed(sent: &mut Vec<String>, sections: Vec<Markup>) -> Option<String> {
    let sections: Vec<String> = sections.into_iter().map(Markup::into_string).collect();
    let mut html = String::new();
    for (at, section) in sections.iter().enumerate() {
        if sent.get(at) != Some(section) {
            html.push_str(section);
        }
    }
    *sent = sections;
    (!html.is_empty()).then_some(html)
}

fn answer(events: impl Stream<Item = String> + Send + 'static) -> Response {
    let events = events.map(|html| Ok::<_, Infallible>(Event::default().data(html)));
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// The stream of the page of all Rollouts.
#[allow(clippy::unused_async, reason = "a handler is async")]
pub async fn overview(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    let overview = Overview {
        fleet: site.fleet.clone(),
        query: Query::read(query.as_deref()),
        site,
        sent: Vec::new(),
    };
    answer(stream::unfold(overview, |mut overview| async move {
        let html = overview.next().await?;
        Some((html, overview))
    }))
}

struct Overview {
    site: Arc<Site>,
    fleet: watch::Receiver<Fleet>,
    query: Query,
    sent: Vec<String>,
}

impl Overview {
    async fn next(&mut self) -> Option<String> {
        loop {
            self.fleet.mark_unchanged();
            let sections = self.site.overview(&self.query).await;
            if let Some(html) = changed(&mut self.sent, sections) {
                return Some(html);
            }
            tokio::select! {
                more = self.fleet.changed() => more.ok()?,
                () = tokio::time::sleep(TICK) => {}
            }
            // Events of one moment are drawn together.
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// The stream of the page of one Rollout.
#[allow(clippy::unused_async, reason = "a handler is async")]
pub async fn rollout(
    State(site): State<Arc<Site>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let connection = site.connection.in_namespace(&namespace);
    let following = Following {
        updates: updates(&connection, &name).boxed(),
        connection,
        site,
        subject: None,
        sent: Vec::new(),
    };
    answer(stream::unfold(following, |mut following| async move {
        let html = following.next().await;
        Some((html, following))
    }))
}

struct Following {
    site: Arc<Site>,
    connection: Connection,
    updates: BoxStream<'static, Update>,
    subject: Option<Subject>,
    sent: Vec<String>,
}

impl Following {
    async fn next(&mut self) -> String {
        loop {
            tokio::select! {
                Some(update) = self.updates.next() => Box::pin(self.take(update)).await,
                () = tokio::time::sleep(TICK) => {}
            }
            let Some(subject) = &self.subject else {
                continue;
            };
            let addresses = self.site.guard.addresses();
            let sections = detail::sections(subject, addresses, clock::now());
            if let Some(html) = changed(&mut self.sent, sections) {
                return html;
            }
        }
    }

    /// Reads the Rollout with its related objects again.
    async fn take(&mut self, first: Update) {
        let more = settled(&mut self.updates).await;
        let known = self.subject.as_ref();
        let mut rollout = known.map(|it| it.view.rollout.clone());
        let mut problem = known.and_then(|it| it.problem.clone());
        for update in std::iter::once(first).chain(more) {
            problem = problem_after(&self.connection, &update, problem);
            if let Update::Rollout(newer) = update {
                rollout = Some(*newer);
            }
        }
        if let Some(rollout) = rollout {
            let subject = self.site.subject(&self.connection, rollout);
            let mut subject = Box::pin(subject).await;
            subject.problem = problem;
            self.subject = Some(subject);
        }
    }
}

/// Why the page may be old after an update: only the Rollout itself shows that it is not.
fn problem_after(
    connection: &Connection,
    update: &Update,
    before: Option<String>,
) -> Option<String> {
    match update {
        Update::Rollout(_) => None,
        Update::Deleted => Some("The Rollout was deleted.".to_owned()),
        Update::SignOff => before,
        Update::Trouble(error) => Some(explained(connection, error)),
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher;
    use maud::html;

    use super::*;
    use crate::cluster::connection::tests::nowhere;
    use crate::view::tests::waiting;

    #[tokio::test]
    async fn a_deleted_rollout_does_not_live_again_by_its_sign_offs() {
        let connection = nowhere();
        let after = |update: &Update, before| problem_after(&connection, update, before);
        let deleted = after(&Update::Deleted, None);
        assert!(deleted.is_some());
        assert_eq!(after(&Update::SignOff, deleted.clone()), deleted);
        let trouble = Update::Trouble(watcher::Error::NoResourceVersion);
        assert!(after(&trouble, None).is_some());
        let live = Update::Rollout(Box::new(waiting().rollout));
        assert_eq!(after(&live, deleted), None);
    }

    #[test]
    fn only_what_has_changed_is_sent() {
        let sections = |second: &str| vec![html! { p { "first" } }, html! { p { (second) } }];
        let mut sent = Vec::new();
        let html = changed(&mut sent, sections("a"));
        assert_eq!(html.as_deref(), Some("<p>first</p><p>a</p>"));
        assert_eq!(changed(&mut sent, sections("a")), None);
        assert_eq!(
            changed(&mut sent, sections("b")).as_deref(),
            Some("<p>b</p>")
        );
    }
}
