//! `migrate` and `unmigrate`: a Deployment under the care of a Rollout, and back.
//!
//! Both only make or delete the Rollout, in the user's name; the operator moves the pods. What is going to
//! happen is shown first.

use std::fmt::Write;
use std::process::ExitCode;

use countersign_api::rollout::Outcome;
use countersign_api::{Duration, KEEP_FINALIZER, PROVENANCE_PREFIX, Rollout};
use countersign_core::field_managers;
use countersign_core::workload::adoption::step;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Map, Value, json};

use super::Failure;
use super::answer::{PENDING, condition};
use super::change::is_seen;
use super::confirm::confirm;
use super::connection::{Connection, FIELD_MANAGER};
use super::output::{Format, document, print, remark, shown, shown_lines};
use super::refusal::Refusal;
use super::report::number;
use super::status::lasting;

/// How long a migration is waited for.
const PATIENCE: Duration = Duration::minutes(10);

/// Put a Deployment under the care of a Rollout of the same name, with no downtime
///
/// It shows what will happen, asks, makes the Rollout and waits until that serves. The Deployment stays,
/// scaled to 0, and its template stays what is edited. The exit code is 3 where it takes longer than
/// --timeout; the operator goes on.
#[derive(Clone, Debug, clap::Args)]
pub struct Migrate {
    /// Name of the Deployment
    deployment: String,
    /// Show what would happen, and do nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    common: Common,
}

/// Give an adopted Deployment its pods back, with no downtime, and delete the Rollout
///
/// It shows what will happen, asks, deletes the Rollout and waits until the Deployment serves. The exit
/// code is 3 where it takes longer than --timeout; the operator goes on.
#[derive(Clone, Debug, clap::Args)]
pub struct Unmigrate {
    /// Name of the Rollout
    rollout: String,
    /// Show what would happen, and do nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Common {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Longest wait
    #[arg(long, value_name = "TIME", default_value_t = PATIENCE)]
    timeout: Duration,
}

/// Why nothing is moved.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Error {
    #[error(
        "deployment {0} selects its pods by matchExpressions, which a Rollout cannot: make it anew with matchLabels alone"
    )]
    Expressions(String),
    #[error("deployment {0} asks for no pods, so there is nothing to take over: scale it up first")]
    NoPods(String),
    #[error("deployment {0} is being deleted")]
    Deleted(String),
    #[error("rollout {name} adopts deployment {deployment} already")]
    Adopted { name: String, deployment: String },
    #[error(
        "there is a rollout {0} already, which adopts no deployment of that name: delete it, or rename one of the two"
    )]
    Taken(String),
    #[error("rollout {0} adopts no workload, so there is nothing to give back")]
    AdoptsNothing(String),
    #[error(
        "the pods of rollout {0} would be deleted with it (spec.deletionPolicy: Delete): set Keep, or leave the field out"
    )]
    WouldDelete(String),
    #[error(
        "rollout {0} has no finalizer {KEEP_FINALIZER} yet, so its pods would be deleted with it: is the operator running, and not older than this plugin?"
    )]
    NotKept(String),
    #[error(
        "the template of deployment {deployment} is not what rollout {rollout} serves, and its pods would run it: {standing}. Wait for the end of the change, or put the template back by `kubectl rollout undo deployment/{deployment}`"
    )]
    OtherTemplate {
        rollout: String,
        deployment: String,
        standing: String,
    },
    #[error("rollout {0} was deleted meanwhile")]
    Gone(String),
}

