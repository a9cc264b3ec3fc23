//! The conditions on sign-offs and interventions.

use countersign_api::rollout::Change;

use crate::decision::{Answer, AnswerTo};
use crate::limits::{ANSWER_MESSAGE, MAX_ANSWERS};
use crate::observation::Observation;
use crate::observation::people::ObservedIntervention;
use crate::people::intervention;
use crate::people::sign_off::{EvaluatedSignOff, SignOffs};
use crate::reason::Reason;
use crate::text::sanitize_to;

/// The conditions that are missing or have changed.
#[must_use]
pub fn of(
    observation: &Observation,
    change: Option<&Change>,
    sign_offs: Option<&SignOffs>,
) -> Vec<Answer> {
    let (Some(change), Some(sign_offs)) = (change, sign_offs) else {
        return Vec::new();
    };
    let to_sign_offs = sign_offs
        .all()
        .filter_map(|evaluated| to_sign_off(change, evaluated));
    let unanswered = observation
        .people
        .interventions
        .iter()
        .filter(|it| !it.answered);
    let to_interventions = unanswered.filter_map(|it| to_intervention(observation, change, it));
    let all = to_sign_offs.chain(to_interventions).take(MAX_ANSWERS);
    let harmless = |answer: Answer| Answer {
        message: sanitize_to(&answer.message, ANSWER_MESSAGE),
        ..answer
    };
    all.map(harmless).collect()
}

/// The condition of a sign-off of an earlier attempt, or of a change that has ended, is kept.
fn to_sign_off(change: &Change, evaluated: &EvaluatedSignOff) -> Option<Answer> {
    let sign_off = evaluated.sign_off;
    let (yes, reason, message) = match &evaluated.refused {
        None => (true, Reason::Counts, "it counts".to_owned()),
        Some((reason, message)) => (false, *reason, message.clone()),
    };
    let present = sign_off.spec.run == change.run && change.outcome.is_none();
    let news = match &sign_off.answer {
        None => true,
        Some(last) => present && (last.0 != yes || last.1 != reason),
    };
    news.then(|| Answer {
        to: AnswerTo::SignOff,
        name: sign_off.name.clone(),
        yes,
        reason: reason.into(),
        message,
    })
}

fn to_intervention(
    observation: &Observation,
    change: &Change,
    it: &ObservedIntervention,
) -> Option<Answer> {
    let answer = |yes, reason: Reason, message: String| {
        Some(Answer {
            to: AnswerTo::Intervention,
            name: it.name.clone(),
            yes,
            reason: reason.into(),
            message,
        })
    };
    if change.ignored_requests.contains(&it.uid) {
        let message = format!(
            "there was nothing to {} at step {}",
            it.spec.action.verb(),
            change.step
        );
        return answer(false, Reason::NothingToDo, message);
    }
    if change.handled_requests.contains(&it.uid) {
        return answer(true, Reason::Applied, "it was done".into());
    }
    let (reason, message) = intervention::refusal(observation, change, it)?;
    answer(false, reason, message)
}
