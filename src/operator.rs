//! The operator's process: options, clients, leadership, shutdown.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use countersign_api as api;
use futures::FutureExt;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tower::util::MapResponseLayer;

use crate::act::Actor;
use crate::act::events::Recorder;
use crate::controller::{self, Context};
use crate::lease::Lease;
use crate::observe::admission::{self, AdmissionCheck};
use crate::observe::dry_runs::DryRuns;
use crate::observe::observer::Observer;
use crate::observe::queue_lock::QueueMutex;
use crate::prometheus::{self, Pair, Prometheus, PrometheusConfig};
use crate::telemetry::access::Access;
use crate::telemetry::{self, Telemetry};
use crate::timing::{API_TIMEOUT, CACHES_TIMEOUT, LAST_EVENTS_TIMEOUT};
use crate::watch::waiting::Waiting;
use crate::{retention, statuses, throttling, watch};

/// Options of the operator; each is a flag or an environment variable.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// URL of Prometheus, or of a long-term store with its API.
    #[arg(long, env = "COUNTERSIGN_PROMETHEUS_URL")]
    prometheus_url: Option<String>,
    /// Header of each request to Prometheus, such as the tenant of a store: `NAME=VALUE`. This flag can
    /// be repeated; in the environment, one per line. Not for credentials, which would be visible in the
    /// process list.
    #[arg(
        long,
        value_name = "NAME=VALUE",
        env = "COUNTERSIGN_PROMETHEUS_HEADERS",
        hide_env_values = true,
        value_delimiter = '\n'
    )]
    prometheus_header: Vec<Pair>,
    /// Header whose value is in a file, which is read at each use: `NAME=FILE`.
    #[arg(
        long,
        value_name = "NAME=FILE",
        env = "COUNTERSIGN_PROMETHEUS_HEADER_FILES",
        value_delimiter = '\n'
    )]
    prometheus_header_file: Vec<Pair>,
    /// Path to a file with a bearer token for Prometheus; read at each use.
    #[arg(long, env = "COUNTERSIGN_PROMETHEUS_TOKEN_FILE")]
    prometheus_token_file: Option<PathBuf>,
    /// Path to a file with the user name for basic authentication at Prometheus; read at each use.
    #[arg(long, env = "COUNTERSIGN_PROMETHEUS_USERNAME_FILE")]
    prometheus_username_file: Option<PathBuf>,
    /// Path to a file with the password for basic authentication; read at each use.
    #[arg(long, env = "COUNTERSIGN_PROMETHEUS_PASSWORD_FILE")]
    prometheus_password_file: Option<PathBuf>,
    /// Path to the certificate authority of Prometheus, in PEM; reloaded when it changes.
    #[arg(long, env = "COUNTERSIGN_PROMETHEUS_CA_FILE")]
    prometheus_ca_file: Option<PathBuf>,
    /// Path to the client certificate for Prometheus, in PEM; reloaded when it changes.
    #[arg(long, env = "COUNTERSIGN_PROMETHEUS_CERT_FILE")]
    prometheus_cert_file: Option<PathBuf>,
    /// Path to the key of the client certificate, in PEM.
    #[arg(long, env = "COUNTERSIGN_PROMETHEUS_KEY_FILE")]
    prometheus_key_file: Option<PathBuf>,
    /// Time after a window's end until Prometheus has its samples: scrape interval plus scrape timeout
    /// plus some seconds.
    #[arg(long, env = "COUNTERSIGN_PROMETHEUS_LAG", default_value = "30s")]
    prometheus_lag: api::Duration,
    /// The length of time to wait for a response of Prometheus.
    #[arg(long, env = "COUNTERSIGN_PROMETHEUS_TIMEOUT", default_value = "10s")]
    prometheus_timeout: api::Duration,
    /// The address of the health and metrics endpoints.
    #[arg(long, env = "COUNTERSIGN_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Require a bearer token for the metrics, authenticated by the API server, and RBAC's `get` on the
    /// non-resource URL /metrics.
    #[arg(long, env = "COUNTERSIGN_METRICS_AUTH")]
    metrics_auth: bool,
    /// Log format.
    #[arg(long, env = "COUNTERSIGN_LOG_FORMAT", default_value = "json")]
    log_format: LogFormat,
    /// Identity of this replica in the lease.
    #[arg(long, env = "POD_NAME")]
    identity: String,
    /// Namespace of the operator and its lease.
    #[arg(long, env = "POD_NAMESPACE")]
    pub(crate) namespace: String,
}

