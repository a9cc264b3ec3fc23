//! The words that conditions, Events, records and metrics share.

/// A change was seen and its plan made.
pub const CHANGE_STARTED: &str = "ChangeStarted";
/// A first revision gets its pods.
pub const FIRST_REVISION: &str = "FirstRevision";
/// The next step was taken.
pub const STEP_STARTED: &str = "StepStarted";
/// All gates have passed; the canary grows to full size.
pub const PROMOTING: &str = "Promoting";
/// The change became the stable revision.
pub const PROMOTED: &str = "Promoted";
/// The last revision's pods are gone.
pub const STABLE: &str = "Stable";
/// The evidence says that the canary is worse.
pub const ANALYSIS_FAILED: &str = "AnalysisFailed";
/// No progress for `progressDeadlineSeconds`.
pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// Nobody signed or decided in time.
pub const WAIT_EXPIRED: &str = "WaitExpired";
/// Another change took its place.
pub const SUPERSEDED: &str = "Superseded";
/// The template went back to the stable one.
pub const REVERTED: &str = "Reverted";
/// A policy was tightened while the change was under way.
pub const TIGHTENED: &str = "Tightened";
/// The deadline for evidence was extended once.
pub const DEADLINE_EXTENDED: &str = "DeadlineExtended";
/// Scarce but clean evidence was accepted at the deadline.
pub const SCARCE_EVIDENCE_ACCEPTED: &str = "ScarceEvidenceAccepted";
/// The smoke check has succeeded.
pub const SMOKE_PASSED: &str = "SmokePassed";
/// The smoke check has failed, before there was any pod or traffic.
pub const SMOKE_FAILED: &str = "SmokeFailed";
/// The canary's pods are gone.
pub const ROLLED_BACK: &str = "RolledBack";

/// `spec.paused` is set.
pub const PAUSED: &str = "Paused";
/// The workload has no replicas, so nothing can be learnt.
pub const SCALED_TO_ZERO: &str = "ScaledToZero";
/// People must sign.
pub const AWAITING_SIGN_OFF: &str = "AwaitingSignOff";
/// Evidence is clean but scarce; a person must decide.
pub const AWAITING_PERSON: &str = "AwaitingPerson";
/// Evidence is clean but scarce.
pub const AWAITING_EVIDENCE: &str = "AwaitingEvidence";
/// No pod of the stable revision is available, and the canary serves in its place.
pub const STABLE_UNAVAILABLE: &str = "StableUnavailable";
/// A Service that the spec names no more selects the pods of every revision again.
pub const SERVICE_RELEASED: &str = "ServiceReleased";
/// Pods are not available yet.
pub const AWAITING_PODS: &str = "AwaitingPods";
/// The smoke check's Job has not ended yet.
pub const AWAITING_SMOKE: &str = "AwaitingSmoke";
/// The step's time is not over.
pub const BAKING: &str = "Baking";
/// The newest evidence is too old to decide on.
pub const EVIDENCE_OUTDATED: &str = "EvidenceOutdated";
/// New pods warm up, so the window counts for nothing but a rollback.
pub const WARMING_UP: &str = "WarmingUp";
/// A metric is out of bounds, but not for long enough to fail.
pub const OUT_OF_BOUNDS: &str = "OutOfBounds";
/// A check fails by itself, but all of them together do not roll back yet.
pub const CHECK_FAILING: &str = "CheckFailing";
/// Canary and stable both break the ceiling.
pub const STABLE_ABOVE_CEILING: &str = "StableAboveCeiling";
/// A check cannot be asked: its template, an argument or its query is wrong.
pub const CHECK_INVALID: &str = "CheckInvalid";
/// An error budget burns too fast since the change began.
pub const ERROR_BUDGET_BURN: &str = "ErrorBudgetBurn";
/// The error budget of an objective is spent.
pub const ERROR_BUDGET_SPENT: &str = "ErrorBudgetSpent";
/// How an error budget stands cannot be told.
pub const ERROR_BUDGET_UNKNOWN: &str = "ErrorBudgetUnknown";
/// The promoted change is watched on.
pub const WATCHED: &str = "Watched";
/// What broke after the promotion brought the previous revision back.
pub const REGRESSED: &str = "Regressed";
/// The previous revision cannot come back, as its ReplicaSet is gone.
pub const PREVIOUS_MISSING: &str = "PreviousMissing";
/// An advisory check fails.
pub const ADVISORY_FAILED: &str = "AdvisoryFailed";
/// There is no check and the tier is above low.
pub const NO_CHECKS: &str = "NoChecks";
/// A Service that the Rollout names does not exist.
pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
/// The kind of a route that the Rollout names is not installed.
pub const ROUTER_NOT_INSTALLED: &str = "RouterNotInstalled";
/// A route that the Rollout names does not exist.
pub const ROUTE_NOT_FOUND: &str = "RouteNotFound";
/// A route cannot be split as it is.
pub const ROUTE_INVALID: &str = "RouteInvalid";
/// The tier asks for routes and the Rollout names none.
pub const ROUTER_REQUIRED: &str = "RouterRequired";
/// The routes do not have their weights yet, or their routers have not accepted them.
pub const AWAITING_TRAFFIC: &str = "AwaitingTraffic";
/// Somebody else set the weights of a route, and they were set back.
pub const WEIGHTS_CORRECTED: &str = "WeightsCorrected";
/// A Rollout that this one depends on is not stable.
pub const AWAITING_DEPENDENCY: &str = "AwaitingDependency";
/// As many risky changes are under way as the policies allow.
pub const QUEUED: &str = "Queued";
/// All new pods crash again and again.
pub const CRASH_LOOPING: &str = "CrashLooping";
/// The API server takes no ReplicaSet with the new pod template.
pub const TEMPLATE_INVALID: &str = "TemplateInvalid";
/// The adopted workload cannot be used as it is.
pub const WORKLOAD_INVALID: &str = "WorkloadInvalid";
/// Somebody else scaled the adopted workload up, and it was scaled down again.
pub const WORKLOAD_SCALED_DOWN: &str = "WorkloadScaledDown";
/// The Rollout takes over from the adopted workload.
pub const TAKING_OVER: &str = "TakingOver";
/// The Rollout serves in place of the adopted workload.
pub const TAKEN_OVER: &str = "TakenOver";
/// An autoscaler aims at the adopted workload, which has no pods of its own any more.
pub const AUTOSCALER_MISDIRECTED: &str = "AutoscalerMisdirected";
/// The Rollout is being deleted and gives its pods back.
pub const GIVING_BACK: &str = "GivingBack";
/// Another Rollout claims the same pods or Services.
pub const CONFLICT: &str = "Conflict";
/// Another owns a ReplicaSet whose pods the Rollout selects.
pub const NOT_OWNED: &str = "NotOwned";
/// A policy that might govern the Rollout cannot be read.
pub const POLICY_UNREADABLE: &str = "PolicyUnreadable";
/// The stable revision's ReplicaSet is gone.
pub const STABLE_MISSING: &str = "StableMissing";

