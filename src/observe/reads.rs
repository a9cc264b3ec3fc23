//! How the API server is read: how new, and how often where it fails.

use kube::Api;
use kube::api::{GetParams, ListParams, ObjectList};
use serde::de::DeserializeOwned;

/// How often each is asked for where the API server fails: one answer that is lost of a dozen must not
/// cost the whole look.
const TRIES: usize = 3;

/// Objects that are read at once where there may be many.
const PAGE: u32 = 500;

/// How new what the API server says must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// What is stored now. Its cache may have to hear from etcd first, which takes a tenth of a second.
    MostRecent,
    /// What its cache holds.
    Cached,
}

impl Reads {
    /// Lists what has these labels.
    pub(super) async fn list<K>(
        self,
        api: &Api<K>,
        labels: &str,
    ) -> Result<ObjectList<K>, kube::Error>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let all = match self {
            Self::MostRecent => ListParams::default(),
            Self::Cached => ListParams::default().match_any(),
        };
        let parameters = all.labels(labels);
        tried(|| api.list(&parameters)).await
    }

    /// Gets an object by its name.
    pub(super) async fn get<K>(self, api: &Api<K>, name: &str) -> Result<K, kube::Error>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let parameters = match self {
            Self::MostRecent => GetParams::default(),
            Self::Cached => GetParams::any(),
        };
        tried(|| api.get_with(name, &parameters)).await
    }

    /// Gets an object by its name, where there is one.
    pub(super) async fn get_opt<K>(self, api: &Api<K>, name: &str) -> Result<Option<K>, kube::Error>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        match self.get(api, name).await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads the newest objects of a kind, a page at a time, after the page that ended with this token; with the
/// token of this page, if there are more.
///
/// # Errors
/// If the page cannot be read.
pub async fn page<K>(
    api: &Api<K>,
    after: Option<&str>,
) -> Result<(Vec<K>, Option<String>), kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut parameters = ListParams::default().limit(PAGE);
    parameters.continue_token = after.map(ToOwned::to_owned);
    let page = tried(|| api.list(&parameters)).await?;
    let more = page.metadata.continue_.filter(|token| !token.is_empty());
    Ok((page.items, more))
}

/// Reads, again where the API server failed or the answer was lost. What it refuses it has answered, and
/// where it has too much to do it is left alone.
pub(super) async fn tried<T, F>(read: impl Fn() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    for _ in 1..TRIES {
        match read().await {
            Err(kube::Error::Api(status)) if status.code >= 500 => {}
            Err(kube::Error::Service(_) | kube::Error::HyperError(_)) => {}
            answer => return answer,
        }
    }
    read().await
}
