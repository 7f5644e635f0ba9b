//! Hostile IndexPlacements.

use serde_json::{Value, json};

use super::{Attack, On, attack};

pub fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    names(&mut all);
    settings(&mut all);
    mappings(&mut all);
    all
}

/// Names become parts of URLs.
fn names(all: &mut Vec<Attack>) {
    for collection in [
        "../_cluster/settings",
        "%2e%2e%2f_all",
        "_all",
        "*",
        "a,b",
        "a/_doc",
        "a?pretty",
        "a#b",
        "a\nb",
        "a\u{202e}b",
        "-a",
        ".security",
        "A",
        "<logs-{now/d}>",
        "a b",
        "",
    ] {
        let spec = json!({"collection": collection});
        all.push(attack(On::Placement, &format!("collection {collection:?}"), spec, "spec.collection"));
    }
    let tenant = |id: &str| json!({"dedicated": {"tenants": [{"id": id, "expectedDocuments": 10}]}});
    for id in ["../_cluster/settings", "%2e%2e", "_all", "*,-*", "a/b?c#d", "A", "\u{202e}a", "日本", ".."]
    {
        all.push(attack(On::Placement, &format!("tenant {id:?}"), tenant(id), ""));
    }
    for id in ["", "a\nb", "a\0b", "\u{1b}[2J", &"x".repeat(129)] {
        all.push(attack(On::Placement, &format!("tenant {id:?}"), tenant(id), "spec.dedicated.tenants["));
    }
    for field in ["a.b", "_id", "_routing", "searchcell_deleted", "a\"b", "${x}", "", "_source"] {
        let spec = json!({"tenant": {"field": field}});
        all.push(attack(On::Placement, &format!("tenant field {field:?}"), spec, "spec.tenant.field"));
    }
    for cell in ["../guilds", "guilds.other", "guilds/other", "Guilds", ""] {
        all.push(attack(On::Placement, &format!("cell {cell:?}"), json!({"cell": cell}), "spec.cell"));
    }
}

fn settings(all: &mut Vec<Attack>) {
    let index = |settings: Value| json!({"index": {"settings": settings}});
    for (key, value) in [
        ("number_of_shards", json!(1000)),
        ("index.number_of_shards", json!(1000)),
        ("number_of_replicas", json!(0)),
        ("routing.allocation.require._name", json!("x")),
        ("routing_partition_size", json!(2)),
        ("uuid", json!("x")),
        ("version.created", json!(1)),
        ("data_path", json!("/usr/share/elasticsearch/config")),
        ("analysis.filter.f.stopwords_path", json!("/usr/share/elasticsearch/config/users")),
        ("analysis.filter.f.synonyms_path", json!("users")),
        ("analysis.filter.f.synonyms_path", json!("analysis/../certificates/node.key")),
        ("analysis.filter.f.protected_words_path", json!("elasticsearch.keystore")),
        ("analysis.char_filter.f.mappings_path", json!("analysis//../../x")),
        ("analysis.filter.f.word_list_path", json!("analysis\\..\\users")),
        ("analysis.tokenizer.t.user_dictionary", json!("/proc/self/environ")),
        ("analysis.tokenizer.t.rules_files", json!("Latn:analysis/a.rbbi,Cyrl:users")),
        ("analysis.filter.f.locale", json!("../../users")),
    ] {
        let name = format!("index setting {key} = {value}");
        all.push(attack(On::Placement, &name, index(json!({key: value})), "spec.index.settings["));
    }
    let nested =
        index(json!({"analysis": {"filter": {"f": {"type": "stop", "stopwords_path": "/etc/passwd"}}}}));
    all.push(attack(On::Placement, "index setting nested", nested, "spec.index.settings["));
    let twice = index(json!({"index": {"codec": "a"}, "codec": "b"}));
    all.push(attack(On::Placement, "index setting twice", twice, "spec.index.settings["));
    let long = index(json!({"analysis.filter.f.synonyms": vec!["x".repeat(10_000); 100]}));
    all.push(attack(On::Placement, "index settings of a megabyte", long, "128 KiB"));
    let good =
        index(json!({"analysis.filter.f": {"type": "synonym", "synonyms_path": "analysis/en/words.txt"}}));
    all.push(attack(On::Placement, "index setting with a file of analysis", good, ""));
    let odd = index(json!({"analysis.filter.f": {"type": "stop", "stopwords": ["${x}", "\u{202e}", "\n"]}}));
    all.push(attack(On::Placement, "index setting with odd words", odd, ""));
}

fn mappings(all: &mut Vec<Attack>) {
    let index = |mappings: Value| json!({"index": {"mappings": mappings}});
    let mut deep = json!({"type": "object"});
    for _ in 0..40 {
        deep = json!({"properties": {"a": deep}});
    }
    let wide: serde_json::Map<String, Value> = (0..10_000)
        .map(|n| (format!("field_of_a_rather_long_name_{n}"), json!({"type": "keyword"})))
        .collect();
    for (name, mappings, refused) in [
        ("our mark", json!({"_meta": {"searchcell": {"placement": "other"}}}), "_meta.searchcell"),
        ("our routing", json!({"_routing": {"required": false}}), "_routing"),
        ("our field", json!({"properties": {"searchcell_deleted": {"type": "text"}}}), "searchcell_deleted"),
        (
            "our field at run time",
            json!({"runtime": {"searchcell_deleted": {"type": "long"}}}),
            "searchcell_deleted",
        ),
        ("the tenant in disguise", json!({"runtime": {"guild_id": {"type": "keyword"}}}), "guild_id"),
        ("the tenant as text", json!({"properties": {"guild_id": {"type": "text"}}}), "guild_id"),
        ("a list for an object", json!({"properties": []}), "properties"),
        ("forty levels", json!({"properties": {"a": deep}}), "levels"),
        ("ten thousand fields", json!({"properties": wide}), "256 KiB"),
        ("names that reorder text", json!({"properties": {"a\u{202e}b\n": {"type": "text"}}}), ""),
        ("names that are paths", json!({"properties": {"../../x": {"type": "text"}}}), ""),
    ] {
        all.push(attack(On::Placement, &format!("mapping with {name}"), index(mappings), refused));
    }
    for (name, spec, refused) in [
        (
            "too many shards",
            json!({"dedicated": {"tenants": [{"id": "1", "expectedDocuments": 1, "shards": 1_000_000}]}}),
            "shards",
        ),
        (
            "a negative number",
            json!({"dedicated": {"tenants": [{"id": "1", "expectedDocuments": -1}]}}),
            "expectedDocuments",
        ),
        (
            "a number at the edge",
            json!({"dedicated": {"tenants": [{"id": "1", "expectedDocuments": i64::MAX}]}}),
            "expectedDocuments",
        ),
        ("a million replicas", json!({"replicas": 1_000_000}), "spec.replicas"),
    ] {
        all.push(attack(On::Placement, name, spec, refused));
    }
}
