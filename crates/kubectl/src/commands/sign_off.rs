//! `approve`, `reject` and `break-glass`: create a SignOff for the exact change that was shown.

use std::process::ExitCode;

use countersign_api::rollout::Change;
use countersign_api::{
    Duration, Person, Rollout, RolloutRun, SignOff, SignOffDecision, SignOffSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::clock;
use crate::cluster::answer::Waiting;
use crate::cluster::change::{self, Aim};
use crate::cluster::confirm::{self, Unconfirmed};
use crate::cluster::connection::Connection;
use crate::cluster::write::DryRun;
use crate::failure::Failure;
use crate::output::{print, report};
use crate::view::difference::{self, Extent};
use crate::view::{View, gates, tree};
use countersign_core::people::sign_off::FIRST_REVISION;
use countersign_core::text::sanitize;

/// Approve the change in progress, after reviewing it
///
/// Shows the change with its difference from the stable revision. The approval applies to exactly the change
/// that is shown: if the template or the provenance is edited afterwards, it does not count. The exit code
/// is 0 if it counts, 1 if it does not, 3 if the controller has not answered within 15 s.
#[derive(Clone, Debug, clap::Args)]
pub struct Approve {
    #[command(flatten)]
    aim: Aim,
    /// Gate to approve: step-N, promotion, first-revision, or evidence-N to accept scarce evidence of step N; if omitted,
    /// every gate except those for scarce evidence
    #[arg(long, value_name = "GATE")]
    gate: Option<GateName>,
    /// Reason, which the SignOff records
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Time after which the approval no longer counts, such as 4h
    #[arg(long, value_name = "TIME")]
    expires: Option<Duration>,
    #[command(flatten)]
    common: Common,
}

/// Reject the change in progress and roll it back
#[derive(Clone, Debug, clap::Args)]
pub struct Reject {
    #[command(flatten)]
    aim: Aim,
    /// Reason, which the SignOff records
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

/// Let the change in progress continue in an emergency, past every bake, freeze, error budget, sign-off and queue
///
/// The analysis, the smoke check and pauses still apply, and the use is recorded.
#[derive(Clone, Debug, clap::Args)]
pub struct BreakGlass {
    #[command(flatten)]
    aim: Aim,
    /// Reason, which the SignOff records
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Common {
    /// Skip the confirmation prompt
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Show all of the difference from the stable revision, however long it is
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    dry_run: DryRun,
}

/// The name of a gate in a sign-off.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GateName {
    Step(usize),
    Promotion,
    FirstRevision,
    Evidence(usize),
}

impl std::str::FromStr for GateName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| {
            let number: usize = digits.parse().ok()?;
            (number > 0 && digits == number.to_string()).then_some(number)
        };
        let named = match text.split_once('-') {
            None if text == "promotion" => Some(Self::Promotion),
            Some(_) if text == FIRST_REVISION => Some(Self::FirstRevision),
            Some(("step", digits)) => number(digits).map(Self::Step),
            Some(("evidence", digits)) => number(digits).map(Self::Evidence),
            _ => None,
        };
        named.ok_or_else(|| {
            "write step-N, promotion, first-revision or evidence-N, such as step-2".to_owned()
        })
    }
}

impl std::fmt::Display for GateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Step(number) => write!(f, "step-{number}"),
            Self::Promotion => f.write_str("promotion"),
            Self::FirstRevision => f.write_str(FIRST_REVISION),
            Self::Evidence(number) => write!(f, "evidence-{number}"),
        }
    }
}

