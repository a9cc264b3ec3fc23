//! Why a request to Prometheus has no valid response.

use countersign_core::analysis::query::form::Field;
use countersign_core::analysis::query::problem::QueryError;
use countersign_core::observation::windows::Unanswered;
use countersign_core::text::sanitize_to;
use reqwest::StatusCode;

/// Why there is no valid response.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The reason.
    pub reason: Unanswered,
    /// The message.
    pub message: String,
    /// Whether the answer was too large, so that one about less time may do.
    pub is_too_large: bool,
}

impl Failure {
    pub(super) fn new(reason: Unanswered, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            is_too_large: false,
        }
    }

    pub(super) fn unreachable(error: &(dyn std::error::Error + 'static)) -> Self {
        // The innermost cause is specific; the outer ones repeat the URL.
        let cause = std::iter::successors(Some(error), |error| error.source()).last();
        let cause = cause.unwrap_or(error).to_string();
        Self::new(
            Unanswered::PrometheusUnreachable,
            format!("Prometheus cannot be reached: {}", sanitize_to(&cause, 200)),
        )
    }

    pub(super) fn unreadable(what: impl std::fmt::Display) -> Self {
        let message = format!("the answer cannot be read: {what}");
        Self::new(Unanswered::UnreadableAnswer, message)
    }

    pub(super) fn too_large(what: impl std::fmt::Display) -> Self {
        Self {
            is_too_large: true,
            ..Self::unreadable(what)
        }
    }

    pub(super) fn about(self, arm: &str, field: Field) -> Self {
        Self {
            message: format!("{arm}: the query `{field}`: {}", self.message),
            ..self
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self::new(Unanswered::InvalidQuery, error.to_string())
    }
}

pub(super) fn refused(status: StatusCode, kind: Option<&str>) -> Failure {
    let kind = kind.map(|kind| format!(" and the error type `{}`", sanitize_to(kind, 40)));
    let hint = if status.is_redirection() {
        " (redirects are not followed)"
    } else {
        ""
    };
    let message = format!(
        "Prometheus answered with HTTP status {}{}{hint}",
        status.as_u16(),
        kind.unwrap_or_default()
    );
    Failure::new(Unanswered::PrometheusError, message)
}
