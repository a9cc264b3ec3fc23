//! The reasons that conditions, Events, RolloutRuns and metrics share, and their classification.

use std::fmt;

use countersign_api::Phase;
use countersign_api::rollout::WindowState;
use k8s_openapi::jiff::SignedDuration;

/// Time for which a wait that every change has is not reported: most are over by then, and each costs a
/// write and an Event.
pub(crate) const SETTLE: SignedDuration = SignedDuration::from_secs(30);
/// The same time for routers, which are either quick or misconfigured.
const ROUTED: SignedDuration = SignedDuration::from_secs(10);

/// Defines each reason once: its word is the variant's name, with its class beside it.
macro_rules! reasons {
    ($($(#[$document:meta])* $name:ident: $class:expr,)*) => {
        /// The reason of a condition, an Event or a transition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$document])* $name,)*
            /// The state of an analysis window.
            Window(WindowState),
        }

        impl Reason {
            /// All reasons except those of windows.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Window(state) => state.as_str(),
                }
            }

            /// Its class.
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
    /// A change was observed and planned.
    ChangeStarted: START,
    /// A first revision gets its pods.
    FirstRevision: PLAIN,
    /// Policies only observe the change: what they would have demanded was worked out.
    Observed: PLAIN,
    /// The next step began.
    StepStarted: STEP,
    /// All gates have passed; the canary grows to full size.
    Promoting: STEP,
    /// The change was promoted to the stable revision.
    Promoted: PLAIN,
    /// The pods of the previous revision are gone.
    Stable: PLAIN,
    /// The evidence shows that the canary is worse.
    AnalysisFailed: WARNING,
    /// No progress for `progressDeadlineSeconds`.
    ProgressDeadlineExceeded: WARNING,
    /// Nobody signed or decided before the deadline.
    WaitExpired: WARNING,
    /// Another change replaced it.
    Superseded: PLAIN,
    /// The template was reverted to the stable one.
    Reverted: PLAIN,
    /// A policy was tightened while the change was under way.
    Tightened: PLAIN,
    /// Scarce but clean evidence was accepted at the deadline.
    ScarceEvidenceAccepted: PLAIN,
    /// The smoke check has succeeded.
    SmokePassed: PLAIN,
    /// The smoke check failed before the canary had any pod or traffic.
    SmokeFailed: WARNING,
    /// The canary's pods are gone.
    RolledBack: PLAIN,
    /// `spec.paused` is set.
    Paused: HOLD,
    /// The workload has no replicas, so there is no evidence.
    ScaledToZero: PLAIN,
    /// People must sign.
    AwaitingSignOff: PLAIN,
    /// Evidence is clean but scarce; a person must decide.
    AwaitingPerson: EVIDENCE,
    /// Evidence is clean but scarce.
    AwaitingEvidence: ROUTINE_EVIDENCE,
    /// No pod of the stable revision is available, and the canary serves in its place.
    StableUnavailable: PLAIN,
    /// A Service that was removed from the spec selects the pods of every revision again.
    ServiceReleased: PLAIN,
    /// Pods are not available yet.
    AwaitingPods: PODS,
    /// The smoke check's Job has not ended yet.
    AwaitingSmoke: SMOKE,
    /// The bake of the step is not over.
    Baking: ROUTINE,
    /// The newest evidence is too old to decide on.
    EvidenceOutdated: PLAIN,
    /// A metric is out of bounds, but not for long enough to fail.
    OutOfBounds: EVIDENCE,
    /// A check fails alone, but all of them together do not roll back yet.
    CheckFailing: EVIDENCE,
    /// Canary and stable both break the ceiling.
    StableAboveCeiling: PLAIN,
    /// A check cannot be queried: its template, an argument or its query is invalid.
    CheckInvalid: POLLED,
    /// An error budget burns too fast since the change began.
    ErrorBudgetBurn: WARNING,
    /// The error budget of an objective is spent.
    ErrorBudgetSpent: PLAIN,
    /// The state of an error budget is unknown.
    ErrorBudgetUnknown: PLAIN,
    /// The promoted change is watched.
    Watched: PLAIN,
    /// A regression after the promotion restored the previous revision.
    Regressed: WARNING,
    /// The previous revision cannot be restored, as its ReplicaSet is gone.
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
    /// The tier demands images by digest and one is named without.
    ImageNotPinned: REFUSAL,
    /// The tier demands ConfigMaps and Secrets that are named by the hash of their content and one is not.
    ConfigNotImmutable: REFUSAL,
    /// The tier demands a check that neither pods nor their team control, and there is none.
    PolicyCheckRequired: REFUSAL,
    /// The tier demands routes and the Rollout names none.
    RouterRequired: REFUSAL,
    /// The routes do not have their weights yet, or their routers have not accepted them.
    AwaitingTraffic: TRAFFIC,
    /// The canary gets far more requests than its weight.
    AboveWeight: EVIDENCE,
    /// Another writer set the weights of a route, and they were corrected.
    WeightsCorrected: PLAIN,
    /// Another writer set the selector of a named Service, and it was corrected.
    SelectorCorrected: PLAIN,
    /// Another writer set the subsets of a DestinationRule, and they were corrected.
    SubsetsCorrected: PLAIN,
    /// Another writer edited the route for testers, and it was corrected.
    TestersCorrected: PLAIN,
    /// A Rollout that this one depends on is not stable.
    AwaitingDependency: PLAIN,
    /// As many risky changes are under way as the policies allow.
    Queued: PLAIN,
    /// All new pods are in a crash loop.
    CrashLooping: WARNING,
    /// The API server rejects a ReplicaSet with the new pod template.
    TemplateInvalid: TEMPLATE,
    /// The adopted workload cannot be used as it is.
    WorkloadInvalid: POLLED_REFUSAL,
    /// Another writer scaled the adopted workload up, and it was scaled down again.
    WorkloadScaledDown: PLAIN,
    /// The Rollout is taking over from the adopted workload.
    TakingOver: PLAIN,
    /// The Rollout serves in place of the adopted workload.
    TakenOver: PLAIN,
    /// An autoscaler targets the adopted workload, which no longer has pods of its own.
    AutoscalerMisdirected: PLAIN,
    /// The Rollout is being deleted and hands its pods back.
    GivingBack: PROGRESSING,
    /// Another Rollout claims the same pods or Services.
    Conflict: CONFLICT,
    /// Another controller owns a ReplicaSet whose pods the Rollout selects.
    NotOwned: PLAIN,
    /// A policy that might govern the Rollout cannot be read.
    PolicyUnreadable: REFUSAL,
    /// The stable revision's ReplicaSet is gone.
    StableMissing: REFUSAL,
    /// A ReplicaSet was edited by another writer, so its pods may run another template than was decided.
    Tampered: POLLED_WARNING,
    /// It is unknown whether the stored template of a ReplicaSet is the one that was decided.
    TemplateUnverified: POLLED,
    /// A freeze is in force.
    Frozen: HOLD,
    /// A sign-off or an intervention cannot be read.
    RequestsUnreadable: POLLED,
    /// It is unknown whether a freeze is in force.
    FreezeUnknown: HOLD,
    /// A freeze rolled the change back.
    RolledBackByFreeze: WARNING,
    /// A person signed the change off.
    SignedOff: PEOPLE,
    /// A person rejected the change.
    Rejected: WARNING,
    /// A person skipped waiting and sign-off of the change.
    BreakGlass: BREAK_GLASS,
    /// A person aborted the change.
    Aborted: WARNING,
    /// A person requested a retry of a rolled-back change.
    Retried: PLAIN,
    /// A person skipped the rest of a bake.
    BakeSkipped: PEOPLE,
    /// A person paused the change.
    PausedByPerson: PAUSE,
    /// A person resumed a paused change.
    Resumed: PAUSE,
    /// A sign-off counts, or an intervention was applied (condition on it).
    Counts: PLAIN,
    /// An intervention was applied.
    Applied: PLAIN,
    /// It is for another change, another attempt or another Rollout of that name.
    OtherChange: PLAIN,
    /// It has expired.
    Expired: PLAIN,
    /// It is by an author of the change, its AI's operator, or a user who changed the Rollout.
    ByAuthor: PLAIN,
    /// It is by a member of a group that stands for AI agents.
    ByAgent: PLAIN,
    /// A policy requires that everybody is known, and no alias names its author or somebody behind the change.
    UnknownPerson: PLAIN,
    /// It is by a service account or another user of the system.
    NotAPerson: PLAIN,
    /// The plan has no such gate.
    NoSuchGate: PLAIN,
    /// It is by a person whose other sign-off counts already.
    SamePerson: PLAIN,
    /// The admission policies that verify its author are missing or altered, or were at its creation.
    Unproven: PLAIN,
    /// It had no effect.
    NothingToDo: PLAIN,
}

/// The classification of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Whether its Event is a warning.
    pub warning: bool,
    /// The kind of its transition.
    pub line: Line,
    /// The kind of its wait.
    pub wait: Wait,
    /// The phase of a Rollout that waits for it, unless people or time end the wait.
    pub phase: Phase,
    /// How soon a change that waits for it is requeued.
    pub poll: Poll,
    /// For how long a wait for it is routine; `None` if it is reported at once.
    pub routine: Option<SignedDuration>,
}

/// Kinds of transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The change begins.
    Start,
    /// A further step begins.
    Step,
    /// People pause and resume it, as often as they like.
    Pause,
    /// People sign and intervene.
    People,
    /// A person breaks the glass.
    BreakGlass,
    /// An advisory check fails; the change continues.
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
    /// A requested hold, which holds a first revision, too.
    Hold,
    /// Evidence: its message has numbers of windows.
    Evidence,
    /// Only a person can end it: the Rollout is stalled.
    Refusal,
    /// Everything else.
    Other,
}

/// How soon a change that is held in doubt is requeued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// A watch reports it.
    Event,
    /// No watch reports it.
    Soon,
    /// Routers catch up within moments.
    Traffic,
}

/// The default class: a transition without a warning, a wait that a watch ends, or the reason of a
/// condition.
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
const POLLED_WARNING: Class = Class {
    warning: true,
    ..POLLED
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

/// The class of a window's state that a change waits for.
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
    /// Parses a reason; `None` if this build does not know it.
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

/// A status stores the reason as a string, which may be from a newer build.
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
