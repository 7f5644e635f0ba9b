//! The configuration file: YAML, every field documented here, unknown fields refused. No effects but reading it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::flow::limits::Limits;
use crate::source::settings::{self as queue, DeadLetter, SourceSettings};

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Where clients connect. Default `0.0.0.0:9200`.
    #[serde(default = "front_address")]
    pub listen: SocketAddr,
    /// Where metrics, probes and `/generation` are. Default `0.0.0.0:8081`.
    #[serde(default = "admin_address")]
    pub admin: SocketAddr,
    /// What clients index into and search.
    pub collections: Vec<Collection>,
    /// Directory in which the last good table of each collection is kept for a restart; absent: it is not kept.
    pub state_directory: Option<PathBuf>,
    /// How to talk to Elasticsearch.
    #[serde(default)]
    pub elasticsearch: Elasticsearch,
    /// How clients talk to the router.
    #[serde(default)]
    pub front: Front,
    /// A queue to read; absent: writes come over HTTP alone.
    pub source: Option<SourceSettings>,
    /// Where messages of the queue end that cannot be written: a queue needs it.
    pub dead_letter: Option<DeadLetter>,
    /// Sizes and times.
    #[serde(default)]
    pub limits: Sizes,
    /// When a tenant is hot, and what it may then. The only section that is read again when the file changes.
    #[serde(default)]
    pub hot: HotTenants,
    /// When tenants whom a migration moves have to wait.
    #[serde(default)]
    pub fence: Fence,
}

/// When a tenant is hot, and what it may then.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HotTenants {
    /// Documents a second from which on a tenant is hot, with a lane of its own. Default 5000; 0: any number is fine.
    pub documents_per_second: u64,
    /// Bytes of documents a second, likewise. Default `8Mi`; 0: any number is fine.
    #[serde(deserialize_with = "size64")]
    pub bytes_per_second: u64,
    /// Most documents a second of a tenant that is hot, unless its table says; at least `documentsPerSecond`. Default:
    /// as many as come.
    pub limit: Option<NonZeroU32>,
    /// How long it has to be below half of both before it is hot no longer. Default `30s`.
    #[serde(deserialize_with = "time")]
    pub cool_down: Duration,
}

impl Default for HotTenants {
    fn default() -> Self {
        Self {
            documents_per_second: 5_000,
            bytes_per_second: 8 << 20,
            limit: None,
            cool_down: Duration::from_secs(30),
        }
    }
}

impl HotTenants {
    fn check(&self) -> Result<(), SettingsError> {
        if self.limit.is_some_and(|limit| u64::from(limit.get()) < self.documents_per_second) {
            return Err(SettingsError::Invalid(
                "hot.limit: is below hot.documentsPerSecond, so that a tenant that obeys it would soon be hot no longer; \
                 raise it, or lower documentsPerSecond"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// When tenants whom a migration moves have to wait.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fence {
    /// How long nobody has read `/generation`, as the operator does, until they wait. Default `off`: no operator reads.
    #[serde(default, deserialize_with = "time_or_off")]
    pub after: Option<Duration>,
}

/// A collection.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Collection {
    /// Its name.
    pub name: String,
    /// File with its routing table, as the ConfigMap `routes-<collection>` has it; looked at every second.
    pub table: PathBuf,
}

/// How to talk to Elasticsearch.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Elasticsearch {
    /// Directory with a directory per cluster (`<cell>-<cluster>`) or per cell, in which are `ca.crt`, and `username`
    /// and `password`, or `api-key`. Read again every few seconds. Absent: no credential, and public authorities are
    /// not trusted either.
    pub directory: Option<PathBuf>,
}

/// How clients talk to the router.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Front {
    /// Absent: plain HTTP, as for a sidecar that listens on the loopback address.
    pub tls: Option<FrontTls>,
    /// Who may do what. Empty: everybody who can connect may do everything.
    #[serde(default)]
    pub users: Vec<User>,
}

/// Certificate of the front.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrontTls {
    /// PEM file with the certificate and those of its issuers.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// A user of the front.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// Name, for basic authentication.
    pub name: String,
    /// File with the password, for basic authentication.
    pub password_file: Option<PathBuf>,
    /// File with a token, for `Authorization: Bearer` and `ApiKey`.
    pub token_file: Option<PathBuf>,
    /// What the user may do, by collection.
    pub collections: BTreeMap<String, Permission>,
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Permission {
    /// Get and search.
    Read,
    /// Index and delete.
    Write,
    /// Both.
    ReadWrite,
}

/// Sizes (`256Mi`, or bytes) and times (`500ms`, `30s`, `5m`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sizes {
    /// Bytes that may be in flight, everything counted. Default `256Mi`; the process needs about 64 MiB more.
    #[serde(deserialize_with = "size")]
    pub budget: usize,
    /// Largest body of a request, unpacked. Default `100Mi`, as Elasticsearch has it.
    #[serde(deserialize_with = "size")]
    pub max_request: usize,
    /// Bytes of a bulk from which on it does not wait for more. Default `1Mi`.
    #[serde(deserialize_with = "size")]
    pub bulk_bytes: usize,
    /// Operations of a bulk, likewise. Default 2000.
    pub bulk_operations: usize,
    /// Most bulks at once for a cluster. Default 32.
    pub concurrency: u32,
    /// How long a request waits that does not say so itself. Default `30s`.
    #[serde(deserialize_with = "time")]
    pub request_timeout: Duration,
    /// How long the answer to a bulk is waited for; Elasticsearch is told half of it. Default `20s`.
    #[serde(deserialize_with = "time")]
    pub bulk_timeout: Duration,
    /// How long what is in flight may take when the router is told to stop. Default `25s`.
    #[serde(deserialize_with = "time")]
    pub grace: Duration,
    /// Connections of clients at once. Default 1000.
    pub connections: usize,
    /// Tasks that own clusters. Default 2.
    pub owners: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            budget: limits.budget,
            max_request: 100 << 20,
            bulk_bytes: limits.bulk_bytes,
            bulk_operations: limits.bulk_items,
            concurrency: limits.concurrency_max,
            request_timeout: Duration::from_secs(30),
            bulk_timeout: Duration::from_secs(20),
            grace: Duration::from_secs(25),
            connections: 1_000,
            owners: 2,
        }
    }
}

