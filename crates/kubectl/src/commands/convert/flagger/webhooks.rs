//! Webhooks: those that confirm are sign-offs; others that held a promotion are lost.

use serde_json::{Map, Value};

use crate::commands::convert::document::{one_person, put};
use crate::commands::convert::foreign::{Field, NOTIFY};

/// What people must sign.
#[derive(Default)]
pub struct Gates {
    first_step: bool,
    every_step: bool,
    promotion: bool,
}

impl Gates {
    /// The gates of an analysis.
    pub fn of(analysis: &Field<'_>) -> Self {
        let mut gates = Self::default();
        for webhook in analysis.items("webhooks") {
            gates.add(&webhook);
        }
        if gates.first_step || gates.every_step || gates.promotion {
            analysis.decide("a webhook that confirms is a sign-off by one person: name groups, or bind the role countersign-approver; after waitAtMost the change is rolled back, where Flagger waits");
        }
        gates
    }

    fn add(&mut self, webhook: &Field<'_>) {
        match webhook.text("type").unwrap_or("rollout") {
            "confirm-rollout" => self.first_step = true,
            "confirm-traffic-increase" => self.every_step = true,
            "confirm-promotion" => self.promotion = true,
            "event" => webhook.decide(NOTIFY),
            "post-rollout" => {
                webhook.dropped("has no counterpart: wait for the outcome by `kubectl countersign status NAME --wait`");
                return;
            }
            "rollout" if starts_load(webhook) => {
                webhook.dropped("it only starts load, whose result is not awaited: run the load beside the Rollout");
                return;
            }
            "pre-rollout" => {
                webhook.lost("write what it tests as a smoke check, a Job that runs before the first pod of the canary exists (docs/smoke.md)");
                return;
            }
            "rollback" => {
                webhook.lost("no webhook decides whether to roll back: let it create an Intervention with `action: Abort`");
                return;
            }
            _ => {
                webhook.lost("webhooks are not called: write a check for what it measures, or require a sign-off");
                return;
            }
        }
        webhook.skip();
    }

    /// Adds the sign-offs to the steps and the strategy.
    pub fn require(&self, steps: &mut [Map<String, Value>], strategy: &mut Map<String, Value>) {
        let has_steps = !steps.is_empty();
        for (index, step) in steps.iter_mut().enumerate() {
            let is_gated = self.every_step || (self.first_step && index == 0);
            put(step, "signOff", is_gated.then(one_person));
        }
        let before_any = self.first_step && !has_steps;
        let promotion = self.promotion || self.every_step || before_any;
        put(strategy, "promotionSignOff", promotion.then(one_person));
    }
}

/// Whether Flagger's load tester runs a command in the background, which cannot fail.
fn starts_load(webhook: &Field<'_>) -> bool {
    let Some(metadata) = webhook.get("metadata") else {
        return false;
    };
    let command = metadata.text("cmd").is_some();
    command && matches!(metadata.text("type"), None | Some("cmd"))
}
