use serde_json::{Value, json};

use super::*;

fn claim(name: &str, uid: &str) -> Claim {
    let metadata = json!({ "name": name, "namespace": "shop", "uid": uid, "generation": 1 });
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

#[test]
fn what_was_deleted_while_the_watch_was_away_is_found_from_the_new_list() {
    let (store, mut writer) = reflector::store();
    let mut changes = ClaimChanges::new(store);
    let mut on = |event: watcher::Event<Claim>| {
        writer.apply_watcher_event(&event);
        let triggers = changes.triggers(event);
        let words = triggers.iter().map(|trigger| match trigger {
            Trigger::Touched(it) => format!("touched {}", it.name_any()),
            Trigger::Deleted(it) => format!("deleted {}", it.uid().unwrap()),
            other => format!("{other:?}"),
        });
        words.collect::<Vec<_>>()
    };
    let list = |on: &mut dyn FnMut(watcher::Event<Claim>) -> Vec<String>, claims: &[Claim]| {
        let mut words = on(watcher::Event::Init);
        for claim in claims {
            words.extend(on(watcher::Event::InitApply(claim.clone())));
        }
        words.extend(on(watcher::Event::InitDone));
        words
    };
    let all = [claim("a", "1"), claim("b", "2"), claim("c", "3")];
    assert_eq!(on(watcher::Event::Init), [""; 0]);
    let listed = on(watcher::Event::InitApply(all[0].clone()));
    assert_eq!(listed, [""; 0], "the store does not have it yet");
    let mut first = list(&mut on, &all);
    first.sort();
    assert_eq!(first, ["touched a", "touched b", "touched c"]);
    assert_eq!(list(&mut on, &all), [""; 0], "nothing is news");
    let fewer = [claim("a", "1"), claim("c", "4")];
    assert_eq!(on(watcher::Event::Init), [""; 0]);
    let made_again = on(watcher::Event::InitApply(fewer[1].clone()));
    assert_eq!(made_again, [""; 0], "the store has the deleted one");
    let mut words = list(&mut on, &fewer);
    words.sort();
    assert_eq!(words, ["deleted 2", "deleted 3", "touched c"]);
    // A list that was interrupted starts again.
    assert_eq!(on(watcher::Event::Init), [""; 0]);
    assert_eq!(on(watcher::Event::InitApply(claim("a", "1"))), [""; 0]);
    assert_eq!(list(&mut on, &fewer[1..]), ["deleted 1"]);
    assert_eq!(on(watcher::Event::Apply(claim("b", "2"))), ["touched b"]);
    // Without its finalizer it would take its pods with it.
    let kept = |finalizers: Value| {
        let mut claim = claim("b", "2");
        claim.metadata.finalizers = serde_json::from_value(finalizers).unwrap();
        claim
    };
    let with = kept(json!([countersign_api::KEEP_FINALIZER]));
    assert_eq!(on(watcher::Event::Apply(with)), ["touched b"]);
    assert_eq!(on(watcher::Event::Apply(kept(json!([])))), ["touched b"]);
    assert_eq!(on(watcher::Event::Apply(kept(json!(["others"])))), [""; 0]);

    // A backup with an earlier status is restored.
    let restored = |version: &str| {
        let mut claim = claim("c", "4");
        claim.metadata.resource_version = Some(version.to_owned());
        claim
    };
    assert_eq!(on(watcher::Event::Apply(restored("9"))), [""; 0]);
    assert_eq!(list(&mut on, &[claim("b", "2"), restored("9")]), [""; 0]);
    let touched = list(&mut on, &[claim("b", "2"), restored("7")]);
    assert_eq!(touched, ["touched c"]);
}

#[test]
fn a_new_list_of_replica_sets_concerns_those_rollouts_alone_whose_sets_have_changed() {
    let set = |uid: &str, owner: &str, available: i32| -> Pods {
        serde_json::from_value(json!({
            "metadata": {
                "name": uid, "namespace": "shop", "uid": uid,
                "ownerReferences": [{
                    "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "name": owner,
                    "uid": owner, "controller": true,
                }],
            },
            "spec": { "replicas": 1 }, "status": { "availableReplicas": available },
        }))
        .unwrap()
    };
    let (claims, mut writer) = reflector::store();
    for name in ["idle", "changed", "lost"] {
        writer.apply_watcher_event(&watcher::Event::Apply(claim(name, name)));
    }
    let sets = Owned::<Pods> {
        kind: "ReplicaSet",
        version: Pods::version,
        is_expected: Pods::is_blank,
    };
    let mut objects = Objects::default();
    let mut on = |event: watcher::Event<Pods>| {
        let triggers = sets.triggers(&mut objects, &claims, event);
        let names = triggers.into_iter().map(|trigger| match trigger {
            Trigger::Related(rollout) => rollout.name,
            Trigger::Lost(rollout) => format!("lost one of {}", rollout.name),
            other => format!("{other:?}"),
        });
        names.collect::<Vec<_>>()
    };
    assert_eq!(on(watcher::Event::Init), [""; 0]);
    for (uid, rollout) in [("1", "idle"), ("2", "changed"), ("3", "lost")] {
        let listed = watcher::Event::InitApply(set(uid, rollout, 1));
        assert_eq!(on(listed), [rollout], "it may have come after the start");
    }
    assert_eq!(on(watcher::Event::InitDone), [""; 0]);
    let made = watcher::Event::Apply(set("4", "idle", 0));
    assert_eq!(on(made), [""; 0], "the controller has created it");
    assert_eq!(on(watcher::Event::Init), [""; 0]);
    for (listed, expected) in [
        (set("1", "idle", 1), None),
        (set("4", "idle", 0), None),
        (set("2", "changed", 0), Some("changed")),
    ] {
        let concerned = on(watcher::Event::InitApply(listed));
        assert_eq!(concerned, Vec::from_iter(expected));
    }
    assert_eq!(on(watcher::Event::InitDone), ["lost one of lost"]);
    // So is one without the label by which it is watched.
    let unlabelled = watcher::Event::Delete(set("2", "changed", 0));
    assert_eq!(on(unlabelled), ["lost one of changed"]);
}

fn freeze(uid: &str, generation: i64, team: Option<&str>) -> WatchedFreeze {
    let selector = team.map_or(
        Value::Null,
        |team| json!({ "matchLabels": { "team": team } }),
    );
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze",
        "metadata": { "name": "freeze", "uid": uid, "generation": generation },
        "spec": {
            "reason": "a test", "person": { "username": "dave" }, "rolloutSelector": selector,
        },
    }))
    .unwrap()
}

