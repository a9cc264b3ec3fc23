//! The ReplicaSets of a Rollout, and foreign ones whose pods it selects.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::rollout::{Change, RolloutStatus, Stage};
use countersign_api::{
    GROUP, HASH_LABEL, MANAGED_BY_LABEL, MANAGER, PodTemplate, REQUESTED_ANNOTATION,
    REVISION_ANNOTATION, ROLLOUT_UID_LABEL, Rollout, TEMPLATE_ANNOTATION,
    TEMPLATE_DIGEST_ANNOTATION,
};
use countersign_core::observation::workload::{Integrity, ReplicaSet};
use countersign_core::rollout::conditions::reports_foreign_pods;
use countersign_core::workload::scaling;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet as ApiReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::{Api, Resource, ResourceExt};
use serde_json::Value;

use super::integrity::{Compared, compared, is_as_decided, stored_template};
use super::observer::Observer;
use super::reads;

use crate::api_resource::untyped;

/// Most ReplicaSets that are read of one Rollout. A user may make any number with its labels.
const MOST: usize = 200;
/// Most bytes of templates that are kept of them.
const MOST_BYTES: usize = 16 << 20;

/// The ReplicaSets that were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// ReplicaSets that the Rollout owns or may adopt.
    pub own: Vec<ReplicaSet>,
    /// Foreign ReplicaSets with pods that the Rollout selects, each in words, by name; not always read.
    pub foreign: Option<Vec<String>>,
    /// Why not all were read.
    pub problem: Option<String>,
}

impl Observer {
    /// Lists by the Rollout's uid while a change is in progress, else by its selector, which also finds
    /// foreign ReplicaSets; by both if a ReplicaSet of the status is missing, and then by its name, since others
    /// may have removed its labels.
    pub(super) async fn replica_sets(
        &self,
        rollout: &Rollout,
        namespace: &str,
    ) -> Result<Found, kube::Error> {
        let uid = rollout.uid().unwrap_or_default();
        if let Some(own) = self.watched_sets(rollout, namespace, &uid) {
            return Ok(Found {
                own,
                ..Found::default()
            });
        }
        let by_uid = format!("{ROLLOUT_UID_LABEL}={uid}");
        let by_pods = rollout.spec.selector.to_string();
        let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
        let under_way = change.is_some_and(|it| it.outcome.is_none());
        let (first, other) = if under_way || by_pods.is_empty() {
            (&by_uid, &by_pods)
        } else {
            (&by_pods, &by_uid)
        };
        let mut listing = Listing::new(rollout, &uid);
        self.list(namespace, first, &mut listing).await?;
        let mut all = first == &by_pods;
        if !by_pods.is_empty() && !listing.missing().is_empty() {
            self.list(namespace, other, &mut listing).await?;
            all = true;
        }
        let sets = self.sets(namespace);
        for hash in listing.missing() {
            if has_none_yet(rollout, &hash) {
                continue;
            }
            let name = scaling::set_name(&rollout.name_any(), &hash);
            let named = ListParams::default().fields(&format!("metadata.name={name}"));
            let (named, _) = reads::page(&sets, &named, None, None).await?;
            for set in &named {
                listing.add_own(set);
            }
        }
        let Listing {
            own,
            mut foreign,
            is_cut,
            ..
        } = listing;
        foreign.sort();
        for (set, _) in &own {
            let metadata = ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(set.name.clone()),
                resource_version: Some(set.version.clone()),
                ..ObjectMeta::default()
            };
            self.caches.written.replica_sets.reaches(&uid, &metadata);
        }
        let own = own.into_iter().map(|(own, compared)| async move {
            let integrity = match compared {
                Compared::As(integrity) => integrity,
                Compared::Differs(it) => self.integrity(rollout, namespace, &own, it).await,
            };
            ReplicaSet { integrity, ..own }
        });
        let problem = is_cut.then(|| {
            format!(
                "there are more ReplicaSets with the labels of this Rollout's ({by_pods}) than are read, {MOST} with {} MiB of templates: delete what is not the Rollout's, and limit their number by a ResourceQuota (count/replicasets.apps)",
                MOST_BYTES >> 20
            )
        });
        Ok(Found {
            own: join_all(own).await,
            foreign: all.then_some(foreign),
            problem,
        })
    }

    /// The ReplicaSets as their watch has reported them; `None` if they have to be read: if one is missing or not as it was
    /// decided, or if pods of others are reported.
    fn watched_sets(
        &self,
        rollout: &Rollout,
        namespace: &str,
        uid: &str,
    ) -> Option<Vec<ReplicaSet>> {
        let has_foreign = rollout.status.as_ref().is_some_and(reports_foreign_pods);
        if !self.from_watches || has_foreign {
            return None;
        }
        let sets = self
            .caches
            .written
            .replica_sets
            .of_rollout(namespace, uid)?;
        if sets.len() > MOST {
            return None;
        }
        let mut listing = Listing::new(rollout, uid);
        for json in sets {
            let set: DynamicObject = serde_json::from_str(&json).ok()?;
            // One that is being deleted, or of another controller, is none of the Rollout's.
            let Some(own) = replica_set(rollout, uid, &set) else {
                continue;
            };
            if !is_as_decided(rollout, &own, &set) {
                return None;
            }
            listing.own.push((own, Compared::As(Integrity::Sound)));
        }
        let missing = listing.missing();
        let complete = missing.iter().all(|hash| has_none_yet(rollout, hash));
        complete.then(|| listing.own.into_iter().map(|(own, _)| own).collect())
    }

    /// Adds the ReplicaSets with these labels, page by page, until there are too many.
    async fn list(
        &self,
        namespace: &str,
        labels: &str,
        listing: &mut Listing<'_>,
    ) -> Result<(), kube::Error> {
        let sets = self.sets(namespace);
        let of = ListParams::default().labels(labels).limit(reads::LARGE);
        let (mut listed, mut after) = (0_usize, None);
        loop {
            let (page, more) = reads::page(&sets, &of, after.as_deref(), None).await?;
            listed = listed.saturating_add(page.len());
            for set in &page {
                listing.add(set);
            }
            after = more;
            if after.is_none() {
                return Ok(());
            }
            if listed >= MOST || listing.bytes >= MOST_BYTES {
                listing.is_cut = true;
                return Ok(());
            }
        }
    }

    /// The ReplicaSets as dynamic objects, so that template fields newer than this build are kept.
    pub(super) fn sets(&self, namespace: &str) -> Api<DynamicObject> {
        untyped::<ApiReplicaSet>(&self.client, namespace)
    }

    /// The first result of a ReplicaSet with these labels.
    pub(super) async fn first_of_sets<T>(
        &self,
        namespace: &str,
        labels: &str,
        wanted: impl Fn(&DynamicObject) -> Option<T>,
    ) -> Result<Option<T>, kube::Error> {
        let of = ListParams::default().labels(labels).limit(reads::LARGE);
        let convert = |set: DynamicObject| wanted(&set);
        let sets = self.sets(namespace);
        let (found, _) = reads::collect_at_most(MOST, &sets, &of, convert).await?;
        Ok(found.into_iter().next())
    }
}