impl Sizes {
    /// The numbers that the flow obeys.
    pub fn limits(&self) -> Limits {
        Limits {
            budget: self.budget,
            bulk_bytes: self.bulk_bytes,
            bulk_items: self.bulk_operations,
            concurrency_max: self.concurrency,
            ..Limits::default()
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not as this page says.
    #[error("{path}: {error}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why, with line and column.
        error: serde_yaml::Error,
    },
    /// It contradicts itself. Text for people.
    #[error("{0}")]
    Invalid(String),
}

/// Reads the file.
pub fn read(path: &Path) -> Result<Settings, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::Read { path: path.to_owned(), error })?;
    parse(&text, path)
}

/// Reads a configuration that is not in a file; `origin` says where it was found, in errors.
pub fn parse(text: &str, origin: &Path) -> Result<Settings, SettingsError> {
    let settings: Settings = serde_yaml::from_str(text)
        .map_err(|error| SettingsError::Parse { path: origin.to_owned(), error })?;
    check(&settings)?;
    Ok(settings)
}

fn check(settings: &Settings) -> Result<(), SettingsError> {
    let invalid = |text: String| Err(SettingsError::Invalid(text));
    let mut names: Vec<&str> = settings.collections.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    if names.is_empty() || names.windows(2).any(|pair| pair.first() == pair.last()) {
        return invalid("collections: at least one is needed, and each only once".to_owned());
    }
    for user in &settings.front.users {
        if user.password_file.is_none() && user.token_file.is_none() {
            return invalid(format!("front.users: {} has neither passwordFile nor tokenFile", user.name));
        }
    }
    queue::check(settings.source.as_ref(), settings.dead_letter.as_ref(), &names)
        .map_err(SettingsError::Invalid)?;
    settings.hot.check()?;
    if settings.limits.budget < 4 * settings.limits.bulk_bytes {
        return invalid("limits: budget has room for fewer than four bulks of bulkBytes".to_owned());
    }
    Ok(())
}

fn front_address() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 9200).into()
}

fn admin_address() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 8081).into()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let wanted = "a size is a number of bytes, or one with Ki, Mi or Gi";
    let bytes = match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(bytes) => Some(bytes),
        NumberOrText::Text(text) => [("Ki", 10), ("Mi", 20), ("Gi", 30)].iter().find_map(|(unit, shift)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(1 << shift)
        }),
    };
    bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| serde::de::Error::custom(wanted))
}

/// A time, as [`parse_time`] reads it.
pub(crate) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_time(&text).ok_or_else(|| serde::de::Error::custom("a time is a number with ms, s, m, h or d"))
}

