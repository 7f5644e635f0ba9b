//! Errors as Elasticsearch shows them. Pure.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

/// What a client is told went wrong with a request or with one item of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {reason}")]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// `error.type`.
    pub kind: Cow<'static, str>,
    /// `error.reason`.
    pub reason: String,
    /// `error.caused_by`, type and reason.
    pub cause: Option<(String, String)>,
    /// Of 429: seconds after which it is worth while to ask again, where that is known.
    pub retry_after: Option<u64>,
}

impl Failure {
    /// One with this status, type and reason.
    pub fn new(status: StatusCode, kind: &'static str, reason: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            kind: Cow::Borrowed(kind),
            reason: reason.into(),
            cause: None,
            retry_after: None,
        }
    }

    /// 400: what was asked cannot be done, and asking again changes nothing.
    pub fn illegal(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "illegal_argument_exception", reason)
    }

    /// 400, for something that Elasticsearch has and the router has not.
    pub fn unsupported(what: &str) -> Self {
        Self::illegal(format!("[{what}] is not supported by the router"))
    }

    /// 400, for a parameter that nobody knows.
    pub fn parameter(path: &str, name: &str) -> Self {
        Self::illegal(format!("request [{path}] contains unrecognized parameter: [{name}]"))
    }

    /// 404: no such collection.
    pub fn no_collection(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "index_not_found_exception", format!("no such index [{name}]"))
    }

    /// 404: a collection that has a table, and no pool for this tenant to be in.
    pub fn no_place(collection: &str, tenant: &str) -> Self {
        let reason = format!("[{collection}] has no place for tenant [{tenant}]");
        Self::new(StatusCode::NOT_FOUND, "index_not_found_exception", reason)
    }

    /// 429: this cannot be taken now.
    pub fn overloaded(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "es_rejected_execution_exception", reason)
    }

    /// 429: the tenant has used up what it may write within the time that the request has.
    pub fn too_fast(collection: &str, after: Duration) -> Self {
        let reason = format!(
            "not applied: its tenant writes more to [{collection}] than it may, and has the next turn in {} ms: send it \
             again later",
            after.as_millis()
        );
        Self { retry_after: Some(after.as_secs().clamp(1, 60)), ..Self::overloaded(reason) }
    }

    /// 403: the user may not do that.
    pub fn forbidden(action: &str, collection: &str) -> Self {
        let reason = format!("action [{action}] is unauthorized for this user on index [{collection}]");
        Self::new(StatusCode::FORBIDDEN, "security_exception", reason)
    }

    /// 503: what was asked could not be carried out now, and nothing was changed.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason)
    }

    /// `error` of an item, or of a request.
    pub fn error(&self) -> Value {
        let mut error = json!({"type": self.kind, "reason": self.reason});
        if let (Some((kind, reason)), Some(object)) = (&self.cause, error.as_object_mut()) {
            object.insert("caused_by".to_owned(), json!({"type": kind, "reason": reason}));
        }
        error
    }

    /// The body of an answer that is nothing but this error.
    pub fn body(&self) -> Value {
        let mut error = self.error();
        if let Some(object) = error.as_object_mut() {
            object.insert("root_cause".to_owned(), json!([{"type": self.kind, "reason": self.reason}]));
        }
        json!({"error": error, "status": self.status})
    }
}
