//! The people of the demo: alice, who wrote the change to `billing`, and bob, who had no hand in it. Both may
//! approve; the API server lets only bob.

use std::time::Duration;

use countersign_api::rollout::Change;
use countersign_api::{Rollout, SignOff};
use countersign_cluster::wait_for;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::Result;
use crate::place::Place;

/// How long a role may take to be in force, and the API server to know the change.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

/// Each with a group of theirs.
const AUTHOR: (&str, &str) = ("alice", "service-team");
const APPROVER: (&str, &str) = ("bob", "approvers");

/// What the API server says to those who must not sign.
const REFUSED_SINCE: &str = "had a hand in";

pub struct People {
    author: Api<SignOff>,
    approver: Api<SignOff>,
}

/// What became of the approvals.
pub struct Answers {
    /// The refusal of the author's approval; `None` if it was accepted.
    pub refusal: Option<String>,
}

impl People {
    /// Gives both the role of an approver.
    pub async fn with_roles(place: &Place, namespace: &str) -> Result<Self> {
        let user = |(name, _): (&str, &str)| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name });
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": { "name": "approvers" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "countersign-approver",
            },
            "subjects": [user(AUTHOR), user(APPROVER)],
        }))?;
        let bindings: Api<RoleBinding> = Api::namespaced(place.client(), namespace);
        bindings.create(&PostParams::default(), &binding).await?;
        let signs = async |(name, group)| -> Result<Api<SignOff>> {
            let client = place.client_as(name, group).await?;
            Ok(Api::namespaced(client, namespace))
        };
        Ok(Self {
            author: signs(AUTHOR).await?,
            approver: signs(APPROVER).await?,
        })
    }

    /// The author approves her own change, then somebody else does.
    pub async fn approve(&self, rollout: &Rollout, change: &Change) -> Result<Answers> {
        let create = PostParams::default();
        let own = approval(rollout, change, AUTHOR)?;
        let refused = async || match self.author.create(&create, &own).await {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.message.contains(REFUSED_SINCE) => {
                Ok(Some(status.message.clone()))
            }
            Err(error) => Err(error.to_string()), // her role is not in force yet
        };
        let refusal = wait_for("an answer to alice's approval", KNOWN_WITHIN, refused).await?;
        let other = approval(rollout, change, APPROVER)?;
        let accepted = async || {
            let made = self.approver.create(&create, &other).await;
            made.map(|_| ()).map_err(|error| error.to_string())
        };
        wait_for("bob's approval is accepted", KNOWN_WITHIN, accepted).await?;
        Ok(Answers { refusal })
    }
}

fn approval(rollout: &Rollout, change: &Change, (name, group): (&str, &str)) -> Result<SignOff> {
    let sign_off = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "SignOff",
        "metadata": { "generateName": format!("{}-", rollout.name_any()) },
        "spec": {
            "rollout": rollout.name_any(), "rolloutUid": rollout.uid(),
            "run": change.run, "digest": change.digest,
            "decision": "Approve", "gate": "promotion", "reason": "the evidence is good",
            // API servers before 1.36 do not fill in the groups.
            "approver": { "username": name, "groups": [group, "system:authenticated"] },
        },
    });
    Ok(serde_json::from_value(sign_off)?)
}
