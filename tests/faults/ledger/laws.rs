//! The laws, checked on two versions of a Rollout that follow each other.

use super::*;

/// The relevant fields of a ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) hash: String,
    pub(super) revision: i64,
    pub(super) requested: i32,
    pub(super) available: i32,
}

/// A Rollout and its objects at one version.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) rollout: Option<Rollout>,
    pub(super) sets: BTreeMap<String, Set>,
    /// Outcomes by revision; empty while there is none.
    pub(super) runs: BTreeMap<i64, String>,
    /// Sign-offs by name.
    pub(super) sign_offs: BTreeMap<String, SignOffSpec>,
    pub(super) services: BTreeMap<String, Option<String>>,
    pub(super) route: Option<i64>,
    /// Digests that were rolled back.
    pub(super) failed: BTreeSet<String>,
    /// Weights of the changes under way, in order, from the first step on: whether one waited before is no matter.
    pub(super) weights: Vec<i32>,
    /// The requested pods at the last scale-down. The pods terminate later, when more may be requested.
    pub(super) wanted: Option<i32>,
    pub(super) tale: VecDeque<String>,
}

impl State {
    pub(super) fn take(&mut self, entry: &Entry) {
        let (name, data) = (entry.object.name_any(), &entry.object.data);
        let number = |path: &str| {
            let number = data.pointer(path).and_then(Value::as_i64);
            i32::try_from(number.unwrap_or_default()).unwrap()
        };
        let text = |path: &str| {
            data.pointer(path)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned)
        };
        self.tale.push_back(line(entry));
        if self.tale.len() > LINES {
            self.tale.pop_front();
        }
        match entry.kind {
            "Rollout" if entry.deleted => self.rollout = None,
            "Rollout" => {
                let object = serde_json::to_value(&entry.object).unwrap();
                self.rollout = Some(serde_json::from_value(object).unwrap());
                let change = self.status().and_then(|status| status.change.clone());
                if let Some(change) = change.filter(|change| !change.initial) {
                    if change.outcome == Some(Outcome::RolledBack) {
                        self.failed.insert(change.digest);
                    } else if change.outcome.is_none()
                        && change.weight > 0
                        && self.weights.last() != Some(&change.weight)
                    {
                        self.weights.push(change.weight);
                    }
                }
            }
            "ReplicaSet" if entry.deleted => drop(self.sets.remove(&name)),
            "ReplicaSet" => {
                let revision = entry.object.annotations().get(REVISION_ANNOTATION);
                let hash = entry.object.labels().get(HASH_LABEL);
                let set = Set {
                    hash: hash.cloned().unwrap_or_default(),
                    revision: revision.and_then(|it| it.parse().ok()).unwrap_or_default(),
                    requested: number("/spec/replicas"),
                    available: number("/status/availableReplicas"),
                };
                let before = self.sets.insert(name, set.clone());
                let is_less = before.is_some_and(|before| set.requested < before.requested);
                if let Some(rollout) = self.rollout.as_ref().filter(|_| is_less) {
                    self.wanted = Some(rollout.spec.replicas);
                }
            }
            "RolloutRun" if entry.deleted => {
                drop(self.runs.remove(&number("/spec/revision").into()));
            }
            "RolloutRun" => {
                let outcome = text("/spec/progress/outcome").unwrap_or_default();
                self.runs.insert(number("/spec/revision").into(), outcome);
            }
            "SignOff" if entry.deleted => drop(self.sign_offs.remove(&name)),
            "SignOff" => {
                let spec = serde_json::from_value(data["spec"].clone()).unwrap();
                self.sign_offs.insert(name, spec);
            }
            "Service" => drop(
                self.services
                    .insert(name, text("/spec/selector/pod-template-hash")),
            ),
            _ => self.route = canary_weight(data),
        }
    }

    pub(super) fn status(&self) -> Option<&RolloutStatus> {
        self.rollout.as_ref()?.status.as_ref()
    }

    fn set(&self, hash: &str) -> Set {
        let mut sets = self.sets.values();
        sets.find(|set| set.hash == hash)
            .cloned()
            .unwrap_or_default()
    }

    fn available(&self) -> i32 {
        self.sets.values().map(|set| set.available).sum()
    }
}

