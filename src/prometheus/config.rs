//! The administrator's configuration of Prometheus.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration as StdDuration;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

/// Headers that cannot be configured, since the client sets them.
const RESERVED: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The connection to Prometheus, configured by the administrator, never by a tenant.
#[derive(Clone)]
pub struct PrometheusConfig {
    /// The URL; it may have a path before `/api/v1`.
    pub url: Option<String>,
    /// Further headers of each request, such as the tenant of a store.
    pub headers: Vec<Pair>,
    /// Headers with values from files, read at each use.
    pub header_files: Vec<Pair>,
    /// File with a bearer token, read at each use.
    pub bearer_token_file: Option<PathBuf>,
    /// File with the user name for basic authentication, read at each use.
    pub username_file: Option<PathBuf>,
    /// File with the password for basic authentication, read at each use.
    pub password_file: Option<PathBuf>,
    /// File with the trusted certificate authorities, in PEM; if absent, the system's.
    pub ca_file: Option<PathBuf>,
    /// File with the client certificate, in PEM; reloaded when it changes.
    pub certificate_file: Option<PathBuf>,
    /// File with the key of the client certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// Timeout of a response, including the wait for other queries.
    pub timeout: StdDuration,
    /// Time after a window's end until its samples are available.
    pub lag: StdDuration,
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self {
            url: None,
            headers: Vec::new(),
            header_files: Vec::new(),
            bearer_token_file: None,
            username_file: None,
            password_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            timeout: StdDuration::from_secs(10),
            lag: StdDuration::from_secs(30),
        }
    }
}

/// `NAME=VALUE` as configured. It may be a secret, so `Debug` hides it.
#[derive(Clone)]
pub struct Pair(String);

impl From<&str> for Pair {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(…)")
    }
}

/// A wrong setting. Messages never contain the URL or a header's value, which may be secrets.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL does not parse.
    #[error(
        "the address of Prometheus (--prometheus-url) is not a URL ({0}): write it as `http://host:9090`"
    )]
    Url(String),
    /// The URL has another scheme.
    #[error("the address of Prometheus (--prometheus-url) must begin with `http://` or `https://`")]
    Scheme,
    /// The URL holds a user or password.
    #[error(
        "the address of Prometheus (--prometheus-url) holds a user name or password, which would end up in logs: put them in files and name those with --prometheus-username-file and --prometheus-password-file, or --prometheus-token-file"
    )]
    UserInfo,
    /// The URL has a query or fragment.
    #[error(
        "the address of Prometheus (--prometheus-url) has a query or fragment: leave out everything from `?` or `#` on"
    )]
    Query,
    /// The URL is link-local, where clouds serve machine credentials.
    #[error(
        "the address of Prometheus (--prometheus-url) is link-local, where clouds keep credentials: use its Service"
    )]
    LinkLocal,
    /// A header is not `NAME=VALUE`, or either part cannot be sent.
    #[error(
        "the {nth}. header for Prometheus ({flag}) is not `NAME={what}` with a name and a value that HTTP allows"
    )]
    Header {
        /// The option.
        flag: &'static str,
        /// Which one, from 1.
        nth: usize,
        /// What belongs on the right.
        what: &'static str,
    },
    /// The header holds credentials, which have options of their own.
    #[error(
        "the header `authorization` for Prometheus is not to be given by {0}: name a file with --prometheus-token-file, or --prometheus-username-file and --prometheus-password-file"
    )]
    Authorization(&'static str),
    /// The client writes the header itself.
    #[error("the header `{name}` for Prometheus cannot be set: leave it out of {flag}")]
    ReservedHeader {
        /// The option.
        flag: &'static str,
        /// The header.
        name: HeaderName,
    },
    /// A header is given twice.
    #[error(
        "the header `{0}` for Prometheus is given twice by --prometheus-header and --prometheus-header-file: keep one"
    )]
    TwiceTheHeader(HeaderName),
    /// There are credentials of both kinds.
    #[error(
        "Prometheus cannot be given a bearer token and a password: keep --prometheus-token-file, or --prometheus-username-file with --prometheus-password-file"
    )]
    TwoCredentials,
    /// Half of the pair for basic authentication is missing.
    #[error(
        "basic authentication at Prometheus needs both --prometheus-username-file and --prometheus-password-file"
    )]
    HalfOfBasic,
    /// Half of the client certificate is missing.
    #[error(
        "a client certificate for Prometheus needs both --prometheus-cert-file and --prometheus-key-file"
    )]
    HalfOfCertificate,
    /// A client certificate has no effect without TLS.
    #[error(
        "a client certificate for Prometheus needs TLS: begin --prometheus-url with `https://`, or leave out --prometheus-cert-file and --prometheus-key-file"
    )]
    CertificateWithoutTls,
    /// A file cannot be read.
    #[error("{path}, given by {flag}, cannot be read: give a readable file in PEM")]
    File {
        /// The option.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// There is no certificate in the file.
    #[error(
        "{0} holds no certificate: give --prometheus-ca-file the authorities of Prometheus in PEM"
    )]
    NoCertificate(PathBuf),
    /// The certificate or its key is none, or they do not belong together.
    #[error(
        "the client certificate for Prometheus cannot be used: give --prometheus-cert-file a certificate and --prometheus-key-file its unencrypted key, in PEM"
    )]
    ClientCertificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// TLS cannot be set up.
    #[error(
        "the client for Prometheus cannot be set up: name a file with its certificate authorities (--prometheus-ca-file)"
    )]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The operator's credentials.
