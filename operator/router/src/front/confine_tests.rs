//! Tests of `confine`: what clients use, and every known way out.

use super::*;

const POOL: Confine<'static> = Confine { tenant: "g1", routed: true };

fn refusal(body: &Value) -> String {
    search(body.to_string().as_bytes(), POOL).expect_err(&body.to_string()).reason
}

#[test]
fn the_query_is_wrapped() {
    let body: Value = serde_json::from_slice(&search(b"", POOL).unwrap()).unwrap();
    let filter = json!([{"term": {"_routing": {"value": "g1"}}}]);
    assert_eq!(body, json!({"query": {"bool": {"must": [{"match_all": {}}], "filter": filter}}}));
    let own = Confine { tenant: "g1", routed: false };
    let body: Value = serde_json::from_slice(&count(br#"{"query":{"term":{"a":1}}}"#, own).unwrap()).unwrap();
    assert_eq!(body, json!({"query": {"term": {"a": 1}}}));
    // Whatever the query is, it is inside.
    let body = json!({"query": {"bool": {"should": [{"match_all": {}}], "minimum_should_match": 0}}});
    let sent: Value = serde_json::from_slice(&search(body.to_string().as_bytes(), POOL).unwrap()).unwrap();
    assert_eq!(sent["query"]["bool"]["must"][0], body["query"]);
    assert_eq!(sent["query"]["bool"]["filter"], filter);
}

#[test]
fn what_clients_use_is_allowed() {
    let body = json!({
        "query": {"bool": {
            "must": [{"match": {"content": {"query": "hello", "operator": "and"}}}, {"query_string": {"query": "a AND b", "fields": ["content"]}}],
            "filter": {"range": {"time": {"gte": "now-1d", "lt": 5}}},
            "must_not": [{"terms": {"author": [1, "2"]}}, {"exists": {"field": "deleted"}}],
            "should": {"nested": {"path": "embeds", "query": {"term": {"embeds.kind": "x"}}}}}},
        "from": 0, "size": 25, "sort": [{"time": {"order": "desc", "missing": "_last"}}, "_score"], "search_after": [5, "x"],
        "_source": {"includes": ["content"]}, "fields": ["a", {"field": "time", "format": "epoch_millis"}],
        "highlight": {"fields": {"content": {"number_of_fragments": 3}}, "pre_tags": ["<b>"]},
        "track_total_hits": true, "post_filter": {"term": {"a": 1}}, "timeout": "5s",
        "aggs": {"by": {"terms": {"field": "author", "size": 3, "order": {"_count": "desc"}},
            "aggs": {"days": {"date_histogram": {"field": "time", "calendar_interval": "day", "min_doc_count": 0}}}},
            "only": {"filter": {"term": {"a": 1}}, "aggregations": {"n": {"cardinality": {"field": "author"}}}},
            "some": {"filters": {"filters": {"x": {"match_all": {}}}}},
            "page": {"composite": {"sources": [{"a": {"terms": {"field": "author"}}}]}}}
    });
    search(body.to_string().as_bytes(), POOL).unwrap();
}

#[test]
fn every_known_way_out_is_closed() {
    let queries = [
        json!({"terms": {"a": {"index": "messages.p000.g1", "id": "g2~1", "path": "a"}}}),
        json!({"more_like_this": {"like": [{"_index": "x", "_id": "g2~1"}]}}),
        json!({"percolate": {"field": "q", "index": "x", "id": "g2~1"}}),
        json!({"geo_shape": {"location": {"indexed_shape": {"index": "shapes", "id": "1"}}}}),
        json!({"script": {"script": {"source": "1"}}}),
        json!({"script_score": {"query": {"match_all": {}}, "script": {"source": "1"}}}),
        json!({"function_score": {"query": {"match_all": {}}}}),
        json!({"has_child": {"type": "x", "query": {"match_all": {}}}}),
        json!({"has_parent": {"parent_type": "x", "query": {"match_all": {}}}}),
        json!({"parent_id": {"type": "x", "id": "1"}}),
        json!({"nested": {"path": "p", "query": {"match_all": {}}, "inner_hits": {}}}),
        json!({"wrapper": {"query": "e30="}}),
        json!({"ids": {"values": ["g2~1"]}}),
        json!({"knn": {"field": "v", "query_vector": [1]}}),
        json!({"rule": {"organic": {"match_all": {}}}}),
        json!({"pinned": {"docs": [{"_index": "x", "_id": "y"}], "organic": {"match_all": {}}}}),
        json!({"distance_feature": {"field": "t", "origin": "now", "pivot": "1d"}}),
        json!({"intervals": {"a": {"match": {"query": "x", "filter": {"script": {"source": "1"}}}}}}),
        json!({"terms_set": {"a": {"terms": ["x"], "minimum_should_match_script": {"source": "1"}}}}),
        json!({"bool": {"must": [{"bool": {"filter": [{"script": {}}]}}]}}),
        json!({"bool": {"must": {"match_all": {}}, "extra": 1}}),
        json!({"match_all": {}, "term": {"a": 1}}),
        json!({"term": {"a": {"value": {"lookup": 1}}}}),
        json!([]),
        json!("x"),
    ];
    for query in &queries {
        refusal(&json!({"query": query}));
        refusal(&json!({"post_filter": query}));
        refusal(&json!({"aggs": {"x": {"filter": query}}}));
        refusal(&json!({"aggs": {"x": {"filters": {"filters": [query]}}}}));
        refusal(&json!({"highlight": {"highlight_query": query, "fields": {}}}));
        refusal(&json!({"highlight": {"fields": {"a": {"highlight_query": query}}}}));
        assert!(count(json!({"query": query}).to_string().as_bytes(), POOL).is_err(), "{query}");
    }
    for (key, value) in [
        ("runtime_mappings", json!({"_routing": {"type": "keyword"}})),
        ("suggest", json!({"text": "x"})),
        ("knn", json!({"field": "v"})),
        ("retriever", json!({"standard": {}})),
        ("rescore", json!({})),
        ("script_fields", json!({})),
        ("collapse", json!({"field": "a", "inner_hits": {}})),
        ("pit", json!({"id": "x"})),
        ("scroll", json!("1m")),
        ("slice", json!({"id": 0, "max": 2})),
        ("indices_boost", json!([])),
        ("explain", json!(true)),
        ("profile", json!(true)),
        ("stats", json!(["x"])),
        ("ext", json!({})),
        ("rank", json!({})),
        ("sub_searches", json!([])),
        ("inner_hits", json!({})),
    ] {
        assert!(refusal(&json!({key: value})).contains(key));
    }
    for kind in [
        "global",
        "significant_terms",
        "significant_text",
        "scripted_metric",
        "top_hits",
        "sampler",
        "children",
        "parent",
        "rare_terms",
        "top_metrics",
        "adjacency_matrix",
        "random_sampler",
        "bucket_script",
        "inference",
        "frequent_item_sets",
        "categorize_text",
    ] {
        assert!(refusal(&json!({"aggs": {"x": {kind: {}}}})).contains(kind));
        assert!(
            refusal(&json!({"aggs": {"y": {"terms": {"field": "a"}, "aggs": {"x": {kind: {}}}}}}))
                .contains(kind)
        );
    }
    for aggregation in [
        json!({"terms": {"field": "a", "min_doc_count": 0}}),
        json!({"terms": {"field": "a", "min_doc_count": "0"}}),
        json!({"terms": {"script": {"source": "1"}}}),
        json!({"composite": {"sources": [{"a": {"terms": {"script": "1"}}}]}}),
        json!({"avg": {"script": {"source": "1"}}}),
    ] {
        refusal(&json!({"aggs": {"x": aggregation}}));
    }
    for sort in [
        json!({"_script": {}}),
        json!([{"_geo_distance": {}}]),
        json!({"a": {"nested": {"filter": {"script": {}}}}}),
    ] {
        refusal(&json!({"sort": sort}));
    }
    refusal(&json!({"_source": {"script": 1}}));
    refusal(&json!({"highlight": {"fields": {"a": {"options": {}}}}}));
    let mut deep = json!({"match_all": {}});
    for _ in 0..40 {
        deep = json!({"bool": {"must": deep}});
    }
    assert!(refusal(&json!({"query": deep})).contains("deep"));
    for broken in [&b"{"[..], b"[]", b"1", b"{} {}"] {
        assert!(search(broken, POOL).is_err());
    }
}
