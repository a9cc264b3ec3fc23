//! Sign-offs: risky changes wait for the right people, on exactly the change that these people saw;
//! harmless ones never wait.

mod admission;
mod interventions;

use std::panic::{AssertUnwindSafe, resume_unwind};

use countersign::clock;
use countersign_api::rollout::{Outcome, Transition};
use countersign_api::{Phase, Rollout, RolloutRun, Tier};
use countersign_cluster::{Load, wait_for};
use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::identity::user::{APPLY, Answer, User, assert_refused, path, until_enforced};
use crate::support::{App, Scene, TIMEOUT, condition, ended, merge, phase, risky, tier, waits_for};

const POLICY: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/sign-off.countersign.dev";
const BINDING: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/sign-off.countersign.dev";

/// A Rollout under a policy of its own, and the people around it: alice deploys it, bob and carol
/// approve, dave is on call.
pub struct Checkpoint {
    pub scene: Scene,
    pub app: App,
    pub admin: User,
    pub alice: User,
    pub bob: User,
    pub carol: User,
    pub dave: User,
    /// The fields that identify the change in progress in a decision.
    change: Value,
}

impl Checkpoint {
    pub async fn new(name: &str, policy: Value) -> Self {
        Self::at(Scene::new(name).await, policy).await
    }

    pub async fn at(scene: Scene, policy: Value) -> Self {
        until_enforced(&scene).await;
        scene.policy(policy).await;
        for (user, role) in [
            ("alice", "edit"),
            ("bob", "countersign-approver"),
            ("carol", "countersign-approver"),
            ("dave", "countersign-on-call"),
        ] {
            scene.grant(user, role).await;
        }
        Self {
            app: scene.serving(App::new("shop")).await,
            admin: User::admin(&scene),
            alice: User::known(&scene, "alice").await,
            bob: User::known(&scene, "bob").await,
            carol: User::known(&scene, "carol").await,
            dave: User::known(&scene, "dave").await,
            change: Value::Null,
            scene,
        }
    }

    /// The application with a risky change, in two steps.
    fn risky(&self, version: &str) -> App {
        let steps = json!([{ "weight": 25 }, { "weight": 50 }]);
        let spec = json!({ "strategy": { "canary": { "steps": steps } } });
        self.app.version(version).provenance(risky()).spec(spec)
    }

    /// The application with a harmless change, which bakes in its first step for longer than any test.
    pub fn baking(&self, version: &str) -> App {
        let steps = json!([{ "weight": 25, "bake": "10m" }, { "weight": 50 }]);
        let spec = json!({ "strategy": { "canary": { "steps": steps } } });
        self.app.version(version).spec(spec)
    }

    /// Alice applies it.
    async fn apply(&self, app: &App) {
        let rollout = path(
            &self.scene,
            "rollouts/shop?fieldManager=service-team&force=true",
        );
        let manifest = app.manifest();
        let applied = self.alice.send("PATCH", &rollout, APPLY, &manifest);
        applied.await.unwrap();
    }

    /// Alice applies a change, which everybody reads; returns once the API server's cache has it, with
    /// which it compares decisions.
    pub async fn deploy(&mut self, app: &App) {
        self.apply(app).await;
        let what = "another change is under way";
        let other = |change: &Value| *change != self.change;
        let rollout = self
            .scene
            .until(app, what, |rollout| {
                named(rollout).is_some_and(|it| other(&it))
            })
            .await;
        self.change = named(&rollout).unwrap();
        let poll = async || self.would_approve(&self.carol, &json!({})).await;
        let what = "the API server knows the change";
        wait_for(what, TIMEOUT, poll).await.unwrap();
    }

