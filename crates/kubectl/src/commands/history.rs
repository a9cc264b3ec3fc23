//! `history`: the changes of a Rollout, or of several, from their RolloutRuns.

use std::process::ExitCode;

use countersign_api::{ROLLOUT_UID_LABEL, RolloutRun, SignOff, SignOffDecision};
use countersign_core::reason::Reason;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::clock;
use crate::cluster::connection::Connection;
use crate::cluster::scope::Scope;
use crate::cluster::type_name;
use crate::failure::Failure;
use crate::output::list::{ListOutput, Listed, Printed};
use crate::output::{age, print, remark};
use crate::view::gates;
use countersign_core::text::sanitize;

/// List the changes of a Rollout: revision, tier, outcome, who signed
#[derive(Clone, Debug, clap::Args)]
pub struct History {
    /// Name of the Rollout; the changes of all Rollouts if omitted
    #[arg(value_parser = type_name::rollout)]
    rollout: Option<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    output: ListOutput,
}

impl History {
    /// Lists the RolloutRuns.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let parameters = match &self.rollout {
            Some(name) => {
                let rollout = connection.rollout(name).await?;
                let uid = rollout.uid().unwrap_or_default();
                ListParams::default().labels(&format!("{ROLLOUT_UID_LABEL}={uid}"))
            }
            None => self.scope.list(),
        };
        let all = ListParams::default();
        let (runs, sign_offs) = (
            self.scope.api::<RolloutRun>(connection),
            self.scope.api::<SignOff>(connection),
        );
        let (runs, sign_offs) = futures::join!(
            connection.ask(runs.list(&parameters)),
            connection.ask(sign_offs.list(&all)),
        );
        let mut runs = runs?.items;
        runs.sort_by_key(|run| {
            let spec = &run.spec;
            let created = run.creation_timestamp();
            (
                run.namespace(),
                spec.rollout.clone(),
                spec.revision,
                created,
            )
        });
        let sign_offs = sign_offs.map_or_else(
            |refusal| {
                remark(&format!(
                    "who signed is not shown: {}",
                    sanitize(&refusal.to_string())
                ));
                Vec::new()
            },
            |list| list.items,
        );
        let context = Context {
            sign_offs,
            namespaces: self.scope.all_namespaces,
            rollouts: self.rollout.is_none(),
            now: clock::now(),
        };
        let mut printed = Printed::default();
        print(&self.output.list(&runs, &context, &mut printed)?);
        Ok(ExitCode::SUCCESS)
    }
}

/// What the cells of a RolloutRun are taken from, besides the object.
#[derive(Clone, Debug)]
pub struct Context {
    sign_offs: Vec<SignOff>,
    /// Whether the namespace is shown.
    namespaces: bool,
    /// Whether the Rollout's name is shown.
    rollouts: bool,
    now: Timestamp,
}

impl Listed for RolloutRun {
    type Context = Context;

    fn heading(context: &Context, wide: bool) -> Vec<&'static str> {
        let mut heading = Vec::new();
        if context.namespaces {
            heading.push("NAMESPACE");
        }
        if context.rollouts {
            heading.push("ROLLOUT");
        }
        heading.extend([
            "REVISION",
            "TIER",
            "SCORE",
            "OUTCOME",
            "SIGNED-BY",
            "AGE",
            "TOOK",
        ]);
        if wide {
            heading.extend(["RUN", "IMAGES", "MESSAGE"]);
        }
        heading
    }

    fn row(&self, context: &Context, wide: bool) -> Vec<String> {
        let mut cells = Vec::new();
        if context.namespaces {
            cells.push(self.namespace().unwrap_or_default());
        }
        if context.rollouts {
            cells.push(self.spec.rollout.clone());
        }
        cells.extend(row(self, &context.sign_offs, wide, context.now));
        cells
    }
}

fn row(run: &RolloutRun, sign_offs: &[SignOff], wide: bool, now: Timestamp) -> Vec<String> {
    let (risk, progress) = (&run.spec.risk, &run.spec.progress);
    let started = progress.started_at.as_ref().map(|at| at.0);
    let ended = progress.ended_at.as_ref().map(|at| at.0);
    let took = started
        .zip(ended)
        .map(|(started, ended)| age(started, ended));
    let mut cells = vec![
        run.spec.revision.to_string(),
        risk.tier.to_string(),
        format!("{:.1}", risk.score),
        progress
            .outcome
            .map_or_else(|| "UnderWay".to_owned(), |outcome| format!("{outcome:?}")),
        signed_by(run, sign_offs),
        started.map_or_else(String::new, |started| age(started, now)),
        took.unwrap_or_default(),
    ];
    if wide {
        let images = run.spec.images.join(",");
        cells.extend([run.name_any(), images, progress.message.clone()]);
    }
    cells
}

