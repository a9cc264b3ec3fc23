//! Asks for confirmation.

use std::io::{IsTerminal, Write};

/// Why a command was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// The standard input is no terminal.
    #[error("cannot ask for confirmation without a terminal: add --yes")]
    NobodyToAsk,
    /// The answer was no, or none.
    #[error("cancelled: the answer was not yes")]
    NotConfirmed,
}

/// Whether a user can answer at a terminal.
#[must_use]
pub fn somebody_is_there() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks for confirmation at the terminal.
pub fn confirm(question: &str) -> Result<(), Unconfirmed> {
    if !somebody_is_there() {
        return Err(Unconfirmed::NobodyToAsk);
    }
    let mut out = anstream::stderr();
    let question = format!("{question} [y/N] ");
    let _ = out
        .write_all(question.as_bytes())
        .and_then(|()| out.flush());
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && is_yes(&answer) {
        Ok(())
    } else {
        Err(Unconfirmed::NotConfirmed)
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(is_yes("y\n") && is_yes(" YES \n"));
        assert!(!is_yes("\n") && !is_yes("yep") && !is_yes(""));
    }
}
