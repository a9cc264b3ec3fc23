//! The checks and objectives of a change: its own, its templates' and the policies'.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::analysis::{ArgumentValue, CheckMode, TemplateUse, default_interval};
use countersign_api::objective::Objective;
use countersign_api::rollout::{Change, Plan};
use countersign_api::template::{AnalysisTemplateSpec, Argument, ArgumentType};
use countersign_api::{Analysis, Check, Duration, Preset};

use crate::analysis::query;
use crate::analysis::query::form::Arm;
use crate::analysis::query::placeholder::{self, Value};
use crate::analysis::query::problem::Problem;
use crate::observation::Observation;
use crate::policy::Effective;
use crate::text;

/// The checks that a change must pass: its own, those of its templates as `template:check`, and those
/// of the policies as `policy/check`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checks {
    /// Each check under its unique name.
    pub checks: BTreeMap<String, Check>,
    /// Each objective under its unique name.
    pub objectives: BTreeMap<String, Objective>,
    /// Length of one window: the shortest configured.
    pub interval: Duration,
    /// Warm-up time of new pods: the longest configured.
    pub warm_up: Duration,
    /// Time to watch after a promotion: the longest configured.
    pub post_promotion: Duration,
    /// Problems of templates and their arguments, each in a sentence that names the check.
    pub problems: Vec<String>,
}

/// The checks in force for an observation.
#[must_use]
pub fn checks(observation: &Observation, effective: &Effective) -> Checks {
    let own = observation.spec.strategy.canary.analysis.as_ref();
    collected(own, &observation.analysis.templates, effective)
}

/// The checks of a Rollout's analysis, of its templates as they were read, and of the policies.
#[must_use]
pub fn collected(
    own: Option<&Analysis>,
    templates: &BTreeMap<String, Result<AnalysisTemplateSpec, String>>,
    effective: &Effective,
) -> Checks {
    let interval = own
        .map(|analysis| analysis.interval)
        .into_iter()
        .chain(effective.interval)
        .min();
    let longest =
        |own: Option<Duration>, effective: Duration| own.unwrap_or_default().max(effective);
    let mut checks = Checks {
        interval: interval.unwrap_or_else(default_interval),
        warm_up: warm_up(own.and_then(|it| it.warm_up), effective),
        post_promotion: longest(
            own.and_then(|it| it.post_promotion),
            effective.post_promotion,
        ),
        ..Checks::default()
    };
    if let Some(analysis) = own {
        let named = analysis.checks.iter();
        checks
            .checks
            .extend(named.map(|check| (check.name.clone(), check.clone())));
        let named = analysis.objectives.iter();
        checks
            .objectives
            .extend(named.map(|it| (it.name.clone(), it.clone())));
        for used in &analysis.templates {
            checks.add_template(used, templates.get(&used.name));
        }
    }
    checks.checks.extend(effective.checks.iter().cloned());
    checks
        .objectives
        .extend(effective.objectives.iter().cloned());
    checks
}

impl Checks {
    fn add_template(
        &mut self,
        used: &TemplateUse,
        template: Option<&Result<AnalysisTemplateSpec, String>>,
    ) {
        let name = &used.name;
        let template = match template {
            Some(Ok(template)) => template,
            Some(Err(problem)) => return self.problems.push(problem.clone()),
            None => {
                let problem = format!("AnalysisTemplate {name} was not read yet");
                return self.problems.push(problem);
            }
        };
        let resolved = resolve(used, template);
        let checks = resolved.checks.into_iter();
        self.checks
            .extend(checks.map(|check| (format!("{name}:{}", check.name), check)));
        let objectives = resolved.objectives.into_iter();
        self.objectives
            .extend(objectives.map(|it| (format!("{name}:{}", it.name), it)));
        let problems = resolved.problems.into_iter();
        self.problems
            .extend(problems.map(|problem| format!("AnalysisTemplate {name}: {problem}")));
    }

