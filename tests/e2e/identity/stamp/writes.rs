//! Writes of a Rollout in every way that the API server has.

use countersign_api::{CHANGED_BY_ANNOTATION, PROVENANCE_PREFIX};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

use crate::identity::user::{
    APPLY, Answer, JSON, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, User, path,
};
use crate::support::{App, Scene};

/// A Rollout that has no pods, so that changing it over and over costs little.
pub(super) fn manifest() -> Value {
    let mut app = App::new("shop");
    app.replicas = 0;
    app.manifest()
}

/// One thing that a write sets.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Image(u8),
    Provenance(Option<u8>),
    Stamp(Option<&'static str>),
    /// Removes all annotations, including the stamp and the provenance.
    NoAnnotations,
    Label(u8),
    Replicas(u8),
}

/// The ways in which a Rollout can be written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    MergePatch,
    JsonPatch,
    StrategicPatch,
    Replace,
    Apply,
    ForcedApply,
    Recreate,
    Scale,
    Status,
}

/// One write by somebody.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) how: How,
    pub(super) edits: Vec<Edit>,
    /// The field manager of an apply.
    pub(super) manager: &'static str,
}

impl Write {
    pub(super) fn any(random: &mut StdRng) -> Self {
        let ways = [
            How::MergePatch,
            How::JsonPatch,
            How::StrategicPatch,
            How::Replace,
            How::Apply,
            How::ForcedApply,
            How::ForcedApply,
            How::Recreate,
            How::Scale,
            How::Status,
        ];
        let edits = random.random_range(1..=3);
        Self {
            how: ways.choose(random).unwrap().clone(),
            edits: (0..edits).map(|_| Edit::any(random)).collect(),
            manager: ["ci", "gitops"].choose(random).unwrap(),
        }
    }

    pub(super) async fn send(&self, user: &User, scene: &Scene) -> Answer {
        let (own, all) = (path(scene, "rollouts/shop"), path(scene, "rollouts"));
        let apply = format!("{own}?fieldManager={}&force=", self.manager);
        match self.how {
            How::MergePatch => user.merge(&own, &self.merge_patch()).await,
            How::JsonPatch => {
                user.send("PATCH", &own, JSON_PATCH, &self.json_patch())
                    .await
            }
            How::StrategicPatch => {
                user.send("PATCH", &own, STRATEGIC_PATCH, &self.merge_patch())
                    .await
            }
            How::Replace => {
                let live = user.get(&own).await?;
                user.send("PUT", &own, JSON, &self.edited(live)).await
            }
            How::Apply => {
                let manifest = self.edited(manifest());
                user.send("PATCH", &(apply + "false"), APPLY, &manifest)
                    .await
            }
            How::ForcedApply => {
                let manifest = self.edited(manifest());
                user.send("PATCH", &(apply + "true"), APPLY, &manifest)
                    .await
            }
            How::Recreate => {
                user.delete(&own).await?;
                user.create(&all, &self.edited(manifest())).await
            }
            How::Scale => user.merge(&(own + "/scale"), &self.merge_patch()).await,
            How::Status => {
                user.send(
                    "PATCH",
                    &(own + "/status"),
                    MERGE_PATCH,
                    &self.merge_patch(),
                )
                .await
            }
        }
    }

    fn edited(&self, mut rollout: Value) -> Value {
        for edit in &self.edits {
            edit.make(&mut rollout);
        }
        rollout
    }

    pub(super) fn merge_patch(&self) -> Value {
        let mut patch = json!({});
        for edit in &self.edits {
            crate::support::merge(&mut patch, &edit.merge_patch());
        }
        patch
    }

    fn json_patch(&self) -> Value {
        self.edits.iter().map(Edit::json_patch).collect()
    }
}

impl Edit {
    pub(super) fn any(random: &mut StdRng) -> Self {
        let names = [None, Some(""), Some("alice"), Some("bob"), Some("mallory")];
        match random.random_range(0..10) {
            0..=1 => Self::Image(random.random_range(1..=3)),
            2..=3 => Self::Provenance([None, Some(1), Some(2)].choose(random).copied().flatten()),
            4..=6 => Self::Stamp(names.choose(random).copied().flatten()),
            7 => Self::NoAnnotations,
            8 => Self::Label(random.random_range(0..3)),
            _ => Self::Replicas(random.random_range(0..2)),
        }
    }

    pub(super) fn make(&self, rollout: &mut Value) {
        let mut annotation = |name: &str, value: Option<String>| {
            let annotations = &mut rollout["metadata"]["annotations"];
            match value {
                Some(value) => annotations[name] = value.into(),
                None => {
                    annotations
                        .as_object_mut()
                        .map(|annotations| annotations.remove(name));
                }
            }
        };
        match self {
            Self::Provenance(value) => annotation(&revision(), value.map(|n| n.to_string())),
            Self::Stamp(name) => annotation(CHANGED_BY_ANNOTATION, name.map(ToOwned::to_owned)),
            Self::NoAnnotations => rollout["metadata"]["annotations"] = json!({}),
            Self::Image(n) => {
                rollout["spec"]["template"]["spec"]["containers"][0]["image"] = image(*n).into();
            }
            Self::Label(n) => rollout["metadata"]["labels"]["seen"] = n.to_string().into(),
            Self::Replicas(n) => rollout["spec"]["replicas"] = (*n).into(),
        }
    }

    pub(super) fn merge_patch(&self) -> Value {
        let annotations = |value: Value| json!({ "metadata": { "annotations": value } });
        match self {
            Self::Provenance(value) => {
                annotations(json!({ revision(): value.map(|n| n.to_string()) }))
            }
            Self::Stamp(name) => annotations(json!({ CHANGED_BY_ANNOTATION: name })),
            Self::NoAnnotations => annotations(Value::Null),
            Self::Image(n) => {
                let mut template = manifest()["spec"]["template"].clone();
                template["spec"]["containers"][0]["image"] = image(*n).into();
                json!({ "spec": { "template": template } })
            }
            Self::Label(n) => json!({ "metadata": { "labels": { "seen": n.to_string() } } }),
            Self::Replicas(n) => json!({ "spec": { "replicas": n } }),
        }
    }

    fn json_patch(&self) -> Value {
        let annotation = |name: &str, value: Option<String>| {
            let path = format!("/metadata/annotations/{}", name.replace('/', "~1"));
            match value {
                Some(value) => json!({ "op": "add", "path": path, "value": value }),
                None => json!({ "op": "remove", "path": path }),
            }
        };
        match self {
            Self::Provenance(value) => annotation(&revision(), value.map(|n| n.to_string())),
            Self::Stamp(name) => annotation(CHANGED_BY_ANNOTATION, name.map(ToOwned::to_owned)),
            Self::NoAnnotations => {
                json!({ "op": "replace", "path": "/metadata/annotations", "value": {} })
            }
            Self::Image(n) => json!({
                "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image(*n),
            }),
            Self::Label(n) => {
                json!({ "op": "add", "path": "/metadata/labels", "value": { "seen": n.to_string() } })
            }
            Self::Replicas(n) => json!({ "op": "replace", "path": "/spec/replicas", "value": n }),
        }
    }
}

pub(super) fn image(n: u8) -> String {
    format!("example.org/shop:v{n}")
}

fn revision() -> String {
    format!("{PROVENANCE_PREFIX}revision")
}
