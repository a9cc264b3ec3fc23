//! Queries Prometheus for its series, through the API server's proxy of its Service or directly.

use std::str::FromStr;

use countersign_core::text::sanitize_to;
use form_urlencoded::Serializer;
use http::{Request, Uri};
use kube::{Client, Config};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::clock;
use crate::cluster::connection::Connection;
use crate::cluster::refusal::{Place, Refusal};
use crate::commands::check::series::Series;

/// How far back a label or a value may be, in seconds.
const LOOK_BACK: i64 = 3600;
/// Most labels or values of one answer; a Prometheus before 2.52 knows no limit.
const LIMIT: &str = "100";

/// Why Prometheus does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator names no Prometheus.
    #[error(
        "the Deployment of the operator names no Prometheus: name it by --prometheus NAMESPACE/SERVICE:PORT or --prometheus-url"
    )]
    Unnamed,
    /// The operator's Prometheus is not a Service of this cluster.
    #[error(
        "the operator's Prometheus at {0} is not a Service of this cluster: name it by --prometheus NAMESPACE/SERVICE:PORT or --prometheus-url"
    )]
    Elsewhere(String),
    /// The address holds credentials.
    #[error(
        "--prometheus-url holds a user name or a password, which findings would show: leave it out, or name the Service by --prometheus"
    )]
    UserInfo,
    /// A client for the address cannot be made.
    #[error("no client can be made for Prometheus at {at}: {why}")]
    Client {
        /// The address.
        at: String,
        /// Why.
        why: String,
    },
    /// The request failed.
    #[error("Prometheus at {at} does not answer: {source}")]
    Request {
        /// The address.
        at: String,
        /// Why.
        #[source]
        source: Box<Refusal>,
    },
    /// The answer is not one of Prometheus.
    #[error("{at} gives no answer of Prometheus: {why}")]
    Answer {
        /// The address.
        at: String,
        /// What is wrong.
        why: String,
    },
}

/// A Service as `NAMESPACE/SERVICE:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    namespace: String,
    name: String,
    port: String,
    is_tls: bool,
    path: String,
}

impl FromStr for ServiceAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').and_then(|(namespace, rest)| {
            let (name, port) = rest.split_once(':')?;
            Some([namespace, name, port])
        });
        let is_name = |part: &str| {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !part.is_empty() && part.chars().all(allowed)
        };
        match parts {
            Some(parts @ [namespace, name, port]) if parts.into_iter().all(is_name) => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                port: port.to_owned(),
                is_tls: false,
                path: String::new(),
            }),
            _ => Err("write NAMESPACE/SERVICE:PORT, such as monitoring/prometheus:9090".into()),
        }
    }
}

impl ServiceAddress {
    /// The Service that a URL within the cluster names, such as `http://prometheus.monitoring:9090`.
    fn of_url(url: &Uri) -> Option<Self> {
        let mut labels = url.host()?.split('.');
        let (name, namespace) = (labels.next()?, labels.next()?);
        let suffix: Vec<_> = labels.collect();
        let in_cluster = matches!(
            suffix.as_slice(),
            [] | ["svc"] | ["svc", "cluster", "local"]
        );
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let address: Self = format!("{namespace}/{name}:{port}").parse().ok()?;
        in_cluster.then(|| Self {
            is_tls,
            path: url.path().trim_end_matches('/').to_owned(),
            ..address
        })
    }

    /// The path of its proxy at the API server.
    fn proxy(&self) -> String {
        let scheme = if self.is_tls { "https:" } else { "" };
        format!(
            "/api/v1/namespaces/{}/services/{scheme}{}:{}/proxy{}",
            self.namespace, self.name, self.port, self.path
        )
    }
}

/// A Prometheus.
pub struct Prometheus {
    client: Client,
    path: String,
    place: Place,
    at: String,
}

impl Prometheus {
    /// A Service of the cluster, through the API server.
    #[must_use]
    pub fn proxied(connection: &Connection, service: &ServiceAddress) -> Self {
        Self {
            client: connection.client(),
            path: service.proxy(),
            place: connection.place().clone(),
            at: format!("{}/{}:{}", service.namespace, service.name, service.port),
        }
    }

