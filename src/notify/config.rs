//! The installer's configuration: which channels there are, and where they lead. No object of a tenant has an address.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use countersign_api::Duration;
use reqwest::Url;
use serde::Deserialize;

/// The configuration file, in YAML.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The cluster's name in every message.
    pub cluster: String,
    /// Channels of Rollouts that choose none, of Freezes, and of what no Rollout keeps to itself.
    #[serde(default)]
    pub default_channels: Vec<String>,
    /// For how long a change is held before a message.
    #[serde(default = "an_hour")]
    pub held_longer_than: Duration,
    /// Path to certificate authorities in PEM, which are trusted beside the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The channels by their names.
    #[serde(default)]
    pub channels: BTreeMap<String, Channel>,
}

/// One channel.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channel {
    /// What it speaks.
    pub kind: ChannelKind,
    /// Its address.
    #[serde(default)]
    pub url: Option<String>,
    /// Path to a file with the address, if that is a secret, as that of a Slack webhook; read at each use.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// Path to a file with the value of the header `Authorization`, such as `Bearer …`; read at each use.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
}

/// What a channel speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// The API of Prometheus' Alertmanager.
    Alertmanager,
    /// CloudEvents over HTTP, with CDEvents beside them.
    CloudEvents,
    /// An incoming webhook of Slack.
    Slack,
    /// Any other HTTP server: one JSON object a message.
    Webhook,
}

const fn an_hour() -> Duration {
    Duration::minutes(60)
}

/// What is wrong with the configuration. No message has an address, which may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path}, given by {field}, cannot be read: give a readable file")]
    File {
        /// The option or field that names it.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// It is no YAML of this form.
    #[error("{path}, given by --config, cannot be used: {problem}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The problem, with its place.
        problem: String,
    },
    /// The cluster's name does not fit into a URI.
    #[error("cluster: name the cluster by letters, digits, `.`, `_` and `-`: each message has it")]
    Cluster,
    /// A channel's name cannot be chosen by an annotation.
    #[error("channels.{0}: name a channel by lower-case letters, digits and `-`")]
    Name(String),
    /// A default channel is not configured.
    #[error("defaultChannels: there is no channel `{0}`: add it to channels, or leave it out")]
    Unknown(String),
    /// A channel has no address, or two.
    #[error("channels.{0}: set either url or urlFile")]
    OneAddress(String),
    /// An address cannot be used.
    #[error("channels.{channel}.url {problem}")]
    Address {
        /// The channel.
        channel: String,
        /// The problem and its remedy.
        problem: &'static str,
    },
    /// There is no certificate in the file.
    #[error("{0} holds no certificate: give caFile certificate authorities in PEM")]
    NoCertificate(PathBuf),
    /// TLS cannot be set up.
    #[error("the HTTP client cannot be set up: name a file with certificate authorities (caFile)")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Config {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            field: "--config",
            path: path.to_owned(),
            source,
        })?;
        let format = |problem: String| ConfigError::Format {
            path: path.to_owned(),
            problem,
        };
        let config: Self =
            serde_saphyr::from_str(&text).map_err(|error| format(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.cluster.is_empty() || !self.cluster.chars().all(fits) {
            return Err(ConfigError::Cluster);
        }
        for (name, channel) in &self.channels {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
                return Err(ConfigError::Name(name.clone()));
            }
            if channel.url.is_some() == channel.url_file.is_some() {
                return Err(ConfigError::OneAddress(name.clone()));
            }
            let problem = channel.url.as_deref().map(address).and_then(Result::err);
            if let Some(problem) = problem {
                return Err(ConfigError::Address {
                    channel: name.clone(),
                    problem,
                });
            }
        }
        let mut defaults = self.default_channels.iter();
        let unknown = defaults.find(|it| !self.channels.contains_key(*it));
        unknown.map_or(Ok(()), |it| Err(ConfigError::Unknown(it.clone())))
    }
}

/// An address, or what is wrong with it.
pub(super) fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a URL: write it as `https://host/path`")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with `http://` or `https://`");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password: put credentials into authorizationFile");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::ChannelKind::{Alertmanager, CloudEvents, Slack, Webhook};
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let config: Config = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_configuration_names_channels_of_each_kind() {
        let config = read(
            "
cluster: prod-eu
defaultChannels: [alerts]
heldLongerThan: 30m
channels:
  alerts: { kind: alertmanager, url: 'http://alertmanager.monitoring:9093' }
  bus: { kind: cloudevents, url: 'https://events.example/', authorizationFile: /secret/bus }
  team-a: { kind: slack, urlFile: /secret/team-a }
  other: { kind: webhook, url: 'http://10.0.0.1:8080/hook?token=a' }
",
        )
        .unwrap();
        let kinds: Vec<_> = config.channels.values().map(|it| it.kind).collect();
        assert_eq!(kinds, [Alertmanager, CloudEvents, Webhook, Slack]);
        assert_eq!(config.held_longer_than, Duration::minutes(30));
        let least = read("cluster: a").unwrap();
        assert_eq!(least.held_longer_than, Duration::minutes(60));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field_and_without_its_address() {
        let one = |channel: &str| format!("cluster: a\nchannels:\n  one: {channel}");
        for (text, problem) in [
            ("cluster: a/b".to_owned(), "cluster: name the cluster"),
            (
                "cluster: a\ndefaultChannels: [two]".to_owned(),
                "defaultChannels: there is no channel `two`",
            ),
            (
                "cluster: a\nchannels: { A: { kind: slack, urlFile: /a } }".to_owned(),
                "channels.A: name a channel",
            ),
            (one("{ kind: slack }"), "channels.one: set either"),
            (
                one("{ kind: slack, url: 'http://a', urlFile: /a }"),
                "channels.one: set either",
            ),
            (
                one("{ kind: slack, url: 'ftp://secret' }"),
                "channels.one.url must begin with",
            ),
            (
                one("{ kind: slack, url: 'http://u:secret@a' }"),
                "channels.one.url holds a user name",
            ),
            (one("{ kind: pager, url: 'http://a' }"), "pager"),
            (one("{ kind: slack, uri: 'http://a' }"), "uri"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
