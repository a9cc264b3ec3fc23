//! The rules of a route, and the backends in them that belong to a Rollout.

use countersign_api::traffic::{RouteKind, Router, Subsets};
use serde_json::Value;

use crate::observation::traffic::RouteObject;

/// How the two sides of a split are distinguished.
#[derive(Clone, Copy, Debug)]
pub enum Sides<'a> {
    /// Two Services of the Rollout's namespace.
    Services {
        /// The namespace.
        namespace: &'a str,
        /// Service of the stable revision.
        stable: &'a str,
        /// Service of the canary.
        canary: &'a str,
    },
    /// Two subsets of one Istio host.
    Subsets {
        /// The Rollout's namespace.
        namespace: &'a str,
        /// The host of their DestinationRule; `None` matches any host.
        host: Option<&'a str>,
        /// Their names.
        subsets: &'a Subsets,
    },
}

impl Sides<'_> {
    /// The names of the two sides for messages.
    fn names(&self) -> (String, String) {
        match self {
            Self::Services { stable, canary, .. } => {
                (format!("Service {stable}"), format!("Service {canary}"))
            }
            Self::Subsets { subsets, .. } => (
                format!("subset {}", subsets.stable_subset),
                format!("subset {}", subsets.canary_subset),
            ),
        }
    }
}

/// Largest weight that a route can have, for either side; larger ones are rejected.
const MOST_WEIGHT: i64 = i32::MAX as i64;

/// A rule with backends of both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule<'a> {
    /// The name of the rule for messages, such as `rule 2 (checkout)`.
    pub label: String,
    pub(super) path: String,
    pub(super) value: &'a Value,
    pub(super) stable: Backend<'a>,
    pub(super) canary: Backend<'a>,
    /// Names of its other Services.
    pub others: Vec<&'a str>,
    /// Whether the other Services have a weight, so that the sum of the two weights is fixed.
    shared: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Backend<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
    weight: i64,
}

/// Why a route cannot be split, in a sentence without its name.
pub type Problem = String;

/// The rules of a route whose weights belong to the Rollout: the named ones, or else all with backends of
/// both sides. At least one.
pub fn rules<'a>(
    kind: RouteKind,
    object: &'a RouteObject,
    wanted: &[String],
    sides: Sides,
) -> Result<Vec<Rule<'a>>, Problem> {
    let mut rules = Vec::new();
    let mut found = Vec::new();
    for list in rule_lists(kind) {
        let all = object.object.pointer(&format!("/spec/{list}"));
        let all = all.and_then(Value::as_array).into_iter().flatten();
        for (index, rule) in all.enumerate() {
            let name = rule.get("name").and_then(Value::as_str);
            let named = name.is_some_and(|name| wanted.iter().any(|it| it == name));
            if !wanted.is_empty() && !named {
                continue;
            }
            found.extend(name);
            let path = format!("/spec/{list}/{index}");
            let label = match name {
                Some(name) => format!("rule {} ({name})", index + 1),
                None => format!("rule {}", index + 1),
            };
            match split(kind, &path, rule, label, sides)? {
                Some(rule) => rules.push(rule),
                None if named => return Err(lacks(&format!("rule {}", index + 1), sides)),
                None => {}
            }
        }
    }
    if let Some(missing) = wanted.iter().find(|name| !found.contains(&name.as_str())) {
        return Err(format!("it has no rule named {missing}"));
    }
    if rules.is_empty() {
        return Err(lacks("none of its rules", sides));
    }
    Ok(rules)
}

fn lacks(which: &str, sides: Sides) -> Problem {
    let (stable, canary) = sides.names();
    format!(
        "{which} sends to both {stable} and {canary}: name both in one rule, the second with weight 0"
    )
}

/// The paths of the rule lists of a kind.
const fn rule_lists(kind: RouteKind) -> &'static [&'static str] {
    match kind.router() {
        Router::Istio => &["http", "tls", "tcp"],
        Router::GatewayApi => &["rules"],
    }
}

const fn backend_list(kind: RouteKind) -> &'static str {
    match kind.router() {
        Router::Istio => "route",
        Router::GatewayApi => "backendRefs",
    }
}

