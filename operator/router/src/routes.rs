//! The routing tables that are in force: from files, swapped atomically, the last good one kept. Effects: reads and
//! writes files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use searchcell_core::routing::{self, Table};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use crate::meters::Meters;
use crate::settings::Collection;

/// How often files are looked at. The kubelet needs longer to bring a new table.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A table, with its names ready to be handed on.
#[derive(Debug)]
pub struct Route {
    /// The table.
    pub table: Table,
    /// Name of the collection.
    pub collection: Arc<str>,
    /// Hash of it, so that hashes of tenants differ from one collection to another.
    pub seed: u64,
    places: Vec<Place>,
}

/// Where documents go.
#[derive(Clone, Debug)]
pub struct Place {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Name of the index.
    pub index: Arc<str>,
    /// Whether documents are routed by their tenant.
    pub routed: bool,
    /// Whether writes have to wait.
    pub paused: bool,
}

impl Route {
    /// A table that has been checked.
    pub fn new(table: Table) -> Self {
        let names: Vec<Arc<str>> =
            table.clusters.iter().map(|cluster| Arc::from(cluster.name.as_str())).collect();
        let places = (table.indices.iter())
            .filter_map(|index| {
                Some(Place {
                    cluster: Arc::clone(names.get(usize::try_from(index.cluster).ok()?)?),
                    index: Arc::from(index.name.as_str()),
                    routed: index.routed,
                    paused: index.traffic == routing::Traffic::Paused,
                })
            })
            .collect();
        let collection: Arc<str> = Arc::from(table.collection.as_str());
        Self { seed: xxh3_64(collection.as_bytes()), collection, table, places }
    }

    /// An index by its position in the table.
    pub fn place(&self, position: u32) -> Option<&Place> {
        self.places.get(usize::try_from(position).ok()?)
    }
}

/// All tables in force, by collection.
pub type Routes = BTreeMap<String, Arc<Route>>;

/// Generations of one collection, as `/generation` tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Generations {
    /// The table that operations are resolved with.
    pub applied: i64,
    /// Nothing is in flight that was resolved with an older table than this.
    pub drained: i64,
}

/// The tables in force, and those that something in flight was resolved with.
pub struct Directory {
    current: ArcSwap<Routes>,
    /// Tables that were replaced and may still be in use.
    past: Mutex<Vec<(String, i64, Weak<Route>)>>,
    changed: watch::Sender<u64>,
}

