//! Leader election by a Lease: one replica decides, the others stand by.
//!
//! A Lease coordinates, but is no lock. Two leaders do no harm, since every decision is written against
//! the resourceVersion that it was made from. Also, a replica whose last renewal is too old refuses its
//! own writes, so a process that was suspended and resumed writes nothing.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease as ApiLease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::api_server::sentence;
use crate::clock;
use crate::timing::{LEASE_DURATION, LEASE_RETRY, LEASE_TRUST};

/// This replica does not lead.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this replica does not hold the lease, so it writes nothing")]
pub struct NotLeading;

/// The lease, with the state of this replica.
pub struct Lease {
    api: Api<ApiLease>,
    name: String,
    identity: String,
    renewed: Mutex<Option<Instant>>,
}

impl Lease {
    /// The lease of this name in the own namespace, for a replica of this identity.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            renewed: Mutex::new(None),
        }
    }

    /// A lease that is held without renewal.
    #[cfg(test)]
    pub(crate) fn held(client: Client) -> Self {
        Self {
            renewed: Mutex::new(Some(Instant::now())),
            ..Self::new(client, "countersign-system", "countersign", "test")
        }
    }

    /// Whether this replica may write now.
    pub fn check(&self) -> Result<(), NotLeading> {
        self.remaining().map(|_| ())
    }

    /// For how long no other replica may lead, if this one may write now.
    pub fn remaining(&self) -> Result<Duration, NotLeading> {
        let renewed = self.renewed.lock().map_err(|_| NotLeading)?;
        let age = renewed.ok_or(NotLeading)?.elapsed();
        if age >= LEASE_TRUST {
            return Err(NotLeading);
        }
        Ok(LEASE_DURATION.saturating_sub(age))
    }

    /// Waits until this replica leads.
    pub async fn acquire(&self) {
        // A foreign lease is taken over only after it was unchanged for its whole duration by the local
        // clock: the clocks of two replicas may differ.
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %sentence(&error), "the lease could not be read or written");
                }
            }
            tokio::time::sleep(LEASE_RETRY).await;
        }
    }

    async fn try_acquire(
        &self,
        seen: &mut Option<(Option<String>, Instant)>,
    ) -> Result<bool, kube::Error> {
        let requested_at = Instant::now();
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            };
            let lease = ApiLease {
                metadata,
                spec: Some(self.spec(None)),
            };
            return self
                .write(
                    requested_at,
                    self.api.create(&PostParams::default(), &lease),
                )
                .await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        let since = match seen {
            Some((last, since)) if *last == version => *since,
            _ => seen.insert((version, requested_at)).1,
        };
        let free =
            holder.is_empty() || holder == self.identity || since.elapsed() >= LEASE_DURATION;
        if !free {
            return Ok(false);
        }
        self.hold(requested_at, lease, spec).await
    }

    /// Writes this replica as the holder, unless the lease has changed since it was read.
    async fn hold(
        &self,
        requested_at: Instant,
        lease: ApiLease,
        before: LeaseSpec,
    ) -> Result<bool, kube::Error> {
        let lease = ApiLease {
            spec: Some(self.spec(Some(before))),
            ..lease
        };
        let parameters = PostParams::default();
        let write = self.api.replace(&self.name, &parameters, &lease);
        self.write(requested_at, write).await
    }

    /// Renews until the lease is lost.
    pub async fn keep(&self) -> NotLeading {
        loop {
            tokio::time::sleep(LEASE_RETRY).await;
            match tokio::time::timeout(LEASE_TRUST, self.renew()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return self.lose(),
                Ok(Err(error)) => {
                    tracing::warn!(error = %sentence(&error), "the lease could not be renewed");
                }
                Err(_) => tracing::warn!("the lease could not be renewed in time"),
            }
            if self.check().is_err() {
                return self.lose();
            }
        }
    }

    async fn renew(&self) -> Result<bool, kube::Error> {
        let requested_at = Instant::now();
        let lease = self.api.get(&self.name).await?;
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(false);
        }
        if !self.hold(requested_at, lease, spec).await? {
            // The writer need not be a new holder; the next renewal decides.
            tracing::warn!("the lease was modified concurrently and is not renewed yet");
        }
        Ok(true)
    }

    /// Releases the lease, so that another replica need not wait for its expiry.
    pub async fn release(&self) {
        if self.check().is_err() {
            return;
        }
        self.lose();
        if let Ok(lease) = self.api.get(&self.name).await {
            let mut spec = lease.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                let lease = ApiLease {
                    spec: Some(spec),
                    ..lease
                };
                if let Err(error) = self
                    .api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await
                {
                    tracing::warn!(error = %sentence(&error), "the lease could not be released");
                }
            }
        }
    }

    fn lose(&self) -> NotLeading {
        if let Ok(mut renewed) = self.renewed.lock() {
            *renewed = None;
        }
        NotLeading
    }

    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now: Timestamp = clock::now();
        let before = before.unwrap_or_default();
        let kept = before.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: before
                .acquire_time
                .clone()
                .filter(|_| kept)
                .or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!kept)),
            ..before
        }
    }

    /// The lease counts as held from before the request, and not at all if another replica wrote first.
    async fn write(
        &self,
        requested_at: Instant,
        write: impl Future<Output = Result<ApiLease, kube::Error>>,
    ) -> Result<bool, kube::Error> {
        match write.await {
            Ok(_) => {
                if let Ok(mut renewed) = self.renewed.lock() {
                    *renewed = Some(requested_at);
                }
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::StandIn;

    #[tokio::test]
    async fn nothing_that_ends_in_time_is_written_after_another_replica_may_lead() {
        let renewed = |seconds| {
            let at = Instant::now().checked_sub(Duration::from_secs(seconds));
            let client = StandIn::new().client();
            Lease {
                renewed: Mutex::new(at),
                ..Lease::held(client)
            }
        };
        let left = renewed(9).remaining().unwrap();
        assert!(left <= Duration::from_secs(6), "{left:?}");
        assert_eq!(renewed(10).remaining(), Err(NotLeading));
        assert_eq!(renewed(10).check(), Err(NotLeading));
    }
}