    /// Whether requests are counted by a check that neither the pods nor their team control: a policy's own, or
    /// one with the preset of a router.
    #[must_use]
    pub fn are_independent(&self, effective: &Effective) -> bool {
        let counts = |check: &Check| check.mode == CheckMode::Required && check.metric.is_none();
        let of_policy = |name: &String| effective.checks.iter().any(|(it, _)| it == name);
        self.checks.iter().any(|(name, check)| {
            let beside = check.preset.is_some_and(Preset::is_beside_pods);
            counts(check) && check.weights.is_none() && (beside || of_policy(name))
        })
    }

    /// The first problem that keeps a check from being queried: of a template, or a query that Prometheus
    /// would reject.
    #[must_use]
    pub fn problem(&self, observation: &Observation) -> Option<String> {
        let of_template = self.problems.first().cloned();
        of_template.or_else(|| self.query_problem(observation))
    }

    fn query_problem(&self, observation: &Observation) -> Option<String> {
        let strategy = &observation.spec.strategy.canary;
        let arm = |service| Arm {
            namespace: &observation.namespace,
            service,
            rollout: &observation.name,
            revision: "revision",
        };
        let services = [&strategy.canary_service, &strategy.stable_service];
        let mut required = self
            .checks
            .iter()
            .filter(|(_, check)| check.mode == CheckMode::Required);
        let of_check = required.find_map(|(name, check)| {
            let named = Check {
                name: name.clone(),
                ..check.clone()
            };
            let mut verified = services
                .iter()
                .map(|service| query::verify(&named, arm(service.as_deref()), self.interval));
            verified.find_map(Result::err)
        });
        let mut objectives = self.objectives.iter();
        let problem = of_check.or_else(|| {
            objectives.find_map(|(name, objective)| {
                query::render_objective(name, objective, arm(None)).err()
            })
        });
        problem.map(|problem| problem.to_string())
    }
}

/// A template with its arguments filled into its queries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// Its checks.
    pub checks: Vec<Check>,
    /// Its objectives.
    pub objectives: Vec<Objective>,
    /// Problems of its arguments, each in a sentence.
    pub problems: Vec<String>,
}

/// Fills its arguments into the queries of a template.
#[must_use]
pub fn resolve(used: &TemplateUse, template: &AnalysisTemplateSpec) -> Resolved {
    let mut resolved = Resolved::default();
    let args = match values(used, template) {
        Ok(args) => args,
        Err(problem) => {
            resolved.problems.push(problem.to_string());
            return resolved;
        }
    };
    for check in &template.checks {
        match with_args(check, &args) {
            Ok(check) => resolved.checks.push(check),
            Err(problem) => {
                let problem = format!("check {}: {problem}", check.name);
                resolved.problems.push(problem);
            }
        }
    }
    for objective in &template.objectives {
        match objective_with_args(objective, &args) {
            Ok(objective) => resolved.objectives.push(objective),
            Err(problem) => {
                let problem = format!("objective {}: {problem}", objective.name);
                resolved.problems.push(problem);
            }
        }
    }
    resolved
}

/// A use of a template by which it can be checked without a Rollout: an argument without a default has a value of its
/// type.
#[must_use]
pub fn sample_use(template: &AnalysisTemplateSpec) -> TemplateUse {
    let needed = template.args.iter().filter(|it| it.default.is_none());
    let sample = |argument: &Argument| ArgumentValue {
        name: argument.name.clone(),
        value: match argument.kind {
            ArgumentType::String => "value".into(),
            ArgumentType::Number => "1".into(),
            ArgumentType::Duration => "1m".into(),
        },
    };
    TemplateUse {
        args: needed.map(sample).collect(),
        ..TemplateUse::default()
    }
}

