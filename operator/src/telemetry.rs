//! Where the log goes and how it looks. Effects: standard error.

use tracing_subscriber::EnvFilter;

use crate::settings::LogFormat;

/// Starts logging. Connection failures of the Kubernetes client are left out: the operator says them itself.
pub fn start(format: LogFormat, directives: &str) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| directives.to_owned());
    let filter = EnvFilter::try_new(format!("{wanted},kube_client::client::builder=off"))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call (in tests) changes nothing.
    let _ = match format {
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
        LogFormat::Text => builder.try_init(),
    };
}
