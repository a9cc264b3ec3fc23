//! Routes as the API server stores them: which weights in them are a Rollout's own, and the JSON
//! patches that change these and nothing else.
//!
//! `rules` and `backendRefs` are atomic lists: to apply one weight would take over every neighbour's
//! rule. So each weight is patched at its place, after a test that what stands there is what was seen.

use countersign_api::HASH_LABEL;
use countersign_api::traffic::{RouteKind, Subsets, Testers};
use serde_json::{Map, Value, json};

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
    path: String,
    value: &'a Value,
    stable: Backend<'a>,
    canary: Backend<'a>,
    /// Names of the other Services that it sends to.
    pub others: Vec<&'a str>,
    /// Whether requests go to those now, so that the sum of the two weights is not free.
    shared: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Backend<'a> {
    path: String,
    value: &'a Value,
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
    match kind {
        RouteKind::VirtualService => &["http", "tls", "tcp"],
        _ => &["rules"],
    }
}

const fn backend_list(kind: RouteKind) -> &'static str {
    match kind {
        RouteKind::VirtualService => "route",
        _ => "backendRefs",
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
        // What is left out is 1 in the Gateway API, and none in Istio beside others.
        let default = i64::from(kind != RouteKind::VirtualService);
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
    match (kind, sides) {
        (
            RouteKind::VirtualService,
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
            RouteKind::VirtualService,
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
            _,
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
        (_, Sides::Subsets { .. }) => None,
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
fn is_host(host: &str, service: &str, namespace: &str) -> bool {
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
    fn weights(&self, share: i32) -> Result<(i64, i64), Problem> {
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
    fn can_mirror(&self, kind: RouteKind) -> bool {
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

fn test(path: &str, value: &Value) -> Value {
    json!({ "op": "test", "path": path, "value": value })
}

fn add(path: &str, value: &Value) -> Value {
    json!({ "op": "add", "path": path, "value": value })
}

/// The object that was seen, and none of the same name made since.
fn same(object: &RouteObject) -> Value {
    let uid = object.object.pointer("/metadata/uid");
    test("/metadata/uid", uid.unwrap_or(&Value::Null))
}

/// The patch that gives the canary this share, and a copy of `mirror` percent of the requests.
pub fn patch(
    kind: RouteKind,
    object: &RouteObject,
    rules: &[Rule],
    share: i32,
    mirror: Option<i32>,
) -> Result<Vec<Value>, Problem> {
    let mut operations = vec![same(object)];
    for rule in rules {
        let mirror = mirror.filter(|_| rule.can_mirror(kind));
        if rule.is_at(share) && rule.mirrors(kind, mirror) {
            continue;
        }
        // The whole rule, not its place alone: another may stand there by now.
        operations.push(test(&rule.path, rule.value));
        if !rule.mirrors(kind, mirror) {
            mirror_patch(kind, rule, mirror, &mut operations)?;
        }
        let (stable, canary) = rule.weights(share)?;
        for (backend, weight) in [(&rule.stable, stable), (&rule.canary, canary)] {
            operations.push(add(&format!("{}/weight", backend.path), &json!(weight)));
        }
    }
    Ok(operations)
}

/// Of how many percent of its requests the canary gets a copy.
fn mirrored(kind: RouteKind, rule: &Rule) -> Option<i32> {
    let percent = |value: Option<&Value>| {
        let percent = value.and_then(Value::as_f64).unwrap_or(100.0);
        #[allow(clippy::cast_possible_truncation)] // of 0 to 100
        let percent = percent.clamp(0.0, 100.0).round() as i32;
        percent
    };
    if kind == RouteKind::VirtualService {
        let to = rule.value.get("mirror")?;
        let canary = rule.canary.value.get("destination")?;
        let keys = ["host", "subset"];
        let own = keys.iter().all(|key| to.get(key) == canary.get(key));
        return own.then(|| percent(rule.value.pointer("/mirrorPercentage/value")));
    }
    let (_, filter) = mirror_filter(rule)?;
    Some(percent(filter.pointer("/requestMirror/percent")))
}

/// The filter that mirrors to the canary, and its place.
fn mirror_filter<'a>(rule: &Rule<'a>) -> Option<(usize, &'a Value)> {
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

fn mirror_patch(
    kind: RouteKind,
    rule: &Rule,
    mirror: Option<i32>,
    operations: &mut Vec<Value>,
) -> Result<(), Problem> {
    let path = &rule.path;
    if kind == RouteKind::VirtualService {
        let keys = ["mirror", "mirrorPercentage"];
        let Some(percent) = mirror else {
            let there = keys.iter().filter(|key| rule.value.get(**key).is_some());
            operations.extend(there.map(|key| remove(&format!("{path}/{key}"))));
            return Ok(());
        };
        if mirrored(kind, rule).is_none() && rule.value.get("mirror").is_some() {
            return Err(format!("{} mirrors to something else already", rule.label));
        }
        let destination = rule.canary.value.get("destination").cloned();
        operations.push(add(
            &format!("{path}/mirror"),
            &destination.unwrap_or_default(),
        ));
        let percent = json!({ "value": percent });
        operations.push(add(&format!("{path}/mirrorPercentage"), &percent));
        return Ok(());
    }
    if let Some((index, _)) = mirror_filter(rule) {
        let filters = rule.value.get("filters").and_then(Value::as_array);
        let alone = filters.is_some_and(|all| all.len() == 1) && mirror.is_none();
        operations.push(remove(&if alone {
            format!("{path}/filters")
        } else {
            format!("{path}/filters/{index}")
        }));
    }
    let Some(percent) = mirror else {
        return Ok(());
    };
    let keys = ["name", "port"];
    let backend: Map<_, _> = keys
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), rule.canary.value.get(key)?.clone())))
        .collect();
    let mut request_mirror = json!({ "backendRef": backend });
    // Left out it is all of them, which routers know that do not know the field.
    if let Some(map) = request_mirror.as_object_mut().filter(|_| percent < 100) {
        map.insert("percent".into(), json!(percent));
    }
    let filter = json!({ "type": "RequestMirror", "requestMirror": request_mirror });
    if rule.value.get("filters").is_some() {
        operations.push(add(&format!("{path}/filters/-"), &filter));
    } else {
        operations.push(add(&format!("{path}/filters"), &json!([filter])));
    }
    Ok(())
}

fn remove(path: &str) -> Value {
    json!({ "op": "remove", "path": path })
}

/// What the status of a route says of the route as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Every parent has accepted this generation.
    Accepted,
    /// Every parent has accepted it, but this one does not say which generation (`observedGeneration` is
    /// optional in the Gateway API).
    Undated(String),
    /// A parent has not accepted it, in a sentence.
    Pending(String),
}

/// Conditions that a parent of a route must have.
const ACCEPTANCE: [&str; 2] = ["Accepted", "ResolvedRefs"];

/// Whether the parents of a route have accepted it as it is now. Istio writes no status, so a
/// VirtualService counts as accepted once it is written.
#[must_use]
pub fn acceptance(kind: RouteKind, object: &RouteObject) -> Acceptance {
    if kind == RouteKind::VirtualService {
        return Acceptance::Accepted;
    }
    let route = &object.object;
    let array = |path: &str| {
        let array = route.pointer(path).and_then(Value::as_array);
        array.into_iter().flatten()
    };
    let mut undated = None;
    let mut references = array("/spec/parentRefs").peekable();
    if references.peek().is_none() {
        return Acceptance::Pending(
            "no Gateway takes the route: it names none (spec.parentRefs)".to_owned(),
        );
    }
    for reference in references {
        let parent = parent_name(reference);
        // Entries of parents that the route named before say nothing, and neither do those of controllers
        // that only attach something to it, such as a policy.
        let own = array("/status/parents").filter(|it| is_of(it, reference, route));
        let says = |it: &&Value| ACCEPTANCE.iter().any(|kind| condition(it, kind).is_some());
        let entries: Vec<_> = own.filter(says).collect();
        let complete = |it: &&Value| ACCEPTANCE.iter().all(|kind| condition(it, kind).is_some());
        for entry in &entries {
            match entry_acceptance(entry, &parent, route) {
                Acceptance::Accepted => {}
                Acceptance::Undated(parent) => undated = Some(parent),
                pending @ Acceptance::Pending(_) => return pending,
            }
        }
        if !entries.iter().any(complete) {
            let said = if entries.is_empty() {
                "whether it accepts the route"
            } else {
                "both Accepted and ResolvedRefs of the route"
            };
            return Acceptance::Pending(format!("{parent} has not said {said}"));
        }
    }
    undated.map_or(Acceptance::Accepted, Acceptance::Undated)
}

/// A condition of one entry of a route's status.
fn condition<'a>(entry: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = entry.get("conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|it| it.get("type").and_then(Value::as_str) == Some(kind))
}

