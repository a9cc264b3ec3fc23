//! What others write is harmless where people read it.

use super::*;

/// What clears a terminal, sets its title, turns the direction of a line, begins another, hides, or never ends.
fn evil() -> String {
    format!(
        "x\u{1b}[2J\u{1b}]0;t\u{7}\u{202e}\u{9b}31m\r\nRoll\u{ad}out\u{2063} shop\u{3164}\u{fe0f} is fine\u{e0041}{}",
        "!".repeat(50_000)
    )
}

/// Every text of a decision for people.
fn words(decision: &Decision) -> Vec<String> {
    let status = &decision.status;
    let lines = status.change.iter().flat_map(|it| &it.transitions);
    let mut words: Vec<_> = lines.map(|it| it.message.clone()).collect();
    words.extend(status.conditions.iter().map(|it| it.message.clone()));
    words.extend(decision.notices.iter().map(|it| it.message.clone()));
    words.extend(decision.answers.iter().map(|it| it.message.clone()));
    words.push(status.message.clone());
    words
}

/// What somebody does to a world.
type Edit = fn(&mut World);

/// Written by anybody: people, the API server, a webhook, a kubelet, another controller.
#[test]
pub(crate) fn nothing_that_others_write_acts_on_a_terminal_or_fills_a_page() {
    let hostile: [(&str, Edit); 8] = [
        ("a freeze", |world| {
            world.observation.people.freezes = vec![freeze(|it| it.reason = evil())];
        }),
        ("who freezes", |world| {
            world.observation.people.freezes = vec![freeze(|it| it.person = person(&evil(), &[]))];
        }),
        ("a freeze that cannot be read", |world| {
            world.observation.people.unreadable_freezes = vec![evil()];
        }),
        ("a request that cannot be read", |world| {
            world.observation.people.unreadable_requests = vec![evil()];
        }),
        ("a rejection", |world| {
            sign(world, person("bob", &[]), |it| {
                it.decision = SignOffDecision::Reject;
                it.reason = Some(evil());
            });
        }),
        ("who approves", |world| {
            approve(world, &format!("system:{}", evil()), &[]);
        }),
        ("who aborts", |world| {
            command(world, &evil(), InterventionAction::Abort);
        }),
        ("a policy that cannot be read", |world| {
            world.observation.unreadable_policies = vec![evil()];
        }),
    ];
    let mut worlds: Vec<_> = hostile
        .iter()
        .map(|(who, edit)| {
            let mut world = waiting(requiring(&[(1, &[])], |_| {}));
            edit(&mut world);
            (*who, world)
        })
        .collect();
    // If pods are awaited, the message names what keeps them from starting.
    for (who, edit) in [
        (
            "a refused write",
            (|it: &mut Observation| it.write_failure = Some(evil())) as fn(&mut Observation),
        ),
        ("a ReplicaSet", |it| {
            it.replica_sets
                .iter_mut()
                .for_each(|set| set.failure = Some(evil()));
        }),
        ("a pod", |it| {
            it.new_pods.get_or_insert_default().trouble = Some(evil());
        }),
    ] {
        let mut world = serving();
        change(&mut world, "v2", harmless());
        go_on(&mut world, 2);
        let status = world.observation.status.clone();
        let hash = status.change.unwrap().pod_template_hash;
        let sets = world.observation.replica_sets.iter_mut();
        for set in sets.filter(|set| set.hash == hash) {
            (set.available, set.ready) = (0, 0);
        }
        edit(&mut world.observation);
        worlds.push((who, world));
    }
    for (who, world) in worlds {
        let texts = words(&decide(&world.observation));
        let quoted = texts.iter().filter(|it| it.contains("x\\u{1b}[2J"));
        assert!(quoted.count() > 0, "{who} is not quoted: {texts:?}");
        for text in texts {
            assert!(
                text.chars().count() < 2_100,
                "{who}: {} characters",
                text.chars().count()
            );
            assert!(!text.contains(is_invisible), "{who}: {text:?}");
        }
    }
}
