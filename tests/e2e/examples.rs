//! The API server accepts all of `examples/` unchanged.

use countersign_cluster::Kinds;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::{Scope, pinned_kind};
use serde_json::Value;

use crate::support::Scene;

#[tokio::test]
async fn every_example_is_accepted() {
    let scene = Scene::new("examples").await;
    for kinds in [
        Kinds::GatewayApi,
        Kinds::GatewayApiExperimental,
        Kinds::Istio,
    ] {
        scene.cluster.install_kinds(kinds).await.unwrap();
    }
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut accepted = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let yaml = std::fs::read_to_string(&path).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        for document in documents {
            let object: DynamicObject = serde_json::from_value(document.clone()).unwrap();
            let kind = object.types.as_ref().unwrap().try_into().unwrap();
            let client = scene.cluster.client();
            let (resource, capabilities) = pinned_kind(&client, &kind).await.unwrap();
            let api: Api<DynamicObject> = match capabilities.scope {
                Scope::Cluster => Api::all_with(client, &resource),
                Scope::Namespaced => Api::namespaced_with(client, &scene.namespace, &resource),
            };
            let parameters = PatchParams::apply("test").dry_run().validation_strict();
            let name = object.metadata.name.as_ref().unwrap();
            let answer = api.patch(name, &parameters, &Patch::Apply(&document)).await;
            answer.unwrap_or_else(|error| panic!("{}: {name}: {error}", path.display()));
            accepted += 1;
        }
    }
    assert!(accepted > 10, "{accepted}");
}
