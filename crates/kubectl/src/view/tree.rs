//! Renders a Rollout as a tree: change, risk, plan, revisions, evidence, gates, story.
//!
//! Pure: the same view at the same time gives the same text.

use countersign_api::rollout::Change;
use countersign_api::{FreezeAction, HASH_LABEL, Phase, REVISION_ANNOTATION, RolloutStatus};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::output::{Style, age, report};
use crate::view::gates::{self, Gate};
use crate::view::{View, evidence, observed, plan};
use countersign_core::text::sanitize;

/// Pods that are listed of each revision without `-o wide`.
const FEW_PODS: usize = 8;
/// Transitions that are listed without `-o wide`.
const FEW_TRANSITIONS: usize = 5;

/// A line with its children. The text is sanitized when it is drawn.
struct Branch {
    text: String,
    style: Style,
    children: Vec<Branch>,
}

impl Branch {
    fn new(text: impl Into<String>) -> Self {
        Self::styled(text, Style::Plain)
    }

    fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
            children: Vec::new(),
        }
    }

    fn with(self, children: Vec<Self>) -> Self {
        Self { children, ..self }
    }

    fn draw(&self, indent: &str, into: &mut String) {
        into.push_str(&self.style.paint(&sanitize(&self.text)));
        into.push('\n');
        for (index, child) in self.children.iter().enumerate() {
            let last = index + 1 == self.children.len();
            let (knot, below) = if last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            into.push_str(indent);
            into.push_str(knot);
            child.draw(&format!("{indent}{below}"), into);
        }
    }
}

/// The whole tree.
#[must_use]
pub fn whole(view: &View, now: Timestamp, wide: bool) -> String {
    let status = view.rollout.status.clone().unwrap_or_default();
    let mut sections = vec![state(&status)];
    if let Some(change) = view.change() {
        sections.push(change_section(view, change, now));
        sections.push(risk(view, change));
        sections.push(plan(change, now));
        sections.extend(not_enforced(change));
    }
    sections.push(revisions(view, &status, now, wide));
    if let Some(change) = view.change() {
        sections.extend(evidence::lines(change).map(|checks| section("Evidence", checks)));
        sections.extend(people(view, change));
    }
    sections.extend(freezes(view));
    if let Some(change) = view.change() {
        sections.push(story(change, wide));
    }
    sections.extend(unread(view));
    drawn(&headline(view, &status).with(sections))
}

/// The change to sign, with its risk, its evidence so far and its gates.
#[must_use]
pub fn to_sign(view: &View, change: &Change, now: Timestamp) -> String {
    let mut sections = vec![change_section(view, change, now), risk(view, change)];
    sections.extend(evidence::lines(change).map(|checks| section("Evidence", checks)));
    sections.extend(people(view, change));
    sections.extend(unread(view));
    let status = view.rollout.status.clone().unwrap_or_default();
    drawn(&headline(view, &status).with(sections))
}

fn drawn(root: &Branch) -> String {
    let mut text = String::new();
    root.draw("", &mut text);
    text
}

/// A heading over lines, each with lines of its own.
fn section(heading: &str, lines: Vec<(String, Vec<String>)>) -> Branch {
    let lines = lines
        .into_iter()
        .map(|(line, below)| Branch::new(line).with(below.into_iter().map(Branch::new).collect()));
    Branch::styled(heading, Style::Bold).with(lines.collect())
}

fn headline(view: &View, status: &RolloutStatus) -> Branch {
    let namespace = view.rollout.namespace().unwrap_or_default();
    let step = status.step.as_ref().map(|step| format!(", step {step}"));
    let weight = status.weight.map(|weight| format!(", weight {weight}%"));
    let text = format!(
        "Rollout {namespace}/{}: {:?}{}{}",
        view.rollout.name_any(),
        status.phase,
        step.unwrap_or_default(),
        weight.unwrap_or_default()
    );
    Branch::styled(text, style_of(status.phase))
}

fn style_of(phase: Phase) -> Style {
    match phase {
        Phase::Stable | Phase::Promoted => Style::Good,
        Phase::Progressing => Style::Plain,
        Phase::Held | Phase::AwaitingSignOff => Style::Waiting,
        Phase::RollingBack | Phase::Degraded => Style::Bad,
    }
}

fn state(status: &RolloutStatus) -> Branch {
    match (&status.waiting_for, status.message.is_empty()) {
        (Some(reason), _) => Branch::new(format!("{reason}: {}", status.message)),
        (None, true) => Branch::new("the controller has not seen it yet"),
        (None, false) => Branch::new(&status.message),
    }
}

