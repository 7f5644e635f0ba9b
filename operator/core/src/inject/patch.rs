//! The JSON patch (RFC 6902) that puts a router into a pod: it adds, and takes nothing away. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use serde::Serialize;

use super::sidecar::Sidecar;
use crate::names::{ANNOTATION_ROUTES_GENERATION, LABEL_ROUTER};

/// One operation: `add`, the only one that is needed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    op: &'static str,
    /// JSON pointer.
    pub path: String,
    /// What is put there.
    pub value: Added,
}

/// What is put somewhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Added {
    /// The value of a label or an annotation.
    Text(String),
    /// All labels.
    Labels(BTreeMap<String, String>),
    /// One container.
    Container(Box<Container>),
    /// All init containers.
    Containers(Vec<Container>),
    /// One volume.
    Volume(Box<Volume>),
    /// All volumes.
    Volumes(Vec<Volume>),
}

/// The operations, in order.
pub(super) fn operations(pod: &Pod, spec: &PodSpec, sidecar: &Sidecar, image: &str) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut add = |path: String, value| operations.push(Operation { op: "add", path, value });
    // Lets it in to the clusters of the namespace.
    let router = "true".to_owned();
    match &pod.metadata.labels {
        Some(_) => add(format!("/metadata/labels/{}", escaped(LABEL_ROUTER)), Added::Text(router)),
        None => {
            let labels = BTreeMap::from([(LABEL_ROUTER.to_owned(), router)]);
            add("/metadata/labels".to_owned(), Added::Labels(labels));
        }
    }
    // There are annotations: one of them asks for all this.
    if let Some(generation) = sidecar.generation {
        let path = format!("/metadata/annotations/{}", escaped(ANNOTATION_ROUTES_GENERATION));
        add(path, Added::Text(generation.to_string()));
    }
    let container = sidecar.container(image);
    // The first: whatever else starts before the application may need it, too.
    match &spec.init_containers {
        Some(_) => add("/spec/initContainers/0".to_owned(), Added::Container(Box::new(container))),
        None => add("/spec/initContainers".to_owned(), Added::Containers(vec![container])),
    }
    let volumes = sidecar.volumes();
    match &spec.volumes {
        Some(_) => {
            for volume in volumes {
                add("/spec/volumes/-".to_owned(), Added::Volume(Box::new(volume)));
            }
        }
        None => add("/spec/volumes".to_owned(), Added::Volumes(volumes)),
    }
    operations
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
