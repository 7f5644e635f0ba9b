//! Requests that count documents by tenant, and their answers: sums alone, no document is ever asked for. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ports::SearchError;

/// Part of the path behind the index. All shards answer, or the count is none.
pub const COUNT: &str = "/_search?allow_partial_search_results=false\
    &filter_path=timed_out,_shards.failed,aggregations.tenants.buckets";

/// How long Elasticsearch may count.
const LIMIT: &str = "20s";
/// Tenants that are named of one index.
const MOST_NAMED: usize = 5;

/// Of these tenants in an index of a pool. A pool's documents are routed by their tenant, whatever the user's mappings
/// make of its field.
pub fn of_tenants(tenants: &[String]) -> Value {
    let filter = |(n, tenant): (usize, &String)| (n.to_string(), json!({"term": {"_routing": tenant}}));
    let filters: serde_json::Map<String, Value> = tenants.iter().enumerate().map(filter).collect();
    json!({
        "size": 0, "track_total_hits": false, "timeout": LIMIT,
        "query": {"terms": {"_routing": tenants}},
        "aggs": {"tenants": {"filters": {"filters": filters}}},
    })
}

/// Of the tenants with the most documents in an index. `_routing` cannot be asked for its values; the tenants' field can.
pub fn largest(field: &str) -> Value {
    json!({
        "size": 0, "track_total_hits": false, "timeout": LIMIT,
        "aggs": {"tenants": {"terms": {"field": field, "size": MOST_NAMED}}},
    })
}

/// `POST /<index>/_search`
#[derive(Debug, Deserialize)]
pub struct Counted {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    /// Absent where an index has no shard that holds anything.
    #[serde(default)]
    aggregations: Option<Aggregations>,
}

/// `POST /<index>/_refresh`
#[derive(Debug, Deserialize)]
pub struct Refreshed {
    #[serde(rename = "_shards")]
    shards: Shards,
}

impl Refreshed {
    /// An error when a copy was not refreshed: it may be the one that is counted.
    pub fn whole(&self) -> Result<(), SearchError> {
        match self.shards.failed {
            0 => Ok(()),
            _ => Err(SearchError::Unreachable("not all its copies were refreshed".to_owned())),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Shards {
    failed: u64,
}

#[derive(Debug, Deserialize)]
struct Aggregations {
    tenants: Buckets,
}

#[derive(Debug, Deserialize)]
struct Buckets {
    #[serde(default)]
    buckets: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Bucket {
    /// A number for a numeric field.
    #[serde(default)]
    key: Option<Value>,
    doc_count: u64,
}

impl Counted {
    /// The buckets, when everything was counted.
    fn whole(self) -> Result<Option<Value>, SearchError> {
        if self.timed_out || self.shards.failed > 0 {
            return Err(SearchError::Unreachable("its documents were not all counted".to_owned()));
        }
        Ok(self.aggregations.and_then(|found| found.tenants.buckets))
    }

    /// Documents of the tenants that were asked about.
    pub fn of(self, tenants: &[String]) -> Result<BTreeMap<String, u64>, SearchError> {
        let buckets: BTreeMap<String, Bucket> = read(self.whole()?)?;
        let count = |(n, tenant): (usize, &String)| {
            let bucket = buckets.get(&n.to_string()).ok_or_else(incomplete)?;
            Ok((tenant.clone(), bucket.doc_count))
        };
        tenants.iter().enumerate().map(count).collect()
    }

    /// The largest tenants, the largest first.
    pub fn largest(self) -> Result<Vec<(String, u64)>, SearchError> {
        // An empty list is left out of the answer.
        let Some(buckets) = self.whole()? else { return Ok(Vec::new()) };
        let buckets: Vec<Bucket> = read(Some(buckets))?;
        let named = |bucket: Bucket| match bucket.key {
            Some(Value::String(key)) => Ok((key, bucket.doc_count)),
            Some(Value::Number(key)) => Ok((key.to_string(), bucket.doc_count)),
            _ => Err(incomplete()),
        };
        buckets.into_iter().map(named).collect()
    }
}

fn read<T: for<'de> Deserialize<'de>>(buckets: Option<Value>) -> Result<T, SearchError> {
    serde_json::from_value(buckets.ok_or_else(incomplete)?).map_err(|_| incomplete())
}

fn incomplete() -> SearchError {
    SearchError::Unreachable("its answer is incomplete".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(value: Value) -> Counted {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_was_not_counted_whole_is_no_count() {
        let tenants = ["a b".to_owned(), "42".to_owned()];
        let buckets = json!({"0": {"doc_count": 0}, "1": {"doc_count": 7}});
        let with = |timed_out: bool, failed: u64, buckets: &Value| {
            answer(json!({"timed_out": timed_out, "_shards": {"failed": failed},
                          "aggregations": {"tenants": {"buckets": buckets}}}))
        };
        let counted = with(false, 0, &buckets).of(&tenants).unwrap();
        assert_eq!(counted, BTreeMap::from([("a b".to_owned(), 0), ("42".to_owned(), 7)]));
        assert!(with(true, 0, &buckets).of(&tenants).is_err());
        assert!(with(false, 1, &buckets).of(&tenants).is_err());
        assert!(with(false, 0, &json!({"0": {"doc_count": 0}})).of(&tenants).is_err());
        assert!(answer(json!({"timed_out": false, "_shards": {"failed": 0}})).of(&tenants).is_err());
    }

    #[test]
    fn tenants_are_texts_or_numbers() {
        let buckets = json!([{"key": "x", "doc_count": 9}, {"key": 81384788765712384_u64, "doc_count": 3}]);
        let counted = answer(json!({"timed_out": false, "_shards": {"failed": 0},
                                    "aggregations": {"tenants": {"buckets": buckets}}}));
        let expected = vec![("x".to_owned(), 9), ("81384788765712384".to_owned(), 3)];
        assert_eq!(counted.largest().unwrap(), expected);
    }
}
