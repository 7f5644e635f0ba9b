//! Tests of `message`: one decision, after the last answer, whatever the answers are.

use std::sync::mpsc;

use bytes::Bytes;

use super::*;
use crate::flow::answer::{Done, Outcome, Refused};
use crate::source::{Decision, Headers, Hold, Settle};

struct Told(mpsc::Sender<Decision>);

impl Settle for Told {
    fn settle(self: Box<Self>, decision: Decision, _: Option<Hold>) {
        self.0.send(decision).unwrap();
    }
}

fn target(tenant: &str, repeatable: bool) -> Target {
    Target { tenant: tenant.into(), cluster: "c".into(), index: format!("i-{tenant}").into(), repeatable }
}

fn done() -> Answer {
    let shards = [1; 3];
    Answer::Done(Done {
        status: 201,
        result: Outcome::Created,
        version: 1,
        seq_no: 1,
        primary_term: 1,
        shards,
    })
}

fn refused() -> Answer {
    let reason = "no such field".into();
    Answer::Refused(Box::new(Refused { status: 400, kind: "bad".into(), reason, cause: None }))
}

/// What is decided of a message with a copy for each tenant, when these are the answers in this order.
fn decided(parks: bool, tenants: &[&str], repeatable: bool, answers: Vec<(u32, Answer)>) -> Decision {
    let (sender, told) = mpsc::channel();
    let rules = Rules {
        names: HeaderNames::default(),
        parks,
        delays: true,
        meters: Arc::default(),
        waited: AtomicU64::new(0),
    };
    let original = Original {
        payload: Bytes::from_static(b"{}"),
        headers: Headers::default(),
        origin: ("s".into(), 1),
        here: ("s".into(), 1),
        rounds: 3,
        attempt: 3,
        published: SystemTime::now(),
    };
    let targets = tenants.iter().map(|tenant| target(tenant, repeatable)).collect();
    let token = Token::new(Box::new(Told(sender)));
    let message = Message::new(Arc::new(rules), original, Meant::default(), targets, token);
    for (slot, answer) in answers {
        assert!(told.try_recv().is_err(), "decided before the last answer");
        message.answer(slot, answer);
    }
    let decision = told.try_recv().unwrap();
    drop(message);
    assert!(told.try_recv().is_err(), "decided twice");
    decision
}

fn header(decision: &Decision, name: &str) -> Option<String> {
    match decision {
        Decision::Park(letter) | Decision::Dead(letter) => letter.headers.get(name).map(str::to_owned),
        _ => panic!("{decision:?}"),
    }
}

#[test]
fn acknowledged_when_all_copies_are() {
    assert_eq!(decided(true, &["a", "b"], true, vec![(1, done()), (0, done())]), Decision::Ack);
}

#[test]
fn parked_or_returned_when_a_copy_has_to_wait() {
    let full = || Answer::Unsent(Why::Full);
    let parked = decided(true, &["a", "b"], true, vec![(1, done()), (0, full())]);
    assert!(matches!(parked, Decision::Park(_)));
    assert_eq!(header(&parked, "Searchcell-Tenant"), None, "versions make it harmless");
    let parked = decided(true, &["a", "b", "c"], false, vec![(1, done()), (0, full()), (2, full())]);
    assert_eq!(header(&parked, "Searchcell-Tenant").as_deref(), Some("a,c"), "nobody twice");
    let back = decided(false, &["a"], false, vec![(0, full())]);
    assert_eq!(back, Decision::Retry(Duration::from_secs(4)));
    let stopped = Answer::Unsent(Why::Stopping);
    assert_eq!(decided(true, &["a"], true, vec![(0, stopped)]), Decision::Retry(Duration::ZERO));
}

#[test]
fn dead_with_the_copies_that_are_missing() {
    let dead = decided(true, &["a", "b"], true, vec![(0, done()), (1, refused())]);
    let value = |what: &str| header(&dead, &format!("Searchcell-Dead-{what}")).unwrap();
    assert!(matches!(dead, Decision::Dead(_)));
    assert_eq!(
        ["Tenant", "Index", "Status", "Type", "Reason"].map(value),
        ["b", "i-b", "400", "bad", "no such field"]
    );
    let unknown = Answer::Unknown(Why::Timeout);
    let dead = decided(true, &["a", "b"], false, vec![(1, unknown), (0, Answer::Unsent(Why::Full))]);
    assert_eq!(header(&dead, "Searchcell-Dead-Type").as_deref(), Some("outcome_unknown"));
    assert_eq!(header(&dead, "Searchcell-Dead-Tenant").as_deref(), Some("a,b"));
}

#[test]
fn what_cannot_be_narrowed_to_what_is_missing_is_not_written_twice() {
    let full = || Answer::Unsent(Why::Full);
    for (parks, tenants) in [(false, ["a", "b"]), (true, ["a", "a"])] {
        let dead = decided(parks, &tenants, false, vec![(0, done()), (1, full())]);
        assert_eq!(header(&dead, "Searchcell-Dead-Type").as_deref(), Some("partly_applied"));
    }
}

#[test]
fn a_token_without_a_decision_is_abandoned() {
    let (sender, told) = mpsc::channel();
    drop(Token::new(Box::new(Told(sender))));
    assert_eq!(told.recv().unwrap(), Decision::Abandon);
}
