//! Prometheus: what it counted of both arms in the windows that are due.
//!
//! Start with [`Prometheus::windows`]. What is asked and how an answer is counted is
//! [`core::query`](crate::core::query); here it goes over HTTP.
//!
//! **Invariant:** Prometheus is trusted no more than it must be. Its address and credentials are the
//! administrator's alone; no redirect is followed; time, size and number of answers are bounded; an
//! answer with warnings is none; nothing of an answer but numbers and short, escaped errors about a
//! query reaches a status; and every failure is one typed [`Unanswered`] that is asked again.
//!
//! Windows lie on a grid of whole seconds, since that is what a status keeps of a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration as StdDuration, Instant};

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use prometheus_http_query::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Response, StatusCode, Url};
use serde::{Deserialize, Deserializer};
use tokio::sync::{Mutex, Semaphore};

use crate::api::{Check, Duration};
use crate::core::observation::{CheckWindows, IncidentAnswer, Unanswered, Window, WindowOutcome};
use crate::core::query::{
    self, ArmAnswer, Field, FirstIncrement, Form, NotCounted, Queries, Query, QueryError, Series,
    Span, shown,
};
use crate::core::statistics::Counts;

/// Most windows that are read at once; the rest is due at the next look.
const MOST_WINDOWS: i64 = 240;
/// Longest time that they cover together, unless one alone is longer: it bounds an answer's size.
const LONGEST_READ: i64 = 3600;
/// Windows before the analysis from which stable's dispersion is measured.
const BASELINE_WINDOWS: i64 = 40;
/// Least time before the first window in which a counter's last sample is sought: as long as
/// Prometheus itself looks back.
const LOOK_BACK: i64 = 300;
/// Largest answer, in bytes.
const LARGEST_ANSWER: usize = 4 << 20;
/// Most queries at once, over all Rollouts.
const QUERIES_AT_ONCE: usize = 8;
/// How long the answer to an incident query is good for.
const INCIDENT_FRESH: StdDuration = StdDuration::from_secs(2);
/// Longest wait for it.
const INCIDENT_PATIENCE: StdDuration = StdDuration::from_secs(5);
/// What is said where there is nobody to ask.
const NOT_CONFIGURED: &str =
    "no address of Prometheus is configured: start the operator with --prometheus-url";

/// Where Prometheus is and how it is asked: the administrator's, never a tenant's.
#[derive(Clone)]
pub struct PrometheusConfig {
    /// Its address; a path before `/api/v1` may be part of it.
    pub url: Option<String>,
    /// File with a bearer token, read at each use.
    pub bearer_token_file: Option<PathBuf>,
    /// File with the only certificate authorities that are trusted, in PEM; the system's otherwise.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for an answer, the wait for other queries to end included.
    pub timeout: StdDuration,
    /// How long after a window's end its samples are surely there.
    pub lag: StdDuration,
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self {
            url: None,
            bearer_token_file: None,
            ca_file: None,
            timeout: StdDuration::from_secs(10),
            lag: StdDuration::from_secs(30),
        }
    }
}

/// A wrong setting. No message repeats the address, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It does not parse.
    #[error("the address of Prometheus is no URL ({0}): write it as `http://host:9090`")]
    Url(String),
    /// It is for another protocol.
    #[error("the address of Prometheus must begin with `http://` or `https://`")]
    Scheme,
    /// It holds a user or password.
    #[error(
        "the address of Prometheus holds a user name or password, which would end up in logs: put a bearer token in a file and name that file instead"
    )]
    UserInfo,
    /// It goes on after the path.
    #[error(
        "the address of Prometheus has a query or fragment: leave out everything from `?` or `#` on"
    )]
    Query,
    /// It leads to where clouds keep their machines' credentials.
    #[error(
        "the address of Prometheus is link-local, where clouds keep credentials: use its Service"
    )]
    LinkLocal,
    /// The authorities cannot be read.
    #[error("the certificate authorities in {path} cannot be read: give a readable file in PEM")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There are none in the file.
    #[error("{0} holds no certificate: give the authorities of Prometheus in PEM")]
    NoCertificate(PathBuf),
    /// TLS cannot be set up.
    #[error(
        "the client for Prometheus cannot be set up: name a file with its certificate authorities"
    )]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

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
    fn named(&self) -> query::Arm<'_> {
        query::Arm {
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
    /// The revision to compare with.
    pub stable: Arm,
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

/// One question to Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    /// Evaluated at one moment.
    At { query: String, time: i64 },
    /// Evaluated at each step.
    Steps {
        query: String,
        start: i64,
        end: i64,
        step: i64,
    },
}

