use kube::core::Status;
use serde_json::json;

use super::*;
use crate::watch::changes::Pods;

type Change = Event<Kept<Pods>>;

/// A ReplicaSet of the Rollout with uid `web`.
fn set(name: &str, uid: &str, version: u64) -> Kept<Pods> {
    let owner = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "web",
        "controller": true,
    });
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "resourceVersion": version.to_string(),
            "ownerReferences": [owner],
        },
    }))
    .unwrap()
}

fn list(cache: &Cache, all: Vec<Kept<Pods>>) {
    let all = all.into_iter().map(Event::InitApply);
    let events = std::iter::once(Event::Init).chain(all);
    for event in events.chain([Event::InitDone]) {
        cache.take(Ok(event)).unwrap();
    }
}

fn on(cache: &Cache, event: Change) {
    cache.take(Ok(event)).unwrap();
}

/// A cache that has listed one ReplicaSet, in version 5.
fn listed() -> Cache {
    let cache = Cache::default();
    list(&cache, vec![set("web-a", "1", 5)]);
    cache.open(Instant::now(), 0, Vec::new());
    cache
}

/// The versions of the Rollout's ReplicaSets, if the cache answers.
fn versions(cache: &Cache) -> Option<Vec<u64>> {
    let all = cache.of_rollout("shop", "web")?.into_iter();
    let versions = all.map(|json| {
        let set: Value = serde_json::from_str(&json).unwrap();
        integer(set["metadata"]["resourceVersion"].as_str()).unwrap()
    });
    Some(versions.collect())
}

fn written(name: &str, version: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("shop".into()),
        resource_version: Some(version.into()),
        ..ObjectMeta::default()
    }
}

#[test]
fn nothing_is_answered_before_the_first_list_and_before_other_leaders_writes_are_known() {
    let cache = Cache::default();
    assert_eq!(versions(&cache), None);
    list(&cache, vec![set("web-a", "1", 5)]);
    assert_eq!(versions(&cache), None);
    cache.open(Instant::now(), 0, Vec::new());
    assert_eq!(versions(&cache), Some(vec![5]));
    assert_eq!(cache.of_rollout("shop", "other"), Some(Vec::new()));

    let ended = Status::failure("too old resource version", "Expired").with_code(410);
    let ended: Result<Change, _> = Err(watcher::Error::WatchError(Box::new(ended)));
    cache.take(ended).unwrap_err();
    assert_eq!(versions(&cache), None, "changes may be missing");
    list(&cache, vec![set("web-a", "1", 9)]);
    assert_eq!(versions(&cache), Some(vec![9]));
}

#[test]
fn law_5_nothing_is_answered_about_a_rollout_until_its_own_write_is_reported() {
    let cache = listed();
    cache.reaches("web", &written("web-a", "8"));
    assert_eq!(versions(&cache), None);
    assert_eq!(cache.of_rollout("shop", "other"), Some(Vec::new()));
    // One of the same name in another namespace.
    assert_eq!(cache.of_rollout("bank", "web"), Some(Vec::new()));
    on(&cache, Event::Apply(set("web-a", "1", 7)));
    assert_eq!(versions(&cache), None, "it is from before");
    on(&cache, Event::Apply(set("web-b", "2", 9)));
    assert_eq!(versions(&cache), None, "its event was lost");
    on(&cache, Event::Apply(set("web-a", "1", 10)));
    assert_eq!(versions(&cache), Some(vec![10, 9]));

    // One that was created.
    cache.reaches("web", &written("web-c", "12"));
    on(&cache, Event::Apply(set("web-a", "1", 11)));
    assert_eq!(versions(&cache), None);
    on(&cache, Event::Apply(set("web-c", "3", 12)));
    assert_eq!(versions(&cache), Some(vec![11, 9, 12]));
}

