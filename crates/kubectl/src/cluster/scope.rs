//! The flags by which objects of a list are selected.

use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Resource};

use crate::cluster::connection::Connection;

/// Flags that select objects, as in kubectl.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Scope {
    /// If present, list the requested object(s) across all namespaces
    #[arg(short = 'A', long, conflicts_with = "rollout")]
    pub all_namespaces: bool,
    /// Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin' (e.g. -l
    /// key1=value1,key2=value2)
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "rollout")]
    selector: Option<String>,
    /// Selector (field query) to filter on, supports '=', '==', and '!=' (e.g. --field-selector
    /// key1=value1,key2=value2)
    #[arg(long, value_name = "FIELDS", conflicts_with = "rollout")]
    field_selector: Option<String>,
}

impl Scope {
    /// The API for the objects of the namespace, or of all.
    #[must_use]
    pub fn api<K>(&self, connection: &Connection) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if self.all_namespaces {
            connection.everywhere()
        } else {
            connection.here()
        }
    }

    /// The parameters of a list.
    #[must_use]
    pub fn list(&self) -> ListParams {
        ListParams {
            label_selector: self.selector.clone(),
            field_selector: self.field_selector.clone(),
            ..ListParams::default()
        }
    }

    /// The parameters of a watch.
    #[must_use]
    pub fn watch(&self) -> watcher::Config {
        watcher::Config {
            label_selector: self.selector.clone(),
            field_selector: self.field_selector.clone(),
            ..watcher::Config::default()
        }
    }

    /// Where the objects are, for messages.
    #[must_use]
    pub fn place(&self, connection: &Connection) -> String {
        if self.all_namespaces {
            "in any namespace".to_owned()
        } else {
            format!("in namespace {}", connection.namespace())
        }
    }
}