    /// An object for the change in progress, with these spec fields overridden.
    fn decision(&self, kind: &str, words: &Value) -> Value {
        let mut spec = self.change.clone();
        merge(&mut spec, words);
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": kind,
            "metadata": { "generateName": "shop-" }, "spec": spec,
        })
    }

    pub async fn sign(&self, user: &User, words: Value) -> Answer {
        let sign_off = self.decision("SignOff", &words);
        let sign_off = user.decision(&self.scene, sign_off).await;
        user.create(&path(&self.scene, "signoffs"), &sign_off).await
    }

    pub async fn approve(&self, user: &User, words: Value) -> Answer {
        self.sign(user, approval(&words)).await
    }

    /// The API server's dry-run response to an approval.
    async fn would_approve(&self, user: &User, words: &Value) -> Answer {
        let sign_off = self.decision("SignOff", &approval(words));
        let sign_off = user.decision(&self.scene, sign_off).await;
        let dry = path(&self.scene, "signoffs?dryRun=All");
        user.create(&dry, &sign_off).await
    }

    /// Waits until the API server would refuse a user's approval, and returns how.
    pub async fn until_refused(&self, user: &User, words: &Value) -> Answer {
        let poll = async || match self.would_approve(user, words).await {
            Ok(accepted) => Err(accepted),
            refused => Ok(refused),
        };
        let what = format!("an approval by {} is refused", user.name);
        wait_for(&what, TIMEOUT, poll).await.unwrap()
    }

    pub async fn intervene(&self, user: &User, words: Value) -> Answer {
        let intervention = self.decision("Intervention", &words);
        let intervention = user.decision(&self.scene, intervention).await;
        user.create(&path(&self.scene, "interventions"), &intervention)
            .await
    }

    /// Waits until the controller has set this reason on a sign-off or an intervention.
    pub async fn answered(&self, object: &Value, word: &str) {
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = path(&self.scene, &format!("{kind}s/{name}"));
        let poll = async || {
            let now = self.admin.get(&path).await;
            let now = now.map_err(|refusal| refusal.to_string())?;
            let answer = &now["status"]["conditions"][0];
            if answer["reason"] == word {
                Ok(answer["status"].clone())
            } else {
                Err(answer.to_string())
            }
        };
        let what = format!("{kind} {name} is answered by {word}");
        let status = wait_for(&what, TIMEOUT, poll).await.unwrap();
        assert_eq!(
            status == "True",
            matches!(word, "Counts" | "Applied"),
            "{what}"
        );
    }

    /// Waits until the change waits for this reason, and returns the message.
    pub async fn waits(&self, reason: &str) -> String {
        let what = format!("the change waits for {reason}");
        let rollout = self
            .scene
            .until(&self.app, &what, |rollout| waits_for(rollout, reason))
            .await;
        rollout.status.unwrap().message
    }

    /// Waits until the Rollout has this message.
    pub async fn until_message(&self, words: &str) -> Rollout {
        let has_message = |rollout: &Rollout| {
            let status = rollout.status.as_ref();
            status.is_some_and(|status| status.message.contains(words))
        };
        self.scene.until(&self.app, words, has_message).await
    }

    pub async fn until_degraded(&self) {
        let what = "the change is rolled back";
        let degraded = |rollout: &Rollout| phase(rollout) == Phase::Degraded;
        self.scene.until(&self.app, what, degraded).await;
    }

    /// The current step of all steps.
    pub async fn step(&self) -> String {
        let status = self.scene.get(&self.app).await.status.unwrap();
        status.step.unwrap_or_default()
    }

    pub async fn outcome(&self) -> RolloutRun {
        self.scene.outcome(&self.app).await
    }
}

/// The fields that identify the change in progress in a decision.
fn named(rollout: &Rollout) -> Option<Value> {
    let change = rollout.status.as_ref()?.change.as_ref()?;
    Some(json!({
        "rollout": rollout.metadata.name, "rolloutUid": rollout.metadata.uid,
        "run": change.run, "digest": change.digest,
    }))
}

/// An approval, with these spec fields overridden.
fn approval(words: &Value) -> Value {
    let mut spec = json!({ "decision": "Approve", "reason": "looks good" });
    merge(&mut spec, words);
    spec
}

/// The first line of a record with this reason.
pub fn line<'a>(run: &'a RolloutRun, reason: &str) -> &'a Transition {
    let lines = &run.spec.progress.transitions;
    let line = lines.iter().find(|line| line.reason == reason);
    line.unwrap_or_else(|| panic!("there is no {reason} in {lines:?}"))
}

/// A policy by which risky changes wait for so many approvers before their first step, and for these
/// people before promotion.
fn requiring(approvers: i32, promotion: &Value) -> Value {
    let first = json!([{ "count": approvers, "groups": ["approvers"] }]);
    json!({ "tiers": { "high": { "signOff": first, "promotionSignOff": promotion } } })
}

fn a_senior() -> Value {
    json!([{ "count": 1, "groups": ["senior"] }])
}

fn nobody() -> Value {
    json!([])
}

/// Waits until new objects are this many seconds younger than all before: ages are whole seconds.
async fn later(seconds: i64) {
    let until = clock::now().as_second() + seconds;
    let poll = async || (clock::now().as_second() >= until).then_some(());
    wait_for("time has passed", TIMEOUT, poll).await.unwrap();
}

