//! The keystore of the nodes: from which Secrets its entries come, and in which Secret of the operator it lies. Pure.
//!
//! A template names the Secret from which its nodes have their keystore, so that a template is complete: what only a
//! restart can load never reaches a node before its template does. Entries that a running node can load are kept up to
//! date in every Secret that a template names. `entries` says which entries these are and which ones nobody may give,
//! `record` is what was found out when nodes were told to load.

mod entries;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_crds::Reason;

pub use entries::{is_reloadable, refusal};
pub use record::Record;

use super::SecretFacts;
use crate::domain::{EsVersion, ValidCell};
use crate::names::ANNOTATION_KEYSTORE;
use crate::snapshot::{CellObjects, CellSnapshot, annotation, is_owned_by};

/// Directory of the keystore, below Elasticsearch's configuration directory.
pub const KEYSTORE_DIRECTORY: &str = "keystore";
/// Name of the file, in that directory and where Elasticsearch looks for it.
pub const KEYSTORE_FILE: &str = "elasticsearch.keystore";
/// Entry that every keystore has. Elasticsearch writes the file anew when it lacks it.
pub const SEED: &str = "keystore.seed";
/// Annotation of a Secret with a keystore: when its contents changed last while there were nodes with it; absent: never.
pub const ANNOTATION_SINCE: &str = "searchcell.dev/keystore-since";

/// Most Secrets of `spec.secureSettings`; no more are read.
pub const MOST_SECRETS: usize = 16;
/// Most entries of all Secrets of a cell together.
pub const MOST_ENTRIES: usize = 256;
/// Longest names and values of all of them together: a Secret holds 1 MiB, and has each of them once by itself and
/// once in each file.
pub const MOST_BYTES: usize = 128 << 10;
/// Problems that are told at a time.
const MOST_PROBLEMS: usize = 8;

/// Format of a keystore file. Each version of Elasticsearch reads older ones too, and then writes the file anew where
/// it looks for it; it is given its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Until 7.17.
    V4,
    /// Since 8.0: numbers are written the other way round.
    V5,
    /// Since 8.14: the key takes longer to derive.
    V6,
    /// Since 8.18: the key is twice as long.
    V7,
}

impl Format {
    /// All that the operator writes.
    pub const ALL: [Format; 4] = [Format::V4, Format::V5, Format::V6, Format::V7];

    /// The one that a version of Elasticsearch writes itself.
    pub fn of(version: EsVersion) -> Self {
        match (version.major, version.minor) {
            (..8, _) => Format::V4,
            (8, ..14) => Format::V5,
            (8, ..18) => Format::V6,
            _ => Format::V7,
        }
    }

    /// As it is written in the file.
    pub fn number(self) -> u32 {
        match self {
            Format::V4 => 4,
            Format::V5 => 5,
            Format::V6 => 6,
            Format::V7 => 7,
        }
    }

    /// Key of the operator's Secret. No secure setting has such a name.
    pub fn key(self) -> &'static str {
        match self {
            Format::V4 => "elasticsearch.keystore.v4",
            Format::V5 => "elasticsearch.keystore.v5",
            Format::V6 => "elasticsearch.keystore.v6",
            Format::V7 => "elasticsearch.keystore.v7",
        }
    }
}

/// Tells two values of an entry apart, within one process. A digest of a short value can be guessed: it is never
/// printed, and never written anywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryDigest(String);

impl EntryDigest {
    /// From the digits of a SHA-256.
    pub fn new(digits: String) -> Self {
        Self(digits)
    }
}

impl std::fmt::Debug for EntryDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What may be known of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryFacts {
    /// Length of its value in bytes.
    pub length: usize,
    /// Of its value.
    pub digest: EntryDigest,
}

/// What may be known of a Secret of the operator with a keystore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeystoreFacts {
    /// Its entries, the seed included.
    pub entries: BTreeMap<String, EntryFacts>,
    /// SHA-256 of its files, as Elasticsearch tells it of the one that it has loaded.
    pub files: BTreeMap<Format, String>,
}

