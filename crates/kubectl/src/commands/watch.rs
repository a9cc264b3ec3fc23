//! `watch`: watches one Rollout: redraws the tree on a terminal, prints lines elsewhere.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use countersign_api::{Rollout, SignOff};
use futures::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::{WatchStreamExt, watcher};

use crate::clock;
use crate::cluster::connection::Connection;
use crate::cluster::type_name;
use crate::commands::status::{PrintedTransitions, SETTLE, full_name, lasting};
use crate::failure::Failure;
use crate::output::{print, remark, try_print};
use crate::view::{View, tree};
use countersign_core::text::sanitize;

/// Watch one Rollout for changes, until it is deleted or Ctrl-C is pressed
#[derive(Clone, Debug, clap::Args)]
pub struct Watch {
    /// Name of the Rollout
    #[arg(value_parser = type_name::rollout)]
    rollout: String,
    /// Show all pods, revisions and transitions
    #[arg(long)]
    wide: bool,
}

/// An event of the watches.
pub enum Update {
    /// The Rollout as it is now.
    Rollout(Box<Rollout>),
    /// The Rollout was deleted.
    Deleted,
    /// A SignOff of the namespace was created, answered or deleted.
    SignOff,
    /// A watch failed, and is repeated.
    Trouble(watcher::Error),
}

/// The events of a Rollout and of the SignOffs of its namespace.
pub fn updates(connection: &Connection, rollout: &str) -> impl Stream<Item = Update> + use<> {
    let rollout = watcher::watch_object(connection.here::<Rollout>(), rollout);
    let rollout = rollout.default_backoff().map(|event| match event {
        Ok(Some(rollout)) => Update::Rollout(Box::new(rollout)),
        Ok(None) => Update::Deleted,
        Err(error) => Update::Trouble(error),
    });
    // Without the right to watch SignOffs, only events of the Rollout cause a redraw.
    let sign_offs = watcher(connection.here::<SignOff>(), watcher::Config::default())
        .default_backoff()
        .filter_map(async |event| {
            matches!(
                event,
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_))
            )
            .then_some(Update::SignOff)
        });
    stream::select(rollout.boxed(), sign_offs.boxed())
}

/// Why a watch ended without Ctrl-C.
enum End {
    /// The Rollout was deleted.
    Deleted,
    /// The reader closed the output.
    Unread,
}

impl Watch {
    /// Watches the Rollout.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        connection.rollout(&self.rollout).await?; // fails early if the name is wrong
        let ended = if std::io::stdout().is_terminal() {
            let screen = Screen::open();
            let mut view = None;
            let ended =
                until_interrupted(Box::pin(self.draw(connection, &screen, &mut view))).await;
            drop(screen);
            if let Some(view) = &view {
                print(&self.frame(view));
            }
            ended
        } else {
            until_interrupted(self.print_lines(connection)).await
        };
        match ended.transpose()? {
            Some(End::Deleted) => {
                remark(&format!("Rollout {} was deleted", sanitize(&self.rollout)));
                Ok(ExitCode::FAILURE)
            }
            Some(End::Unread) | None => Ok(ExitCode::SUCCESS),
        }
    }

    /// Prints a line for each transition and for each new message.
    async fn print_lines(&self, connection: &Connection) -> Result<End, Failure> {
        let mut updates = std::pin::pin!(updates(connection, &self.rollout));
        let (mut printed, mut last) = (PrintedTransitions::default(), String::new());
        while let Some(update) = updates.next().await {
            match update {
                Update::Rollout(rollout) => {
                    let lines = printed.new_in(&rollout);
                    let lines = lines.iter().map(tree::transition_line);
                    let line = line(&rollout);
                    let moved = (line != last).then(|| line.clone());
                    last = line;
                    let lines: String = lines
                        .chain(moved)
                        .map(|line| sanitize(&line) + "\n")
                        .collect();
                    if try_print(&lines).is_err() {
                        return Ok(End::Unread);
                    }
                }
                Update::Deleted => return Ok(End::Deleted),
                Update::SignOff => {}
                Update::Trouble(error) => lasting(connection, &error)?,
            }
        }
        Ok(End::Unread)
    }

    /// Draws the tree at each event, and each second for its countdowns.
    async fn draw(
        &self,
        connection: &Connection,
        screen: &Screen,
        view: &mut Option<View>,
    ) -> Result<End, Failure> {
        let mut updates = std::pin::pin!(updates(connection, &self.rollout));
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            let event = tokio::select! {
                Some(event) = updates.next() => event,
                _ = second.tick() => {
                    if let Some(view) = view {
                        screen.draw(&self.frame(view));
                    }
                    continue;
                }
            };
            let mut rollout = view.as_ref().map(|view| view.rollout.clone());
            for event in std::iter::once(event).chain(settled(&mut updates).await) {
                match event {
                    Update::Rollout(newer) => rollout = Some(*newer),
                    Update::Deleted => return Ok(End::Deleted),
                    Update::SignOff => {}
                    Update::Trouble(error) => lasting(connection, &error)?,
                }
            }
            if let Some(rollout) = rollout {
                let newest = View::of(connection, rollout, clock::now()).await;
                screen.draw(&self.frame(&newest));
                *view = Some(newest);
            }
        }
    }

    fn frame(&self, view: &View) -> String {
        tree::whole(view, clock::now(), self.wide)
    }
}

