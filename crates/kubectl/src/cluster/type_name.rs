//! The name of an object, alone or as `TYPE/NAME`, as kubectl takes it.

/// The name of a Rollout.
pub fn rollout(text: &str) -> Result<String, String> {
    name(text, &["rollout", "rollouts", "cro"], "countersign.dev")
}

/// The name of a Freeze.
pub fn freeze(text: &str) -> Result<String, String> {
    name(text, &["freeze", "freezes", "cfz"], "countersign.dev")
}

/// The name of a Deployment.
pub fn deployment(text: &str) -> Result<String, String> {
    name(text, &["deployment", "deployments", "deploy"], "apps")
}

/// The name without its type, which is one of `types`, alone or with a version and the group.
fn name(text: &str, types: &[&str], group: &str) -> Result<String, String> {
    let Some((kind, name)) = text.split_once('/') else {
        return Ok(text.to_owned());
    };
    let kind = kind.to_ascii_lowercase();
    let (resource, suffix) = kind.split_once('.').unwrap_or((&kind, group));
    let of_group = suffix == group || suffix.ends_with(&format!(".{group}"));
    if types.contains(&resource) && of_group && !name.is_empty() && !name.contains('/') {
        return Ok(name.to_owned());
    }
    let first = types.first().copied().unwrap_or_default();
    Err(format!("write NAME or {first}/NAME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_its_type() {
        for text in [
            "web",
            "rollout/web",
            "rollouts/web",
            "cro/web",
            "Rollout/web",
            "rollouts.countersign.dev/web",
            "rollouts.v1alpha1.countersign.dev/web",
        ] {
            assert_eq!(rollout(text).as_deref(), Ok("web"), "{text}");
        }
        for text in [
            "deployment/web",
            "rollouts.argoproj.io/web",
            "rollout/",
            "rollout/a/b",
            "/web",
        ] {
            let message = rollout(text).unwrap_err();
            assert_eq!(message, "write NAME or rollout/NAME", "{text}");
        }
        assert_eq!(deployment("deploy/web").as_deref(), Ok("web"));
        assert_eq!(deployment("deployments.v1.apps/web").as_deref(), Ok("web"));
        assert_eq!(freeze("cfz/incident").as_deref(), Ok("incident"));
    }
}
