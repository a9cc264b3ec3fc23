use super::forms::{amount, is_image};
use super::*;
use crate::manifests::yaml::documents;

fn pod(spec: &str) -> String {
    format!("metadata: {{ labels: {{ app: web }} }}\nspec: {{ {spec} }}\n")
}

fn container(members: &str) -> String {
    pod(&format!(
        "containers: [{{ name: web, image: a:1, {members} }}]"
    ))
}

fn messages(text: &str, purpose: Purpose) -> Vec<String> {
    let template = documents(text).unwrap().remove(0);
    let findings = check(&template, "template", purpose).into_iter();
    findings.map(|it| it.message).collect()
}

#[test]
fn what_kubernetes_takes_has_no_findings() {
    for text in [
        container(""),
        pod("restartPolicy: '', containers: [{ name: web, image: a }]"),
        pod(
            "restartPolicy: Always, nodeSelector: ~, tolerations: ~, affinity: ~, containers: [{ name: web, image: a, env: ~, resources: ~ }]",
        ),
        pod(
            "initContainers: [{ name: init, image: a }, { name: proxy, image: a, restartPolicy: Always, startupProbe: { tcpSocket: { port: 80 } } }], containers: [{ name: web, image: a }]",
        ),
        pod(
            "volumes: [{ name: cache }, { name: config, configMap: { name: c, defaultMode: 0644 } }], containers: [{ name: web, image: a, volumeMounts: [{ name: cache, mountPath: /c }, { name: config, mountPath: /d, subPath: a/b }] }]",
        ),
        pod(
            "tolerations: [{ operator: Exists }, { key: a, value: b, effect: NoSchedule }], containers: [{ name: web, image: a }]",
        ),
        container(
            "ports: [{ containerPort: 8080, name: http }], readinessProbe: { httpGet: { port: http, path: / } }, livenessProbe: { tcpSocket: { port: 8080 } }",
        ),
        container(
            "env: [{ name: A, value: '${B} {{ x }}' }, { name: a.b-c, valueFrom: { fieldRef: { fieldPath: \"metadata.labels['a']\" } } }], envFrom: [{ secretRef: { name: s } }]",
        ),
        container(
            "resources: { requests: { cpu: 0.5, memory: 256Mi, example.org/gpu: 1 }, limits: { cpu: 500m, memory: 0.25Gi, example.org/gpu: '1', hugepages-2Mi: 4Mi } }",
        ),
        container(
            "lifecycle: { preStop: { sleep: { seconds: 5 } } }, securityContext: { runAsUser: 0, privileged: true }",
        ),
        container("command: ['{{- with secret -}}'], newField: { x: 1 }"),
    ] {
        assert_eq!(messages(&text, Purpose::Serve), [] as [&str; 0], "{text}");
    }
    let once = pod(
        "restartPolicy: Never, activeDeadlineSeconds: 5, containers: [{ name: smoke, image: '{{image}}' }]",
    );
    assert_eq!(messages(&once, Purpose::RunOnce), [] as [&str; 0]);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn what_kubernetes_refuses_is_named_with_its_place() {
    for (text, expected) in [
        (
            pod("restartPolicy: OnFailure, containers: [{ name: web, image: a }]"),
            "template.spec.restartPolicy: must be Always",
        ),
        (
            pod("activeDeadlineSeconds: 5, containers: [{ name: web, image: a }]"),
            "template.spec.activeDeadlineSeconds: ",
        ),
        (
            pod(
                "ephemeralContainers: [{ name: e, image: a }], containers: [{ name: web, image: a }]",
            ),
            "template.spec.ephemeralContainers: ",
        ),
        (
            pod("dnsPolicy: Cluster, containers: [{ name: web, image: a }]"),
            "template.spec.dnsPolicy: `Cluster` is none of ClusterFirst,",
        ),
        (
            pod("dnsPolicy: None, containers: [{ name: web, image: a }]"),
            "template.spec.dnsPolicy: None needs",
        ),
        (
            pod("serviceAccountName: Web, containers: [{ name: web, image: a }]"),
            "template.spec.serviceAccountName: `Web` is not a name",
        ),
        (
            pod("nodeSelector: { 'a b': c }, containers: [{ name: web, image: a }]"),
            "template.spec.nodeSelector: `a b` is not a key",
        ),
        (
            pod(
                "hostPID: true, shareProcessNamespace: true, containers: [{ name: web, image: a }]",
            ),
            "template.spec.shareProcessNamespace: ",
        ),
        (
            pod("securityContext: { runAsUser: -1 }, containers: [{ name: web, image: a }]"),
            "template.spec.securityContext.runAsUser: -1 is not from 0",
        ),
        (
            pod("tolerations: [{ value: b }], containers: [{ name: web, image: a }]"),
            "template.spec.tolerations[0]: without a key",
        ),
        (
            pod("tolerations: [{ key: a, effect: NoRun }], containers: [{ name: web, image: a }]"),
            "template.spec.tolerations[0].effect: `NoRun`",
        ),
        (
            pod(
                "tolerations: [{ key: a, tolerationSeconds: 5 }], containers: [{ name: web, image: a }]",
            ),
            "template.spec.tolerations[0]: tolerationSeconds",
        ),
        (
            pod(
                "topologySpreadConstraints: [{ maxSkew: 0, topologyKey: z, whenUnsatisfiable: DoNotSchedule }], containers: [{ name: web, image: a }]",
            ),
            "template.spec.topologySpreadConstraints[0].maxSkew: 0 is below 1",
        ),
        (
            pod(
                "affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [] } } }, containers: [{ name: web, image: a }]",
            ),
            "template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: has no term",
        ),
        (
            pod(
                "affinity: { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 101, podAffinityTerm: { topologyKey: z } }] } }, containers: [{ name: web, image: a }]",
            ),
            "template.spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: 101",
        ),
        (
            pod("hostAliases: [{ ip: nowhere }], containers: [{ name: web, image: a }]"),
            "template.spec.hostAliases[0].ip: `nowhere` is not an IP address",
        ),
        (
            pod(
                "volumes: [{ name: c, emptyDir: {}, secret: { secretName: s } }], containers: [{ name: web, image: a }]",
            ),
            "template.spec.volumes[0]: is of one kind only, not of emptyDir and secret",
        ),
        (
            pod(
                "volumes: [{ name: c, configMap: { name: s, defaultMode: 644 } }], containers: [{ name: web, image: a }]",
            ),
            "template.spec.volumes[0].configMap.defaultMode: 644 is not a file mode",
        ),
        (
            pod("volumes: [{ name: c, secret: {} }], containers: [{ name: web, image: a }]"),
            "template.spec.volumes[0].secret.secretName: is missing",
        ),
        (
            pod("initContainers: [{ name: web, image: a }], containers: [{ name: web, image: a }]"),
            "template.spec.initContainers[0].name: `web` is the name of one of containers already",
        ),
        (
            pod(
                "initContainers: [{ name: i, image: a, readinessProbe: { exec: { command: [a] } } }], containers: [{ name: web, image: a }]",
            ),
            "template.spec.initContainers[0].readinessProbe: an init container has none",
        ),
        (
            pod("containers: [{ name: web }]"),
            "template.spec.containers[0].image: is missing",
        ),
        (
            pod("containers: [{ name: web_1, image: a }]"),
            "template.spec.containers[0].name: `web_1` is not a name",
        ),
        (
            pod("containers: [{ name: web, image: 'Shop/Web:1' }]"),
            "template.spec.containers[0].image: `Shop/Web:1` is not an image reference",
        ),
        (
            pod("containers: [{ name: web, image: 'web:${TAG}' }]"),
            "template.spec.containers[0].image: `web:${TAG}` is not an image reference",
        ),
        (
            pod(
                "containers: [{ name: web, image: a, ports: [{ containerPort: 80, hostPort: 80 }] }, { name: b, image: a, ports: [{ containerPort: 81, hostPort: 80 }] }]",
            ),
            "template.spec.containers[1].ports[0].hostPort: 80 of the node is taken",
        ),
        (
            pod(
                "hostNetwork: true, containers: [{ name: web, image: a, ports: [{ containerPort: 80, hostPort: 81 }] }]",
            ),
            "template.spec.containers[0].ports[0].hostPort: must be containerPort",
        ),
        (
            container("imagePullPolicy: Sometimes"),
            "template.spec.containers[0].imagePullPolicy: `Sometimes`",
        ),
        (
            container("ports: [{ containerPort: 70000 }]"),
            "template.spec.containers[0].ports[0].containerPort: 70000 is not from 1 to 65535",
        ),
        (
            container("ports: [{ containerPort: 80, protocol: HTTP }]"),
            "template.spec.containers[0].ports[0].protocol: `HTTP`",
        ),
        (
            container("ports: [{ containerPort: 80, name: a-name-that-is-long }]"),
            "template.spec.containers[0].ports[0].name: ",
        ),
        (
            container("ports: [{ containerPort: 80, name: a }, { containerPort: 81, name: a }]"),
            "template.spec.containers[0].ports[1].name: `a` is the name of another port",
        ),
        (
            container("volumeMounts: [{ name: cache, mountPath: /c }]"),
            "template.spec.containers[0].volumeMounts[0].name: there is no volume `cache`",
        ),
        (
            container("env: [{ name: 'a=b', value: c }]"),
            "template.spec.containers[0].env[0].name: `a=b`",
        ),
        (
            container(
                "env: [{ name: a, value: c, valueFrom: { fieldRef: { fieldPath: metadata.name } } }]",
            ),
            "template.spec.containers[0].env[0].valueFrom: cannot be set beside value",
        ),
        (
            container("env: [{ name: a, valueFrom: { fieldRef: { fieldPath: spec.image } } }]"),
            "template.spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: `spec.image`",
        ),
        (
            container("envFrom: [{ prefix: a }]"),
            "template.spec.containers[0].envFrom[0]: set exactly one of",
        ),
        (
            container("resources: { requests: { memory: 2Gi }, limits: { memory: 1Gi } }"),
            "template.spec.containers[0].resources.requests.memory: is more than its limit",
        ),
        (
            container("resources: { limits: { mem: 1Gi } }"),
            "template.spec.containers[0].resources.limits.mem is not a container resource",
        ),
        (
            container(
                "resources: { requests: { example.org/gpu: 1 }, limits: { example.org/gpu: 2 } }",
            ),
            "template.spec.containers[0].resources.requests[example.org/gpu]: must be its limit",
        ),
        (
            container("readinessProbe: { periodSeconds: 5 }"),
            "template.spec.containers[0].readinessProbe: set exactly one of exec, httpGet, tcpSocket, grpc",
        ),
        (
            container("readinessProbe: { httpGet: { port: http } }"),
            "template.spec.containers[0].readinessProbe.httpGet.port: the container has no port named `http`",
        ),
        (
            container("readinessProbe: { httpGet: { port: '8080' } }"),
            "template.spec.containers[0].readinessProbe.httpGet.port: `8080` is not a port name",
        ),
        (
            container("livenessProbe: { successThreshold: 2, tcpSocket: { port: 80 } }"),
            "template.spec.containers[0].livenessProbe.successThreshold: 2 is not from 0 to 1",
        ),
        (
            container("lifecycle: { preStop: { sleep: { seconds: 60 } } }"),
            "template.spec.containers[0].lifecycle.preStop.sleep.seconds: 60 is not from 0 to 30",
        ),
        (
            container("securityContext: { privileged: true, allowPrivilegeEscalation: false }"),
            "template.spec.containers[0].securityContext.allowPrivilegeEscalation: ",
        ),
    ] {
        let found = messages(&text, Purpose::Serve);
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{text}: {found:?}"
        );
    }
    let labels = documents("labels: { app: 'a b', '-x': y }\n")
        .unwrap()
        .remove(0);
    assert_eq!(check_metadata(&labels, "metadata").len(), 2);
}

