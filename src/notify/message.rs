//! A message: what happened, or how things are, in the form that every channel is written from.

use countersign_api::Tier;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A change waits for people.
    AwaitingSignOff,
    /// A change has been held for long.
    Held,
    /// No sign-off counts for a change that needs some.
    SignOffsUnproven,
    /// A Freeze is in force.
    FreezeBegan,
    /// A Freeze has ended.
    FreezeEnded,
    /// A person broke the glass.
    BreakGlass,
    /// A change was rolled back.
    RolledBack,
    /// A change was promoted.
    Promoted,
    /// A test of a channel.
    Test,
}

/// How much a message demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must act.
    Critical,
}

impl Severity {
    /// The word, as in Prometheus' alerts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Kind {
    /// The word, in ids, alerts and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingSignOff => "AwaitingSignOff",
            Self::Held => "Held",
            Self::SignOffsUnproven => "SignOffsUnproven",
            Self::FreezeBegan => "FreezeBegan",
            Self::FreezeEnded => "FreezeEnded",
            Self::BreakGlass => "BreakGlass",
            Self::RolledBack => "RolledBack",
            Self::Promoted => "Promoted",
            Self::Test => "Test",
        }
    }

    /// The type of its CloudEvent.
    #[must_use]
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::AwaitingSignOff => "dev.countersign.rollout.awaitingsignoff.v1",
            Self::Held => "dev.countersign.rollout.held.v1",
            Self::SignOffsUnproven => "dev.countersign.rollout.signoffsunproven.v1",
            Self::FreezeBegan => "dev.countersign.freeze.began.v1",
            Self::FreezeEnded => "dev.countersign.freeze.ended.v1",
            Self::BreakGlass => "dev.countersign.rollout.breakglass.v1",
            Self::RolledBack => "dev.countersign.rollout.rolledback.v1",
            Self::Promoted => "dev.countersign.rollout.promoted.v1",
            Self::Test => "dev.countersign.notify.test.v1",
        }
    }

    /// Whether it is true at one moment, and not for as long as something lasts.
    #[must_use]
    pub const fn is_event(self) -> bool {
        match self {
            Self::AwaitingSignOff | Self::Held | Self::SignOffsUnproven | Self::FreezeBegan => {
                false
            }
            Self::FreezeEnded
            | Self::BreakGlass
            | Self::RolledBack
            | Self::Promoted
            | Self::Test => true,
        }
    }

    /// Whether it is not sent later than a day after it happened. Who knows of a Freeze learns of its end however late.
    #[must_use]
    pub const fn expires(self) -> bool {
        self.is_event() && !matches!(self, Self::FreezeEnded)
    }

    /// Whether the default channels get it, too, whatever its Rollout chooses: who writes a Rollout must not be able to
    /// hide that its gates were passed by, or cannot be opened.
    #[must_use]
    pub const fn concerns_everybody(self) -> bool {
        matches!(self, Self::BreakGlass | Self::SignOffsUnproven)
    }

    /// How much it demands.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::FreezeBegan | Self::FreezeEnded | Self::Promoted | Self::Test => Severity::Info,
            Self::AwaitingSignOff | Self::Held | Self::BreakGlass | Self::RolledBack => {
                Severity::Warning
            }
            Self::SignOffsUnproven => Severity::Critical,
        }
    }
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The same for the same transition, however often it is sent: the uid of the object and the transition.
    pub id: String,
    /// What it is about.
    pub kind: Kind,
    /// When it happened or began.
    pub at: Timestamp,
    /// The object.
    pub subject: Subject,
    /// What is so, in a sentence without invisible characters.
    pub text: String,
    /// What to type next.
    pub command: Option<String>,
    /// The channels that the Rollout chooses; `None` if it chooses none.
    pub chosen: Option<Vec<String>>,
}

/// The object of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// One attempt at a change of a Rollout.
    Attempt(Box<Attempt>),
    /// A Freeze, by its name.
    Freeze(String),
    /// The installation.
    Installation,
}

/// One attempt at a change of a Rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The namespace.
    pub namespace: String,
    /// The Rollout.
    pub rollout: String,
    /// Its RolloutRun.
    pub run: String,
    /// The number of the revision.
    pub revision: i64,
    /// The change, by its digest.
    pub digest: String,
    /// Its tier.
    pub tier: Tier,
    /// Its risk in one line.
    pub risk: String,
    /// The images of its pods.
    pub images: Vec<String>,
    /// Whether it is the first revision.
    pub is_first: bool,
}

impl Message {
    /// What happened to which object, in one line without foreign text.
    #[must_use]
    pub fn title(&self) -> String {
        let (namespace, name) = match &self.subject {
            Subject::Attempt(attempt) => (attempt.namespace.as_str(), attempt.rollout.as_str()),
            Subject::Freeze(name) => ("", name.as_str()),
            Subject::Installation => ("", ""),
        };
        match self.kind {
            Kind::AwaitingSignOff => format!("Rollout {namespace}/{name} waits for people"),
            Kind::Held => format!("Rollout {namespace}/{name} is held"),
            Kind::SignOffsUnproven => {
                format!("No sign-off counts for Rollout {namespace}/{name}")
            }
            Kind::FreezeBegan => format!("Freeze {name} is in force"),
            Kind::FreezeEnded => format!("Freeze {name} has ended"),
            Kind::BreakGlass => format!("Somebody broke the glass for Rollout {namespace}/{name}"),
            Kind::RolledBack => format!("Rollout {namespace}/{name} was rolled back"),
            Kind::Promoted => format!("Rollout {namespace}/{name} was promoted"),
            Kind::Test => "A test of this channel".to_owned(),
        }
    }

    /// The attempt, if the message is about one.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        match &self.subject {
            Subject::Attempt(attempt) => Some(attempt),
            Subject::Freeze(_) | Subject::Installation => None,
        }
    }

    /// The fields as JSON, which CloudEvents and webhooks share; `null` where a message has none.
    #[must_use]
    pub fn fields(&self, cluster: &str) -> Value {
        let change = self.attempt().map(|attempt| {
            json!({
                "namespace": attempt.namespace,
                "rollout": attempt.rollout,
                "run": attempt.run,
                "revision": attempt.revision,
                "digest": attempt.digest,
                "tier": attempt.tier.as_str(),
                "risk": attempt.risk,
                "images": attempt.images,
            })
        });
        let freeze = match &self.subject {
            Subject::Freeze(name) => Some(name),
            Subject::Attempt(_) | Subject::Installation => None,
        };
        json!({
            "cluster": cluster,
            "kind": self.kind.as_str(),
            "severity": self.kind.severity().as_str(),
            "title": self.title(),
            "text": self.text,
            "command": self.command,
            "change": change,
            "freeze": freeze,
        })
    }
}
