use super::*;
use crate::view::tests::{at_rest, now, waiting};
use countersign_api::rollout::{Outcome, Stage};

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn a_change_that_waits_for_people_is_shown_whole() {
    let expected = "\
Rollout shop/web: AwaitingSignOff, step 1/2, weight 20%
├─ AwaitingSignOff: sign-off by 2 people of approvers and by 1 person of senior
├─ Change: revision 7, digest 1a2b3c4d5e6f, run web-1a2b3c4d5e-7, begun 10m ago
│  ├─ image example.org/web:v2
│  └─ changed by alice
├─ Risk: high, 12.5 points, contributor ai
│  ├─ +7.5 aiShare: 90 % of the lines are by an AI
│  └─ +5.0 touchesAuth: it touches auth, at least high
├─ Plan by shop@3
│  ├─ ▶ step 1: 20%, baked 5m, at least 100 requests
│  ├─ · step 2: 50%, bake 10m
│  └─ · promotion: 100%
├─ Revisions
│  ├─ canary: revision 7, web-bbb222, 1 of 1 pod available
│  │  └─ web-bbb222-x1: Ready, 9m
│  └─ stable: revision 6, web-aaa111, 4 of 4 pods available
│     └─ web-aaa111-y1: CrashLoopBackOff, 2 restarts, 26h
├─ Evidence
│  └─ errors
│     ├─ Scarce: canary 2.5% of 400 requests against stable 0.5% of 1,600: about 300 more requests are needed for this step, about 5 min at the present rate
│     ├─ error rate: canary 2.50% (0.97% to 5.35%), stable 0.50% (0.16% to 1.24%)
│     └─ last 4 windows: ▁▂█▄
├─ Gates
│  ├─ step-2: 1 of 2 people of approvers signed (bob), 0 of 1 person of senior signed; missing: 1 of approvers, 1 of senior
│  ├─ promotion: 0 of 1 person signed; missing: 1 with the role of an approver
│  └─ approval by alice does not count: ByAuthor: reported by the controller
├─ Freezes
│  └─ incident-42 by dave, until 2026-03-01T14:00:00Z: payments are down
└─ Story
   ├─ 2026-03-01T12:00:00Z ChangeStarted: tier high with 12.5 points; steps 20%, 50%
   └─ 2026-03-01T12:00:10Z StepStarted: all gates are open
";
    assert_eq!(plain(&whole(&waiting(), now(), false)), expected);
}

#[test]
fn at_rest_only_the_revisions_are_shown() {
    let mut view = waiting();
    view.rollout = at_rest();
    view.freezes.clear();
    view.pods.clear();
    view.unread = vec!["sign-offs: alice cannot list signoffs".into()];
    let text = plain(&whole(&view, now(), false));
    assert!(
        text.contains("├─ revision 6 serves\n├─ Revisions\n"),
        "{text}"
    );
    assert!(
        text.ends_with("└─ Not shown\n   └─ sign-offs: alice cannot list signoffs\n"),
        "{text}"
    );
    assert!(!text.contains("Gates"), "{text}");
}

#[test]
fn a_bake_counts_down_and_shows_when_it_is_skipped() {
    let mut view = waiting();
    let earlier: Timestamp = "2026-03-01T12:02:50Z".parse().unwrap();
    let text = plain(&whole(&view, earlier, false));
    assert!(
        text.contains("▶ step 1: 20%, bakes until 2026-03-01T12:06:00Z, 3m10s left"),
        "{text}"
    );
    let change = view
        .rollout
        .status
        .as_mut()
        .unwrap()
        .change
        .as_mut()
        .unwrap();
    change.bake_skipped = Some(1);
    let text = plain(&whole(&view, earlier, false));
    assert!(
        text.contains("20%, the rest of its bake is skipped"),
        "{text}"
    );
}

#[test]
fn where_it_was_rolled_back_the_step_is_marked() {
    let mut view = waiting();
    let change = view
        .rollout
        .status
        .as_mut()
        .unwrap()
        .change
        .as_mut()
        .unwrap();
    (change.outcome, change.stage) = (Some(Outcome::RolledBack), Stage::RolledBack);
    let text = plain(&whole(&view, now(), false));
    assert!(text.contains("✘ step 1: 20%"), "{text}");
    assert!(text.contains("begun 10m ago, RolledBack"), "{text}");
}

#[test]
fn nothing_from_the_cluster_acts_on_the_terminal() {
    let mut view = waiting();
    let evil = "x\u{1b}[2J\u{202e}\nRollout shop/web: Stable";
    view.rollout.metadata.name = Some(evil.into());
    view.run.as_mut().unwrap().spec.images = vec![evil.into()];
    view.unread = vec![evil.into()];
    view.freezes[0].spec.reason = evil.into();
    view.sign_offs[1].spec.approver.username = evil.into();
    view.pods[0].metadata.name = Some(evil.into());
    let status = view.rollout.status.as_mut().unwrap();
    status.message = evil.into();
    status.change.as_mut().unwrap().transitions[0].message = evil.into();
    let change = view.change().unwrap().clone();
    for text in [whole(&view, now(), true), to_sign(&view, &change, now())] {
        let text = plain(&text);
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(!text.contains('\u{202e}'));
        assert!(!text.lines().any(|line| line == "Rollout shop/web: Stable"));
    }
}

#[test]
fn long_lists_are_cut_unless_all_is_requested() {
    let mut view = waiting();
    view.pods = std::iter::repeat_n(view.pods[0].clone(), 20).collect();
    let change = view
        .rollout
        .status
        .as_mut()
        .unwrap()
        .change
        .as_mut()
        .unwrap();
    change.transitions = std::iter::repeat_n(change.transitions[0].clone(), 12).collect();
    let (few, all) = (
        plain(&whole(&view, now(), false)),
        plain(&whole(&view, now(), true)),
    );
    assert!(few.contains("and 12 more"), "{few}");
    assert!(few.contains("without the first 7 lines"), "{few}");
    assert_eq!(all.matches("ChangeStarted").count(), 12);
    assert!(!all.contains("more\n"), "{all}");
}

#[test]
fn what_is_signed_shows_risk_evidence_and_gates() {
    let view = waiting();
    let text = plain(&to_sign(&view, view.change().unwrap(), now()));
    for part in [
        "digest 1a2b3c4d5e6f",
        "image example.org/web:v2",
        "90 % of the lines are by an AI",
        "canary 2.5% of 400 requests",
        "missing: 1 of approvers, 1 of senior",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
