//! Reads from the API server: their pages and retries.

use std::sync::atomic::{AtomicBool, Ordering};

use kube::Api;
use kube::api::ListParams;
use serde::de::DeserializeOwned;

/// Attempts per read: one lost response must not fail the whole reconcile.
const TRIES: usize = 3;

/// Objects per page of a list of small objects.
pub const SMALL: u32 = 100;
/// Objects per page of a list of objects that may have 1.5 MB each.
pub const LARGE: u32 = 20;

/// How the API server refuses a selector by a field that it cannot select by.
const NO_FIELD: &str = "field label not supported";

/// Lists the most recent objects page by page, and keeps what `convert` makes of each, so that a list of large objects
/// takes no more memory than a page. The API server's cache has no pages.
pub(super) async fn collect<K, T>(
    api: &Api<K>,
    of: &ListParams,
    convert: impl Fn(K) -> Option<T>,
) -> Result<Vec<T>, kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let (all, _) = collect_at_most(usize::MAX, api, of, convert).await?;
    Ok(all)
}

/// The same until that many objects are listed; returns whether there are more.
pub(super) async fn collect_at_most<K, T>(
    most: usize,
    api: &Api<K>,
    of: &ListParams,
    convert: impl Fn(K) -> Option<T>,
) -> Result<(Vec<T>, bool), kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let (mut kept, mut listed, mut after) = (Vec::new(), 0_usize, None);
    loop {
        let (objects, more) = page(api, of, after.as_deref(), None).await?;
        listed = listed.saturating_add(objects.len());
        kept.extend(objects.into_iter().filter_map(&convert));
        after = more;
        if after.is_none() || listed >= most {
            return Ok((kept, after.is_some()));
        }
    }
}

/// Reads the page of a consistent list after this continue token; returns the next token, if there are
/// more pages.
///
/// An API server below Kubernetes 1.31 selects custom resources by no field of theirs. Then all are listed, and
/// the caller selects. `no_fields` remembers it, until the process ends.
///
/// # Errors
/// If the page cannot be read.
pub async fn page<K>(
    api: &Api<K>,
    of: &ListParams,
    after: Option<&str>,
    no_fields: Option<&AtomicBool>,
) -> Result<(Vec<K>, Option<String>), kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut parameters = of.clone();
    if let Some(token) = after {
        parameters = parameters.continue_token(token);
    }
    if no_fields.is_some_and(|it| it.load(Ordering::Relaxed)) {
        parameters.field_selector = None;
    }
    let mut page = tried(|| api.list(&parameters)).await;
    if matches!(&page, Err(kube::Error::Api(status)) if status.message.contains(NO_FIELD)) {
        if let Some(no_fields) = no_fields {
            no_fields.store(true, Ordering::Relaxed);
        }
        parameters.field_selector = None;
        page = tried(|| api.list(&parameters)).await;
    }
    let page = page?;
    let more = page.metadata.continue_.filter(|token| !token.is_empty());
    Ok((page.items, more))
}

/// Retries a read if the API server failed or the response was lost, or if the version of a list has expired, but not if it
/// refused or is overloaded.
pub(super) async fn tried<T, F>(read: impl Fn() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    for _ in 1..TRIES {
        match read().await {
            Err(kube::Error::Api(status)) if status.code >= 500 || status.code == 410 => {}
            Err(kube::Error::Service(_) | kube::Error::HyperError(_)) => {}
            answer => return answer,
        }
    }
    read().await
}
