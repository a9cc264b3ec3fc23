//! The Services and the route that Flagger generates, as manifests of your own.

use serde_json::{Map, Value, json};

use crate::commands::convert::document::{foreign_object, put};
use crate::commands::convert::foreign::Field;

/// Fields of the service that a route could have, too.
const OF_ROUTES: [&str; 9] = [
    "backends",
    "corsPolicy",
    "delegation",
    "headers",
    "meshName",
    "mirror",
    "retries",
    "rewrite",
    "trafficPolicy",
];

/// The objects that a Canary's traffic goes through.
pub struct Names<'a> {
    pub namespace: Option<&'a str>,
    /// The Service of the stable side, and the route.
    pub apex: &'a str,
    pub canary: String,
}

impl Names<'_> {
    fn metadata(&self, name: &str) -> Map<String, Value> {
        let mut metadata = Map::new();
        put(&mut metadata, "name", Some(name));
        put(&mut metadata, "namespace", self.namespace);
        metadata
    }
}

/// How requests are split.
pub enum Router {
    /// By an HTTPRoute with these parents.
    GatewayApi { parents: Value },
    /// By a VirtualService.
    Istio,
    /// Not at all: one Service is switched.
    Services,
}

impl Router {
    /// The kind of the route, if there is one.
    pub const fn kind(&self) -> Option<&'static str> {
        match self {
            Self::GatewayApi { .. } => Some("HTTPRoute"),
            Self::Istio => Some("VirtualService"),
            Self::Services => None,
        }
    }

    /// The router of a Canary, and the preset for its metrics. `switches` is whether no request has to be split.
    pub fn of(
        spec: &Field<'_>,
        service: &Field<'_>,
        apex: &str,
        switches: bool,
    ) -> (Self, Option<&'static str>) {
        let gateways = || Self::GatewayApi {
            parents: service.value("gatewayRefs").unwrap_or_else(|| json!([])),
        };
        let provider = spec.text("provider");
        match provider.and_then(|it| it.split(':').next()) {
            Some("istio") => (Self::Istio, Some("Istio")),
            Some("gatewayapi") => (gateways(), None),
            Some("linkerd") => {
                let parent = json!({ "group": "core", "kind": "Service", "name": apex });
                let parents = json!([parent]);
                (Self::GatewayApi { parents }, Some("Linkerd"))
            }
            Some("kubernetes") => (Self::Services, None),
            Some(other) => {
                if let Some(provider) = spec.get("provider").filter(|_| !switches) {
                    provider.lost("this router is not supported: move to a route of the Gateway API, or the canary gets no share of the requests");
                }
                let preset = match other {
                    "contour" => Some("Contour"),
                    "traefik" => Some("Traefik"),
                    _ => None,
                };
                (Self::Services, preset)
            }
            None if service.get("gatewayRefs").is_some() => (gateways(), None),
            None if service.get("gateways").is_some() => (Self::Istio, Some("Istio")),
            None => {
                if !switches {
                    spec.missing(
                        "provider",
                        "name the one that Flagger runs with (-mesh-provider), and convert again",
                    );
                }
                (Self::Services, None)
            }
        }
    }

    /// The route, with a rule for the testers of an A/B test.
    pub fn route(
        &self,
        service: &Field<'_>,
        testers: &[Value],
        names: &Names<'_>,
    ) -> Option<Value> {
        match self {
            Self::GatewayApi { parents } => Some(http_route(service, parents, names)),
            Self::Istio => Some(virtual_service(service, testers, names)),
            Self::Services => None,
        }
    }
}

/// The Services of both sides. Their selectors are the operator's.
pub fn services(service: &Field<'_>, names: &Names<'_>) -> [Value; 2] {
    let port = service.int("port").unwrap_or(80);
    let mut entry = Map::new();
    let name = service.text("portName").unwrap_or("http");
    put(&mut entry, "name", Some(name));
    put(&mut entry, "port", Some(port));
    put(&mut entry, "targetPort", service.value("targetPort"));
    put(&mut entry, "appProtocol", service.text("appProtocol"));
    let mut spec = Map::new();
    put(&mut spec, "ports", Some(vec![Value::Object(entry)]));
    let headless = service.flag("headless").unwrap_or_default();
    put(&mut spec, "clusterIP", headless.then_some("None"));
    let distribution = service.text("trafficDistribution");
    put(&mut spec, "trafficDistribution", distribution);
    if service.flag("portDiscovery") == Some(true) {
        service.decide("portDiscovery: add the other ports of the containers to both Services");
    }
    service.drop_all(
        &["primary", "unmanagedMetadata"],
        "has no counterpart: there is no second Deployment",
    );
    let sides = [("apex", names.apex), ("canary", names.canary.as_str())];
    sides.map(|(side, name)| {
        let mut metadata = names.metadata(name);
        if let Some(own) = service.get(side) {
            put(&mut metadata, "labels", own.value("labels"));
            put(&mut metadata, "annotations", own.value("annotations"));
        }
        foreign_object("v1", "Service", metadata, spec.clone().into())
    })
}

