//! The page of all Rollouts: what waits for this person, and a table with a filter.

use countersign_api::Phase;
use k8s_openapi::jiff::Timestamp;
use maud::{Markup, html};

use crate::commands::dashboard::addresses::Addresses;
use crate::commands::dashboard::fleet::{Fleet, Query, Row, Selected};
use crate::commands::dashboard::frame::shown;
use crate::commands::dashboard::queue::{MOST, Waiting};
use crate::output::age;
use crate::output::report::number;

/// Every phase, in the order of the filter.
const PHASES: [Phase; 7] = [
    Phase::AwaitingSignOff,
    Phase::Held,
    Phase::Progressing,
    Phase::RollingBack,
    Phase::Degraded,
    Phase::Promoted,
    Phase::Stable,
];

/// The class of a phase, for its colour; its name stands beside it.
#[must_use]
pub const fn class_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Stable | Phase::Promoted => "phase good",
        Phase::Progressing => "phase",
        Phase::Held | Phase::AwaitingSignOff => "phase wait",
        Phase::RollingBack | Phase::Degraded => "phase bad",
    }
}

/// The parts of the page that change.
#[must_use]
pub fn sections(
    fleet: &Fleet,
    mine: &Waiting,
    query: &Query,
    addresses: &Addresses,
    place: &str,
    now: Timestamp,
) -> Vec<Markup> {
    let selected = query.select(fleet);
    vec![
        problem(fleet),
        queue(mine, addresses),
        rollouts(fleet, &selected, query, addresses, place, now),
    ]
}

/// The whole content.
#[must_use]
pub fn content(sections: &[Markup], query: &Query, addresses: &Addresses) -> Markup {
    html! {
        h1 { "Rollouts" }
        @for section in sections.iter().take(2) { (section) }
        form.filter action=(addresses.at("/")) method="get" role="search" {
            label for="text" { "Name, namespace or message" }
            input type="search" id="text" name="text" value=(query.text);
            label for="phase" { "Phase" }
            select id="phase" name="phase" {
                option value="" { "all" }
                @for phase in PHASES {
                    @let name = format!("{phase:?}");
                    option value=(name) selected[name == query.phase] { (name) }
                }
            }
            button.plain type="submit" { "Filter" }
        }
        @for section in sections.iter().skip(2) { (section) }
    }
}

fn problem(fleet: &Fleet) -> Markup {
    html! {
        section #problem data-live data-news=[fleet.problem.as_deref().map(shown)] {
            @if let Some(problem) = &fleet.problem {
                p.note.bad { strong { "The list may be old. " } (shown(problem)) }
            }
        }
    }
}

/// How many changes wait, and if the count is of a part of them, of which.
fn sentence(mine: &Waiting) -> String {
    let found = match mine.rows.len() {
        0 => "Nothing waits for you".to_owned(),
        1 => "1 change waits for you".to_owned(),
        count => format!("{count} changes wait for you"),
    };
    match mine.unasked {
        0 => format!("{found}."),
        more => format!(
            "{found} among the first {MOST} that wait for people. {more} more are not looked at: the list below has all."
        ),
    }
}

fn queue(mine: &Waiting, addresses: &Addresses) -> Markup {
    let news = sentence(mine);
    html! {
        section #queue data-live data-news=(news) aria-labelledby="queue-title" {
            h2 #queue-title { "Waits for me" }
            p { (news) }
            @if !mine.rows.is_empty() {
                ul {
                    @for row in &mine.rows {
                        li {
                            a id=(format!("mine-{}-{}", row.namespace, row.name)) href=(addresses.rollout(&row.namespace, &row.name, "")) {
                                (row.namespace) "/" (row.name)
                            }
                            @if let Some(tier) = &row.tier { ", risk " (tier) }
                            @if !row.contributor.is_empty() { ", contributor " (shown(&row.contributor)) }
                            ": " (shown(&row.message))
                        }
                    }
                }
            }
        }
    }
}

