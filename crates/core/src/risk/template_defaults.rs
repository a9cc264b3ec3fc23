//! Defaults of the API server.

use countersign_api::PodTemplate;
use serde_json::{Map, Value, json};

pub(super) const CONTAINER_LISTS: [&str; 3] =
    ["containers", "initContainers", "ephemeralContainers"];
pub(super) const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

pub(super) fn without_defaults(template: &PodTemplate) -> Value {
    let mut template = template.0.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !is_empty(value));
    }
    if let Some(spec) = template.get_mut("spec") {
        strip("spec", spec);
        if let Some(spec) = spec.as_object_mut() {
            strip_pods(spec);
        }
    }
    template
}

/// A template without defaults, for people: its quantities are as they were written.
pub(crate) fn as_written(template: &PodTemplate) -> Value {
    let mut shown = without_defaults(template);
    restore_quantities("", &mut shown, &template.0);
    shown
}

/// Restores the quantities that were normalised; `field` is the name of the nearest member, through lists.
fn restore_quantities(field: &str, shown: &mut Value, written: &Value) {
    match (shown, written) {
        (Value::Object(shown), Value::Object(written)) => {
            for (name, value) in shown {
                let Some(written) = written.get(name) else {
                    continue;
                };
                if matches!(field, "limits" | "requests") {
                    value.clone_from(written);
                } else {
                    restore_quantities(name, value, written);
                }
            }
        }
        (Value::Array(shown), Value::Array(written)) => {
            for (shown, written) in shown.iter_mut().zip(written) {
                restore_quantities(field, shown, written);
            }
        }
        _ => {}
    }
}

/// Whether a value is one that Go's `omitempty` omits.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

/// Whether Kubernetes sets this value if the field is absent (`SetDefaults_*` in
/// `pkg/apis/core/v1/defaults.go`), or omits it if it is set.
fn is_default(parent: &str, field: &str, value: &Value) -> bool {
    let default = match (parent, field) {
        ("spec", "restartPolicy") => json!("Always"),
        ("spec", "dnsPolicy") => json!("ClusterFirst"),
        ("spec", "schedulerName") => json!("default-scheduler"),
        ("spec", "terminationGracePeriodSeconds") => json!(30),
        ("spec", "enableServiceLinks") => json!(true),
        ("spec", "hostNetwork" | "hostPID" | "hostIPC") | ("volumeMounts", "readOnly") => {
            json!(false)
        }
        ("spec", "securityContext") => json!({}),
        (list, "securityContext" | "resources") if CONTAINER_LISTS.contains(&list) => json!({}),
        (list, "terminationMessagePath") if CONTAINER_LISTS.contains(&list) => {
            json!("/dev/termination-log")
        }
        (list, "terminationMessagePolicy") if CONTAINER_LISTS.contains(&list) => json!("File"),
        (list, "stdin" | "stdinOnce" | "tty") if CONTAINER_LISTS.contains(&list) => json!(false),
        ("securityContext", "procMount") => json!("Default"),
        ("ports", "protocol") => json!("TCP"),
        ("ports", "hostPort") => json!(0),
        ("fieldRef", "apiVersion") => json!("v1"),
        ("resourceFieldRef", "divisor") => json!("0"),
        (probe, "initialDelaySeconds") if PROBES.contains(&probe) => json!(0),
        (probe, "timeoutSeconds" | "successThreshold") if PROBES.contains(&probe) => json!(1),
        (probe, "periodSeconds") if PROBES.contains(&probe) => json!(10),
        (probe, "failureThreshold") if PROBES.contains(&probe) => json!(3),
        ("httpGet", "scheme") => json!("HTTP"),
        ("env", "value") | ("grpc", "service") | ("hostPath", "type") => json!(""),
        ("configMap" | "secret" | "downwardAPI" | "projected", "defaultMode") => json!(420),
        ("serviceAccountToken", "expirationSeconds") => json!(3600),
        _ => return value.is_null() || value.as_array().is_some_and(Vec::is_empty),
    };
    value.is_null() || *value == default
}

/// Removes defaults; `parent` is the name of the nearest member, through lists.
fn strip(parent: &str, value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| strip(parent, item)),
        Value::Object(members) => {
            members
                .iter_mut()
                .for_each(|(field, value)| strip(field, value));
            if parent == "resources" {
                strip_resources(members);
            }
            members.retain(|field, value| !is_default(parent, field, value));
        }
        _ => {}
    }
}

/// Sets absent requests to the limits, and normalises quantities.
fn strip_resources(resources: &mut Map<String, Value>) {
    for field in ["limits", "requests"] {
        if let Some(quantities) = resources.get_mut(field).and_then(Value::as_object_mut) {
            for quantity in quantities.values_mut() {
                let text = quantity
                    .as_str()
                    .map_or_else(|| quantity.to_string(), ToOwned::to_owned);
                if let Some(amount) = amount(&text) {
                    *quantity = Value::from(amount.to_string());
                }
            }
        }
    }
    let limits = resources.get("limits").cloned().unwrap_or_default();
    if let Some(requests) = resources.get_mut("requests").and_then(Value::as_object_mut) {
        requests.retain(|resource, request| limits.get(resource) != Some(request));
    }
    for field in ["limits", "requests"] {
        if resources.get(field).is_some_and(is_empty) {
            resources.remove(field);
        }
    }
}

/// A quantity in billionths, such as 500,000,000 for `500m`; `None` if it is invalid or too large.
pub(super) fn amount(quantity: &str) -> Option<u128> {
    const BILLION: u128 = 1_000_000_000;
    let end = quantity
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (multiply, divide) = match suffix {
        "n" => (1, BILLION),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "" => (1, 1),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (BILLION, 1),
        "T" => (BILLION * 1_000, 1),
        "P" => (BILLION * 1_000_000, 1),
        "E" => (BILLION * BILLION, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    let amount = digits.checked_mul(multiply)?.checked_mul(BILLION)?;
    let divide = scale.checked_mul(divide)?;
    (amount % divide == 0).then_some(amount / divide)
}

/// Removes defaults that depend on the whole pod spec.
fn strip_pods(spec: &mut Map<String, Value>) {
    // `serviceAccount` is the old name; the API server writes both.
    if let Some(account) = spec
        .remove("serviceAccount")
        .filter(|account| !is_empty(account))
    {
        spec.entry("serviceAccountName").or_insert(account);
    }
    let on_host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in CONTAINER_LISTS {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            let image = container
                .get("image")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if container.get("imagePullPolicy").and_then(Value::as_str) == Some(pull_policy(image))
            {
                container.remove("imagePullPolicy");
            }
            let ports = container.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                if on_host && port.get("hostPort") == port.get("containerPort") {
                    port.remove("hostPort");
                }
            }
        }
    }
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
    for volume in volumes
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        // A volume without a kind is an empty directory.
        if volume.get("emptyDir").is_some_and(is_empty) {
            volume.remove("emptyDir");
        }
    }
}

/// The default pull policy of an image.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let latest = !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    if latest { "Always" } else { "IfNotPresent" }
}
