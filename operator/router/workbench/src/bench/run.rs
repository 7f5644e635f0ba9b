//! Runs of everybody on the same input, in turns: the router as a process, the Elasticsearch without an index as
//! another, a driver or a peer as a third. Effects: starts and ends processes, writes files.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::process::Command;
use tokio::time::Instant;

use super::input;
use super::offer::Outcome;
use super::processes::{DEAD, Nats, Null, Router, STREAM};
use super::report::{OURS, Run};
use crate::null::rules::{Applied, Fault, Rule};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The router's program.
    pub router: PathBuf,
    /// Peers: name, and command with `{node}` and `{input}` in it.
    pub peers: Vec<(String, String)>,
    /// The program of NATS; absent: nothing is measured with a queue.
    pub nats: Option<PathBuf>,
    /// Rounds.
    pub rounds: u32,
    /// Operations of an input.
    pub count: usize,
    /// Directory for inputs.
    pub work: PathBuf,
    /// File that runs are added to, one a line.
    pub results: PathBuf,
    /// Only scenarios whose name contains this; a part of those, where `: ` and whose run it is are added to it.
    pub only: String,
}

/// Workers, connections, bulks at once: of everybody.
const AT_ONCE: usize = 4;
/// Operations of a request to the router: about a MiB, as the bulks of the others.
const BATCH: usize = 2_000;
/// Documents a second of what is steady.
const RATE: &str = "20000";

/// A driver that offers an input to a router, as a process of its own.
fn offer(router: &Router, input: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["offer", "--to", &router.front.to_string(), "--process", &router.id()]);
    command.args(["--connections", &AT_ONCE.to_string(), "--batch", &BATCH.to_string()]);
    command.args(more).arg(input);
    command
}

async fn outcome(mut command: Command) -> Outcome {
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {text}");
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap()
}

fn naive(clusters: &[SocketAddr], input: &Path, more: &[&str]) -> Command {
    let clusters: Vec<String> = clusters.iter().map(SocketAddr::to_string).collect();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["naive", "--clusters", &clusters.join(","), "--workers", &AT_ONCE.to_string()]);
    command.args(more).arg(input).kill_on_drop(true);
    command
}

impl Plan {
    /// Runs everything.
    pub async fn run(&self) {
        std::fs::create_dir_all(&self.work).unwrap();
        for destinations in [1, 64, 2_000] {
            self.throughput(destinations).await;
        }
        self.steady().await;
        self.dead_node().await;
        self.dead_cluster().await;
    }

    fn is_wanted(&self, scenario: &str) -> bool {
        scenario.contains(&self.only)
    }

    async fn router(&self, files: &Path) -> Router {
        Router::start(&self.router, &files.join("router.yaml")).await
    }

    fn input(&self, name: &str, null: &Null, destinations: usize, count: usize) -> PathBuf {
        let into = self.work.join(name);
        let clusters = null.clusters.clone();
        input::generate(&input::Wanted { count, destinations, clusters, seed: 1, into: into.clone() })
            .unwrap();
        into
    }

    fn note(&self, round: u32, scenario: &str, peer: &str, outcome: Outcome, per_bulk: f64) {
        eprintln!(
            "{scenario}, round {round}: {peer}: {:.2} µs of CPU a document, {:.0} documents/s, {per_bulk:.1} of a bulk",
            outcome.cpu * 1e6 / outcome.settled.max(1) as f64,
            outcome.settled as f64 / outcome.seconds
        );
        let run = Run { round, scenario: scenario.into(), peer: peer.into(), outcome, per_bulk };
        let mut file = OpenOptions::new().append(true).create(true).open(&self.results).unwrap();
        writeln!(file, "{}", json!(run)).unwrap();
    }

    /// As fast as it goes, everything well.
    async fn throughput(&self, destinations: usize) {
        let scenario = format!("A: as fast as it goes, {destinations} destinations");
        if !self.is_wanted(&scenario) {
            return;
        }
        let mut null = Null::start(1, 1).await;
        let files = self.input(&format!("a{destinations}"), &null, destinations, self.count);
        let mut everybody = vec![OURS.to_owned(), "naive".to_owned()];
        everybody.extend(self.peers.iter().map(|(name, _)| name.clone()));
        for round in 1..=self.rounds {
            everybody.rotate_left(1);
            for peer in &everybody {
                null.reset().await;
                let came = if peer == OURS {
                    let router = self.router(&files).await;
                    outcome(offer(&router, &files.join("router.ndjson"), &[])).await
                } else if peer == "naive" {
                    let batch = BATCH.to_string();
                    outcome(naive(&null.clusters, &files.join("router.ndjson"), &["--batch", &batch])).await
                } else {
                    let (_, command) = self.peers.iter().find(|(name, _)| name == peer).unwrap();
                    let command = (command.replace("{node}", &null.clusters[0].to_string()))
                        .replace("{input}", &files.join("peers.ndjson").display().to_string());
                    let mut words = command.split_whitespace();
                    let mut command = Command::new(words.next().unwrap());
                    command.args(words);
                    outcome(command).await
                };
                assert_eq!(came.settled, came.documents, "{peer}: all of it is done");
                let per_bulk = null.per_bulk().await;
                self.note(round, &scenario, peer, came, per_bulk);
            }
        }
    }