fn rollouts(
    fleet: &Fleet,
    selected: &Selected,
    query: &Query,
    addresses: &Addresses,
    place: &str,
    now: Timestamp,
) -> Markup {
    let first = selected.page * crate::commands::dashboard::fleet::PAGE;
    let counted = match (selected.total, fleet.listed) {
        (0, false) if fleet.problem.is_none() => "The list is being read.".to_owned(),
        (0, _) => format!("There is no such Rollout: {place}."),
        (total, _) => format!(
            "{} to {} of {}, {place}",
            first + 1,
            first + selected.rows.len(),
            number(total, "Rollout")
        ),
    };
    html! {
        section #rollouts data-live aria-label="Rollouts" {
            table {
                caption { (shown(&counted)) }
                thead {
                    tr {
                        th scope="col" { "Rollout" }
                        th scope="col" { "Phase" }
                        th scope="col" { "Step" }
                        th.number scope="col" { "Weight" }
                        th scope="col" { "Risk" }
                        th scope="col" { "State" }
                        th scope="col" { "Age" }
                    }
                }
                tbody {
                    @for row in &selected.rows { (line(row, addresses, now)) }
                }
            }
            @if selected.pages > 1 { (pages(selected, query, addresses)) }
        }
    }
}

fn line(row: &Row, addresses: &Addresses, now: Timestamp) -> Markup {
    html! {
        tr {
            th scope="row" {
                a id=(format!("row-{}-{}", row.namespace, row.name)) href=(addresses.rollout(&row.namespace, &row.name, "")) {
                    (row.namespace) "/" (row.name)
                }
            }
            td class=(class_of(row.phase)) { (format!("{:?}", row.phase)) }
            td { (row.step.as_deref().map(shown).unwrap_or_default()) }
            td.number { @if let Some(weight) = row.weight { (weight) "%" } }
            td { (row.tier.as_deref().unwrap_or_default()) }
            td {
                @if let Some(reason) = &row.waiting_for { (shown(reason)) ": " }
                (shown(&row.message))
            }
            td { (row.created.map(|created| age(created, now)).unwrap_or_default()) }
        }
    }
}

fn pages(selected: &Selected, query: &Query, addresses: &Addresses) -> Markup {
    let to = |page: usize| addresses.at(&format!("/?{}", query.at(page)));
    html! {
        nav.pages aria-label="Pages of the list" {
            @if selected.page > 0 {
                a #earlier href=(to(selected.page - 1)) rel="prev" { "Previous page" }
            }
            span { "Page " (selected.page + 1) " of " (selected.pages) }
            @if selected.page + 1 < selected.pages {
                a #later href=(to(selected.page + 1)) rel="next" { "Next page" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::commands::dashboard::addresses::tests::addresses;
    use crate::commands::dashboard::fleet::tests::fleet_of;
    use crate::view::tests::{now, waiting};

    fn rendered(fleet: &Fleet, query: &str) -> String {
        let query = Query::read(Some(query));
        let mine = Waiting {
            rows: vec![Arc::new(Row::of(&waiting().rollout))],
            unasked: 0,
        };
        let to = addresses();
        let sections = sections(fleet, &mine, &query, &to, "in all namespaces", now());
        content(&sections, &query, &to).into_string()
    }

    #[test]
    fn a_thousand_rollouts_are_a_page_of_bounded_size() {
        let fleet = fleet_of(1_000);
        let html = rendered(&fleet, "");
        assert!(html.len() < 32 * 1024, "{} bytes", html.len());
        assert!(
            html.contains("1 to 50 of 1000 Rollouts, in all namespaces"),
            "{html}"
        );
        assert!(html.contains("Page 1 of 20"), "{html}");
        let last = rendered(&fleet, "page=19");
        assert!(last.contains("951 to 1000 of 1000 Rollouts"), "{last}");
        assert!(last.contains(r#"rel="prev""#) && !last.contains(r#"rel="next""#));
    }

    #[test]
    fn nothing_is_said_of_changes_that_were_not_looked_at() {
        let mut mine = Waiting {
            rows: Vec::new(),
            unasked: 0,
        };
        assert_eq!(sentence(&mine), "Nothing waits for you.");
        mine.unasked = 3;
        assert_eq!(
            sentence(&mine),
            "Nothing waits for you among the first 50 that wait for people. 3 more are not looked at: the list below has all."
        );
        mine.rows.push(Arc::new(Row::of(&waiting().rollout)));
        assert!(sentence(&mine).starts_with("1 change waits for you among the first 50 "));
    }

    #[test]
    fn what_waits_for_me_is_named_first_and_the_filter_is_kept() {
        let html = rendered(&fleet_of(3), "text=%22%3E%3Cb%3E&phase=Held");
        assert!(html.contains("1 change waits for you."), "{html}");
        assert!(
            html.contains(r#"href="/secret/rollouts/shop/web""#),
            "{html}"
        );
        assert!(html.contains(r#"value="&quot;&gt;&lt;b&gt;""#), "{html}");
        assert!(html.contains(r#"<option value="Held" selected>"#), "{html}");
        assert!(html.contains("There is no such Rollout: in all namespaces."));
    }
}
