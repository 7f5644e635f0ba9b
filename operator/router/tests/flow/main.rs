//! The real flow, on clusters that fail in every way that they can, deterministic: one thread, a paused clock, one
//! seed. `SEARCHCELL_ROUTER_SCHEDULES` says how many schedules are run, `SEARCHCELL_ROUTER_SEED` which one alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod elastic;
mod isolation;
mod lanes;
mod schedules;
mod work;
