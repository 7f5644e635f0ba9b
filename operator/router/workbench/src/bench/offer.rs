//! Offers an input to the router over HTTP, as the application beside it does, and waits for every acknowledgement.
//! Effects: network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until};

use super::input::{Batch, operations};
use crate::client::Client;
use crate::cost;

/// How to offer.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Where.
    pub to: SocketAddr,
    /// Requests at once.
    pub connections: usize,
    /// Operations a second, whatever the answers do; absent: the next request follows an answer.
    pub rate: Option<f64>,
    /// `timeout` of requests.
    pub timeout: Duration,
    /// The process that is measured.
    pub process: Option<u32>,
    /// Whether what is not done is offered again.
    pub again: bool,
}

/// What came of one run, of whomever: one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outcome {
    /// Operations in the input.
    pub documents: u64,
    /// Of them, those that are acknowledged, or superseded by a version that is there.
    pub settled: u64,
    /// Operations whose first answer, or whose first bulk, failed.
    pub failed_at_first: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Time of processors in seconds of the process that is measured.
    pub cpu: f64,
    /// Bytes resident at most, without the input where the process has it loaded.
    pub memory: u64,
    /// Milliseconds from offer to acknowledgement of a document: half, 99 %, 99.9 % are below. Absent: not measured.
    pub p50: Option<f64>,
    /// The same.
    pub p99: Option<f64>,
    /// The same.
    pub p999: Option<f64>,
}

/// Latencies of requests, each for as many operations as it had.
#[derive(Debug, Default)]
pub struct Latencies(Vec<(Duration, u64)>);

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, latency: Duration, operations: u64) {
        self.0.push((latency, operations));
    }

    /// Milliseconds that this share of operations is below.
    pub fn share(&mut self, share: f64) -> Option<f64> {
        self.0.sort_unstable();
        let all: u64 = self.0.iter().map(|(_, operations)| operations).sum();
        let mut left = (all as f64 * share).ceil() as u64;
        for (latency, operations) in &self.0 {
            if left <= *operations {
                return Some(latency.as_secs_f64() * 1e3);
            }
            left -= operations;
        }
        None
    }
}

#[derive(Default)]
struct Seen {
    settled: u64,
    failed_at_first: u64,
    latencies: Latencies,
}

/// Which items of an answer are not settled, by position: everything but success, and a version that is there.
pub fn unsettled(body: &[u8]) -> Vec<usize> {
    #[derive(Deserialize)]
    struct Item {
        status: u16,
    }
    #[derive(Deserialize)]
    struct Answer {
        items: Vec<BTreeMap<String, Item>>,
    }
    if body.starts_with(b"{\"errors\":false") {
        return Vec::new();
    }
    let answer: Answer = serde_json::from_slice(body).unwrap();
    let is = |item: &BTreeMap<String, Item>| {
        item.values().any(|item| !matches!(item.status, 200..=299 | 404 | 409))
    };
    answer.items.iter().enumerate().filter(|(_, item)| is(item)).map(|(position, _)| position).collect()
}

/// Offers everything.
pub async fn offer(batches: &[Batch], manner: &Manner) -> Outcome {
    let before = manner.process.map(|process| cost::of(process).unwrap());
    let next = AtomicUsize::new(0);
    let seen = Mutex::new(Seen::default());
    let started = Instant::now();
    // When each batch is due, where a rate is asked for.
    let due: Vec<Duration> = batches
        .iter()
        .scan(0.0, |offered, batch| {
            let at = manner.rate.map_or(0.0, |rate| *offered / rate);
            *offered += batch.operations as f64;
            Some(Duration::from_secs_f64(at))
        })
        .collect();
    let workers = (0..manner.connections).map(|_| async {
        let mut client = Client::new(manner.to);
        client.patience = manner.timeout * 4 + Duration::from_secs(10);
        while let Some(position) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < batches.len())
        {
            let begin = match manner.rate {
                Some(_) => started + due[position],
                None => Instant::now(),
            };
            sleep_until(begin).await;
            one(&batches[position], begin, &mut client, manner, &seen).await;
        }
    });
    futures::future::join_all(workers).await;
    let seconds = started.elapsed().as_secs_f64();
    let after = manner.process.map(|process| cost::of(process).unwrap());
    let mut seen = seen.into_inner().unwrap();
    Outcome {
        documents: batches.iter().map(|batch| batch.operations as u64).sum(),
        settled: seen.settled,
        failed_at_first: seen.failed_at_first,
        seconds,
        cpu: after.zip(before).map_or(0.0, |(after, before)| (after.cpu - before.cpu).as_secs_f64()),
        memory: after.map_or(0, |after| after.peak),
        p50: seen.latencies.share(0.5),
        p99: seen.latencies.share(0.99),
        p999: seen.latencies.share(0.999),
    }
}

async fn one(batch: &Batch, begin: Instant, client: &mut Client, manner: &Manner, seen: &Mutex<Seen>) {
    let path = format!("/messages/_bulk?timeout={}ms", manner.timeout.as_millis());
    let (mut body, mut count) = (batch.body.clone(), batch.operations);
    let mut first = true;
    loop {
        let left = match client.bulk(&path, body.clone()).await {
            Ok((status, answer)) if status == 200 => unsettled(&answer),
            Ok((status, answer)) => {
                assert_eq!(status, 429, "{}", String::from_utf8_lossy(&answer));
                (0..count).collect()
            }
            Err(error) => {
                eprintln!("{error}");
                (0..count).collect()
            }
        };
        {
            let mut seen = seen.lock().unwrap();
            let settled = (count - left.len()) as u64;
            seen.settled += settled;
            seen.latencies.add(begin.elapsed(), settled);
            if first {
                seen.failed_at_first += left.len() as u64;
            }
        }
        if left.is_empty() || !manner.again {
            return;
        }
        first = false;
        let lines = operations(&body);
        let mut rest = BytesMut::new();
        left.iter().for_each(|position| rest.extend_from_slice(&lines[*position]));
        (body, count) = (Bytes::from(rest), left.len());
        sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_operations_not_of_requests() {
        let mut latencies = Latencies::default();
        latencies.add(Duration::from_millis(1), 98);
        latencies.add(Duration::from_millis(50), 2);
        assert_eq!(latencies.share(0.5), Some(1.0));
        assert_eq!(latencies.share(0.99), Some(50.0));
        assert_eq!(Latencies::default().share(0.5), None);
    }

    #[test]
    fn what_is_not_settled_is_found() {
        let body = br#"{"errors":true,"took":1,"items":[{"index":{"status":201}},{"index":{"status":409,"error":{}}},
            {"delete":{"status":404}},{"index":{"status":429}},{"index":{"status":503}}]}"#;
        assert_eq!(unsettled(body), [3, 4]);
        assert!(unsettled(b"{\"errors\":false,").is_empty());
    }
}
