//! The queries of each preset, from `presets.yaml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use countersign_api::Preset;
use countersign_api::analysis::BucketUnit;
use serde::Deserialize;

/// The queries of a preset, with the placeholders of a check's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queries {
    /// The preset.
    pub name: Preset,
    /// Selector of the failed requests.
    pub errors: String,
    /// Selector of all requests.
    pub total: String,
    /// Selector of the latency histogram's buckets, if any.
    pub buckets: Option<String>,
    /// Unit of the buckets' bounds.
    #[serde(default)]
    pub unit: BucketUnit,
}

static ALL: LazyLock<BTreeMap<Preset, Queries>> = LazyLock::new(|| {
    #[allow(
        clippy::expect_used,
        reason = "a unit test proves that this constant can be read"
    )]
    let all: Vec<Queries> =
        serde_saphyr::from_str(include_str!("presets.yaml")).expect("the presets can be read");
    all.into_iter().map(|it| (it.name, it)).collect()
});

/// The queries of a preset.
#[must_use]
pub fn queries(preset: Preset) -> Option<&'static Queries> {
    ALL.get(&preset)
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::*;

    #[test]
    fn every_preset_has_its_queries() {
        let schema = serde_json::to_value(Preset::json_schema(
            &mut schemars::SchemaGenerator::default(),
        ))
        .unwrap();
        let names: Vec<_> = schema["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["const"].clone())
            .collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            let preset: Preset = serde_json::from_value(name.clone()).unwrap();
            assert!(queries(preset).is_some(), "{name}");
        }
    }
}
