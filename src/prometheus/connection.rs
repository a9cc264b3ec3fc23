//! The HTTP connection to Prometheus: certificates, credentials and headers, each read from its file at
//! use.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration as StdDuration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_core::observation::windows::Unanswered;
use prometheus_http_query::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Identity, Response, Url};

use super::config::{self, ConfigError, Credentials, PrometheusConfig};
use crate::prometheus::failure::Failure;
use crate::prometheus::request::Request;

/// The HTTP connection.
pub(super) struct Connection {
    url: Url,
    timeout: StdDuration,
    headers: HeaderMap,
    header_files: Vec<(HeaderName, PathBuf)>,
    credentials: Credentials,
    ca_file: Option<PathBuf>,
    identity_files: Option<(PathBuf, PathBuf)>,
    /// The client and its certificates.
    current: Mutex<(Certificates, Client)>,
}

/// The content of the TLS files.
#[derive(Clone, PartialEq, Eq)]
struct Certificates {
    authorities: Option<Vec<u8>>,
    /// The client certificate after its key.
    identity: Option<Vec<u8>>,
}

impl Connection {
    pub(super) fn new(url: &str, config: &PrometheusConfig) -> Result<Self, ConfigError> {
        let url = config::checked(url)?;
        let (headers, header_files) = config.all_headers()?;
        let credentials = config.credentials()?;
        let identity_files = config.identity(&url)?;
        let ca_file = config.ca_file.clone();
        let certificates = Certificates::read(ca_file.as_deref(), identity_files.as_ref())?;
        let timeout = config.timeout;
        let client = client(&url, &headers, timeout, ca_file.as_deref(), &certificates)?;
        Ok(Self {
            url,
            timeout,
            headers,
            header_files,
            credentials,
            ca_file,
            identity_files,
            current: Mutex::new((certificates, client)),
        })
    }

    /// Sends one request; the body of the response is not read yet.
    pub(super) async fn send(&self, request: &Request) -> Result<Response, Failure> {
        let timeout = i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX);
        let client = self.client().await;
        let headers = self.secret_headers().await?;
        // VictoriaMetrics shifts times unless these are set; others ignore them.
        let exact = [("nocache", "1"), ("latency_offset", "1ms")];
        let sent = match request {
            Request::At { query, time } => {
                let mut builder = client.query(query).at(*time).timeout(timeout);
                for (name, value) in exact {
                    builder = builder.query(name, value);
                }
                for (name, value) in headers {
                    builder = builder.header(name, value);
                }
                builder.post_raw().await
            }
            Request::Steps {
                query,
                start,
                end,
                step,
            } => {
                let mut builder =
                    client.query_range(query, *start, *end, super::window::seconds(*step));
                builder = builder.timeout(timeout);
                for (name, value) in exact {
                    builder = builder.query(name, value);
                }
                for (name, value) in headers {
                    builder = builder.header(name, value);
                }
                builder.post_raw().await
            }
        };
        sent.map_err(|error| Failure::unreachable(&error))
    }

    /// The client with current certificates, which are renewed in place.
    async fn client(&self) -> Client {
        let current = || self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let known = current().clone();
        if self.ca_file.is_none() && self.identity_files.is_none() {
            return known.1;
        }
        let (ca_file, identity) = (self.ca_file.clone(), self.identity_files.clone());
        let read = move || Certificates::read(ca_file.as_deref(), identity.as_ref());
        let Ok(Ok(certificates)) = tokio::task::spawn_blocking(read).await else {
            return known.1;
        };
        if certificates == known.0 {
            return known.1;
        }
        let made = client(
            &self.url,
            &self.headers,
            self.timeout,
            self.ca_file.as_deref(),
            &certificates,
        );
        match made {
            Ok(client) => {
                tracing::info!("the certificates for Prometheus were renewed");
                *current() = (certificates, client.clone());
                client
            }
            // The files may be half-written; the client in use is valid until its certificate expires.
            Err(error) => {
                tracing::warn!(%error, "the new certificates for Prometheus cannot be used");
                known.1
            }
        }
    }

    /// Headers whose values are in files, read now.
    async fn secret_headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        let mut headers = Vec::new();
        for (name, path) in &self.header_files {
            let what = format!("the header `{name}`");
            let value = line(&what, path).await?;
            headers.push((name.clone(), sensitive(&what, path, &value)?));
        }
        match &self.credentials {
            Credentials::None => {}
            Credentials::Bearer(path) => {
                let what = "the bearer token";
                let token = line(what, path).await?;
                let value = sensitive(what, path, &format!("Bearer {}", token.trim()))?;
                headers.push((AUTHORIZATION, value));
            }
            Credentials::Basic { username, password } => {
                let user = line("the user name", username).await?;
                if user.contains(':') {
                    return Err(unusable("the user name", username, "must not hold a colon"));
                }
                let secret = line("the password", password).await?;
                let value = format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")));
                headers.push((AUTHORIZATION, sensitive("the password", password, &value)?));
            }
        }
        Ok(headers)
    }
}