#[test]
fn references_of_images_are_those_that_a_node_can_read() {
    let digest = "a".repeat(64);
    for good in [
        "web".to_owned(),
        "web:1".into(),
        "shop/web:v1.2.3-rc_1".into(),
        "registry.example/shop/web:1".into(),
        "localhost:5000/web".into(),
        "REGISTRY.example:5000/web:Latest".into(),
        format!("web@sha256:{digest}"),
        format!("quay.io/a/b__c:1@sha256:{digest}"),
    ] {
        assert!(is_image(&good), "{good}");
    }
    for bad in [
        "",
        " ",
        "Web",
        "shop/Web",
        "web:",
        "web:a b",
        "web:-1",
        "web@sha256:1",
        "/web",
        "web/",
        "{{image}}",
        "a:${T}",
        "http://a/b",
    ] {
        assert!(!is_image(bad), "{bad}");
    }
}

#[test]
fn amounts_are_compared_whatever_their_suffix() {
    for (text, expected) in [
        ("0.5", 0.5),
        ("500m", 0.5),
        ("'1Gi'", 1_073_741_824.0),
        ("1e3", 1_000.0),
        ("'1e3'", 1_000.0),
        ("2", 2.0),
    ] {
        let node = documents(&format!("[{text}]")).unwrap().remove(0);
        let found = amount(&node.items()[0]).unwrap();
        assert!((found - expected).abs() < 1e-9, "{text}: {found}");
    }
}
