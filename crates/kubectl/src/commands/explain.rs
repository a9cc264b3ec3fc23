//! `explain`: the risk and plan of a change, without a cluster.
//!
//! The result is the controller's first decision about the change, by the same function and from the same
//! observation, so the two cannot differ.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use countersign_api::Smoke;
use countersign_api::policy::RolloutPolicy;
use countersign_api::rollout::{ExcludedApprovers, Observed, Plan, Strictness};
use countersign_api::run::{RecordedProvenance, RecordedRisk};
use countersign_api::step::{SignOffDemand, Step};
use countersign_core::text::excerpt;
use countersign_core::{decide, text};
use serde::Serialize;

use crate::clock;
use crate::failure::Failure;
use crate::manifests::error::ManifestError;
use crate::manifests::inputs::Inputs;
use crate::manifests::{self, Manifests};
use crate::output::report::{self, Format, columns, number};
use crate::view::observed;

/// Longest text of a reason, in characters; longer ones are cut.
const SENTENCE: usize = 400;

/// Show the risk of a change with every reason, and its plan, without a cluster.
#[derive(Args)]
pub struct Explain {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    setting: Setting,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// The context of the Rollouts.
#[derive(Args, Clone, Default)]
pub struct Setting {
    /// Files or directories with the currently deployed Rollouts; if omitted, only the image changes.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    stable: Vec<PathBuf>,
    /// Files or directories with RolloutPolicies; if omitted, the built-in policy applies.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    policy: Vec<PathBuf>,
    /// Labels of the namespace, such as `team=shop,env=live`.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    namespace_labels: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Setting {
    /// The policies of these files.
    pub fn policies(&self) -> Result<Vec<RolloutPolicy>, ManifestError> {
        Ok(Manifests::read(Inputs::default().beside(&self.policy))?.policies)
    }

    /// The Rollouts of these manifests as the controller would observe them when applied.
    pub fn observe(&self, inputs: &Inputs) -> Result<Vec<manifests::Observed>, ManifestError> {
        let mut manifests = Manifests::read(inputs.sources())?;
        if manifests.rollouts.is_empty() {
            return Err(ManifestError::NoRollout(inputs.names()));
        }
        manifests
            .policies
            .extend(Manifests::read(inputs.beside(&self.policy))?.policies);
        let stable = (!self.stable.is_empty())
            .then(|| Manifests::read(inputs.beside(&self.stable)))
            .transpose()?;
        let labels: BTreeMap<_, _> = self.namespace_labels.iter().cloned().collect();
        manifests.observations(stable.as_ref(), &labels, clock::now())
    }
}

/// The explanation of one Rollout.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    rollout: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// `None` if the pods would not change.
    change: Option<Treatment>,
    /// Policies that do not apply, and why.
    not_applying: Vec<String>,
}

/// The risk and plan of a change.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Treatment {
    digest: String,
    pod_template_hash: String,
    provenance: RecordedProvenance,
    risk: RecordedRisk,
    plan: Plan,
    /// What the policies that only observe would have demanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<Observed>,
    /// The smoke check, which must succeed before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    smoke: Option<Smoke>,
    /// Users and groups whose sign-offs do not count.
    excluded_approvers: ExcludedApprovers,
}

