//! Single requests to the API server, each with its preconditions, each with a deadline, and what their failures
//! mean. Effects: network.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::Status;
use kube::{Api, Client, Resource};
use searchcell_core::names::FIELD_MANAGER;
use searchcell_core::snapshot::is_owned_by;
use searchcell_core::step::Target;
use searchcell_crds::{IndexPlacement, SearchCell};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::kube_io::tolerant::Tolerant;
use crate::ports::KubeError;

/// Longest time that a request may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A namespaced kind that requests are made for.
pub trait Kindly:
    Resource<Scope = NamespaceResourceScope, DynamicType: Default>
    + Clone
    + DeserializeOwned
    + Serialize
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<T> Kindly for T where
    T: Resource<Scope = NamespaceResourceScope, DynamicType: Default>
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// Runs a request with a deadline.
pub async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match timeout(DEADLINE, request).await {
        Ok(result) => result.map_err(Failed::from),
        Err(_) => Err(Failed::Unreachable("the API server does not answer in time".to_owned())),
    }
}

/// Why a request failed, before it is known what that means to who asked.
#[derive(Debug)]
pub enum Failed {
    /// There is no such object.
    NotFound(String),
    /// The name is taken.
    AlreadyExists,
    /// A precondition does not hold.
    Conflict(String),
    /// Refused for good.
    Refused(String),
    /// No answer, or not now.
    Unreachable(String),
}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let message = status.message.clone();
                if status.is_already_exists() {
                    Failed::AlreadyExists
                } else if status.is_conflict() || is_another(&status) {
                    Failed::Conflict(message)
                } else if status.is_not_found() {
                    Failed::NotFound(message)
                } else if matches!(status.code, 408 | 429 | 500..) {
                    Failed::Unreachable(message)
                } else {
                    Failed::Refused(message)
                }
            }
            kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => Failed::Refused(error.to_string()),
            error => {
                tracing::debug!(%error, "a request to the API server failed");
                Failed::Unreachable("the API server cannot be reached".to_owned())
            }
        }
    }
}

/// The answer to a patch whose UID is not that of the live object: invalid, because the UID cannot change.
fn is_another(status: &Status) -> bool {
    status.is_invalid()
        && (status.details.iter().flat_map(|details| &details.causes))
            .any(|cause| cause.field == "metadata.uid")
}

impl From<Failed> for KubeError {
    fn from(failed: Failed) -> Self {
        match failed {
            // What was to be changed is gone: look again.
            Failed::NotFound(message) | Failed::Conflict(message) => KubeError::Conflict(message),
            Failed::AlreadyExists => KubeError::Conflict("it is there already".to_owned()),
            Failed::Refused(message) => KubeError::Refused(message),
            Failed::Unreachable(message) => KubeError::Unreachable(message),
        }
    }
}

impl Failed {
    /// Closed set, for metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Failed::NotFound(_) => "not_found",
            Failed::AlreadyExists | Failed::Conflict(_) => "conflict",
            Failed::Refused(_) => "refused",
            Failed::Unreachable(_) => "unreachable",
        }
    }
}

fn api<T: Kindly>(client: &Client, namespace: &str) -> Api<T> {
    Api::namespaced(client.clone(), namespace)
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn post_params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// The object, if it is there.
pub async fn get<T: Kindly>(client: &Client, namespace: &str, name: &str) -> Result<Option<T>, Failed> {
    call(api::<T>(client, namespace).get_opt(name)).await
}

/// All objects with these labels.
pub async fn list<T: Kindly>(client: &Client, namespace: &str, selector: &str) -> Result<Vec<T>, Failed> {
    let params = ListParams::default().labels(selector);
    Ok(call(api::<T>(client, namespace).list(&params)).await?.items)
}

/// All cells of a namespace, or of all of them. One that cannot be read is left out.
pub async fn cells(client: &Client, namespace: Option<&str>) -> Result<Vec<SearchCell>, Failed> {
    let api: Api<Tolerant<SearchCell>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let all = call(api.list(&ListParams::default())).await?.items;
    Ok(all.into_iter().filter_map(Tolerant::readable).collect())
}

/// All placements of a namespace. One that cannot be read is an error: nobody knows what it has.
pub async fn placements(client: &Client, namespace: &str) -> Result<Vec<IndexPlacement>, KubeError> {
    let api: Api<Tolerant<IndexPlacement>> = Api::namespaced(client.clone(), namespace);
    let all = call(api.list(&ListParams::default())).await?.items;
    let readable = |of: Tolerant<IndexPlacement>| {
        let name = of.meta().name.clone().unwrap_or_default();
        of.readable().ok_or_else(|| KubeError::Refused(format!("IndexPlacement {name} cannot be read")))
    };
    all.into_iter().map(readable).collect()
}

/// POST; a taken name is looked at: ours or somebody else's.
pub async fn create<T: Kindly>(
    client: &Client,
    namespace: &str,
    object: &T,
    kind: &'static str,
    owner_uid: &str,
) -> Result<(), KubeError> {
    match call(api::<T>(client, namespace).create(&post_params(), object)).await {
        Ok(_) => Ok(()),
        Err(Failed::AlreadyExists) => {
            let name = object.meta().name.clone().unwrap_or_default();
            match get::<T>(client, namespace, &name).await? {
                Some(live) if !is_owned_by(live.meta(), owner_uid) => Err(KubeError::NotOurs { kind, name }),
                _ => Err(KubeError::Conflict(format!("{kind} {name} is there already"))),
            }
        }
        Err(failed) => Err(failed.into()),
    }
}

/// Forced server-side apply of an object that must still be the target.
pub async fn apply<T: Kindly>(
    client: &Client,
    namespace: &str,
    object: &T,
    target: &Target,
) -> Result<(), Failed> {
    let mut object = object.clone();
    let meta = object.meta_mut();
    meta.uid = Some(target.uid.clone());
    meta.resource_version.clone_from(&target.resource_version);
    meta.managed_fields = None;
    let params = PatchParams::apply(FIELD_MANAGER).force();
    call(api::<T>(client, namespace).patch(&target.name, &params, &Patch::Apply(&object))).await?;
    Ok(())
}

/// JSON merge patch whose metadata carries the target's UID and, if given, resource version.
pub async fn merge<T: Kindly>(
    client: &Client,
    namespace: &str,
    target: &Target,
    metadata: Value,
    mut patch: Value,
) -> Result<(), Failed> {
    let mut metadata = metadata;
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("uid".to_owned(), json!(target.uid));
        if let Some(version) = &target.resource_version {
            metadata.insert("resourceVersion".to_owned(), json!(version));
        }
    }
    if let Some(patch) = patch.as_object_mut() {
        patch.insert("metadata".to_owned(), metadata);
    }
    call(api::<T>(client, namespace).patch(&target.name, &patch_params(), &Patch::Merge(&patch))).await?;
    Ok(())
}

