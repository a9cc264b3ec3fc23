//! A Rollout for every feature, and what makes the operator use each of its permissions.

use super::*;

const FREEZES: &str = "/apis/countersign.dev/v1alpha1/freezes";

/// A Rollout for every feature, held during its use.
pub(super) struct Zoo {
    pub(super) scene: Scene,
    admin: User,
    bob: User,
    shop: App,
    smoke: App,
    plain: App,
    version: u32,
    /// Background tasks until the test ends.
    beside: Vec<AbortOnDrop>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Zoo {
    pub(super) async fn new() -> Self {
        let scene = Scene::alone("permissions").await;
        for kinds in [
            Kinds::GatewayApi,
            Kinds::GatewayApiExperimental,
            Kinds::Istio,
        ] {
            scene.cluster.install_kinds(kinds).await.unwrap();
        }
        until_enforced(&scene).await;
        scene.grant("bob", "countersign-approver").await;
        scene.grant("bob", "edit").await;
        let admin = User::admin(&scene);
        let bob = User::known(&scene, "bob").await;
        let mut zoo = Self {
            shop: shop(),
            smoke: small("smoke", &json!({})),
            plain: small("plain", &slow(&json!({}))),
            scene,
            admin,
            bob,
            version: 1,
            beside: vec![],
        };
        zoo.make_routes().await;
        let router = tokio::spawn(accept(zoo.admin.clone(), zoo.routes()));
        zoo.beside.push(AbortOnDrop(router));
        zoo.deploy().await;
        zoo
    }

    async fn make_routes(&self) {
        for (version, kind) in [
            (GATEWAY, "HTTPRoute"),
            (GATEWAY, "GRPCRoute"),
            (GATEWAY_ALPHA, "TLSRoute"),
            (GATEWAY_ALPHA, "TCPRoute"),
        ] {
            let mut route = json!({
                "apiVersion": version, "kind": kind, "metadata": { "name": "shop" },
                "spec": { "parentRefs": [{ "name": "nobody" }], "rules": [{ "backendRefs": [
                    { "name": "shop", "port": 80, "weight": 1 }, { "name": "shop-canary", "port": 80, "weight": 0 },
                ] }] },
            });
            if kind != "TCPRoute" {
                route["spec"]["hostnames"] = json!(["shop.example.org"]);
            }
            self.make(version, &format!("{}s", kind.to_lowercase()), &route)
                .await;
        }
        let destination = |subset: &str, weight: i32| json!({ "destination": { "host": "mesh", "subset": subset }, "weight": weight });
        self.make(ISTIO, "virtualservices", &json!({
            "apiVersion": ISTIO, "kind": "VirtualService", "metadata": { "name": "mesh" },
            "spec": { "hosts": ["mesh"], "http": [{ "route": [destination("stable", 100), destination("canary", 0)] }] },
        })).await;
        self.make(ISTIO, "destinationrules", &json!({
            "apiVersion": ISTIO, "kind": "DestinationRule", "metadata": { "name": "mesh" },
            "spec": { "host": "mesh", "subsets": [{ "name": "stable", "labels": { "app": "mesh" } }, { "name": "canary" }] },
        })).await;
    }

    /// The paths of all routes of the Gateway API, the testers' too.
    fn routes(&self) -> Vec<String> {
        let routes = [
            (GATEWAY, "httproutes", "shop"),
            (GATEWAY, "httproutes", "shop-testers"),
            (GATEWAY, "grpcroutes", "shop"),
            (GATEWAY, "grpcroutes", "shop-testers"),
            (GATEWAY_ALPHA, "tlsroutes", "shop"),
            (GATEWAY_ALPHA, "tcproutes", "shop"),
        ];
        routes
            .map(|(version, resource, name)| self.path(version, resource, name))
            .into()
    }

    /// Brings every Rollout to where it is held.
    async fn deploy(&mut self) {
        for (service, app) in [
            ("shop", "shop"),
            ("shop-canary", "shop"),
            ("mesh", "mesh"),
            ("legacy", "legacy"),
        ] {
            self.scene.service(service, app).await;
        }
        self.template("judge").await;
        let mesh = mesh();
        let rollouts = [&self.shop, &self.smoke, &self.plain, &mesh];
        for app in rollouts {
            self.scene.apply(app).await;
        }
        for app in rollouts {
            self.scene
                .until(app, "the first revision serves", |it| {
                    phase(it) == Phase::Stable
                })
                .await;
        }
        self.adopt().await;
        self.scene.apply(&mesh.version("v2")).await;
        self.scene.apply(&self.shop.version("v2")).await;
        self.scene.apply(&smoking(&self.smoke, "v2")).await;
        self.is_tested().await;
        for (version, resource, name, weight) in [
            (
                GATEWAY_ALPHA,
                "tcproutes",
                "shop",
                "/spec/rules/0/backendRefs/1/weight",
            ),
            (
                ISTIO,
                "virtualservices",
                "mesh",
                "/spec/http/0/route/1/weight",
            ),
        ] {
            self.until(&self.path(version, resource, name), |it| {
                it.pointer(weight).and_then(Value::as_i64) > Some(0)
            })
            .await;
        }
        self.scene
            .until(&self.smoke, "the smoke check runs", |it| {
                waits_for(it, "AwaitingSmoke")
            })
            .await;
    }

    async fn template(&self, name: &str) {
        let template = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "AnalysisTemplate", "metadata": { "name": name },
            "spec": { "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }] },
        });
        let templates = path(&self.scene, "analysistemplates");
        self.admin.create(&templates, &template).await.unwrap();
    }

