//! The setups in which the laws hold.

use super::*;

const PLAIN: Setup = Setup {
    name: "plain",
    replicas: 2,
    weights: &[20, 50],
    scale: None,
    bake: 1,
    deadline: 3,
    requests: 100_000,
    scarce: "Promote",
    first_sign_offs: 0,
    last_sign_offs: 0,
    smoke: false,
    sends: Sends::Pods,
    surge: None,
    watched: 0,
    kept: 0,
    history: None,
    budget: false,
    before: &[],
    from: None,
    slow: false,
    free: &[],
    depth: 14,
    seen: &[],
    whole: true,
};

#[test]
fn the_laws_hold_where_pods_alone_give_a_canary_its_share() {
    explore(PLAIN);
}

#[test]
fn the_laws_hold_behind_a_route() {
    explore(Setup {
        name: "routed",
        sends: Sends::Routes,
        depth: 20,
        seen: &["it waits for a router"],
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_people_must_sign() {
    explore(Setup {
        name: "signed",
        first_sign_offs: 1,
        last_sign_offs: 1,
        depth: 16,
        seen: &["it waits for a signature"],
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_somebody_else_replaces_a_change() {
    explore(Setup {
        name: "replaced",
        weights: &[50],
        first_sign_offs: 1,
        free: &[Act::Push(3)],
        depth: 9,
        seen: &["it waits for a signature", "a change is superseded"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_with_a_smoke_check() {
    explore(Setup {
        name: "smoke",
        smoke: true,
        depth: 16,
        seen: &["it waits for the smoke check"],
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_stable_gives_up_pods() {
    explore(Setup {
        name: "dynamic",
        sends: Sends::Dynamic,
        depth: 20,
        seen: &["it waits for a router"],
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_the_surge_is_narrow() {
    explore(Setup {
        name: "crowded",
        surge: Some(1),
        ..PLAIN
    });
}

/// As in `examples/blue-green.yaml`.
const SERVICES_ALONE: Setup = Setup {
    name: "services",
    sends: Sends::Services,
    weights: &[0],
    scale: Some(100),
    ..PLAIN
};

#[test]
fn the_laws_hold_with_two_services_and_no_route() {
    explore(SERVICES_ALONE);
}

#[test]
fn the_laws_hold_with_two_services_and_little_surge() {
    explore(Setup {
        name: "services, crowded",
        surge: Some(1),
        ..SERVICES_ALONE
    });
}

#[test]
fn the_laws_hold_with_two_services_where_what_was_promoted_breaks() {
    explore(Setup {
        name: "services, watched",
        watched: 2,
        before: &[2],
        from: Some(Moment::In(Stage::Promoted)),
        free: &[Act::Prometheus(Evidence::Bad), Act::Push(3), Act::Push(1)],
        depth: 8,
        seen: &["a promoted revision gives way again"],
        whole: false,
        ..SERVICES_ALONE
    });
}

#[test]
fn the_laws_hold_where_what_was_promoted_breaks() {
    explore(Setup {
        name: "watched",
        sends: Sends::Routes,
        weights: &[50],
        watched: 2,
        before: &[2],
        from: Some(Moment::In(Stage::Promoted)),
        free: &[Act::Prometheus(Evidence::Bad), Act::Push(3), Act::Push(1)],
        depth: 8,
        seen: &["a promoted revision gives way again"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_pods_are_kept_for_the_way_back() {
    explore(Setup {
        name: "kept",
        kept: 2,
        watched: 2,
        before: &[2],
        from: Some(Moment::In(Stage::Promoted)),
        free: &[Act::Prometheus(Evidence::Bad), Act::Replicas(3)],
        depth: 9,
        seen: &["a promoted revision gives way again"],
        whole: false,
        ..SERVICES_ALONE
    });
}

#[test]
fn the_laws_hold_where_pods_come_one_by_one() {
    explore(Setup {
        name: "one by one",
        replicas: 4,
        weights: &[20],
        surge: Some(1),
        deadline: 2,
        slow: true,
        depth: 12,
        seen: &["a change is promoted"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_a_newer_change_comes_while_stable_grows() {
    explore(Setup {
        name: "newer",
        sends: Sends::Dynamic,
        weights: &[50],
        slow: true,
        free: &[Act::Push(3), Act::Push(1)],
        before: &[2],
        from: Some(Moment::In(Stage::Promoting)),
        depth: 6,
        seen: &["a change is superseded", "a change is reverted"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_a_promotion_is_held() {
    explore(Setup {
        name: "held",
        sends: Sends::Routes,
        weights: &[50],
        budget: true,
        free: &[
            Act::Freeze(Some(FreezeAction::Hold)),
            Act::Burn(true),
            Act::Replicas(3),
        ],
        before: &[2],
        from: Some(Moment::In(Stage::Promoting)),
        depth: 7,
        seen: &["it waits for the budget", "it is frozen"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_with_two_sign_offs() {
    explore(Setup {
        name: "two sign-offs",
        weights: &[50],
        last_sign_offs: 1,
        scarce: "Hold",
        free: &[Act::Prometheus(Evidence::Quiet)],
        depth: 17,
        seen: &[
            "it waits for a signature",
            "it waits for a person to accept evidence",
        ],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_evidence_becomes_unclear() {
    explore(Setup {
        name: "unclear",
        weights: &[50],
        last_sign_offs: 1,
        scarce: "RollBack",
        free: &[Act::Prometheus(Evidence::Unclear)],
        depth: 14,
        seen: &["it waits for a signature", "it waits for evidence"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_evidence_becomes_unclear_during_a_long_sign_off_wait() {
    explore(Setup {
        name: "unclear late",
        weights: &[50],
        deadline: 1,
        requests: 380,
        last_sign_offs: 1,
        scarce: "RollBack",
        free: &[Act::Prometheus(Evidence::Unclear)],
        before: &[2],
        from: Some(Moment::Awaiting("AwaitingSignOff")),
        depth: 9,
        seen: &["it waits for a signature", "it waits for evidence"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_one_gate_for_people_follows_another() {
    explore(Setup {
        name: "two sign-offs late",
        weights: &[50],
        deadline: 1,
        last_sign_offs: 1,
        scarce: "Hold",
        free: &[Act::Prometheus(Evidence::Quiet)],
        before: &[2],
        from: Some(Moment::In(Stage::Stepping)),
        depth: 14,
        seen: &[
            "it waits for a signature",
            "it waits for a person to accept evidence",
        ],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_a_bake_is_interrupted() {
    explore(Setup {
        name: "interrupted",
        weights: &[50],
        bake: 2,
        free: &[Act::Replicas(0)],
        depth: 14,
        seen: &["a change is promoted", "it is scaled to nothing"],
        whole: false,
        ..PLAIN
    });
}

#[test]
fn the_laws_hold_where_little_is_remembered() {
    explore(Setup {
        name: "forgetful",
        weights: &[50],
        history: Some(1),
        before: &[2, 1],
        seen: &["a change is promoted", "a revision is forgotten"],
        whole: false,
        ..PLAIN
    });
}
