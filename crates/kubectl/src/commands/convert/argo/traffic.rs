//! Traffic routing to routes.

use serde_json::{Map, Value, json};

use crate::commands::convert::document::put;
use crate::commands::convert::foreign::Field;

/// The name of the plugin that splits routes of the Gateway API.
const GATEWAY_API: &str = "argoproj-labs/gatewayAPI";
/// The kinds of routes of that plugin, with the field of one and the field of several.
const KINDS: [(&str, &str, &str); 4] = [
    ("HTTPRoute", "httpRoute", "httpRoutes"),
    ("GRPCRoute", "grpcRoute", "grpcRoutes"),
    ("TCPRoute", "tcpRoute", "tcpRoutes"),
    ("TLSRoute", "tlsRoute", "tlsRoutes"),
];

/// The routes of a canary.
pub struct Routes(pub Vec<Value>);

impl Routes {
    /// Whether one of them is of one of these kinds.
    pub fn have(&self, kinds: &[&str]) -> bool {
        let mut routes = self.0.iter();
        routes.any(|route| {
            let kind = route.get("kind").and_then(Value::as_str);
            kind.is_some_and(|kind| kinds.contains(&kind))
        })
    }
}

/// The routes that are split.
pub fn routes(canary: &Field<'_>, namespace: Option<&str>) -> Routes {
    let mut routes = Vec::new();
    if let Some(routing) = canary.get("trafficRouting") {
        routing.skip_all(&["managedRoutes", "maxTrafficWeight"]);
        if let Some(istio) = routing.get("istio") {
            routes.extend(virtual_services(&istio));
        }
        for (name, plugin) in routing.entries("plugins") {
            if name == GATEWAY_API {
                routes.extend(gateway_api(&plugin, namespace));
            } else {
                plugin.lost("this router is not supported: move to a route of the Gateway API, or the canary gets no share of the requests");
            }
        }
        for router in [
            "alb",
            "ambassador",
            "apisix",
            "appMesh",
            "nginx",
            "smi",
            "traefik",
        ] {
            if let Some(router) = routing.get(router) {
                router.lost("this router is not supported: move to a route of the Gateway API, or the canary gets no share of the requests");
            }
        }
    }
    Routes(routes)
}

/// The largest weight of Argo's router, which stands for all requests.
pub fn full_weight(canary: &Field<'_>) -> i64 {
    let routing = canary.get("trafficRouting");
    let weight = routing.and_then(|routing| routing.int("maxTrafficWeight"));
    weight.filter(|weight| *weight > 0).unwrap_or(100)
}

fn gateway_api(plugin: &Field<'_>, own: Option<&str>) -> Vec<Value> {
    if let Some(namespace) = plugin.text("namespace")
        && own.is_some_and(|own| own != namespace)
    {
        plugin.decide(
            "routes of another namespace are not written: move them to that of the Rollout",
        );
    }
    let mut routes = Vec::new();
    for (kind, one, several) in KINDS {
        let one = plugin.text(one);
        let several = plugin.items(several);
        let several = several.iter().filter_map(|route| {
            route.skip_all(&["useHeaderRoutes"]);
            route.text("name")
        });
        let names = one.into_iter().chain(several);
        routes.extend(names.map(|name| json!({ "kind": kind, "name": name })));
    }
    routes
}

fn virtual_services(istio: &Field<'_>) -> Vec<Value> {
    let subsets = istio.get("destinationRule").map(|rule| {
        rule.drop_all(
            &["additionalSubsetNames"],
            "only the two subsets of the Rollout are written",
        );
        json!({
            "name": rule.text("name").unwrap_or_default(),
            "stableSubset": rule.text("stableSubsetName").unwrap_or_default(),
            "canarySubset": rule.text("canarySubsetName").unwrap_or_default(),
        })
    });
    let one = istio.get("virtualService").into_iter();
    let all = one.chain(istio.items("virtualServices"));
    let routes = all.map(|service| {
        let mut route = Map::new();
        put(&mut route, "kind", Some("VirtualService"));
        put(&mut route, "name", service.text("name"));
        put(&mut route, "rules", service.value("routes"));
        put(&mut route, "destinationRule", subsets.clone());
        for key in ["tlsRoutes", "tcpRoutes"] {
            if let Some(rules) = service.get(key) {
                rules.skip();
                rules.decide("rules are chosen by name here: without `rules` every rule that sends to both sides is written");
            }
        }
        Value::Object(route)
    });
    routes.collect()
}
