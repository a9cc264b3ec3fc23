//! The Rollout for a Deployment, the steps of the migration and its warnings.

use std::fmt::Write;

use countersign_api::PROVENANCE_PREFIX;
use countersign_core::field_managers;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Map, Value, json};

use crate::cluster::connection::Connection;
use crate::commands::migrate::common::{Error, numbered};
use crate::output::report::number;
use countersign_core::text::{sanitize, sanitize_lines};

/// The plan of a migration.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    replicas: i32,
    selector: String,
    pub(super) manifest: Value,
}

impl Plan {
    pub(super) fn of(deployment: &Deployment) -> Result<Self, Error> {
        let name = deployment.name_any();
        if deployment.metadata.deletion_timestamp.is_some() {
            return Err(Error::Deleted(name));
        }
        let spec = deployment.spec.clone();
        let expressions = spec.selector.match_expressions.iter().flatten();
        if expressions.count() > 0 {
            return Err(Error::Expressions(name));
        }
        let replicas = spec.replicas.unwrap_or(1);
        if replicas == 0 {
            return Err(Error::NoPods(name));
        }
        let labels = spec.selector.match_labels.iter().flatten();
        let labels: Vec<_> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        Ok(Self {
            manifest: manifest(&name, replicas, &spec),
            name,
            replicas,
            selector: labels.join(","),
        })
    }

    pub(super) fn render(&self, manifest: &str, warnings: &[String]) -> String {
        let Self { replicas, .. } = self;
        let (name, selector) = (sanitize(&self.name), sanitize(&self.selector));
        let steps = [
            format!(
                "Rollout {name} is created, as below. Deployment {name} remains, and you still edit its pod template."
            ),
            format!(
                "The operator starts {} of the same template beside those of the Deployment; there must be room for both.",
                number(*replicas, "pod")
            ),
            format!(
                "Once all of them are available, the Deployment is scaled to 0. Services that select {selector} send to both until then, so no request is lost."
            ),
            format!(
                "From then on each edit of the Deployment's template is staged by its risk: `kubectl countersign status {name}`. Scale the Rollout, not the Deployment."
            ),
        ];
        let mut text = format!("Deployment {name} is migrated to a Rollout:\n\n");
        text += &numbered(&steps);
        let _ = write!(
            text,
            "\nTo undo this, run `kubectl countersign unmigrate {name}`.\n\n"
        );
        text += &sanitize_lines(manifest);
        text += "\n\n";
        text + &warned(warnings)
    }
}

pub(super) fn warned(warnings: &[String]) -> String {
    let lines = warnings
        .iter()
        .map(|it| format!("warning: {}\n", sanitize(it)));
    let lines: String = lines.collect();
    if lines.is_empty() {
        lines
    } else {
        lines + "\n"
    }
}

/// The Rollout's manifest, without fields that have their default.
pub(super) fn manifest(name: &str, replicas: i32, spec: &DeploymentSpec) -> Value {
    let mut manifest = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "workloadRef": { "kind": "Deployment", "name": name },
        },
    });
    if let Some(into) = manifest.pointer_mut("/spec").and_then(Value::as_object_mut) {
        into.extend(carried_over(spec));
    }
    manifest
}

