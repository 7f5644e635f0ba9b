//! Looks at Kubernetes objects, as JSON: field paths are spelled as users spell them.

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::Value;

/// Field manager of what the tests apply: they play the user.
pub const MANAGER: &str = "e2e-user";

/// A kind by its plural name, as in a URL.
pub fn resource(plural: &str) -> ApiResource {
    let (group, version, kind) = match plural {
        "searchcells" => ("searchcell.dev", "v1alpha1", "SearchCell"),
        "indexplacements" => ("searchcell.dev", "v1alpha1", "IndexPlacement"),
        "statefulsets" => ("apps", "v1", "StatefulSet"),
        "deployments" => ("apps", "v1", "Deployment"),
        "replicasets" => ("apps", "v1", "ReplicaSet"),
        "horizontalpodautoscalers" => ("autoscaling", "v2", "HorizontalPodAutoscaler"),
        "poddisruptionbudgets" => ("policy", "v1", "PodDisruptionBudget"),
        "networkpolicies" => ("networking.k8s.io", "v1", "NetworkPolicy"),
        "pods" => ("", "v1", "Pod"),
        "nodes" => ("", "v1", "Node"),
        "services" => ("", "v1", "Service"),
        "configmaps" => ("", "v1", "ConfigMap"),
        "secrets" => ("", "v1", "Secret"),
        "events" => ("", "v1", "Event"),
        "namespaces" => ("", "v1", "Namespace"),
        "persistentvolumeclaims" => ("", "v1", "PersistentVolumeClaim"),
        "persistentvolumes" => ("", "v1", "PersistentVolume"),
        "leases" => ("coordination.k8s.io", "v1", "Lease"),
        other => panic!("resource {other} is not in the list of objects.rs"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Plural name of a kind that the tests apply.
pub fn plural_of(kind: &str) -> &'static str {
    match kind {
        "SearchCell" => "searchcells",
        "IndexPlacement" => "indexplacements",
        "StatefulSet" => "statefulsets",
        "Service" => "services",
        "ConfigMap" => "configmaps",
        "Deployment" => "deployments",
        "HorizontalPodAutoscaler" => "horizontalpodautoscalers",
        "Namespace" => "namespaces",
        "NetworkPolicy" => "networkpolicies",
        "PodDisruptionBudget" => "poddisruptionbudgets",
        "PersistentVolumeClaim" => "persistentvolumeclaims",
        "Pod" => "pods",
        "Secret" => "secrets",
        other => panic!("kind {other} is not in the list of objects.rs"),
    }
}

/// The objects of one namespace.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    namespace: String,
}

impl Objects {
    /// Of `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    fn api(&self, plural: &str) -> Api<DynamicObject> {
        match plural {
            "nodes" | "namespaces" | "persistentvolumes" => {
                Api::all_with(self.client.clone(), &resource(plural))
            }
            _ => Api::namespaced_with(self.client.clone(), &self.namespace, &resource(plural)),
        }
    }

    /// One object; none when it is not there.
    pub async fn get(&self, plural: &str, name: &str) -> Result<Option<Value>, String> {
        let found =
            self.api(plural).get_opt(name).await.map_err(|error| format!("get {plural}/{name}: {error}"))?;
        Ok(found.map(json))
    }

    /// One object that has to be there.
    pub async fn expect(&self, plural: &str, name: &str) -> Value {
        let found = self.get(plural, name).await.unwrap();
        found.unwrap_or_else(|| panic!("{plural}/{name} is not there"))
    }

    /// All objects that a label selector (or the empty text) selects, by name.
    pub async fn list(&self, plural: &str, selector: &str) -> Result<Vec<Value>, String> {
        let listed = self.api(plural).list(&ListParams::default().labels(selector)).await;
        let mut items: Vec<Value> =
            listed.map_err(|error| format!("list {plural}: {error}"))?.into_iter().map(json).collect();
        items.sort_by_key(|item| text(item, "/metadata/name").to_owned());
        Ok(items)
    }

    /// Server-side apply as the user.
    pub async fn apply(&self, object: &Value) -> Result<Value, kube::Error> {
        let plural = plural_of(text(object, "/kind"));
        let name = text(object, "/metadata/name").to_owned();
        let parameters = PatchParams::apply(MANAGER).force();
        self.api(plural).patch(&name, &parameters, &Patch::Apply(object)).await.map(json)
    }

    /// Creates; the API server's refusal is the answer.
    pub async fn create(&self, object: &Value) -> Result<Value, kube::Error> {
        let plural = plural_of(text(object, "/kind"));
        let object: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
        self.api(plural).create(&PostParams::default(), &object).await.map(json)
    }

    /// JSON merge patch.
    pub async fn merge(&self, plural: &str, name: &str, patch: &Value) -> Result<Value, kube::Error> {
        self.api(plural).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(json)
    }

    /// Strategic merge patch, as `kubectl patch` and `kubectl edit` send it.
    pub async fn strategic(&self, plural: &str, name: &str, patch: &Value) -> Result<Value, kube::Error> {
        self.api(plural).patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(json)
    }

    /// Replaces the whole status.
    pub async fn replace_status(&self, plural: &str, name: &str, status: Value) -> Result<(), kube::Error> {
        let api = self.api(plural);
        let mut object = api.get(name).await?;
        object.data["status"] = status;
        api.replace_status(name, &PostParams::default(), &object).await.map(drop)
    }

    /// Deletes; already gone is fine.
    pub async fn delete(&self, plural: &str, name: &str) -> Result<(), String> {
        match self.api(plural).delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(format!("delete {plural}/{name}: {error}")),
        }
    }

    /// Deletes and leaves the dependents, as `kubectl delete --cascade=orphan`.
    pub async fn delete_orphaning(&self, plural: &str, name: &str) -> Result<(), String> {
        let deleted = self.api(plural).delete(name, &DeleteParams::orphan()).await;
        deleted.map(drop).map_err(|error| format!("delete {plural}/{name}: {error}"))
    }
}

fn json(object: DynamicObject) -> Value {
    let name = object.name_any();
    serde_json::to_value(object).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Whether the API server says that there is no such object.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The text at a JSON pointer; empty when there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer; -1 when there is none.
pub fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(-1)
}

/// The list at a JSON pointer; empty when there is none.
pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A label.
pub fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"]["labels"][name].as_str().unwrap_or_default()
}

/// An annotation.
pub fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"]["annotations"][name].as_str().unwrap_or_default()
}

/// Status, reason and message of a condition; `None` when the object has no such condition.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = items(object, "/status/conditions").iter().find(|condition| condition["type"] == kind)?;
    Some((text(found, "/status"), text(found, "/reason"), text(found, "/message")))
}

/// All conditions in one line, for messages.
pub fn conditions_line(object: &Value) -> String {
    let conditions = items(object, "/status/conditions").iter().map(|condition| {
        let part = |name| text(condition, name);
        format!("{}={}/{} {}", part("/type"), part("/status"), part("/reason"), part("/message"))
    });
    conditions.collect::<Vec<_>>().join("; ")
}

/// Whether a pod is ready.
pub fn pod_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|(status, ..)| status == "True")
}