/// The names of the arguments of a template that no query uses.
#[must_use]
pub fn unused_arguments(template: &AnalysisTemplateSpec) -> Vec<&str> {
    let checks = template.checks.iter().flat_map(|check| {
        let buckets = check.latency.as_ref().and_then(|it| it.buckets.as_ref());
        let metric = check.metric.as_ref().map(|it| &it.query);
        [check.errors.as_ref(), check.total.as_ref(), buckets, metric]
    });
    let objectives = template.objectives.iter();
    let objectives = objectives.flat_map(|it| [Some(&it.errors), Some(&it.total)]);
    let queries = checks.chain(objectives).flatten();
    let used: BTreeSet<_> = queries.flat_map(|it| placeholder::arguments(it)).collect();
    let names = template.args.iter().map(|it| it.name.as_str());
    names.filter(|name| !used.contains(*name)).collect()
}

/// The value of each argument of a template.
fn values(
    used: &TemplateUse,
    template: &AnalysisTemplateSpec,
) -> Result<BTreeMap<String, Value>, ArgumentProblem> {
    let declared = |name: &String| template.args.iter().any(|it| it.name == *name);
    if let Some(unknown) = used.args.iter().find(|given| !declared(&given.name)) {
        return Err(ArgumentProblem::Unknown(text::sanitize_to(
            &unknown.name,
            63,
        )));
    }
    let value = |argument: &Argument| {
        let given = used.args.iter().find(|it| it.name == argument.name);
        let text = given.map(|it| &it.value).or(argument.default.as_ref());
        let text = text.ok_or_else(|| ArgumentProblem::Missing(argument.name.clone()))?;
        let value = Value::read(argument, text).ok_or_else(|| ArgumentProblem::Mistyped {
            name: argument.name.clone(),
            value: text::sanitize_to(text, 40),
            kind: format!("{:?}", argument.kind),
        })?;
        Ok((argument.name.clone(), value))
    };
    template.args.iter().map(value).collect()
}

/// A problem of an argument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum ArgumentProblem {
    #[error("it has no argument `{0}`: remove it from analysis.templates")]
    Unknown(String),
    #[error("its argument `{0}` has no value: give one in analysis.templates")]
    Missing(String),
    #[error("the value `{value}` of its argument `{name}` is not a {kind}")]
    Mistyped {
        name: String,
        value: String,
        kind: String,
    },
}

fn with_args(check: &Check, args: &BTreeMap<String, Value>) -> Result<Check, Problem> {
    let mut check = check.clone();
    let buckets = check.latency.as_mut().and_then(|it| it.buckets.as_mut());
    let metric = check.metric.as_mut().map(|it| &mut it.query);
    let queries = [check.errors.as_mut(), check.total.as_mut(), buckets, metric];
    for query in queries.into_iter().flatten() {
        *query = placeholder::with_args(query, args)?;
    }
    Ok(check)
}

fn objective_with_args(
    objective: &Objective,
    args: &BTreeMap<String, Value>,
) -> Result<Objective, Problem> {
    Ok(Objective {
        errors: placeholder::with_args(&objective.errors, args)?,
        total: placeholder::with_args(&objective.total, args)?,
        ..objective.clone()
    })
}

/// The longest of both; but a service team cannot suspend the latencies and metrics of a policy.
fn warm_up(own: Option<Duration>, effective: &Effective) -> Duration {
    let suspends = |check: &Check| check.latency.is_some() || check.metric.is_some();
    let binding = effective.checks.iter().any(|(_, check)| suspends(check));
    let own = own.filter(|_| !binding).unwrap_or_default();
    own.max(effective.warm_up)
}

/// Whether a check runs in a step of this weight. If a plan has no step in its range, the check runs in the
/// next step above, or in the last, so that no choice of steps evades it.
#[must_use]
pub fn is_active(check: &Check, plan: &Plan, weight: i32) -> bool {
    let Some(weights) = check.weights else {
        return true;
    };
    let range = weights.from..=weights.to;
    let steps = || plan.steps.iter().map(|step| step.weight);
    if range.contains(&weight) {
        return true;
    }
    let missed = !steps().any(|step| range.contains(&step));
    let instead = steps()
        .find(|step| *step >= weights.from)
        .or_else(|| steps().next_back());
    missed && instead == Some(weight)
}

