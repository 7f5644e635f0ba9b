//! Measurements: input from the workload ([`input`]), a driver that offers it to the router ([`offer`]), the design
//! that the router replaces ([`naive`]), runs of everybody in turns ([`run`]), and what came of them ([`report`]).

pub mod input;
pub mod naive;
pub mod offer;
pub mod report;
pub mod run;
