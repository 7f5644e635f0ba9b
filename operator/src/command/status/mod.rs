//! `searchcell status`: what happens in a cell, what is waited for and why, on one screen; also `kubectl searchcell status`, by a
//! link of that name. Effects: reads objects from the API server. `screen` puts them into words.

pub mod screen;

use std::io::Write as _;

use clap::Args;
use kube::api::ListParams;
use kube::{Api, Client, Config};
use searchcell_crds::{IndexPlacement, SearchCell};

use self::screen::Screen;
use crate::clock::{Clock, SystemClock};
use crate::command::ReadError;
use crate::kube_io::client::client;

/// Whose status is shown.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit status: 0 when all that is shown is Ready and nothing waits for a person, 1 when something is not, 2 when it \
    cannot be read."
)]
pub struct StatusArgs {
    /// Name of a SearchCell. Default: all of the namespace.
    pub cell: Option<String>,
    /// Namespace. Default: that of the kubeconfig.
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is none.
    #[error("namespace {namespace} has no SearchCell{}: kubectl get searchcells --all-namespaces lists all", name.as_ref().map(|name| format!(" {name}")).unwrap_or_default())]
    None {
        /// Where it was looked for.
        namespace: String,
        /// Which one, if one was named.
        name: Option<String>,
    },
}

/// Prints it. True: all is well.
pub async fn run(args: &StatusArgs) -> Result<bool, StatusError> {
    let config = Config::infer().await.map_err(ReadError::from)?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let failed = |what: &str, error| ReadError::new(what, &namespace, error);
    let client = client(config).map_err(|error| failed("the client", error))?;
    let cells = cells(&client, &namespace, args.cell.as_deref())
        .await
        .map_err(|error| failed("SearchCells", error))?;
    if cells.is_empty() {
        return Err(StatusError::None { namespace, name: args.cell.clone() });
    }
    let placements = Api::<IndexPlacement>::namespaced(client, &namespace).list(&ListParams::default()).await;
    let placements = placements.map_err(|error| failed("IndexPlacements", error))?.items;
    let now = SystemClock.now();
    let screens: Vec<Screen> = cells
        .iter()
        .map(|cell| {
            let is_of_cell =
                |placement: &&IndexPlacement| Some(&placement.spec.cell) == cell.metadata.name.as_ref();
            let placements: Vec<&IndexPlacement> = placements.iter().filter(is_of_cell).collect();
            Screen::new(cell, &placements, now)
        })
        .collect();
    let texts: Vec<String> = screens.iter().map(ToString::to_string).collect();
    // Who reads may have seen enough.
    let _ = std::io::stdout().write_all(texts.join("\n").as_bytes());
    Ok(screens.iter().all(|screen| screen.is_well))
}

async fn cells(client: &Client, namespace: &str, name: Option<&str>) -> Result<Vec<SearchCell>, kube::Error> {
    let api = Api::<SearchCell>::namespaced(client.clone(), namespace);
    match name {
        Some(name) => Ok(api.get_opt(name).await?.into_iter().collect()),
        None => Ok(api.list(&ListParams::default()).await?.items),
    }
}