/// The checks of a change that run at its present weight.
pub fn active(change: &Change) -> impl Iterator<Item = (&String, &Check)> {
    let runs = |check: &Check| is_active(check, &change.plan, change.weight);
    change.checks.iter().filter(move |(_, check)| runs(check))
}

/// The checks of a change under way: a check that has counted keeps its definition, and new ones are added.
/// So a check cannot be replaced while it gathers evidence.
#[must_use]
pub fn in_force(change: &Change, current: &Checks) -> Checks {
    if change.evidence.from.is_none() {
        return current.clone();
    }
    let has_counted = |name: &String| {
        let mut evidence = change.evidence.checks.iter();
        evidence.any(|it| {
            let counted = it.canary.requests + it.stable.requests > 0.0 || it.value.is_some();
            it.name == *name && counted
        })
    };
    let mut checks = change.checks.clone();
    for (name, check) in &current.checks {
        if !has_counted(name) {
            checks.insert(name.clone(), check.clone());
        }
    }
    let mut objectives = current.objectives.clone();
    objectives.extend(change.objectives.clone());
    Checks {
        checks,
        objectives,
        interval: change.interval,
        warm_up: change.warm_up,
        post_promotion: change.post_promotion,
        problems: current.problems.clone(),
    }
}

#[cfg(test)]
mod tests {
    use countersign_api::Step;
    use countersign_api::analysis::WeightRange;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_argument_is_used_in_a_query_of_any_kind() {
        let template = |check: Value, objectives: Value| -> AnalysisTemplateSpec {
            let other = r#"x{c="{{args.b}}"}"#;
            serde_json::from_value(json!({
                "args": [{ "name": "a" }, { "name": "b" }],
                "checks": [{ "name": "other", "errors": other, "total": "x" }, check],
                "objectives": objectives,
            }))
            .unwrap()
        };
        let (none, used) = (json!([]), r#"x{c="{{ args.a }}"}"#);
        let preset = json!({ "name": "own", "preset": "HttpRequestsTotal" });
        let spec = template(preset.clone(), none.clone());
        assert_eq!(unused_arguments(&spec), ["a"]);
        for query in [
            json!({ "errors": used, "total": "x" }),
            json!({ "errors": "x", "total": used }),
            json!({ "latency": { "within": "1s", "buckets": used } }),
            json!({ "metric": { "query": used, "max": 1.0 } }),
        ] {
            let mut check = query.clone();
            check["name"] = json!("own");
            let spec = template(check, none.clone());
            assert_eq!(unused_arguments(&spec), [""; 0], "{query}");
        }
        let objective = json!([{ "name": "all", "target": 0.9, "errors": used, "total": "x" }]);
        let spec = template(preset, objective);
        assert_eq!(unused_arguments(&spec), [""; 0]);
    }

    #[test]
    fn no_choice_of_steps_evades_a_check() {
        let plan = |weights: &[i32]| Plan {
            steps: weights
                .iter()
                .map(|weight| Step {
                    weight: *weight,
                    ..Step::default()
                })
                .collect(),
            ..Plan::default()
        };
        let active = |from, to, weights: &[i32]| -> Vec<i32> {
            let check = Check {
                weights: Some(WeightRange { from, to }),
                ..Check::default()
            };
            let plan = plan(weights);
            let weights = weights.iter().copied();
            weights
                .filter(|weight| is_active(&check, &plan, *weight))
                .collect()
        };
        assert_eq!(active(25, 50, &[5, 25, 50]), [25, 50]);
        assert_eq!(active(25, 50, &[20, 51]), [51]);
        assert_eq!(active(60, 99, &[5, 50]), [50]);
        assert_eq!(active(0, 4, &[5, 50]), [5]);
    }
}