/// Takes `spec.replicas` out of what our manager owns. The value stays: nobody else applied another.
pub async fn release_replicas<T: Kindly>(
    client: &Client,
    namespace: &str,
    target: &Target,
) -> Result<(), Failed> {
    let Some(live) = get::<T>(client, namespace, &target.name).await? else {
        return Err(Failed::NotFound("it is gone".to_owned()));
    };
    let meta = live.meta();
    if meta.uid.as_deref() != Some(&target.uid) {
        return Err(Failed::Conflict("it was replaced".to_owned()));
    }
    let entries = meta.managed_fields.as_deref().unwrap_or_default();
    let operations = release_operations(meta.resource_version.as_deref().unwrap_or_default(), entries);
    if operations.len() < 2 {
        return Ok(());
    }
    let patch = serde_json::from_value(Value::Array(operations))
        .map_err(|error| Failed::Refused(error.to_string()))?;
    let patch: Patch<()> = Patch::Json(patch);
    match call(api::<T>(client, namespace).patch(&target.name, &patch_params(), &patch)).await {
        Ok(_) => Ok(()),
        // A test that fails is answered as a refusal: look whether it was that.
        Err(Failed::Refused(message)) => {
            let now = get::<T>(client, namespace, &target.name).await?;
            let version = now.as_ref().and_then(|now| now.meta().resource_version.as_ref());
            if version == meta.resource_version.as_ref() {
                Err(Failed::Refused(message))
            } else {
                Err(Failed::Conflict("it was changed meanwhile".to_owned()))
            }
        }
        Err(failed) => Err(failed),
    }
}

fn release_operations(resource_version: &str, entries: &[ManagedFieldsEntry]) -> Vec<Value> {
    let owns = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    };
    let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": resource_version});
    let removals = (entries.iter().enumerate()).filter(|(_, entry)| owns(entry)).map(|(index, _)| {
        json!({"op": "remove", "path": format!("/metadata/managedFields/{index}/fieldsV1/f:spec/f:replicas")})
    });
    std::iter::once(test).chain(removals).collect()
}

/// DELETE with preconditions; already gone is success.
pub async fn delete<T: Kindly>(client: &Client, namespace: &str, target: &Target) -> Result<(), Failed> {
    delete_with::<T>(client, namespace, target, PropagationPolicy::Background).await
}

/// DELETE with preconditions, and what becomes of what the object owns; already gone is success.
pub async fn delete_with<T: Kindly>(
    client: &Client,
    namespace: &str,
    target: &Target,
    propagation: PropagationPolicy,
) -> Result<(), Failed> {
    let params = DeleteParams {
        propagation_policy: Some(propagation),
        preconditions: Some(Preconditions {
            uid: Some(target.uid.clone()),
            resource_version: target.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    match call(api::<T>(client, namespace).delete(&target.name, &params)).await {
        Ok(_) | Err(Failed::NotFound(_)) => Ok(()),
        Err(failed) => Err(failed),
    }
}

/// POST, and nothing else.
pub async fn create_new<T: Kindly>(client: &Client, namespace: &str, object: &T) -> Result<(), Failed> {
    call(api::<T>(client, namespace).create(&post_params(), object)).await?;
    Ok(())
}

/// PUT; UID and resource version of the object are the preconditions.
pub async fn replace<T: Kindly>(client: &Client, namespace: &str, object: &T) -> Result<(), Failed> {
    let name = object.meta().name.clone().unwrap_or_default();
    call(api::<T>(client, namespace).replace(&name, &post_params(), object)).await?;
    Ok(())
}

/// Replaces the status of an object; its resource version is the precondition.
pub async fn replace_status<T: Kindly>(client: &Client, object: &T) -> Result<(), Failed> {
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let name = object.meta().name.clone().unwrap_or_default();
    call(api::<T>(client, &namespace).replace_status(&name, &post_params(), object)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;

    use super::*;

    fn entry(manager: &str, fields: Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn only_our_own_entries_let_go_of_replicas() {
        let owning = json!({"f:spec": {"f:replicas": {}, "f:template": {}}});
        let entries = [
            entry("somebody", owning.clone()),
            entry(FIELD_MANAGER, json!({"f:spec": {"f:template": {}}})),
            entry(FIELD_MANAGER, owning),
        ];
        let operations = release_operations("7", &entries);
        assert_eq!(
            operations,
            [
                json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}),
                json!({"op": "remove", "path": "/metadata/managedFields/2/fieldsV1/f:spec/f:replicas"}),
            ]
        );
    }
}
