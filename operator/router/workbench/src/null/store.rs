//! What Elasticsearch knows of documents that matters to who writes them: versions, sequence numbers, tombstones.
//! Documents themselves are not kept, only a hash of each. Pure: time comes in as an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// An operation, as far as versions are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Only if there is no such document.
    pub create: bool,
    /// A delete.
    pub delete: bool,
    /// With a version from outside.
    pub external: Option<i64>,
    /// Whether a version that is there already is taken again (`external_gte`).
    pub same_is_fine: bool,
    /// Only if the document has this sequence number and term.
    pub condition: Option<(i64, i64)>,
    /// Hash of the document.
    pub hash: u64,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// `created`, `updated`, `deleted`, `not_found`.
    pub result: &'static str,
    /// HTTP status of the item.
    pub status: u16,
    /// `_version` afterwards.
    pub version: i64,
    /// `_seq_no`.
    pub seq_no: i64,
}

/// A version conflict: the version that is there, or -1 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict(pub i64);

/// What is known of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its version.
    pub version: i64,
    /// How often it was written or deleted.
    pub writes: u32,
    /// Hash of what was written last.
    pub hash: u64,
    seq_no: i64,
    deleted: Option<Instant>,
}

impl Entry {
    /// Whether the document is there.
    pub fn lives(&self) -> bool {
        self.deleted.is_none()
    }
}

#[derive(Debug, Default)]
struct Index {
    next: i64,
    documents: HashMap<Box<str>, Entry>,
}

/// All documents of a cluster.
#[derive(Debug)]
pub struct Store {
    indices: HashMap<Box<str>, Index>,
    gc_deletes: Duration,
}

impl Store {
    /// `gc_deletes`: how long a deleted document's version is remembered.
    pub fn new(gc_deletes: Duration) -> Self {
        Self { indices: HashMap::new(), gc_deletes }
    }

    /// Carries out an operation.
    pub fn apply(&mut self, index: &str, id: &str, asked: &Asked, now: Instant) -> Result<Applied, Conflict> {
        if !self.indices.contains_key(index) {
            self.indices.insert(index.into(), Index::default());
        }
        let index = self.indices.get_mut(index).unwrap();
        let gc_deletes = self.gc_deletes;
        let before = index
            .documents
            .get(id)
            .copied()
            .filter(|entry| entry.deleted.is_none_or(|deleted| now.duration_since(deleted) < gc_deletes));
        let lives = before.filter(Entry::lives);
        let conflict = match (asked.external, before) {
            (Some(version), Some(before)) if asked.same_is_fine => version < before.version,
            (Some(version), Some(before)) => version <= before.version,
            (Some(_), None) => false,
            (None, _) => match asked.condition {
                Some((seq_no, term)) => !lives.is_some_and(|entry| entry.seq_no == seq_no && term == 1),
                None => asked.create && lives.is_some(),
            },
        };
        if conflict {
            return Err(Conflict(before.map_or(-1, |entry| entry.version)));
        }
        let version = asked.external.unwrap_or_else(|| before.map_or(1, |entry| entry.version + 1));
        let (result, status) = match (asked.delete, lives.is_some()) {
            (true, true) => ("deleted", 200),
            (true, false) => ("not_found", 404),
            (false, true) => ("updated", 200),
            (false, false) => ("created", 201),
        };
        let seq_no = index.next;
        index.next += 1;
        let writes = index.documents.get(id).map_or(0, |entry| entry.writes) + 1;
        let entry = Entry { version, writes, hash: asked.hash, seq_no, deleted: asked.delete.then_some(now) };
        match index.documents.get_mut(id) {
            Some(known) => *known = entry,
            None => {
                index.documents.insert(id.into(), entry);
            }
        }
        Ok(Applied { result, status, version, seq_no })
    }

    /// Every document that is or was there: index, id, and what is known.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str, &Entry)> {
        self.indices.iter().flat_map(|(index, of)| {
            of.documents.iter().map(move |(id, entry)| (index.as_ref(), id.as_ref(), entry))
        })
    }

    /// Documents that are there, of one index or of all.
    pub fn count(&self, index: Option<&str>) -> usize {
        let wanted = |at: &str| index.is_none_or(|index| index == at);
        self.all().filter(|(at, _, entry)| wanted(at) && entry.lives()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row {
        asked: Asked,
        expected: Result<(&'static str, u16, i64), i64>,
    }

    fn play(rows: &[Row]) -> Store {
        let mut store = Store::new(Duration::from_secs(60));
        let now = Instant::now();
        for (number, row) in rows.iter().enumerate() {
            let got = store.apply("i", "1", &row.asked, now);
            let got = got.map(|done| (done.result, done.status, done.version)).map_err(|conflict| conflict.0);
            assert_eq!(got, row.expected, "row {number}");
        }
        store
    }

    fn external(version: i64, delete: bool) -> Asked {
        Asked { external: Some(version), delete, ..Asked::default() }
    }

    #[test]
    fn external_versions_only_ascend_and_deletes_leave_theirs() {
        let store = play(&[
            Row { asked: external(5, false), expected: Ok(("created", 201, 5)) },
            Row { asked: external(5, false), expected: Err(5) },
            Row { asked: external(4, true), expected: Err(5) },
            Row { asked: external(9, true), expected: Ok(("deleted", 200, 9)) },
            Row { asked: external(8, false), expected: Err(9) },
            Row { asked: external(9, true), expected: Err(9) },
            Row { asked: external(10, true), expected: Ok(("not_found", 404, 10)) },
            Row { asked: external(11, false), expected: Ok(("created", 201, 11)) },
            Row {
                asked: Asked { same_is_fine: true, ..external(11, false) },
                expected: Ok(("updated", 200, 11)),
            },
        ]);
        assert_eq!((store.count(None), store.all().next().unwrap().2.writes), (1, 5));
    }

    #[test]
    fn own_versions_count_and_go_on_over_a_delete() {
        let plain = Asked::default();
        let create = Asked { create: true, ..plain };
        let delete = Asked { delete: true, ..plain };
        play(&[
            Row { asked: create, expected: Ok(("created", 201, 1)) },
            Row { asked: create, expected: Err(1) },
            Row { asked: plain, expected: Ok(("updated", 200, 2)) },
            Row { asked: Asked { condition: Some((0, 1)), ..plain }, expected: Err(2) },
            Row { asked: Asked { condition: Some((1, 2)), ..plain }, expected: Err(2) },
            Row { asked: Asked { condition: Some((1, 1)), ..plain }, expected: Ok(("updated", 200, 3)) },
            Row { asked: delete, expected: Ok(("deleted", 200, 4)) },
            Row { asked: delete, expected: Ok(("not_found", 404, 5)) },
            Row { asked: create, expected: Ok(("created", 201, 6)) },
        ]);
    }

    #[test]
    fn a_tombstone_is_forgotten() {
        let mut store = Store::new(Duration::from_secs(60));
        let now = Instant::now();
        store.apply("i", "1", &external(9, true), now).unwrap();
        assert_eq!(
            store.apply("i", "1", &external(8, false), now + Duration::from_secs(59)),
            Err(Conflict(9))
        );
        assert!(store.apply("i", "1", &external(8, false), now + Duration::from_secs(60)).is_ok());
        assert_eq!((store.count(Some("i")), store.count(Some("j"))), (1, 0));
    }
}
