//! The result of the checks of the deployed revision.

use std::collections::BTreeSet;

use countersign_core::provenance::TestResult;

use super::facts::{Check, Facts, Outcome};
use super::problem::shown;

/// Most checks that a remark names.
const NAMED: usize = 5;

/// The result of the checks, if it is known, and remarks about what is left open.
pub(super) fn result(
    facts: &Facts,
    revision: &str,
    own: &[String],
) -> (Option<TestResult>, Vec<String>) {
    let (of_revision, of_others): (Vec<_>, Vec<_>) = facts
        .checks
        .values()
        .partition(|check| check.revision == revision);
    // The job that runs `stamp` cannot end before it.
    let is_own = |it: &Check| it.outcome == Outcome::Unfinished && own.contains(&it.name);
    let counted: Vec<_> = of_revision.into_iter().filter(|it| !is_own(it)).collect();
    let with = |outcome: Outcome| -> BTreeSet<String> {
        let checks = counted.iter().filter(|check| check.outcome == outcome);
        checks.map(|check| shown(&check.name)).collect()
    };
    let has = |outcome| !with(outcome).is_empty();
    if has(Outcome::Failed) {
        let remark = format!("checks failed: {}", listed(&with(Outcome::Failed)));
        return (Some(TestResult::Failed), vec![remark]);
    }
    let mut open = missing_pages(facts, revision);
    for (outcome, what) in [
        (
            Outcome::Unfinished,
            "checks are not finished: {}: run `stamp` after them; the job that runs it is named by --own-check",
        ),
        (
            Outcome::WithoutResult,
            "checks ended without a result, such as by being cancelled: {}: run them again",
        ),
    ] {
        if has(outcome) {
            open.push(what.replace("{}", &listed(&with(outcome))));
        }
    }
    if !open.is_empty() {
        return (None, open);
    }
    if has(Outcome::Warned) {
        let remark = format!(
            "checks that may fail failed: {}",
            listed(&with(Outcome::Warned))
        );
        (Some(TestResult::Warned), vec![remark])
    } else if has(Outcome::Passed) {
        (Some(TestResult::Passed), Vec::new())
    } else if let Some(other) = of_others.first() {
        let other = &other.revision;
        let remark = format!(
            "the checks of --event are those of revision {other}, not of {revision}: fetch those of the deployed revision"
        );
        (None, vec![remark])
    } else {
        let is_skipped = has(Outcome::Skipped);
        let remark = is_skipped.then(|| "all checks of --event were skipped".to_owned());
        (None, remark.into_iter().collect())
    }
}

/// Lists of which only some pages were passed: what they lack may have failed.
fn missing_pages(facts: &Facts, revision: &str) -> Vec<String> {
    let lists = facts.lists.iter();
    let of_revision = lists.filter(|list| list.revision.as_deref() == Some(revision));
    let short = of_revision.filter_map(|list| {
        let known = facts.checks.iter().filter(|(key, check)| {
            check.revision == revision && key.split(' ').next() == Some(list.kind)
        });
        let known = known.count() as u64;
        (known < list.total).then(|| {
            format!(
                "only {known} of {} checks are in the files of --event: fetch all pages, for instance with `gh api --paginate`",
                list.total
            )
        })
    });
    let short: BTreeSet<_> = short.collect();
    short.into_iter().collect()
}

fn listed(names: &BTreeSet<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let mut listed: Vec<_> = names.iter().take(NAMED).cloned().collect();
    if more > 0 {
        listed.push(format!("{more} more"));
    }
    listed.join(", ")
}
