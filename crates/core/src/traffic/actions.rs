//! The desired traffic, and the writes that lead to it.
//!
//! The state of record is the status; routes only follow it. The order that loses no request: a share rises
//! only once the receiving pods are ready behind their Service, a Service moves only while no share depends
//! on it, and pods are removed only once the drain time has passed.
//!
//! | stage | share of the canary |
//! |---|---|
//! | `Waiting` | 0 |
//! | `Stepping` | the step's weight, once its pods are ready behind the canary's Service |
//! | `Promoting` | the last step's weight, and all once the canary has its full size |
//! | `Promoted` | as it was, and 0 once the stable Service has moved to the same pods |
//! | `RollingBack` | 0, or what stable cannot carry yet if it gave up capacity |

use countersign_api::rollout::Stage;

use crate::decision::{Action, RoutePatch, TrafficAction};
use crate::traffic::route::patch;
use crate::traffic::view::View;
use crate::traffic::{corrections, testers};

/// The writes that bring the traffic nearer to the status: weights, testers, subsets.
#[must_use]
pub fn actions(view: &View, held: bool) -> Vec<Action> {
    let (share, mirror) = (view.share, view.mirror);
    // A route that another Rollout also claims may only lose the canary's share.
    let contested = !view.observation.conflicts.is_empty() && share > 0;
    if contested {
        return Vec::new();
    }
    let Some(change) = view.change else {
        return at_rest(view);
    };
    // A held promotion does not switch its traffic either.
    let promoting = change.stage == Stage::Promoting;
    let held = held && promoting && share > view.routes.present_share;
    let keeps_weights = held || corrections::is_throttled(view);
    let mut actions = Vec::new();
    for parsed in &view.routes.all {
        let route = parsed.route;
        let kind = route.reference.kind;
        let subsets = testers::select_subsets(view, route);
        let subsets = subsets.filter(|it| !corrections::waits(view, route, it));
        actions.extend(subsets.map(Action::Traffic));
        let Some((object, rules)) = parsed.readable() else {
            continue;
        };
        let done = rules
            .iter()
            .all(|rule| rule.is_at(share) && rule.mirrors(kind, mirror));
        if !done
            && !keeps_weights
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
        let testers = testers.filter(|it| !corrections::waits(view, route, it));
        actions.extend(testers.map(Action::Traffic));
    }
    actions
}

/// With no change in the status, only subsets move: to the ReplicaSet that replaces an edited one.
fn at_rest(view: &View) -> Vec<Action> {
    if view.observation.deleting || !view.observation.conflicts.is_empty() {
        return Vec::new();
    }
    let routes = view.routes.all.iter();
    let subsets = routes.filter_map(|it| testers::select_subsets(view, it.route));
    subsets.map(Action::Traffic).collect()
}
