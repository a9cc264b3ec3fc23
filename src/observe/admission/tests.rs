use super::*;
use crate::stand_in::{Fault, StandIn};

const USER: &str = "system:serviceaccount:here:countersign";

/// Every policy and binding of the chart.
fn all() -> Vec<DynamicObject> {
    expected(&[PROOF, PROTECTION].concat(), USER)
}

fn path(object: &DynamicObject) -> String {
    let kind = kind(object).to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    };
    let name = object.name_any();
    format!("/apis/admissionregistration.k8s.io/v1/{plural}/{name}")
}

fn put(server: &StandIn, object: &DynamicObject) {
    server.put(&path(object), serde_json::to_value(object).unwrap());
}

/// An API server with all of them.
fn installed() -> StandIn {
    let server = StandIn::new();
    for object in all() {
        put(&server, &object);
    }
    server
}

/// A check that has read nothing yet.
fn fresh(server: &StandIn) -> AdmissionCheck {
    let check = AdmissionCheck::new(server.client());
    check.operator.set(USER.to_owned()).unwrap();
    check
}

/// Lets the last result for those that prove no author be this much older.
async fn pass(check: &AdmissionCheck, time: Duration) {
    let mut last = check.protection.lock().await;
    last.as_mut().unwrap().0 -= time;
}

#[test]
fn every_file_of_the_chart_is_expected_and_can_be_read() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/countersign/admission");
    let files = std::fs::read_dir(directory).unwrap();
    let mut texts: Vec<_> = files
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let mut known = [PROOF, PROTECTION].concat();
    texts.sort();
    known.sort_unstable();
    assert_eq!(texts, known);

    let objects = expected(&known, USER);
    let policies = objects.iter().filter(|it| kind(it).ends_with("Policy"));
    assert_eq!(
        (policies.count(), objects.len()),
        (known.len(), 2 * known.len())
    );
    for object in &objects {
        let text = object.data.to_string();
        assert!(
            object.data["spec"].is_object() && !text.contains("NAMESPACE"),
            "{text}"
        );
    }
    assert!(serde_json::to_string(&objects).unwrap().contains(USER));
}

#[tokio::test]
async fn whatever_is_missing_or_altered_is_named() {
    let server = installed();
    for object in all() {
        let (kind, name) = (kind(&object), object.name_any());
        let gone = path(&object);
        server.fails(move |request| (request.path == gone).then_some(Fault::Refuse(404)));
        let missing = fresh(&server).check().await;
        if kind.starts_with("Mutating") {
            // A validating one demands what it would write.
            assert_eq!(missing.problems, Vec::<String>::new(), "{kind} {name}");
            assert_eq!(missing.stamps, name != STAMP, "{kind} {name}");
        } else {
            let problem = format!("{kind} {name} is missing: upgrade the chart's release");
            assert_eq!(missing.problems, [problem]);
        }
        server.fails(|_| None);

        let mut altered = object.clone();
        altered.data["spec"]["altered"] = true.into();
        put(&server, &altered);
        let problems = fresh(&server).check().await.problems;
        let [problem] = &problems[..] else {
            panic!("{kind} {name} alone is altered: {problems:?}");
        };
        let start = format!("{kind} {name} is not what this version of the operator expects");
        assert!(problem.starts_with(&start), "{problem}");
        put(&server, &object);
    }
}

#[tokio::test]
async fn a_good_result_lasts_a_minute_and_a_problem_is_kept_until_it_is_seen_to_be_gone() {
    let objects = all();
    let is_owned = |it: &&DynamicObject| {
        it.name_any() == "owned.countersign.dev" && kind(it).ends_with("Binding")
    };
    let binding = objects.iter().find(is_owned).unwrap();
    let server = installed();
    let check = fresh(&server);
    let (one, other) = tokio::join!(check.check(), check.check());
    assert_eq!(one, other);
    assert_eq!(one.problems, Vec::<String>::new());
    assert!(one.stamps && one.since.is_some());
    let proof = 2 * PROOF.len();
    let read = server.requests().len();
    assert_eq!(read, 2 * proof + 2 * PROTECTION.len(), "read once for both");

    let mut altered = binding.clone();
    altered.data["spec"]["validationActions"] = serde_json::json!(["Audit"]);
    put(&server, &altered);
    assert_eq!(check.check().await, one);
    assert_eq!(server.requests().len(), proof, "the result is recent");
    pass(&check, ADMISSION_INTERVAL).await;
    let noticed = check.check().await.problems;
    assert!(
        noticed[0].contains("Binding owned.countersign.dev"),
        "{noticed:?}"
    );

    put(&server, binding);
    assert_eq!(check.check().await.problems, noticed);
    pass(&check, ADMISSION_RETRY).await;
    assert_eq!(check.check().await.problems, Vec::<String>::new());
}