impl Migrate {
    /// Migrates the Deployment.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let deployments = connection.here::<Deployment>();
        let deployment = connection.ask(deployments.get(&self.deployment)).await?;
        self.refuse_taken(connection).await?;
        let plan = Plan::of(&deployment)?;
        let warnings = warnings(connection, &deployment).await;
        let text = document(&plan.manifest, Format::Yaml)?;
        print(&plan.told(&text, &warnings));
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !self.common.yes {
            confirm(&format!("Migrate deployment {}?", shown(&plan.name)))?;
        }
        let rollout: Rollout = serde_json::from_value(plan.manifest)?;
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let rollouts = connection.here::<Rollout>();
        connection
            .ask(rollouts.create(&parameters, &rollout))
            .await?;
        print(&format!("rollout {} is made\n", shown(&plan.name)));
        if rollout.spec.paused {
            remark("it is paused, as the Deployment is, and takes over when spec.paused is false");
            return Ok(PENDING.into());
        }
        let taken = until_taken_over(connection, &plan.name);
        let Ok(taken) = tokio::time::timeout(self.common.timeout.std(), taken).await else {
            return Ok(pending(&plan.name, self.common.timeout));
        };
        taken?;
        print(&format!(
            "rollout {0} serves; deployment {0} has given up its pods\n",
            shown(&plan.name)
        ));
        Ok(ExitCode::SUCCESS)
    }

    async fn refuse_taken(&self, connection: &Connection) -> Result<(), Failure> {
        let rollouts = connection.here::<Rollout>();
        let all = connection
            .ask(rollouts.list(&ListParams::default()))
            .await?;
        for rollout in all {
            let adopted = rollout.spec.workload_ref.as_ref();
            let name = rollout.name_any();
            if adopted.is_some_and(|it| it.name == self.deployment) {
                let deployment = self.deployment.clone();
                return Err(Error::Adopted { name, deployment }.into());
            }
            if name == self.deployment {
                return Err(Error::Taken(name).into());
            }
        }
        Ok(())
    }
}

/// What a migration does.
#[derive(Debug)]
struct Plan {
    name: String,
    replicas: i32,
    selector: String,
    manifest: Value,
}