#[tokio::test]
async fn a_harmless_change_passes_with_no_human() {
    let mut checkpoint = Checkpoint::new("no-human", requiring(2, &a_senior())).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 150).await;
    let next = checkpoint.app.version("v2");
    checkpoint.deploy(&next).await;

    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::Promoted));
    assert_eq!(tier(&run), Tier::Low, "{:?}", run.spec.risk);
    let lines = &run.spec.progress.transitions;
    assert!(
        lines.iter().all(|line| line.reason != "SignedOff"),
        "{lines:?}"
    );
    let signed = path(&checkpoint.scene, "signoffs");
    let signed = checkpoint.admin.get(&signed).await.unwrap();
    assert_eq!(signed["items"], json!([]));
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn the_author_cannot_approve_nor_the_one_who_applied_it() {
    let people = |aliases: Value| {
        let mut policy = requiring(2, &nobody());
        policy["people"] = json!({ "aliases": aliases });
        policy
    };
    let bob = json!({ "user": "bob", "identities": ["robert@example.org"] });
    let mut checkpoint = Checkpoint::new("author", people(json!([bob]))).await;
    let scene = &checkpoint.scene;
    scene.grant("alice", "countersign-approver").await;
    let mut provenance = risky();
    provenance["authors"] = json!("Robert <robert@example.org>");
    provenance["human-operator"] = json!("caroline@example.org");
    let next = checkpoint.risky("v2").provenance(provenance);
    checkpoint.deploy(&next).await;
    checkpoint
        .until_message("gate step-1 requires 2 people")
        .await;

    // The API server refuses the user who applied it, and its author under another name.
    for user in [&checkpoint.alice, &checkpoint.bob] {
        let words = format!("\"{}\" made, or had a hand in", user.name);
        let refused = checkpoint.approve(user, json!({})).await;
        assert_refused(&refused, &["403", &words]);
    }

    // Authorship may be found later: then the controller no longer counts the sign-off.
    let signed = checkpoint.approve(&checkpoint.carol, json!({})).await;
    let signed = signed.unwrap();
    checkpoint.answered(&signed, "Counts").await;
    checkpoint.until_message("(1 so far: carol)").await;
    let carol = json!({ "user": "carol", "identities": ["caroline@example.org"] });
    checkpoint.scene.policy(people(json!([bob, carol]))).await;
    checkpoint.answered(&signed, "ByAuthor").await;
    let message = checkpoint.waits("AwaitingSignOff").await;
    assert!(!message.contains("so far"), "{message}");
    let nothing = json!({});
    let refused = checkpoint.until_refused(&checkpoint.carol, &nothing);
    assert_refused(&refused.await, &["403", "had a hand in"]);
    assert_eq!(checkpoint.step().await, "0/2");
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn two_distinct_people_are_needed_for_a_critical_change() {
    let mut policy = requiring(2, &a_senior());
    policy["risk"] = json!({ "touchesFloor": { "auth": "critical" } });
    let mut checkpoint = Checkpoint::new("critical", policy).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 200).await;
    let next = checkpoint.risky("v2");
    checkpoint.deploy(&next).await;
    let awaited = "gate step-1 requires 2 people of approvers";
    let rollout = checkpoint.until_message(awaited).await;
    assert_eq!(phase(&rollout), Phase::AwaitingSignOff);
    let (proven, reason, _) = condition(&rollout, "SignOffsProven").unwrap();
    assert_eq!((proven, reason), ("True", "Proven"));

    let first = checkpoint.approve(&checkpoint.bob, json!({})).await;
    checkpoint.answered(&first.unwrap(), "Counts").await;
    let again = checkpoint.approve(&checkpoint.bob, json!({})).await;
    checkpoint.answered(&again.unwrap(), "SamePerson").await;
    checkpoint.until_message("(1 so far: bob)").await;
    assert_eq!(checkpoint.step().await, "0/2");

    // Bob has signed for every gate, but is not senior; carol has signed for the first one only.
    let for_step = json!({ "gate": "step-1" });
    let second = checkpoint.approve(&checkpoint.carol, for_step).await;
    checkpoint.answered(&second.unwrap(), "Counts").await;
    let awaited = "gate promotion requires 1 person of senior";
    checkpoint.until_message(awaited).await;
    assert_eq!(checkpoint.step().await, "2/2");
    let for_promotion = json!({ "gate": "promotion" });
    let third = checkpoint.approve(&checkpoint.carol, for_promotion).await;
    checkpoint.answered(&third.unwrap(), "Counts").await;

    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::Promoted));
    assert_eq!(tier(&run), Tier::Critical, "{:?}", run.spec.risk);
    let signed = run.spec.progress.transitions.iter();
    let signed = signed.filter(|line| line.reason == "SignedOff");
    let signed: Vec<_> = signed.map(|line| line.message.as_str()).collect();
    let expected = [
        "all gates signed off by bob: looks good",
        "step-1 signed off by carol: looks good",
        "promotion signed off by carol: looks good",
    ];
    assert_eq!(signed, expected);
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn an_approval_is_void_after_any_edit_of_template_or_provenance() {
    let mut checkpoint = Checkpoint::new("void", requiring(2, &nobody())).await;
    let first = checkpoint.risky("v2");
    checkpoint.deploy(&first).await;
    let signed = checkpoint.approve(&checkpoint.bob, json!({})).await;
    checkpoint.answered(&signed.unwrap(), "Counts").await;
    checkpoint.until_message("(1 so far: bob)").await;
    let seen = checkpoint.change.clone();

    // Another template: bob's is void, and he cannot sign what is no longer there.
    let second = checkpoint.risky("v3");
    checkpoint.deploy(&second).await;
    let outdated = checkpoint.approve(&checkpoint.bob, seen).await;
    assert_refused(&outdated, &["422", "check it again"]);
    let signed = checkpoint.approve(&checkpoint.carol, json!({})).await;
    checkpoint.answered(&signed.unwrap(), "Counts").await;
    checkpoint.until_message("(1 so far: carol)").await;

    // The same template with another provenance: carol's is void.
    let mut provenance = risky();
    provenance["lines-added"] = json!("381");
    let third = second.provenance(provenance);
    checkpoint.deploy(&third).await;
    let signed = checkpoint.approve(&checkpoint.bob, json!({})).await;
    checkpoint.answered(&signed.unwrap(), "Counts").await;
    checkpoint.until_message("(1 so far: bob)").await;
    assert_eq!(checkpoint.step().await, "0/2");

    let signed = checkpoint.approve(&checkpoint.carol, json!({})).await;
    checkpoint.answered(&signed.unwrap(), "Counts").await;
    let what = "both have signed this very change";
    let begun = |rollout: &Rollout| {
        let change = rollout
            .status
            .as_ref()
            .and_then(|status| status.change.as_ref());
        change.is_some_and(|change| change.step == 1)
    };
    checkpoint.scene.until(&third, what, begun).await;
    let runs = checkpoint.scene.records(&third).await;
    assert!(ended(&runs[1], Outcome::Superseded) && ended(&runs[2], Outcome::Superseded));
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn an_expired_sign_off_counts_no_more() {
    let mut checkpoint = Checkpoint::new("expired", requiring(2, &nobody())).await;
    let next = checkpoint.risky("v2");
    checkpoint.deploy(&next).await;
    let end = Timestamp::from_second(clock::now().as_second() + 10).unwrap();
    let until = json!({ "expiresAt": end.to_string() });
    let signed = checkpoint.approve(&checkpoint.bob, until).await.unwrap();
    checkpoint.answered(&signed, "Counts").await;
    let poll = async || (clock::now() >= end).then_some(());
    wait_for("it has expired", TIMEOUT, poll).await.unwrap();

    let second = checkpoint.approve(&checkpoint.carol, json!({})).await;
    checkpoint.answered(&second.unwrap(), "Counts").await;
    checkpoint.answered(&signed, "Expired").await;
    checkpoint.until_message("(1 so far: carol)").await;
    assert_eq!(checkpoint.step().await, "0/2");
    checkpoint.scene.remove_policy().await;
}

/// A risky change that bob has approved to start, and that waits for a senior person before promotion.
async fn before_promotion(name: &str) -> (Checkpoint, Load) {
    let mut checkpoint = Checkpoint::new(name, requiring(1, &a_senior())).await;
    let load = checkpoint.scene.load(&checkpoint.app, 200).await;
    let next = checkpoint.risky("v2");
    checkpoint.deploy(&next).await;
    let signed = checkpoint.approve(&checkpoint.bob, json!({})).await;
    checkpoint.answered(&signed.unwrap(), "Counts").await;
    let awaited = "gate promotion requires 1 person of senior";
    checkpoint.until_message(awaited).await;
    (checkpoint, load)
}

#[tokio::test]
async fn a_rejection_rolls_back() {
    let (checkpoint, _load) = before_promotion("rejected").await;
    let no = json!({ "decision": "Reject", "reason": "it breaks refunds" });
    let rejected = checkpoint.sign(&checkpoint.carol, no).await;
    checkpoint.answered(&rejected.unwrap(), "Counts").await;
    checkpoint.until_degraded().await;

    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::RolledBack));
    let message = &line(&run, "Rejected").message;
    assert_eq!(message, "rejected by carol: it breaks refunds");
    let scene = &checkpoint.scene;
    assert_eq!(scene.events(&checkpoint.app, "Rejected").await.len(), 1);
    assert_eq!(scene.pods(&run.spec.pod_template_hash).await, 0);
    scene.remove_policy().await;
}

