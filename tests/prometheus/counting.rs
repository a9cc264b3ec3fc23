use super::*;

#[tokio::test]
async fn both_arms_are_counted_over_the_same_windows() {
    let fake = counting(vec![
        steady("canary", "200", -7, 10.0),
        counter(
            "canary",
            "500",
            "canary",
            &[(20, 1.0), (35, 3.0), (50, 3.0)],
        ),
        steady("stable", "200", -2000, 100.0),
        steady("stable", "503", -1999, 1.0),
    ])
    .await;
    let windows = fake.client().windows(&ask(45)).await;
    let edges: Vec<_> = windows.due.iter().map(|w| (w.start, w.end)).collect();
    assert_eq!(
        edges,
        [
            (at(FROM), at(FROM + 15)),
            (at(FROM + 15), at(FROM + 30)),
            (at(FROM + 30), at(FROM + 45))
        ]
    );
    let counted: Vec<_> = windows.due.iter().map(counts).collect();
    assert_eq!(
        counted,
        [
            [10.0, 0.0, 101.0, 1.0],
            [11.0, 1.0, 101.0, 1.0],
            [12.0, 2.0, 101.0, 1.0]
        ]
    );
    assert_eq!(windows.history, None);
    let received = fake.received();
    assert_eq!(
        received.len(),
        4,
        "one question an arm and query: {received:?}"
    );
    assert!(
        received
            .iter()
            .all(|a| a.path == "/api/v1/query" && a.query().ends_with("[5m45s]"))
    );
}

#[tokio::test]
async fn nothing_is_queried_before_a_window_is_due() {
    let fake = counting(vec![]).await;
    for early in [-60, 0, 14] {
        let mut ask = ask(early);
        ask.history = vec![arm("stable")];
        assert_eq!(fake.client().windows(&ask).await, CheckWindows::default());
    }
    let mut counted = ask(59);
    counted.counted_until = at(FROM + 45);
    assert_eq!(
        fake.client().windows(&counted).await,
        CheckWindows::default()
    );
    assert!(fake.received().is_empty());
}

#[tokio::test]
async fn after_a_long_absence_windows_are_read_in_order_and_in_portions() {
    let fake = counting(vec![
        steady("canary", "200", 5, 10.0),
        steady("stable", "200", -600, 100.0),
    ])
    .await;
    let mut ask = ask(5_000);
    let first = fake.client().windows(&ask).await.due;
    assert_eq!((first.len(), first[0].start), (240, at(FROM)));
    ask.counted_until = first[239].end;
    let second = fake.client().windows(&ask).await.due;
    assert_eq!(
        (second[0].start, second[0].end),
        (at(FROM + 3600), at(FROM + 3615))
    );
    assert_eq!(second.last().unwrap().end, at(FROM + 4995));
    let sum: f64 = first
        .iter()
        .chain(&second)
        .map(|window| counts(window)[0])
        .sum();
    assert_eq!(
        sum,
        1000.0 + 332.0 * 10.0,
        "the first value and every increase, once each"
    );
}

/// It was made again without its data, or first scrapes what it should have scraped all along.
#[tokio::test]
async fn what_was_counted_before_prometheus_began_is_not_counted_again() {
    let from = |arm, code, value: f64| {
        let samples: Vec<_> = (0..10)
            .map(|k| (1_000 + 15 * k, value + k as f64))
            .collect();
        counter(arm, code, arm, &samples)
    };
    let fake = counting(vec![
        from("canary", "200", 50_000.0),
        from("canary", "500", 75.0),
        from("stable", "200", 900_000.0),
    ])
    .await;
    let mut ask = ask(1_105);
    ask.counted_until = at(FROM + 990);
    let windows = fake.client().windows(&ask).await.due;
    let counted: Vec<_> = windows.iter().map(counts).collect();
    let grows = |n: f64| [2.0 * n, n, n, 0.0];
    assert_eq!(counted[..3], [grows(0.0), grows(1.0), grows(1.0)]);
}

#[tokio::test]
async fn what_is_too_much_for_one_answer_is_read_in_parts() {
    let pods = (0..700).map(|pod| {
        let samples: Vec<_> = (-20..240).map(|k| (15 * k, 1e6 + k as f64)).collect();
        counter("canary", "200", format!("canary-{pod}").leak(), &samples)
    });
    let stable = steady("stable", "200", -600, 100.0);
    let fake = counting(pods.chain([stable]).collect()).await;
    let windows = fake.client().windows(&ask(3_600)).await.due;
    assert!((30..240).contains(&windows.len()), "{}", windows.len());
    assert_eq!(counts(&windows[0])[0], 700.0);
}

