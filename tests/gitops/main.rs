//! What GitOps tools make of a Rollout: kstatus, the scripts for Argo CD and the expressions for Flux.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod argocd;
mod flux;
mod kstatus;
mod lua;
mod story;

use std::fs;
use std::path::Path;

use serde_json::Value;

/// The one document of a file in `integrations/`.
fn document(path: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations");
    serde_saphyr::from_str(&fs::read_to_string(root.join(path)).unwrap()).unwrap()
}
