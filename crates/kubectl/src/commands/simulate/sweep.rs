//! `--sweep`: what policies do to healthy and to bad changes of each tier, at services of few and of many
//! requests.

use countersign_api::policy::{RolloutPolicy, Thresholds};
use countersign_api::rollout::Change;
use countersign_api::{Duration, Rollout, Tier};
use countersign_core::observation::Observation;
use countersign_core::observation::people::NamedPolicy;
use countersign_core::plan;
use countersign_core::policy::{self, Effective};
use countersign_core::proposal::Proposal;
use countersign_core::simulation::manifest::{self, Surroundings};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use crate::commands::simulate::args::{Simulate, SimulationError};
use crate::commands::simulate::report::{Case, length, percent};
use crate::commands::simulate::scene::{Scene, without_sign_offs};
use crate::failure::Failure;
use crate::output::report::{columns, number};

/// Requests a second of the whole service.
const RATES: [f64; 4] = [1.0, 5.0, 50.0, 500.0];

/// Error rates of bad canaries, as multiples of stable's.
const WORSE: [f64; 2] = [2.0, 10.0];

/// What the policies do to the changes of each tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sweep {
    /// The policies, each with its generation.
    policies: Vec<String>,
    rows: Vec<Row>,
}

/// The changes of one tier at one rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    tier: Tier,
    /// Requests per second of the whole service.
    requests_per_second: f64,
    /// The canary that equals stable, then each worse one.
    cases: Vec<Case>,
}

impl Simulate {
    /// Simulates a change of every tier at every rate.
    pub(super) fn sweep(&self) -> Result<Sweep, Failure> {
        let policies: Vec<_> = self.setting.policies()?.iter().map(named).collect();
        let effective = policy::effective(&policies);
        let scenes: Vec<_> = Tier::ALL
            .into_iter()
            .map(|tier| scene(tier, &effective))
            .collect();
        let cases = RATES.len() * (1 + WORSE.len());
        let windows: u128 = scenes.iter().map(Scene::windows).sum();
        self.bounded("the sweep", windows * cases as u128)?;
        let mut rows = Vec::new();
        for scene in &scenes {
            for rate in RATES {
                rows.push(self.row(scene, rate)?);
            }
        }
        Ok(Sweep {
            policies: effective.sources,
            rows,
        })
    }

    fn row(&self, scene: &Scene, rate: f64) -> Result<Row, SimulationError> {
        let stable = self.stable_error_rate;
        let canaries = std::iter::once(stable).chain(WORSE.map(|times| (times * stable).min(1.0)));
        let at = Self {
            rate,
            ..self.clone()
        };
        Ok(Row {
            tier: scene.tier,
            requests_per_second: rate,
            cases: canaries
                .map(|canary| at.case(scene, canary))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn named(policy: &RolloutPolicy) -> NamedPolicy {
    NamedPolicy {
        name: policy.metadata.name.clone().unwrap_or_default(),
        generation: policy.metadata.generation.unwrap_or_default(),
        spec: policy.spec.clone(),
    }
}

/// A change of a tier that takes the tier's own steps.
fn scene(tier: Tier, effective: &Effective) -> Scene {
    let plan = plan::plan_for(tier, &[], &[], effective);
    let change = Change {
        tier,
        plan: plan.clone(),
        ..Change::default()
    };
    let mut observation = without_sign_offs(sample(), effective, &change, Duration::default());
    for policy in &mut observation.policies {
        let from = |other: Tier| Some(if tier >= other { 0.0 } else { 1_000.0 });
        policy.spec.risk.thresholds = Thresholds {
            medium: from(Tier::Medium),
            high: from(Tier::High),
            critical: from(Tier::Critical),
        };
    }
    Scene {
        tier,
        score: 0.0,
        interval: Proposal::of(&observation).checks.interval,
        start_after: SignedDuration::ZERO,
        plan,
        observation,
    }
}

/// A service whose pods can be split into hundredths, with a harmless change.
fn sample() -> Observation {
    let rollout = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": { "name": "sample", "annotations": {
            "provenance.countersign.dev/contributor": "human",
            "provenance.countersign.dev/authors": "alice",
            "provenance.countersign.dev/reviewers": "bob",
            "provenance.countersign.dev/revision": "1",
            "provenance.countersign.dev/approved-revision": "1",
            "provenance.countersign.dev/tests": "PASSED",
            "provenance.countersign.dev/lines-added": "1",
            "provenance.countersign.dev/lines-deleted": "1",
        } },
        "spec": {
            "replicas": 100,
            "selector": { "matchLabels": { "app": "sample" } },
            "template": {
                "metadata": { "labels": { "app": "sample" } },
                "spec": { "containers": [{ "name": "sample", "image": "registry.example/sample:2" }] },
            },
            "strategy": { "canary": { "maxSurge": "100%", "analysis": {
                "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }],
            } } },
        },
    });
    #[allow(
        clippy::expect_used,
        reason = "a unit test proves that this constant can be read"
    )]
    let rollout: Rollout = serde_json::from_value(rollout).expect("the sample can be read");
    let before = manifest::with_another_image(&rollout.spec.template);
    manifest::observe(
        &rollout,
        &before,
        Surroundings::default(),
        Timestamp::UNIX_EPOCH,
    )
}

impl Sweep {
    pub(super) fn render(&self, options: &Simulate) -> String {
        let head = [
            "TIER".to_owned(),
            "REQUESTS/S".to_owned(),
            "HEALTHY: PROMOTED".to_owned(),
            "ROLLED BACK".to_owned(),
            "TIME (P90)".to_owned(),
        ];
        let worse = WORSE.iter().flat_map(|times| {
            [
                format!("{times} TIMES THE ERRORS: ROLLED BACK"),
                "TIME".to_owned(),
                "FAILED REQUESTS".to_owned(),
            ]
        });
        let mut lines = vec![head.into_iter().chain(worse).collect::<Vec<_>>()];
        lines.extend(self.rows.iter().map(Row::cells));
        format!(
            "Policies: {}\n{} of each case; {} of stable's fail, seed {}\n\n{}",
            self.policies.join(", "),
            number(options.runs, "rollout"),
            percent(options.stable_error_rate),
            options.seed,
            columns("", &lines)
        )
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.tier.to_string(), self.requests_per_second.to_string()];
        for (index, case) in self.cases.iter().enumerate() {
            if index == 0 {
                let time = case
                    .promotion
                    .map(|it| format!("{} ({})", length(it.median), length(it.p90)));
                cells.extend([
                    percent(case.promoted.of_all),
                    percent(case.rolled_back.of_all),
                    time.unwrap_or_else(|| "-".into()),
                ]);
            } else {
                let time = case.rollback.map(|it| length(it.median));
                cells.extend([
                    percent(case.rolled_back.of_all),
                    time.unwrap_or_else(|| "-".into()),
                    case.failed_requests.to_string(),
                ]);
            }
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_simulated_in_each_tier_with_the_tiers_steps() {
        let effective = policy::effective(&[]);
        for tier in Tier::ALL {
            let scene = scene(tier, &effective);
            let change = countersign_core::decide(&scene.observation).status.change;
            let change = change.unwrap();
            assert_eq!(change.tier, tier);
            assert_eq!(
                change.plan.steps,
                plan::plan_for(tier, &[], &[], &effective)
                    .steps
                    .into_iter()
                    .map(|mut step| {
                        step.sign_off.clear();
                        step
                    })
                    .collect::<Vec<_>>()
            );
        }
    }
}
