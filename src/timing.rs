//! How long the operator waits, and how often it looks again.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

/// One reconcile may take this long; beyond it, it fails and is tried again.
pub(crate) const RECONCILE_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest wait before a Rollout whose reconciles fail is tried again.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_mins(1);
/// A cached snapshot may be used again if the next reconcile is due within this time,
pub(crate) const SNAPSHOT_DUE_WITHIN: SignedDuration = SignedDuration::from_secs(20);
/// and the snapshot is no older than this.
pub(crate) const SNAPSHOT_MAX_AGE: Duration = Duration::from_mins(1);

/// One answer of the API server is waited for this long; watches have a shorter idle limit of their own.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(90);
/// One read of what people wrote; without it the change waits.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// All pages of a list of that: less than a reconcile has.
pub(crate) const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// All Rollouts of a queue; without them nothing starts.
pub(crate) const QUEUE_TIMEOUT: Duration = Duration::from_secs(20);
/// All admission policies; without them no sign-off counts.
pub(crate) const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);
/// The admission policies are read this often; before a sign-off is spent they are in any case.
pub(crate) const ADMISSION_INTERVAL: Duration = Duration::from_mins(1);
/// One Event is published within this time, or is lost.
pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The last Events are waited for this long before the lease is given back.
pub(crate) const LAST_EVENTS_TIMEOUT: Duration = Duration::from_secs(2);

/// A watch that failed is tried again after this at the latest: an API server that is back must not be waited for.
pub(crate) const WATCH_BACKOFF: Duration = Duration::from_secs(5);
/// Whether a kind of routes is named, or served, is looked up this often.
pub(crate) const ROUTES_INTERVAL: Duration = Duration::from_secs(2);

/// A lease holds this long without renewal; then another replica may lead.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader writes this long after its last renewal: it stops before another may begin.
pub(crate) const LEASE_TRUST: Duration = Duration::from_secs(10);
/// A leader renews and a standby looks this often.
pub(crate) const LEASE_RETRY: Duration = Duration::from_secs(2);

/// A difference of the wall clock that is followed at once, as one that is slewed makes it.
pub(crate) const CLOCK_SLEW: SignedDuration = SignedDuration::from_secs(2);
/// A greater difference is followed once it has lasted this long.
pub(crate) const CLOCK_STEP: Duration = Duration::from_mins(2);

/// Who may read metrics is asked again after this.
pub(crate) const ACCESS_MAX_AGE: Duration = Duration::from_secs(30);
/// Both answers about a reader of metrics; without them it is refused.
pub(crate) const ACCESS_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer of Prometheus is used again for the same question within this time.
pub(crate) const ANSWER_MAX_AGE: Duration = Duration::from_secs(15);
/// The same for an incident query, which stops promotions.
pub(crate) const INCIDENT_MAX_AGE: Duration = Duration::from_secs(2);
/// One incident query is waited for this long; without its answer promotions wait.
pub(crate) const INCIDENT_TIMEOUT: Duration = Duration::from_secs(5);
