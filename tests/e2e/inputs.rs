//! Realistic inputs: what a Deployment accepts, what routers leave out, and what tools that diff
//! manifests with live objects see.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Rollout};
use countersign_cluster::{Kinds, wait_for};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::{App, Scene, TIMEOUT, condition, ended, phase, waits_for};

fn is_stable(rollout: &Rollout, revision: i64) -> bool {
    let stable = rollout.status.as_ref().and_then(|it| it.stable.as_ref());
    phase(rollout) == Phase::Stable && stable.is_some_and(|it| it.revision == revision)
}

async fn until_stable(scene: &Scene, app: &App, revision: i64) -> Rollout {
    let what = format!("revision {revision} is stable");
    scene.until(app, &what, |it| is_stable(it, revision)).await
}

/// Runs kubectl in the scene's namespace with a manifest; its output, or what it refuses with.
fn kubectl(scene: &Scene, arguments: &[&str], manifest: &Value) -> Result<String, String> {
    let mut child = Command::new("kubectl")
        .args(["-n", &scene.namespace])
        .args(arguments)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = manifest.to_string();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// An application whose pods name a port, a variable, an address and a secret twice.
fn twice(name: &str) -> App {
    let container = json!({
        "name": "app", "image": format!("example.org/{name}:v1"),
        "ports": [{ "name": "http", "containerPort": 8080 }, { "name": "metrics", "containerPort": 8080 }],
        "env": [{ "name": "LOG_LEVEL", "value": "info" }, { "name": "LOG_LEVEL", "value": "debug" }],
        "securityContext": {
            "runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    let pods = json!({
        "hostAliases": [{ "ip": "10.9.8.7", "hostnames": ["db.example.org"] }, { "ip": "10.9.8.7", "hostnames": ["cache.example.org"] }],
        "imagePullSecrets": [{ "name": "registry" }, { "name": "registry" }],
        "containers": [container],
    });
    let mut app = App::new(name).spec(json!({ "template": { "spec": pods } }));
    app.checks = false;
    app
}

/// The ReplicaSets of an application, by what its template has twice.
async fn seen_twice(scene: &Scene, app: &App) -> Vec<[usize; 4]> {
    let sets = scene
        .replica_sets()
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    let own = sets.into_iter().filter(|set: &ReplicaSet| {
        let labels = set.spec.selector.match_labels.as_ref();
        labels.is_some_and(|it| it.get("app") == Some(&app.name))
            && set.labels().contains_key("countersign.dev/rollout-uid")
    });
    let counts = own.map(|set| {
        let pods = set.spec.template.unwrap().spec.unwrap();
        let container = &pods.containers[0];
        [
            container.ports.as_ref().map_or(0, Vec::len),
            container.env.as_ref().map_or(0, Vec::len),
            pods.host_aliases.as_ref().map_or(0, Vec::len),
            pods.image_pull_secrets.as_ref().map_or(0, Vec::len),
        ]
    });
    counts.collect()
}

#[tokio::test]
async fn what_pods_of_a_deployment_may_name_twice_a_rollouts_may_too() {
    let scene = Scene::new("twice").await;
    let own = scene.serving(twice("own")).await;
    assert_eq!(seen_twice(&scene, &own).await, [[2, 2, 2, 2]]);

    let adopted = twice("adopted");
    let manifest = adopted.manifest();
    let deployment = json!({
        "metadata": { "name": "adopted" },
        "spec": { "replicas": 4, "selector": manifest["spec"]["selector"], "template": manifest["spec"]["template"] },
    });
    let deployments: Api<Deployment> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let deployment = serde_json::from_value(deployment).unwrap();
    deployments
        .create(&PostParams::default(), &deployment)
        .await
        .unwrap();
    let adopting = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "metadata": { "name": "adopted" },
        "spec": { "replicas": 4, "workloadRef": { "name": "adopted" } },
    });
    scene.apply_manifest(&adopting).await;
    let taken =
        |it: &Rollout| condition(it, "Adopted").is_some_and(|(status, ..)| status == "True");
    scene.until(&adopted, "it has taken over", taken).await;
    assert_eq!(seen_twice(&scene, &adopted).await, [[2, 2, 2, 2]]);
}

