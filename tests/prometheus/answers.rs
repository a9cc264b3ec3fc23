use super::*;

#[tokio::test]
async fn odd_numbers_are_named_and_move_no_evidence() {
    let stable = || steady("stable", "200", -600, 100.0);
    let odd = |value: &str| {
        let mut odd = counter("canary", "200", "a", &[(-5, 1.0), (10, 2.0)]);
        odd.samples[1].1 = value.to_owned();
        vec![odd, stable()]
    };
    let table = [
        (odd("NaN"), Uncounted::NotANumber, "gave the value NaN"),
        (odd("+Inf"), Uncounted::NotANumber, "gave the value inf"),
        (odd("-Inf"), Uncounted::NotANumber, "gave the value -inf"),
        (odd("-1"), Uncounted::Negative, "gave the value -1"),
        (vec![stable()], Uncounted::NoSeries, "matched no series"),
        (
            vec![],
            Uncounted::NoSeries,
            "canary: the query `total` (http_requests_total{",
        ),
        (
            vec![steady("canary", "200", 0, 1.0)],
            Uncounted::NoSeries,
            "stable: the query `total`",
        ),
        (
            vec![counter("canary", "200", "a", &[(-40, 1.0)]), stable()],
            Uncounted::StaleSamples,
            "no sample younger than 55 s",
        ),
    ];
    for (counters, expected, part) in table {
        let windows = counting(counters).await.client().windows(&ask(15)).await;
        let (reason, message) = uncounted(&windows);
        assert_eq!(reason, expected, "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn several_series_where_one_number_is_expected_are_named() {
    let fake = Fake::start(|_| {
        let row = |pod| serde_json::json!({"metric": {"pod": pod}, "values": [[FROM + 15, "3"]]});
        json(200, &success("matrix", &[row("a"), row("b")]))
    })
    .await;
    let mut ask = ask(15);
    ask.check = expressions();
    let windows = fake.client().windows(&ask).await;
    let (reason, message) = uncounted(&windows);
    assert_eq!(reason, Uncounted::SeveralSeries);
    assert!(
        message.contains(r#"2 series where one number is expected, such as {pod="a"}, {pod="b"}"#)
    );
}

#[tokio::test]
async fn more_errors_than_requests_are_refused() {
    let fake = Fake::start(|received| {
        let value = if received.is_for_errors() { "30" } else { "20" };
        let row = serde_json::json!({"metric": {}, "values": [[FROM, "0"], [FROM + 15, value]]});
        json(200, &success("matrix", &[row]))
    })
    .await;
    let windows = fake.client().windows(&ask(15)).await;
    let (reason, message) = uncounted(&windows);
    assert_eq!(reason, Uncounted::ErrorsExceedRequests);
    assert!(message.contains("30 errors of 20 requests"), "{message}");
}

#[tokio::test]
async fn warnings_make_an_answer_partial_and_infos_do_not() {
    let answer = |notes: &'static str| {
        move || {
            let mut answer = success("matrix", &[]);
            answer[notes] = serde_json::json!(["store \u{1b}[31m10.0.0.1 is away", "another"]);
            json(200, &answer)
        }
    };
    let windows = answer_to(answer("warnings")).await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::PartialAnswer);
    assert!(
        message.contains(r"may be partial: store \u{1b}[31m10.0.0.1 is away"),
        "{message}"
    );
    let windows = answer_to(answer("infos")).await;
    assert_eq!(uncounted(&windows).0, Uncounted::NoSeries);
}

#[tokio::test]
async fn errors_of_the_server_are_named_by_status_and_kind() {
    let error = |kind: &str, text: &str| serde_json::json!({"status": "error", "errorType": kind, "error": text});
    let long = format!(
        "{}\u{1b}]0;title\u{7}{}",
        "x".repeat(150),
        "secret".repeat(10_000)
    );
    let refuses = Unanswered::InvalidQuery;
    let fails = Unanswered::PrometheusError;
    let table = [
        (
            400,
            error("bad_data", "parse error: unexpected \"}\""),
            refuses,
            "parse error: unexpected \"}\"",
        ),
        (
            400,
            error("bad_data", &long),
            refuses,
            r"xx\u{1b}]0;title\u{7}secret",
        ),
        (
            422,
            error("execution", "secret"),
            fails,
            "status 422 and the error type `execution`",
        ),
        (
            503,
            error("timeout", "secret"),
            fails,
            "status 503 and the error type `timeout`",
        ),
        (
            500,
            error("bad_data", "secret"),
            fails,
            "status 500 and the error type `bad_data`",
        ),
        (
            500,
            error(&"\u{1b}secret".repeat(99), ""),
            fails,
            r"`\u{1b}secret\u{1b}secret",
        ),
        (
            200,
            error("internal", "secret"),
            fails,
            "status 200 and the error type `internal`",
        ),
        (401, serde_json::json!("secret"), fails, "status 401"),
        (502, serde_json::json!({"secret": 1}), fails, "status 502"),
    ];
    for (status, body, expected, part) in table {
        let answer = body.clone();
        let windows = answer_to(move || json(status, &answer)).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, expected, "{message}");
        assert!(message.contains(part), "{message}");
        assert!(reason == refuses || part.contains("secret") || !message.contains("secret"));
    }
}

