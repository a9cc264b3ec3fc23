//! Prometheus: what it counted of both arms in the windows that are due.
//!
//! Start with [`Prometheus::windows`]. What is asked and how an answer is counted is
//! [`core::query`](countersign_core::query); here it goes over HTTP.
//!
//! **Invariant:** Prometheus is trusted no more than it must be. Its address and credentials are the
//! administrator's alone; no redirect is followed; time, size and number of answers are bounded; an
//! answer with warnings is none; nothing of an answer but numbers and short, escaped errors about a
//! query reaches a status; and every failure is one typed [`Unanswered`] that is asked again.
//!
//! Windows lie on a grid of whole seconds, since that is what a status keeps of a time.

pub mod answer;
mod clocks;
mod config;
mod connection;
mod incident;
mod memory;
mod objective;
mod queue;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration as StdDuration, Instant};

use countersign_api::{Check, Duration, Metric};
use countersign_core::analysis::count::{self, ArmAnswer, NotCounted};
use countersign_core::analysis::query::form::{self, Field, Form, Query};
use countersign_core::analysis::query::{self, Queries};
use countersign_core::analysis::series::{FirstIncrement, Series, Span};
use countersign_core::analysis::statistics::Counts;
use countersign_core::observation::people::IncidentAnswer;
use countersign_core::observation::windows::{CheckWindows, Unanswered, Window, WindowOutcome};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

pub use self::config::{ConfigError, Pair, PrometheusConfig};
use self::server::{Answered, Server};
pub use self::server::{Failure, Request};

/// Most windows that are read at once; the rest is due at the next look.
const MOST_WINDOWS: i64 = 240;
/// Longest time that they cover together, unless one alone is longer: it bounds an answer's size.
const LONGEST_READ: i64 = 3600;
/// Windows before the analysis from which stable's dispersion is measured.
const BASELINE_WINDOWS: i64 = 40;
/// Least time before the first window in which a counter's last sample is sought: as long as
/// Prometheus itself looks back.
const LOOK_BACK: i64 = 300;
/// What is said where there is nobody to ask.
const NOT_CONFIGURED: &str =
    "no address of Prometheus is configured: start the operator with --prometheus-url";

/// One revision of a Rollout, as queries name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// Its namespace.
    pub namespace: String,
    /// Its Service, where the Rollout names one.
    pub service: Option<String>,
    /// The Rollout's name.
    pub rollout: String,
    /// The value of its pods' label `pod-template-hash`.
    pub revision: String,
}

impl Arm {
    fn named(&self) -> form::Arm<'_> {
        form::Arm {
            namespace: &self.namespace,
            service: self.service.as_deref(),
            rollout: &self.rollout,
            revision: &self.revision,
        }
    }
}

/// What to find out about a check.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The check.
    pub check: Check,
    /// The revision under judgement.
    pub canary: Arm,
    /// The revision to compare with; `None` where the canary is watched alone.
    pub stable: Option<Arm>,
    /// Length of a window; rounded up to whole seconds.
    pub interval: Duration,
    /// Origin of the grid of windows, when the canary was first given traffic.
    pub from: Timestamp,
    /// End of the last window that was counted, or `from`.
    pub counted_until: Timestamp,
    /// Now.
    pub until: Timestamp,
    /// Whether to read stable's counts before `from` as well.
    pub want_baseline: bool,
}

impl Ask {
    /// Length of a window in whole seconds, at least one.
    fn step(&self) -> i64 {
        let interval = self.interval.std();
        let seconds = interval
            .as_secs()
            .saturating_add(u64::from(interval.subsec_nanos() > 0));
        i64::try_from(seconds).unwrap_or(i64::MAX).clamp(1, 1 << 32)
    }

    fn window(&self) -> Duration {
        Duration::seconds(self.step().unsigned_abs())
    }

    /// The windows that are due: after what was counted, each ended at least `lag` ago.
    fn due(&self, lag: StdDuration) -> Grid {
        let step = self.step();
        let from = self.from.as_second();
        let lag = SignedDuration::try_from(lag).unwrap_or(SignedDuration::MAX);
        let complete = self
            .until
            .saturating_sub(lag)
            .map_or(i64::MIN, Timestamp::as_second);
        let counted = (self.counted_until.as_second() - from).max(0);
        let first = (counted + step - 1) / step;
        let past = complete.saturating_sub(from).div_euclid(step);
        let most = MOST_WINDOWS.min((LONGEST_READ / step).max(1));
        Grid {
            start: from + first * step,
            step,
            count: (past - first).clamp(0, most),
        }
    }

    fn before(&self) -> Grid {
        let step = self.step();
        let start = self.from.as_second() - BASELINE_WINDOWS * step;
        Grid {
            start,
            step,
            count: BASELINE_WINDOWS,
        }
    }
}

/// Windows of equal length, each beginning where the one before ends; in Unix seconds.
#[derive(Clone, Copy)]
struct Grid {
    start: i64,
    step: i64,
    count: i64,
}

impl Grid {
    fn end(self) -> i64 {
        self.start + self.count * self.step
    }