/// As Argo CD compares: the manifest merged over the live object, lists as a whole, gives the live object.
pub fn drift(manifest: &Value, live: &Value, path: &str, found: &mut Vec<String>) {
    match (manifest, live) {
        (Value::Object(manifest), Value::Object(live)) => {
            for (key, value) in manifest {
                let path = format!("{path}.{key}");
                match live.get(key) {
                    Some(live) => drift(value, live, &path, found),
                    None => found.push(format!("{path}: the manifest alone has it")),
                }
            }
        }
        // YAML's 1.0 is applied as JSON's 1.
        (Value::Number(manifest), Value::Number(live)) if manifest.as_f64() == live.as_f64() => {}
        (Value::Array(manifest), Value::Array(live)) if manifest.len() == live.len() => {
            for (place, (manifest, live)) in manifest.iter().zip(live).enumerate() {
                let path = format!("{path}[{place}]");
                whole(manifest, live, &path, found);
            }
        }
        (manifest, live) if manifest == live => {}
        (manifest, live) => found.push(format!("{path}: {manifest} is {live}")),
    }
}

/// An entry of a list has no keys beyond its manifest.
fn whole(manifest: &Value, live: &Value, path: &str, found: &mut Vec<String>) {
    if let (Value::Object(manifest), Value::Object(live)) = (manifest, live) {
        let more = live.keys().filter(|key| !manifest.contains_key(*key));
        found.extend(more.map(|key| format!("{path}.{key}: the live object alone has it")));
        for (key, value) in manifest {
            let path = format!("{path}.{key}");
            match live.get(key) {
                Some(live) => whole(value, live, &path, found),
                None => found.push(format!("{path}: the manifest alone has it")),
            }
        }
    } else {
        drift(manifest, live, path, found);
    }
}

#[tokio::test]
async fn an_example_that_was_applied_is_in_sync() {
    let scene = Scene::new("in-sync").await;
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let (mut compared, mut found) = (0, Vec::new());
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let yaml = std::fs::read_to_string(&path).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        let ours = |it: &Value| {
            it["apiVersion"]
                .as_str()
                .is_some_and(|it| it.starts_with("countersign.dev/"))
        };
        for document in documents.into_iter().filter(ours) {
            let object: DynamicObject = serde_json::from_value(document.clone()).unwrap();
            let kind = object.types.as_ref().unwrap().try_into().unwrap();
            let client = scene.cluster.client();
            let (resource, capabilities) = pinned_kind(&client, &kind).await.unwrap();
            let api: Api<DynamicObject> = match capabilities.scope {
                Scope::Cluster => Api::all_with(client, &resource),
                Scope::Namespaced => Api::namespaced_with(client, &scene.namespace, &resource),
            };
            // Dry run: stored policies and freezes would affect other tests.
            let apply = PatchParams::apply("test").dry_run();
            let applied = api
                .patch(&object.name_any(), &apply, &Patch::Apply(&document))
                .await;
            let create = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            let created = api.create(&create, &object).await;
            for live in [applied, created] {
                let live = serde_json::to_value(live.unwrap()).unwrap();
                let place = format!("{} {}", document["kind"], document["metadata"]["name"]);
                drift(&document, &live, &place, &mut found);
                compared += 1;
            }
        }
    }
    assert!(compared > 20, "only {compared} were compared");
    assert!(found.is_empty(), "out of sync: {found:#?}");
}

