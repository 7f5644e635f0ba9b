//! Clients that never stop: they write and search while a test does something, and count what failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::Elastic;

/// What a probe has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests that were answered with 2xx.
    pub ok: u64,
    /// Requests that were not.
    pub failed: u64,
    /// The first failures, with the time since the start in seconds.
    pub failures: Vec<String>,
    /// Longest time between two successes.
    pub longest_gap: Duration,
}

/// Runs until it is stopped or dropped.
pub struct Probe {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    task: Option<JoinHandle<()>>,
}

impl Probe {
    /// Writes one document after another into `index`, ids from 0; no refresh.
    pub fn writer(elastic: Elastic, index: &str) -> Self {
        let index = index.to_owned();
        Self::start(Duration::from_millis(50), move |turn| {
            let (elastic, index) = (elastic.clone(), index.clone());
            async move {
                let body =
                    json!({"guild_id": "1", "content": format!("message {turn}"), "sent": turn}).to_string();
                let path = format!("/{index}/_doc/w{turn}?routing=1");
                let limit = Duration::from_secs(30);
                elastic.request(Method::PUT, &path, "application/json", body.into(), limit).await
            }
        })
    }

    /// Searches `index` again and again; an answer with failed shards counts as failed.
    pub fn reader(elastic: Elastic, index: &str) -> Self {
        Self::asking(elastic, &format!("/{index}/_search?size=1&allow_partial_search_results=false"))
    }

    /// Asks for `path` again and again.
    pub fn asking(elastic: Elastic, path: &str) -> Self {
        let path = path.to_owned();
        Self::start(Duration::from_millis(50), move |_| {
            let (elastic, path) = (elastic.clone(), path.clone());
            async move {
                elastic
                    .request(Method::GET, &path, "application/json", Bytes::new(), Duration::from_secs(30))
                    .await
            }
        })
    }

    fn start<F>(pause: Duration, ask: impl Fn(u64) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(u16, Bytes), String>> + Send,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stopped, shared) = (stop.clone(), seen.clone());
        let task = tokio::spawn(async move {
            let began = Instant::now();
            let mut last_success = began;
            for turn in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let answer = ask(turn).await;
                {
                    let mut seen = shared.lock().unwrap();
                    match answer {
                        Ok((200..300, _)) => {
                            seen.ok += 1;
                            seen.longest_gap = seen.longest_gap.max(last_success.elapsed());
                            last_success = Instant::now();
                        }
                        Ok((status, body)) => {
                            let body = String::from_utf8_lossy(&body).chars().take(300).collect::<String>();
                            seen.fail(began, format!("{status} {body}"));
                        }
                        Err(error) => seen.fail(began, error),
                    }
                }
                tokio::time::sleep(pause).await;
            }
        });
        Self { stop, seen, task: Some(task) }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Ends it after the request in flight.
    pub async fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            task.await.expect("the probe");
        }
        self.seen()
    }
}

impl Seen {
    pub(crate) fn fail(&mut self, began: Instant, what: String) {
        self.failed += 1;
        if self.failures.len() < 20 {
            self.failures.push(format!("{:.1} s: {what}", began.elapsed().as_secs_f64()));
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// CPU load: so many clients that ask for `path` without a pause, until it is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Load {
    /// Bulk requests whose actions only reach the node that takes the request: the index does not exist and may not
    /// be created, so parsing and answering is all the work there is.
    pub fn start(elastic: &Elastic, clients: usize) -> Self {
        let load = Self { stop: Arc::default(), done: Arc::default(), failed: Arc::default() };
        let mut body = String::new();
        for n in 0..500 {
            body.push_str("{\"index\":{\"_index\":\"load-nowhere\",\"require_alias\":true}}\n");
            body.push_str(&format!("{{\"content\":\"load load load load load load load {n}\"}}\n"));
        }
        let body = Bytes::from(body);
        for _ in 0..clients {
            let (elastic, body) = (elastic.clone(), body.clone());
            let (stop, done, failed) = (load.stop.clone(), load.done.clone(), load.failed.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let limit = Duration::from_secs(30);
                    let answer = elastic
                        .request(Method::POST, "/_bulk", "application/x-ndjson", body.clone(), limit)
                        .await;
                    let failure = match answer {
                        Ok((200, _)) => {
                            done.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        Ok((status, _)) => status.to_string(),
                        Err(error) => error,
                    };
                    *failed.lock().unwrap().entry(failure).or_default() += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
        }
        load
    }

    /// Requests answered so far, and the failures by kind.
    pub fn report(&self) -> String {
        format!("{} requests, failed: {:?}", self.done.load(Ordering::Relaxed), self.failed.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