/// Why there is no answer.
#[derive(Clone, Debug)]
struct Failure {
    reason: Unanswered,
    message: String,
}

impl Failure {
    fn new(reason: Unanswered, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    fn unreachable(error: &(dyn std::error::Error + 'static)) -> Self {
        // The innermost cause says it; those around it repeat the address.
        let cause = std::iter::successors(Some(error), |error| error.source()).last();
        let cause = cause.unwrap_or(error).to_string();
        Self::new(
            Unanswered::PrometheusUnreachable,
            format!("Prometheus cannot be reached: {}", shown(&cause, 200)),
        )
    }

    fn unreadable(what: impl std::fmt::Display) -> Self {
        let message = format!("the answer cannot be read: {what}");
        Self::new(Unanswered::UnreadableAnswer, message)
    }

    fn about(self, arm: &str, field: Field) -> Self {
        Self {
            message: format!("{arm}: the query `{field}`: {}", self.message),
            ..self
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self::new(Unanswered::InvalidQuery, error.to_string())
    }
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
        query::count(
            errors,
            total,
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
    pub fn new(config: PrometheusConfig) -> Result<Self, ConfigError> {
        let PrometheusConfig {
            url,
            bearer_token_file,
            ca_file,
            timeout,
            lag,
        } = config;
        let server = match url {
            None => None,
            Some(url) => {
                let url = checked(&url)?;
                let client = http_client(&url, ca_file, timeout)?;
                let client = Client::from(client, url.as_str());
                Some(Arc::new(Server {
                    client: client.map_err(|error| ConfigError::Client(error.into()))?,
                    token_file: bearer_token_file,
                    timeout,
                    permits: Semaphore::new(QUERIES_AT_ONCE),
                }))
            }
        };
        Ok(Self {
            server,
            incidents: Arc::default(),
            lag,
        })
    }

    /// How long after a window's end its samples are surely there.
    #[must_use]
    pub const fn lag(&self) -> StdDuration {
        self.lag
    }

    /// Counts the windows that are due, oldest first; none if Prometheus need not be asked yet.
    ///
    /// Where that fails, there is one window that says why, and nothing after it.
    pub async fn windows(&self, ask: &Ask) -> CheckWindows {
        let due = ask.due(self.lag);
        let Some((start, end)) = due.windows().next() else {
            return CheckWindows::default();
        };
        self.read(ask, due)
            .await
            .unwrap_or_else(|Failure { reason, message }| CheckWindows {
                due: vec![window(
                    (start, end),
                    WindowOutcome::Unanswered { reason, message },
                )],
                baseline: None,
            })
    }

    /// What an incident query gives, as of a moment ago at most: all Rollouts that a policy governs ask
    /// the same.
    pub async fn incident(&self, query: &str, now: Timestamp) -> IncidentAnswer {
        let mut recent = self.incidents.lock().await;
        recent.retain(|_, (at, _)| at.elapsed() < INCIDENT_FRESH);
        if let Some((_, answer)) = recent.get(query) {
            return answer.clone();
        }
        let ask = tokio::time::timeout(INCIDENT_PATIENCE, self.ask_incident(query, now));
        let answer = ask.await.unwrap_or_else(|_| IncidentAnswer::Unknown {
            message: format!("Prometheus gave no answer within {INCIDENT_PATIENCE:?}"),
        });
        recent.insert(query.to_owned(), (Instant::now(), answer.clone()));
        answer
    }

    /// What an incident query gives now. Only a number is an answer: an empty one may as well mean that
    /// nothing evaluates the alerts.
    async fn ask_incident(&self, query: &str, now: Timestamp) -> IncidentAnswer {
        let Some(server) = &self.server else {
            let message = NOT_CONFIGURED.to_owned();
            return IncidentAnswer::Unknown { message };
        };
        let request = Request::At {
            query: query.to_owned(),
            time: now.as_second(),
        };
        let series = match server.ask(&request).await {
            Ok(series) => series,
            Err(Failure { message, .. }) => return IncidentAnswer::Unknown { message },
        };
        let values = series
            .iter()
            .flat_map(|it| it.samples.iter().map(|(_, value)| *value));
        let values: Vec<_> = values.collect();
        let unknown = |message: &str| IncidentAnswer::Unknown {
            message: message.to_owned(),
        };
        if values.is_empty() {
            return unknown("it gave no number: end it with `or vector(0)`");
        }
        if values.iter().any(|value| value.is_nan()) {
            return unknown("it gave NaN, which is no number");
        }
        let value = values.into_iter().fold(f64::MIN, f64::max);
        if value > 0.0 {
            IncidentAnswer::Incident { value }
        } else {
            IncidentAnswer::None
        }
    }

    async fn read(&self, ask: &Ask, due: Grid) -> Result<CheckWindows, Failure> {
        let canary = query::render(&ask.check, ask.canary.named(), ask.window())?;
        let stable = query::render(&ask.check, ask.stable.named(), ask.window())?;
        let server = self
            .server
            .as_ref()
            .ok_or_else(|| Failure::new(Unanswered::NotConfigured, NOT_CONFIGURED))?;
        let before = ask.want_baseline.then(|| ask.before());
        let asked = [
            (&canary, Some(due)),
            (&stable, Some(due)),
            (&stable, before),
        ];
        let asked = asked
            .into_iter()
            .filter_map(|(queries, grid)| Some((queries, grid?)));
        let requests = asked.flat_map(|(queries, grid)| {
            [grid.request(&queries.errors), grid.request(&queries.total)]
        });
        let answered = server.ask_all(requests.collect()).await;

        let stable_answers =
            |grid| answered.about("stable", &stable, grid, FirstIncrement::FromFirstSample);
        let mut canary = answered.about("canary", &canary, due, FirstIncrement::FromZero)?;
        server
            .look_further_back(&mut canary, due, ask.from.as_second())
            .await?;
        Ok(CheckWindows {
            due: count_all(&canary, &stable_answers(due)?, due),
            baseline: before.map(|before| {
                let answers = stable_answers(before).ok();
                let count = |window| answers.as_ref()?.count(window).ok();
                before.windows().filter_map(count).collect()
            }),
        })
    }
}

fn count_all(canary: &Answers<'_>, stable: &Answers<'_>, due: Grid) -> Vec<Window> {
    let outcome = |at| match canary
        .count(at)
        .and_then(|counts| Ok((counts, stable.count(at)?)))
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

fn checked(url: &str) -> Result<Url, ConfigError> {
    let mut url = Url::parse(url).map_err(|error| ConfigError::Url(error.to_string()))?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(ConfigError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::UserInfo);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ConfigError::Query);
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let link_local = match host.parse::<IpAddr>().map(|host| host.to_canonical()) {
        Ok(IpAddr::V4(host)) => host.is_link_local(),
        Ok(IpAddr::V6(host)) => host.is_unicast_link_local(),
        Err(_) => false,
    };
    if link_local {
        Err(ConfigError::LinkLocal)
    } else {
        Ok(url)
    }
}

fn http_client(
    url: &Url,
    ca_file: Option<PathBuf>,
    timeout: StdDuration,
) -> Result<reqwest::Client, ConfigError> {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // A proxy from the environment would see the token.
        .no_proxy()
        .connect_timeout(timeout)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")));
    let builder = match ca_file {
        Some(path) => builder.tls_certs_only(certificates(path)?),
        // Without TLS, an image without the system's certificates will do.
        None if url.scheme() == "http" => builder.tls_certs_only([]),
        None => builder,
    };
    builder
        .build()
        .map_err(|error| ConfigError::Client(error.into()))
}

fn certificates(path: PathBuf) -> Result<Vec<Certificate>, ConfigError> {
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(source) => return Err(ConfigError::CaFile { path, source }),
    };
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(ConfigError::NoCertificate(path)),
    }
}

struct Server {
    client: Client,
    token_file: Option<PathBuf>,
    timeout: StdDuration,
    permits: Semaphore,
}

/// What each question was answered with.
struct Answered(BTreeMap<Request, Result<Vec<Series>, Failure>>);

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

    fn to(&self, request: &Request) -> Result<Vec<Series>, Failure> {
        let answer = self.0.get(request).cloned();
        answer.unwrap_or_else(|| Err(Failure::unreadable("the query was not asked")))
    }
}

impl Server {
    /// Asks each question once, all at the same time.
    async fn ask_all(&self, requests: BTreeSet<Request>) -> Answered {
        let ask = |request| async {
            let answer = self.ask(&request).await;
            (request, answer)
        };
        Answered(
            join_all(requests.into_iter().map(ask))
                .await
                .into_iter()
                .collect(),
        )
    }

