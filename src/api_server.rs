//! The API server's answers in words, for people to read.

/// What went wrong, in the API server's own sentence where it gave one: the whole answer is for logs.
#[must_use]
pub fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) if !status.reason.is_empty() => status.reason.clone(),
        kube::Error::Api(status) => format!("the API server answered with code {}", status.code),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_answer_is_its_sentence_alone() {
        let said = |message: &str, reason: &str| {
            let status = Status::failure(message, reason).with_code(500);
            sentence(&kube::Error::Api(status.boxed()))
        };
        assert_eq!(
            said("etcdserver: request timed out", "InternalError"),
            "etcdserver: request timed out"
        );
        assert_eq!(said("", "InternalError"), "InternalError");
        assert_eq!(said("", ""), "the API server answered with code 500");
    }
}
