//! Elasticsearch: the client, what its answers mean, and what is known of each cluster.

pub mod breaker;
pub mod client;
pub mod clients;
mod preflight;
pub mod reader;
mod shutdown;
pub mod tenants;
pub mod wire;