    async fn adopt(&self) {
        let legacy = small("legacy", &json!({}));
        let manifest = legacy.manifest();
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": manifest["metadata"],
            "spec": { "replicas": 1, "selector": manifest["spec"]["selector"], "template": manifest["spec"]["template"] },
        });
        self.make("apps/v1", "deployments", &deployment).await;
        self.scene.apply_manifest(&json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "metadata": { "name": "legacy" },
            "spec": { "replicas": 1, "workloadRef": { "kind": "Deployment", "name": "legacy" } },
        })).await;
        let taken_over = |it: &countersign_api::Rollout| {
            condition(it, "Adopted").is_some_and(|(status, ..)| status == "True")
        };
        self.scene
            .until(&legacy, "the Rollout has taken over", taken_over)
            .await;
    }

    async fn is_tested(&self) {
        for resource in ["httproutes", "grpcroutes"] {
            self.until(&self.path(GATEWAY, resource, "shop-testers"), |_| true)
                .await;
        }
    }

    /// Does something that the operator can handle only with this permission.
    pub(super) async fn provoke(&mut self, permission: &str) {
        match permission {
            // What the watches have reported is read only before a write.
            "get rollouts" | "list replicasets" | "list signoffs" | "list interventions"
            | "list freezes" => self.change().await,
            "get deployments" | "list horizontalpodautoscalers" => self.touch("legacy").await,
            "list jobs" | "list pods" => self.touch("smoke").await,
            "patch services" => {
                let other = json!({ "spec": { "selector": { "pod-template-hash": "other" } } });
                self.edit("v1", "services", "shop", &other).await;
                self.touch("shop").await;
            }
            // What has to be set back is read before that is written.
            "list endpointslices" | "get httproutes" | "patch httproutes" => {
                self.shift(GATEWAY, "httproutes").await;
            }
            "get grpcroutes" | "patch grpcroutes" => self.shift(GATEWAY, "grpcroutes").await,
            "get tlsroutes" | "patch tlsroutes" => self.shift(GATEWAY_ALPHA, "tlsroutes").await,
            "get tcproutes" | "patch tcproutes" => self.shift(GATEWAY_ALPHA, "tcproutes").await,
            "get virtualservices" | "get destinationrules" | "patch virtualservices" => {
                self.replace(
                    ISTIO,
                    "virtualservices",
                    "mesh",
                    "/spec/http/0/route/1/weight",
                    json!(77),
                )
                .await;
            }
            "patch destinationrules" => {
                let label = "/spec/subsets/1/labels/pod-template-hash";
                self.replace(ISTIO, "destinationrules", "mesh", label, json!("other"))
                    .await;
                self.touch("mesh").await;
            }
            "create httproutes" | "create grpcroutes" => {
                let testers = self.path(GATEWAY, &permission[7..], "shop-testers");
                self.admin.delete(&testers).await.unwrap();
            }
            "patch deployments/scale" => {
                self.edit(
                    "apps/v1",
                    "deployments",
                    "legacy",
                    &json!({ "spec": { "replicas": 1 } }),
                )
                .await;
            }
            "patch rollouts" => {
                let none = json!({ "metadata": { "finalizers": [] } });
                let rollout = self
                    .admin
                    .merge(&path(&self.scene, "rollouts/legacy"), &none)
                    .await
                    .unwrap();
                // Its loss is an event of its own, so that it is put back before a deletion.
                assert!(!rollout["metadata"].to_string().contains(KEEP_FINALIZER));
            }
            "patch signoffs/status" => {
                let approval = json!({ "decision": "Approve" });
                self.decide(&self.shop, "signoffs", "SignOff", &approval)
                    .await;
            }
            "patch interventions/status" => {
                let pause = json!({ "action": "Pause" });
                self.decide(&self.shop, "interventions", "Intervention", &pause)
                    .await;
            }
            // None of these changes anything for a Rollout.
            "patch rolloutpolicies/status" => self.scene.policy(json!({})).await,
            "patch freezes/status" => {
                let freeze = json!({
                    "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze",
                    "metadata": { "name": self.scene.namespace },
                    "spec": { "reason": "a test", "until": "2026-01-01T00:00:00Z" },
                });
                self.admin.create(FREEZES, &freeze).await.unwrap();
            }
            "patch analysistemplates/status" => self.template("unused").await,
            "create events" | "create replicasets" | "create rolloutruns" => {
                self.version += 1;
                let name = format!("fresh-{}", self.version);
                self.scene.apply(&small(&name, &json!({}))).await;
            }
            "update rollouts/status" | "list rolloutruns" | "patch events" => {
                self.change().await;
            }
            "patch replicasets" => {
                // A ReplicaSet is scaled: the operator must scale it back.
                let sets = self.scene.replica_sets();
                let all = sets.list(&ListParams::default()).await.unwrap().items;
                let mut all = all.iter();
                let serves = |set: &&ReplicaSet| {
                    set.name_any().starts_with("plain-") && set.spec.replicas > Some(0)
                };
                let name = all.find(serves).unwrap().name_any();
                let more = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
                let scaled = sets.patch(&name, &PatchParams::default(), &more).await;
                scaled.unwrap();
            }
            "delete replicasets" => {
                self.change().await;
                self.begun().await;
                _ = self.scene.apply(&self.plain).await;
            }
            "delete signoffs" => {
                self.change().await;
                self.begun().await;
                let approval = json!({ "decision": "Approve" });
                self.decide(&self.plain, "signoffs", "SignOff", &approval)
                    .await;
                self.change().await;
            }
            "delete interventions" => {
                self.change().await;
                self.begun().await;
                let pause = json!({ "action": "Pause" });
                self.decide(&self.plain, "interventions", "Intervention", &pause)
                    .await;
                self.change().await;
            }
            // A change that has begun has a record, which the next one ends.
            "patch rolloutruns" | "delete rolloutruns" => {
                self.change().await;
                self.begun().await;
                self.change().await;
            }
            "create jobs" => _ = self.scene.apply(&smoking(&self.smoke, "v3")).await,
            "delete jobs" => {
                let jobs = self.path("batch/v1", "jobs", "");
                let is_left = |it: &Value| it["metadata"]["deletionTimestamp"].is_null();
                let found = |jobs: &Value| jobs["items"].as_array().unwrap().iter().any(is_left);
                self.until(jobs.trim_end_matches('/'), found).await;
                _ = self.scene.apply(&self.smoke).await;
            }
            "delete grpcroutes" => _ = self.scene.apply(&self.shop).await,
            "delete httproutes" => {
                _ = self.scene.apply(&self.shop.version("v3")).await;
                self.is_tested().await;
                _ = self.scene.apply(&self.shop).await;
            }
            _ => self.touch("shop").await,
        }
    }

    /// Deletes what `provoke` created outside of the scene's namespace.
    pub(super) async fn remove_clusterwide(&self) {
        self.scene.remove_policy().await;
        let freeze = format!("{FREEZES}/{}", self.scene.namespace);
        self.admin.delete(&freeze).await.unwrap();
    }

    /// Triggers a reconcile of a Rollout.
    async fn touch(&self, rollout: &str) {
        let now = json!({ "metadata": { "annotations": { "touched": clock::now().to_string() } } });
        self.admin
            .merge(&path(&self.scene, &format!("rollouts/{rollout}")), &now)
            .await
            .unwrap();
    }

    /// A change of the Rollout that has a plain canary.
    async fn change(&mut self) {
        self.version += 1;
        self.scene
            .apply(&self.plain.version(&format!("v{}", self.version)))
            .await;
    }

    /// Waits until a change has its pod and its RolloutRun: a change reverted earlier has neither, and one that is
    /// replaced stays in the status until its own pod is gone.
    async fn begun(&self) {
        let begun = |it: &countersign_api::Rollout| {
            let status = it.status.clone().unwrap_or_default();
            let is_latest = it.metadata.generation == Some(status.observed_generation);
            let goes_on = status.change.is_some_and(|it| it.outcome.is_none());
            is_latest && goes_on && status.updated_replicas > 0
        };
        let what = "the change has its pod";
        self.scene.until(&self.plain, what, begun).await;
    }

    /// Gives the canary another weight in a route.
    async fn shift(&self, version: &str, resource: &str) {
        self.replace(
            version,
            resource,
            "shop",
            "/spec/rules/0/backendRefs/1/weight",
            json!(77),
        )
        .await;
    }

    async fn replace(&self, version: &str, resource: &str, name: &str, place: &str, value: Value) {
        let patch = json!([{ "op": "replace", "path": place, "value": value }]);
        let path = self.path(version, resource, name);
        self.admin
            .send("PATCH", &path, JSON_PATCH, &patch)
            .await
            .unwrap();
    }

    async fn edit(&self, version: &str, resource: &str, name: &str, patch: &Value) {
        self.admin
            .merge(&self.path(version, resource, name), patch)
            .await
            .unwrap();
    }

    async fn make(&self, version: &str, resource: &str, object: &Value) {
        let path = self.path(version, resource, "");
        self.admin
            .create(path.trim_end_matches('/'), object)
            .await
            .unwrap();
    }

    /// Bob signs off or intervenes in the change of a Rollout.
    async fn decide(&self, app: &App, resource: &str, kind: &str, words: &Value) {
        let rollout = self.scene.get(app).await;
        let change = rollout.status.unwrap().change.unwrap();
        let mut spec = json!({
            "rollout": app.name, "rolloutUid": rollout.metadata.uid, "run": change.run, "digest": change.digest, "reason": "a test",
        });
        merge(&mut spec, words);
        let decision = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": { "generateName": "shop-" }, "spec": spec,
        });
        // The API server compares it with the Rollout in a cache.
        let poll = async || {
            self.bob
                .create(&path(&self.scene, resource), &decision)
                .await
        };
        wait_for("the decision is taken", TIMEOUT, poll)
            .await
            .unwrap();
    }

    fn path(&self, version: &str, resource: &str, name: &str) -> String {
        let root = if version.contains('/') { "apis" } else { "api" };
        format!(
            "/{root}/{version}/namespaces/{}/{resource}/{name}",
            self.scene.namespace
        )
    }

    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) {
        let poll = async || match self.admin.get(path).await {
            Ok(object) if wanted(&object) => Ok(()),
            Ok(object) => Err(object["spec"].to_string()),
            Err(refusal) => Err(refusal.to_string()),
        };
        wait_for(path, TIMEOUT, poll).await.unwrap();
    }

    /// Sets the operator's rules; returns once they are in force.
    pub(super) async fn set(&self, permission: &Permission, rules: Vec<PolicyRule>, granted: bool) {
        set_rules(&self.scene, rules).await;
        let (client, user) = (
            self.scene.cluster.client(),
            format!("system:serviceaccount:{SYSTEM}:{NAME}"),
        );
        let poll = async || {
            let may = permission
                .is_granted(&client, &user, &self.scene.namespace)
                .await;
            (may == granted).then_some(())
        };
        wait_for("the role is in force", TIMEOUT, poll)
            .await
            .unwrap();
    }

    /// What the operator has logged, for other tests too.
    pub(super) fn log(&self) -> String {
        let log = self.scene.cluster.dir().join("operator.log");
        String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned()
    }

    /// Waits until the refusal is reported, in new lines of the log, and returns where.
    pub(super) async fn named(&self, permission: &Permission, before: usize) -> String {
        let poll = async || {
            let rollouts = self.scene.rollouts().list(&ListParams::default()).await;
            let statuses = rollouts
                .unwrap()
                .items
                .into_iter()
                .map(|it| (it.metadata.name, it.status));
            let by_status =
                statuses.filter(|(_, status)| permission.is_named(&json!(status).to_string()));
            let mut reported: Vec<_> = by_status
                .filter_map(|(name, _)| name)
                .map(|name| format!("status of {name}"))
                .collect();
            if permission.is_named(self.log().get(before..).unwrap_or_default()) {
                reported.push("log".into());
            }
            (!reported.is_empty()).then(|| reported.join(", "))
        };
        let what = format!("the lack of `{permission}` is reported");
        let reported = wait_for(&what, TIMEOUT, poll).await;
        reported.unwrap_or_else(|error| {
            panic!(
                "{error}\n{}",
                self.scene.cluster.operator_log_tail(30).unwrap()
            )
        })
    }
}

