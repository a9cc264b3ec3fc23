//! The sets of labels. Each value is one of few, or the name of an object whose series are removed with it.

use prometheus_client::encoding::EncodeLabelSet;

/// A set of labels whose names are known.
pub(super) trait LabelNames {
    /// The names, in order.
    const NAMES: &'static [&'static str];
}

/// Defines sets of labels, each with the names of its fields.
macro_rules! label_sets {
    ($($(#[$document:meta])* $set:ident { $($label:ident: $kind:ty,)* })*) => {$(
        $(#[$document])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
        pub(super) struct $set {
            $(pub(super) $label: $kind,)*
        }

        impl LabelNames for $set {
            const NAMES: &'static [&'static str] = &[$(stringify!($label)),*];
        }
    )*};
}

label_sets! {
    /// Labels of a build.
    BuildLabels {
        version: &'static str,
    }

    /// Labels of reconciles.
    ReconcileLabels {
        result: &'static str,
    }

    /// Labels of writes.
    WriteLabels {
        verb: &'static str,
        resource: &'static str,
        result: &'static str,
    }

    /// Labels of a watch.
    WatchLabels {
        kind: &'static str,
    }

    /// Labels of notifications.
    NotificationLabels {
        channel: String,
        result: &'static str,
    }

    /// The name of a channel of notifications, one of the installer's.
    ChannelLabels {
        channel: String,
    }

    /// Labels of reads of evidence.
    AnswerLabels {
        outcome: String,
    }

    /// Labels by which Rollouts are counted.
    CountLabels {
        phase: String,
        tier: &'static str,
    }

    /// Labels of a Rollout that is not at rest.
    InfoLabels {
        namespace: String,
        rollout: String,
        phase: String,
        tier: &'static str,
        waiting_for: String,
        reason: String,
    }

    /// The name of a Rollout.
    RolloutLabels {
        namespace: String,
        rollout: String,
    }

    /// Labels of the evidence on a canary.
    EvidenceLabels {
        namespace: String,
        rollout: String,
        check: String,
        test: &'static str,
    }

    /// Labels of transitions.
    TransitionLabels {
        namespace: String,
        reason: String,
    }

    /// Labels of changes that ended.
    OutcomeLabels {
        namespace: String,
        contributor: String,
        tier: &'static str,
        outcome: String,
        reason: String,
    }

    /// Labels of the durations of changes.
    DurationLabels {
        outcome: String,
        tier: &'static str,
    }

    /// Labels of the times for which people were awaited.
    WaitLabels {
        tier: &'static str,
    }
}

impl RolloutLabels {
    pub(super) fn new(namespace: &str, rollout: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            rollout: rollout.to_owned(),
        }
    }
}
