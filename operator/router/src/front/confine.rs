//! Confines a search to a tenant: what it may say is a list of what is known to stay within a query, and everything
//! else is refused by name. Pure.

use serde_json::{Map, Value, json};

use super::error::Failure;

/// Queries of queries, and how deep. What is deeper is refused before Elasticsearch has to.
const MAX_DEPTH: usize = 30;

/// How a tenant's documents are told from others in the index that is searched.
#[derive(Clone, Copy, Debug)]
pub struct Confine<'a> {
    /// Tenant.
    pub tenant: &'a str,
    /// Whether the index is shared, and documents are routed by their tenant.
    pub routed: bool,
}

/// Body of a `_search`, confined.
pub fn search(body: &[u8], confine: Confine<'_>) -> Result<Vec<u8>, Failure> {
    let mut body = object(body)?;
    for (key, value) in &body {
        match key.as_str() {
            "query" | "post_filter" => query(value, 0)?,
            "aggs" | "aggregations" => aggregations(value, 0)?,
            "highlight" => highlight(value)?,
            "sort" => sort(value)?,
            "_source" | "fields" | "docvalue_fields" | "stored_fields" => plain(key, value)?,
            "from"
            | "size"
            | "search_after"
            | "track_total_hits"
            | "timeout"
            | "version"
            | "seq_no_primary_term"
            | "track_scores"
            | "min_score"
            | "terminate_after" => plain(key, value)?,
            other => return Err(refused(other, "search")),
        }
    }
    let asked = body.remove("query");
    body.insert("query".to_owned(), confined(asked, confine));
    Ok(Value::Object(body).to_string().into_bytes())
}

/// Body of a `_count`, confined.
pub fn count(body: &[u8], confine: Confine<'_>) -> Result<Vec<u8>, Failure> {
    let mut body = object(body)?;
    for (key, value) in &body {
        match key.as_str() {
            "query" => query(value, 0)?,
            other => return Err(refused(other, "count")),
        }
    }
    let asked = body.remove("query");
    Ok(json!({"query": confined(asked, confine)}).to_string().into_bytes())
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Failure> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    // What is read here is what is sent, so a key that is there twice means the same to both.
    serde_json::from_slice(body)
        .map_err(|error| Failure::new(http::StatusCode::BAD_REQUEST, "parsing_exception", error.to_string()))
}

fn confined(asked: Option<Value>, confine: Confine<'_>) -> Value {
    let asked = asked.unwrap_or_else(|| json!({"match_all": {}}));
    if !confine.routed {
        return asked;
    }
    json!({"bool": {"must": [asked], "filter": [{"term": {"_routing": {"value": confine.tenant}}}]}})
}

fn refused(name: &str, what: &str) -> Failure {
    Failure::illegal(format!("[{name}] is not allowed in a {what} through the router"))
}

/// Only values: what names another document, an index, a script or a field that is computed is an object with a key
/// for it.
fn plain(name: &str, value: &Value) -> Result<(), Failure> {
    match value {
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match key.as_str() {
            "includes" | "excludes" | "include" | "exclude" | "field" | "format" => plain(name, value),
            other => Err(refused(other, name)),
        }),
        Value::Array(list) => list.iter().try_for_each(|value| plain(name, value)),
        _ => Ok(()),
    }
}

/// A query: an object of one known kind, its parts known too.
fn query(value: &Value, depth: usize) -> Result<(), Failure> {
    let (kind, inner) = one(value, "query")?;
    if depth > MAX_DEPTH {
        return Err(Failure::illegal(format!("queries may be in queries {MAX_DEPTH} deep")));
    }
    match kind {
        "match_all"
        | "match_none"
        | "exists"
        | "query_string"
        | "simple_query_string"
        | "multi_match"
        | "combined_fields" => options(kind, inner),
        // One field, and a value or options.
        "match"
        | "match_phrase"
        | "match_phrase_prefix"
        | "match_bool_prefix"
        | "term"
        | "range"
        | "prefix"
        | "wildcard"
        | "regexp"
        | "fuzzy" => {
            let fields = inner.as_object().ok_or_else(|| refused(kind, "query"))?;
            fields.values().try_for_each(|field| options(kind, field))
        }
        // A list of values; an object here is a document of some index to read them from.
        "terms" => {
            let fields = inner.as_object().ok_or_else(|| refused(kind, "query"))?;
            fields.values().try_for_each(|field| {
                if field.is_object() { Err(refused("terms lookup", "query")) } else { flat(kind, field) }
            })
        }
        "bool" => parts(kind, inner, |key, value| match key {
            "must" | "should" | "filter" | "must_not" => queries(value, depth + 1),
            "minimum_should_match" | "boost" | "_name" => flat(key, value),
            other => Err(refused(other, "query")),
        }),
        "constant_score" => parts(kind, inner, |key, value| match key {
            "filter" => query(value, depth + 1),
            "boost" | "_name" => flat(key, value),
            other => Err(refused(other, "query")),
        }),
        "dis_max" => parts(kind, inner, |key, value| match key {
            "queries" => queries(value, depth + 1),
            "tie_breaker" | "boost" | "_name" => flat(key, value),
            other => Err(refused(other, "query")),
        }),
        "boosting" => parts(kind, inner, |key, value| match key {
            "positive" | "negative" => query(value, depth + 1),
            "negative_boost" | "boost" | "_name" => flat(key, value),
            other => Err(refused(other, "query")),
        }),
        "nested" => parts(kind, inner, |key, value| match key {
            "query" => query(value, depth + 1),
            "path" | "score_mode" | "ignore_unmapped" | "boost" | "_name" => flat(key, value),
            other => Err(refused(other, "query")),
        }),
        other => Err(refused(other, "query")),
    }
}

