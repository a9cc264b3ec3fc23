//! The addresses of the local server.
//!
//! Invariant: every request passes [`guard`](super::guard), every write carries the token of the forms, and every
//! object is created by the API server in the user's name: the server can do no more than its user.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use countersign_api::{Duration, Rollout, Tier};
use k8s_openapi::jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::clock;
use crate::cluster::change::Aim;
use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::cluster::write::DryRun;
use crate::commands::dashboard::action::{Action, FREEZES, Object};
use crate::commands::dashboard::fleet::Query;
use crate::commands::dashboard::forms::{self, Fields, Target};
use crate::commands::dashboard::frame::{ICON, SCRIPT, STYLE, shown};
use crate::commands::dashboard::guard::{Guard, HEADERS, OPEN};
use crate::commands::dashboard::site::{Site, lacks};
use crate::commands::dashboard::{detail, feed, overview};
use crate::commands::freeze::Freeze;
use crate::failure::Failure;

/// The type of a file that is sent.
type Kind = [(&'static str, &'static str); 1];

const CSS: Kind = [("content-type", "text/css; charset=utf-8")];
const JAVASCRIPT: Kind = [("content-type", "text/javascript; charset=utf-8")];
const SVG: Kind = [("content-type", "image/svg+xml")];

/// All addresses.
pub fn router(site: Arc<Site>) -> Router {
    let guard = Arc::clone(&site.guard);
    let at = |path: &str| site.guard.addresses().at(path);
    let of_rollout = at("/rollouts/{namespace}/{name}");
    Router::new()
        .route(OPEN, get(open))
        .route(&at("/"), get(rollouts))
        .route(&at("/events"), get(feed::overview))
        .route(&of_rollout, get(rollout))
        .route(&format!("{of_rollout}/events"), get(feed::rollout))
        .route(&format!("{of_rollout}/{{action}}"), get(ask).post(act))
        .route(&at("/freeze"), get(ask_freeze).post(freeze))
        .route(&at("/style.css"), get((CSS, STYLE)))
        .route(&at("/page.js"), get((JAVASCRIPT, SCRIPT)))
        .route(&at("/icon.svg"), get((SVG, ICON)))
        .layer(middleware::from_fn_with_state(guard, guarded))
        .with_state(site)
}

async fn guarded(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let refusal = guard.refusal(request.method(), request.uri().path(), request.headers());
    let mut response = match refusal {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// Trades the token of the printed address for a cookie. The page then refreshes to the first one: a redirection
/// would count as one from the site on which the address was followed, and bring no cookie.
#[allow(clippy::unused_async, reason = "a handler is async")]
async fn open(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::read(query.unwrap_or_default().as_bytes());
    let token = fields.get("token").unwrap_or_default();
    let Some(cookie) = site.guard.admit(token) else {
        let why = "this address was used already: run `kubectl countersign dashboard` again\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    };
    let first = site.guard.addresses().at("/");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content=(format!("0; url={first}"));
                title { "Countersign" }
            }
            body { p { a href=(first) { "To the Rollouts" } } }
        }
    };
    let headers = [(header::SET_COOKIE, cookie)];
    (headers, Html(page.into_string())).into_response()
}

async fn rollouts(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    let query = Query::read(query.as_deref());
    let sections = Box::pin(site.overview(&query)).await;
    let addresses = site.guard.addresses();
    let events = addresses.at(&format!("/events?{}", query.at(query.page)));
    let content = overview::content(&sections, &query, addresses);
    Html(site.page("Rollouts", Some(&events), &content)).into_response()
}

async fn rollout(
    State(site): State<Arc<Site>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let connection = site.connection.in_namespace(&namespace);
    let rollout = match connection.rollout(&name).await {
        Ok(rollout) => rollout,
        Err(refusal) => return unread(&site, &name, &refusal),
    };
    let subject = Box::pin(site.subject(&connection, rollout)).await;
    let addresses = site.guard.addresses();
    let events = addresses.rollout(&namespace, &name, "/events");
    let content = detail::content(&detail::sections(&subject, addresses, clock::now()));
    Html(site.page(&name, Some(&events), &content)).into_response()
}

