//! The Rollouts of the stories.

use serde_json::{Value, json};

/// A version of a Rollout of four pods, small and reviewed by carol, with this strategy and a check of its errors.
pub fn rollout(name: &str, version: &str, canary: &Value) -> Value {
    let image = format!("registry.example.com/{name}:{version}");
    let restricted =
        json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    let pod = json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "app", "image": image, "ports": [{ "containerPort": 8080 }], "securityContext": restricted,
        }],
    });
    let mut canary = canary.clone();
    canary["analysis"]["interval"] = json!("1s");
    canary["analysis"]["checks"] = json!([{ "name": "errors", "preset": "HttpRequestsTotal" }]);
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout",
        "metadata": { "name": name, "annotations": {
            "provenance.countersign.dev/image": image,
            "provenance.countersign.dev/revision": format!("{version}111111"),
            "provenance.countersign.dev/approved-revision": format!("{version}111111"),
            "provenance.countersign.dev/contributor": "human",
            "provenance.countersign.dev/authors": "alice@example.org",
            "provenance.countersign.dev/reviewers": "carol@example.org",
            "provenance.countersign.dev/tests": "PASSED",
            "provenance.countersign.dev/lines-added": "3",
            "provenance.countersign.dev/lines-deleted": "2",
            "provenance.countersign.dev/files-changed": "1",
        } },
        "spec": {
            "replicas": 4,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": pod },
            "strategy": { "canary": canary },
        },
    })
}
