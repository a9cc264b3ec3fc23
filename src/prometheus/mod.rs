//! Reads the due windows of both arms from Prometheus.
//!
//! Start with [`Prometheus::windows`]. The queries and how responses are counted are in
//! [`core::query`](countersign_core::query); this module sends them over HTTP.
//!
//! **Invariant:** Prometheus is trusted no more than necessary. Only the administrator sets its URL and
//! credentials; no redirect is followed; time, size and number of responses are bounded; a response with
//! warnings is invalid; only numbers and short, sanitized query errors of a response reach a status; and
//! every failure is a typed [`Unanswered`] that is retried.
//!
//! Windows are aligned to whole seconds, the resolution of times in a status.

pub mod answer;
mod cache;
mod clock_skew;
mod config;
mod connection;
mod failure;
mod fairness;
mod incident;
mod objective;
mod reply;
mod request;
mod server;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration as StdDuration, Instant};

use countersign_api::Metric;
use countersign_core::analysis::count::{ArmAnswer, NotCounted};
use countersign_core::analysis::query::Queries;
use countersign_core::analysis::query::form::{Field, Form, Query};
use countersign_core::analysis::series::{FirstIncrement, Series, Span};
use countersign_core::analysis::statistics::Counts;
use countersign_core::analysis::{count, query};
use countersign_core::observation::people::IncidentAnswer;
use countersign_core::observation::windows::{CheckWindows, Unanswered, Window, WindowOutcome};
use futures::future::join_all;
use tokio::sync::Mutex;

pub use self::config::{ConfigError, Pair, PrometheusConfig};
pub use self::failure::Failure;
pub use self::request::Request;
use self::server::{Answered, Server};
pub use self::window::{Arm, Ask};
use self::window::{Grid, LOOK_BACK, between, seconds, window};

/// The message if no URL is configured.
const NOT_CONFIGURED: &str =
    "no address of Prometheus is configured: start the operator with --prometheus-url";

/// The responses for one arm of a check.
struct Answers<'a> {
    arm: &'a str,
    queries: &'a Queries,
    /// A series that appears in a window that begins at this Unix time or later, in seconds, began from zero.
    from_zero_since: f64,
    errors: Vec<Series>,
    total: Vec<Series>,
}

impl Answers<'_> {
    fn count(&self, (start, end): (i64, i64)) -> Result<Counts, NotCounted> {
        let Self {
            arm,
            from_zero_since,
            ..
        } = *self;
        let first_increment = if seconds(start) >= from_zero_since {
            FirstIncrement::FromZero
        } else {
            FirstIncrement::FromFirstSample
        };
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

    /// Since when Prometheus has had samples of this arm, in Unix seconds.
    fn since(&self) -> f64 {
        let all = self.errors.iter().chain(&self.total);
        all.map(Series::since).fold(f64::INFINITY, f64::min)
    }

    /// Whether a counter appears after this time, and may have existed before the requested range.
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

    /// Prepends values of an earlier time to the samples of the same series.
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

/// The client of Prometheus, which may be unconfigured. Clones share connections and the limit of
/// queries.
#[derive(Clone)]
pub struct Prometheus {
    server: Option<Arc<Server>>,
    incidents: Arc<Mutex<BTreeMap<String, (Instant, IncidentAnswer)>>>,
    lag: StdDuration,
}

impl Prometheus {
    /// Sets up the connections, and refuses an unsafe URL.
    ///
    /// A rustls crypto provider must be installed before.
    pub fn new(config: &PrometheusConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            server: Server::new(config)?.map(Arc::new),
            incidents: Arc::default(),
            lag: config.lag,
        })
    }

    /// Time after a window's end until its samples are available.
    ///
    /// Longer while Prometheus' clock is behind.
    #[must_use]
    pub fn lag(&self) -> StdDuration {
        let behind = self.server.as_ref().map(|server| server.behind());
        self.lag.saturating_add(behind.unwrap_or_default())
    }

    /// Counts the due windows, oldest first; empty if none is due.
    ///
    /// On failure, the result is a single window with the reason.
    pub async fn windows(&self, ask: &Ask) -> CheckWindows {
        let due = ask.due(self.lag());
        let Some((start, end)) = due.windows().next() else {
            return CheckWindows::default();
        };
        let mut read = self.read(ask, due).await;
        // The windows of a long absence may be more than one answer can hold.
        let mut less = due;
        while read.as_ref().is_err_and(|failure| failure.is_too_large)
            && let Some(half) = less.first_half()
        {
            less = half;
            read = self.read(ask, less).await;
        }
        let unanswered = |Failure {
                              reason, message, ..
                          }| CheckWindows {
            due: vec![window(
                (start, end),
                WindowOutcome::Unanswered { reason, message },
            )],
            history: None,
        };
        let mut windows = read.unwrap_or_else(unanswered);
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
        history: None,
    })
}

