use k8s_openapi::jiff::SignedDuration;

use crate::rollout::requeue::spread;

#[test]
fn reconciles_are_spread_over_a_part_of_the_interval() {
    for (interval, most) in [(1, 50), (6, 2_000), (15, 5_000), (3_600, 5_000)] {
        let interval = SignedDuration::from_secs(interval);
        let mut delays: Vec<_> = (0..1_000)
            .map(|n| format!("0b54f2a6-9a47-4f0e-8a53-{n:012}"))
            .map(|uid| spread(&uid, interval).as_millis())
            .collect();
        delays.sort_unstable();
        assert!(delays[0] >= 0 && delays[999] <= most);
        // As evenly as required: no tenth of the time has twice its share.
        for tenth in 0..10 {
            let (from, to) = (most * tenth / 10, most * (tenth + 1) / 10);
            let inside = delays.iter().filter(|it| (from..to).contains(*it));
            assert!((50..200).contains(&inside.count()), "{interval:?}: {tenth}");
        }
    }
    let second = SignedDuration::from_secs(1);
    assert_eq!(spread("a", second), spread("a", second));
    assert_eq!(spread("a", SignedDuration::ZERO), SignedDuration::ZERO);
}
