//! A fake API server that stores objects and injects faults, for faults at times that a real one cannot
//! reproduce.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};

/// The path of the Rollouts of namespace `shop`.
pub const ROLLOUTS: &str = "/apis/countersign.dev/v1alpha1/namespaces/shop/rollouts";

/// A received request.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its content type.
    pub kind: String,
    /// Its query.
    pub query: String,
    /// Its body.
    pub body: Value,
}

/// A fault of a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The request is refused with this code.
    Refuse(u16),
    /// The object exists already.
    Taken,
    /// The response never comes.
    Hang,
    /// The response comes this late.
    Delay(Duration),
    /// A selector by a field is refused, as by an API server that has none for custom resources.
    NoFields,
}

type Faults = dyn Fn(&RecordedRequest) -> Option<Fault> + Send + Sync;
type Webhook = dyn Fn(&mut Value) + Send + Sync;

/// The fake API server.
#[derive(Clone)]
pub struct StandIn {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    requests: Arc<Mutex<Vec<RecordedRequest>>>,
    faults: Arc<Mutex<Arc<Faults>>>,
    webhook: Arc<Mutex<Arc<Webhook>>>,
    /// The last resourceVersion.
    version: Arc<AtomicU64>,
}

impl StandIn {
    /// An empty server without faults.
    pub fn new() -> Self {
        Self {
            objects: Arc::default(),
            requests: Arc::default(),
            faults: Arc::new(Mutex::new(Arc::new(|_| None))),
            webhook: Arc::new(Mutex::new(Arc::new(|_| ()))),
            version: Arc::default(),
        }
    }

