//! The promises of the project, proven on a real Kubernetes and a real Elasticsearch. `make e2e` runs them, one after
//! another (`--test-threads=1`): the machine is small, and faults hit whole nodes.

fn main_is_elsewhere() {}
