use serde_json::json;

use super::*;
use crate::risk;
use crate::risk::template_defaults::amount;

/// A template in a manifest.
fn written() -> Value {
    json!({
        "metadata": { "labels": { "app": "shop" } },
        "spec": {
            "serviceAccountName": "shop",
            "containers": [{
                "name": "web", "image": "shop:1",
                "args": ["--port=8080"],
                "env": [{ "name": "EMPTY", "value": "" }, { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
                "ports": [{ "containerPort": 8080 }],
                "resources": { "limits": { "cpu": "0.5", "memory": "1024Mi" }, "requests": { "cpu": "100m" } },
                "readinessProbe": { "httpGet": { "path": "/", "port": 8080 } },
                "volumeMounts": [{ "name": "config", "mountPath": "/etc/shop", "readOnly": false }],
            }],
            "volumes": [{ "name": "config", "configMap": { "name": "shop" } }, { "name": "tmp", "emptyDir": {} }],
        },
    })
}

/// The same template in a stored ReplicaSet, with Kubernetes' defaults.
fn stored() -> Value {
    json!({
        "metadata": { "creationTimestamp": null, "labels": { "app": "shop" } },
        "spec": {
            "serviceAccountName": "shop", "serviceAccount": "shop",
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "securityContext": {},
            "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
            "containers": [{
                "name": "web", "image": "shop:1", "imagePullPolicy": "IfNotPresent",
                "args": ["--port=8080"],
                "env": [{ "name": "EMPTY" }, { "name": "POD", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.name" } } }],
                "ports": [{ "containerPort": 8080, "protocol": "TCP" }],
                "resources": { "limits": { "cpu": "500m", "memory": "1Gi" }, "requests": { "cpu": "100m", "memory": "1Gi" } },
                "readinessProbe": {
                    "httpGet": { "path": "/", "port": 8080, "scheme": "HTTP" },
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                },
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "volumeMounts": [{ "name": "config", "mountPath": "/etc/shop" }],
            }],
            "volumes": [{ "name": "config", "configMap": { "name": "shop", "defaultMode": 420 } }, { "name": "tmp", "emptyDir": {} }],
        },
    })
}

fn found(stable: Value, new: Value) -> BTreeSet<Difference> {
    differences(Some(&PodTemplate(stable)), &PodTemplate(new))
}

#[test]
fn defaults_that_the_api_server_wrote_are_no_difference() {
    assert_eq!(
        risk::differences::tests::found(
            risk::differences::tests::stored(),
            risk::differences::tests::written()
        ),
        BTreeSet::new()
    );
    assert_eq!(
        risk::differences::tests::found(
            risk::differences::tests::written(),
            risk::differences::tests::stored()
        ),
        BTreeSet::new()
    );
}

#[test]
fn an_image_that_a_volume_mounts_is_an_image() {
    let with_volume = |reference: &str| {
        let mut template = written();
        let volume = json!({ "name": "data", "image": { "reference": reference } });
        let volumes = template["spec"]["volumes"].as_array_mut().unwrap();
        volumes.push(volume);
        template
    };
    let differs = found(with_volume("data:1"), with_volume("data:2"));
    assert_eq!(differs, [Difference::Image, Difference::Volumes].into());
    let images = PodTemplate(with_volume("data:1"));
    assert_eq!(images.images(), ["shop:1", "data:1"]);
}

#[test]
fn nothing_differs_from_no_stable_template() {
    assert_eq!(
        differences(None, &PodTemplate(risk::differences::tests::written())),
        BTreeSet::new()
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn each_edit_is_of_its_kind() {
    let edits = [
        (
            "/spec/containers/0/image",
            json!("shop:2"),
            Difference::Image,
        ),
        (
            "/spec/containers/0/imagePullPolicy",
            json!("Always"),
            Difference::Image,
        ),
        (
            "/spec/containers/0/command",
            json!(["sh"]),
            Difference::Command,
        ),
        ("/spec/containers/0/args", json!([]), Difference::Command),
        (
            "/spec/containers/0/workingDir",
            json!("/"),
            Difference::Command,
        ),
        (
            "/spec/containers/0/env/0/value",
            json!("x"),
            Difference::Environment,
        ),
        (
            "/spec/containers/0/envFrom",
            json!([{ "secretRef": { "name": "s" } }]),
            Difference::Environment,
        ),
        (
            "/spec/containers/0/ports/0/containerPort",
            json!(8081),
            Difference::Ports,
        ),
        (
            "/spec/containers/0/resources/limits/cpu",
            json!("501m"),
            Difference::Resources,
        ),
        (
            "/spec/containers/0/readinessProbe/periodSeconds",
            json!(11),
            Difference::Probes,
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({ "preStop": {} }),
            Difference::Probes,
        ),
        (
            "/spec/containers/0/securityContext",
            json!({ "runAsUser": 0 }),
            Difference::SecurityContext,
        ),
        (
            "/spec/containers/0/volumeMounts/0/readOnly",
            json!(true),
            Difference::Volumes,
        ),
        (
            "/spec/containers/0/restartPolicy",
            json!("Always"),
            Difference::Containers,
        ),
        ("/spec/containers/0/tty", json!(true), Difference::Other),
        (
            "/spec/containers/0/name",
            json!("other"),
            Difference::Containers,
        ),
        (
            "/spec/initContainers",
            json!([{ "name": "init", "image": "i" }]),
            Difference::Containers,
        ),
        (
            "/spec/hostNetwork",
            json!(true),
            Difference::SecurityContext,
        ),
        (
            "/spec/securityContext",
            json!({ "fsGroup": 0 }),
            Difference::SecurityContext,
        ),
        (
            "/spec/serviceAccountName",
            json!("root"),
            Difference::ServiceAccount,
        ),
        (
            "/spec/automountServiceAccountToken",
            json!(false),
            Difference::ServiceAccount,
        ),
        (
            "/spec/volumes/1/emptyDir",
            json!({ "medium": "Memory" }),
            Difference::Volumes,
        ),
        (
            "/spec/volumes/0/configMap/defaultMode",
            json!(511),
            Difference::Volumes,
        ),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(0),
            Difference::Other,
        ),
        (
            "/spec/nodeSelector",
            json!({ "scheme": "HTTP" }),
            Difference::Other,
        ),
        ("/spec/fieldOfKubernetes2030", json!(1), Difference::Other),
        ("/metadata/labels/app", json!("other"), Difference::Other),
        (
            "/metadata/annotations",
            json!({ "a": "b" }),
            Difference::Other,
        ),
        (
            "/metadata/annotations",
            json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-02T03:04:05Z" }),
            Difference::Metadata,
        ),
        (
            "/metadata/annotations",
            json!({ "checksum/config": "1f2e" }),
            Difference::Environment,
        ),
        (
            "/metadata/annotations",
            json!({ "sidecar.istio.io/proxyImage": "example.org/proxy" }),
            Difference::Containers,
        ),
        (
            "/metadata/annotations",
            json!({ "notistio.io/proxyImage": "example.org/proxy" }),
            Difference::Other,
        ),
        ("/metadata/finalizers", json!(["a/b"]), Difference::Other),
        ("/newPart", json!(1), Difference::Other),
    ];
    for (path, value, kind) in edits {
        let mut new = risk::differences::tests::written();
        let (parent, field) = path.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[field] = value;
        assert_eq!(
            risk::differences::tests::found(risk::differences::tests::stored(), new.clone()),
            [kind].into(),
            "{path}"
        );
        assert_eq!(
            risk::differences::tests::found(new, risk::differences::tests::stored()),
            [kind].into(),
            "{path}, the other way"
        );
    }
}

#[test]
fn several_edits_are_all_seen() {
    let mut new = risk::differences::tests::written();
    new["spec"]["containers"][0]["image"] = json!("shop:2");
    new["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    new["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "sidecar", "image": "s" }));
    let expected = [
        Difference::Image,
        Difference::SecurityContext,
        Difference::Containers,
    ];
    assert_eq!(
        risk::differences::tests::found(risk::differences::tests::stored(), new),
        expected.into()
    );
}

#[test]
fn containers_without_a_name_of_their_own_are_not_compared_by_it() {
    let mut new = risk::differences::tests::written();
    new["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "web", "image": "evil" }));
    assert_eq!(
        risk::differences::tests::found(risk::differences::tests::stored(), new),
        [Difference::Containers].into()
    );
}

#[test]
fn quantities_are_compared_by_amount() {
    for (a, b) in [
        ("1", "1000m"),
        ("0.1", "100m"),
        ("1Gi", "1024Mi"),
        ("1e3", "1k"),
        ("1.5", "1500m"),
        ("1E", "1e18"),
    ] {
        assert!(amount(a).is_some(), "{a}");
        assert_eq!(amount(a), amount(b), "{a} {b}");
    }
    for text in [
        "",
        "x",
        "1x",
        "1e",
        "1e99",
        "99999999999999999999999999999999E",
        "-1",
        ".",
        "1.2.3",
    ] {
        assert_eq!(amount(text), None, "{text}");
    }
    assert_ne!(amount("1Gi"), amount("1G"));
}

#[test]
fn hostile_templates_are_compared_without_a_panic() {
    for template in [
        json!(null),
        json!([]),
        json!({ "spec": [] }),
        json!({ "spec": { "containers": {} } }),
        json!({ "spec": { "containers": [1, null] } }),
    ] {
        let _ =
            risk::differences::tests::found(template.clone(), risk::differences::tests::written());
        assert_eq!(
            risk::differences::tests::found(template.clone(), template),
            BTreeSet::new()
        );
    }
}
