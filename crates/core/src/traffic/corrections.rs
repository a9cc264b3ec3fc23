//! Corrections of what others changed: weights, subsets of a DestinationRule, and routes for testers.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::Stage;
use k8s_openapi::jiff::Timestamp;

use crate::decision::{Action, Notice, TestersRoute, TrafficAction};
use crate::intervals::CORRECTION_INTERVAL;
use crate::observation::traffic::Route;
use crate::reason::Reason;
use crate::traffic::route::{rule, subsets};
use crate::traffic::routes::ParsedRoute;
use crate::traffic::view::View;
use crate::traffic::{services, testers};

/// When the next correction may be made; `None` if one may be made now.
fn next(view: &View) -> Option<Timestamp> {
    let before = view.observation.status.traffic.as_ref()?;
    let last = before.corrected_at.as_ref()?.0;
    let next = last.saturating_add(CORRECTION_INTERVAL);
    let next = next.unwrap_or(Timestamp::MAX);
    // A clock that was set back must not delay the correction.
    let waits = (last..next).contains(&view.observation.now);
    (view.change.is_some() && waits).then_some(next)
}

/// Whether the last correction is too recent for another one at this share.
pub(super) fn is_throttled(view: &View) -> bool {
    let before = view.observation.status.traffic.as_ref();
    before.is_some_and(|it| it.settled_weight == view.share) && next(view).is_some()
}

/// Whether the traffic has been as decided before.
fn was_right(view: &View) -> bool {
    let before = view.observation.status.traffic.as_ref();
    before.is_some_and(|it| it.settled_at.is_some() || it.corrected_at.is_some())
}

/// Whether subsets have been as decided in the present change; before that they are as in their manifest.
fn had_selected(view: &View) -> bool {
    let before = view.observation.status.change.as_ref();
    let served = before.is_some_and(|change| {
        let stages = [Stage::Stepping, Stage::Promoting, Stage::RollingBack];
        change.step > 0 && stages.contains(&change.stage)
    });
    served && was_right(view)
}

/// The route whose weights others set, after they were as desired.
fn reweighted<'a, 'b>(view: &'b View<'a>) -> Option<&'b ParsedRoute<'a>> {
    let before = view.observation.status.traffic.as_ref()?;
    let mine = was_right(view) && before.settled_weight == view.share;
    let mut routes = view.routes.all.iter();
    routes.find(|route| mine && route.rules.is_ok() && !route.is_at(view.share))
}

/// The route whose weights this decision corrects.
pub(super) fn correction<'a, 'b>(view: &'b View<'a>) -> Option<&'b ParsedRoute<'a>> {
    reweighted(view).filter(|_| !is_throttled(view))
}

/// The writes to what a route has beside its weights: its subsets, and the route for testers.
fn writes(view: &View, parsed: &ParsedRoute) -> impl Iterator<Item = TrafficAction> {
    let route = parsed.route;
    let testers = parsed
        .readable()
        .and_then(|(object, rules)| testers::testers(view, route, object, rules));
    let subsets = testers::select_subsets(view, route);
    subsets.into_iter().chain(testers)
}

/// Who edited what a write to a route puts right, if another writer did.
fn editor<'a>(view: &View, route: &'a Route, write: &TrafficAction) -> Option<&'a str> {
    let edited = match write {
        TrafficAction::SelectSubsets { .. } if had_selected(view) => {
            route.destination_rule.as_ref()?.as_ref().ok()
        }
        TrafficAction::ApplyTesters(_) => route.testers.as_ref(),
        _ => None,
    };
    edited?.last_writer.as_deref()
}

/// Whether this write puts an edit right too soon after the last correction. Subsets do not wait once the change has
/// failed: a rejected canary loses all of its requests at once.
pub(super) fn waits(view: &View, route: &Route, write: &TrafficAction) -> bool {
    let failed = view.change.is_some_and(|change| change.outcome.is_some());
    let is_urgent = failed && matches!(write, TrafficAction::SelectSubsets { .. });
    next(view).is_some() && !is_urgent && editor(view, route, write).is_some()
}

/// Whether others edited subsets or a route for testers.
fn is_edited(view: &View) -> bool {
    let mut routes = view.routes.all.iter();
    view.observation.conflicts.is_empty()
        && routes.any(|parsed| {
            let mut writes = writes(view, parsed);
            writes.any(|write| editor(view, parsed.route, &write).is_some())
        })
}

