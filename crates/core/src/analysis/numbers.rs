//! Numbers for messages.

pub(super) fn log10(ln: f64) -> f64 {
    // Two decimals suffice for readers and records.
    (ln / std::f64::consts::LN_10 * 100.0).round() / 100.0
}

/// A number with at most four significant digits.
#[must_use]
pub fn significant(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

pub(super) fn significant_text(value: f64) -> String {
    let rounded: f64 = format!("{value:.1e}").parse().unwrap_or(value);
    if rounded.abs() >= 100.0 {
        thousands(value)
    } else {
        rounded.to_string()
    }
}

/// A whole number with commas between the thousands.
#[must_use]
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.round().abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value.round() < 0.0 {
        text.insert(0, '-');
    }
    text
}

/// A number of things, such as `1 pod` or `2 pods`.
#[must_use]
pub fn counted(number: impl Into<f64>, thing: &str) -> String {
    let number = number.into();
    let plural = if (number.round() - 1.0).abs() < f64::EPSILON {
        ""
    } else {
        "s"
    };
    format!("{} {thing}{plural}", thousands(number))
}

/// A duration in seconds, rounded for readers.
pub(super) fn about(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("about {s:.0} s"),
        s if s < 5_400.0 => format!("about {:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("about {:.0} h", s / 3_600.0),
        s => format!("about {:.0} days", s / 86_400.0),
    }
}