    /// 20,000 documents a second over many destinations: over HTTP, where each request is sent on at once, and from a
    /// queue, where documents wait for others of their destination.
    async fn steady(&self) {
        let scenario = "A: 20,000 documents a second, 2000 destinations";
        let queue = "router, from NATS JetStream";
        let mut ways = vec![("router, requests of 2,000", "2000"), ("router, requests of 100", "100")];
        ways.extend(self.nats.as_ref().map(|_| (queue, "")));
        ways.retain(|(name, _)| self.is_wanted(&format!("{scenario}: {name}")));
        if ways.is_empty() {
            return;
        }
        let mut null = Null::start(1, 1).await;
        let files = self.input("steady", &null, 2_000, self.count.min(400_000));
        for round in 1..=self.rounds {
            for (name, batch) in &ways {
                null.reset().await;
                let came = match &self.nats {
                    Some(program) if *name == queue => self.queue(program, &mut null, &files).await,
                    _ => {
                        let router = self.router(&files).await;
                        let more = ["--rate", RATE, "--batch", batch, "--connections", "32"];
                        outcome(offer(&router, &files.join("router.ndjson"), &more)).await
                    }
                };
                let per_bulk = null.per_bulk().await;
                self.note(round, scenario, name, came, per_bulk);
            }
        }
    }

    /// The same from a queue; everything has to be there in the end.
    async fn queue(&self, program: &Path, null: &mut Null, files: &Path) -> Outcome {
        let nats = Nats::start(program, &self.work.join("nats")).await;
        nats.make_streams().await;
        let router = Router::start(&self.router, &nats.settings(files)).await;
        let input = files.join("router.ndjson");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["publish", "--to", &nats.url, "--process", &router.id(), "--rate", RATE]).arg(&input);
        let came = outcome(command).await;
        let whole = Bytes::from(std::fs::read(&input).unwrap());
        assert_eq!(nats.messages(STREAM).await, (0, came.documents), "all came, and nothing is left");
        assert_eq!(nats.messages(DEAD).await.0, 0, "there are no dead letters");
        let mut expected = input::expected(&whole);
        for document in null.documents(0).await {
            let (version, hash, versions) = expected.remove(&document.id).unwrap();
            assert_eq!((document.version, document.hash), (version, hash), "{document:?}");
            assert!(document.writes <= versions, "no version is written twice: {document:?}");
        }
        assert!(expected.is_empty(), "{} documents are not there", expected.len());
        came
    }

    /// One node of a hundred is dead, batches of 50.
    async fn dead_node(&self) {
        let scenario = "D: one node of 100 dead, batches of 50";
        if !self.is_wanted(scenario) {
            return;
        }
        let mut null = Null::start(1, 100).await;
        let files = self.input("d", &null, 2_000, 20_000);
        for round in 1..=self.rounds {
            for peer in [OURS, "naive"] {
                null.reset().await;
                // Another one each time: it has more documents or fewer.
                let dead = usize::try_from(round * 17).unwrap() % 100;
                null.rules(0, &[Rule::new(Fault::Red { after_millis: 200 }).data_node(dead)]).await;
                let once = ["--batch", "50", "--once", "--timeout", "3000"];
                let came = if peer == OURS {
                    let router = self.router(&files).await;
                    let more = [&once[..], &["--connections", "64"]].concat();
                    outcome(offer(&router, &files.join("router.ndjson"), &more)).await
                } else {
                    outcome(naive(&null.clusters, &files.join("router.ndjson"), &once)).await
                };
                let per_bulk = null.per_bulk().await;
                self.note(round, scenario, peer, came, per_bulk);
            }
        }
    }

    /// One of four clusters is dead: what the others still get.
    async fn dead_cluster(&self) {
        let scenario = "C: what three of four clusters get";
        if !self.is_wanted(scenario) {
            return;
        }
        let mut null = Null::start(4, 1).await;
        let files = self.input("c", &null, 64, self.count);
        input::by_cluster(&files).unwrap();
        for round in 1..=self.rounds {
            for state in ["all work", "one hangs", "one refuses"] {
                for peer in [OURS, "naive"] {
                    null.reset().await;
                    match state {
                        "one hangs" => {
                            null.rules(0, &[Rule::new(Fault::Hang { applied: Applied::No })]).await
                        }
                        "one refuses" => null.up(0, false).await,
                        _ => {}
                    }
                    let came = if peer == OURS {
                        let router = self.router(&files).await;
                        let rate = ["--batch", "200", "--connections", "64", "--rate"];
                        let sick = [&rate[..], &["5000", "--timeout", "2000"]].concat();
                        let mut other = offer(&router, &files.join("router-0.ndjson"), &sick);
                        let mut other = other.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
                        let rest = [&rate[..], &["15000"]].concat();
                        let came = outcome(offer(&router, &files.join("router-others.ndjson"), &rest)).await;
                        other.kill().await.unwrap();
                        came
                    } else {
                        let slow = ["--batch", "200", "--timeout", "2000"];
                        let command = naive(&null.clusters, &files.join("router.ndjson"), &slow);
                        self.window(&mut null, command).await
                    };
                    null.rules(0, &[]).await;
                    null.up(0, true).await;
                    let per_bulk = null.per_bulk().await;
                    self.note(round, scenario, &format!("{peer}, {state}"), came, per_bulk);
                }
            }
        }
    }

    /// What three clusters get of somebody who may never end.
    async fn window(&self, null: &mut Null, mut command: Command) -> Outcome {
        let started = Instant::now();
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        let seconds = started.elapsed().as_secs_f64();
        if ended.is_err() {
            child.kill().await.unwrap();
        }
        let mut settled = 0;
        for number in 1..null.clusters.len() {
            settled += null.counters(number).await.applied;
        }
        Outcome { documents: settled, settled, seconds, ..Outcome::default() }
    }
}
