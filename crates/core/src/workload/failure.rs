//! How a container failed, with the end of its log.

use crate::limits::LOG_TAIL;
use crate::observation::workload::ContainerFailure;
use crate::text::sanitize_to;

/// How a container failed, in a sentence with the end of its log.
#[must_use]
pub fn describe(failed: &ContainerFailure) -> String {
    let words = match tail(&failed.message) {
        none if none.is_empty() => "it left no message".to_owned(),
        words => format!("its last output: {words}"),
    };
    format!(
        "container {} exited with {} ({}); {words}",
        sanitize_to(&failed.container, 63),
        failed.exit_code,
        sanitize_to(&failed.reason, 40)
    )
}

/// The end of a text in one line: the last lines of a failing test matter most.
pub(super) fn tail(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    let line = sanitize_to(&lines.join(" | "), usize::MAX);
    let from = line.len().saturating_sub(LOG_TAIL);
    match (from..line.len()).find(|at| line.is_char_boundary(*at)) {
        Some(0) | None => line,
        Some(at) => format!("…{}", line.get(at..).unwrap_or_default()),
    }
}
