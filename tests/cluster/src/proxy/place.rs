//! The resource that a path names.

use axum::http::Uri;

/// Cluster-scoped resources that an operator requests.
const WITHOUT_NAMESPACE: &[&str] = &[
    "namespaces",
    "rolloutpolicies",
    "freezes",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "selfsubjectreviews",
    "tokenreviews",
    "subjectaccessreviews",
];

/// The resource of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Up to the resource.
    pub(super) root: String,
    pub(super) namespaced: bool,
    pub(super) resource: String,
    pub(super) name: String,
}

impl Place {
    pub(super) fn of(path: &str) -> Self {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let root = match parts.first() {
            Some(&"api") => 2,
            Some(&"apis") => 3,
            _ => return Self::default(),
        };
        let Some((root, rest)) = parts.split_at_checked(root) else {
            return Self::default();
        };
        let (namespaced, rest) = match rest {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let Some((plural, rest)) = rest.split_first() else {
            return Self::default();
        };
        let name = rest.first().copied().unwrap_or_default();
        let resource = match rest.get(1) {
            Some(subresource) => format!("{plural}/{subresource}"),
            None => (*plural).to_owned(),
        };
        Self {
            root: format!("/{}", root.join("/")),
            namespaced,
            resource,
            name: name.to_owned(),
        }
    }

    /// The same limited to one namespace, if it spans all of them.
    pub(super) fn within(&self, namespace: &str, uri: &Uri) -> Option<Uri> {
        let spans = !self.namespaced
            && self.name.is_empty()
            && !self.resource.is_empty()
            && !WITHOUT_NAMESPACE.contains(&self.resource.as_str());
        if !spans {
            return None;
        }
        let query = uri.query().map(|query| format!("?{query}"));
        let query = query.unwrap_or_default();
        let (root, resource) = (&self.root, &self.resource);
        format!("{root}/namespaces/{namespace}/{resource}{query}")
            .parse()
            .ok()
    }
}
