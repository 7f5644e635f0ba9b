//! The design that the router replaces: workers take batches of whatever comes, find the index of each operation, put
//! them into bulks that are mixed over indices, and send a batch again as a whole until all of it is done. It reads only
//! action lines, so it is a quick one of its kind. Effects: network.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use searchcell_core::routing::Table;
use tokio::time::{Instant, sleep};

use super::input::{Batch, Meta, Parts, operations, parts};
use super::offer::{Latencies, Outcome, unsettled};
use crate::client::Client;
use crate::cost;

/// How to send.
#[derive(Clone, Debug)]
pub struct Manner {
    /// A node of each cluster.
    pub clusters: Vec<SocketAddr>,
    /// Where tenants are.
    pub table: Table,
    /// Workers, each with one batch at a time.
    pub workers: usize,
    /// Whether a batch that fails is sent again.
    pub again: bool,
    /// `timeout` of bulks.
    pub timeout: Duration,
}

/// Sends everything.
pub async fn send(batches: &[Batch], manner: &Manner) -> Outcome {
    let before = cost::of(std::process::id()).unwrap();
    let next = AtomicUsize::new(0);
    let latencies = Mutex::new(Latencies::default());
    let (settled, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let number = |cluster: u32| place_of(&manner.table, cluster);
    let started = Instant::now();
    let workers = (0..manner.workers).map(|_| async {
        let mut clients: Vec<Client> = manner.clusters.iter().map(|address| Client::new(*address)).collect();
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begin = Instant::now();
            let parts = resolve(batch, &manner.table);
            for attempt in 0.. {
                let mut all = true;
                for (cluster, part) in &parts {
                    all &= whole(&mut clients[number(*cluster)], part.clone(), manner).await;
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

/// The bulks of a batch: one for each cluster.
fn resolve(batch: &Batch, table: &Table) -> BTreeMap<u32, Bytes> {
    let mut bulks: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for lines in operations(&batch.body) {
        let Parts { verb, meta: Meta { id, routing, version }, document } = parts(&lines);
        let position = table.lookup(routing).unwrap().writes()[0];
        let index = &table.indices[usize::try_from(position).unwrap()];
        let bulk = bulks.entry(index.cluster).or_insert_with(|| Vec::with_capacity(batch.body.len() * 3 / 2));
        writeln!(
            bulk,
            "{{\"{verb}\":{{\"_index\":\"{}\",\"_id\":\"{routing}~{id}\",\"routing\":\"{routing}\",\"version\":{version},\"version_type\":\"external\"}}}}",
            index.name
        )
        .unwrap();
        if verb != "delete" {
            bulk.extend_from_slice(&document);
            bulk.push(b'\n');
        }
    }
    bulks.into_iter().map(|(cluster, bulk)| (cluster, bulk.into())).collect()
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

/// A cluster of a table, by its position among addresses.
fn place_of(table: &Table, cluster: u32) -> usize {
    let name = &table.clusters[usize::try_from(cluster).unwrap()].name;
    name.rsplit_once("-c").unwrap().1.parse().unwrap()
}

#[cfg(test)]
mod tests {
    use super::super::input::{Wanted, batches, generate};
    use super::*;

    #[test]
    fn it_finds_the_index_that_peers_are_told() {
        let into = std::env::temp_dir().join(format!("searchcell-naive-{}", std::process::id()));
        let clusters = vec![SocketAddr::from(([127, 0, 0, 1], 1))];
        generate(&Wanted { count: 200, destinations: 8, clusters, seed: 3, into: into.clone() }).unwrap();
        let table = searchcell_core::routing::decode(&std::fs::read(into.join("table")).unwrap()).unwrap();
        let bulks = resolve(&batches(&into.join("router.ndjson"), 200).unwrap()[0], &table);
        assert!(bulks[&0] == batches(&into.join("peers.ndjson"), 200).unwrap()[0].body && bulks.len() == 1);
        std::fs::remove_dir_all(into).ok();
    }
}
