//! Explains errors of the API server in plain words.

use kube::core::Status;

/// The destination of a request.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Address of the API server.
    pub server: String,
    /// Context of the kubeconfig.
    pub context: String,
    /// Namespace.
    pub namespace: String,
}

/// Why a request failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An admission policy denies the request, with a message.
    #[error("refused: {0}")]
    Denied(String),
    /// The user lacks a right.
    #[error(
        "{user} cannot {verb} {resource} {place}: ask an administrator to grant the verb {verb} on {resource} in API group {group:?}"
    )]
    Forbidden {
        /// The user.
        user: String,
        /// The verb that the user lacks.
        verb: String,
        /// The resource in plural.
        resource: String,
        /// Its API group.
        group: String,
        /// The scope.
        place: String,
    },
    /// The object does not exist.
    #[error("there is no {kind} {name:?} {place}")]
    NotFound {
        /// The resource in plural.
        kind: String,
        /// The requested name.
        name: String,
        /// The namespace or context.
        place: String,
    },
    /// The server does not know the resource.
    #[error(
        "the server {server} (context {context}) does not know this kind of object: is Countersign installed in that cluster, and not older than this plugin?"
    )]
    UnknownKind {
        /// The server.
        server: String,
        /// The context.
        context: String,
    },
    /// The server does not know the user.
    #[error(
        "the server {server} does not accept the credentials of context {context}: log in again"
    )]
    Unauthenticated {
        /// The server.
        server: String,
        /// The context.
        context: String,
    },
    /// The object was modified since it was read.
    #[error("the object was modified in the meantime: check it again and repeat the command")]
    Conflict,
    /// An object of that name exists.
    #[error("{0}")]
    Exists(String),
    /// A field has a wrong value.
    #[error("refused: {0}")]
    Invalid(String),
    /// The server does not answer.
    #[error("cannot reach the server {server} (context {context}): {why}")]
    Unreachable {
        /// The server.
        server: String,
        /// The context.
        context: String,
        /// Why.
        why: String,
    },
    /// Any other error, with the server's message.
    #[error("{0}")]
    Other(String),
}

impl Refusal {
    /// Explains an error of the client.
    #[must_use]
    pub fn of(error: &kube::Error, place: &Place) -> Self {
        match error {
            kube::Error::Api(status) => of_status(status, place),
            kube::Error::Auth(_) => Self::Other(format!(
                "the credentials of context {} cannot be obtained: {}",
                place.context,
                innermost(error)
            )),
            kube::Error::HyperError(_) | kube::Error::Service(_) => Self::Unreachable {
                server: place.server.clone(),
                context: place.context.clone(),
                why: innermost(error),
            },
            _ => Self::Other(error.to_string()),
        }
    }
}

fn of_status(status: &Status, place: &Place) -> Refusal {
    let details = status.details.as_ref();
    let (server, context) = (place.server.clone(), place.context.clone());
    if let Some(message) = denial(&status.message) {
        return Refusal::Denied(message);
    }
    match status.code {
        401 => Refusal::Unauthenticated { server, context },
        403 => forbidden(&status.message).unwrap_or_else(|| Refusal::Other(status.message.clone())),
        404 => match details.filter(|details| !details.name.is_empty()) {
            Some(details) => Refusal::NotFound {
                place: looked_for(&details.kind, place),
                kind: singular(&details.kind),
                name: details.name.clone(),
            },
            None => Refusal::UnknownKind { server, context },
        },
        409 if status.reason == "Conflict" => Refusal::Conflict,
        409 if status.reason == "AlreadyExists" => Refusal::Exists(status.message.clone()),
        422 => Refusal::Invalid(invalid(status)),
        _ => Refusal::Other(status.message.clone()),
    }
}

/// The message of an admission policy, without the names around it.
fn denial(message: &str) -> Option<String> {
    let (before, after) = message.split_once(" denied request: ")?;
    before
        .contains("ValidatingAdmissionPolicy")
        .then(|| after.trim().to_owned())
}

/// Reads `User "alice" cannot create resource "signoffs" in API group "countersign.dev" in the
/// namespace "shop"`.
fn forbidden(message: &str) -> Option<Refusal> {
    let (_, words) = message.split_once("User \"")?;
    let mut words = words.split('"');
    let user = words.next()?.to_owned();
    let verb = words
        .next()?
        .strip_prefix(" cannot ")?
        .strip_suffix(" resource ")?
        .to_owned();
    let resource = words.next()?.to_owned();
    let _in_group = words.next()?;
    let group = words.next()?.to_owned();
    let place = match (words.next(), words.next()) {
        (Some(scope), Some(namespace)) if scope.contains("in the namespace") => {
            format!("in namespace {namespace:?}")
        }
        _ => "in the whole cluster".to_owned(),
    };
    Some(Refusal::Forbidden {
        user,
        verb,
        resource,
        group,
        place,
    })
}

