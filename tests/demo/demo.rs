//! `make demo`: shows a harmless change promoted, a bad one rolled back, and a risky one that is good promoted
//! once a person has signed it off.
//!
//! Applies `examples/` to the test cluster, or to one that exists already, sends real requests, and prints the outcome of the changes.
//! The output is read from the cluster or counted in the responses; the exit code is 0 only if all
//! changes ended as `examples/README.md` promises.

mod existing;
mod people;
mod place;
mod show;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Rollout, RolloutRun, Tier};
use countersign_cluster::{Load, LoadReport, wait_for};
use countersign_core::change;
use countersign_core::reason::Reason;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};

use crate::people::{Answers, People};
use crate::place::{Pace, Place};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const FIRST: [&str; 4] = ["policy.yaml", "harmless.yaml", "risky.yaml", "signed.yaml"];
const CHANGES: [&str; 3] = ["harmless-v2.yaml", "risky-v2.yaml", "signed-v2.yaml"];
/// The tags of real images that take the place of the two versions.
const FIRST_TAG: &str = "6.8.0";
const CHANGE_TAG: &str = "6.9.0";

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(run()).await {
        Ok(differences) if differences.is_empty() => {
            println!("All ended as promised.");
            ExitCode::SUCCESS
        }
        Ok(differences) => {
            println!("Not as promised:\n  {}", differences.join("\n  "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo where it was asked for, and removes what it left there.
async fn run() -> Result<Vec<String>> {
    let place = Place::chosen().await?;
    let namespace = place.namespace().await?;
    let outcome = tokio::select! {
        outcome = Box::pin(demo(&place, &namespace)) => outcome,
        () = place.interrupted() => Err("interrupted".into()),
    };
    place.clean_up(&namespace).await?;
    outcome
}

/// The whole demo; returns the differences from what is promised.
async fn demo(place: &Place, namespace: &str) -> Result<Vec<String>> {
    println!("\nIn namespace {namespace}: {}", listed(FIRST));
    for file in FIRST {
        apply_file(place, namespace, file, FIRST_TAG).await?;
    }
    let tempo = place.pace();
    let (few, many) = (tempo.requests_per_second, tempo.many_requests_per_second);
    let mut harmless = Watched::serving(place, namespace, "web", few).await?;
    let mut risky = Watched::serving(place, namespace, "login", few).await?;
    let mut signed = Watched::serving(place, namespace, "billing", many).await?;
    let people = People::with_roles(place, namespace).await?;
    println!("web and login serve {few} requests a second, billing {many}.");
    println!("The changes: {}", listed(CHANGES));
    println!(
        "WEIGHT and ACHIEVED is the new version's share, SERVED and FAILED are its requests.\n"
    );
    for file in CHANGES {
        apply_file(place, namespace, file, CHANGE_TAG).await?;
    }
    let watched = &mut [&mut harmless, &mut risky, &mut signed];
    watch(watched, &people, &tempo).await?;
    let (harmless, risky) = (harmless.end().await?, risky.end().await?);
    let signed = signed.end().await?;
    println!();
    let all = [&harmless, &risky, &signed];
    for finished in all {
        show::story(finished);
    }
    let runs: Api<RolloutRun> = Api::namespaced(place.client(), namespace);
    show::figures(&runs.list(&ListParams::default()).await?.items);
    Ok(differences(&harmless, &risky, &signed))
}

/// Follows the changes until each has ended and its pods have come or gone; people answer if one waits.
async fn watch(watched: &mut [&mut Watched; 3], people: &People, tempo: &Pace) -> Result<()> {
    let mut table = show::Table::new();
    let started = Instant::now();
    loop {
        for one in watched.iter_mut() {
            one.refresh().await?;
        }
        table.show(
            started.elapsed(),
            &watched.each_ref().map(|one| show::Row::of(one)),
        );
        for one in watched.iter_mut() {
            one.sign(people).await?;
        }
        if watched.iter().all(|one| one.has_ended()) {
            return Ok(());
        }
        if started.elapsed() > tempo.end_within {
            let within = tempo.end_within;
            return Err(format!("the changes have not ended within {within:?}").into());
        }
        tokio::time::sleep(tempo.poll_interval).await;
    }
}

/// One Rollout with its traffic, as far as known.
struct Watched {
    rollouts: Api<Rollout>,
    runs: Api<RolloutRun>,
    rollout: Rollout,
    /// The record of the change after the first revision.
    run: Option<RolloutRun>,
    /// The requests, if they are sent from here.
    load: Option<Load>,
    /// When the rollback was first seen.
    withdrawn_at: Option<Timestamp>,
    /// What became of the approvals, if the change waited for one.
    answers: Option<Answers>,
}

/// A change that has ended, with its traffic.
struct Finished {
    name: String,
    run: RolloutRun,
    /// The counts of the requests, if they were sent from here.
    report: Option<LoadReport>,
    withdrawn_at: Option<Timestamp>,
    answers: Option<Answers>,
}

impl Watched {
    /// Waits until the first revision serves, and starts the traffic.
    async fn serving(place: &Place, namespace: &str, name: &str, rate: u32) -> Result<Self> {
        let rollouts: Api<Rollout> = Api::namespaced(place.client(), namespace);
        let within = place.pace().start_within;
        let rollout = wait_for(&format!("{name} serves"), within, async || {
            let rollout = rollouts
                .get(name)
                .await
                .map_err(|error| error.to_string())?;
            if phase(&rollout) == Phase::Stable {
                Ok(rollout)
            } else {
                Err(format!("{:?}", rollout.status))
            }
        })
        .await?;
        let load = place.load(namespace, name, rate).await?;
        let runs = Api::namespaced(place.client(), namespace);
        Ok(Self {
            rollouts,
            runs,
            rollout,
            run: None,
            load,
            withdrawn_at: None,
            answers: None,
        })
    }

    async fn refresh(&mut self) -> Result<()> {
        let name = self.rollout.name_any();
        self.rollout = self.rollouts.get(&name).await?;
        let runs = self.runs.list(&ListParams::default()).await?.items;
        let change = |run: &RolloutRun| run.spec.rollout == name && run.spec.revision > 1;
        self.run = runs.into_iter().find(change);
        let status = self.rollout.status.as_ref();
        let outcome = status.and_then(|status| status.change.as_ref()?.outcome);
        if outcome == Some(Outcome::RolledBack) {
            #[expect(clippy::disallowed_methods, reason = "a measurement, no decision")]
            self.withdrawn_at.get_or_insert_with(Timestamp::now);
        }
        Ok(())
    }

    /// People answer once if the change waits for a sign-off.
    async fn sign(&mut self, people: &People) -> Result<()> {
        let status = self.rollout.status.as_ref();
        let waits = status.is_some_and(|it| change::waits_for(it, Reason::AwaitingSignOff));
        let change = status.and_then(|status| status.change.as_ref());
        if let (true, None, Some(change)) = (waits, &self.answers, change) {
            self.answers = Some(people.approve(&self.rollout, change).await?);
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        let ended = self
            .run
            .as_ref()
            .is_some_and(|run| run.spec.progress.outcome.is_some());
        ended && matches!(phase(&self.rollout), Phase::Stable | Phase::Degraded)
    }

    async fn end(self) -> Result<Finished> {
        let name = self.rollout.name_any();
        let run = self
            .run
            .ok_or_else(|| format!("{name} has no record of its change"))?;
        let report = match self.load {
            Some(load) => Some(load.stop().await),
            None => None,
        };
        Ok(Finished {
            name,
            run,
            report,
            withdrawn_at: self.withdrawn_at,
            answers: self.answers,
        })
    }
}

fn phase(rollout: &Rollout) -> Phase {
    rollout
        .status
        .as_ref()
        .map(|status| status.phase)
        .unwrap_or_default()
}

/// The differences from what `examples/README.md` promises.
fn differences(harmless: &Finished, risky: &Finished, signed: &Finished) -> Vec<String> {
    let (low, high, last) = (&harmless.run.spec, &risky.run.spec, &signed.run.spec);
    let refused = signed
        .answers
        .as_ref()
        .is_some_and(|it| it.refusal.is_some());
    let reasons = |reason: Reason| {
        let mut lines = last.progress.transitions.iter();
        lines.any(|line| line.reason == reason)
    };
    let (fewer, more) = (low.plan.steps.len(), high.plan.steps.len());
    let rolled_back = high.progress.outcome == Some(Outcome::RolledBack);
    let by_analysis = high
        .progress
        .transitions
        .iter()
        .any(|line| line.reason == Reason::AnalysisFailed);
    let promises = [
        (
            low.progress.outcome == Some(Outcome::Promoted),
            harmless,
            "promoted",
        ),
        (low.risk.tier == Tier::Low, harmless, "of tier low"),
        (
            rolled_back && by_analysis,
            risky,
            "rolled back by AnalysisFailed",
        ),
        (
            high.risk.tier > low.risk.tier,
            risky,
            "of a higher tier than the other",
        ),
        (more > fewer, risky, "staged in more steps than the other"),
        (
            last.risk.tier == high.risk.tier,
            signed,
            "of the same tier as the bad one",
        ),
        (refused, signed, "refused the approval of its author"),
        (
            last.progress.outcome == Some(Outcome::Promoted) && reasons(Reason::SignedOff),
            signed,
            "promoted after somebody else signed it off",
        ),
    ];
    let broken = promises.into_iter().filter(|(kept, ..)| !kept);
    broken
        .map(|(_, finished, promise)| format!("{} was to be {promise}", finished.name))
        .collect()
}

fn listed<const N: usize>(files: [&str; N]) -> String {
    files.map(|file| format!("examples/{file}")).join(", ")
}

/// Applies every object of a file in `examples/`, as `kubectl apply --server-side` would.
async fn apply_file(place: &Place, namespace: &str, file: &str, tag: &str) -> Result<()> {
    let (client, within) = (place.client(), place.pace().start_within);
    let path = format!("{}/../../examples/{file}", env!("CARGO_MANIFEST_DIR"));
    let yaml = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    for object in serde_saphyr::from_multiple::<DynamicObject>(&yaml)? {
        let object = place.adapted(object, namespace, tag);
        let name = object.name_any();
        let types = object
            .types
            .as_ref()
            .ok_or_else(|| format!("{path}: {name} has no kind"))?;
        let kind = GroupVersionKind::try_from(types)?;
        // The API server serves a new kind a moment after its definition was applied.
        let served = async || pinned_kind(&client, &kind).await;
        let what = format!("{} is served", kind.kind);
        let (resource, capabilities) = wait_for(&what, within, served).await?;
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
        };
        api.patch(
            &name,
            &PatchParams::apply("demo").force(),
            &Patch::Apply(&object),
        )
        .await?;
    }
    Ok(())
}
