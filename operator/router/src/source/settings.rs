//! The part of the configuration file that is about queues: every field documented, and refused when it is wrong.
//! Pure.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::settings::time;

/// Name of the queue in metrics.
pub const QUEUE: &str = "queue";
/// Name in metrics of where messages are parked.
pub const PARKING: &str = "parking";

/// Where messages come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceSettings {
    /// The queue: NATS JetStream.
    pub nats: NatsSettings,
    /// Collection of messages that do not name one. Default: the only one that is configured.
    pub collection: Option<String>,
    /// Names of the headers that the router reads.
    #[serde(default)]
    pub headers: HeaderNames,
    /// Where messages wait whose destination takes no writes. Absent: they are returned to the queue, with a delay that
    /// grows to a minute; meanwhile they count as held, up to `nats.maxAckPending`.
    pub parking: Option<Parking>,
}

/// How to talk to NATS, and what to read there.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsSettings {
    /// Addresses, `nats://host:port` or `tls://host:port`; at least one.
    pub servers: Vec<String>,
    /// Name of the stream.
    pub stream: String,
    /// Name of the durable pull consumer. It is created when it is absent, and refused when it is another kind.
    pub consumer: String,
    /// What is read of the stream; wildcards as NATS has them. Absent: all of it. A consumer that is there keeps its own.
    pub subject: Option<String>,
    /// How long the queue waits for a message that is held before it delivers it again; extended for as long as it is
    /// held. At least `1s`, default `30s`.
    #[serde(default = "ack_wait", deserialize_with = "time")]
    pub ack_wait: Duration,
    /// Most messages that all routers together hold. 1 to 1000000, default 50000.
    #[serde(default = "max_ack_pending")]
    pub max_ack_pending: usize,
    /// File with credentials as `nsc` writes them. Read whenever the router connects.
    pub credentials_file: Option<PathBuf>,
    /// File with a user's name; `passwordFile` belongs to it.
    pub user_file: Option<PathBuf>,
    /// File with that user's password.
    pub password_file: Option<PathBuf>,
    /// File with a token.
    pub token_file: Option<PathBuf>,
    /// PEM file with the authorities that are trusted; TLS is required then. Absent: those of the system.
    pub ca_file: Option<PathBuf>,
}

fn ack_wait() -> Duration {
    Duration::from_secs(30)
}

fn max_ack_pending() -> usize {
    50_000
}

/// Names of headers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeaderNames {
    /// Collection. Default `Searchcell-Collection`.
    pub collection: String,
    /// Tenant; where documents have several, with commas between them. Default `Searchcell-Tenant`.
    pub tenant: String,
    /// Id of the document. Default `Searchcell-Id`.
    pub id: String,
    /// Version from the source of truth. Default `Searchcell-Version`.
    pub version: String,
    /// `index`, `create` or `delete`; without it, `index`. Default `Searchcell-Operation`.
    pub operation: String,
}

impl Default for HeaderNames {
    fn default() -> Self {
        let name = |what| format!("Searchcell-{what}");
        Self {
            collection: name("Collection"),
            tenant: name("Tenant"),
            id: name("Id"),
            version: name("Version"),
            operation: name("Operation"),
        }
    }
}

/// Where messages wait.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parking {
    /// A subject of a stream, for this consumer alone, that the source itself does not read.
    pub subject: String,
}

/// Where messages end that cannot be written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// A subject of a stream that the source itself does not read.
    pub subject: String,
}

/// What is wrong with it, and what to change.
pub fn check(
    source: Option<&SourceSettings>,
    dead: Option<&DeadLetter>,
    collections: &[&str],
) -> Result<(), String> {
    let (source, dead) = match (source, dead) {
        (None, None) => return Ok(()),
        (None, Some(_)) => return Err("deadLetter: it belongs to a source, and there is none".to_owned()),
        (Some(_), None) => {
            let why =
                "deadLetter: a source needs one, so that what cannot be written is not lost: name a subject";
            return Err(why.to_owned());
        }
        (Some(source), Some(dead)) => (source, dead),
    };
    let nats = &source.nats;
    if nats.servers.is_empty() {
        return Err("source.nats.servers: at least one is needed".to_owned());
    }
    for server in &nats.servers {
        if server.parse::<async_nats::ServerAddr>().is_err() {
            return Err(format!("source.nats.servers: [{server}] is not as nats://host:port"));
        }
        if server.contains('@') {
            return Err("source.nats.servers: credentials belong into files, not into addresses".to_owned());
        }
    }
    for (field, name) in [("stream", &nats.stream), ("consumer", &nats.consumer)] {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || ".*>/\\".contains(c)) {
            return Err(format!(
                "source.nats.{field}: [{name}] has a character that such names must not have"
            ));
        }
    }
    if let Some(subject) = nats.subject.as_ref().filter(|subject| !is_subject(subject, true)) {
        return Err(format!("source.nats.subject: [{subject}] is no subject"));
    }
    if nats.ack_wait < Duration::from_secs(1) {
        return Err("source.nats.ackWait: it must be 1s or more".to_owned());
    }
    if !(1..=1_000_000).contains(&nats.max_ack_pending) {
        return Err("source.nats.maxAckPending: it must be 1 to 1000000".to_owned());
    }
    let ways = [&nats.credentials_file, &nats.user_file, &nats.token_file];
    if ways.iter().filter(|way| way.is_some()).count() > 1 {
        return Err("source.nats: use one of credentialsFile, userFile and tokenFile".to_owned());
    }
    if nats.user_file.is_some() != nats.password_file.is_some() {
        return Err("source.nats: userFile and passwordFile belong together".to_owned());
    }
    match &source.collection {
        Some(name) if !collections.contains(&name.as_str()) => {
            return Err(format!("source.collection: [{name}] is not one of collections"));
        }
        _ => {}
    }
    let names = &source.headers;
    let names = [&names.collection, &names.tenant, &names.id, &names.version, &names.operation];
    for (position, name) in names.iter().enumerate() {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return Err(format!("source.headers: [{name}] is no name of a header"));
        }
        if names.iter().take(position).any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(format!("source.headers: [{name}] is there twice"));
        }
    }
    let parking = source.parking.as_ref().map(|parking| &parking.subject);
    let targets = [("deadLetter.subject", Some(&dead.subject)), ("source.parking.subject", parking)];
    for (field, subject) in targets.into_iter().filter_map(|(field, subject)| Some((field, subject?))) {
        if !is_subject(subject, false) {
            return Err(format!("{field}: [{subject}] is no subject without wildcards"));
        }
        if nats.subject.as_ref().is_some_and(|read| overlaps(read, subject)) {
            return Err(format!("{field}: [{subject}] is read by the source itself: use another"));
        }
    }
    if parking == Some(&dead.subject) {
        return Err("source.parking.subject: it must not be that of deadLetter".to_owned());
    }
    Ok(())
}

