//! The SearchCell operator: a thin layer of effects around `searchcell_core`.
//!
//! One pass over an object is always the same six stages: **observe** (reads only) → **validate**, **build**,
//! **plan** (pure, in the core) → **execute** (writes) → **status** (pure) and one publish.

pub mod backoff;
pub mod cell;
pub mod clock;
pub mod command;
pub mod decide;
pub mod elastic;
pub mod engine;
pub mod execute;
pub mod failure;
pub mod kube_io;
pub mod leadership;
pub mod lease;
pub mod placement;
pub mod ports;
pub mod report;
pub mod routers;
pub mod run;
pub mod security;
pub mod server;
pub mod settings;
pub mod table;
pub mod telemetry;
pub mod transitions;
pub mod webhook;
