//! What every driver has to do, one by one, without a router behind it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use searchcell_router::source::nats::Lane;
use searchcell_router::source::{Credit, Delivery, Headers, Letter, OVERHEAD, Source};
use tokio::time::Instant;

use super::harness::{ACK_WAIT, LONG, Queue, take, until};

async fn publish<Q: Queue>(queue: &Q, count: usize) {
    for number in 0..count {
        queue.publish(&format!("{{\"n\":{number}}}"), &[("N", &number.to_string())]).await;
    }
}

fn names(deliveries: &[Delivery]) -> BTreeSet<(String, u64)> {
    deliveries.iter().map(|delivery| (delivery.stream.to_string(), delivery.sequence)).collect()
}

fn letter(delivery: &Delivery) -> Letter {
    Letter {
        payload: delivery.payload.clone(),
        headers: Headers(vec![("Why".into(), "test".into())]),
        id: format!("copy-{}", delivery.sequence),
    }
}

/// A reader that dies with what it held: nobody tells the queue anything.
fn crash<S: Source>(source: S, deliveries: Vec<Delivery>) {
    for delivery in deliveries {
        std::mem::forget(delivery.token);
    }
    drop(source);
}

pub async fn credit_is_never_exceeded<Q: Queue>(queue: Q) {
    for number in 0..60_usize {
        let text = "x".repeat(number * 97);
        queue.publish(&format!("{{\"n\":{number},\"text\":\"{text}\"}}"), &[]).await;
    }
    let mut source = queue.source(Lane::Main);
    // `take` looks at each pull; with room for everything, and for a few messages only.
    let mut all = take(&mut source, 7, 30).await;
    let started = Instant::now();
    while all.len() < 60 {
        assert!(started.elapsed() < LONG);
        let credit = Credit { bytes: source.capabilities().largest + 4 * OVERHEAD, messages: 1_000 };
        let deliveries = source.poll(credit).await.unwrap();
        assert!(deliveries.iter().map(Delivery::cost).sum::<usize>() <= credit.bytes);
        all.extend(deliveries);
    }
    assert_eq!(names(&all).len(), 60);
    assert!(all.iter().all(|delivery| delivery.attempt == 1));
    all.into_iter().for_each(|delivery| delivery.token.ack());
    source.close(Instant::now() + LONG).await;
    assert_eq!(queue.left(Lane::Main).await, 0);
}

pub async fn what_a_reader_held_that_crashed_comes_again<Q: Queue>(queue: Q) {
    publish(&queue, 20).await;
    let mut source = queue.source(Lane::Main);
    let first = take(&mut source, 100, 20).await;
    assert_eq!(queue.left(Lane::Main).await, 20, "acknowledged before anybody said so");
    let before = names(&first);
    crash(source, first);
    let mut source = queue.source(Lane::Main);
    let again = take(&mut source, 100, 20).await;
    assert_eq!(names(&again), before, "the same messages have the same names");
    assert!(again.iter().all(|delivery| delivery.attempt > 1));
    again.into_iter().for_each(|delivery| delivery.token.ack());
    source.close(Instant::now() + LONG).await;
    assert_eq!(queue.left(Lane::Main).await, 0);
}

pub async fn a_slow_message_is_not_delivered_again<Q: Queue>(queue: Q) {
    publish(&queue, 5).await;
    let mut source = queue.source(Lane::Main);
    let held = take(&mut source, 100, 5).await;
    let mut other = queue.source(Lane::Main);
    let started = Instant::now();
    while started.elapsed() < ACK_WAIT * 3 {
        let credit = Credit { bytes: other.capabilities().largest + 64 * OVERHEAD, messages: 10 };
        let came = other.poll(credit).await.unwrap_or_default();
        assert!(came.is_empty(), "delivered again although it is held: {came:?}");
    }
    held.into_iter().for_each(|delivery| delivery.token.ack());
    source.close(Instant::now() + LONG).await;
    other.close(Instant::now() + LONG).await;
    assert_eq!(queue.left(Lane::Main).await, 0);
}

pub async fn what_is_returned_comes_again_in_its_time<Q: Queue>(queue: Q) {
    publish(&queue, 2).await;
    let mut source = queue.source(Lane::Main);
    let mut held = take(&mut source, 100, 2).await;
    let (second, first) = (held.pop().unwrap(), held.pop().unwrap());
    let (later, now) = (first.sequence, second.sequence);
    let delay = Duration::from_secs(3);
    let started = Instant::now();
    let delays = source.capabilities().delays;
    first.token.retry(if delays { delay } else { Duration::ZERO });
    // Without a decision, which is a mistake: at once.
    drop(second.token);
    let mut again = take(&mut source, 100, 1).await;
    let early = started.elapsed() < delay;
    again.extend(take(&mut source, 100, 1).await);
    let came: Vec<u64> = again.iter().map(|delivery| delivery.sequence).collect();
    assert!(came.contains(&now) && came.contains(&later), "{came:?}");
    if delays {
        assert!(!early || came[0] == now, "what was to come later came first");
        assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
    }
    again.into_iter().for_each(|delivery| delivery.token.ack());
    source.close(Instant::now() + LONG).await;
    assert_eq!(queue.left(Lane::Main).await, 0);
    if let Some(meters) = queue.meters() {
        let count = |decision| meters.count("queue", decision);
        assert_eq!((count("retried"), count("abandoned"), count("acked")), (1, 1, 2));
    }
}

