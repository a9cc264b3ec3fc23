//! What the user may do with Rollouts, by command.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::cluster::access::{self, Need};
use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::output::table;

/// What each command needs, besides reading Rollouts.
const COMMANDS: &[(&str, &[Need])] = &[
    (
        "get, status, watch",
        &[
            ("get", "rollouts"),
            ("list", "rollouts"),
            ("watch", "rollouts"),
        ],
    ),
    ("history", &[("list", "rolloutruns"), ("list", "signoffs")]),
    (
        "approve, reject",
        &[("create", "signoffs"), ("approve", "rollouts")],
    ),
    (
        "break-glass",
        &[("create", "signoffs"), ("breakglass", "rollouts")],
    ),
    (
        "promote",
        &[("create", "interventions"), ("promote", "rollouts")],
    ),
    (
        "abort",
        &[("create", "interventions"), ("abort", "rollouts")],
    ),
    (
        "retry",
        &[("create", "interventions"), ("retry", "rollouts")],
    ),
    (
        "pause",
        &[("create", "interventions"), ("pause", "rollouts")],
    ),
    (
        "resume",
        &[("create", "interventions"), ("resume", "rollouts")],
    ),
    ("undo, restart", &[("patch", "rollouts")]),
    ("migrate", &[("create", "rollouts")]),
    ("unmigrate", &[("delete", "rollouts")]),
    ("freeze", &[("create", "freezes")]),
    ("unfreeze", &[("patch", "freezes")]),
];

/// Whether the user may run a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Right {
    command: &'static str,
    allowed: bool,
    /// The missing permissions, such as `approve rollouts`.
    missing: Vec<String>,
}

/// The rights of the user in the namespace, on one Rollout if that is named.
pub async fn rights(connection: &Connection, rollout: Option<&str>) -> Result<Vec<Right>, Refusal> {
    let needs: BTreeSet<Need> = COMMANDS
        .iter()
        .flat_map(|&(_, needs)| needs.iter().copied())
        .collect();
    let answers = needs.into_iter().map(async |need| {
        let allowed = access::is_allowed(connection, need, rollout).await?;
        Ok::<_, Refusal>((need, allowed))
    });
    let answers = futures::future::try_join_all(answers).await?;
    Ok(by_command(&answers.into_iter().collect()))
}

fn by_command(answers: &BTreeMap<Need, bool>) -> Vec<Right> {
    let rights = COMMANDS.iter().map(|&(command, needs)| {
        let missing = needs
            .iter()
            .filter(|need| answers.get(*need) != Some(&true));
        let missing: Vec<_> = missing
            .map(|(verb, resource)| format!("{verb} {resource}"))
            .collect();
        Right {
            command,
            allowed: missing.is_empty(),
            missing,
        }
    });
    rights.collect()
}

/// The rights as a table.
#[must_use]
pub fn listed(rights: &[Right]) -> String {
    let rows: Vec<_> = rights
        .iter()
        .map(|right| {
            let allowed = if right.allowed { "yes" } else { "no" };
            vec![
                right.command.to_owned(),
                allowed.to_owned(),
                right.missing.join(", "),
            ]
        })
        .collect();
    table(&["COMMAND", "ALLOWED", "MISSING"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_allowed_if_every_permission_is_there() {
        let answers = BTreeMap::from([
            (("create", "signoffs"), true),
            (("approve", "rollouts"), true),
            (("breakglass", "rollouts"), false),
        ]);
        let rights = by_command(&answers);
        let of = |command: &str| rights.iter().find(|it| it.command == command).unwrap();
        assert!(of("approve, reject").allowed);
        let missing = &of("break-glass").missing;
        assert_eq!(missing, &["breakglass rollouts"]);
        assert!(!of("freeze").allowed, "what was not answered is missing");
        let text = listed(&rights);
        assert!(text.starts_with("COMMAND "), "{text}");
        assert!(text.contains("no        breakglass rollouts\n"), "{text}");
    }
}