#[derive(Clone)]
pub(super) enum Credentials {
    /// Nothing.
    None,
    /// A token in a file.
    Bearer(PathBuf),
    /// A user name and a password, each in a file.
    Basic {
        username: PathBuf,
        password: PathBuf,
    },
}

impl PrometheusConfig {
    pub(super) fn credentials(&self) -> Result<Credentials, ConfigError> {
        match (
            &self.bearer_token_file,
            &self.username_file,
            &self.password_file,
        ) {
            (None, None, None) => Ok(Credentials::None),
            (Some(token), None, None) => Ok(Credentials::Bearer(token.clone())),
            (None, Some(username), Some(password)) => Ok(Credentials::Basic {
                username: username.clone(),
                password: password.clone(),
            }),
            (None, ..) => Err(ConfigError::HalfOfBasic),
            (Some(_), ..) => Err(ConfigError::TwoCredentials),
        }
    }

    /// The files of the client certificate and its key.
    pub(super) fn identity(&self, url: &Url) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        match (&self.certificate_file, &self.key_file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) if url.scheme() != "https" => {
                Err(ConfigError::CertificateWithoutTls)
            }
            (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
            _ => Err(ConfigError::HalfOfCertificate),
        }
    }

    /// The configured headers: those with a value, and those whose value is in a file.
    pub(super) fn all_headers(
        &self,
    ) -> Result<(HeaderMap, Vec<(HeaderName, PathBuf)>), ConfigError> {
        let mut seen = BTreeSet::new();
        let mut headers = HeaderMap::new();
        for (nth, pair) in (1..).zip(&self.headers) {
            let flag = "--prometheus-header";
            let (name, value) = named(pair, flag, "VALUE", nth, &mut seen)?;
            let mut value = HeaderValue::from_str(value).map_err(|_| ConfigError::Header {
                flag,
                nth,
                what: "VALUE",
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let mut files = Vec::new();
        for (nth, pair) in (1..).zip(&self.header_files) {
            let (name, path) = named(pair, "--prometheus-header-file", "FILE", nth, &mut seen)?;
            files.push((name, PathBuf::from(path)));
        }
        Ok((headers, files))
    }
}

fn named<'a>(
    Pair(pair): &'a Pair,
    flag: &'static str,
    what: &'static str,
    nth: usize,
    seen: &mut BTreeSet<String>,
) -> Result<(HeaderName, &'a str), ConfigError> {
    let parts = pair.split_once('=').and_then(|(name, value)| {
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some((name, value.trim())).filter(|(_, value)| !value.is_empty())
    });
    let (name, value) = parts.ok_or(ConfigError::Header { flag, nth, what })?;
    if name == AUTHORIZATION {
        return Err(ConfigError::Authorization(flag));
    }
    if RESERVED.contains(&name.as_str()) {
        return Err(ConfigError::ReservedHeader { flag, name });
    }
    if !seen.insert(name.to_string()) {
        return Err(ConfigError::TwiceTheHeader(name));
    }
    Ok((name, value))
}

pub(super) fn checked(url: &str) -> Result<Url, ConfigError> {
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
