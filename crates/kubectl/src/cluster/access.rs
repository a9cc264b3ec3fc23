//! Asks the API server what the user may do.

use countersign_api::GROUP;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;

use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;

/// A verb on a resource.
pub type Need = (&'static str, &'static str);

/// Whether the user has a permission in the namespace, on one Rollout if that is named.
pub async fn is_allowed(
    connection: &Connection,
    need: Need,
    rollout: Option<&str>,
) -> Result<bool, Refusal> {
    let reviews = connection.cluster::<SelfSubjectAccessReview>();
    let question = question(need, connection.namespace(), rollout);
    let parameters = PostParams::default();
    let answer = connection
        .ask(reviews.create(&parameters, &question))
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
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

#[cfg(test)]
mod tests {
    use super::*;

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