/// What one entry of a route's status says of the route as it is now.
fn entry_acceptance(entry: &Value, parent: &str, route: &Value) -> Acceptance {
    let generation = route
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    let mut dated = true;
    for kind in ACCEPTANCE {
        let Some(found) = condition(entry, kind) else {
            continue;
        };
        let seen = found.get("observedGeneration").and_then(Value::as_i64);
        dated &= seen.is_some() || generation.is_none();
        if seen.is_some() && seen < generation {
            return Acceptance::Pending(format!(
                "{parent} has not taken it up as it is now ({kind})"
            ));
        }
        let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("status") != "True" {
            let (reason, message) = (text("reason"), text("message"));
            return Acceptance::Pending(format!(
                "{parent}: {kind} is not True: {reason}: {message}"
            ));
        }
    }
    if dated {
        Acceptance::Accepted
    } else {
        Acceptance::Undated(parent.to_owned())
    }
}

/// A parent of a route in words, such as `Gateway public`.
fn parent_name(reference: &Value) -> String {
    let text = |key: &str| reference.get(key).and_then(Value::as_str);
    let kind = text("kind").unwrap_or("Gateway");
    format!("{kind} {}", text("name").unwrap_or_default())
}

/// Whether an entry of a route's status is about this reference to a parent. What either of them leaves
/// out has the default of the Gateway API; a reference without a section or a port means all of them.
fn is_of(entry: &Value, reference: &Value, route: &Value) -> bool {
    let Some(of) = entry.get("parentRef") else {
        return false;
    };
    let namespace = route.pointer("/metadata/namespace").and_then(Value::as_str);
    let defaults = [
        ("group", Some("gateway.networking.k8s.io")),
        ("kind", Some("Gateway")),
        ("namespace", namespace),
        ("name", None),
    ];
    let same = |(key, default): &(&str, Option<&str>)| {
        let text = |it: &Value| it.get(*key).and_then(Value::as_str).map(str::to_owned);
        let default = || default.map(str::to_owned);
        text(of).or_else(default) == text(reference).or_else(default)
    };
    let part = |key: &&str| {
        let asked = reference.get(*key);
        asked.is_none() || asked == of.get(*key)
    };
    defaults.iter().all(same) && ["sectionName", "port"].iter().all(part)
}

