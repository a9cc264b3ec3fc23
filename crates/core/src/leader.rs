//! Which replica leads, by the operator's Lease, as `countersign check` and `kubectl countersign check` judge it.

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A holder that has not renewed the Lease for this long does not lead. It is longer than the Lease lasts, since the
/// reader's clock may differ.
const ABANDONED: SignedDuration = SignedDuration::from_mins(1);

/// The holder that a Lease names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it renewed the Lease last.
    pub renewed: Timestamp,
    /// Whether it leads, as it has renewed the Lease lately.
    pub leads: bool,
}

/// The holder; `None` if there is none, as after a release.
#[must_use]
pub fn holder(lease: &LeaseSpec, now: Timestamp) -> Option<Holder<'_>> {
    let name = lease.holder_identity.as_deref();
    let name = name.filter(|name| !name.is_empty())?;
    let renewed = lease.renew_time.as_ref();
    let renewed = renewed.map_or(Timestamp::UNIX_EPOCH, |it| it.0);
    Some(Holder {
        name,
        renewed,
        leads: now.duration_since(renewed) <= ABANDONED,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    #[test]
    fn a_holder_leads_as_long_as_it_renews_the_lease() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let lease = |name: &str, renewed: &str| LeaseSpec {
            holder_identity: Some(name.to_owned()),
            renew_time: Some(MicroTime(renewed.parse().unwrap())),
            ..LeaseSpec::default()
        };
        for (renewed, leads) in [
            ("2026-11-29T12:00:02Z", true),
            ("2026-11-29T11:59:10Z", true),
            ("2026-11-29T11:58:50Z", false),
        ] {
            let lease = lease("a", renewed);
            let holder = holder(&lease, now).unwrap();
            assert_eq!((holder.name, holder.leads), ("a", leads), "{renewed}");
        }
        assert_eq!(holder(&lease("", "2026-11-29T11:59:58Z"), now), None);
        assert_eq!(holder(&LeaseSpec::default(), now), None);
    }
}