/// Why no SignOff was created.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The change is not there, or is another one.
    #[error(transparent)]
    NoChange(#[from] change::Error),
    /// The name of a gate cannot be read.
    #[error("{0}")]
    NoGate(String),
    /// The plan has no such gate.
    #[error("the plan has no gate {gate}: {gates}")]
    NoSuchGate {
        /// The gate.
        gate: String,
        /// Those that there are.
        gates: String,
    },
    /// Nobody can be asked, and the command line does not name the change.
    #[error(
        "cannot ask for confirmation without a terminal: add --yes, or name the change that you reviewed with --run or --digest"
    )]
    NobodyToAsk,
    /// The difference is cut.
    #[error(
        "the difference from the stable revision is cut, and there is no confirmation: add --full, or name the change that you reviewed with --digest"
    )]
    Cut,
    /// The difference is not known.
    #[error(
        "the difference from the stable revision cannot be shown completely, and there is no confirmation: name the change that you reviewed with --digest"
    )]
    Unknown,
    /// The answer was no.
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
}

impl Approve {
    /// Creates the approval.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let decided = Decided {
            decision: SignOffDecision::Approve,
            aim: self.aim,
            gate: self.gate,
            reason: self.reason,
            expires: self.expires,
        };
        decided.run(connection, self.common).await
    }
}

impl Reject {
    /// Creates the rejection.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let decided = Decided::with_reason(SignOffDecision::Reject, self.aim, self.reason);
        decided.run(connection, self.common).await
    }
}

impl BreakGlass {
    /// Creates the break-glass sign-off.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let decided = Decided::with_reason(SignOffDecision::BreakGlass, self.aim, self.reason);
        decided.run(connection, self.common).await
    }
}

/// A decision with its arguments.
pub struct Decided {
    decision: SignOffDecision,
    aim: Aim,
    gate: Option<GateName>,
    reason: Option<String>,
    expires: Option<Duration>,
}

impl Decided {
    /// A decision whose gate is given by its name, if at all.
    pub fn at_gate(
        decision: SignOffDecision,
        aim: Aim,
        gate: Option<&str>,
        reason: Option<String>,
    ) -> Result<Self, Error> {
        let gate = gate
            .map(str::parse::<GateName>)
            .transpose()
            .map_err(Error::NoGate)?;
        Ok(Self {
            decision,
            aim,
            gate,
            reason,
            expires: None,
        })
    }

    fn with_reason(decision: SignOffDecision, aim: Aim, reason: String) -> Self {
        Self {
            decision,
            aim,
            gate: None,
            reason: Some(reason),
            expires: None,
        }
    }

