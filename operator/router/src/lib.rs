//! The router: a process beside the application that takes Elasticsearch's `_bulk`, and sends bulks of exactly one
//! destination (cluster, index). It has no Kubernetes client: table, credentials and certificates are files.
//!
//! [`front`] or [`source`] → [`flow`] → [`transport`], which is [`elastic`]; [`routes`] says where to.

pub mod admin;
pub mod elastic;
pub mod fence;
pub mod flow;
pub mod front;
pub mod hot;
pub mod ids;
pub mod meters;
pub mod reload;
pub mod routes;
pub mod run;
pub mod sealed;
pub mod settings;
pub mod source;
pub mod transport;