#[tokio::test]
async fn one_reconcile_or_many_count_the_same() {
    // A restart, a scrape that was missed, a pod that joins, an error in its first scrape.
    let joins = [(200, 1.0), (215, 1.0), (230, 2.0)];
    let fake = counting(vec![
        counter(
            "canary",
            "200",
            "a",
            &[(3, 5.0), (18, 9.0), (48, 2.0), (63, 12.0), (303, 13.0)],
        ),
        counter(
            "canary",
            "200",
            "b",
            &[(200, 6.0), (215, 8.0), (230, 9.0), (305, 20.0)],
        ),
        counter("canary", "500", "b", &joins),
        steady("stable", "200", -600, 100.0),
    ])
    .await;
    let total = |windows: &[Window]| {
        let counted = windows
            .iter()
            .filter(|w| matches!(w.outcome, WindowOutcome::Counted { .. }));
        counted
            .map(counts)
            .fold([0.0; 2], |sum, c| [sum[0] + c[0], sum[1] + c[1]])
    };
    let once = fake.client().windows(&ask(600)).await.due;
    assert_eq!(total(&once), [9.0 + 2.0 + 10.0 + 1.0 + 20.0 + 2.0, 2.0]);
    let mut many = vec![];
    for now in (0..=600).step_by(15) {
        let mut ask = ask(now);
        ask.counted_until = many.last().map_or(at(FROM), |window: &Window| window.end);
        many.extend(fake.client().windows(&ask).await.due);
    }
    assert_eq!(total(&many), total(&once));
    assert_eq!(many.len(), once.len());
}

#[tokio::test]
async fn a_canary_pod_out_of_sight_is_not_counted_twice() {
    // Pod b was counted up to 50, was not scraped for an hour, and has not restarted. Pod c has.
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        counter(
            "canary",
            "200",
            "b",
            &[(10, 40.0), (25, 50.0), (3700, 70.0)],
        ),
        counter("canary", "500", "b", &[(10, 4.0), (25, 5.0), (3700, 7.0)]),
        counter("canary", "500", "c", &[(3701, 1.0)]),
        steady("stable", "200", -600, 100.0),
    ])
    .await;
    let mut ask = ask(3705);
    ask.counted_until = at(FROM + 3690);
    let windows = fake.client().windows(&ask).await;
    assert_eq!(
        counts(&windows.due[0])[..2],
        [10.0 + 20.0 + 2.0 + 1.0, 2.0 + 1.0]
    );
    let looked_back = || {
        let received = fake.received().into_iter();
        received
            .filter(|a| a.query().starts_with("last_over_time"))
            .collect::<Vec<_>>()
    };
    assert!(looked_back().len() == 2 && looked_back().iter().all(|a| a.is_about("canary")));
    // If no counter appears, no further query is sent.
    ask.counted_until = at(FROM + 3000);
    ask.until = at(FROM + 3045);
    fake.client().windows(&ask).await;
    assert_eq!(looked_back().len(), 2);
}

#[tokio::test]
async fn stable_pods_that_come_into_sight_do_not_count_their_whole_life() {
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        counter("stable", "200", "a", &[(5, 1_000_000.0), (20, 1_000_100.0)]),
        counter("stable", "500", "a", &[(5, 50_000.0), (20, 50_001.0)]),
        counter("stable", "501", "a", &[(20, 2.0)]),
    ])
    .await;
    let windows = fake.client().windows(&ask(30)).await;
    assert_eq!(counts(&windows.due[0])[2..], [0.0, 0.0]);
    assert_eq!(
        counts(&windows.due[1])[2..],
        [103.0, 3.0],
        "a first error of a known pod counts"
    );
}

#[tokio::test]
async fn the_history_is_what_the_service_did_in_the_day_before() {
    let old = |code, by| {
        let samples: Vec<_> = (0..200).map(|k| (-6_000 + 15 * k, by * k as f64)).collect();
        counter("old", code, "old", &samples)
    };
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        steady("stable", "200", -3_000, 100.0),
        steady("stable", "500", -3_000, 2.0),
        old("200", 50.0),
        old("500", 1.0),
    ])
    .await;
    let mut ask = ask(15);
    ask.history = vec![arm("stable"), arm("old")];
    let windows = fake.client().windows(&ask).await;
    assert_eq!(windows.due.len(), 1);
    // Of the earlier revision, then of stable; the first value of each is no growth.
    let counted = |requests, errors| Counts { requests, errors };
    let history = windows.history.unwrap();
    let (old, stable) = history.split_at(history.len() - 199);
    assert_eq!(stable, [counted(102.0, 2.0)].repeat(199));
    assert!(
        old.starts_with(&[counted(51.0, 1.0)].repeat(199)),
        "{old:?}"
    );
    assert_eq!(fake.received().len(), 8);
}

