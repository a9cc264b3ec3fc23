//! What each parser of foreign text must hold, as one function of bytes a parser.
//!
//! The same functions are run by libFuzzer (`make fuzz`, with instrumentation) and by `tests/corpus.rs`
//! (with every `make test`, on the kept corpus). An input is text; where a parser takes several, a
//! line with `%%` alone stands between them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::prometheus::answer::Answer;
use countersign::prometheus::{Prometheus, PrometheusConfig, Request};
use countersign_api::analysis::Latency;
use countersign_api::freeze::FreezeWindow;
use countersign_api::policy::TrustedKey;
use countersign_api::template::{Argument, ArgumentType};
use countersign_api::traffic::{HeaderMatch, Subsets, Testers};
use countersign_api::{
    AnalysisTemplate, Check, Duration, Freeze, Intervention, Metric, Objective, PROVENANCE_PREFIX,
    PodTemplate, Rollout, RolloutPolicy, RolloutRun, RolloutStatus, RouteKind, SignOff,
};
use countersign_core::analysis::count::{self, ArmAnswer};
use countersign_core::analysis::query::form::{self, Arm, Form};
use countersign_core::analysis::query::{self, Queries, placeholder};
use countersign_core::analysis::series::{FirstIncrement, Span};
use countersign_core::analysis::statistics::Counts;
use countersign_core::decide;
use countersign_core::observation::Observation;
use countersign_core::observation::traffic::RouteObject;
use countersign_core::observation::windows::WindowOutcome;
use countersign_core::people::freeze;
use countersign_core::provenance::attestation::problem;
use countersign_core::provenance::{Provenance, attestation, digest};
use countersign_core::simulation::world::World;
use countersign_core::text::is_invisible;
use countersign_core::traffic::route::rule::{self, Sides};
use countersign_core::traffic::route::{patch, status, subsets, testers};
use countersign_kubectl::lint;
use countersign_kubectl::manifests::Manifests;
use countersign_kubectl::manifests::source::Source;
use countersign_kubectl::stamp::areas::Areas;
use countersign_kubectl::stamp::authorship::Authorship;
use countersign_kubectl::stamp::{git, manifest};
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use promql_parser::parser::{self, Expr};
use promql_parser::util::visitor::{ExprVisitor, walk_expr};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A parser's name, which is that of its corpus, and what must hold of it.
pub type Target = (&'static str, fn(&[u8]));

/// All parsers.
pub const TARGETS: [Target; 11] = [
    ("address", address),
    ("answer", answer),
    ("attestation", attestation),
    ("manifest", manifest),
    ("object", object),
    ("observation", observation),
    ("provenance", provenance),
    ("query", query),
    ("route", route),
    ("schedule", schedule),
    ("stamp", stamp),
];

/// A moment at which everything is looked at.
fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000)
}

