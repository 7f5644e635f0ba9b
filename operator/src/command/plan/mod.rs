//! `searchcell plan`: what the operator would make of objects, before they are applied. Effects: reads files, the API
//! server and Elasticsearch, and asks the API server for dry runs; it changes nothing, and `guard` sees to that.
//!
//! Each object goes through the API server without being stored (`submit`). Then the world is read as the operator reads
//! it (`world`), the objects take their places in it, and the operator's own passes run on that copy in memory
//! (`rehearse`, on `stage_kube` and `stage_elastic`) until nothing more comes. `describe` puts their steps into words,
//! `script` prints them.

pub mod describe;
pub mod diff;
pub mod file;
pub mod guard;
pub mod rehearse;
pub mod script;
pub mod stage_elastic;
pub mod stage_kube;
pub mod submit;
pub mod tunnel;
pub mod world;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;

use clap::Args;
use kube::{Client, Config};
use searchcell_core::security::Lifetimes;
use searchcell_crds::{IndexPlacement, SearchCell};
use serde_json::Value;

use self::file::{Asked, FileError, Namespaces, Wanted};
use self::rehearse::Rehearsal;
use self::script::{Line, Script, Verb};
use self::stage_elastic::StageElastic;
use self::stage_kube::StageKube;
use self::submit::{SubmitError, Submitted, submit, visible};
use self::world::{Reach, World, WorldError};
use crate::clock::{Clock, SystemClock};
use crate::engine::Key;
use crate::kube_io::client::KubeIo;
use crate::ports::KubeApi;

