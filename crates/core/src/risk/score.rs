//! Points for declared and for observed facts.

use std::collections::BTreeSet;

use countersign_api::policy::{Criticality, Difference, Factor, Floor, RiskModel, Thresholds};
use countersign_api::run::Contribution;
use countersign_api::step::Tier;
use serde::Serialize;

use crate::policy::invariants::CRITICAL;
use crate::provenance::{Contributor, Provenance, Review, State, TestResult};
use crate::text::excerpt;

/// Facts that the controller observes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How the new template differs from the stable one.
    pub differences: BTreeSet<Difference>,
    /// Whether it differs in its manifest alone: the code of the stable revision runs, so that only a review of
    /// the manifest counts of what is declared.
    pub manifest_only: bool,
    /// How critical the service is, by its label.
    pub criticality: Option<String>,
    /// Whether it is reached from outside the cluster.
    pub exposed: bool,
    /// Whether an earlier change was rolled back shortly before.
    pub after_rollback: bool,
    /// Whether `after_rollback` holds only because the RolloutRuns cannot be read.
    pub records_unknown: bool,
}

impl Facts {
    /// Whether there is something for a reviewer to see: new code, or a manifest that changes what the pods do.
    pub(super) fn needs_review(&self) -> bool {
        !self.manifest_only
            || self
                .differences
                .iter()
                .any(|it| *it != Difference::Metadata)
    }
}

/// A complete model, which scores one factor after another.
pub(super) struct Scale(pub(super) RiskModel);

impl Scale {
    fn points(&self, factor: Factor) -> f64 {
        self.0.points.get(&factor).copied().unwrap_or_default()
    }

    fn floor(&self, floor: Floor) -> Option<Tier> {
        self.0.floors.get(&floor).copied()
    }

    pub(super) fn tier(&self, score: f64) -> Tier {
        let Thresholds {
            medium,
            high,
            critical,
        } = self.0.thresholds;
        let reached =
            |threshold: Option<f64>| threshold.is_some_and(|threshold| score >= threshold);
        if reached(critical) {
            Tier::Critical
        } else if reached(high) {
            Tier::High
        } else if reached(medium) {
            Tier::Medium
        } else {
            Tier::Low
        }
    }

    fn factor(&self, factor: Factor, reason: &str) -> Option<Contribution> {
        contribution(&name_of(factor), self.points(factor), None, reason)
    }

    fn floored(&self, factor: Factor, floor: Floor, reason: &str) -> Option<Contribution> {
        contribution(
            &name_of(factor),
            self.points(factor),
            self.floor(floor),
            reason,
        )
    }

    pub(super) fn authorship(&self, provenance: &Provenance) -> Option<Contribution> {
        let share = provenance.ai_share.unwrap_or(100.0);
        let by_share = self.points(Factor::AiShare) * share / 100.0;
        match (provenance.state, provenance.contributor) {
            (State::Absent, _) => self.floored(
                Factor::NoProvenance,
                Floor::NoProvenance,
                "no provenance is declared; `stamp` derives it from the commits",
            ),
            (State::Stale, _) => self.floored(
                Factor::UnusableProvenance,
                Floor::UnusableProvenance,
                "the provenance describes another image or an earlier change; `stamp` writes it for each change",
            ),
            (State::Malformed, _) => self.floored(
                Factor::UnusableProvenance,
                Floor::UnusableProvenance,
                "part of the provenance cannot be read",
            ),
            (State::Unattested, _) => self.floored(
                Factor::UnusableProvenance,
                Floor::UnusableProvenance,
                "no trusted key attests the provenance",
            ),
            (State::Declared, None) => self.factor(
                Factor::ContributorUnknown,
                "it is not known who wrote the change; `stamp` reads it from the commits",
            ),
            (State::Declared, Some(Contributor::Unknown)) => self.factor(
                Factor::ContributorUnknown,
                "the commits do not show who wrote the change; an `Assisted-by` trailer names the AI",
            ),
            (State::Declared, Some(Contributor::Human)) if provenance.ai_share.is_none() => None,
            (State::Declared, Some(Contributor::Mixed))
                if provenance.ai_share.is_none()
                    || by_share < self.points(Factor::ContributorMixed) =>
            {
                self.factor(
                    Factor::ContributorMixed,
                    "people and an AI wrote the change",
                )
            }
            (State::Declared, Some(_)) => {
                let reason = format!("an AI wrote {share}% of the changed lines");
                contribution(&name_of(Factor::AiShare), by_share, None, &reason)
            }
        }
    }

