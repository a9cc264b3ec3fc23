//! The connection to the kubeconfig's cluster as its user.

use std::path::PathBuf;

use countersign_api::{Duration, Rollout};
use http::Uri;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config, Resource};

use crate::cluster::refusal::{Place, Refusal};

/// Field manager of the plugin's writes.
pub const FIELD_MANAGER: &str = "kubectl-countersign";

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
    /// The name of the kubeconfig cluster to use
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// The name of the kubeconfig user to use
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// The address of the Kubernetes API server
    #[arg(short, long, global = true, value_name = "URL", value_parser = address)]
    server: Option<Uri>,
    /// Bearer token for authentication to the API server
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<String>,
    /// The length of time to wait for a response of the API server, such as 30s; 0 is no limit
    #[arg(long, global = true, value_name = "TIME", value_parser = timeout)]
    request_timeout: Option<Duration>,
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
    /// UID to impersonate for the operation
    #[arg(
        long = "as-uid",
        global = true,
        value_name = "UID",
        requires = "as_user"
    )]
    as_uid: Option<String>,
}

/// An address with its scheme.
pub fn address(text: &str) -> Result<Uri, String> {
    let address: Option<Uri> = text.parse().ok();
    let known = |it: &Uri| matches!(it.scheme_str(), Some("http" | "https"));
    address
        .filter(|it| known(it) && it.host().is_some())
        .ok_or_else(|| "write a URL such as https://HOST:PORT".to_owned())
}

/// A timeout as in kubectl, where a number without a unit is of seconds.
fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::seconds(seconds)),
        Err(_) => text
            .parse()
            .map_err(|error: countersign_api::duration::InvalidDuration| error.to_string()),
    }
}

impl Flags {
    /// The kubeconfig that the flags or the environment name.
    pub fn kubeconfig(&self) -> Result<Kubeconfig, KubeconfigError> {
        match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        }
    }

    /// Whether a flag names a part of the kubeconfig, which must then exist.
    fn need_kubeconfig(&self) -> bool {
        let names = [&self.context, &self.cluster, &self.user];
        self.kubeconfig.is_some() || names.into_iter().any(Option::is_some)
    }

    /// Sets the values of the flags in place of the kubeconfig's.
    fn apply_to(&self, config: &mut Config) {
        if let Some(server) = &self.server {
            config.cluster_url = server.clone();
        }
        if let Some(token) = &self.token {
            config.auth_info = AuthInfo {
                token: Some(token.clone().into()),
                ..AuthInfo::default()
            };
        }
        if self.as_user.is_some() {
            let user = &mut config.auth_info;
            user.impersonate.clone_from(&self.as_user);
            user.impersonate_groups = Some(self.as_groups.clone());
            user.impersonate_uid.clone_from(&self.as_uid);
        }
        let timeout = self.request_timeout.map(Duration::std);
        if let Some(timeout) = timeout.filter(|it| !it.is_zero()) {
            config.connect_timeout = Some(timeout);
            config.read_timeout = Some(timeout);
            config.reset_reader_on_write = true;
        }
    }

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
#[derive(Clone)]
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
        flags.apply_to(&mut config);
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

    /// The same connection with another namespace; all of them if the name is empty.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        let mut other = self.clone();
        namespace.clone_into(&mut other.place.namespace);
        other.named_namespace = Some(namespace.to_owned());
        other
    }

    /// Where requests go, for messages.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
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

    /// The client, for objects whose kind is known by name only.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The API for objects of a namespace.
    #[must_use]
    pub fn within<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
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

/// The configuration and the name of its context; without a kubeconfig that of `--server`, or of this pod's
/// service account.
async fn configuration(flags: &Flags) -> Result<(Config, String), Error> {
    let kubeconfig = match flags.kubeconfig() {
        Ok(kubeconfig) => kubeconfig,
        Err(error) if flags.need_kubeconfig() => return Err(error.into()),
        Err(error) => {
            if let Some(server) = &flags.server {
                return Ok((Config::new(server.clone()), "of --server".to_owned()));
            }
            let own = Config::incluster().map_err(|_| error)?;
            return Ok((own, "of this pod".to_owned()));
        }
    };
    let context = flags.context.clone().or(kubeconfig.current_context.clone());
    let options = KubeConfigOptions {
        context: flags.context.clone(),
        cluster: flags.cluster.clone(),
        user: flags.user.clone(),
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok((config, context.unwrap_or_default()))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A connection to a server that does not answer.
    pub fn nowhere() -> Connection {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = Config::new(Uri::from_static("http://127.0.0.1:9"));
        Connection {
            client: Client::try_from(config).unwrap(),
            place: Place::default(),
            named_namespace: None,
        }
    }

    fn flags(line: &str) -> Flags {
        use clap::{Args, FromArgMatches};
        let command = Flags::augment_args(clap::Command::new("x").no_binary_name(true));
        Flags::from_arg_matches(&command.get_matches_from(line.split(' '))).unwrap()
    }

    #[test]
    fn flags_override_the_kubeconfig() {
        let mut config = Config::new(Uri::from_static("https://192.0.2.1:6443"));
        config.auth_info.username = Some("alice".into());
        let line = "-s https://192.0.2.2 --token t --as bob --as-uid 7 --request-timeout 5";
        flags(line).apply_to(&mut config);
        assert_eq!(config.cluster_url.host(), Some("192.0.2.2"));
        let user = &config.auth_info;
        assert_eq!(user.username, None, "a token is the only credential");
        assert!(user.token.is_some());
        assert_eq!(user.impersonate.as_deref(), Some("bob"));
        assert_eq!(user.impersonate_uid.as_deref(), Some("7"));
        assert_eq!(config.read_timeout, Some(std::time::Duration::from_secs(5)));

        let before = config.read_timeout;
        flags("--request-timeout 0").apply_to(&mut config);
        assert_eq!(config.read_timeout, before, "0 sets no limit");
    }

    #[test]
    fn an_address_has_a_scheme_and_a_host() {
        for text in ["https://prometheus.example:9090/path", "http://[::1]:9090"] {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in ["localhost:6443", "/path", "ftp://host", ""] {
            assert!(address(text).is_err(), "{text}");
        }
        assert_eq!(timeout("1m30s").unwrap(), Duration::seconds(90));
        assert!(timeout("soon").is_err());
    }
}
