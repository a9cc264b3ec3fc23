//! Why a reconcile fails, and how each failure is retried.

use std::time::Duration;

use kube::core::Status;

use crate::act;
use crate::api_server::sentence;
use crate::timing::RECONCILE_TIMEOUT;

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Rollout or its surroundings could not be read.
    #[error("the Rollout or its surroundings could not be read: {}", sentence(.0))]
    Read(#[source] Box<kube::Error>),
    /// The decision could not be carried out.
    #[error(transparent)]
    Write(#[from] act::Error),
    /// The reconcile timed out.
    #[error("it took longer than {RECONCILE_TIMEOUT:?}")]
    TimedOut,
    /// The reconcile panicked, which is a bug; other Rollouts continue.
    #[error("it panicked, which is a defect of the operator")]
    Panicked,
}

impl Error {
    /// The class of the error, which selects the retry.
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Write(error) if error.is_conflict() => Class::Conflict,
            Self::Write(act::Error::InvalidRevision { .. }) | Self::Panicked => Class::Terminal,
            Self::Write(
                act::Error::NotLeading(_)
                | act::Error::Refused { .. }
                | act::Error::NameTaken { .. },
            )
            | Self::Read(_)
            | Self::TimedOut => Class::Transient,
        }
    }

    /// Whether the API server did not answer, or could not, which says nothing about this Rollout.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Read(source) | Self::Write(act::Error::Refused { source, .. }) => match &**source
            {
                kube::Error::Api(status) => status.code == 429 || status.code >= 500,
                kube::Error::SerdeError(_) => false,
                _ => true,
            },
            Self::Write(_) | Self::Panicked => false,
        }
    }

    /// The label of the `reconcile` metric.
    pub(super) fn result(&self) -> &'static str {
        match (self, self.class()) {
            (_, Class::Conflict) => "conflict",
            (Self::Read(_), _) => "read_error",
            (Self::Write(_), _) => "write_error",
            (Self::TimedOut, _) => "timeout",
            (Self::Panicked, _) => "panic",
        }
    }

    pub(super) fn invalid_revision(&self) -> Option<&str> {
        match self {
            Self::Write(error) => error.invalid_revision(),
            Self::Read(_) | Self::TimedOut | Self::Panicked => None,
        }
    }

    pub(super) fn taken_revision(&self) -> Option<&str> {
        match self {
            Self::Write(error) => error.taken_revision(),
            Self::Read(_) | Self::TimedOut | Self::Panicked => None,
        }
    }

    /// How long the API server, which has too much to do, wants no further requests; zero otherwise.
    pub(super) fn pushback(&self) -> Duration {
        let is_pushback = self
            .status()
            .is_some_and(|it| [429, 503].contains(&it.code));
        if is_pushback {
            self.retry_after()
        } else {
            Duration::ZERO
        }
    }

    /// The API server's Retry-After; zero if there is none.
    pub(super) fn retry_after(&self) -> Duration {
        let Some(status) = self.status() else {
            return Duration::ZERO;
        };
        let details = status.details.as_ref();
        Duration::from_secs(details.map_or(0, |it| it.retry_after_seconds.into()))
    }

    /// What the API server answered.
    fn status(&self) -> Option<&Status> {
        let (Self::Read(source) | Self::Write(act::Error::Refused { source, .. })) = self else {
            return None;
        };
        let kube::Error::Api(status) = &**source else {
            return None;
        };
        Some(status)
    }
}

/// How an error is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Retry with backoff.
    Transient,
    /// Read again at once.
    Conflict,
    /// Needs another spec or build; retried anyway, in case the cluster changes.
    Terminal,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy_details() -> kube::core::response::StatusDetails {
        serde_json::from_value(serde_json::json!({ "retryAfterSeconds": 7 })).unwrap()
    }

    #[test]
    fn an_outage_is_no_answer_to_a_rollout() {
        let read = |code: u16| {
            let status = Status::failure("no", "Reason").with_code(code);
            Error::Read(Box::new(kube::Error::Api(Box::new(status))))
        };
        let malformed = serde_json::from_str::<u8>("x").unwrap_err();
        assert!(!Error::Read(Box::new(kube::Error::SerdeError(malformed))).is_outage());
        assert!(Error::TimedOut.is_outage());
        assert!([429, 500, 503].into_iter().all(|it| read(it).is_outage()));
        assert!(![403, 404, 422].into_iter().any(|it| read(it).is_outage()));
    }

    #[test]
    fn the_retry_after_of_the_api_server_is_respected() {
        let busy = Status::failure("too many requests", "TooManyRequests")
            .with_code(429)
            .with_details(busy_details());
        let busy = || Box::new(kube::Error::Api(Box::new(busy.clone())));
        assert_eq!(Error::Read(busy()).retry_after(), Duration::from_secs(7));
        let refused = act::Error::Refused {
            target: act::Target::Status,
            rollout: "shop/web".into(),
            source: busy(),
        };
        let refused = Error::Write(refused);
        assert_eq!(refused.retry_after(), Duration::from_secs(7));
        assert_eq!(refused.pushback(), Duration::from_secs(7));
        let denied = Status::failure("a webhook denies it", "Forbidden")
            .with_code(403)
            .with_details(busy_details());
        let denied = Error::Read(Box::new(kube::Error::Api(Box::new(denied))));
        assert_eq!(denied.pushback(), Duration::ZERO);
        assert_eq!(Error::TimedOut.retry_after(), Duration::ZERO);
    }
}
