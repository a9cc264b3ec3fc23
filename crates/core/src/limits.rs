//! Size limits of a status, a RolloutRun and an Event.
//!
//! Status and RolloutRuns are stored in etcd, which takes 1.5 MiB per object, and the schemas limit each of
//! their lists. A full list rejects further entries, or drops its oldest; longer text is cut.

/// Characters of the message of a transition.
pub(crate) const LINE_MESSAGE: usize = 2_000;
/// Characters of the message of a condition.
pub(crate) const CONDITION_MESSAGE: usize = 1_024;
/// Characters of the message of a condition on a sign-off or an intervention.
pub(crate) const ANSWER_MESSAGE: usize = 1_024;
/// Characters of foreign text within a message: of pods, the API server, other controllers.
pub(crate) const FOREIGN_TEXT: usize = 400;
/// Bytes of the end of a container's message; with its prefix it fits in the note of an Event.
pub(crate) const LOG_TAIL: usize = 800;
/// Characters of an annotation in a RolloutRun.
pub(crate) const RECORDED_ANNOTATION: usize = 256;
/// Bytes of the difference in a RolloutRun; the schema allows as many characters.
pub(crate) const RECORDED_DIFFERENCE: usize = 16_384;
/// Characters of a line of the difference in a RolloutRun.
pub(crate) const RECORDED_LINE: usize = 1_000;

/// Transitions per change, as many as the schema allows; routine ones are omitted earlier.
pub(crate) const MAX_TRANSITIONS: usize = 256;
/// Transitions reserved for the end of a change and what follows.
pub(crate) const LAST_LINES: usize = 16;
/// Transitions reserved for break-glass sign-offs.
pub(crate) const BREAK_GLASS_LINES: usize = 16;
/// Transitions about sign-offs and interventions; further ones are not recorded.
pub(crate) const MAX_PEOPLE: usize = 80;
/// Transitions about pauses, which anybody may request any number of times.
pub(crate) const MAX_PAUSES: usize = 40;
/// Transitions with evidence; later ones have none, so that the status of a long change can be written.
pub(crate) const MAX_EVIDENCE: usize = 50;
/// Sign-offs and interventions that take effect on one change; an abort always does.
pub(crate) const MAX_HANDLED: usize = 180;
/// Sign-offs and interventions per change, counting break-glass sign-offs, which are always recorded.
pub(crate) const MAX_WITH_BREAK_GLASS: usize = 195;
/// Conditions on sign-offs and interventions set by one decision; the next decision sets the rest.
pub(crate) const MAX_ANSWERS: usize = 50;
/// Records of ended changes of a Rollout that are kept at most, however long a policy keeps them.
pub(crate) const MAX_RUNS: usize = 1_000;
/// Sentences in a plan that explain how it was tightened.
pub(crate) const MAX_SENTENCES: usize = 200;
/// Names of policies in a plan.
pub(crate) const MAX_POLICIES: usize = 64;
/// Sentences about what a change would have waited for.
pub(crate) const MAX_WOULD: usize = 32;
/// Demands of sign-offs that would have been required.
pub(crate) const MAX_OBSERVED_DEMANDS: usize = 16;
