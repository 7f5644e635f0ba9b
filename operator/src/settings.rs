//! Flags and environment of the operator. No effects.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use searchcell_core::placement::ShardLimits;
use searchcell_core::security::Lifetimes;
use searchcell_crds::index_placement::{MANY_BYTES, MANY_DOCUMENTS, VERY_MANY_DOCUMENTS};

use crate::command::plan::PlanArgs;
use crate::command::status::StatusArgs;
use crate::command::table::TableArgs;

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
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the version.
    Version,
    /// Print what the operator would create, change, hold and refuse, without changing anything.
    Plan(PlanArgs),
    /// Show what happens in a cell, what is waited for and why.
    Status(StatusArgs),
    /// Ask a routing table.
    Table(TableArgs),
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
    /// How long a certificate of a node lives, for example 90d or 30m; it is renewed before two thirds of that.
    #[arg(long, env = "SEARCHCELL_CERTIFICATE_LIFETIME", default_value = "90d", value_parser = lifetime)]
    pub certificate_lifetime: Duration,
    /// How long a certificate authority lives; it is rotated before two thirds of that.
    #[arg(long, env = "SEARCHCELL_CA_LIFETIME", default_value = "3650d", value_parser = lifetime)]
    pub ca_lifetime: Duration,
    /// How long clients have to load a new authority of the HTTP layer before nodes show certificates of it.
    #[arg(long, env = "SEARCHCELL_CA_OVERLAP", default_value = "10m", value_parser = duration)]
    pub ca_overlap: Duration,
    /// How long the former user of routers, exporters and the administrator stays valid after its Secret was deleted and made anew.
    #[arg(long, env = "SEARCHCELL_CREDENTIAL_GRACE", default_value = "15m", value_parser = duration)]
    pub credential_grace: Duration,
    /// From how many documents on, deleted ones included, a shard is large: a warning and a forecast. At most a billion.
    #[arg(long, env = "SEARCHCELL_LARGE_SHARD_DOCUMENTS", default_value_t = MANY_DOCUMENTS,
          value_parser = clap::value_parser!(i64).range(1..=VERY_MANY_DOCUMENTS))]
    pub large_shard_documents: i64,
    /// From how many bytes on a shard is large.
    #[arg(long, env = "SEARCHCELL_LARGE_SHARD_BYTES", default_value_t = MANY_BYTES,
          value_parser = clap::value_parser!(i64).range(1..))]
    pub large_shard_bytes: i64,
    /// Whether nodes are restarted, one at a time, that do not run what the spec asks for. false: such changes are held, in all
    /// cells, and nothing restarts.
    #[arg(long, env = "SEARCHCELL_RESTART_NODES", default_value_t = true, action = clap::ArgAction::Set)]
    pub restart_nodes: bool,
    /// Clusters of all cells together whose nodes restart at a time. A cluster counts until all of its nodes have restarted.
    #[arg(long, env = "SEARCHCELL_MAX_DISRUPTED_CLUSTERS", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub max_disrupted_clusters: u16,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "SEARCHCELL_METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_address: SocketAddr,
    /// Address of the webhook that puts routers into pods, for example 0.0.0.0:9443. Without it, there is no webhook.
    #[arg(long, env = "SEARCHCELL_WEBHOOK_ADDRESS")]
    pub webhook_address: Option<SocketAddr>,
    /// Name or address by which the API server calls the webhook; repeat it for several. Default: that of the Service.
    #[arg(long = "webhook-host", env = "SEARCHCELL_WEBHOOK_HOST", value_delimiter = ',')]
    pub webhook_hosts: Vec<String>,
    /// Name of the MutatingWebhookConfiguration whose caBundle is kept.
    #[arg(long, env = "SEARCHCELL_WEBHOOK_CONFIGURATION", default_value = "searchcell-operator")]
    pub webhook_configuration: String,
    /// Image of the routers that are put into pods. Default: that of the operator's own pod, which holds both programs.
    #[arg(long, env = "SEARCHCELL_ROUTER_IMAGE")]
    pub router_image: Option<String>,
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

impl Settings {
    /// How certificates and passwords rotate.
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            certificate: self.certificate_lifetime,
            authority: self.ca_lifetime,
            overlap: self.ca_overlap,
            credential_grace: self.credential_grace,
        }
    }

    /// From where on a shard is large.
    pub fn limits(&self) -> ShardLimits {
        ShardLimits { documents: self.large_shard_documents, bytes: self.large_shard_bytes }
    }
}

/// A number with one unit: s, m, h or d.
fn duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("{text:?} is not a number with a unit of s, m, h or d, like 90d");
    let unit = text.chars().next_back().ok_or_else(problem)?;
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(problem)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(problem()),
    };
    // A century is more than any certificate ought to live.
    number
        .checked_mul(seconds)
        .filter(|all| *all <= 36_525 * 86_400)
        .map(Duration::from_secs)
        .ok_or_else(problem)
}

/// As long as it takes to bring a certificate to every node, and then some.
fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if lifetime < Duration::from_secs(60) {
        return Err("must be at least 1m: nodes take that long to load a new one".to_owned());
    }
    Ok(lifetime)
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
        let cli =
            Cli::try_parse_from(["searchcell", "--certificate-lifetime=10m", "--ca-lifetime=1h"]).unwrap();
        assert_eq!(cli.settings.lifetimes().certificate, Duration::from_secs(600));
        assert!(Cli::try_parse_from(["searchcell", "--ca-lifetime=5s"]).is_err());
        assert_eq!(cli.settings.limits(), ShardLimits::default());
        assert!(Cli::try_parse_from(["searchcell", "--large-shard-documents=1000000001"]).is_err());
        assert!(Cli::try_parse_from(["searchcell", "--large-shard-bytes=0"]).is_err());
        assert!(cli.settings.webhook_address.is_none() && cli.settings.webhook_hosts.is_empty());
        assert!(Cli::try_parse_from(["searchcell", "--webhook-address=9443"]).is_err());
        assert!(Cli::try_parse_from(["searchcell", "--ca-lifetime=90"]).is_err());
        let cli = Cli::try_parse_from(["searchcell", "table", "search/messages", "lookup", "42"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Table(args)) if args.source == "search/messages"));
        let cli = Cli::try_parse_from([
            "searchcell",
            "--ca-overlap=1m",
            "plan",
            "-f",
            "a.yaml",
            "-f",
            "-",
            "-n",
            "x",
        ]);
        let cli = cli.unwrap();
        assert_eq!(cli.settings.lifetimes().overlap, Duration::from_secs(60));
        let Some(Command::Plan(args)) = cli.command else { panic!("another command") };
        assert_eq!((args.files, args.namespace.as_deref()), (vec!["a.yaml".into(), "-".into()], Some("x")));
        assert_eq!((args.operator_namespace.as_str(), args.direct), ("searchcell-system", false));
        assert!(Cli::try_parse_from(["searchcell", "plan"]).is_err(), "of what?");
    }
}