#[tokio::test]
async fn min_ready_seconds_reach_the_replica_set_that_serves() {
    let scene = Scene::new("min-ready").await;
    let app = scene.serving(App::new("shop")).await;
    scene
        .apply(&app.spec(json!({ "minReadySeconds": 3 })))
        .await;
    let poll = async || {
        let sets = scene
            .replica_sets()
            .list(&kube::api::ListParams::default())
            .await
            .unwrap();
        let found: Vec<_> = sets.iter().map(|set| set.spec.min_ready_seconds).collect();
        if found == [Some(3)] {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    };
    wait_for("the ReplicaSet has it", TIMEOUT, poll)
        .await
        .unwrap();
    assert_eq!(scene.records(&app).await.len(), 1, "it is no change");
}

#[tokio::test]
async fn a_template_that_the_api_server_refuses_is_named_at_once() {
    let scene = Scene::new("refused-pods").await;
    // The test does not wait for the whole deadline.
    let wrong = json!({
        "progressDeadlineSeconds": 600,
        "template": { "spec": { "restartPolicy": "OnFailure" } },
    });
    let first = App::new("first").spec(wrong.clone());
    scene.apply(&first).await;
    let held = scene
        .until(&first, "it is named", |it| waits_for(it, "TemplateInvalid"))
        .await;
    let (status, reason, message) = condition(&held, "Stalled").unwrap();
    assert_eq!((status, reason), ("True", "TemplateInvalid"));
    assert!(
        message.contains(r#"restartPolicy: Unsupported value: "OnFailure""#),
        "{message}"
    );
    assert!(
        !message.contains("Status {") && !message.contains("ApiError"),
        "{message}"
    );

    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 50).await;
    scene.apply(&app.version("v2").spec(wrong)).await;
    let run = scene.outcome(&app).await;
    assert!(ended(&run, Outcome::RolledBack), "{:?}", run.spec.progress);
    let lines = &run.spec.progress.transitions;
    let line = lines
        .iter()
        .find(|it| it.reason == "TemplateInvalid")
        .unwrap();
    assert!(line.message.contains("restartPolicy"), "{}", line.message);
    let at = |n: usize| lines[n].at.as_ref().unwrap().0;
    assert!(line.at.as_ref().unwrap().0.duration_since(at(0)).as_secs() < 60);
    scene
        .apply(
            &app.version("v3")
                .spec(json!({ "progressDeadlineSeconds": 30 })),
        )
        .await;
    until_stable(&scene, &app, 3).await;
}

fn service(name: &str, selector: Option<Value>) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    if let Some(selector) = selector {
        service["spec"]["selector"] = selector;
    }
    service
}

#[tokio::test]
async fn a_service_without_a_selector_applies_at_any_time() {
    let scene = Scene::new("no-selector").await;
    let names = ["shop", "shop-canary"];
    let apply = ["apply", "--server-side", "--field-manager=service-team"];
    for name in names {
        kubectl(&scene, &apply, &service(name, None)).unwrap();
    }
    let named = json!({ "strategy": { "canary": {
        "stableService": "shop", "canaryService": "shop-canary", "drain": "1s",
        "steps": [{ "weight": 50, "bake": "1s" }],
    } } });
    let mut app = App::new("shop").spec(named);
    app.checks = false;
    scene.apply(&app).await;
    until_stable(&scene, &app, 1).await;
    scene.apply(&app.version("v2")).await;
    let stable = until_stable(&scene, &app, 2).await;
    let hash = stable.status.unwrap().stable.unwrap().pod_template_hash;
    let services: Api<Service> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    for name in names {
        let poll = async || {
            let found = services
                .get(name)
                .await
                .unwrap()
                .spec
                .unwrap()
                .selector
                .unwrap_or_default();
            let found = serde_json::to_value(found).unwrap();
            let wanted = json!({ "app": "shop", "pod-template-hash": hash });
            if found == wanted {
                Ok(())
            } else {
                Err(found.to_string())
            }
        };
        wait_for("the Service selects the stable revision", TIMEOUT, poll)
            .await
            .unwrap();
        // Both sorts of apply, repeatedly, without a conflict and without an effect.
        for arguments in [&apply[..], &["apply"], &apply[..]] {
            kubectl(&scene, arguments, &service(name, None)).unwrap();
            poll().await.unwrap();
        }
        // As documented for a manifest with a selector: the selector is an atomic value for the API
        // server.
        let with = service(name, Some(json!({ "app": "shop" })));
        let refused = kubectl(&scene, &apply, &with).unwrap_err();
        assert!(
            refused.contains("conflict") && refused.contains(".spec.selector"),
            "{refused}"
        );
    }
}

