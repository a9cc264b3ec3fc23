//! Where a change comes from: attestations, annotations, and what git lists.

use super::*;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

/// An envelope as anybody writes it; a payload that a trusted key has signed; a policy's key.
pub fn attestation(data: &[u8]) {
    let [envelope, payload, pem] = parts(data);
    let own = KEY.verifying_key().to_public_key_pem(LineEnding::LF);
    let key = |name: &str, public_key: String| TrustedKey {
        name: name.into(),
        public_key,
        ..TrustedKey::default()
    };
    let own = key("ci", own.unwrap_or_default());
    let template = template();
    let stable = Revision {
        source_revision: Some("v1".into()),
        ..Revision::default()
    };
    let subject = Subject {
        namespace: "shop",
        name: "cart",
        template: &template,
        stable: None,
        replaced: Some(&stable),
        first: false,
        began: now(),
    };
    let verify = |envelope: &str, keys: Vec<TrustedKey>| {
        let effective = Effective {
            keys: vec![keys],
            max_age: Some(Duration::minutes(60)),
            covers: Covers::Template,
            ..policy::effective(&[])
        };
        let read = attestation::verify(envelope, &subject, &effective, now());
        let unproven = read.as_ref().map(|it| it.unproven.as_ref());
        match unproven {
            Ok(problem) => problem
                .iter()
                .for_each(|it| is_harmless(&it.to_string(), 2000)),
            Err(problem) => is_harmless(&problem.to_string(), 2000),
        }
        read
    };
    // No key of the world has signed what is made up.
    assert!(verify(&envelope, vec![own.clone(), key("other", pem)]).is_err());
    let kind = problem::PAYLOAD_TYPE;
    let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
    let signature = STANDARD.encode(KEY.sign(message.as_bytes()).to_bytes());
    let envelope = json!({
        "payloadType": kind,
        "payload": STANDARD.encode(&payload),
        "signatures": [{ "keyid": "ci", "sig": signature }],
    });
    let of_repository = TrustedKey {
        repositories: vec!["https://git.example/**".into()],
        ..own.clone()
    };
    let _ = verify(&envelope.to_string(), vec![of_repository]);
    if let Ok(attested) = verify(&envelope.to_string(), vec![own]) {
        let declared = annotations(&payload);
        let (both, alone) = Provenance::read_both(&declared, &attested.annotations, &template);
        [both, alone].iter().for_each(is_sound);
    }
}

/// Provenance annotations, one per line as `key=value`; a line with a blank before it continues the last.
pub fn provenance(data: &[u8]) {
    let [text] = parts(data);
    let annotations = annotations(&text);
    let template = template();
    is_sound(&Provenance::read(&annotations, &template));
    let digest = digest::change_digest(&template, &annotations, &CanaryStrategy::default());
    assert_eq!(digest.len(), 64);
}

fn annotations(text: &str) -> BTreeMap<String, String> {
    let mut annotations: Vec<(String, String)> = Vec::new();
    for line in text.split('\n') {
        if let (Some(more), Some((_, value))) = (line.strip_prefix(' '), annotations.last_mut()) {
            value.extend(["\n", more]);
        } else {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            annotations.push((format!("{PROVENANCE_PREFIX}{key}"), value.to_owned()));
        }
    }
    annotations.into_iter().collect()
}

/// Whatever the annotations are, their values are possible, and the messages about them harmless.
fn is_sound(read: &Provenance) {
    assert!(
        read.ai_share
            .is_none_or(|share| (0.0..=100.0).contains(&share))
    );
    for problem in &read.problems {
        is_harmless(&problem.to_string(), 1200);
    }
    let people = read.authors.iter().chain(&read.reviewers);
    for person in people.chain(&read.human_operators) {
        is_harmless(&person.to_string(), 1000);
        assert!(person.is(person) || person.keys().is_empty());
    }
    let _ = (read.review(), read.is_autonomous(), read.hidden_people());
}

/// What git lists (`␀` for its NUL): commits, changed files; then the rules about paths, and a
/// manifest to stamp.
pub fn stamp(data: &[u8]) {
    let [log, diff, rules, text] = parts(data);
    let areas = match Areas::read(&rules) {
        Ok(areas) => areas,
        Err(problem) => {
            is_harmless(&problem.replace('\n', " "), 16 * 1024);
            Areas::read("").unwrap()
        }
    };
    if let Some(commits) = git::commits(&log.replace('␀', "\0")) {
        let authorship = Authorship::of(&commits, &areas);
        assert!(authorship.ai_share.is_none_or(|share| share <= 100));
        let people = authorship.authors.iter().chain(&authorship.operators);
        for person in people.chain(&authorship.reviewers) {
            is_harmless(person, 2000);
        }
    }
    if let Some(changes) = git::changes(&diff.replace('␀', "\0")) {
        let _ = areas.size(&changes);
    }
    let annotations = [
        (
            format!("{PROVENANCE_PREFIX}contributor"),
            "mixed".to_owned(),
        ),
        (
            format!("{PROVENANCE_PREFIX}authors"),
            "Zoë: #1 <z@example.org>".to_owned(),
        ),
    ];
    let annotations = annotations.into();
    match manifest::stamped(&text, &annotations, None) {
        Ok(stamped) => {
            let again = manifest::stamped(&stamped.text, &annotations, None);
            let again = again.map(|again| again.text);
            assert_eq!(
                again.ok().as_deref(),
                Some(&*stamped.text),
                "stamped twice: {text:?}"
            );
        }
        Err(problem) => is_harmless(&problem.to_string().replace('\n', " "), 16 * 1024),
    }
}

/// A file of `stamp --event`: payloads and answers of a forge.
pub fn event(data: &[u8]) {
    let mut forge = Forge::default();
    if let Err(problem) = forge.parse("event.json", data) {
        is_harmless(&problem.to_string(), 4096);
    }
    let (_, remarks) = forge.tests(&"b".repeat(40), &["deploy".to_owned()]);
    for remark in remarks {
        is_harmless(&remark, 8192);
    }
}
