//! The committed definitions and reference pages are what the types say. Effects: reads files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use searchcell_crds::generate;

fn compare(directory: &str, files: Vec<(&'static str, String)>) {
    for (name, expected) in files {
        let path = support::root().join(directory).join(name);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == expected,
            "{directory}/{name} is out of date: run `{}` and commit it",
            generate::COMMAND
        );
    }
}

#[test]
fn committed_definitions_are_current() {
    compare("crds", generate::crds().unwrap());
}

#[test]
fn committed_reference_is_current() {
    compare("docs/reference", generate::docs().unwrap());
}