/// Whether this decision puts subsets or a route for testers right that others edited.
pub(super) fn sets_back(view: &View) -> bool {
    next(view).is_none() && is_edited(view)
}

/// When what others changed is put right, if the last correction was made too recently.
#[must_use]
pub fn postponed(view: &View) -> Option<Timestamp> {
    next(view).filter(|_| is_edited(view) || reweighted(view).is_some())
}

/// Whether the time of the last correction still counts for subsets and routes for testers, at any share.
pub(super) fn keeps_interval(view: &View) -> bool {
    let mut routes = view.routes.all.iter().map(|it| it.route);
    let edited = routes.any(|it| it.testers.is_some() || it.destination_rule.is_some());
    edited && next(view).is_some()
}

/// The Events for what this decision puts right.
#[must_use]
pub fn notices(view: &View, actions: &[Action]) -> Vec<Notice> {
    let edits = actions.iter().filter_map(|it| match it {
        Action::Traffic(write) => edit_notice(view, write),
        _ => None,
    });
    weights_notice(view).into_iter().chain(edits).collect()
}

fn weights_notice(view: &View) -> Option<Notice> {
    let parsed = correction(view)?;
    let reference = &parsed.route.reference;
    let (kind, name) = (reference.kind, &reference.name);
    let (object, rules) = parsed.readable()?;
    let who = object.last_writer.as_deref().unwrap_or("somebody");
    let found = rule::share(rules);
    let share = Some(view.share).filter(|share| *share != found)?;
    Some(Notice {
        reason: Reason::WeightsCorrected.into(),
        action: format!("SetWeight{share}"),
        message: format!(
            "{kind} {name}: {who} set the canary's weight to {found}%, and it is set back to {share}%: let whatever applies the route leave the weights of its two Services alone"
        ),
        warning: true,
    })
}

fn edit_notice(view: &View, write: &TrafficAction) -> Option<Notice> {
    let mut routes = view.routes.all.iter();
    let parsed = routes.find(|it| writes(view, it).any(|own| own == *write))?;
    let who = editor(view, parsed.route, write)?;
    match write {
        TrafficAction::SelectSubsets { .. } => subsets_notice(view, parsed.route, who),
        TrafficAction::ApplyTesters(decided) => testers_notice(parsed.route, decided, who),
        _ => None,
    }
}

fn subsets_notice(view: &View, route: &Route, who: &str) -> Option<Notice> {
    let names = route.reference.destination_rule.as_ref()?;
    let rule = route.destination_rule.as_ref()?.as_ref().ok()?;
    let found = subsets::selected(rule, names).ok()?;
    let decided = services::sides(view);
    let sides = [
        (&names.stable_subset, found.0, decided.0),
        (&names.canary_subset, found.1, decided.1),
    ];
    let corrected = sides.into_iter().filter_map(|(subset, found, decided)| {
        let decided = decided.filter(|it| found != Some(*it))?;
        let found = found.map_or_else(|| "all revisions".into(), |it| format!("revision {it}"));
        Some(format!(
            "{subset} selects {found} and is set to revision {decided}"
        ))
    });
    let corrected: Vec<_> = corrected.collect();
    Some(Notice {
        reason: Reason::SubsetsCorrected.into(),
        action: "SelectSubsets".into(),
        message: format!(
            "DestinationRule {}: {who} set its subsets, of which {}: let whatever applies the DestinationRule leave their label {HASH_LABEL} alone",
            names.name,
            corrected.join(", and ")
        ),
        warning: true,
    })
}

fn testers_notice(route: &Route, decided: &TestersRoute, who: &str) -> Option<Notice> {
    let edited = testers::edited_fields(route.testers.as_ref()?, &decided.spec)?;
    let (kind, owner, name) = (decided.kind, &route.reference.name, &decided.name);
    Some(Notice {
        reason: Reason::TestersCorrected.into(),
        action: "ApplyTesters".into(),
        message: format!(
            "{kind} {name}: {who} edited its {edited}, and it is set back to what {kind} {owner} and spec.strategy.canary.traffic.testers give: edit these instead"
        ),
        warning: true,
    })
}
