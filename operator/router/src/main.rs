//! Entry of the router. It has nothing to serve yet.

fn main() {}