    pub(super) fn autonomy(&self, provenance: &Provenance) -> Option<Contribution> {
        let reason = match provenance.contributor {
            Some(Contributor::Ai | Contributor::Mixed) => "no person is named who drove the AI",
            _ => "no person is named who drove the AI that may have written it",
        };
        provenance
            .is_autonomous()
            .then(|| self.floored(Factor::AutonomousAgent, Floor::AutonomousAgent, reason))
            .flatten()
    }

    pub(super) fn size(&self, lines: Option<u32>) -> Option<Contribution> {
        let Some(lines) = lines else {
            return self.factor(
                Factor::SizeUnknown,
                "the number of changed lines is not known; `stamp` counts them",
            );
        };
        let band = self
            .0
            .size
            .iter()
            .rfind(|band| band.from <= i64::from(lines))?;
        let reason = format!("{lines} changed lines (band from {})", band.from);
        contribution("size", band.points, None, &reason)
    }

    pub(super) fn subsystems(&self, subsystems: Option<u32>) -> Option<Contribution> {
        let subsystems = subsystems?;
        let each = self.points(Factor::ExtraSubsystem);
        let most = self.points(Factor::ExtraSubsystemsAtMost);
        let points = (f64::from(subsystems.saturating_sub(1)) * each).min(most);
        let reason = format!("{subsystems} subsystems, {each} for each but one, at most {most}");
        contribution(&name_of(Factor::ExtraSubsystem), points, None, &reason)
    }

    pub(super) fn review(&self, review: &Review) -> Option<Contribution> {
        match review {
            Review::Independent(_) => None,
            Review::Stale { approved, deployed } => {
                let (approved, deployed) = (excerpt(approved), excerpt(deployed));
                let reason =
                    format!("revision {approved} was reviewed, but {deployed} is deployed");
                self.factor(Factor::StaleReview, &reason)
            }
            Review::Missing(why) => self.factor(Factor::NoReview, why),
        }
    }

    pub(super) fn tests(&self, tests: Option<TestResult>) -> Option<Contribution> {
        match tests {
            Some(TestResult::Passed) => None,
            Some(TestResult::Warned) => self.factor(Factor::TestsWarned, "tests gave warnings"),
            None => self.factor(
                Factor::TestsUnknown,
                "no test result is known; `stamp --event FILE` reads it",
            ),
            Some(TestResult::Failed) => {
                self.floored(Factor::TestsFailed, Floor::TestsFailed, "tests failed")
            }
        }
    }

    pub(super) fn touches(&self, areas: &BTreeSet<String>) -> Option<Contribution> {
        let known: Vec<(&str, f64)> = areas
            .iter()
            .filter_map(|area| Some((area.as_str(), *self.0.touches.get(area)?)))
            .collect();
        let floor = areas
            .iter()
            .filter_map(|area| self.0.touches_floor.get(area))
            .max()
            .copied();
        let listed = match listed(&known) {
            list if list.is_empty() => areas
                .iter()
                .map(|area| excerpt(area))
                .take(8)
                .collect::<Vec<_>>()
                .join(", "),
            list => list,
        };
        let most = self.points(Factor::TouchesAtMost);
        let reason = format!("touches {listed}, at most {most}");
        contribution("touches", sum(&known).min(most), floor, &reason)
    }

    pub(super) fn differences(&self, differences: &BTreeSet<Difference>) -> Option<Contribution> {
        let names: Vec<(String, f64)> = differences
            .iter()
            .filter_map(|kind| Some((name_of(kind), *self.0.differences.get(kind)?)))
            .collect();
        let known: Vec<(&str, f64)> = names
            .iter()
            .map(|(name, it)| (name.as_str(), *it))
            .collect();
        let most = self.points(Factor::DifferencesAtMost);
        let floors = differences
            .iter()
            .filter_map(|kind| self.0.differences_floor.get(kind));
        let reason = format!("the template differs in {}, at most {most}", listed(&known));
        contribution(
            "differences",
            sum(&known).min(most),
            floors.max().copied(),
            &reason,
        )
    }

