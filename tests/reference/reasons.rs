//! `docs/reference/reasons.md`: every reason with its doc comment and its class.

use countersign_api::rollout::WindowState;
use countersign_core::reason::{Reason, Wait};

use crate::markdown::{cell, code, table};
use crate::source::{between, read};

const HEAD: &str = "# Reasons

Every reason of conditions, Events, transitions, metrics and `status.waitingFor`, generated. What to do about one is in
[Troubleshooting](../troubleshooting.md): a change that [is held](../troubleshooting.md#a-rollout-is-held), and one that [was
rolled back](../troubleshooting.md#a-rollout-was-rolled-back-why).

";
const WINDOWS: &str = "
## Analysis windows

The state of the newest window of a check, which is also a reason if a change waits for it.

";

pub fn page() -> String {
    let source = read("crates/core/src/reason.rs");
    let reasons = documented(between(&source, "\nreasons! {\n", "\n}\n"));
    let names: Vec<_> = reasons.iter().map(|(name, _)| name.as_str()).collect();
    let all: Vec<_> = Reason::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(names, all, "as the source is read");
    let rows = reasons
        .iter()
        .zip(Reason::ALL)
        .map(|((name, meaning), reason)| {
            let class = reason.class();
            let waits_for = waits_for(class.wait);
            [code(name), waits_for.to_owned(), cell(meaning)]
        });
    let rows: Vec<_> = rows.collect();

    let source = read("crates/api/src/rollout/evidence.rs");
    let states = documented(between(&source, "pub enum WindowState {\n", "\n}\n"));
    let states = states
        .iter()
        .filter(|(name, _)| Reason::parse(name).is_some());
    let windows: Vec<_> = states.map(|(name, it)| [code(name), cell(it)]).collect();
    assert_eq!(windows.len(), WindowState::ALL.len(), "{windows:?}");

    let reasons = table(["Reason", "Waits for", "Meaning"], &rows);
    let windows = table(["State", "Meaning"], &windows);
    format!("{HEAD}{reasons}{WINDOWS}{windows}")
}

/// The end of a wait, if the reason is that of a wait with a kind.
const fn waits_for(wait: Wait) -> &'static str {
    match wait {
        Wait::Pods => "pods",
        Wait::Traffic => "routers and Services",
        Wait::Smoke => "the smoke check",
        Wait::Hold => "the end of a hold that people request, or may have",
        Wait::Evidence => "evidence",
        Wait::Refusal => "a person: the Rollout is `Stalled`",
        Wait::Other => "",
    }
}

/// The names of a list of variants, each with its doc comment.
fn documented(variants: &str) -> Vec<(String, String)> {
    let mut comment = Vec::new();
    let mut documented = Vec::new();
    for line in variants.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            comment.push(text);
        } else if let Some((name, _)) = line.split_once([':', ',']) {
            documented.push((name.to_owned(), comment.join(" ")));
            comment.clear();
        }
    }
    documented
}
