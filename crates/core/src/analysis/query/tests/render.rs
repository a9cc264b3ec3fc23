use super::*;

#[test]
fn a_long_string_is_one_part_of_a_query() {
    let long = format!(r#"sum(rate(x{{path=~"{}"}}[1m]))"#, "(a|b)".repeat(500));
    assert_eq!(parts(&long), 16);
    assert!(parse(&long).is_ok());
}

fn total(template: &str, arm: Arm<'_>) -> Result<Query, QueryError> {
    render(&own(r#"e{r="{{revision}}"}"#, template), arm, WINDOW).map(|queries| queries.total)
}

fn problem(template: &str) -> Problem {
    let error = total(template, ARM).unwrap_err();
    assert_eq!(
        (error.check.as_str(), error.field),
        ("own", Field::Total),
        "{template}"
    );
    error.problem
}

#[test]
fn the_preset_selects_one_revision() {
    let preset = Some(Preset::HttpRequestsTotal);
    let check = Check {
        name: "http".into(),
        preset,
        ..Check::default()
    };
    let queries = render(
        &check,
        Arm {
            service: None,
            ..ARM
        },
        WINDOW,
    )
    .unwrap();
    let all = r#"http_requests_total{namespace="shop",pod_template_hash="abc12""#;
    assert_eq!(queries.total.text, format!("{all}}}"));
    assert_eq!(queries.errors.text, format!(r#"{all},code=~"[5-9].."}}"#));
    assert_eq!(
        (queries.total.form, queries.errors.form),
        (Form::Selector, Form::Selector)
    );
}

#[test]
fn every_placeholder_is_filled_in() {
    let template = r#"sum(increase(x{a="{{namespace}}", b='{{ service }}', c=`{{rollout}}`, d=~"{{	revision}}-.*"}[{{ window }}]))"#;
    let query = total(template, ARM).unwrap();
    assert_eq!(
        query.text,
        r#"sum(increase(x{a="shop", b='cart-canary', c=`cart`, d=~"abc12-.*"}[15s]))"#
    );
    assert_eq!(query.form, Form::Expression);
}

#[test]
fn an_invalid_query_is_refused_with_the_reason() {
    let table = [
        (
            r#"x{a="{{revison}}"}"#,
            "`{{revison}}` is not a placeholder",
        ),
        (r#"x{a="{{revision}}", b="{{"}"#, "not closed"),
        (r#"x{a="{{revision"}"#, "not closed"),
        (
            r"x{a={{revision}}}",
            "`{{revision}}` must stand inside a quoted string",
        ),
        (r"{{revision}}", "`label=\"{{revision}}\"`"),
        ("x # \"{{revision}}\"", "must stand inside a quoted string"),
        (
            r#"x{a="{{revision}}", b="{{window}}"}"#,
            "outside of strings",
        ),
        ("x{a=\"{{revision}}\"} # {{window}}", "outside of strings"),
        (r#"x{a="b"}"#, "pods of every revision"),
        (r#"x{a!="{{revision}}"}"#, "pods of every revision"),
        (r#"x{a!~"{{revision}}"}"#, "pods of every revision"),
        (
            r#"label_replace(increase(x[{{window}}]), "a", "{{revision}}", "", "")"#,
            "pods of every revision",
        ),
        (
            r#"x{a="{{revision}}""#,
            "not PromQL: unexpected end of input inside braces",
        ),
        (r#"x{a=="{{revision}}"}"#, "not PromQL"),
        ("", "not PromQL: no expression found"),
        (
            r#"x{a="{{revision}}"} offset 1e300"#,
            "not PromQL: a number in it is out of range",
        ),
        (r#"sum(x{a="{{revision}}"})"#, "neither a bare selector"),
        (r#"(x{a="{{revision}}"})"#, "neither a bare selector"),
        (
            r#"x{a="{{revision}}"} offset 5m"#,
            "neither a bare selector",
        ),
        (r#"x{a="{{revision}}"} @ 5"#, "neither a bare selector"),
        (r#"x{a="{{revision}}" or b="c"}"#, "neither a bare selector"),
        (
            r#"increase(x{a="{{revision}}"}[1m])"#,
            "an expression that holds `{{window}}`",
        ),
        (
            r#"x{a="{{revision}}"}[{{window}}]"#,
            "neither a bare selector",
        ),
        (
            r#"x{a="{{revision}}"} offset {{window}}"#,
            "neither a bare selector",
        ),
        (r#""{{revision}}" {{window}}"#, "not PromQL"),
    ];
    for (template, message) in table {
        let problem = problem(template).to_string();
        assert!(problem.contains(message), "{template}: {problem}");
    }
    assert_eq!(problem(&"x".repeat(4097)), Problem::TooLong);
}

#[test]
fn the_error_names_check_and_field() {
    let error = render(&own("(", "x"), ARM, WINDOW).unwrap_err();
    assert_eq!(
        error.to_string(),
        "field `errors` of check `own`: the query is not PromQL: unclosed left parenthesis"
    );
    let lone = Check {
        total: None,
        ..own("x", "x")
    };
    assert_eq!(render(&lone, ARM, WINDOW).unwrap_err().field, Field::Total);
    let both = Check {
        preset: Some(Preset::HttpRequestsTotal),
        ..own("x", "x")
    };
    assert_eq!(
        render(&both, ARM, WINDOW).unwrap_err().problem,
        Problem::Incomplete
    );
    let neither = render(&Check::default(), ARM, WINDOW).unwrap_err();
    assert_eq!(neither.problem, Problem::Incomplete);
}

#[test]
fn a_placeholder_without_a_value_is_no_query_that_matches_nothing() {
    for service in [None, Some("")] {
        let arm = Arm { service, ..ARM };
        let error = total(r#"x{s="{{service}}",r="{{revision}}"}"#, arm).unwrap_err();
        assert_eq!(error.problem, Problem::Unresolved("service"));
        assert!(total(r#"x{r="{{revision}}"}"#, arm).is_ok());
    }
}

#[test]
fn a_deep_query_is_refused_before_it_takes_stack_and_time() {
    let selector = r#"x{a="{{revision}}"}"#;
    for (open, close) in [("(", ")"), ("sum(", ")"), ("-", ""), ("1+", ""), ("1^", "")] {
        let depth = (LONGEST_QUERY - selector.len()) / (open.len() + close.len());
        let query = format!("{}{selector}{}", open.repeat(depth), close.repeat(depth));
        assert_eq!(problem(&query), Problem::TooComplex);
    }
}

/// The tree of an expression, but for the values of its matchers.
fn shape(text: &str) -> Vec<String> {
    struct Shape(Vec<String>);
    impl ExprVisitor for Shape {
        type Error = ();
        fn pre_visit(&mut self, expression: &Expr) -> Result<bool, ()> {
            let (kind, selector) = match expression {
                Expr::VectorSelector(vs) => ("selector", Some(vs)),
                Expr::MatrixSelector(ms) => ("range", Some(&ms.vs)),
                Expr::Call(call) => (call.func.name, None),
                Expr::Aggregate(_) => ("aggregate", None),
                Expr::Binary(_) => ("binary", None),
                _ => ("other", None),
            };
            let matchers = selector.map(|vs| {
                let each = vs
                    .matchers
                    .matchers
                    .iter()
                    .map(|m| format!("{}{}", m.name, m.op));
                (
                    vs.name.clone(),
                    each.collect::<Vec<_>>(),
                    vs.matchers.or_matchers.len(),
                )
            });
            self.0.push(format!("{kind} {matchers:?}"));
            Ok(true)
        }
    }
    let mut shape = Shape(vec![]);
    walk_expr(&mut shape, &promql_parser::parser::parse(text).unwrap()).unwrap();
    shape.0
}

const TEMPLATES: [&str; 3] = [
    r#"x{r="{{revision}}",s="{{service}}"}"#,
    r#"x{r='{{revision}}',s=~"{{service}}-.*",t!~'a{{service}}'} # by "name""#,
    r##"sum by (a) (increase(x{r=~"{{revision}}",a="\"#{",s='{{service}}'}[{{window}}])) or vector(0)"##,
];

fn hostile(value: &str) {
    let arm = Arm {
        service: Some(value),
        ..ARM
    };
    for template in TEMPLATES {
        let text = total(template, arm).unwrap().text;
        assert_eq!(
            shape(&text),
            shape(&total(template, ARM).unwrap().text),
            "{text}"
        );
        let Ok(Expr::VectorSelector(selector)) = promql_parser::parser::parse(&text) else {
            continue;
        };
        let found = |name: &str| {
            selector
                .matchers
                .matchers
                .iter()
                .find(|m| m.name == name)
                .cloned()
                .unwrap()
        };
        if found("s").op.to_string() == "=" {
            assert_eq!(found("s").value, value);
        } else {
            assert!(found("s").is_match(&format!("{value}-1")), "{text}");
            assert!(!found("t").is_match(&format!("a{value}")), "{text}");
        }
    }
}

#[test]
fn a_hostile_value_stays_a_value() {
    let long = "x\"\\}{".repeat(2_000);
    let values = [
        r#""} or vector(1) or x{a=""#,
        r#"\"} or vector(1) or x{a=""#,
        "'} or vector(1) or x{a='",
        "line\nbreak",
        "a\\",
        "\\n",
        ".*",
        "a|b",
        "(",
        "[{{namespace}}]",
        "# no comment",
        "日本語 – ß 🦀",
        "`",
        long.as_str(),
    ];
    values.into_iter().for_each(hostile);
    assert!(values.iter().any(|value| value.len() >= 10_000));
}

#[test]
fn a_value_that_no_string_holds_safely_is_refused() {
    for value in ["\0", "a\u{1b}[2J", "\r", "a\u{7f}", "\u{85}"] {
        let error = total(
            TEMPLATES[0],
            Arm {
                service: Some(value),
                ..ARM
            },
        )
        .unwrap_err();
        assert_eq!(error.problem, Problem::UnsafeValue("service"));
    }
    let raw = "x{r=`{{revision}}`,s=~`{{service}}`}";
    let arm = |service| Arm {
        service: Some(service),
        ..ARM
    };
    assert_eq!(
        total(raw, arm("ab\"'")).unwrap().text,
        "x{r=`abc12`,s=~`ab\"'`}"
    );
    for value in ["a`b", "a.b", "a\\"] {
        let error = total(raw, arm(value)).unwrap_err();
        assert_eq!(error.problem, Problem::UnsafeValue("service"));
    }
}

/// A counter of the revision.
const COUNTED: &str = r#"sum(increase(x{r="{{revision}}"}[{{window}}]))"#;

/// A query in which `Q` and `R` are counters of the revision, and `L` one with labels.
fn filled(query: &str) -> String {
    let other = r#"sum(increase(y{r="{{revision}}"}[{{window}}]))"#;
    let labelled = r#"increase(x{r="{{revision}}"}[{{window}}])"#;
    let query = query.replace('L', labelled).replace('Q', COUNTED);
    query.replace('R', other)
}

/// Finding F13: a thousand clean requests in every window, with or without a canary; or no error, whatever it does.
#[test]
fn a_query_that_counts_what_no_series_holds_is_refused() {
    for invented in [
        "Q or vector(1000)",
        "vector(1000) or Q",
        "vector(0) or Q",
        "Q + 1000",
        "Q - -1000",
        "1000 - Q",
        "sum(Q or (vector(5)))",
        "round((Q + vector(1)) / 2, 1)",
        "round(Q, 1e9)",
        "-(-Q or vector(time()))",
        "Q + time()",
        "Q ^ 0 * 1000",
        "1000 ^ Q",
        "Q % 2",
        "1000 / Q",
        "Q / Q * 1000",
        "Q * 0",
        "0 * Q",
        "Q * vector(0)",
        "Q * -1",
        "Q * 1e-9",
        "Q * 1000 * 1000",
        "Q / Inf",
        "Q / 0",
        "Q - Q",
        "Q - (Q)",
        "Q - Q * 1",
        "Q - (1 * (Q))",
        "Q / (Q * 60)",
        "min(L or vector(0))",
        "avg(abs(L) or vector(0))",
        "count((L or vector(0)) * 2)",
        "-max(-L or vector(0))",
        "min(sum by (pod) (L or vector(0)))",
        "sum((L or vector(0)) unless on(r) L)",
        "Q unless Q",
        "Q unless vector(1)",
        "Q and vector(1)",
        "Q > Q",
        "Q > 1e300",
        "Q < 1",
        "Q == 0",
        "Q > bool 0",
        "Q == bool Q",
        "Q + fill(1000) R",
        "clamp_min(Q, 1000)",
        "clamp_max(Q, 0)",
        "clamp_max(Q, 1e6)",
        "clamp(Q, 1000, 2000)",
        "absent(Q) * 1000",
        "sgn(Q) * 1000",
        "group(Q) * 1000",
        "timestamp(Q)",
        "topk(0, Q)",
        "quantile(0.5, Q)",
        "sum(Q + sum(increase(x[{{window}}] @ 0)))",
        "sum(max_over_time(x[{{window}}:1s] @ 0)) + Q",
    ] {
        let query = filled(invented);
        for (errors, total, field) in [
            (&*query, COUNTED, Field::Errors),
            (COUNTED, &*query, Field::Total),
        ] {
            let error = render(&own(errors, total), ARM, WINDOW).unwrap_err();
            assert_eq!(
                (error.field, error.problem),
                (field, Problem::Fixed),
                "{invented}"
            );
        }
    }
}

#[test]
fn a_query_of_what_series_hold_is_taken() {
    for sound in [
        "Q or (vector(0))",
        "sum(L or vector(0))",
        "max(L) or vector(0)",
        "min(Q or vector(0))",
        "Q * 2",
        "60 * Q",
        "Q * (10 * 60)",
        "Q / 1000",
        "Q > 0",
        "Q != 0",
        "Q + Q",
        "Q - R",
        "Q / R * R",
        "Q or Q",
        "Q unless R",
        "Q and on() R",
        "Q >= R",
        "round(Q)",
        "round(Q, 1)",
        "clamp_min(Q - R, 0)",
        "clamp_max(R, scalar(Q))",
        "Q + fill(0) R",
        r#"label_replace(Q, "a", "b", "c", ".*")"#,
        r#"sum(count_over_time(x{r="{{revision}}"}[{{window}}])) - sum(sum_over_time(x{r="{{revision}}"}[{{window}}]))"#,
        r#"histogram_fraction(0.5, Inf, R) * histogram_count(sum(rate(x{r="{{revision}}"}[{{window}}]))) * 15"#,
        r#"sum(increase(x{r="{{revision}}"}[{{window}}]) * on(pod) group_left() y)"#,
        r#"sum(rate(x{r="{{revision}}"}[{{window}}] offset 30s)) * 15"#,
    ] {
        let query = filled(sound);
        render(&own(&query, COUNTED), ARM, WINDOW).unwrap();
        render(&own(COUNTED, &query), ARM, WINDOW).unwrap();
    }
}

#[test]
fn a_selector_with_a_comment_still_selects_its_samples() {
    let query = total("x{r=\"{{revision}}\"} # all of them", ARM).unwrap();
    let minutes = Duration::minutes(5);
    assert!(matches!(
        promql_parser::parser::parse(&query.samples(minutes)),
        Ok(Expr::MatrixSelector(_))
    ));
    assert!(matches!(
        promql_parser::parser::parse(&query.last_values(minutes)),
        Ok(Expr::Call(_))
    ));
}

proptest! {
    #[test]
    fn no_value_changes_the_shape_of_a_query(value in "[^\\p{Cc}]{1,40}|[\"'\\\\{}()\\[\\]#`,=~!.\n ]{1,20}") {
        hostile(&value);
    }

    #[test]
    fn any_query_is_answered_without_a_panic(query in "[xa(){}\\[\\]\"'`=~!#@:{}{}0-9smeE +-]{0,60}|\\PC{0,40}") {
        let _ = total(&query, ARM);
        let _ = total(&format!("x{{r=\"{{{{revision}}}}\"}}{query}"), ARM);
    }
}
