//! Access control of the metrics: a bearer token that the API server authenticates, and RBAC's `get` on
//! `/metrics`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::api_server::sentence;
use crate::timing::{ACCESS_MAX_AGE, ACCESS_TIMEOUT};

/// Most cached decisions; an unknown token evicts the oldest.
const MOST_ANSWERS: usize = 64;
/// Most concurrent token reviews, so that guessed tokens do not load the API server.
const MOST_QUESTIONS: usize = 4;

/// Why a request for the metrics is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token is missing or unknown.
    Unknown,
    /// The user is not authorized.
    Forbidden,
    /// The API server did not decide.
    Unanswered,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Unknown => {
                let how = [(WWW_AUTHENTICATE, "Bearer")];
                let what = "a bearer token that the API server knows is required";
                (StatusCode::UNAUTHORIZED, how, what).into_response()
            }
            Self::Forbidden => {
                let what = "RBAC does not grant `get` of the non-resource URL /metrics";
                (StatusCode::FORBIDDEN, what).into_response()
            }
            Self::Unanswered => {
                let what = "the API server did not authorize the request in time";
                (StatusCode::SERVICE_UNAVAILABLE, what).into_response()
            }
        }
    }
}

/// Authorizes requests by the API server, with a short cache.
pub struct Access {
    client: Client,
    // By digest, so that no token stays in memory.
    answers: Mutex<BTreeMap<[u8; 32], Answer>>,
    questions: Semaphore,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    at: Instant,
    may: Result<(), Refusal>,
}

impl Access {
    /// Access control with an empty cache.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            answers: Mutex::default(),
            questions: Semaphore::new(MOST_QUESTIONS),
        }
    }

    /// Whether a request with these headers may read the metrics.
    pub async fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = bearer_token(headers).ok_or(Refusal::Unknown)?;
        let key = Sha256::digest(token).into();
        if let Some(may) = self.remembered(&key) {
            return may;
        }
        let Ok(_turn) = self.questions.try_acquire() else {
            return Err(Refusal::Unanswered);
        };
        let may = match tokio::time::timeout(ACCESS_TIMEOUT, self.ask(token)).await {
            Ok(Ok(may)) => may,
            Ok(Err(error)) => {
                tracing::warn!(error = %sentence(&error), "access to the metrics cannot be checked");
                return Err(Refusal::Unanswered);
            }
            Err(_) => return Err(Refusal::Unanswered),
        };
        self.remember(key, may);
        may
    }

    async fn ask(&self, token: &str) -> Result<Result<(), Refusal>, kube::Error> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let review = reviews.create(&PostParams::default(), &review).await?;
        let known = review
            .status
            .filter(|status| status.authenticated == Some(true));
        let Some(user) = known.and_then(|status| status.user) else {
            return Ok(Err(Refusal::Unknown));
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews
            .create(&PostParams::default(), &access_review(user))
            .await?;
        let allowed = review.status.is_some_and(|status| status.allowed);
        Ok(if allowed {
            Ok(())
        } else {
            Err(Refusal::Forbidden)
        })
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Result<(), Refusal>> {
        let answers = self.answers.lock().ok()?;
        let answer = answers.get(key)?;
        (answer.at.elapsed() < ACCESS_MAX_AGE).then_some(answer.may)
    }

    fn remember(&self, key: [u8; 32], may: Result<(), Refusal>) {
        let Ok(mut answers) = self.answers.lock() else {
            return;
        };
        answers.retain(|_, answer| answer.at.elapsed() < ACCESS_MAX_AGE);
        if answers.len() >= MOST_ANSWERS {
            // Refused tokens are evicted first, so that guesses do not evict authorized readers.
            let worth = |answer: &Answer| (answer.may.is_ok(), answer.at);
            let least = answers.iter().min_by_key(|(_, answer)| worth(answer));
            if let Some(least) = least.map(|(key, _)| *key) {
                answers.remove(&least);
            }
        }
        let at = Instant::now();
        answers.insert(key, Answer { at, may });
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty()).then_some(token)
}

fn access_review(user: UserInfo) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some("/metrics".into()),
                verb: Some("get".into()),
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::{HeaderValue, Request};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that knows every token, and lets only the bearer of `prometheus` read.
    fn api_server(reviews: &Arc<AtomicUsize>) -> Client {
        let reviews = reviews.clone();
        let answer = move |request: Request<Body>| {
            reviews.fetch_add(1, Ordering::Relaxed);
            async move {
                let body = request.into_body().collect_bytes().await.unwrap();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                review["status"] = match review.pointer("/spec/token") {
                    Some(token) => json!({ "authenticated": true, "user": { "username": token } }),
                    None => json!({ "allowed": review["spec"]["user"] == "prometheus" }),
                };
                let answer = axum::http::Response::new(Body::from(review.to_string().into_bytes()));
                Ok::<_, Infallible>(answer)
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    fn headers(authorization: &str) -> HeaderMap {
        let value = HeaderValue::from_str(authorization).unwrap();
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    #[tokio::test]
    async fn no_guess_costs_the_api_server_or_who_may_read_anything_for_long() {
        let reviews = Arc::new(AtomicUsize::new(0));
        let access = Access::new(api_server(&reviews));
        for nobody in ["", "Basic eDp5", "Bearer", "Bearer  "] {
            assert_eq!(access.check(&headers(nobody)).await, Err(Refusal::Unknown));
        }
        assert_eq!(access.check(&HeaderMap::new()).await, Err(Refusal::Unknown));
        assert_eq!(reviews.load(Ordering::Relaxed), 0, "nothing to ask");

        let prometheus = headers("bearer prometheus");
        assert_eq!(access.check(&prometheus).await, Ok(()));
        for guess in 0..200 {
            let guess = headers(&format!("Bearer guess-{guess}"));
            assert_eq!(access.check(&guess).await, Err(Refusal::Forbidden));
            assert_eq!(access.check(&guess).await, Err(Refusal::Forbidden));
        }
        assert_eq!(access.check(&prometheus).await, Ok(()));
        assert_eq!(
            reviews.load(Ordering::Relaxed),
            2 * 201,
            "each is reviewed once"
        );
        assert_eq!(access.answers.lock().unwrap().len(), MOST_ANSWERS);

        let _all = access.questions.acquire_many(4).await.unwrap();
        let late = access.check(&headers("Bearer late")).await;
        assert_eq!(late, Err(Refusal::Unanswered));
        assert_eq!(
            access.check(&prometheus).await,
            Ok(()),
            "what is known needs no question"
        );
    }
}