    /// Makes sure that a counter of the canary that seems to be new was not merely out of sight for
    /// longer than the look-back: then what it grew by since is no more than it has grown in all.
    async fn look_further_back(
        &self,
        canary: &mut Answers<'_>,
        due: Grid,
        from: i64,
    ) -> Result<(), Failure> {
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
        let answered = self
            .ask_all(doubtful.iter().map(|query| past(query)).collect())
            .await;
        for query in doubtful {
            let series = answered
                .to(&past(query))
                .map_err(|f| f.about(canary.arm, query.field))?;
            canary.prepend(query.field, seen_from, &series);
        }
        Ok(())
    }

    async fn ask(&self, request: &Request) -> Result<Vec<Series>, Failure> {
        let answer = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        answer.unwrap_or_else(|_| {
            let message = format!(
                "Prometheus gave no answer within {}",
                Duration::from(self.timeout)
            );
            Err(Failure::new(Unanswered::PrometheusUnreachable, message))
        })
    }

    async fn exchange(&self, request: &Request) -> Result<Vec<Series>, Failure> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|closed| Failure::unreachable(&closed))?;
        let response = self.send(request).await?;
        let status = response.status();
        let json = is_json(&response);
        if !json && !status.is_success() {
            return Err(refused(status, None));
        }
        if !json {
            return Err(Failure::unreadable(
                "its content type is not `application/json`",
            ));
        }
        let answer = Answer::parse(&body(response).await?);
        match answer {
            Err(_) if !status.is_success() => Err(refused(status, None)),
            answer => answer?.series(status),
        }
    }

    async fn send(&self, request: &Request) -> Result<Response, Failure> {
        let token = self.token().await?;
        let timeout = i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX);
        let sent = match request {
            Request::At { query, time } => {
                let builder = self.client.query(query).at(*time).timeout(timeout);
                match token {
                    Some(token) => builder.header(AUTHORIZATION, token).post_raw().await,
                    None => builder.post_raw().await,
                }
            }
            Request::Steps {
                query,
                start,
                end,
                step,
            } => {
                let builder = self.client.query_range(query, *start, *end, seconds(*step));
                let builder = builder.timeout(timeout);
                match token {
                    Some(token) => builder.header(AUTHORIZATION, token).post_raw().await,
                    None => builder.post_raw().await,
                }
            }
        };
        sent.map_err(|error| Failure::unreachable(&error))
    }

    /// The token as its file holds it now, since it is renewed there.
    async fn token(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let failure = |what: String| {
            let message = format!(
                "the bearer token for Prometheus in {} {what}",
                path.display()
            );
            Failure::new(Unanswered::PrometheusUnreachable, message)
        };
        let text = tokio::fs::read_to_string(path).await;
        let text = text.map_err(|error| failure(format!("cannot be read: {error}")))?;
        let value = Some(text.trim()).filter(|token| !token.is_empty());
        let value = value.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let mut value = value.ok_or_else(|| failure("must be one line of text".into()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn is_json(response: &Response) -> bool {
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

async fn body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| Failure::unreachable(&error))?
    {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            let most = LARGEST_ANSWER >> 20;
            return Err(Failure::unreadable(format_args!(
                "it is larger than {most} MiB; let the query match fewer series, or write it as an expression with `{{{{window}}}}`"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn refused(status: StatusCode, kind: Option<&str>) -> Failure {
    let kind = kind.map(|kind| format!(" and the error type `{}`", shown(kind, 40)));
    let hint = if status.is_redirection() {
        " (redirects are not followed)"
    } else {
        ""
    };
    let message = format!(
        "Prometheus answered with HTTP status {}{}{hint}",
        status.as_u16(),
        kind.unwrap_or_default()
    );
    Failure::new(Unanswered::PrometheusError, message)
}

/// An answer of Prometheus' API. What it says for information (`infos`) does not make it partial.
#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    warnings: Option<Vec<String>>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Matrix(Vec<Row>),
    Vector(Vec<Row>),
    Scalar(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Row {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, Number)>,
    value: Option<(f64, Number)>,
    #[serde(alias = "histograms")]
    histogram: Option<serde::de::IgnoredAny>,
}

/// A number as Prometheus writes it, `NaN` and `+Inf` among them.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl Answer {
    fn parse(body: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            // The error itself may quote the answer.
            let (line, column) = (error.line(), error.column());
            Failure::unreadable(format_args!(
                "at line {line}, column {column} it is not what the API of Prometheus gives"
            ))
        })
    }

    fn series(self, status: StatusCode) -> Result<Vec<Series>, Failure> {
        let kind = self.error_type.as_deref();
        if kind == Some("bad_data") && status.is_client_error() {
            let error = shown(self.error.as_deref().unwrap_or_default(), 200);
            let message = format!("Prometheus refused the query: {error}");
            return Err(Failure::new(Unanswered::InvalidQuery, message));
        }
        if self.status != "success" || !status.is_success() {
            return Err(refused(status, kind));
        }
        if let Some(warning) = self.warnings.iter().flatten().next() {
            let message = format!("the answer may be partial: {}", shown(warning, 200));
            return Err(Failure::new(Unanswered::PartialAnswer, message));
        }
        match self.data {
            Some(Data::Matrix(rows) | Data::Vector(rows)) => {
                rows.into_iter().map(Row::series).collect()
            }
            Some(Data::Scalar(_) | Data::String(_)) => Err(Failure::unreadable(
                "it is a scalar or a string, not series",
            )),
            None => Err(Failure::unreadable("it holds no data")),
        }
    }
}

impl Row {
    fn series(self) -> Result<Series, Failure> {
        if self.histogram.is_some() {
            return Err(Failure::unreadable(
                "it holds native histograms; ask for `histogram_count(...)` by an expression",
            ));
        }
        let samples = self.values.into_iter().chain(self.value);
        let mut samples: Vec<_> = samples.map(|(at, Number(value))| (at, value)).collect();
        samples.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Series {
            labels: self.metric,
            samples,
        })
    }
}
