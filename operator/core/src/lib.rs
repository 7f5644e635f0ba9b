//! Every decision of the SearchCell operator, as pure functions.
//!
//! Read the modules in this order and you have read how the operator works:
//!
//! ```text
//! SearchCell ──validate──▶ ValidCell ──build──▶ Desired objects ─┐
//! the world ──(observed)──▶ CellSnapshot ────────────────────────┼─▶ plan ──▶ Plan { steps, holds, wake_after }
//! the clock ──────────────▶ now ─────────────────────────────────┘               │
//!                                        status ◀── outcomes ◀──(executed)───────┘
//! ```
//!
//! Nothing here does I/O, reads a clock or draws a random number; `Cargo.toml` proves it.

pub mod names;

pub mod flat;

pub mod reserved;

pub mod domain;

pub mod snapshot;

pub mod security;

pub mod validate;
mod watermark;

pub mod build;

pub mod drift;

pub mod identity;

pub mod step;

pub mod plan;

pub mod placement;

pub mod routing;

pub mod inject;

pub mod status;
