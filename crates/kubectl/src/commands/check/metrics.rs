//! Whether Prometheus has the series of each check of a Rollout.

use std::collections::BTreeMap;

use countersign_api::analysis::CheckMode;
use countersign_api::{AnalysisTemplate, Check, Duration, Rollout, RolloutPolicy};
use countersign_core::analysis::checks::{self, Checks};
use countersign_core::analysis::query::form::{Arm, Query};
use countersign_core::analysis::query::problem::QueryError;
use countersign_core::analysis::query::{self, Counting};
use countersign_core::observation::people::NamedPolicy;
use countersign_core::policy;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::commands::check::finding::{Finding, Level, problems_or};
use crate::commands::check::series::{Lack, Series, lack, metric, selectors};

const SUBJECT: &str = "metrics";
/// The label by which most checks distinguish the revisions, as Prometheus has it.
const REVISION_LABEL: &str = "pod_template_hash";
/// Labels in which libraries have the status of a response; the presets read the first.
const STATUS_LABELS: [&str; 4] = ["code", "status", "status_code", "http_status"];

/// The checks of a Rollout, its templates' and those of the policies, as far as the user may read them.
pub async fn checks_of(connection: &Connection, rollout: &Rollout) -> (Checks, Vec<Finding>) {
    let mut findings = Vec::new();
    let own = rollout.spec.strategy.canary.analysis.as_ref();
    let templates = connection.here::<AnalysisTemplate>();
    let used = own.into_iter().flat_map(|own| &own.templates);
    let read = used.map(async |used| {
        let template = connection.ask(templates.get(&used.name)).await;
        let template = template.map(|it| it.spec).map_err(|it| it.to_string());
        (used.name.clone(), template)
    });
    let templates = futures::future::join_all(read).await.into_iter().collect();
    let policies = policies(connection, rollout).await;
    let policies = policies.unwrap_or_else(|refusal| {
        let message = format!("the checks of policies are not verified: {refusal}");
        findings.push(Finding::warning(SUBJECT, message));
        Vec::new()
    });
    let effective = policy::effective(&policies);
    (checks::collected(own, &templates, &effective), findings)
}

/// The policies that govern a Rollout. If the labels of its namespace cannot be read, its name is the only one.
async fn policies(connection: &Connection, rollout: &Rollout) -> Result<Vec<NamedPolicy>, Refusal> {
    let policies = connection.cluster::<RolloutPolicy>();
    let namespaces = connection.cluster::<Namespace>();
    let all = ListParams::default();
    let (policies, namespace) = futures::join!(
        connection.ask(policies.list(&all)),
        connection.ask(namespaces.get(connection.namespace())),
    );
    let labels = namespace.map_or_else(
        |_| {
            let name = connection.namespace().to_owned();
            BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name)])
        },
        |namespace| namespace.labels().clone(),
    );
    let governing = policies?
        .items
        .into_iter()
        .filter(|it| policy::governs(&it.spec, &labels, rollout.labels()));
    let named = governing.map(|it| NamedPolicy {
        name: it.name_any(),
        generation: it.metadata.generation.unwrap_or_default(),
        spec: it.spec,
    });
    Ok(named.collect())
}

/// A query of a check.
struct CheckQuery {
    query: Query,
    /// Whether it counts failed requests, so that it may select nothing as long as there are none.
    of_failures: bool,
}

/// The findings on all checks and objectives.
pub async fn findings<S: Series>(series: &S, checks: &Checks, rollout: &Rollout) -> Vec<Finding>
where
    S::Error: std::fmt::Display,
{
    let Some(revision) = revision(rollout) else {
        let message = "the Rollout has no revision yet, so there are no series to compare";
        return vec![Finding::warning(SUBJECT, message)];
    };
    if checks.checks.is_empty() && checks.problems.is_empty() {
        let message = "no check judges this Rollout: only its bake times stage it, and a tier above low holds";
        return vec![Finding::warning(SUBJECT, message)];
    }
    let problems = checks.problems.iter();
    let mut findings: Vec<_> = problems
        .map(|problem| Finding::failed(SUBJECT, problem))
        .collect();
    let name = rollout.name_any();
    let namespace = rollout.namespace().unwrap_or_default();
    let service = rollout.spec.strategy.canary.stable_service.as_deref();
    let arm = Arm {
        namespace: &namespace,
        service,
        rollout: &name,
        revision: &revision,
    };
    let of_checks = checks.checks.iter().map(|(name, check)| {
        let level = match check.mode {
            CheckMode::Required => Level::Failed,
            CheckMode::Advisory => Level::Warning,
        };
        let queries = queries(check, arm, checks.interval);
        (format!("check {name}"), level, queries)
    });
    let whole = Arm {
        service: None,
        revision: "",
        ..arm
    };
    let of_objectives = checks.objectives.iter().map(|(name, objective)| {
        let queries = query::render_objective(name, objective, whole);
        let queries = queries.map(|[errors, total]| pair(total, errors, true));
        (format!("objective {name}"), Level::Failed, queries)
    });
    for (subject, level, queries) in of_checks.chain(of_objectives) {
        match queries {
            Err(error) => findings.push(Finding::new(level, subject, error.to_string())),
            Ok(queries) => match lacks(series, &queries).await {
                Ok(lacks) => findings.extend(of_lacks(&subject, level, &lacks)),
                Err(error) => {
                    // Every other query would fail, too.
                    let message = format!("not checked: {error}");
                    return vec![Finding::warning(SUBJECT, message)];
                }
            },
        }
    }
    findings
}

