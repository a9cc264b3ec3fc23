//! The page of one Rollout: its change, what it may do next, its evidence, risk, gates and story.

use countersign_api::rollout::{Change, CheckEvidence};
use countersign_api::{Phase, RolloutRun};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use maud::{Markup, html};

use crate::commands::dashboard::action::Action;
use crate::commands::dashboard::addresses::Addresses;
use crate::commands::dashboard::chart;
use crate::commands::dashboard::frame::shown;
use crate::commands::dashboard::overview::class_of;
use crate::output::age;
use crate::view::difference::{Extent, difference};
use crate::view::{View, evidence, gates, observed, plan, tree};

/// A Rollout as it was last read.
pub struct Subject {
    /// The Rollout with its related objects.
    pub view: View,
    /// The record of its stable revision.
    pub stable_run: Option<Box<RolloutRun>>,
    /// The actions, each with what stands against it.
    pub actions: Vec<(Action, Option<String>)>,
    /// Why the page may be old, if so.
    pub problem: Option<String>,
}

/// The whole content.
#[must_use]
pub fn content(sections: &[Markup]) -> Markup {
    html! { @for section in sections { (section) } }
}

/// The parts of the page, of which each changes for itself. A part without content is there all the same, so
/// that it has its place once it has some.
#[must_use]
pub fn sections(subject: &Subject, addresses: &Addresses, now: Timestamp) -> Vec<Markup> {
    let view = &subject.view;
    let change = view.change();
    vec![
        summary(subject, change, now),
        actions(subject, addresses),
        part(
            "steps",
            "Plan and traffic",
            change.map(|it| steps(view, it, now)),
        ),
        part("evidence", "Evidence", change.and_then(checks)),
        part("gates", "Sign-offs", change.and_then(|it| people(view, it))),
        part("risk", "Risk", change.map(|it| risk(view, it))),
        part("observed", "Not enforced", change.and_then(would)),
        part(
            "difference",
            "Difference that is signed",
            change.map(|it| compared(subject, it)),
        ),
        part("story", "Story", change.map(story)),
        part("unread", "Not shown", unread(view)),
        part("text", "As text", Some(text(view, now))),
    ]
}

fn part(id: &str, heading: &str, content: Option<Markup>) -> Markup {
    let title = format!("{id}-title");
    html! {
        section id=(id) data-live aria-labelledby=(title) hidden[content.is_none()] {
            h2 id=(title) { (heading) }
            @if let Some(content) = content { (content) }
        }
    }
}

fn summary(subject: &Subject, change: Option<&Change>, now: Timestamp) -> Markup {
    let rollout = &subject.view.rollout;
    let status = rollout.status.clone().unwrap_or_default();
    let name = format!(
        "{}/{}",
        rollout.namespace().unwrap_or_default(),
        rollout.name_any()
    );
    let step = status
        .step
        .map(|step| format!(", step {step}"))
        .unwrap_or_default();
    let waits = status
        .waiting_for
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let news = format!("{name}: {:?}{step}{waits}", status.phase);
    html! {
        section #summary data-live data-news=(shown(&news)) aria-labelledby="name" {
            h1 #name { (shown(&name)) }
            @if let Some(problem) = &subject.problem {
                p.note.bad { strong { "This page may be old. " } (shown(problem)) }
            }
            p {
                span class=(class_of(status.phase)) { (format!("{:?}", status.phase)) }
                (shown(&step)) (shown(&waits))
            }
            p { (shown(&status.message)) }
            @if let Some(change) = change { (facts(&subject.view, change, now)) }
            @if status.phase == Phase::Stable && change.is_none() {
                p { "No change is under way." }
            }
        }
    }
}