/// What is to be planned.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit status: 0 when there is nothing to do, 1 when something would be created, changed, deleted, held \
    or refused, 2 when nobody can tell: a file, the API server or Elasticsearch cannot be read.\n\nIt changes nothing: \
    objects go to the API server as dry runs alone."
)]
pub struct PlanArgs {
    /// A YAML file with SearchCells and IndexPlacements; - is standard input. Repeat it for several.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// Namespace of objects that do not say theirs. Default: that of the kubeconfig.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Namespace that the operator runs in: it is let in to the nodes.
    #[arg(long, env = "SEARCHCELL_OPERATOR_NAMESPACE", default_value = "searchcell-system")]
    pub operator_namespace: String,
    /// Reach Elasticsearch by the names of its Services, from inside of the cluster. Default: through ports of its pods
    /// that the API server forwards.
    #[arg(long)]
    pub direct: bool,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A file is of no use.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no cluster to ask.
    #[error("no configuration for Kubernetes: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// There is no client.
    #[error("the client for Kubernetes cannot be built: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The API server does not say what it makes of an object.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The world cannot be read.
    #[error(transparent)]
    World(#[from] WorldError),
    /// What the API server says cannot be read.
    #[error("{0} cannot be read as the API server has it: {1}")]
    Unreadable(String, serde_json::Error),
}

/// Prints the plan. True: there is nothing to do.
pub async fn run(args: &PlanArgs, lifetimes: Lifetimes) -> Result<bool, PlanError> {
    let config = Config::infer().await?;
    let namespaces = Namespaces { asked: args.namespace.clone(), default: config.default_namespace.clone() };
    let wanted = file::read(&args.files, &namespaces)?;
    let client = guard::read_only(config).map_err(|error| PlanError::Client(Box::new(error)))?;
    let script = plan(&client, &wanted, args, lifetimes).await?;
    // Who reads may have seen enough.
    let _ = std::io::stdout().write_all(script.text().as_bytes());
    Ok(script.is_empty())
}

/// Plans.
pub async fn plan(
    client: &Client,
    wanted: &[Wanted],
    args: &PlanArgs,
    lifetimes: Lifetimes,
) -> Result<Script, PlanError> {
    let mut submitted = Vec::new();
    for object in wanted {
        submitted.push((object, submit(client, object).await?));
    }
    let namespaces: BTreeSet<String> = wanted.iter().map(|object| object.namespace.clone()).collect();
    let mut world = world::objects(client, &namespaces).await?;
    let io = |world: &World| {
        let (caches, own) = (Arc::clone(&world.caches), args.operator_namespace.clone());
        KubeIo::new(client.clone(), caches, own, Arc::new(|_, _| {}))
    };
    let reads = io(&world);
    let cells = cells(wanted, &reads);
    let reach = if args.direct { Reach::Direct } else { Reach::Forwarded };
    let counting = world.ask(client, &reads, &cells, reach).await?;

    let now = SystemClock.now();
    let remarks = world.unreadable.clone();
    let stage = StageKube::new(client.clone(), io(&world), Arc::clone(&world.caches), now);
    let elastic = StageElastic::new(world.elastic).counting(counting);
    let rehearsal = Rehearsal::new(stage, elastic, lifetimes, now);
    perform(&rehearsal, &submitted, &cells, remarks).await
}

/// Puts what the API server accepts on the stage, and rehearses.
async fn perform(
    rehearsal: &Rehearsal,
    submitted: &[(&Wanted, Submitted)],
    cells: &BTreeSet<(String, String)>,
    mut remarks: Vec<String>,
) -> Result<Script, PlanError> {
    for (object, submitted) in submitted {
        enter(rehearsal, object, submitted)?;
    }
    let own: Vec<Key> = submitted.iter().map(|(object, _)| key(object)).collect();
    let refused = |key: &&Key| {
        let is_it = |(object, submitted): &&(&Wanted, Submitted)| {
            self::key(object) == **key && matches!(submitted, Submitted::Refused(_))
        };
        submitted.iter().any(|object| is_it(&object))
    };
    let others = others(rehearsal.kube(), cells, &own);
    let mut keys: Vec<Key> = own.iter().filter(|key| !refused(key)).cloned().collect();
    keys.extend(others.iter().cloned());
    // Cells first: placements ask what becomes of them, and tables what becomes of placements.
    keys.sort_by_key(|key| match key {
        Key::Cell(..) => 0,
        Key::Placement(..) => 1,
        Key::Table(..) => 2,
    });
    if !rehearsal.run(&keys).await {
        remarks.push("more would follow: the plan was cut off".to_owned());
    }
    let mut groups: Vec<_> = own.iter().map(|key| (title(key, ""), rehearsal.group(key))).collect();
    let tables = tables(rehearsal.kube(), &own);
    for key in &others {
        // What others wait for has nothing to do with the file.
        let is_own = tables.contains(key);
        let group = if is_own { rehearsal.group(key) } else { rehearsal.done(key) };
        groups.push((title(key, if is_own { "" } else { " (not in the file)" }), group));
    }
    Ok(Script { groups, remarks })
}

/// What becomes of an object by itself.
fn enter(rehearsal: &Rehearsal, object: &Wanted, submitted: &Submitted) -> Result<(), PlanError> {
    let subject = format!("{} {}", object.asked.kind(), object.name);
    let key = key(object);
    let (live, then) = match submitted {
        Submitted::Refused(why) => {
            rehearsal.note(&key, Line::new(Verb::Refuse, "", why));
            return Ok(());
        }
        Submitted::Accepted { live, then } => (live, then),
    };
    let differs = live.as_ref().map(|live| diff::all(&visible(live), &visible(then)));
    match differs {
        None => rehearsal.note(&key, Line::new(Verb::Create, &subject, "")),
        Some(lines) if lines.is_empty() => {}
        Some(lines) => rehearsal.note(&key, Line::new(Verb::Change, &subject, "").with(lines)),
    }
    let unreadable = |error| PlanError::Unreadable(subject.clone(), error);
    match object.asked {
        Asked::Cell => rehearsal.kube().put_cell(read::<SearchCell>(then).map_err(unreadable)?),
        Asked::Placement => {
            rehearsal.kube().put_placement(read::<IndexPlacement>(then).map_err(unreadable)?);
        }
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(object: &Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(object.clone())
}

fn key(object: &Wanted) -> Key {
    let (namespace, name) = (object.namespace.clone(), object.name.clone());
    match object.asked {
        Asked::Cell => Key::Cell(namespace, name),
        Asked::Placement => Key::Placement(namespace, name),
    }
}

fn title(key: &Key, note: &str) -> String {
    match key {
        Key::Cell(namespace, name) => format!("SearchCell {namespace}/{name}{note}"),
        Key::Placement(namespace, name) => format!("IndexPlacement {namespace}/{name}{note}"),
        Key::Table(namespace, collection) => format!("Collection {namespace}/{collection}{note}"),
    }
}

/// Cells of the file, those that its placements name, those that its placements are of now, and those of pools that may
/// have documents of its tenants.
fn cells(wanted: &[Wanted], reads: &KubeIo) -> BTreeSet<(String, String)> {
    let mut cells = BTreeSet::new();
    for object in wanted {
        let mut add = |name: &str| cells.insert((object.namespace.clone(), name.to_owned()));
        match object.asked {
            Asked::Cell => {
                add(&object.name);
            }
            Asked::Placement => {
                let spec = object.object.get("spec");
                let text = |name: &str| spec.and_then(|spec| spec.get(name)?.as_str());
                text("cell").map(&mut add);
                let live = reads.placements(&object.namespace);
                let has_dedicated = spec.is_some_and(|spec| spec.get("dedicated").is_some());
                let is_pool = |live: &&IndexPlacement| {
                    live.spec.pool.is_some() && text("collection") == Some(live.spec.collection.as_str())
                };
                live.iter().filter(|_| has_dedicated).filter(is_pool).for_each(|live| {
                    add(&live.spec.cell);
                });
                let is_it = |live: &&IndexPlacement| live.metadata.name.as_deref() == Some(&object.name);
                live.iter().find(is_it).map(|live| add(&live.spec.cell));
            }
        }
    }
    cells
}

/// Tables of the placements of the file.
fn tables(kube: &StageKube, own: &[Key]) -> BTreeSet<Key> {
    let of = |key: &Key| {
        let Key::Placement(namespace, name) = key else { return None };
        let placements = kube.placements(namespace);
        let is_it = |placement: &&IndexPlacement| placement.metadata.name.as_ref() == Some(name);
        let collection = placements.iter().find(is_it)?.spec.collection.clone();
        Some(Key::Table(namespace.clone(), collection))
    };
    own.iter().filter_map(of).collect()
}

/// What is not in the file and may change with it: cells of its placements, placements of its cells, and the tables of all
/// their collections.
fn others(kube: &StageKube, cells: &BTreeSet<(String, String)>, own: &[Key]) -> Vec<Key> {
    let mut cell_keys = BTreeSet::new();
    let (mut placements, mut tables) = (BTreeSet::new(), BTreeSet::new());
    for (namespace, name) in cells {
        cell_keys.insert(Key::Cell(namespace.clone(), name.clone()));
        for placement in kube.placements(namespace).iter().filter(|placement| placement.spec.cell == *name) {
            let own_name = placement.metadata.name.clone().unwrap_or_default();
            placements.insert(Key::Placement(namespace.clone(), own_name));
            tables.insert(Key::Table(namespace.clone(), placement.spec.collection.clone()));
        }
    }
    let all = cell_keys.into_iter().chain(placements).chain(tables);
    all.filter(|key| !own.contains(key)).collect()
}

#[cfg(test)]
mod tests;