/// The page in place of a Rollout that cannot be read.
fn unread(site: &Site, name: &str, refusal: &Refusal) -> Response {
    let code = match refusal {
        Refusal::NotFound { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_GATEWAY,
    };
    let content = html! {
        h1 { (shown(name)) }
        p.note.bad { (shown(&refusal.to_string())) }
        p { a href=(site.guard.addresses().at("/")) { "All Rollouts" } }
    };
    (code, Html(site.page(name, None, &content))).into_response()
}

/// A page of the forms with a status.
fn paged(site: &Site, code: StatusCode, title: &str, content: &Markup) -> Response {
    (code, Html(site.page(title, None, content))).into_response()
}

/// Where a form is sent, and from where it is reached.
struct Place {
    address: String,
    back: String,
}

impl Place {
    fn of(site: &Site, namespace: &str, name: &str, action: Action) -> Self {
        let addresses = site.guard.addresses();
        Self {
            address: addresses.rollout(namespace, name, &format!("/{}", action.name())),
            back: addresses.rollout(namespace, name, ""),
        }
    }

    fn of_freeze(site: &Site) -> Self {
        let addresses = site.guard.addresses();
        Self {
            address: addresses.at("/freeze"),
            back: addresses.at("/"),
        }
    }

    fn target<'a>(&'a self, site: &'a Site) -> Target<'a> {
        Target {
            address: &self.address,
            token: site.guard.form_token(),
            back: &self.back,
        }
    }
}

/// The action of this name, if anything can be changed here.
fn offered(site: &Site, name: &str) -> Option<Action> {
    Action::named(name).filter(|_| !site.read_only)
}

type Named = Path<(String, String, String)>;

async fn ask(State(site): State<Arc<Site>>, Path((namespace, name, action)): Named) -> Response {
    let Some(action) = offered(&site, &action) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let connection = site.connection.in_namespace(&namespace);
    let rollout = match connection.rollout(&name).await {
        Ok(rollout) => rollout,
        Err(refusal) => return unread(&site, &name, &refusal),
    };
    let subject = Box::pin(site.subject(&connection, rollout)).await;
    let place = Place::of(&site, &namespace, &name, action);
    let target = place.target(&site);
    let mut actions = subject.actions.iter();
    let obstacle = actions.find(|(it, _)| *it == action);
    let obstacle = obstacle.and_then(|(_, obstacle)| obstacle.as_deref());
    let Some(change) = subject.view.change().filter(|_| obstacle.is_none()) else {
        let why = obstacle.unwrap_or("the Rollout has no change");
        let content = forms::refused(action.label(), why, target);
        return paged(&site, StatusCode::CONFLICT, action.label(), &content);
    };
    let content = forms::asks(action, &subject, change, target);
    paged(&site, StatusCode::OK, action.label(), &content)
}

async fn act(
    State(site): State<Arc<Site>>,
    Path((namespace, name, action)): Named,
    body: Bytes,
) -> Response {
    let fields = Fields::read(&body);
    let Some(action) = offered(&site, &action) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let connection = site.connection.in_namespace(&namespace);
    let place = Place::of(&site, &namespace, &name, action);
    let target = place.target(&site);
    let object = match connection.rollout(&name).await {
        Ok(rollout) => on_change(&site, action, &rollout, &name, &fields),
        Err(refusal) => Err(refusal.into()),
    };
    Box::pin(conclude(
        &site,
        &connection,
        action.label(),
        object,
        &fields,
        target,
    ))
    .await
}

/// The object of an action on the change that the form showed.
fn on_change(
    site: &Site,
    action: Action,
    rollout: &Rollout,
    name: &str,
    fields: &Fields,
) -> Result<Object, Failure> {
    let (Some(run), Some(digest)) = (fields.get("run"), fields.get("digest")) else {
        return Err("the form does not name the change: go back and open it again".into());
    };
    let aim = Aim {
        rollout: name.to_owned(),
        run: Some(run.to_owned()),
        digest: Some(digest.to_owned()),
    };
    let reason = fields.get("reason").ok_or(NO_REASON)?;
    let (gate, me) = (fields.get("gate"), site.me.clone());
    action.object(
        rollout,
        aim,
        gate,
        Some(reason.to_owned()),
        me,
        clock::now(),
    )
}

const NO_REASON: &str = "the form has no reason: go back and write one";

const FREEZE: &str = "Freeze";

async fn ask_freeze(State(site): State<Arc<Site>>) -> Response {
    if site.read_only {
        return StatusCode::NOT_FOUND.into_response();
    }
    let place = Place::of_freeze(&site);
    let target = place.target(&site);
    let missing = site.rights.missing(&site.connection, &[FREEZES], "").await;
    if let Some(need) = missing {
        let content = forms::refused(FREEZE, &lacks(&need), target);
        return paged(&site, StatusCode::FORBIDDEN, FREEZE, &content);
    }
    let content = forms::asks_freeze(site.connection.named_namespace(), target);
    paged(&site, StatusCode::OK, FREEZE, &content)
}

async fn freeze(State(site): State<Arc<Site>>, body: Bytes) -> Response {
    if site.read_only {
        return StatusCode::NOT_FOUND.into_response();
    }
    let fields = Fields::read(&body);
    let object = freeze_of(&site, &fields);
    let place = Place::of_freeze(&site);
    let target = place.target(&site);
    Box::pin(conclude(
        &site,
        &site.connection,
        FREEZE,
        object,
        &fields,
        target,
    ))
    .await
}

/// The Freeze that the form asks for.
fn freeze_of(site: &Site, fields: &Fields) -> Result<Object, Failure> {
    let reason = fields.get("reason").ok_or(NO_REASON)?.to_owned();
    let length = fields.get("length").map(str::parse::<Duration>);
    let length = length.transpose()?;
    // The end that was shown, if the form is confirmed.
    let until = fields.get("until").map(str::parse::<Timestamp>);
    let until = until.transpose()?;
    let tiers = Tier::ALL.into_iter();
    let tiers = tiers.filter(|tier| fields.all("tier").any(|name| name == tier.as_str()));
    let roll_back = fields.get("roll-back").is_some();
    let freeze = Freeze::of(reason, until, length, tiers.collect(), roll_back);
    let object = freeze.object(fields.get("namespace"), site.me.clone(), clock::now())?;
    Ok(Object::Freeze(object))
}

/// Lets the API server check the object, or create it if the form is confirmed, and shows what it made of it.
async fn conclude(
    site: &Site,
    connection: &Connection,
    heading: &str,
    object: Result<Object, Failure>,
    fields: &Fields,
    target: Target<'_>,
) -> Response {
    if !site
        .guard
        .is_form_token(fields.get("token").unwrap_or_default())
    {
        let why = "this form is not one of this run of the dashboard: go back and open it again";
        let content = forms::refused(heading, why, target);
        return paged(site, StatusCode::FORBIDDEN, heading, &content);
    }
    let confirmed = fields.get("confirmed").is_some();
    let dry_run = if confirmed {
        DryRun::default()
    } else {
        DryRun::on_the_server()
    };
    let made = match object {
        Ok(object) => {
            let made = object.create(connection, dry_run).await;
            made.map_err(|refusal| refusal.to_string())
        }
        Err(failure) => Err(failure.to_string()),
    };
    let content = match made {
        Err(why) => {
            let content = forms::refused(heading, &why, target);
            return paged(site, StatusCode::UNPROCESSABLE_ENTITY, heading, &content);
        }
        Ok(object) if confirmed => {
            let answer = object.answer(connection).await;
            forms::created(&object, answer.as_ref(), target)
        }
        Ok(object) => forms::confirms(heading, &object.before_creation(), fields, target),
    };
    paged(site, StatusCode::OK, heading, &content)
}

#[cfg(test)]
mod tests;