/// Marks every route as accepted.
async fn accept(admin: User, routes: Vec<String>) {
    loop {
        for path in &routes {
            let Ok(route) = admin.get(path).await else {
                continue;
            };
            let condition = |name: &str| {
                json!({
                    "type": name, "status": "True", "reason": "Ok", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "observedGeneration": route["metadata"]["generation"],
                })
            };
            let parents = json!([{
                "parentRef": { "name": "nobody" }, "controllerName": "example.org/test",
                "conditions": [condition("Accepted"), condition("ResolvedRefs")],
            }]);
            if route["status"]["parents"] != parents {
                let patch = json!({ "status": { "parents": parents } });
                // It may have been deleted.
                let _ = admin.merge(&format!("{path}/status"), &patch).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn small(name: &str, spec: &Value) -> App {
    let mut app = App {
        replicas: 1,
        checks: false,
        ..App::new(name)
    };
    app.spec = json!({ "progressDeadlineSeconds": 3600, "revisionHistoryLimit": 0 });
    merge(&mut app.spec, spec);
    app
}

/// A plan whose first step outlasts the test.
fn slow(canary: &Value) -> Value {
    let mut slow = json!({ "steps": [{ "weight": 50, "bake": "1h" }] });
    merge(&mut slow, canary);
    json!({ "strategy": { "canary": slow } })
}

fn shop() -> App {
    let routes: Vec<_> = ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"]
        .iter()
        .map(|kind| json!({ "kind": kind, "name": "shop" }))
        .collect();
    small(
        "shop",
        &slow(&json!({
            "stableService": "shop", "canaryService": "shop-canary", "drain": "1s",
            "analysis": { "interval": "1s", "templates": [{ "name": "judge" }] },
            "traffic": { "routes": routes, "testers": { "headers": [{ "name": "x-tester", "value": "yes" }] } },
        })),
    )
}

fn mesh() -> App {
    let subsets = json!({ "name": "mesh", "stableSubset": "stable", "canarySubset": "canary" });
    let route = json!({ "kind": "VirtualService", "name": "mesh", "destinationRule": subsets });
    small(
        "mesh",
        &slow(&json!({ "drain": "1s", "traffic": { "routes": [route] } })),
    )
}

/// A change with a smoke check that never ends.
fn smoking(app: &App, version: &str) -> App {
    let container = json!({
        "name": "smoke", "image": "{{image}}",
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    });
    let pods = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    let smoke = json!({ "timeout": "1h", "template": {
        "metadata": { "annotations": { "cluster.test/ends": "never" } },
        "spec": { "securityContext": pods, "containers": [container] },
    } });
    let mut app = app.version(version);
    merge(
        &mut app.spec,
        &json!({ "strategy": { "canary": { "smoke": smoke } } }),
    );
    app
}