impl KeystoreFacts {
    /// Tells its contents of now from those of before: every time files are made, they are others.
    pub fn revision(&self) -> &str {
        let newest = self.files.values().next_back().map(String::as_str).unwrap_or_default();
        newest.get(..16).unwrap_or(newest)
    }

    fn is_whole(&self) -> bool {
        self.entries.contains_key(SEED) && Format::ALL.iter().all(|format| self.files.contains_key(format))
    }
}

/// A Secret of `spec.secureSettings`, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecureSource {
    /// Its entries.
    Read(BTreeMap<String, EntryFacts>),
    /// There is no such Secret.
    Missing,
    /// It could not be read now.
    Unavailable(String),
}

/// An entry, and the Secret of the user that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the Secret.
    pub secret: String,
    /// The entry.
    pub entry: EntryFacts,
}

/// Name of one of the Secrets with the keystore of a cell's nodes.
pub fn keystore_secret(cell: &str, slot: u32) -> String {
    format!("{cell}-keystore-{slot}")
}

/// Which of them a Secret is.
pub fn slot_of(cell: &str, secret: &str) -> Option<u32> {
    let digits = secret.strip_prefix(cell)?.strip_prefix("-keystore-")?;
    let plain = !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// What the Secrets of the spec come to, or everything that keeps them from being used.
pub fn wanted(
    secrets: &[String],
    sources: &BTreeMap<String, SecureSource>,
) -> Result<BTreeMap<String, Wanted>, Vec<(Reason, String)>> {
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    let mut problems: Vec<(Reason, String)> = Vec::new();
    let bad = Reason::InvalidSecureSettings;
    let at = |secret: &str| format!("spec.secureSettings[{secret}]: Secret {secret}");
    for secret in secrets {
        let found = match sources.get(secret) {
            Some(SecureSource::Read(found)) => found,
            Some(SecureSource::Missing) => {
                let text = format!("{} does not exist: create it, or take it off the list", at(secret));
                problems.push((bad, text));
                continue;
            }
            Some(SecureSource::Unavailable(why)) => {
                problems.push((Reason::KubernetesError, format!("{} could not be read: {why}", at(secret))));
                continue;
            }
            None => {
                problems.push((Reason::KubernetesError, format!("{} has not been read yet", at(secret))));
                continue;
            }
        };
        for (name, entry) in found {
            if let Some(why) = refusal(name) {
                problems.push((bad, format!("{}: the key {name:?} {why}", at(secret))));
            } else if let Some(other) = wanted.get(name) {
                let text = format!(
                    "{}: the key {name:?} is in Secret {} too: remove it from one of the two",
                    at(secret),
                    other.secret
                );
                problems.push((bad, text));
            } else {
                wanted.insert(name.clone(), Wanted { secret: secret.clone(), entry: entry.clone() });
            }
        }
    }
    let bytes: usize = wanted.iter().map(|(name, wanted)| name.len() + wanted.entry.length).sum();
    if wanted.len() > MOST_ENTRIES || bytes > MOST_BYTES {
        let largest = wanted.values().max_by_key(|wanted| wanted.entry.length);
        let secret = largest.map(|wanted| wanted.secret.clone()).unwrap_or_default();
        let text = format!(
            "spec.secureSettings: the Secrets have more than {MOST_ENTRIES} entries or {} KiB together: take some out, for \
             example of Secret {secret}",
            MOST_BYTES >> 10
        );
        problems.push((bad, text));
    }
    if problems.is_empty() {
        return Ok(wanted);
    }
    if problems.len() > MOST_PROBLEMS {
        let more = problems.len() - MOST_PROBLEMS;
        problems.truncate(MOST_PROBLEMS);
        problems.push((bad, format!("spec.secureSettings: {more} more problems of this sort")));
    }
    Err(problems)
}

/// The operator's Secrets with keystores of a cell, in order; those that are on their way out are not among them.
pub fn existing<'a>(
    cell: &ValidCell,
    objects: &'a CellObjects,
) -> Vec<(u32, &'a SecretFacts, &'a KeystoreFacts)> {
    let mut found: Vec<_> = (objects.secrets.iter())
        .filter(|secret| {
            is_owned_by(&secret.metadata, &cell.uid) && secret.metadata.deletion_timestamp.is_none()
        })
        .filter_map(|secret| Some((slot_of(&cell.name, secret.name())?, secret, secret.keystore.as_ref()?)))
        .collect();
    found.sort_by_key(|(slot, _, _)| *slot);
    found
}