fn change_section(view: &View, change: &Change, now: Timestamp) -> Branch {
    let digest: String = change.digest.chars().take(12).collect();
    let begun = change.started_at.as_ref().map(|at| age(at.0, now));
    let begun = begun.map_or_else(String::new, |age| format!(", begun {age} ago"));
    let ended = change.outcome.map(|outcome| format!(", {outcome:?}"));
    let text = format!(
        "Change: revision {}, digest {digest}, run {}{begun}{}",
        change.revision,
        change.run,
        ended.unwrap_or_default()
    );
    let images = view.run.iter().flat_map(|run| &run.spec.images);
    let mut lines: Vec<_> = images.map(|image| format!("image {image}")).collect();
    if !change.changed_by.is_empty() {
        lines.push(format!("changed by {}", joined(&change.changed_by)));
    }
    if !change.excluded_approvers.users.is_empty() {
        lines.push(format!(
            "not to be signed by {}",
            joined(&change.excluded_approvers.users)
        ));
    }
    if let Some(person) = &change.paused_by {
        lines.push(format!("paused by {person}"));
    }
    Branch::styled(text, Style::Bold).with(lines.into_iter().map(Branch::new).collect())
}

fn joined(names: &std::collections::BTreeSet<String>) -> String {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    names.join(", ")
}

fn risk(view: &View, change: &Change) -> Branch {
    let contributor = if change.contributor.is_empty() {
        String::new()
    } else {
        format!(", contributor {}", change.contributor)
    };
    let text = format!(
        "Risk: {}, {:.1} points{contributor}",
        change.tier, change.score
    );
    let contributions = view.run.iter().flat_map(|run| &run.spec.risk.contributions);
    let lines = contributions.map(|contribution| {
        let floor = contribution
            .floor
            .map(|tier| format!(", at least {tier}"))
            .unwrap_or_default();
        Branch::new(format!(
            "{:+.1} {}: {}{floor}",
            contribution.points, contribution.factor, contribution.reason
        ))
    });
    Branch::styled(text, Style::Bold).with(lines.collect())
}

fn plan(change: &Change, now: Timestamp) -> Branch {
    let steps = change.plan.steps.iter().zip(1..).map(|(step, number)| {
        let progress = plan::progress(change, number);
        let text = format!(
            "{} step {number}: {}%, {}",
            progress.mark(),
            step.weight,
            plan::needs(change, step, progress, now)
        );
        Branch::styled(text, progress.style())
    });
    let last = plan::promotion_progress(change);
    let last = Branch::styled(format!("{} promotion: 100%", last.mark()), last.style());
    let policies = match change.plan.policies.as_slice() {
        [] => String::new(),
        policies => format!(" by {}", policies.join(", ")),
    };
    Branch::styled(format!("Plan{policies}"), Style::Bold).with(steps.chain([last]).collect())
}

/// What policies that only observe would have demanded.
fn not_enforced(change: &Change) -> Option<Branch> {
    let observed = change.observed.as_ref()?;
    let lines = observed::lines(observed).into_iter().map(Branch::new);
    Some(Branch::styled(observed::heading(observed), Style::Bold).with(lines.collect()))
}

/// More pods than requested exist while some of them terminate.
fn availability(available: i32, requested: i32) -> String {
    if available > requested {
        let available = report::number(available, "pod");
        format!("{available} available, {requested} requested")
    } else {
        format!(
            "{available} of {} available",
            report::number(requested, "pod")
        )
    }
}

fn revisions(view: &View, status: &RolloutStatus, now: Timestamp, wide: bool) -> Branch {
    let mut sets: Vec<_> = view
        .replica_sets
        .iter()
        .map(|set| (role(set, status), set))
        .filter(|(role, set)| wide || *role != Role::Old || pods_of(set).0 > 0)
        .collect();
    sets.sort_by_key(|(role, set)| (*role, -revision(set)));
    let lines = sets.into_iter().map(|(role, set)| {
        let hash = hash(set.labels());
        let (requested, available) = pods_of(set);
        let text = format!(
            "{}: revision {}, {}, {}",
            role.name(),
            number(role, set, status),
            set.name_any(),
            availability(available, requested)
        );
        let pods = view
            .pods
            .iter()
            .filter(|pod| self::hash(pod.labels()) == hash);
        Branch::new(text).with(pod_lines(pods.collect(), now, wide))
    });
    Branch::styled("Revisions", Style::Bold).with(lines.collect())
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Canary,
    Stable,
    Old,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Stable => "stable",
            Self::Old => "old",
        }
    }
}

fn role(set: &ReplicaSet, status: &RolloutStatus) -> Role {
    let hash = hash(set.labels());
    let is = |wanted: Option<&String>| wanted.is_some_and(|wanted| *wanted == hash);
    if is(status
        .stable
        .as_ref()
        .map(|stable| &stable.pod_template_hash))
    {
        Role::Stable
    } else if is(status
        .change
        .as_ref()
        .map(|change| &change.pod_template_hash))
    {
        Role::Canary
    } else {
        Role::Old
    }
}

/// The revision number for `undo`; a template that came back has a new number.
fn number(role: Role, set: &ReplicaSet, status: &RolloutStatus) -> i64 {
    let stable = status.stable.as_ref().map(|stable| stable.revision);
    let canary = status.change.as_ref().map(|change| change.revision);
    match role {
        Role::Stable => stable.unwrap_or_default(),
        Role::Canary => canary.unwrap_or_default(),
        Role::Old => revision(set),
    }
}