/// What is kept of the ReplicaSets that were listed.
struct Listing<'a> {
    rollout: &'a Rollout,
    uid: &'a str,
    /// The uids of those that were listed.
    seen: BTreeSet<String>,
    /// Those that the Rollout owns or may adopt.
    own: Vec<(ReplicaSet, Compared)>,
    /// Foreign ones with pods, in words.
    foreign: Vec<String>,
    /// The bytes of the templates that are kept.
    bytes: usize,
    /// Whether there are more.
    is_cut: bool,
}

impl<'a> Listing<'a> {
    const fn new(rollout: &'a Rollout, uid: &'a str) -> Self {
        Self {
            rollout,
            uid,
            seen: BTreeSet::new(),
            own: Vec::new(),
            foreign: Vec::new(),
            bytes: 0,
            is_cut: false,
        }
    }

    fn add(&mut self, set: &DynamicObject) {
        if self.is_ours(set) {
            self.add_own(set);
        } else if self.is_new(set) {
            self.foreign.extend(foreign(self.rollout, set));
        }
    }

    fn add_own(&mut self, set: &DynamicObject) {
        let own = replica_set(self.rollout, self.uid, set);
        let Some(own) = own.filter(|_| self.is_new(set)) else {
            return;
        };
        let template = own.template.0.to_string();
        self.bytes = self.bytes.saturating_add(template.len());
        let compared = compared(self.rollout, &own, set);
        self.own.push((own, compared));
    }

    fn is_new(&mut self, set: &DynamicObject) -> bool {
        self.seen.insert(set.uid().unwrap_or_default())
    }

    fn is_ours(&self, set: &DynamicObject) -> bool {
        let labels = set.labels();
        controller(set).is_some_and(|owner| is_rollout(owner, self.uid))
            || labels.get(ROLLOUT_UID_LABEL).map(String::as_str) == Some(self.uid)
            || labels.get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGER)
    }

    /// The revisions of the status that should have a ReplicaSet and have none that was listed.
    fn missing(&self) -> Vec<String> {
        let status = self.rollout.status.as_ref();
        let expected = status.map(expected).unwrap_or_default();
        let missing = expected.into_iter().filter(|hash| {
            let mut own = self.own.iter();
            !own.any(|(set, _)| set.owned && set.hash == *hash)
        });
        missing.map(ToOwned::to_owned).collect()
    }
}

/// Whether a revision is a first one that may have no pods yet.
fn has_none_yet(rollout: &Rollout, hash: &str) -> bool {
    let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
    change.is_some_and(|it| it.initial && !it.begun && it.pod_template_hash == hash)
}

/// The revisions that should have a ReplicaSet: the stable one, or a first one, and a canary from its first step until
/// its pods are gone.
fn expected(status: &RolloutStatus) -> Vec<&str> {
    let change = status.change.as_ref();
    let serves = |it: &&Change| {
        let serves = matches!(
            it.stage,
            Stage::Stepping | Stage::Promoting | Stage::RollingBack
        );
        status.stable.is_none() || (it.step > 0 && serves)
    };
    let stable = status.stable.iter().map(|it| &it.pod_template_hash);
    let canary = change
        .filter(serves)
        .into_iter()
        .map(|it| &it.pod_template_hash);
    let mut expected: Vec<_> = stable.chain(canary).map(String::as_str).collect();
    expected.dedup();
    expected
}

