//! The words that conditions, Events, records and metrics share, and what each of them means.

use std::fmt;

use countersign_api::Phase;
use countersign_api::rollout::WindowState;
use k8s_openapi::jiff::SignedDuration;

/// For how long a wait that every change has is left unsaid: most are over by then, and each costs a write
/// and an Event.
pub(crate) const SETTLE: SignedDuration = SignedDuration::from_secs(30);
/// The same for routers, which are quick, or there is something to be mended.
const ROUTED: SignedDuration = SignedDuration::from_secs(10);

/// Defines each reason once: its word is the variant's name, and what it means stands beside it.
macro_rules! reasons {
    ($($(#[$document:meta])* $name:ident: $class:expr,)*) => {
        /// Why something is as it is, in one word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$document])* $name,)*
            /// What a window of analysis gave.
            Window(WindowState),
        }

        impl Reason {
            /// Every reason but those of windows.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Window(state) => state.as_str(),
                }
            }

            /// What it means.
            #[must_use]
            pub const fn class(self) -> Class {
                match self {
                    $(Self::$name => $class,)*
                    Self::Window(state) => window(state),
                }
            }
        }
    };
}

reasons! {
    /// A change was seen and its plan made.
    ChangeStarted: START,
    /// A first revision gets its pods.
    FirstRevision: PLAIN,
    /// The next step was taken.
    StepStarted: STEP,
    /// All gates have passed; the canary grows to full size.
    Promoting: STEP,
    /// The change became the stable revision.
    Promoted: PLAIN,
    /// The last revision's pods are gone.
    Stable: PLAIN,
    /// The evidence says that the canary is worse.
    AnalysisFailed: WARNING,
    /// No progress for `progressDeadlineSeconds`.
    ProgressDeadlineExceeded: WARNING,
    /// Nobody signed or decided in time.
    WaitExpired: WARNING,
    /// Another change took its place.
    Superseded: PLAIN,
    /// The template went back to the stable one.
    Reverted: PLAIN,
    /// A policy was tightened while the change was under way.
    Tightened: PLAIN,
    /// The deadline for evidence was extended once.
    DeadlineExtended: PLAIN,
    /// Scarce but clean evidence was accepted at the deadline.
    ScarceEvidenceAccepted: PLAIN,
    /// The smoke check has succeeded.
    SmokePassed: PLAIN,
    /// The smoke check has failed, before there was any pod or traffic.
    SmokeFailed: WARNING,
    /// The canary's pods are gone.
    RolledBack: PLAIN,
    /// `spec.paused` is set.
    Paused: HOLD,
    /// The workload has no replicas, so nothing can be learnt.
    ScaledToZero: PLAIN,
    /// People must sign.
    AwaitingSignOff: PLAIN,
    /// Evidence is clean but scarce; a person must decide.
    AwaitingPerson: EVIDENCE,
    /// Evidence is clean but scarce.
    AwaitingEvidence: ROUTINE_EVIDENCE,
    /// No pod of the stable revision is available, and the canary serves in its place.
    StableUnavailable: PLAIN,
    /// A Service that the spec names no more selects the pods of every revision again.
    ServiceReleased: PLAIN,
    /// Pods are not available yet.
    AwaitingPods: PODS,
    /// The smoke check's Job has not ended yet.
    AwaitingSmoke: SMOKE,
    /// The step's time is not over.
    Baking: ROUTINE,
    /// The newest evidence is too old to decide on.
    EvidenceOutdated: PLAIN,
    /// A metric is out of bounds, but not for long enough to fail.
    OutOfBounds: EVIDENCE,
    /// A check fails by itself, but all of them together do not roll back yet.
    CheckFailing: EVIDENCE,
    /// Canary and stable both break the ceiling.
    StableAboveCeiling: PLAIN,
    /// A check cannot be asked: its template, an argument or its query is wrong.
    CheckInvalid: POLLED,
    /// An error budget burns too fast since the change began.
    ErrorBudgetBurn: WARNING,
    /// The error budget of an objective is spent.
    ErrorBudgetSpent: PLAIN,
    /// How an error budget stands cannot be told.
    ErrorBudgetUnknown: PLAIN,
    /// The promoted change is watched on.
    Watched: PLAIN,
    /// What broke after the promotion brought the previous revision back.
    Regressed: WARNING,
    /// The previous revision cannot come back, as its ReplicaSet is gone.
    PreviousMissing: WARNING,
    /// An advisory check fails.
    AdvisoryFailed: ADVISORY,
    /// There is no check and the tier is above low.
    NoChecks: REFUSAL,
    /// A Service that the Rollout names does not exist.
    ServiceNotFound: POLLED_REFUSAL,
    /// The kind of a route that the Rollout names is not installed.
    RouterNotInstalled: POLLED_REFUSAL,
    /// A route that the Rollout names does not exist.
    RouteNotFound: POLLED_REFUSAL,
    /// A route cannot be split as it is.
    RouteInvalid: POLLED_REFUSAL,
    /// The tier asks for routes and the Rollout names none.
    RouterRequired: REFUSAL,
    /// The routes do not have their weights yet, or their routers have not accepted them.
    AwaitingTraffic: TRAFFIC,
    /// Somebody else set the weights of a route, and they were set back.
    WeightsCorrected: PLAIN,
    /// A Rollout that this one depends on is not stable.
    AwaitingDependency: PLAIN,
    /// As many risky changes are under way as the policies allow.
    Queued: PLAIN,
    /// All new pods crash again and again.
    CrashLooping: WARNING,
    /// The API server takes no ReplicaSet with the new pod template.
    TemplateInvalid: TEMPLATE,
    /// The adopted workload cannot be used as it is.
    WorkloadInvalid: POLLED_REFUSAL,
    /// Somebody else scaled the adopted workload up, and it was scaled down again.
    WorkloadScaledDown: PLAIN,
    /// The Rollout takes over from the adopted workload.
    TakingOver: PLAIN,
    /// The Rollout serves in place of the adopted workload.
    TakenOver: PLAIN,
    /// An autoscaler aims at the adopted workload, which has no pods of its own any more.
    AutoscalerMisdirected: PLAIN,
    /// The Rollout is being deleted and gives its pods back.
    GivingBack: PROGRESSING,
    /// Another Rollout claims the same pods or Services.
    Conflict: CONFLICT,
    /// Another owns a ReplicaSet whose pods the Rollout selects.
    NotOwned: PLAIN,
    /// A policy that might govern the Rollout cannot be read.
    PolicyUnreadable: REFUSAL,
    /// The stable revision's ReplicaSet is gone.
    StableMissing: REFUSAL,
    /// A freeze is in force.
    Frozen: HOLD,
    /// What people want of the change cannot be read.
    RequestsUnreadable: POLLED,
    /// Whether a freeze is in force cannot be told.
    FreezeUnknown: HOLD,
    /// A freeze rolled the change back.
    RolledBackByFreeze: WARNING,
    /// A person signed the change off.
    SignedOff: PEOPLE,
    /// A person rejected the change.
    Rejected: WARNING,
    /// A person waved the change through without waiting and without sign-off.
    BreakGlass: BREAK_GLASS,
    /// A person aborted the change.
    Aborted: WARNING,
    /// A person asked to try a rolled-back change once more.
    Retried: PLAIN,
    /// A person skipped the rest of a bake.
    BakeSkipped: PEOPLE,
    /// A person paused the change.
    PausedByPerson: PAUSE,
    /// A person let a paused change go on.
    Resumed: PAUSE,
    /// A sign-off counts, or an intervention was done (condition on it).
    Counts: PLAIN,
    /// An intervention was done.
    Applied: PLAIN,
    /// It is for another change, another attempt or another Rollout of that name.
    OtherChange: PLAIN,
    /// Its time is over.
    Expired: PLAIN,
    /// It is by an author of the change, its AI's operator, or whoever changed the Rollout.
    ByAuthor: PLAIN,
    /// It is by a member of a group that stands for AI agents.
    ByAgent: PLAIN,
    /// It is by a service account or another user of the system.
    NotAPerson: PLAIN,
    /// The plan has no such gate.
    NoSuchGate: PLAIN,
    /// It is by somebody whose other sign-off counts already.
    SamePerson: PLAIN,
    /// The admission policies that prove who wrote it are missing or altered, or were when it was made.
    Unproven: PLAIN,
    /// There was nothing to do.
    NothingToDo: PLAIN,
}

