//! The HTTP connection to a channel. Address and credentials are the installer's, read from their files at use.

use std::path::Path;
use std::time::Duration;

use countersign_core::text::sanitize_to;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, Url};

use crate::notify::config::{self, Channel, ConfigError};
use crate::notify::wire::endpoint;
use crate::notify::wire::request::Request;
use crate::timing::NOTIFY_TIMEOUT;

/// Longest pause that a channel may ask for, in seconds.
const LONGEST_PAUSE: u64 = 300;

/// The connection of one channel.
pub(super) struct Connection {
    channel: Channel,
    client: Client,
}

/// Why a request was not taken. No message has an address, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It may be taken later.
    #[error("{message}")]
    Later {
        /// What happened.
        message: String,
        /// The pause that the channel asks for.
        pause: Option<Duration>,
    },
    /// It is refused for what it is.
    #[error("{0}")]
    Refused(String),
}

impl Connection {
    pub(super) fn new(channel: &Channel, ca_file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // No proxy from the environment: it would see the credentials.
            .no_proxy()
            .connect_timeout(NOTIFY_TIMEOUT)
            .user_agent(concat!("countersign-notify/", env!("CARGO_PKG_VERSION")));
        let plain = channel.url.as_deref().map(config::address);
        if matches!(plain, Some(Ok(url)) if url.scheme() == "http") {
            // Without TLS, the image needs no system certificates.
            builder = builder.tls_certs_only([]);
        } else if let Some(path) = ca_file {
            builder = builder.tls_certs_merge(authorities(path)?);
        }
        let client = builder.build();
        Ok(Self {
            channel: channel.clone(),
            client: client.map_err(|error| ConfigError::Client(error.into()))?,
        })
    }

    /// Sends one request; returns once the channel has taken it, or when there is no time left.
    pub(super) async fn post(&self, request: &Request, left: Duration) -> Result<(), Failure> {
        let mut url = self.address().await?;
        if let Some(further) = endpoint(self.channel.kind) {
            let base = url.path().trim_end_matches('/').to_owned();
            url.set_path(&(base + further));
        }
        let mut builder = self
            .client
            .post(url)
            .timeout(left.min(NOTIFY_TIMEOUT))
            .header(CONTENT_TYPE, request.content_type)
            .body(request.body.clone());
        if let Some(path) = &self.channel.authorization_file {
            let value = line("authorizationFile", path).await?;
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| later("authorizationFile must hold one line of text"))?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        let response = builder.send().await;
        judged(&response.map_err(|error| unreachable(&error))?)
    }

    async fn address(&self) -> Result<Url, Failure> {
        let text = match (&self.channel.url, &self.channel.url_file) {
            (Some(url), _) => url.clone(),
            (None, Some(path)) => line("urlFile", path).await?,
            (None, None) => String::new(),
        };
        config::address(&text).map_err(|problem| later(&format!("the address {problem}")))
    }
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, ConfigError> {
    let pem = std::fs::read(path).map_err(|source| ConfigError::File {
        field: "caFile",
        path: path.to_owned(),
        source,
    })?;
    let authorities = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if authorities.is_empty() {
        return Err(ConfigError::NoCertificate(path.to_owned()));
    }
    Ok(authorities)
}

/// What a response states: 2xx took the message; 400, 413 and 422 refuse it for what it is; all others may change.
fn judged(response: &Response) -> Result<(), Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let hint = if status.is_redirection() {
        " (redirects are not followed)"
    } else {
        ""
    };
    let message = format!(
        "the channel answered with HTTP status {}{hint}",
        status.as_u16()
    );
    let refusals = [
        StatusCode::BAD_REQUEST,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::UNPROCESSABLE_ENTITY,
    ];
    if refusals.contains(&status) {
        return Err(Failure::Refused(message));
    }
    let pause = response.headers().get(RETRY_AFTER);
    let pause = pause.and_then(|it| it.to_str().ok()?.parse().ok());
    let pause = pause.map(|seconds: u64| Duration::from_secs(seconds.min(LONGEST_PAUSE)));
    Err(Failure::Later { message, pause })
}