fn size64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    size(deserializer).map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn time_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || serde::de::Error::custom("a time is a number with ms, s, m, h or d, or off");
    match text.as_str() {
        "off" | "0" => Ok(None),
        text => parse_time(text).filter(|time| !time.is_zero()).map(Some).ok_or_else(wrong),
    }
}

/// A time as Elasticsearch writes it: `500ms`, `30s`, `2m`, `1h`, `1d`.
pub fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_file_and_a_full_one() {
        let small: Settings =
            serde_yaml::from_str("collections: [{name: messages, table: /t/table.json.gz}]").unwrap();
        assert_eq!((small.listen.port(), small.admin.port()), (9200, 8081));
        assert!(check(&small).is_ok());
        let full = "
listen: 127.0.0.1:9200
collections: [{name: messages, table: /t}]
stateDirectory: /state
elasticsearch: {directory: /es}
front:
  tls: {certificate: /c, key: /k}
  users: [{name: app, tokenFile: /token, collections: {messages: ReadWrite}}]
limits: {budget: 64Mi, bulkBytes: 524288, requestTimeout: 1m, bulkTimeout: 500ms}
hot: {documentsPerSecond: 100, bytesPerSecond: 1Mi, limit: 100, coolDown: 1m}
fence: {after: 60s}
";
        let full: Settings = serde_yaml::from_str(full).unwrap();
        assert_eq!((full.limits.budget, full.limits.bulk_bytes), (64 << 20, 512 << 10));
        assert_eq!(full.limits.request_timeout, Duration::from_secs(60));
        assert_eq!((full.hot.bytes_per_second, full.hot.limit), (1 << 20, NonZeroU32::new(100)));
        assert_eq!((full.fence.after, small.fence.after), (Some(Duration::from_secs(60)), None));
        assert!(check(&full).is_ok());
    }

    #[test]
    fn what_the_operator_puts_into_pods_can_be_read() {
        let sidecar = searchcell_core::inject::sidecar::Sidecar {
            collections: ["audit", "messages"].map(str::to_owned).into(),
            cells: ["guilds".to_owned()].into(),
            budget_mib: 16,
            grace: 30,
            generation: None,
        };
        let text = sidecar.configuration().to_string();
        let settings = parse(&text, Path::new("environment")).unwrap();
        assert!(settings.listen.ip().is_loopback() && settings.admin.ip().is_unspecified());
        assert_eq!((settings.listen.port(), settings.admin.port()), (9200, 8081));
        let names: Vec<_> = settings.collections.iter().map(|collection| collection.name.as_str()).collect();
        assert_eq!(names, ["audit", "messages"]);
        assert_eq!((settings.limits.budget, settings.limits.max_request), (16 << 20, 8 << 20));
        assert_eq!(settings.fence.after, Some(Duration::from_secs(300)), "the operator reads it");
        let shipped = include_str!("../../../manifests/router/router.yaml");
        assert_eq!(parse(shipped, Path::new("router.yaml")).unwrap().fence.after, settings.fence.after);
        let error = parse("{", Path::new("environment")).unwrap_err().to_string();
        assert!(error.starts_with("environment: "), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        let parse = |text: &str| serde_yaml::from_str::<Settings>(text).unwrap_err().to_string();
        assert!(parse("collections: []\nlimit: {}").contains("limit"));
        let sized = |text: &str| parse(&format!("collections: []\nlimits: {{budget: {text}}}"));
        assert!(sized("7Zi").contains("a size is"), "{}", sized("7Zi"));
        for text in ["", "5", "s", "5 s", "-5s", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        let nobody = "collections: [{name: a, table: /t}]\nfront: {users: [{name: u, collections: {}}]}";
        let error = check(&serde_yaml::from_str(nobody).unwrap()).unwrap_err().to_string();
        assert!(error.contains("passwordFile"), "{error}");
        let slow = "collections: [{name: a, table: /t}]\nhot: {limit: 10}";
        let error = check(&serde_yaml::from_str(slow).unwrap()).unwrap_err().to_string();
        assert!(error.contains("hot.limit"), "{error}");
        assert!(parse("collections: []\nfence: {after: soon}").contains("or off"));
        let twice = "collections: [{name: a, table: /t}, {name: a, table: /u}]";
        assert!(check(&serde_yaml::from_str(twice).unwrap()).is_err());
    }
}