/// What a reason means wherever it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Whether a person should look at the Event of a transition with it.
    pub warning: bool,
    /// What kind of transition it tells.
    pub line: Line,
    /// What kind of thing is waited for.
    pub wait: Wait,
    /// The phase of a Rollout that waits for it, unless people or time end the wait.
    pub phase: Phase,
    /// How soon a change that waits for it is looked at again.
    pub poll: Poll,
    /// For how long every change waits for it, which is no news; `None` where it is news at once.
    pub routine: Option<SignedDuration>,
}

/// Kinds of transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The change begins.
    Start,
    /// It goes a step further.
    Step,
    /// People stop it and let it go on, as often as they like.
    Pause,
    /// People sign and command.
    People,
    /// Somebody waves it through.
    BreakGlass,
    /// An advisory check fails, which ends nothing.
    Advisory,
    /// Everything else.
    Other,
}

/// Kinds of waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Pods.
    Pods,
    /// Routers and Services.
    Traffic,
    /// The smoke check.
    Smoke,
    /// People want it so, which holds a first revision, too.
    Hold,
    /// Evidence: its message has numbers of windows.
    Evidence,
    /// What only a person can mend: the Rollout is stalled.
    Refusal,
    /// Everything else.
    Other,
}

/// How soon a change is looked at again that waits in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// A watch reports it.
    Event,
    /// No watch reports it.
    Soon,
    /// Routers follow within moments.
    Traffic,
}