/// A freeze is in force.
pub const FROZEN: &str = "Frozen";
/// What people want of the change cannot be read.
pub const WISHES_UNREADABLE: &str = "WishesUnreadable";
/// Whether a freeze is in force cannot be told.
pub const FREEZE_UNKNOWN: &str = "FreezeUnknown";
/// A freeze rolled the change back.
pub const ROLLED_BACK_BY_FREEZE: &str = "RolledBackByFreeze";
/// A person signed the change off.
pub const SIGNED_OFF: &str = "SignedOff";
/// A person rejected the change.
pub const REJECTED: &str = "Rejected";
/// A person waved the change through without waiting and without sign-off.
pub const BREAK_GLASS: &str = "BreakGlass";
/// A person aborted the change.
pub const ABORTED: &str = "Aborted";
/// A person asked to try a rolled-back change once more.
pub const RETRIED: &str = "Retried";
/// A person skipped the rest of a bake.
pub const BAKE_SKIPPED: &str = "BakeSkipped";
/// A person paused the change.
pub const PAUSED_BY_PERSON: &str = "PausedByPerson";
/// A person let a paused change go on.
pub const RESUMED: &str = "Resumed";

/// A sign-off counts, or an intervention was done (condition on it).
pub const COUNTS: &str = "Counts";
/// An intervention was done.
pub const APPLIED: &str = "Applied";
/// It is for another change, another attempt or another Rollout of that name.
pub const OTHER_CHANGE: &str = "OtherChange";
/// Its time is over.
pub const EXPIRED: &str = "Expired";
/// It is by an author of the change, its AI's operator, or whoever changed the Rollout.
pub const BY_AUTHOR: &str = "ByAuthor";
/// It is by a member of a group that stands for AI agents.
pub const BY_AGENT: &str = "ByAgent";
/// It is by a service account or another user of the system.
pub const NOT_A_PERSON: &str = "NotAPerson";
/// The plan has no such gate.
pub const NO_SUCH_GATE: &str = "NoSuchGate";
/// It is by somebody whose other sign-off counts already.
pub const SAME_PERSON: &str = "SamePerson";
/// The admission policies that prove who wrote it are missing or altered, or were when it was made.
pub const UNPROVEN: &str = "Unproven";
/// There was nothing to do.
pub const NOTHING_TO_DO: &str = "NothingToDo";
