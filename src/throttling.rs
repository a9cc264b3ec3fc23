//! An overloaded or terminating API server responds in plain text with Retry-After. This layer turns such
//! responses into a `Status`, like all others.

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use serde_json::json;

/// Turns a plain-text 429 or 503 with Retry-After into a `Status`; other responses pass through.
pub fn status_from_plain_text<B>(answer: Response<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let Some(retry_after) = retry_after(&answer) else {
        return answer.map(Body::new);
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": answer.status().as_u16(),
        "reason": "TooManyRequests", "message": "the API server has too much to do",
        "details": { "retryAfterSeconds": retry_after },
    });
    answer.map(|_| Body::from(status.to_string()))
}

/// The Retry-After of a response without a `Status`, in seconds.
fn retry_after<B>(answer: &Response<B>) -> Option<u32> {
    let refuses = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    let headers = answer.headers();
    let kind = headers.get(CONTENT_TYPE);
    let is_status = kind.is_some_and(|it| it.as_bytes().starts_with(b"application/json"));
    if is_status || !refuses.contains(&answer.status()) {
        return None;
    }
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answer(code: u16, kind: &str, retry_after: &str) -> Response<Body> {
        Response::builder()
            .status(code)
            .header(CONTENT_TYPE, kind)
            .header(RETRY_AFTER, retry_after)
            .body(Body::from("Too many requests, please try again later."))
            .unwrap()
    }

    async fn read(answer: Response<Body>) -> Option<Status> {
        let body = axum::body::to_bytes(status_from_plain_text(answer).into_body(), 1000);
        serde_json::from_slice(&body.await.unwrap()).ok()
    }

    #[tokio::test]
    async fn how_long_to_wait_is_read_from_the_header_where_there_is_no_status() {
        let status = read(answer(429, "text/plain; charset=utf-8", "7")).await;
        let status = status.unwrap();
        assert_eq!(
            (status.code, status.details.unwrap().retry_after_seconds),
            (429, 7)
        );
        assert!(read(answer(503, "text/plain", "5")).await.is_some());
    }

    #[tokio::test]
    async fn other_answers_stay_as_they_are() {
        for other in [
            answer(429, "application/json", "7"),
            answer(429, "text/plain", "soon"),
            answer(200, "text/plain", "7"),
        ] {
            assert_eq!(read(other).await, None);
        }
    }
}