fn http_route(service: &Field<'_>, parents: &Value, names: &Names<'_>) -> Value {
    service.drop_all(&OF_ROUTES, "add it to the printed HTTPRoute");
    service.skip_all(&["gateways"]);
    let port = service.int("port").unwrap_or(80);
    let backend = |name: &str, weight: i64| json!({ "name": name, "port": port, "weight": weight });
    let backends = json!([backend(names.apex, 100), backend(&names.canary, 0)]);
    let mut rule = Map::new();
    let matches: Vec<_> = service.items("match").iter().map(http_match).collect();
    put(
        &mut rule,
        "matches",
        Some(matches).filter(|it| !it.is_empty()),
    );
    let mut timeouts = Map::new();
    put(&mut timeouts, "request", service.text("timeout"));
    put(
        &mut timeouts,
        "backendRequest",
        service.text("backendTimeout"),
    );
    put(
        &mut rule,
        "timeouts",
        Some(timeouts).filter(|it| !it.is_empty()),
    );
    put(&mut rule, "backendRefs", Some(backends));
    let mut spec = Map::new();
    put(&mut spec, "parentRefs", Some(parents.clone()));
    put(&mut spec, "hostnames", service.value("hosts"));
    put(&mut spec, "rules", Some(vec![Value::Object(rule)]));
    let api_version = "gateway.networking.k8s.io/v1";
    foreign_object(
        api_version,
        "HTTPRoute",
        names.metadata(names.apex),
        spec.into(),
    )
}

/// A match of a request in Istio's form, in that of the Gateway API.
fn http_match(request: &Field<'_>) -> Value {
    let kinds = |of_path: bool| {
        let prefix = ("prefix", "PathPrefix");
        let both = [("exact", "Exact"), ("regex", "RegularExpression")];
        both.into_iter().chain(Some(prefix).filter(|_| of_path))
    };
    let value = |field: &Field<'_>, of_path: bool| {
        kinds(of_path).find_map(|(key, kind)| Some((kind, field.text(key)?.to_owned())))
    };
    let mut matched = Map::new();
    let path = request.get("uri").and_then(|uri| value(&uri, true));
    let path = path.map(|(kind, value)| json!({ "type": kind, "value": value }));
    put(&mut matched, "path", path);
    let method = request.get("method").and_then(|it| it.text("exact"));
    put(&mut matched, "method", method);
    let headers = request.entries("headers").into_iter();
    let headers = headers.filter_map(|(name, header)| {
        let (kind, value) = value(&header, false)?;
        Some(json!({ "type": kind, "name": name, "value": value }))
    });
    let headers: Vec<_> = headers.collect();
    put(
        &mut matched,
        "headers",
        Some(headers).filter(|it| !it.is_empty()),
    );
    matched.into()
}

fn virtual_service(service: &Field<'_>, testers: &[Value], names: &Names<'_>) -> Value {
    service.skip_all(&["gatewayRefs"]);
    service.drop_all(
        &[
            "backends",
            "delegation",
            "meshName",
            "mirror",
            "trafficPolicy",
        ],
        "write it into a VirtualService or a DestinationRule of your own",
    );
    service.drop_all(&["backendTimeout"], "a VirtualService has no such timeout");
    let mut common = Map::new();
    for key in ["timeout", "retries", "headers", "corsPolicy"] {
        put(&mut common, key, service.value(key));
    }
    let mut rewrite = service.value("rewrite");
    if let Some(Value::Object(rewrite)) = &mut rewrite {
        rewrite.remove("type");
    }
    put(&mut common, "rewrite", rewrite);
    let matches = service.value("match");
    let to = |name: &str, weight: i64| json!({ "destination": { "host": name }, "weight": weight });
    let rule = |matches: Option<Value>, route: Value| {
        let mut rule = common.clone();
        put(&mut rule, "match", matches);
        put(&mut rule, "route", Some(route));
        Value::Object(rule)
    };
    let all = json!([to(names.apex, 100), to(&names.canary, 0)]);
    let mut rules = vec![rule(matches.clone(), all)];
    if !testers.is_empty() {
        let testers = both(testers, matches.as_ref());
        rules.insert(0, rule(Some(testers), json!([to(&names.canary, 100)])));
    }
    let hosts = service
        .value("hosts")
        .unwrap_or_else(|| json!([names.apex]));
    let mut spec = Map::new();
    put(&mut spec, "hosts", Some(hosts));
    put(&mut spec, "gateways", service.value("gateways"));
    put(&mut spec, "http", Some(rules));
    let api_version = "networking.istio.io/v1";
    foreign_object(
        api_version,
        "VirtualService",
        names.metadata(names.apex),
        spec.into(),
    )
}

/// Requests that match the testers and the service.
fn both(testers: &[Value], service: Option<&Value>) -> Value {
    let nothing = [json!({})];
    let service = service.and_then(Value::as_array);
    let service = service.map_or(nothing.as_slice(), Vec::as_slice);
    let all = service.iter().flat_map(|service| {
        testers.iter().map(move |tester| {
            let mut all = service.as_object().cloned().unwrap_or_default();
            all.extend(tester.as_object().cloned().unwrap_or_default());
            Value::Object(all)
        })
    });
    all.collect()
}
