//! `freeze` and `unfreeze`: hold promotions during an incident; rollbacks continue.

use std::collections::BTreeMap;
use std::process::ExitCode;

use countersign_api::{self as api, FreezeAction, FreezeSpec, Person, Selector, Tier};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::clock;
use crate::cluster::change::requester;
use crate::cluster::changer::retried;
use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::cluster::type_name;
use crate::cluster::write::DryRun;
use crate::failure::Failure;
use crate::output::{print, remark};
use countersign_core::text::sanitize;

/// The label that every namespace has.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Hold promotions of all or the selected Rollouts until the freeze ends
///
/// Rollbacks and analysis continue. With -n only that namespace is frozen, otherwise all namespaces.
#[derive(Clone, Debug, clap::Args)]
pub struct Freeze {
    /// Name of the freeze; generated if omitted
    name: Option<String>,
    /// Reason, shown on every held Rollout
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Duration, such as 2h; if neither --for nor --until is set, the freeze lasts until `unfreeze`
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    length: Option<api::Duration>,
    /// End time, such as 2026-12-24T18:00:00Z
    #[arg(long, value_name = "WHEN")]
    until: Option<Timestamp>,
    /// Label selector for namespaces (e.g. --namespace-selector team=shop,env=prod)
    #[arg(long, value_name = "LABELS", value_parser = selector)]
    namespace_selector: Option<Selector>,
    /// Label selector for Rollouts (e.g. -l key1=value1,key2=value2)
    #[arg(short = 'l', long, value_name = "LABELS", value_parser = selector)]
    selector: Option<Selector>,
    /// Tier of the changes to hold. One of: (low, medium, high, critical). This flag can be repeated
    #[arg(long = "tier", value_name = "TIER", value_parser = tier)]
    tiers: Vec<Tier>,
    /// Roll back changes in progress instead of holding them
    #[arg(long)]
    roll_back: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

/// End a freeze: held changes continue from their current step
///
/// The Freeze object remains as the record of who ended the freeze, and when.
#[derive(Clone, Debug, clap::Args)]
pub struct Unfreeze {
    /// Name of the freeze
    #[arg(value_parser = type_name::freeze)]
    name: String,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Why a freeze was not created or ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The freeze would have ended before it begins.
    #[error(
        "the freeze would end at {0:.0}, which is in the past: give --until a time in the future"
    )]
    Over(Timestamp),
    /// Namespaces are chosen twice.
    #[error("-n and --namespace-selector both choose namespaces: give one of them")]
    TwoSelectors,
    /// There is a freeze of that name.
    #[error(
        "freeze {0:?} exists already, and remains as a record after its end: give another name, or none"
    )]
    Taken(String),
    /// There is no freeze of that name.
    #[error("there is no freeze {name:?}; {there}")]
    NoFreeze {
        /// The name.
        name: String,
        /// Those in force.
        there: String,
    },
    /// The freeze is over.
    #[error("freeze {name:?} has ended already, at {at:.0}")]
    Ended {
        /// The name.
        name: String,
        /// When it ended.
        at: Timestamp,
    },
}

fn selector(text: &str) -> Result<Selector, String> {
    let pair = |label: &str| {
        let (key, value) = label.split_once('=')?;
        let fine = !key.is_empty() && !key.ends_with('!') && !value.starts_with('=');
        fine.then(|| (key.trim().to_owned(), value.trim().to_owned()))
    };
    let labels: Option<BTreeMap<_, _>> = text.split(',').map(pair).collect();
    labels
        .map(|match_labels| Selector { match_labels })
        .ok_or_else(|| {
            "write labels as key=value,key=value: other selectors are not supported".into()
        })
}

fn tier(text: &str) -> Result<Tier, String> {
    let named = |tier: &Tier| tier.as_str() == text;
    Tier::ALL
        .into_iter()
        .find(named)
        .ok_or_else(|| "write low, medium, high or critical".into())
}

impl Freeze {
    /// A freeze until this time or of this length, or without an end, of these tiers, or of all.
    #[must_use]
    pub fn of(
        reason: String,
        until: Option<Timestamp>,
        length: Option<api::Duration>,
        tiers: Vec<Tier>,
        roll_back: bool,
    ) -> Self {
        Self {
            name: None,
            reason,
            length,
            until,
            namespace_selector: None,
            selector: None,
            tiers,
            roll_back,
            dry_run: DryRun::default(),
        }
    }