#[tokio::test]
async fn what_is_no_answer_of_prometheus_is_not_read_as_one() {
    let html = "<html><script>alert(1)</script>secret</html>";
    let nothing = success("matrix", &[]).to_string();
    let histogram = serde_json::json!({"metric": {}, "histograms": [[FROM, {"count": "1"}]]});
    let word = serde_json::json!({"metric": {}, "values": [[FROM, "secret"]]});
    let scalar = serde_json::json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}});
    let reads_not = Unanswered::UnreadableAnswer;
    let json_type = "application/json";
    let table = [
        (200, "text/html", html.to_owned(), reads_not, "content type"),
        (
            200,
            json_type,
            html.to_owned(),
            reads_not,
            "at line 1, column 1",
        ),
        (
            200,
            "text/plain",
            nothing.clone(),
            reads_not,
            "content type",
        ),
        (
            200,
            json_type,
            nothing.replace('}', ""),
            reads_not,
            "column",
        ),
        (200, json_type, String::new(), reads_not, "column"),
        (200, json_type, "[]".into(), reads_not, "column"),
        (
            200,
            json_type,
            "{\"status\":\"success\"}".into(),
            reads_not,
            "no data",
        ),
        (200, json_type, "[".repeat(1 << 20), reads_not, "column"),
        (
            200,
            json_type,
            success("matrix", &[histogram]).to_string(),
            reads_not,
            "native histograms",
        ),
        (
            200,
            json_type,
            success("matrix", &[word]).to_string(),
            reads_not,
            "column",
        ),
        (200, json_type, scalar.to_string(), reads_not, "scalar"),
        (
            502,
            "text/html",
            html.to_owned(),
            Unanswered::PrometheusError,
            "status 502",
        ),
        (
            404,
            "text/plain",
            html.to_owned(),
            Unanswered::PrometheusError,
            "status 404",
        ),
        (204, json_type, String::new(), reads_not, "column"),
    ];
    for (status, kind, body, expected, part) in table {
        let windows = answer_to(move || response(status, kind, body.clone())).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, expected, "{message}");
        assert!(
            message.contains(part) && !message.contains("secret"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_answer_of_100_mb_is_cut_off() {
    const CHUNK: usize = 64 << 10;
    static SENT: AtomicUsize = AtomicUsize::new(0);
    for status in [200, 500] {
        SENT.store(0, Ordering::SeqCst);
        let windows = answer_to(move || {
            let chunks = (0..(100 << 20) / CHUNK).map(|_| {
                SENT.fetch_add(CHUNK, Ordering::SeqCst);
                Ok::<_, std::io::Error>(vec![b' '; CHUNK])
            });
            response(
                status,
                "application/json",
                Body::from_stream(futures::stream::iter(chunks)),
            )
        })
        .await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::UnreadableAnswer);
        assert!(message.contains("larger than 4 MiB"), "{message}");
        // Four responses. The kernel buffers up to 40 MiB of each in the sockets; the client itself holds
        // at most the limit.
        let sent = SENT.load(Ordering::SeqCst);
        assert!(sent < (4 * (4 + 40)) << 20, "{sent} bytes were read");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let windows = answer_to(|| {
        let chunk = || Ok::<_, std::io::Error>(vec![b'['; 64 << 10]);
        let endless = futures::stream::iter(std::iter::repeat_with(chunk));
        response(200, "application/json", Body::from_stream(endless))
    })
    .await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::UnreadableAnswer);
    assert!(message.contains("larger than 4 MiB"), "{message}");
}
