//! The laws hold whatever people do, in any order.

use super::*;

/// Something that people do.
#[derive(Clone, Debug)]
enum Deed {
    Sign(usize, SignOffDecision, Option<&'static str>),
    Command(usize, InterventionAction),
    Freeze(Option<FreezeAction>),
    Tamper(bool),
    Unreadable(bool),
    Incident(bool),
    Change(u8),
    Fail,
}

fn deed() -> impl Strategy<Value = Deed> {
    let decision = prop_oneof![
        6 => Just(SignOffDecision::Approve),
        1 => Just(SignOffDecision::Reject),
        1 => Just(SignOffDecision::BreakGlass),
    ];
    let gate = prop_oneof![
        Just(None),
        Just(Some("step-1")),
        Just(Some("promotion")),
        Just(Some("evidence-1"))
    ];
    let action = prop_oneof![
        Just(InterventionAction::Abort),
        Just(InterventionAction::Retry),
        Just(InterventionAction::Promote),
        Just(InterventionAction::Pause),
        Just(InterventionAction::Resume),
    ];
    prop_oneof![
        4 => (0..USERS.len(), decision, gate).prop_map(|(user, decision, gate)| {
            Deed::Sign(user, decision, gate.filter(|_| decision == SignOffDecision::Approve))
        }),
        3 => (0..USERS.len(), action).prop_map(|(user, action)| Deed::Command(user, action)),
        1 => prop_oneof![Just(None), Just(Some(FreezeAction::Hold)), Just(Some(FreezeAction::RollBack))].prop_map(Deed::Freeze),
        1 => any::<bool>().prop_map(Deed::Tamper),
        1 => any::<bool>().prop_map(Deed::Unreadable),
        1 => any::<bool>().prop_map(Deed::Incident),
        2 => (1..4_u8).prop_map(Deed::Change),
        1 => Just(Deed::Fail),
    ]
}

const USERS: [(&str, &[&str]); 6] = [
    ("alice", &["approvers"]),
    ("bob", &["approvers"]),
    ("carol", &["approvers", "senior"]),
    (
        "system:serviceaccount:ci:robot",
        &["approvers", "system:serviceaccounts"],
    ),
    ("agent", &["approvers", "agents"]),
    ("mallory", &[]),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Laws 1, 2, 3, 6, 8 and 9 in every state that people can bring about, with crashes in between.
    #[test]
    fn the_laws_hold_whatever_people_do(
        deeds in prop::collection::vec((deed(), 0..20_i64, 0..3_usize), 1..25),
    ) {
        let policy = requiring(&[(1, &["approvers"])], |spec| {
            spec.people.agent_groups = vec!["agents".into()];
            spec.freeze.incident = Some(IncidentQuery { query: "x".into(), ..IncidentQuery::default() });
            spec.tiers.low.promotion_sign_off = Some(vec![
                SignOffDemand { count: 2, groups: vec![] },
                SignOffDemand { count: 1, groups: vec!["senior".into()] },
            ]);
        });
        let mut world = serving();
        world.observation.policies = vec![policy];
        world.observation.people.incidents = [("unattended".to_owned(), IncidentAnswer::None)].into();
        change(&mut world, "v2", harmless());
        go_on(&mut world, 1);
        for (deed, minutes, crash) in deeds {
            let has_change = world.observation.status.change.is_some();
            let mut errors = 0.001;
            match deed {
                Deed::Sign(user, decision, gate) if has_change => {
                    let (user, groups) = USERS[user];
                    sign(&mut world, person(user, groups), |spec| {
                        (spec.decision, spec.gate) = (decision, gate.map(ToOwned::to_owned));
                    });
                }
                Deed::Command(user, action) if has_change => command(&mut world, USERS[user].0, action),
                Deed::Freeze(action) => world.observation.people.freezes = action.map(|action| freeze(|it| it.action = action)).into_iter().collect(),
                Deed::Unreadable(unreadable) => world.observation.people.unreadable_requests = if unreadable { vec!["slow".into()] } else { vec![] },
                Deed::Incident(incident) => {
                    let answer = if incident { IncidentAnswer::Incident { value: 1.0 } } else { IncidentAnswer::None };
                    world.observation.people.incidents = [("unattended".to_owned(), answer)].into();
                }
                Deed::Tamper(tampered) => world.observation.people.admission.problems = if tampered { vec!["altered".into()] } else { vec![] },
                Deed::Change(version) => change(&mut world, &format!("v{version}"), harmless()),
                Deed::Fail => errors = 0.3,
                Deed::Sign(..) | Deed::Command(..) => {}
            }
            let decision = world.reconcile(&mut steady(5_000.0, errors, 0.001));
            world.carry_out(&decision, crash);
            let until = minutes_on(&world, minutes);
            world.run(until, &mut steady(5_000.0, errors, 0.001), |_| false);
            prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
        }
    }
}
