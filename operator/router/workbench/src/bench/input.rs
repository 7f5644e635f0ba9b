//! Input of a measurement, made once and read by everybody: the same operations for the router, which finds the index
//! itself, and for peers, whose lines have it already. Effects: writes and reads files.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memchr::{memchr, memmem};
use searchcell_core::routing::{decode, encode};
use searchcell_crds::Versioning;
use serde::Deserialize;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use crate::table::{COLLECTION, Pool, place};
use crate::work::{Shape, Work};

/// What the input is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Operations.
    pub count: usize,
    /// Indices.
    pub destinations: usize,
    /// A node of each cluster.
    pub clusters: Vec<SocketAddr>,
    /// Seed of the work.
    pub seed: u64,
    /// Directory for the files.
    pub into: PathBuf,
}

/// Writes `table`, `router.yaml` and `router.ndjson` for the router, and `peers.ndjson` for libraries.
pub fn generate(wanted: &Wanted) -> std::io::Result<()> {
    std::fs::create_dir_all(&wanted.into)?;
    let file = |name: &str| wanted.into.join(name);
    let pool = Pool::new(&wanted.clusters, wanted.destinations, Versioning::External);
    let table = pool.table(1);
    std::fs::write(file("table"), encode(&table).unwrap())?;
    let settings = json!({"listen": "127.0.0.1:0", "admin": "127.0.0.1:0",
        "collections": [{"name": COLLECTION, "table": file("table")}]});
    std::fs::write(file("router.yaml"), settings.to_string())?;
    let mut ours = BufWriter::new(std::fs::File::create(file("router.ndjson"))?);
    let mut theirs = BufWriter::new(std::fs::File::create(file("peers.ndjson"))?);
    let mut lines = Vec::new();
    for operation in Work::new(Shape::default(), wanted.seed).take(wanted.count) {
        lines.clear();
        operation.lines(true, &mut lines);
        ours.write_all(&lines)?;
        lines.clear();
        let (_, index) = place(&table, &operation.tenant.to_string());
        operation.resolved_lines(&index, true, &mut lines);
        theirs.write_all(&lines)?;
    }
    ours.flush()?;
    theirs.flush()
}

/// Splits the router's input: `router-0.ndjson` is of the first cluster, `router-others.ndjson` of all others.
pub fn by_cluster(files: &Path) -> std::io::Result<()> {
    let table = decode(&std::fs::read(files.join("table"))?).unwrap();
    let mut first = BufWriter::new(std::fs::File::create(files.join("router-0.ndjson"))?);
    let mut others = BufWriter::new(std::fs::File::create(files.join("router-others.ndjson"))?);
    let whole = Bytes::from(std::fs::read(files.join("router.ndjson"))?);
    for lines in operations(&whole) {
        let start = memmem::find(&lines, b"\"routing\":\"").unwrap() + 11;
        let end = start + memchr(b'"', &lines[start..]).unwrap();
        let (cluster, _) = place(&table, std::str::from_utf8(&lines[start..end]).unwrap());
        if cluster == 0 { first.write_all(&lines)? } else { others.write_all(&lines)? }
    }
    first.flush()?;
    others.flush()
}

/// A request's part of an input.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Lines.
    pub body: Bytes,
    /// Operations in it.
    pub operations: usize,
}

/// An input cut into requests of at most so many operations.
pub fn batches(path: &Path, operations: usize) -> std::io::Result<Vec<Batch>> {
    let whole = Bytes::from(std::fs::read(path)?);
    let mut batches = Vec::new();
    let (mut start, mut at, mut count) = (0, 0, 0);
    while let Some(end) = memchr(b'\n', &whole[at..]) {
        let is_delete = whole[at..].starts_with(b"{\"delete\"");
        at += end + 1;
        if !is_delete {
            at += memchr(b'\n', &whole[at..]).map_or(0, |end| end + 1);
        }
        count += 1;
        if count == operations || at == whole.len() {
            batches.push(Batch { body: whole.slice(start..at), operations: count });
            (start, count) = (at, 0);
        }
    }
    Ok(batches)
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action<'a> {
    #[serde(borrow)]
    Index(Meta<'a>),
    #[serde(borrow)]
    Delete(Meta<'a>),
}

/// What an action line of the router's input has.
#[derive(Debug, Deserialize)]
pub struct Meta<'a> {
    /// Id.
    #[serde(rename = "_id")]
    pub id: &'a str,
    /// Tenant.
    pub routing: &'a str,
    /// Version.
    pub version: i64,
}

/// An operation of the router's input.
#[derive(Debug)]
pub struct Parts<'a> {
    /// `index` or `delete`.
    pub verb: &'static str,
    /// Its action line.
    pub meta: Meta<'a>,
    /// Document, without the end of its line; empty: a delete.
    pub document: Bytes,
}

