//! The requests of the operator to the API server, and its use of the machine.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use countersign_cluster::{ApiRequest, Cluster, RequestLog, wait_for};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Result;

/// The address of the operator's metrics in the harness.
const METRICS: &str = "127.0.0.1:8081";
/// Time without a request after which the operator counts as settled.
const QUIET: Duration = Duration::from_secs(5);
/// The log message of a reconcile.
const RECONCILE: &str = "\"reconciling\"";
const WAIT_TIMEOUT: Duration = Duration::from_mins(5);
/// Ticks of the CPU times in `/proc` per second; the same on every Linux used here.
const TICKS: f64 = 100.0;

/// The operator, observed from outside.
pub struct Observed {
    cluster: Cluster,
    log: RequestLog,
    /// Requests since they were last taken.
    requests: Vec<ApiRequest>,
}

/// The resources of the operator's process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory in MiB.
    pub resident: f64,
    /// The part of it that is in no file: heap and stacks.
    pub anonymous: f64,
    /// CPU time since its start, in seconds.
    pub cpu: f64,
}

impl Observed {
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            log: cluster.request_log(),
            requests: Vec::new(),
        }
    }

    /// The requests since the last call.
    pub fn requests(&mut self) -> Result<Requests> {
        self.requests.extend(self.log.news()?);
        Ok(Requests(std::mem::take(&mut self.requests)))
    }

    /// Waits until the operator has sent only lease and watch requests for `QUIET`.
    pub async fn until_quiet(&mut self) -> Result<()> {
        let (began, mut last) = (Instant::now(), Instant::now());
        while last.elapsed() < QUIET {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let news = self.log.news()?;
            if news.iter().any(is_of_consequence) {
                last = Instant::now();
            }
            self.requests.extend(news);
            if began.elapsed() > WAIT_TIMEOUT {
                return Err("the operator does not come to rest".into());
            }
        }
        Ok(())
    }

    /// Waits likewise, and discards the requests so far.
    pub async fn at_rest(&mut self) -> Result<()> {
        self.until_quiet().await?;
        self.requests.clear();
        Ok(())
    }

    pub fn usage(&self) -> Result<Usage> {
        let process = self.process()?;
        let status = fs::read_to_string(process.join("status"))?;
        let mebibytes = |field: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(number.ok_or("no such field in /proc")?.parse::<f64>()? / 1024.0)
        };
        let cpu = stat(&process, 11)? + stat(&process, 12)?;
        Ok(Usage {
            resident: mebibytes("VmRSS")?,
            anonymous: mebibytes("RssAnon")?,
            cpu: cpu / TICKS,
        })
    }

    /// Seconds since the start of the operator's process.
    pub fn age(&self) -> Result<f64> {
        let uptime = fs::read_to_string("/proc/uptime")?;
        let uptime: f64 = uptime.split(' ').next().unwrap_or_default().parse()?;
        Ok(uptime - stat(&self.process()?, 19)? / TICKS)
    }

    fn process(&self) -> Result<PathBuf> {
        let pid = fs::read_to_string(self.cluster.dir().join("operator.pid"))?;
        Ok(PathBuf::from("/proc").join(pid.trim()))
    }

    /// Kills it, and waits until the next process has reconciled `rollouts` Rollouts.
    pub async fn restart(&mut self, rollouts: usize) -> Result<()> {
        self.requests()?;
        self.cluster.kill_operator().await?;
        wait_for("all are reconciled", WAIT_TIMEOUT, async || {
            let metrics = metrics().await.map_err(|error| error.to_string())?;
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let missing = rollouts as f64 - sum(&metrics, "countersign_rollouts{");
            if missing <= 0.0 {
                Ok(())
            } else {
                Err(format!("{missing} are missing"))
            }
        })
        .await?;
        Ok(())
    }

    /// The number of reconciles of Rollouts.
    pub async fn reconciles(&self) -> Result<f64> {
        Ok(sum(&metrics().await?, "countersign_reconcile_total{"))
    }

    /// When the reconciles of a namespace's Rollouts began, by name, from the operator's log.
    pub fn reconciles_within(&self, namespace: &str) -> Result<BTreeMap<String, Vec<Timestamp>>> {
        let log = fs::read_to_string(self.cluster.dir().join("operator.log"))?;
        let mut reconciles: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
        for line in log.lines().filter(|line| line.contains(RECONCILE)) {
            let line: Value = serde_json::from_str(line)?;
            let text = |place: &str| line.pointer(place).and_then(Value::as_str);
            if text("/fields/namespace") == Some(namespace)
                && let (Some(rollout), Some(at)) = (text("/fields/rollout"), text("/timestamp"))
            {
                reconciles
                    .entry(rollout.to_owned())
                    .or_default()
                    .push(at.parse()?);
            }
        }
        if reconciles.is_empty() {
            return Err("the operator's log has no reconcile: run it by `make bench`".into());
        }
        Ok(reconciles)
    }

    /// How many due windows Prometheus has not answered, from the operator's metrics.
    pub async fn unanswered(&self) -> Result<f64> {
        let metrics = metrics().await?;
        let all = "countersign_analysis_answers_total{";
        let counted = format!("{all}outcome=\"Counted\"");
        Ok(sum(&metrics, all) - sum(&metrics, &counted))
    }

    /// Median and 99th percentile of the operator's own time from a verdict to the written weights, in
    /// milliseconds: the bounds of the buckets that they are in.
    pub async fn weight_writes(&self) -> Result<(f64, f64)> {
        let metrics = metrics().await?;
        let count = sum(&metrics, "countersign_weight_write_seconds_count");
        let bound = |share: f64| {
            let buckets = metrics.lines().filter_map(|line| {
                let line = line.strip_prefix("countersign_weight_write_seconds_bucket{le=\"")?;
                let (bound, number) = line.split_once("\"} ")?;
                Some((bound.parse::<f64>().ok()?, number.parse::<f64>().ok()?))
            });
            let mut enough = buckets.filter(|(_, number)| *number >= share * count);
            enough.next().map_or(f64::NAN, |(bound, _)| bound * 1e3)
        };
        Ok((bound(0.5), bound(0.99)))
    }
}