fn queries(value: &Value, depth: usize) -> Result<(), Failure> {
    match value {
        Value::Array(list) => list.iter().try_for_each(|value| query(value, depth)),
        value => query(value, depth),
    }
}

/// The one entry of an object.
fn one<'a>(value: &'a Value, what: &str) -> Result<(&'a str, &'a Value), Failure> {
    let map = value.as_object().filter(|map| map.len() == 1);
    let entry = map.and_then(|map| map.iter().next()).map(|(key, value)| (key.as_str(), value));
    entry
        .ok_or_else(|| Failure::illegal(format!("a {what} is an object with the one key that says its kind")))
}

fn parts(
    kind: &str,
    value: &Value,
    check: impl Fn(&str, &Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let map = value.as_object().ok_or_else(|| refused(kind, "query"))?;
    map.iter().try_for_each(|(key, value)| check(key, value))
}

/// A value, or an object of values and lists of values: options of a query that cannot name what is elsewhere.
fn options(name: &str, value: &Value) -> Result<(), Failure> {
    match value {
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            // They take rules or scripts, or read other documents.
            if ["rewrite", "_name", "script", "index", "like"].contains(&key.as_str()) && !value.is_string() {
                return Err(refused(key, name));
            }
            flat(key, value)
        }),
        value => flat(name, value),
    }
}

/// A value, or a list of values.
fn flat(name: &str, value: &Value) -> Result<(), Failure> {
    match value {
        Value::Object(_) => Err(refused(name, "query, with an object in it,")),
        Value::Array(list) => list.iter().try_for_each(|value| flat(name, value)),
        _ => Ok(()),
    }
}

fn sort(value: &Value) -> Result<(), Failure> {
    match value {
        Value::Array(list) => list.iter().try_for_each(sort),
        Value::String(field) if field.starts_with("_script") => Err(refused("_script", "sort")),
        Value::Object(map) => map.iter().try_for_each(|(field, order)| {
            if field.starts_with('_') && !["_score", "_doc"].contains(&field.as_str()) {
                return Err(refused(field, "sort"));
            }
            match order {
                Value::Object(options) => options.iter().try_for_each(|(key, value)| match key.as_str() {
                    "order" | "missing" | "mode" | "unmapped_type" | "format" | "numeric_type" => {
                        flat(key, value)
                    }
                    other => Err(refused(other, "sort")),
                }),
                value => flat("sort", value),
            }
        }),
        _ => Ok(()),
    }
}

fn highlight(value: &Value) -> Result<(), Failure> {
    let Some(map) = value.as_object() else { return Err(refused("highlight", "search")) };
    map.iter().try_for_each(|(key, value)| match (key.as_str(), value) {
        ("highlight_query", _) => query(value, 0),
        ("fields", Value::Object(fields)) => fields.values().try_for_each(highlight),
        ("fields", Value::Array(list)) => {
            list.iter().filter_map(Value::as_object).flat_map(Map::values).try_for_each(highlight)
        }
        ("options", _) => Err(refused("options", "highlight")),
        (key, value) => flat(key, value),
    })
}

/// Aggregations of which every bucket and number is made of the documents that the query finds.
const AGGREGATIONS: [&str; 23] = [
    "terms",
    "date_histogram",
    "auto_date_histogram",
    "histogram",
    "range",
    "date_range",
    "missing",
    "filter",
    "filters",
    "avg",
    "sum",
    "min",
    "max",
    "value_count",
    "cardinality",
    "stats",
    "extended_stats",
    "percentiles",
    "percentile_ranks",
    "median_absolute_deviation",
    "composite",
    "nested",
    "reverse_nested",
];

fn aggregations(value: &Value, depth: usize) -> Result<(), Failure> {
    if depth > MAX_DEPTH {
        return Err(Failure::illegal(format!("aggregations may be in aggregations {MAX_DEPTH} deep")));
    }
    let map = value.as_object().ok_or_else(|| refused("aggs", "search"))?;
    for aggregation in map.values() {
        let parts = aggregation.as_object().ok_or_else(|| refused("aggs", "search"))?;
        for (key, value) in parts {
            match key.as_str() {
                "aggs" | "aggregations" => aggregations(value, depth + 1)?,
                "meta" => {}
                "filter" => query(value, 0)?,
                "filters" => filters(value)?,
                kind if AGGREGATIONS.contains(&kind) => computed(kind, value)?,
                other => return Err(refused(other, "aggregation")),
            }
        }
    }
    Ok(())
}

fn filters(value: &Value) -> Result<(), Failure> {
    parts("filters", value, |key, value| match (key, value) {
        ("filters", Value::Object(named)) => named.values().try_for_each(|value| query(value, 0)),
        ("filters", Value::Array(list)) => list.iter().try_for_each(|value| query(value, 0)),
        ("other_bucket" | "other_bucket_key" | "keyed", value) => flat(key, value),
        (other, _) => Err(refused(other, "aggregation")),
    })
}

/// Options of an aggregation, wherever they are in it: no script, and with no buckets for terms that no document of
/// the query has, because those are of other tenants' documents.
fn computed(kind: &str, value: &Value) -> Result<(), Failure> {
    match value {
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match key.as_str() {
            "script" | "init_script" | "background_filter" | "background_is_superset" => {
                Err(refused(key, kind))
            }
            "min_doc_count" | "shard_min_doc_count"
                if key == "min_doc_count"
                    && kind == "terms"
                    && value.as_i64().is_none_or(|count| count < 1) =>
            {
                Err(refused("min_doc_count below 1", kind))
            }
            _ => computed(kind, value),
        }),
        Value::Array(list) => list.iter().try_for_each(|value| computed(kind, value)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "confine_tests.rs"]
mod tests;