/// Plays the routers of a route, which write its status, until it is dropped.
async fn play(scene: &Scene, name: &str, entries: impl Fn(Value) -> Value) {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let routes: Api<DynamicObject> = Api::namespaced_with(
        scene.cluster.client(),
        &scene.namespace,
        &ApiResource::from_gvk(&kind),
    );
    loop {
        let route = routes.get(name).await.unwrap();
        let parents = entries(json!(route.metadata.generation));
        if route.data.pointer("/status/parents") != Some(&parents) {
            let patch = Patch::Merge(json!({ "status": { "parents": parents } }));
            routes
                .patch_status(name, &PatchParams::default(), &patch)
                .await
                .unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn router_condition(kind: &str, generation: Option<Value>) -> Value {
    let mut condition = json!({
        "type": kind, "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    if let Some(generation) = generation {
        condition["observedGeneration"] = generation;
    }
    condition
}

/// A change behind a route whose routers report this is promoted.
async fn promoted_behind(name: &str, parent: Value, entries: impl Fn(Value) -> Value) {
    let scene = Scene::new(name).await;
    scene
        .cluster
        .install_kinds(Kinds::GatewayApi)
        .await
        .unwrap();
    for service in ["shop", "shop-canary"] {
        scene.service(service, "shop").await;
    }
    let backend = |name: &str, weight: i32| json!({ "name": name, "port": 80, "weight": weight });
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "shop" },
        "spec": { "parentRefs": [parent], "rules": [{ "backendRefs": [backend("shop", 100), backend("shop-canary", 0)] }] },
    });
    kubectl(&scene, &["apply", "--server-side"], &route).unwrap();
    let mut app = App::new("shop").spec(
        json!({ "progressDeadlineSeconds": 60, "strategy": { "canary": {
        "stableService": "shop", "canaryService": "shop-canary", "drain": "1s",
        "traffic": { "routes": [{ "name": "shop" }] }, "steps": [{ "weight": 50, "bake": "1s" }],
    } } }),
    );
    app.checks = false;
    let story = async {
        scene.apply(&app).await;
        until_stable(&scene, &app, 1).await;
        scene.apply(&app.version("v2")).await;
        let run = scene.outcome(&app).await;
        assert!(ended(&run, Outcome::Promoted), "{:?}", run.spec.progress);
    };
    tokio::select! {
        () = story => {}
        () = play(&scene, "shop", entries) => unreachable!(),
    }
}

#[tokio::test]
async fn a_router_that_names_no_generation_is_trusted_after_a_while() {
    let mesh = json!({ "group": "", "kind": "Service", "name": "shop", "port": 80 });
    let of = mesh.clone();
    promoted_behind("undated", mesh, |_| {
        json!([{
            "parentRef": of, "controllerName": "linkerd.io/policy-controller",
            "conditions": [router_condition("Accepted", None), router_condition("ResolvedRefs", None)],
        }])
    })
    .await;
}

#[tokio::test]
async fn a_second_controller_that_reports_nothing_about_the_weights_is_not_awaited() {
    let of = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public" });
    promoted_behind("second-controller", json!({ "name": "public" }), |generation| {
        let now = || Some(generation.clone());
        let policy = "example.org/RateLimitPolicyAffected";
        json!([
            { "parentRef": of, "controllerName": "example.org/gateway",
              "conditions": [router_condition("Accepted", now()), router_condition("ResolvedRefs", now())] },
            { "parentRef": of, "controllerName": "example.org/policies", "conditions": [router_condition(policy, now())] },
        ])
    })
    .await;
}
