//! Edits of Rollouts, with the stamp of who makes them, which older API servers demand instead of writing it.

use countersign_api::{CHANGED_BY_ANNOTATION, Rollout};
use countersign_core::people::eligibility::ANYBODY;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::cluster::answer::condition;
use crate::cluster::change::{is_seen, requester};
use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::cluster::write::DryRun;
use crate::failure::Failure;

/// Most users that the admission policy `changed-by` names.
const NAMED: usize = 64;
/// Attempts at an edit; a conflict on the last one is reported.
const ATTEMPTS: u32 = 5;

/// Edits a Rollout by a merge patch from what it is. Returns the Rollout as edited, in a dry run as it would be, and what came
/// with the patch.
pub async fn edit<T>(
    connection: &Connection,
    name: &str,
    dry_run: DryRun,
    patch: impl AsyncFn(&Rollout) -> Result<(Value, T), Failure>,
) -> Result<(Rollout, T), Failure> {
    let rollouts = connection.here::<Rollout>();
    retried(async || {
        let rollout = connection.rollout(name).await?;
        let (patch, beside) = patch(&rollout).await?;
        let patch = stamped(connection, patch, Some(&rollout)).await?;
        let edited = dry_run.merge(connection, &rollouts, &rollout, patch).await;
        Ok(edited.map(|edited| (edited, beside)))
    })
    .await
}

/// Reads and edits again on a conflict, since the controller may write the status at any time.
pub async fn retried<T>(
    edit: impl AsyncFn() -> Result<Result<T, Refusal>, Failure>,
) -> Result<T, Failure> {
    for _ in 1..ATTEMPTS {
        match edit().await? {
            Err(Refusal::Conflict) => {}
            edited => return Ok(edited?),
        }
    }
    Ok(edit().await??)
}

/// A patch of a Rollout, or the manifest of a new one, with the stamp of this user. An API server that
/// writes the stamp replaces it by the same.
pub async fn stamped(
    connection: &Connection,
    mut write: Value,
    rollout: Option<&Rollout>,
) -> Result<Value, Refusal> {
    let user = requester(connection).await?.username;
    let stamp = rollout.map_or_else(|| user.clone(), |rollout| stamp(rollout, &user));
    let metadata = write
        .pointer_mut("/metadata")
        .and_then(Value::as_object_mut);
    let annotations = metadata.map(|it| it.entry("annotations").or_insert_with(|| json!({})));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.insert(CHANGED_BY_ANNOTATION.to_owned(), stamp.into());
    }
    Ok(write)
}

/// The users who changed the Rollout since it was last promoted, this one last: as the admission policy
/// `changed-by` computes it.
fn stamp(rollout: &Rollout, user: &str) -> String {
    let status = rollout.status.as_ref().filter(|_| is_seen(rollout));
    let ready = status.and_then(|status| condition(&status.conditions, "Ready"));
    let promoted = ready.is_some_and(|ready| ready.status == "True");
    let earlier = rollout.annotations().get(CHANGED_BY_ANNOTATION);
    let earlier = earlier.filter(|_| !promoted).into_iter();
    let others = earlier.flat_map(|it| it.split('\n'));
    let others = others.filter(|it| !it.is_empty() && *it != user);
    let users: Vec<_> = others.chain([user]).collect();
    if users.len() > NAMED {
        return format!("{ANYBODY}\n{user}");
    }
    users.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{at_rest, waiting};

    /// The stamp of bob's change, after a stamp.
    fn after(mut rollout: Rollout, before: &str) -> String {
        let annotations = rollout.annotations_mut();
        annotations.insert(CHANGED_BY_ANNOTATION.into(), before.into());
        stamp(&rollout, "bob")
    }

    #[test]
    fn who_changed_the_rollout_since_it_was_promoted_stays_in_the_stamp() {
        let mut rollout = waiting().rollout;
        rollout.annotations_mut().remove(CHANGED_BY_ANNOTATION);
        assert_eq!(stamp(&rollout, "bob"), "bob", "there is no stamp");
        assert_eq!(after(rollout.clone(), "alice"), "alice\nbob");
        assert_eq!(after(rollout, "bob\ncarol"), "carol\nbob");

        let mut promoted = at_rest();
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "Stable", "message": "",
            "lastTransitionTime": "2026-03-01T12:00:00Z",
        });
        let status = promoted.status.as_mut().unwrap();
        status.conditions = vec![serde_json::from_value(ready).unwrap()];
        assert_eq!(after(promoted.clone(), "alice"), "bob");
        promoted.metadata.generation = Some(99);
        assert_eq!(after(promoted, "alice"), "alice\nbob", "it was edited");
    }
}
