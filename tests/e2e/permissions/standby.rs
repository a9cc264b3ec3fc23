//! What every replica does, leading or not: it fills its caches, checks the admission policies and
//! requests the lease. For each permission, one replica runs without it.

use std::collections::BTreeSet;

use countersign_cluster::{Kinds, wait_for};
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::replica::Replica;
use super::{SYSTEM, granted, granted_at_home};
use crate::support::{App, Permission, Scene, TIMEOUT};

/// Kinds that are listed only for caches and watches.
const WATCHED: [&str; 12] = [
    "rollouts",
    "rolloutpolicies",
    "analysistemplates",
    "namespaces",
    "deployments",
    "services",
    "httproutes",
    "grpcroutes",
    "tlsroutes",
    "tcproutes",
    "virtualservices",
    "destinationrules",
];

/// Replicas that run at once.
const AT_ONCE: usize = 40;

/// Whether a replica uses this permission without leading.
pub(super) fn is_of_a_standby(permission: &Permission) -> bool {
    let Permission {
        verb,
        resource,
        group,
        ..
    } = permission;
    verb == "watch"
        || group == "admissionregistration.k8s.io"
        || (verb == "list" && WATCHED.contains(&resource.as_str()))
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn a_replica_that_may_not_watch_or_see_the_admission_policies_reports_it() {
    // Too many replicas to run beside other tests.
    let scene = Scene::alone("standbys").await;
    // What is not served cannot be refused.
    for kinds in [
        Kinds::GatewayApi,
        Kinds::GatewayApiExperimental,
        Kinds::Istio,
    ] {
        scene.cluster.install_kinds(kinds).await.unwrap();
    }
    // Some kinds are watched from the first Rollout that references one.
    let mut routes: Vec<Value> = [
        "HTTPRoute",
        "GRPCRoute",
        "TLSRoute",
        "TCPRoute",
        "VirtualService",
    ]
    .iter()
    .map(|kind| json!({ "kind": kind, "name": "shop" }))
    .collect();
    routes[4]["destinationRule"] =
        json!({ "name": "shop", "stableSubset": "stable", "canarySubset": "canary" });
    let canary = json!({ "stableService": "shop", "canaryService": "shop-canary", "traffic": { "routes": routes } });
    scene
        .apply(&App::new("shop").spec(json!({ "strategy": { "canary": canary } })))
        .await;
    scene.apply_manifest(&json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "metadata": { "name": "legacy" },
        "spec": { "replicas": 1, "workloadRef": { "kind": "Deployment", "name": "legacy" } },
    })).await;
    let all = granted(&scene).await;
    let own: BTreeSet<_> = all.iter().filter(|it| is_of_a_standby(it)).collect();
    assert!(own.len() > 35, "{own:?}");

    // It cannot hold a lease, so it never decides.
    let scene = &scene;
    let start = |name: String, rules: Vec<PolicyRule>| async move {
        Replica::start(scene, &name, &rules, (SYSTEM, &[]), &[]).await
    };
    let whole: Vec<_> = all.iter().map(Permission::rule).collect();
    let whole = start("whole".into(), whole).await;
    let own: Vec<_> = own.into_iter().enumerate().collect();
    for some in own.chunks(AT_ONCE) {
        let lacking = some
            .iter()
            .map(|(n, it)| start(n.to_string(), it.lacking(&all)));
        let lacking = join_all(lacking).await;
        for (replica, (_, permission)) in lacking.iter().zip(some) {
            replica.names(permission).await;
        }
        for (replica, (_, permission)) in lacking.iter().zip(some) {
            let log = replica.log();
            let named = own.iter().filter(|(_, it)| it.is_named(&log));
            let named: Vec<_> = named.map(|(_, it)| *it).collect();
            assert_eq!(named, [*permission], "it lacks no other: {log}");
        }
    }
    // The replica that lacks only the lease reports nothing else.
    let log = whole.log();
    for line in log.lines().filter(|line| line.contains("is forbidden")) {
        assert!(line.contains("leases.coordination.k8s.io"), "{line}");
    }
}

#[tokio::test]
async fn a_replica_that_may_not_use_the_lease_never_leads_and_reports_it() {
    let scene = Scene::new("leases").await;
    let taken = scene.cluster.namespace("leases").await.unwrap();
    let free = json!({ "metadata": { "name": "countersign" }, "spec": { "holderIdentity": "" } });
    let free: Lease = serde_json::from_value(free).unwrap();
    Api::namespaced(scene.cluster.client(), &taken)
        .create(&PostParams::default(), &free)
        .await
        .unwrap();

    let at_home = granted_at_home(&scene).await;
    // A replica that leads by mistake changes nothing.
    let all = granted(&scene).await;
    let reads = all
        .iter()
        .filter(|it| ["get", "list", "watch"].contains(&it.verb.as_str()));
    let reads: Vec<_> = reads.map(Permission::rule).collect();
    let mut verbs = BTreeSet::new();
    for lacking in &at_home {
        // Only where there is no lease is one created.
        let home = if lacking.verb == "create" {
            &scene.namespace
        } else {
            &taken
        };
        let replica = Replica::start(
            &scene,
            &lacking.verb,
            &reads,
            (home, &lacking.lacking(&at_home)),
            &[],
        )
        .await;
        replica.names(lacking).await;
        assert!(!replica.log().contains("\"leading\""), "{}", replica.log());
        verbs.insert(lacking.verb.as_str());
    }
    assert_eq!(verbs, BTreeSet::from(["create", "get", "update"]));
    let at_home: Vec<_> = at_home.iter().map(Permission::rule).collect();
    let home = (scene.namespace.as_str(), at_home.as_slice());
    let replica = Replica::start(&scene, "whole", &reads, home, &[]).await;
    let poll = async || {
        replica
            .log()
            .contains("\"leading\"")
            .then_some(())
            .ok_or(replica.log())
    };
    wait_for("the one that lacks nothing leads", TIMEOUT, poll)
        .await
        .unwrap();
}