/// The parts of an input; those that it lacks are empty.
fn parts<const N: usize>(data: &[u8]) -> [String; N] {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(N, "\n%%\n").map(ToOwned::to_owned);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// What people read is short, and has nothing in it that acts on a terminal or hides.
fn is_harmless(message: &str, most: usize) {
    assert!(!message.contains(is_invisible), "{message:?}");
    assert!(message.len() <= most, "{} bytes: {message}", message.len());
}

fn template() -> PodTemplate {
    let image = format!("shop/cart@sha256:{}", "a".repeat(64));
    PodTemplate(json!({ "spec": { "containers": [{ "name": "cart", "image": image }] } }))
}

/// Prometheus' address, which is the administrator's: what is taken leads to no metadata service.
pub fn address(data: &[u8]) {
    let [url] = parts(data);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = PrometheusConfig {
        url: Some(url.clone()),
        ..PrometheusConfig::default()
    };
    if Prometheus::new(&config).is_ok() {
        let parsed = reqwest::Url::parse(&url).unwrap();
        let host = parsed.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let link_local = |address| match address {
            std::net::IpAddr::V4(address) => address.is_link_local(),
            std::net::IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        assert!(!address.is_ok_and(link_local), "{url}");
        assert!(
            parsed.username().is_empty() && parsed.password().is_none(),
            "{url}"
        );
        assert!(matches!(parsed.scheme(), "http" | "https"), "{url}");
    }
}

/// Answers of Prometheus: status and kind of question, then the body.
pub fn answer(data: &[u8]) {
    let [asked, body] = parts(data);
    let (status, kind) = asked.split_once(' ').unwrap_or((&asked, ""));
    let status = status.parse().ok();
    let status = status.and_then(|status: u16| status.try_into().ok());
    let query = "up".to_owned();
    let (request, form) = if kind == "steps" {
        let (start, end, step) = (1000, 1600, 15);
        let request = Request::Steps {
            query,
            start,
            end,
            step,
        };
        (request, Form::Expression)
    } else {
        (Request::At { query, time: 1600 }, Form::Selector)
    };
    let answer = Answer::parse(body.as_bytes());
    let series = match answer.and_then(|it| it.series(status.unwrap_or_default(), &request)) {
        Ok(series) => series,
        Err(failure) => return is_harmless(&failure.message, 1200),
    };
    let query = form::Query {
        field: form::Field::Total,
        form,
        text: "up".into(),
    };
    for first_increment in [FirstIncrement::FromZero, FirstIncrement::FromFirstSample] {
        let answer = ArmAnswer {
            arm: "canary",
            query: &query,
            series: &series,
            first_increment,
        };
        for start in [900, 1000, 1585] {
            let (start, end) = (f64::from(start), f64::from(start + 15));
            for counting in [query::Counting::Failed, query::Counting::Fast] {
                match count::count(answer, answer, counting, Span { start, end }) {
                    Ok(Counts { requests, errors }) => {
                        assert!(requests >= 0.0 && errors >= 0.0 && errors <= requests);
                        assert!(requests.is_finite(), "{requests} requests");
                    }
                    Err((_, message)) => is_harmless(&message, 2000),
                }
            }
            match count::measure(answer, end) {
                Ok(value) => assert!(value.is_finite()),
                Err((_, message)) => is_harmless(&message, 2000),
            }
        }
    }
}

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

/// An envelope as anybody writes it; a payload that a trusted key has signed; a policy's key.
pub fn attestation(data: &[u8]) {
    let [envelope, payload, pem] = parts(data);
    let own = KEY.verifying_key().to_public_key_pem(LineEnding::LF);
    let key = |name: &str, public_key: String| TrustedKey {
        name: name.into(),
        public_key,
        not_after: None,
    };
    let own = key("ci", own.unwrap_or_default());
    let template = template();
    let verify = |envelope: &str, keys: Vec<TrustedKey>| {
        let read = attestation::verify(envelope, &template, None, &[keys], now());
        if let Err(problem) = &read {
            is_harmless(&problem.to_string(), 2000);
        }
        read
    };
    // No key of the world has signed what is made up.
    assert!(verify(&envelope, vec![own.clone(), key("other", pem)]).is_err());
    let kind = problem::PAYLOAD_TYPE;
    let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
    let signature = STANDARD.encode(KEY.sign(message.as_bytes()).to_bytes());
    let envelope = json!({
        "payloadType": kind,
        "payload": STANDARD.encode(&payload),
        "signatures": [{ "keyid": "ci", "sig": signature }],
    });
    if let Ok(attested) = verify(&envelope.to_string(), vec![own]) {
        let declared = annotations(&payload);
        let (both, alone) = Provenance::read_both(&declared, &attested, &template);
        [both, alone].iter().for_each(is_sound);
    }
}

/// Provenance annotations, one a line as `key=value`; a line with a blank before it goes on.
pub fn provenance(data: &[u8]) {
    let [text] = parts(data);
    let annotations = annotations(&text);
    let template = template();
    is_sound(&Provenance::read(&annotations, &template));
    let digest = digest::change_digest(&template, &annotations);
    assert_eq!(digest.len(), 64);
}

fn annotations(text: &str) -> BTreeMap<String, String> {
    let mut annotations: Vec<(String, String)> = Vec::new();
    for line in text.split('\n') {
        if let (Some(more), Some((_, value))) = (line.strip_prefix(' '), annotations.last_mut()) {
            value.extend(["\n", more]);
        } else {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            annotations.push((format!("{PROVENANCE_PREFIX}{key}"), value.to_owned()));
        }
    }
    annotations.into_iter().collect()
}

/// Whatever the annotations say, what is read of them is possible, and what is said of them harmless.
fn is_sound(read: &Provenance) {
    assert!(
        read.ai_share
            .is_none_or(|share| (0.0..=100.0).contains(&share))
    );
    for problem in &read.problems {
        is_harmless(&problem.to_string(), 1200);
    }
    let people = read.authors.iter().chain(&read.reviewers);
    for person in people.chain(&read.human_operators) {
        is_harmless(&person.to_string(), 1000);
        assert!(person.is(person) || person.keys().is_empty());
    }
    let _ = (read.review(), read.is_autonomous(), read.hidden_people());
}

/// Queries of a check (errors, then total or a template's text) with a value that a user chose.
pub fn query(data: &[u8]) {
    let [errors, total, value] = parts(data);
    let window = Duration::seconds(15);
    let own = |errors: &str, total: &str| Check {
        name: "own".into(),
        errors: Some(errors.into()),
        total: Some(total.into()),
        ..Check::default()
    };
    let check = own(&errors, &total);
    let buckets = Check {
        latency: Some(Latency {
            buckets: Some(total.clone()),
            ..Latency::default()
        }),
        ..Check::default()
    };
    let metric = Metric {
        query: total.clone(),
        ..Metric::default()
    };
    let objective = Objective {
        errors: errors.clone(),
        total: total.clone(),
        ..Objective::default()
    };
    let all = |value: &str| {
        let arm = Arm {
            namespace: value,
            service: Some(value),
            rollout: value,
            revision: value,
        };
        [
            query::render(&check, arm, window).map(both),
            query::render(&buckets, arm, window).map(both),
            query::render_metric(&check, &metric, arm, window).map(|query| vec![query]),
            query::render_objective("own", &objective, arm).map(Vec::from),
        ]
    };
    for (harmless, hostile) in all("x").into_iter().zip(all(&value)) {
        match (harmless, hostile) {
            (Ok(harmless), Ok(hostile)) => {
                for (harmless, hostile) in harmless.iter().zip(&hostile) {
                    assert_eq!(
                        shape(&harmless.text),
                        shape(&hostile.text),
                        "{}",
                        hostile.text
                    );
                    if hostile.form == Form::Selector {
                        let texts = [hostile.samples(window), hostile.growth(window)];
                        for text in &texts {
                            shape(text);
                        }
                        shape(&hostile.last_values(window));
                    }
                }
            }
            (_, Err(error)) => is_harmless(&error.to_string(), 2000),
            (Err(_), Ok(_)) => {}
        }
    }
    let filled = |kind, value: &str| {
        let argument = Argument {
            name: "a".into(),
            kind,
            ..Argument::default()
        };
        let value = placeholder::Value::read(&argument, value)?;
        let text = placeholder::with_args(&total, &[("a".to_owned(), value)].into()).ok()?;
        parses(&text).then_some(text)
    };
    // Numbers and durations stand outside of strings, where a sign belongs to the query.
    let _ = (
        filled(ArgumentType::Number, &value),
        filled(ArgumentType::Duration, &value),
    );
    let texts = ["x", &value].map(|value| filled(ArgumentType::String, value));
    if let [Some(harmless), Some(hostile)] = texts {
        assert_eq!(shape(&harmless), shape(&hostile), "{hostile}");
    }
}

fn both(queries: Queries) -> Vec<form::Query> {
    vec![queries.errors, queries.total]
}

/// The parser panics on numbers that are out of range, which the product catches.
fn parses(text: &str) -> bool {
    let simple = text.len() <= 4096 && !placeholder::is_too_complex(text);
    simple && matches!(std::panic::catch_unwind(|| parser::parse(text)), Ok(Ok(_)))
}

/// The tree of an expression, but for what is in its strings and numbers.
fn shape(text: &str) -> Vec<String> {
    struct Shape(Vec<String>);
    impl ExprVisitor for Shape {
        type Error = String;
        fn pre_visit(&mut self, expression: &Expr) -> Result<bool, String> {
            let (kind, selector) = match expression {
                Expr::VectorSelector(selector) => ("selector", Some(selector)),
                Expr::MatrixSelector(range) => ("range", Some(&range.vs)),
                Expr::Call(call) => (call.func.name, None),
                Expr::Aggregate(_) => ("aggregate", None),
                Expr::Binary(_) => ("binary", None),
                _ => ("other", None),
            };
            let matchers = selector.map(|selector| {
                let all = selector.matchers.matchers.iter();
                let all: Vec<_> = all.map(|it| format!("{}{}", it.name, it.op)).collect();
                (
                    selector.name.clone(),
                    all,
                    selector.matchers.or_matchers.len(),
                )
            });
            self.0.push(format!("{kind} {matchers:?}"));
            Ok(true)
        }
    }
    let mut shape = Shape(Vec::new());
    let walked = parser::parse(text).and_then(|tree| walk_expr(&mut shape, &tree));
    assert!(walked.is_ok(), "{text}: {walked:?}");
    shape.0
}

/// A freeze's schedule, time zone and length; the length also as a duration of its own.
pub fn schedule(data: &[u8]) {
    let [schedule, time_zone, length] = parts(data);
    let Ok(duration) = length.parse::<Duration>() else {
        return;
    };
    let again: Duration = duration.to_string().parse().unwrap_or_default();
    let millis = |it: Duration| it.std().as_millis();
    assert_eq!(millis(again), millis(duration), "{length}");
    let window = FreezeWindow {
        name: "w".into(),
        schedule,
        time_zone,
        duration,
        ..FreezeWindow::default()
    };
    for now in [now(), Timestamp::MIN, far(), Timestamp::UNIX_EPOCH] {
        if let Ok(Some(until)) = freeze::ends_at(&window, now) {
            assert!(until > now || duration == Duration::default());
        }
    }
}

/// As far from now as any time that is asked about.
fn far() -> Timestamp {
    "9000-01-01T00:00:00Z".parse().unwrap()
}

/// Manifests as they are given to the plugin: linted, and explained as far as they are sound.
pub fn manifest(data: &[u8]) {
    let [text] = parts(data);
    let source = Source {
        name: "a.yaml".into(),
        text,
    };
    for finding in lint::check(&[lint::Read::source(&source)], now()) {
        is_harmless(finding.render().trim_end_matches('\n'), 8000);
    }
    let observed = Manifests::of(&[source])
        .and_then(|manifests| manifests.observations(None, &BTreeMap::new(), now()));
    match observed {
        Ok(observed) => observed.iter().for_each(|it| is_decided(&it.observation)),
        Err(error) => is_harmless(&error.to_string(), 8000),
    }
}

/// Objects as another version may have stored them: read, and written as they were read.
pub fn object(data: &[u8]) {
    fn kept<T: Serialize + DeserializeOwned>(object: &Value) -> Option<T> {
        let read: T = serde_json::from_value(object.clone()).ok()?;
        let written = serde_json::to_value(&read).ok();
        assert!(
            written.is_some_and(|it| serde_json::from_value::<T>(it).is_ok()),
            "{object}"
        );
        Some(read)
    }
    let Ok(object) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let _ = (
        kept::<RolloutPolicy>(&object),
        kept::<AnalysisTemplate>(&object),
    );
    let _ = (
        kept::<SignOff>(&object),
        kept::<Intervention>(&object),
        kept::<Freeze>(&object),
    );
    let _ = kept::<RolloutRun>(&object);
    if let Some(rollout) = kept::<Rollout>(&object) {
        let around = countersign_core::simulation::manifest::Surroundings::default();
        let mut observation =
            countersign_core::simulation::manifest::observe(&rollout, &template(), around, now());
        is_decided(&observation);
        if let Some(status) = rollout.status {
            observation.status = status;
            is_decided(&observation);
        }
    }
}

/// The moments of some rollouts, each observation as JSON.
static MOMENTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    const EXAMPLES: [&str; 7] = [
        include_str!("../../../examples/risky-v2.yaml"),
        include_str!("../../../examples/gateway.yaml"),
        include_str!("../../../examples/istio.yaml"),
        include_str!("../../../examples/adopt.yaml"),
        include_str!("../../../examples/analysis.yaml"),
        include_str!("../../../examples/smoke.yaml"),
        include_str!("../../../examples/blue-green.yaml"),
    ];
    let mut moments = Vec::new();
    for text in EXAMPLES {
        let source = Source {
            name: "example".into(),
            text: text.into(),
        };
        let observed = Manifests::of(&[source])
            .and_then(|manifests| manifests.observations(None, &BTreeMap::new(), now()));
        for observed in observed.unwrap_or_default() {
            let mut world = World::new(observed.observation);
            let mut traffic = |_: Timestamp, share: f64| WindowOutcome::Counted {
                canary: Counts {
                    requests: 100.0 * share,
                    errors: 0.0,
                },
                stable: Counts {
                    requests: 100.0 * (1.0 - share),
                    errors: 0.0,
                },
            };
            for _ in 0..16 {
                let decision = world.look(&mut traffic);
                moments.extend(serde_json::to_value(&world.observation));
                world.carry_out(&decision, usize::MAX);
                world.observation.now += SignedDuration::from_secs(45);
            }
        }
    }
    moments
});

