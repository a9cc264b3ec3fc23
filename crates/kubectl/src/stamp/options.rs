//! The command line of `stamp`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use countersign_api::Duration;
use countersign_core::provenance::TestResult;

/// Derive provenance annotations from a range of git commits, and reviews and check results of its forge.
#[derive(Args, Debug)]
pub struct Options {
    /// The commits of the change, from the deployed revision to the new one.
    #[arg(long, value_name = "BASE..HEAD")]
    pub(super) range: String,
    /// Path to the git clone.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) repo: PathBuf,
    /// Path to the path rules [default: .countersign.yaml in the root of the base revision].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The image that was built, preferably by digest.
    #[arg(long, value_name = "REF")]
    pub(super) image: Option<String>,
    /// The result of the tests.
    #[arg(long, value_name = "RESULT")]
    pub(super) tests: Option<Tests>,
    /// Path to JSON of GitHub or GitLab with reviews or check results: an event payload, or an answer of the
    /// API; `-` for the standard input. This flag can be repeated.
    #[arg(long, value_name = "FILE")]
    pub(super) event: Vec<PathBuf>,
    /// The check that runs this command, which is not finished yet. This flag can be repeated.
    #[arg(long, value_name = "NAME", requires = "event")]
    pub(super) own_check: Vec<String>,
    /// A person who reviewed the change. This flag can be repeated.
    #[arg(long, value_name = "NAME")]
    pub(super) reviewer: Vec<String>,
    /// The revision that the reviewers approved.
    #[arg(long, value_name = "SHA")]
    pub(super) approved_revision: Option<String>,
    /// A person who drove the AI. This flag can be repeated.
    #[arg(long, value_name = "NAME")]
    pub(super) human_operator: Vec<String>,
    /// The user who will apply the Rollout, for an API server without mutating admission policies (before
    /// Kubernetes 1.36), which demands the annotation countersign.dev/changed-by.
    #[arg(long, value_name = "USER")]
    pub(super) changed_by: Option<String>,
    /// A manifest whose Rollouts get the annotations, `-` for the standard input. This flag can be
    /// repeated.
    #[arg(short = 'f', long = "filename", value_name = "MANIFEST")]
    pub(super) filename: Vec<PathBuf>,
    /// Annotate only the Rollout with this name.
    #[arg(long, value_name = "NAME", requires = "filename")]
    pub(super) rollout: Option<String>,
    /// Edit the manifests in place instead of printing them.
    #[arg(long, requires = "filename")]
    pub(super) write: bool,
    /// Path to a private key (PKCS#8 PEM: ECDSA P-256 or Ed25519) that attests the annotations of the
    /// image.
    #[arg(long, value_name = "KEY.pem", requires = "image", requires = "key")]
    pub(super) sign: Option<PathBuf>,
    /// The key's name in the policies.
    #[arg(long, value_name = "NAME", requires = "sign")]
    pub(super) key: Option<String>,
    /// Another image of the same pods that the attestation covers, by digest. This flag can be repeated.
    #[arg(long, value_name = "REF", requires = "sign")]
    pub(super) also_attest: Vec<String>,
    /// Validity of the attestation, such as `720h` [default: unlimited].
    #[arg(long, value_name = "DURATION", requires = "sign")]
    pub(super) valid_for: Option<Duration>,
    /// A Rollout that the attestation is for [default: any]. This flag can be repeated.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "sign")]
    pub(super) attest_rollout: Vec<String>,
    /// Attest the pod template of the manifest, too: it must be as it is applied.
    #[arg(long, requires = "sign", requires = "filename")]
    pub(super) attest_template: bool,
    /// Refuse commits that neither their author nor their committer signed with a key that git knows.
    #[arg(long)]
    pub(super) require_signed_commits: bool,
    /// Output format of the annotations.
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "yaml")]
    #[arg(conflicts_with = "filename")]
    pub(super) output: Output,
}

/// The test result, in the words of in-toto's test-result predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(super) enum Tests {
    /// All passed.
    Passed,
    /// All passed, with warnings.
    Warned,
    /// At least one failed.
    Failed,
}

/// Output format of the annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// As YAML, one per line.
    Yaml,
    /// As a JSON object.
    Json,
}

impl From<Tests> for TestResult {
    fn from(tests: Tests) -> Self {
        match tests {
            Tests::Passed => Self::Passed,
            Tests::Warned => Self::Warned,
            Tests::Failed => Self::Failed,
        }
    }
}

/// The word of in-toto for a result.
pub(super) fn word(result: TestResult) -> &'static str {
    match result {
        TestResult::Passed => "PASSED",
        TestResult::Warned => "WARNED",
        TestResult::Failed => "FAILED",
    }
}
