//! The router: a process beside the application that takes Elasticsearch's `_bulk`, and sends bulks of exactly one
//! destination (cluster, index). It has no Kubernetes client: table, credentials and certificates are files.

pub mod flow;
pub mod ids;
pub mod meters;
pub mod routes;
pub mod sealed;
pub mod settings;
pub mod transport;
