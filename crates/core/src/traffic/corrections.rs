//! Corrections of weights that were changed by others.

use crate::decision::Notice;
use crate::intervals::CORRECTION_INTERVAL;
use crate::reason::Reason;
use crate::traffic::route::rule;
use crate::traffic::routes::ParsedRoute;
use crate::traffic::view::View;

/// Whether the last correction is too recent for another one.
pub(super) fn is_throttled(view: &View) -> bool {
    let (now, share) = (view.observation.now, view.share);
    let before = view.observation.status.traffic.as_ref();
    let before = before.filter(|it| it.settled_weight == share);
    let corrected = before.and_then(|it| it.corrected_at.as_ref());
    corrected.is_some_and(|at| now.duration_since(at.0) < CORRECTION_INTERVAL)
        && view.change.is_some()
}

/// The route whose weights this decision corrects; only one whose weights were as desired before.
pub(super) fn correction<'a, 'b>(view: &'b View<'a>) -> Option<&'b ParsedRoute<'a>> {
    let before = view.observation.status.traffic.as_ref()?;
    let was_right = before.settled_at.is_some() || before.corrected_at.is_some();
    let mine = was_right && before.settled_weight == view.share;
    if !mine || is_throttled(view) {
        return None;
    }
    let mut routes = view.routes.all.iter();
    routes.find(|route| route.rules.is_ok() && !route.is_at(view.share))
}

/// The Event for a correction of weights.
#[must_use]
pub fn correction_notice(view: &View) -> Option<Notice> {
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