/// The single line of a file, without its line end.
async fn line(what: &str, path: &Path) -> Result<String, Failure> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|error| unusable(what, path, &format!("cannot be read: {error}")))?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() || line.contains(['\r', '\n']) {
        return Err(unusable(what, path, "must be one line of text"));
    }
    Ok(line.to_owned())
}

fn sensitive(what: &str, path: &Path, value: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| unusable(what, path, "must be one line of text"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unusable(what: &str, path: &Path, why: &str) -> Failure {
    let message = format!("{what} for Prometheus in {} {why}", path.display());
    Failure::new(Unanswered::PrometheusUnreachable, message)
}

impl Certificates {
    fn read(
        ca_file: Option<&Path>,
        identity: Option<&(PathBuf, PathBuf)>,
    ) -> Result<Self, ConfigError> {
        let read = |flag, path: &Path| {
            std::fs::read(path).map_err(|source| ConfigError::File {
                flag,
                path: path.to_owned(),
                source,
            })
        };
        let authorities = ca_file.map(|path| read("--prometheus-ca-file", path));
        let identity = identity.map(|(certificate, key)| {
            let mut pem = read("--prometheus-key-file", key)?;
            pem.push(b'\n');
            pem.extend(read("--prometheus-cert-file", certificate)?);
            Ok(pem)
        });
        Ok(Self {
            authorities: authorities.transpose()?,
            identity: identity.transpose()?,
        })
    }
}

fn client(
    url: &Url,
    headers: &HeaderMap,
    timeout: StdDuration,
    ca_file: Option<&Path>,
    certificates: &Certificates,
) -> Result<Client, ConfigError> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // No proxy from the environment: it would see the credentials.
        .no_proxy()
        .connect_timeout(timeout)
        .default_headers(headers.clone())
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")));
    match &certificates.authorities {
        Some(pem) => {
            let authorities = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if authorities.is_empty() {
                let path = ca_file.unwrap_or(Path::new("")).to_owned();
                return Err(ConfigError::NoCertificate(path));
            }
            builder = builder.tls_certs_only(authorities);
        }
        // Without TLS, the image needs no system certificates.
        None if url.scheme() == "http" => builder = builder.tls_certs_only([]),
        None => {}
    }
    let has_identity = certificates.identity.is_some();
    if let Some(pem) = &certificates.identity {
        let identity = Identity::from_pem(pem);
        let identity = identity.map_err(|error| ConfigError::ClientCertificate(error.into()))?;
        builder = builder.identity(identity);
    }
    let client = builder.build().map_err(|error| {
        if has_identity {
            ConfigError::ClientCertificate(error.into())
        } else {
            ConfigError::Client(error.into())
        }
    })?;
    let client = Client::from(client, url.as_str());
    client.map_err(|error| ConfigError::Client(error.into()))
}
