//! Faults in the events of a watch.

use super::{Events, Recorded};
use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http_body_util::BodyExt as _;
use serde_json::json;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// A watch with faults in its events.
pub(super) fn altered(
    answer: Response,
    events: Events,
    recorded: Arc<Mutex<Recorded>>,
) -> Response {
    let (head, body) = answer.into_parts();
    let (send, receive) = mpsc::channel(64);
    tokio::spawn(async move {
        tokio::select! {
            () = alter(body, events, recorded, send.clone()) => {}
            () = send.closed() => {}
        }
    });
    let stream = futures::stream::unfold(receive, async |mut receive| {
        let line = receive.recv().await?;
        Some((Ok::<Bytes, io::Error>(line), receive))
    });
    Response::from_parts(head, Body::from_stream(stream))
}

async fn alter(
    body: Body,
    events: Events,
    recorded: Arc<Mutex<Recorded>>,
    send: mpsc::Sender<Bytes>,
) {
    let (lagging, mut due) = mpsc::unbounded_channel::<(Instant, Bytes)>();
    let lag = match events {
        Events::Lag(lag) => lag,
        _ => Duration::ZERO,
    };
    let read = async move {
        let (mut body, mut last, mut count) = (Lines::of(body), Bytes::new(), 0);
        while let Some(line) = body.next().await {
            count += 1;
            let happens = match &events {
                Events::Stall(after) | Events::Close(after) | Events::Gone(after) => count > *after,
                Events::Lag(_) => true,
                Events::Replay => !last.is_empty(),
                Events::Miss(every) => count % every == 0,
            };
            if happens {
                let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
                recorded.happened(&events);
            }
            let passed: Vec<Bytes> = match events {
                Events::Stall(_) if happens => std::future::pending().await,
                Events::Close(_) if happens => return,
                Events::Gone(_) if happens => {
                    // The receiver exists as long as this is polled.
                    let _ = lagging.send((Instant::now(), gone()));
                    return;
                }
                Events::Replay if happens => vec![line.clone(), last, line.clone()],
                Events::Miss(_) if happens => vec![],
                _ => vec![line.clone()],
            };
            last = line;
            for line in passed {
                let _ = lagging.send((Instant::now() + lag, line));
            }
        }
    };
    let write = async move {
        while let Some((at, line)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            if send.send(line).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

/// The event by which the API server ends a watch with an expired version.
fn gone() -> Bytes {
    let status = json!({
        "type": "ERROR",
        "object": { "kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "status": "Failure", "message": "too old resource version" },
    });
    format!("{status}\n").into()
}

/// The lines of a body, with their ends.
pub(super) struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn of(body: Body) -> Self {
        let rest = Vec::new();
        Self { body, rest }
    }

    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(end + 1);
                return Some(std::mem::replace(&mut self.rest, rest).into());
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }
}
