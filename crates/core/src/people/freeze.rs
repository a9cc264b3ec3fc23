//! Whether promotions are frozen: by declared freezes, windows of a policy, and incidents.
//!
//! A freeze never stops a rollback or the analysis. If its state is unknown, promotions wait as well.

use countersign_api::freeze::{FreezeAction, FreezeSpec, FreezeWindow, IncidentQuery};
use countersign_api::step::Tier;
use k8s_openapi::jiff::Timestamp;

use crate::observation::Observation;
use crate::observation::people::IncidentAnswer;
use crate::policy::Effective;

/// The freezes that apply to a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freezes {
    /// Freezes in force, each in a sentence.
    pub in_force: Vec<String>,
    /// Freezes whose state is unknown, each with the problem.
    pub unknown: Vec<String>,
    /// The strictest action of the freezes in force.
    pub action: FreezeAction,
    /// When the next freeze begins or ends, as far as known.
    pub requeue_at: Option<Timestamp>,
}

/// Why a window is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The schedule is not five cron fields, or the time zone is not known.
    #[error(
        "freeze.windows[{name}]: `{schedule}` in time zone `{time_zone}` cannot be read: {problem}; write five cron fields such as `0 18 * * FRI`, and an IANA time zone such as `Europe/Berlin`"
    )]
    Schedule {
        /// The window's name.
        name: String,
        /// The schedule as it was written.
        schedule: String,
        /// The time zone as it was written.
        time_zone: String,
        /// What is wrong.
        problem: String,
    },
}

/// All freezes that apply to a change of this tier.
#[must_use]
pub fn freezes(observation: &Observation, effective: &Effective, tier: Tier) -> Freezes {
    let mut all = Freezes {
        unknown: observation.people.unreadable_freezes.clone(),
        ..Freezes::default()
    };
    for freeze in &observation.people.freezes {
        if !is_over(&freeze.spec, observation.now) && concerns(&freeze.spec.tiers, tier) {
            let by = &freeze.spec.person.username;
            let until = freeze.spec.until.as_ref().map(|until| until.0);
            let line = format!("Freeze {} by {by}: {}", freeze.name, freeze.spec.reason);
            all.add(line, freeze.spec.action, until);
        }
    }
    all.add_policies(observation, effective, tier);
    all
}

/// Whether a Freeze has ended.
#[must_use]
pub fn is_over(freeze: &FreezeSpec, now: Timestamp) -> bool {
    freeze.until.as_ref().is_some_and(|until| until.0 <= now)
}

/// The freezes of policies alone, without the Freezes that people created.
#[must_use]
pub fn of_policies(observation: &Observation, effective: &Effective, tier: Tier) -> Freezes {
    let mut all = Freezes::default();
    all.add_policies(observation, effective, tier);
    all
}

impl Freezes {
    fn add_policies(&mut self, observation: &Observation, effective: &Effective, tier: Tier) {
        let windows = effective.windows.iter();
        for window in windows.filter(|it| concerns(&it.tiers, tier)) {
            match ends_at(window, observation.now) {
                Ok(None) => {}
                Ok(Some(until)) => {
                    let line = format!(
                        "window {}{}",
                        window.name,
                        because(window.reason.as_deref())
                    );
                    self.add(line, window.action, Some(until));
                }
                Err(error) => self.unknown.push(error.to_string()),
            }
        }
        let incidents = effective.incidents.iter();
        for (policy, incident) in incidents.filter(|(_, it)| concerns(&it.tiers, tier)) {
            self.ask(policy, incident, observation.people.incidents.get(policy));
        }
    }

    fn add(&mut self, line: String, action: FreezeAction, until: Option<Timestamp>) {
        let until_when = until
            .map(|until| format!(", until {until:.0}"))
            .unwrap_or_default();
        self.in_force.push(line + &until_when);
        self.action = self.action.max(action);
        self.requeue_at = self.requeue_at.into_iter().chain(until).min();
    }

    fn ask(&mut self, policy: &str, incident: &IncidentQuery, answer: Option<&IncidentAnswer>) {
        let because = because(incident.reason.as_deref());
        match answer {
            Some(IncidentAnswer::None) => {}
            Some(IncidentAnswer::Incident { value }) => {
                let line =
                    format!("incident by the query of policy {policy} (it gives {value}){because}");
                self.add(line, incident.action, None);
            }
            Some(IncidentAnswer::Unknown { message }) => {
                self.unknown
                    .push(format!("the incident query of policy {policy}: {message}"));
            }
            None => self.unknown.push(format!(
                "the incident query of policy {policy} was not sent yet"
            )),
        }
    }
}

fn because(reason: Option<&str>) -> String {
    reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default()
}

