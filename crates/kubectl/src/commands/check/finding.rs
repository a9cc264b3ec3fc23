//! What `check` finds, one sentence each.

use countersign_core::text::sanitize;
use serde::Serialize;

use crate::output::Style;

/// How a finding counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works in part, or could not be checked.
    Warning,
    /// It does not work; the exit code is 1.
    Failed,
}

impl Level {
    fn painted(self) -> String {
        let (style, text) = match self {
            Self::Ok => (Style::Good, "ok     "),
            Self::Warning => (Style::Waiting, "warning"),
            Self::Failed => (Style::Bad, "failed "),
        };
        style.paint(text)
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it counts.
    pub level: Level,
    /// What was checked, such as `definitions`.
    pub subject: String,
    /// The finding, and what to do if it is not ok.
    pub message: String,
}

impl Finding {
    /// A finding of this level.
    #[must_use]
    pub fn new(level: Level, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level,
            subject: subject.into(),
            message: message.into(),
        }
    }

    /// It is as it should be.
    #[must_use]
    pub fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, message)
    }

    /// It works in part, or could not be checked.
    #[must_use]
    pub fn warning(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Warning, subject, message)
    }

    /// It does not work.
    #[must_use]
    pub fn failed(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Failed, subject, message)
    }

    /// The finding as a line.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{}  {}: {}\n",
            self.level.painted(),
            sanitize(&self.subject),
            sanitize(&self.message)
        )
    }
}

/// Those that are not ok, each once, or else the good one.
#[must_use]
pub fn problems_or(mut problems: Vec<Finding>, good: Finding) -> Vec<Finding> {
    problems.dedup();
    if problems.is_empty() {
        problems.push(good);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_that_controls_no_terminal() {
        let finding = Finding::failed("metrics", "no\u{1b}[2J series\nat all");
        let line = anstream::adapter::strip_str(&finding.line()).to_string();
        assert_eq!(line, "failed   metrics: no\\u{1b}[2J series at all\n");
    }

    #[test]
    fn without_a_problem_there_is_one_good_finding() {
        let good = || Finding::ok("a", "fine");
        assert_eq!(problems_or(Vec::new(), good()), [good()]);
        let problem = Finding::warning("a", "not readable");
        let problems = vec![problem.clone(), problem.clone()];
        assert_eq!(problems_or(problems, good()), [problem]);
    }
}
