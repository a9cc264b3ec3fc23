//! The connection to the kubeconfig's cluster as its user.

use std::path::PathBuf;

use countersign_api::Rollout;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config, Resource};

use crate::cluster::refusal::{Place, Refusal};
use crate::failure::Failure;

/// Field manager of the plugin's writes.
pub const FIELD_MANAGER: &str = "kubectl-countersign";
/// Attempts at an edit of a Rollout; a conflict on the last one is reported.
const ATTEMPTS: u32 = 5;

/// Flags for the cluster and the user, as in kubectl.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct Flags {
    /// If present, the namespace scope for this CLI request
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Path to the kubeconfig file to use for CLI requests
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Username to impersonate for the operation
    #[arg(long = "as", global = true, value_name = "USER")]
    as_user: Option<String>,
    /// Group to impersonate for the operation, this flag can be repeated to specify multiple groups
    #[arg(
        long = "as-group",
        global = true,
        value_name = "GROUP",
        requires = "as_user"
    )]
    as_groups: Vec<String>,
}

impl Flags {
    /// The namespace given by `-n`, if any.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable kubeconfig.
    #[error("the kubeconfig cannot be used: {0}: check --kubeconfig, KUBECONFIG and --context")]
    Kubeconfig(#[from] KubeconfigError),
    /// The kubeconfig names credentials or certificates that cannot be used.
    #[error("the credentials of context {context} cannot be used: {source}")]
    Credentials {
        /// The context.
        context: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
}

/// A client, its context and its namespace.
pub struct Connection {
    client: Client,
    place: Place,
    named_namespace: Option<String>,
}

impl Connection {
    /// Reads the kubeconfig, without sending a request.
    pub async fn open(flags: &Flags) -> Result<Self, Error> {
        // Fails only if another provider was installed already, which serves too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (mut config, context) = configuration(flags).await?;
        if flags.as_user.is_some() {
            config.auth_info.impersonate.clone_from(&flags.as_user);
            config.auth_info.impersonate_groups = Some(flags.as_groups.clone());
        }
        let place = Place {
            server: config.cluster_url.to_string(),
            context: context.clone(),
            namespace: flags
                .namespace
                .clone()
                .unwrap_or_else(|| config.default_namespace.clone()),
        };
        let client =
            Client::try_from(config).map_err(|source| Error::Credentials { context, source })?;
        Ok(Self {
            client,
            place,
            named_namespace: flags.namespace.clone(),
        })
    }

    /// The namespace of the request.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.place.namespace
    }

    /// The namespace given by `-n`, if any.
    #[must_use]
    pub fn named_namespace(&self) -> Option<&str> {
        self.named_namespace.as_deref()
    }

    /// The API for objects of the namespace.
    #[must_use]
    pub fn here<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.place.namespace)
    }

    /// The API for objects of all namespaces.
    #[must_use]
    pub fn everywhere<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    /// The API for cluster-scoped objects.
    #[must_use]
    pub fn cluster<K>(&self) -> Api<K>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    /// Awaits a response of the API server and explains an error.
    pub async fn ask<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Refusal> {
        request.await.map_err(|error| self.refusal(&error))
    }

    /// Retries an edit on conflict, since the controller may write the status at any time.
    pub async fn edit(
        &self,
        attempt: impl AsyncFn() -> Result<Option<Refusal>, Failure>,
    ) -> Result<(), Failure> {
        let mut attempts = ATTEMPTS;
        while let Some(conflict) = attempt().await? {
            attempts -= 1;
            if attempts == 0 {
                return Err(conflict.into());
            }
        }
        Ok(())
    }

    /// Explains an error of the API server.
    #[must_use]
    pub fn refusal(&self, error: &kube::Error) -> Refusal {
        Refusal::of(error, &self.place)
    }

    /// Gets a Rollout of the namespace.
    pub async fn rollout(&self, name: &str) -> Result<Rollout, Refusal> {
        self.ask(self.here().get(name)).await
    }
}

/// The configuration and the name of its context; in a pod without kubeconfig, the service account's.
async fn configuration(flags: &Flags) -> Result<(Config, String), Error> {
    let read = match &flags.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(error) if flags.kubeconfig.is_some() || flags.context.is_some() => {
            return Err(error.into());
        }
        Err(error) => {
            let own = Config::incluster().map_err(|_| error)?;
            return Ok((own, "of this pod".to_owned()));
        }
    };
    let context = flags.context.clone().or(kubeconfig.current_context.clone());
    let options = KubeConfigOptions {
        context: flags.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok((config, context.unwrap_or_default()))
}
