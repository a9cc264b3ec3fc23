//! Queries of checks and objectives that cannot be sent.

use countersign_api::{Check, Duration, Objective};

use crate::analysis::query;
use crate::analysis::query::form::Arm;
use crate::analysis::query::problem::QueryError;

/// The problems of queries for a Rollout that names its Services.
pub(super) fn problems<'a>(
    checks: &'a [Check],
    objectives: &'a [Objective],
    interval: Duration,
) -> impl Iterator<Item = QueryError> {
    let arm = |service| Arm {
        namespace: "namespace",
        service,
        rollout: "rollout",
        revision: "revision",
    };
    let checks = checks.iter();
    let checks =
        checks.filter_map(move |it| query::verify(it, arm(Some("service")), interval).err());
    let objectives = objectives.iter();
    let objectives =
        objectives.filter_map(move |it| query::render_objective(&it.name, it, arm(None)).err());
    checks.chain(objectives)
}
