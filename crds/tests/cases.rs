//! Runs the table of accepted and refused objects without an API server, and checks that it covers every rule. No effects.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use kube_cel::{CompiledSchema, Validator, compile_schema};
use searchcell_crds::crd;
use serde_json::Value;
use support::bounds::broken;

/// Everything that is wrong with an object: broken bounds, or else broken rules.
fn refusals(
    schema: &Value,
    rules: &CompiledSchema,
    object: &Value,
    old: Option<&Value>,
) -> (bool, Vec<String>) {
    let bounds = broken(schema, object);
    if !bounds.is_empty() {
        return (true, bounds);
    }
    match Validator::new().validate_compiled(rules, object, old) {
        Ok(()) => (false, Vec::new()),
        Err(errors) => (false, errors.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn the_table_holds() {
    let mut failures = Vec::new();
    for (kind, table, schema) in support::tables() {
        let rules = compile_schema(&schema);
        for case in &table.cases {
            let mut fail = |what: String| failures.push(format!("{kind}, {}: {what}", case.name));
            let object = case.object(&table.base);
            let (mut by_bound, mut found) = refusals(&schema, &rules, &object, None);
            if let Some(next) = case.update(&object) {
                if !found.is_empty() {
                    fail(format!("the object to start with is refused: {found:?}"));
                    continue;
                }
                (by_bound, found) = refusals(&schema, &rules, &next, Some(&object));
            }
            match &case.rejects {
                None if !found.is_empty() => fail(format!("refused: {found:?}")),
                Some(_) if found.is_empty() => fail("accepted".to_owned()),
                Some(_) if by_bound != case.schema => {
                    fail(format!("refused elsewhere than stated: {found:?}"))
                }
                Some(message)
                    if !case.schema && !found.iter().any(|text| text.contains(message.as_str())) =>
                {
                    fail(format!("refused with other words: {found:?}"));
                }
                _ => {}
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_table_is_large_and_its_names_are_unique() {
    let tables = support::tables();
    assert!(tables.iter().map(|(_, table, _)| table.cases.len()).sum::<usize>() >= 90);
    for (kind, table, _) in tables {
        let mut names: Vec<_> = table.cases.iter().map(|case| &case.name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{kind}");
    }
}

#[test]
fn every_rule_has_a_case_that_breaks_it() {
    let tables = support::tables();
    for ((kind, table, _), rules) in
        tables.iter().zip([crd::search_cell_rules(), crd::index_placement_rules()])
    {
        for (path, rule) in rules {
            let covered = table
                .cases
                .iter()
                .filter_map(|case| case.rejects.as_deref())
                .any(|message| rule.message.contains(message));
            assert!(covered, "{kind}: no case breaks the rule at {path}: {}", rule.message);
        }
    }
}