pub async fn a_dead_letter_is_there_before_its_original_is_gone<Q: Queue>(queue: Q) {
    publish(&queue, 1).await;
    let mut source = queue.source(Lane::Main);
    let delivery = take(&mut source, 100, 1).await.remove(0);
    queue.takes_copies(false).await;
    let copy = letter(&delivery);
    delivery.token.dead(copy);
    // Longer than the lease: it is still held, and still there.
    tokio::time::sleep(ACK_WAIT * 2).await;
    assert_eq!(queue.left(Lane::Main).await, 1, "gone, and nowhere else");
    queue.takes_copies(true).await;
    until("the dead letter is there", || async { queue.dead().await.len() == 1 }).await;
    until("the original is gone", || async { queue.left(Lane::Main).await == 0 }).await;
    let dead = queue.dead().await.remove(0);
    assert_eq!((dead.payload.as_str(), dead.headers["Why"].as_str()), ("{\"n\":0}", "test"));
    source.close(Instant::now() + LONG).await;
}

pub async fn what_is_parked_is_read_from_there<Q: Queue>(queue: Q) {
    publish(&queue, 3).await;
    let mut source = queue.source(Lane::Main);
    for delivery in take(&mut source, 100, 3).await {
        let copy = letter(&delivery);
        delivery.token.park(copy);
    }
    until("the originals are gone", || async { queue.left(Lane::Main).await == 0 }).await;
    assert_eq!(queue.left(Lane::Parked).await, 3);
    let mut parked = queue.source(Lane::Parked);
    let copies = take(&mut parked, 100, 3).await;
    let payloads: BTreeSet<Bytes> = copies.iter().map(|delivery| delivery.payload.clone()).collect();
    assert_eq!(payloads, ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}"].map(Bytes::from).into());
    assert!(copies.iter().all(|delivery| delivery.headers.get("why") == Some("test")));
    copies.into_iter().for_each(|delivery| delivery.token.ack());
    parked.close(Instant::now() + LONG).await;
    source.close(Instant::now() + LONG).await;
    assert_eq!(queue.left(Lane::Parked).await, 0);
}

pub async fn a_reader_that_closes_returns_what_it_holds<Q: Queue>(queue: Q) {
    publish(&queue, 10).await;
    let mut source = queue.source(Lane::Main);
    let mut held = take(&mut source, 100, 10).await;
    held.drain(..5).for_each(|delivery| delivery.token.ack());
    let started = Instant::now();
    let grace = Duration::from_secs(2);
    source.close(started + grace).await;
    assert!(started.elapsed() < grace + Duration::from_secs(20), "it waits for what is never decided");
    assert_eq!(queue.left(Lane::Main).await, 5);
    let mut other = queue.source(Lane::Main);
    let again = take(&mut other, 100, 5).await;
    again.into_iter().for_each(|delivery| delivery.token.ack());
    other.close(Instant::now() + LONG).await;
    assert_eq!(queue.left(Lane::Main).await, 0);
    held.into_iter().for_each(|delivery| std::mem::forget(delivery.token));
}

pub async fn a_poll_that_is_dropped_loses_nothing<Q: Queue>(queue: Q) {
    let mut source = queue.source(Lane::Main);
    let mut all = take(&mut source, 100, 0).await;
    let started = Instant::now();
    for number in 0..40 {
        publish(&queue, 1).await;
        let credit = Credit { bytes: source.capabilities().largest + 64 * OVERHEAD, messages: 50 };
        let patience = Duration::from_micros(number * 150);
        if let Ok(Ok(deliveries)) = tokio::time::timeout(patience, source.poll(credit)).await {
            all.extend(deliveries);
        }
    }
    let missing = 40 - all.len();
    all.extend(take(&mut source, 100, missing).await);
    assert_eq!(names(&all).len(), 40);
    // One that came twice has waited for its lease to end: it was lost.
    let again = all.iter().filter(|delivery| delivery.attempt > 1).count();
    assert_eq!(again, 0, "after {:?}", started.elapsed());
    all.into_iter().for_each(|delivery| delivery.token.ack());
    source.close(Instant::now() + LONG).await;
    assert_eq!(queue.left(Lane::Main).await, 0);
}

pub async fn a_queue_that_restarts_has_everything<Q: Queue>(mut queue: Q) {
    publish(&queue, 30).await;
    let mut source = queue.source(Lane::Main);
    let held = take(&mut source, 10, 10).await;
    queue.restart().await;
    publish(&queue, 10).await;
    let rest = take(&mut source, 100, 30).await;
    let mut seen = names(&held);
    seen.extend(names(&rest));
    for delivery in held.into_iter().chain(rest) {
        delivery.token.ack();
    }
    // Some may have come again meanwhile.
    while seen.len() < 40 || queue.left(Lane::Main).await > 0 {
        let credit = Credit { bytes: source.capabilities().largest + 64 * OVERHEAD, messages: 50 };
        for delivery in source.poll(credit).await.unwrap_or_default() {
            seen.insert((delivery.stream.to_string(), delivery.sequence));
            delivery.token.ack();
        }
    }
    assert_eq!(seen.len(), 40);
    source.close(Instant::now() + LONG).await;
}
