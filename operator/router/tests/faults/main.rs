//! The router as a process before Elasticsearches that fail as they are told: nothing is lost, nothing is doubled,
//! what nobody knows is said to be unknown, memory stays within its bounds, and one that is sick harms no other.
//!
//! `SEARCHCELL_FAULTS_SEED` plays other work than the usual one; whatever fails names the seed that it had.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod isolation;
mod nodes;
mod numbered;
mod process;
mod stage;
mod tables;
mod unnumbered;
mod writer;
