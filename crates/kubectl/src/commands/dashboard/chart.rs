//! Charts as SVG, which the content security policy needs no exception for: no style and no script is in them.

use std::fmt::Write as _;

use countersign_api::counts::Counts;
use countersign_api::rollout::{Change, CheckEvidence};
use countersign_api::run::Contribution;
use countersign_core::analysis::confidence::{Interval, interval};
use countersign_core::analysis::thresholds;
use maud::{Markup, html};

use crate::commands::dashboard::curves::{Curves, curves};

/// The size of a chart, and the space for the labels at its left and below.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 58.0;
const BELOW: f64 = 24.0;
const ABOVE: f64 = 10.0;
const RIGHT: f64 = 8.0;

/// What is known of an arm at the end of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    /// The error rate since the change began.
    rate: f64,
    /// Where the true rate is.
    band: Interval,
    /// The error rate of the window alone.
    window: Option<f64>,
}

/// The arm at the end of each window. The counts before the first window are those that the windows do not
/// hold, so a band is the one that was shown then.
fn course(total: Counts, windows: &[[f64; 2]], dispersion: f64, alpha: f64) -> Vec<Option<Known>> {
    let sum = |which: fn(&[f64; 2]) -> f64| windows.iter().map(which).sum::<f64>();
    let mut requests = (total.requests - sum(|[requests, _]| *requests)).max(0.0);
    let mut errors = (total.errors - sum(|[_, errors]| *errors)).max(0.0);
    let mut course = Vec::new();
    for [more, failed] in windows {
        requests += more;
        errors = (errors + failed).min(requests);
        let counts = Counts { requests, errors };
        course.push((requests > 0.0).then(|| Known {
            rate: errors / requests,
            band: interval(counts, dispersion, alpha),
            window: (*more > 0.0).then(|| failed / more),
        }));
    }
    course
}

/// The coordinates of a chart.
struct Scale {
    top: f64,
    last: f64,
}

impl Scale {
    fn x(&self, at: u32) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * f64::from(at) / self.last.max(1.0)
    }

    fn y(&self, rate: f64) -> f64 {
        let share = (rate / self.top).clamp(0.0, 1.0);
        HEIGHT - BELOW - (HEIGHT - BELOW - ABOVE) * share
    }
}

/// The highest rate that is drawn: all rates, and the bands of the last window.
fn top(arms: [&[Option<Known>]; 2]) -> f64 {
    let known = arms.into_iter().flatten().flatten();
    let rates = known.flat_map(|known| [Some(known.rate), known.window]);
    let last = arms
        .into_iter()
        .filter_map(|arm| arm.last().copied().flatten());
    let ends = last.map(|known| known.band.high);
    let top = rates.flatten().chain(ends).fold(0.001, f64::max);
    (1.1 * top).min(1.0)
}

