//! Incident queries.

use std::time::Instant;

use countersign_core::observation::people::IncidentAnswer;
use k8s_openapi::jiff::Timestamp;

use super::{NOT_CONFIGURED, Prometheus};
use crate::prometheus::failure::Failure;
use crate::prometheus::request::Request;
use crate::timing::{INCIDENT_MAX_AGE, INCIDENT_TIMEOUT};

impl Prometheus {
    /// The result of an incident query, cached briefly, since all Rollouts of a policy send the same
    /// query.
    pub async fn incident(&self, query: &str, now: Timestamp) -> IncidentAnswer {
        let mut recent = self.incidents.lock().await;
        recent.retain(|_, (at, _)| at.elapsed() < INCIDENT_MAX_AGE);
        if let Some((_, answer)) = recent.get(query) {
            return answer.clone();
        }
        let ask = tokio::time::timeout(INCIDENT_TIMEOUT, self.ask_incident(query, now));
        let answer = ask.await.unwrap_or_else(|_| IncidentAnswer::Unknown {
            message: format!("Prometheus gave no answer within {INCIDENT_TIMEOUT:?}"),
        });
        recent.insert(query.to_owned(), (Instant::now(), answer.clone()));
        answer
    }

    /// The current result of an incident query. Only a number is valid: an empty result may mean that no
    /// alerts are evaluated.
    async fn ask_incident(&self, query: &str, now: Timestamp) -> IncidentAnswer {
        let Some(server) = &self.server else {
            let message = NOT_CONFIGURED.to_owned();
            return IncidentAnswer::Unknown { message };
        };
        let request = Request::At {
            query: query.to_owned(),
            time: now.as_second(),
        };
        let series = match server.ask("", &request).await {
            Ok(series) => series,
            Err(Failure { message, .. }) => return IncidentAnswer::Unknown { message },
        };
        let values = series
            .iter()
            .flat_map(|it| it.samples.iter().map(|(_, value)| *value));
        let values: Vec<_> = values.collect();
        let unknown = |message: &str| IncidentAnswer::Unknown {
            message: message.to_owned(),
        };
        if values.is_empty() {
            return unknown("it gave no number: end it with `or vector(0)`");
        }
        if values.iter().any(|value| value.is_nan()) {
            return unknown("it gave NaN, which is not a number");
        }
        let value = values.into_iter().fold(f64::MIN, f64::max);
        if value > 0.0 {
            IncidentAnswer::Incident { value }
        } else {
            IncidentAnswer::None
        }
    }
}
