//! Entry of the router: reads its file, runs until it is told to stop.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use searchcell_router::run::Router;
use searchcell_router::{reload, settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Operations begin in one thread and end in another; the C library's allocator makes threads wait for each other then.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Takes Elasticsearch's _bulk, and sends bulks of exactly one destination.
#[derive(Parser)]
#[command(name = "router", version)]
struct Options {
    /// The configuration, YAML.
    #[arg(long, env = "SEARCHCELL_ROUTER_CONFIG", default_value = "/etc/searchcell/router.yaml")]
    config: PathBuf,
    /// The configuration itself, YAML; with it, no file is read. This is how a router that was put into a pod has it.
    #[arg(long, env = "SEARCHCELL_ROUTER_CONFIG_YAML")]
    config_yaml: Option<String>,
    /// What is logged; as JSON on standard error.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    log: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_new(&options.log).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the router does not run");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let (settings, file) = match &options.config_yaml {
        Some(text) => (settings::parse(text, Path::new("SEARCHCELL_ROUTER_CONFIG_YAML"))?, None),
        None => (settings::read(&options.config)?, Some(reload::File::new(options.config))),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let router = Router::start(settings).await?;
    if let Some(file) = file {
        tokio::spawn(reload::watch(file, Arc::clone(&router.app.hot)));
    }
    tracing::info!(address = %router.address, admin = %router.admin, "the router serves");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("the router stops");
    router.stop().await;
    Ok(())
}