/// Whether and how a version of a Rollout has left one of its steps.
pub(super) fn rise(before: &State, after: &State, entry: &Entry) -> Option<Rise> {
    let (same, change) = under_way(before, after)?;
    let left = usize::try_from(same.step).ok()?.checked_sub(1)?;
    let step = change.plan.steps.get(left)?;
    (change.step > same.step || is_promoted(change.stage) && !is_promoted(same.stage)).then(|| {
        Rise {
            rollout: entry.rollout.clone(),
            time: entry.time,
            hash: change.pod_template_hash.clone(),
            from: same.step,
            least: if change.checks.is_empty() {
                0
            } else {
                step.min_requests
            },
        }
    })
}

fn is_promoted(stage: Stage) -> bool {
    matches!(stage, Stage::Promoting | Stage::Promoted)
}

/// The change in progress that has not failed since, before and after.
fn under_way<'a>(before: &'a State, after: &'a State) -> Option<(&'a Change, &'a Change)> {
    let same = before
        .status()?
        .change
        .as_ref()
        .filter(|it| it.outcome.is_none())?;
    let change = after
        .status()?
        .change
        .as_ref()
        .filter(|it| it.run == same.run)?;
    let failed = change.outcome.is_some_and(|it| it != Outcome::Promoted);
    (!change.initial && !failed).then_some((same, change))
}

/// Missing sign-offs at the gates that a version of a Rollout has passed (law 2).
fn unsigned(before: &State, after: &State) -> Vec<String> {
    let Some((same, change)) = under_way(before, after) else {
        return vec![];
    };
    let step = |step: i32| {
        let demands = change.plan.steps.get(usize::try_from(step - 1).unwrap());
        (
            format!("step-{step}"),
            demands.map_or(&[][..], |it| &it.sign_off),
        )
    };
    let mut passed: Vec<_> = (same.step + 1..=change.step).map(step).collect();
    if is_promoted(change.stage) && !is_promoted(same.stage) {
        passed.push(("promotion".into(), &change.plan.promotion_sign_off));
    }
    let rollout = after.rollout.as_ref();
    let changer = rollout.and_then(|it| it.annotations().get(CHANGED_BY_ANNOTATION));
    let missing = passed.into_iter().flat_map(|(gate, demands)| {
        let counts = |it: &&SignOffSpec| {
            it.digest == change.digest
                && it.run == change.run
                && it.decision != SignOffDecision::Reject
                && it.gate.as_ref().is_none_or(|own| *own == gate)
                && Some(&it.approver.username) != changer
        };
        let counted: Vec<_> = after.sign_offs.values().filter(counts).collect();
        let lacks = demands.iter().filter(move |demand| {
            let is_one = |it: &&&SignOffSpec| {
                let groups = &it.approver.groups;
                demand.groups.is_empty() || demand.groups.iter().any(|it| groups.contains(it))
            };
            let people: BTreeSet<_> = counted
                .iter()
                .filter(is_one)
                .map(|it| &it.approver.username)
                .collect();
            people.len() < usize::try_from(demand.count).unwrap()
        });
        lacks.map(move |demand| format!("{gate} passed without {demand:?}"))
    });
    missing.collect()
}

fn canary_weight(route: &Value) -> Option<i64> {
    route
        .pointer("/spec/rules/0/backendRefs/1/weight")?
        .as_i64()
}