/// The line through the values that are known.
fn line(values: impl Iterator<Item = Option<f64>>, scale: &Scale) -> String {
    let mut path = String::new();
    for (at, value) in (0..).zip(values) {
        if let Some(value) = value {
            let command = if path.is_empty() { 'M' } else { 'L' };
            let (x, y) = (scale.x(at), scale.y(value));
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
    }
    path
}

fn of_rates(arm: &[Option<Known>]) -> impl Iterator<Item = Option<f64>> {
    arm.iter().map(|known| known.map(|known| known.rate))
}

/// The area between the ends of the bands.
fn band(arm: &[Option<Known>], scale: &Scale) -> String {
    let known: Vec<(u32, Known)> = (0..)
        .zip(arm)
        .filter_map(|(at, it)| Some((at, (*it)?)))
        .collect();
    let highs = known.iter().map(|(at, it)| (*at, it.band.high));
    let lows = known.iter().rev().map(|(at, it)| (*at, it.band.low));
    let mut path = String::new();
    for (at, rate) in highs.chain(lows) {
        let command = if path.is_empty() { 'M' } else { 'L' };
        let (x, y) = (scale.x(at), scale.y(rate));
        let _ = write!(path, "{command}{x:.1} {y:.1}");
    }
    if !path.is_empty() {
        path.push('Z');
    }
    path
}

/// A share as a percentage with the digits that matter.
#[must_use]
pub fn percent(share: f64) -> String {
    if share >= 0.1 {
        format!("{}%", (1_000.0 * share).round() / 10.0)
    } else {
        format!("{:.2}%", 100.0 * share)
    }
}

/// The error rates of canary and stable over the kept windows, with bands; `None` without windows.
#[must_use]
pub fn rates(check: &CheckEvidence, change: &Change, id: &str) -> Option<Markup> {
    if check.windows.is_empty() {
        return None;
    }
    let dispersion = thresholds::dispersion(check);
    let alpha = change.plan.strictness.max_false_rollback;
    let windows = check.windows.iter();
    let of_canary: Vec<_> = windows.clone().map(|&[n, x, _, _]| [n, x]).collect();
    let of_stable: Vec<_> = windows.map(|&[_, _, n, x]| [n, x]).collect();
    let canary = course(check.canary, &of_canary, dispersion, alpha);
    let stable = course(check.stable, &of_stable, dispersion, alpha);
    let count = u32::try_from(check.windows.len()).unwrap_or(u32::MAX);
    let scale = Scale {
        top: top([&canary, &stable]),
        last: f64::from(count.saturating_sub(1)),
    };
    let heights = [0.0, 0.5, 1.0].map(|share| share * scale.top);
    let title = format!("{id}-title");
    let ago = countersign_api::Duration::seconds(
        change
            .interval
            .std()
            .as_secs()
            .saturating_mul(u64::from(count)),
    );
    Some(html! {
        figure {
            svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby=(title) {
                title id=(title) { (summary(&canary, &stable)) }
                @for rate in heights {
                    @let y = format!("{:.1}", scale.y(rate));
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) {}
                    text.axis x=(LEFT - 6.0) y=(y) text-anchor="end" dominant-baseline="middle" { (percent(rate)) }
                }
                path.band.stable d=(band(&stable, &scale)) {}
                path.band.canary d=(band(&canary, &scale)) {}
                path.line.stable d=(line(of_rates(&stable), &scale)) {}
                path.line.canary d=(line(of_rates(&canary), &scale)) {}
                @for (at, known) in (0_u32..).zip(&canary) {
                    @if let Some(rate) = known.and_then(|known| known.window) {
                        circle.canary cx=(format!("{:.1}", scale.x(at))) cy=(format!("{:.1}", scale.y(rate))) r="2.5" {}
                    }
                }
                text.axis x=(LEFT) y=(HEIGHT - 6.0) { (ago) " of windows before" }
                text.axis x=(WIDTH - RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { "the last window" }
            }
            figcaption {
                "Error rate since the change began: canary as a solid line, with a circle for each window; stable as a dashed line. "
                "If the rate is constant, each band holds it at all times with a chance of " (percent(1.0 - alpha)) "."
            }
        }
    })
}

/// The evidence on a check in the windows of the present step, against the bounds at which it decides; `None` if it is not
/// known.
#[must_use]
pub fn evidence(check: &CheckEvidence, change: &Change, id: &str) -> Option<Markup> {
    let Curves { worse, within } = curves(check, change)?;
    let count = u32::try_from(worse.len()).unwrap_or(u32::MAX);
    let scale = Scale {
        top: 1.1,
        last: f64::from(count.saturating_sub(1)),
    };
    let of = |shares: &[f64]| line(shares.iter().copied().map(Some), &scale);
    let last = |shares: &[f64]| percent(shares.last().copied().unwrap_or_default().clamp(0.0, 1.0));
    let title = format!("{id}-evidence-title");
    Some(html! {
        figure {
            svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby=(title) {
                title id=(title) {
                    "Evidence. Worse than tolerated: " (last(&worse)) " of the bound. "
                    "Within the margin of the next gate: " (last(&within)) " of the bound."
                }
                @for (share, name) in [(0.0, "none"), (1.0, "bound")] {
                    @let y = format!("{:.1}", scale.y(share));
                    line class=(name) x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) {}
                    text.axis x=(LEFT - 6.0) y=(y) text-anchor="end" dominant-baseline="middle" { (name) }
                }
                path.line.within d=(of(&within)) {}
                path.line.worse d=(of(&worse)) {}
                text.axis x=(LEFT) y=(HEIGHT - 6.0) { (count) " windows of this step" }
                text.axis x=(WIDTH - RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { "the last window" }
            }
            figcaption {
                "Evidence of this check against the bounds: that the canary is worse than tolerated as a solid line, that it is within "
                "the margin of the next gate as a dashed line. The scale is logarithmic."
            }
        }
    })
}

/// The last values of a chart in words.
fn summary(canary: &[Option<Known>], stable: &[Option<Known>]) -> String {
    let of = |arm: &[Option<Known>]| match arm.last().copied().flatten() {
        None => "no requests".to_owned(),
        Some(known) => format!(
            "{}, between {} and {}",
            percent(known.rate),
            percent(known.band.low),
            percent(known.band.high)
        ),
    };
    format!(
        "Error rates. Canary: {}. Stable: {}.",
        of(canary),
        of(stable)
    )
}

/// A share of a whole as a bar, for readers who see; the number stands beside it.
#[must_use]
pub fn bar(percent: i32) -> Markup {
    let width = percent.clamp(0, 100);
    html! {
        svg.bar viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect.whole x="0" y="0" width="100" height="8" {}
            rect.part x="0" y="0" width=(width) height="8" {}
        }
    }
}

