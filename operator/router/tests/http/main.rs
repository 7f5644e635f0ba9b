//! The whole router over HTTP, before an Elasticsearch: one of ours that stores documents in memory, and, where
//! `SEARCHCELL_TEST_ELASTICSEARCH` has the address (`127.0.0.1:9200`) of a real one without security, that one too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client;
mod elastic;
mod journey;
mod mount;
mod overload;
mod paused;
mod tls;
mod waits;

use std::net::SocketAddr;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_day_with_an_elasticsearch_of_ours() {
    let address = elastic::start(elastic::Guard::default()).await;
    journey::all(address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_day_with_a_real_elasticsearch() {
    let address = std::env::var("SEARCHCELL_TEST_ELASTICSEARCH").ok();
    let Some(address) = address.and_then(|address| address.parse::<SocketAddr>().ok()) else {
        eprintln!("SKIPPED: SEARCHCELL_TEST_ELASTICSEARCH has no address of an Elasticsearch");
        return;
    };
    journey::all(address).await;
}
