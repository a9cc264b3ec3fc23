//! `helm test`. Pods of the test cluster run nothing, so this process does what the pod's container would.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use countersign_cluster::{Cluster, wait_for};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::release::{SYSTEM, names};

pub const POD: &str = "countersign-test";
const ROLE: &str = "clusterrole.rbac.authorization.k8s.io/countersign-test";
const SOON: Duration = Duration::from_mins(2);

/// Runs it with the credentials of the operator's `ServiceAccount`; the pod alone stays, for its log.
pub async fn passes(cluster: &Cluster, kubeconfig: &Path) {
    let mut helm = Command::new("helm");
    helm.args(["test", "countersign", "--timeout=4m"]);
    helm.args(["--namespace", SYSTEM]).stderr(Stdio::piped());
    let helm = helm.stdout(Stdio::piped()).spawn().unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM);
    let running = async || {
        let pod = pods.get_opt(POD).await.unwrap()?;
        let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
        let runs = phase == Some("Running");
        runs.then_some(pod)
    };
    let pod = wait_for("the test pod runs", SOON, running).await.unwrap();
    assert!(names("clusterroles").iter().any(|it| it == ROLE));

    let checked = command(&pod, kubeconfig).output().unwrap();
    let (phase, code) = match checked.status.code() {
        Some(0) => ("Succeeded", 0),
        code => ("Failed", code.unwrap_or(1)),
    };
    let state = json!({ "terminated": { "exitCode": code } });
    let ended = json!({ "status": { "phase": phase, "containerStatuses": [{
        "name": "check", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
    }] } });
    let (parameters, ended) = (PatchParams::default(), Patch::Merge(ended));
    let ended = pods.patch_status(POD, &parameters, &ended);
    ended.await.unwrap();

    let helm = helm.wait_with_output().unwrap();
    let problems = String::from_utf8_lossy(&checked.stderr);
    let said = String::from_utf8_lossy(&helm.stderr);
    assert!(
        checked.status.success() && helm.status.success(),
        "{problems}\n{said}"
    );
    let gone = async || (!names("clusterroles").iter().any(|it| it == ROLE)).then_some(());
    wait_for("the permission is gone", SOON, gone)
        .await
        .unwrap();
    let left = pods.get(POD).await.unwrap().status;
    assert_eq!(left.unwrap().phase.as_deref(), Some("Succeeded"));
}

/// What the pod's container runs.
fn command(pod: &Pod, kubeconfig: &Path) -> Command {
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("countersign"));
    let [container] = &spec.containers[..] else {
        panic!("one container")
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(container.args.iter().flatten());
    for variable in container.env.iter().flatten() {
        let source = variable.value_from.as_ref();
        let field = source.and_then(|it| it.field_ref.as_ref());
        let value = match field.map(|it| it.field_path.as_str()) {
            Some("metadata.name") => POD.to_owned(),
            Some("metadata.namespace") => SYSTEM.to_owned(),
            other => {
                assert_eq!(other, None, "{}", variable.name);
                variable.value.clone().unwrap_or_default()
            }
        };
        command.env(&variable.name, value);
    }
    command.env("KUBECONFIG", kubeconfig);
    command
}