/// The revision whose series exist: the stable one, or the first.
fn revision(rollout: &Rollout) -> Option<String> {
    let status = rollout.status.as_ref()?;
    let stable = status.stable.as_ref().map(|it| &it.pod_template_hash);
    let change = status.change.as_ref().map(|it| &it.pod_template_hash);
    stable.or(change).filter(|hash| !hash.is_empty()).cloned()
}

fn queries(check: &Check, arm: Arm<'_>, interval: Duration) -> Result<Vec<CheckQuery>, QueryError> {
    if let Some(metric) = &check.metric {
        let query = query::render_metric(check, metric, arm, interval)?;
        return Ok(vec![CheckQuery {
            query,
            of_failures: false,
        }]);
    }
    let queries = query::render(check, arm, interval)?;
    let of_failures = queries.counting == Counting::Failed;
    Ok(pair(queries.total, queries.errors, of_failures))
}

/// The query of all requests, and that of some of them.
fn pair(all: Query, some: Query, of_failures: bool) -> Vec<CheckQuery> {
    let all = CheckQuery {
        query: all,
        of_failures: false,
    };
    let some = CheckQuery {
        query: some,
        of_failures,
    };
    vec![all, some]
}

/// What a metric lacks, and whether that is right as long as no request has failed.
struct Lacking {
    metric: String,
    lack: Lack,
    of_failures: bool,
}

async fn lacks<S: Series>(series: &S, queries: &[CheckQuery]) -> Result<Vec<Lacking>, S::Error> {
    let mut lacks: Vec<Lacking> = Vec::new();
    for CheckQuery { query, of_failures } in queries {
        for selector in selectors(&query.text) {
            let Some(lack) = lack(series, &selector).await? else {
                continue;
            };
            let metric = metric(&selector);
            let same = |known: &Lacking| known.metric == metric;
            if lacks.iter().any(|it| same(it) && includes(&it.lack, &lack)) {
                continue;
            }
            lacks.retain(|it| !(same(it) && includes(&lack, &it.lack)));
            lacks.push(Lacking {
                metric,
                lack,
                of_failures: *of_failures,
            });
        }
    }
    Ok(lacks)
}

/// Whether one lack includes another.
fn includes(one: &Lack, other: &Lack) -> bool {
    match (one, other) {
        (Lack::Labels { missing: one, .. }, Lack::Labels { missing: other, .. }) => {
            other.iter().all(|label| one.contains(label))
        }
        (one, other) => one == other,
    }
}

fn of_lacks(subject: &str, level: Level, lacks: &[Lacking]) -> Vec<Finding> {
    let findings = lacks.iter().filter_map(|it| {
        let level = match &it.lack {
            Lack::Value { .. } if it.of_failures => return None,
            Lack::Metric if it.of_failures => Level::Warning,
            _ => level,
        };
        Some(Finding::new(level, subject, sentence(it)))
    });
    let good = Finding::ok(subject, "Prometheus has its series");
    problems_or(findings.collect(), good)
}

fn sentence(lacking: &Lacking) -> String {
    let metric = &lacking.metric;
    match &lacking.lack {
        Lack::Metric if lacking.of_failures => format!(
            "Prometheus has no series `{metric}`, which is right only if no request has failed yet"
        ),
        Lack::Metric => format!(
            "Prometheus has no series `{metric}`: are the pods scraped, and have they had a request?"
        ),
        Lack::Labels {
            missing,
            present,
            job,
        } => {
            let (of_pods, others): (Vec<_>, Vec<_>) =
                missing.iter().partition(|label| *label == REVISION_LABEL);
            let mut remedies = Vec::new();
            if !of_pods.is_empty() {
                remedies.push(pod_labels(job.as_deref()));
            }
            if !others.is_empty() {
                remedies.push(own_queries(&others, present));
            }
            format!(
                "`{metric}` has the labels {}; not {}: {}",
                present.join(", "),
                missing.join(", "),
                remedies.join(", and ")
            )
        }
        Lack::Value {
            matcher,
            label,
            present,
        } => format!(
            "no series `{metric}` has {matcher}: its values of `{label}` are {}",
            present.join(", ")
        ),
    }
}

/// What to do about labels that the application does not export, or exports by another name.
fn own_queries(missing: &[&String], present: &[String]) -> String {
    let is_status = |label: &str| STATUS_LABELS.contains(&label);
    let missing = missing.iter().find(|label| is_status(label));
    let present = present.iter().find(|label| is_status(label));
    let labels = match (missing, present) {
        (Some(missing), Some(present)) => format!("`{present}` in place of `{missing}`"),
        _ => "the labels that there are".to_owned(),
    };
    format!("write queries of your own with {labels}")
}

