//! Timeouts and intervals of the operator.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

/// Timeout of a reconcile, which then fails and is retried.
pub(crate) const RECONCILE_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest wait before a failed reconcile is retried.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_mins(1);
/// The same for a change under way if the API server did not answer.
pub(crate) const MAX_BACKOFF_OF_CHANGE: Duration = Duration::from_secs(5);
/// Numbers of evidence are written without reading everything if the next reconcile is due within this time,
pub(crate) const EVIDENCE_DUE_WITHIN: SignedDuration = SignedDuration::from_secs(20);
/// and of a change under way everything is read at least this often.
pub(crate) const CACHES_MAX_AGE: Duration = Duration::from_mins(1);

/// Timeout of a response of the API server; watches have a shorter idle timeout.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(90);
/// Timeout of one read of human inputs; without the response the change waits.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of all pages of such a list, so that a rollback is not delayed for longer.
pub(crate) const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of reading all Rollouts of a queue; without them nothing starts.
pub(crate) const QUEUE_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout of reading all admission policies; without them no sign-off counts.
pub(crate) const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);
/// The admission policies are read this often, and those that prove authors always before a sign-off is used.
pub(crate) const ADMISSION_INTERVAL: Duration = Duration::from_mins(1);
/// While one is missing or altered they are read this often, so that sign-offs soon count again.
pub(crate) const ADMISSION_RETRY: Duration = Duration::from_secs(10);
/// Timeout of publishing an Event, which is then lost.
pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the last Events before the lease is released.
pub(crate) const LAST_EVENTS_TIMEOUT: Duration = Duration::from_secs(2);

/// The records of deleted Rollouts are searched for those whose time is over at least this often.
pub(crate) const RETENTION_INTERVAL: Duration = Duration::from_hours(6);
/// And at most this often, so that records whose time is over one after another are not listed for each; also after an
/// error, as an API server that has just started refuses lists.
pub(crate) const RETENTION_PAUSE: Duration = Duration::from_mins(1);

/// The statuses of policies, Freezes and AnalysisTemplates are written this long after an event, with what else has
/// changed by then.
pub(crate) const STATUS_SETTLE: Duration = Duration::from_secs(1);
/// The number of Rollouts that a policy governs, or that use a template, is written at most this often.
pub(crate) const STATUS_COUNT_INTERVAL: Duration = Duration::from_secs(30);
/// A status that was refused is written again after this time, and until then none of its kind.
pub(crate) const STATUS_RETRY: Duration = Duration::from_secs(10);
/// The statuses are compared with the time at least this often, since the clock may be set.
pub(crate) const STATUS_RECHECK: Duration = Duration::from_hours(1);

/// A new leader reconciles Rollouts at rest once it is known what its caches have to reach, but waits for that no longer than
/// this.
pub(crate) const CACHES_TIMEOUT: Duration = Duration::from_secs(5);
/// Whether the first lists of the caches are complete is checked this often.
pub(crate) const CACHES_POLL: Duration = Duration::from_millis(50);
/// Longest backoff of a failed watch, so that a recovered API server is noticed soon.
pub(crate) const WATCH_BACKOFF: Duration = Duration::from_secs(5);
/// The routes' kinds that are referenced and served are checked this often.
pub(crate) const ROUTES_INTERVAL: Duration = Duration::from_secs(2);

/// A lease is valid for this long without renewal; then another replica may lead.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader writes only until this long after its last renewal, so it stops before another may start.
pub(crate) const LEASE_TRUST: Duration = Duration::from_secs(10);
/// A leader renews, and a standby reads, the lease this often.
pub(crate) const LEASE_RETRY: Duration = Duration::from_secs(2);

/// An installation that lacks something is checked again this often.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A smaller difference of the wall clock is adopted at once, as slewing causes it.
pub(crate) const CLOCK_SLEW: SignedDuration = SignedDuration::from_secs(2);
/// A greater difference is adopted once it has lasted this long.
pub(crate) const CLOCK_STEP: Duration = Duration::from_mins(2);

/// Lifetime of a cached decision on who may read metrics.
pub(crate) const ACCESS_MAX_AGE: Duration = Duration::from_secs(30);
/// Timeout of the two reviews of a reader of metrics, who is then refused.
pub(crate) const ACCESS_TIMEOUT: Duration = Duration::from_secs(5);

/// Lifetime of a cached response of Prometheus.
pub(crate) const ANSWER_MAX_AGE: Duration = Duration::from_secs(15);
/// Lifetime of a cached incident query, which stops promotions.
pub(crate) const INCIDENT_MAX_AGE: Duration = Duration::from_secs(2);
/// Timeout of an incident query, without which promotions wait.
pub(crate) const INCIDENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of one request of `countersign notify` to a channel.
pub(crate) const NOTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest pause before a request to a channel is repeated.
pub(crate) const NOTIFY_BACKOFF: Duration = Duration::from_mins(1);
/// What is due is worked out this long after an event, with what else has changed by then,
pub(crate) const NOTIFY_SETTLE: Duration = Duration::from_millis(500);
/// and at least this often, since messages are also due by time.
pub(crate) const NOTIFY_INTERVAL: Duration = Duration::from_secs(15);
/// What happened longer ago is neither sent nor remembered as sent.
pub(crate) const NOTIFY_KEEP: SignedDuration = SignedDuration::from_hours(24);
/// Alerts are repeated this often, and end automatically after three times as long without a repetition.
pub(crate) const ALERT_REPEAT: Duration = Duration::from_mins(1);
/// What happened at one moment is an alert for this long from its first delivery.
pub(crate) const ALERT_LASTS: SignedDuration = SignedDuration::from_mins(15);
