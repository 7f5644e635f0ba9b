//! What the answers to the copies of one message mean for the message: the one table of it, tested line by line.
//! Pure.

use crate::flow::answer::{Answer, Why};
use crate::flow::classify::Class;

/// Why a message cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// HTTP status, as a client would have been told.
    pub status: u16,
    /// Type of the error.
    pub kind: String,
    /// Text for people.
    pub reason: String,
}

impl Dead {
    /// One of the router's own: asking again changes nothing.
    pub fn illegal(reason: impl Into<String>) -> Self {
        Self { status: 400, kind: "illegal_argument_exception".to_owned(), reason: reason.into() }
    }
}

/// What one answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The document is there, or a later version of it.
    Done,
    /// Not applied, or harmless to be sent again: by another router, because this one stops.
    Return,
    /// The same: later, because the destination does not work. Text for people.
    Later(String),
    /// The same, and each try counts: the answer was lost, perhaps because of this very operation.
    Lost(String),
    /// It cannot be written.
    Dead(Dead),
    /// It was sent, nobody knows whether it was applied, and it is not to be sent again.
    Unknown(Dead),
}

/// What an answer means. `repeatable`: versions make it harmless to send the operation again.
pub fn meaning(answer: &Answer, repeatable: bool) -> Meaning {
    let gone =
        |status, kind: &str, why: &Why| Dead { status, kind: kind.to_owned(), reason: why.to_string() };
    match answer {
        Answer::Done(_) => Meaning::Done,
        // A version at least as high is there; of an operation that creates: it was there, or this very one was.
        Answer::Refused(refused) if refused.status == 409 => Meaning::Done,
        Answer::Refused(refused) => Meaning::Dead(Dead {
            status: refused.status,
            kind: refused.kind.to_string(),
            reason: match &refused.cause {
                Some((kind, cause)) => format!("{}; {kind}: {cause}", refused.reason),
                None => refused.reason.to_string(),
            },
        }),
        Answer::Unknown(why) if !repeatable => Meaning::Unknown(gone(503, "outcome_unknown", why)),
        Answer::Unsent(why) | Answer::Unknown(why) => match why {
            Why::Stopping => Meaning::Return,
            Why::GaveUp(Class::Server, _) => Meaning::Dead(gone(500, "attempts_spent", why)),
            Why::GaveUp(Class::Lost, _) => Meaning::Lost(why.to_string()),
            _ => Meaning::Later(why.to_string()),
        },
    }
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is acknowledged.
    Done,
    /// It comes back at once.
    Return,
    /// It comes back later. Text for people.
    Later(String),
    /// It is dead; the position is that of the copy which says why.
    Dead(usize, Dead),
}

/// Rounds of tries with a lost answer after which a message is dead.
pub const ROUNDS: u64 = 20;