fn facts(view: &View, change: &Change, now: Timestamp) -> Markup {
    let digest: String = change.digest.chars().take(12).collect();
    let joined = |names: &std::collections::BTreeSet<String>| {
        names
            .iter()
            .map(|name| shown(name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let images = view.run.iter().flat_map(|run| &run.spec.images);
    let images: Vec<_> = images.map(|image| shown(image)).collect();
    html! {
        dl {
            dt { "Change" }
            dd { "revision " (change.revision) ", digest " code { (digest) } ", run " code { (shown(&change.run)) } }
            @if let Some(begun) = &change.started_at {
                dt { "Begun" }
                dd { (age(begun.0, now)) " ago" @if let Some(outcome) = change.outcome { ", " (format!("{outcome:?}")) } }
            }
            @if !images.is_empty() { dt { "Images" } dd { (images.join(", ")) } }
            @if !change.contributor.is_empty() { dt { "Contributor" } dd { (shown(&change.contributor)) } }
            @if !change.changed_by.is_empty() { dt { "Changed by" } dd { (joined(&change.changed_by)) } }
            @if !change.excluded_approvers.users.is_empty() {
                dt { "Not to be signed by" }
                dd { (joined(&change.excluded_approvers.users)) }
            }
            @if let Some(person) = &change.paused_by { dt { "Paused by" } dd { (shown(person)) } }
        }
    }
}

fn actions(subject: &Subject, addresses: &Addresses) -> Markup {
    let rollout = &subject.view.rollout;
    let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
    let (open, closed): (Vec<_>, Vec<_>) = subject
        .actions
        .iter()
        .partition(|(_, obstacle)| obstacle.is_none());
    html! {
        section #actions data-live aria-labelledby="actions-title" hidden[subject.actions.is_empty()] {
            h2 #actions-title { "Actions" }
            @if !open.is_empty() {
                ul.actions {
                    @for (action, _) in open {
                        li {
                            a.button id=(format!("act-{}", action.name())) href=(addresses.rollout(&namespace, &name, &format!("/{}", action.name()))) {
                                (action.label()) "…"
                            }
                        }
                    }
                }
            }
            @if !closed.is_empty() {
                details #closed-actions {
                    summary #closed-summary { "Not possible now" }
                    ul.why {
                        @for (action, obstacle) in closed {
                            li { strong { (action.label()) } ": " (shown(obstacle.as_deref().unwrap_or_default())) }
                        }
                    }
                }
            }
        }
    }
}

fn steps(view: &View, change: &Change, now: Timestamp) -> Markup {
    let achieved = view
        .rollout
        .status
        .as_ref()
        .and_then(|status| status.weight);
    let last = plan::promotion_progress(change);
    html! {
        p {
            @if let Some(achieved) = achieved {
                "The canary has " strong { (achieved) "%" } " of the traffic and may have " (change.weight) "%. "
                (chart::bar(achieved))
            } @else {
                "The canary may have " (change.weight) "% of the traffic; how much it has is not known."
            }
        }
        ol.steps {
            @for (number, step) in (1_i32..).zip(&change.plan.steps) {
                @let progress = plan::progress(change, number);
                li class=(class(progress)) aria-current=[present(progress)] {
                    strong { "Step " (number) ": " (step.weight) "%" }
                    " " (progress.in_words()) ". "
                    (plan::needs(change, step, progress, now))
                }
            }
            li class=(class(last)) aria-current=[present(last)] {
                strong { "Promotion: 100%" } " " (last.in_words()) "."
            }
        }
        @if !change.plan.policies.is_empty() {
            p.dim { "By " (shown(&change.plan.policies.join(", "))) }
        }
    }
}

const fn class(progress: plan::Progress) -> &'static str {
    match progress {
        plan::Progress::Done => "done",
        plan::Progress::Present => "present",
        plan::Progress::Stopped => "stopped",
        plan::Progress::ToCome => "to-come",
    }
}

fn present(progress: plan::Progress) -> Option<&'static str> {
    (progress == plan::Progress::Present).then_some("step")
}

/// Each check with its lines and its chart; `None` before the canary had traffic.
fn checks(change: &Change) -> Option<Markup> {
    let lines = evidence::lines(change)?;
    let checks = change.evidence.checks.iter().map(Some);
    let checks = checks.chain(std::iter::repeat(None));
    Some(html! {
        @for ((number, (name, lines)), check) in (0_u32..).zip(lines).zip(checks) {
            h3 { (shown(&name)) }
            @for line in lines { p { (shown(&line)) } }
            @if let Some(check) = check {
                @if let Some(drawn) = chart::rates(check, change, &format!("check-{number}")) { (drawn) }
                @if let Some(drawn) = chart::evidence(check, change, &format!("check-{number}")) { (drawn) }
                (bounds(check))
            }
        }
    })
}