/// The subset of a DestinationRule: its place, and the revision that it selects.
fn subset<'a>(rule: &'a Value, name: &str) -> Result<(usize, &'a Value, Option<&'a str>), Problem> {
    let subsets = rule.pointer("/spec/subsets").and_then(Value::as_array);
    let mut subsets = subsets.into_iter().flatten().enumerate();
    let found = subsets.find(|(_, it)| it.get("name").and_then(Value::as_str) == Some(name));
    let (index, subset) = found.ok_or_else(|| format!("it has no subset {name}"))?;
    let labels = subset.get("labels");
    Ok((
        index,
        subset,
        labels.and_then(|it| it.get(HASH_LABEL)?.as_str()),
    ))
}

/// The revisions that the two subsets select, stable's first.
pub fn selected<'a>(
    rule: &'a RouteObject,
    subsets: &Subsets,
) -> Result<(Option<&'a str>, Option<&'a str>), Problem> {
    let (_, _, stable) = subset(&rule.object, &subsets.stable_subset)?;
    let (_, _, canary) = subset(&rule.object, &subsets.canary_subset)?;
    Ok((stable, canary))
}

/// The patch that lets the subsets select these revisions, as far as they do not.
pub fn select(
    rule: &RouteObject,
    subsets: &Subsets,
    stable: Option<&str>,
    canary: Option<&str>,
) -> Result<Vec<Value>, Problem> {
    let mut operations = Vec::new();
    for (name, wanted) in [
        (&subsets.stable_subset, stable),
        (&subsets.canary_subset, canary),
    ] {
        let (index, seen, selected) = subset(&rule.object, name)?;
        let Some(wanted) = wanted.filter(|wanted| selected != Some(*wanted)) else {
            continue;
        };
        let path = format!("/spec/subsets/{index}");
        operations.push(test(&path, seen));
        if seen.get("labels").is_none() {
            operations.push(add(&format!("{path}/labels"), &json!({})));
        }
        operations.push(add(&format!("{path}/labels/{HASH_LABEL}"), &json!(wanted)));
    }
    if !operations.is_empty() {
        operations.insert(0, same(rule));
    }
    Ok(operations)
}

/// The patch that lets the subsets have the pods of all revisions again, and those of other controllers.
pub fn release(rule: &RouteObject, subsets: &Subsets) -> Result<Vec<Value>, Problem> {
    let mut operations = Vec::new();
    for name in [&subsets.stable_subset, &subsets.canary_subset] {
        let (index, seen, selected) = subset(&rule.object, name)?;
        if selected.is_some() {
            let path = format!("/spec/subsets/{index}");
            operations.push(test(&path, seen));
            operations
                .push(json!({ "op": "remove", "path": format!("{path}/labels/{HASH_LABEL}") }));
        }
    }
    if !operations.is_empty() {
        operations.insert(0, same(rule));
    }
    Ok(operations)
}