/// Counts the requests of both arms in each window.
async fn count(server: &Arc<Server>, ask: &Ask, due: Grid) -> Result<CheckWindows, Failure> {
    let render = |arm: &Arm| query::render(&ask.check, arm.named(), ask.window());
    let canary = render(&ask.canary)?;
    let stable = ask.stable.as_ref().map(render).transpose()?;
    // Nothing counts before the dispersion of errors is known, so a failed history is read again, too.
    let history = history(server, ask).await?;
    let sides = [Some(&canary), stable.as_ref()].into_iter().flatten();
    let requests =
        sides.flat_map(|queries| [due.request(&queries.errors), due.request(&queries.total)]);
    let answered = server
        .ask_all(&ask.canary.namespace, requests.collect())
        .await;

    let about = |arm, queries| answered.about(arm, queries, due);
    let mut canary = about("canary", &canary)?;
    look_further_back(server, &mut canary, due, ask).await?;
    let stable = stable.as_ref();
    let stable = stable.map(|it| about("stable", it)).transpose()?;
    // A canary's series that appears is a new pod's, unless Prometheus itself has only begun, or has lost the past: then
    // what it counted before would count again.
    let of_stable = stable.as_ref().map_or(f64::INFINITY, Answers::since);
    canary.from_zero_since = canary.since().min(of_stable);
    Ok(CheckWindows {
        due: count_all(&canary, stable.as_ref(), due),
        history,
    })
}

/// The counts of the service in the windows of the last day, oldest first. Stable's are read for fewer windows
/// if Prometheus cannot answer for all of them, and an earlier revision is left out then.
async fn history(server: &Arc<Server>, ask: &Ask) -> Result<Option<Vec<Counts>>, Failure> {
    let render = |arm: &Arm| query::render(&ask.check, arm.named(), ask.window());
    let arms = ask.history.iter().map(render);
    let mut arms: Vec<Queries> = arms.collect::<Result<_, _>>()?;
    // Queries that are split by Service alone are the same for every revision.
    arms.dedup();
    let Some(stable) = arms.first() else {
        return Ok(None);
    };
    let [day, short] = ask.before();
    let days = arms.iter().map(|it| read_history(server, ask, it, day));
    let mut days = join_all(days).await.into_iter();
    let of_stable = match days.next() {
        Some(Ok(history)) => history,
        _ => read_history(server, ask, stable, short).await?,
    };
    let earlier = days.rev().flat_map(Result::unwrap_or_default);
    Ok(Some(earlier.chain(of_stable).collect()))
}

/// The counts of one revision in these windows.
async fn read_history(
    server: &Arc<Server>,
    ask: &Ask,
    queries: &Queries,
    grid: Grid,
) -> Result<Vec<Counts>, Failure> {
    let requests = [grid.history(&queries.errors), grid.history(&queries.total)];
    let answered = server.ask_all(&ask.canary.namespace, requests.into()).await;
    let series = |query: &Query| {
        let answer = answered.to(&grid.history(query));
        answer.map_err(|failure| failure.about("stable", query.field))
    };
    let (errors, total) = (series(&queries.errors)?, series(&queries.total)?);
    let span = |(start, end)| Span {
        start: seconds(start),
        end: seconds(end),
    };
    let windows = grid.windows().map(span);
    Ok(count::history(queries, &errors, &total, windows))
}

/// A canary without stable pods is counted alone.
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

impl Answered {
    fn about<'a>(
        &self,
        arm: &'a str,
        queries: &'a Queries,
        grid: Grid,
    ) -> Result<Answers<'a>, Failure> {
        let series = |query| {
            self.to(&grid.request(query))
                .map_err(|f| f.about(arm, query.field))
        };
        let (errors, total) = (series(&queries.errors)?, series(&queries.total)?);
        Ok(Answers {
            arm,
            queries,
            from_zero_since: f64::INFINITY,
            errors,
            total,
        })
    }
}

/// Checks that a seemingly new counter of the canary was not just absent for longer than the look-back:
/// its growth since then is then at most its total growth.
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