/// How Prometheus gets the pods' label. The job of a `PodMonitor` has its namespace and name.
fn pod_labels(job: Option<&str>) -> String {
    let monitor = match job {
        Some(job) if job.contains('/') => format!("PodMonitor {job}"),
        Some(job) => format!("the PodMonitor or ServiceMonitor of job {job}"),
        None => "the PodMonitor or ServiceMonitor of these pods".to_owned(),
    };
    format!("add `podTargetLabels: [pod-template-hash]` to {monitor}")
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use serde_json::json;

    use super::*;
    use crate::commands::check::series::tests::Stored;
    use crate::view::tests::at_rest;

    /// The findings on one check of a Rollout `web` in `shop`, by these series.
    fn found(check: serde_json::Value, series: &[&str]) -> Vec<Finding> {
        let mut checks = Checks::default();
        let check: Check = serde_json::from_value(check).unwrap();
        checks.checks.insert(check.name.clone(), check);
        block_on(findings(&Stored::new(series), &checks, &at_rest()))
    }

    fn hash() -> String {
        at_rest().status.unwrap().stable.unwrap().pod_template_hash
    }

    fn preset() -> serde_json::Value {
        json!({ "name": "errors", "preset": "HttpRequestsTotal" })
    }

    #[test]
    fn a_check_whose_series_are_there_is_ok_though_no_request_has_failed() {
        let series = format!(
            "__name__=http_requests_total namespace=shop pod_template_hash={} code=200",
            hash()
        );
        let ok = Finding::ok("check errors", "Prometheus has its series");
        assert_eq!(found(preset(), &[&series]), [ok]);
    }

    #[test]
    fn missing_labels_are_named_once_with_what_adds_them() {
        let series = "__name__=http_requests_total namespace=shop status=200 job=shop/web";
        let message = "`http_requests_total` has the labels job, namespace, status; not pod_template_hash, code: add `podTargetLabels: [pod-template-hash]` to PodMonitor shop/web, and write queries of your own with `status` in place of `code`";
        let failed = Finding::failed("check errors", message);
        assert_eq!(found(preset(), &[series]), [failed]);

        for (label, remedy) in [
            ("status", "with `status` in place of `code`"),
            ("verdict", "with the labels that there are"),
        ] {
            let other = format!(
                "__name__=http_requests_total namespace=shop pod_template_hash={} {label}=200",
                hash()
            );
            let other = found(preset(), &[&other]);
            let message = &other[0].message;
            let remedy = format!("; not code: write queries of your own {remedy}");
            assert!(message.ends_with(&remedy), "{message}");
        }
    }

    #[test]
    fn a_revision_or_a_bucket_without_series_is_named() {
        let series = "__name__=http_requests_total namespace=shop pod_template_hash=old code=200";
        let findings = found(preset(), &[series]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].level, Level::Failed);
        let message = &findings[0].message;
        assert!(
            message.ends_with("its values of `pod_template_hash` are old"),
            "{message}"
        );

        let latency = json!({
            "name": "slow", "latency": { "within": "300ms", "buckets": "seconds_bucket{pod_template_hash=\"{{revision}}\"}" },
        });
        let bucket = |le: &str| {
            format!(
                "__name__=seconds_bucket pod_template_hash={} le={le}",
                hash()
            )
        };
        let (some, all) = (bucket("0.25"), bucket("+Inf"));
        let findings = found(latency, &[&some, &all]);
        assert_eq!(findings.len(), 1);
        let message = &findings[0].message;
        assert!(
            message.ends_with("its values of `le` are 0.25, +Inf"),
            "{message}"
        );
    }

    #[test]
    fn an_advisory_check_and_a_counter_of_failures_only_warn() {
        let of = |name: &str| format!("{name}{{pod_template_hash=\"{{{{revision}}}}\"}}");
        let check = json!({
            "name": "own", "errors": of("failed_total"), "total": of("all_total"), "mode": "Advisory",
        });
        let levels = |series: &[&str]| -> Vec<_> {
            let found = found(check.clone(), series);
            found.iter().map(|it| it.level).collect()
        };
        assert_eq!(levels(&[]), [Level::Warning, Level::Warning]);
        let series = |name: &str| format!("__name__={name} pod_template_hash={}", hash());
        let (all, failed) = (series("all_total"), series("failed_total"));
        assert_eq!(levels(&[&all]), [Level::Warning]);
        assert_eq!(levels(&[&all, &failed]), [Level::Ok]);
    }

    #[test]
    fn without_a_check_or_a_revision_that_is_the_finding() {
        let none = block_on(findings(&Stored::new(&[]), &Checks::default(), &at_rest()));
        assert!(none[0].message.starts_with("no check judges"));
        let mut new = at_rest();
        new.status = None;
        let none = block_on(findings(&Stored::new(&[]), &Checks::default(), &new));
        assert!(none[0].message.starts_with("the Rollout has no revision"));
    }
}
