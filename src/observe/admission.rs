//! Checks that the admission policies that prove the author of an object equal those of this build.
//! Without them, anybody could sign off in another user's name.
//!
//! The other policies protect what belongs to a Rollout, or save writers work. They are compared at most once a
//! minute, by one reader at a time, so that no reconcile reads more for them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use countersign_core::admission::{self, PROOF, PROTECTION};
use countersign_core::observation::people::Admission;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, PostParams, TypeMeta};
use kube::core::{DynamicObject, GroupVersionKind, ObjectMeta};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Mutex as AsyncMutex, Notify, OnceCell};

use super::reads::tried;
use crate::api_server::sentence;
use crate::timing::{ADMISSION_INTERVAL, ADMISSION_RETRY, ADMISSION_TIMEOUT};

/// The mutating policy and its binding that stamp Rollouts.
const STAMP: &str = "changed-by.countersign.dev";

/// Compares the installed admission policies with the expected ones.
#[derive(Clone)]
pub struct AdmissionCheck {
    client: Client,
    operator: Arc<OnceCell<String>>,
    logged: Arc<Mutex<Option<Vec<String>>>>,
    activity: Arc<Notify>,
    /// The last result for those that prove no author, and when its reader began.
    protection: Arc<AsyncMutex<Option<(Instant, Admission)>>>,
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
        let (proof, protection) = tokio::join!(self.read_in_time(PROOF), self.protection());
        let admission = both(proof, protection);
        self.log(&admission.problems);
        admission
    }

    /// The last result for those that prove no author. A good one lasts a minute; a problem is kept until they
    /// are read again, soon.
    async fn protection(&self) -> Admission {
        let mut last = self.protection.lock().await;
        if let Some((at, admission)) = &*last
            && at.elapsed() < interval(&admission.problems)
        {
            return admission.clone();
        }
        let at = Instant::now();
        let admission = self.read_in_time(PROTECTION).await;
        *last = Some((at, admission.clone()));
        admission
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
        let operator = match self.operator.get_or_try_init(|| self.own_name()).await {
            Ok(operator) => operator,
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
        let objects = expected(files, operator);
        let mut admission = Admission {
            stamps: true,
            ..Admission::default()
        };
        let checks = objects.iter().map(|object| self.compare(object));
        let results = futures::future::join_all(checks).await;
        for (object, result) in objects.iter().zip(results) {
            match result {
                Ok(Some(since)) => admission.since = admission.since.max(Some(since)),
                Ok(None) => admission.stamps &= object.name_any() != STAMP,
                Err(problem) => admission.problems.push(problem),
            }
        }
        admission
    }

    async fn own_name(&self) -> Result<String, kube::Error> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let review = SelfSubjectReview::default();
        let review = reviews.create(&PostParams::default(), &review).await?;
        let user = review.status.and_then(|it| it.user_info);
        Ok(user.and_then(|it| it.username).unwrap_or_default())
    }

    /// When an object was last written, or its fault; `None` for a mutating one that is not there. Older API
    /// servers have none, and a validating one then demands what it would write.
    async fn compare(&self, expected: &DynamicObject) -> Result<Option<Timestamp>, String> {
        let (kind, name) = (kind(expected), expected.name_any());
        let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let found = tried(|| api.get_opt(&name)).await;
        let found =
            found.map_err(|error| format!("{kind} {name} cannot be read: {}", sentence(&error)))?;
        let Some(found) = found else {
            if kind.starts_with("Mutating") {
                return Ok(None);
            }
            return Err(format!(
                "{kind} {name} is missing: upgrade the chart's release"
            ));
        };
        if found.data.get("spec") != expected.data.get("spec") {
            return Err(format!(
                "{kind} {name} is not what this version of the operator expects: upgrade the chart's release, and find out who altered it"
            ));
        }
        Ok(Some(written_at(&found.metadata)))
    }
}

/// The time until the policies are compared again.
#[must_use]
pub fn interval(problems: &[String]) -> Duration {
    if problems.is_empty() {
        ADMISSION_INTERVAL
    } else {
        ADMISSION_RETRY
    }
}

/// Two results as one. Only what proves authors decides from when on a sign-off is proven.
fn both(mut proof: Admission, mut protection: Admission) -> Admission {
    protection
        .problems
        .retain(|it| !proof.problems.contains(it));
    proof.problems.append(&mut protection.problems);
    proof.stamps &= protection.stamps;
    proof
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
mod tests;