/// A field of `/proc/PID/stat`, counted from the one after the name, which may hold spaces.
fn stat(process: &std::path::Path, field: usize) -> Result<f64> {
    let stat = fs::read_to_string(process.join("stat"))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("/proc holds something else")?;
    let field = fields.split(' ').nth(field);
    Ok(field.ok_or("/proc holds something else")?.parse()?)
}

async fn metrics() -> Result<String> {
    let mut stream = TcpStream::connect(METRICS).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// The sum of all series with this prefix.
fn sum(metrics: &str, series: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(series));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

fn is_of_consequence(request: &ApiRequest) -> bool {
    request.verb != "watch" && request.resource != "leases"
}

/// Requests to count.
pub struct Requests(pub Vec<ApiRequest>);

impl Requests {
    /// Only requests in one of these namespaces.
    pub fn within(self, namespaces: &[&str]) -> Self {
        let within = |it: &ApiRequest| {
            let namespace = it.namespace.as_deref();
            namespace.is_some_and(|it| namespaces.contains(&it))
        };
        Self(self.0.into_iter().filter(within).collect())
    }

    pub fn writes(&self) -> usize {
        self.0.iter().filter(|it| it.is_write()).count()
    }

    /// Requests that are neither writes nor watches.
    pub fn reads(&self) -> usize {
        let reads = self.0.iter().filter(|it| !it.is_write());
        reads.filter(|it| is_of_consequence(it)).count()
    }

    pub fn other_than_keeping_up(&self) -> Vec<&ApiRequest> {
        self.0.iter().filter(|it| is_of_consequence(it)).collect()
    }

    /// The count of each verb and resource, of writes or of reads.
    pub fn listed(&self, writes: bool) -> String {
        let mut kinds: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
        for request in self.0.iter().filter(|it| it.is_write() == writes) {
            let kind = (request.verb.as_str(), request.resource.as_str());
            let (all, refused) = kinds.entry(kind).or_default();
            *all += 1;
            *refused += usize::from(request.code >= 400);
        }
        let kinds = kinds.into_iter().map(|((verb, resource), (all, refused))| {
            let refused = match refused {
                0 => String::new(),
                refused => format!(" ({refused} refused)"),
            };
            format!("{verb} {resource} {all}{refused}")
        });
        kinds.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (writes, reads) = (self.listed(true), self.listed(false));
        write!(formatter, "writes: {writes}; reads: {reads}")
    }
}