impl Plan {
    fn of(deployment: &Deployment) -> Result<Self, Error> {
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

    fn told(&self, manifest: &str, warnings: &[String]) -> String {
        let Self { replicas, .. } = self;
        let (name, selector) = (shown(&self.name), shown(&self.selector));
        let steps = [
            format!(
                "Rollout {name} is made, as below. Deployment {name} stays, and its pod template stays what you edit."
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
        let mut text = format!("Deployment {name} is put under the care of a Rollout:\n\n");
        text += &numbered(&steps);
        let _ = write!(
            text,
            "\nThe way back is `kubectl countersign unmigrate {name}`.\n\n"
        );
        text += &shown_lines(manifest);
        text += "\n\n";
        text + &warned(warnings)
    }
}

fn numbered(steps: &[String]) -> String {
    let lines = steps.iter().enumerate();
    let lines = lines.map(|(index, step)| format!("  {}. {step}", index + 1));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn warned(warnings: &[String]) -> String {
    let lines = warnings
        .iter()
        .map(|it| format!("warning: {}\n", shown(it)));
    let lines: String = lines.collect();
    if lines.is_empty() {
        lines
    } else {
        lines + "\n"
    }
}

/// The Rollout as a person would write it: what is left out has its default.
fn manifest(name: &str, replicas: i32, spec: &DeploymentSpec) -> Value {
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

/// A number of a Deployment's spec, with its name, its default, and the most that a Rollout takes.
type Limit = (&'static str, Option<i32>, i32, i32);

fn limits(spec: &DeploymentSpec) -> [Limit; 3] {
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

/// What else of a Deployment's spec a Rollout has, unless it is the default of both.
fn carried_over(spec: &DeploymentSpec) -> Map<String, Value> {
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
    // The defaults of a Deployment are nobody's choice, and a Rollout's own are safer.
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

/// What a person should know first, as far as it can be read.
async fn warnings(connection: &Connection, deployment: &Deployment) -> Vec<String> {
    let name = deployment.name_any();
    let autoscalers = connection.here::<HorizontalPodAutoscaler>();
    let autoscalers = connection
        .ask(autoscalers.list(&ListParams::default()))
        .await;
    let mut warnings = match autoscalers {
        Ok(found) => autoscaled(&name, &found.items),
        Err(refusal) => vec![format!(
            "whether an autoscaler aims at the Deployment is not known: {refusal}"
        )],
    };
    warnings.extend(of_deployment(&name, deployment));
    warnings
}

fn autoscaled(name: &str, autoscalers: &[HorizontalPodAutoscaler]) -> Vec<String> {
    let aims = |it: &&HorizontalPodAutoscaler| {
        let target = &it.spec.scale_target_ref;
        target.kind == "Deployment" && target.name == name
    };
    let aiming = autoscalers.iter().filter(aims);
    aiming
        .map(|it| {
            format!(
                "HorizontalPodAutoscaler {} aims at the Deployment, which it cannot scale any more: aim it at Rollout {name} (apiVersion: countersign.dev/v1alpha1)",
                it.name_any()
            )
        })
        .collect()
}

fn of_deployment(name: &str, deployment: &Deployment) -> Vec<String> {
    let mut warnings = Vec::new();
    let fields = deployment.metadata.managed_fields.as_deref();
    if let Some(manager) = field_managers::last_scaler(fields.unwrap_or_default()) {
        warnings.push(format!(
            "`replicas` of the Deployment was set by {manager}: if that applies it again, as GitOps does, remove it from the manifest, or the operator has to scale down again each time"
        ));
    }
    let spec = deployment.spec.clone();
    let status = deployment.status.clone().unwrap_or_default();
    let (asked, available) = (
        spec.replicas.unwrap_or(1),
        status.available_replicas.unwrap_or(0),
    );
    if available < asked {
        warnings.push(format!(
            "{available} of {} of the Deployment are available: the Rollout takes over once all of its own are",
            number(asked, "pod")
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

fn pending(name: &str, timeout: Duration) -> ExitCode {
    remark(&format!(
        "it takes longer than {timeout}, and goes on: see `kubectl countersign status {}`",
        shown(name)
    ));
    PENDING.into()
}

/// Says where it stands each time that changes, but for the numbers in it.
#[derive(Default)]
struct Progress {
    told: String,
}

impl Progress {
    fn tell(&mut self, message: &str) {
        if !message.is_empty() && self.told != message {
            message.clone_into(&mut self.told);
            remark(&shown(message));
        }
    }
}

/// What a Rollout says of itself and of what it adopts.
fn standing(rollout: &Rollout) -> String {
    let Some(status) = rollout.status.as_ref().filter(|_| is_seen(rollout)) else {
        return String::new();
    };
    match condition(&status.conditions, step::ADOPTED) {
        Some(adopted) if status.waiting_for.is_none() => adopted.message.clone(),
        _ => status.message.clone(),
    }
}

async fn until_taken_over(connection: &Connection, name: &str) -> Result<(), Failure> {
    let stream = watcher::watch_object(connection.here::<Rollout>(), name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut progress = Progress::default();
    loop {
        let rollout = match stream.try_next().await {
            Ok(Some(Some(rollout))) => rollout,
            Ok(_) => return Err(Error::Gone(name.to_owned()).into()),
            Err(error) => {
                lasting(connection, &error)?;
                continue;
            }
        };
        progress.tell(&standing(&rollout));
        if has_taken_over(&rollout) {
            return Ok(());
        }
    }
}

fn has_taken_over(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref().filter(|_| is_seen(rollout));
    let adopted = status.and_then(|status| condition(&status.conditions, step::ADOPTED));
    adopted.is_some_and(|adopted| adopted.status == "True")
}

impl Unmigrate {
    /// Gives the Deployment its pods back.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let rollout = connection.rollout(&self.rollout).await?;
        let deployment = returns(&rollout)?;
        let deployments = connection.here::<Deployment>();
        // It must be there to be given anything back.
        connection.ask(deployments.get(&deployment)).await?;
        print(&way_back(&rollout, &deployment));
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !self.common.yes {
            confirm(&format!("Give deployment {} back?", shown(&deployment)))?;
        }
        if rollout.metadata.deletion_timestamp.is_none() {
            self.delete(connection, &rollout).await?;
        }
        let back = async {
            until_gone(connection, &self.rollout).await?;
            until_available(connection, &deployment).await
        };
        let Ok(back) = tokio::time::timeout(self.common.timeout.std(), back).await else {
            return Ok(pending(&self.rollout, self.common.timeout));
        };
        back?;
        print(&format!(
            "deployment {} serves; rollout {} is gone\n",
            shown(&deployment),
            shown(&self.rollout)
        ));
        Ok(ExitCode::SUCCESS)
    }

    /// In the background: in the foreground the pods would go first.
    async fn delete(&self, connection: &Connection, rollout: &Rollout) -> Result<(), Refusal> {
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: rollout.uid(),
            resource_version: None,
        });
        let rollouts = connection.here::<Rollout>();
        connection
            .ask(rollouts.delete(&self.rollout, &parameters))
            .await?;
        print(&format!(
            "rollout {} is being deleted\n",
            shown(&self.rollout)
        ));
        Ok(())
    }
}

/// The Deployment that gets its pods back, or why it must not.
fn returns(rollout: &Rollout) -> Result<String, Error> {
    let name = rollout.name_any();
    let Some(adopted) = &rollout.spec.workload_ref else {
        return Err(Error::AdoptsNothing(name));
    };
    if !rollout.spec.keeps_pods() {
        return Err(Error::WouldDelete(name));
    }
    if !rollout.finalizers().iter().any(|it| it == KEEP_FINALIZER) {
        return Err(Error::NotKept(name));
    }
    let status = rollout.status.clone().unwrap_or_default();
    let change = status.change.filter(|_| status.stable.is_some());
    let serves = change.is_none_or(|it| it.outcome == Some(Outcome::Promoted));
    if serves || rollout.metadata.deletion_timestamp.is_some() {
        return Ok(adopted.name.clone());
    }
    Err(Error::OtherTemplate {
        rollout: name,
        deployment: adopted.name.clone(),
        standing: format!("it is {:?}, {}", status.phase, status.message),
    })
}

fn way_back(rollout: &Rollout, deployment: &str) -> String {
    let (name, deployment) = (shown(&rollout.name_any()), shown(deployment));
    let replicas = rollout.spec.replicas;
    let canary = &rollout.spec.strategy.canary;
    let services = canary.stable_service.iter().chain(&canary.canary_service);
    let services: Vec<_> = services.map(|it| shown(it)).collect();
    let mut steps = vec![format!(
        "Rollout {name} is deleted; its pods go on to serve. A change that is under way by then is rolled back."
    )];
    steps.push(format!(
        "The operator scales Deployment {deployment} to {replicas} and waits until all of its pods are available."
    ));
    if !services.is_empty() {
        steps.push(format!(
            "The label pod-template-hash is taken out of the selectors of {}, so that they reach the Deployment's pods.",
            services.join(" and ")
        ));
    }
    steps.push(format!(
        "After {} the pods of the Rollout go, with its records. Deployment {deployment} rolls its changes out by itself again.",
        canary.drain
    ));
    let mut text = format!("Deployment {deployment} gets its pods back:\n\n");
    text += &numbered(&steps);
    text + "\n"
}

async fn until_gone(connection: &Connection, name: &str) -> Result<(), Failure> {
    let stream = watcher::watch_object(connection.here::<Rollout>(), name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut progress = Progress::default();
    loop {
        match stream.try_next().await {
            Ok(Some(Some(rollout))) => {
                let deleted = rollout.metadata.deletion_timestamp.is_some();
                let message = rollout.status.as_ref().map(|it| it.message.as_str());
                progress.tell(message.filter(|_| deleted).unwrap_or_default());
            }
            Ok(_) => return Ok(()),
            Err(error) => lasting(connection, &error)?,
        }
    }
}

async fn until_available(connection: &Connection, name: &str) -> Result<(), Failure> {
    let stream = watcher::watch_object(connection.here::<Deployment>(), name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut progress = Progress::default();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Some(deployment)) => {
                let spec = deployment.spec;
                let status = deployment.status.unwrap_or_default();
                let (asked, available) = (
                    spec.replicas.unwrap_or(1),
                    status.available_replicas.unwrap_or(0),
                );
                if available >= asked {
                    return Ok(());
                }
                progress.tell(&format!(
                    "{available} of {} are available",
                    number(asked, "pod")
                ));
            }
            Ok(None) => {}
            Err(error) => lasting(connection, &error)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{at_rest, waiting};

    fn deployment(spec: &Value) -> Deployment {
        let mut whole = json!({
            "replicas": 4, "minReadySeconds": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } } },
        });
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let managed = json!([
            { "manager": "countersign", "operation": "Update", "time": "2026-01-03T00:00:00Z",
              "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
            { "manager": "argocd", "operation": "Apply", "time": "2026-01-02T00:00:00Z",
              "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
            { "manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:00Z",
              "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
        ]);
        serde_json::from_value(json!({
            "metadata": { "name": "web", "managedFields": managed },
            "spec": whole, "status": { "availableReplicas": 3 },
        }))
        .unwrap()
    }

    #[test]
    fn the_plan_says_in_order_what_will_happen_and_with_which_rollout() {
        let plan = Plan::of(&deployment(&json!({}))).unwrap();
        let yaml = document(&plan.manifest, Format::Yaml).unwrap();
        let told = plan.told(&yaml, &["mind this".into()]);
        for part in [
            "1. Rollout web is made",
            "starts 4 pods",
            "select app=web",
            "  replicas: 4\n",
            "  minReadySeconds: 3\n",
            "unmigrate web",
            "warning: mind this\n",
        ] {
            assert!(told.contains(part), "{part} is not in:\n{told}");
        }
        let made: Rollout = serde_json::from_value(plan.manifest).unwrap();
        assert!(made.spec.keeps_pods() && made.spec.template.is_absent());
    }

    #[test]
    fn what_a_rollout_has_too_is_carried_over_and_defaults_are_not() {
        let carried = |spec: Value| {
            let plan = Plan::of(&deployment(&spec)).unwrap();
            let _: Rollout = serde_json::from_value(plan.manifest.clone()).unwrap();
            let mut spec = plan.manifest["spec"].as_object().unwrap().clone();
            spec.remove("replicas");
            spec.remove("workloadRef");
            Value::Object(spec)
        };
        let defaults = json!({
            "minReadySeconds": 0, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10, "paused": false,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
        });
        assert_eq!(carried(defaults), json!({}));
        assert_eq!(
            carried(json!({
                "minReadySeconds": 900, "progressDeadlineSeconds": 1800, "revisionHistoryLimit": 2, "paused": true,
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            })),
            json!({
                "minReadySeconds": 900, "progressDeadlineSeconds": 1800, "revisionHistoryLimit": 2, "paused": true,
                "strategy": { "canary": { "maxSurge": 1, "maxUnavailable": 0 } },
            })
        );
        // No deadline at all, in a Deployment's words.
        let endless = json!({ "progressDeadlineSeconds": i32::MAX, "minReadySeconds": 0 });
        assert_eq!(
            carried(endless.clone()),
            json!({ "progressDeadlineSeconds": 604_800 })
        );
        let warnings = of_deployment("web", &deployment(&endless)).join("\n");
        assert!(
            warnings.contains(
                "progressDeadlineSeconds is 2147483647, of which a Rollout takes at most 604800"
            ),
            "{warnings}"
        );
    }

    #[test]
    fn a_deployment_that_is_rolled_out_or_recreated_is_warned_of() {
        let mut moving = deployment(&json!({ "strategy": { "type": "Recreate" } }));
        let status = moving.status.as_mut().unwrap();
        (status.replicas, status.updated_replicas) = (Some(4), Some(1));
        let warnings = of_deployment("web", &moving).join("\n");
        for part in [
            "1 of 4 pods of the Deployment run its template",
            "type is Recreate",
        ] {
            assert!(warnings.contains(part), "{part} is not in:\n{warnings}");
        }
    }

    #[test]
    fn what_cannot_be_adopted_is_refused_before_anything_is_made() {
        let refused = |spec: Value| Plan::of(&deployment(&spec)).unwrap_err();
        let expression =
            json!({ "selector": { "matchExpressions": [{ "key": "a", "operator": "Exists" }] } });
        assert_eq!(refused(expression), Error::Expressions("web".into()));
        assert_eq!(
            refused(json!({ "replicas": 0 })),
            Error::NoPods("web".into())
        );
    }

    #[test]
    fn warnings_name_who_scales_and_what_to_do() {
        let warnings = of_deployment("web", &deployment(&json!({ "paused": true }))).join("\n");
        for part in [
            "set by argocd",
            "3 of 4 pods",
            "spec.paused is carried over",
            "no provenance",
        ] {
            assert!(warnings.contains(part), "{part} is not in:\n{warnings}");
        }
        let autoscaler = |kind: &str| -> HorizontalPodAutoscaler {
            let target = json!({ "apiVersion": "apps/v1", "kind": kind, "name": "web" });
            let spec = json!({ "maxReplicas": 9, "scaleTargetRef": target });
            serde_json::from_value(
                json!({ "metadata": { "name": kind.to_lowercase() }, "spec": spec }),
            )
            .unwrap()
        };
        let found = autoscaled(
            "web",
            &[autoscaler("Deployment"), autoscaler("StatefulSet")],
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("aim it at Rollout web"), "{found:?}");
    }

    fn adopting(mut rollout: Rollout) -> Rollout {
        rollout.spec.template = countersign_api::PodTemplate::default();
        rollout.spec.selector = countersign_api::Selector::default();
        rollout.spec.workload_ref = Some(countersign_api::WorkloadReference {
            name: "web".into(),
            ..Default::default()
        });
        rollout.finalizers_mut().push(KEEP_FINALIZER.into());
        rollout
    }

    #[test]
    fn nothing_is_given_back_that_would_take_pods_away_or_skip_the_gates() {
        let refused = |rollout: &Rollout| returns(rollout).unwrap_err();
        assert_eq!(refused(&at_rest()), Error::AdoptsNothing("web".into()));
        let rests = adopting(at_rest());
        assert_eq!(returns(&rests).unwrap(), "web");
        let mut deletes = rests.clone();
        deletes.spec.deletion_policy = Some(countersign_api::DeletionPolicy::Delete);
        assert_eq!(refused(&deletes), Error::WouldDelete("web".into()));
        let mut unkept = rests.clone();
        unkept.finalizers_mut().clear();
        assert_eq!(refused(&unkept), Error::NotKept("web".into()));
        let under_way = adopting(waiting().rollout);
        assert!(matches!(refused(&under_way), Error::OtherTemplate { .. }));
    }

    #[test]
    fn the_way_back_names_the_services_that_are_let_go() {
        let mut rollout = adopting(at_rest());
        let told = way_back(&rollout, "web");
        assert!(!told.contains("selectors"), "{told}");
        rollout.spec.strategy.canary.stable_service = Some("front".into());
        let told = way_back(&rollout, "web");
        assert!(
            told.contains("3. The label pod-template-hash is taken out of the selectors of front"),
            "{told}"
        );
        assert!(told.contains("4. After 5s"), "{told}");
    }
}
