//! What the binary does besides running the operator.

pub mod plan;
pub mod table;
