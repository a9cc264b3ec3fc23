//! Windows of a freeze.

use countersign_core::text::sanitize_to;
use k8s_openapi::jiff::tz::TimeZone;

use crate::manifests::finding::Finding;
use crate::manifests::yaml::Node;

pub(super) fn windows(spec: &Node) -> Vec<Finding> {
    let windows = spec
        .find(&["freeze", "windows"])
        .into_iter()
        .flat_map(Node::items);
    windows.filter_map(window).collect()
}

pub(super) fn window(node: &Node) -> Option<Finding> {
    let zone = node.get("timeZone");
    let zone_name = zone.map_or(Some("UTC"), Node::text)?;
    if let Some(zone) = zone.filter(|_| TimeZone::get(zone_name).is_err()) {
        let name = sanitize_to(zone_name, 64);
        let message = format!(
            "timeZone: `{name}` is not a time zone: write an IANA name such as Europe/Berlin"
        );
        return Some(Finding::error(zone.at, message));
    }
    let schedule = node.get("schedule")?;
    if let Err(problem) = cron(schedule.text()?, zone_name) {
        let message = format!("schedule: {problem}");
        return Some(Finding::error(schedule.at, message));
    }
    let duration = node.get("duration")?;
    let is_empty = duration.text()?.parse() == Ok(countersign_api::Duration::default());
    let message = "duration is 0: the window freezes nothing";
    is_empty.then(|| Finding::warning(duration.at, message))
}

/// Whether a schedule has five fields that can be read.
pub(super) fn cron(schedule: &str, zone: &str) -> Result<(), String> {
    let fields = schedule.split_ascii_whitespace().count();
    if fields != 5 {
        return Err(format!(
            "`{}` has {fields} fields: write five, minute, hour, day of month, month and day of week, such as `0 18 * * FRI`",
            sanitize_to(schedule, 80)
        ));
    }
    let parsed = cronexpr::parse_crontab(&format!("{schedule} {zone}"));
    parsed.map(|_| ()).map_err(|error| {
        let error = error.to_string();
        let why = error.rsplit("^ ").next().unwrap_or_default();
        format!(
            "`{}` is not a cron schedule: {why}",
            sanitize_to(schedule, 80)
        )
    })
}
