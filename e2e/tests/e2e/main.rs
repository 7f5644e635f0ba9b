//! The promises of the project, proven on a real Kubernetes and a real Elasticsearch. `make e2e` runs them, one after
//! another: the machine is small, and faults hit whole nodes.
//!
//! Without a cluster every test says so in one line and passes, so that `cargo test --workspace` works anywhere.
// Helpers of tests are tests, too; clippy knows only functions marked #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_network;
mod crashes;
mod deletion;
mod drains;
mod figures;
mod forming;
mod growth;
mod harness;
mod ingest;
mod injection;
mod keystore;
mod network;
mod placements;
mod placements_apart;
mod placements_at_rest;
mod placements_meddled;
mod plan;
mod refusals;
mod removal;
mod rest;
mod rights;
mod rolling;
mod router;
mod router_clients;
mod router_faults;
mod security;
mod shrinking;
mod tenants;
mod upgrades;
mod users;
mod volumes;
mod zones;
