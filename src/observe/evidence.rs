//! Reads the evidence on a change from Prometheus.

use std::collections::BTreeMap;

use countersign_api::rollout::Change;
use countersign_api::{AnalysisTemplate, AnalysisTemplateSpec};
use countersign_core::analysis::checks::Checks;
use countersign_core::analysis::{checks, gather};
use countersign_core::observation::windows::{CheckWindows, ErrorRates};
use countersign_core::policy::Effective;
use countersign_core::replicas::present;
use countersign_core::{Observation, change};
use kube::Api;

use crate::api_server::sentence;
use crate::observe::observer::Observer;
use crate::observe::reads::tried;
use crate::prometheus::{Arm, Ask};

/// Revisions before stable whose errors are read for the dispersion, besides its own.
const EARLIER_REVISIONS: usize = 3;

impl Observer {
    /// Queries Prometheus for the due windows, if the canary has had traffic, and for the objectives.
    pub(super) async fn evidence(&self, observation: &mut Observation, effective: &Effective) {
        let Some(change) = observation
            .status
            .change
            .as_ref()
            .filter(|it| is_judged(it))
        else {
            return;
        };
        // Not the whole proposal: its hashes and provenance are left to the decision.
        let current = checks::checks(observation, effective);
        let checks = checks::in_force(change, &current);
        (
            observation.analysis.windows,
            observation.analysis.objectives,
        ) = tokio::join!(
            self.windows(observation, change, &checks),
            self.objectives(observation, &checks),
        );
    }

    pub(super) async fn windows(
        &self,
        observation: &Observation,
        change: &Change,
        checks: &Checks,
    ) -> BTreeMap<String, CheckWindows> {
        let (Some(from), Some(stable)) = (&change.evidence.from, &observation.status.stable) else {
            return BTreeMap::new();
        };
        let strategy = &observation.spec.strategy.canary;
        let arm = |service: &Option<String>, revision: &str| Arm {
            service: service.clone(),
            revision: revision.to_owned(),
            ..whole_service(observation)
        };
        let alone = change.outcome.is_some();
        // A stable revision without pods offers no comparison, and must not block its own fix: the canary
        // alone gives scarce evidence, and the tier decides.
        let serves = present::available(observation, Some(&stable.pod_template_hash)) > 0;
        let stable = arm(&strategy.stable_service, &stable.pod_template_hash);
        let canary = if alone {
            stable.clone()
        } else {
            arm(&strategy.canary_service, &change.pod_template_hash)
        };
        let of_change = [stable.revision.as_str(), canary.revision.as_str()];
        let earlier = present::earlier(observation, &of_change);
        let earlier = earlier.take(EARLIER_REVISIONS);
        let earlier = earlier.map(|hash| arm(&strategy.stable_service, hash));
        let history: Vec<Arm> = std::iter::once(stable.clone()).chain(earlier).collect();
        let active = checks
            .checks
            .iter()
            .filter(|(_, check)| checks::is_active(check, &change.plan, change.weight));
        let queries = active.map(|(name, check)| {
            let known = gather::evidence_of(change, name);
            let counts = check.metric.is_none();
            let ask = Ask {
                check: check.clone(),
                canary: canary.clone(),
                stable: (!alone && serves).then(|| stable.clone()),
                interval: change.interval,
                from: from.0,
                counted_until: gather::counted_until(change, name).unwrap_or(from.0),
                until: observation.now,
                history: if counts
                    && check.dispersion.is_none()
                    && (alone || serves)
                    && known.is_none_or(|known| known.dispersion.is_none())
                {
                    history.clone()
                } else {
                    Vec::new()
                },
            };
            async move { (name.clone(), self.prometheus.windows(&ask).await) }
        });
        futures::future::join_all(queries)
            .await
            .into_iter()
            .collect()
    }

    pub(super) async fn objectives(
        &self,
        observation: &Observation,
        checks: &Checks,
    ) -> BTreeMap<String, Result<ErrorRates, String>> {
        let arm = whole_service(observation);
        let queries = checks.objectives.iter().map(|(name, objective)| {
            let rates = self
                .prometheus
                .error_rates(name, objective, &arm, observation.now);
            async move { (name.clone(), rates.await) }
        });
        futures::future::join_all(queries)
            .await
            .into_iter()
            .collect()
    }

    /// The AnalysisTemplates of the Rollout, if a change is analysed by them.
    pub(super) async fn templates(
        &self,
        observation: &Observation,
    ) -> BTreeMap<String, Result<AnalysisTemplateSpec, String>> {
        let judged = observation.status.change.as_ref().is_some_and(is_judged);
        let analysis = observation.spec.strategy.canary.analysis.as_ref();
        let Some(analysis) = analysis.filter(|_| judged) else {
            return BTreeMap::new();
        };
        let api: Api<AnalysisTemplate> =
            Api::namespaced(self.client.clone(), &observation.namespace);
        let names = analysis.templates.iter().map(|used| &used.name);
        let templates = names.map(async |name| {
            if let Some(spec) = self.watched_template(&observation.namespace, name) {
                return (name.clone(), Ok(spec));
            }
            let template = match tried(|| api.get_opt(name)).await {
                Ok(Some(template)) => {
                    let cache = &self.caches.template_specs;
                    cache.reaches(&observation.uid, &template.metadata);
                    Ok(template.spec)
                }
                Ok(None) => Err(format!(
                    "AnalysisTemplate {name} does not exist in this namespace: create it, or remove it from analysis.templates"
                )),
                // After any error the running checks continue, and nothing is promoted.
                Err(error) => Err(format!(
                    "AnalysisTemplate {name} cannot be read: {}",
                    sentence(&error)
                )),
            };
            (name.clone(), template)
        });
        let templates = futures::future::join_all(templates).await;
        templates.into_iter().collect()
    }

    /// The spec of an AnalysisTemplate as its watch has reported it; `None` if it has to be read, as of one that does not exist.
    fn watched_template(&self, namespace: &str, name: &str) -> Option<AnalysisTemplateSpec> {
        if !self.from_watches {
            return None;
        }
        let json = self.caches.template_specs.get(namespace, name)?;
        serde_json::from_str(&json).ok()
    }
}

/// Whether a change is analysed: in progress, or watched after its promotion.
pub(super) fn is_judged(change: &Change) -> bool {
    !change.initial && (change.outcome.is_none() || change::is_watched(change))
}

/// All pods of a Rollout, of any revision.
pub(super) fn whole_service(observation: &Observation) -> Arm {
    Arm {
        namespace: observation.namespace.clone(),
        service: None,
        rollout: observation.name.clone(),
        revision: String::new(),
    }
}
