//! `countersign notify`: informs people and tools outside the cluster of what happens to Rollouts.
//!
//! A process of its own, so that the operator stays connected to the API server and Prometheus alone. It reads
//! Rollouts, RolloutRuns and Freezes, and writes one Lease and one ConfigMap in its own namespace. Start with
//! `transitions.rs`, which is pure: what is stored gives the messages. `plan.rs` leaves out what was delivered, `worker.rs`
//! sends one channel's share, and `sender.rs` is the loop around them.

mod config;
mod connection;
mod message;
mod plan;
mod record;
mod sender;
mod transitions;
mod watched;
mod wire;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::lease::Lease;
use crate::operator::{self, LogFormat};
use crate::telemetry::notifications::Notifications;
use crate::telemetry::server;
use crate::timing::NOTIFY_TIMEOUT;
use config::{ChannelKind, Config, ConfigError};
use connection::{Connection, Failure};
use message::{Kind, Message, Subject};
use record::NAME;
use sender::Sender;
use watched::Watched;
use wire::alertmanager::{self, Alert};

/// Options of `countersign notify`; each is a flag or an environment variable.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// Path to the configuration: the cluster's name, and the channels.
    #[arg(long, env = "COUNTERSIGN_NOTIFY_CONFIG")]
    config: PathBuf,
    /// The address of the health and metrics endpoints.
    #[arg(long, env = "COUNTERSIGN_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Log format.
    #[arg(long, env = "COUNTERSIGN_LOG_FORMAT", default_value = "json")]
    log_format: LogFormat,
    /// Identity of this replica in the lease.
    #[arg(long, env = "POD_NAME")]
    identity: String,
    /// Namespace of the lease, and of the record of what was delivered.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Send a test message to one channel; exits with status 1 unless the channel takes it.
    Test {
        /// Name of the channel.
        channel: String,
    },
}

/// Why the process ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process could not be set up, or lost the lease.
    #[error(transparent)]
    Process(#[from] operator::Error),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The channel to test is not configured.
    #[error("there is no channel `{name}`: name one of {known}")]
    NoChannel {
        /// The name.
        name: String,
        /// The channels that there are.
        known: String,
    },
    /// The channel did not take the test message.
    #[error("channel {name}: {failure}")]
    NotTaken {
        /// The channel.
        name: String,
        /// Why.
        failure: Failure,
    },
}

/// Sends until stopped, or one test message.
pub fn run(options: Options) -> Result<(), Error> {
    let config = Config::read(&options.config)?;
    let runtime = operator::runtime()?;
    if let Some(Action::Test { channel }) = &options.action {
        runtime.block_on(test(&config, channel, clock::now()))?;
        println!("Channel {channel} took the message.");
        return Ok(());
    }
    operator::log(options.log_format);
    runtime.block_on(serve(options, config))
}

/// Sends a test message.
async fn test(config: &Config, name: &str, now: Timestamp) -> Result<(), Error> {
    let Some(channel) = config.channels.get(name) else {
        let known: Vec<_> = config.channels.keys().cloned().collect();
        return Err(Error::NoChannel {
            name: name.to_owned(),
            known: known.join(", "),
        });
    };
    let message = Message {
        id: format!("test/{}", now.as_second()),
        kind: Kind::Test,
        at: now,
        subject: Subject::Installation,
        text: "countersign notify test: messages of Rollouts that choose this channel arrive here"
            .to_owned(),
        command: None,
        chosen: None,
    };
    let requests = match channel.kind {
        ChannelKind::Alertmanager => {
            let message = Arc::new(message);
            let alert = Alert {
                message,
                is_over: false,
            };
            vec![alertmanager::request(&[alert], &config.cluster, now)]
        }
        kind => wire::requests(kind, &message, &config.cluster),
    };
    let connection = Connection::new(channel, config.ca_file.as_deref())?;
    for request in &requests {
        let taken = connection.post(request, NOTIFY_TIMEOUT).await;
        taken.map_err(|failure| Error::NotTaken {
            name: name.to_owned(),
            failure,
        })?;
    }
    Ok(())
}

async fn serve(options: Options, config: Config) -> Result<(), Error> {
    let client = operator::client().await?;
    let telemetry = Arc::new(Notifications::new(config.channels.keys()));
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .map_err(operator::setup(
            "the address to listen on (--listen) could not be bound",
        ))?;
    let stopped = stop.clone().cancelled_owned();
    let serving = tokio::spawn(server::serve(listener, telemetry.clone(), None, stopped));
    operator::stop_on_signal(stop.clone())?;
    let changed = Arc::<Notify>::default();
    let watched = Watched::start(&client, &telemetry, &changed);
    let lease = Lease::new(client.clone(), &options.namespace, NAME, &options.identity);
    let lease = Arc::new(lease);
    let ready = async {
        watched.ready().await;
        telemetry.caches_ready();
        lease.acquire().await;
    };
    tokio::select! {
        () = ready => {
            telemetry.sends(true);
            tracing::info!(identity = %options.identity, "sending");
        }
        () = stop.cancelled() => {}
    }
    let result = if stop.is_cancelled() {
        Ok(())
    } else {
        let sender = Sender {
            client,
            namespace: options.namespace,
            config,
            watched,
            changed,
            telemetry,
            lease: lease.clone(),
        };
        tokio::select! {
            result = sender.run(&stop) => result.map_err(Error::Config),
            _ = lease.keep() => Err(Error::Process(operator::Error::LeaseLost)),
        }
    };
    stop.cancel();
    lease.release().await;
    // The result of the listener is irrelevant at shutdown.
    let _ = serving.await;
    match &result {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!(%error, "stopped"),
    }
    result
}
