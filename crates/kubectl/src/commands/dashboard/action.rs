//! What a person may do to a change: its permissions, its effect, whether it applies, and the object for it.

use std::time::Duration;

use countersign_api::{
    Freeze, Intervention, InterventionAction, Person, Rollout, SignOff, SignOffDecision,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::cluster::access::Need;
use crate::cluster::answer::{Answer, answer};
use crate::cluster::change::Aim;
use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::cluster::write::DryRun;
use crate::commands::intervene;
use crate::commands::sign_off::Decided;
use crate::failure::Failure;
use crate::output::{Format, document};
use crate::view::gates;

/// How long a page waits for the controller's answer; a running one answers within two seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// An action on a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sign it off.
    Approve,
    /// Reject it.
    Reject,
    /// Skip the rest of a bake.
    Promote,
    /// Hold it.
    Pause,
    /// End the hold.
    Resume,
    /// Roll it back.
    Abort,
    /// Try it again.
    Retry,
}

/// What creates a Freeze.
pub const FREEZES: Need = ("create", "freezes");

impl Action {
    /// All, in the order of a page.
    pub const ALL: [Self; 7] = [
        Self::Approve,
        Self::Reject,
        Self::Promote,
        Self::Pause,
        Self::Resume,
        Self::Abort,
        Self::Retry,
    ];

    /// The action of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Its name, which is the plugin's command.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Retry => "retry",
        }
    }

    /// Its name as the label of a button.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Approve => "Approve",
            Self::Reject => "Reject",
            Self::Promote => "Promote",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::Abort => "Abort",
            Self::Retry => "Retry",
        }
    }

    /// What it does, in a sentence.
    #[must_use]
    pub const fn effect(self) -> &'static str {
        match self {
            Self::Approve => {
                "Signs off exactly the change that is shown here. If the template or the provenance is edited afterwards, the sign-off does not count."
            }
            Self::Reject => "Rejects the change, which is rolled back.",
            Self::Promote => {
                "Skips the rest of the current step's bake, but no other gate and no analysis."
            }
            Self::Pause => {
                "Holds the change at its current step. It is still analysed, and rolled back if it fails."
            }
            Self::Resume => "Lets a paused change continue.",
            Self::Abort => "Rolls the change back.",
            Self::Retry => "Tries the change that was rolled back again, from its first step.",
        }
    }

    /// The permissions that it needs.
    #[must_use]
    pub const fn needs(self) -> [Need; 2] {
        match self {
            Self::Approve | Self::Reject => [("create", "signoffs"), ("approve", "rollouts")],
            _ => [("create", "interventions"), (self.name(), "rollouts")],
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Approve => Kind::Decision(SignOffDecision::Approve),
            Self::Reject => Kind::Decision(SignOffDecision::Reject),
            Self::Promote => Kind::Command(InterventionAction::Promote),
            Self::Pause => Kind::Command(InterventionAction::Pause),
            Self::Resume => Kind::Command(InterventionAction::Resume),
            Self::Abort => Kind::Command(InterventionAction::Abort),
            Self::Retry => Kind::Command(InterventionAction::Retry),
        }
    }

    /// Why it does not apply to the Rollout now, if so.
    #[must_use]
    pub fn obstacle(self, rollout: &Rollout, now: Timestamp) -> Option<String> {
        let aim = Aim {
            rollout: rollout.name_any(),
            run: None,
            digest: None,
        };
        let object = self.object(rollout, aim, None, None, Person::default(), now);
        object.err().map(|failure| failure.to_string())
    }

    /// The object for the change that the aim names, in the name of a person.
    pub fn object(
        self,
        rollout: &Rollout,
        aim: Aim,
        gate: Option<&str>,
        reason: Option<String>,
        person: Person,
        now: Timestamp,
    ) -> Result<Object, Failure> {
        match self.kind() {
            Kind::Decision(decision) => {
                let decided = Decided::at_gate(decision, aim, gate, reason)?;
                let change = decided.change(rollout)?;
                let sign_off = decided.sign_off(rollout, change, person);
                Ok(Object::SignOff(sign_off))
            }
            Kind::Command(action) => {
                let change = intervene::fitting(&aim, action, rollout, now)?;
                let made = intervene::intervention(action, rollout, change, reason, person);
                Ok(Object::Intervention(made))
            }
        }
    }
}

/// The kind of object that an action creates.
enum Kind {
    Decision(SignOffDecision),
    Command(InterventionAction),
}

/// An object of a person.
#[derive(Clone, Debug)]
pub enum Object {
    /// Of `approve` and `reject`.
    SignOff(SignOff),
    /// Of the other actions on a change.
    Intervention(Intervention),
    /// Of `freeze`.
    Freeze(Freeze),
}

impl Object {
    /// The object as YAML.
    #[must_use]
    pub fn yaml(&self) -> String {
        let text = match self {
            Self::SignOff(object) => document(object, Format::Yaml),
            Self::Intervention(object) => document(object, Format::Yaml),
            Self::Freeze(object) => document(object, Format::Yaml),
        };
        text.unwrap_or_else(|error| error.to_string())
    }