/// What the controller's own route for testers has in its spec: the same parents and hostnames, and
/// each rule's matches with the testers' mark, all of it to the canary. A more exact match goes first,
/// so the owner's route need not be touched. `None` where no rule can match a tester.
#[must_use]
pub fn testers(
    kind: RouteKind,
    object: &RouteObject,
    rules: &[Rule],
    testers: &Testers,
) -> Option<Value> {
    let mark = mark(kind, testers);
    let rule = |rule: &Rule| {
        let matches = rule.value.get("matches").and_then(Value::as_array);
        let mut matches = matches.cloned().unwrap_or_default();
        if matches.is_empty() {
            matches.push(json!({}));
        }
        matches.retain_mut(|it| it.as_object_mut().is_some_and(|it| is_marked(it, &mark)));
        if matches.is_empty() {
            return None;
        }
        let mut backend = rule.canary.value.clone();
        if let Some(backend) = backend.as_object_mut() {
            backend.insert("weight".into(), json!(1));
        }
        let mut own = json!({ "matches": matches, "backendRefs": [backend] });
        let mirror = mirror_filter(rule).map(|(index, _)| index);
        let filters = rule.value.get("filters").and_then(Value::as_array);
        let filters: Vec<_> = filters
            .into_iter()
            .flatten()
            .enumerate()
            .filter(|(index, _)| Some(*index) != mirror)
            .map(|(_, filter)| filter.clone())
            .collect();
        if let Some(own) = own.as_object_mut() {
            if !filters.is_empty() {
                own.insert("filters".into(), json!(filters));
            }
            for key in ["timeouts", "retry", "sessionPersistence"] {
                if let Some(value) = rule.value.get(key) {
                    own.insert(key.into(), value.clone());
                }
            }
        }
        Some(own)
    };
    let rules: Vec<_> = rules.iter().filter_map(rule).collect();
    if rules.is_empty() {
        return None; // a route without rules would match everything
    }
    let mut spec = json!({ "rules": rules });
    for key in ["parentRefs", "hostnames"] {
        if let (Some(value), Some(spec)) = (
            object.object.pointer(&format!("/spec/{key}")),
            spec.as_object_mut(),
        ) {
            spec.insert(key.into(), value.clone());
        }
    }
    Some(spec)
}

/// Adds the testers' mark to one match of a rule; `false` where the match asks for something else in one of
/// its headers, so that no tester has ever matched it. A header may stand only once in a match.
fn is_marked(one: &mut Map<String, Value>, mark: &[Value]) -> bool {
    let headers = one.entry("headers").or_insert_with(|| json!([]));
    let Some(headers) = headers.as_array_mut() else {
        return false;
    };
    let text = |header: &Value, key: &str| {
        let text = header.get(key).and_then(Value::as_str);
        text.map(str::to_owned)
    };
    let name = |header: &Value| text(header, "name").map(|name| name.to_ascii_lowercase());
    let is_exact = |header: &Value| text(header, "type").is_none_or(|kind| kind == "Exact");
    for header in mark {
        match headers.iter_mut().find(|it| name(it) == name(header)) {
            Some(own) if is_exact(own) && is_exact(header) => {
                if text(own, "value") != text(header, "value") {
                    return false;
                }
            }
            Some(own) => own.clone_from(header),
            None => headers.push(header.clone()),
        }
    }
    true
}

