//! What every page has around its content.

use countersign_core::text::sanitize;
use maud::{DOCTYPE, Markup, html};

use crate::commands::dashboard::addresses::Addresses;

/// The style of all pages.
pub const STYLE: &str = include_str!("style.css");
/// The script of all pages: it takes the place of reloading.
pub const SCRIPT: &str = include_str!("page.js");

/// The icon of all pages.
pub const ICON: &str = include_str!("icon.svg");

/// What a page says of itself.
pub struct Frame<'a> {
    /// The addresses of the pages.
    pub addresses: &'a Addresses,
    /// Its title.
    pub title: &'a str,
    /// The cluster, as the kubeconfig names it, and the namespaces.
    pub place: &'a str,
    /// The user, as the API server knows them.
    pub user: &'a str,
    /// The address of its events, if it changes.
    pub events: Option<&'a str>,
    /// Whether nothing can be changed here.
    pub read_only: bool,
}

/// Foreign text: its invisible characters are shown; its markup is escaped where it is put into a page.
#[must_use]
pub fn shown(text: &str) -> String {
    sanitize(text)
}

/// A whole page.
#[must_use]
pub fn page(frame: &Frame<'_>, content: &Markup) -> Markup {
    let at = |path: &str| frame.addresses.at(path);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (shown(frame.title)) " – Countersign" }
                link rel="icon" href=(at("/icon.svg"));
                link rel="stylesheet" href=(at("/style.css"));
                script src=(at("/page.js")) defer {}
            }
            body data-events=[frame.events] {
                a.skip href="#main" { "Skip to the content" }
                header {
                    nav aria-label="Pages" {
                        a.home href=(at("/")) { "Countersign" }
                        a href=(at("/")) { "Rollouts" }
                        @if !frame.read_only {
                            a href=(at("/freeze")) { "Freeze" }
                        }
                    }
                    p.place {
                        span { (shown(frame.place)) }
                        span { "as " strong { (shown(frame.user)) } }
                        @if frame.read_only {
                            span { "read-only" }
                        }
                        @if frame.events.is_some() {
                            span #connection { "not live: this page needs its script for that" }
                        }
                    }
                }
                main #main tabindex="-1" { (content) }
                p #news role="status" aria-live="polite" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::dashboard::addresses::tests::addresses;

    #[test]
    fn foreign_text_is_escaped_and_all_of_it_is_seen() {
        let addresses = addresses();
        let frame = Frame {
            addresses: &addresses,
            title: "<script>alert(1)</script>",
            place: "context \"><img src=x onerror=alert(1)>",
            user: "bob\u{202e}\u{1b}[2J",
            events: Some("/events?text=\"><b>"),
            read_only: true,
        };
        let html = page(&frame, &html! { p { "content" } }).into_string();
        assert!(!html.contains("<script>") && !html.contains("<img") && !html.contains("<b>"));
        assert!(html.contains("bob\\u{202e}\\u{1b}[2J"), "{html}");
        assert!(html.contains("&lt;script&gt;"), "{html}");
        assert!(!html.contains("/freeze"), "{html}");
    }

    #[test]
    fn no_page_names_an_address_outside() {
        for text in [STYLE, SCRIPT] {
            assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("//cdn"));
            assert!(!text.contains("url("), "{text}");
        }
    }
}
