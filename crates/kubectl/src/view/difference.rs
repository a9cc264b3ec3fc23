//! The difference between the stable revision and a change, as it is shown before signing.
//!
//! Pure. Both templates and the provenance of the change are verified by the digests in the status; the
//! provenance and the traffic of the stable revision are those of its RolloutRun, which only the controller
//! writes.

use std::collections::BTreeMap;

use countersign_api::rollout::Change;
use countersign_api::{PodTemplate, RolloutRun, TEMPLATE_ANNOTATION};
use countersign_core::diff::{self, Diff, Side};
use countersign_core::provenance::digest::{change_digest, template_digest};
use countersign_core::text::sanitize_to;
use kube::ResourceExt;
use serde_json::Value;

use crate::output::{Style, report};
use crate::view::View;

/// Lines that are shown without `--full`.
const FEW_LINES: usize = 120;
/// Characters of a line that are shown without `--full`.
const FEW_CHARACTERS: usize = 200;

/// How much of a difference is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Lines, or ends of lines, are missing; `--full` shows them.
    Cut,
    /// A part of the change cannot be verified, or is too large to be compared.
    Unknown,
}

/// A difference as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The text, sanitized.
    pub text: String,
    /// How much of the difference it is.
    pub extent: Extent,
}

/// The difference from the stable revision, whose RolloutRun is given, to a change.
#[must_use]
pub fn difference(
    view: &View,
    change: &Change,
    stable_run: Option<&RolloutRun>,
    full: bool,
) -> Shown {
    let status = view.rollout.status.as_ref();
    let stable = status.and_then(|status| status.stable.as_ref());
    let old = stable.and_then(|stable| template(view, stable_run, &stable.template_digest));
    let new = template(view, view.run.as_ref(), &change.template_digest);
    let provenance = new
        .as_ref()
        .and_then(|template| provenance(view, change, template));
    let mut missing = Vec::new();
    if new.is_none() {
        missing.push("its template: no object holds one with the digest of the change");
    } else if provenance.is_none() {
        missing.push("its provenance: no object holds one with the digest of the change");
    }
    let stable_side = Side {
        template: old.as_ref(),
        provenance: stable_run.map(|run| run.spec.provenance.annotations.clone()),
        traffic: stable_run.and_then(|run| run.spec.traffic.clone()),
    };
    let proposed = Side {
        template: new.as_ref(),
        provenance,
        traffic: Some(traffic(view, change)),
    };
    let diff = Diff::between(&stable_side, &proposed);

    let heading = match (stable, &old) {
        (None, _) => {
            "Difference: there is no stable revision, so all of the change is shown".into()
        }
        (Some(stable), Some(_)) => format!(
            "Difference from revision {}, whose template is verified by its digest",
            stable.revision
        ),
        (Some(stable), None) => format!(
            "Difference: the stable template, of revision {}, cannot be verified, so all of the proposed one is shown",
            stable.revision
        ),
    };
    let mut lines = vec![Style::Bold.paint(&heading)];
    for part in &missing {
        lines.push(Style::Waiting.paint(&format!("not shown is {part}")));
    }
    if diff.lines.is_empty() && missing.is_empty() {
        lines.push("nothing differs but Kubernetes' defaults".into());
    }
    let (shown, is_cut) = few_lines(&diff, full);
    lines.extend(shown);
    let extent = match (missing.is_empty() && !diff.too_large, is_cut) {
        (false, _) => Extent::Unknown,
        (true, true) => Extent::Cut,
        (true, false) => Extent::Whole,
    };
    Shown {
        text: lines.join("\n") + "\n",
        extent,
    }
}

/// The lines of a difference as they are printed, and whether any of them is missing or cut.
fn few_lines(diff: &Diff, full: bool) -> (Vec<String>, bool) {
    let (most, characters) = if full {
        (usize::MAX, usize::MAX)
    } else {
        (FEW_LINES, FEW_CHARACTERS)
    };
    let mut is_cut = false;
    let mut lines = Vec::new();
    for line in diff.lines.iter().take(most) {
        let shown = sanitize_to(line, characters);
        is_cut |= shown != *line;
        lines.push(style_of(line).paint(&shown));
    }
    let more = diff.lines.len().saturating_sub(most);
    if more > 0 {
        let more = report::number(more, "line");
        lines.push(format!("… and {more} more: --full shows all"));
        is_cut = true;
    } else if is_cut {
        lines.push("long lines are cut: --full shows them whole".into());
    }
    (lines, is_cut)
}

fn style_of(line: &str) -> Style {
    if line.starts_with("--- ") || line.starts_with("+++ ") {
        return Style::Bold;
    }
    match line.chars().next() {
        Some('+') => Style::Good,
        Some('-') => Style::Bad,
        Some('@') => Style::Dim,
        _ => Style::Plain,
    }
}

/// The template with this digest, if the Rollout, a RolloutRun or a ReplicaSet holds it.
fn template(view: &View, run: Option<&RolloutRun>, digest: &str) -> Option<PodTemplate> {
    let own = view.rollout.spec.template.clone();
    let recorded = run.and_then(|run| run.spec.template.clone());
    let of_sets = view.replica_sets.iter().filter_map(|set| {
        let kept = set.annotations().get(TEMPLATE_ANNOTATION)?;
        serde_json::from_str::<PodTemplate>(kept).ok()
    });
    let mut held = std::iter::once(own).chain(recorded).chain(of_sets);
    held.find(|template| template_digest(template) == digest)
}

/// The provenance of the change, if the Rollout holds what its digest is of. Else that of its RolloutRun, which only
/// the controller writes: of an adopted Deployment it is not read.
fn provenance(
    view: &View,
    change: &Change,
    template: &PodTemplate,
) -> Option<BTreeMap<String, String>> {
    let canary = &view.rollout.spec.strategy.canary;
    let annotations = view.rollout.annotations();
    if change_digest(template, annotations, canary) == change.digest {
        return Some(diff::provenance(annotations));
    }
    let recorded = recorded(view, change);
    recorded.map(|run| run.spec.provenance.annotations.clone())
}

/// Where the traffic of the change goes, by its RolloutRun, if there is one yet.
fn traffic(view: &View, change: &Change) -> Value {
    let recorded = recorded(view, change).and_then(|run| run.spec.traffic.clone());
    recorded.unwrap_or_else(|| diff::traffic(&view.rollout.spec.strategy.canary))
}

fn recorded<'a>(view: &'a View, change: &Change) -> Option<&'a RolloutRun> {
    view.run
        .as_ref()
        .filter(|run| run.spec.digest == change.digest)
}

#[cfg(test)]
mod tests;
