//! Ids of documents: as clients know them, as Elasticsearch stores them, and those for documents that come without
//! one. Pure but for the clock and the randomness that [`Minter::new`] is given.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Most bytes of an `_id` that Elasticsearch takes.
pub const MAX_ID_BYTES: usize = 512;
/// Most bytes of a tenant.
pub const MAX_TENANT_BYTES: usize = 128;
const SEPARATOR: char = '~';

/// The id as it is stored where ids are unique per tenant: `<tenant>~<id>`. In the tenant `~` is written `%7E` and `%`
/// is written `%25`, so that the first `~` is the separator, whatever is in the id, and no two pairs of tenant and id
/// are stored as one. Other programs rely on this: `docs/routing-table.md` has it, and `tests/vectors/ids.tsv`.
pub fn stored(tenant: &str, id: &str) -> String {
    let mut stored = prefix(tenant);
    stored.push_str(id);
    stored
}

/// What the stored ids of a tenant begin with.
pub fn prefix(tenant: &str) -> String {
    // Most ids fit behind it without another allocation.
    let mut prefix = String::with_capacity(tenant.len() + 32);
    write_prefix(&mut prefix, tenant);
    prefix
}

/// Writes what the stored ids of a tenant begin with.
pub fn write_prefix(out: &mut String, tenant: &str) {
    if !tenant.bytes().fold(false, |found, byte| found | (byte == b'%') | (byte == b'~')) {
        out.push_str(tenant);
    } else {
        for character in tenant.chars() {
            match character {
                '%' => out.push_str("%25"),
                SEPARATOR => out.push_str("%7E"),
                other => out.push(other),
            }
        }
    }
    out.push(SEPARATOR);
}

/// Makes ids for documents that come without one: 20 characters, ascending in time as far as one process goes, and
/// not made twice by processes that were given different randomness.
#[derive(Debug)]
pub struct Minter {
    process: [u8; 5],
    counter: AtomicU32,
}

impl Minter {
    /// `process`: random bytes.
    pub fn new(process: [u8; 5]) -> Self {
        Self { process, counter: AtomicU32::new(0) }
    }

    /// An id.
    pub fn mint(&self, now: SystemTime) -> String {
        let millis = now.duration_since(UNIX_EPOCH).map(|since| since.as_millis()).unwrap_or_default();
        let millis = u64::try_from(millis).unwrap_or_default().to_be_bytes();
        let counter = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut bytes = Vec::with_capacity(15);
        bytes.extend_from_slice(millis.get(2..).unwrap_or_default());
        bytes.extend_from_slice(&counter);
        bytes.extend_from_slice(&self.process);
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// The id of a message of a queue that comes without one: the same whenever it is delivered.
pub fn of_message(stream: &str, sequence: u64) -> String {
    let stream = xxhash_rust::xxh3::xxh3_64(stream.as_bytes()).to_be_bytes();
    URL_SAFE_NO_PAD.encode([stream, sequence.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Tenant and id of a stored id, read as the documentation says: there is one only if no two pairs are stored as
    /// one.
    fn read(stored: &str) -> Option<(String, String)> {
        let (tenant, id) = stored.split_once('~')?;
        let mut parts = tenant.split('%');
        let mut read = parts.next()?.to_owned();
        for part in parts {
            let (code, rest) = part.split_at_checked(2)?;
            read.push(match code {
                "25" => '%',
                "7E" => '~',
                _ => return None,
            });
            read.push_str(rest);
        }
        Some((read, id.to_owned()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn a_stored_id_is_of_one_tenant_and_one_id(
            tenant in "([~%257Ee/.]|\\PC){0,8}",
            id in "([~%257Ee/.]|\\PC){0,8}",
        ) {
            prop_assert_eq!(read(&stored(&tenant, &id)), Some((tenant.clone(), id.clone())));
            prop_assert!(prefix(&tenant).len() <= 3 * tenant.len() + 1);
        }

        /// From few letters, so that many are alike.
        #[test]
        fn no_two_pairs_are_stored_as_one_and_no_tenant_sees_anothers(
            a in ("[a~%7E25]{0,4}", "[a~%7E25]{0,4}"),
            b in ("[a~%7E25]{0,4}", "[a~%7E25]{0,4}"),
        ) {
            prop_assert_eq!(stored(&a.0, &a.1) == stored(&b.0, &b.1), a == b);
            let stored = stored(&a.0, &a.1);
            prop_assert_eq!(stored.strip_prefix(&*prefix(&a.0)), Some(a.1.as_str()));
            prop_assert_eq!(stored.starts_with(&*prefix(&b.0)), a.0 == b.0);
        }
    }

    #[test]
    fn they_are_stored_as_the_vectors_say() {
        let vectors = include_str!("../tests/vectors/ids.tsv");
        let rows: Vec<Vec<&str>> = vectors.lines().map(|line| line.split('\t').collect()).collect();
        assert!(rows.len() > 5);
        for row in rows {
            assert_eq!(stored(row[0], row[1]), row[2]);
        }
    }

    #[test]
    fn minted_ids_differ() {
        let (first, second) = (Minter::new([1; 5]), Minter::new([2; 5]));
        let now = UNIX_EPOCH + Duration::from_secs(1_795_212_345);
        let ids: BTreeSet<String> = (0..1_000).flat_map(|_| [first.mint(now), second.mint(now)]).collect();
        assert_eq!(ids.len(), 2_000);
        assert!(ids.iter().all(|id| id.len() == 20));
        assert!(first.mint(now) < first.mint(now + Duration::from_millis(1)));
        assert_eq!(of_message("chat", 7), of_message("chat", 7));
        assert_ne!(of_message("chat", 7), of_message("chat", 8));
    }
}
