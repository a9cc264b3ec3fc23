//! The status of an AnalysisTemplate.

use countersign_api::analysis::default_interval;
use countersign_api::template::{AnalysisTemplateSpec, AnalysisTemplateStatus};

use crate::acceptance::{ACCEPTED, INVALID, Subject, UNREADABLE, accepted, queries, refused};
use crate::analysis::checks;
use crate::condition::ConditionDraft;

/// No query uses one of its arguments.
const UNUSED_ARGUMENTS: &str = "UnusedArguments";

/// What the conditions of a template say: all that its status takes from its spec, which may be large.
#[derive(Clone, Debug)]
pub struct Acceptance(Vec<ConditionDraft>);

/// Whether this build can send every query of a template, with the defaults of its arguments or a value of their type.
#[must_use]
pub fn acceptance(spec: &Result<AnalysisTemplateSpec, String>) -> Acceptance {
    Acceptance(match spec {
        Ok(spec) => of(spec),
        Err(problem) => {
            let message = format!(
                "this build cannot read the template, so the changes of Rollouts that use it wait (CheckInvalid): {problem}; fix it, or upgrade the operator"
            );
            refused(UNREADABLE, &message)
        }
    })
}

/// The status of a template that this number of Rollouts use.
#[must_use]
pub fn status(
    acceptance: &Acceptance,
    used_by: usize,
    subject: Subject<'_>,
) -> AnalysisTemplateStatus {
    AnalysisTemplateStatus {
        observed_generation: subject.generation,
        used_by: i32::try_from(used_by).unwrap_or(i32::MAX),
        conditions: subject.dated(acceptance.0.clone()),
    }
}

fn of(spec: &AnalysisTemplateSpec) -> Vec<ConditionDraft> {
    let resolved = checks::resolve(&checks::sample_use(spec), spec);
    let mut problems = resolved.problems;
    let queries = queries::problems(&resolved.checks, &resolved.objectives, default_interval());
    problems.extend(queries.map(|error| error.to_string()));
    if !problems.is_empty() {
        return refused(INVALID, &problems.join("; "));
    }
    let unused = checks::unused_arguments(spec);
    if unused.is_empty() {
        return accepted(ACCEPTED, "the template is used as it is written");
    }
    let message = format!(
        "no query uses these arguments: {}; write `{{{{args.NAME}}}}` into one, or remove them from spec.args",
        unused.join(", ")
    );
    accepted(UNUSED_ARGUMENTS, &message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::acceptance::tests::{assert_invalid, summary};

    fn status_of(spec: &Result<AnalysisTemplateSpec, String>) -> AnalysisTemplateStatus {
        let subject = Subject {
            conditions: &[],
            generation: 2,
            now: "2026-11-20T17:00:00Z".parse().unwrap(),
        };
        status(&acceptance(spec), 7, subject)
    }

    /// A template with one check of this query, and these arguments.
    fn with(errors: &str, args: &Value) -> Result<AnalysisTemplateSpec, String> {
        let total = r#"x{revision="{{revision}}"}"#;
        let check = json!({ "name": "errors", "errors": errors, "total": total });
        serde_json::from_value(json!({ "args": args, "checks": [check] }))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_template_is_accepted_with_the_defaults_of_its_arguments_or_a_value_of_their_type() {
        let of_route = r#"x{revision="{{revision}}",route="{{args.route}}"}"#;
        let of_range = r#"sum(increase(x{revision="{{revision}}"}[{{window}}])) / {{args.scale}}"#;
        for (query, args, reason, words) in [
            (
                r#"x{revision="{{revision}}"}"#,
                json!([]),
                "Accepted",
                "the template is used as it is written",
            ),
            (of_route, json!([{ "name": "route" }]), "Accepted", ""),
            (
                of_route,
                json!([{ "name": "route", "default": "/pay" }]),
                "Accepted",
                "",
            ),
            (
                of_range,
                json!([{ "name": "scale", "type": "Number" }]),
                "Accepted",
                "",
            ),
            (
                of_route,
                json!([{ "name": "route" }, { "name": "code" }]),
                "UnusedArguments",
                "no query uses these arguments: code; write `{{args.NAME}}` into one",
            ),
        ] {
            let status = status_of(&with(query, &args));
            assert_eq!((status.observed_generation, status.used_by), (2, 7));
            let facts = summary(&status.conditions);
            assert_eq!(facts.len(), 1, "{facts:?}");
            let (kind, value, found, message) = facts[0];
            assert_eq!(
                (kind, value, found),
                ("Accepted", "True", reason),
                "{query}: {message}"
            );
            assert!(message.contains(words), "{query}: {message}");
        }
    }

    #[test]
    fn a_template_with_a_query_that_cannot_be_sent_names_it_and_is_stalled() {
        let number = json!([{ "name": "scale", "type": "Number", "default": "many" }]);
        for (query, args, words) in [
            ("sum(", json!([]), "field `errors` of check `errors`: "),
            (
                r#"x{route="{{args.route}}"}"#,
                json!([]),
                "check errors: `{{args.route}}` is not an argument of the template: declare it in spec.args",
            ),
            (
                r#"x{revision="{{revison}}"}"#,
                json!([]),
                "`{{revison}}` is not a placeholder",
            ),
            (
                r#"x{route="all"}"#,
                json!([]),
                "the query would measure the pods of every revision",
            ),
            (
                r#"sum(increase(x{revision="{{revision}}"}[{{window}}])) * 0"#,
                json!([]),
                "hides what they hold",
            ),
            (
                r#"x{revision="{{revision}}"}"#,
                number,
                "the value `many` of its argument `scale` is not a Number",
            ),
        ] {
            let status = status_of(&with(query, &args));
            assert_invalid(&status.conditions, words, query);
        }
    }

    #[test]
    fn an_objective_is_checked_too() {
        let objective = json!({ "name": "all", "target": 0.9, "errors": "sum(x)", "total": "x" });
        let spec = json!({ "objectives": [objective] });
        let spec = serde_json::from_value(spec).map_err(|error| error.to_string());
        let facts = status_of(&spec).conditions;
        let (_, value, reason, message) = summary(&facts)[0];
        assert_eq!((value, reason), ("False", "Invalid"));
        assert!(
            message.contains("field `errors` of check `all`: "),
            "{message}"
        );
    }

    #[test]
    fn a_template_that_cannot_be_read_names_what_waits_for_it() {
        let newer = json!([{ "name": "a", "type": "Percentage" }]);
        let status = status_of(&with("x", &newer));
        assert_eq!(status.used_by, 7, "it is used all the same");
        let facts = summary(&status.conditions);
        let (kind, value, reason, message) = facts[0];
        assert_eq!((kind, value, reason), ("Accepted", "False", "Unreadable"));
        let words =
            "the changes of Rollouts that use it wait (CheckInvalid): unknown variant `Percentage`";
        assert!(message.contains(words), "{message}");
        assert_eq!((facts[1].0, facts[1].1), ("Stalled", "True"));
    }

    #[test]
    fn a_status_stays_as_it_is_while_its_template_does() {
        let spec = with(r#"x{revision="{{revision}}"}"#, &json!([]));
        let before = status_of(&spec);
        let later = Subject {
            conditions: &before.conditions,
            generation: 2,
            now: "2026-11-21T17:00:00Z".parse().unwrap(),
        };
        assert_eq!(status(&acceptance(&spec), 7, later), before);
    }
}