/// How far the two tests are from their bounds.
fn bounds(check: &CheckEvidence) -> Markup {
    let summary = &check.summary;
    let share = |value: f64, bound: f64| {
        let share = if bound > 0.0 { value / bound } else { 0.0 };
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a percentage between 0 and 100"
        )]
        let percent = (100.0 * share).clamp(0.0, 100.0).round() as i32;
        percent
    };
    let worse = share(summary.log10_worse, summary.rollback_at);
    let within = share(summary.log10_within_margin, summary.promote_at);
    let judged = summary.rollback_at > 0.0 && !check.windows.is_empty();
    html! {
        @if judged {
            dl {
                dt { "Worse than tolerated" }
                dd { (worse) "% of the evidence for a rollback " (chart::bar(worse)) }
                dt { "Within the margin of the next gate" }
                dd { (within) "% of the evidence that it needs " (chart::bar(within)) }
            }
        }
    }
}

fn people(view: &View, change: &Change) -> Option<Markup> {
    let gates = gates::gates(change, &view.sign_offs);
    let remarks = gates::remarks(change, &view.sign_offs);
    if gates.is_empty() && remarks.is_empty() {
        return None;
    }
    Some(html! {
        ul {
            @for gate in &gates { li { (shown(&gate.sentence())) } }
            @for remark in &remarks { li { (shown(remark)) } }
        }
    })
}

