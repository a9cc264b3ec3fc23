//! The examples in the help of each command, in kubectl's form.

/// `check`.
pub const CHECK: &str = "Examples:
  # The installation and your permissions
  kubectl countersign check

  # The series of the checks of Rollout web
  kubectl countersign check web --prometheus monitoring/prometheus:9090

  # What would remain without the operator
  kubectl countersign check --before-uninstall";
/// `get`.
pub const GET: &str = "Examples:
  # The Rollouts of all namespaces
  kubectl countersign get -A

  # Follow a Rollout
  kubectl countersign get rollout/web -w

  # The Rollouts that wait for people
  kubectl countersign get -A --field-selector status.phase=AwaitingSignOff -o name

  # One field of each
  kubectl countersign get -o custom-columns=NAME:.metadata.name,TIER:.status.tier";
/// `status`.
pub const STATUS: &str = "Examples:
  # The state of a Rollout
  kubectl countersign status web

  # Wait for the outcome of its change, for scripts
  kubectl countersign status web --wait --timeout 2h

  # Wait until it is promoted
  kubectl countersign status web --for=promoted --timeout 2h";
/// `watch`.
pub const WATCH: &str = "Examples:
  # The state of a Rollout, live
  kubectl countersign watch web";
/// `dashboard`.
pub const DASHBOARD: &str = "Examples:
  # All Rollouts that you may see, in a browser
  kubectl countersign dashboard -A

  # Read-only, on a fixed port
  kubectl countersign dashboard -n shop --read-only --no-browser --port 8090";
/// `history`.
pub const HISTORY: &str = "Examples:
  # The changes of a Rollout
  kubectl countersign history web -o wide

  # The changes of the Rollouts `web` in all namespaces
  kubectl countersign history -A --field-selector spec.rollout=web";
/// `approve`.
pub const APPROVE: &str = "Examples:
  # Show the change, and approve it after confirmation
  kubectl countersign approve web

  # Approve one gate for 4 hours
  kubectl countersign approve web --gate promotion --expires 4h

  # Approve the change that you reviewed, in a script
  kubectl countersign approve web --digest 1a2b3c4d

  # Print the SignOff that the API server would store
  kubectl countersign approve web --yes --dry-run=server";
/// `reject`.
pub const REJECT: &str = "Examples:
  # Reject the change in progress
  kubectl countersign reject web --reason 'wrong customer'";
/// `break-glass`.
pub const BREAK_GLASS: &str = "Examples:
  # Continue past every bake, freeze, error budget, sign-off and queue
  kubectl countersign break-glass web --reason INC-1234";
/// `promote`.
pub const PROMOTE: &str = "Examples:
  # Skip the rest of the current bake
  kubectl countersign promote web --reason 'seen enough'

The exit code is 0 if the intervention was applied, 1 if it was not, 3 if the controller has not
answered within 15 s.";
/// `abort`.
pub const ABORT: &str = "Examples:
  # Roll back the change in progress
  kubectl countersign abort web

The exit code is 0 if the intervention was applied, 1 if it was not, 3 if the controller has not
answered within 15 s.";
/// `retry`.
pub const RETRY: &str = "Examples:
  # Try a rolled-back change once more
  kubectl countersign retry web

The exit code is 0 if the intervention was applied, 1 if it was not, 3 if the controller has not
answered within 15 s.";
/// `pause`.
pub const PAUSE: &str = "Examples:
  # Pause the change in progress
  kubectl countersign pause web --reason 'wait for the team'

The exit code is 0 if the intervention was applied, 1 if it was not, 3 if the controller has not
answered within 15 s.";
/// `resume`.
pub const RESUME: &str = "Examples:
  # Resume a paused change
  kubectl countersign resume web

The exit code is 0 if the intervention was applied, 1 if it was not, 3 if the controller has not
answered within 15 s.";
/// `undo`.
pub const UNDO: &str = "Examples:
  # Back to the stable revision while a change is in progress, else to the one before
  kubectl countersign undo web

  # Back to a revision
  kubectl countersign undo web --to-revision 3

  # Print the Rollout that would be applied
  kubectl countersign undo web --dry-run=client";
/// `restart`.
pub const RESTART: &str = "Examples:
  # Restart the pods of a Rollout
  kubectl countersign restart web";
/// `migrate`.
pub const MIGRATE: &str = "Examples:
  # Print what would happen
  kubectl countersign migrate deployment/web --dry-run=server

  # Migrate without a confirmation prompt
  kubectl countersign migrate web --yes --timeout 20m";
/// `unmigrate`.
pub const UNMIGRATE: &str = "Examples:
  # Return the pods to the Deployment
  kubectl countersign unmigrate web";
/// `freeze`.
pub const FREEZE: &str = "Examples:
  # Hold all promotions for two hours
  kubectl countersign freeze inc-1 --reason 'payments are down' --for 2h

  # Hold risky changes of one namespace
  kubectl countersign freeze --reason audit -n shop --tier high --tier critical";
/// `unfreeze`.
pub const UNFREEZE: &str = "Examples:
  # End a freeze
  kubectl countersign unfreeze inc-1";
/// `policy`.
pub const POLICY: &str = "Examples:
  # The built-in policy, to start from
  kubectl countersign policy > policy.yaml";
/// `crds`.
pub const CRDS: &str = "Examples:
  # Install the definitions
  kubectl countersign crds | kubectl apply --server-side -f -";
/// `completion`.
pub const COMPLETION: &str = "Examples:
  # Completion in the current shell
  kubectl countersign completion bash

  # Completion of `kubectl countersign`
  kubectl countersign completion kubectl > /usr/local/bin/kubectl_complete-countersign";
/// `explain`.
pub const EXPLAIN: &str = "Examples:
  # Risk and plan of a change
  kubectl countersign explain -f new.yaml --stable old.yaml --policy policy.yaml";
/// `convert`.
pub const CONVERT: &str = "Examples:
  # A Rollout of Argo Rollouts and its AnalysisTemplates
  kubectl countersign convert -f rollout.yaml -f templates.yaml > countersign.yaml
  # A Canary of Flagger
  kubectl countersign convert -f canary.yaml";
/// `lint`.
pub const LINT: &str = "Examples:
  # Check manifests, warnings included
  kubectl countersign lint -f deploy/rollout.yaml --strict";
/// `report`.
pub const REPORT: &str = "Examples:
  # The figures of a quarter by team
  kubectl countersign report --since 90d --by team -A

  # The figures of one team, as Markdown
  kubectl countersign report -l team=shop --by contributor -A -o markdown

  # What enforcing would have done in a month
  kubectl countersign report --observed --since 30d -A";
/// `simulate`.
pub const SIMULATE: &str = "Examples:
  # A change at 50 requests a second
  kubectl countersign simulate -f new.yaml --rate 50 --canary-error-rate 0.01,0.05";
/// `stamp`.
pub const STAMP: &str = "Examples:
  # Provenance from commits and reviews
  kubectl countersign stamp --range v1..v2 --event reviews.json -f rollout.yaml --write";
/// `version`.
pub const VERSION: &str = "Examples:
  # The versions of plugin and operator
  kubectl countersign version

  # The plugin's alone
  kubectl countersign version --client";
