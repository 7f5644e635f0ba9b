//! Where the log goes and how it looks. Effects: standard error.

use tracing_subscriber::EnvFilter;

use crate::settings::LogFormat;

/// Starts logging. What the Kubernetes client says itself is left out: the operator says what matters of it, and never
/// what is in an object, which the client prints whole when it cannot read one.
pub fn start(format: LogFormat, directives: &str) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| directives.to_owned());
    let filter = EnvFilter::try_new(format!("{wanted},kube_client::client=off"))
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
