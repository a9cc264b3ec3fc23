//! The operating characteristics of the roll-back test and of common alternatives: tables on standard
//! output, and `docs/operating-characteristics.svg`. `make characteristics` runs it.
//!
//! All methods judge the same simulated streams. Seeds are fixed, so every run gives the same bytes.
#![allow(
    clippy::cast_precision_loss,
    reason = "counts of runs and windows are small"
)]

use std::fmt::Write as _;
use std::io;

use countersign_core::analysis::statistics::{Counts, EProcess, EProcessExt, Test, Tolerance};
use countersign_core::analysis::thresholds::RENEWED;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Binomial, BinomialError, Distribution};

/// Rollouts simulated for each error rate of the canary.
const RUNS: usize = 4_000;

/// Steps of a rollout, and analysis windows in each of them.
const STEPS: usize = 5;
const WINDOWS_A_STEP: usize = 60;
const WINDOWS: usize = STEPS * WINDOWS_A_STEP;

/// Requests of each arm in a window.
const CANARY: u64 = 50;
const STABLE: u64 = 950;

/// Error rate of stable, and of a canary that is as good.
const HEALTHY: f64 = 0.01;

/// Error rates of canaries that are worse.
const WORSE: [f64; 5] = [0.02, 0.03, 0.05, 0.10, 1.0];

/// The windows after which false rollbacks are counted.
const BY_WINDOW: [usize; 6] = [5, 10, 30, 60, 120, 300];

/// Chance of a false rollback that each method is to keep, over the rollout or, if the method has no such
/// bound, in each window.
const ALPHA: f64 = 0.05;

/// Where the standard normal distribution has ALPHA above it.
const Z: f64 = 1.644_854;

/// What the promotion of tier `medium` must rule out, with a chance of ALPHA to be wrong.
const MARGIN: Tolerance = Tolerance {
    ratio: 1.5,
    difference: 0.003,
};

const PICTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/operating-characteristics.svg"
);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let healthy = simulate(HEALTHY, 1)?;
    let mut worse = Vec::new();
    for (seed, rate) in (2..).zip(WORSE) {
        worse.push(simulate(rate, seed)?);
    }
    let results: Vec<Characteristics> = Method::ALL
        .into_iter()
        .enumerate()
        .map(|(at, method)| Characteristics {
            method,
            healthy: healthy.get(at).cloned().unwrap_or_default(),
            worse: worse
                .iter()
                .map(|rollbacks| rollbacks.get(at).cloned().unwrap_or_default())
                .collect(),
        })
        .collect();
    print_tables(&mut io::stdout().lock(), &results)?;
    std::fs::write(PICTURE, picture(&results)?)?;
    Ok(())
}

/// A method that judges a canary after each window.
#[derive(Clone, Copy)]
enum Method {
    /// The operator's method: evidence for the whole rollout, a share of it fresh with each step.
    EProcess,
    /// Success rate of a window below 95 %.
    Threshold,
    /// Error rate of a window above twice stable's.
    TwiceStable,
    /// One-sided test of two proportions at 5 %, of all requests so far.
    ZTest,
}