#[tokio::test]
async fn an_author_may_reject_what_they_may_not_approve() {
    let mut checkpoint = Checkpoint::new("author-rejects", requiring(1, &nobody())).await;
    let scene = &checkpoint.scene;
    for role in ["countersign-approver", "countersign-on-call"] {
        scene.grant("alice", role).await;
    }
    let next = checkpoint.risky("v2");
    checkpoint.deploy(&next).await;
    checkpoint
        .until_message("gate step-1 requires 1 person")
        .await;
    for decision in ["Approve", "BreakGlass"] {
        let words = json!({ "decision": decision });
        let refused = checkpoint.until_refused(&checkpoint.alice, &words);
        assert_refused(&refused.await, &["403", "had a hand in"]);
    }

    let no = json!({ "decision": "Reject", "reason": "I found a fault in it" });
    let rejected = checkpoint.sign(&checkpoint.alice, no).await;
    checkpoint.answered(&rejected.unwrap(), "Counts").await;
    checkpoint.until_degraded().await;
    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::RolledBack));
    let message = &line(&run, "Rejected").message;
    assert_eq!(message, "rejected by alice: I found a fault in it");
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn the_record_holds_what_the_approver_saw() {
    let (checkpoint, _load) = before_promotion("evidence").await;
    let signed = json!({ "gate": "promotion" });
    let signed = checkpoint.approve(&checkpoint.carol, signed).await;
    checkpoint.answered(&signed.unwrap(), "Counts").await;

    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::Promoted));
    let lines = run.spec.progress.transitions.iter();
    let signed: Vec<_> = lines.filter(|line| line.reason == "SignedOff").collect();
    assert!(
        signed[0].evidence.is_empty(),
        "nothing was served yet when bob signed: {signed:?}"
    );
    let saw = &signed[1].evidence[0];
    assert!(saw.canary.requests >= 40.0, "two steps of 20: {saw:?}");
    assert!(saw.stable.requests > 0.0, "{saw:?}");
    assert!(saw.log10_within_margin > 0.0, "{saw:?}");
    checkpoint.scene.remove_policy().await;
}

