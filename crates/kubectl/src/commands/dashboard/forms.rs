//! The pages on which a person acts: what is asked for, the exact object before it is created, and the answer.
//!
//! They are plain forms, which work without a script. The object is shown as the API server would store it,
//! since a dry run has asked it; the same fields, sent once more, create it.

use countersign_api::Tier;
use countersign_api::rollout::Change;
use kube::ResourceExt;
use maud::{Markup, html};

use crate::cluster::answer::{Answer, verdict};
use crate::commands::dashboard::action::{Action, Object};
use crate::commands::dashboard::detail::{Subject, compared, risk};
use crate::commands::dashboard::frame::shown;
use crate::view::gates;

/// Longest reason that the API server takes, in characters.
const LONGEST_REASON: u32 = 1024;

/// The fields of a form, as they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// The fields of the body of a request.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// The value of a field without blanks around it, if it is not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// All values of a field.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.trim())
    }

    /// The same fields as hidden inputs, confirmed.
    fn confirmed(&self) -> Markup {
        html! {
            @for (name, value) in &self.0 { input type="hidden" name=(name) value=(value); }
            input type="hidden" name="confirmed" value="yes";
        }
    }
}

/// The secret of the forms, and where a form is sent.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The address that takes the form.
    pub address: &'a str,
    /// The token of the forms.
    pub token: &'a str,
    /// The page to return to.
    pub back: &'a str,
}

/// The form of an action on the change that is shown.
#[must_use]
pub fn asks(action: Action, subject: &Subject, change: &Change, target: Target<'_>) -> Markup {
    html! {
        h1 { (action.label()) " " (shown(&subject.view.rollout.name_any())) }
        p { (action.effect()) }
        @if action == Action::Approve { (seen(subject, change)) }
        form method="post" action=(target.address) {
            input type="hidden" name="token" value=(target.token);
            input type="hidden" name="run" value=(change.run);
            input type="hidden" name="digest" value=(change.digest);
            @if action == Action::Approve { (gate(change)) }
            (reason())
            p {
                button type="submit" { "Show the exact change" }
                " " a.button.plain href=(target.back) { "Back" }
            }
        }
    }
}

/// What a signer sees: the difference and the risk.
fn seen(subject: &Subject, change: &Change) -> Markup {
    html! {
        h2 { "Difference that is signed" }
        (compared(subject, change))
        h2 { "Risk" }
        (risk(&subject.view, change))
    }
}

fn gate(change: &Change) -> Markup {
    let gates = gates::gates(change, &[]);
    let open = gates.into_iter().filter(|gate| !gate.passed);
    let evidence = (change.step > 0).then(|| format!("evidence-{}", change.step));
    html! {
        label for="gate" { "Gate" }
        select id="gate" name="gate" {
            option value="" { "every gate except those for scarce evidence" }
            @for gate in open { option value=(gate.name) { (gate.name) } }
            @if let Some(gate) = evidence { option value=(gate) { (gate) ": accept scarce evidence" } }
        }
    }
}

fn reason() -> Markup {
    html! {
        label for="reason" { "Reason, which is recorded" }
        textarea id="reason" name="reason" required maxlength=(LONGEST_REASON) autocomplete="off" {}
    }
}

/// The form of a freeze.
#[must_use]
pub fn asks_freeze(namespace: Option<&str>, target: Target<'_>) -> Markup {
    html! {
        h1 { "Freeze promotions" }
        p { "Promotions wait until the freeze ends. Rollbacks and analysis continue." }
        form method="post" action=(target.address) {
            input type="hidden" name="token" value=(target.token);
            label for="namespace" { "Namespace; all namespaces if empty" }
            input type="text" id="namespace" name="namespace" value=(namespace.unwrap_or_default()) autocomplete="off";
            label for="length" { "Duration, such as 2h; without one it lasts until `kubectl countersign unfreeze`" }
            input type="text" id="length" name="length" autocomplete="off";
            fieldset {
                legend { "Tiers; all if none is chosen" }
                @for tier in Tier::ALL {
                    label { input type="checkbox" name="tier" value=(tier.as_str()); " " (tier.as_str()) }
                }
            }
            fieldset {
                legend { "Changes in progress" }
                label { input type="checkbox" name="roll-back" value="yes"; " Roll them back instead of holding them" }
            }
            (reason())
            p {
                button type="submit" { "Show the exact change" }
                " " a.button.plain href=(target.back) { "Back" }
            }
        }
    }
}

/// The object as the API server would store it, to be created by the same fields. What is counted from now on, the
/// end of a freeze, is a field too: it does not move until the user has confirmed it.
#[must_use]
pub fn confirms(heading: &str, object: &Object, fields: &Fields, target: Target<'_>) -> Markup {
    html! {
        h1 { (shown(heading)) ": the exact change" }
        p {
            "The API server has checked this object and stored nothing yet. It is created in your name; the API server \
            then adds the rest of its name, its uid and the time of its creation."
        }
        (yaml(object))
        form method="post" action=(target.address) {
            (fields.confirmed())
            @if let Some(until) = object.until() { input type="hidden" name="until" value=(until.to_string()); }
            p {
                button #create type="submit" { "Create this object" }
                " " a.button.plain href=(target.back) { "Back" }
            }
        }
    }
}

