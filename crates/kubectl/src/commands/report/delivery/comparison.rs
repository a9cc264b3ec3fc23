//! Whether changes in which an AI took part fail more often than people's, among those of equal tier and size.

use std::collections::BTreeMap;
use std::fmt;

use countersign_api::step::Tier;
use countersign_core::estimate::odds::{self, Failures, Finding, OddsRatio, Stratum};
use countersign_core::provenance::Contributor;
use serde::Serialize;

use crate::commands::report::delivery::deployment::Deployment;

/// The comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The deployments of each tier and size.
    pub strata: Vec<Row>,
    /// Deployments of which it is not known who wrote them; they are left out.
    pub unknown: u32,
    /// The odds of failure of an AI's changes as a multiple of people's; absent if the numbers give no valid one.
    pub odds_ratio: Option<OddsRatio>,
    /// What the numbers show.
    pub finding: Finding,
}

/// The deployments of one tier and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The tier.
    pub tier: Tier,
    /// The size.
    pub lines: Size,
    /// Those in which an AI took part.
    pub ai: Failures,
    /// Those of people alone.
    pub people: Failures,
}

/// Changed lines, in classes whose limits are among the bands of the built-in policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Size {
    /// Fewer than 50.
    #[serde(rename = "0-49")]
    Small,
    /// From 50 to 399.
    #[serde(rename = "50-399")]
    Medium,
    /// 400 and more.
    #[serde(rename = "400+")]
    Large,
    /// Not known.
    #[serde(rename = "unknown")]
    Unknown,
}

impl Size {
    const fn of(lines: Option<u32>) -> Self {
        match lines {
            Some(0..50) => Self::Small,
            Some(50..400) => Self::Medium,
            Some(_) => Self::Large,
            None => Self::Unknown,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Small => "0-49",
            Self::Medium => "50-399",
            Self::Large => "400+",
            Self::Unknown => "unknown",
        })
    }
}

impl Comparison {
    /// Compares the deployments.
    #[must_use]
    pub fn of(deployments: &[&Deployment<'_>]) -> Self {
        let mut strata: BTreeMap<(Tier, Size), Stratum> = BTreeMap::new();
        let mut unknown = 0;
        for deployment in deployments {
            let key = (deployment.run.spec.risk.tier, Size::of(deployment.lines));
            let stratum = strata.entry(key);
            let group = match deployment.contributor {
                Some(Contributor::Ai | Contributor::Mixed) => &mut stratum.or_default().group,
                Some(Contributor::Human) => &mut stratum.or_default().reference,
                Some(Contributor::Unknown) | None => {
                    unknown += 1;
                    continue;
                }
            };
            group.of += 1;
            group.failed += u32::from(deployment.failed);
        }
        let counts: Vec<_> = strata.values().copied().collect();
        let rows = strata.into_iter().map(|((tier, lines), stratum)| Row {
            tier,
            lines,
            ai: stratum.group,
            people: stratum.reference,
        });
        Self {
            strata: rows.collect(),
            unknown,
            odds_ratio: odds::odds_ratio(&counts),
            finding: odds::finding(&counts),
        }
    }
}