    const fn verb(&self) -> &'static str {
        match self.decision {
            SignOffDecision::Approve => "approve",
            SignOffDecision::Reject => "reject",
            SignOffDecision::BreakGlass => "break glass for",
        }
    }

    async fn run(self, connection: &Connection, common: Common) -> Result<ExitCode, Failure> {
        let rollout = connection.rollout(&self.aim.rollout).await?;
        let now = clock::now();
        let mut view = View::of(connection, rollout, now).await;
        // On the heap, since the future is large.
        let stable_run = Box::pin(stable_run(connection, &mut view)).await;
        let rollout = &view.rollout;
        // The sign-off is bound to the change shown here, even if the Rollout changes meanwhile.
        let change = self.change(rollout)?;
        if !common.dry_run.is_on() {
            print(&tree::to_sign(&view, change, now));
            let shown = difference::difference(&view, change, stable_run.as_deref(), common.full);
            print(&shown.text);
            let is_asked = !common.yes && confirm::somebody_is_there();
            if !common.yes {
                self.confirm()?;
            }
            self.check_shown(shown.extent, is_asked)?;
        }
        let approver = change::requester(connection).await?;
        let sign_off = self.sign_off(rollout, change, approver);
        let sign_offs = connection.here::<SignOff>();
        let made = common
            .dry_run
            .create(connection, &sign_offs, &sign_off)
            .await?;
        if common.dry_run.shows(&made)? {
            return Ok(ExitCode::SUCCESS);
        }
        print(&self.summary(&made));
        let name = made.name_any();
        Ok(common
            .waiting
            .for_condition(sign_offs, &name, gates::verdict)
            .await)
    }

    /// The change in progress, if it is the requested one and has the gate.
    pub fn change<'a>(&self, rollout: &'a Rollout) -> Result<&'a Change, Error> {
        let change = self.aim.under_way(rollout, self.verb())?;
        self.check_gate(change)?;
        Ok(change)
    }

    fn check_gate(&self, change: &Change) -> Result<(), Error> {
        let steps = change.plan.steps.len();
        let gate = match &self.gate {
            None | Some(GateName::Promotion | GateName::FirstRevision) => return Ok(()),
            Some(gate) => gate,
        };
        let (GateName::Step(number) | GateName::Evidence(number)) = gate else {
            return Ok(());
        };
        if *number <= steps {
            return Ok(());
        }
        Err(Error::NoSuchGate {
            gate: gate.to_string(),
            gates: format!(
                "it has {}, each with step-N and evidence-N, and promotion",
                report::number(steps, "step")
            ),
        })
    }

    /// An approval that nobody is asked to confirm is of what was shown whole, or of the change that the
    /// command line names by its digest. Stopping a change, and an emergency, need no such proof.
    fn check_shown(&self, extent: Extent, is_asked: bool) -> Result<(), Error> {
        let approves = self.decision == SignOffDecision::Approve;
        if is_asked || !approves || self.aim.digest.is_some() {
            return Ok(());
        }
        match extent {
            Extent::Whole => Ok(()),
            Extent::Cut => Err(Error::Cut),
            Extent::Unknown => Err(Error::Unknown),
        }
    }

    /// Asks for confirmation at a terminal; elsewhere `--yes`, `--run` or `--digest` is required.
    fn confirm(&self) -> Result<(), Error> {
        if !confirm::somebody_is_there() {
            return if self.aim.is_exact() {
                Ok(())
            } else {
                Err(Error::NobodyToAsk)
            };
        }
        let gate = self.gate.as_ref().map(|gate| format!(", gate {gate}"));
        let question = format!(
            "{} this change{}?",
            capital(self.verb()),
            gate.unwrap_or_default()
        );
        Ok(confirm::confirm(&question)?)
    }

    /// The SignOff for a change, in the name of a person.
    #[must_use]
    pub fn sign_off(&self, rollout: &Rollout, change: &Change, approver: Person) -> SignOff {
        let expires_at = self.expires.and_then(|expires| {
            let at = clock::now().saturating_add(expires.signed()).ok()?;
            Some(Time(at))
        });
        let spec = SignOffSpec {
            rollout: rollout.name_any(),
            rollout_uid: rollout.uid().unwrap_or_default(),
            run: change.run.clone(),
            digest: change.digest.clone(),
            decision: self.decision,
            gate: self.gate.as_ref().map(ToString::to_string),
            reason: self.reason.clone(),
            approver,
            expires_at,
        };
        let mut sign_off = SignOff::new("", spec);
        sign_off.metadata = change::metadata_about(rollout);
        sign_off
    }

    fn summary(&self, made: &SignOff) -> String {
        let spec = &made.spec;
        let digest: String = spec.digest.chars().take(12).collect();
        let gate = spec.gate.as_ref().map(|gate| format!(" at {gate}"));
        let what = match self.decision {
            SignOffDecision::Approve => "approved",
            SignOffDecision::Reject => "rejected",
            SignOffDecision::BreakGlass => "waved through",
        };
        let line = format!(
            "{} of {} {what}{} by {}: {}",
            digest,
            spec.rollout,
            gate.unwrap_or_default(),
            spec.approver.username,
            made.name_any()
        );
        sanitize(&line) + "\n"
    }
}

