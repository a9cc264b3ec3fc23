//! Checks: queries about a canary and its stable revision.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::objective::Objective;

/// Checks on a change, evaluated at every interval while its canary has traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.interval) >= duration('1s')").message("analysis.interval must be at least 1s"))]
pub struct Analysis {
    /// Length of one window of counting; windows are disjoint and none is skipped.
    #[serde(default = "default_interval")]
    pub interval: Duration,
    /// Time after the pods of a step are available in which they warm up: errors still roll back, but nothing counts for a promotion, and latency and metrics do not count at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('10m')").message("analysis.warmUp must be at most 10m: a canary is never left unjudged for long"))]
    pub warm_up: Option<Duration>,
    /// Time after a promotion in which ceilings, metrics and objectives are still watched; if one fails, the previous revision is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('168h')").message("analysis.postPromotion must be at most 168h"))]
    pub post_promotion: Option<Duration>,
    /// AnalysisTemplates of the same namespace whose checks and objectives are also used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub templates: Vec<TemplateUse>,
    /// The checks; every required check must pass before a step ends, and any that fails rolls the change back.
    #[serde(default)]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<Check>,
    /// Objectives of the whole service, whose error budget a rollout must not burn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub objectives: Vec<Objective>,
}

/// The default interval of an analysis.
#[must_use]
pub const fn default_interval() -> Duration {
    Duration::seconds(15)
}

/// An AnalysisTemplate, with values for its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateUse {
    /// Name of the AnalysisTemplate.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Values of its arguments; a missing one has the template's default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub args: Vec<ArgumentValue>,
}

/// The value of one argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArgumentValue {
    /// Name of the argument.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its value, read as the type that the template declares.
    #[schemars(length(max = 256))]
    pub value: String,
}

/// One check of a canary.
///
/// Of four kinds: an error rate (a preset, or `errors` and `total`), a latency (`latency`, with a
/// preset or `buckets`), both compared with the stable revision and optionally held to a ceiling; or
/// a metric with bounds (`metric`).
///
/// A query of counters is a selector, such as `http_requests_total{code="500"}`, whose increase the
/// controller computes for each series (preferred: it sees the first error of a new pod),
/// or, if it contains `{{window}}`, an expression that yields one number of events, such as
/// `sum(increase(x[{{window}}]))`. Placeholders: `{{namespace}}`, `{{service}}`, `{{rollout}}`,
/// `{{revision}}` (the value of the pod label `pod-template-hash`) and `{{window}}`; in a template
/// also `{{args.NAME}}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.metric) || has(self.latency) || (has(self.preset) ? !has(self.errors) && !has(self.total) : has(self.errors) && has(self.total))")
        .message("a check has either a preset or both an error query (errors) and a total query (total), or it has latency or metric"),
    validation = Rule::new("!has(self.latency) || (!has(self.errors) && !has(self.total) && !has(self.metric) && has(self.preset) != has(self.latency.buckets))")
        .message("a check with latency has either a preset or latency.buckets, and none of errors, total and metric"),
    validation = Rule::new("!has(self.latency) || !has(self.latency.quantile) || !has(self.ceiling)")
        .message("latency.quantile is a ceiling of its own: leave out ceiling"),
    validation = Rule::new("!has(self.metric) || (!has(self.preset) && !has(self.errors) && !has(self.total) && !has(self.ceiling) && !has(self.dispersion))")
        .message("a check with metric has none of preset, errors, total, ceiling and dispersion"),
)]
pub struct Check {
    /// The check's name, unique in its Rollout, template or policy.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Queries for widely used metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// PromQL for the failed requests of one revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub errors: Option<String>,
    /// PromQL for all requests of one revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub total: Option<String>,
    /// Counts slow requests instead of failed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Compares a number with bounds instead of counting requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Error rate, or share of slow requests (a fraction from 0 to 1), that the canary must not exceed, regardless of stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000_001, max = 1.0))]
    pub ceiling: Option<f64>,
    /// Number of errors in one burst, by which the counts are divided; measured on the stable revision if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub dispersion: Option<f64>,
    /// Whether the check decides, or is only shown.
    #[serde(default)]
    pub mode: CheckMode,
    /// Weights of the steps in which the check runs; all steps if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightRange>,
}

/// Whether a check decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckMode {
    /// The check must pass, and rolls back if it fails.
    #[default]
    Required,
    /// The check is shown and reported, and neither holds nor rolls back.
    Advisory,
}

/// Weights of steps, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("(has(self.from) ? self.from : 0) <= (has(self.to) ? self.to : 100)").message("weights.from must not be above weights.to"))]
pub struct WeightRange {
    /// Smallest weight, in percent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub from: i32,
    /// Largest weight, in percent; 100 includes the promotion.
    #[serde(default = "full")]
    #[schemars(range(min = 0, max = 100))]
    pub to: i32,
}