/// Secrets that a workload or a pod of the cell names.
pub fn in_use(cell: &ValidCell, objects: &CellObjects) -> BTreeSet<String> {
    let sets = objects.stateful_sets.iter().map(|o| &o.metadata);
    let workloads = sets.chain(objects.deployments.iter().map(|o| &o.metadata));
    let of_ours = workloads.filter(|meta| is_owned_by(meta, &cell.uid));
    let pods = objects.pods.iter().map(|o| &o.metadata);
    // Whatever a pod says: only of these Secrets are keystores.
    let is_one = |name: &&str| slot_of(&cell.name, name).is_some();
    of_ours.chain(pods).filter_map(used_by).filter(is_one).map(str::to_owned).collect()
}

/// The Secret that a workload or a pod has its keystore from.
pub fn used_by(meta: &ObjectMeta) -> Option<&str> {
    annotation(meta, ANNOTATION_KEYSTORE)
}

/// The entries that only a restart loads; the seed is nobody's.
pub fn fixed<T>(entries: &BTreeMap<String, T>, version: EsVersion) -> impl Iterator<Item = (&String, &T)> {
    entries.iter().filter(move |(name, _)| name.as_str() != SEED && !is_reloadable(name, version))
}

/// Names of the entries that only a restart would bring from a keystore to what is wanted.
fn changes(found: &KeystoreFacts, wanted: &BTreeMap<String, Wanted>, version: EsVersion) -> Vec<String> {
    let had: BTreeMap<&String, &EntryFacts> = fixed(&found.entries, version).collect();
    let wants: BTreeMap<&String, &EntryFacts> =
        fixed(wanted, version).map(|(name, wanted)| (name, &wanted.entry)).collect();
    let names: BTreeSet<&String> = had.keys().chain(wants.keys()).copied().collect();
    names.into_iter().filter(|name| had.get(name) != wants.get(name)).cloned().collect()
}

/// The cell, with the Secret that its nodes are to have their keystore from.
pub fn resolve(cell: &ValidCell, snapshot: &CellSnapshot) -> ValidCell {
    let mut cell = cell.clone();
    let Some(mut keystore) = cell.keystore.take() else { return cell };
    let objects = &snapshot.objects;
    let (found, used) = (existing(&cell, objects), in_use(&cell, objects));
    match wanted(&keystore.secrets, &snapshot.secure_settings) {
        // Nobody knows what is wanted: it stays as it is.
        Err(_) => {
            let last = found.iter().rev().find(|(_, secret, _)| used.contains(secret.name()));
            keystore.from = last.or(found.last()).map(|(_, secret, _)| secret.name().to_owned());
            keystore.is_ready = keystore.from.is_some() && used.len() < 2;
        }
        Ok(wanted) => {
            for (_, secret, has) in found.iter().filter(|(_, secret, _)| used.contains(secret.name())) {
                keystore.pending.insert(secret.name().to_owned(), changes(has, &wanted, cell.version));
            }
            let same = keystore.pending.iter().find(|(_, changes)| changes.is_empty());
            let same = same.map(|(name, _)| name.clone());
            // One that nobody has may be written over; else there is another one.
            let free = || {
                let spare = found.iter().find(|(_, secret, _)| !used.contains(secret.name()));
                let next = (1..).find(|slot| {
                    let name = keystore_secret(&cell.name, *slot);
                    !used.contains(&name) && !found.iter().any(|(taken, _, _)| taken == slot)
                });
                spare.map(|(slot, _, _)| *slot).or(next).map(|slot| keystore_secret(&cell.name, slot))
            };
            keystore.from = same.or_else(|| gone(&used, &found)).or_else(free);
            let is_whole =
                |has: &KeystoreFacts| has.is_whole() && changes(has, &wanted, cell.version).is_empty();
            keystore.is_ready = (found.iter())
                .any(|(_, secret, has)| Some(secret.name()) == keystore.from.as_deref() && is_whole(has));
        }
    }
    cell.keystore = Some(keystore);
    cell
}

