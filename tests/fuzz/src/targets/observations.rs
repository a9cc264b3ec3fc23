//! Observations that no cluster should give.

use super::*;

/// The moments of some rollouts, each observation as JSON.
static MOMENTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    const EXAMPLES: [&str; 7] = [
        include_str!("../../../../examples/risky-v2.yaml"),
        include_str!("../../../../examples/gateway.yaml"),
        include_str!("../../../../examples/istio.yaml"),
        include_str!("../../../../examples/adopt.yaml"),
        include_str!("../../../../examples/analysis.yaml"),
        include_str!("../../../../examples/smoke.yaml"),
        include_str!("../../../../examples/blue-green.yaml"),
    ];
    let mut moments = Vec::new();
    for text in EXAMPLES {
        let source = Source {
            name: "example".into(),
            text: text.into(),
        };
        let observed = Manifests::of(&[source])
            .and_then(|manifests| manifests.observations(None, &BTreeMap::new(), now()));
        for observed in observed.unwrap_or_default() {
            let mut world = World::new(observed.observation);
            let mut traffic = |_: Timestamp, share: f64| WindowOutcome::Counted {
                canary: Counts {
                    requests: 100.0 * share,
                    errors: 0.0,
                },
                stable: Counts {
                    requests: 100.0 * (1.0 - share),
                    errors: 0.0,
                },
            };
            for _ in 0..16 {
                let decision = world.reconcile(&mut traffic);
                moments.extend(serde_json::to_value(&world.observation));
                world.carry_out(&decision, usize::MAX);
                world.observation.now += SignedDuration::from_secs(45);
            }
        }
    }
    moments
});

/// An observation that no cluster should give: which moment of which rollout, then a line for each
/// change to its JSON, as a pointer (or the number of a place in it) and the value to put there; a
/// pointer alone removes.
pub fn observation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let moment: usize = lines
        .next()
        .and_then(|it| it.trim().parse().ok())
        .unwrap_or(0);
    let Some(mut seen) = MOMENTS.get(moment % MOMENTS.len().max(1)).cloned() else {
        panic!("the examples give no rollout");
    };
    for line in lines.take(16) {
        let (place, value) = match line.split_once(' ') {
            Some((place, value)) => (place, Some(value)),
            None => (line, None),
        };
        let value = value.map(|it| serde_json::from_str(it).unwrap_or_else(|_| json!(it)));
        put(&mut seen, place, value);
    }
    if let Ok(observation) = serde_json::from_value::<Observation>(seen) {
        is_decided(&observation);
    }
}

fn put(object: &mut Value, place: &str, value: Option<Value>) {
    let pointer = match place.parse::<usize>() {
        Ok(number) => {
            let mut places = Vec::new();
            list(object, String::new(), &mut places);
            places.swap_remove(number % places.len())
        }
        Err(_) => place.to_owned(),
    };
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        return;
    };
    let key = key.replace("~1", "/").replace("~0", "~");
    match (object.pointer_mut(parent), value) {
        (Some(Value::Object(members)), Some(value)) => drop(members.insert(key, value)),
        (Some(Value::Object(members)), None) => drop(members.remove(&key)),
        (Some(Value::Array(items)), value) => match (key.parse::<usize>(), value) {
            (Ok(index), Some(value)) if index < items.len() => items[index] = value,
            (Ok(index), None) if index < items.len() => drop(items.remove(index)),
            (_, Some(value)) => items.push(value),
            _ => {}
        },
        _ => {}
    }
}

/// The pointers to everything in a value.
fn list(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            list(value, format!("{at}/{key}"), places);
        }),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, value)| list(value, format!("{at}/{index}"), places));
        }
        _ => {}
    }
    places.push(at);
}
