//! What the API server makes of an object, without storing it (`dryRun=All`): defaults, the rules of the CRD, and what may
//! not change are its own. Effects: reads from the API server, and dry runs.

use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use searchcell_crds::{GROUP, VERSION};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::file::Wanted;
use crate::kube_io::client::words;

/// Longest time that an answer may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Somebody else may write at the same time.
const ATTEMPTS: u32 = 3;
/// As whom managed fields name the command; nothing of it is stored.
const MANAGER: &str = "searchcell-plan";
/// What kubectl notes for itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// It would be stored so.
    Accepted {
        /// As it is; absent: it is not there.
        live: Option<Value>,
        /// As it would be.
        then: Value,
    },
    /// It would not be stored; why, in the API server's own words.
    Refused(String),
}

/// Why nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// No answer, or no right to ask.
    #[error("{kind} {namespace}/{name}: {}", words(.source))]
    Kube {
        /// Of the object.
        kind: &'static str,
        /// Of the object.
        namespace: String,
        /// Of the object.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It takes too long.
    #[error("{kind} {namespace}/{name}: the API server does not answer in time")]
    Late {
        /// Of the object.
        kind: &'static str,
        /// Of the object.
        namespace: String,
        /// Of the object.
        name: String,
    },
    /// Others write it all the time.
    #[error("{kind} {namespace}/{name} changes all the time: try again")]
    Busy {
        /// Of the object.
        kind: &'static str,
        /// Of the object.
        namespace: String,
        /// Of the object.
        name: String,
    },
}

/// Asks the API server.
pub async fn submit(client: &Client, wanted: &Wanted) -> Result<Submitted, SubmitError> {
    let Wanted { asked, namespace, name, .. } = wanted;
    let (kind, namespace, name) = (asked.kind(), namespace.clone(), name.clone());
    for _ in 0..ATTEMPTS {
        let tried = match timeout(DEADLINE, attempt(client, wanted)).await {
            Ok(tried) => tried,
            Err(_) => return Err(SubmitError::Late { kind, namespace, name }),
        };
        match tried {
            Ok(Some(submitted)) => return Ok(submitted),
            Ok(None) => {}
            Err(source) => {
                return Err(SubmitError::Kube { kind, namespace, name, source: Box::new(source) });
            }
        }
    }
    Err(SubmitError::Busy { kind, namespace, name })
}