#[tokio::test]
async fn a_counter_that_begins_again_and_a_missing_one_are_left_out_of_the_history() {
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        counter(
            "stable",
            "200",
            "a",
            &[
                (-60, 90.0),
                (-45, 190.0),
                (-30, 40.0),
                (-15, 140.0),
                (0, 240.0),
                (15, 340.0),
            ],
        ),
        counter("stable", "500", "a", &[(-15, 1.0), (0, 1.0), (15, 1.0)]),
    ])
    .await;
    let mut ask = ask(15);
    ask.history = vec![arm("stable")];
    let counted = |requests, errors| Counts { requests, errors };
    assert_eq!(
        fake.client().windows(&ask).await.history.unwrap(),
        // The first error is an error, although no sample of its series precedes it.
        [counted(100.0, 0.0), counted(101.0, 1.0)]
    );
}

#[tokio::test]
async fn nothing_counts_before_the_history_is_known() {
    let counters = [
        steady("canary", "200", 0, 10.0),
        steady("stable", "200", -300, 100.0),
    ];
    let fake = Fake::start(move |received| {
        if received.path.ends_with("/query_range") {
            return response(503, "text/plain", "busy");
        }
        evaluate(received, &counters)
    })
    .await;
    let mut ask = ask(15);
    ask.history = vec![arm("stable")];
    let windows = fake.client().windows(&ask).await;
    let (reason, _) = unanswered(&windows);
    assert_eq!(reason, Unanswered::PrometheusError);
    assert_eq!(windows.history, None);
}

#[tokio::test]
async fn a_day_that_prometheus_cannot_answer_for_is_replaced_by_an_hour() {
    let counters = [
        steady("canary", "200", 0, 10.0),
        steady("stable", "200", -4_500, 100.0),
    ];
    let fake = Fake::start(move |received| {
        let start = received
            .params
            .get("start")
            .map(|it| it.parse::<f64>().unwrap());
        if start.is_some_and(|start| start < (FROM - 3_700) as f64) {
            return response(
                422,
                "text/plain",
                "query processing would load too many samples",
            );
        }
        evaluate(received, &counters)
    })
    .await;
    let mut ask = ask(15);
    ask.history = vec![arm("stable")];
    let windows = fake.client().windows(&ask).await;
    assert_eq!(windows.history.unwrap().len(), 240);
}

#[tokio::test]
async fn expressions_are_one_range_query_each() {
    let fake = Fake::start(|received| {
        assert_eq!(received.path, "/api/v1/query_range");
        let number = |name: &str| received.params[name].parse::<f64>().unwrap();
        let bounds = [number("start"), number("end"), number("step")].map(|x| x - FROM as f64);
        assert_eq!(bounds, [15.0, 45.0, INTERVAL as f64 - FROM as f64]);
        let value = if received.query().contains("bad") {
            "0.5"
        } else {
            "20"
        };
        // The second step has no value: the expression gave none there.
        let values = [(FROM + 15, value), (FROM + 45, value)];
        json(
            200,
            &success(
                "matrix",
                &[serde_json::json!({"metric": {}, "values": values})],
            ),
        )
    })
    .await;
    let mut ask = ask(45);
    ask.check = expressions();
    let windows = fake.client().windows(&ask).await;
    assert_eq!(counts(&windows.due[0]), [20.0, 0.5, 20.0, 0.5]);
    assert_eq!(counts(&windows.due[2]), [20.0, 0.5, 20.0, 0.5]);
    let WindowOutcome::Uncounted { reason, message } = &windows.due[1].outcome else {
        panic!()
    };
    assert_eq!(*reason, Uncounted::NoSeries);
    assert!(message.contains(r#"canary: the query `total` (sum(increase(all{r="canary"}[15s])))"#));
    assert_eq!(fake.received().len(), 4);
}

#[tokio::test]
async fn equal_queries_are_sent_once() {
    let fake = counting(vec![]).await;
    let mut ask = ask(15);
    let same = Some("x{pod_template_hash=\"{{revision}}\"}".to_owned());
    ask.check = Check {
        name: "own".into(),
        errors: same.clone(),
        total: same,
        ..Check::default()
    };
    fake.client().windows(&ask).await;
    assert_eq!(fake.received().len(), 2);
}

#[tokio::test]
async fn a_check_that_is_split_by_service_alone_has_one_history() {
    let fake = counting(vec![
        steady("canary", "200", 0, 10.0),
        steady("stable", "200", -3_000, 100.0),
    ])
    .await;
    let mut ask = ask(15);
    ask.history = vec![arm("stable"), arm("stable")];
    let windows = fake.client().windows(&ask).await;
    assert_eq!(windows.history.unwrap().len(), 199);
}

#[tokio::test]
async fn an_earlier_revision_that_cannot_be_read_is_left_out_of_the_history() {
    let counters = [
        steady("canary", "200", 0, 10.0),
        steady("stable", "200", -3_000, 100.0),
    ];
    let fake = Fake::start(move |received| {
        if received.query().contains("old") {
            return response(503, "text/plain", "busy");
        }
        evaluate(received, &counters)
    })
    .await;
    let mut ask = ask(15);
    ask.history = vec![arm("stable"), arm("old")];
    let windows = fake.client().windows(&ask).await;
    assert_eq!(windows.history.unwrap().len(), 199);
}