/// What a reason means where nothing else is said: a line that needs nobody, a wait that a watch ends, a
/// word of a condition or an answer.
const PLAIN: Class = Class {
    warning: false,
    line: Line::Other,
    wait: Wait::Other,
    phase: Phase::Held,
    poll: Poll::Event,
    routine: None,
};
const START: Class = Class {
    line: Line::Start,
    ..PLAIN
};
const STEP: Class = Class {
    line: Line::Step,
    ..PLAIN
};
const PAUSE: Class = Class {
    line: Line::Pause,
    ..PLAIN
};
const PEOPLE: Class = Class {
    line: Line::People,
    ..PLAIN
};
const WARNING: Class = Class {
    warning: true,
    ..PLAIN
};
const BREAK_GLASS: Class = Class {
    line: Line::BreakGlass,
    ..WARNING
};
const ADVISORY: Class = Class {
    line: Line::Advisory,
    ..WARNING
};
const HOLD: Class = Class {
    wait: Wait::Hold,
    ..PLAIN
};
const EVIDENCE: Class = Class {
    wait: Wait::Evidence,
    ..PLAIN
};
const ROUTINE: Class = Class {
    routine: Some(SETTLE),
    ..PLAIN
};
const ROUTINE_EVIDENCE: Class = Class {
    routine: Some(SETTLE),
    ..EVIDENCE
};
const POLLED: Class = Class {
    poll: Poll::Soon,
    ..PLAIN
};
const REFUSAL: Class = Class {
    wait: Wait::Refusal,
    ..PLAIN
};
const POLLED_REFUSAL: Class = Class {
    poll: Poll::Soon,
    ..REFUSAL
};
const TEMPLATE: Class = Class {
    warning: true,
    ..REFUSAL
};
const CONFLICT: Class = Class {
    phase: Phase::Degraded,
    ..REFUSAL
};
const PROGRESSING: Class = Class {
    phase: Phase::Progressing,
    ..PLAIN
};
const SMOKE: Class = Class {
    wait: Wait::Smoke,
    ..PROGRESSING
};
const PODS: Class = Class {
    wait: Wait::Pods,
    poll: Poll::Soon,
    routine: Some(SETTLE),
    ..PROGRESSING
};
const TRAFFIC: Class = Class {
    wait: Wait::Traffic,
    poll: Poll::Traffic,
    routine: Some(ROUTED),
    ..PROGRESSING
};

/// What a window's state means where a change waits for it.
const fn window(state: WindowState) -> Class {
    match state {
        WindowState::Waiting | WindowState::WarmingUp => ROUTINE,
        WindowState::Counted
        | WindowState::NoSeries
        | WindowState::StaleSamples
        | WindowState::NotANumber
        | WindowState::Negative
        | WindowState::ErrorsExceedRequests
        | WindowState::SeveralSeries
        | WindowState::NoBucket
        | WindowState::NotConfigured
        | WindowState::PrometheusUnreachable
        | WindowState::PrometheusError
        | WindowState::InvalidQuery
        | WindowState::PartialAnswer
        | WindowState::UnreadableAnswer
        | WindowState::ClockSkew
        | WindowState::Unknown => PLAIN,
    }
}

impl Reason {
    /// The reason of a word; `None` for one that this build does not know.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let windows = WindowState::ALL.iter().copied().map(Self::Window);
        let mut all = Self::ALL.iter().copied().chain(windows);
        all.find(|it| it.as_str() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}

/// Statuses hold the word, which may be one of a newer build.
impl PartialEq<Reason> for str {
    fn eq(&self, reason: &Reason) -> bool {
        self == reason.as_str()
    }
}

impl PartialEq<Reason> for String {
    fn eq(&self, reason: &Reason) -> bool {
        self.as_str() == reason.as_str()
    }
}
