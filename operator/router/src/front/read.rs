//! Reads: documents by id, searches, counts; each within one tenant. Effects: asks Elasticsearch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use searchcell_crds::IdScope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body;
use super::confine::{self, Confine};
use super::error::Failure;
use super::plan::check_tenant;
use super::{Answer, App, Asked};
use crate::elastic::SendError;
use crate::elastic::http::{Request, encode};
use crate::ids;
use crate::routes::{Place, Route};

/// Most bytes of an answer to a search, which the budget has room for before it is asked for.
const MAX_ANSWER: usize = 8 << 20;
/// Searches of one `_msearch`.
const MAX_SEARCHES: usize = 100;

/// Given to Elasticsearch as they are.
const PASSED: [&str; 12] = [
    "_source",
    "_source_includes",
    "_source_excludes",
    "from",
    "size",
    "sort",
    "track_total_hits",
    "timeout",
    "typed_keys",
    "rest_total_hits_as_int",
    "request_cache",
    "terminate_after",
];
/// Understood, and without an effect here: one index is asked, which is there.
const IGNORED: [&str; 12] = [
    "routing",
    "ignore_unavailable",
    "allow_no_indices",
    "expand_wildcards",
    "ignore_throttled",
    "preference",
    "search_type",
    "batched_reduce_size",
    "ccs_minimize_roundtrips",
    "max_concurrent_shard_requests",
    "pre_filter_shard_size",
    "allow_partial_search_results",
];
const REFUSED: [&str; 8] =
    ["scroll", "q", "df", "stored_fields", "docvalue_fields", "explain", "suggest_field", "rest_params"];

/// Where a tenant's documents are read.
struct Spot {
    route: Arc<Route>,
    place: Place,
    tenant: String,
}

impl Spot {
    fn confine(&self) -> Confine<'_> {
        Confine { tenant: &self.tenant, routed: self.place.routed }
    }

    fn stored(&self, id: &str) -> String {
        match self.route.table.tenant.id_scope {
            IdScope::Tenant => ids::stored(&self.tenant, id),
            IdScope::Collection => id.to_owned(),
        }
    }

    fn routing(&self) -> String {
        if self.place.routed { format!("&routing={}", encode(&self.tenant)) } else { String::new() }
    }

    /// A document's place as the client knows it.
    fn rename(&self, hit: &mut Value, collection: &str) {
        let Some(hit) = hit.as_object_mut() else { return };
        hit.insert("_index".to_owned(), json!(collection));
        if let (Some(Value::String(id)), IdScope::Tenant) =
            (hit.get_mut("_id"), self.route.table.tenant.id_scope)
        {
            let prefix = ids::prefix(&self.tenant);
            if let Some(own) = id.strip_prefix(&*prefix).map(str::to_owned) {
                *id = own;
            }
        }
    }
}

impl App {
    fn spot(
        &self,
        collection: &str,
        routing: Option<&str>,
        caller: &super::Caller<'_>,
    ) -> Result<Spot, Failure> {
        let routes = self.directory.current();
        let route = routes.get(collection).ok_or_else(|| Failure::no_collection(collection))?;
        if !caller.may_read(collection) {
            return Err(Failure::forbidden("indices:data/read", collection));
        }
        let tenant = routing.ok_or_else(|| {
            let reason = format!("routing is required for [{collection}]: it is the tenant");
            Failure::new(StatusCode::BAD_REQUEST, "routing_missing_exception", reason)
        })?;
        check_tenant(tenant)?;
        let to = route.table.lookup(tenant).ok_or_else(|| Failure::no_place(collection, tenant))?;
        // Not "not found": its documents are somewhere, and nobody can look there now.
        let place = to.read.and_then(|position| route.place(position)).ok_or_else(|| {
            Failure::unavailable(format!(
                "[{collection}] has no index for tenant [{tenant}] now: ask again later"
            ))
        })?;
        Ok(Spot { route: Arc::clone(route), place: place.clone(), tenant: tenant.to_owned() })
    }

    async fn ask(
        &self,
        spot: &Spot,
        method: Method,
        path: String,
        body: Vec<u8>,
    ) -> Result<(u16, Value), Failure> {
        let _room = self
            .core
            .budget()
            .take(MAX_ANSWER)
            .ok_or_else(|| Failure::overloaded("the router holds as much as it may: ask again later"))?;
        let request = Request {
            method,
            path,
            body: Bytes::from(body),
            content_type: "application/json",
            timeout: self.sizes.request_timeout.max(Duration::from_secs(1)),
            max_answer: MAX_ANSWER,
        };
        let response =
            self.elastic.send(&spot.place.cluster, request).await.map_err(|error| match error {
                SendError::TooLarge(limit) => Failure::illegal(format!(
                    "the answer is larger than {limit} bytes: ask for less, with [size] or [_source]"
                )),
                other => Failure::unavailable(other.to_string()),
            })?;
        let status = response.status.as_u16();
        if matches!(status, 401 | 403) {
            return Err(Failure::unavailable("the router's credential is not accepted"));
        }
        let value = serde_json::from_slice(&response.body)
            .map_err(|_| Failure::unavailable(format!("Elasticsearch answered {status}, and no JSON")))?;
        Ok((status, value))
    }