/// The object that was created, with the controller's answer.
#[must_use]
pub fn created(object: &Object, answer: Option<&Answer>, target: Target<'_>) -> Markup {
    html! {
        h1 { (shown(&object.title())) " is created" }
        (answered(answer))
        (yaml(object))
        p { a.button #back href=(target.back) { "Back" } }
    }
}

fn answered(answer: Option<&Answer>) -> Markup {
    let (class, text) = match answer {
        None => return html! {},
        Some(Answer::Set(condition)) => {
            let class = if condition.status == "True" {
                "note good"
            } else {
                "note bad"
            };
            let why = [condition.reason.as_str(), condition.message.as_str()];
            let why = why.into_iter().filter(|it| !it.is_empty());
            let why: Vec<_> = why.collect();
            (class, format!("{}: {}", verdict(condition), why.join(": ")))
        }
        Some(Answer::Late) => (
            "note",
            "The controller has not answered yet; the object remains and still takes effect. Is the operator running?".to_owned(),
        ),
        Some(Answer::Deleted) => (
            "note bad",
            "The object was deleted before the controller had answered.".to_owned(),
        ),
        Some(Answer::Unreadable(why)) => {
            ("note", format!("The object cannot be read back: {why}"))
        }
    };
    html! { p #answer class=(class) { (shown(&text)) } }
}

/// Why nothing was created.
#[must_use]
pub fn refused(heading: &str, why: &str, target: Target<'_>) -> Markup {
    html! {
        h1 { (shown(heading)) ": nothing is changed" }
        p #refusal class="note bad" { (shown(why)) }
        p { a.button #back href=(target.back) { "Back" } }
    }
}

fn yaml(object: &Object) -> Markup {
    let text = object.yaml();
    html! {
        pre #object tabindex="0" role="region" aria-label="The object as YAML" {
            @for line in text.lines() { span { (shown(line)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_api::Person;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;
    use crate::commands::freeze::Freeze;
    use crate::view::tests::{now, sign_off, waiting};

    const TARGET: Target<'static> = Target {
        address: "/rollouts/shop/web/approve",
        token: "secret",
        back: "/rollouts/shop/web",
    };

    #[test]
    fn a_form_is_bound_to_the_change_that_it_shows() {
        let subject = Subject {
            view: waiting(),
            stable_run: None,
            actions: Vec::new(),
            problem: None,
        };
        let change = subject.view.change().unwrap();
        let html = asks(Action::Approve, &subject, change, TARGET).into_string();
        for part in [
            r#"<form method="post" action="/rollouts/shop/web/approve">"#,
            r#"<input type="hidden" name="token" value="secret">"#,
            r#"name="run" value="web-1a2b3c4d5e-7""#,
            r#"name="digest" value="1a2b3c4d5e6f7a8b"#,
            r#"<option value="step-2">step-2</option>"#,
            r#"<option value="evidence-1">"#,
            "required",
            "aiShare",
        ] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
        let html = asks(Action::Abort, &subject, change, TARGET).into_string();
        assert!(!html.contains("select") && html.contains("Rolls the change back."));
    }

    #[test]
    fn what_is_confirmed_is_what_was_sent() {
        let fields = Fields::read(b"reason=a+%26+b&tier=low&tier=high&empty=+&token=secret");
        assert_eq!(fields.get("reason"), Some("a & b"));
        assert_eq!(fields.get("empty"), None);
        assert_eq!(fields.all("tier").collect::<Vec<_>>(), ["low", "high"]);
        let object = Object::SignOff(sign_off("bob", &["approvers"], None, "True", "Counts"));
        let html = confirms("Approve", &object, &fields, TARGET).into_string();
        assert!(
            html.contains(r#"name="reason" value="a &amp; b""#),
            "{html}"
        );
        assert!(html.contains(r#"name="confirmed" value="yes""#), "{html}");
        assert!(html.contains("<span>  decision: Approve</span>"), "{html}");
    }

    #[test]
    fn a_freeze_that_is_confirmed_ends_when_it_was_shown_to_end() {
        let length = "2h".parse().ok();
        let freeze = Freeze::of("why".into(), None, length, Vec::new(), false);
        let freeze = freeze.object(None, Person::default(), now()).unwrap();
        let object = Object::Freeze(freeze);
        let fields = Fields::read(b"length=2h");
        let html = confirms("Freeze", &object, &fields, TARGET).into_string();
        assert!(
            html.contains(r#"name="until" value="2026-03-01T14:10:00Z""#),
            "{html}"
        );
    }

    #[test]
    fn the_answer_of_the_controller_is_shown() {
        let condition = Condition {
            type_: "Counts".into(),
            status: "False".into(),
            reason: "ByAuthor".into(),
            message: "alice is an <author>".into(),
            observed_generation: None,
            last_transition_time: Time(now()),
        };
        let html = answered(Some(&Answer::Set(condition))).into_string();
        assert!(
            html.contains("it does not count: ByAuthor: alice is an &lt;author&gt;"),
            "{html}"
        );
        assert!(answered(None).into_string().is_empty());
    }
}
