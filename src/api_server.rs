//! Short error messages for logs, conditions and Events; the `Display` of an error adds the whole
//! response.

use kube::core::Status;
use kube::runtime::watcher;

/// The error message, in the API server's words if it sent any.
#[must_use]
pub fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => message_of(status),
        other => other.to_string(),
    }
}

/// The error message of a watch, in the API server's words if it sent any.
#[must_use]
pub fn watch_sentence(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => sentence(source),
        watcher::Error::WatchError(status) => message_of(status),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

fn message_of(status: &Status) -> String {
    [&status.message, &status.reason]
        .into_iter()
        .find(|it| !it.is_empty())
        .cloned()
        .unwrap_or_else(|| format!("the API server answered with code {}", status.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_sentence_alone() {
        let text = |message: &str, reason: &str| {
            let status = || Status::failure(message, reason).with_code(500).boxed();
            let text = sentence(&kube::Error::Api(status()));
            for watch in [
                watcher::Error::WatchError(status()),
                watcher::Error::InitialListFailed(kube::Error::Api(status())),
            ] {
                assert_eq!(watch_sentence(&watch), text);
            }
            text
        };
        assert_eq!(
            text("etcdserver: request timed out", "InternalError"),
            "etcdserver: request timed out"
        );
        assert_eq!(text("", "InternalError"), "InternalError");
        assert_eq!(text("", ""), "the API server answered with code 500");
    }
}