    pub(super) fn points_of_criticality(&self, value: &str) -> f64 {
        let Criticality {
            points, otherwise, ..
        } = &self.0.criticality;
        points
            .get(&value.to_lowercase())
            .copied()
            .or(*otherwise)
            .unwrap_or_default()
    }

    pub(super) fn criticality(&self, value: Option<&str>) -> Option<Contribution> {
        let Criticality {
            label,
            points,
            otherwise,
        } = &self.0.criticality;
        let Some(value) = value.map(str::to_lowercase) else {
            let label = label.as_deref().unwrap_or_default();
            let reason = format!(
                "neither Rollout nor namespace has the label {}",
                excerpt(label)
            );
            return contribution("criticality", otherwise.unwrap_or_default(), None, &reason);
        };
        let floor = (value == CRITICAL)
            .then(|| self.floor(Floor::CriticalService))
            .flatten();
        let known = if points.contains_key(&value) {
            ""
        } else {
            ", which has no points of its own"
        };
        let reason = format!("the service's criticality is {}{known}", excerpt(&value));
        contribution(
            "criticality",
            self.points_of_criticality(&value),
            floor,
            &reason,
        )
    }

    pub(super) fn exposure(&self, exposed: bool) -> Option<Contribution> {
        let reason = "the workload is reached from outside the cluster";
        exposed
            .then(|| self.factor(Factor::Exposed, reason))
            .flatten()
    }

    pub(super) fn rollbacks(&self, facts: &Facts) -> Option<Contribution> {
        let reason = if facts.records_unknown {
            "the records of earlier changes cannot be read, so one of them may have been rolled back"
        } else {
            "an earlier change was rolled back within seven days"
        };
        facts
            .after_rollback
            .then(|| self.factor(Factor::AfterRollback, reason))
            .flatten()
    }
}

/// A contribution whose sentence lacks its numbers; `None` if it changes nothing.
fn contribution(
    factor: &str,
    points: f64,
    floor: Option<Tier>,
    reason: &str,
) -> Option<Contribution> {
    let points = rounded(points);
    let floor = floor.filter(|floor| *floor > Tier::Low);
    (points > 0.0 || floor.is_some()).then(|| Contribution {
        factor: factor.to_owned(),
        points,
        floor,
        reason: reason.to_owned(),
    })
}

/// The larger number of points and the higher floor of two contributions of one factor.
pub(super) fn worse(a: Contribution, b: Contribution) -> Contribution {
    let (more, less) = if (b.points, b.floor) > (a.points, a.floor) {
        (b, a)
    } else {
        (a, b)
    };
    if less.floor <= more.floor {
        return more;
    }
    Contribution {
        floor: less.floor,
        reason: format!("{} and {}", more.reason, less.reason),
        ..more
    }
}

/// A contribution whose sentence ends in its numbers.
pub(super) fn with_numbers(of: Contribution) -> Contribution {
    let at_least = of
        .floor
        .map(|floor| format!(", at least tier {floor}"))
        .unwrap_or_default();
    Contribution {
        reason: format!("{}: +{}{at_least}", of.reason, of.points),
        ..of
    }
}

/// Rounds points to hundredths, so that they print exactly.
pub(super) fn rounded(points: f64) -> f64 {
    (points * 100.0).round() / 100.0
}

fn sum(parts: &[(&str, f64)]) -> f64 {
    parts.iter().map(|(_, points)| points).sum()
}

fn listed(parts: &[(&str, f64)]) -> String {
    let parts: Vec<_> = parts
        .iter()
        .map(|(name, points)| format!("{} ({points})", excerpt(name)))
        .collect();
    parts.join(", ")
}

/// The name that a policy gives to a factor or a kind of difference.
pub(super) fn name_of(key: impl Serialize) -> String {
    match serde_json::to_value(key) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