/// A number of a Deployment's spec: its name, value, default, and the maximum of a Rollout.
pub(super) type Limit = (&'static str, Option<i32>, i32, i32);

pub(super) fn limits(spec: &DeploymentSpec) -> [Limit; 3] {
    [
        ("minReadySeconds", spec.min_ready_seconds, 0, 86_400),
        ("revisionHistoryLimit", spec.revision_history_limit, 10, 100),
        (
            "progressDeadlineSeconds",
            spec.progress_deadline_seconds,
            600,
            604_800,
        ),
    ]
}

/// Other fields that both specs have, unless their value is the default of both.
pub(super) fn carried_over(spec: &DeploymentSpec) -> Map<String, Value> {
    let numbers = limits(spec).into_iter();
    let numbers = numbers.filter_map(|(name, value, default, most)| {
        let value = value.filter(|value| *value != default)?;
        Some((name.to_owned(), json!(value.min(most))))
    });
    let mut carried: Map<_, _> = numbers.collect();
    if spec.paused == Some(true) {
        carried.insert("paused".into(), json!(true));
    }
    let rolling = spec
        .strategy
        .as_ref()
        .and_then(|it| it.rolling_update.as_ref());
    let default = IntOrString::String("25%".into());
    // A Deployment's defaults are not carried over: a Rollout's own are safer.
    let room = rolling.into_iter().flat_map(|it| {
        [
            ("maxSurge", &it.max_surge),
            ("maxUnavailable", &it.max_unavailable),
        ]
    });
    let room = room.filter_map(|(name, value)| {
        let value = value.as_ref().filter(|value| **value != default)?;
        Some((name.to_owned(), json!(value)))
    });
    let room: Map<_, _> = room.collect();
    if !room.is_empty() {
        carried.insert("strategy".into(), json!({ "canary": room }));
    }
    carried
}

/// Warnings about the Deployment, as far as its objects can be read.
pub(super) async fn warnings(connection: &Connection, deployment: &Deployment) -> Vec<String> {
    let name = deployment.name_any();
    let autoscalers = connection.here::<HorizontalPodAutoscaler>();
    let autoscalers = connection
        .ask(autoscalers.list(&ListParams::default()))
        .await;
    let mut warnings = match autoscalers {
        Ok(found) => autoscaled(&name, &found.items),
        Err(refusal) => vec![format!(
            "cannot check whether an autoscaler targets the Deployment: {refusal}"
        )],
    };
    warnings.extend(of_deployment(&name, deployment));
    warnings
}

pub(super) fn autoscaled(name: &str, autoscalers: &[HorizontalPodAutoscaler]) -> Vec<String> {
    let targets = |it: &&HorizontalPodAutoscaler| {
        let target = &it.spec.scale_target_ref;
        target.kind == "Deployment" && target.name == name
    };
    let targeting = autoscalers.iter().filter(targets);
    targeting
        .map(|it| {
            format!(
                "HorizontalPodAutoscaler {} targets the Deployment, which it can no longer scale: set its target to Rollout {name} (apiVersion: countersign.dev/v1alpha1)",
                it.name_any()
            )
        })
        .collect()
}

pub(super) fn of_deployment(name: &str, deployment: &Deployment) -> Vec<String> {
    let mut warnings = Vec::new();
    let fields = deployment.metadata.managed_fields.as_deref();
    if let Some(manager) = field_managers::last_scaler(fields.unwrap_or_default()) {
        warnings.push(format!(
            "`replicas` of the Deployment was set by {manager}: if {manager} applies it again, as GitOps does, remove it from the manifest, or the operator has to scale down again each time"
        ));
    }
    let spec = deployment.spec.clone();
    let status = deployment.status.clone().unwrap_or_default();
    let (requested, available) = (
        spec.replicas.unwrap_or(1),
        status.available_replicas.unwrap_or(0),
    );
    if available < requested {
        warnings.push(format!(
            "{available} of {} of the Deployment are available: the Rollout takes over once all of its own are",
            number(requested, "pod")
        ));
    }
    if spec.paused == Some(true) {
        warnings.push(format!(
            "spec.paused is carried over, so the Rollout starts no pods and the Deployment keeps its own until you set it to false: `kubectl patch rollout.countersign.dev {name} --type merge -p '{{\"spec\":{{\"paused\":false}}}}'`"
        ));
    }
    let (updated, all) = (
        status.updated_replicas.unwrap_or(0),
        status.replicas.unwrap_or(0),
    );
    if updated < all {
        warnings.push(format!(
            "{updated} of {} of the Deployment run its template as it is now: the Rollout starts with that template, with no steps. Wait until it is rolled out, or put it back first",
            number(all, "pod")
        ));
    }
    if spec.strategy.as_ref().and_then(|it| it.type_.as_deref()) == Some("Recreate") {
        warnings.push(
            "spec.strategy.type is Recreate, which a Rollout does not have: pods of two revisions will run beside each other, now and with each change".to_owned(),
        );
    }
    for (field, value, _, most) in limits(&spec) {
        if let Some(value) = value.filter(|value| *value > most) {
            warnings.push(format!(
                "{field} is {value}, of which a Rollout takes at most {most}: it gets {most}"
            ));
        }
    }
    let annotations = deployment.annotations();
    if !annotations
        .keys()
        .any(|it| it.starts_with(PROVENANCE_PREFIX))
    {
        warnings.push(format!(
            "the Deployment has no provenance annotations, so each change counts as unknown until it has: `kubectl countersign stamp` writes them, onto Rollout {name} or its Deployment"
        ));
    }
    warnings
}
