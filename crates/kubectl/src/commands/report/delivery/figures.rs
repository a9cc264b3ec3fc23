//! The five figures of delivery performance (DORA, 2025), each with its count and its interval.

use countersign_api::Duration;
use countersign_core::estimate::{Interval, median, proportion, rate};
use serde::Serialize;

use crate::commands::report::delivery::deployment::Deployment;

/// The figures of some deployments.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Number of deployments.
    pub deployments: u32,
    /// Deployments a week; absent if the time is shorter than one.
    pub per_week: Option<Rate>,
    /// From the newest commit of a change to its promotion.
    pub lead_time: Times,
    /// Deployments that failed.
    pub change_failure_rate: Share,
    /// How long users had a deployment that failed.
    pub time_to_restore: Times,
    /// Deployments that were the first after a failed one of their Rollout.
    pub rework_rate: Share,
}

/// A number of events in a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// The rate.
    pub value: f64,
    /// Its interval.
    pub interval: Interval,
}

/// A share of deployments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// How many.
    pub count: u32,
    /// Of how many.
    pub of: u32,
    /// The share, from 0 to 1; absent without deployments.
    pub value: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
}

/// Times that deployments took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// How many times are known.
    pub count: usize,
    /// The median.
    pub median: Option<Duration>,
    /// The interval of the median; absent below six times.
    pub interval: Option<Between>,
}

/// An interval of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Between {
    /// Its lower end.
    pub low: Duration,
    /// Its upper end.
    pub high: Duration,
}

impl Figures {
    /// The figures of deployments within this many weeks.
    #[must_use]
    pub fn of(deployments: &[&Deployment<'_>], weeks: f64) -> Self {
        let count = |is: fn(&Deployment<'_>) -> bool| {
            let counted = deployments.iter().filter(|it| is(it)).count();
            u32::try_from(counted).unwrap_or(u32::MAX)
        };
        let times = |time: fn(&Deployment<'_>) -> Option<Duration>| {
            Times::of(deployments.iter().filter_map(|it| time(it)).collect())
        };
        let all = count(|_| true);
        Self {
            deployments: all,
            per_week: (weeks >= 1.0).then(|| Rate::of(all, weeks)),
            lead_time: times(|it| it.lead_time),
            change_failure_rate: Share::of(count(|it| it.failed), all),
            time_to_restore: times(|it| it.restored_in),
            rework_rate: Share::of(count(|it| it.is_rework), all),
        }
    }
}

impl Rate {
    fn of(events: u32, weeks: f64) -> Self {
        let Interval { low, high } = rate::poisson(events);
        Self {
            value: f64::from(events) / weeks,
            interval: Interval {
                low: low / weeks,
                high: high / weeks,
            },
        }
    }
}

impl Share {
    fn of(count: u32, of: u32) -> Self {
        Self {
            count,
            of,
            value: (of > 0).then(|| f64::from(count) / f64::from(of)),
            interval: proportion::wilson(count, of),
        }
    }
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self {
            count: times.len(),
            median: median::median(&times),
            interval: median::interval(&times).map(|(low, high)| Between { low, high }),
        }
    }
}