    /// A client of the server.
    pub fn client(&self) -> Client {
        let stand_in = self.clone();
        let answer = move |request: Request<Body>| {
            let stand_in = stand_in.clone();
            async move { Ok::<_, Infallible>(stand_in.answer(request).await) }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    /// Sets the faults of later requests.
    pub fn fails(
        &self,
        faults: impl Fn(&RecordedRequest) -> Option<Fault> + Send + Sync + 'static,
    ) {
        *self.faults.lock().unwrap() = Arc::new(faults);
    }

    /// Sets what an admission webhook changes in objects that are created later.
    pub fn admits(&self, webhook: impl Fn(&mut Value) + Send + Sync + 'static) {
        *self.webhook.lock().unwrap() = Arc::new(webhook);
    }

    /// Stores an object at a path.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut objects = self.objects.lock().unwrap();
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        let uid = format!("uid-of-{path}");
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.insert("resourceVersion".into(), json!(version.to_string()));
        metadata.entry("uid").or_insert(json!(uid));
        metadata.entry("namespace").or_insert(json!("shop"));
        objects.insert(path.to_owned(), object);
    }

    /// Stores an object at a path, with its uid and resourceVersion.
    pub fn put_as_it_is(&self, path: &str, object: Value) {
        let mut objects = self.objects.lock().unwrap();
        objects.insert(path.to_owned(), object);
    }

    /// Removes the object at a path.
    pub fn remove(&self, path: &str) {
        self.objects.lock().unwrap().remove(path).unwrap();
    }

    /// The object at a path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    /// The paths of all objects of a kind, by its plural.
    pub fn paths(&self, plural: &str) -> Vec<String> {
        let of_kind = |path: &&String| path.rsplit('/').nth(1) == Some(plural);
        let objects = self.objects.lock().unwrap();
        objects.keys().filter(of_kind).cloned().collect()
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let kind = parts.headers.get(CONTENT_TYPE);
        let recorded = RecordedRequest {
            kind: kind.map_or("", |it| it.to_str().unwrap()).to_owned(),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        self.requests.lock().unwrap().push(recorded.clone());
        let fault = (self.faults.lock().unwrap().clone())(&recorded);
        if let Some(Fault::Delay(time)) = fault {
            tokio::time::sleep(time).await;
        }
        let (code, answer) = match fault {
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Refuse(code)) => failure(code),
            Some(Fault::NoFields) if recorded.query.contains("fieldSelector") => no_field(),
            Some(Fault::Taken) => taken(),
            Some(Fault::Delay(_) | Fault::NoFields) | None => self.serve(&recorded),
        };
        let answer = Response::builder().status(code).body(answer.to_string());
        answer.unwrap().map(|text| Body::from(text.into_bytes()))
    }

    fn serve(&self, recorded: &RecordedRequest) -> (u16, Value) {
        let status_of = recorded.path.strip_suffix("/status");
        let path = status_of.unwrap_or(&recorded.path);
        let there = self.get(path);
        match (&recorded.method, there) {
            (&Method::GET, Some(object)) => (200, object),
            (&Method::GET, None) if is_collection(path) => (200, self.list(path, &recorded.query)),
            (&Method::PUT, Some(mut object)) => {
                let read = recorded.body.pointer("/metadata/resourceVersion");
                let Some(read) = read else {
                    return failure(422);
                };
                if *read != object["metadata"]["resourceVersion"] {
                    return failure(409);
                }
                if status_of.is_some() {
                    object["status"] = recorded.body["status"].clone();
                } else {
                    object = recorded.body.clone();
                }
                self.put(path, object);
                (200, self.get(path).unwrap())
            }
            (&Method::DELETE, Some(object)) => {
                let same = |field: &str| {
                    let wanted = recorded.body.pointer(&format!("/preconditions/{field}"));
                    wanted.is_none_or(|it| Some(it) == object["metadata"].get(field))
                };
                if !same("uid") || !same("resourceVersion") {
                    return failure(409);
                }
                self.objects.lock().unwrap().remove(path);
                (200, object)
            }
            (&Method::POST, _) => {
                let mut body = recorded.body.clone();
                (self.webhook.lock().unwrap().clone())(&mut body);
                if recorded.query.contains("dryRun=All") {
                    return (201, body);
                }
                // Reviews, such as SelfSubjectReview, have no name.
                let Some(name) = body["metadata"]["name"].as_str() else {
                    return failure(404);
                };
                let path = format!("{path}/{name}");
                if self.get(&path).is_some() {
                    return taken();
                }
                self.put(&path, body);
                (201, self.get(&path).unwrap())
            }
            (&Method::PATCH, there) if there.is_some() || recorded.body.get("kind").is_some() => {
                let mut object = there.unwrap_or_else(|| json!({}));
                match &recorded.body {
                    Value::Object(fields) => merge(object.as_object_mut().unwrap(), fields),
                    operations => {
                        let operations: json_patch::Patch =
                            serde_json::from_value(operations.clone()).unwrap();
                        if json_patch::patch(&mut object, &operations).is_err() {
                            return failure(422);
                        }
                    }
                }
                self.put(path, object);
                (200, self.get(path).unwrap())
            }
            _ => failure(404),
        }
    }

    /// A page of the objects with the selected fields, up to the requested limit.
    fn list(&self, path: &str, query: &str) -> Value {
        let parameter = |name: &str| {
            let mut all = query.split('&').filter_map(|it| it.split_once('='));
            all.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let fields = decoded(parameter("fieldSelector").unwrap_or_default());
        let fields: Vec<_> = fields
            .split(',')
            .filter_map(|it| it.split_once('='))
            .collect();
        let is_selected = |object: &Value| {
            fields.iter().all(|(field, value)| {
                let found = object.pointer(&format!("/{}", field.replace('.', "/")));
                found.and_then(Value::as_str) == Some(*value)
            })
        };
        let number = |name: &str| parameter(name).and_then(|it| it.parse::<usize>().ok());
        let version = self.version.load(Ordering::SeqCst);
        let objects = self.objects.lock().unwrap();
        let all = objects.iter().filter(|(key, _)| is_of(key, path));
        let all = all.map(|(_, object)| object);
        let all: Vec<_> = all.filter(|object| is_selected(object)).collect();
        let from = number("continue").unwrap_or(0).min(all.len());
        let to = number("limit").map_or(all.len(), |limit| (from + limit).min(all.len()));
        let more = if to < all.len() {
            to.to_string()
        } else {
            String::new()
        };
        json!({
            "kind": "List", "apiVersion": "v1", "items": all[from..to],
            "metadata": { "continue": more, "resourceVersion": version.to_string() },
        })
    }
}

/// Whether a path names a kind and no object: after the namespace an odd number of parts follows.
fn is_collection(path: &str) -> bool {
    let (_, after) = path.split_once("/namespaces/").unwrap_or_default();
    after.matches('/').count() == 1 || !path.contains("/namespaces/")
}

/// Whether an object is one of a collection: of a namespace, or of all of them.
fn is_of(object: &str, collection: &str) -> bool {
    let folder = object.rsplit_once('/').map_or("", |(folder, _)| folder);
    let (group, plural) = collection.rsplit_once('/').unwrap_or_default();
    let namespaced = format!("{group}/namespaces/");
    folder == collection
        || (folder.starts_with(&namespaced) && folder.rsplit('/').next() == Some(plural))
}

/// A parameter of a query without its percent signs.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        whole.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        whole.push_str(rest);
    }
    whole
}

fn no_field() -> (u16, Value) {
    let (code, mut status) = failure(400);
    status["message"] = json!("field label not supported: spec.rolloutUid");
    (code, status)
}

fn taken() -> (u16, Value) {
    let (code, mut status) = failure(409);
    status["reason"] = json!("AlreadyExists");
    (code, status)
}

fn failure(code: u16) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "",
    };
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": "as the test has it", "reason": reason,
    });
    if code == 429 {
        status["details"] = json!({ "retryAfterSeconds": 60 });
    }
    (code, status)
}

/// As in a server-side apply by one manager: objects are merged, other values replaced.
fn merge(object: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
            continue;
        }
        match (object.get_mut(key), value) {
            (Some(Value::Object(there)), Value::Object(patch)) if key != "status" => {
                merge(there, patch);
            }
            _ => _ = object.insert(key.clone(), value.clone()),
        }
    }
}