fn concerns(tiers: &[Tier], tier: Tier) -> bool {
    tiers.is_empty() || tiers.contains(&tier)
}

/// When the present window closes at the earliest; `None` if it is not open. If the next window opens
/// before this one closes, it stays open for longer.
pub fn ends_at(window: &FreezeWindow, now: Timestamp) -> Result<Option<Timestamp>, WindowError> {
    let unreadable = |problem: String| WindowError::Schedule {
        name: window.name.clone(),
        schedule: window.schedule.clone(),
        time_zone: window.time_zone.clone(),
        problem,
    };
    if window.schedule.split_whitespace().count() != 5 {
        return Err(unreadable("it has not five fields".into()));
    }
    let expression = format!("{} {}", window.schedule, window.time_zone);
    let schedule =
        cronexpr::parse_crontab(&expression).map_err(|error| unreadable(error.to_string()))?;
    let duration = window.duration.signed();
    let since = now.saturating_sub(duration).unwrap_or(Timestamp::MIN);
    let opened = schedule
        .find_next(cronexpr::MakeTimestamp(since))
        .map_err(|error| unreadable(error.to_string()))?
        .timestamp();
    // A window closes at its end: one that opens at that instant is the next window.
    Ok((opened <= now).then(|| opened.saturating_add(duration).unwrap_or(Timestamp::MAX)))
}

#[cfg(test)]
mod tests {
    use countersign_api::Duration;

    use super::*;

    fn window(schedule: &str, time_zone: &str, duration: &str) -> FreezeWindow {
        FreezeWindow {
            name: "p/w".into(),
            schedule: schedule.into(),
            time_zone: time_zone.into(),
            duration: duration.parse().unwrap(),
            ..FreezeWindow::default()
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_weekend_in_berlin_is_open_from_friday_evening_to_monday_morning() {
        let weekend = window("0 18 * * FRI", "Europe/Berlin", "62h");
        // 2026-11-20 is a Friday; Berlin is at UTC+1.
        let opens = [
            ("2026-11-20T16:59:59Z", None),
            ("2026-11-20T17:00:00Z", Some("2026-11-23T07:00:00Z")),
            ("2026-11-22T12:00:00Z", Some("2026-11-23T07:00:00Z")),
            ("2026-11-23T06:59:59Z", Some("2026-11-23T07:00:00Z")),
            ("2026-11-23T07:00:00Z", None),
        ];
        for (now, until) in opens {
            assert_eq!(ends_at(&weekend, at(now)), Ok(until.map(at)), "{now}");
        }
    }

    #[test]
    fn summer_time_moves_the_window_with_the_clock_on_the_wall() {
        let night = window("0 22 * * *", "Europe/Berlin", "1h");
        assert_eq!(
            ends_at(&night, at("2026-07-01T20:30:00Z")),
            Ok(Some(at("2026-07-01T21:00:00Z")))
        );
        assert_eq!(ends_at(&night, at("2026-12-01T20:30:00Z")), Ok(None));
        assert_eq!(
            ends_at(&night, at("2026-12-01T21:30:00Z")),
            Ok(Some(at("2026-12-01T22:00:00Z")))
        );
    }

    #[test]
    fn a_schedule_or_a_time_zone_that_cannot_be_read_is_reported() {
        for bad in [
            window("0 18 * *", "UTC", "1h"),
            window("0 25 * * *", "UTC", "1h"),
            window("0 18 * * *", "Europe/Atlantis", "1h"),
            window("0 18 * * * UTC", "", "1h"),
            window("", "UTC", "1h"),
            window("x y z a b", "UTC", "1h"),
        ] {
            let error = ends_at(&bad, at("2026-11-20T16:59:59Z"))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("freeze.windows[p/w]") && error.contains("IANA"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_window_without_length_is_never_open() {
        let mut never = window("* * * * *", "UTC", "1s");
        never.duration = Duration::seconds(0);
        assert_eq!(ends_at(&never, at("2026-11-20T17:00:00Z")), Ok(None));
    }

    proptest::proptest! {
        #[test]
        fn a_window_is_open_for_its_length_and_closed_after(second in 0_i64..86_400, length in 1_i64..80_000) {
            let daily = window("0 6 * * *", "UTC", &format!("{length}s"));
            let midnight = at("2026-11-20T00:00:00Z");
            let now = midnight + k8s_openapi::jiff::SignedDuration::from_secs(second);
            let after = (second - 6 * 3600).rem_euclid(86_400);
            let open = ends_at(&daily, now).unwrap();
            proptest::prop_assert_eq!(open.is_some(), after < length);
            if let Some(until) = open {
                proptest::prop_assert_eq!(until.as_second() - now.as_second(), length - after);
            }
        }
    }
}