    /// A URL, directly and without the user's credentials.
    pub fn direct(url: &Uri) -> Result<Self, Error> {
        if url.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(Error::UserInfo);
        }
        let at = url.to_string();
        let client = Client::try_from(Config::new(url.clone()));
        let client = client.map_err(|error| Error::Client {
            at: at.clone(),
            why: error.to_string(),
        })?;
        Ok(Self {
            client,
            path: String::new(),
            place: Place {
                server: at.clone(),
                context: "of --prometheus-url".into(),
                namespace: String::new(),
            },
            at,
        })
    }

    /// The operator's, if that is a Service of the cluster.
    pub fn of_operator(connection: &Connection, url: Option<&str>) -> Result<Self, Error> {
        let url = url.ok_or(Error::Unnamed)?;
        let parsed: Option<Uri> = url.parse().ok();
        let service = parsed.as_ref().and_then(ServiceAddress::of_url);
        // The host alone, since credentials may stand before it.
        let host = parsed
            .as_ref()
            .and_then(Uri::host)
            .unwrap_or("an unreadable address");
        let service = service.ok_or_else(|| Error::Elsewhere(sanitize_to(host, 200)))?;
        Ok(Self::proxied(connection, &service))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, Error> {
        let query = Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        let uri = format!("{}/api/v1/{path}?{query}", self.path);
        let answer = |why: String| Error::Answer {
            at: self.at.clone(),
            why: sanitize_to(&why, 200),
        };
        let request = Request::get(uri)
            .body(Vec::new())
            .map_err(|error| answer(error.to_string()))?;
        let text = self.client.request_text(request).await;
        let text = text.map_err(|error| Error::Request {
            at: self.at.clone(),
            source: Box::new(Refusal::of(&error, &self.place)),
        })?;
        let reply: Reply<T> =
            serde_json::from_str(&text).map_err(|error| answer(error.to_string()))?;
        Ok(reply.data)
    }

    /// The names of labels or the values of one, of these series.
    async fn names(&self, path: &str, selector: &str) -> Result<Vec<String>, Error> {
        let start = (clock::now().as_second() - LOOK_BACK).to_string();
        let parameters = [
            ("match[]", selector),
            ("start", start.as_str()),
            ("limit", LIMIT),
        ];
        self.get(path, &parameters).await
    }
}

/// An answer of Prometheus' API.
#[derive(Deserialize)]
struct Reply<T> {
    data: T,
}

/// The answer to an instant query.
#[derive(Deserialize)]
struct Vector {
    result: Vec<serde::de::IgnoredAny>,
}

impl Series for Prometheus {
    type Error = Error;

    async fn exist(&self, selector: &str) -> Result<bool, Error> {
        let query = format!("count({selector})");
        let vector: Vector = self.get("query", &[("query", query.as_str())]).await?;
        Ok(!vector.result.is_empty())
    }

    async fn labels(&self, selector: &str) -> Result<Vec<String>, Error> {
        self.names("labels", selector).await
    }

    async fn values(&self, label: &str, selector: &str) -> Result<Vec<String>, Error> {
        self.names(&format!("label/{label}/values"), selector).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_by_namespace_name_and_port() {
        let service: ServiceAddress = "monitoring/prometheus:9090".parse().unwrap();
        assert_eq!(
            service.proxy(),
            "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy"
        );
        for wrong in ["prometheus:9090", "a/b", "a/b:", "a/b:c/d", "a/../b:1", ""] {
            assert!(wrong.parse::<ServiceAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_url_with_a_password_is_refused_and_not_shown() {
        let url = Uri::from_static("http://alice:secret@prometheus.example:9090");
        let refused = Prometheus::direct(&url).err().unwrap();
        assert!(matches!(refused, Error::UserInfo));
        assert!(!refused.to_string().contains("secret"));
    }

    #[test]
    fn the_service_of_a_url_is_proxied_and_no_other_address() {
        let proxy = |url: &str| {
            let url: Uri = url.parse().unwrap();
            Some(ServiceAddress::of_url(&url)?.proxy())
        };
        for (url, path) in [
            (
                "http://mimir.metrics/prometheus/",
                "mimir:80/proxy/prometheus",
            ),
            (
                "https://mimir.metrics.svc.cluster.local:8443",
                "https:mimir:8443/proxy",
            ),
        ] {
            let expected = format!("/api/v1/namespaces/metrics/services/{path}");
            assert_eq!(proxy(url), Some(expected));
        }
        for url in [
            "http://127.0.0.1:9090",
            "https://prometheus.example.com",
            "http://localhost:9090",
            "http://[::1]:9090",
        ] {
            assert_eq!(proxy(url), None, "{url}");
        }
    }
}