#[test]
fn an_edit_concerns_what_the_old_and_the_new_object_select() {
    let mut scopes = Scopes::default();
    let teams = |scopes: &mut Scopes, event: watcher::Event<WatchedFreeze>| {
        let changed = scopes.changed(&event, Scope::of_freeze);
        let team = |it: Scope| it.rollouts.map(|it| it.match_labels["team"].clone());
        let teams: Vec<_> = changed.into_iter().map(team).collect();
        teams
    };
    let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
    let first = freeze("1", 1, Some("a"));
    for event in [
        watcher::Event::Init,
        watcher::Event::InitApply(first.clone()),
        watcher::Event::InitDone,
        watcher::Event::Apply(first.clone()),
    ] {
        assert_eq!(
            teams(&mut scopes, event),
            [],
            "all are reconciled at the start"
        );
    }
    let second = freeze("1", 2, Some("b"));
    let edited = teams(&mut scopes, watcher::Event::Apply(second.clone()));
    assert_eq!(edited, [a, b.clone()]);
    let everybody = freeze("2", 1, None);
    assert_eq!(
        teams(&mut scopes, watcher::Event::Apply(everybody.clone())),
        [None]
    );
    // While the watch was disconnected, the first was deleted and the other edited.
    assert_eq!(teams(&mut scopes, watcher::Event::Init), []);
    let news = freeze("2", 2, None);
    assert_eq!(
        teams(&mut scopes, watcher::Event::InitApply(news)),
        [None, None]
    );
    assert_eq!(teams(&mut scopes, watcher::Event::InitDone), [b]);
    assert_eq!(
        teams(&mut scopes, watcher::Event::Delete(everybody)),
        [None]
    );
}
