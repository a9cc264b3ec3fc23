//! How long a rollback waits while other changes use the API server, simulated with measured costs: the table of
//! `docs/scaling.md`.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;

/// CPU time of the API server for a read of the most recent version and for a status, in microseconds
/// (`docs/performance.md`).
const READ: u64 = 1_000;
const WRITE: u64 = 7_300;
/// A change under way is read, and its evidence written, once in this time.
const MINUTE: u64 = 60_000_000;
/// Reads of a reconcile at present.
const READS: u64 = 4;
/// The simulated time; the first minute is not counted.
const MINUTES: u64 = 20;
/// Time between two rollbacks.
const APART: u64 = 2_000_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    /// The reads of a change under way, then its status.
    Look,
    Status,
    /// The status of a rollback, then its route.
    Rollback,
    /// The last write of a rollback that began at this time.
    Route(u64),
}

/// The requests to come, by their times and in the order in which they were added.
#[derive(Default)]
struct Requests {
    queue: BinaryHeap<Reverse<(u64, u64, Request)>>,
    added: u64,
}

impl Requests {
    fn add(&mut self, at: u64, request: Request) {
        self.queue.push(Reverse((at, self.added, request)));
        self.added += 1;
    }
}

/// When each core is free again.
struct Cores(BinaryHeap<Reverse<u64>>);

impl Cores {
    /// Serves a request after all earlier ones; returns when it is answered.
    fn serve(&mut self, at: u64, cost: u64) -> u64 {
        let Reverse(free) = self.0.pop().unwrap();
        let answered = free.max(at) + cost;
        self.0.push(Reverse(answered));
        answered
    }
}

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Median and 99th percentile of the time from the start of a rollback to its last write, in milliseconds; `None` if
/// more is sent than can be answered.
fn waits(changes: u64, reads: u64, cores: u64) -> Option<(u64, u64)> {
    let sent = changes * (reads * READ + WRITE) + MINUTE / APART * 2 * WRITE;
    if sent >= cores * MINUTE {
        return None;
    }
    let (mut numbers, mut requests) = (Numbers(1), Requests::default());
    for _ in 0..changes {
        let phase = numbers.below(MINUTE);
        for minute in 0..MINUTES {
            requests.add(phase + minute * MINUTE, Request::Look);
        }
    }
    for number in 0..(MINUTES - 1) * MINUTE / APART {
        let at = MINUTE + number * APART + numbers.below(APART);
        requests.add(at, Request::Rollback);
    }
    let mut cores = Cores((0..cores).map(|_| Reverse(0)).collect());
    let mut waits = Vec::new();
    while let Some(Reverse((at, _, request))) = requests.queue.pop() {
        match request {
            Request::Look => {
                let answers = (0..reads).map(|_| cores.serve(at, READ));
                let last = answers.max().unwrap_or(at);
                requests.add(last, Request::Status);
            }
            Request::Status => {
                cores.serve(at, WRITE);
            }
            Request::Rollback => {
                let written = cores.serve(at, WRITE);
                requests.add(written, Request::Route(at));
            }
            Request::Route(began) => waits.push(cores.serve(at, WRITE) - began),
        }
    }
    waits.sort_unstable();
    let at = |percent: usize| {
        let place = (waits.len() * percent).div_ceil(100) - 1;
        (waits.get(place).unwrap() + 500) / 1_000
    };
    Some((at(50), at(99)))
}

/// A number with a comma before each three digits, below a million.
fn grouped(number: u64) -> String {
    match number / 1_000 {
        0 => number.to_string(),
        thousands => format!("{thousands},{:03}", number % 1_000),
    }
}

#[test]
fn the_page_has_the_waits_of_the_simulation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scaling.md");
    let page = fs::read_to_string(page).unwrap();
    for changes in [0, 500, 1_000, 2_000, 4_000, 8_000] {
        let mut row = format!("| {} |", grouped(changes));
        for reads in [READS, 0] {
            for cores in [1, 2, 4] {
                let waits = waits(changes, reads, cores);
                let waits = waits.map_or("grows".to_owned(), |(median, most)| {
                    format!("{median}, {most}")
                });
                row = format!("{row} {waits} |");
            }
        }
        assert!(
            page.lines().any(|line| line == row),
            "not in the page: {row}"
        );
    }
}
