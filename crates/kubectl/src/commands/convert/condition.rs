//! Conditions on one number, such as `result[0] <= 0.05`.

/// The good numbers, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

impl Bounds {
    /// The numbers that are good by both.
    pub fn and(self, other: Self) -> Self {
        let both = |a: Option<f64>, b: Option<f64>, choose: fn(f64, f64) -> f64| match (a, b) {
            (Some(a), Some(b)) => Some(choose(a, b)),
            (a, b) => a.or(b),
        };
        Self {
            min: both(self.min, other.min, f64::max),
            max: both(self.max, other.max, f64::min),
        }
    }
}

/// The numbers that meet a `successCondition`; `None` if it is no simple comparison.
pub fn passes(condition: &str) -> Option<Bounds> {
    let alternatives = comparisons(condition);
    let [only] = alternatives.as_slice() else {
        return None;
    };
    let bounds = only.iter().map(|it| Some(comparison(it)?.bounds()));
    let bounds: Option<Vec<_>> = bounds.collect();
    bounds?.into_iter().reduce(Bounds::and)
}

/// The numbers that do not meet a `failureCondition`; `None` if it is no simple comparison.
pub fn fails_not(condition: &str) -> Option<Bounds> {
    let bounds = comparisons(condition).into_iter().map(|alternative| {
        let [only] = alternative.as_slice() else {
            return None;
        };
        Some(comparison(only)?.negated()?.bounds())
    });
    let bounds: Option<Vec<_>> = bounds.collect();
    bounds?.into_iter().reduce(Bounds::and)
}

/// The alternatives of a condition, each with its comparisons. Whether there is a number at all is not asked
/// further: no data neither passes nor fails here.
fn comparisons(condition: &str) -> Vec<Vec<String>> {
    let alternatives = parts(condition, "||", "or").into_iter();
    let alternatives = alternatives.map(|alternative| {
        let mut comparisons = parts(&alternative, "&&", "and");
        comparisons.retain(|it| !asks_for_data(it));
        comparisons
    });
    alternatives.filter(|it| !it.is_empty()).collect()
}

/// The parts between an operator or its word, without spaces and outer parentheses.
fn parts(text: &str, operator: &str, word: &str) -> Vec<String> {
    let text = text.split('\n').collect::<Vec<_>>().join(" ");
    let text = text.replace(&format!(" {word} "), operator);
    let parts = text.split(operator);
    let parts = parts.map(|part| {
        let part = part.trim();
        let inner = part.strip_prefix('(').and_then(|it| it.strip_suffix(')'));
        inner.unwrap_or(part).trim().to_owned()
    });
    parts.collect()
}

/// Whether a part only asks whether there is a number.
fn asks_for_data(part: &str) -> bool {
    const QUESTIONS: [&str; 8] = [
        "isnan(result)",
        "isnan(result[0])",
        "len(result)!=0",
        "len(result)==0",
        "len(result)>0",
        "len(result)>=1",
        "result!=nil",
        "result==nil",
    ];
    let part: String = part.split_whitespace().collect();
    let part = part.to_lowercase();
    let part = part.strip_prefix("not").unwrap_or(&part);
    QUESTIONS.contains(&part.trim_start_matches('!'))
}

#[derive(Clone, Copy)]
enum Operator {
    AtMost,
    AtLeast,
    Below,
    Above,
    Equal,
}

struct Comparison {
    operator: Operator,
    number: f64,
}

impl Comparison {
    const fn bounds(&self) -> Bounds {
        // Beside a bound that is excluded is the next number.
        let (min, max) = match self.operator {
            Operator::AtMost => (None, Some(self.number)),
            Operator::AtLeast => (Some(self.number), None),
            Operator::Below => (None, Some(self.number.next_down())),
            Operator::Above => (Some(self.number.next_up()), None),
            Operator::Equal => (Some(self.number), Some(self.number)),
        };
        Bounds { min, max }
    }

    const fn negated(self) -> Option<Self> {
        let operator = match self.operator {
            Operator::AtMost => Operator::Above,
            Operator::AtLeast => Operator::Below,
            Operator::Below => Operator::AtLeast,
            Operator::Above => Operator::AtMost,
            Operator::Equal => return None,
        };
        Some(Self {
            operator,
            number: self.number,
        })
    }
}