/// `None`: somebody else wrote meanwhile.
async fn attempt(client: &Client, wanted: &Wanted) -> Result<Option<Submitted>, kube::Error> {
    let objects =
        format!("/apis/{GROUP}/{VERSION}/namespaces/{}/{}", wanted.namespace, wanted.asked.plural());
    let object = format!("{objects}/{}", wanted.name);
    let dry = format!("dryRun=All&fieldValidation=Strict&fieldManager={MANAGER}");
    let live: Option<Value> = match client.request(request(Method::GET, &object, Vec::new())?).await {
        Ok(live) => Some(live),
        Err(kube::Error::Api(status)) if status.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let (method, path) = match live {
        None => (Method::POST, format!("{objects}?{dry}")),
        Some(_) => (Method::PUT, format!("{object}?{dry}")),
    };
    let body = serde_json::to_vec(&body(wanted, live.as_ref())).map_err(kube::Error::SerdeError)?;
    match client.request::<Value>(request(method, &path, body)?).await {
        Ok(then) => Ok(Some(Submitted::Accepted { live, then })),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
        Err(kube::Error::Api(status)) if is_refusal(status.code, &status.message) => {
            Ok(Some(Submitted::Refused(status.message.clone())))
        }
        Err(error) => Err(error),
    }
}

fn request(method: Method, path: &str, body: Vec<u8>) -> Result<Request<Vec<u8>>, kube::Error> {
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    request.body(body).map_err(kube::Error::HttpError)
}

/// The object is refused; not: who asks, or the question.
fn is_refusal(code: u16, message: &str) -> bool {
    let lacks_rights = code == 401 || code == 403 && message.contains(" cannot ");
    // A namespace that is not there is a refusal; a kind that is not there is no installation.
    let lacks_kind = code == 404 && !message.starts_with("namespaces ");
    (400..500).contains(&code) && !matches!(code, 408 | 429) && !lacks_rights && !lacks_kind
}

/// What is sent: the file's spec, and of what is there all but what the file says.
fn body(wanted: &Wanted, live: Option<&Value>) -> Value {
    let mut object = wanted.object.clone();
    object.remove("status");
    let mut metadata = live.and_then(|live| live.get("metadata")?.as_object().cloned()).unwrap_or_default();
    metadata.remove("managedFields");
    let of_file = object.get("metadata").and_then(Value::as_object);
    for key in ["labels", "annotations"] {
        let Some(more) = of_file.and_then(|metadata| metadata.get(key)?.as_object()) else { continue };
        if let Value::Object(known) = metadata.entry(key).or_insert_with(|| Map::new().into()) {
            known.extend(more.clone());
        }
    }
    metadata.insert("name".to_owned(), wanted.name.clone().into());
    metadata.insert("namespace".to_owned(), wanted.namespace.clone().into());
    object.insert("metadata".to_owned(), metadata.into());
    Value::Object(object)
}

/// What a person sees of an object: labels, annotations, spec.
pub fn visible(object: &Value) -> Value {
    let mut metadata = Map::new();
    for key in ["labels", "annotations"] {
        let found = object.get("metadata").and_then(|metadata| metadata.get(key)?.as_object());
        let Some(mut found) = found.cloned() else { continue };
        found.remove(LAST_APPLIED);
        metadata.insert(key.to_owned(), found.into());
    }
    let spec = object.get("spec").cloned().unwrap_or_default();
    Value::Object(Map::from_iter([("metadata".to_owned(), metadata.into()), ("spec".to_owned(), spec)]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::file::Asked;
    use super::*;

    #[test]
    fn what_is_there_keeps_its_identity_and_gets_the_spec_of_the_file() {
        let object = json!({"apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
            "metadata": {"name": "guilds", "labels": {"team": "b"}}, "spec": {"suspend": true}, "status": {"x": 1}});
        let wanted = Wanted {
            asked: Asked::Cell,
            namespace: "search".into(),
            name: "guilds".into(),
            object: object.as_object().cloned().unwrap(),
        };
        let live = json!({"metadata": {"name": "guilds", "namespace": "search", "uid": "u", "resourceVersion": "7",
            "finalizers": ["f"], "labels": {"team": "a", "other": "x"}, "managedFields": []}, "spec": {"version": "9"}});
        let sent = body(&wanted, Some(&live));
        assert_eq!(
            sent["metadata"],
            json!({"name": "guilds", "namespace": "search", "uid": "u", "resourceVersion": "7",
            "finalizers": ["f"], "labels": {"team": "b", "other": "x"}})
        );
        assert_eq!((&sent["spec"], sent.get("status")), (&json!({"suspend": true}), None));
        assert_eq!(body(&wanted, None)["metadata"]["namespace"], "search");
    }

    #[test]
    fn who_may_not_ask_is_told_from_what_is_refused() {
        assert!(is_refusal(422, "SearchCell.searchcell.dev \"x\" is invalid: spec.version: Invalid value"));
        assert!(is_refusal(400, "strict decoding error: unknown field \"spec.colour\""));
        assert!(is_refusal(403, "exceeded quota: q, requested: count/searchcells"));
        assert!(is_refusal(404, "namespaces \"nowhere\" not found"));
        assert!(!is_refusal(
            403,
            "searchcells.searchcell.dev is forbidden: User \"x\" cannot create resource"
        ));
        assert!(!is_refusal(404, "the server could not find the requested resource"));
        assert!(!is_refusal(401, "Unauthorized") && !is_refusal(429, "slow down") && !is_refusal(500, "x"));
    }
}