/// The causes by field, or the message if there are none.
fn invalid(status: &Status) -> String {
    let causes = status.details.as_ref().map(|details| &details.causes);
    let causes: Vec<_> = causes
        .into_iter()
        .flatten()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    if causes.is_empty() {
        status.message.clone()
    } else {
        causes.join("; ")
    }
}

fn looked_for(kind: &str, place: &Place) -> String {
    if matches!(kind, "freezes" | "namespaces" | "rolloutpolicies") {
        format!("in context {}", place.context)
    } else {
        format!(
            "in namespace {:?} (context {}): name another with -n",
            place.namespace, place.context
        )
    }
}

fn singular(resource: &str) -> String {
    let word = match resource {
        "rollouts" => "Rollout",
        "rolloutruns" => "RolloutRun",
        "signoffs" => "SignOff",
        "interventions" => "Intervention",
        "freezes" => "Freeze",
        "namespaces" => "namespace",
        "deployments" => "Deployment",
        other => other,
    };
    word.to_owned()
}

/// The root cause, such as `connection refused`.
fn innermost(error: &dyn std::error::Error) -> String {
    let deeper = std::iter::successors(error.source(), |error| error.source());
    deeper
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn explained(status: &serde_json::Value) -> String {
        let place = Place {
            server: "https://192.0.2.1:6443/".into(),
            context: "prod".into(),
            namespace: "shop".into(),
        };
        let status: Status = serde_json::from_value(status.clone()).unwrap();
        Refusal::of(&kube::Error::Api(Box::new(status)), &place).to_string()
    }

    #[test]
    fn an_admission_policy_is_quoted_without_its_names() {
        for (code, reason) in [(403, "Forbidden"), (422, "Invalid")] {
            let status = json!({ "code": code, "reason": reason, "message":
                "signoffs.countersign.dev \"web-x2\" is forbidden: ValidatingAdmissionPolicy 'countersign-signoffs' with binding 'countersign-signoffs' denied request: alice is an author of this change" });
            assert_eq!(
                explained(&status),
                "refused: alice is an author of this change"
            );
        }
    }

    #[test]
    fn a_missing_right_names_the_verb() {
        let message = r#"signoffs.countersign.dev is forbidden: User "alice" cannot create resource "signoffs" in API group "countersign.dev" in the namespace "shop""#;
        assert_eq!(
            explained(&json!({ "code": 403, "reason": "Forbidden", "message": message })),
            r#"alice cannot create signoffs in namespace "shop": ask an administrator to grant the verb create on signoffs in API group "countersign.dev""#
        );
        let message = r#"freezes.countersign.dev "x" is forbidden: User "alice" cannot delete resource "freezes" in API group "countersign.dev" at the cluster scope"#;
        assert_eq!(
            explained(&json!({ "code": 403, "reason": "Forbidden", "message": message })),
            r#"alice cannot delete freezes in the whole cluster: ask an administrator to grant the verb delete on freezes in API group "countersign.dev""#
        );
    }

    #[test]
    fn what_does_not_exist_is_reported_with_the_place() {
        let status = json!({ "code": 404, "reason": "NotFound", "message": "rollouts.countersign.dev \"web\" not found",
            "details": { "name": "web", "group": "countersign.dev", "kind": "rollouts" } });
        assert_eq!(
            explained(&status),
            r#"there is no Rollout "web" in namespace "shop" (context prod): name another with -n"#
        );
        let status =
            json!({ "code": 404, "reason": "NotFound", "message": "404 page not found\n" });
        assert_eq!(
            explained(&status),
            "the server https://192.0.2.1:6443/ (context prod) does not know this kind of object: is Countersign installed in that cluster, and not older than this plugin?"
        );
    }

    #[test]
    fn wrong_fields_are_listed_and_what_is_not_known_is_quoted() {
        let status = json!({ "code": 422, "reason": "Invalid", "message": "SignOff.countersign.dev \"web-x2\" is invalid: …",
            "details": { "causes": [{ "reason": "FieldValueInvalid", "field": "spec", "message": "spec.reason: say why" }] } });
        assert_eq!(explained(&status), "refused: spec: spec.reason: say why");
        assert_eq!(
            explained(
                &json!({ "code": 409, "reason": "Conflict", "message": "the object has been modified" })
            ),
            "the object was modified in the meantime: check it again and repeat the command"
        );
        assert_eq!(
            explained(&json!({ "code": 500, "message": "etcd is full" })),
            "etcd is full"
        );
        assert_eq!(
            explained(&json!({ "code": 401, "message": "Unauthorized" })),
            "the server https://192.0.2.1:6443/ does not accept the credentials of context prod: log in again"
        );
    }
}
