//! The API server's audit log, limited to requests of `ServiceAccount`s of the operator's namespace.

use crate::{
    directory::Directory,
    error::{Error, Result},
    operator,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::PathBuf,
};

/// The log's name in the state directory.
const LOG: &str = "audit.log";
const POLICY: &str = "audit-policy.json";

/// A request of an operator, logged when its response was complete, or, for a watch, had begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// When it was received.
    pub at: Timestamp,
    /// When its response was complete; for a watch, when it began.
    pub answered_at: Timestamp,
    /// The user, such as `system:serviceaccount:countersign-system:countersign`.
    pub user: String,
    /// The verb, as in RBAC.
    pub verb: String,
    /// The API group, empty for the core one.
    pub group: String,
    /// The resource, with its subresource after a slash.
    pub resource: String,
    /// The object's namespace, if one was named.
    pub namespace: Option<String>,
    /// The object's name, if one was named.
    pub name: Option<String>,
    /// The HTTP status of the response.
    pub code: u16,
}

impl ApiRequest {
    /// Whether the request is a write.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// Writes the audit policy with the users whose requests are logged.
pub(crate) fn keep(dir: &Directory) -> Result<()> {
    let group = format!("system:serviceaccounts:{}", operator::NAMESPACE);
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata", "userGroups": [group] }, { "level": "None" }],
    });
    Directory::write(&dir.join(POLICY), policy.to_string())
}

/// The API server's arguments for the audit log.
pub(crate) fn arguments(dir: &Directory) -> [String; 3] {
    [
        format!("--audit-policy-file={}", dir.join(POLICY).display()),
        format!("--audit-log-path={}", log(dir).display()),
        // In MB. A reader would lose its position on log rotation.
        "--audit-log-maxsize=100000".to_owned(),
    ]
}

/// An incremental reader of the log.
#[derive(Debug)]
pub struct RequestLog {
    path: PathBuf,
    /// Offset in bytes.
    read: u64,
}

impl RequestLog {
    /// A reader at the start of the log.
    pub(crate) fn from_its_start(dir: &Directory) -> Self {
        Self {
            path: log(dir),
            read: 0,
        }
    }

    /// The requests since the last call, in the order of the responses.
    pub fn news(&mut self) -> Result<Vec<ApiRequest>> {
        let mut requests = Vec::new();
        self.read_on(&mut requests)
            .map_err(Error::file("read", &self.path))?;
        Ok(requests)
    }

    fn read_on(&mut self, requests: &mut Vec<ApiRequest>) -> std::io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut file = BufReader::new(file);
        let mut line = String::new();
        // A half-written last line is left for the next call.
        while let length @ 1.. = file.read_line(&mut line)?
            && line.ends_with('\n')
        {
            self.read += length as u64;
            let entry = serde_json::from_str(&line).ok();
            requests.extend(entry.and_then(|entry| request(&entry)));
            line.clear();
        }
        Ok(())
    }
}

fn log(dir: &Directory) -> PathBuf {
    dir.join(LOG)
}

fn request(entry: &Value) -> Option<ApiRequest> {
    let text = |path: &str| Some(entry.pointer(path)?.as_str()?.to_owned());
    let verb = text("/verb")?;
    let code = u16::try_from(entry.pointer("/responseStatus/code")?.as_u64()?).ok()?;
    // A granted watch is logged at its begin and its end.
    let stage = if verb == "watch" && code < 400 {
        "ResponseStarted"
    } else {
        "ResponseComplete"
    };
    if text("/stage")? != stage {
        return None;
    }
    let resource = text("/objectRef/resource")?;
    Some(ApiRequest {
        at: text("/requestReceivedTimestamp")?.parse().ok()?,
        answered_at: text("/stageTimestamp")?.parse().ok()?,
        user: text("/user/username")?,
        verb,
        group: text("/objectRef/apiGroup").unwrap_or_default(),
        resource: match text("/objectRef/subresource") {
            Some(subresource) => format!("{resource}/{subresource}"),
            None => resource,
        },
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn entry(verb: &str, stage: &str) -> Value {
        json!({
            "stage": stage, "verb": verb, "user": { "username": "robot" }, "requestURI": "/apis",
            "objectRef": { "resource": "rollouts", "subresource": "status", "namespace": "shop", "name": "web", "apiGroup": "countersign.dev" },
            "responseStatus": { "code": 200 }, "requestReceivedTimestamp": "2026-01-02T03:04:05.678901Z",
            "stageTimestamp": "2026-01-02T03:04:05.690123Z",
        })
    }

    #[test]
    fn each_request_is_counted_once() {
        let read = |verb, stage| request(&entry(verb, stage));
        let patched = read("patch", "ResponseComplete").unwrap();
        assert_eq!(patched.resource, "rollouts/status");
        assert!(patched.is_write());
        assert!(!read("watch", "ResponseStarted").unwrap().is_write());
        assert_eq!(read("watch", "ResponseComplete"), None);
        assert_eq!(read("list", "ResponseStarted"), None);
    }

    #[test]
    fn the_log_is_read_on_from_where_it_was_read_to() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Directory::at(dir.path());
        let entry = entry("patch", "ResponseComplete").to_string();
        let mut requests = RequestLog::from_its_start(&dir);
        fs::write(log(&dir), format!("{entry}\n{entry}\n{}", &entry[..9])).unwrap();
        assert_eq!(requests.news().unwrap().len(), 2);
        fs::write(log(&dir), format!("{entry}\n{entry}\n{entry}\n")).unwrap();
        assert_eq!(requests.news().unwrap().len(), 1);
        assert_eq!(requests.news().unwrap(), []);
    }
}
