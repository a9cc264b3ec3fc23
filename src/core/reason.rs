//! The words that conditions, Events, records and metrics share.

/// A change was seen and its plan made.
pub const CHANGE_STARTED: &str = "ChangeStarted";
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
/// Another Rollout claims the same pods or Services.
pub const CONFLICT: &str = "Conflict";
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