/// What becomes of a message with these answers to its copies, which has been delivered `rounds` times. Copies that are
/// dead do not keep the others from being tried again; being refused again does them no harm. What is not to be sent
/// again comes first.
pub fn of(meanings: &[Meaning], rounds: u64) -> Fate {
    let mut fate = Fate::Done;
    let rank = |fate: &Fate| match fate {
        Fate::Done => 0,
        Fate::Dead(..) => 1,
        Fate::Later(_) => 2,
        Fate::Return => 3,
    };
    for (position, meaning) in meanings.iter().enumerate() {
        let next = match meaning {
            Meaning::Done => Fate::Done,
            Meaning::Return => Fate::Return,
            Meaning::Lost(why) if rounds >= ROUNDS => {
                let dead = Dead { status: 503, kind: "attempts_spent".to_owned(), reason: why.clone() };
                Fate::Dead(position, dead)
            }
            Meaning::Later(why) | Meaning::Lost(why) => Fate::Later(why.clone()),
            Meaning::Dead(dead) => Fate::Dead(position, dead.clone()),
            Meaning::Unknown(dead) => return Fate::Dead(position, dead.clone()),
        };
        if rank(&next) > rank(&fate) {
            fate = next;
        }
    }
    fate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::answer::{Block, Done, Outcome, Refused};

    fn refused(status: u16) -> Answer {
        Answer::Refused(Box::new(Refused { status, kind: "k".into(), reason: "r".into(), cause: None }))
    }

    fn gave_up(class: Class) -> Why {
        Why::GaveUp(class, "last".into())
    }

    #[test]
    fn answers() {
        let done = Done {
            status: 200,
            result: Outcome::Noop,
            version: 1,
            seq_no: 1,
            primary_term: 1,
            shards: [1; 3],
        };
        let later = |why: Why| Meaning::Later(why.to_string());
        let dead = |status, kind: &str, reason: &str| {
            Meaning::Dead(Dead { status, kind: kind.into(), reason: reason.into() })
        };
        let table = [
            (Answer::Done(done), Meaning::Done),
            (refused(409), Meaning::Done),
            (refused(400), dead(400, "k", "r")),
            (refused(413), dead(413, "k", "r")),
            (Answer::Unsent(Why::Stopping), Meaning::Return),
            (Answer::Unsent(Why::Full), later(Why::Full)),
            (Answer::Unsent(Why::Held), later(Why::Held)),
            (Answer::Unsent(Why::Blocked(Block::Missing)), later(Why::Blocked(Block::Missing))),
            (Answer::Unsent(gave_up(Class::Unreachable)), later(gave_up(Class::Unreachable))),
            (Answer::Unsent(gave_up(Class::Server)), dead(500, "attempts_spent", "last")),
            (Answer::Unknown(Why::Held), later(Why::Held)),
            (Answer::Unknown(Why::Stopping), Meaning::Return),
            (Answer::Unknown(gave_up(Class::Lost)), Meaning::Lost("last".into())),
            (Answer::Unknown(gave_up(Class::Server)), dead(500, "attempts_spent", "last")),
        ];
        for (answer, expected) in table {
            assert_eq!(meaning(&answer, true), expected, "{answer:?}");
            let unknown = matches!(answer, Answer::Unknown(_));
            match meaning(&answer, false) {
                Meaning::Unknown(dead) => assert!(unknown && dead.kind == "outcome_unknown"),
                other => assert!(!unknown && other == expected, "{answer:?}"),
            }
        }
    }

    #[test]
    fn messages() {
        let dead = |kind: &str| Dead { status: 400, kind: kind.into(), reason: String::new() };
        let (done, back) = (Meaning::Done, Meaning::Return);
        let (later, lost) = (Meaning::Later("w".into()), Meaning::Lost("l".into()));
        let (gone, unknown) = (Meaning::Dead(dead("d")), Meaning::Unknown(dead("u")));
        let of = |meanings: &[&Meaning], rounds| {
            of(&meanings.iter().map(|meaning| (*meaning).clone()).collect::<Vec<_>>(), rounds)
        };
        assert_eq!(of(&[&done, &done], 1), Fate::Done);
        assert_eq!(of(&[&done, &later], 1), Fate::Later("w".into()));
        assert_eq!(of(&[&gone, &later, &done], 1), Fate::Later("w".into()));
        assert_eq!(of(&[&later, &back], 1), Fate::Return);
        assert_eq!(of(&[&done, &gone], 1), Fate::Dead(1, dead("d")));
        assert_eq!(of(&[&later, &gone, &unknown], 1), Fate::Dead(2, dead("u")));
        assert_eq!(of(&[&lost], ROUNDS - 1), Fate::Later("l".into()));
        assert!(matches!(of(&[&lost], ROUNDS), Fate::Dead(0, dead) if dead.kind == "attempts_spent"));
        assert_eq!(
            of(&[&later], ROUNDS * 9),
            Fate::Later("w".into()),
            "whose fault it is not is never given up"
        );
    }
}
