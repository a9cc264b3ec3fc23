//! The steps of a canary.
//!
//! A step of Argo Rollouts does one thing; here a step is a weight with what must hold until the next. So the
//! weight, scale and mirror that precede a pause or an analysis are one step, and an indefinite pause is a
//! sign-off that the next step requires.

use std::mem;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::commands::convert::checks::written;
use crate::commands::convert::document::{one_person, put};
use crate::commands::convert::foreign::Field;

/// What the steps depend on.
pub struct Setting {
    /// Number of pods.
    pub replicas: i64,
    /// The weight that stands for all requests.
    pub full_weight: i64,
    /// Whether the canary may run without any share of the requests.
    pub weight_0: bool,
    /// Whether a route can mirror requests.
    pub mirrors: bool,
    /// Whether a route can match headers.
    pub matches_headers: bool,
}

/// The steps, and what else they ask for.
#[derive(Default)]
pub struct Plan<'a> {
    pub steps: Vec<Value>,
    /// Whether a person must sign before the promotion.
    pub promotion_sign_off: bool,
    /// The analyses of steps, with their weights.
    pub analyses: Vec<(Field<'a>, i64)>,
    pub testers: Option<Value>,
    /// Time for which the old pods are kept.
    pub scale_down_delay: Duration,
    /// The weight after each of Argo's steps.
    pub weights: Vec<i64>,
}

struct Step<'a> {
    at: Field<'a>,
    weight: i64,
    scale: Option<i64>,
    mirror: Option<i64>,
    bake: Duration,
    needs_requests: bool,
    sign_off: bool,
    /// Whether its weight was set.
    weighted: bool,
    /// Whether something waits in it.
    settled: bool,
}

impl<'a> Step<'a> {
    fn new(at: &Field<'a>, weight: i64) -> Self {
        Self {
            at: at.clone(),
            weight,
            scale: None,
            mirror: None,
            bake: Duration::ZERO,
            needs_requests: false,
            sign_off: false,
            weighted: false,
            settled: false,
        }
    }

    /// Whether another weight begins another step.
    const fn is_fixed(&self) -> bool {
        self.settled || self.weighted || self.mirror.is_some()
    }

    fn written(&self) -> Value {
        let mut step = Map::new();
        put(&mut step, "weight", Some(self.weight));
        put(&mut step, "scale", self.scale);
        put(&mut step, "mirror", self.mirror);
        let bake = Some(self.bake).filter(|it| !it.is_zero());
        put(&mut step, "bake", bake.map(written));
        // Without it no evidence is asked for at weight 0.
        let requests = self.needs_requests && self.weight == 0;
        put(&mut step, "minRequests", requests.then_some(1_i64));
        put(&mut step, "signOff", self.sign_off.then(one_person));
        step.into()
    }
}

/// The plan of a canary's steps; `span` is how long an analysis takes.
pub fn plan<'a>(
    canary: &Field<'a>,
    setting: &Setting,
    span: &dyn Fn(&Field<'a>) -> Duration,
) -> Plan<'a> {
    let mut planner = Planner {
        setting,
        span,
        weight: 0,
        sign_off: false,
        open: None,
        done: Vec::new(),
        plan: Plan::default(),
    };
    for step in canary.items("steps") {
        planner.read(&step);
        planner.plan.weights.push(planner.weight);
    }
    planner.finish()
}

struct Planner<'a, 'b> {
    setting: &'b Setting,
    span: &'b dyn Fn(&Field<'a>) -> Duration,
    weight: i64,
    /// Whether a person must sign before the next step.
    sign_off: bool,
    open: Option<Step<'a>>,
    done: Vec<Step<'a>>,
    plan: Plan<'a>,
}

