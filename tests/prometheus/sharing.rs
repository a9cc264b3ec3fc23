use super::*;

#[tokio::test]
async fn a_partial_answer_of_victoria_metrics_is_none() {
    for (partial, expected) in [(true, Some(Unanswered::PartialAnswer)), (false, None)] {
        let mut body = success("matrix", &[]);
        body["isPartial"] = partial.into();
        let windows = answer_to(move || json(200, &body)).await;
        match expected {
            Some(expected) => assert_eq!(unanswered(&windows).0, expected),
            None => assert_eq!(uncounted(&windows).0, Uncounted::NoSeries),
        }
    }
}

#[tokio::test]
async fn times_are_the_requested_ones() {
    // A frontend that aligns the times to the step.
    let fake = Fake::start(|received| {
        assert_eq!(received.params["nocache"], "1");
        assert_eq!(received.params["latency_offset"], "1ms");
        let moved = (FROM + 15) / 15 * 15;
        let row = serde_json::json!({"metric": {}, "values": [[moved, "3"]]});
        json(200, &success("matrix", &[row]))
    })
    .await;
    let mut ask = ask(15);
    ask.check = expressions();
    let windows = fake.client().windows(&ask).await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::UnreadableAnswer);
    assert!(
        message.contains("its times are not the requested ones"),
        "{message}"
    );
}

#[tokio::test]
async fn those_who_ask_the_same_at_the_same_time_share_an_answer() {
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        steady("stable", "200", -600, 100.0),
    ])
    .await;
    let client = fake.client();
    let asks: Vec<_> = (0..50).map(|_| ask(45)).collect();
    let windows = futures::future::join_all(asks.iter().map(|ask| client.windows(ask))).await;
    assert!(windows.iter().all(|it| it == &windows[0]));
    assert_eq!(
        (counts(&windows[0].due[2])[0], fake.received().len()),
        (10.0, 4)
    );
    // Soon after, the cached response is returned; other times are another request.
    client.windows(&asks[0]).await;
    assert_eq!(fake.received().len(), 4);
    client.windows(&ask(60)).await;
    assert_eq!(fake.received().len(), 8);
    // A caller that gives up does not cancel the shared request.
    let hurried = tokio::time::timeout(StdDuration::ZERO, client.windows(&ask(75))).await;
    assert!(hurried.is_err());
    assert_eq!(client.windows(&ask(75)).await.due.len(), 5);
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    static ANSWERS: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(|received| match ANSWERS.fetch_add(1, Ordering::SeqCst) {
        0..4 => response(503, "text/plain", "busy"),
        _ => evaluate(received, &[]),
    })
    .await;
    let client = fake.client();
    let windows = client.windows(&ask(15)).await;
    assert_eq!(unanswered(&windows).0, Unanswered::PrometheusError);
    let windows = client.windows(&ask(15)).await;
    assert_eq!(uncounted(&windows).0, Uncounted::NoSeries);
}

#[tokio::test]
async fn a_thousand_rollouts_at_once_are_answered_within_an_interval() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(|_| {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let soon = futures::stream::once(async {
            tokio::task::yield_now().await;
            NOW.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(success("matrix", &[]).to_string())
        });
        response(200, "application/json", Body::from_stream(soon))
    })
    .await;
    // A minute, since tests share their machine.
    let interval = StdDuration::from_mins(1);
    let client = connect(PrometheusConfig {
        timeout: interval,
        ..config(&fake.url)
    });
    let asks: Vec<_> = (0..1_000)
        .map(|n| {
            let mut ask = ask_in(&format!("n{}", n % 20), 60);
            ask.interval = interval.into();
            ask.canary.revision = format!("canary{n}");
            ask.stable.as_mut().unwrap().revision = format!("stable{n}");
            ask
        })
        .collect();
    let started = tokio::time::Instant::now();
    let windows = futures::future::join_all(asks.iter().map(|ask| client.windows(ask))).await;
    assert!(started.elapsed() < interval, "{:?}", started.elapsed());
    let all = windows.iter().map(|windows| uncounted(windows).0);
    assert!(all.eq(std::iter::repeat_n(Uncounted::NoSeries, 1_000)));
    assert_eq!(fake.received().len(), 4_000);
    assert!(MOST.load(Ordering::SeqCst) <= 8, "{MOST:?}");
}

#[tokio::test]
async fn slow_queries_of_one_namespace_leave_room_for_others() {
    static SLOW: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(|received| {
        if received.is_about("slow") {
            SLOW.fetch_add(1, Ordering::SeqCst);
            let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
            return response(200, "application/json", Body::from_stream(never));
        }
        json(200, &success("matrix", &[]))
    })
    .await;
    let client = fake.client();
    let slow: Vec<_> = (1..=20).map(|n| ask_in("slow", 15 * n)).collect();
    let quick: Vec<_> = (1..=20).map(|n| ask_in("quick", 15 * n)).collect();
    tokio::select! {
        _ = futures::future::join_all(slow.iter().map(|ask| client.windows(ask))) => {
            panic!("the slow ones come last")
        }
        windows = async {
            tokio::time::sleep(StdDuration::from_millis(50)).await;
            futures::future::join_all(quick.iter().map(|ask| client.windows(ask))).await
        } => {
            let all = windows.iter().map(|windows| uncounted(windows).0);
            assert!(all.eq(std::iter::repeat_n(Uncounted::NoSeries, 20)));
        }
    }
    assert_eq!(SLOW.load(Ordering::SeqCst), 4);
}
