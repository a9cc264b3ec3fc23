//! The cluster that the user's kubeconfig names, reached as that user.

use std::path::PathBuf;

use countersign_api::Rollout;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config, Resource};

use crate::cluster::refusal::{Place, Refusal};
use crate::failure::Failure;

/// Name under which the plugin's writes appear in managed fields.
pub const FIELD_MANAGER: &str = "kubectl-countersign";
/// How often an edit of a Rollout is tried where its status is written at the same time.
const ATTEMPTS: u32 = 5;

/// Where to go and as whom, in the words of kubectl.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct Flags {
    /// Namespace, if not the context's
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// Context of the kubeconfig, if not the current one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Kubeconfig, if not the usual one
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// User to impersonate
    #[arg(long = "as", global = true, value_name = "USER")]
    as_user: Option<String>,
    /// Group to impersonate; may be repeated
    #[arg(
        long = "as-group",
        global = true,
        value_name = "GROUP",
        requires = "as_user"
    )]
    as_groups: Vec<String>,
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

/// A cluster, a namespace in it, and the way there.
pub struct Connection {
    client: Client,
    place: Place,
    named_namespace: Option<String>,
}

impl Connection {
    /// Reads the kubeconfig; nothing is sent yet.
    pub async fn open(flags: &Flags) -> Result<Self, Error> {
        // Fails only if a provider was installed already, which is as good.
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

    /// The namespace in which Rollouts are looked for.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.place.namespace
    }

    /// The namespace that the command line names, if it names one.
    #[must_use]
    pub fn named_namespace(&self) -> Option<&str> {
        self.named_namespace.as_deref()
    }

    /// Objects of the namespace.
    #[must_use]
    pub fn here<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.place.namespace)
    }

    /// Objects of all namespaces.
    #[must_use]
    pub fn everywhere<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    /// Objects without a namespace.
    #[must_use]
    pub fn cluster<K>(&self) -> Api<K>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    /// Awaits an answer of the API server, and says a refusal in plain words.
    pub async fn ask<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Refusal> {
        request.await.map_err(|error| self.refusal(&error))
    }

    /// Repeats an edit as long as it is refused since the object was written meanwhile: the controller
    /// writes the status at any time, which is no reason to bother a person.
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

    /// An error of the API server in plain words.
    #[must_use]
    pub fn refusal(&self, error: &kube::Error) -> Refusal {
        Refusal::of(error, &self.place)
    }

    /// A Rollout of the namespace by its name.
    pub async fn rollout(&self, name: &str) -> Result<Rollout, Refusal> {
        self.ask(self.here().get(name)).await
    }
}

/// The configuration and the name of its context. In a pod without kubeconfig, the pod's own account.
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
