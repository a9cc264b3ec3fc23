use std::sync::Arc;

use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::Event;
use serde_json::Value;

use super::*;
use crate::act::events::Recorder;
use crate::lease::Lease;
use crate::stand_in::{Fault, RecordedRequest, StandIn};
use crate::telemetry::Telemetry;
use crate::watch::{Cache, Claim, Gap, WatchedFreeze, WatchedPolicy, WatchedTemplate, Written};

const ROOT: &str = "/apis/countersign.dev/v1alpha1";
const TEMPLATES: &str = "namespaces/shop/analysistemplates";
const OF_BANK: &str = "namespaces/bank/analysistemplates";

/// A leader without watches, and its API server.
struct Scene {
    server: StandIn,
    actor: Actor,
    caches: Caches,
    claims: Writer<Claim>,
    policies: Writer<WatchedPolicy>,
    freezes: Writer<WatchedFreeze>,
    templates: Writer<WatchedTemplate>,
    of_policies: Statuses<RolloutPolicyStatus>,
    of_freezes: Statuses<FreezeStatus>,
    of_templates: Statuses<AnalysisTemplateStatus>,
}

impl Scene {
    fn new() -> Self {
        let server = StandIn::new();
        let client = server.client();
        let lease = Arc::new(Lease::held(client.clone()));
        let telemetry = Arc::new(Telemetry::new());
        let (recorder, _) =
            Recorder::start(client.clone(), "test", lease.clone(), telemetry.clone());
        let (claims_store, claims) = reflector::store();
        let (policies_store, policies) = reflector::store();
        let (freezes_store, freezes) = reflector::store();
        let (templates_store, templates) = reflector::store();
        let (namespaces, mut namespace) = reflector::store();
        for (name, team) in [("shop", "a"), ("bank", "b")] {
            let object = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": name, "labels": { "team": team } },
            });
            let object = serde_json::from_value(object).unwrap();
            namespace.apply_watcher_event(&Event::Apply(object));
        }
        Self {
            server,
            actor: Actor {
                client,
                lease,
                telemetry,
                recorder,
                written: Written::default(),
            },
            caches: Caches {
                claims: claims_store,
                written: Written::default(),
                sign_offs: Cache::opened(),
                interventions: Cache::opened(),
                endpoints: Cache::opened(),
                freezes_gap: Gap::default(),
                policies: policies_store,
                freezes: freezes_store,
                templates: templates_store,
                template_specs: Cache::opened(),
                namespaces,
                gaps: Default::default(),
            },
            claims,
            policies,
            freezes,
            templates,
            of_policies: Statuses::of::<RolloutPolicy>("rolloutpolicies/status"),
            of_freezes: Statuses::of::<Freeze>("freezes/status"),
            of_templates: Statuses::of::<AnalysisTemplate>("analysistemplates/status"),
        }
    }

    /// Creates or edits an object, which the watch reports.
    fn put(&mut self, plural: &str, kind: &str, generation: i64, spec: &Value) {
        let path = format!("{ROOT}/{plural}/one");
        let mut object = self.server.get(&path).unwrap_or_else(|| {
            json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": kind,
                "metadata": { "name": "one", "namespace": plural.split('/').nth(1) },
            })
        });
        object["metadata"]["generation"] = generation.into();
        object["spec"] = spec.clone();
        self.server.put(&path, object);
        self.watch();
    }

    /// Brings the caches up to date.
    fn watch(&mut self) {
        let get = |plural: &str| self.server.get(&format!("{ROOT}/{plural}/one"));
        if let Some(policy) = get("rolloutpolicies") {
            let policy = serde_json::from_value(policy).unwrap();
            self.policies.apply_watcher_event(&Event::Apply(policy));
        }
        if let Some(freeze) = get("freezes") {
            let freeze = serde_json::from_value(freeze).unwrap();
            self.freezes.apply_watcher_event(&Event::Apply(freeze));
        }
        for template in [TEMPLATES, OF_BANK].iter().filter_map(|plural| get(plural)) {
            let template = serde_json::from_value(template).unwrap();
            self.templates.apply_watcher_event(&Event::Apply(template));
        }
    }

    fn rollout(&mut self, namespace: &str, name: &str) {
        self.using(namespace, name, &[]);
    }

    /// Creates or edits a Rollout that uses these templates.
    fn using(&mut self, namespace: &str, name: &str, templates: &[&str]) {
        let templates = templates.iter().map(|name| json!({ "name": name }));
        let analysis = json!({ "templates": templates.collect::<Vec<_>>() });
        let claim = json!({
            "metadata": { "name": name, "namespace": namespace, "uid": name },
            "spec": { "strategy": { "canary": { "analysis": analysis } } },
        });
        let claim = serde_json::from_value(claim).unwrap();
        self.claims.apply_watcher_event(&Event::Apply(claim));
    }

    /// Creates or edits the template of a namespace, with one check of this query.
    fn template(&mut self, plural: &str, generation: i64, errors: &str) {
        let check = json!({ "name": "errors", "errors": errors, "total": SOUND });
        let spec = json!({ "checks": [check] });
        self.put(plural, "AnalysisTemplate", generation, &spec);
    }

    /// One round at a time: when the next is due, and the number of its requests.
    async fn round(&mut self, now: &str) -> (Duration, usize) {
        let now = now.parse().unwrap();
        let (actor, caches) = (&self.actor, &self.caches);
        let policies = write_policies(&mut self.of_policies, actor, caches, now).await;
        let freezes = write_freezes(&mut self.of_freezes, actor, caches, now).await;
        let templates = write_templates(&mut self.of_templates, actor, caches, now).await;
        let next = policies.min(freezes).min(templates);
        (next, self.server.requests().len())
    }

    fn status(&self, plural: &str) -> Value {
        let path = format!("{ROOT}/{plural}/one");
        self.server.get(&path).unwrap()["status"].clone()
    }
}

