use super::*;

/// Responses whose `Date` is this many seconds from now.
async fn with_clock(offset: i64) -> Fake {
    Fake::start(move |_| {
        let mut response = json(200, &success("matrix", &[]));
        let then = now() + offset;
        let date = jiff::fmt::rfc2822::DateTimePrinter::new();
        let date = date.timestamp_to_rfc9110_string(&at(then)).unwrap();
        response.headers_mut().insert("date", date.parse().unwrap());
        response
    })
    .await
}

#[allow(clippy::disallowed_methods, reason = "the clocks are what is tested")]
fn now() -> i64 {
    Timestamp::now().as_second()
}

#[tokio::test]
async fn clocks_that_differ_by_more_than_the_lag_are_named() {
    for (offset, part) in [
        (-60, "s behind the operator's"),
        (60, "s ahead of the operator's"),
    ] {
        let windows = with_clock(offset).await.client().windows(&ask(15)).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::ClockSkew);
        assert!(message.contains("Prometheus' clock is 5"), "{message}");
        assert!(message.contains(part), "{message}");
        assert!(message.contains("more than the lag of 30 s"), "{message}");
    }
}

#[tokio::test]
async fn clocks_that_differ_by_less_are_named_beside_another_reason() {
    for (offset, part) in [
        (-20, Some("s behind the operator's")),
        (20, Some("s ahead of the operator's")),
        (-4, None),
        (4, None),
        (0, None),
    ] {
        let windows = with_clock(offset).await.client().windows(&ask(15)).await;
        let (reason, message) = uncounted(&windows);
        assert_eq!(reason, Uncounted::NoSeries);
        match part {
            Some(part) => assert!(message.contains(part), "{message}"),
            None => assert!(!message.contains("clock"), "{message}"),
        }
    }
}

#[tokio::test]
async fn samples_of_a_clock_that_is_behind_are_waited_for() {
    let fake = with_clock(-20).await;
    let client = fake.client();
    assert_eq!(client.lag(), StdDuration::from_secs(30));
    // A window that is just due: by Prometheus' clock its samples are not available yet.
    let mut present = ask(15);
    present.until = at(now());
    present.from = at(now() - 46);
    present.counted_until = present.from;
    let windows = client.windows(&present).await;
    let WindowOutcome::Unanswered { reason, message } = &windows.due[0].outcome else {
        panic!("{windows:?}")
    };
    assert_eq!(*reason, Unanswered::ClockSkew);
    assert!(message.contains("they are waited for longer"), "{message}");
    // From now on the window is due when its samples are available.
    let lag = client.lag().as_secs();
    assert!((45..=50).contains(&lag), "{lag}");
    assert_eq!(client.windows(&present).await, CheckWindows::default());
    present.from = at(now() - 75);
    present.counted_until = present.from;
    let windows = client.windows(&present).await;
    assert_eq!(uncounted(&windows).0, Uncounted::NoSeries);
}