    /// Where the search for a counter's last sample before the windows begins.
    fn look_back(self) -> i64 {
        self.start - LOOK_BACK.max(4 * self.step)
    }

    fn windows(self) -> impl Iterator<Item = (i64, i64)> {
        let start = move |k| self.start + k * self.step;
        (0..self.count).map(move |k| (start(k), start(k + 1)))
    }

    /// What has to be asked to count these windows.
    fn request(self, query: &Query) -> Request {
        match query.form {
            Form::Selector => {
                let range = between(self.look_back(), self.end());
                Request::At {
                    query: query.samples(range),
                    time: self.end(),
                }
            }
            Form::Expression => Request::Steps {
                query: query.text.clone(),
                start: self.start + self.step,
                end: self.end(),
                step: self.step,
            },
        }
    }
}

fn between(start: i64, end: i64) -> Duration {
    Duration::seconds(end.saturating_sub(start).unsigned_abs())
}

fn timestamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a second of this era is far below 2^53"
)]
const fn seconds(second: i64) -> f64 {
    second as f64
}

/// The answers about one arm of a check.
struct Answers<'a> {
    arm: &'a str,
    queries: &'a Queries,
    first_increment: FirstIncrement,
    errors: Vec<Series>,
    total: Vec<Series>,
}

impl Answers<'_> {
    fn count(&self, (start, end): (i64, i64)) -> Result<Counts, NotCounted> {
        let Self {
            arm,
            first_increment,
            ..
        } = *self;
        let answer = |query, series| ArmAnswer {
            arm,
            query,
            series,
            first_increment,
        };
        let errors = answer(&self.queries.errors, self.errors.as_slice());
        let total = answer(&self.queries.total, self.total.as_slice());
        count::count(
            errors,
            total,
            self.queries.counting,
            Span {
                start: seconds(start),
                end: seconds(end),
            },
        )
    }

    /// Whether a counter appears after a moment, and may have been there before what was asked for.
    fn has_unknown_past(&self, field: Field, moment: i64) -> bool {
        let all: [&[Series]; 2] = [&self.errors, &self.total];
        let series = if field == Field::Errors {
            &self.errors
        } else {
            &self.total
        };
        series
            .iter()
            .filter(|series| series.since() > seconds(moment))
            .any(|series| !series.is_new_on_known_target(&all))
    }

    /// Puts values of an earlier moment before the samples of the same series.
    fn prepend(&mut self, field: Field, moment: i64, past: &[Series]) {
        let series = if field == Field::Errors {
            &mut self.errors
        } else {
            &mut self.total
        };
        for series in series {
            let known = past.iter().find(|past| past.labels == series.labels);
            if let Some((_, value)) = known.and_then(|known| known.samples.last()) {
                series.samples.insert(0, (seconds(moment), *value));
            }
        }
    }
}

/// Prometheus, or the lack of one. A clone shares the connections and the limit of queries.
#[derive(Clone)]
pub struct Prometheus {
    server: Option<Arc<Server>>,
    incidents: Arc<Mutex<BTreeMap<String, (Instant, IncidentAnswer)>>>,
    lag: StdDuration,
}

impl Prometheus {
    /// Sets up the connections, and refuses an address that is not safe to use.
    ///
    /// A cryptography provider of rustls must be installed before.
    pub fn new(config: &PrometheusConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            server: Server::new(config)?.map(Arc::new),
            incidents: Arc::default(),
            lag: config.lag,
        })
    }

    /// How long after a window's end its samples are surely there.
    ///
    /// It is longer while Prometheus' clock is behind.
    #[must_use]
    pub fn lag(&self) -> StdDuration {
        let behind = self.server.as_ref().map(|server| server.behind());
        self.lag.saturating_add(behind.unwrap_or_default())
    }

    /// Counts the windows that are due, oldest first; none if Prometheus need not be asked yet.
    ///
    /// Where that fails, there is one window that says why, and nothing after it.
    pub async fn windows(&self, ask: &Ask) -> CheckWindows {
        let due = ask.due(self.lag());
        let Some((start, end)) = due.windows().next() else {
            return CheckWindows::default();
        };
        let read = self.read(ask, due).await;
        let mut windows = read.unwrap_or_else(|Failure { reason, message }| CheckWindows {
            due: vec![window(
                (start, end),
                WindowOutcome::Unanswered { reason, message },
            )],
            baseline: None,
        });
        if let Some(server) = &self.server {
            server.remark(&mut windows.due);
        }
        windows
    }

    async fn read(&self, ask: &Ask, due: Grid) -> Result<CheckWindows, Failure> {
        let server = self
            .server
            .as_ref()
            .ok_or_else(|| Failure::new(Unanswered::NotConfigured, NOT_CONFIGURED))?;
        match &ask.check.metric {
            Some(metric) => measure(server, ask, metric, due).await,
            None => count(server, ask, due).await,
        }
    }
}

