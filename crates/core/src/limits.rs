//! Bounds of what a status, a record and an Event hold.
//!
//! The status and records live in etcd, which takes 1.5 MiB an object, and the schemas bound each of their lists.
//! A list that is full refuses what more would come, or drops its oldest; a text that is longer is cut.

/// Characters of the message of a line of a change.
pub(crate) const LINE_MESSAGE: usize = 2_000;
/// Characters of the message of a condition.
pub(crate) const CONDITION_MESSAGE: usize = 1_024;
/// Characters of the message that answers a sign-off or an intervention.
pub(crate) const ANSWER_MESSAGE: usize = 1_024;
/// Characters of foreign text within a message: of pods, the API server, other controllers.
pub(crate) const FOREIGN_TEXT: usize = 400;
/// Bytes of the end of a container's message: with what stands before it, it fits in the note of an Event.
pub(crate) const LOG_TAIL: usize = 800;
/// Characters of an annotation in a record.
pub(crate) const RECORDED_ANNOTATION: usize = 256;

/// Lines of one change, as many as the schema takes; what is routine is left out before.
pub(crate) const MAX_TRANSITIONS: usize = 256;
/// Lines of these that are kept free for how a change ends and what follows.
pub(crate) const LAST_LINES: usize = 16;
/// Lines of these that are kept free for broken glass.
pub(crate) const BREAK_GLASS_LINES: usize = 16;
/// Lines about what people sign and command; what more they do goes unrecorded.
pub(crate) const MAX_PEOPLE: usize = 80;
/// Lines of these about pauses, which anybody may make without end.
pub(crate) const MAX_PAUSES: usize = 40;
/// Lines that hold evidence; later ones are without, so that the status of a long change can still be written.
pub(crate) const MAX_EVIDENCE: usize = 50;
/// Sign-offs and interventions that take effect on one change; an abort always does.
pub(crate) const MAX_HANDLED: usize = 180;
/// The same with those that break the glass.
pub(crate) const MAX_WITH_BREAK_GLASS: usize = 195;
/// Answers to people by one decision, so that many objects do not delay it; the next one has the rest.
pub(crate) const MAX_ANSWERS: usize = 50;
/// Sentences in a plan about what tightened it.
pub(crate) const MAX_SENTENCES: usize = 200;
/// Names of policies in a plan.
pub(crate) const MAX_POLICIES: usize = 64;