/// An observation that no cluster should give: which moment of which rollout, then a line for each
/// change to its JSON, as a pointer (or the number of a place in it) and the value to put there; a
/// pointer alone removes.
pub fn observation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let moment: usize = lines
        .next()
        .and_then(|it| it.trim().parse().ok())
        .unwrap_or(0);
    let Some(mut seen) = MOMENTS.get(moment % MOMENTS.len().max(1)).cloned() else {
        panic!("the examples give no rollout");
    };
    for line in lines.take(16) {
        let (place, value) = match line.split_once(' ') {
            Some((place, value)) => (place, Some(value)),
            None => (line, None),
        };
        let value = value.map(|it| serde_json::from_str(it).unwrap_or_else(|_| json!(it)));
        put(&mut seen, place, value);
    }
    if let Ok(observation) = serde_json::from_value::<Observation>(seen) {
        is_decided(&observation);
    }
}

fn put(object: &mut Value, place: &str, value: Option<Value>) {
    let pointer = match place.parse::<usize>() {
        Ok(number) => {
            let mut places = Vec::new();
            list(object, String::new(), &mut places);
            places.swap_remove(number % places.len())
        }
        Err(_) => place.to_owned(),
    };
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        return;
    };
    let key = key.replace("~1", "/").replace("~0", "~");
    match (object.pointer_mut(parent), value) {
        (Some(Value::Object(members)), Some(value)) => drop(members.insert(key, value)),
        (Some(Value::Object(members)), None) => drop(members.remove(&key)),
        (Some(Value::Array(items)), value) => match (key.parse::<usize>(), value) {
            (Ok(index), Some(value)) if index < items.len() => items[index] = value,
            (Ok(index), None) if index < items.len() => drop(items.remove(index)),
            (_, Some(value)) => items.push(value),
            _ => {}
        },
        _ => {}
    }
}

