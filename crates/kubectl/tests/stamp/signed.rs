//! What `--sign` signs, of which change, and which commits count as signed.

use countersign_api::Duration;
use countersign_api::provenance::{Covers, TrustedKey};
use countersign_api::rollout::Revision;
use countersign_core::policy::{self, Effective};
use countersign_core::provenance::attestation::proof::Subject;
use countersign_core::provenance::attestation::{Verified, verify};
use k8s_openapi::jiff::Timestamp;

use super::*;

// A pair of keys that OpenSSL made for tests alone.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKC/upcHwprQPZ/md9B50ATU5benfIgaTYS6hHhpNYqD
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAuw6iZ4Nu+R2pau8BQYcMDVZjJDIbnkLh54MGZLWILNs=
-----END PUBLIC KEY-----
";
const KEY_FILE: &str = ".git/ci.pem";
const REVIEWED_BY_BOB: &str = "Sell shoes\n\nReviewed-by: Bob <bob@example.org>";
const REVIEW: [&str; 3] = ["reviewers", "approved-revision", "review-source"];

fn image() -> String {
    format!("registry.example/shop@sha256:{}", "a".repeat(64))
}

fn template() -> PodTemplate {
    PodTemplate(json!({ "spec": { "containers": [{ "name": "web", "image": image() }] } }))
}

/// The arguments that sign; the key is written for them.
pub(super) fn signing(it: &Repository) -> Vec<String> {
    it.write(KEY_FILE, PRIVATE);
    let arguments = ["--image", &image(), "--sign", KEY_FILE, "--key", "ci"];
    arguments.map(ToOwned::to_owned).to_vec()
}

/// What the controller reads of an attestation if stable runs this revision.
pub(super) fn attested(attestation: &str, stable: &str, covers: Covers) -> Verified {
    let stable = Revision {
        source_revision: Some(stable.to_owned()),
        ..Revision::default()
    };
    let subject = Subject {
        namespace: "shop",
        name: "web",
        template: &template(),
        stable: None,
        replaced: Some(&stable),
        first: false,
        began: Timestamp::UNIX_EPOCH,
    };
    let key = TrustedKey {
        name: "ci".into(),
        public_key: PUBLIC.into(),
        repositories: vec!["https://git.example/**".into()],
        ..TrustedKey::default()
    };
    let effective = Effective {
        keys: vec![vec![key]],
        max_age: Some(Duration::minutes(60)),
        covers,
        ..policy::effective(&[])
    };
    verify(attestation, &subject, &effective, Timestamp::UNIX_EPOCH).unwrap()
}

fn has_review(annotations: &BTreeMap<String, String>) -> bool {
    let mut review = REVIEW.iter().map(|key| format!("{PROVENANCE_PREFIX}{key}"));
    review.any(|key| annotations.contains_key(&key))
}

/// A repository with an origin and one commit after its base.
fn with_origin(message: &str) -> Repository {
    let it = Repository::new();
    let origin = "https://git.example/shop.git";
    it.git(&["remote", "add", "origin", origin]);
    it.write("a", "1\n");
    it.commit(JANE, message);
    it
}

/// The annotations of a signed stamp, without their prefix, and its remarks.
fn stamp(it: &Repository, more: &[&str]) -> (BTreeMap<String, String>, String) {
    let signing = signing(it);
    let signing: Vec<_> = signing.iter().map(String::as_str).collect();
    let arguments = [&["--range", "base..HEAD", "-o", "json"], &signing[..], more].concat();
    it.stamped(&arguments)
}

#[test]
fn an_attestation_names_its_base_its_repository_and_its_time() {
    let it = with_origin("Sell shoes");
    let (found, _) = stamp(&it, &[]);
    let base = it.git(&["rev-parse", "base"]);
    let proven = attested(&found["attestation"], &base, Covers::Images);
    assert_eq!(proven.unproven, None);
    let contributor = format!("{PROVENANCE_PREFIX}contributor");
    assert_eq!(proven.annotations[&contributor], "human");
    let part = attested(&found["attestation"], "v0", Covers::Images);
    let why = part.unproven.unwrap().to_string();
    let remedy = format!("counts from `{base}`, but stable runs `v0`: stamp with --range v0..HEAD");
    assert!(why.contains(&remedy), "{why}");
}

/// Finding F9: the author of a commit writes its trailers, and the pipeline its flags.
#[test]
fn a_review_that_nothing_shows_is_left_out_of_what_is_signed() {
    let flags = ["--reviewer", "carol", "--approved-revision", "HEAD"];
    for (message, flags, source) in [
        (REVIEWED_BY_BOB, &[][..], "Trailer"),
        ("Sell shoes", &flags, "Flag"),
    ] {
        let it = with_origin(message);
        let (found, err) = stamp(&it, flags);
        assert_eq!(found["review-source"], source);
        assert_eq!(found["approved-revision"], found["revision"]);
        assert!(matches!(read(&found).review(), Review::Independent(_)));
        let base = it.git(&["rev-parse", "base"]);
        let attested = attested(&found["attestation"], &base, Covers::Images);
        assert!(!has_review(&attested.annotations), "{attested:?}");
        assert!(
            err.contains("leaves the review out") && err.contains("--event"),
            "{err}"
        );
    }
}

/// Keys of Bob and Jane, which git knows.
fn with_keys(it: &Repository) {
    let known = ["bob", "jane"].map(|name| {
        let key = it.0.join(format!(".git/{name}"));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        format!("{name}@example.org namespaces=\"git\" {public}")
    });
    it.write(".git/signers", &known.concat());
    let known = it.0.join(".git/signers").display().to_string();
    it.git(&["config", "gpg.ssh.allowedSignersFile", &known]);
}