const fn full() -> i32 {
    100
}

/// What counts as slow: a request that took longer than `within`, by a classic histogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.within) > duration('0s')").message("latency.within must be above 0s"))]
pub struct Latency {
    /// Longest time of a request that is not slow; the histogram must have a bucket with this bound.
    pub within: Duration,
    /// Quantile that must stay within that time, such as 0.99: a ceiling of 0.01 on the share of slow requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.5, max = 0.999_999))]
    pub quantile: Option<f64>,
    /// Selector of the histogram's buckets of one revision, such as `http_request_duration_seconds_bucket{pod_template_hash="{{revision}}"}`, without the label `le`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub buckets: Option<String>,
    /// Unit of the label `le`.
    #[serde(default)]
    pub unit: BucketUnit,
}

/// Unit of a histogram's bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BucketUnit {
    /// Seconds, as Prometheus recommends.
    #[default]
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// A number that must stay within bounds, such as a saturation or a business figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.min) || has(self.max)").message("metric: name min, max or both"),
    validation = Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max").message("metric.min must not be above metric.max"),
)]
pub struct Metric {
    /// PromQL that yields one number.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// Smallest good number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest good number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Number of windows in a row that must be out of bounds before the check fails.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 1000))]
    pub failures: i32,
}

const fn three() -> i32 {
    3
}

/// Queries that come with the controller; `docs/presets.md` lists what each needs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Preset {
    /// `http_requests_total` with the labels `namespace`, `pod_template_hash` and `code`; codes
    /// from 500 on are errors. The demo's pods and many client libraries export it.
    HttpRequestsTotal,
    /// Traefik's `traefik_service_requests_total` of this arm's Service, whether routed by
    /// HTTPRoute, IngressRoute or Ingress; 5xx is an error. gRPC is not counted.
    Traefik,
    /// Envoy's `envoy_cluster_upstream_rq_xx` of this arm's Service in Envoy Gateway, which must
    /// run with `mergeBackends`; class 5 is an error, failed connections and timeouts among them.
    EnvoyGateway,
    /// Envoy's `envoy_cluster_upstream_rq_xx` of this arm's Service in Contour; class 5 is an
    /// error, failed connections and timeouts among them.
    Contour,
    /// `istio_requests_total` to this arm's Service as gateways and client sidecars report it
    /// (`reporter="source"`); 5xx and 0 (no answer) are errors. gRPC is not counted.
    Istio,
    /// `istio_requests_total` to this arm's Service as a waypoint of Istio's ambient mode reports
    /// it; 5xx and 0 (no answer) are errors. gRPC is not counted.
    IstioWaypoint,
    /// `response_total` of the inbound proxies of this arm's pods, probes and the proxy's own
    /// port left out; what Linkerd classifies as a failure (5xx, gRPC server faults) is an error.
    Linkerd,
    /// `nginx_http_upstream_peer_responses_total` of this arm's Service in NGINX Gateway Fabric
    /// with NGINX Plus; 5xx answers of the pods are errors. Open source NGINX exports nothing by
    /// Service.
    NginxGatewayFabric,
    /// Hubble's `hubble_http_requests_total` (`httpV2`) to this arm's pods as their side reports
    /// it (`reporter="server"`); 5xx is an error.
    Cilium,
    /// `haproxy_backend_http_responses_total` of the backend that HAProxy's Kubernetes Ingress
    /// Controller makes for this arm's Service; 5xx and `other` (no valid answer) are errors.
    HAProxy,
    /// OpenTelemetry's `http.server.request.duration` as Prometheus holds it, with the labels
    /// `namespace` and `pod`; 5xx and requests that ended without a status are errors.
    OtelHttpServer,
    /// `grpc_server_handled_total` of go-grpc-middleware, with the labels `namespace` and `pod`,
    /// health checks left out; Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable
    /// and DataLoss are errors.
    GrpcServer,
    /// OpenTelemetry's `rpc.server.call.duration` as Prometheus holds it, with the labels
    /// `namespace` and `pod`, health checks left out; UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED,
    /// INTERNAL, UNAVAILABLE and DATA_LOSS are errors. gRPC only.
    OtelRpcServer,
}

impl Preset {
    /// Whether a router or the network counts the requests, and not the pods, which run the change.
    #[must_use]
    pub const fn is_beside_pods(self) -> bool {
        match self {
            Self::Traefik
            | Self::EnvoyGateway
            | Self::Contour
            | Self::Istio
            | Self::IstioWaypoint
            | Self::NginxGatewayFabric
            | Self::Cilium
            | Self::HAProxy => true,
            // Linkerd's proxies run in the pods, whose template may bring others.
            Self::Linkerd
            | Self::HttpRequestsTotal
            | Self::OtelHttpServer
            | Self::GrpcServer
            | Self::OtelRpcServer => false,
        }
    }
}
