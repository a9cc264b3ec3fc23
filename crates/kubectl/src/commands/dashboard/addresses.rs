//! The addresses of the pages, which share a random path.
//!
//! A browser sends a cookie to every port of a host, but only below the cookie's path. A path that no other server
//! of this machine knows keeps the cookie from them.

/// The addresses of one run of the server.
#[derive(Clone, Debug)]
pub struct Addresses {
    base: String,
}

impl Addresses {
    /// The addresses below a path, which begins with a slash and does not end with one.
    #[must_use]
    pub const fn below(base: String) -> Self {
        Self { base }
    }

    /// The path that all addresses share.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The address of this path, which begins with a slash.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The address of a Rollout's page, or of what is below it.
    #[must_use]
    pub fn rollout(&self, namespace: &str, name: &str, below: &str) -> String {
        let encoded =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let (namespace, name) = (encoded(namespace), encoded(name));
        self.at(&format!("/rollouts/{namespace}/{name}{below}"))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Addresses below a path that the tests of the pages know.
    pub fn addresses() -> Addresses {
        Addresses::below("/secret".into())
    }

    #[test]
    fn a_name_cannot_leave_its_address() {
        assert_eq!(
            addresses().rollout("a/b", "..?x", "/abort"),
            "/secret/rollouts/a%2Fb/..%3Fx/abort"
        );
    }
}