/// A rule with its backends of both sides; `None` if it has not both.
fn split<'a>(
    kind: RouteKind,
    path: &str,
    rule: &'a Value,
    label: String,
    sides: Sides,
) -> Result<Option<Rule<'a>>, Problem> {
    let list = backend_list(kind);
    let backends = rule.get(list).and_then(Value::as_array);
    let (mut stable, mut canary, mut others, mut shared) = (None, None, Vec::new(), false);
    for (index, value) in backends.into_iter().flatten().enumerate() {
        // The weight of a backend without a weight beside others.
        let default = match kind.router() {
            Router::GatewayApi => 1,
            Router::Istio => 0,
        };
        let backend = Backend {
            path: format!("{path}/{list}/{index}"),
            value,
            // The API server accepts at most 32 bits, so that sums cannot overflow.
            weight: value
                .get("weight")
                .and_then(Value::as_i64)
                .map_or(default, |weight| weight.clamp(-MOST_WEIGHT, MOST_WEIGHT)),
        };
        let side = match side(kind, value, sides) {
            Some(Side::Stable) => &mut stable,
            Some(Side::Canary) => &mut canary,
            None => {
                shared |= backend.weight > 0;
                let host = || {
                    value
                        .pointer("/destination/host")?
                        .as_str()?
                        .split('.')
                        .next()
                };
                others.extend(value.get("name").and_then(Value::as_str).or_else(host));
                continue;
            }
        };
        if side.replace(backend).is_some() {
            return Err(format!(
                "{label} sends to one side twice: which of the weights counts is unknown"
            ));
        }
    }
    Ok(stable.zip(canary).map(|(stable, canary)| Rule {
        label,
        path: path.to_owned(),
        value: rule,
        stable,
        canary,
        others,
        shared,
    }))
}

enum Side {
    Stable,
    Canary,
}

fn side(kind: RouteKind, backend: &Value, sides: Sides) -> Option<Side> {
    let text = |key: &str| backend.get(key).and_then(Value::as_str);
    let pick = |is: &dyn Fn(&str) -> bool, stable: &str, canary: &str| {
        if is(stable) {
            Some(Side::Stable)
        } else {
            is(canary).then_some(Side::Canary)
        }
    };
    match (kind.router(), sides) {
        (
            Router::Istio,
            Sides::Services {
                namespace,
                stable,
                canary,
            },
        ) => {
            let host = backend.pointer("/destination/host")?.as_str()?;
            backend
                .pointer("/destination/subset")
                .is_none()
                .then_some(())?;
            pick(&|service| is_host(host, service, namespace), stable, canary)
        }
        (
            Router::Istio,
            Sides::Subsets {
                namespace,
                host,
                subsets,
            },
        ) => {
            let to = backend.pointer("/destination/host")?.as_str()?;
            let own = |host: &str| full_host(host, namespace) == full_host(to, namespace);
            host.is_none_or(own).then_some(())?;
            let subset = backend.pointer("/destination/subset")?.as_str()?;
            pick(
                &|it| it == subset,
                &subsets.stable_subset,
                &subsets.canary_subset,
            )
        }
        (
            Router::GatewayApi,
            Sides::Services {
                namespace,
                stable,
                canary,
            },
        ) => {
            let core = text("group").is_none_or(str::is_empty);
            let service = text("kind").is_none_or(|kind| kind == "Service");
            let own = text("namespace").is_none_or(|it| it == namespace);
            let name = text("name").filter(|_| core && service && own)?;
            pick(&|service| service == name, stable, canary)
        }
        (Router::GatewayApi, Sides::Subsets { .. }) => None,
    }
}

/// A host with its namespace but without the cluster domain, so that two forms of one host are equal.
fn full_host(host: &str, namespace: &str) -> String {
    match host.split_once(".svc") {
        Some((name, rest)) if rest.is_empty() || rest.starts_with('.') => name.to_owned(),
        _ if host.contains('.') => host.to_owned(),
        _ => format!("{host}.{namespace}"),
    }
}

