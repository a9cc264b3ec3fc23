//! A user who writes to the API server: of the cluster, a service account, or impersonated by an
//! administrator.

use std::fmt;

use axum::http::Request;
use countersign::clock;
use countersign_cluster::wait_for;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use super::installed;
use crate::support::{Scene, TIMEOUT};

pub const JSON: &str = "application/json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const MERGE_PATCH: &str = "application/merge-patch+json";
pub const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// A user by name.
#[derive(Clone)]
pub struct User {
    pub name: String,
    client: Client,
}

/// A refusal of the API server.
#[derive(Debug)]
pub struct Refusal {
    pub code: u16,
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

pub type Answer = Result<Value, Refusal>;

impl User {
    pub fn admin(scene: &Scene) -> Self {
        Self {
            name: "admin".into(),
            client: scene.cluster.client(),
        }
    }

    /// One of the users that the test cluster knows.
    pub async fn known(scene: &Scene, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            client: scene.cluster.client_as(name).await.unwrap(),
        }
    }

    /// A service account of the scene's namespace, which is made.
    pub async fn service_account(scene: &Scene, name: &str) -> Self {
        let accounts: Api<ServiceAccount> =
            Api::namespaced(scene.cluster.client(), &scene.namespace);
        let account = json!({ "metadata": { "name": name } });
        let (create, account) = (
            PostParams::default(),
            serde_json::from_value(account).unwrap(),
        );
        accounts.create(&create, &account).await.unwrap();
        let request = TokenRequest::default();
        let token = accounts.create_token_request(name, &create, &request).await;
        let token = token.unwrap().status.unwrap().token;
        Self {
            name: format!("system:serviceaccount:{}:{name}", scene.namespace),
            client: client(scene, |_| {
                serde_json::from_value(json!({ "token": token })).unwrap()
            })
            .await,
        }
    }

    /// Any user: admission sees the impersonated user.
    pub async fn impersonated(scene: &Scene, name: &str, groups: &[String]) -> Self {
        let as_them = |admin: AuthInfo| AuthInfo {
            impersonate: Some(name.to_owned()),
            impersonate_groups: Some(groups.to_vec()),
            ..admin
        };
        Self {
            name: name.to_owned(),
            client: client(scene, as_them).await,
        }
    }

    pub async fn send(&self, method: &str, path: &str, kind: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(body.to_string().into_bytes())
            .unwrap();
        match self.client.request(request).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err(Refusal {
                code: status.code,
                message: status.message.clone(),
            }),
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// The name and the groups by which the API server knows the user.
    pub async fn own_name(&self) -> Value {
        let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let review =
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let review = self.create(reviews, &review).await.unwrap();
        let user = &review["status"]["userInfo"];
        json!({ "username": user["username"], "groups": user["groups"] })
    }

    /// This user's decision. It names them, and the Rollout as its owner, if the API server fills in neither.
    pub async fn decision(&self, scene: &Scene, mut decision: Value) -> Value {
        if scene.stamped {
            return decision;
        }
        let (field, is_owned) = match decision["kind"].as_str() {
            Some("SignOff") => ("approver", true),
            Some("Intervention") => ("person", true),
            _ => ("person", false),
        };
        if decision["spec"][field].is_null() {
            decision["spec"][field] = self.own_name().await;
        }
        if is_owned {
            let spec = &decision["spec"];
            let owner = json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout",
                "name": spec["rollout"], "uid": spec["rolloutUid"],
            });
            decision["metadata"]["ownerReferences"] = json!([owner]);
        }
        decision
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, JSON, &Value::Null).await
    }

    pub async fn create(&self, path: &str, object: &Value) -> Answer {
        self.send("POST", path, JSON, object).await
    }

    pub async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.send("PATCH", path, MERGE_PATCH, patch).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, JSON, &json!({})).await
    }
}

/// A client whose credentials are made of the administrator's.
async fn client(scene: &Scene, credentials: impl FnOnce(AuthInfo) -> AuthInfo) -> Client {
    let kubeconfig = Kubeconfig::read_from(scene.cluster.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.unwrap();
    config.auth_info = credentials(config.auth_info);
    Client::try_from(config).unwrap()
}

/// The path of a resource of the API group in the scene's namespace.
pub fn path(scene: &Scene, resource: &str) -> String {
    let namespace = &scene.namespace;
    format!("/apis/countersign.dev/v1alpha1/namespaces/{namespace}/{resource}")
}

/// Asserts a refusal with all of these words.
pub fn assert_refused(answer: &Answer, words: &[&str]) {
    let refusal = answer.as_ref().expect_err("it was not refused");
    for word in words {
        let text = refusal.to_string();
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Waits until the API server enforces the policies, which it does a moment after they are made.
pub async fn until_enforced(scene: &Scene) {
    let forged = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun", "metadata": { "name": "forged" },
        "spec": { "rollout": "shop", "digest": "a", "podTemplateHash": "a", "revision": 1 },
    });
    let stranger = format!("stranger-of-{}", scene.namespace);
    let rule = json!({ "apiGroups": ["countersign.dev"], "resources": ["rolloutruns", "rollouts"], "verbs": ["create"] });
    scene.grant_rules(&stranger, json!([rule])).await;
    let user = User::impersonated(scene, &stranger, &[]).await;
    let rollout = crate::support::App::new("stamped").manifest();
    let poll = async || {
        let dry = |resource| path(scene, resource) + "?dryRun=All";
        let refusal = user.create(&dry("rolloutruns"), &forged).await;
        let stamped = user.create(&dry("rollouts"), &rollout).await;
        match (refusal, stamped) {
            (Err(_), Ok(object))
                if !scene.stamped || super::stamp::of(&object) == Some(&stranger) =>
            {
                Ok(())
            }
            (refusal, stamped) => Err(format!("{refusal:?} {stamped:?}")),
        }
    };
    wait_for("the policies are enforced", TIMEOUT, poll)
        .await
        .unwrap();
    until_proven(scene).await;
}

/// Waits until the policies are older than five seconds: a sign-off that is not so much younger is `Unproven`.
async fn until_proven(scene: &Scene) {
    let admin = User::admin(scene);
    let files = installed::files().into_iter();
    let validating = files.filter(|it| it["kind"].as_str().unwrap().starts_with("Validating"));
    let paths: Vec<_> = validating.map(|it| installed::path(&it)).collect();
    let poll = async || {
        let before = clock::now() - SignedDuration::from_secs(6);
        for path in &paths {
            let metadata = admin.get(path).await.unwrap()["metadata"].take();
            let written = metadata["managedFields"].as_array().unwrap().iter();
            let written = written.filter(|it| it["subresource"].is_null());
            let mut written = written.map(|it| it["time"].as_str().unwrap().parse().unwrap());
            if written.any(|at: Timestamp| at > before) {
                return Err(format!("{path} is new"));
            }
        }
        Ok(())
    };
    wait_for("the policies prove sign-offs", TIMEOUT, poll)
        .await
        .unwrap();
}