/// The phase, step and message of a Rollout as one line.
fn line(rollout: &Rollout) -> String {
    let status = rollout.status.clone().unwrap_or_default();
    let step = status.step.map(|step| format!(", step {step}"));
    format!(
        "{}: {:?}{}: {}",
        full_name(rollout),
        status.phase,
        step.unwrap_or_default(),
        status.message
    )
}

/// The result of the future, or `None` on Ctrl-C.
async fn until_interrupted<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        result = future => Some(result),
        _ = tokio::signal::ctrl_c() => None,
    }
}

/// The events of the next moment, which are drawn together.
pub async fn settled(updates: &mut (impl Stream<Item = Update> + Unpin)) -> Vec<Update> {
    tokio::time::sleep(SETTLE).await;
    let mut more = Vec::new();
    while let Some(Some(event)) = updates.next().now_or_never() {
        more.push(event);
    }
    more
}

/// The terminal's alternate screen; dropping it restores the normal screen.
struct Screen {
    colours: ColorChoice,
}

impl Screen {
    fn open() -> Self {
        control("\u{1b}[?1049h\u{1b}[?25l");
        Self {
            colours: AutoStream::choice(&std::io::stdout()),
        }
    }

    /// Draws over the last frame, so that the screen does not flicker.
    fn draw(&self, text: &str) {
        control(&redrawn(text, self.colours));
    }
}

/// A frame that clears the rest of the last one. Without colours, the codes that move the cursor remain.
fn redrawn(text: &str, colours: ColorChoice) -> String {
    let text = match colours {
        ColorChoice::Never => strip_str(text).to_string(),
        _ => text.to_owned(),
    };
    format!("\u{1b}[H{}\u{1b}[J", text.replace('\n', "\u{1b}[K\n"))
}

impl Drop for Screen {
    fn drop(&mut self) {
        control("\u{1b}[?25h\u{1b}[?1049l");
    }
}

/// Writes control codes to the terminal unfiltered.
fn control(code: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(code.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::waiting;

    #[test]
    fn a_rollout_is_shown_in_one_line() {
        assert_eq!(
            line(&waiting().rollout),
            "shop/web: AwaitingSignOff, step 1/2: sign-off by 2 people of approvers and by 1 person of senior"
        );
    }

    #[test]
    fn a_frame_clears_the_last_one_also_without_colours() {
        let text = "\u{1b}[32mgreen\u{1b}[0m\n";
        assert_eq!(
            redrawn(text, ColorChoice::Never),
            "\u{1b}[Hgreen\u{1b}[K\n\u{1b}[J"
        );
        assert!(redrawn(text, ColorChoice::Auto).contains("\u{1b}[32m"));
    }
}
