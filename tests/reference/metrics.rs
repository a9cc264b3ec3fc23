//! `docs/reference/metrics.md`: every metric as the program registers it.

use countersign::telemetry::Telemetry;
use countersign::telemetry::catalog::Metric;
use countersign::telemetry::notifications::Notifications;

use crate::markdown::{cell, code, table};

const HEAD: &str = "# Metrics

Every metric, generated: those of the operator, and those of `countersign notify`.

## Operator

Who may read them, and what they are for, is in [Operation](../operation.md#health-and-metrics).

";

const NOTIFY: &str = "
## countersign notify

What they are for is in [Notifications](../notifications.md#metrics).

";

pub fn page() -> String {
    let operator = rows(Telemetry::new().metrics());
    let notify = rows(Notifications::new([]).metrics());
    let names = ["Metric", "Type", "Labels", "Meaning"];
    [
        HEAD,
        &table(names, &operator),
        NOTIFY,
        &table(names, &notify),
    ]
    .concat()
}

fn rows(metrics: &[Metric]) -> Vec<[String; 4]> {
    let rows = metrics.iter().map(|metric| {
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
    rows
}
