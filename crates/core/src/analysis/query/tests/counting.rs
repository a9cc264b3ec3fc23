use super::*;

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
fn what_cannot_be_counted_is_refused_with_the_reason() {
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
        let (found, error) = counted(Form::Selector, &errors, &total, first).unwrap_err();
        assert_eq!(found, reason, "{error}");
        assert!(
            error.starts_with("canary: the query `") && error.contains(message),
            "{error}"
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
    let (reason, error) = count(&[], &each).unwrap_err();
    assert_eq!(reason, Uncounted::SeveralSeries);
    assert!(
        error.contains("4 series") && error.contains(r#"{p="1"}, {p="2"}, {p="3"}: wrap"#),
        "{error}"
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