/// What tells testers, as matches of headers.
fn mark(kind: RouteKind, testers: &Testers) -> Vec<Value> {
    let headers = testers
        .headers
        .iter()
        .map(|header| json!({ "type": "Exact", "name": header.name, "value": header.value }));
    // gRPC has its headers in lower case.
    let name = if kind == RouteKind::GRPCRoute {
        "cookie"
    } else {
        "Cookie"
    };
    let cookie = testers.cookie.iter().map(|cookie| {
        let value = format!(r"(^|.*;\s*){}={}(;.*|$)", cookie.name, cookie.value);
        json!({ "type": "RegularExpression", "name": name, "value": value })
    });
    headers.chain(cookie).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDES: Sides = Sides::Services {
        namespace: "shop",
        stable: "web",
        canary: "web-canary",
    };

    fn by_subsets(subsets: &Subsets) -> Sides<'_> {
        Sides::Subsets {
            namespace: "shop",
            host: Some("web.shop.svc.cluster.local"),
            subsets,
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "it is made for the call")]
    fn object(spec: Value) -> RouteObject {
        RouteObject {
            object: json!({ "metadata": { "uid": "u", "generation": 3 }, "spec": spec }),
            last_writer: None,
        }
    }

    fn backend(name: &str, weight: i32) -> Value {
        json!({ "group": "", "kind": "Service", "name": name, "port": 80, "weight": weight })
    }

    /// Carries out a patch as the API server does, as far as ours go.
    fn patched(object: &RouteObject, operations: &[Value]) -> Value {
        let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
        let mut value = object.object.clone();
        json_patch::patch(&mut value, &patch).unwrap();
        value
    }

    #[test]
    fn of_a_route_with_many_rules_only_two_weights_change() {
        let mine = json!({
            "name": "main", "timeouts": { "request": "5s" },
            "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "remove": ["x"] } }],
            "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
            "backendRefs": [backend("web", 1), backend("web-canary", 0)],
        });
        let other = json!({ "backendRefs": [backend("search", 3), backend("search-canary", 1)] });
        let alone = json!({ "backendRefs": [backend("web-canary", 1)] });
        let route = object(json!({ "rules": [other, mine, alone, other, alone] }));
        let rules = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].label, "rule 2 (main)");
        assert_eq!(share(&rules), 0);
        let operations = patch(RouteKind::HTTPRoute, &route, &rules, 7, None).unwrap();
        let mut wanted = route.object.clone();
        wanted["spec"]["rules"][1]["backendRefs"][0]["weight"] = json!(93);
        wanted["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(7);
        assert_eq!(patched(&route, &operations), wanted);
    }

    #[test]
    fn a_patch_does_not_apply_to_what_has_changed_since() {
        let route = object(
            json!({ "rules": [{ "backendRefs": [backend("web", 100), backend("web-canary", 0)] }] }),
        );
        let rules = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
        let operations = patch(RouteKind::HTTPRoute, &route, &rules, 7, None).unwrap();
        let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
        for (path, value) in [
            ("/metadata/uid", json!("another")),
            ("/spec/rules/0/backendRefs/0/weight", json!(1)),
            ("/spec/rules/0/backendRefs/1/name", json!("search")),
            ("/spec/rules", json!([])),
        ] {
            let mut edited = route.object.clone();
            *edited.pointer_mut(path).unwrap() = value;
            assert!(json_patch::patch(&mut edited, &patch).is_err(), "{path}");
        }
    }

    #[test]
    fn beside_other_backends_the_sum_stays() {
        let shared = |stable, canary| {
            object(json!({ "rules": [{ "backendRefs": [
                backend("legacy", 40), backend("web", stable), backend("web-canary", canary),
            ] }] }))
        };
        let route = shared(60, 0);
        let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
        let operations = patch(RouteKind::HTTPRoute, &route, &found, 50, None).unwrap();
        let spec = patched(&route, &operations)["spec"].clone();
        assert_eq!(spec, shared(30, 30).object["spec"]);

        let route = shared(3, 0);
        let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
        let problem = patch(RouteKind::HTTPRoute, &route, &found, 5, None).unwrap_err();
        assert!(problem.contains("too few for 5%"), "{problem}");
        assert!(patch(RouteKind::HTTPRoute, &route, &found, 0, None).is_ok());
    }

    #[test]
    fn what_cannot_be_split_says_why() {
        let of = |rules_: Value, wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|it| (*it).to_owned()).collect();
            let route = object(json!({ "rules": rules_ }));
            rules(RouteKind::HTTPRoute, &route, &wanted, SIDES)
                .map(|rules| rules.len())
                .unwrap_err()
        };
        let both = json!([backend("web", 1), backend("web-canary", 0)]);
        assert!(of(json!([]), &[]).starts_with("none of its rules sends to both Service web and"));
        let foreign = json!({ "name": "web-canary", "namespace": "other", "port": 80 });
        let rule = json!([{ "backendRefs": [backend("web", 1), foreign] }]);
        assert!(of(rule, &[]).starts_with("none of its rules"));
        assert_eq!(
            of(json!([{ "backendRefs": both }]), &["a"]),
            "it has no rule named a"
        );
        let rule = json!([{ "name": "a", "backendRefs": [backend("web", 1)] }]);
        assert!(of(rule, &["a"]).starts_with("rule 1 sends to both"));
        let twice = json!([
            backend("web", 1),
            backend("web-canary", 0),
            backend("web", 1)
        ]);
        assert!(of(json!([{ "backendRefs": twice }]), &[]).contains("one side twice"));
    }

    #[test]
    fn a_share_that_is_not_quite_0_is_not_0() {
        let at = |stable, canary| {
            let route = object(
                json!({ "rules": [{ "backendRefs": [backend("web", stable), backend("web-canary", canary)] }] }),
            );
            let rules = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
            share(&rules)
        };
        assert_eq!(
            (at(100, 0), at(999, 1), at(0, 0), at(0, 5), at(1, 1)),
            (0, 1, 0, 100, 50)
        );
    }

    #[test]
    fn weights_that_no_router_takes_are_a_share_all_the_same() {
        for (stable, canary, wanted) in [
            (i64::MAX, i64::MAX, 50),
            (i64::MIN, i64::MAX, 0),
            (-1, 2, 100),
            (100, -5, 0),
        ] {
            let mut of_stable = backend("web", 0);
            of_stable["weight"] = json!(stable);
            let mut of_canary = backend("web-canary", 0);
            of_canary["weight"] = json!(canary);
            let route = object(json!({ "rules": [{ "backendRefs": [of_stable, of_canary] }] }));
            let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
            assert_eq!(share(&found), wanted, "{stable} {canary}");
            let operations = patch(RouteKind::HTTPRoute, &route, &found, 7, None).unwrap();
            let weights = patched(&route, &operations)["spec"]["rules"][0]["backendRefs"].clone();
            assert_eq!(
                weights,
                json!([backend("web", 93), backend("web-canary", 7)])
            );
        }
    }

    #[test]
    fn an_istio_host_is_a_service_by_more_and_more_of_its_domain() {
        for host in [
            "web",
            "web.shop",
            "web.shop.svc",
            "web.shop.svc.cluster.local",
        ] {
            assert!(is_host(host, "web", "shop"), "{host}");
        }
        for host in [
            "web-canary",
            "web.other",
            "web.shop.example.org",
            "web.shopping",
            "we",
        ] {
            assert!(!is_host(host, "web", "shop"), "{host}");
        }
    }

    #[test]
    fn a_virtual_service_is_split_by_hosts_or_by_subsets() {
        let to = |host: &str, subset: Option<&str>, weight: Option<i32>| {
            let mut route = json!({ "destination": { "host": host } });
            if let Some(subset) = subset {
                route["destination"]["subset"] = json!(subset);
            }
            if let Some(weight) = weight {
                route["weight"] = json!(weight);
            }
            route
        };
        let by_host = object(json!({
            "http": [{ "match": [{ "headers": {} }], "route": [to("web-canary", None, None)] },
                { "name": "main", "route": [to("web.shop.svc", None, Some(100)), to("web-canary", None, None)] }],
            "tcp": [{ "route": [to("web", None, Some(100)), to("web-canary", None, Some(0))] }],
        }));
        let rules_ = rules(RouteKind::VirtualService, &by_host, &[], SIDES).unwrap();
        assert_eq!(rules_.len(), 2);
        let operations = patch(RouteKind::VirtualService, &by_host, &rules_, 5, None).unwrap();
        let after = patched(&by_host, &operations);
        assert_eq!(
            after.pointer("/spec/http/1/route/1/weight"),
            Some(&json!(5))
        );
        assert_eq!(
            after.pointer("/spec/tcp/0/route/0/weight"),
            Some(&json!(95))
        );

        let subsets = Subsets {
            name: "web".into(),
            stable_subset: "stable".into(),
            canary_subset: "canary".into(),
        };
        let by_subset = object(json!({ "http": [{ "route": [
            to("web", Some("stable"), Some(100)), to("web", Some("canary"), Some(0)),
        ] }] }));
        let found = rules(
            RouteKind::VirtualService,
            &by_subset,
            &[],
            by_subsets(&subsets),
        );
        let found = found.unwrap();
        let operations = patch(RouteKind::VirtualService, &by_subset, &found, 5, Some(20)).unwrap();
        let after = patched(&by_subset, &operations);
        assert_eq!(
            after.pointer("/spec/http/0/mirror/subset"),
            Some(&json!("canary"))
        );
        let after = RouteObject {
            object: after,
            last_writer: None,
        };
        let found = rules(RouteKind::VirtualService, &after, &[], by_subsets(&subsets)).unwrap();
        assert!(found[0].mirrors(RouteKind::VirtualService, Some(20)) && found[0].is_at(5));
        let operations = patch(RouteKind::VirtualService, &after, &found, 0, None).unwrap();
        assert_eq!(
            patched(&after, &operations)["spec"],
            by_subset.object["spec"]
        );

        let rule = object(json!({ "host": "web", "subsets": [
            { "name": "stable", "labels": { "pod-template-hash": "a" } }, { "name": "canary" },
        ] }));
        assert_eq!(selected(&rule, &subsets), Ok((Some("a"), None)));
        let operations = select(&rule, &subsets, Some("a"), Some("b")).unwrap();
        let after = RouteObject {
            object: patched(&rule, &operations),
            last_writer: None,
        };
        assert_eq!(selected(&after, &subsets), Ok((Some("a"), Some("b"))));
        assert_eq!(select(&after, &subsets, Some("a"), Some("b")), Ok(vec![]));
    }

    #[test]
    fn a_mirror_is_a_filter_of_its_own_that_comes_and_goes() {
        let filters = json!([{ "type": "RequestHeaderModifier" }]);
        for filters in [Some(filters), None] {
            let mut rule =
                json!({ "backendRefs": [backend("web", 100), backend("web-canary", 0)] });
            if let Some(filters) = filters {
                rule["filters"] = filters;
            }
            let before = object(json!({ "rules": [rule] }));
            let found = rules(RouteKind::HTTPRoute, &before, &[], SIDES).unwrap();
            assert!(found[0].mirrors(RouteKind::HTTPRoute, None));
            let operations = patch(RouteKind::HTTPRoute, &before, &found, 0, Some(100)).unwrap();
            let after = RouteObject {
                object: patched(&before, &operations),
                last_writer: None,
            };
            let found = rules(RouteKind::HTTPRoute, &after, &[], SIDES).unwrap();
            assert!(found[0].mirrors(RouteKind::HTTPRoute, Some(100)));
            let operations = patch(RouteKind::HTTPRoute, &after, &found, 0, None).unwrap();
            assert_eq!(patched(&after, &operations), before.object);
        }
    }

    fn said(kind: &str, status: &str, generation: Option<i64>) -> Value {
        let mut condition =
            json!({ "type": kind, "status": status, "reason": "R", "message": "m" });
        if let Some(generation) = generation {
            condition["observedGeneration"] = json!(generation);
        }
        condition
    }

    /// An `HTTPRoute` with these parents, and entries of its status about parents with these conditions.
    #[allow(clippy::needless_pass_by_value, reason = "it is made for the call")]
    fn answered(references: Value, entries: Vec<(Value, Vec<Value>)>) -> Acceptance {
        let mut route = object(json!({ "parentRefs": references }));
        route.object["metadata"]["namespace"] = json!("shop");
        let entry = |(of, conditions)| json!({ "parentRef": of, "conditions": conditions });
        let entries: Vec<_> = entries.into_iter().map(entry).collect();
        route.object["status"] = json!({ "parents": entries });
        acceptance(RouteKind::HTTPRoute, &route)
    }

    fn pending(acceptance: Acceptance) -> String {
        match acceptance {
            Acceptance::Pending(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_route_is_taken_up_when_every_parent_says_so_of_this_generation() {
        let gate = json!({ "name": "gate" });
        let with = |conditions: Vec<Value>| {
            let of = json!({ "name": "gate", "namespace": "shop" });
            answered(json!([gate]), vec![(of, conditions)])
        };
        let both = |generation, resolved: &str| {
            vec![
                said("Accepted", "True", generation),
                said("ResolvedRefs", resolved, generation),
            ]
        };
        assert_eq!(with(both(Some(3), "True")), Acceptance::Accepted);
        let old = pending(with(both(Some(2), "True")));
        assert!(old.contains("Gateway gate has not taken it up"), "{old}");
        let undated = Acceptance::Undated("Gateway gate".into());
        assert_eq!(with(both(None, "True")), undated);
        for generation in [Some(3), None] {
            let refused = pending(with(both(generation, "False")));
            assert!(refused.ends_with("ResolvedRefs is not True: R: m"));
        }
        let silent = pending(answered(json!([gate]), vec![]));
        assert!(silent.contains("Gateway gate has not said"), "{silent}");
        let orphan = object(json!({}));
        pending(acceptance(RouteKind::HTTPRoute, &orphan));
        let istio = acceptance(RouteKind::VirtualService, &orphan);
        assert_eq!(istio, Acceptance::Accepted);
    }

    #[test]
    fn who_says_neither_accepted_nor_resolved_says_nothing_of_the_weights() {
        let gate = json!({ "name": "gate" });
        let both = |status: &str| {
            vec![
                said("Accepted", status, Some(3)),
                said("ResolvedRefs", "True", Some(3)),
            ]
        };
        let policy = || vec![said("example.org/PolicyAffected", "True", Some(1))];
        let of = |entries: Vec<Vec<Value>>| {
            let entries = entries.into_iter().map(|it| (gate.clone(), it));
            answered(json!([gate]), entries.collect())
        };
        assert_eq!(of(vec![both("True"), policy()]), Acceptance::Accepted);
        assert_eq!(of(vec![policy(), both("True")]), Acceptance::Accepted);
        pending(of(vec![policy()]));
        pending(of(vec![vec![]]));
        pending(of(vec![both("True"), both("False")]));
        // Half of what is needed, which another entry completes.
        let half = || vec![said("Accepted", "True", Some(3))];
        let why = pending(of(vec![half()]));
        assert!(why.contains("both Accepted and ResolvedRefs"), "{why}");
        assert_eq!(of(vec![half(), both("True")]), Acceptance::Accepted);
    }

    #[test]
    fn what_a_parent_reference_leaves_out_has_the_default_of_the_gateway_api() {
        let both = || {
            vec![
                said("Accepted", "True", Some(3)),
                said("ResolvedRefs", "True", Some(3)),
            ]
        };
        let full = json!({
            "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop", "name": "gate",
        });
        let brief = json!({ "name": "gate" });
        let section = json!({ "name": "gate", "sectionName": "https", "port": 443 });
        let mesh = json!({ "group": "", "kind": "Service", "name": "gate" });
        let accepted = |asked: &Value, of: &[&Value]| {
            let entries = of.iter().map(|of| ((*of).clone(), both())).collect();
            answered(json!([asked]), entries) == Acceptance::Accepted
        };
        assert!(accepted(&full, &[&brief]) && accepted(&brief, &[&full]));
        assert!(accepted(&brief, &[&section]) && accepted(&section, &[&section]));
        assert!(!accepted(&section, &[&brief]));
        assert!(accepted(&mesh, &[&mesh]));
        // A Gateway and a Service of one name are two parents.
        assert!(!accepted(&mesh, &[&brief]) && !accepted(&brief, &[&mesh]));
        let two = |of: Vec<(Value, Vec<Value>)>| answered(json!([brief, mesh]), of);
        let why = pending(two(vec![(brief.clone(), both())]));
        assert!(why.contains("Service gate has not said"), "{why}");
        let all = vec![(brief.clone(), both()), (mesh.clone(), both())];
        assert_eq!(two(all), Acceptance::Accepted);
    }

    #[test]
    fn testers_are_matched_more_exactly_than_the_rule_that_they_leave() {
        let route = object(json!({
            "parentRefs": [{ "name": "gate" }], "hostnames": ["shop.example"],
            "rules": [{ "matches": [{ "path": { "value": "/a" }, "headers": [{ "name": "x", "value": "1" }] }],
                "timeouts": { "request": "5s" },
                "backendRefs": [backend("web", 100), backend("web-canary", 0)] }],
        }));
        let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
        let who = Testers {
            headers: vec![],
            cookie: Some(countersign_api::traffic::CookieMatch {
                name: "beta".into(),
                value: "yes".into(),
            }),
        };
        let spec = testers(RouteKind::HTTPRoute, &route, &found, &who).unwrap();
        assert_eq!(spec["hostnames"], json!(["shop.example"]));
        assert_eq!(spec["rules"][0]["timeouts"], json!({ "request": "5s" }));
        assert_eq!(
            spec["rules"][0]["matches"][0]["headers"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        let backends = spec["rules"][0]["backendRefs"].as_array().unwrap();
        assert_eq!(backends.len(), 1);
        assert_eq!(backends[0]["name"], "web-canary");
    }

    /// Of a match's headers each may stand once, or the API server refuses the route.
    #[test]
    fn testers_are_told_by_a_header_that_the_rule_asks_for_too() {
        let header = |name: &str, value: &str| json!({ "name": name, "value": value });
        let pattern = json!({ "type": "RegularExpression", "name": "x-user", "value": "a.*" });
        let with = |matches: Value| {
            let route = object(json!({ "rules": [{
                "matches": matches, "backendRefs": [backend("web", 100), backend("web-canary", 0)],
            }] }));
            let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
            let mark = countersign_api::traffic::HeaderMatch {
                name: "X-User".into(),
                value: "anna".into(),
            };
            let who = Testers {
                headers: vec![mark],
                cookie: None,
            };
            let spec = testers(RouteKind::HTTPRoute, &route, &found, &who);
            spec.map(|spec| spec["rules"][0]["matches"].clone())
        };
        let marked = json!({ "type": "Exact", "name": "X-User", "value": "anna" });
        let same = json!([{ "headers": [header("x-user", "anna")] }]);
        assert_eq!(with(same.clone()), Some(same));
        let other = json!({ "headers": [header("x-user", "bert")] });
        assert_eq!(with(json!([other])), None);
        let one_of_two = with(json!([other, { "headers": [pattern] }]));
        assert_eq!(one_of_two, Some(json!([{ "headers": [marked] }])));
    }
}
