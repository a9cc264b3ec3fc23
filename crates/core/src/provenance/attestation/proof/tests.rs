use countersign_api::Duration;
use serde_json::json;

use super::*;
use crate::policy::effective;

fn at(hour: &str) -> Timestamp {
    format!("2026-11-24T{hour}:00:00Z").parse().unwrap()
}

fn template(command: &str) -> PodTemplate {
    PodTemplate(json!({ "spec": { "containers": [{ "image": "shop", "command": [command] }] } }))
}

/// A statement of the whole change, signed at noon.
fn complete() -> Predicate {
    Predicate {
        base: Some("v1".into()),
        rollouts: ["shop/web".to_owned(), "shop/worker".to_owned()].into(),
        template_digest: Some(template_digest(&template("serve"))),
        signed_at: Some(at("12")),
        ..Predicate::default()
    }
}

/// A change of a Rollout that began at one o'clock.
fn subject<'a>(template: &'a PodTemplate, replaced: Option<&'a Revision>) -> Subject<'a> {
    Subject {
        namespace: "shop",
        name: "web",
        template,
        stable: None,
        replaced,
        first: false,
        began: at("13"),
    }
}

/// The finding about a change that began at one o'clock, under policies that demand all there is.
fn found(predicate: &Predicate, source_revision: Option<&str>) -> Option<Unproven> {
    let stable = Revision {
        source_revision: source_revision.map(ToOwned::to_owned),
        ..Revision::default()
    };
    let template = template("serve");
    let subject = subject(&template, Some(&stable));
    let effective = Effective {
        max_age: Some(Duration::minutes(60)),
        covers: Covers::Template,
        ..effective(&[])
    };
    unproven(predicate, &subject, &effective)
}

#[test]
fn what_is_said_of_the_whole_change_proves_it() {
    assert_eq!(found(&complete(), Some("v1")), None);
    let for_any = Predicate {
        rollouts: [].into(),
        ..complete()
    };
    assert_eq!(found(&for_any, Some("v1")), None);
}

#[test]
fn what_is_said_of_something_else_proves_nothing_and_names_the_remedy() {
    let other = template_digest(&template("evil"));
    for (predicate, stable, message) in [
        (
            complete(),
            Some("v0"),
            "it counts from `v1`, but stable runs `v0`: stamp with --range v0..HEAD",
        ),
        (complete(), None, "which revision stable runs is not known"),
        (
            Predicate {
                base: None,
                ..complete()
            },
            Some("v1"),
            "it does not name the revision that it counts from",
        ),
        (
            Predicate {
                signed_at: Some(at("11")),
                ..complete()
            },
            Some("v1"),
            "signed at 2026-11-24T11:00:00Z, more than 1h before the change began",
        ),
        (
            Predicate {
                signed_at: None,
                ..complete()
            },
            Some("v1"),
            "it does not name the time of its signing",
        ),
        (
            Predicate {
                rollouts: ["shop/worker".to_owned()].into(),
                ..complete()
            },
            Some("v1"),
            "it is for `shop/worker`, and not for Rollout `shop/web`",
        ),
        (
            Predicate {
                template_digest: None,
                ..complete()
            },
            Some("v1"),
            "it names no pod template",
        ),
        (
            Predicate {
                template_digest: Some(other),
                ..complete()
            },
            Some("v1"),
            "it is for another pod template",
        ),
    ] {
        let found = found(&predicate, stable).unwrap().to_string();
        assert!(found.contains(message), "{found}");
    }
}

/// A Rollout at rest, and a first revision but for the age: there is no change that a part could be signed of.
#[test]
fn where_nothing_is_replaced_neither_base_nor_age_matters() {
    let template = template("serve");
    let subject = subject(&template, None);
    let effective = Effective {
        max_age: Some(Duration::minutes(1)),
        ..effective(&[])
    };
    let bare = Predicate::default();
    assert_eq!(unproven(&bare, &subject, &effective), None);
    let first = Subject {
        first: true,
        ..subject
    };
    let unsigned = unproven(&bare, &first, &effective);
    assert!(matches!(unsigned, Some(Unproven::NoSigningTime { .. })));
    let fresh = Predicate {
        signed_at: Some(at("13")),
        ..Predicate::default()
    };
    assert_eq!(unproven(&fresh, &first, &effective), None);
    let elsewhere = Predicate {
        rollouts: ["shop/worker".to_owned()].into(),
        ..bare
    };
    assert!(unproven(&elsewhere, &subject, &effective).is_some());
}

#[test]
fn only_what_a_policy_demands_is_compared() {
    let stable = Revision {
        source_revision: Some("v1".into()),
        ..Revision::default()
    };
    let template = template("serve");
    let subject = subject(&template, Some(&stable));
    let based = Predicate {
        base: Some("v1".into()),
        ..Predicate::default()
    };
    assert_eq!(unproven(&based, &subject, &effective(&[])), None);
}
