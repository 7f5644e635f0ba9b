//! What a message says, by its headers and its bytes, and the copies of it that are parked or dead. Pure.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::fate::Dead;
use super::settings::HeaderNames;
use super::{Headers, Letter};
use crate::front::bulk::Verb;
use crate::front::write::one_line;

/// The stream that a parked or dead message came from first, and its number there.
pub const STREAM: &str = "Searchcell-Stream";
/// See [`STREAM`].
pub const SEQUENCE: &str = "Searchcell-Sequence";
/// How often a parked or dead message has been delivered.
pub const ATTEMPTS: &str = "Searchcell-Attempts";
/// Why a message is parked.
pub const PARKED: &str = "Searchcell-Parked";
/// What of a dead message: `Cluster`, `Index`, `Tenant`, `Status`, `Type`, `Reason`.
const DEAD: &str = "Searchcell-Dead-";
/// Most bytes of a header's value that the router makes.
const MOST: usize = 512;

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Original {
    /// Its bytes.
    pub payload: Bytes,
    /// Its headers.
    pub headers: Headers,
    /// Stream and number, as they name it for good: of a parked one, those that it came from first.
    pub origin: (Arc<str>, u64),
    /// Stream and number that it was delivered from.
    pub here: (Arc<str>, u64),
    /// How often it has been delivered, this time and those before it was parked included.
    pub rounds: u64,
    /// How often it has been delivered from where it is now.
    pub attempt: u64,
    /// When it was published where it is now.
    pub published: SystemTime,
}

impl Original {
    /// When it was published, in nanoseconds since 1970.
    pub fn born(&self) -> u128 {
        self.published.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos()
    }
}

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Collection.
    pub collection: String,
    /// What is to be done; absent: the document is to be written.
    pub verb: Option<Verb>,
    /// Tenant; absent: it is in the document.
    pub tenant: Option<String>,
    /// Id; absent: one that is the same whenever the message is delivered.
    pub id: Option<String>,
    /// Version.
    pub version: Option<i64>,
    /// Document in one line; none for a delete.
    pub document: Option<Bytes>,
}

/// What a message asks for, or why that cannot be said. `default`: collection of messages that do not name one.
pub fn read(
    payload: &Bytes,
    headers: &Headers,
    names: &HeaderNames,
    default: Option<&str>,
) -> Result<Order, Dead> {
    let verb = match headers.get(&names.operation) {
        None => None,
        Some("index") => Some(Verb::Index),
        Some("create") => Some(Verb::Create),
        Some("delete") => Some(Verb::Delete),
        Some(other) => {
            let name = &names.operation;
            return Err(Dead::illegal(format!("[{other}] in {name} is none of index, create and delete")));
        }
    };
    let collection = headers.get(&names.collection).or(default).ok_or_else(|| {
        Dead::illegal(format!("{} is required: there are several collections", names.collection))
    })?;
    let version =
        match headers.get(&names.version) {
            None => None,
            Some(text) => Some(text.trim().parse().map_err(|_| {
                Dead::illegal(format!("[{text}] in {} is no integer of 64 bits", names.version))
            })?),
        };
    let document = match verb {
        Some(Verb::Delete) => None,
        _ => Some(one_line(payload).map_err(|failure| Dead {
            status: failure.status,
            kind: failure.kind.to_string(),
            reason: failure.reason,
        })?),
    };
    Ok(Order {
        collection: collection.to_owned(),
        verb,
        tenant: headers.get(&names.tenant).map(str::to_owned),
        id: headers.get(&names.id).map(str::to_owned),
        version,
        document,
    })
}

/// How a copy of a message has to differ from it, so that it means the same wherever it is read.
#[derive(Clone, Debug, Default)]
pub struct Meant {
    /// Id that it was given.
    pub id: Option<String>,
    /// What was meant by having none.
    pub verb: Option<Verb>,
    /// The tenants that are left to be written, where not all are.
    pub tenants: Option<String>,
}

fn copy(original: &Original, meant: &Meant, names: &HeaderNames) -> Headers {
    let mut headers = original.headers.clone();
    headers.set(STREAM, &*original.origin.0);
    headers.set(SEQUENCE, original.origin.1.to_string());
    headers.set(ATTEMPTS, original.rounds.to_string());
    if let Some(id) = &meant.id {
        headers.set(&names.id, id.clone());
    }
    if let Some(verb) = meant.verb {
        headers.set(&names.operation, verb.name());
    }
    if let Some(tenants) = &meant.tenants {
        headers.set(&names.tenant, tenants.clone());
    }
    headers
}

/// The copy of a message that waits elsewhere.
pub fn parked(original: &Original, meant: &Meant, names: &HeaderNames, why: &str) -> Letter {
    let mut headers = copy(original, meant, names);
    headers.set(PARKED, line(why));
    Letter { payload: original.payload.clone(), headers, id: id("parked", original) }
}

