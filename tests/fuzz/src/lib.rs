//! The parsers of foreign text under libFuzzer; see [`targets`].

pub mod targets;

/// Lets the product catch a panic, as it does with that of a parser of others: only one that nobody
/// catches is a finding. Without this libFuzzer ends at any.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|it| it.file()).unwrap_or_default();
        if !place.contains("promql-parser") {
            eprintln!("{panic}");
        }
    }));
}