/// The RolloutRun of the stable revision. If it cannot be read, that is added to what the view does not show.
pub async fn stable_run(connection: &Connection, view: &mut View) -> Option<Box<RolloutRun>> {
    let status = view.rollout.status.as_ref()?;
    let name = status.stable.as_ref()?.run.clone()?;
    let runs = connection.here::<RolloutRun>();
    match connection.ask(runs.get_opt(&name)).await {
        Ok(run) => run.map(Box::new),
        Err(refusal) => {
            let problem = format!("the record of the stable revision: {refusal}");
            view.unread.push(problem);
            None
        }
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::waiting;

    fn decided(decision: SignOffDecision, gate: Option<&str>) -> Decided {
        Decided {
            decision,
            aim: Aim {
                rollout: "web".into(),
                run: None,
                digest: None,
            },
            gate: gate.map(|gate| gate.parse().unwrap()),
            reason: Some("looks good".into()),
            expires: Some(Duration::minutes(5)),
        }
    }

    #[test]
    fn a_sign_off_is_bound_to_the_change_that_was_shown() {
        let view = waiting();
        let person = Person {
            username: "bob".into(),
            groups: vec!["approvers".into()],
        };
        let decided = decided(SignOffDecision::Approve, Some("step-2"));
        let made = decided.sign_off(&view.rollout, view.change().unwrap(), person.clone());
        assert_eq!(made.metadata.generate_name.as_deref(), Some("web-"));
        assert_eq!(made.metadata.name, None);
        let owner = &made.owner_references()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str()),
            ("Rollout", "uid-web")
        );
        assert_eq!((owner.controller, owner.block_owner_deletion), (None, None));
        let spec = made.spec;
        assert_eq!(spec.run, "web-1a2b3c4d5e-7");
        assert_eq!(spec.digest.len(), 64);
        assert_eq!(spec.rollout_uid, "uid-web");
        assert_eq!(spec.gate.as_deref(), Some("step-2"));
        assert_eq!(spec.approver, person);
        assert!(spec.expires_at.unwrap().0 > clock::now());
    }

    #[test]
    fn gates_are_written_as_the_api_server_reads_them() {
        for text in ["step-1", "promotion", "first-revision", "evidence-12"] {
            assert_eq!(text.parse::<GateName>().unwrap().to_string(), text);
        }
        for text in [
            "step",
            "step-0",
            "step-01",
            "step-x",
            "evidence-",
            "all",
            "promotion-1",
        ] {
            text.parse::<GateName>().unwrap_err();
        }
    }

    #[test]
    fn what_is_not_shown_whole_is_approved_by_its_digest_or_by_who_is_asked() {
        let of = |decision, digest: Option<&str>| {
            let mut decided = decided(decision, None);
            decided.aim.run = Some("web-1a2b3c4d5e-7".into());
            decided.aim.digest = digest.map(ToOwned::to_owned);
            decided
        };
        let approves = of(SignOffDecision::Approve, None);
        assert_eq!(approves.check_shown(Extent::Whole, false), Ok(()));
        assert_eq!(approves.check_shown(Extent::Cut, false), Err(Error::Cut));
        let unknown = approves.check_shown(Extent::Unknown, false);
        assert_eq!(unknown, Err(Error::Unknown));
        let message = Error::Cut.to_string();
        assert!(message.contains("--full") && message.contains("--digest"));
        for extent in [Extent::Cut, Extent::Unknown] {
            assert_eq!(approves.check_shown(extent, true), Ok(()));
            let exact = of(SignOffDecision::Approve, Some("1a2b3c4d"));
            assert_eq!(exact.check_shown(extent, false), Ok(()));
            for decision in [SignOffDecision::Reject, SignOffDecision::BreakGlass] {
                assert_eq!(of(decision, None).check_shown(extent, false), Ok(()));
            }
        }
    }

    #[test]
    fn a_gate_that_the_plan_does_not_have_is_refused() {
        let view = waiting();
        let change = view.change().unwrap();
        for (gate, known) in [
            (Some("step-2"), true),
            (Some("evidence-2"), true),
            (Some("promotion"), true),
            (None, true),
            (Some("step-3"), false),
            (Some("evidence-3"), false),
        ] {
            let checked = decided(SignOffDecision::Approve, gate).check_gate(change);
            assert_eq!(checked.is_ok(), known, "{gate:?}");
        }
    }
}