/// Reads a metric at the end of each window.
async fn measure(
    server: &Arc<Server>,
    ask: &Ask,
    metric: &Metric,
    due: Grid,
) -> Result<CheckWindows, Failure> {
    let query = query::render_metric(&ask.check, metric, ask.canary.named(), ask.window())?;
    let request = due.request(&query);
    let answered = server
        .ask_all(&ask.canary.namespace, [request.clone()].into())
        .await;
    let series = answered.to(&request);
    let series = series.map_err(|failure| failure.about("canary", query.field))?;
    let answer = ArmAnswer {
        arm: "canary",
        query: &query,
        series: &series,
        first_increment: FirstIncrement::FromFirstSample,
    };
    let outcome = |end| match count::measure(answer, seconds(end)) {
        Ok(value) => WindowOutcome::Measured { value },
        Err((reason, message)) => WindowOutcome::Uncounted { reason, message },
    };
    Ok(CheckWindows {
        due: due
            .windows()
            .map(|(start, end)| window((start, end), outcome(end)))
            .collect(),
        baseline: None,
    })
}

/// Counts the requests of both arms in each window.
async fn count(server: &Arc<Server>, ask: &Ask, due: Grid) -> Result<CheckWindows, Failure> {
    let render = |arm: &Arm| query::render(&ask.check, arm.named(), ask.window());
    let canary = render(&ask.canary)?;
    let stable = ask.stable.as_ref().map(render).transpose()?;
    let before = ask.want_baseline.then(|| ask.before());
    let asked = [
        (Some(&canary), Some(due)),
        (stable.as_ref(), Some(due)),
        (stable.as_ref(), before),
    ];
    let asked = asked
        .into_iter()
        .filter_map(|(queries, grid)| Some((queries?, grid?)));
    let requests = asked
        .flat_map(|(queries, grid)| [grid.request(&queries.errors), grid.request(&queries.total)]);
    let answered = server
        .ask_all(&ask.canary.namespace, requests.collect())
        .await;

    let stable_answers = |grid| {
        let about =
            |queries| answered.about("stable", queries, grid, FirstIncrement::FromFirstSample);
        stable.as_ref().map(about).transpose()
    };
    let mut canary = answered.about("canary", &canary, due, FirstIncrement::FromZero)?;
    look_further_back(server, &mut canary, due, ask).await?;
    // Nothing counts before it is known how errors cluster, so a baseline is asked for again, too.
    let baseline = |before: Grid| {
        let answers = stable_answers(before)?;
        let count = |window| answers.as_ref()?.count(window).ok();
        Ok::<Vec<Counts>, Failure>(before.windows().filter_map(count).collect())
    };
    Ok(CheckWindows {
        due: count_all(&canary, stable_answers(due)?.as_ref(), due),
        baseline: before.map(baseline).transpose()?,
    })
}

/// A canary that is watched alone is compared with nothing.
fn count_all(canary: &Answers<'_>, stable: Option<&Answers<'_>>, due: Grid) -> Vec<Window> {
    let stable = |at| stable.map_or_else(|| Ok(Counts::default()), |stable| stable.count(at));
    let outcome = |at| match canary
        .count(at)
        .and_then(|counts| Ok((counts, stable(at)?)))
    {
        Ok((canary, stable)) => WindowOutcome::Counted { canary, stable },
        Err((reason, message)) => WindowOutcome::Uncounted { reason, message },
    };
    due.windows().map(|at| window(at, outcome(at))).collect()
}

fn window((start, end): (i64, i64), outcome: WindowOutcome) -> Window {
    Window {
        start: timestamp(start),
        end: timestamp(end),
        outcome,
    }
}

impl Answered {
    fn about<'a>(
        &self,
        arm: &'a str,
        queries: &'a Queries,
        grid: Grid,
        first_increment: FirstIncrement,
    ) -> Result<Answers<'a>, Failure> {
        let series = |query| {
            self.to(&grid.request(query))
                .map_err(|f| f.about(arm, query.field))
        };
        let (errors, total) = (series(&queries.errors)?, series(&queries.total)?);
        Ok(Answers {
            arm,
            queries,
            first_increment,
            errors,
            total,
        })
    }
}

/// Makes sure that a counter of the canary that seems to be new was not merely out of sight for
/// longer than the look-back: then what it grew by since is no more than it has grown in all.
async fn look_further_back(
    server: &Arc<Server>,
    canary: &mut Answers<'_>,
    due: Grid,
    ask: &Ask,
) -> Result<(), Failure> {
    let from = ask.from.as_second();
    let (origin, seen_from) = (from - LOOK_BACK.max(4 * due.step), due.look_back());
    if seen_from <= from {
        return Ok(());
    }
    let queries = [&canary.queries.errors, &canary.queries.total];
    let doubtful = queries.into_iter().filter(|query| {
        query.form == Form::Selector && canary.has_unknown_past(query.field, due.start)
    });
    let past = |query: &Query| Request::At {
        query: query.last_values(between(origin, seen_from)),
        time: seen_from,
    };
    let doubtful: Vec<_> = doubtful.collect();
    let answered = server
        .ask_all(
            &ask.canary.namespace,
            doubtful.iter().map(|query| past(query)).collect(),
        )
        .await;
    for query in doubtful {
        let series = answered
            .to(&past(query))
            .map_err(|f| f.about(canary.arm, query.field))?;
        canary.prepend(query.field, seen_from, &series);
    }
    Ok(())
}