    /// A document by its id.
    pub(super) async fn get(&self, index: &str, id: &str, asked: Asked<'_>) -> Result<Answer, Failure> {
        let known = [
            "routing",
            "_source",
            "_source_includes",
            "_source_excludes",
            "realtime",
            "refresh",
            "preference",
        ];
        asked.params.only(&known, &["version", "version_type", "stored_fields"])?;
        let spot = self.spot(index, asked.params.get("routing"), &asked.caller)?;
        let mut path = format!("/{}/_doc/{}?", encode(&spot.place.index), encode(&spot.stored(id)));
        path.push_str(spot.routing().trim_start_matches('&'));
        for name in ["_source", "_source_includes", "_source_excludes", "realtime", "refresh"] {
            if let Some(value) = asked.params.get(name) {
                path.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        let (status, mut document) = self.ask(&spot, Method::GET, path, Vec::new()).await?;
        if document.get("error").is_some() {
            return Err(failure(status, &document));
        }
        let own = document.get("_routing").and_then(Value::as_str) == Some(&spot.tenant);
        let found = document.get("found") == Some(&Value::Bool(true)) && (own || !spot.place.routed);
        if !found {
            let body = json!({"_index": index, "_id": id, "found": false});
            return Ok(Answer { status: 404, ..Answer::ok(body.to_string().into_bytes()) });
        }
        spot.rename(&mut document, index);
        Ok(Answer { status, ..Answer::ok(document.to_string().into_bytes()) })
    }

    /// A search.
    pub(super) async fn search(&self, index: &str, asked: Asked<'_>) -> Result<Answer, Failure> {
        let known = [&PASSED[..], &IGNORED[..]].concat();
        asked.params.only(&known, &REFUSED)?;
        let spot = self.spot(index, asked.params.get("routing"), &asked.caller)?;
        let held = body::read(&asked.headers, asked.body, self.core.budget(), self.sizes.max_request).await?;
        let body = confine::search(&held.bytes, spot.confine())?;
        drop(held);
        let passed: String = PASSED
            .iter()
            .filter_map(|name| Some(format!("&{name}={}", encode(asked.params.get(name)?))))
            .collect();
        let value = self.search_one(&spot, index, body, &passed).await?;
        Ok(Answer::ok(value.to_string().into_bytes()))
    }

    async fn search_one(
        &self,
        spot: &Spot,
        index: &str,
        body: Vec<u8>,
        passed: &str,
    ) -> Result<Value, Failure> {
        let query = format!("{}{passed}", spot.routing());
        let path = format!("/{}/_search?{}", encode(&spot.place.index), query.trim_start_matches('&'));
        let (status, mut value) = self.ask(spot, Method::POST, path, body).await?;
        if status != 200 {
            return Err(failure(status, &value));
        }
        if let Some(hits) = value.pointer_mut("/hits/hits").and_then(Value::as_array_mut) {
            for hit in hits {
                spot.rename(hit, index);
            }
        }
        without_indices(&mut value);
        Ok(value)
    }

    /// A count.
    pub(super) async fn count(&self, index: &str, asked: Asked<'_>) -> Result<Answer, Failure> {
        asked.params.only(&IGNORED, &REFUSED)?;
        let spot = self.spot(index, asked.params.get("routing"), &asked.caller)?;
        let held = body::read(&asked.headers, asked.body, self.core.budget(), self.sizes.max_request).await?;
        let body = confine::count(&held.bytes, spot.confine())?;
        drop(held);
        let path =
            format!("/{}/_count?{}", encode(&spot.place.index), spot.routing().trim_start_matches('&'));
        let (status, mut value) = self.ask(&spot, Method::POST, path, body).await?;
        if status != 200 {
            return Err(failure(status, &value));
        }
        without_indices(&mut value);
        Ok(Answer::ok(value.to_string().into_bytes()))
    }

    /// Several searches.
    pub(super) async fn multi_search(
        &self,
        index: Option<&str>,
        asked: Asked<'_>,
    ) -> Result<Answer, Failure> {
        let known = [
            "typed_keys",
            "rest_total_hits_as_int",
            "max_concurrent_searches",
            "ccs_minimize_roundtrips",
            "search_type",
            "max_concurrent_shard_requests",
            "pre_filter_shard_size",
            "routing",
        ];
        asked.params.only(&known, &[])?;
        let started = tokio::time::Instant::now();
        let held = body::read(&asked.headers, asked.body, self.core.budget(), self.sizes.max_request).await?;
        if held.bytes.last() != Some(&b'\n') {
            return Err(Failure::illegal("The msearch request must be terminated by a newline [\\n]"));
        }
        let lines: Vec<&[u8]> =
            held.bytes.strip_suffix(b"\n").unwrap_or_default().split(|byte| *byte == b'\n').collect();
        if !lines.len().is_multiple_of(2) || lines.len() > 2 * MAX_SEARCHES {
            return Err(Failure::illegal(format!(
                "an msearch is pairs of lines, at most {MAX_SEARCHES} of them"
            )));
        }
        let passed: String = ["typed_keys", "rest_total_hits_as_int"]
            .iter()
            .filter_map(|name| Some(format!("&{name}={}", encode(asked.params.get(name)?))))
            .collect();
        let mut responses = Vec::new();
        for pair in lines.chunks(2) {
            let [header, body] = pair else { continue };
            let routing = asked.params.get("routing");
            let one = self.one_of_many(header, body, (index, routing), &asked.caller, &passed).await;
            responses.push(one.unwrap_or_else(|failure| failure.body()));
        }
        let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Answer::ok(json!({"took": took, "responses": responses}).to_string().into_bytes()))
    }

    async fn one_of_many(
        &self,
        header: &[u8],
        body: &[u8],
        (index, routing): (Option<&str>, Option<&str>),
        caller: &super::Caller<'_>,
        passed: &str,
    ) -> Result<Value, Failure> {
        let header = Header::read(header)?;
        let index = header
            .index
            .as_ref()
            .map(|names| names.get("collection"))
            .transpose()?
            .or(index.map(str::to_owned));
        let index =
            index.ok_or_else(|| Failure::illegal("an index is required: in the path, or in the header"))?;
        let own = header.routing.as_ref().map(|tenants| tenants.get("tenant")).transpose()?;
        let spot = self.spot(&index, own.as_deref().or(routing), caller)?;
        let body = confine::search(body, spot.confine())?;
        let mut value = self.search_one(&spot, &index, body, passed).await?;
        if let Some(value) = value.as_object_mut() {
            value.insert("status".to_owned(), json!(200));
        }
        Ok(value)
    }
}

/// The header of one search of several.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    #[serde(default, alias = "indices")]
    index: Option<One>,
    // A string from the clients of the 8 line, a list from those of the 9 line.
    #[serde(default)]
    routing: Option<One>,
    #[serde(default, rename = "ignore_unavailable", alias = "allow_no_indices", alias = "expand_wildcards")]
    _ignored: Option<Value>,
    #[serde(default, rename = "preference")]
    _preference: Option<Value>,
    #[serde(default, rename = "search_type")]
    _search_type: Option<Value>,
}