/// The pointers to everything in a value.
fn list(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            list(value, format!("{at}/{key}"), places);
        }),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, value)| list(value, format!("{at}/{index}"), places));
        }
        _ => {}
    }
    places.push(at);
}

/// Decisions follow one upon the other, and whatever is written can be read again: a status that
/// cannot would hold its Rollout for ever.
fn is_decided(observation: &Observation) {
    let mut observation = observation.clone();
    for _ in 0..3 {
        let decision = decide(&observation);
        let status = serde_json::to_value(&decision.status).unwrap_or_default();
        let read = serde_json::from_value::<RolloutStatus>(status.clone());
        assert!(read.is_ok(), "{:?}: {status}", read.err());
        let message = decision
            .status
            .conditions
            .iter()
            .map(|it| it.message.len())
            .max();
        assert!(message.unwrap_or_default() <= 32 * 1024);
        observation.status = decision.status;
        observation.now = observation
            .now
            .saturating_add(SignedDuration::from_secs(60))
            .unwrap_or(Timestamp::MAX);
    }
}

/// A route of somebody else: its kind, then the object.
pub fn route(data: &[u8]) {
    let [kind, object] = parts(data);
    let Ok(kind) = serde_json::from_value::<RouteKind>(json!(kind.trim())) else {
        return;
    };
    let Ok(object) = serde_json::from_str(&object) else {
        return;
    };
    let route = RouteObject {
        object,
        last_writer: None,
    };
    let subsets = Subsets {
        name: "web".into(),
        stable_subset: "stable".into(),
        canary_subset: "canary".into(),
    };
    let testers = Testers {
        headers: vec![HeaderMatch {
            name: "x".into(),
            value: "y".into(),
        }],
        cookie: None,
    };
    let namespace = "shop";
    let sides = [
        Sides::Services {
            namespace,
            stable: "web",
            canary: "web-canary",
        },
        Sides::Subsets {
            namespace,
            host: Some("web"),
            subsets: &subsets,
        },
    ];
    let _ = status::acceptance(kind, &route);
    for sides in sides {
        let Ok(rules) = rule::rules(kind, &route, &[], sides) else {
            continue;
        };
        let share = rule::share(&rules);
        assert!((0..=100).contains(&share), "{share}");
        let _ = testers::testers(kind, &route, &rules, &testers);
        for (share, mirror) in [(0, None), (7, Some(20)), (100, None)] {
            let Ok(operations) = patch::patch(kind, &route, &rules, share, mirror) else {
                continue;
            };
            let Some(after) = patched(&route, &operations) else {
                continue;
            };
            let Ok(rules) = rule::rules(kind, &after, &[], sides) else {
                panic!("the rules are gone: {}", after.object);
            };
            assert!(
                rules.iter().all(|rule| rule.is_at(share)),
                "{}",
                after.object
            );
        }
    }
    let _ = subsets::selected(&route, &subsets);
    for operations in [
        subsets::select(&route, &subsets, Some("a"), Some("b")),
        subsets::release(&route, &subsets),
    ] {
        if let Ok(operations) = &operations {
            patched(&route, operations);
        }
    }
}