    /// Its kind and its name, if it has one yet.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::SignOff(object) => format!("SignOff {}", object.name_any()),
            Self::Intervention(object) => format!("Intervention {}", object.name_any()),
            Self::Freeze(object) => format!("Freeze {}", object.name_any()),
        }
    }

    /// The object as a dry run answered it, without the fields that the API server sets again when it is created.
    #[must_use]
    pub fn before_creation(mut self) -> Self {
        let metadata = match &mut self {
            Self::SignOff(object) => &mut object.metadata,
            Self::Intervention(object) => &mut object.metadata,
            Self::Freeze(object) => &mut object.metadata,
        };
        if metadata.generate_name.is_some() {
            metadata.name = None;
        }
        metadata.uid = None;
        metadata.creation_timestamp = None;
        self
    }

    /// When it ends, if it does.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Freeze(object) => object.spec.until.as_ref().map(|until| until.0),
            Self::SignOff(_) | Self::Intervention(_) => None,
        }
    }

    /// Creates it in the user's name; in a dry run the API server checks it alone.
    pub async fn create(&self, connection: &Connection, dry_run: DryRun) -> Result<Self, Refusal> {
        Ok(match self {
            Self::SignOff(object) => {
                let objects = connection.here::<SignOff>();
                Self::SignOff(dry_run.create(connection, &objects, object).await?)
            }
            Self::Intervention(object) => {
                let objects = connection.here::<Intervention>();
                Self::Intervention(dry_run.create(connection, &objects, object).await?)
            }
            Self::Freeze(object) => {
                let objects = connection.cluster::<Freeze>();
                Self::Freeze(dry_run.create(connection, &objects, object).await?)
            }
        })
    }

    /// Waits for the controller's answer; nobody answers a Freeze.
    pub async fn answer(&self, connection: &Connection) -> Option<Answer> {
        let timeout = ANSWER_TIMEOUT;
        match self {
            Self::SignOff(object) => {
                let name = object.name_any();
                let objects = connection.here::<SignOff>();
                Some(answer(objects, &name, gates::verdict, timeout).await)
            }
            Self::Intervention(object) => {
                let name = object.name_any();
                let objects = connection.here::<Intervention>();
                Some(answer(objects, &name, intervene::applied, timeout).await)
            }
            Self::Freeze(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{at_rest, now, sign_off, waiting};

    fn person() -> Person {
        Person {
            username: "bob".into(),
            groups: vec!["approvers".into()],
        }
    }

    #[test]
    fn each_action_has_its_verb_and_its_object_names_the_exact_change() {
        let rollout = waiting().rollout;
        for action in Action::ALL {
            assert_eq!(Action::named(action.name()), Some(action));
            let verb = match action {
                Action::Approve | Action::Reject => "approve",
                other => other.name(),
            };
            assert_eq!(action.needs()[1], (verb, "rollouts"));
            if action.obstacle(&rollout, now()).is_some() {
                continue;
            }
            let aim = Aim {
                rollout: "web".into(),
                run: None,
                digest: None,
            };
            let why = Some("why".to_owned());
            let made = action.object(&rollout, aim, None, why, person(), now());
            let yaml = made.unwrap().yaml();
            for part in ["run: web-1a2b3c4d5e-7", "reason: why", "username: bob"] {
                assert!(yaml.contains(part), "{yaml}");
            }
        }
    }

    #[test]
    fn what_does_not_apply_is_explained() {
        let obstacle = |action: Action, rollout: &Rollout| action.obstacle(rollout, now());
        let rollout = waiting().rollout;
        assert_eq!(obstacle(Action::Approve, &rollout), None);
        assert_eq!(obstacle(Action::Abort, &rollout), None);
        let retry = obstacle(Action::Retry, &rollout).unwrap();
        assert!(retry.contains("nothing to retry"), "{retry}");
        for action in Action::ALL {
            let why = obstacle(action, &at_rest()).unwrap();
            assert!(why.contains("no change in progress"), "{why}");
        }
    }

    #[test]
    fn what_a_dry_run_made_up_is_not_shown_as_what_will_be() {
        let mut made = sign_off("bob", &["approvers"], None, "True", "Counts");
        made.metadata.generate_name = Some("web-".into());
        made.metadata.name = Some("web-x7k2p".into());
        made.metadata.uid = Some("of-the-dry-run".into());
        let yaml = Object::SignOff(made).before_creation().yaml();
        for part in ["x7k2p", "of-the-dry-run", "creationTimestamp"] {
            assert!(!yaml.contains(part), "{part} is in {yaml}");
        }
        assert!(yaml.contains("generateName: web-"), "{yaml}");
    }

    #[test]
    fn a_change_that_was_edited_since_it_was_shown_is_refused() {
        let aim = Aim {
            rollout: "web".into(),
            run: Some("web-1a2b3c4d5e-7".into()),
            digest: Some("0".repeat(64)),
        };
        let rollout = waiting().rollout;
        let approve = Action::Approve;
        let made = approve.object(&rollout, aim, None, None, person(), now());
        let why = made.unwrap_err().to_string();
        assert!(why.contains("is at another change now"), "{why}");
    }
}
