//! Support for the end-to-end tests: a real Kubernetes of three zones, a real Elasticsearch, and the operator as
//! users run it.
//!
//! A test gets a [`Scenario`]: a namespace of its own, an operator to start and to kill, and typed looks at what
//! Kubernetes and Elasticsearch themselves say. Nothing here is taken from the operator's own code: names, labels
//! and field paths are spelled out again, because they are promises to users and a test that shares a constant
//! with the product cannot see it change.
//!
//! Effects: those of the tests, on the cluster that KUBECONFIG names.
// Test support: a broken assumption ends the test, with a message, like an assertion. Nothing of this is shipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod access;
pub mod artifacts;
pub mod audit;
pub mod bad_network;
pub mod cells;
pub mod certificates;
pub mod elastic;
pub mod env;
pub mod leaks;
pub mod looks;
pub mod nodes;
pub mod objects;
pub mod operator;
pub mod probe;
pub mod rights;
pub mod router;
pub mod scenario;
pub mod shell;
pub mod traffic;
pub mod wait;

pub use cells::{Cell, Ingest};
pub use elastic::Elastic;
pub use env::{Env, Level};
pub use operator::Operator;
pub use router::Router;
pub use scenario::{Scenario, run};
pub use wait::wait_for;

/// Prints a line of progress.
pub fn say(text: impl AsRef<str>) {
    raw(&format!("    {}\n", text.as_ref()));
}

/// Prints that something was not tested; `make test` lists such lines.
pub fn skipped(what: &str) {
    raw(&format!("\nSKIPPED: {what}\n"));
}

/// Everything that was printed, to be searched for what may not be in it.
static PRINTED: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

/// Straight to stderr: the test runner captures only what `print!` writes.
fn raw(text: &str) {
    use std::io::Write;
    PRINTED.lock().unwrap().push_str(text);
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