/// The contributions to a score as bars that begin where the one before ended.
#[must_use]
pub fn waterfall(contributions: &[Contribution]) -> Vec<Markup> {
    let mut sum = 0.0;
    let mut ends = Vec::new();
    for contribution in contributions {
        let from: f64 = sum;
        sum += contribution.points;
        ends.push((from, sum));
    }
    let low = ends.iter().fold(0.0, |low: f64, (_, to)| low.min(*to));
    let high = ends.iter().fold(0.0, |high: f64, (_, to)| high.max(*to));
    let length = (high - low).max(f64::MIN_POSITIVE);
    let place = |points: f64| 100.0 * (points - low) / length;
    let bars = ends.into_iter().map(|(from, to)| {
        let (left, right) = (place(from.min(to)), place(from.max(to)));
        html! {
            svg.bar viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                rect.whole x="0" y="0" width="100" height="8" {}
                rect class=(if to < from { "less" } else { "part" })
                    x=(format!("{left:.2}")) y="0" width=(format!("{:.2}", (right - left).max(0.5))) height="8" {}
            }
        }
    });
    bars.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::dashboard::curves::tests::counted;
    use crate::view::tests::waiting;

    #[test]
    fn the_bands_are_those_of_the_counts_since_the_change_began() {
        let total = Counts {
            requests: 1_000.0,
            errors: 11.0,
        };
        let windows = [[100.0, 0.0], [100.0, 1.0], [0.0, 0.0]];
        let course = course(total, &windows, 1.0, 0.05);
        let first = course[0].unwrap();
        let last = course[2].unwrap();
        let whole = interval(total, 1.0, 0.05);
        assert!((first.rate - 10.0 / 900.0).abs() < 1e-12, "{first:?}");
        assert_eq!((last.band, last.window), (whole, None));
        assert!(first.band.high > last.band.high);
    }

    #[test]
    fn windows_that_say_more_than_the_sum_are_no_failure() {
        let course = course(Counts::default(), &[[10.0, 20.0], [0.0, 0.0]], 1.0, 0.05);
        assert!(course.iter().flatten().all(|known| known.rate <= 1.0));
        let nothing = course_of_nothing();
        assert_eq!(nothing, [None]);
    }

    fn course_of_nothing() -> Vec<Option<Known>> {
        course(Counts::default(), &[[0.0, 0.0]], 1.0, 0.05)
    }

    #[test]
    fn a_chart_shows_both_arms_without_style_or_script() {
        let view = waiting();
        let change = view.change().unwrap();
        let check = &change.evidence.checks[0];
        let chart = rates(check, change, "check-0").unwrap().into_string();
        for part in [
            r#"<svg class="chart" viewBox="0 0 640 220" role="img" aria-labelledby="check-0-title">"#,
            r#"<title id="check-0-title">Error rates. Canary: "#,
            r#"<path class="band canary" d="M58.0 "#,
            r#"<path class="line stable" d="M58.0 "#,
            r#"<circle class="canary" cx="58.0" "#,
            "If the rate is constant, each band holds it",
        ] {
            assert!(chart.contains(part), "{part} is not in {chart}");
        }
        assert_eq!(chart.matches("<circle").count(), 4);
        assert!(!chart.contains("style=") && !chart.contains("<script"));
        assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}");
    }

    #[test]
    fn the_evidence_is_drawn_against_its_bounds() {
        let (change, check) = counted();
        let chart = evidence(&check, &change, "check-0").unwrap();
        let chart = chart.into_string();
        for part in [
            r#"<title id="check-0-evidence-title">Evidence. Worse than tolerated: "#,
            r#"<line class="bound" x1="58""#,
            r#"<path class="line worse" d="M58.0 "#,
            r#"<path class="line within" d="M58.0 "#,
            "3 windows of this step",
        ] {
            assert!(chart.contains(part), "{part} is not in {chart}");
        }
        assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}");
    }

    #[test]
    fn contributions_follow_each_other_and_lines_below_zero_have_room() {
        let contribution = |points| Contribution {
            points,
            ..Contribution::default()
        };
        let bars = waterfall(&[contribution(6.0), contribution(-2.0), contribution(4.0)]);
        let bars: Vec<_> = bars.into_iter().map(Markup::into_string).collect();
        assert!(
            bars[0].contains(r#"class="part" x="0.00" y="0" width="75.00""#),
            "{bars:?}"
        );
        assert!(
            bars[1].contains(r#"class="less" x="50.00" y="0" width="25.00""#),
            "{bars:?}"
        );
        assert!(
            bars[2].contains(r#"class="part" x="50.00" y="0" width="50.00""#),
            "{bars:?}"
        );
        assert!(waterfall(&[]).is_empty());
    }
}
