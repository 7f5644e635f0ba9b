//! Flags and environment of the operator. No effects.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// SearchCell: a Kubernetes operator for cells of small Elasticsearch clusters.
#[derive(Debug, Parser)]
#[command(name = "searchcell", version, about)]
pub struct Cli {
    /// What to do; without it, the operator runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How the operator runs.
    #[command(flatten)]
    pub settings: Settings,
}

/// Other things to do.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Print the version.
    Version,
}

/// How the operator runs.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Namespace to watch; repeat it for several. Default: all namespaces.
    #[arg(long = "namespace", env = "SEARCHCELL_NAMESPACE", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Objects that are looked at at the same time.
    #[arg(long, env = "SEARCHCELL_CONCURRENCY", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "SEARCHCELL_METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_address: SocketAddr,
    /// Whether to wait for the lease before changing anything. Without it, only one operator may run.
    #[arg(long, env = "SEARCHCELL_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Name of the lease.
    #[arg(long, env = "SEARCHCELL_LEASE_NAME", default_value = "searchcell-operator")]
    pub lease_name: String,
    /// Namespace of the lease. Default: that of the pod (POD_NAMESPACE), else that of the kubeconfig.
    #[arg(long, env = "SEARCHCELL_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Format of the log.
    #[arg(long, env = "SEARCHCELL_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as info,searchcell_operator=debug. RUST_LOG wins.
    #[arg(long, env = "SEARCHCELL_LOG", default_value = "info")]
    pub log: String,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person.
    Text,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_sound_and_have_defaults() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["searchcell"]).unwrap();
        assert!(cli.command.is_none() && cli.settings.namespaces.is_empty() && cli.settings.leader_elect);
        let cli = Cli::try_parse_from([
            "searchcell",
            "--namespace",
            "a",
            "--namespace",
            "b",
            "--leader-elect=false",
            "--log-format=text",
        ])
        .unwrap();
        assert_eq!(cli.settings.namespaces, ["a", "b"]);
        assert!(!cli.settings.leader_elect && cli.settings.log_format == LogFormat::Text);
        assert!(Cli::try_parse_from(["searchcell", "--concurrency=0"]).is_err());
    }
}
