//! Rollouts in virtual time, as the API server would show them to a GitOps tool.

use std::collections::BTreeMap;

use countersign_api::counts::Counts;
use countersign_api::{Duration, RolloutSpec, RolloutStatus};
use countersign_core::Observation;
use countersign_core::observation::people::{NamedPolicy, ObservedIntervention};
use countersign_core::observation::windows::{AnalysisInputs, WindowOutcome};
use countersign_core::simulation::world::World;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Error rates of a canary.
pub const GOOD: f64 = 0.0;
pub const BAD: f64 = 0.3;

/// A Rollout, and every object that it was on the way.
pub struct Story {
    pub world: World,
    pub seen: Vec<Value>,
}

impl Story {
    /// A Rollout that was just created.
    pub fn new() -> Self {
        let spec = json!({
            "replicas": 20,
            "selector": { "matchLabels": { "app": "web" } },
            "template": template("v1"),
            "strategy": { "canary": { "analysis": {
                "interval": "10s", "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }],
            } } },
        });
        let spec: RolloutSpec = serde_json::from_value(spec).unwrap();
        let observation = Observation {
            uid: "uid".into(),
            generation: 1,
            annotations: provenance("v1"),
            // As the definition has it.
            status: RolloutStatus {
                observed_generation: -1,
                ..RolloutStatus::default()
            },
            analysis: AnalysisInputs {
                lag: Duration::seconds(30),
                ..AnalysisInputs::default()
            },
            concurrent_changes: Some(Ok(Vec::new())),
            ..Observation::of("shop", "web", spec)
        };
        let seen = vec![object(&observation)];
        Self {
            world: World::new(observation),
            seen,
        }
    }

    /// A Rollout whose first revision serves.
    pub fn serving() -> Self {
        let mut story = Self::new();
        story.until("Stable", GOOD, |status| status.stable.is_some());
        story
    }

    /// The object as it is.
    pub fn object(&self) -> Value {
        object(&self.world.observation)
    }

    /// Edits the spec.
    pub fn edit(&mut self, edit: impl FnOnce(&mut RolloutSpec)) {
        edit(&mut self.world.observation.spec);
        self.world.observation.generation += 1;
        self.seen.push(self.object());
    }

    /// Applies another version, with its provenance.
    pub fn apply(&mut self, version: &str) {
        self.world.observation.annotations = provenance(version);
        self.edit(|spec| spec.template.0 = template(version));
    }

    /// Has a policy demand one person before the first step.
    pub fn require_people(&mut self) {
        let tier = json!({ "signOff": [{ "count": 1 }] });
        let spec =
            json!({ "tiers": { "low": tier, "medium": tier, "high": tier, "critical": tier } });
        self.world.observation.policies = vec![NamedPolicy {
            name: "people".into(),
            generation: 1,
            spec: serde_json::from_value(spec).unwrap(),
        }];
    }

    /// Creates the Intervention that an action of Argo CD returned; the API server fills in the person.
    pub fn intervene(&mut self, intervention: &Value) {
        let mut spec = intervention["spec"].clone();
        spec["person"] = json!({ "username": "system:serviceaccount:argocd:argocd-server" });
        let created_at = self.world.observation.now;
        let interventions = &mut self.world.observation.people.interventions;
        let number = interventions.len();
        interventions.push(ObservedIntervention {
            name: format!("intervention-{number}"),
            uid: format!("uid-{number}"),
            created_at,
            version: u64::try_from(number).unwrap(),
            spec: serde_json::from_value(spec).unwrap(),
            answered: false,
        });
    }

    /// Continues with a canary of this error rate until the Rollout is in a phase, and as wanted.
    pub fn until(&mut self, phase: &str, errors: f64, wanted: impl Fn(&RolloutStatus) -> bool) {
        let Self { world, seen } = self;
        let now = world.observation.now;
        let end = now.saturating_add(SignedDuration::from_hours(48)).unwrap();
        let found = world.run(end, &mut traffic(errors), |observation| {
            let shown = object(observation);
            let found = shown["status"]["phase"] == phase && wanted(&observation.status);
            if seen.last() != Some(&shown) {
                seen.push(shown);
            }
            found
        });
        assert!(found, "{phase}: {:?}", world.observation.status);
        assert!(world.broken.is_empty(), "{:?}", world.broken);
    }
}

/// Every object of several Rollouts: promoted, rolled back, superseded, paused, waiting for people, and with a policy
/// that cannot be read.
pub fn objects() -> Vec<Value> {
    let any = |_: &RolloutStatus| true;
    let mut promoted = Story::serving();
    promoted.apply("v2");
    promoted.until("Progressing", GOOD, |status| status.weight > Some(0));
    promoted.apply("v3");
    promoted.until("Stable", GOOD, |status| status.revision == 3);

    let mut rejected = Story::serving();
    rejected.apply("v2");
    rejected.until("Degraded", BAD, any);
    rejected.apply("v1");
    rejected.until("Stable", GOOD, any);

    let mut held = Story::serving();
    held.require_people();
    held.edit(|spec| spec.paused = true);
    held.apply("v2");
    held.until("Held", GOOD, any);
    held.edit(|spec| spec.paused = false);
    held.until("AwaitingSignOff", GOOD, any);
    held.until("Degraded", GOOD, any);

    let mut stalled = Story::serving();
    stalled.world.observation.unreadable_policies = vec!["RolloutPolicy x cannot be read".into()];
    stalled.apply("v2");
    stalled.until("Held", GOOD, any);

    [promoted.seen, rejected.seen, held.seen, stalled.seen].concat()
}

fn object(observation: &Observation) -> Value {
    json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {
            "name": observation.name, "namespace": observation.namespace, "uid": observation.uid,
            "generation": observation.generation,
        },
        "spec": observation.spec,
        "status": observation.status,
    })
}

fn template(version: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "web", "image": format!("registry.example/web:{version}") }] },
    })
}

/// The provenance of a small change by a person, reviewed and tested: tier low.
fn provenance(version: &str) -> BTreeMap<String, String> {
    let revision = format!("1111111{version}");
    let declared = [
        ("revision", &*revision),
        ("approved-revision", &*revision),
        ("contributor", "human"),
        ("authors", "alice"),
        ("reviewers", "bob"),
        ("tests", "PASSED"),
        ("lines-added", "3"),
        ("lines-deleted", "1"),
        ("files-changed", "1"),
    ];
    let annotation = |(key, value): (&str, &str)| {
        (
            format!("{}{key}", countersign_api::PROVENANCE_PREFIX),
            value.to_owned(),
        )
    };
    declared.into_iter().map(annotation).collect()
}

/// 5,000 requests in each window, of which stable fails none.
fn traffic(errors: f64) -> impl FnMut(Timestamp, f64) -> WindowOutcome {
    move |_, share| {
        let arm = |share: f64, errors: f64| {
            let requests = (5_000.0 * share).round();
            Counts {
                requests,
                errors: (requests * errors).round(),
            }
        };
        WindowOutcome::Counted {
            canary: arm(share, errors),
            stable: arm(1.0 - share, 0.0),
        }
    }
}