/// The checks of each version, by the numbers of the design's laws.
pub(super) fn judge(before: &State, after: &State, entry: &Entry) -> Vec<String> {
    let mut broken = Vec::new();
    let mut expect = |law: u8, holds: bool, what: String| {
        if !holds {
            broken.push(format!("law {law}: {what}"));
        }
    };
    for (revision, ended) in before.runs.iter().filter(|(_, ended)| !ended.is_empty()) {
        let now = after.runs.get(revision);
        let stays = now.is_none_or(|now| now == ended || now == "RolledBack");
        expect(
            5,
            stays,
            format!("the record of revision {revision} ended {ended}, then {now:?}"),
        );
    }
    let (Some(rollout), Some(status)) = (&after.rollout, after.status()) else {
        return broken;
    };
    let hashes: BTreeSet<_> = after.sets.values().map(|set| &set.hash).collect();
    expect(
        5,
        hashes.len() == after.sets.len(),
        format!("two ReplicaSets of one revision: {hashes:?}"),
    );
    let (Some(stable), desired) = (&status.stable, rollout.spec.replicas) else {
        return broken;
    };
    if entry.kind == "ReplicaSet" {
        // Availability grows as pods start, but must not fall.
        let wanted = after.wanted.unwrap_or(desired).min(desired);
        let enough = wanted.min(before.available());
        expect(
            4,
            after.available() >= enough,
            format!("{} of {desired} pods are available", after.available()),
        );
    }
    let Some(change) = status.change.as_ref().filter(|change| !change.initial) else {
        return broken;
    };
    let same = before.status().and_then(|status| status.change.as_ref());
    let same = same.filter(|same| same.run == change.run);
    let canary = after.set(&change.pod_template_hash);
    let route = after
        .route
        .and_then(|it| i32::try_from(it).ok())
        .unwrap_or_default();
    if change.outcome.is_none() {
        let weight = change.weight;
        if after.route.is_none() {
            let beside = after.set(&stable.pod_template_hash).requested.max(desired);
            let most = if weight == 0 {
                0
            } else {
                (weight * beside / (100 - weight).max(1)).max(1)
            };
            expect(
                1,
                canary.requested <= most,
                format!("{} canary pods at weight {weight}", canary.requested),
            );
        }
        expect(
            1,
            route <= weight,
            format!("the route has weight {route} at {weight}"),
        );
        if before.route < after.route {
            let enough = canary.available * 100 >= desired * route;
            expect(
                1,
                enough,
                format!(
                    "the route rose to {route} with {} canary pods",
                    canary.available
                ),
            );
        }
        let again = before.failed.contains(&change.digest);
        expect(8, !again, "what failed is tried again".into());
    }
    for missing in unsigned(before, after) {
        expect(2, false, missing);
    }
    let Some(same) = same else { return broken };
    if let Some(ended) = same.outcome {
        let recalled = ended == Outcome::Promoted && change.outcome == Some(Outcome::RolledBack);
        let stays = change.outcome == Some(ended) || recalled;
        expect(
            5,
            stays,
            format!("it ended {ended:?} and then {:?}", change.outcome),
        );
        if ended == Outcome::RolledBack && canary.hash != stable.pod_template_hash {
            let was = before.set(&change.pod_template_hash).requested;
            expect(
                3,
                canary.requested <= was,
                format!(
                    "the rejected canary grew from {was} to {}",
                    canary.requested
                ),
            );
            expect(
                3,
                after.route <= before.route,
                "the rejected canary got traffic".into(),
            );
        }
    } else if change.outcome.is_none() {
        expect(
            1,
            change.step - same.step <= 1,
            format!("step {} to {}", same.step, change.step),
        );
        expect(
            1,
            change.weight >= same.weight,
            format!("weight {} to {}", same.weight, change.weight),
        );
        expect(
            7,
            change.tier >= same.tier,
            format!("tier {} to {}", same.tier, change.tier),
        );
    }
    expect(
        9,
        change.transitions.len() >= same.transitions.len(),
        "lines of its story were lost".into(),
    );
    broken
}
