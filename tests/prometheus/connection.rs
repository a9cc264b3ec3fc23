use super::*;

#[tokio::test]
async fn a_server_that_hangs_costs_one_timeout() {
    let hangs = || {
        let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        response(200, "application/json", Body::from_stream(never))
    };
    let fake = Fake::start(move |_| hangs()).await;
    let short = PrometheusConfig {
        timeout: StdDuration::from_millis(300),
        ..config(&fake.url)
    };
    let client = connect(short);
    let started = tokio::time::Instant::now();
    // Far more queries than run concurrently: queued ones time out as well.
    let asks: Vec<_> = (0..20).map(|n| ask_in(&format!("n{n}"), 60)).collect();
    let windows = futures::future::join_all(asks.iter().map(|ask| client.windows(ask))).await;
    assert!(
        started.elapsed() < StdDuration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    for windows in windows {
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusUnreachable);
        assert!(message.contains("no answer within 300ms"), "{message}");
    }
}

#[tokio::test]
async fn at_most_eight_queries_are_under_way() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::start(|_| {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let slow = futures::stream::once(async {
            tokio::time::sleep(StdDuration::from_millis(20)).await;
            NOW.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(success("matrix", &[]).to_string())
        });
        response(200, "application/json", Body::from_stream(slow))
    })
    .await;
    let client = fake.client();
    let asks: Vec<_> = (0..20).map(|n| ask_in(&format!("n{n}"), 60)).collect();
    let windows = futures::future::join_all(asks.iter().map(|ask| client.windows(ask))).await;
    assert!(
        windows
            .iter()
            .all(|windows| uncounted(windows).0 == Uncounted::NoSeries)
    );
    assert_eq!(
        (MOST.load(Ordering::SeqCst), fake.received().len()),
        (8, 80)
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = counting(vec![steady("canary", "200", 0, 1.0)]).await;
    for status in [301, 302, 307, 308] {
        let location = format!("{}/api/v1/query", elsewhere.url);
        let windows = answer_to(move || {
            let builder = Response::builder()
                .status(status)
                .header("location", &location);
            builder.body(Body::empty()).unwrap()
        })
        .await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusError);
        assert!(message.ends_with(&format!("status {status} (redirects are not followed)")));
    }
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn prometheus_away_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let windows = connect(config(&format!("http://{address}")))
        .windows(&ask(60))
        .await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::PrometheusUnreachable);
    assert!(
        message.contains("cannot be reached: Connection refused"),
        "{message}"
    );
    let windows = connect(config("http://no-such-host.invalid"))
        .windows(&ask(60))
        .await;
    assert_eq!(unanswered(&windows).0, Unanswered::PrometheusUnreachable);
    // Plain HTTP instead of TLS.
    let fake = counting(vec![]).await;
    let windows = connect(config(&fake.url.replace("http:", "https:")))
        .windows(&ask(60))
        .await;
    assert_eq!(unanswered(&windows).0, Unanswered::PrometheusUnreachable);
}

#[tokio::test]
async fn without_an_address_nothing_is_queried() {
    let windows = connect(PrometheusConfig::default()).windows(&ask(60)).await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::NotConfigured);
    assert!(message.contains("--prometheus-url"));
}

#[tokio::test]
async fn a_query_that_is_not_promql_is_not_sent() {
    let fake = counting(vec![]).await;
    let mut ask = ask(60);
    let good = Some("x{r=\"{{revision}}\"}".to_owned());
    let bad = Some("x{r=\"{{revision}}\"".to_owned());
    ask.check = Check {
        name: "own".into(),
        errors: good.clone(),
        total: bad,
        ..Check::default()
    };
    let windows = fake.client().windows(&ask).await;
    let (reason, message) = unanswered(&windows);
    assert_eq!(reason, Unanswered::InvalidQuery);
    assert!(message.starts_with("field `total` of check `own`: the query is not PromQL"));
    let service = Some("x{r=\"{{revision}}\",s=\"{{service}}\"}".to_owned());
    ask.check = Check {
        errors: service,
        total: good,
        ..ask.check
    };
    let windows = fake.client().windows(&ask).await;
    assert!(
        unanswered(&windows)
            .1
            .contains("`{{service}}` resolves to nothing")
    );
    assert!(fake.received().is_empty());
}