impl<'a> Planner<'a, '_> {
    fn read(&mut self, step: &Field<'a>) {
        if let Some(weight) = step.int("setWeight") {
            self.set_weight(step, weight.saturating_mul(100) / self.setting.full_weight);
        }
        if let Some(scale) = step.get("setCanaryScale") {
            self.set_scale(&scale);
        }
        if let Some(mirror) = step.get("setMirrorRoute") {
            self.set_mirror(&mirror);
        }
        if let Some(route) = step.get("setHeaderRoute") {
            self.set_testers(&route);
        }
        if let Some(pause) = step.get("pause") {
            self.pause(&pause);
        }
        if let Some(analysis) = step.get("analysis") {
            self.analyse(analysis);
        }
        if let Some(experiment) = step.get("experiment") {
            experiment.lost("experiments have no counterpart: each check compares the canary with the stable revision, and a step of weight 0 runs it without users");
        }
        if let Some(plugin) = step.get("plugin") {
            plugin.lost("step plugins have no counterpart: require a sign-off instead, or use a smoke check");
        }
    }

    fn set_weight(&mut self, at: &Field<'a>, weight: i64) {
        if weight < self.weight {
            at.decide(&format!(
                "weights never decrease here: the step keeps {}%",
                self.weight
            ));
            return;
        }
        if self.open.as_ref().is_some_and(Step::is_fixed) {
            self.close();
        }
        self.weight = weight.min(100);
        if self.is_full() {
            self.close();
            return;
        }
        let step = self.current(at);
        step.weight = weight;
        step.weighted = true;
    }

    fn set_scale(&mut self, scale: &Field<'a>) {
        let replicas = self.setting.replicas.max(1);
        let pods = |pods: i64| pods.saturating_mul(100).saturating_add(replicas - 1) / replicas;
        let percent = scale.int("weight");
        let percent = percent.or_else(|| scale.int("replicas").map(pods));
        // The least that there is: the weight then decides.
        let matched = scale.flag("matchTrafficWeight").filter(|it| *it);
        let percent = percent.or(matched.map(|_| 1));
        if let Some(percent) = percent
            && !self.is_full()
        {
            self.next(scale).scale = Some(percent.clamp(1, 100));
        }
    }

    fn set_mirror(&mut self, mirror: &Field<'a>) {
        mirror.skip_all(&["name"]);
        let percent = mirror.int("percentage").unwrap_or(100);
        let matches = mirror.items("match");
        if matches.is_empty() {
            // Ends the mirror.
            if !self.is_full() && self.weight == 0 {
                self.next(mirror).mirror = None;
            }
            return;
        }
        let mut of_all = matches.iter().map(|it| {
            let path = it.get("path");
            it.get("method").is_none()
                && it.get("headers").is_none()
                && path.is_some_and(|path| path.text("prefix") == Some("/"))
        });
        if self.weight > 0 || !self.setting.mirrors {
            mirror.dropped("requests are mirrored in steps of weight 0 alone, by an HTTPRoute, a GRPCRoute or a VirtualService");
        } else if of_all.any(|all| all) {
            self.next(mirror).mirror = Some(percent.clamp(1, 100));
        } else {
            mirror.dropped("a mirror copies requests of every kind: set `mirror` in the step if all of them may be made twice");
        }
    }

    fn set_testers(&mut self, route: &Field<'a>) {
        route.skip_all(&["name"]);
        let headers = route.items("match");
        let headers = headers.iter().map(|header| {
            let name = header.text("headerName")?;
            let value = header.get("headerValue")?.text("exact")?;
            Some(json!({ "name": name, "value": value }))
        });
        let headers: Option<Vec<_>> = headers.collect();
        match headers {
            // Ends the route; it exists as long as the canary here.
            Some(headers) if headers.is_empty() => {}
            Some(headers) if self.setting.matches_headers && self.plan.testers.is_none() => {
                self.plan.testers = Some(json!({ "headers": headers }));
            }
            Some(_) if self.setting.matches_headers => {
                route.dropped("there is one route for testers: name all of its headers in traffic.testers");
            }
            Some(_) => {
                route.dropped("testers need an HTTPRoute or a GRPCRoute: in a VirtualService write a rule that sends to the canary's Service");
            }
            None => route.dropped("testers are matched by exact values alone: write a rule of your own that sends to the canary's Service"),
        }
    }

    fn pause(&mut self, pause: &Field<'a>) {
        match pause.span("duration") {
            Some(span) if self.is_full() => {
                self.plan.scale_down_delay = self.plan.scale_down_delay.saturating_add(span);
                pause.decide("at 100% the change is promoted: the old pods are kept for this time, in which a return to them is immediate");
            }
            Some(span) => self.wait(pause, span),
            None => {
                if self.is_full() {
                    pause.decide(
                        "at 100% the change is promoted: the sign-off is required before that",
                    );
                }
                self.sign_off = true;
                if let Some(open) = &mut self.open {
                    open.settled = true;
                }
            }
        }
    }

    fn analyse(&mut self, analysis: Field<'a>) {
        let span = (self.span)(&analysis);
        // Without a canary there is nothing to wait for.
        if !self.is_full() && self.open.is_some() {
            self.wait(&analysis, span);
            self.current(&analysis).needs_requests = true;
        }
        self.plan.analyses.push((analysis, self.weight));
    }

    fn wait(&mut self, at: &Field<'a>, span: Duration) {
        let step = self.current(at);
        step.bake = step.bake.saturating_add(span);
        step.settled = true;
    }

    const fn is_full(&self) -> bool {
        self.weight > 99
    }

    /// The step for what comes next: the present one, unless something waits in it.
    fn next(&mut self, at: &Field<'a>) -> &mut Step<'a> {
        if self.open.as_ref().is_some_and(|it| it.settled) {
            self.close();
        }
        self.current(at)
    }

    /// The present step.
    fn current(&mut self, at: &Field<'a>) -> &mut Step<'a> {
        let (weight, sign_off) = (self.weight, &mut self.sign_off);
        self.open.get_or_insert_with(|| Step {
            sign_off: mem::take(sign_off),
            ..Step::new(at, weight)
        })
    }

    fn close(&mut self) {
        self.done.extend(self.open.take());
    }

    fn finish(mut self) -> Plan<'a> {
        self.close();
        let mut sign_off = false;
        for mut step in self.done {
            step.sign_off |= mem::take(&mut sign_off);
            if step.weight > 0 || self.setting.weight_0 {
                self.plan.steps.push(step.written());
                continue;
            }
            sign_off = step.sign_off;
            if step.settled {
                step.at.lost("a canary without a share of the requests needs traffic.routes, or stableService and canaryService");
            }
        }
        self.plan.promotion_sign_off = sign_off || self.sign_off;
        self.plan
    }
}
