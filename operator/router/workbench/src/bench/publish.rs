//! Publishes an input to NATS JetStream at a rate, as applications do, and watches the router acknowledge it: whoever
//! subscribes to `$JS.ACK` hears every acknowledgement, with the time at which its message was published. Effects:
//! network.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::pull;
use async_nats::{Client, ConnectOptions, HeaderMap, Subscriber, jetstream};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::input::{Parts, operations, parts};
use super::offer::{Latencies, Outcome};
use super::processes::{CONSUMER, STREAM, SUBJECT};
use crate::cost;

/// How to publish.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Where the queue is.
    pub to: String,
    /// Messages a second.
    pub rate: f64,
    /// The process that is measured.
    pub process: u32,
}

/// How often messages are published: those that are due since.
const TICK: Duration = Duration::from_millis(5);
/// Without an acknowledgement for so long, the rest is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Acknowledgements that may wait to be looked at.
const HEARD: usize = 1 << 20;

/// Publishes everything, and waits until all of it is acknowledged and the queue knows.
pub async fn publish(input: &Bytes, manner: &Manner) -> Outcome {
    let client = ConnectOptions::new().subscription_capacity(HEARD).connect(&manner.to).await.unwrap();
    // Everybody's: there is nobody else.
    let heard = client.subscribe("$JS.ACK.>").await.unwrap();
    client.flush().await.unwrap();
    let all = operations(input);
    let count = all.len();
    let before = cost::of(manner.process).unwrap();
    let watching = tokio::spawn(watch(heard, count));
    let started = Instant::now();
    send(&client, &all, manner.rate, started).await;
    let heard = watching.await.unwrap();
    if heard.settled == count {
        nothing_is_pending(client).await;
    }
    let after = cost::of(manner.process).unwrap();
    let mut latencies = heard.latencies;
    Outcome {
        documents: count as u64,
        settled: heard.settled as u64,
        failed_at_first: heard.returned,
        seconds: heard.last.duration_since(started).as_secs_f64(),
        cpu: (after.cpu - before.cpu).as_secs_f64(),
        memory: after.peak,
        p50: latencies.share(0.5),
        p99: latencies.share(0.99),
        p999: latencies.share(0.999),
    }
}

/// Waits until the queue knows of every acknowledgement.
async fn nothing_is_pending(client: Client) {
    let context = jetstream::new(client);
    let consumer = context.get_consumer_from_stream::<pull::Config, _, _>(CONSUMER, STREAM);
    let mut consumer = consumer.await.unwrap();
    let waiting = async {
        loop {
            let info = consumer.info().await.unwrap();
            if info.num_ack_pending == 0 && info.num_pending == 0 {
                return;
            }
            sleep(TICK).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("the queue knows of every acknowledgement");
}

async fn send(client: &Client, all: &[Bytes], rate: f64, started: Instant) {
    let mut sent = 0;
    for tick in 1.. {
        let due = (rate * started.elapsed().as_secs_f64()) as usize;
        for operation in &all[sent..due.min(all.len())] {
            let (headers, payload) = message(operation);
            client.publish_with_headers(SUBJECT, headers, payload).await.unwrap();
        }
        sent = due.min(all.len());
        if sent == all.len() {
            return client.flush().await.unwrap();
        }
        sleep_until(started + TICK * tick).await;
    }
}

/// An operation as a message.
fn message(operation: &Bytes) -> (HeaderMap, Bytes) {
    let Parts { verb, meta, document } = parts(operation);
    let mut headers = HeaderMap::new();
    headers.insert("Searchcell-Tenant", meta.routing);
    headers.insert("Searchcell-Id", meta.id);
    headers.insert("Searchcell-Version", meta.version.to_string());
    headers.insert("Searchcell-Operation", verb);
    (headers, document)
}

struct Heard {
    settled: usize,
    returned: u64,
    last: Instant,
    latencies: Latencies,
}

/// Hears acknowledgements until all messages have one.
async fn watch(mut acks: Subscriber, count: usize) -> Heard {
    let mut heard = Heard { settled: 0, returned: 0, last: Instant::now(), latencies: Latencies::default() };
    let mut done = vec![false; count];
    while heard.settled < count {
        let Ok(Some(ack)) = timeout(PATIENCE, acks.next()).await else { break };
        let Some((sequence, published)) = of(&ack.subject) else {
            panic!("no acknowledgement as this server has them: {}", ack.subject)
        };
        match &ack.payload[..] {
            b"+ACK" => {}
            b"+WPI" => continue,
            _ => {
                heard.returned += 1;
                continue;
            }
        }
        if !std::mem::replace(&mut done[sequence - 1], true) {
            heard.last = Instant::now();
            heard.settled += 1;
            let latency = SystemTime::now().duration_since(published).unwrap_or_default();
            heard.latencies.add(latency, 1);
        }
    }
    heard
}

/// Number of the message that is told of, and when it was published:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<number of the delivery>.<nanoseconds>.<pending>`, and newer
/// servers may have domain and account before the stream and a token at the end.
fn of(subject: &str) -> Option<(usize, SystemTime)> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let at = if tokens.len() < 11 { 5 } else { 7 };
    let nanos = Duration::from_nanos(tokens.get(at + 2)?.parse().ok()?);
    Some((tokens.get(at)?.parse().ok()?, SystemTime::UNIX_EPOCH + nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_a_message_with_headers() {
        let lines = Bytes::from("{\"index\":{\"_id\":\"5\",\"routing\":\"t\",\"version\":2}}\n{\"a\":1}\n");
        let (headers, payload) = message(&lines);
        let get = |name| headers.get(name).map(|value| value.as_str());
        let all = ["Tenant", "Id", "Version", "Operation"].map(|name| format!("Searchcell-{name}"));
        assert_eq!(all.each_ref().map(|name| get(name.as_str())), ["t", "5", "2", "index"].map(Some));
        assert_eq!(payload, "{\"a\":1}");
        let lines = Bytes::from("{\"delete\":{\"_id\":\"5\",\"routing\":\"t\",\"version\":3}}\n");
        let (headers, payload) = message(&lines);
        assert_eq!(headers.get("Searchcell-Operation").map(|value| value.as_str()), Some("delete"));
        assert!(payload.is_empty());
    }

    #[test]
    fn acknowledgements_name_their_message() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let old = "$JS.ACK.chat.router.1.42.40.1700000000000000000.7";
        let new = "$JS.ACK._.hash.chat.router.1.42.40.1700000000000000000.7.token";
        assert_eq!([of(old), of(new)], [Some((42, at)), Some((42, at))]);
        assert_eq!(of("$JS.ACK.chat"), None);
    }
}
