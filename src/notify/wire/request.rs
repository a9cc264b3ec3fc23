//! One HTTP request to a channel.

use serde_json::Value;

/// What is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The content type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Request {
    /// A request with this body.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self {
            content_type: "application/json",
            body: body.to_string(),
        }
    }
}