fn is_subject(subject: &str, wildcards: bool) -> bool {
    let tokens: Vec<&str> = subject.split('.').collect();
    tokens.iter().enumerate().all(|(position, token)| match *token {
        "" => false,
        ">" => wildcards && position + 1 == tokens.len(),
        "*" => wildcards,
        token => !token.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c)),
    })
}

/// Whether a subject is one of those that a filter takes.
pub fn overlaps(filter: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in filter.split('.') {
        match (token, subject.next()) {
            (">", next) => return next.is_some(),
            ("*", Some(_)) => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "nats: {servers: ['nats://q:4222'], stream: chat, consumer: router, subject: chat.>}";

    fn tried(text: &str, dead: &str) -> Result<(), String> {
        let source: SourceSettings = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let dead = DeadLetter { subject: dead.to_owned() };
        check(Some(&source), Some(&dead), &["messages"])
    }

    #[test]
    fn the_smallest_and_a_full_one() {
        assert_eq!(tried(SMALL, "dead"), Ok(()));
        let full = "
nats:
  servers: ['tls://a:4222', 'tls://b:4222']
  stream: chat
  consumer: router
  subject: chat.*
  ackWait: 1m
  maxAckPending: 100
  userFile: /u
  passwordFile: /p
  caFile: /ca.crt
collection: messages
headers: {tenant: Guild}
parking: {subject: parked.chat}
";
        assert_eq!(tried(full, "dead.chat"), Ok(()));
        let source: SourceSettings = serde_yaml::from_str(full).unwrap();
        assert_eq!((source.headers.tenant.as_str(), source.headers.id.as_str()), ("Guild", "Searchcell-Id"));
        assert_eq!(source.nats.ack_wait, Duration::from_secs(60));
    }

    #[test]
    fn mistakes_are_named_with_their_field() {
        let with = |from: &str, to: &str| {
            assert!(SMALL.contains(from));
            tried(&SMALL.replace(from, to), "dead").unwrap_err()
        };
        let table = [
            (with("'nats://q:4222'", ""), "source.nats.servers"),
            (with("nats://q:4222", "nats://u:p@q"), "source.nats.servers: credentials"),
            (with("stream: chat", "stream: a.b"), "source.nats.stream"),
            (with("consumer: router", "consumer: '*'"), "source.nats.consumer"),
            (with("chat.>", "chat.>.x"), "source.nats.subject"),
            (with("chat.>", "chat..x"), "source.nats.subject"),
            (with("chat.>}", "chat.>, ackWait: 500ms}"), "ackWait"),
            (with("chat.>}", "chat.>, maxAckPending: 0}"), "maxAckPending"),
            (with("chat.>}", "chat.>, userFile: /u}"), "passwordFile"),
            (with("chat.>}", "chat.>, tokenFile: /t, credentialsFile: /c}"), "use one of"),
            (with("chat.>}", "chat.>}\ncollection: other"), "source.collection"),
            (with("chat.>}", "chat.>}\nheaders: {id: 'a b'}"), "source.headers"),
            (with("chat.>}", "chat.>}\nheaders: {id: X, tenant: x}"), "there twice"),
            (with("chat.>}", "chat.>}\nparking: {subject: chat.parked}"), "source.parking.subject"),
            (with("chat.>}", "chat.>}\nparking: {subject: dead}"), "must not be that of deadLetter"),
            (with("chat.>}", "chat.>}\nparking: {subject: 'p.*'}"), "without wildcards"),
            (with("chat.>}", "chat.>}\nkafka: {}"), "kafka"),
            (tried(SMALL, "chat.dead").unwrap_err(), "deadLetter.subject"),
        ];
        for (said, expected) in table {
            assert!(said.contains(expected), "{said} / {expected}");
        }
        let source: SourceSettings = serde_yaml::from_str(SMALL).unwrap();
        assert!(check(Some(&source), None, &[]).unwrap_err().starts_with("deadLetter"));
        let dead = DeadLetter { subject: "dead".to_owned() };
        assert!(check(None, Some(&dead), &[]).unwrap_err().starts_with("deadLetter"));
        assert_eq!(check(None, None, &[]), Ok(()));
    }

    #[test]
    fn filters() {
        for (filter, subject, yes) in [
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a", "a", true),
            ("a.b", "a", false),
        ] {
            assert_eq!(overlaps(filter, subject), yes, "{filter} {subject}");
        }
    }
}