impl Method {
    const ALL: [Self; 4] = [
        Self::EProcess,
        Self::Threshold,
        Self::TwiceStable,
        Self::ZTest,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::EProcess => "e-process, α = 5%",
            Self::Threshold => "success rate ≥ 95%",
            Self::TwiceStable => "at most twice stable's rate",
            Self::ZTest => "z-test at 5%, repeated",
        }
    }

    /// Colour (distinct for the colour-blind too) and dashes of its line.
    fn stroke(self) -> (&'static str, &'static str) {
        match self {
            Self::EProcess => ("#0072b2", "none"),
            Self::Threshold => ("#d55e00", "8 4"),
            Self::TwiceStable => ("#007a5a", "2 3"),
            Self::ZTest => ("#a8457d", "10 3 2 3"),
        }
    }

    /// The first window after which it rolls back, counted from 1.
    fn first_rollback(self, windows: &[(Counts, Counts)]) -> Option<usize> {
        let found = match self {
            Self::EProcess => {
                let test = Test::RollBack(Tolerance {
                    ratio: 1.0,
                    difference: 0.0,
                });
                let mut evidence = EProcess::start(test);
                windows.iter().enumerate().position(|(at, window)| {
                    // As `core::analysis` does at each new step, with the threshold that allows it.
                    if at > 0 && at.is_multiple_of(WINDOWS_A_STEP) {
                        evidence.rearm(RENEWED / STEPS as f64);
                    }
                    evidence.observe(test, window.0, window.1, 1.0);
                    evidence.ln_value() >= ((1.0 + RENEWED) / ALPHA).ln()
                })
            }
            Self::Threshold => windows.iter().position(|(canary, _)| rate(*canary) > 0.05),
            Self::TwiceStable => windows
                .iter()
                .position(|(canary, stable)| rate(*canary) > 2.0 * rate(*stable)),
            Self::ZTest => {
                let mut sums = (Counts::default(), Counts::default());
                windows.iter().position(|window| {
                    sums = (sum(sums.0, window.0), sum(sums.1, window.1));
                    z(sums.0, sums.1) > Z
                })
            }
        };
        found.map(|at| at + 1)
    }

    /// Whether it promotes a canary that it did not roll back: the operator requires evidence, the others
    /// require none.
    fn promotes(self, windows: &[(Counts, Counts)]) -> bool {
        if !matches!(self, Self::EProcess) {
            return true;
        }
        let test = Test::Promote(MARGIN);
        let mut evidence = EProcess::start(test);
        for (canary, stable) in windows {
            evidence.observe(test, *canary, *stable, 1.0);
        }
        evidence.ln_value() >= -ALPHA.ln()
    }
}

fn rate(counts: Counts) -> f64 {
    counts.errors / counts.requests
}

fn sum(a: Counts, b: Counts) -> Counts {
    Counts {
        requests: a.requests + b.requests,
        errors: a.errors + b.errors,
    }
}

/// Standard errors by which the canary's error rate exceeds stable's; NaN without errors.
fn z(canary: Counts, stable: Counts) -> f64 {
    let pooled = rate(sum(canary, stable));
    let variance = pooled * (1.0 - pooled) * (1.0 / canary.requests + 1.0 / stable.requests);
    (rate(canary) - rate(stable)) / variance.sqrt()
}

/// How the runs ended.
#[derive(Clone, Default)]
struct Rollbacks {
    /// The windows after which they were rolled back; sorted.
    windows: Vec<usize>,
    /// Runs that were promoted automatically.
    promoted: usize,
    /// Requests that all canaries failed until then.
    failed: f64,
}

impl Rollbacks {
    fn share_by(&self, window: usize) -> f64 {
        self.windows.partition_point(|&at| at <= window) as f64 / RUNS as f64
    }

    fn promoted(&self) -> f64 {
        self.promoted as f64 / RUNS as f64
    }

    fn failed(&self) -> f64 {
        self.failed / RUNS as f64
    }

    /// The median over all runs, if at least half of them were rolled back.
    fn median(&self) -> Option<usize> {
        self.windows.get(RUNS / 2 - 1).copied()
    }
}

struct Characteristics {
    method: Method,
    healthy: Rollbacks,
    worse: Vec<Rollbacks>,
}

impl Characteristics {
    fn all(&self) -> impl Iterator<Item = &Rollbacks> {
        std::iter::once(&self.healthy).chain(&self.worse)
    }
}

/// The rollbacks of each method in the same rollouts of a canary with this error rate.
fn simulate(canary: f64, seed: u64) -> Result<Vec<Rollbacks>, BinomialError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (canary, stable) = (Arm::new(CANARY, canary)?, Arm::new(STABLE, HEALTHY)?);
    let mut rollbacks = vec![Rollbacks::default(); Method::ALL.len()];
    for _ in 0..RUNS {
        let windows: Vec<(Counts, Counts)> = (0..WINDOWS)
            .map(|_| (canary.window(&mut rng), stable.window(&mut rng)))
            .collect();
        for (method, rollbacks) in Method::ALL.into_iter().zip(&mut rollbacks) {
            let rolled_back = method.first_rollback(&windows);
            let until = rolled_back.unwrap_or(WINDOWS);
            rollbacks.windows.extend(rolled_back);
            rollbacks.promoted += usize::from(rolled_back.is_none() && method.promotes(&windows));
            let served = windows.iter().take(until);
            rollbacks.failed += served.map(|(canary, _)| canary.errors).sum::<f64>();
        }
    }
    for rollbacks in &mut rollbacks {
        rollbacks.windows.sort_unstable();
    }
    Ok(rollbacks)
}

