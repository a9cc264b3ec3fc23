//! `history`: the changes of a Rollout from its RolloutRuns.

use std::process::ExitCode;

use countersign_api::{ROLLOUT_UID_LABEL, RolloutRun, SignOff, SignOffDecision};
use countersign_core::reason::Reason;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::clock;
use crate::cluster::connection::Connection;
use crate::failure::Failure;
use crate::output::{Format, Output, age, print, print_document, remark, table};
use crate::view::gates;
use countersign_core::text::sanitize;

/// List the changes of a Rollout: revision, tier, outcome, who signed
#[derive(Clone, Debug, clap::Args)]
pub struct History {
    /// Name of the Rollout
    rollout: String,
    #[command(flatten)]
    output: Output,
}

impl History {
    /// Lists the RolloutRuns.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let rollout = connection.rollout(&self.rollout).await?;
        let selector = format!("{ROLLOUT_UID_LABEL}={}", rollout.uid().unwrap_or_default());
        let (mine, all) = (
            ListParams::default().labels(&selector),
            ListParams::default(),
        );
        let (runs, sign_offs) = (
            connection.here::<RolloutRun>(),
            connection.here::<SignOff>(),
        );
        let (runs, sign_offs) = futures::join!(
            connection.ask(runs.list(&mine)),
            connection.ask(sign_offs.list(&all)),
        );
        let mut runs = runs?.items;
        runs.sort_by_key(|run| (run.spec.revision, run.creation_timestamp()));
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
        match self.output.format {
            Format::Json | Format::Yaml => {
                let list = json!({ "apiVersion": "v1", "kind": "List", "items": runs });
                print_document(&list, self.output.format)?;
            }
            format => print(&listed(
                &runs,
                &sign_offs,
                format == Format::Wide,
                clock::now(),
            )),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn listed(runs: &[RolloutRun], sign_offs: &[SignOff], wide: bool, now: Timestamp) -> String {
    let mut heading = vec![
        "REVISION",
        "TIER",
        "SCORE",
        "OUTCOME",
        "SIGNED-BY",
        "AGE",
        "TOOK",
    ];
    if wide {
        heading.extend(["RUN", "IMAGES", "MESSAGE"]);
    }
    let rows: Vec<_> = runs
        .iter()
        .map(|run| row(run, sign_offs, wide, now))
        .collect();
    table(&heading, &rows)
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

    #[test]
    fn each_change_has_a_line_with_its_outcome_and_who_signed() {
        let sign_offs = [
            sign_off("carol", &[], None, "True", "Counts"),
            sign_off("bob", &[], None, "True", "Counts"),
            sign_off("bob", &[], Some("step-2"), "True", "Counts"),
            sign_off("alice", &[], None, "False", "ByAuthor"),
        ];
        assert_eq!(
            listed(&runs(), &sign_offs, false, now()),
            "\
REVISION   TIER   SCORE   OUTCOME    SIGNED-BY   AGE   TOOK
6          low    1.0     Promoted               26h   20m
7          high   12.5    UnderWay   bob,carol   10m
"
        );
        let wide = listed(&runs(), &sign_offs, true, now());
        assert!(
            wide.contains("web-1a2b3c4d5e-7   example.org/web:v2"),
            "{wide}"
        );
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
