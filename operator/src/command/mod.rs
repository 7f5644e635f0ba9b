//! What the binary does besides running the operator.

pub mod plan;
pub mod status;
pub mod table;