impl Header {
    fn read(line: &[u8]) -> Result<Self, Failure> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        serde_json::from_slice(line).map_err(|error| Failure::illegal(format!("header of a search: {error}")))
    }
}

/// A name, or a list of one.
#[derive(Deserialize)]
#[serde(untagged)]
enum One {
    Name(String),
    List(Vec<String>),
}

impl One {
    fn get(&self, what: &str) -> Result<String, Failure> {
        match self {
            One::Name(name) => Ok(name.clone()),
            One::List(names) => match names.as_slice() {
                [name] => Ok(name.clone()),
                _ => Err(Failure::illegal(format!("a search is of exactly one {what}"))),
            },
        }
    }
}

/// An error of Elasticsearch, without the names of indices.
fn failure(status: u16, body: &Value) -> Failure {
    let error = body.get("error");
    let cause = error.and_then(|error| error.pointer("/root_cause/0")).or(error);
    let text = |key: &str| {
        cause.and_then(|cause| cause.get(key)).and_then(Value::as_str).unwrap_or("unknown").to_owned()
    };
    let kind = text("type");
    if status == 404 && kind == "index_not_found_exception" {
        return Failure::unavailable("the destination's index is missing");
    }
    Failure { status, kind: kind.into(), reason: text("reason"), cause: None, retry_after: None }
}

/// Takes out what names indices: reasons of shards that failed.
fn without_indices(value: &mut Value) {
    if let Some(shards) = value.get_mut("_shards").and_then(Value::as_object_mut) {
        shards.remove("failures");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_searches_as_both_lines_of_clients_write_them() {
        let read = |line: &str| {
            let header = Header::read(line.as_bytes())?;
            let get = |names: &Option<One>, what| names.as_ref().map(|names| names.get(what)).transpose();
            Ok::<_, Failure>((get(&header.index, "collection")?, get(&header.routing, "tenant")?))
        };
        let both = Ok((Some("messages".to_owned()), Some("7".to_owned())));
        assert_eq!(read(r#"{"index":"messages","routing":"7"}"#), both);
        assert_eq!(read(r#"{"index":["messages"],"routing":["7"]}"#), both);
        assert_eq!(read("{}"), Ok((None, None)));
        assert_eq!(read(""), Ok((None, None)));
        for (line, named) in [
            (r#"{"index":"messages","routing":["7","8"]}"#, "tenant"),
            (r#"{"index":"messages","routing":[]}"#, "tenant"),
            (r#"{"index":["messages","users"]}"#, "collection"),
            (r#"{"routing":{"7":"8"}}"#, "header"),
            (r#"{"unknown":1}"#, "unknown"),
        ] {
            let failure = read(line).unwrap_err();
            assert!(failure.status == 400 && failure.reason.contains(named), "{line}: {failure}");
        }
    }
}
