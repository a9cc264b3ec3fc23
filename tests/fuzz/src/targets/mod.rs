//! What each parser of foreign text must hold, as one function of bytes a parser.
//!
//! The same functions are run by libFuzzer (`make fuzz`, with instrumentation) and by `tests/corpus.rs`
//! (with every `make test`, on the kept corpus). An input is text; where a parser takes several, a
//! line with `%%` alone stands between them.

mod metrics;
mod objects;
mod observations;
mod origin;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::prometheus::answer::Answer;
use countersign::prometheus::{Prometheus, PrometheusConfig, Request};
use countersign_api::analysis::Latency;
use countersign_api::freeze::FreezeWindow;
use countersign_api::provenance::{Covers, TrustedKey};
use countersign_api::rollout::{CanaryStrategy, Revision};
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
use countersign_core::policy::{self, Effective};
use countersign_core::provenance::attestation::problem;
use countersign_core::provenance::attestation::proof::Subject;
use countersign_core::provenance::{Provenance, attestation, digest};
use countersign_core::simulation::world::World;
use countersign_core::text::is_invisible;
use countersign_core::traffic::route::rule::{self, Sides};
use countersign_core::traffic::route::{patch, status, subsets, testers};
use countersign_kubectl::manifests::Manifests;
use countersign_kubectl::manifests::source::Source;
use countersign_kubectl::stamp::areas::Areas;
use countersign_kubectl::stamp::authorship::Authorship;
use countersign_kubectl::stamp::forge::Forge;
use countersign_kubectl::stamp::{git, manifest};
use countersign_kubectl::{convert, lint};
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use promql_parser::parser::{self, Expr};
use promql_parser::util::visitor::{ExprVisitor, walk_expr};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use metrics::*;
pub use objects::*;
pub use observations::*;
pub use origin::*;

/// A parser's name, which is that of its corpus, and what must hold of it.
pub type Target = (&'static str, fn(&[u8]));

/// All parsers.
pub const TARGETS: [Target; 12] = [
    ("address", address),
    ("answer", answer),
    ("attestation", attestation),
    ("event", event),
    ("manifest", manifest),
    ("object", object),
    ("observation", observation),
    ("provenance", provenance),
    ("query", query),
    ("route", route),
    ("schedule", schedule),
    ("stamp", stamp),
];

/// A moment at which everything is observed.
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

/// Decisions follow one upon the other, and whatever is written can be read again: a status that
/// cannot would hold its Rollout forever.
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
