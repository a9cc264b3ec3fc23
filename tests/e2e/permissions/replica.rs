//! A replica of the operator with its own service account.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;

use countersign_cluster::wait_for;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::support::{Permission, Scene, TIMEOUT, create};

/// It ends when it is dropped.
pub(super) struct Replica {
    name: String,
    log: PathBuf,
    at: SocketAddr,
    _process: Child,
}

impl Replica {
    /// Starts a replica under these rules. Its lease is in `home`, where it has the rules beside it.
    pub(super) async fn start(
        scene: &Scene,
        name: &str,
        rules: &[PolicyRule],
        (home, at_home): (&str, &[PolicyRule]),
        options: &[(&str, &str)],
    ) -> Self {
        let client = scene.cluster.client();
        let account = account(scene, name).await;
        bind(&client, &account, None, rules).await;
        if !at_home.is_empty() {
            bind(&client, &account, Some(home), at_home).await;
        }
        // The API server notices a binding a moment later.
        let user = format!("system:serviceaccount:{}:{}", scene.namespace, account.name);
        for (namespace, rules) in [(scene.namespace.as_str(), rules), (home, at_home)] {
            let Some(last) = Permission::of(rules).pop_last() else {
                continue;
            };
            let granted = async || {
                last.is_granted(&client, &user, namespace)
                    .await
                    .then_some(())
            };
            wait_for("a grant is in force", TIMEOUT, granted)
                .await
                .unwrap();
        }
        let mut kubeconfig = Kubeconfig::read_from(scene.cluster.kubeconfig()).unwrap();
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = serde_json::from_value(json!({ "token": account.token })).ok();
        }
        let file = |ending: &str| {
            scene
                .cluster
                .dir()
                .join(format!("{}.{ending}", account.name))
        };
        fs::write(file("kubeconfig"), json!(kubeconfig).to_string()).unwrap();
        let output = fs::File::create(file("log")).unwrap();
        let at = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .arg("run")
            .env("KUBECONFIG", file("kubeconfig"))
            .env("COUNTERSIGN_LISTEN", at.to_string())
            .env("POD_NAME", &account.name)
            .env("POD_NAMESPACE", home)
            .envs(options.iter().copied())
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = file("log");
        Self {
            name: account.name,
            log,
            at,
            _process: process,
        }
    }

    /// Its account, and the roles of that name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// All that it has logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the replica reports the missing permission.
    pub(super) async fn names(&self, permission: &Permission) {
        let what = format!("{} reports the lack of `{permission}`", self.name);
        let poll = async || {
            let log = self.log();
            permission.is_named(&log).then_some(()).ok_or(log)
        };
        wait_for(&what, TIMEOUT, poll).await.unwrap();
    }

    /// Its HTTP response with or without this token: the status, and the whole text.
    pub(super) async fn answers(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let connect = async || TcpStream::connect(self.at);
        let mut stream = wait_for("it listens", TIMEOUT, connect).await.unwrap();
        let authorization = token.map(|it| format!("Authorization: Bearer {it}\r\n"));
        let authorization = authorization.unwrap_or_default();
        write!(stream, "GET {path} HTTP/1.0\r\n{authorization}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }
}

/// A `ServiceAccount` of a scene.
pub(super) struct Account {
    pub(super) name: String,
    pub(super) token: String,
    subject: Value,
}

/// Makes one; its name is the cluster's only one.
pub(super) async fn account(scene: &Scene, name: &str) -> Account {
    let name = format!("{}-{name}", scene.namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let post = PostParams::default();
    let account = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    accounts.create(&post, &account).await.unwrap();
    let token = accounts
        .create_token_request(&name, &post, &TokenRequest::default())
        .await;
    let token = token.unwrap().status.unwrap().token.unwrap();
    let subject = json!({ "kind": "ServiceAccount", "name": name, "namespace": scene.namespace });
    Account {
        name,
        token,
        subject,
    }
}

/// Grants it these rules: everywhere, or in one namespace.
pub(super) async fn bind(
    client: &Client,
    account: &Account,
    namespace: Option<&str>,
    rules: &[PolicyRule],
) {
    let metadata = json!({ "name": account.name });
    let kind = if namespace.is_some() {
        "Role"
    } else {
        "ClusterRole"
    };
    let role = json!({ "metadata": metadata, "rules": rules });
    let bound =
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": account.name });
    let binding = json!({ "metadata": metadata, "subjects": [account.subject], "roleRef": bound });
    match namespace {
        None => {
            create::<ClusterRole>(&Api::all(client.clone()), role).await;
            create::<ClusterRoleBinding>(&Api::all(client.clone()), binding).await;
        }
        Some(namespace) => {
            create::<Role>(&Api::namespaced(client.clone(), namespace), role).await;
            create::<RoleBinding>(&Api::namespaced(client.clone(), namespace), binding).await;
        }
    }
}