    /// Creates the Freeze.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let person = requester(connection).await?;
        let dry_run = self.dry_run;
        let freeze = self.object(connection.named_namespace(), person, clock::now())?;
        let freezes = connection.cluster::<api::Freeze>();
        match dry_run.create(connection, &freezes, &freeze).await {
            Ok(made) => {
                if !dry_run.shows(&made)? {
                    print(&summary(&made));
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(Refusal::Exists(_)) => Err(Error::Taken(freeze.name_any()).into()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The Freeze of this namespace, or of all, in the name of a person.
    pub fn object(
        self,
        namespace: Option<&str>,
        person: Person,
        now: Timestamp,
    ) -> Result<api::Freeze, Error> {
        let length = self
            .length
            .and_then(|length| now.saturating_add(length.signed()).ok());
        let until = self.until.or(length);
        if let Some(until) = until.filter(|until| *until <= now) {
            return Err(Error::Over(until));
        }
        let namespace_selector = match (namespace, self.namespace_selector) {
            (Some(_), Some(_)) => return Err(Error::TwoSelectors),
            (Some(name), None) => Some(Selector {
                match_labels: BTreeMap::from([(NAMESPACE_NAME.into(), name.into())]),
            }),
            (None, selector) => selector,
        };
        let spec = FreezeSpec {
            reason: self.reason,
            namespace_selector,
            rollout_selector: self.selector,
            tiers: self.tiers,
            until: until.map(Time),
            action: if self.roll_back {
                FreezeAction::RollBack
            } else {
                FreezeAction::Hold
            },
            person,
        };
        let mut freeze = api::Freeze::new("", spec);
        freeze.metadata = ObjectMeta {
            generate_name: self.name.is_none().then(|| "freeze-".into()),
            name: self.name,
            ..ObjectMeta::default()
        };
        Ok(freeze)
    }
}

/// The created freeze in a sentence: scope, end and how to end it.
fn summary(freeze: &api::Freeze) -> String {
    let spec = &freeze.spec;
    let selected = |what: &str, selector: &Option<Selector>| {
        selector
            .as_ref()
            .map(|selector| format!(" {what} {selector}"))
            .unwrap_or_default()
    };
    let tiers: Vec<_> = spec.tiers.iter().map(|tier| tier.as_str()).collect();
    let tiers = if tiers.is_empty() {
        String::new()
    } else {
        format!(" of tier {}", tiers.join(" or "))
    };
    let until = spec.until.as_ref().map_or_else(
        || "until somebody ends it".to_owned(),
        |until| format!("until {:.0}", until.0),
    );
    let name = freeze.name_any();
    let line = format!(
        "freeze {name}: promotions{tiers} wait{}{} {until}; `kubectl countersign unfreeze {name}` ends it",
        selected("in namespaces with", &spec.namespace_selector),
        selected("for Rollouts with", &spec.rollout_selector),
    );
    sanitize(&line) + "\n"
}

impl Unfreeze {
    /// Ends the freeze now.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let freezes = connection.cluster::<api::Freeze>();
        let now = clock::now();
        let ended = retried(async || {
            let freeze = self.freeze(connection, &freezes, now).await?;
            let person = requester(connection).await?;
            let patch = lift(&freeze, &person, now);
            let ended = self.dry_run.merge(connection, &freezes, &freeze, patch);
            Ok(ended.await)
        })
        .await?;
        if self.dry_run.shows(&ended)? {
            return Ok(ExitCode::SUCCESS);
        }
        print(&end_summary(&ended, now));
        remark("Other freezes, and those of policies, continue: `kubectl get cfz` lists them.");
        Ok(ExitCode::SUCCESS)
    }

    /// The freeze as it is, if it is in force.
    async fn freeze(
        &self,
        connection: &Connection,
        freezes: &Api<api::Freeze>,
        now: Timestamp,
    ) -> Result<api::Freeze, Failure> {
        let freeze = match connection.ask(freezes.get(&self.name)).await {
            Ok(freeze) => freeze,
            Err(Refusal::NotFound { .. }) => {
                let all = ListParams::default();
                let others = connection.ask(freezes.list(&all)).await?;
                return Err(no_freeze(self.name.clone(), &others.items, now).into());
            }
            Err(refusal) => return Err(refusal.into()),
        };
        match ended_at(&freeze, now) {
            None => Ok(freeze),
            Some(at) => {
                let name = self.name.clone();
                Err(Error::Ended { name, at }.into())
            }
        }
    }
}

/// The patch that ends the freeze at this resource version, with the user who ends it.
fn lift(freeze: &api::Freeze, person: &Person, now: Timestamp) -> Value {
    json!({
        "metadata": { "resourceVersion": freeze.resource_version() },
        "spec": {
            "until": Time(now),
            "person": { "username": person.username, "groups": person.groups },
        },
    })
}

/// The ended freeze in a sentence: who ended it, when, and where that is recorded.
fn end_summary(freeze: &api::Freeze, now: Timestamp) -> String {
    let (name, by) = (freeze.name_any(), &freeze.spec.person.username);
    let line = format!(
        "freeze {name} has ended, by {by} at {now:.0}; it remains as the record: `kubectl get freeze {name}`"
    );
    sanitize(&line) + "\n"
}

/// When a freeze ended, if it has.
fn ended_at(freeze: &api::Freeze, now: Timestamp) -> Option<Timestamp> {
    let until = freeze.spec.until.as_ref().map(|until| until.0);
    until.filter(|until| *until <= now)
}

fn no_freeze(name: String, others: &[api::Freeze], now: Timestamp) -> Error {
    let in_force = others.iter().filter(|it| ended_at(it, now).is_none());
    let names: Vec<_> = in_force.map(ResourceExt::name_any).collect();
    let there = if names.is_empty() {
        "none is in force (freezes of policies end with their windows and incidents)".into()
    } else {
        format!("in force: {}", names.join(", "))
    };
    Error::NoFreeze { name, there }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::now;

    fn parsed(arguments: &[&str]) -> Freeze {
        use clap::{Args, FromArgMatches};
        let command = Freeze::augment_args(clap::Command::new("x").no_binary_name(true));
        Freeze::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
    }

    fn object(arguments: &[&str], namespace: Option<&str>) -> Result<api::Freeze, Error> {
        parsed(arguments).object(namespace, Person::default(), now())
    }

    #[test]
    fn by_default_everything_is_held_until_somebody_ends_the_freeze() {
        let freeze = object(&["--reason", "down"], None).unwrap();
        let spec = &freeze.spec;
        assert_eq!((spec.action, &spec.until), (FreezeAction::Hold, &None));
        assert_eq!(
            (&spec.namespace_selector, &spec.rollout_selector),
            (&None, &None)
        );
        assert_eq!(freeze.metadata.generate_name.as_deref(), Some("freeze-"));
        assert!(summary(&freeze).contains("wait until somebody ends it; `kubectl"));
    }

    #[test]
    fn a_new_freeze_is_printed_with_its_scope_and_its_end() {
        let arguments = [
            "incident-42",
            "--reason",
            "down",
            "--for",
            "2h",
            "--tier",
            "high",
            "--tier",
            "critical",
            "-l",
            "app=web",
            "--roll-back",
        ];
        let freeze = object(&arguments, Some("shop")).unwrap();
        assert_eq!(freeze.spec.action, FreezeAction::RollBack);
        assert_eq!(
            summary(&freeze),
            "freeze incident-42: promotions of tier high or critical wait in namespaces with kubernetes.io/metadata.name=shop for Rollouts with app=web until 2026-03-01T14:10:00Z; `kubectl countersign unfreeze incident-42` ends it\n"
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let over = object(&["--reason", "x", "--until", "2026-03-01T12:00:00Z"], None);
        assert!(matches!(over.unwrap_err(), Error::Over(_)));
        let over = object(&["--reason", "x", "--for", "0s"], None);
        assert!(matches!(over.unwrap_err(), Error::Over(_)));
        let two = object(
            &["--reason", "x", "--namespace-selector", "a=b"],
            Some("shop"),
        );
        assert_eq!(two.unwrap_err(), Error::TwoSelectors);
        for wrong in ["app", "app!=web", "app==web", "=x", "app in (a)"] {
            assert!(selector(wrong).is_err(), "{wrong}");
        }
        assert_eq!(selector("a=b,c=d").unwrap().to_string(), "a=b,c=d");
    }

    /// A freeze of this name, with an end or without.
    fn named(name: &str, until: Option<&str>) -> api::Freeze {
        let mut freeze = object(&[name, "--reason", "x"], None).unwrap();
        freeze.metadata.resource_version = Some("7".into());
        freeze.spec.until = until.map(|until| Time(until.parse().unwrap()));
        freeze
    }

    #[test]
    fn a_wrong_name_lists_those_that_are_in_force() {
        let all = [
            named("open", None),
            named("over", Some("2026-03-01T12:10:00Z")),
            named("longer", Some("2026-03-01T12:10:01Z")),
        ];
        let ends = all.each_ref().map(|freeze| ended_at(freeze, now()));
        assert_eq!(ends, [None, Some(now()), None]);
        assert_eq!(
            no_freeze("two".into(), &all, now()).to_string(),
            "there is no freeze \"two\"; in force: open, longer"
        );
        let none = no_freeze("two".into(), &all[1..2], now()).to_string();
        assert!(none.contains("none is in force"), "{none}");
    }

    #[test]
    fn the_end_of_a_freeze_names_who_ended_it_and_is_for_the_freeze_that_was_seen() {
        let erin = Person {
            username: "erin".into(),
            groups: vec!["oncall".into()],
        };
        let mut freeze = named("one", None);
        let expected = json!({
            "metadata": { "resourceVersion": "7" },
            "spec": {
                "until": "2026-03-01T12:10:00Z",
                "person": { "username": "erin", "groups": ["oncall"] },
            },
        });
        assert_eq!(lift(&freeze, &erin, now()), expected);
        freeze.spec.person = erin;
        assert_eq!(
            end_summary(&freeze, now()),
            "freeze one has ended, by erin at 2026-03-01T12:10:00Z; it remains as the record: `kubectl get freeze one`\n"
        );
    }
}
