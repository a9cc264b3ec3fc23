//! What a watch reports, and which Rollouts it concerns.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_api::Selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::core::DynamicObject;
use kube::runtime::reflector::ObjectRef;

use crate::watch::claim::Claim;

/// The Rollouts that a policy or a Freeze selects: all of them by a selector that is absent, or that this
/// build cannot read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub(super) namespaces: Option<Selector>,
    pub(super) rollouts: Option<Selector>,
}

impl Scope {
    pub(super) fn of(freeze: &DynamicObject) -> Self {
        let selector = |name: &str| {
            let found = freeze.data.pointer(&format!("/spec/{name}"))?;
            serde_json::from_value(found.clone()).ok()
        };
        Self {
            namespaces: selector("namespaceSelector"),
            rollouts: selector("rolloutSelector"),
        }
    }

    /// Whether it selects a Rollout. One in a namespace whose labels are not known may be selected.
    #[must_use]
    pub fn selects(&self, claim: &Claim, namespace: Option<&BTreeMap<String, String>>) -> bool {
        let selected = |by: Option<&Selector>, labels: Option<&BTreeMap<String, String>>| {
            by.is_none_or(|by| labels.is_none_or(|labels| by.matches(labels)))
        };
        selected(self.namespaces.as_ref(), namespace)
            && selected(self.rollouts.as_ref(), Some(claim.labels()))
    }
}

/// Which Rollouts to look at.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// The Rollout itself was touched.
    Touched(Arc<Claim>),
    /// The Rollout is gone; others of its namespace may have waited for that.
    Deleted(Arc<Claim>),
    /// A policy that selects these Rollouts has changed.
    Governed(Scope),
    /// A Freeze that selects these Rollouts has changed: it concerns those with a change under way.
    Frozen(Scope),
    /// Something of the Rollout's was touched.
    Related(ObjectRef<Claim>),
    /// Something that concerns all of them was touched.
    All,
}

pub(super) fn concerned(wish: &DynamicObject) -> Option<Trigger> {
    let rollout = wish.data.pointer("/spec/rollout")?.as_str()?;
    let namespace = wish.namespace()?;
    Some(Trigger::Related(ObjectRef::new(rollout).within(&namespace)))
}

pub(super) fn owner(metadata: &ObjectMeta) -> Option<ObjectRef<Claim>> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners
        .iter()
        .find(|owner| owner.controller == Some(true) && owner.kind == "Rollout")?;
    Some(ObjectRef::new(&owner.name).within(metadata.namespace.as_deref()?))
}