/// Everybody whose sign-off counted, with the decision if it was no approval.
fn signed_by(run: &RolloutRun, sign_offs: &[SignOff]) -> String {
    let mut people: Vec<_> = sign_offs
        .iter()
        .filter(|sign_off| sign_off.spec.run == run.name_any())
        .filter(|sign_off| sign_off.namespace() == run.namespace())
        .filter(|sign_off| sign_off.spec.digest == run.spec.digest && counted(sign_off, run))
        .map(|sign_off| {
            let who = &sign_off.spec.approver.username;
            match sign_off.spec.decision {
                SignOffDecision::Approve => who.clone(),
                SignOffDecision::Reject => format!("{who} (rejected)"),
                SignOffDecision::BreakGlass => format!("{who} (broke glass)"),
            }
        })
        .collect();
    people.sort();
    people.dedup();
    people.join(",")
}

/// Whether a sign-off counted. Its reason is `OtherChange` once the change has ended.
fn counted(sign_off: &SignOff, run: &RolloutRun) -> bool {
    let ended = run.spec.progress.ended_at.as_ref().map(|at| at.0);
    let made = sign_off.creation_timestamp().map(|at| at.0);
    let in_time = ended.zip(made).is_some_and(|(ended, made)| made <= ended);
    let of_the_past = gates::verdict(sign_off)
        .is_some_and(|condition| condition.reason == Reason::OtherChange && in_time);
    gates::counts(sign_off) || of_the_past
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{now, sign_off};

    fn runs() -> Vec<RolloutRun> {
        let saved: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(include_str!("../view/saved_rollout.yaml")).unwrap();
        let runs = saved
            .into_iter()
            .filter(|object| object["kind"] == "RolloutRun");
        runs.map(|run| serde_json::from_value(run).unwrap())
            .collect()
    }

    fn listed(runs: &[RolloutRun], context: &Context, arguments: &[&str]) -> String {
        let output = ListOutput::parsed(arguments);
        output.list(runs, context, &mut Printed::default()).unwrap()
    }

    #[test]
    fn each_change_has_a_line_with_its_outcome_and_who_signed() {
        let sign_offs = [
            sign_off("carol", &[], None, "True", "Counts"),
            sign_off("bob", &[], None, "True", "Counts"),
            sign_off("bob", &[], Some("step-2"), "True", "Counts"),
            sign_off("alice", &[], None, "False", "ByAuthor"),
        ];
        let context = Context {
            sign_offs: sign_offs.to_vec(),
            namespaces: false,
            rollouts: false,
            now: now(),
        };
        assert_eq!(
            listed(&runs(), &context, &[]),
            "\
REVISION   TIER   SCORE   OUTCOME    SIGNED-BY   AGE   TOOK
6          low    1.0     Promoted               26h   20m
7          high   12.5    UnderWay   bob,carol   10m
"
        );
        let wide = listed(&runs(), &context, &["-o", "wide"]);
        assert!(
            wide.contains("web-1a2b3c4d5e-7   example.org/web:v2"),
            "{wide}"
        );
        let everywhere = Context {
            namespaces: true,
            rollouts: true,
            ..context
        };
        let text = listed(&runs(), &everywhere, &[]);
        assert!(text.starts_with("NAMESPACE   ROLLOUT   REVISION"), "{text}");
        assert!(text.contains("\nshop        web       6"), "{text}");
    }

    #[test]
    fn who_signed_stays_known_after_the_change() {
        let mut run = runs().pop().unwrap();
        run.spec.progress.ended_at =
            Some(serde_json::from_value("2026-03-01T12:09:30Z".into()).unwrap());
        let mut rejection = sign_off("dave", &[], None, "False", "OtherChange");
        rejection.spec.decision = SignOffDecision::Reject;
        let mut late = sign_off("erin", &[], None, "False", "OtherChange");
        late.metadata.creation_timestamp =
            Some(serde_json::from_value("2026-03-01T12:09:31Z".into()).unwrap());
        let sign_offs = [
            rejection,
            late,
            sign_off("frank", &[], None, "False", "Expired"),
        ];
        assert_eq!(signed_by(&run, &sign_offs), "dave (rejected)");
    }
}
