//! `dashboard`: a local page in a browser, with the user's own kubeconfig and rights.
//!
//! HTML is made here; a browser needs a style and a hundred lines of script beside it, and nothing from outside.
//! Start with [`server`]: the addresses. [`guard`] is what stands before them.

mod action;
mod addresses;
mod chart;
mod curves;
mod detail;
mod feed;
mod fleet;
mod forms;
mod frame;
mod guard;
mod overview;
mod queue;
mod recent;
mod rights;
mod server;
mod site;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use countersign_api::Rollout;
use countersign_core::text::sanitize;
use kube::Api;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cluster::access;
use crate::cluster::change::requester;
use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::failure::Failure;
use crate::output::{print, remark};
use fleet::Fleet;
use guard::Guard;
use queue::Queue;
use rights::Rights;
use site::Site;

/// Show Rollouts live in a browser, and act on them with your own permissions
///
/// Serves a page on this machine alone until Ctrl-C is pressed. The printed address works once. Each action is shown
/// as the exact object first, which is then created in your name.
#[derive(Clone, Debug, clap::Args)]
pub struct Dashboard {
    /// If present, show the Rollouts of all namespaces; those of the namespace if that is not allowed
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Port on the loopback address; 0 chooses a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Do not open a browser
    #[arg(long)]
    no_browser: bool,
    /// Show no actions, and refuse them
    #[arg(long)]
    read_only: bool,
}

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot listen at port {port} of 127.0.0.1: {source}: give another --port, or none")]
    Port {
        port: u16,
        #[source]
        source: std::io::Error,
    },
}

impl Dashboard {
    /// Serves the page until it is interrupted.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        // Fails early if there is no cluster, or no user.
        let me = requester(connection).await?;
        let (rollouts, scope) = self.scope(connection).await?;
        let port = self.port;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.map_err(|source| Error::Port { port, source })?;
        let guard = Arc::new(Guard::new(listener.local_addr()?.port()));
        let opened = guard.address();
        let (sender, fleet) = watch::channel(Fleet::default());
        let follow = fleet::follow(connection.clone(), rollouts, sender);
        // On the heap, since the future is large.
        let follow = Box::pin(follow);
        let context = sanitize(&connection.place().context);
        let site = Arc::new(Site {
            connection: connection.clone(),
            me,
            place: format!("{scope}, context {context}"),
            fleet,
            guard,
            rights: Rights::default(),
            queue: Queue::default(),
            read_only: self.read_only,
        });
        print(&format!("{opened}\n"));
        remark("This address works once, in a browser on this machine. Ctrl-C ends the dashboard.");
        if !self.no_browser {
            // A browser in the terminal keeps its thread; without any, the address is printed.
            std::thread::spawn(move || {
                let _ = webbrowser::open(&opened);
            });
        }
        tokio::select! {
            ended = axum::serve(listener, server::router(site)).into_future() => ended?,
            () = follow => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The Rollouts to follow, and where they are.
    async fn scope(&self, connection: &Connection) -> Result<(Api<Rollout>, String), Refusal> {
        let namespace = connection.namespace();
        let everywhere = connection.in_namespace("");
        if self.all_namespaces {
            if access::is_allowed(&everywhere, ("list", "rollouts"), None).await? {
                return Ok((connection.everywhere(), "in all namespaces".to_owned()));
            }
            remark(&format!(
                "You may not list the Rollouts of all namespaces: those of {} are shown.",
                sanitize(namespace)
            ));
        }
        let scope = format!("in namespace {}", sanitize(namespace));
        Ok((connection.here(), scope))
    }
}
