//! What people and the surroundings of the operator do to a world.

use super::*;

impl World {
    // What the surroundings do.

    /// The API server counts a change of the Rollout.
    pub fn edit_spec(&self, edit: impl FnOnce(&mut Observation)) -> Self {
        self.with(|next| {
            edit(&mut next.seen);
            next.seen.generation += 1;
            next.version += 1;
        })
    }

    pub fn version_of_template(&self) -> String {
        self.seen.spec.template.images()[0].to_owned()
    }

    pub fn push(&self, version: u8) -> Self {
        let pushed = self.edit_spec(|seen| {
            seen.spec.template.0 = template(version);
            let [author, changer] = people_behind(seen.spec.template.images()[0]);
            let annotations = [(AUTHORS, author), (CHANGED_BY_ANNOTATION, changer)];
            let annotations = annotations.map(|(key, who)| (key.to_owned(), who.to_owned()));
            seen.annotations.extend(annotations);
            for key in ["revision", "approved-revision"] {
                let key = format!("provenance.countersign.dev/{key}");
                seen.annotations.insert(key, version.to_string());
            }
        });
        // Pushing it again requests it again.
        pushed.with(|next| {
            next.condemned.clear();
            next.crashing = false;
            next.steps -= 1;
        })
    }

    /// The error budget begins to burn, or no longer does.
    pub fn burn(&self, on: bool) -> Self {
        let known = |change: &&Change| {
            let mut budgets = change.evidence.objectives.iter();
            budgets.any(|budget| budget.known && !budget.burning)
        };
        let blamed = self.canary().filter(known).map(|change| change.run.clone());
        self.with(|next| (next.burning, next.blamed) = (on, blamed))
    }

    /// Whether the error budget burns through the fault of the change under way.
    pub fn burns(&self) -> bool {
        let run = self.canary().map(|change| &change.run);
        self.burning && run.is_some() && self.blamed.as_ref() == run
    }

    /// Whether any pod could become available.
    pub fn pods_pend(&self) -> bool {
        self.seen
            .replica_sets
            .iter()
            .any(|set| set.available < set.replicas && !self.crashes(set))
    }

    /// Minutes that the present step bakes.
    pub(super) fn bake(&self) -> i64 {
        let step = self.canary().and_then(present_step);
        step.map_or(0, |it| it.bake.signed().as_mins())
    }

    pub fn crashes(&self, set: &ReplicaSet) -> bool {
        let new = self.change().map(|it| it.pod_template_hash.as_str());
        self.crashing && new == Some(&set.hash)
    }

    pub fn pods_come(&self) -> Self {
        let crashes = self.seen.replica_sets.iter();
        let crashes: Vec<_> = crashes.map(|set| self.crashes(set)).collect();
        self.with(|next| {
            for (set, crashes) in next.seen.replica_sets.iter_mut().zip(crashes) {
                if !crashes {
                    (set.available, set.ready) = (set.replicas, set.replicas);
                }
            }
        })
    }

    /// One pod of a revision becomes available.
    pub fn pod_comes(&self, hash: &str) -> Self {
        self.with(|next| {
            for set in &mut next.seen.replica_sets {
                if set.hash == hash {
                    set.available += 1;
                    set.ready = set.available;
                }
            }
        })
    }

    /// Somebody deletes a ReplicaSet, and its pods with it.
    pub fn set_goes(&self, hash: &str) -> Self {
        self.with(|next| next.seen.replica_sets.retain(|set| set.hash != hash))
    }

    pub fn pod_goes(&self, hash: &str) -> Self {
        self.with(|next| {
            for set in &mut next.seen.replica_sets {
                if set.hash == hash {
                    set.available -= 1;
                    set.ready = set.available;
                }
            }
        })
    }

    pub fn pods_crash(&self) -> Self {
        let hash = self.change().map(|it| it.pod_template_hash.clone());
        self.with(|next| {
            next.crashing = true;
            for set in &mut next.seen.replica_sets {
                if Some(&set.hash) == hash.as_ref() {
                    (set.available, set.ready) = (0, 0);
                }
            }
        })
    }

    pub(super) fn endpoints_now(&self) -> BTreeMap<String, BTreeMap<String, i32>> {
        let services = self
            .seen
            .traffic
            .services
            .iter()
            .filter_map(|(name, service)| {
                let hash = service.as_ref()?.selector.get(HASH_LABEL)?;
                let ready = self.set(hash).map_or(0, |set| set.available);
                let behind = (ready > 0).then(|| (hash.clone(), ready));
                Some((name.clone(), behind.into_iter().collect()))
            });
        services.collect()
    }

    pub(super) fn route_is_taken(&self) -> bool {
        self.seen.traffic.routes.iter().all(|route| {
            let object = &route.object.as_ref().unwrap().object;
            let seen = object.pointer("/status/parents/0/conditions/0/observedGeneration");
            seen == object.pointer("/metadata/generation")
        })
    }