const NOW: &str = "2026-12-24T17:00:00Z";
const SOUND: &str = r#"x{revision="{{revision}}"}"#;

#[tokio::test]
async fn a_status_is_written_once_and_again_when_the_spec_changes() {
    let mut scene = Scene::new();
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 0));
    scene.rollout("shop", "web");
    scene.rollout("bank", "api");
    scene.put("rolloutpolicies", "RolloutPolicy", 1, &json!({}));
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 1));
    let status = scene.status("rolloutpolicies");
    assert_eq!(
        (&status["observedGeneration"], &status["governs"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(status["conditions"][0]["reason"], "Accepted");
    assert_eq!(scene.round(NOW).await.1, 0, "the watch is behind");
    scene.watch();
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 0));

    let selector = json!({ "namespaceSelector": { "matchLabels": { "team": "b" } } });
    scene.put("rolloutpolicies", "RolloutPolicy", 2, &selector);
    assert_eq!(scene.round(NOW).await.1, 1);
    let status = scene.status("rolloutpolicies");
    assert_eq!(
        (&status["observedGeneration"], &status["governs"]),
        (&json!(2), &json!(1))
    );
}

#[tokio::test]
async fn a_count_alone_is_written_at_most_every_half_minute() {
    let mut scene = Scene::new();
    scene.put("rolloutpolicies", "RolloutPolicy", 1, &json!({}));
    scene.round(NOW).await;
    scene.watch();
    scene.rollout("shop", "web");
    let (next, requests) = scene.round(NOW).await;
    assert_eq!(requests, 0);
    assert!(!next.is_zero() && next <= STATUS_COUNT_INTERVAL, "{next:?}");
    scene.rollout("shop", "api");
    earlier(scene.of_policies.written.values_mut().map(|it| &mut it.at));
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 1));
    assert_eq!(scene.status("rolloutpolicies")["governs"], 2);
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_has_a_status_too() {
    let mut scene = Scene::new();
    let newer = json!({ "enforcement": "Foresee" });
    scene.put("rolloutpolicies", "RolloutPolicy", 1, &newer);
    assert_eq!(scene.round(NOW).await.1, 1);
    scene.watch();
    assert_eq!(scene.round(NOW).await.1, 0);
    let status = scene.status("rolloutpolicies");
    assert_eq!(status.get("governs"), None);
    let conditions = status["conditions"].as_array().unwrap();
    let conditions: Vec<_> = conditions
        .iter()
        .map(|it| (&it["type"], &it["status"]))
        .collect();
    let expected = [
        json!("Accepted"),
        json!("False"),
        json!("Stalled"),
        json!("True"),
    ];
    assert_eq!(
        conditions,
        [(&expected[0], &expected[1]), (&expected[2], &expected[3])]
    );
}