/// The risk as its contributions.
#[must_use]
pub fn risk(view: &View, change: &Change) -> Markup {
    let contributions: Vec<_> = view
        .run
        .iter()
        .flat_map(|run| run.spec.risk.contributions.clone())
        .collect();
    let bars = chart::waterfall(&contributions);
    html! {
        p { "Tier " strong { (change.tier) } ", " (format!("{:.1}", change.score)) " points. Five points double the odds." }
        @if !contributions.is_empty() {
            table {
                caption { "What contributes to it" }
                thead {
                    tr {
                        th scope="col" { "Factor" }
                        th.number scope="col" { "Points" }
                        th scope="col" { "Sum" }
                        th scope="col" { "Reason" }
                    }
                }
                tbody {
                    @for (contribution, bar) in contributions.iter().zip(&bars) {
                        tr {
                            th scope="row" { (shown(&contribution.factor)) }
                            td.number { (format!("{:+.1}", contribution.points)) }
                            td { (bar) }
                            td {
                                (shown(&contribution.reason))
                                @if let Some(tier) = contribution.floor { ", at least " (tier) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn would(change: &Change) -> Option<Markup> {
    let observed = change.observed.as_ref()?;
    Some(html! {
        p { (shown(&observed::heading(observed))) }
        ul { @for line in observed::lines(observed) { li { (shown(&line)) } } }
    })
}

/// The difference from the stable revision, whole.
#[must_use]
pub fn compared(subject: &Subject, change: &Change) -> Markup {
    let stable_run = subject.stable_run.as_deref();
    let compared = difference(&subject.view, change, stable_run, true);
    // The styles of the terminal are the only escapes in it: foreign ones are shown.
    let text = anstream::adapter::strip_str(&compared.text).to_string();
    html! {
        @if compared.extent != Extent::Whole {
            p.note.bad { "A part of the change is not shown, since it cannot be verified or is too large." }
        }
        pre #difference-text tabindex="0" role="region" aria-label="Difference" {
            @for line in text.lines() { span class=(class_of_line(line)) { (line) } }
        }
    }
}

fn class_of_line(line: &str) -> &'static str {
    if line.starts_with("--- ") || line.starts_with("+++ ") {
        return "head";
    }
    match line.chars().next() {
        Some('+') => "add",
        Some('-') => "del",
        _ => "",
    }
}

fn story(change: &Change) -> Markup {
    html! {
        ol {
            @for transition in &change.transitions { li { (shown(&tree::transition_line(transition))) } }
        }
    }
}

fn unread(view: &View) -> Option<Markup> {
    (!view.unread.is_empty()).then(|| {
        html! { ul { @for line in &view.unread { li { (shown(line)) } } } }
    })
}

/// What `status` shows, with revisions, pods and freezes.
fn text(view: &View, now: Timestamp) -> Markup {
    let text = tree::whole(view, now, true);
    html! {
        details #text-details {
            summary #text-summary { "What `kubectl countersign status` shows, with revisions, pods and freezes" }
            pre #text-pre tabindex="0" role="region" aria-label="Status as text" {
                (anstream::adapter::strip_str(&text).to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::dashboard::addresses::tests::addresses;
    use crate::view::tests::{at_rest, now, waiting};

    fn subject(view: View) -> Subject {
        let refused = "you lack the permission abort on rollouts".to_owned();
        Subject {
            view,
            stable_run: None,
            actions: vec![(Action::Approve, None), (Action::Abort, Some(refused))],
            problem: None,
        }
    }

    fn rendered(subject: &Subject) -> String {
        content(&sections(subject, &addresses(), now())).into_string()
    }

    #[test]
    fn a_change_that_waits_is_shown_with_its_reasons() {
        let html = rendered(&subject(waiting()));
        for part in [
            r#"data-news="shop/web: AwaitingSignOff, step 1/2: AwaitingSignOff""#,
            r#"<a class="button" id="act-approve" href="/secret/rollouts/shop/web/approve">Approve…</a>"#,
            "<strong>Abort</strong>: you lack the permission abort on rollouts",
            r#"aria-current="step"><strong>Step 1: 20%</strong> present. baked 5m, at least 100 requests</li>"#,
            "<h3>errors</h3>",
            "missing: 1 of approvers, 1 of senior",
            "<td class=\"number\">+7.5</td>",
            "touches auth, at least high",
            "ChangeStarted",
            "web-bbb222-x1: Ready",
        ] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
        assert!(
            !html.contains("style=") && !html.contains('\u{1b}'),
            "{html}"
        );
    }

    #[test]
    fn the_parts_are_the_same_at_rest_and_those_without_content_are_hidden() {
        let ids = |subject: &Subject| {
            let parts = sections(subject, &addresses(), now())
                .into_iter()
                .map(Markup::into_string);
            let ids = parts.map(|part| {
                part.split('"')
                    .find(|it| !it.contains('<'))
                    .map(str::to_owned)
            });
            ids.collect::<Vec<_>>()
        };
        let mut view = waiting();
        view.rollout = at_rest();
        let rest = subject(view);
        assert_eq!(ids(&rest), ids(&subject(waiting())));
        let html = rendered(&rest);
        assert!(
            html.contains(r#"aria-labelledby="risk-title" hidden>"#),
            "{html}"
        );
        assert!(html.contains("No change is under way."), "{html}");
    }

    #[test]
    fn a_share_that_is_not_known_is_not_shown_as_none() {
        let mut view = waiting();
        view.rollout.status.as_mut().unwrap().weight = None;
        let html = rendered(&subject(view));
        assert!(html.contains("how much it has is not known."), "{html}");
        assert!(!html.contains("<strong>0%</strong>"), "{html}");
    }

    #[test]
    fn nothing_foreign_becomes_markup() {
        let evil = "<img src=x onerror=alert(1)>\u{202e}\"'&";
        let mut view = waiting();
        let run = view.run.as_mut().unwrap();
        run.spec.images = vec![evil.into()];
        run.spec.risk.contributions[0].factor = evil.into();
        run.spec.risk.contributions[0].reason = evil.into();
        view.unread = vec![evil.into()];
        view.sign_offs[1].spec.approver.username = evil.into();
        let rollout = &mut view.rollout;
        rollout.metadata.name = Some(evil.into());
        rollout.spec.template.0["spec"]["containers"][0]["image"] = evil.into();
        let status = rollout.status.as_mut().unwrap();
        status.message = evil.into();
        status.waiting_for = Some(evil.into());
        let change = status.change.as_mut().unwrap();
        change.contributor = evil.into();
        change.changed_by = [evil.to_owned()].into();
        change.paused_by = Some(evil.into());
        change.transitions[0].message = evil.into();
        change.evidence.checks[0].name = evil.into();
        change.evidence.checks[0].summary.sentence = evil.into();
        let mut subject = subject(view);
        subject.problem = Some(evil.into());
        let html = rendered(&subject);
        assert!(
            !html.contains("<img") && !html.contains('\u{202e}'),
            "{html}"
        );
        assert!(
            html.contains("&lt;img src=x onerror=alert(1)&gt;\\u{202e}"),
            "{html}"
        );
    }
}