fn hash(labels: &std::collections::BTreeMap<String, String>) -> &str {
    labels.get(HASH_LABEL).map_or("", String::as_str)
}

fn revision(set: &ReplicaSet) -> i64 {
    let annotation = set.annotations().get(REVISION_ANNOTATION);
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Requested and available pods.
fn pods_of(set: &ReplicaSet) -> (i32, i32) {
    let requested = set.spec.replicas;
    let available = set
        .status
        .as_ref()
        .and_then(|status| status.available_replicas);
    (requested.unwrap_or(0), available.unwrap_or(0))
}

fn pod_lines(mut pods: Vec<&Pod>, now: Timestamp, wide: bool) -> Vec<Branch> {
    // Pods that are not ready come first.
    pods.sort_by_key(|pod| (is_ready(pod), pod.name_any()));
    let most = if wide { pods.len() } else { FEW_PODS };
    let more = pods.len().saturating_sub(most);
    let mut lines: Vec<_> = pods
        .iter()
        .take(most)
        .map(|pod| pod_line(pod, now))
        .collect();
    if more > 0 {
        lines.push(Branch::styled(format!("and {more} more"), Style::Dim));
    }
    lines
}

fn pod_line(pod: &Pod, now: Timestamp) -> Branch {
    let ready = is_ready(pod);
    let restarts = match restarts(pod) {
        0 => String::new(),
        1 => ", 1 restart".into(),
        count => format!(", {count} restarts"),
    };
    let age = pod
        .creation_timestamp()
        .map(|created| format!(", {}", age(created.0, now)));
    let text = format!(
        "{}: {}{restarts}{}",
        pod.name_any(),
        if ready { "Ready".into() } else { trouble(pod) },
        age.unwrap_or_default()
    );
    Branch::styled(text, if ready { Style::Plain } else { Style::Waiting })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn restarts(pod: &Pod) -> i32 {
    container_statuses(pod)
        .map(|status| status.restart_count)
        .sum()
}

fn container_statuses(
    pod: &Pod,
) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ContainerStatus> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten()
}

/// Why a pod is not ready, as in kubectl's STATUS column.
fn trouble(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".into();
    }
    let waiting = container_statuses(pod)
        .find_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
    waiting.unwrap_or_else(|| format!("{}, not ready", phase.unwrap_or_default()))
}

fn people(view: &View, change: &Change) -> Option<Branch> {
    let gates = gates::gates(change, &view.sign_offs);
    let mut lines: Vec<_> = gates.iter().map(gate_line).collect();
    let remarks = gates::remarks(change, &view.sign_offs);
    lines.extend(remarks.into_iter().map(Branch::new));
    (!lines.is_empty()).then(|| Branch::styled("Gates", Style::Bold).with(lines))
}

fn gate_line(gate: &Gate) -> Branch {
    let missing = gate.demands.iter().any(|demand| demand.missing() > 0);
    let style = match (gate.passed, missing) {
        (true, _) => Style::Dim,
        (false, true) => Style::Waiting,
        (false, false) => Style::Good,
    };
    Branch::styled(gate.sentence(), style)
}

fn freezes(view: &View) -> Option<Branch> {
    let lines: Vec<_> = view
        .freezes
        .iter()
        .map(|freeze| {
            let spec = &freeze.spec;
            let until = spec.until.as_ref().map_or_else(
                || "until it is deleted".to_owned(),
                |until| format!("until {:.0}", until.0),
            );
            let action = match spec.action {
                FreezeAction::Hold => "",
                FreezeAction::RollBack => ", rolls back changes in progress",
            };
            let (name, person) = (freeze.name_any(), &spec.person.username);
            let text = format!("{name} by {person}, {until}{action}: {}", spec.reason);
            Branch::styled(text, Style::Waiting)
        })
        .collect();
    (!lines.is_empty()).then(|| Branch::styled("Freezes", Style::Bold).with(lines))
}

fn story(change: &Change, wide: bool) -> Branch {
    let count = change.transitions.len();
    let skipped = if wide {
        0
    } else {
        count.saturating_sub(FEW_TRANSITIONS)
    };
    let lines = change
        .transitions
        .iter()
        .skip(skipped)
        .map(|transition| Branch::new(transition_line(transition)));
    let heading = if skipped > 0 {
        format!("Story, without the first {skipped} lines (all with -o wide)")
    } else {
        "Story".to_owned()
    };
    Branch::styled(heading, Style::Bold).with(lines.collect())
}

/// One line of a change's story.
#[must_use]
pub fn transition_line(transition: &countersign_api::rollout::Transition) -> String {
    let at = transition.at.as_ref().map(|at| format!("{:.0} ", at.0));
    format!(
        "{}{}: {}",
        at.unwrap_or_default(),
        transition.reason,
        transition.message
    )
}

fn unread(view: &View) -> Option<Branch> {
    let lines = view
        .unread
        .iter()
        .map(|line| Branch::styled(line, Style::Dim));
    (!view.unread.is_empty())
        .then(|| Branch::styled("Not shown", Style::Bold).with(lines.collect()))
}

#[cfg(test)]
mod tests;