impl Default for Directory {
    fn default() -> Self {
        Self { current: ArcSwap::default(), past: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Directory {
    /// The tables in force now. Whoever resolves a request does it with one answer of this.
    pub fn current(&self) -> Arc<Routes> {
        self.current.load_full()
    }

    /// Changes with every table that comes into force, and with [`Directory::look_again`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Lets those who wait for another table look again: what they wait for may have changed without one.
    pub fn look_again(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Puts a table in force, unless one of the same or a higher generation is.
    pub fn apply(&self, collection: &str, table: Table) -> bool {
        let mut routes = Routes::clone(&self.current.load());
        let generation = table.generation;
        let before = routes.get(collection).cloned();
        if before.as_ref().is_some_and(|before| before.table.generation >= generation) {
            return false;
        }
        routes.insert(collection.to_owned(), Arc::new(Route::new(table)));
        if let (Some(before), Ok(mut past)) = (before, self.past.lock()) {
            past.retain(|(_, _, route)| route.strong_count() > 0);
            past.push((collection.to_owned(), before.table.generation, Arc::downgrade(&before)));
        }
        self.current.store(Arc::new(routes));
        self.changed.send_modify(|count| *count += 1);
        true
    }

    /// Generations of every collection.
    pub fn generations(&self) -> BTreeMap<String, Generations> {
        let routes = self.current();
        let past = self.past.lock().map(|past| past.clone()).unwrap_or_default();
        let generations = |(collection, route): (&String, &Arc<Route>)| {
            let applied = route.table.generation;
            let in_use = |(name, _, route): &&(String, i64, Weak<Route>)| {
                name == collection && route.strong_count() > 0
            };
            let oldest = past.iter().filter(in_use).map(|(_, generation, _)| *generation).min();
            (collection.clone(), Generations { applied, drained: oldest.unwrap_or(applied) })
        };
        routes.iter().map(generations).collect()
    }
}

/// Why a file is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no table.
    #[error("{path}: {error}")]
    Decode {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: routing::CodecError,
    },
    /// It is the table of another collection.
    #[error("{path} is the table of {found}, and {wanted} is configured")]
    Collection {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
}

/// Keeps one collection's table in force as its file has it.
pub struct TableFile {
    collection: String,
    path: PathBuf,
    kept: Option<PathBuf>,
    seen: Option<u64>,
}

impl TableFile {
    /// For a collection; `state`: where its last good table is kept.
    pub fn new(collection: &Collection, state: Option<&Path>) -> Self {
        let kept = state.map(|state| state.join(format!("{}.table.json.gz", collection.name)));
        Self { collection: collection.name.clone(), path: collection.table.clone(), kept, seen: None }
    }

    /// Puts the last good table in force, for the time until the file is there. False: none is kept.
    pub fn restore(&self, directory: &Directory) -> Result<bool, RouteError> {
        let Some(kept) = self.kept.as_ref().filter(|kept| kept.exists()) else { return Ok(false) };
        let (_, table) = self.load(kept)?;
        Ok(directory.apply(&self.collection, table))
    }

    /// Looks at the file. True: a new table is in force.
    pub fn look(&mut self, directory: &Directory) -> Result<bool, RouteError> {
        let read = std::fs::read(&self.path);
        let bytes = read.map_err(|error| RouteError::Read { path: self.path.clone(), error })?;
        let hash = xxh3_64(&bytes);
        if self.seen == Some(hash) {
            return Ok(false);
        }
        // Also when it is no table: its fault is told once, not every second.
        self.seen = Some(hash);
        let table = self.decode(&self.path, &bytes)?;
        let applied = directory.apply(&self.collection, table);
        if applied {
            self.keep(&bytes)?;
        }
        Ok(applied)
    }

    fn load(&self, path: &Path) -> Result<(Vec<u8>, Table), RouteError> {
        let read = std::fs::read(path);
        let bytes = read.map_err(|error| RouteError::Read { path: path.to_owned(), error })?;
        let table = self.decode(path, &bytes)?;
        Ok((bytes, table))
    }

    fn decode(&self, path: &Path, bytes: &[u8]) -> Result<Table, RouteError> {
        let table =
            routing::decode(bytes).map_err(|error| RouteError::Decode { path: path.to_owned(), error })?;
        if table.collection != self.collection {
            let (found, wanted) = (table.collection, self.collection.clone());
            return Err(RouteError::Collection { path: path.to_owned(), found, wanted });
        }
        Ok(table)
    }

    /// Beside the old one first, so that a crash leaves one of them whole.
    fn keep(&self, bytes: &[u8]) -> Result<(), RouteError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let new = kept.with_extension("new");
        let written = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, kept));
        written.map_err(|error| RouteError::Read { path: kept.clone(), error })
    }
}

/// Keeps all tables in force as their files have them, for as long as it runs.
pub async fn watch(mut files: Vec<TableFile>, directory: Arc<Directory>, meters: Arc<Meters>) {
    let mut missing = vec![false; files.len()];
    loop {
        for (file, missing) in files.iter_mut().zip(&mut missing) {
            match file.look(&directory) {
                Ok(true) => tracing::info!(collection = file.collection, "a new table is in force"),
                Ok(false) => *missing = false,
                // Said once, not every second.
                Err(RouteError::Read { .. }) if *missing => {}
                Err(error) => {
                    *missing = matches!(error, RouteError::Read { .. });
                    meters.table_errors.inc();
                    tracing::warn!(collection = file.collection, %error, "the table stays as it is");
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
