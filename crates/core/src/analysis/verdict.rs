//! From windows of counts to evidence and a verdict.

use countersign_api::Duration;
use countersign_api::analysis::CheckMode;
use countersign_api::rollout::{Change, WindowState};
use countersign_api::step::Tier;
use k8s_openapi::jiff::Timestamp;

use crate::analysis::checks::{self, Checks};
use crate::analysis::finding::Finding;
use crate::analysis::{check_verdict, gather, summary};
use crate::change;
use crate::reason::Reason;

/// The verdict of the evidence on a canary.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// There are no checks.
    NoChecks,
    /// It is worse than tolerated.
    Fail {
        /// The check, with the numbers.
        message: String,
    },
    /// There is no result, since data is missing, invalid or late.
    NoData {
        /// The reason.
        reason: Reason,
        /// The message.
        message: String,
    },
    /// Clean so far, but too little to rule out that it is worse than the margin.
    Scarce {
        /// How much is still needed.
        message: String,
    },
    /// It is within the margin by every check.
    Pass {
        /// The numbers.
        message: String,
    },
}

/// Whether every deciding check has counted until a time.
#[must_use]
pub fn has_counted_until(change: &Change, until: Timestamp) -> bool {
    let oldest = until.saturating_sub(change.interval.signed());
    let oldest = oldest.unwrap_or(Timestamp::MIN);
    let mut deciding =
        checks::active(change).filter(|(_, check)| check.mode == CheckMode::Required);
    deciding.all(|(name, _)| {
        gather::evidence_of(change, name).is_some_and(|it| {
            let end = it.last_window_end.as_ref();
            it.last == WindowState::Counted && end.is_some_and(|end| end.0 >= oldest)
        })
    })
}

/// Judges the gathered evidence of a change.
///
/// Fresh evidence reaches to within three intervals and the lag of `now`: without it no step passes,
/// whatever was observed before.
///
/// Before a promotion straight from weight 0, nobody depends on the canary: that no check runs or no request
/// was seen is scarce evidence there, which a person may accept.
#[must_use]
pub fn judge(change: &Change, checks: &Checks, now: Timestamp, lag: Duration) -> Verdict {
    let no_series = Reason::Window(WindowState::NoSeries);
    match judged(change, checks, now, lag) {
        Verdict::NoChecks if change.tier > Tier::Low && change::switches(change) => scarce_switch(),
        Verdict::NoData { reason, .. } if reason == no_series && change::switches(change) => {
            scarce_switch()
        }
        verdict => verdict,
    }
}

fn scarce_switch() -> Verdict {
    Verdict::Scarce {
        message: "all traffic would move at once without evidence on requests: send test or mirrored requests to the canary, or let a policy set switchWithoutEvidence for later changes".into(),
    }
}

fn judged(change: &Change, checks: &Checks, now: Timestamp, lag: Duration) -> Verdict {
    let decides = |name: &str| {
        let check = checks.checks.get(name);
        check.filter(|check| check.mode == CheckMode::Required)
    };
    let evidence: Vec<_> = change
        .evidence
        .checks
        .iter()
        .filter_map(|it| Some((decides(&it.name)?, it)))
        .collect();
    if let Some(message) = check_verdict::failure(&evidence, change) {
        return Verdict::Fail { message };
    }
    let active: Vec<_> = evidence
        .into_iter()
        .filter(|(check, _)| checks::is_active(check, &change.plan, change.weight))
        .collect();
    // A metric within bounds is no evidence of requests; only the lowest tier advances on it alone.
    let counts = active.iter().any(|(check, _)| check.metric.is_none());
    if active.is_empty() || (!counts && change.tier > Tier::Low) {
        return Verdict::NoChecks;
    }
    let oldest = check_verdict::oldest_fresh(change.interval, now, lag);
    let findings: Vec<_> = active
        .iter()
        .map(|(check, it)| {
            (
                *it,
                check_verdict::fresh(check_verdict::find(check, it, change), it, oldest),
            )
        })
        .collect();
    for (check, finding) in &findings {
        let (reason, message) = match finding {
            Finding::NoData { reason, message } => (*reason, message),
            // One check alone does not roll back, but holds the change.
            Finding::Fails => (Reason::CheckFailing, &check.summary.sentence),
            Finding::Scarce(_) | Finding::Passes => continue,
        };
        return Verdict::NoData {
            reason,
            message: format!("check {}: {message}", check.name),
        };
    }
    let scarce: Vec<_> = findings
        .iter()
        .filter_map(|(check, finding)| match finding {
            Finding::Scarce(message) => Some(format!("check {}: {message}", check.name)),
            _ => None,
        })
        .collect();
    if scarce.is_empty() {
        let message = summary::line(&change.evidence);
        return Verdict::Pass { message };
    }
    Verdict::Scarce {
        message: scarce.join("; "),
    }
}