#[test]
fn law_5_nothing_is_answered_until_an_own_deletion_is_reported() {
    let cache = listed();
    cache.deleted("web", "shop", "web-a", "1");
    assert_eq!(versions(&cache), None);
    on(&cache, Event::Delete(set("web-a", "1", 6)));
    assert_eq!(versions(&cache), Some(Vec::new()));
    // It is made again, and the answer to a deletion of the first comes late.
    on(&cache, Event::Apply(set("web-a", "2", 7)));
    cache.deleted("web", "shop", "web-a", "1");
    assert_eq!(versions(&cache), Some(vec![7]));
}

#[test]
fn law_5_an_own_creation_that_is_not_reported_hides_no_deletion_after_it() {
    let cache = listed();
    cache.reaches("web", &written("web-b", "8"));
    cache.deleted("web", "shop", "web-b", "2");
    assert_eq!(versions(&cache), None);
    on(&cache, Event::Apply(set("web-b", "2", 8)));
    assert_eq!(versions(&cache), None, "its deletion is not reported");
    on(&cache, Event::Delete(set("web-b", "2", 9)));
    assert_eq!(versions(&cache), Some(vec![5]));
}

#[test]
fn an_object_is_the_latest_until_it_is_written_or_another_version_is_reported() {
    let cache = Cache::default();
    list(&cache, vec![set("web-a", "1", 5)]);
    assert!(!cache.is_latest(&written("web-a", "5")), "not open yet");
    let cache = listed();
    let is_latest = |version: &str| cache.is_latest(&written("web-a", version));
    assert!(is_latest("5"));
    assert!(!is_latest("4") && !is_latest("not an integer"));
    assert!(!cache.is_latest(&written("web-b", "5")), "it is not there");
    cache.reaches("web", &written("web-a", "7"));
    assert!(!is_latest("5"));
    on(&cache, Event::Apply(set("web-a", "1", 7)));
    assert!(!is_latest("5") && is_latest("7"));
}

#[test]
fn a_list_that_begins_after_an_own_write_includes_it() {
    let cache = listed();
    cache.reaches("web", &written("web-a", "not an integer"));
    on(&cache, Event::Apply(set("web-a", "1", 8)));
    assert_eq!(versions(&cache), None);
    // A backup was restored, so versions have gone back.
    list(&cache, vec![set("web-a", "1", 2)]);
    assert_eq!(versions(&cache), Some(vec![2]));
    on(&cache, Event::Apply(set("web-a", "1", 3)));
    assert_eq!(versions(&cache), Some(vec![3]));

    on(&cache, Event::Init);
    cache.reaches("web", &written("web-a", "5"));
    on(&cache, Event::InitApply(set("web-a", "1", 4)));
    on(&cache, Event::InitDone);
    assert_eq!(versions(&cache), None, "the list may be from before");
    on(&cache, Event::Apply(set("web-a", "1", 5)));
    assert_eq!(versions(&cache), Some(vec![5]));
}

#[test]
fn events_that_are_repeated_do_not_take_the_cache_back() {
    let cache = listed();
    on(&cache, Event::Apply(set("web-a", "1", 7)));
    on(&cache, Event::Apply(set("web-a", "1", 6)));
    assert_eq!(versions(&cache), Some(vec![7]));
    on(&cache, Event::Delete(set("web-a", "1", 8)));
    on(&cache, Event::Apply(set("web-a", "1", 7)));
    assert_eq!(versions(&cache), Some(Vec::new()));
    on(&cache, Event::Apply(set("web-a", "2", 9)));
    on(&cache, Event::Delete(set("web-a", "1", 8)));
    assert_eq!(versions(&cache), Some(vec![9]));
}

