//! Sends requests over HTTP, within limits of time, size and number, and parses the responses.
//!
//! Equal requests are sent once: callers share a pending request, and get a cached response soon after.
//! Requests are about windows that have ended, so their responses do not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration as StdDuration;

use countersign_api::Duration;
use countersign_core::analysis::series::Series;
use countersign_core::observation::windows::{Unanswered, Window, WindowOutcome};
use futures::FutureExt;
use futures::future::join_all;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::cache::Memory;
use super::clock_skew::{Clocks, Reading};
use super::config::{ConfigError, PrometheusConfig};
use super::connection::Connection;
use super::fairness::Queue;
use crate::clock;
use crate::prometheus::failure::{Failure, refused};
use crate::prometheus::reply::Reply;
use crate::prometheus::request::Request;

/// Largest response in bytes; a larger one is an error.
const LARGEST_ANSWER: usize = 4 << 20;

/// The configured Prometheus server.
pub(super) struct Server {
    connection: Connection,
    timeout: StdDuration,
    queue: Queue,
    memory: Memory,
    clocks: Clocks,
}

/// The response to each request.
pub(super) struct Answered(BTreeMap<Request, Result<Reply, Failure>>);

impl Answered {
    pub(super) fn to(&self, request: &Request) -> Result<Vec<Series>, Failure> {
        match self.0.get(request) {
            Some(Ok(reply)) => Ok(reply.series.to_vec()),
            Some(Err(failure)) => Err(failure.clone()),
            None => Err(Failure::unreadable("the query was not sent")),
        }
    }
}

impl Server {
    /// The configured server, if any.
    pub(super) fn new(config: &PrometheusConfig) -> Result<Option<Self>, ConfigError> {
        let Some(url) = &config.url else {
            return Ok(None);
        };
        Ok(Some(Self {
            connection: Connection::new(url, config)?,
            timeout: config.timeout,
            queue: Queue::default(),
            memory: Memory::default(),
            clocks: Clocks::new(config.lag),
        }))
    }

    /// Additional wait for samples, since Prometheus' clock is behind.
    pub(super) fn behind(&self) -> StdDuration {
        self.clocks.behind()
    }

    /// Adds the difference of the clocks to the messages of windows that it may explain.
    pub(super) fn remark(&self, windows: &mut [Window]) {
        let Some(remark) = self.clocks.remark() else {
            return;
        };
        for window in windows {
            match &mut window.outcome {
                WindowOutcome::Counted { .. }
                | WindowOutcome::Measured { .. }
                | WindowOutcome::Unanswered {
                    reason: Unanswered::ClockSkew,
                    ..
                } => {}
                WindowOutcome::Uncounted { message, .. }
                | WindowOutcome::Unanswered { message, .. } => {
                    message.push_str("; ");
                    message.push_str(&remark);
                }
            }
        }
    }

    /// Sends each request once, all concurrently, on behalf of a namespace. Windows are not counted
    /// before their samples are available by Prometheus' own clock.
    pub(super) async fn ask_all(
        self: &Arc<Self>,
        namespace: &str,
        requests: BTreeSet<Request>,
    ) -> Answered {
        let ask = |request: Request| async {
            let reply = self.reply(namespace, &request).await;
            let reply = reply.and_then(|reply| {
                let early = reply
                    .reading
                    .and_then(|it| self.clocks.too_early(it, request.end()));
                early.map_or(Ok(reply), |message| {
                    Err(Failure::new(Unanswered::ClockSkew, message))
                })
            });
            (request, reply)
        };
        Answered(
            join_all(requests.into_iter().map(ask))
                .await
                .into_iter()
                .collect(),
        )
    }

    /// Sends one request on behalf of a namespace.
    pub(super) async fn ask(
        self: &Arc<Self>,
        namespace: &str,
        request: &Request,
    ) -> Result<Vec<Series>, Failure> {
        let reply = self.reply(namespace, request).await?;
        Ok(Arc::unwrap_or_clone(reply.series))
    }

    async fn reply(self: &Arc<Self>, namespace: &str, request: &Request) -> Result<Reply, Failure> {
        let begin = || {
            let (server, namespace) = (self.clone(), namespace.to_owned());
            let request = request.clone();
            async move { server.fetch(&namespace, request).await }.boxed()
        };
        self.memory.get(request, begin).await
    }

    async fn fetch(&self, namespace: &str, request: Request) -> Result<Reply, Failure> {
        let deadline = Instant::now() + self.timeout;
        let late = |also: &str| {
            let message = format!(
                "Prometheus gave no answer within {}{also}",
                Duration::from(self.timeout)
            );
            Failure::new(Unanswered::PrometheusUnreachable, message)
        };
        let permit = timeout_at(deadline, self.queue.acquire(namespace)).await;
        let _permit = permit.map_err(|_| late(": earlier queries took all of it"))?;
        let reply = timeout_at(deadline, self.exchange(&request)).await;
        let reply = reply.map_err(|_| late(""))??;
        let early = |reading| self.clocks.too_early(reading, request.end());
        if reply.reading.and_then(early).is_none() {
            self.memory.keep(request, &reply);
        }
        Ok(reply)
    }

    async fn exchange(&self, request: &Request) -> Result<Reply, Failure> {
        let sent = clock::now();
        let response = self.connection.send(request).await?;
        let reading = Reading::of(response.headers(), sent, clock::now());
        if let Some(reading) = reading {
            self.clocks.note(reading);
        }
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
        let body = body(response).await?;
        let series = match Answer::parse(&body) {
            Err(_) if !status.is_success() => return Err(refused(status, None)),
            answer => answer?.series(status, request)?,
        };
        Ok(Reply {
            series: Arc::new(series),
            bytes: body.len(),
            reading,
        })
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
            return Err(Failure::too_large(format_args!(
                "it is larger than {most} MiB; let the query match fewer series, or write it as an expression with `{{{{window}}}}`"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