#[tokio::test]
async fn a_freeze_is_written_when_it_begins_and_when_it_ends() {
    let mut scene = Scene::new();
    let spec = json!({
        "reason": "a test", "person": { "username": "dave" }, "until": "2026-12-24T17:00:30Z",
    });
    scene.put("freezes", "Freeze", 1, &spec);
    assert_eq!(scene.round(NOW).await, (Duration::from_secs(30), 1));
    let active = |scene: &Scene| scene.status("freezes")["conditions"][1]["status"].clone();
    assert_eq!(active(&scene), "True");
    scene.watch();
    assert_eq!(scene.round(NOW).await, (Duration::from_secs(30), 0));
    assert_eq!(
        scene.round("2026-12-24T17:00:30Z").await,
        (STATUS_RECHECK, 1)
    );
    assert_eq!(active(&scene), "False");
}

#[tokio::test]
async fn a_refused_status_is_written_later() {
    let mut scene = Scene::new();
    scene.put("rolloutpolicies", "RolloutPolicy", 1, &json!({}));
    scene.server.fails(|_| Some(Fault::Refuse(403)));
    assert_eq!(scene.round(NOW).await, (STATUS_RETRY, 1));
    assert_eq!(scene.status("rolloutpolicies"), Value::Null);
    scene.server.fails(|_| None);
    earlier(scene.of_policies.refused.iter_mut().map(|it| &mut it.0));
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 1));
    assert_eq!(scene.status("rolloutpolicies")["governs"], 0);
}

/// Lets these times be so long ago that a count, or what was refused, is written again.
fn earlier<'a>(times: impl Iterator<Item = &'a mut Instant>) {
    for at in times {
        *at = at.checked_sub(STATUS_COUNT_INTERVAL).unwrap();
    }
}

/// The conditions of a status, each with its value and its reason.
fn conditions(status: &Value) -> Vec<String> {
    let conditions = status["conditions"].as_array().unwrap().iter();
    let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    let of = |it: &Value| {
        ["type", "status", "reason"]
            .map(|key| text(it, key))
            .join(" ")
    };
    conditions.map(of).collect()
}

#[tokio::test]
async fn a_template_that_cannot_be_used_is_refused_until_it_is_corrected() {
    let mut scene = Scene::new();
    scene.template(TEMPLATES, 1, "sum(");
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 1));
    let status = scene.status(TEMPLATES);
    assert_eq!(status["observedGeneration"], 1);
    let refused = ["Accepted False Invalid", "Stalled True Invalid"];
    assert_eq!(conditions(&status), refused);
    let message = status["conditions"][0]["message"].as_str().unwrap();
    let words = "field `errors` of check `errors`: the query is not PromQL";
    assert!(message.starts_with(words), "{message}");
    assert_eq!(scene.round(NOW).await.1, 0, "the watch is behind");
    scene.watch();
    assert_eq!(scene.round(NOW).await.1, 0);

    scene.template(TEMPLATES, 2, SOUND);
    assert_eq!(scene.round(NOW).await.1, 1);
    let status = scene.status(TEMPLATES);
    assert_eq!(status["observedGeneration"], 2);
    assert_eq!(conditions(&status), ["Accepted True Accepted"]);
    scene.watch();
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 0));

    let newer = json!({ "args": [{ "name": "a", "type": "Percentage" }] });
    scene.put(TEMPLATES, "AnalysisTemplate", 3, &newer);
    assert_eq!(scene.round(NOW).await.1, 1);
    let unreadable = ["Accepted False Unreadable", "Stalled True Unreadable"];
    assert_eq!(conditions(&scene.status(TEMPLATES)), unreadable);
}

#[tokio::test]
async fn the_rollouts_that_begin_and_cease_to_use_a_template_are_counted() {
    let mut scene = Scene::new();
    scene.using("shop", "web", &["one", "other"]);
    scene.using("shop", "api", &["other"]);
    scene.using("bank", "ledger", &["one"]);
    scene.template(TEMPLATES, 1, SOUND);
    scene.template(OF_BANK, 1, SOUND);
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 2));
    let used_by = |scene: &Scene| [TEMPLATES, OF_BANK].map(|it| scene.status(it)["usedBy"].clone());
    assert_eq!(used_by(&scene), [1, 1], "each by those of its namespace");
    scene.watch();

    scene.using("shop", "api", &["one"]);
    let (next, requests) = scene.round(NOW).await;
    assert_eq!(requests, 0, "a count alone waits");
    assert!(!next.is_zero() && next <= STATUS_COUNT_INTERVAL, "{next:?}");
    earlier(scene.of_templates.written.values_mut().map(|it| &mut it.at));
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 1));
    assert_eq!(used_by(&scene), [2, 1]);
    scene.watch();

    scene.using("shop", "web", &["other"]);
    scene.using("shop", "api", &[]);
    earlier(scene.of_templates.written.values_mut().map(|it| &mut it.at));
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 1));
    assert_eq!(used_by(&scene), [0, 1]);
}