impl Options {
    pub(crate) fn prometheus(&self) -> PrometheusConfig {
        PrometheusConfig {
            url: self.prometheus_url.clone(),
            headers: self.prometheus_header.clone(),
            header_files: self.prometheus_header_file.clone(),
            bearer_token_file: self.prometheus_token_file.clone(),
            username_file: self.prometheus_username_file.clone(),
            password_file: self.prometheus_password_file.clone(),
            ca_file: self.prometheus_ca_file.clone(),
            certificate_file: self.prometheus_cert_file.clone(),
            key_file: self.prometheus_key_file.clone(),
            timeout: self.prometheus_timeout.std(),
            lag: self.prometheus_lag.std(),
        }
    }
}

/// Log format.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Plain text.
    Text,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process could not be set up.
    #[error("{what}: {source}")]
    Setup {
        /// The failed operation.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An option has a wrong value.
    #[error(transparent)]
    Prometheus(#[from] prometheus::ConfigError),
    /// The lease was lost; the process exits at once.
    #[error("the lease was lost to another replica")]
    LeaseLost,
}

/// An error of the set-up, with the operation that failed.
pub(crate) fn setup<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> Error {
    move |source| Error::Setup {
        what,
        source: Box::new(source),
    }
}

/// Runs the operator until it is stopped.
pub fn run(options: Options) -> Result<(), Error> {
    log(options.log_format);
    runtime()?.block_on(operate(options))
}

/// A runtime for clients that use TLS.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    // Fails only if another provider was installed already, which serves too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(setup("the runtime could not be started"))
}

/// Logs to stderr, filtered by `RUST_LOG`.
pub(crate) fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.init(),
    }
}

async fn operate(options: Options) -> Result<(), Error> {
    let client = client().await?;
    let telemetry = Arc::new(Telemetry::new());
    let prometheus = Prometheus::new(&options.prometheus())?;
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .map_err(setup(
            "the address to listen on (--listen) could not be bound",
        ))?;
    let access = options.metrics_auth.then(|| Access::new(client.clone()));
    let stopped = stop.clone().cancelled_owned();
    let serving = telemetry::server::serve(listener, telemetry.clone(), access, stopped);
    let serving = tokio::spawn(serving);
    stop_on_signal(stop.clone())?;

    let lease = Arc::new(Lease::new(
        client.clone(),
        &options.namespace,
        api::MANAGER,
        &options.identity,
    ));
    let watches = watch::start(&client, &telemetry);
    let admission = AdmissionCheck::new(client.clone());
    tokio::spawn(watch_admission(admission.clone(), telemetry.clone()));
    let (recorder, publishing) = Recorder::start(
        client.clone(),
        &options.identity,
        lease.clone(),
        telemetry.clone(),
    );
    let context = Arc::new(Context {
        observer: Observer {
            client: client.clone(),
            caches: watches.caches.clone(),
            prometheus,
            admission: admission.clone(),
            queue_lock: QueueMutex::default(),
            dry_runs: DryRuns::default(),
            no_fields: Arc::default(),
            from_watches: false,
        },
        actor: Actor {
            recorder,
            client,
            lease: lease.clone(),
            telemetry: telemetry.clone(),
            written: watches.caches.written.clone(),
        },
        telemetry: telemetry.clone(),
        failures: Mutex::new(BTreeMap::new()),
        reported: Mutex::default(),
        doubted: Mutex::default(),
        read: Mutex::default(),
        full_read_permits: controller::full_read_permits(),
        pushed_back_until: Mutex::default(),
        waiting: Waiting::new(watches.wake),
    });
    let mut triggers = watches.triggers;
    tokio::select! {
        () = stand_by(&context, &lease, &mut triggers) => {
            telemetry.leads(true);
            tracing::info!(identity = %options.identity, "leading");
        }
        () = stop.cancelled() => {}
    }
    let result = lead(context, triggers, &watches.governing, &lease, &stop).await;
    stop.cancel();
    // The recorder is dropped with the last reconcile; its queue is published while the lease holds.
    let _ = tokio::time::timeout(LAST_EVENTS_TIMEOUT, publishing).await;
    lease.release().await;
    // The result of the listener is irrelevant at shutdown.
    let _ = serving.await;
    match &result {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!(%error, "stopped"),
    }
    result
}

