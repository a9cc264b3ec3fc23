//! What the user may do with Rollouts, by command.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::GROUP;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use serde::Serialize;

use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::output::table;

/// A verb on a resource.
type Need = (&'static str, &'static str);

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
    let reviews = connection.cluster::<SelfSubjectAccessReview>();
    let answers = needs.into_iter().map(async |need| {
        let question = question(need, connection.namespace(), rollout);
        let parameters = PostParams::default();
        let answer = connection
            .ask(reviews.create(&parameters, &question))
            .await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        Ok::<_, Refusal>((need, allowed))
    });
    let answers = futures::future::try_join_all(answers).await?;
    Ok(by_command(&answers.into_iter().collect()))
}

fn question(
    (verb, resource): Need,
    namespace: &str,
    rollout: Option<&str>,
) -> SelfSubjectAccessReview {
    let one = rollout.filter(|_| resource == "rollouts" && !matches!(verb, "list" | "create"));
    let attributes = ResourceAttributes {
        group: Some(GROUP.into()),
        resource: Some(resource.into()),
        verb: Some(verb.into()),
        namespace: (resource != "freezes").then(|| namespace.to_owned()),
        name: one.map(ToOwned::to_owned),
        ..ResourceAttributes::default()
    };
    SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    }
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

    #[test]
    fn a_question_names_the_rollout_only_where_that_is_possible() {
        let name = |need| {
            let attributes = question(need, "shop", Some("web")).spec.resource_attributes;
            let attributes = attributes.unwrap();
            (attributes.namespace, attributes.name)
        };
        let shop = || Some("shop".to_owned());
        assert_eq!(name(("approve", "rollouts")), (shop(), Some("web".into())));
        assert_eq!(name(("list", "rollouts")), (shop(), None));
        assert_eq!(name(("create", "signoffs")), (shop(), None));
        assert_eq!(name(("create", "freezes")), (None, None));
    }
}
