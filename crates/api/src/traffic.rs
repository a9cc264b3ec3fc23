//! Traffic: the routes that give the canary its share of the requests.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The routes that give the canary its share of the requests, whatever its number of pods. Only the two
/// weights of each rule that sends to both the stable and the canary side are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.testers) || self.routes.exists(route, !has(route.kind) || route.kind in ['HTTPRoute', 'GRPCRoute'])")
        .message("traffic.testers needs an HTTPRoute or a GRPCRoute: in a VirtualService write a rule of your own that matches them"),
    validation = Rule::new("self.routes.all(a, self.routes.exists_one(b, (has(b.kind) ? b.kind : 'HTTPRoute') == (has(a.kind) ? a.kind : 'HTTPRoute') && b.name == a.name))")
        .message("traffic.routes must name each route once: name several of its rules in one entry"),
)]
pub struct Traffic {
    /// The routes; all of them get the same share.
    #[schemars(length(min = 1, max = 8))]
    pub routes: Vec<RouteReference>,
    /// Requests that go to the canary at every weight, as soon as it has pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub testers: Option<Testers>,
}

/// A route of the Rollout's own namespace.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.destinationRule) || (has(self.kind) && self.kind == 'VirtualService')")
        .message("destinationRule goes with a route of kind VirtualService alone"),
)]
pub struct RouteReference {
    /// Kind of the route.
    #[serde(default)]
    pub kind: RouteKind,
    /// Name of the route.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Names of the rules whose weights are written; if not set, every rule that sends to both sides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub rules: Vec<String>,
    /// Subsets that distinguish the sides if both are one host; if not set, their Services do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_rule: Option<Subsets>,
}

/// Kinds of routes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum RouteKind {
    /// Gateway API, HTTP.
    #[default]
    HTTPRoute,
    /// Gateway API, gRPC.
    GRPCRoute,
    /// Gateway API, TLS by its server name.
    TLSRoute,
    /// Gateway API, TCP connections.
    TCPRoute,
    /// Istio.
    VirtualService,
}

/// The API that a kind of route belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// The Gateway API.
    GatewayApi,
    /// Istio's networking API.
    Istio,
}

impl RouteKind {
    /// The API that this kind belongs to.
    #[must_use]
    pub const fn router(self) -> Router {
        match self {
            Self::HTTPRoute | Self::GRPCRoute | Self::TLSRoute | Self::TCPRoute => {
                Router::GatewayApi
            }
            Self::VirtualService => Router::Istio,
        }
    }

    /// Whether a rule of this kind can match the requests of testers by a header.
    #[must_use]
    pub const fn matches_headers(self) -> bool {
        match self {
            Self::HTTPRoute | Self::GRPCRoute => true,
            Self::TLSRoute | Self::TCPRoute | Self::VirtualService => false,
        }
    }

    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::HTTPRoute,
        Self::GRPCRoute,
        Self::TLSRoute,
        Self::TCPRoute,
        Self::VirtualService,
    ];

    /// The kind's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HTTPRoute => "HTTPRoute",
            Self::GRPCRoute => "GRPCRoute",
            Self::TLSRoute => "TLSRoute",
            Self::TCPRoute => "TCPRoute",
            Self::VirtualService => "VirtualService",
        }
    }

    /// The API versions in which the kind may be served, preferred ones first.
    #[must_use]
    pub const fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::HTTPRoute | Self::GRPCRoute => &["gateway.networking.k8s.io/v1"],
            Self::TLSRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1alpha3",
                "gateway.networking.k8s.io/v1alpha2",
            ],
            Self::TCPRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1alpha2",
            ],
            Self::VirtualService => ISTIO,
        }
    }
}

impl std::fmt::Display for RouteKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The API versions of Istio's kinds, preferred ones first.
pub const ISTIO: &[&str] = &["networking.istio.io/v1", "networking.istio.io/v1beta1"];

/// The subsets of an Istio DestinationRule that distinguish the sides.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.stableSubset != self.canarySubset").message("stableSubset and canarySubset must be two subsets"),
)]
pub struct Subsets {
    /// Name of the DestinationRule.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Subset that is kept on the stable revision's pods.
    #[schemars(length(min = 1, max = 63))]
    pub stable_subset: String,
    /// Subset that is kept on the canary's pods, and on the stable ones if there is no canary.
    #[schemars(length(min = 1, max = 63))]
    pub canary_subset: String,
}

/// Requests of testers: they carry all of the headers, and the cookie if one is named.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.headers) || has(self.cookie)").message("testers are identified by headers, by a cookie, or by both"),
)]
pub struct Testers {
    /// Headers with exactly these values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub headers: Vec<HeaderMatch>,
    /// A cookie with exactly this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieMatch>,
}

/// A header with exactly this value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name of the header.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_|~]+$")
    )]
    pub name: String,
    /// Value of the header.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// A cookie with exactly this value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CookieMatch {
    /// Name of the cookie.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// Value of the cookie.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub value: String,
}