/// The route as the API server makes it of a patch; `None` where it would refuse it.
fn patched(route: &RouteObject, operations: &[Value]) -> Option<RouteObject> {
    let patch = serde_json::from_value::<json_patch::Patch>(json!(operations));
    assert!(patch.is_ok(), "{operations:?}");
    let mut object = route.object.clone();
    json_patch::patch(&mut object, &patch.ok()?).ok()?;
    Some(RouteObject {
        object,
        last_writer: None,
    })
}

/// What git lists (`␀` for its NUL): commits, changed files; then the rules about paths, and a
/// manifest to stamp.
pub fn stamp(data: &[u8]) {
    let [log, diff, rules, text] = parts(data);
    let areas = match Areas::read(&rules) {
        Ok(areas) => areas,
        Err(problem) => {
            is_harmless(&problem.replace('\n', " "), 16 * 1024);
            Areas::read("").unwrap()
        }
    };
    if let Some(commits) = git::commits(&log.replace('␀', "\0")) {
        let authorship = Authorship::of(&commits, &areas);
        assert!(authorship.ai_share.is_none_or(|share| share <= 100));
        let people = authorship.authors.iter().chain(&authorship.operators);
        for person in people.chain(&authorship.reviewers) {
            is_harmless(person, 2000);
        }
    }
    if let Some(changes) = git::changes(&diff.replace('␀', "\0")) {
        let _ = areas.size(&changes);
    }
    let annotations = [
        (
            format!("{PROVENANCE_PREFIX}contributor"),
            "mixed".to_owned(),
        ),
        (
            format!("{PROVENANCE_PREFIX}authors"),
            "Zoë: #1 <z@example.org>".to_owned(),
        ),
    ];
    let annotations = annotations.into();
    match manifest::stamped(&text, &annotations, None) {
        Ok(stamped) => {
            let again = manifest::stamped(&stamped.text, &annotations, None);
            let again = again.map(|again| again.text);
            assert_eq!(
                again.ok().as_deref(),
                Some(&*stamped.text),
                "stamped twice: {text:?}"
            );
        }
        Err(problem) => is_harmless(&problem.to_string().replace('\n', " "), 16 * 1024),
    }
}