#[tokio::test]
async fn the_token_is_read_at_each_use_and_shown_nowhere() {
    let path = std::env::temp_dir().join(format!("countersign-token-{}", std::process::id()));
    let fake = counting(vec![]).await;
    let client = connect(PrometheusConfig {
        bearer_token_file: Some(path.clone()),
        ..config(&fake.url)
    });
    for (n, token) in (1..).zip(["hunter1", "hunter2"]) {
        std::fs::write(&path, format!("{token}\n")).unwrap();
        client.windows(&ask(15 * n)).await;
        let last = fake.received().pop().unwrap().authorization;
        assert_eq!(last, Some(format!("Bearer {token}")));
    }
    let mut expressed = ask(15);
    expressed.check = expressions();
    let refusing = Fake::start(|_| response(401, "text/plain", "hunter2")).await;
    let config = PrometheusConfig {
        bearer_token_file: Some(path.clone()),
        ..config(&refusing.url)
    };
    let windows = connect(config).windows(&expressed).await;
    assert!(
        refusing
            .received()
            .iter()
            .all(|a| a.authorization.as_deref() == Some("Bearer hunter2"))
    );
    assert!(!unanswered(&windows).1.contains("hunter"));

    for (content, part) in [
        ("hunter2\nhunter3", "must be one line"),
        ("  \n", "must be one line"),
    ] {
        std::fs::write(&path, content).unwrap();
        let windows = client.windows(&ask(45)).await;
        let (reason, message) = unanswered(&windows);
        assert_eq!(reason, Unanswered::PrometheusUnreachable);
        assert!(
            message.contains(part) && !message.contains("hunter"),
            "{message}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    let windows = client.windows(&ask(45)).await;
    assert!(unanswered(&windows).1.contains("cannot be read"));
}

#[test]
fn an_unsafe_address_is_refused_and_not_repeated() {
    let table = [
        ("prometheus:9090", "must begin with"),
        ("prometheus", "is not a URL"),
        ("file:///etc/passwd", "must begin with"),
        ("ftp://prometheus", "must begin with"),
        ("http://", "is not a URL"),
        ("http://user:hunter2@prometheus", "user name or password"),
        ("http://user@prometheus", "user name or password"),
        ("https://:hunter2@prometheus", "user name or password"),
        ("http://prometheus/?token=hunter2", "query or fragment"),
        ("http://prometheus/#hunter2", "query or fragment"),
        ("http://169.254.169.254/latest", "link-local"),
        ("http://0xA9FEA9FE", "link-local"),
        ("http://[fe80::1]:9090", "link-local"),
        ("http://[::ffff:169.254.169.254]", "link-local"),
    ];
    for (url, part) in table {
        let Err(error) = try_connect(config(url)) else {
            panic!("{url} is accepted")
        };
        let error = error.to_string();
        assert!(
            error.contains(part) && !error.contains("hunter2"),
            "{url}: {error}"
        );
    }
    for url in [
        "http://prometheus:9090",
        "https://mimir.example/prometheus/",
        "http://[::1]:9090",
    ] {
        assert!(try_connect(config(url)).is_ok(), "{url}");
    }
}

#[test]
fn a_wrong_file_of_authorities_is_refused() {
    let with = |ca_file: &std::path::Path| {
        let ca_file = Some(ca_file.to_owned());
        try_connect(PrometheusConfig {
            ca_file,
            ..config("https://prometheus")
        })
        .err()
        .unwrap()
    };
    let missing = with(std::path::Path::new("/no/such/ca.pem"));
    assert!(matches!(missing, ConfigError::File { .. }), "{missing}");
    let none = with(std::path::Path::new("/dev/null"));
    assert!(matches!(none, ConfigError::NoCertificate(_)), "{none}");
}

#[tokio::test]
async fn a_path_before_the_api_is_kept() {
    let fake = counting(vec![]).await;
    // Mimir's, the same with a slash, and an account of a VictoriaMetrics cluster.
    for path in ["/prometheus", "/prometheus/", "/select/42:7/prometheus"] {
        connect(config(&format!("{}{path}", fake.url)))
            .windows(&ask(15))
            .await;
        let path = path.trim_end_matches('/');
        assert_eq!(
            fake.received().pop().unwrap().path,
            format!("{path}/api/v1/query")
        );
        let mut expressed = ask(15);
        expressed.check = expressions();
        connect(config(&format!("{}{path}", fake.url)))
            .windows(&expressed)
            .await;
        assert_eq!(
            fake.received().pop().unwrap().path,
            format!("{path}/api/v1/query_range")
        );
    }
}