/// Waits for the caches and the lease. Triggers until then are dropped: a leader starts from the caches.
async fn stand_by(
    context: &Context,
    lease: &Lease,
    triggers: &mut tokio::sync::mpsc::UnboundedReceiver<watch::Trigger>,
) {
    let ready = async {
        context.observer.caches.ready().await;
        context.telemetry.caches_ready();
        lease.acquire().await;
    };
    let discard = async { while triggers.recv().await.is_some() {} };
    tokio::select! {
        () = ready => {}
        () = discard => {}
    }
}

/// Reconciles until stopped, and finishes running reconciles; losing the lease ends the process at once.
async fn lead(
    context: Arc<Context>,
    triggers: tokio::sync::mpsc::UnboundedReceiver<watch::Trigger>,
    governing: &tokio::sync::watch::Sender<()>,
    lease: &Lease,
    stop: &CancellationToken,
) -> Result<(), Error> {
    if stop.is_cancelled() {
        return Ok(());
    }
    let (actor, caches) = (context.actor.clone(), context.observer.caches.clone());
    let (opened, client) = (caches.clone(), actor.client.clone());
    // It goes on if it takes longer.
    let opened = tokio::spawn(async move { opened.open(&client).await });
    let opened = tokio::time::timeout(CACHES_TIMEOUT, opened).map(|_| ());
    let reconciles = controller::run(context, triggers, opened, stop.clone());
    tokio::select! {
        () = reconciles => Ok(()),
        () = retention::keep(&actor, &caches.claims) => Ok(()),
        () = Box::pin(statuses::keep(&actor, &caches, governing)) => Ok(()),
        _ = lease.keep() => Err(Error::LeaseLost),
    }
}

/// Checks the admission policies even if no change requires sign-off, but not if they are in place and no
/// Rollout is reconciled: an idle operator sends no requests.
async fn watch_admission(check: AdmissionCheck, telemetry: Arc<Telemetry>) {
    loop {
        let problems = check.check().await.problems;
        telemetry.sign_offs_proven(problems.is_empty());
        tokio::time::sleep(admission::interval(&problems)).await;
        if problems.is_empty() {
            check.activity().await;
        }
    }
}

/// The client of the configured API server.
pub(crate) async fn client() -> Result<Client, Error> {
    let mut config = Config::infer()
        .await
        .map_err(setup("no cluster is configured"))?;
    config.read_timeout = Some(API_TIMEOUT);
    config.reset_reader_on_write = true;
    // The client does not retry: the controller reads again before it repeats a write.
    config.default_retry = false;
    let client = ClientBuilder::try_from(config)
        .map_err(setup("the client of the API server could not be made"))?;
    let status_from_plain_text = MapResponseLayer::new(throttling::status_from_plain_text);
    Ok(client.with_layer(&status_from_plain_text).build())
}

/// Cancels the token when the process is to end.
pub(crate) fn stop_on_signal(stop: CancellationToken) -> Result<(), Error> {
    let what = "signals could not be listened for";
    let mut terminate = signal(SignalKind::terminate()).map_err(setup(what))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(setup(what))?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