/// The traffic of one arm: a fixed number of requests, a binomial number of errors.
struct Arm {
    requests: u64,
    errors: Binomial,
}

impl Arm {
    fn new(requests: u64, error_rate: f64) -> Result<Self, BinomialError> {
        Ok(Self {
            requests,
            errors: Binomial::new(requests, error_rate)?,
        })
    }

    fn window(&self, rng: &mut StdRng) -> Counts {
        Counts {
            requests: self.requests as f64,
            errors: self.errors.sample(rng) as f64,
        }
    }
}

fn print_tables(out: &mut impl io::Write, results: &[Characteristics]) -> io::Result<()> {
    writeln!(
        out,
        "{RUNS} rollouts each; {CANARY} canary and {STABLE} stable requests a window, stable at {}\n",
        percent(HEALTHY)
    )?;
    writeln!(out, "Healthy canaries rolled back by window\n")?;
    let heads = BY_WINDOW.map(|window| window.to_string());
    row(out, "method", &heads)?;
    row(out, "---", &heads.map(|_| "---:".to_owned()))?;
    for result in results {
        let shares =
            BY_WINDOW.map(|window| format!("{:.1}%", 100.0 * result.healthy.share_by(window)));
        row(out, result.method.name(), &shares)?;
    }
    writeln!(
        out,
        "\nWorse canaries: median windows until rolled back (share rolled back by window {WINDOWS})\n"
    )?;
    let heads = WORSE.map(percent);
    row(out, "method", &heads)?;
    row(out, "---", &heads.map(|_| "---:".to_owned()))?;
    for result in results {
        let cells: Vec<String> = result
            .worse
            .iter()
            .map(|rollbacks| {
                let median = rollbacks
                    .median()
                    .map_or_else(|| "–".to_owned(), |window| window.to_string());
                format!("{median} ({:.1}%)", 100.0 * rollbacks.share_by(WINDOWS))
            })
            .collect();
        row(out, result.method.name(), &cells)?;
    }
    writeln!(out, "\nPromoted automatically by window {WINDOWS}\n")?;
    let rates: Vec<String> = std::iter::once(HEALTHY).chain(WORSE).map(percent).collect();
    let heads: Vec<String> = rates
        .iter()
        .map(|rate| format!("canary at {rate}"))
        .collect();
    let right = vec!["---:".to_owned(); heads.len()];
    row(out, "method", &heads)?;
    row(out, "---", &right)?;
    for result in results {
        let cells = result
            .all()
            .map(|it| format!("{:.1}%", 100.0 * it.promoted()));
        row(out, result.method.name(), &cells.collect::<Vec<_>>())?;
    }
    writeln!(
        out,
        "\nFailed requests of the canary until rolled back or promoted, mean\n"
    )?;
    row(out, "method", &heads)?;
    row(out, "---", &right)?;
    for result in results {
        let cells = result.all().map(|it| format!("{:.0}", it.failed()));
        row(out, result.method.name(), &cells.collect::<Vec<_>>())?;
    }
    Ok(())
}

fn row(out: &mut impl io::Write, head: &str, cells: &[String]) -> io::Result<()> {
    writeln!(out, "| {head} | {} |", cells.join(" | "))
}

fn percent(share: f64) -> String {
    format!("{}%", (100.0 * share).round())
}

/// One axis: where on the picture a value stands.
struct Axis {
    values: (f64, f64),
    pixels: (f64, f64),
    logarithmic: bool,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let scale = |value: f64| {
            if self.logarithmic { value.ln() } else { value }
        };
        let (from, to) = (scale(self.values.0), scale(self.values.1));
        let share = (scale(value) - from) / (to - from);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }
}