impl Explain {
    /// Explains every Rollout of the files.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let observed = self.setting.observe(&self.inputs)?;
        let explanations: Vec<_> = observed.into_iter().map(Explanation::of).collect();
        report::print(self.output, &explanations, || {
            let rendered: Vec<_> = explanations.iter().map(Explanation::render).collect();
            rendered.join("\n")
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Explanation {
    fn of(observed: manifests::Observed) -> Self {
        let decision = decide(&observed.observation);
        let change = decision.status.change.zip(decision.record);
        Self {
            rollout: observed.observation.name,
            namespace: observed.namespace,
            change: change.map(|(change, record)| Treatment {
                digest: change.digest,
                pod_template_hash: change.pod_template_hash,
                provenance: record.spec.provenance,
                risk: record.spec.risk,
                plan: change.plan,
                observed: change.observed,
                smoke: observed.observation.spec.strategy.canary.smoke,
                excluded_approvers: change.excluded_approvers,
            }),
            not_applying: observed.not_governing,
        }
    }

    fn render(&self) -> String {
        let namespace = self.namespace.iter().map(|it| format!("{}/", excerpt(it)));
        let mut text = format!(
            "Rollout {}{}\n",
            namespace.collect::<String>(),
            excerpt(&self.rollout)
        );
        match &self.change {
            Some(change) => text.push_str(&change.render(&self.not_applying)),
            None => text.push_str("  The pods would not change: this template serves already.\n"),
        }
        text
    }
}

impl Treatment {
    fn render(&self, not_applying: &[String]) -> String {
        [
            section("Change", self.identity()),
            section("Provenance", self.provenance()),
            section("Risk", self.risk()),
            section("Policies", self.policies(not_applying)),
            section("Smoke check", self.smoke_check().into_iter().collect()),
            section("Plan", self.steps()),
            section("Nobody named", self.unnamed()),
            section(
                "Tightened",
                self.plan.tightened.iter().map(|it| sentence(it)).collect(),
            ),
            self.not_enforced(),
            section("Judgement", judgement(&self.plan.strictness)),
            section("Must not sign", self.excluded_approvers()),
        ]
        .concat()
    }

    fn identity(&self) -> Vec<String> {
        let lines = [
            vec!["digest".into(), self.digest.clone()],
            vec!["pod-template-hash".into(), self.pod_template_hash.clone()],
        ];
        lines_of(&columns("", &lines))
    }

    fn provenance(&self) -> Vec<String> {
        let RecordedProvenance {
            state,
            annotations,
            problems,
            ..
        } = &self.provenance;
        let read: Vec<_> = annotations
            .iter()
            .map(|(key, value)| vec![excerpt(key), text::sanitize_to(value, SENTENCE)])
            .collect();
        let problems = problems
            .iter()
            .map(|it| format!("problem: {}", sentence(it)));
        let state = format!("{}, as read from the annotations", state.to_lowercase());
        std::iter::once(state)
            .chain(lines_of(&columns("", &read)))
            .chain(problems)
            .collect()
    }

    fn risk(&self) -> Vec<String> {
        let RecordedRisk {
            score,
            tier,
            contributions,
            ..
        } = &self.risk;
        let reasons: Vec<_> = contributions
            .iter()
            .map(|it| {
                let floor = it.floor.map(|floor| format!("at least {floor}"));
                let points = format!("{:>6}", format!("+{}", it.points));
                vec![
                    points,
                    excerpt(&it.factor),
                    floor.unwrap_or_default(),
                    sentence(&it.reason),
                ]
            })
            .collect();
        std::iter::once(format!("tier {tier}, {}", number(score, "point")))
            .chain(lines_of(&columns("", &reasons)))
            .collect()
    }

    fn policies(&self, not_applying: &[String]) -> Vec<String> {
        let applying = self
            .plan
            .policies
            .iter()
            .map(|it| text::sanitize_to(it, 120));
        let others = not_applying
            .iter()
            .map(|it| format!("does not apply: {it}"));
        applying.chain(others).collect()
    }

    fn smoke_check(&self) -> Option<String> {
        let smoke = self.smoke.as_ref()?;
        let images = smoke.template.images();
        let images: Vec<_> = images.into_iter().map(excerpt).collect();
        Some(sentence(&format!(
            "before the first step a Job with {} must succeed within {}",
            images.join(" and "),
            smoke.timeout
        )))
    }

    fn steps(&self) -> Vec<String> {
        let head = [
            "STEP",
            "WEIGHT",
            "BAKE",
            "MIN REQUESTS",
            "SIGN-OFF BEFORE IT",
        ];
        let steps = (1..)
            .zip(&self.plan.steps)
            .map(|(number, step): (usize, &Step)| {
                vec![
                    number.to_string(),
                    weight(step, self.plan.shares.get(number - 1).copied()),
                    step.bake.to_string(),
                    step.min_requests.to_string(),
                    demands(&step.sign_off),
                ]
            });
        let promotion = vec![
            "all".to_owned(),
            "100%".to_owned(),
            String::new(),
            String::new(),
            demands(&self.plan.promotion_sign_off),
        ];
        let lines: Vec<_> = std::iter::once(head.map(ToOwned::to_owned).to_vec())
            .chain(steps)
            .chain([promotion])
            .collect();
        lines_of(&columns("", &lines))
    }

    /// Gates for which no policy names who can open them.
    fn unnamed(&self) -> Vec<String> {
        let steps = (1..).zip(&self.plan.steps);
        let steps =
            steps.map(|(number, step): (usize, &Step)| (format!("step-{number}"), &step.sign_off));
        let gates = steps.chain([("promotion".to_owned(), &self.plan.promotion_sign_off)]);
        gates
            .filter(|(_, demands)| demands.iter().any(|it| it.groups.is_empty()))
            .map(|(gate, _)| {
                format!(
                    "gate {gate} requires people and names no group: only users bound to the role countersign-approver can sign"
                )
            })
            .collect()
    }

    fn not_enforced(&self) -> String {
        let observed = self.observed.as_ref().map(|it| {
            let lines = observed::lines(it).iter().map(|it| sentence(it)).collect();
            section(&sentence(&observed::heading(it)), lines)
        });
        observed.unwrap_or_default()
    }

    fn excluded_approvers(&self) -> Vec<String> {
        let users = self
            .excluded_approvers
            .users
            .iter()
            .map(|user| text::sanitize_to(user, 253));
        let groups = self.excluded_approvers.groups.iter();
        let groups = groups.map(|group| format!("group {}", text::sanitize_to(group, 253)));
        users.chain(groups).collect()
    }
}

/// The weight of a step, and the share that its pods really are if that is more.
fn weight(step: &Step, share: Option<i32>) -> String {
    match share.filter(|share| *share > step.weight) {
        Some(share) => format!("{}% (of the pods: {share}%)", step.weight),
        None => format!("{}%", step.weight),
    }
}

/// A title over indented lines; empty if there are no lines.
fn section(title: &str, lines: Vec<String>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("  {title}\n");
    for line in lines {
        text.push_str("    ");
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(ToOwned::to_owned).collect()
}

fn sentence(text: &str) -> String {
    text::sanitize_to(text, SENTENCE)
}

/// The required sign-offs in words.
fn demands(demands: &[SignOffDemand]) -> String {
    let people = demands.iter().map(|demand| {
        let people = if demand.count == 1 {
            "person"
        } else {
            "people"
        };
        let groups: Vec<_> = demand
            .groups
            .iter()
            .map(|it| text::sanitize_to(it, 80))
            .collect();
        let of = if groups.is_empty() { "" } else { " of " };
        format!("{} {people}{of}{}", demand.count, groups.join(" or "))
    });
    match people.collect::<Vec<_>>().join(", ") {
        people if people.is_empty() => "-".into(),
        people => people,
    }
}

fn judgement(strictness: &Strictness) -> Vec<String> {
    let Strictness {
        max_false_rollback,
        max_false_promotion,
        tolerated_ratio,
        tolerated_difference,
        margin_ratio,
        margin_difference,
        extend_at_most,
        on_scarce_evidence,
        switch_without_evidence,
        wait_at_most,
    } = strictness;
    let lines = [
        ("maxFalseRollback", max_false_rollback.to_string()),
        ("maxFalsePromotion", max_false_promotion.to_string()),
        ("toleratedRatio", tolerated_ratio.to_string()),
        ("toleratedDifference", tolerated_difference.to_string()),
        ("marginRatio", margin_ratio.to_string()),
        ("marginDifference", margin_difference.to_string()),
        ("extendAtMost", extend_at_most.to_string()),
        ("onScarceEvidence", format!("{on_scarce_evidence:?}")),
        ("switchWithoutEvidence", switch_without_evidence.to_string()),
        ("waitAtMost", wait_at_most.to_string()),
    ];
    let lines: Vec<_> = lines
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    lines_of(&columns("", &lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_not_sign_is_shown() {
        let treatment = Treatment {
            excluded_approvers: ExcludedApprovers {
                users: ["alice".into()].into(),
                groups: ["robots".into()].into(),
            },
            ..Treatment::default()
        };
        let rendered = treatment.render(&[]);
        assert!(
            rendered.ends_with("  Must not sign\n    alice\n    group robots\n"),
            "{rendered}"
        );
    }

    #[test]
    fn a_gate_for_which_no_group_is_named_is_shown() {
        let demand = |groups: &[&str]| SignOffDemand {
            count: 1,
            groups: groups.iter().map(|it| (*it).to_owned()).collect(),
        };
        let mut treatment = Treatment::default();
        treatment.plan.steps = vec![Step {
            weight: 5,
            sign_off: vec![demand(&["approvers"])],
            ..Step::default()
        }];
        assert!(!treatment.render(&[]).contains("Nobody named"));
        treatment.plan.promotion_sign_off = vec![demand(&["senior"]), demand(&[])];
        let rendered = treatment.render(&[]);
        let expected = "  Nobody named\n    gate promotion requires people and names no group: only users bound to the role countersign-approver can sign\n";
        assert!(rendered.contains(expected), "{rendered}");
    }

    #[test]
    fn names_cannot_act_on_a_terminal() {
        let explanation = Explanation {
            rollout: "web\u{1b}[2J".into(),
            namespace: Some("\u{202e}shop".into()),
            change: None,
            not_applying: Vec::new(),
        };
        let rendered = explanation.render();
        assert!(
            rendered.starts_with("Rollout \\u{202e}shop/web\\u{1b}[2J\n"),
            "{rendered}"
        );
    }

    #[test]
    fn demands_are_read_as_a_sentence() {
        let demand = |count, groups: &[&str]| SignOffDemand {
            count,
            groups: groups.iter().map(|it| (*it).to_owned()).collect(),
        };
        assert_eq!(demands(&[]), "-");
        assert_eq!(demands(&[demand(1, &[])]), "1 person");
        assert_eq!(
            demands(&[demand(2, &[]), demand(1, &["senior", "sre"])]),
            "2 people, 1 person of senior or sre"
        );
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("a").is_err() && label("=b").is_err());
    }
}