/// Reads the lines of one operation.
pub fn parts(lines: &Bytes) -> Parts<'_> {
    let end = memchr(b'\n', lines).unwrap();
    let (verb, meta) = match serde_json::from_slice(&lines[..end]).unwrap() {
        Action::Index(meta) => ("index", meta),
        Action::Delete(meta) => ("delete", meta),
    };
    let document = lines.slice(end + 1..lines.len().saturating_sub(1).max(end + 1));
    Parts { verb, meta, document }
}

/// What Elasticsearch has to have when an input is done: by stored id, the highest version, the hash of its document (0:
/// it is deleted), and how many versions there are.
pub fn expected(whole: &Bytes) -> HashMap<String, (i64, u64, u32)> {
    let mut versions: HashMap<String, BTreeMap<i64, u64>> = HashMap::new();
    for lines in operations(whole) {
        let Parts { verb, meta, document } = parts(&lines);
        let hash = if verb == "delete" { 0 } else { xxh3_64(&document) };
        let of = versions.entry(format!("{}~{}", meta.routing, meta.id)).or_default();
        of.insert(meta.version, hash);
    }
    let last = |of: BTreeMap<i64, u64>| {
        let (version, hash) = of.last_key_value().unwrap();
        (*version, *hash, u32::try_from(of.len()).unwrap())
    };
    versions.into_iter().map(|(id, of)| (id, last(of))).collect()
}

/// The lines of each operation.
pub fn operations(batch: &Bytes) -> Vec<Bytes> {
    let mut operations = Vec::new();
    let mut at = 0;
    while at < batch.len() {
        let start = at;
        let is_delete = batch[at..].starts_with(b"{\"delete\"");
        at += memchr(b'\n', &batch[at..]).map_or(batch.len() - at, |end| end + 1);
        if !is_delete {
            at += memchr(b'\n', &batch[at..]).map_or(batch.len() - at, |end| end + 1);
        }
        operations.push(batch.slice(start..at));
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_there_in_the_end() {
        let line = |verb, id, version| {
            format!("{{\"{verb}\":{{\"_id\":\"{id}\",\"routing\":\"t\",\"version\":{version}}}}}\n")
        };
        let text =
            [line("index", 1, 1), "{}\n".into(), line("index", 2, 2), "{}\n".into(), line("delete", 1, 2)];
        let more = [line("index", 2, 1), "{\"a\":0}\n".into(), line("index", 2, 1), "{\"a\":0}\n".into()];
        let there = expected(&Bytes::from(text.concat() + &more.concat()));
        assert_eq!(there, HashMap::from([("t~1".into(), (2, 0, 2)), ("t~2".into(), (2, xxh3_64(b"{}"), 2))]));
    }

    #[test]
    fn both_inputs_have_the_same_operations_in_the_same_order() {
        let into = std::env::temp_dir().join(format!("searchcell-workbench-{}", std::process::id()));
        let clusters = vec![SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2))];
        generate(&Wanted { count: 500, destinations: 8, clusters, seed: 3, into: into.clone() }).unwrap();
        let read = |name: &str| batches(&into.join(name), 64).unwrap();
        let (ours, theirs) = (read("router.ndjson"), read("peers.ndjson"));
        assert_eq!((ours.len(), theirs.len()), (8, 8));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!((ours.operations, ours.operations), (theirs.operations, operations(&ours.body).len()));
            for (ours, theirs) in operations(&ours.body).iter().zip(operations(&theirs.body)) {
                let document = |lines: &Bytes| lines.split(|byte| *byte == b'\n').nth(1).map(<[u8]>::to_vec);
                assert_eq!(document(ours), document(&theirs));
            }
        }
        by_cluster(&into).unwrap();
        let count = |name: &str| batches(&into.join(name), 1).unwrap().len();
        let (first, others) = (count("router-0.ndjson"), count("router-others.ndjson"));
        assert!(first > 50 && others > 50 && first + others == 500, "{first} {others}");
        std::fs::remove_dir_all(into).ok();
    }
}