/// The canary passes its step without requests, which its tier accepts; then it gets requests.
#[tokio::test]
async fn a_bad_canary_is_rolled_back_while_people_are_waited_for() {
    let promotion = json!([{ "count": 1, "groups": ["approvers"] }]);
    let policy = json!({ "tiers": { "low": { "promotionSignOff": promotion } } });
    let mut checkpoint = Checkpoint::new("bad-canary", policy).await;
    // As expressions they give 0 where there is no series, which counts as no requests.
    let requests = |code: &str| {
        let revision = r#"namespace="{{namespace}}",pod_template_hash="{{revision}}""#;
        format!(
            "sum(increase(http_requests_total{{{revision}{code}}}[{{{{window}}}}])) or vector(0)"
        )
    };
    let check = json!({
        "name": "errors", "errors": requests(r#",code="500""#), "total": requests(""), "dispersion": 1,
    });
    let bad = checkpoint.app.version("v2").failing(0.4).spec(json!({
        "progressDeadlineSeconds": 12,
        "strategy": { "canary": {
            "steps": [{ "weight": 50 }], "analysis": { "interval": "4s", "checks": [check] },
        } },
    }));
    checkpoint.deploy(&bad).await;
    let awaited = checkpoint.waits("AwaitingSignOff").await;
    assert!(awaited.contains("gate promotion requires"), "{awaited}");

    let _load = checkpoint.scene.load(&bad, 200).await;
    checkpoint.until_degraded().await;
    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::RolledBack));
    line(&run, "AnalysisFailed");
    checkpoint.scene.remove_policy().await;
}
