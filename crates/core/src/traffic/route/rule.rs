//! The rules of a route, and the places in them that are a Rollout's own.

use countersign_api::traffic::{RouteKind, Router, Subsets};
use serde_json::Value;

use crate::observation::traffic::RouteObject;

/// What tells the two sides of a split apart.
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
        /// The host of their DestinationRule; any, where it is not known.
        host: Option<&'a str>,
        /// Their names.
        subsets: &'a Subsets,
    },
}

impl Sides<'_> {
    /// The two sides in words.
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

/// Largest weight that a route can have, in either direction.
const MOST_WEIGHT: i64 = i32::MAX as i64;

/// A rule that sends to both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule<'a> {
    /// How people find it, such as `rule 2 (checkout)`.
    pub label: String,
    pub(super) path: String,
    pub(super) value: &'a Value,
    pub(super) stable: Backend<'a>,
    pub(super) canary: Backend<'a>,
    /// Names of the other Services that it sends to.
    pub others: Vec<&'a str>,
    /// Whether requests go to those now, so that the sum of the two weights is not free.
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

/// The rules of a route whose weights are the Rollout's: those that are named, or else all that send to
/// both sides. At least one there is.
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

/// Where the rules of a kind are.
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

/// A rule as far as it sends to both sides; `None` for one that does not.
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
        // The weight of a backend that names none, beside others.
        let default = match kind.router() {
            Router::GatewayApi => 1,
            Router::Istio => 0,
        };
        let backend = Backend {
            path: format!("{path}/{list}/{index}"),
            value,
            // No API server takes more than 32 bits, and sums of less cannot overflow.
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
                "{label} sends to one side twice: which of the weights counts cannot be told"
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

/// A host with its namespace and nothing more of its domain, by which two forms of one are the same.
fn full_host(host: &str, namespace: &str) -> String {
    match host.split_once(".svc") {
        Some((name, rest)) if rest.is_empty() || rest.starts_with('.') => name.to_owned(),
        _ if host.contains('.') => host.to_owned(),
        _ => format!("{host}.{namespace}"),
    }
}

/// Whether an Istio host is a Service: its name alone, or with more and more of its domain.
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
    /// Share of the rule's requests to both sides that go to the canary, in percent, rounded up: a
    /// share that is not quite 0 is not 0.
    #[must_use]
    pub fn share(&self) -> i32 {
        let total = self.stable.weight + self.canary.weight;
        if total <= 0 {
            return 0;
        }
        // A negative weight, which no router takes, would be a share beyond all.
        let share = (self.canary.weight * 100 + total - 1) / total;
        i32::try_from(share.clamp(0, 100)).unwrap_or(100)
    }

    /// The two weights for a share. Both together are 100; where other backends have a weight beside
    /// them, they stay what they are together, so that nobody else gets more or less.
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

    /// Whether it has exactly the weights for a share.
    #[must_use]
    pub fn is_at(&self, share: i32) -> bool {
        self.weights(share)
            .is_ok_and(|wanted| wanted == (self.stable.weight, self.canary.weight))
    }

    /// Whether a copy of its requests goes to the canary as wanted, in percent.
    #[must_use]
    pub fn mirrors(&self, kind: RouteKind, wanted: Option<i32>) -> bool {
        mirrored(kind, self) == wanted.filter(|_| self.can_mirror(kind))
    }

    /// Whether a rule of its kind can copy requests at all.
    pub(super) fn can_mirror(&self, kind: RouteKind) -> bool {
        match kind {
            RouteKind::HTTPRoute | RouteKind::GRPCRoute => true,
            RouteKind::VirtualService => self.path.starts_with("/spec/http/"),
            RouteKind::TLSRoute | RouteKind::TCPRoute => false,
        }
    }
}

/// The share that requests of the rules of a route have at most.
#[must_use]
pub fn share(rules: &[Rule]) -> i32 {
    rules.iter().map(Rule::share).max().unwrap_or(0)
}

/// Of how many percent of its requests the canary gets a copy.
pub(super) fn mirrored(kind: RouteKind, rule: &Rule) -> Option<i32> {
    let percent = |value: Option<&Value>| {
        let percent = value.and_then(Value::as_f64).unwrap_or(100.0);
        #[allow(clippy::cast_possible_truncation)] // of 0 to 100
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

/// The filter that mirrors to the canary, and its place.
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
