//! The installed operator, by the labels that the chart gives its Deployment.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;

/// Version of this plugin, and of the definitions and admission policies within it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The chart's labels of the operator's Deployment.
const LABELS: &str = "app.kubernetes.io/part-of=countersign,app.kubernetes.io/component=operator";
/// The chart's label of the version.
const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// The operator's environment variable with the URL of Prometheus.
const PROMETHEUS_URL: &str = "COUNTERSIGN_PROMETHEUS_URL";

/// The Deployment of an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version, by the chart's label.
    pub version: String,
    /// Number of its available pods.
    pub available: i32,
    /// The user name of its `ServiceAccount`.
    pub user: String,
    /// The URL of its Prometheus, if a variable of the Deployment names one.
    pub prometheus_url: Option<String>,
}

impl Installation {
    /// The operators of this namespace, or of all.
    pub async fn find(
        connection: &Connection,
        namespace: Option<&str>,
    ) -> Result<Vec<Self>, Refusal> {
        let deployments = match namespace {
            Some(namespace) => connection.within::<Deployment>(namespace),
            None => connection.everywhere(),
        };
        let parameters = ListParams::default().labels(LABELS);
        let found = connection.ask(deployments.list(&parameters)).await?;
        Ok(found.items.iter().map(Self::of).collect())
    }

    fn of(deployment: &Deployment) -> Self {
        let namespace = deployment.namespace().unwrap_or_default();
        let pod = deployment.spec.template.spec.as_ref();
        let account = pod.and_then(|pod| pod.service_account_name.as_deref());
        let account = account.unwrap_or("default");
        let containers = pod.into_iter().flat_map(|pod| &pod.containers);
        let mut variables = containers.flat_map(|container| container.env.iter().flatten());
        let url = variables.find(|variable| variable.name == PROMETHEUS_URL);
        let status = deployment.status.as_ref();
        Self {
            name: deployment.name_any(),
            version: deployment
                .labels()
                .get(VERSION_LABEL)
                .cloned()
                .unwrap_or_default(),
            available: status
                .and_then(|status| status.available_replicas)
                .unwrap_or_default(),
            user: format!("system:serviceaccount:{namespace}:{account}"),
            prometheus_url: url.and_then(|variable| variable.value.clone()),
            namespace,
        }
    }

    /// Why this plugin is not the one for the operator, if their versions differ.
    #[must_use]
    pub fn skew(&self) -> Option<String> {
        (self.version != VERSION).then(|| {
            let version = match self.version.as_str() {
                "" => "of an unknown version",
                version => version,
            };
            format!(
                "the operator is {version} and this plugin {VERSION}: use the plugin of the operator's version"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operator_is_read_from_its_deployment() {
        let deployment = json!({
            "metadata": {
                "name": "countersign", "namespace": "system",
                "labels": { "app.kubernetes.io/version": VERSION },
            },
            "spec": { "selector": {}, "template": { "spec": {
                "serviceAccountName": "operator",
                "containers": [{ "name": "countersign", "env": [
                    { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "COUNTERSIGN_PROMETHEUS_URL", "value": "http://prometheus.monitoring:9090" },
                ] }],
            } } },
            "status": { "availableReplicas": 2 },
        });
        let mut installation = Installation::of(&serde_json::from_value(deployment).unwrap());
        let expected = Installation {
            namespace: "system".into(),
            name: "countersign".into(),
            version: VERSION.into(),
            available: 2,
            user: "system:serviceaccount:system:operator".into(),
            prometheus_url: Some("http://prometheus.monitoring:9090".into()),
        };
        assert_eq!(installation, expected);
        assert_eq!(installation.skew(), None);
        installation.version = "9.1.0".into();
        let skew = installation.skew().unwrap();
        assert!(skew.contains("9.1.0") && skew.contains(VERSION), "{skew}");
    }
}
