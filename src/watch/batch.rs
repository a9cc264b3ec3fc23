//! Triggers that arrive together, and the Rollouts that they concern.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kube::runtime::reflector::{ObjectRef, Store};

use crate::watch::claim::Claim;
use crate::watch::trigger::{Scope, Trigger};

/// Triggers that arrive together. Rollouts that none of them names are found in one pass over all Rollouts, however
/// many were deleted or policies edited.
#[derive(Debug, Default)]
pub struct Batch {
    named: HashSet<ObjectRef<Claim>>,
    /// Those of the named that have lost an object.
    lost: HashSet<ObjectRef<Claim>>,
    /// The deleted Rollouts, by namespace.
    deleted: BTreeMap<Option<String>, Vec<Arc<Claim>>>,
    governed: Vec<Scope>,
    frozen: Vec<Scope>,
}

impl Batch {
    /// The batch of these triggers.
    #[must_use]
    pub fn of(triggers: Vec<Trigger>) -> Self {
        let mut batch = Self::default();
        let add = |scopes: &mut Vec<Scope>, scope: Scope| {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        };
        for trigger in triggers {
            match trigger {
                Trigger::Touched(claim) => {
                    batch.named.insert(ObjectRef::from_obj(&*claim));
                }
                Trigger::Related(rollout) => {
                    batch.named.insert(rollout);
                }
                Trigger::Lost(rollout) => {
                    batch.lost.insert(rollout.clone());
                    batch.named.insert(rollout);
                }
                Trigger::Deleted(claim) => {
                    let namespace = claim.metadata.namespace.clone();
                    batch.deleted.entry(namespace).or_default().push(claim);
                }
                Trigger::Governed(scope) => add(&mut batch.governed, scope),
                Trigger::Frozen(scope) => add(&mut batch.frozen, scope),
            }
        }
        batch
    }

    /// The deleted Rollouts.
    pub fn deleted(&self) -> impl Iterator<Item = &Claim> {
        self.deleted.values().flatten().map(|claim| &**claim)
    }

    /// The Rollouts that have lost an object.
    pub fn lost(&self) -> impl Iterator<Item = &ObjectRef<Claim>> {
        self.lost.iter()
    }

    /// The Rollouts to reconcile. `labels` are those of a namespace, if they are known.
    #[must_use]
    pub fn rollouts(
        self,
        claims: &Store<Claim>,
        labels: impl Fn(&str) -> Option<BTreeMap<String, String>>,
    ) -> HashSet<ObjectRef<Claim>> {
        let Self {
            mut named,
            lost: _,
            deleted,
            governed,
            frozen,
        } = self;
        if deleted.is_empty() && governed.is_empty() && frozen.is_empty() {
            return named;
        }
        let selected = |scopes: &[Scope], claim: &Claim| {
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            !scopes.is_empty() && {
                let labels = labels(namespace);
                scopes.iter().any(|it| it.selects(claim, labels.as_ref()))
            }
        };
        let concerned = claims.state().into_iter().filter(|claim| {
            let deleted = deleted.get(&claim.metadata.namespace);
            deleted.is_some_and(|deleted| deleted.iter().any(|it| it.held_up(claim)))
                || selected(&governed, claim)
                || (claim.is_changing() && selected(&frozen, claim))
        });
        named.extend(concerned.map(|claim| ObjectRef::from_obj(&*claim)));
        named
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use countersign_api::Selector;
    use kube::runtime::{reflector, watcher};
    use serde_json::json;

    use super::*;

    #[test]
    fn one_pass_finds_what_any_number_of_edited_policies_govern() {
        let (claims, mut writer) = reflector::store();
        for number in 0..3 {
            let name = format!("app-{number}");
            let metadata = json!({ "name": name, "namespace": "shop", "uid": name, "labels": { "app": name } });
            let claim: Claim = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
            writer.apply_watcher_event(&watcher::Event::Apply(claim));
        }
        let governed = |app: &str| {
            let selector = json!({ "matchLabels": { "app": app } });
            let rollouts: Selector = serde_json::from_value(selector).unwrap();
            Trigger::Governed(Scope {
                rollouts: Some(rollouts),
                ..Scope::default()
            })
        };
        let mut triggers: Vec<_> = (0..100)
            .map(|it| governed(&format!("other-{it}")))
            .collect();
        triggers.push(governed("app-1"));
        let looked_up = Cell::new(0);
        let labels = |_: &str| {
            looked_up.set(looked_up.get() + 1);
            None
        };
        let rollouts = Batch::of(triggers).rollouts(&claims, labels);
        let names: Vec<_> = rollouts.into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["app-1"]);
        assert_eq!(looked_up.get(), 3);
    }
}
