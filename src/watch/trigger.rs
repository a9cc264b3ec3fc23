//! Triggers of the watches, and the Rollouts that they reconcile.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_api::Selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::watch::claim::Claim;
use crate::watch::watched::{WatchedFreeze, WatchedPolicy};

/// The Rollouts that a policy or a Freeze selects: all, if the selector is absent or its object cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub(super) namespaces: Option<Selector>,
    pub(super) rollouts: Option<Selector>,
}

impl Scope {
    pub(super) fn of_policy(policy: &WatchedPolicy) -> Self {
        let spec = policy.spec.as_ref();
        spec.map_or_else(
            |_| Self::default(),
            |spec| Self {
                namespaces: spec.namespace_selector.clone(),
                rollouts: spec.rollout_selector.clone(),
            },
        )
    }

    pub(super) fn of_freeze(freeze: &WatchedFreeze) -> Self {
        let spec = freeze.spec.as_ref();
        spec.map_or_else(
            |_| Self::default(),
            |spec| Self {
                namespaces: spec.namespace_selector.clone(),
                rollouts: spec.rollout_selector.clone(),
            },
        )
    }

    /// Whether the scope selects a Rollout. A Rollout in a namespace with unknown labels counts as
    /// selected.
    #[must_use]
    pub fn selects(&self, claim: &Claim, namespace: Option<&BTreeMap<String, String>>) -> bool {
        let selected = |by: Option<&Selector>, labels: Option<&BTreeMap<String, String>>| {
            by.is_none_or(|by| labels.is_none_or(|labels| by.matches(labels)))
        };
        selected(self.namespaces.as_ref(), namespace)
            && selected(self.rollouts.as_ref(), Some(claim.labels()))
    }
}

/// The Rollouts to reconcile.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// The Rollout itself has changed.
    Touched(Arc<Claim>),
    /// The Rollout was deleted; others of its namespace may have waited for that.
    Deleted(Arc<Claim>),
    /// A policy that selects these Rollouts has changed.
    Governed(Scope),
    /// A Freeze that selects these Rollouts has changed: those with a change in progress are reconciled.
    Frozen(Scope),
    /// An object of the Rollout has changed.
    Related(ObjectRef<Claim>),
    /// An object of the Rollout is in its watch no more: it was deleted, or its label was edited, with which it is watched.
    Lost(ObjectRef<Claim>),
}

impl Trigger {
    /// The same, as an object of the Rollout is in its watch no more.
    pub(super) fn lost(self) -> Self {
        match self {
            Self::Related(rollout) => Self::Lost(rollout),
            other => other,
        }
    }
}

/// Triggers the Rollouts that an event concerns.
pub(super) fn related(claims: &Store<Claim>, concerned: impl Fn(&Claim) -> bool) -> Vec<Trigger> {
    let rollouts = claims.state_filter(concerned);
    let rollouts = rollouts.iter();
    rollouts
        .map(|claim| Trigger::Related(ObjectRef::from_obj(&**claim)))
        .collect()
}

/// The Rollout that owns an object.
pub(super) fn owner(metadata: &ObjectMeta) -> Option<ObjectRef<Claim>> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners
        .iter()
        .find(|owner| owner.controller == Some(true) && owner.kind == "Rollout")?;
    Some(ObjectRef::new(&owner.name).within(metadata.namespace.as_deref()?))
}
