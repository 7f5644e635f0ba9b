//! The promises of the project, proven on a real Kubernetes and a real Elasticsearch. `make e2e` runs them, one after
//! another: the machine is small, and faults hit whole nodes.
//!
//! Without a cluster every test says so in one line and passes, so that `cargo test --workspace` works anywhere.

mod crashes;
mod deletion;
mod figures;
mod forming;
mod growth;
mod harness;
mod ingest;
mod refusals;
mod rest;
mod users;
mod zones;