    pub fn follows(&self) -> bool {
        self.route_is_taken() && self.seen.traffic.endpoints == self.endpoints_now()
    }

    pub fn follow(&self) -> Self {
        let (endpoints, used) = (self.endpoints_now(), self.used());
        self.with(|next| {
            next.seen.traffic.endpoints = endpoints;
            next.believed = used;
            for route in &mut next.seen.traffic.routes {
                router::accept(&mut route.object.as_mut().unwrap().object);
            }
        })
    }

    /// Somebody else gives the canary half of the traffic.
    pub fn edit_route(&self) -> Self {
        self.with(|next| {
            next.edited = true;
            let route = next.seen.traffic.routes[0].object.as_mut().unwrap();
            route.last_writer = Some("argocd".into());
            let object = &mut route.object;
            for backend in [0, 1] {
                object["spec"]["rules"][0]["backendRefs"][backend]["weight"] = json!(50);
            }
            let generation = object["metadata"]["generation"].as_i64().unwrap();
            object["metadata"]["generation"] = json!(generation + 1);
        })
    }

    pub fn job_runs(&self) -> bool {
        self.seen.jobs().iter().any(|job| job.end.is_none())
    }

    pub fn job_ends(&self, well: bool) -> Self {
        let end = if well {
            JobEnd::Succeeded
        } else {
            JobEnd::Failed {
                reason: "BackoffLimitExceeded".into(),
                message: "Job has reached the specified backoff limit".into(),
            }
        };
        self.with(|next| {
            for job in next.seen.jobs.iter_mut().flatten().flatten() {
                job.end.get_or_insert_with(|| end.clone());
            }
        })
    }

    /// A minute passes, and Prometheus answers the queries.
    pub fn tick(&self) -> Self {
        // A bake stands still once the operator has seen that its pods are missing.
        let unseen = self.reconciled().key != self.key;
        self.with(|next| {
            let stepping = next.canary().is_some_and(|it| it.stage == Stage::Stepping);
            let serves = next.canary_set().is_some_and(|set| set.available > 0);
            next.baked += i64::from(stepping && (serves || unseen));
            // Endpoints take no minute, where no router has to follow them.
            if next.seen.traffic.routes.is_empty() {
                (next.seen.traffic.endpoints, next.believed) = (next.endpoints_now(), next.used());
            }
            next.seen.now = after(next.seen.now, 1);
            // Pods that are not there get no requests.
            let answer = if serves {
                next.evidence
            } else {
                Evidence::NoData
            };
            if next.evidence != Evidence::Away {
                for (_, end) in next.due() {
                    next.log.entry(end).or_insert(answer);
                }
            }
        })
    }

    pub fn sign(
        &self,
        user: &str,
        decision: SignOffDecision,
        gate: Option<String>,
    ) -> Option<Self> {
        let change = self.canary()?.clone();
        let named = |it: &ObservedSignOff| {
            it.spec.run == change.run
                && it.spec.approver.username == user
                && it.spec.decision == decision
                && it.spec.gate == gate
        };
        if self.seen.people.sign_offs.iter().any(named) {
            return None;
        }
        Some(self.with(|next| {
            let number = next.seen.people.sign_offs.len();
            next.seen.people.sign_offs.push(ObservedSignOff {
                name: format!("shop-{number}"),
                uid: format!("sign-off-{number}"),
                created_at: next.seen.now,
                spec: SignOffSpec {
                    rollout: "shop".into(),
                    rollout_uid: "uid".into(),
                    run: change.run,
                    digest: change.digest,
                    decision,
                    gate,
                    reason: Some("so be it".into()),
                    approver: person(user),
                    expires_at: None,
                },
                answer: None,
            });
        }))
    }

    pub fn command(&self, action: InterventionAction) -> Option<Self> {
        let change = self.change()?.clone();
        let pending = intervention::pending(&self.seen, &change);
        if pending.iter().any(|it| it.spec.action == action) {
            return None;
        }
        Some(self.with(|next| {
            if action == InterventionAction::Retry {
                next.condemned.remove(&change.digest);
            }
            let number = next.seen.people.interventions.len();
            next.seen.people.interventions.push(ObservedIntervention {
                name: format!("shop-{number}"),
                uid: format!("intervention-{number}"),
                created_at: next.seen.now,
                version: u64::try_from(number).unwrap(),
                spec: InterventionSpec {
                    rollout: "shop".into(),
                    rollout_uid: "uid".into(),
                    step: (action == InterventionAction::Promote).then_some(change.step),
                    run: change.run,
                    digest: change.digest,
                    action,
                    reason: None,
                    person: person("dana"),
                },
                answered: false,
            });
        }))
    }
}