/// Two panels on a white card, so that it can be read on a dark page too.
fn picture(results: &[Characteristics]) -> Result<String, std::fmt::Error> {
    let mut svg = String::from(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 470" role="img" font-family="sans-serif" font-size="13" fill="#1f2328">
<title>Operating characteristics of the roll-back test</title>
<desc>Left: share of healthy canaries rolled back, by number of windows. Right: median windows until a worse canary is rolled back, by its error rate.</desc>
<rect width="960" height="470" rx="8" fill="#ffffff"/>
"##,
    );
    false_rollbacks(&mut svg, results)?;
    detection(&mut svg, results)?;
    for (result, x) in results.iter().zip([60.0, 250.0, 455.0, 715.0]) {
        line(
            &mut svg,
            &[(x, 445.0), (x + 36.0, 445.0)],
            result.method.stroke(),
        )?;
        label(&mut svg, (x + 44.0, 449.0), "start", result.method.name())?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn false_rollbacks(svg: &mut String, results: &[Characteristics]) -> std::fmt::Result {
    let x = Axis {
        values: (1.0, WINDOWS as f64),
        pixels: (60.0, 460.0),
        logarithmic: true,
    };
    let y = Axis {
        values: (0.0, 1.0),
        pixels: (370.0, 50.0),
        logarithmic: false,
    };
    let windows: Vec<(f64, String)> = [1]
        .into_iter()
        .chain(BY_WINDOW)
        .map(|window| (window as f64, window.to_string()))
        .collect();
    let shares = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, percent(share)));
    frame(svg, (&x, &windows, "windows"), (&y, &shares))?;
    label(svg, (60.0, 30.0), "start", "Healthy canaries rolled back")?;
    let allowed = y.at(ALPHA);
    line(
        svg,
        &[(60.0, allowed), (460.0, allowed)],
        ("#57606a", "3 3"),
    )?;
    label(svg, (456.0, allowed - 6.0), "end", "allowed: 5%")?;
    // The operator's line comes last, above the others.
    for result in results.iter().rev() {
        let points: Vec<(f64, f64)> = (1..=WINDOWS)
            .map(|window| (x.at(window as f64), y.at(result.healthy.share_by(window))))
            .collect();
        line(svg, &points, result.method.stroke())?;
    }
    Ok(())
}

fn detection(svg: &mut String, results: &[Characteristics]) -> std::fmt::Result {
    let x = Axis {
        values: (0.018, 1.1),
        pixels: (540.0, 940.0),
        logarithmic: true,
    };
    let y = Axis {
        values: (0.9, 110.0),
        pixels: (370.0, 50.0),
        logarithmic: true,
    };
    let rates: Vec<(f64, String)> = WORSE.map(|rate| (rate, percent(rate))).into();
    let windows: Vec<(f64, String)> = [1.0, 3.0, 10.0, 30.0, 100.0]
        .map(|window: f64| (window, window.to_string()))
        .into();
    let under = format!("error rate of the canary, stable at {}", percent(HEALTHY));
    frame(svg, (&x, &rates, &under), (&y, &windows))?;
    label(
        svg,
        (540.0, 30.0),
        "start",
        "Worse canaries: median windows until rolled back",
    )?;
    for result in results.iter().rev() {
        // Where fewer than half of the canaries are rolled back there is no median, and no point.
        let points: Vec<(f64, f64)> = WORSE
            .into_iter()
            .zip(&result.worse)
            .filter_map(|(rate, rollbacks)| Some((x.at(rate), y.at(rollbacks.median()? as f64))))
            .collect();
        line(svg, &points, result.method.stroke())?;
        for (x, y) in points {
            let (colour, _) = result.method.stroke();
            writeln!(
                svg,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#
            )?;
        }
    }
    Ok(())
}

/// The grid of a panel, with the marks of both axes and a text under it.
fn frame(
    svg: &mut String,
    (x, x_marks, under): (&Axis, &[(f64, String)], &str),
    (y, y_marks): (&Axis, &[(f64, String)]),
) -> std::fmt::Result {
    const GRID: (&str, &str) = ("#d0d7de", "none");
    for (value, mark) in x_marks {
        let at = x.at(*value);
        line(svg, &[(at, y.pixels.0), (at, y.pixels.1)], GRID)?;
        label(svg, (at, y.pixels.0 + 18.0), "middle", mark)?;
    }
    for (value, mark) in y_marks {
        let at = y.at(*value);
        line(svg, &[(x.pixels.0, at), (x.pixels.1, at)], GRID)?;
        label(svg, (x.pixels.0 - 8.0, at + 4.0), "end", mark)?;
    }
    let middle = f64::midpoint(x.pixels.0, x.pixels.1);
    label(svg, (middle, y.pixels.0 + 40.0), "middle", under)
}

fn line(svg: &mut String, points: &[(f64, f64)], stroke: (&str, &str)) -> std::fmt::Result {
    let points: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let (colour, dashes) = stroke;
    let width = if colour.starts_with("#d0") { 1 } else { 2 };
    writeln!(
        svg,
        r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>"#,
        points.join(" ")
    )
}

fn label(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) -> std::fmt::Result {
    writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
    )
}