/// One that nodes have, and that somebody has deleted: it comes back under its name, or they would wait for a restart.
fn gone(used: &BTreeSet<String>, found: &[(u32, &SecretFacts, &KeystoreFacts)]) -> Option<String> {
    let is_there = |name: &&String| found.iter().any(|(_, secret, _)| secret.name() == name.as_str());
    used.iter().find(|name| !is_there(name)).cloned()
}

/// What a Secret of the operator is to hold: everything that is wanted when nodes are to have their keystore from it,
/// else what they started with, and of the rest what is wanted. Absent: nobody has it.
pub fn contents(
    cell: &ValidCell,
    name: &str,
    has: Option<&KeystoreFacts>,
    wanted: &BTreeMap<String, Wanted>,
    used: &BTreeSet<String>,
) -> Option<Contents> {
    let is_chosen = cell.keystore.as_ref().and_then(|keystore| keystore.from.as_deref()) == Some(name);
    let nothing = KeystoreFacts::default();
    let present = has.unwrap_or(&nothing);
    let mut contents = Contents::default();
    if !is_chosen {
        if !used.contains(name) {
            return None;
        }
        contents.keep.extend(fixed(&present.entries, cell.version).map(|(name, _)| name.clone()));
    }
    for (entry, wanted) in wanted {
        if !is_chosen && !is_reloadable(entry, cell.version) {
            continue;
        }
        if present.entries.get(entry) == Some(&wanted.entry) {
            contents.keep.insert(entry.clone());
        } else {
            contents.take.insert(entry.clone(), wanted.clone());
        }
    }
    if present.entries.contains_key(SEED) {
        contents.keep.insert(SEED.to_owned());
    }
    contents.is_there = present.is_whole()
        && contents.take.is_empty()
        && present.entries.keys().all(|name| contents.keep.contains(name));
    Some(contents)
}

/// See [`contents`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Entries that it has already.
    pub keep: BTreeSet<String>,
    /// Entries that it is to have, and from where.
    pub take: BTreeMap<String, Wanted>,
    /// True when it holds just that.
    pub is_there: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_the_format_that_it_would_write_itself() {
        let of = |text: &str| Format::of(text.parse().unwrap()).number();
        assert_eq!(["7.17.29", "8.0.0", "8.13.4"].map(of), [4, 5, 5]);
        assert_eq!(["8.14.0", "8.17.10", "8.18.0", "8.19.21", "9.0.0", "9.5.3"].map(of), [6, 6, 7, 7, 7, 7]);
    }

    #[test]
    fn slots_are_names_of_their_cell() {
        assert_eq!(slot_of("guilds", &keystore_secret("guilds", 12)), Some(12));
        for other in [
            "guilds-keystore-",
            "guilds-keystore-01",
            "guilds-keystore-1x",
            "x-keystore-1",
            "guilds-keystore-+1",
        ] {
            assert_eq!(slot_of("guilds", other), None, "{other}");
        }
    }

    #[test]
    fn a_digest_shows_nothing() {
        let facts = EntryFacts { length: 3, digest: EntryDigest::new("abcdef".to_owned()) };
        assert!(!format!("{facts:?}").contains("abc"));
    }
}