#[test]
fn a_new_leader_waits_for_what_others_have_written() {
    let cache = Cache::default();
    let sets = vec![set("web-a", "1", 5), set("web-b", "2", 4)];
    list(&cache, sets);
    let of_a = |version| Listed {
        namespace: "shop".into(),
        name: "web-a".into(),
        rollout: "web".into(),
        version,
    };
    cache.open(Instant::now(), 9, vec![of_a(Some(8))]);
    assert_eq!(versions(&cache), None);
    on(&cache, Event::Apply(set("web-a", "1", 8)));
    assert_eq!(versions(&cache), None, "the other one was deleted");
    on(&cache, Event::Delete(set("web-b", "2", 9)));
    assert_eq!(versions(&cache), Some(vec![8]));
    // One that the watch does not show is read until the controller has written it.
    cache.open(Instant::now(), 9, vec![of_a(None)]);
    on(&cache, Event::Apply(set("web-b", "3", 10)));
    assert_eq!(versions(&cache), None);
    // Its event may come before the answer to that write.
    on(&cache, Event::Apply(set("web-a", "1", 11)));
    assert_eq!(versions(&cache), None);
    cache.reaches("web", &written("web-a", "11"));
    assert_eq!(versions(&cache), Some(vec![11, 10]));
    // And a read that was older than the write may come after it.
    cache.reaches("web", &written("web-a", "13"));
    cache.reaches("web", &written("web-a", "12"));
    on(&cache, Event::Apply(set("web-a", "1", 12)));
    assert_eq!(versions(&cache), None);
}

#[test]
fn a_replica_set_that_changes_hands_is_no_longer_the_rollouts() {
    let cache = listed();
    let mut released = set("web-a", "1", 6);
    released.meta_mut().owner_references = None;
    on(&cache, Event::Apply(released));
    assert_eq!(versions(&cache), Some(Vec::new()));
}

#[test]
fn what_is_too_large_has_to_be_read() {
    let large = |note: usize| -> Kept<Pods> {
        let labels = json!({ "countersign.dev/rollout-uid": "web", "note": "x".repeat(note) });
        serde_json::from_value(json!({ "metadata": {
            "name": "web-a", "namespace": "shop", "uid": "1", "resourceVersion": "6", "labels": labels,
        } }))
        .unwrap()
    };
    let cache = listed();
    on(&cache, Event::Apply(large(MOST_OF_ONE)));
    assert_eq!(versions(&cache), None);

    let cache = Cache::default();
    let mut half = large(MOST_OF_ONE / 2);
    let labels = half.meta_mut().labels.as_mut().unwrap();
    labels.remove("note").unwrap();
    let many = (0..=MOST_OF_ALL / (MOST_OF_ONE / 2)).map(|number| {
        let mut set = half.clone();
        set.meta_mut().name = Some(format!("web-{number}"));
        set
    });
    list(&cache, many.collect());
    cache.open(Instant::now(), 0, Vec::new());
    assert_eq!(versions(&cache), None);
    let bytes = cache.0.lock().unwrap().contents.bytes;
    assert!((MOST_OF_ALL / 2..=MOST_OF_ALL).contains(&bytes), "{bytes}");
}

#[test]
fn versions_that_are_no_integers_are_never_compared() {
    let cache = listed();
    let mut set = set("web-a", "1", 6);
    set.meta_mut().resource_version = Some("six".into());
    on(&cache, Event::Apply(set));
    assert_eq!(versions(&cache), None);
}

#[test]
fn an_object_of_which_nothing_is_kept_takes_no_memory_and_has_to_be_read() {
    let cache = listed();
    let of_nobody = |version: u64| {
        let mut set = set("other", "2", version);
        set.meta_mut().owner_references = None;
        set
    };
    on(&cache, Event::Apply(of_nobody(6)));
    assert!(cache.get("shop", "other").is_some());
    let mut forgotten = of_nobody(7);
    forgotten.forget();
    on(&cache, Event::Apply(forgotten));
    assert_eq!(
        cache.get("shop", "other"),
        None,
        "it was not kept as it was"
    );
    assert_eq!(cache.0.lock().unwrap().contents.objects.len(), 1);
    let mut own = set("web-a", "1", 8);
    own.forget();
    on(&cache, Event::Apply(own));
    assert_eq!(versions(&cache), Some(vec![8]), "it belongs to a Rollout");
}

#[test]
fn an_expired_cache_answers_nothing_until_its_objects_are_listed_again() {
    let cache = listed();
    cache.expire();
    on(&cache, Event::Apply(set("web-a", "1", 6)));
    assert_eq!(versions(&cache), None);
    list(&cache, vec![set("web-a", "1", 7)]);
    assert_eq!(versions(&cache), Some(vec![7]));
}