/// A commit of Jane's that Bob or she herself signed as its committer.
fn signed_by(it: &Repository, name: &str, message: &str) {
    let committer = [
        format!("user.name={name}"),
        format!("user.email={name}@example.org"),
    ];
    let key = format!("user.signingKey={}", it.0.join(".git").join(name).display());
    it.git(&["add", "-A"]);
    it.git(&[
        "-c",
        &committer[0],
        "-c",
        &committer[1],
        "-c",
        "gpg.format=ssh",
        "-c",
        &key,
        "commit",
        "-q",
        "-S",
        "--author",
        JANE,
        "-m",
        message,
    ]);
}

#[test]
fn a_review_is_signed_where_its_reviewer_signed_the_commit() {
    for (signer, source) in [("bob", "SignedCommit"), ("jane", "Trailer")] {
        let it = with_origin("base");
        it.git(&["tag", "-f", "base"]);
        with_keys(&it);
        it.write("a", "2\n");
        let message = format!("{REVIEWED_BY_BOB}\nReviewed-by: Eve <eve@example.org>");
        signed_by(&it, signer, &message);
        let mark = it.0.join("ran");
        let run = format!("touch {}; false", mark.display());
        for key in ["gpg.program", "gpg.ssh.program"] {
            it.git(&["config", key, &run]);
        }
        let (found, err) = stamp(&it, &[]);
        assert_eq!(found["review-source"], source, "{err}");
        let base = it.git(&["rev-parse", "base"]);
        let attested = attested(&found["attestation"], &base, Covers::Images);
        let reviewers = format!("{PROVENANCE_PREFIX}reviewers");
        let reviewers = attested.annotations.get(&reviewers);
        let expected = (signer == "bob").then(|| BOB.to_owned());
        assert_eq!(reviewers, expected.as_ref(), "Eve signed nothing");
        assert!(!mark.exists(), "a setting of the clone ran a program");
    }
}

#[test]
fn commits_that_nobody_signed_are_refused_on_request() {
    let it = with_origin("base");
    let required = ["--range", "base..HEAD", "--require-signed-commits"];
    let refusal = it.refusal(&required);
    assert!(
        refusal.contains("1 commits have no good signature") && refusal.contains("git commit -S"),
        "{refusal}"
    );
    it.git(&["tag", "-f", "base"]);
    with_keys(&it);
    it.write("a", "2\n");
    signed_by(&it, "jane", "Sell shoes");
    assert_eq!(it.stamp(&["--require-signed-commits"])["authors"], JANE);
    it.write("a", "3\n");
    signed_by(&it, "bob", "Sell boots");
    // Nothing shows that Jane wrote the second one.
    let authors = it.stamp(&["--require-signed-commits"])["authors"].clone();
    assert_eq!(authors, format!("{JANE}, bob <bob@example.org>"));
}

#[test]
fn the_user_who_pushed_is_an_author_where_the_environment_is_that_of_ci() {
    let it = with_origin("Sell shoes");
    let arguments = ["--range", "base..HEAD"];
    for (variables, pusher) in [
        (
            [("GITHUB_ACTIONS", "true"), ("GITHUB_ACTOR", "mallory")],
            true,
        ),
        (
            [("GITLAB_CI", "true"), ("GITLAB_USER_LOGIN", "mallory")],
            true,
        ),
        ([("GITHUB_ACTOR", "mallory"), ("CI", "true")], false),
    ] {
        let printed = it.run_in(&variables, &arguments, "");
        assert!(printed.ok, "{}", printed.err);
        let line = format!("authors: {JANE}, mallory\n");
        assert_eq!(printed.out.contains(&line), pusher, "{}", printed.out);
    }
}

#[test]
fn an_attestation_may_name_the_rollouts_and_the_template() {
    let it = with_origin("Sell shoes");
    let base = it.git(&["rev-parse", "base"]);
    let rollout = |template: &PodTemplate| {
        let rollout = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "metadata": { "name": "web" },
            "spec": { "template": template.0 },
        });
        serde_saphyr::to_string(&rollout).unwrap()
    };
    it.write("rollout.yaml", &rollout(&template()));
    let signing = signing(&it);
    let signing: Vec<_> = signing.iter().map(String::as_str).collect();
    let range = ["--range", "base..HEAD", "-f", "rollout.yaml"];
    let stamped = |more: &[&str]| {
        let printed = it.run(&[&range[..], &signing, more].concat());
        assert!(printed.ok, "{}", printed.err);
        let key = format!("{PROVENANCE_PREFIX}attestation: ");
        let mut lines = printed.out.lines().map(str::trim);
        let value = lines.find_map(|line| line.strip_prefix(&key));
        value.unwrap().trim_matches('"').to_owned()
    };
    let why = |attestation: &str| {
        let unproven = attested(attestation, &base, Covers::Template).unproven;
        unproven.map(|it| it.to_string()).unwrap_or_default()
    };
    let own = ["--attest-template", "--attest-rollout", "shop/web"];
    assert_eq!(why(&stamped(&own)), "");
    assert!(why(&stamped(&[])).contains("names no pod template"));
    let other = ["--attest-template", "--attest-rollout", "pay/web"];
    assert!(why(&stamped(&other)).contains("it is for `pay/web`"));

    let refused = |more: &[&str]| it.refusal(&[&range[..], &signing, more].concat());
    assert!(refused(&["--attest-rollout", "web"]).contains("write NAMESPACE/NAME"));
    it.write("rollout.yaml", &rollout(&PodTemplate(json!(null))));
    assert!(refused(&["--attest-template"]).contains("has a pod template"));
    let both = [rollout(&template()), rollout(&PodTemplate(json!({})))];
    it.write("rollout.yaml", &both.join("\n---\n"));
    assert!(refused(&["--attest-template"]).contains("several pod templates"));
}
