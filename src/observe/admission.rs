//! Checks that the admission policies that prove the author of an object equal those of this build.
//! Without them, anybody could sign off in another user's name.
//!
//! The other policies protect what belongs to a Rollout. They are compared once a minute, so that no
//! reconcile reads more for them.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use countersign_core::admission::{self, PROOF, PROTECTION};
use countersign_core::observation::people::Admission;
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, PostParams, TypeMeta};
use kube::core::{DynamicObject, GroupVersionKind, ObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::{Notify, OnceCell};

use super::reads::{Reads, tried};
use crate::api_server::sentence;
use crate::timing::{ADMISSION_TIMEOUT, PROTECTION_MAX_AGE};

/// The API group of all of them.
const GROUP_VERSION: &str = "admissionregistration.k8s.io/v1";

/// Compares the installed admission policies with the expected ones.
#[derive(Clone)]
pub struct AdmissionCheck {
    client: Client,
    operator: Arc<OnceCell<String>>,
    logged: Arc<Mutex<Option<Vec<String>>>>,
    activity: Arc<Notify>,
    /// When those that prove no author were last read, if all of them were in place.
    protection: Arc<Mutex<Option<(Instant, Admission)>>>,
}

impl AdmissionCheck {
    /// A check that looks up the operator's user at its first use.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            operator: Arc::default(),
            logged: Arc::default(),
            activity: Arc::default(),
            protection: Arc::default(),
        }
    }

    /// Notes a reconcile, after which the policies are checked.
    pub fn note_activity(&self) {
        self.activity.notify_waiters();
    }

    /// Waits for the next reconcile of any Rollout.
    pub async fn activity(&self) {
        self.activity.notified().await;
    }

    /// The policies that are missing or altered. Check after reading the sign-offs: a forged one is then
    /// seen together with the fault that allowed it. Of those that prove no author a recent result is used.
    pub async fn check(&self) -> Admission {
        let Some(protection) = self.recent_protection() else {
            return self.check_all().await;
        };
        let admission = both(self.read_in_time(PROOF).await, protection);
        self.log(&admission.problems);
        admission
    }

    /// The policies that are missing or altered, all of them read now.
    pub async fn check_all(&self) -> Admission {
        let (proof, protection) =
            tokio::join!(self.read_in_time(PROOF), self.read_in_time(PROTECTION));
        self.keep_protection(&protection);
        let admission = both(proof, protection);
        self.log(&admission.problems);
        admission
    }

    fn recent_protection(&self) -> Option<Admission> {
        let kept = self.protection.lock().ok()?;
        let (at, protection) = kept.as_ref()?;
        (at.elapsed() < PROTECTION_MAX_AGE).then(|| protection.clone())
    }

    /// Keeps a result without problems; otherwise the next check reads again.
    fn keep_protection(&self, protection: &Admission) {
        if let Ok(mut kept) = self.protection.lock() {
            let in_place = protection.problems.is_empty();
            *kept = in_place.then(|| (Instant::now(), protection.clone()));
        }
    }

    async fn read_in_time(&self, files: &[&str]) -> Admission {
        let read = tokio::time::timeout(ADMISSION_TIMEOUT, self.read(files)).await;
        read.unwrap_or_else(|_| {
            let problem = "the admission policies cannot be checked: the API server is slow";
            Admission {
                problems: vec![problem.into()],
                ..Admission::default()
            }
        })
    }

    /// Logs what has changed since the last check.
    fn log(&self, problems: &[String]) {
        let Ok(mut logged) = self.logged.lock() else {
            return;
        };
        if logged.as_deref() == Some(problems) {
            return;
        }
        for problem in problems {
            tracing::error!(%problem, "no sign-off counts");
        }
        if problems.is_empty() {
            tracing::info!("the admission policies are in place");
        }
        *logged = Some(problems.to_vec());
    }

    async fn read(&self, files: &[&str]) -> Admission {
        let (objects, stamps) = match self.expected(files).await {
            Ok(expected) => expected,
            Err(error) => {
                let problem = format!(
                    "the admission policies cannot be checked: {}",
                    sentence(&error)
                );
                return Admission {
                    problems: vec![problem],
                    ..Admission::default()
                };
            }
        };
        let mut admission = Admission {
            stamps,
            ..Admission::default()
        };
        let checks = objects.iter().map(|object| self.compare(object));
        for result in futures::future::join_all(checks).await {
            match result {
                Ok(since) => admission.since = admission.since.max(Some(since)),
                Err(problem) => admission.problems.push(problem),
            }
        }
        admission
    }

    /// The expected objects of this cluster, and whether the API server has mutating policies.
    async fn expected(&self, files: &[&str]) -> Result<(Vec<DynamicObject>, bool), kube::Error> {
        let operator = self.operator.get_or_try_init(|| self.own_name()).await?;
        let offered = tried(|| self.client.list_api_group_resources(GROUP_VERSION)).await?;
        let mutating = MutatingAdmissionPolicy::plural(&());
        let stamps = offered.resources.iter().any(|it| it.name == mutating);
        let mut objects = expected(files, operator);
        objects.retain(|it| stamps || !kind(it).starts_with("Mutating"));
        Ok((objects, stamps))
    }

    async fn own_name(&self) -> Result<String, kube::Error> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let review = SelfSubjectReview::default();
        let review = reviews.create(&PostParams::default(), &review).await?;
        let user = review.status.and_then(|it| it.user_info);
        Ok(user.and_then(|it| it.username).unwrap_or_default())
    }

    /// When an object was last written, or its fault.
    async fn compare(&self, expected: &DynamicObject) -> Result<Timestamp, String> {
        let (kind, name) = (kind(expected), expected.name_any());
        let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let found = Reads::MostRecent.get_opt(&api, &name).await;
        let found =
            found.map_err(|error| format!("{kind} {name} cannot be read: {}", sentence(&error)))?;
        let missing = || format!("{kind} {name} is missing: upgrade the chart's release");
        let found = found.ok_or_else(missing)?;
        if found.data.get("spec") != expected.data.get("spec") {
            return Err(format!(
                "{kind} {name} is not what this version of the operator expects: upgrade the chart's release, and find out who altered it"
            ));
        }
        Ok(written_at(&found.metadata))
    }
}

