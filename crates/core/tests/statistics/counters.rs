//! Counters of pods that restart: what is counted from scrapes is what was served.

use countersign_core::analysis::series::{FirstIncrement, Series, Span, increase};
use countersign_core::analysis::statistics::Counts;
use rand::RngExt;
use rand::rngs::StdRng;

use super::harness::{
    ALPHA, Arm, Crossings, REQUESTS, RUNS, STEPS, WINDOWS_A_STEP, add, first_rollback,
};

/// The counters of one pod, with the samples of its last two scrapes.
struct Pod {
    arm: Arm,
    succeeded: Series,
    failed: Series,
}

impl Pod {
    fn new(arm: Arm) -> Self {
        let counter = || Series {
            samples: vec![(-1.0, 0.0)],
            ..Series::default()
        };
        Self {
            arm,
            succeeded: counter(),
            failed: counter(),
        }
    }

    /// Serves until the scrape at this moment; now and then the process restarts first and begins
    /// again from zero. What it really served, and whether it restarted.
    fn serve(&mut self, rng: &mut StdRng, at: f64) -> (Counts, bool) {
        let served = self.arm.window(rng);
        let growths = [served.requests - served.errors, served.errors];
        let counters = [&mut self.succeeded, &mut self.failed];
        let last = |counter: &Series| counter.samples.last().map_or(0.0, |(_, value)| *value);
        // A reset that no counter shows, since it has outgrown its old value, is lost to everyone.
        let visible = |(counter, &growth): (&&mut Series, &f64)| {
            last(counter) > growth || last(counter) <= 0.0
        };
        let restarts = rng.random_bool(0.05) && counters.iter().zip(&growths).all(visible);
        for (counter, growth) in counters.into_iter().zip(growths) {
            let before = last(counter);
            let value = if restarts { growth } else { before + growth };
            counter.samples.push((at, value));
            if counter.samples.len() > 2 {
                counter.samples.remove(0);
            }
        }
        (served, restarts)
    }
}

#[test]
fn counters_that_reset_are_counted_exactly_and_blame_nobody() {
    let mut resets = 0;
    let false_rollbacks = Crossings::simulate(RUNS / 2, 18, |rng| {
        // The pods of an arm stay the same ones while its share of the traffic changes.
        let pods =
            |weight: f64| [(); 2].map(|()| Pod::new(Arm::new(REQUESTS * weight / 2.0, 0.01, 1.0)));
        let mut arms = [pods(0.0), pods(0.0)];
        let counted = (0..STEPS.len() * WINDOWS_A_STEP).map(|k| {
            let weight = STEPS[k / WINDOWS_A_STEP];
            let start = 15.0 * k as f64;
            let span = Span {
                start,
                end: start + 15.0,
            };
            let mut counted = [Counts::default(); 2];
            for ((pods, share), counted) in arms
                .iter_mut()
                .zip([weight, 1.0 - weight])
                .zip(&mut counted)
            {
                let mut served = Counts::default();
                for pod in pods.iter_mut() {
                    if k.is_multiple_of(WINDOWS_A_STEP) {
                        pod.arm = Arm::new(REQUESTS * share / 2.0, 0.01, 1.0);
                    }
                    let (more, restarted) = pod.serve(rng, span.end - 1.0);
                    add(&mut served, more);
                    resets += usize::from(restarted);
                }
                let growth = |counter: fn(&Pod) -> &Series| -> f64 {
                    pods.iter()
                        .map(|pod| {
                            let series = std::slice::from_ref(counter(pod));
                            increase(series, &[], span, FirstIncrement::FromFirstSample).unwrap()
                        })
                        .sum()
                };
                let errors = growth(|pod| &pod.failed);
                let requests = errors + growth(|pod| &pod.succeeded);
                *counted = Counts { requests, errors };
                assert_eq!(*counted, served);
            }
            (counted[0], counted[1])
        });
        first_rollback(1, 1.0, counted)
    });
    println!("{resets} resets");
    assert!(resets > 30 * false_rollbacks.runs);
    false_rollbacks.assert_share_below("counters that reset", ALPHA);
}
