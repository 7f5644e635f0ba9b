//! The workbench: an Elasticsearch without an index behind it, work, and what is measured with both. See `README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::BufRead;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use searchcell_workbench::bench::{input, naive, offer, publish, report, run};
use searchcell_workbench::null::{self, Cluster};
use serde_json::json;

#[derive(Parser)]
#[command(name = "workbench", version, args_override_self = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Clusters that take bulks, and fail as they are told. Says where they are in one line of JSON, and runs until
    /// it is ended.
    Null(Null),
    /// Writes input for a measurement.
    Generate(Generate),
    /// Offers an input to the router, and says what came of it in one line of JSON.
    Offer(Offer),
    /// Publishes an input to the queue that the router reads, and says what came of it.
    Publish(Publish),
    /// Sends an input as the design does that the router replaces, and says what came of it.
    Naive(Naive),
    /// Runs everybody in turns.
    Bench(Bench),
    /// Reads runs, one a line, and writes tables in Markdown.
    Report,
}

#[derive(clap::Args)]
struct Null {
    /// Clusters.
    #[arg(long, default_value_t = 1)]
    clusters: usize,
    /// Nodes of each that take requests.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Data nodes of each.
    #[arg(long, default_value_t = 1)]
    data_nodes: usize,
    /// Where faults are told and counts are asked for.
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Seconds for which the version of a deleted document is remembered.
    #[arg(long, default_value_t = 60)]
    gc_deletes: u64,
    /// Documents are read, so that broken ones are refused.
    #[arg(long)]
    reads_documents: bool,
}

#[derive(clap::Args)]
struct Generate {
    /// Operations.
    #[arg(long, default_value_t = 200_000)]
    count: usize,
    /// Indices.
    #[arg(long, default_value_t = 64)]
    destinations: usize,
    /// A node of each cluster.
    #[arg(long, required = true, value_delimiter = ',')]
    clusters: Vec<SocketAddr>,
    /// Seed of the work.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory for the files.
    #[arg(long)]
    into: PathBuf,
}

/// What whoever sends an input over HTTP is told.
#[derive(clap::Args)]
struct Sending {
    /// Operations of a request, or of a bulk.
    #[arg(long, default_value_t = 2_000)]
    batch: usize,
    /// Milliseconds that a request waits.
    #[arg(long, default_value_t = 30_000)]
    timeout: u64,
    /// What fails is not sent again.
    #[arg(long)]
    once: bool,
    /// The router's input; beside it is `table`.
    input: PathBuf,
}

impl Sending {
    fn batches(&self) -> Vec<input::Batch> {
        input::batches(&self.input, self.batch).unwrap()
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout)
    }
}

#[derive(clap::Args)]
struct Offer {
    /// Where the router is.
    #[arg(long)]
    to: SocketAddr,
    /// Its process, to be measured.
    #[arg(long)]
    process: Option<u32>,
    /// Requests at once.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Operations a second; absent: as fast as answers come.
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    sending: Sending,
}

#[derive(clap::Args)]
struct Publish {
    /// Where the queue is, with its streams: `nats://host:port`.
    #[arg(long)]
    to: String,
    /// Process of the router, to be measured.
    #[arg(long)]
    process: u32,
    /// Operations a second.
    #[arg(long)]
    rate: f64,
    /// The router's input.
    input: PathBuf,
}

#[derive(clap::Args)]
struct Naive {
    /// A node of each cluster.
    #[arg(long, required = true, value_delimiter = ',')]
    clusters: Vec<SocketAddr>,
    /// Workers.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    #[command(flatten)]
    sending: Sending,
}

#[derive(clap::Args)]
struct Bench {
    /// The router's program.
    #[arg(long)]
    router: PathBuf,
    /// `name=command`, with `{node}` and `{input}` in it.
    #[arg(long)]
    peer: Vec<String>,
    /// The program of NATS; without it, nothing is measured with a queue.
    #[arg(long)]
    nats: Option<PathBuf>,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Operations of an input.
    #[arg(long, default_value_t = 400_000)]
    count: usize,
    /// Directory for inputs.
    #[arg(long)]
    work: PathBuf,
    /// File that runs are added to.
    #[arg(long)]
    results: PathBuf,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() {
    match Options::parse().command {
        Command::Null(options) => run_null(options).await,
        Command::Generate(options) => {
            let Generate { count, destinations, clusters, seed, into } = options;
            input::generate(&input::Wanted { count, destinations, clusters, seed, into }).unwrap();
        }
        Command::Offer(options) => {
            let manner = offer::Manner {
                to: options.to,
                connections: options.connections,
                rate: options.rate,
                timeout: options.sending.timeout(),
                process: options.process,
                again: !options.sending.once,
            };
            println!("{}", json!(offer::offer(&options.sending.batches(), &manner).await));
        }
        Command::Publish(options) => {
            let Publish { to, process, rate, input } = options;
            let whole = std::fs::read(input).unwrap().into();
            println!("{}", json!(publish::publish(&whole, &publish::Manner { to, rate, process }).await));
        }
        Command::Naive(options) => {
            let table = std::fs::read(options.sending.input.with_file_name("table")).unwrap();
            let manner = naive::Manner {
                clusters: options.clusters,
                table: searchcell_core::routing::decode(&table).unwrap(),
                workers: options.workers,
                again: !options.sending.once,
                timeout: options.sending.timeout(),
            };
            println!("{}", json!(naive::send(&options.sending.batches(), &manner).await));
        }
        Command::Bench(options) => {
            let pair =
                |text: &String| text.split_once('=').map(|(name, command)| (name.into(), command.into()));
            let plan = run::Plan {
                router: options.router,
                peers: options.peer.iter().map(|text| pair(text).expect("--peer name=command")).collect(),
                nats: options.nats,
                rounds: options.runs,
                count: options.count,
                work: options.work,
                results: options.results,
                only: options.only,
            };
            plan.run().await;
        }
        Command::Report => {
            let lines = std::io::stdin().lock().lines().map(Result::unwrap);
            let runs: Vec<report::Run> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
            print!("{}", report::tables(&runs));
        }
    }
}

async fn run_null(options: Null) {
    let mut clusters = Vec::new();
    for number in 0..options.clusters {
        let options = null::Options {
            nodes: vec![SocketAddr::from(([127, 0, 0, 1], 0)); options.nodes],
            data_nodes: options.data_nodes,
            gc_deletes: Duration::from_secs(options.gc_deletes),
            reads_documents: options.reads_documents,
            seed: number as u64,
        };
        clusters.push(Cluster::start(options).await.unwrap());
    }
    let control = tokio::net::TcpListener::bind(options.control).await.unwrap();
    let addresses: Vec<Vec<SocketAddr>> = clusters.iter().map(|cluster| cluster.addresses()).collect();
    println!("{}", json!({"clusters": addresses, "control": control.local_addr().unwrap()}));
    null::control::serve(control, Arc::new(clusters)).await;
}
