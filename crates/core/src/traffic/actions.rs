//! Where the traffic should go, and what brings it there.
//!
//! The state of record is the status; a route only follows it. The order that loses no request:
//! a share rises only once the receiving pods are ready behind their Service, a Service moves only
//! while no share depends on it, and pods go only once nothing has sent to them for the drain time.
//!
//! | stage | share of the canary |
//! |---|---|
//! | `Waiting` | 0 |
//! | `Stepping` | the step's weight, once its pods are ready behind the canary's Service |
//! | `Promoting` | the last step's weight, and all once the canary has its full size |
//! | `Promoted` | as it was, and 0 once the stable Service has moved to the same pods |
//! | `RollingBack` | 0, or what stable cannot carry yet where it gave up capacity |

use countersign_api::rollout::Stage;

use crate::decision::{Action, RoutePatch, TrafficAction};
use crate::traffic::route::patch;
use crate::traffic::view::View;
use crate::traffic::{corrections, testers};

/// The writes that bring the traffic nearer to what the status asks for: weights, testers, subsets.
#[must_use]
pub fn actions(view: &View, held: bool) -> Vec<Action> {
    let (share, mirror) = (view.share, view.mirror);
    // What another Rollout claims too may lose the canary's share, and get no other.
    let contested = !view.observation.conflicts.is_empty() && share > 0;
    let Some(change) = view.change.filter(|_| !contested) else {
        return Vec::new();
    };
    // Who holds a promotion holds the switch of its traffic, too.
    let promoting = change.stage == Stage::Promoting;
    let held = held && promoting && share > view.routes.present_share;
    let patient = held || corrections::is_throttled(view);
    let mut actions = Vec::new();
    for parsed in &view.routes.all {
        let route = parsed.route;
        let kind = route.reference.kind;
        let subsets = testers::select_subsets(view, route);
        actions.extend(subsets.map(Action::Traffic));
        let Some((object, rules)) = parsed.readable() else {
            continue;
        };
        let done = rules
            .iter()
            .all(|rule| rule.is_at(share) && rule.mirrors(kind, mirror));
        if !done
            && !patient
            && let Ok(operations) = patch::patch(kind, object, rules, share, mirror)
        {
            let patch = RoutePatch {
                kind,
                name: route.reference.name.clone(),
                api_version: object.api_version(),
                weight: share,
                operations,
            };
            actions.push(Action::Traffic(TrafficAction::PatchRoute(patch)));
        }
        let testers = testers::testers(view, route, object, rules);
        actions.extend(testers.map(Action::Traffic));
    }
    actions
}