/// Two results as one. Only what proves authors decides from when on a sign-off is proven.
fn both(mut one: Admission, mut other: Admission) -> Admission {
    other.problems.retain(|it| !one.problems.contains(it));
    one.problems.append(&mut other.problems);
    one
}

/// When an object was last written, except its status: an object that was altered and restored proves
/// nothing about the time between.
fn written_at(metadata: &ObjectMeta) -> Timestamp {
    let writes = metadata.managed_fields.iter().flatten();
    let writes = writes.filter(|it| it.subresource.as_deref().unwrap_or_default().is_empty());
    let writes = writes.filter_map(|it| it.time.as_ref());
    let all = writes.chain(metadata.creation_timestamp.as_ref());
    all.map(|at| at.0).max().unwrap_or(Timestamp::UNIX_EPOCH)
}

fn kind(object: &DynamicObject) -> &str {
    object
        .types
        .as_ref()
        .map_or("", |TypeMeta { kind, .. }| kind)
}

/// Every policy and binding of these files for an operator of this name.
fn expected(files: &[&str], operator: &str) -> Vec<DynamicObject> {
    let objects = admission::objects(files, operator).into_iter();
    objects
        .filter_map(|it| serde_json::from_value(it).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_of_the_chart_is_compared() {
        for files in [PROOF, PROTECTION] {
            let objects = expected(files, "system:serviceaccount:here:countersign");
            assert_eq!(objects.len(), 2 * files.len());
            for object in &objects {
                assert!(object.data["spec"].is_object(), "{}", object.name_any());
            }
        }
    }
}
