//! The queries to Prometheus, its address, and its answers.

use super::*;

/// Prometheus' address, which is the administrator's: what is taken leads to no metadata service.
pub fn address(data: &[u8]) {
    let [url] = parts(data);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = PrometheusConfig {
        url: Some(url.clone()),
        ..PrometheusConfig::default()
    };
    if Prometheus::new(&config).is_ok() {
        let parsed = reqwest::Url::parse(&url).unwrap();
        let host = parsed.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let link_local = |address| match address {
            std::net::IpAddr::V4(address) => address.is_link_local(),
            std::net::IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        assert!(!address.is_ok_and(link_local), "{url}");
        assert!(
            parsed.username().is_empty() && parsed.password().is_none(),
            "{url}"
        );
        assert!(matches!(parsed.scheme(), "http" | "https"), "{url}");
    }
}

/// Answers of Prometheus: status and kind of question, then the body.
pub fn answer(data: &[u8]) {
    let [asked, body] = parts(data);
    let (status, kind) = asked.split_once(' ').unwrap_or((&asked, ""));
    let status = status.parse().ok();
    let status = status.and_then(|status: u16| status.try_into().ok());
    let query = "up".to_owned();
    let (request, form) = if kind == "steps" {
        let (start, end, step) = (1000, 1600, 15);
        let request = Request::Steps {
            query,
            start,
            end,
            step,
        };
        (request, Form::Expression)
    } else {
        (Request::At { query, time: 1600 }, Form::Selector)
    };
    let answer = Answer::parse(body.as_bytes());
    let series = match answer.and_then(|it| it.series(status.unwrap_or_default(), &request)) {
        Ok(series) => series,
        Err(failure) => return is_harmless(&failure.message, 1200),
    };
    let query = form::Query {
        field: form::Field::Total,
        form,
        text: "up".into(),
    };
    for first_increment in [FirstIncrement::FromZero, FirstIncrement::FromFirstSample] {
        let answer = ArmAnswer {
            arm: "canary",
            query: &query,
            series: &series,
            first_increment,
        };
        for start in [900, 1000, 1585] {
            let (start, end) = (f64::from(start), f64::from(start + 15));
            for counting in [query::Counting::Failed, query::Counting::Fast] {
                match count::count(answer, answer, counting, Span { start, end }) {
                    Ok(Counts { requests, errors }) => {
                        assert!(requests >= 0.0 && errors >= 0.0 && errors <= requests);
                        assert!(requests.is_finite(), "{requests} requests");
                    }
                    Err((_, message)) => is_harmless(&message, 2000),
                }
            }
            match count::measure(answer, end) {
                Ok(value) => assert!(value.is_finite()),
                Err((_, message)) => is_harmless(&message, 2000),
            }
        }
    }
}

/// Queries of a check (errors, then total or a template's text) with a value that a user chose.
pub fn query(data: &[u8]) {
    let [errors, total, value] = parts(data);
    let window = Duration::seconds(15);
    let own = |errors: &str, total: &str| Check {
        name: "own".into(),
        errors: Some(errors.into()),
        total: Some(total.into()),
        ..Check::default()
    };
    let check = own(&errors, &total);
    let buckets = Check {
        latency: Some(Latency {
            buckets: Some(total.clone()),
            ..Latency::default()
        }),
        ..Check::default()
    };
    let metric = Metric {
        query: total.clone(),
        ..Metric::default()
    };
    let objective = Objective {
        errors: errors.clone(),
        total: total.clone(),
        ..Objective::default()
    };
    let all = |value: &str| {
        let arm = Arm {
            namespace: value,
            service: Some(value),
            rollout: value,
            revision: value,
        };
        [
            query::render(&check, arm, window).map(both),
            query::render(&buckets, arm, window).map(both),
            query::render_metric(&check, &metric, arm, window).map(|query| vec![query]),
            query::render_objective("own", &objective, arm).map(Vec::from),
        ]
    };
    for (harmless, hostile) in all("x").into_iter().zip(all(&value)) {
        match (harmless, hostile) {
            (Ok(harmless), Ok(hostile)) => {
                for (harmless, hostile) in harmless.iter().zip(&hostile) {
                    assert_eq!(
                        shape(&harmless.text),
                        shape(&hostile.text),
                        "{}",
                        hostile.text
                    );
                    if hostile.form == Form::Selector {
                        let texts = [hostile.samples(window), hostile.growth(window)];
                        for text in &texts {
                            shape(text);
                        }
                        shape(&hostile.last_values(window));
                    }
                }
            }
            (_, Err(error)) => is_harmless(&error.to_string(), 2000),
            (Err(_), Ok(_)) => {}
        }
    }
    let filled = |kind, value: &str| {
        let argument = Argument {
            name: "a".into(),
            kind,
            ..Argument::default()
        };
        let value = placeholder::Value::read(&argument, value)?;
        let text = placeholder::with_args(&total, &[("a".to_owned(), value)].into()).ok()?;
        parses(&text).then_some(text)
    };
    // Numbers and durations stand outside of strings, where a sign belongs to the query.
    let _ = (
        filled(ArgumentType::Number, &value),
        filled(ArgumentType::Duration, &value),
    );
    let texts = ["x", &value].map(|value| filled(ArgumentType::String, value));
    if let [Some(harmless), Some(hostile)] = texts {
        assert_eq!(shape(&harmless), shape(&hostile), "{hostile}");
    }
}

fn both(queries: Queries) -> Vec<form::Query> {
    vec![queries.errors, queries.total]
}

/// The parser panics on numbers that are out of range, which the product catches.
fn parses(text: &str) -> bool {
    let simple = text.len() <= 4096 && !placeholder::is_too_complex(text);
    simple && matches!(std::panic::catch_unwind(|| parser::parse(text)), Ok(Ok(_)))
}

/// The tree of an expression, but for what is in its strings and numbers.
fn shape(text: &str) -> Vec<String> {
    struct Shape(Vec<String>);
    impl ExprVisitor for Shape {
        type Error = String;
        fn pre_visit(&mut self, expression: &Expr) -> Result<bool, String> {
            let (kind, selector) = match expression {
                Expr::VectorSelector(selector) => ("selector", Some(selector)),
                Expr::MatrixSelector(range) => ("range", Some(&range.vs)),
                Expr::Call(call) => (call.func.name, None),
                Expr::Aggregate(_) => ("aggregate", None),
                Expr::Binary(_) => ("binary", None),
                _ => ("other", None),
            };
            let matchers = selector.map(|selector| {
                let all = selector.matchers.matchers.iter();
                let all: Vec<_> = all.map(|it| format!("{}{}", it.name, it.op)).collect();
                (
                    selector.name.clone(),
                    all,
                    selector.matchers.or_matchers.len(),
                )
            });
            self.0.push(format!("{kind} {matchers:?}"));
            Ok(true)
        }
    }
    let mut shape = Shape(Vec::new());
    let walked = parser::parse(text).and_then(|tree| walk_expr(&mut shape, &tree));
    assert!(walked.is_ok(), "{text}: {walked:?}");
    shape.0
}
