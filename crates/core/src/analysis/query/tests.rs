use countersign_api::evidence::Counts;
use countersign_api::{Check, Duration, Preset};
use promql_parser::parser::Expr;
use promql_parser::util::visitor::{ExprVisitor, walk_expr};
use proptest::prelude::*;

use crate::analysis::count::{ArmAnswer, NotCounted, count};
use crate::analysis::query::form::{Arm, Field, Form, Query};
use crate::analysis::query::placeholder::{parse, parts};
use crate::analysis::query::problem::{LONGEST_QUERY, Problem, QueryError};
use crate::analysis::query::{Counting, render};
use crate::analysis::series::{FirstIncrement, Series, Span, increase};
use crate::observation::windows::Uncounted;
use crate::text::shown;

#[test]
fn a_long_string_is_one_part_of_a_query() {
    let long = format!(r#"sum(rate(x{{path=~"{}"}}[1m]))"#, "(a|b)".repeat(500));
    assert_eq!(parts(&long), 16);
    assert!(parse(&long).is_ok());
}

const WINDOW: Duration = Duration::seconds(15);
const ARM: Arm<'_> = Arm {
    namespace: "shop",
    service: Some("cart-canary"),
    rollout: "cart",
    revision: "abc12",
};

fn own(errors: &str, total: &str) -> Check {
    Check {
        name: "own".into(),
        errors: Some(errors.into()),
        total: Some(total.into()),
        ..Check::default()
    }
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
fn a_query_that_cannot_be_asked_is_refused_by_name() {
    let table = [
        (r#"x{a="{{revison}}"}"#, "`{{revison}}` is no placeholder"),
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

#[test]
fn a_selector_with_a_comment_still_asks_for_its_samples() {
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

fn series(labels: &str, samples: &[(f64, f64)]) -> Series {
    let labels = labels.split(',').filter_map(|pair| pair.split_once('='));
    let labels = labels
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Series {
        labels,
        samples: samples.to_vec(),
    }
}

fn every_15s(from: i32, values: &[f64]) -> Vec<(f64, f64)> {
    (0..)
        .map(|step| f64::from(from + 15 * step))
        .zip(values.iter().copied())
        .collect()
}

const SPAN: Span = Span {
    start: 100.0,
    end: 115.0,
};

fn query(field: Field, form: Form) -> Query {
    Query {
        field,
        form,
        text: format!("{field}_total{{r=\"abc12\"}}"),
    }
}

fn counted(
    form: Form,
    errors: &[Series],
    total: &[Series],
    first_increment: FirstIncrement,
) -> Result<Counts, NotCounted> {
    let queries = (query(Field::Errors, form), query(Field::Total, form));
    let answer = |query, series| ArmAnswer {
        arm: "canary",
        query,
        series,
        first_increment,
    };
    count(
        answer(&queries.0, errors),
        answer(&queries.1, total),
        Counting::Failed,
        SPAN,
    )
}

#[test]
fn a_window_counts_what_the_counters_grew_by() {
    use FirstIncrement::{FromFirstSample, FromZero};
    let pod = "instance=1,code=200";
    let steady = series(pod, &[(99.0, 40.0), (114.0, 90.0), (116.0, 999.0)]);
    let failing = series("instance=1,code=500", &[(114.0, 1.0)]);
    let other_pod = series("instance=2,code=500", &[(114.0, 7.0)]);
    let restarted = series(
        pod,
        &[(99.0, 40.0), (104.0, 45.0), (109.0, 3.0), (114.0, 4.0)],
    );
    let at_the_edges = series(
        pod,
        &[(85.0, 1.0), (100.0, 2.0), (115.0, 4.0), (130.0, 8.0)],
    );
    let check = |name: &str, errors: &[&Series], total: &[&Series], first, expected| {
        let own = |series: &[&Series]| series.iter().copied().cloned().collect::<Vec<_>>();
        let counts = counted(Form::Selector, &own(errors), &own(total), first).unwrap();
        assert_eq!((counts.requests, counts.errors), expected, "{name}");
    };
    check(
        "no error series",
        &[],
        &[&steady],
        FromFirstSample,
        (50.0, 0.0),
    );
    let all = [&steady, &failing];
    check(
        "the first error of a known pod",
        &[&failing],
        &all,
        FromFirstSample,
        (51.0, 1.0),
    );
    let all = [&steady, &other_pod];
    check(
        "a pod that may be old",
        &[&other_pod],
        &all,
        FromFirstSample,
        (50.0, 0.0),
    );
    let all = [&failing];
    check(
        "one error in a new pod's first scrape",
        &all,
        &all,
        FromZero,
        (1.0, 1.0),
    );
    check("a restart", &[], &[&restarted], FromFirstSample, (9.0, 0.0));
    check("edges", &[], &[&at_the_edges], FromFirstSample, (2.0, 0.0));
    let idle = series(pod, &[(99.0, 40.0), (114.0, 40.0)]);
    let ended = series(pod, &[(1.0, 5.0)]);
    check(
        "idle, and an ended error series",
        &[&ended],
        &[&idle],
        FromFirstSample,
        (0.0, 0.0),
    );
    let two_intervals_old = series(pod, &[(85.0, 40.0)]);
    check(
        "no news yet",
        &[],
        &[&two_intervals_old],
        FromFirstSample,
        (0.0, 0.0),
    );
    let [more, fewer] = [11.0, 10.0].map(|by| series(pod, &[(99.0, 0.0), (114.0, by)]));
    check(
        "skewed scrapes",
        &[&more],
        &[&fewer],
        FromFirstSample,
        (10.0, 10.0),
    );
}

#[test]
fn what_cannot_be_counted_says_why() {
    let grown = |by: f64| vec![series("instance=1", &[(99.0, 0.0), (114.0, by)])];
    let none = vec![];
    let table = [
        (
            none.clone(),
            none.clone(),
            Uncounted::NoSeries,
            "query `total` (total_total{r=\"abc12\"}) matched no series",
        ),
        (
            none.clone(),
            vec![series("a=b", &[(120.0, 1.0)])],
            Uncounted::NoSeries,
            "canary",
        ),
        (
            none.clone(),
            vec![series("a=b", &[(84.0, 1.0)])],
            Uncounted::StaleSamples,
            "no sample younger than 31 s",
        ),
        (
            vec![series("instance=2", &[(84.0, 1.0)])],
            grown(5.0),
            Uncounted::StaleSamples,
            "query `errors`",
        ),
        (
            none.clone(),
            grown(f64::NAN),
            Uncounted::NotANumber,
            "gave the value NaN",
        ),
        (
            none.clone(),
            grown(f64::INFINITY),
            Uncounted::NotANumber,
            "gave the value inf",
        ),
        (
            grown(f64::NEG_INFINITY),
            grown(1.0),
            Uncounted::NotANumber,
            "query `errors`",
        ),
        (
            none.clone(),
            grown(1.7e308),
            Uncounted::NotANumber,
            "gave the value 17000",
        ),
        (
            none.clone(),
            vec![series("", &[(99.0, f64::NAN), (114.0, 1.0)])],
            Uncounted::NotANumber,
            "NaN",
        ),
        (
            none.clone(),
            grown(-3.0),
            Uncounted::Negative,
            "gave the value -3",
        ),
        (
            grown(12.0),
            grown(10.0),
            Uncounted::ErrorsExceedRequests,
            "counted 12 errors of 10 requests",
        ),
    ];
    for (errors, total, reason, message) in table {
        let first = FirstIncrement::FromFirstSample;
        let (found, says) = counted(Form::Selector, &errors, &total, first).unwrap_err();
        assert_eq!(found, reason, "{says}");
        assert!(
            says.starts_with("canary: the query `") && says.contains(message),
            "{says}"
        );
    }
}

#[test]
fn an_expression_is_one_number_at_the_end_of_the_window() {
    let at_end = |labels, value| series(labels, &[(100.0, 77.0), (115.0, value), (130.0, 88.0)]);
    let count = |errors: &[Series], total: &[Series]| {
        counted(
            Form::Expression,
            errors,
            total,
            FirstIncrement::FromFirstSample,
        )
    };
    let counts = count(&[at_end("", 2.5)], &[at_end("", 10.0)]).unwrap();
    assert_eq!(
        counts,
        Counts {
            requests: 10.0,
            errors: 2.5
        }
    );
    let counts = count(&[], &[at_end("", 10.0)]).unwrap();
    assert_eq!(
        counts,
        Counts {
            requests: 10.0,
            errors: 0.0
        }
    );
    let earlier = [series("", &[(100.0, 4.0)])];
    assert_eq!(count(&[], &earlier).unwrap_err().0, Uncounted::NoSeries);
    assert_eq!(
        count(&[], &[at_end("", f64::NAN)]).unwrap_err().0,
        Uncounted::NotANumber
    );
    assert_eq!(
        count(&[], &[at_end("", -1.0)]).unwrap_err().0,
        Uncounted::Negative
    );
    let each = ["p=1", "p=2", "p=3", "p=4"].map(|labels| at_end(labels, 1.0));
    let (reason, says) = count(&[], &each).unwrap_err();
    assert_eq!(reason, Uncounted::SeveralSeries);
    assert!(
        says.contains("4 series") && says.contains(r#"{p="1"}, {p="2"}, {p="3"}: wrap"#),
        "{says}"
    );
    let of_another_time = [at_end("p=1", 3.0), series("p=2", &[(100.0, 4.0)])];
    let counts = count(&[], &of_another_time).unwrap();
    assert_eq!(
        counts,
        Counts {
            requests: 3.0,
            errors: 0.0
        }
    );
}

#[test]
fn messages_hold_nothing_that_moves_a_terminal() {
    assert_eq!(
        shown("a\u{1b}[2J\nb\u{202e}c", 20),
        "a\\u{1b}[2J b\\u{202e}c"
    );
    assert_eq!(shown("ééééé", 3), "ééé…");
    assert_eq!(shown("ééé", 3), "ééé");
}

#[test]
fn counters_with_a_known_past_lose_nothing() {
    let old = series("", &every_15s(0, &[5.0, 6.0, 6.0, 9.0, 2.0, 4.0]));
    let span = Span {
        start: 0.0,
        end: 75.0,
    };
    let all = increase(&[old], &[], span, FirstIncrement::FromFirstSample);
    assert_eq!(all, Ok(1.0 + 3.0 + 2.0 + 2.0));
}

fn counter() -> impl Strategy<Value = Series> {
    // Each scrape: seconds after the last, requests since, whether the process restarted.
    let scrape = (
        prop_oneof![8 => 14_000..16_000u32, 1 => 20_000..200_000u32],
        0..50u32,
        0..20u8,
    );
    (
        0..400_000u32,
        0..1_000u32,
        prop::collection::vec(scrape, 0..60),
        0..3u8,
    )
        .prop_map(|(from, value, scrapes, instance)| {
            let (mut at, mut value, mut samples) = (from, value, vec![]);
            for (later, more, restart) in scrapes {
                at += later;
                value = if restart == 0 { more } else { value + more };
                samples.push((f64::from(at) / 1000.0, f64::from(value)));
            }
            series(&format!("instance={instance}"), &[]).with(samples)
        })
}

impl Series {
    fn with(self, samples: Vec<(f64, f64)>) -> Self {
        Self { samples, ..self }
    }
}

proptest! {
    #[test]
    fn disjoint_windows_tile(
        series in prop::collection::vec(counter(), 0..6),
        others in prop::collection::vec(counter(), 0..3),
        start in 0..300_000u32,
        interval in 1_000..60_000u32,
        zero: bool,
    ) {
        let first = if zero { FirstIncrement::FromZero } else { FirstIncrement::FromFirstSample };
        let edge = |k: u32| f64::from(start + k * interval) / 1000.0;
        let each = (0..40).map(|k| increase(&series, &others, Span { start: edge(k), end: edge(k + 1) }, first));
        let sum: f64 = each.map(Result::unwrap).sum();
        let whole = increase(&series, &others, Span { start: edge(0), end: edge(40) }, first);
        prop_assert_eq!(Ok(sum), whole);
    }

    #[test]
    fn a_shorter_look_back_counts_the_same(series in counter(), back in 1..5usize) {
        // What one query answers and the next one forgets is counted once.
        let at = series.samples.get(10).map_or(0.0, |(at, _)| *at);
        let span = Span { start: at, end: at + 60.0 };
        let forgets = series.until(at).saturating_sub(back);
        let later = series.clone().with(series.samples.get(forgets..).unwrap_or_default().to_vec());
        let first = FirstIncrement::FromZero;
        prop_assume!(series.until(at) > 0);
        prop_assert_eq!(increase(&[later], &[], span, first), increase(&[series], &[], span, first));
    }
}