/// A comparison of the result with a number, on either side.
fn comparison(text: &str) -> Option<Comparison> {
    let operators = [
        ("<=", Operator::AtMost, Operator::AtLeast),
        (">=", Operator::AtLeast, Operator::AtMost),
        ("==", Operator::Equal, Operator::Equal),
        ("<", Operator::Below, Operator::Above),
        (">", Operator::Above, Operator::Below),
    ];
    let (left, right, forwards, backwards) =
        operators
            .into_iter()
            .find_map(|(sign, forwards, backwards)| {
                let (left, right) = text.split_once(sign)?;
                Some((left.trim(), right.trim(), forwards, backwards))
            })?;
    let (operator, number) = if is_result(left) {
        (forwards, right)
    } else if is_result(right) {
        (backwards, left)
    } else {
        return None;
    };
    let number: f64 = number.parse().ok()?;
    number
        .is_finite()
        .then_some(Comparison { operator, number })
}

fn is_result(text: &str) -> bool {
    let text: String = text.split_whitespace().collect();
    // The first parenthesis that closes is the last character, so nothing is computed from the result.
    let ends = text.find(')').is_some_and(|at| at + 1 == text.len());
    let with_default = ["default(result,", "default(result[0],"]
        .iter()
        .any(|start| text.starts_with(start) && ends);
    let names = [
        "result",
        "result[0]",
        "asFloat(result)",
        "asFloat(result[0])",
    ];
    with_default || names.contains(&text.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at_least(min: f64) -> Bounds {
        Bounds {
            min: Some(min),
            max: None,
        }
    }

    const fn at_most(max: f64) -> Bounds {
        Bounds {
            min: None,
            max: Some(max),
        }
    }

    #[test]
    fn simple_comparisons_are_bounds() {
        for (condition, expected) in [
            ("result[0] >= 0.95", at_least(0.95)),
            ("result <= 0.05", at_most(0.05)),
            ("0.05 >= result", at_most(0.05)),
            ("default(result, 0) <= 5", at_most(5.0)),
            ("asFloat(result[0]) >= 1", at_least(1.0)),
            ("len(result) == 0 || result[0] >= 0.95", at_least(0.95)),
            ("isNaN(result) || result >= 0.95", at_least(0.95)),
            ("len(result) > 0 && result[0] >= 0.95", at_least(0.95)),
            ("(result[0] >= 0.95)", at_least(0.95)),
        ] {
            assert_eq!(passes(condition), Some(expected), "{condition}");
        }
        let both = Bounds {
            min: Some(1.0),
            max: Some(9.0),
        };
        assert_eq!(passes("result >= 1 and result <= 9"), Some(both));
    }

    #[test]
    fn an_excluded_bound_does_not_pass() {
        let bounds = passes("result[0] < 5").unwrap();
        assert!(bounds.max.is_some_and(|max| max < 5.0 && max > 4.999_999));
        let bounds = passes("result[0] > 0").unwrap();
        assert!(bounds.min.is_some_and(|min| min > 0.0));
    }

    #[test]
    fn what_does_not_fail_passes() {
        assert_eq!(fails_not("result[0] > 10"), Some(at_most(10.0)));
        assert_eq!(fails_not("result < 0.95"), Some(at_least(0.95)));
        assert_eq!(
            fails_not("len(result) == 0 || result[0] < 0.95"),
            Some(at_least(0.95))
        );
        assert_eq!(fails_not("isInf(result)"), None);
        assert_eq!(fails_not("result == 3"), None);
        assert_eq!(fails_not("result > 1 && result < 3"), None);
    }

    #[test]
    fn what_is_no_simple_comparison_is_not_guessed() {
        for condition in [
            "",
            "true",
            "result.ok && result.successPercent >= 0.90",
            "all(result, # < 1000)",
            "max(result) < 0.05",
            "result[0] >= 0.95 || result[0] <= 0.1",
            "result[0] >= {{args.least}}",
            "result == 'true'",
            "result != 3",
            "result[1] >= 0.95",
            "len(result) < 5 && result[0] >= 0.95",
            "len(result) > 0",
            "result >= NaN",
            "default(result, 1) - default(result, 2) <= 5",
        ] {
            assert_eq!(passes(condition), None, "{condition}");
        }
    }
}
