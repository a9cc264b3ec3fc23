//! A report as a table.

use std::collections::BTreeMap;

use countersign_core::text::sanitize;

use crate::commands::report::summary::{Caught, Summary, Sums};
use crate::output;
use crate::output::report::number;

/// Most policies and namespaces that are listed, those with most changes first.
const MOST_GROUPS: usize = 10;
/// Most rolled-back changes that are listed, the newest.
const MOST_CAUGHT: usize = 20;

/// The whole report.
#[must_use]
pub fn table(summary: &Summary) -> String {
    let total = &summary.total;
    let mut text = format!(
        "{} that policies only observed, begun since {:.0}\n",
        number(total.changes, "change"),
        summary.since
    );
    if total.changes > 0 {
        text.push('\n');
        text.push_str(&by_tier(summary));
        text.push_str(&groups("POLICY", &summary.policies));
        text.push_str(&groups("NAMESPACE", &summary.namespaces));
        text.push_str(&reasons(&summary.reasons));
        text.push_str(&caught(&summary.caught));
    }
    text + &incomplete(summary.incomplete.len())
}

fn incomplete(rollouts: usize) -> String {
    if rollouts == 0 {
        return String::new();
    }
    let rollouts = number(rollouts, "Rollout");
    format!(
        "\nOlder records of {rollouts} were removed, so changes are missing: a larger spec.revisionHistoryLimit keeps more\n"
    )
}

const COLUMNS: [&str; 8] = [
    "CHANGES",
    "WAIT-FOR-PEOPLE",
    "MORE-STEPS",
    "OTHER-HOLDS",
    "ADDED-TIME",
    "MEDIAN",
    "ROLLED-BACK",
    "AFTER-A-WAIT",
];

fn heading(first: &'static str) -> Vec<&'static str> {
    std::iter::once(first).chain(COLUMNS).collect()
}

fn row(name: &str, sums: &Sums) -> Vec<String> {
    vec![
        name.to_owned(),
        sums.changes.to_string(),
        sums.people.to_string(),
        sums.more_steps.to_string(),
        sums.held.to_string(),
        sums.added_time.to_string(),
        sums.median_added_time.to_string(),
        sums.rolled_back.to_string(),
        sums.caught.to_string(),
    ]
}

fn by_tier(summary: &Summary) -> String {
    let tiers = countersign_api::Tier::ALL.iter();
    let tiers = tiers.filter_map(|tier| summary.tiers.get_key_value(tier.as_str()));
    let rows = tiers.map(|(tier, sums)| row(tier, sums));
    let rows: Vec<_> = rows.chain([row("all", &summary.total)]).collect();
    output::table(&heading("TIER"), &rows)
}

fn groups(first: &'static str, groups: &BTreeMap<String, Sums>) -> String {
    let mut largest: Vec<_> = groups.iter().collect();
    largest.sort_by_key(|(name, sums)| (std::cmp::Reverse(sums.changes), *name));
    largest.truncate(MOST_GROUPS);
    let rows: Vec<_> = largest.iter().map(|(name, sums)| row(name, sums)).collect();
    let more = match groups.len().saturating_sub(MOST_GROUPS) {
        0 => String::new(),
        more => format!("and {more} more\n"),
    };
    format!("\n{}{more}", output::table(&heading(first), &rows))
}

fn reasons(reasons: &BTreeMap<String, usize>) -> String {
    if reasons.is_empty() {
        return String::new();
    }
    let rows = reasons.iter();
    let rows: Vec<_> = rows
        .map(|(reason, count)| vec![reason.clone(), count.to_string()])
        .collect();
    format!(
        "\n{}",
        output::table(&["WOULD-HAVE-WAITED-FOR", "CHANGES"], &rows)
    )
}

fn caught(caught: &[Caught]) -> String {
    if caught.is_empty() {
        return String::new();
    }
    let lines = caught.iter().rev().take(MOST_CAUGHT).map(|it| {
        let line = format!(
            "  {} revision {}, tier {}: {} at weight {}%; {}",
            it.rollout,
            it.revision,
            it.tier,
            it.reason,
            it.weight,
            it.would.join("; ")
        );
        sanitize(&line) + "\n"
    });
    let more = match caught.len().saturating_sub(MOST_CAUGHT) {
        0 => String::new(),
        more => format!("  and {more} more\n"),
    };
    format!(
        "\nRolled back by their evidence, and treated otherwise if enforced:\n{}{more}",
        lines.collect::<String>()
    )
}
