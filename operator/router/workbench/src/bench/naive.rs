//! The design that the router replaces: workers take batches of whatever comes, mixed over indices, and send a batch
//! again as a whole until all of it is done. Effects: network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep};

use super::input::{Batch, operations};
use super::offer::{Latencies, Outcome, unsettled};
use crate::client::Client;
use crate::cost;

/// How to send.
#[derive(Clone, Debug)]
pub struct Manner {
    /// A node of each cluster.
    pub clusters: Vec<SocketAddr>,
    /// Cluster of each index, by position.
    pub places: BTreeMap<String, usize>,
    /// Workers, each with one batch at a time.
    pub workers: usize,
    /// Whether a batch that fails is sent again.
    pub again: bool,
    /// `timeout` of bulks.
    pub timeout: Duration,
}

/// Index of an operation, by its action line, which the generator has written.
fn index(lines: &[u8]) -> &str {
    let start = memchr::memmem::find(lines, b"\"_index\":\"").unwrap() + 10;
    let end = start + memchr::memchr(b'"', &lines[start..]).unwrap();
    std::str::from_utf8(&lines[start..end]).unwrap()
}

/// Sends everything.
pub async fn send(batches: &[Batch], manner: &Manner) -> Outcome {
    let before = cost::of(std::process::id()).unwrap();
    let next = AtomicUsize::new(0);
    let latencies = Mutex::new(Latencies::default());
    let (settled, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let started = Instant::now();
    let workers = (0..manner.workers).map(|_| async {
        let mut clients: Vec<Client> = manner.clusters.iter().map(|address| Client::new(*address)).collect();
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begin = Instant::now();
            let parts = split(batch, manner);
            for attempt in 0.. {
                let mut all = true;
                for (cluster, part) in &parts {
                    all &= whole(&mut clients[*cluster], part.clone(), manner).await;
                }
                if attempt == 0 && !all {
                    failed.fetch_add(batch.operations, Ordering::Relaxed);
                }
                if all {
                    settled.fetch_add(batch.operations, Ordering::Relaxed);
                    latencies.lock().unwrap().add(begin.elapsed(), batch.operations as u64);
                }
                if all || !manner.again {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    });
    futures::future::join_all(workers).await;
    let seconds = started.elapsed().as_secs_f64();
    let after = cost::of(std::process::id()).unwrap();
    let mut latencies = latencies.into_inner().unwrap();
    Outcome {
        documents: batches.iter().map(|batch| batch.operations as u64).sum(),
        settled: settled.into_inner() as u64,
        failed_at_first: failed.into_inner() as u64,
        seconds,
        cpu: (after.cpu - before.cpu).as_secs_f64(),
        memory: after.peak.saturating_sub(before.resident),
        p50: latencies.share(0.5),
        p99: latencies.share(0.99),
        p999: latencies.share(0.999),
    }
}

/// What of a batch goes to which cluster: all of it to one where there is only one.
fn split(batch: &Batch, manner: &Manner) -> BTreeMap<usize, Bytes> {
    if manner.clusters.len() == 1 {
        return [(0, batch.body.clone())].into();
    }
    let mut parts: BTreeMap<usize, BytesMut> = BTreeMap::new();
    for lines in operations(&batch.body) {
        parts.entry(manner.places[index(&lines)]).or_default().extend_from_slice(&lines);
    }
    parts.into_iter().map(|(cluster, part)| (cluster, part.freeze())).collect()
}

/// Whether all of a bulk is done.
async fn whole(client: &mut Client, body: Bytes, manner: &Manner) -> bool {
    let path = format!("/_bulk?timeout={}ms&filter_path=errors,items.*.status", manner.timeout.as_millis());
    client.patience = manner.timeout * 2;
    match client.bulk(&path, body).await {
        Ok((status, answer)) if status == 200 => unsettled(&answer).is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_found_in_its_line() {
        assert_eq!(
            index(b"{\"index\":{\"_index\":\"messages.p0001.g1\",\"_id\":\"1\"}}\n"),
            "messages.p0001.g1"
        );
    }
}