#[tokio::test]
async fn what_the_watch_has_reported_takes_no_memory_twice() {
    let mut scene = Scene::new();
    scene.template(TEMPLATES, 1, SOUND);
    scene.template(OF_BANK, 1, SOUND);
    scene.round(NOW).await;
    assert_eq!(scene.of_templates.written.len(), 2);
    scene.watch();
    scene.round(NOW).await;
    assert_eq!(scene.of_templates.written.len(), 2, "a count waits for it");
    earlier(scene.of_templates.written.values_mut().map(|it| &mut it.at));
    assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 0));
    assert!(scene.of_templates.written.is_empty());
}

#[tokio::test]
async fn while_templates_are_refused_one_request_is_repeated() {
    for code in [403, 404, 500] {
        let mut scene = Scene::new();
        scene.template(TEMPLATES, 1, SOUND);
        scene.template(OF_BANK, 1, SOUND);
        scene.put("rolloutpolicies", "RolloutPolicy", 1, &json!({}));
        let refused = |it: &RecordedRequest| it.path.contains("/analysistemplates/");
        scene
            .server
            .fails(move |it| refused(it).then_some(Fault::Refuse(code)));
        let (next, requests) = scene.round(NOW).await;
        assert_eq!(requests, 2, "{code}: one template, and the policy");
        assert!(!next.is_zero() && next <= STATUS_RETRY, "{next:?}");
        assert_eq!(scene.status("rolloutpolicies")["governs"], 0);
        assert_eq!(scene.round(NOW).await.1, 0, "{code}");

        scene.server.fails(|_| None);
        earlier(scene.of_templates.refused.iter_mut().map(|it| &mut it.0));
        assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 2), "{code}");
    }
    // One of two templates was deleted and created again, which the watch has not reported yet.
    let mut scene = Scene::new();
    scene.template(TEMPLATES, 1, SOUND);
    scene.template(OF_BANK, 1, SOUND);
    let refused = |it: &RecordedRequest| it.path.contains("/namespaces/bank/");
    scene
        .server
        .fails(move |it| refused(it).then_some(Fault::Refuse(409)));
    assert_eq!(scene.round(NOW).await.1, 2);
    assert_eq!(
        conditions(&scene.status(TEMPLATES)),
        ["Accepted True Accepted"]
    );
}

#[tokio::test]
async fn a_template_that_is_refused_keeps_no_other_from_its_status() {
    for (refused, other) in [(OF_BANK, TEMPLATES), (TEMPLATES, OF_BANK)] {
        let mut scene = Scene::new();
        scene.template(TEMPLATES, 1, SOUND);
        scene.template(OF_BANK, 1, SOUND);
        let fails = move |it: &RecordedRequest| it.path.contains(refused);
        scene
            .server
            .fails(move |it| fails(it).then_some(Fault::Refuse(403)));
        scene.round(NOW).await;
        earlier(scene.of_templates.refused.iter_mut().map(|it| &mut it.0));
        scene.round(NOW).await;
        assert_eq!(scene.status(refused), Value::Null);
        let accepted = ["Accepted True Accepted"];
        assert_eq!(conditions(&scene.status(other)), accepted);
    }
}

#[tokio::test]
async fn a_template_whose_status_hangs_delays_no_policy() {
    let mut scene = Scene::new();
    scene.template(TEMPLATES, 1, SOUND);
    scene.put("rolloutpolicies", "RolloutPolicy", 1, &json!({}));
    let hangs = |it: &RecordedRequest| it.path.contains("/analysistemplates/");
    scene
        .server
        .fails(move |it| hangs(it).then_some(Fault::Hang));
    let (actor, caches) = (scene.actor.clone(), scene.caches.clone());
    let (governing, _) = watch::channel(());
    let story = async {
        for generation in 1..=2 {
            scene.put("rolloutpolicies", "RolloutPolicy", generation, &json!({}));
            governing.send_replace(());
            while scene.status("rolloutpolicies")["observedGeneration"] != generation {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let requests = scene.server.requests();
        requests.iter().filter(|it| hangs(it)).count()
    };
    let asked = tokio::select! {
        () = keep(&actor, &caches, &governing) => panic!("it never ends"),
        asked = story => asked,
    };
    assert_eq!(asked, 1, "of the template");
    assert_eq!(scene.status(TEMPLATES), Value::Null);
}
