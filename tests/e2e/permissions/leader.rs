//! The leader's reads and writes for Rollouts. Its own `ClusterRole` loses one permission after the
//! other.

mod zoo;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use countersign::clock;
use countersign_api::{KEEP_FINALIZER, Phase};
use countersign_cluster::{ApiRequest, Kinds, wait_for};
use futures::FutureExt as _;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::standby::is_of_a_standby;
use super::{NAME, SYSTEM, granted};
use crate::identity::user::{JSON_PATCH, User, path, until_enforced};
use crate::support::{App, Permission, Scene, TIMEOUT, condition, merge, phase, waits_for};

use zoo::Zoo;

const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const GATEWAY_ALPHA: &str = "gateway.networking.k8s.io/v1alpha2";
const ISTIO: &str = "networking.istio.io/v1";

/// In this order, so that each finds the Rollouts as it needs them: reads come first, and those that end
/// a change last.
const ORDER: &[&str] = &[
    "get rollouts",
    "list replicasets",
    "get services",
    "list endpointslices",
    "get httproutes",
    "get grpcroutes",
    "get tlsroutes",
    "get tcproutes",
    "get virtualservices",
    "get destinationrules",
    "get analysistemplates",
    "list signoffs",
    "list interventions",
    "list freezes",
    "get deployments",
    "list horizontalpodautoscalers",
    "list jobs",
    "list pods",
    "patch services",
    "patch httproutes",
    "patch grpcroutes",
    "patch tlsroutes",
    "patch tcproutes",
    "patch virtualservices",
    "patch destinationrules",
    "create httproutes",
    "create grpcroutes",
    "patch deployments/scale",
    "patch rollouts",
    "patch signoffs/status",
    "create events",
    "patch rolloutpolicies/status",
    "patch freezes/status",
    "patch analysistemplates/status",
    "update rollouts/status",
    "create replicasets",
    "list rolloutruns",
    "create rolloutruns",
    "patch rolloutruns",
    "patch replicasets",
    "patch events",
    "delete replicasets",
    "delete signoffs",
    "delete interventions",
    "delete rolloutruns",
    "patch interventions/status",
    "create jobs",
    "delete jobs",
    "delete grpcroutes",
    "delete httproutes",
];

/// When the operator was without a permission.
struct Taken {
    permission: Permission,
    from: Timestamp,
    until: Timestamp,
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn whatever_the_leader_may_no_longer_do_is_named_and_continues_once_it_may_again() {
    let mut zoo = Zoo::new().await;
    let all = granted(&zoo.scene).await;
    let own: Vec<_> = all.iter().filter(|it| !is_of_a_standby(it)).collect();
    let known: BTreeSet<_> = ORDER.iter().map(ToString::to_string).collect();
    let names: BTreeSet<_> = own.iter().map(ToString::to_string).collect();
    assert_eq!(
        names, known,
        "the chart's role and what this test knows a use for differ"
    );

    let roles: Api<ClusterRole> = Api::all(zoo.scene.cluster.client());
    let installed = roles.get(NAME).await.unwrap().rules.unwrap();
    let began = clock::now();
    let taken = AssertUnwindSafe(take_all(&mut zoo, &all))
        .catch_unwind()
        .await;
    // The role is restored in any case.
    set_rules(&zoo.scene, installed).await;
    let taken = taken.unwrap_or_else(|panic| resume_unwind(panic));

    let poll = async || {
        let requests = zoo.scene.cluster.requests().unwrap();
        let requests: Vec<_> = requests.into_iter().filter(|it| it.at >= began).collect();
        let lacking = taken.iter().filter(|it| !it.goes_on(&requests));
        let lacking: Vec<_> = lacking.map(|it| it.permission.to_string()).collect();
        if lacking.is_empty() {
            Ok(requests)
        } else {
            Err(format!("{lacking:?}"))
        }
    };
    let what = "all that was refused continues";
    let requests = wait_for(what, TIMEOUT, poll).await.unwrap();
    zoo.remove_clusterwide().await;
    for taken in &taken {
        assert!(
            taken.refused(&requests),
            "nothing was refused without `{}`",
            taken.permission
        );
    }
    for refused in requests.iter().filter(|it| it.code == 403) {
        assert!(
            taken.iter().any(|it| it.explains(refused)),
            "refused though granted: {refused:?}"
        );
    }
}

async fn take_all(zoo: &mut Zoo, all: &BTreeSet<Permission>) -> Vec<Taken> {
    let mut done = Vec::new();
    for name in ORDER {
        let permission = all.iter().find(|it| it.to_string() == *name).unwrap();
        let (from, before) = (clock::now(), zoo.log().len());
        zoo.set(permission, permission.lacking(all), false).await;
        zoo.provoke(name).await;
        let reported = zoo.named(permission, before).await;
        println!(
            "{:5.1} s  {name}: {reported}",
            clock::now().duration_since(from).as_secs_f64()
        );
        zoo.set(permission, all.iter().map(Permission::rule).collect(), true)
            .await;
        done.push(Taken {
            permission: permission.clone(),
            from,
            until: clock::now(),
        });
    }
    done
}

impl Taken {
    fn is(&self, request: &ApiRequest) -> bool {
        let Permission {
            verb,
            resource,
            group,
            ..
        } = &self.permission;
        (&request.verb, &request.resource, &request.group) == (verb, resource, group)
    }

    fn explains(&self, request: &ApiRequest) -> bool {
        // A request from before the restoration may be answered after it.
        let until = self.until + SignedDuration::from_secs(1);
        self.is(request) && (self.from..until).contains(&request.at)
    }

    fn refused(&self, requests: &[ApiRequest]) -> bool {
        requests
            .iter()
            .any(|it| it.code == 403 && self.explains(it))
    }

    /// The operator repeats the refused request with success, perhaps before the restoration is seen
    /// here.
    fn goes_on(&self, requests: &[ApiRequest]) -> bool {
        let refused = requests
            .iter()
            .filter(|it| it.code == 403 && self.explains(it))
            .map(|it| it.at)
            .max();
        let mut done = requests.iter().filter(|it| it.code < 300);
        done.any(|it| Some(it.at) > refused && self.is(it))
    }
}

async fn set_rules(scene: &Scene, rules: Vec<PolicyRule>) {
    let roles: Api<ClusterRole> = Api::all(scene.cluster.client());
    let patch = Patch::Merge(json!({ "rules": rules }));
    roles
        .patch(NAME, &PatchParams::default(), &patch)
        .await
        .unwrap();
}