/// A foreign ReplicaSet with pods, in words; `None` if it is the adopted workload's.
fn foreign(rollout: &Rollout, set: &DynamicObject) -> Option<String> {
    let has_pods = number(set, "/spec/replicas") > 0 || number(set, "/status/replicas") > 0;
    let controller = controller(set);
    let adopted = rollout.spec.workload_ref.as_ref();
    let is_adopted = adopted.is_some_and(|adopted| {
        controller.is_some_and(|it| it.kind == "Deployment" && it.name == adopted.name)
    });
    if !has_pods || is_adopted || set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let of = controller.map(|it| format!(" of {} {}", it.kind, it.name));
    Some(format!(
        "ReplicaSet {}{}",
        set.name_any(),
        of.unwrap_or_default()
    ))
}

/// Whether an owner is the Rollout with this uid. The API server takes any kind beside a uid, and the admission
/// policy that keeps others from naming a Rollout as owner asks for its kind.
pub(super) fn is_rollout(owner: &OwnerReference, uid: &str) -> bool {
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    owner.uid == uid && owner.kind == Rollout::kind(&()) && group == Some(GROUP)
}

fn controller(set: &DynamicObject) -> Option<&OwnerReference> {
    let mut owners = set.owner_references().iter();
    owners.find(|owner| owner.controller == Some(true))
}

fn number(set: &DynamicObject, path: &str) -> i32 {
    let value = set.data.pointer(path).and_then(Value::as_i64);
    i32::try_from(value.unwrap_or_default()).unwrap_or(i32::MAX)
}

pub(super) fn replica_set(rollout: &Rollout, uid: &str, set: &DynamicObject) -> Option<ReplicaSet> {
    let controller = controller(set);
    let owned = controller.is_some_and(|owner| is_rollout(owner, uid));
    let foreign = controller.is_some() && !owned;
    if foreign || set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let failure = set
        .data
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .and_then(|conditions| {
            let failed = |condition: &&Value| {
                condition.get("type") == Some(&"ReplicaFailure".into())
                    && condition.get("status") == Some(&"True".into())
            };
            conditions
                .iter()
                .find(failed)?
                .get("message")?
                .as_str()
                .map(ToOwned::to_owned)
        });
    let pod_labels = pod_labels(set);
    let hash = pod_labels.get(HASH_LABEL).or(set.labels().get(HASH_LABEL));
    let hash = hash.cloned().unwrap_or_default();
    Some(ReplicaSet {
        name: set.name_any(),
        uid: set.uid().unwrap_or_default(),
        version: set.resource_version().unwrap_or_default(),
        hash,
        template_digest: set
            .annotations()
            .get(TEMPLATE_DIGEST_ANNOTATION)
            .cloned()
            .unwrap_or_default(),
        revision: revision(&set.metadata),
        owned,
        matches: rollout.spec.selector.matches(&pod_labels),
        labels_missing: owned && !is_labelled(set, uid, &pod_labels),
        replicas: number(set, "/spec/replicas"),
        min_ready_seconds: number(set, "/spec/minReadySeconds"),
        requested: set
            .annotations()
            .get(REQUESTED_ANNOTATION)
            .and_then(|it| it.parse().ok()),
        current: number(set, "/status/replicas"),
        ready: number(set, "/status/readyReplicas"),
        available: number(set, "/status/availableReplicas"),
        failure,
        template: as_recorded(set),
        integrity: Integrity::Sound,
    })
}

/// The labels of a ReplicaSet's pods: those of its template, since its own may have been removed.
fn pod_labels(set: &DynamicObject) -> BTreeMap<String, String> {
    let labels = set.data.pointer("/spec/template/metadata/labels").cloned();
    labels
        .and_then(|labels| serde_json::from_value(labels).ok())
        .unwrap_or_default()
}

/// Whether a ReplicaSet has the labels by which it is listed: those of its pods, and the Rollout's uid.
fn is_labelled(set: &DynamicObject, uid: &str, pod_labels: &BTreeMap<String, String>) -> bool {
    let own = set.labels();
    let has = |(name, value): (&String, &String)| own.get(name) == Some(value);
    own.get(ROLLOUT_UID_LABEL).map(String::as_str) == Some(uid)
        && own.get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGER)
        && pod_labels.iter().all(has)
}

fn revision(metadata: &ObjectMeta) -> i64 {
    let annotations = metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(REVISION_ANNOTATION)?.parse().ok())
        .unwrap_or_default()
}

/// The template as the Rollout had it; for a foreign ReplicaSet, the stored one.
pub(super) fn as_recorded(set: &DynamicObject) -> PodTemplate {
    let kept = set.annotations().get(TEMPLATE_ANNOTATION);
    let kept = kept.and_then(|kept| serde_json::from_str(kept).ok());
    kept.map_or_else(|| stored_template(set).unwrap_or_default(), PodTemplate)
}
