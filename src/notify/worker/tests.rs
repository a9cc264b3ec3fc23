use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use countersign_api::Tier;
use serde_json::Value;

use super::*;
use crate::notify::config::Channel;
use crate::notify::message::Attempt;
use crate::stand_in::StandIn;
use crate::telemetry::server::Reported;

/// A channel of this kind that answers with these codes in order, and then with the last one; 0 hangs.
struct Sink {
    received: Arc<Mutex<Vec<Value>>>,
    due: watch::Sender<Vec<Arc<Message>>>,
    taken: mpsc::UnboundedReceiver<Taken>,
    telemetry: Arc<Notifications>,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
}

impl Sink {
    async fn new(kind: ChannelKind, codes: &'static [u16]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let received = Arc::<Mutex<Vec<Value>>>::default();
        let all = received.clone();
        let answer = move |body: Bytes| {
            let all = all.clone();
            async move {
                let nth = {
                    let mut all = all.lock().unwrap();
                    all.push(serde_json::from_slice(&body).unwrap());
                    all.len() - 1
                };
                let code = codes.get(nth).or(codes.last()).copied().unwrap();
                if code == 0 {
                    std::future::pending::<()>().await;
                }
                StatusCode::from_u16(code).unwrap()
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        let channel = Channel {
            kind,
            url: Some(format!("http://{address}/")),
            url_file: None,
            authorization_file: None,
        };
        let telemetry = Arc::new(Notifications::new([]));
        let (publish, due) = watch::channel(Vec::new());
        let (took, taken) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let worker = Worker {
            channel: "sink".to_owned(),
            kind,
            cluster: "a".to_owned(),
            connection: Connection::new(&channel, None).unwrap(),
            lease: Arc::new(Lease::held(StandIn::new().client())),
            telemetry: telemetry.clone(),
            due,
            taken: took,
            stop: stop.clone(),
        };
        Self {
            received,
            due: publish,
            taken,
            telemetry,
            stop,
            worker: tokio::spawn(worker.run()),
        }
    }

    fn received(&self) -> Vec<Value> {
        self.received.lock().unwrap().clone()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.worker.await.unwrap();
    }
}

fn message(id: &str, kind: Kind) -> Arc<Message> {
    Arc::new(Message {
        id: id.to_owned(),
        kind,
        at: "2026-12-24T17:00:00Z".parse().unwrap(),
        subject: Subject::Freeze(id.to_owned()),
        text: String::new(),
        command: None,
        chosen: None,
    })
}

/// A rollback, of which CDEvents has an event, too.
fn rollback() -> Arc<Message> {
    let attempt = Attempt {
        namespace: "shop".to_owned(),
        rollout: "web".to_owned(),
        run: "web-1".to_owned(),
        revision: 2,
        digest: "1a2b".to_owned(),
        tier: Tier::High,
        risk: String::new(),
        images: vec!["example.org/web:2".to_owned()],
        is_first: false,
    };
    Arc::new(Message {
        subject: Subject::Attempt(Box::new(attempt)),
        ..Message::clone(&message("1", Kind::RolledBack))
    })
}

#[tokio::test]
async fn what_fails_is_repeated_with_the_same_id_and_keeps_no_other() {
    let mut sink = Sink::new(ChannelKind::Webhook, &[500, 200, 500, 200]).await;
    let (poison, second) = (
        message("1", Kind::RolledBack),
        message("2", Kind::FreezeBegan),
    );
    sink.due.send_replace(vec![poison.clone(), second]);
    let taken = sink.taken.recv().await.unwrap();
    assert_eq!((&*taken.id, taken.freeze.as_deref()), ("2", Some("2")));
    while sink.received().len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let waiting = r#"countersign_notifications_waiting{channel="sink"} 1"#;
    assert!(sink.telemetry.encode().contains(waiting));
    let third = message("3", Kind::RolledBack);
    sink.due.send_replace(vec![poison, third]);
    let taken = sink.taken.recv().await.unwrap();
    assert_eq!((&*taken.id, taken.freeze), ("3", None));
    assert_eq!(sink.taken.recv().await.unwrap().id, "1");
    let ids: Vec<_> = sink.received().iter().map(|it| it["id"].clone()).collect();
    assert_eq!(ids, ["1", "2", "1", "3", "1"]);
    let text = sink.telemetry.encode();
    for counted in [r#"result="failed"} 2"#, r#"result="delivered"} 3"#] {
        assert!(text.contains(counted), "{counted}: {text}");
    }
    sink.stop().await;
}

#[tokio::test]
async fn an_event_that_was_taken_is_not_sent_again_with_the_one_beside_it() {
    let types = |sink: &Sink| -> Vec<Value> {
        let received = sink.received();
        received.iter().map(|it| it["type"].clone()).collect()
    };
    let own = "dev.countersign.rollout.rolledback.v1";
    let common = "dev.cdevents.service.rolledback.0.3.0";
    let mut sink = Sink::new(ChannelKind::CloudEvents, &[200, 500, 200]).await;
    sink.due.send_replace(vec![rollback()]);
    sink.taken.recv().await.unwrap();
    assert_eq!(types(&sink), [own, common, common]);
    sink.stop().await;

    let mut sink = Sink::new(ChannelKind::CloudEvents, &[200, 400]).await;
    sink.due.send_replace(vec![rollback()]);
    sink.taken.recv().await.unwrap();
    assert_eq!(types(&sink), [own, common]);
    let text = sink.telemetry.encode();
    for counted in [r#"result="refused"} 1"#, r#"result="delivered"} 1"#] {
        assert!(text.contains(counted), "{counted}: {text}");
    }
    sink.stop().await;
}

#[tokio::test]
async fn a_message_that_is_refused_keeps_no_other() {
    let mut sink = Sink::new(ChannelKind::Slack, &[400, 200]).await;
    sink.due.send_replace(vec![
        message("1", Kind::RolledBack),
        message("2", Kind::RolledBack),
    ]);
    for id in ["1", "2"] {
        assert_eq!(sink.taken.recv().await.unwrap().id, id);
    }
    assert_eq!(sink.received().len(), 2, "no repetition");
    sink.stop().await;
}

#[tokio::test]
async fn what_is_over_before_it_could_be_sent_is_not_sent() {
    let mut sink = Sink::new(ChannelKind::Webhook, &[503, 200]).await;
    sink.due
        .send_replace(vec![message("1", Kind::AwaitingSignOff)]);
    while sink.received().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sink.due.send_replace(vec![message("2", Kind::RolledBack)]);
    assert_eq!(sink.taken.recv().await.unwrap().id, "2");
    let ids: Vec<_> = sink.received().iter().map(|it| it["id"].clone()).collect();
    assert_eq!(ids, ["1", "2"]);
    sink.stop().await;
}

#[tokio::test]
async fn an_alert_that_is_over_is_ended() {
    let mut sink = Sink::new(ChannelKind::Alertmanager, &[500, 200]).await;
    sink.due
        .send_replace(vec![message("1", Kind::AwaitingSignOff)]);
    assert_eq!(sink.taken.recv().await.unwrap().id, "1");
    sink.due.send_replace(vec![message("2", Kind::Held)]);
    assert_eq!(sink.taken.recv().await.unwrap().id, "2");
    let received = sink.received();
    let last = received.last().unwrap().as_array().unwrap();
    let named: Vec<_> = last
        .iter()
        .map(|it| it["labels"]["freeze"].clone())
        .collect();
    assert_eq!(named, ["2", "1"], "the first one with its end");
    let end = |nth: usize| -> Timestamp { last[nth]["endsAt"].as_str().unwrap().parse().unwrap() };
    assert!(end(1) < end(0), "{last:?}");
    sink.stop().await;
}

#[tokio::test]
async fn more_alerts_than_fit_into_a_request_are_sent_in_several() {
    let mut sink = Sink::new(ChannelKind::Alertmanager, &[500, 200]).await;
    let ids = 0..=BATCH;
    let due = ids.map(|nth| message(&format!("{nth}"), Kind::Held));
    sink.due.send_replace(due.collect());
    let first = sink.taken.recv().await.unwrap().id;
    assert_eq!(first, BATCH.to_string(), "the second request was taken");
    assert_eq!(sink.taken.recv().await.unwrap().id, "0");
    let sizes: Vec<_> = sink
        .received()
        .iter()
        .map(|it| it.as_array().unwrap().len())
        .collect();
    assert_eq!(sizes[..3], [BATCH, 1, BATCH]);
    sink.stop().await;
}

#[test]
fn pauses_grow_to_a_minute() {
    let seconds = [1, 2, 3, 6, 7, 100].map(|failures| backoff(failures).as_secs());
    assert_eq!(seconds, [1, 2, 4, 32, 60, 60]);
}
