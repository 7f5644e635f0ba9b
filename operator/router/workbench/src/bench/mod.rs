//! Measurements: input from the workload ([`input`]), drivers that offer it to the router over HTTP ([`offer`]) and
//! through a queue ([`publish`]), the design that the router replaces ([`naive`]), runs of everybody in turns ([`run`])
//! with the processes that they need ([`processes`]), and what came of them ([`report`]).

pub mod input;
pub mod naive;
pub mod offer;
pub mod processes;
pub mod publish;
pub mod report;
pub mod run;
