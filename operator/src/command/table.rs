//! `searchcell table`: answers from a routing table, of a file or of a cluster. Effects: reads the file, or one object
//! from the API server.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Config};
use searchcell_core::names::{TABLE_KEY, routing_table};
use searchcell_core::routing::{Table, Traffic, decode, slot_of};

use crate::command::ReadError;
use crate::kube_io::client::client;

/// Largest file that is read.
const MAX_FILE: u64 = 64 << 20;

/// What is asked of which table.
#[derive(Clone, Debug, Args)]
pub struct TableArgs {
    /// A file (table.json or table.json.gz), or <namespace>/<collection> of the cluster of your kubeconfig.
    pub source: String,
    /// What is asked.
    #[command(subcommand)]
    pub question: Question,
}

/// What is asked.
#[derive(Clone, Debug, Subcommand)]
pub enum Question {
    /// Where a tenant is. Ends with 0, with 1 when it is nowhere, with 2 when the table cannot be read.
    Lookup {
        /// The tenant; a number as its decimal digits.
        tenant: String,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TableCommandError {
    /// Neither a file nor a collection.
    #[error("{0:?} is no file and not <namespace>/<collection>: name one of the two")]
    Source(String),
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// Which one.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no table.
    #[error("{from}: {source}")]
    Table {
        /// Where it is from.
        from: String,
        /// Why.
        source: searchcell_core::routing::CodecError,
    },
    /// It cannot be read from the API server.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ConfigMap has no table.
    #[error("ConfigMap {0} has no {TABLE_KEY}: is it the operator's?")]
    NoTable(String),
}

/// Answers on standard output. False when the tenant is nowhere.
pub async fn run(args: &TableArgs) -> Result<bool, TableCommandError> {
    let table = read(&args.source).await?;
    let Question::Lookup { tenant } = &args.question;
    let (text, found) = lookup(&table, tenant);
    print!("{text}");
    Ok(found)
}

async fn read(source: &str) -> Result<Table, TableCommandError> {
    let of = |from: &str, bytes: &[u8]| {
        decode(bytes).map_err(|source| TableCommandError::Table { from: from.to_owned(), source })
    };
    if Path::new(source).is_file() {
        let failed = |error| TableCommandError::File { path: source.to_owned(), source: error };
        let size = std::fs::metadata(source).map_err(failed)?.len();
        if size > MAX_FILE {
            return Err(failed(std::io::Error::other("it is larger than any table")));
        }
        return of(source, &std::fs::read(source).map_err(failed)?);
    }
    let parts = source.split_once('/').filter(|(namespace, collection)| {
        !namespace.is_empty() && !collection.is_empty() && !collection.contains('/')
    });
    let (namespace, collection) = parts.ok_or_else(|| TableCommandError::Source(source.to_owned()))?;
    let name = routing_table(collection);
    let failed = |error| ReadError::new(&format!("ConfigMap {name}"), namespace, error);
    let client = client(Config::infer().await.map_err(ReadError::from)?).map_err(failed)?;
    let map = Api::<ConfigMap>::namespaced(client, namespace).get(&name).await.map_err(failed)?;
    let bytes = map.binary_data.as_ref().and_then(|data| data.get(TABLE_KEY));
    of(source, &bytes.ok_or_else(|| TableCommandError::NoTable(name.clone()))?.0)
}

/// What a table says about a tenant, for a person, and whether it is anywhere.
pub fn lookup(table: &Table, tenant: &str) -> (String, bool) {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{key:<8} {value}");
    };
    line("tenant", tenant.to_owned());
    line("table", format!("{}/{} generation {}", table.namespace, table.collection, table.generation));
    let chosen = table.overrides.get(tenant);
    let slot = slot_of(tenant);
    match chosen {
        Some(_) => line("by", "an override: it has an index of its own".to_owned()),
        None => line("by", format!("slot {slot}")),
    }
    let Some(to) = table.lookup(tenant).filter(|to| !to.is_nowhere()) else {
        let why = if chosen.is_some() || !table.slots.is_empty() {
            "nowhere: its index is not there yet, or lost"
        } else {
            "nowhere: the collection has no pool, and the tenant no index of its own"
        };
        line("read", why.to_owned());
        return (text, false);
    };
    if let Some(read) = to.read {
        line("read", index(table, read));
    }
    for position in to.writes() {
        line("write", index(table, *position));
    }
    if let Some(chosen) = chosen {
        if let Some(limit) = chosen.documents_per_second {
            line("limit", format!("{limit} documents a second"));
        }
        if let Some(lane) = &chosen.lane {
            line("lane", lane.clone());
        }
    }
    (text, true)
}

fn index(table: &Table, position: u32) -> String {
    let Some((index, cluster)) = table.index(position) else { return format!("position {position}") };
    let routed = if index.routed { ", routed by tenant" } else { "" };
    let paused = if index.traffic == Traffic::Paused { ", paused" } else { "" };
    format!("{} on {} ({}){routed}{paused}", index.name, cluster.name, cluster.endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = include_bytes!("../../core/tests/vectors/table.json");
    const LOOKUPS: &str = include_str!("../../core/tests/vectors/lookups.tsv");

    #[test]
    fn it_answers_as_the_vectors_say() {
        let table = decode(TABLE).unwrap();
        for line in LOOKUPS.lines().filter(|line| !line.starts_with('#')) {
            let (tenant, place) = line.split_once('\t').unwrap();
            let tenant: String = serde_json::from_str(tenant).unwrap();
            let (text, found) = lookup(&table, &tenant);
            assert_eq!(found, place != "nowhere", "{text}");
            let read = text.lines().find_map(|line| line.strip_prefix("read")).unwrap().trim_start();
            assert!(read.starts_with(&place.replace('\t', " on ")), "{tenant}: {read}, not {place}");
        }
    }

    #[tokio::test]
    async fn what_is_no_source_is_said_so() {
        for source in ["nothing", "a/b/c", "/x", "x/"] {
            let error = read(source).await.unwrap_err().to_string();
            assert!(error.contains("name one of the two"), "{source}: {error}");
        }
        let folder = std::env::temp_dir().join(format!("searchcell-table-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("table.json");
        std::fs::write(&file, b"{}").unwrap();
        let error = read(&file.display().to_string()).await.unwrap_err().to_string();
        assert!(error.contains("table.json: the table is not as expected"), "{error}");
        std::fs::write(&file, TABLE).unwrap();
        assert_eq!(read(&file.display().to_string()).await.unwrap().collection, "messages");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
