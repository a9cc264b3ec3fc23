//! The steps of a plan, how far a change has come, and what each needs.

use countersign_api::rollout::{Change, Outcome, Stage};
use countersign_api::step::Step;
use countersign_core::change;
use k8s_openapi::jiff::Timestamp;

use crate::output::{Style, report};

/// The progress of a change at one of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Past it.
    Done,
    /// At it.
    Present,
    /// The change ended there.
    Stopped,
    /// Not there yet.
    ToCome,
}

impl Progress {
    /// The state as one character.
    #[must_use]
    pub const fn mark(self) -> char {
        match self {
            Self::Done => '✔',
            Self::Present => '▶',
            Self::Stopped => '✘',
            Self::ToCome => '·',
        }
    }

    /// The state in words.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Present => "present",
            Self::Stopped => "stopped",
            Self::ToCome => "to come",
        }
    }

    /// The state as a style of the terminal.
    #[must_use]
    pub const fn style(self) -> Style {
        match self {
            Self::Done => Style::Dim,
            Self::Present => Style::Waiting,
            Self::Stopped => Style::Bad,
            Self::ToCome => Style::Plain,
        }
    }
}

/// The progress at a step, counted from 1.
#[must_use]
pub fn progress(change: &Change, number: i32) -> Progress {
    let ended = change
        .outcome
        .is_some_and(|outcome| outcome != Outcome::Promoted);
    let all_steps = matches!(change.stage, Stage::Promoting | Stage::Promoted);
    match number.cmp(&change.step) {
        std::cmp::Ordering::Less => Progress::Done,
        _ if all_steps => Progress::Done,
        std::cmp::Ordering::Equal if ended => Progress::Stopped,
        std::cmp::Ordering::Equal => Progress::Present,
        std::cmp::Ordering::Greater => Progress::ToCome,
    }
}

/// The progress at the promotion.
#[must_use]
pub fn promotion_progress(change: &Change) -> Progress {
    match change.stage {
        Stage::Promoting => Progress::Present,
        Stage::Promoted => Progress::Done,
        _ => Progress::ToCome,
    }
}

/// The bake of a step and the requests that it needs, in words.
#[must_use]
pub fn needs(change: &Change, step: &Step, progress: Progress, now: Timestamp) -> String {
    let bake = match progress {
        Progress::Present => present_bake(change, step, now),
        _ => format!("bake {}", step.bake),
    };
    match step.min_requests {
        0 => bake,
        least => format!("{bake}, at least {}", report::number(least, "request")),
    }
}

fn present_bake(change: &Change, step: &Step, now: Timestamp) -> String {
    if change.bake_skipped == Some(change.step) {
        return "the rest of its bake is skipped".into();
    }
    match change::bake_ends(change) {
        None => format!("bake {} once its pods are available", step.bake),
        Some(end) if end <= now => format!("baked {}", step.bake),
        Some(end) => {
            let left = end.duration_since(now).as_secs().max(0);
            let left = countersign_api::Duration::seconds(u64::try_from(left).unwrap_or(0));
            format!("bakes until {end:.0}, {left} left")
        }
    }
}
