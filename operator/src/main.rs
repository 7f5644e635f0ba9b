//! The operator's process: flags, log, runtime. Effects: those of `run`.

use std::process::ExitCode;

use clap::Parser;
use searchcell_operator::settings::{Cli, Command};
use searchcell_operator::{run, telemetry};

/// Threads that passes and requests run on. Few: the operator mostly waits, and each has buffers of its own.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Version) = cli.command {
        println!("searchcell {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    telemetry::start(cli.settings.log_format, &cli.settings.log);
    // Before any client is built: none of them chooses one by itself.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed before");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run::run(cli.settings));
            runtime.shutdown_background();
            result.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}
