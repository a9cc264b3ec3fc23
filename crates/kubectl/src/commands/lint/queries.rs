//! Checks queries by the rules of the controller.

use std::collections::BTreeSet;

use countersign_api::analysis::default_interval;
use countersign_api::{
    Analysis, AnalysisTemplate, AnalysisTemplateSpec, Check, Duration, Metric, Objective,
};
use countersign_core::analysis::query::form::{Arm, Field};
use countersign_core::analysis::{checks, query};
use countersign_core::text::sanitize_to;
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{self, Expr};

use crate::commands::lint::fields::{place, typed};
use crate::manifests::finding::Finding;
use crate::manifests::yaml::Node;

/// The controller's findings on an analysis; `services` are those of the two arms.
pub(super) fn analysis_queries(
    node: &Node,
    analysis: &Analysis,
    services: &[Option<&str>],
) -> Vec<Finding> {
    let mut findings = queries(node, &analysis.checks, analysis.interval, services);
    findings.extend(objectives(node, &analysis.objectives));
    findings
}

/// The controller's findings on a template that is used with its defaults.
pub(super) fn template(object: &Node, spec: &Node) -> Vec<Finding> {
    let template: AnalysisTemplate = match typed(object) {
        Ok(template) => template,
        Err(finding) => return vec![finding],
    };
    let used = checks::sample_use(&template.spec);
    let resolved = checks::resolve(&used, &template.spec);
    if !resolved.problems.is_empty() {
        let problems = resolved.problems.iter();
        return problems
            .map(|problem| Finding::error(spec.at, problem.clone()))
            .collect();
    }
    let services = [Some("service")];
    let mut findings = queries(spec, &resolved.checks, default_interval(), &services);
    findings.extend(objectives(spec, &resolved.objectives));
    findings.extend(unused_arguments(spec, &template.spec));
    findings
}

/// Arguments that no query uses: a value of one changes nothing.
fn unused_arguments(spec: &Node, template: &AnalysisTemplateSpec) -> Vec<Finding> {
    let unused = checks::unused_arguments(template);
    let nodes = spec.get("args").into_iter().flat_map(Node::items);
    let nodes = nodes.zip(&template.args);
    let findings = nodes.filter_map(|(node, argument)| {
        let name = unused.iter().find(|name| **name == argument.name)?;
        let message =
            format!("no query uses the argument `{name}`: write `{{{{args.{name}}}}}` into one, or remove it");
        Some(Finding::warning(node.at, message))
    });
    findings.collect()
}

/// The controller's findings on the queries of each check.
pub(super) fn queries(
    node: &Node,
    checks: &[Check],
    interval: Duration,
    services: &[Option<&str>],
) -> Vec<Finding> {
    let nodes = node.get("checks").into_iter().flat_map(Node::items);
    let mut findings = Vec::new();
    for (node, check) in nodes.zip(checks) {
        let mut reported = BTreeSet::new();
        for service in services {
            if let Err(error) = query::verify(check, arm(*service), interval) {
                let message = error.to_string();
                if reported.insert(message.clone()) {
                    findings.push(Finding::error(place(node, error.field), message));
                }
            }
        }
        findings.extend(check.metric.as_ref().and_then(|it| blind(node, it)));
    }
    findings
}

pub(super) fn objectives(node: &Node, objectives: &[Objective]) -> Vec<Finding> {
    let nodes = node.get("objectives").into_iter().flat_map(Node::items);
    let problems = nodes.zip(objectives).filter_map(|(node, objective)| {
        let error = query::render_objective(&objective.name, objective, arm(None)).err()?;
        Some(Finding::error(place(node, error.field), error.to_string()))
    });
    problems.collect()
}

pub(super) fn arm(service: Option<&str>) -> Arm<'_> {
    Arm {
        namespace: "namespace",
        service,
        rollout: "rollout",
        revision: "revision",
    }
}

/// A metric that does not distinguish the canary from stable may be intended or a mistake.
pub(super) fn blind(check: &Node, metric: &Metric) -> Option<Finding> {
    let names = ["{{revision}}", "{{service}}"];
    let distinguishes = names
        .iter()
        .any(|name| metric.query.replace(' ', "").contains(name));
    let message = "metric.query holds neither `{{revision}}` nor `{{service}}`, so it measures the stable revision too: leave it so only if that is meant";
    (!distinguishes).then(|| Finding::warning(place(check, Field::Metric), message))
}

/// An incident query that Prometheus would refuse, or whose result may be empty.
pub(super) fn incident(node: &Node) -> Option<Finding> {
    // The parser panics on numbers beyond what a duration holds.
    let text = node.text()?;
    let parsed = std::panic::catch_unwind(|| parser::parse(text));
    let expression = match parsed.unwrap_or_else(|_| Err("a number in it is out of range".into())) {
        Ok(expression) => expression,
        Err(message) => {
            let message = format!(
                "spec.freeze.incident.query is not PromQL, so promotions would wait: {}",
                sanitize_to(&message, 200)
            );
            return Some(Finding::error(node.at, message));
        }
    };
    match expression.value_type() {
        ValueType::Scalar => None,
        ValueType::Vector if ends_in_vector(&expression) => None,
        ValueType::Vector => {
            let message = "spec.freeze.incident.query may answer with nothing, which is not a number, so promotions would wait: end it with `or vector(0)`";
            Some(Finding::warning(node.at, message))
        }
        ValueType::Matrix | ValueType::String => {
            let message = "spec.freeze.incident.query yields no number: count something, such as `count(ALERTS{alertstate=\"firing\"}) or vector(0)`";
            Some(Finding::error(node.at, message))
        }
    }
}

/// Whether the result is never empty.
pub(super) fn ends_in_vector(expression: &Expr) -> bool {
    match expression {
        Expr::Paren(inner) => ends_in_vector(&inner.expr),
        Expr::Binary(binary) => binary.op.to_string() == "or" && ends_in_vector(&binary.rhs),
        Expr::Call(call) => call.func.name == "vector",
        _ => false,
    }
}
