//! `docs/reference/metrics.md`: every metric as the operator registers it.

use countersign::telemetry::Telemetry;

use crate::markdown::{cell, code, table};

const HEAD: &str = "# Metrics

Every metric of the operator, generated. Who may read them, and what they are for, is in
[Operation](../operation.md#health-and-metrics).

";

pub fn page() -> String {
    let telemetry = Telemetry::new();
    let rows = telemetry.metrics().iter().map(|metric| {
        let labels: Vec<_> = metric.labels.iter().map(|label| code(label)).collect();
        [
            code(&metric.name),
            metric.kind.clone(),
            labels.join(", "),
            cell(metric.help),
        ]
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    HEAD.to_owned() + &table(["Metric", "Type", "Labels", "Meaning"], &rows)
}