/// Where a copy of a document was to go.
#[derive(Clone, Debug, Default)]
pub struct Where {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the index.
    pub index: String,
    /// Tenants whose copies have not been written, with commas between them.
    pub tenants: String,
}

/// The copy of a message that cannot be written. `to`: absent where that was not found out.
pub fn dead(
    original: &Original,
    meant: &Meant,
    names: &HeaderNames,
    dead: &Dead,
    to: Option<&Where>,
) -> Letter {
    let mut headers = copy(original, meant, names);
    let mut put = |what: &str, value: &str| headers.set(&format!("{DEAD}{what}"), line(value));
    put("Status", &dead.status.to_string());
    put("Type", &dead.kind);
    put("Reason", &dead.reason);
    if let Some(to) = to {
        put("Cluster", &to.cluster);
        put("Index", &to.index);
        put("Tenant", &to.tenants);
    }
    Letter { payload: original.payload.clone(), headers, id: id("dead", original) }
}

/// Of where the message is now: a copy of it that was parked before may have been read since. With its time, since a
/// stream that is made anew counts from one again.
fn id(kind: &str, original: &Original) -> String {
    format!("searchcell-{kind}-{}-{}-{}", original.here.0, original.here.1, original.born())
}

/// As a header can have it.
fn line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = MOST.min(line.len());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect())
    }

    fn order(payload: &'static str, pairs: &[(&str, &str)]) -> Result<Order, Dead> {
        let names = HeaderNames::default();
        read(&Bytes::from_static(payload.as_bytes()), &headers(pairs), &names, Some("messages"))
    }

    #[test]
    fn messages_say_what_is_to_be_done() {
        let all = [
            ("searchcell-collection", "other"),
            ("Searchcell-Tenant", "5"),
            ("Searchcell-Id", "a"),
            ("Searchcell-Version", "7"),
            ("Searchcell-Operation", "create"),
        ];
        let expected = Order {
            collection: "other".into(),
            verb: Some(Verb::Create),
            tenant: Some("5".into()),
            id: Some("a".into()),
            version: Some(7),
            document: Some(Bytes::from_static(b"{ }")),
        };
        assert_eq!(order("{\n}", &all), Ok(expected));
        let least = order("{}", &[]).unwrap();
        assert_eq!((least.collection.as_str(), least.verb, least.id), ("messages", None, None));
        assert_eq!(order("", &[("Searchcell-Operation", "delete")]).unwrap().document, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let reason = |payload, pairs: &[(&str, &str)]| order(payload, pairs).unwrap_err().reason;
        assert!(reason("{}", &[("Searchcell-Operation", "update")]).contains("[update]"));
        assert!(reason("{}", &[("Searchcell-Version", "1.5")]).contains("Searchcell-Version"));
        assert!(reason("", &[]).contains("required"));
        assert_eq!(order("{\n", &[]).unwrap_err().kind, "document_parsing_exception");
        let names = HeaderNames::default();
        let none = read(&Bytes::from_static(b"{}"), &Headers::default(), &names, None).unwrap_err();
        assert!(none.reason.contains("Searchcell-Collection"));
    }

    #[test]
    fn copies_mean_the_same_and_say_what_happened() {
        let original = Original {
            payload: Bytes::from_static(b"{\n}"),
            headers: headers(&[("x", "y"), ("searchcell-tenant", "1,2")]),
            origin: ("chat".into(), 7),
            here: ("parking".into(), 9),
            rounds: 3,
            attempt: 1,
            published: SystemTime::UNIX_EPOCH,
        };
        let meant = Meant { id: Some("i".into()), verb: Some(Verb::Create), tenants: Some("2".into()) };
        let names = HeaderNames::default();
        let parked = parked(&original, &meant, &names, "full");
        assert_eq!(
            (&parked.payload[..], parked.id.as_str()),
            (&b"{\n}"[..], "searchcell-parked-parking-9-0")
        );
        let expected = [
            ("x", "y"),
            ("Searchcell-Stream", "chat"),
            ("Searchcell-Sequence", "7"),
            ("Searchcell-Attempts", "3"),
            ("Searchcell-Id", "i"),
            ("Searchcell-Operation", "create"),
            ("Searchcell-Tenant", "2"),
            ("Searchcell-Parked", "full"),
        ];
        assert_eq!(parked.headers, headers(&expected));
        let reason = format!("two\nlines {}", "ä".repeat(MOST));
        let to = Where { cluster: "c".into(), index: "i".into(), tenants: "2".into() };
        let letter = dead(&original, &Meant::default(), &names, &Dead::illegal(reason), Some(&to));
        let value = |name: &str| letter.headers.get(&format!("{DEAD}{name}")).unwrap().to_owned();
        assert!(value("Reason").starts_with("two lines ä") && value("Reason").len() <= MOST);
        assert_eq!(["Status", "Cluster", "Index", "Tenant"].map(value), ["400", "c", "i", "2"]);
        assert_eq!(letter.headers.get("searchcell-tenant"), Some("1,2"));
    }
}