/// Whether an Istio host is a Service: its short name, or any longer form of it.
pub(super) fn is_host(host: &str, service: &str, namespace: &str) -> bool {
    let Some(rest) = host.strip_prefix(service) else {
        return false;
    };
    let domain = format!(".{namespace}");
    let rest = if rest.is_empty() {
        return true;
    } else {
        rest.strip_prefix(&domain)
    };
    rest.is_some_and(|rest| rest.is_empty() || rest == ".svc" || rest.starts_with(".svc."))
}

impl Rule<'_> {
    /// The canary's share of the requests to both sides, in percent, rounded up: a share above 0 is never
    /// reported as 0.
    #[must_use]
    pub fn share(&self) -> i32 {
        let total = self.stable.weight + self.canary.weight;
        if total <= 0 {
            return 0;
        }
        // A negative weight, which no router accepts, would give a share above 100.
        let share = (self.canary.weight * 100 + total - 1) / total;
        i32::try_from(share.clamp(0, 100)).unwrap_or(100)
    }

    /// The two weights for a share. They add up to 100, or to their present sum if other backends have a
    /// weight, so that the share of these does not change.
    pub(super) fn weights(&self, share: i32) -> Result<(i64, i64), Problem> {
        let sum = if self.shared {
            self.stable.weight + self.canary.weight
        } else {
            100
        };
        let canary = sum * i64::from(share) / 100;
        if canary == 0 && share > 0 {
            return Err(format!(
                "{}: the weights of the two sides are {sum} together beside others, too few for {share}%: multiply all of them",
                self.label
            ));
        }
        Ok((sum - canary, canary))
    }

    /// Whether the rule has exactly the weights for a share.
    #[must_use]
    pub fn is_at(&self, share: i32) -> bool {
        self.weights(share)
            .is_ok_and(|wanted| wanted == (self.stable.weight, self.canary.weight))
    }

    /// Whether the rule mirrors the desired percentage of its requests to the canary.
    #[must_use]
    pub fn mirrors(&self, kind: RouteKind, wanted: Option<i32>) -> bool {
        mirrored(kind, self) == wanted.filter(|_| self.can_mirror(kind))
    }

    /// Whether a rule of this kind can mirror requests.
    pub(super) fn can_mirror(&self, kind: RouteKind) -> bool {
        match kind {
            RouteKind::HTTPRoute | RouteKind::GRPCRoute => true,
            RouteKind::VirtualService => self.path.starts_with("/spec/http/"),
            RouteKind::TLSRoute | RouteKind::TCPRoute => false,
        }
    }
}

/// The largest share of the canary in any of the rules.
#[must_use]
pub fn share(rules: &[Rule]) -> i32 {
    rules.iter().map(Rule::share).max().unwrap_or(0)
}

/// The percentage of requests that is mirrored to the canary.
pub(super) fn mirrored(kind: RouteKind, rule: &Rule) -> Option<i32> {
    let percent = |value: Option<&Value>| {
        let percent = value.and_then(Value::as_f64).unwrap_or(100.0);
        #[allow(clippy::cast_possible_truncation)] // in the range 0 to 100
        let percent = percent.clamp(0.0, 100.0).round() as i32;
        percent
    };
    match kind.router() {
        Router::Istio => {
            let to = rule.value.get("mirror")?;
            let canary = rule.canary.value.get("destination")?;
            let keys = ["host", "subset"];
            let own = keys.iter().all(|key| to.get(key) == canary.get(key));
            own.then(|| percent(rule.value.pointer("/mirrorPercentage/value")))
        }
        Router::GatewayApi => {
            let (_, filter) = mirror_filter(rule)?;
            Some(percent(filter.pointer("/requestMirror/percent")))
        }
    }
}

/// The filter that mirrors to the canary, and its index.
pub(super) fn mirror_filter<'a>(rule: &Rule<'a>) -> Option<(usize, &'a Value)> {
    let filters = rule.value.get("filters")?.as_array()?;
    let canary = rule.canary.value.get("name")?;
    let mirrors = |filter: &Value| {
        let to = filter.pointer("/requestMirror/backendRef");
        to.is_some_and(|to| to.get("name") == Some(canary) && to.get("namespace").is_none())
    };
    filters
        .iter()
        .enumerate()
        .find(|(_, filter)| mirrors(filter))
}