/// The single line of a file, without its line end.
async fn line(field: &str, path: &Path) -> Result<String, Failure> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|error| later(&format!("{field} cannot be read: {error}")))?;
    Ok(text.trim().to_owned())
}

fn later(message: &str) -> Failure {
    Failure::Later {
        message: message.to_owned(),
        pause: None,
    }
}

fn unreachable(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return later("the channel gave no answer in time");
    }
    // The innermost cause is specific; the outer ones repeat the address.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let cause = sanitize_to(&cause.to_string(), 200);
    later(&format!("the channel cannot be reached: {cause}"))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::http::StatusCode as Code;
    use axum::routing::post;

    use super::*;
    use crate::notify::config::ChannelKind;

    async fn answer(State(code): State<u16>, headers: HeaderMap) -> (Code, HeaderMap) {
        let mut answered = HeaderMap::new();
        answered.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        let known = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let code = if known == Some(&b"Bearer a"[..]) {
            code
        } else {
            401
        };
        (Code::from_u16(code).unwrap(), answered)
    }

    fn connection(channel: &Channel) -> Connection {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Connection::new(channel, None).unwrap()
    }

    /// What a channel that answers with this code makes of a request to this path.
    async fn posted(code: u16, kind: ChannelKind, token: &str) -> Result<(), Failure> {
        let app = Router::new()
            .route("/hook", post(answer))
            .route("/hook/api/v2/alerts", post(answer))
            .with_state(code);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let name = format!(
            "countersign-notify-{}-{}",
            std::process::id(),
            address.port()
        );
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, format!("{token}\n")).unwrap();
        let channel = Channel {
            kind,
            url: Some(format!("http://{address}/hook")),
            url_file: None,
            authorization_file: Some(file.clone()),
        };
        let connection = connection(&channel);
        let request = Request {
            content_type: "application/json",
            body: "{}".to_owned(),
        };
        let result = connection.post(&request, NOTIFY_TIMEOUT).await;
        serving.abort();
        std::fs::remove_file(file).unwrap();
        result
    }

    #[tokio::test]
    async fn an_answer_takes_refuses_or_asks_to_come_back() {
        for kind in [ChannelKind::Alertmanager, ChannelKind::Webhook] {
            assert_eq!(posted(200, kind, "Bearer a").await, Ok(()));
        }
        let refused = posted(400, ChannelKind::Slack, "Bearer a").await;
        assert!(matches!(refused, Err(Failure::Refused(_))), "{refused:?}");
        for (code, token) in [
            (429, "Bearer a"),
            (500, "Bearer a"),
            (302, "Bearer a"),
            (200, "b"),
        ] {
            let later = posted(code, ChannelKind::Webhook, token).await;
            let seven = Some(Duration::from_secs(7));
            let fits = matches!(&later, Err(Failure::Later { pause, .. }) if *pause == seven);
            assert!(fits, "{code}: {later:?}");
        }
    }

    #[tokio::test]
    async fn a_request_ends_when_no_time_is_left() {
        // It accepts connections and answers none.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connection = connection(&Channel {
            kind: ChannelKind::Webhook,
            url: Some(format!("http://{address}/")),
            url_file: None,
            authorization_file: None,
        });
        let request = Request {
            content_type: "application/json",
            body: String::new(),
        };
        let left = Duration::from_millis(50);
        let failure = connection.post(&request, left).await.unwrap_err();
        assert_eq!(failure, later("the channel gave no answer in time"));
    }

    #[tokio::test]
    async fn a_failure_does_not_show_the_address() {
        let channel = Channel {
            kind: ChannelKind::Slack,
            // Nothing listens on this port.
            url: Some("http://127.0.0.1:1/services/secret".to_owned()),
            url_file: None,
            authorization_file: None,
        };
        let connection = connection(&channel);
        let request = Request {
            content_type: "application/json",
            body: String::new(),
        };
        let failure = connection.post(&request, NOTIFY_TIMEOUT).await;
        let failure = failure.unwrap_err().to_string();
        assert!(
            failure.starts_with("the channel cannot be reached: "),
            "{failure}"
        );
        assert!(!failure.contains("secret"), "{failure}");
    }
}
