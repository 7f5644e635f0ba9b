//! What a test sees of its namespace: objects as they are, and conditions that it waits for.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::objects::{condition, conditions_line, items, number, text};
use crate::wait::{LIMIT, ensure};
use crate::{Cell, Elastic, Scenario, wait_for};

impl Scenario {
    /// A client of a cluster, by its Service.
    pub fn elastic(&self, cell: &str, cluster: &str) -> Elastic {
        Elastic::new(&self.namespace, &format!("{cell}-{cluster}"))
    }

    /// The same as another user than the administrator.
    pub fn elastic_as(&self, cell: &str, cluster: &str, user: &str) -> Elastic {
        Elastic::new_as(&self.namespace, &format!("{cell}-{cluster}"), user)
    }

    /// Waits until a cell is Ready as asked for now: all nodes, no work in progress, nothing degraded.
    pub async fn cell_ready(&self, cell: &Cell) -> Value {
        let nodes = format!("{0}/{0}", cell.nodes());
        wait_for(&format!("cell {} Ready with {nodes} nodes", cell.name), LIMIT, async || {
            let object = self.objects.get("searchcells", &cell.name).await?.ok_or("it is not there")?;
            current(&object)?;
            let autoscaled = matches!(cell.ingest, crate::Ingest::Auto(..));
            let seen = text(&object, "/status/nodesReady");
            ensure(autoscaled || seen == nodes, || format!("nodesReady is {seen}"))?;
            Ok(object)
        })
        .await
    }

    /// Waits until a placement is Ready as asked for now, with every copy started.
    pub async fn placement_ready(&self, name: &str) -> Value {
        wait_for(&format!("placement {name} Ready"), LIMIT, async || {
            let object = self.objects.get("indexplacements", name).await?.ok_or("it is not there")?;
            current(&object)?;
            Ok(object)
        })
        .await
    }

    /// Waits for a condition of an object: status, and a reason unless that is empty. Answers the object.
    pub async fn condition(&self, plural: &str, name: &str, kind: &str, status: &str, reason: &str) -> Value {
        wait_for(&format!("{plural}/{name} {kind}={status} {reason}"), LIMIT, async || {
            let object = self.objects.get(plural, name).await?.ok_or("it is not there")?;
            let generation = number(&object, "/metadata/generation");
            let holds = number(&object, "/status/observedGeneration") == generation
                && condition(&object, kind)
                    .is_some_and(|(is, why, _)| is == status && (reason.is_empty() || why == reason));
            ensure(holds, || conditions_line(&object))?;
            Ok(object)
        })
        .await
    }

    /// UUID and generation of every StatefulSet and Deployment that a label selector selects.
    pub async fn workloads(&self, selector: &str) -> BTreeMap<String, (String, i64)> {
        let mut workloads = BTreeMap::new();
        for plural in ["statefulsets", "deployments"] {
            for object in self.objects.list(plural, selector).await.unwrap() {
                let name = format!("{plural}/{}", text(&object, "/metadata/name"));
                let uid = text(&object, "/metadata/uid").to_owned();
                workloads.insert(name, (uid, number(&object, "/metadata/generation")));
            }
        }
        workloads
    }

    /// UID and restarts of every pod that a label selector selects.
    pub async fn pods(&self, selector: &str) -> BTreeMap<String, (String, i64)> {
        let pods = self.objects.list("pods", selector).await.unwrap();
        let restarts = |pod: &Value| {
            items(pod, "/status/containerStatuses").iter().map(|c| number(c, "/restartCount")).sum()
        };
        let entry = |pod: &Value| {
            (text(pod, "/metadata/name").to_owned(), (text(pod, "/metadata/uid").to_owned(), restarts(pod)))
        };
        pods.iter().map(entry).collect()
    }

    /// Waits until one object is gone.
    pub async fn gone_one(&self, plural: &str, name: &str) {
        wait_for(&format!("{plural}/{name} gone"), LIMIT, async || {
            match self.objects.get(plural, name).await? {
                None => Ok(()),
                Some(object) => Err(conditions_line(&object)),
            }
        })
        .await
    }

    /// Waits until the pod of a deleted claim has let go of it, whichever of the two is made anew first.
    pub async fn gone_claim(&self, claim: &str, pod: &str) {
        wait_for(&format!("the old {claim} gone"), LIMIT, async || {
            let found = self.objects.get("persistentvolumeclaims", claim).await?;
            let going = found.is_some_and(|claim| claim["metadata"]["deletionTimestamp"].is_string());
            if going {
                // a new pod that came too early holds on to the old claim
                self.objects.delete("pods", pod).await?;
            }
            ensure(!going, || "it is still in use".to_owned())
        })
        .await
    }

    /// Waits until nothing of a kind is left in the namespace (of what a selector selects).
    pub async fn gone(&self, plural: &str, selector: &str) {
        wait_for(&format!("no {plural} left"), LIMIT, async || {
            let left = self.objects.list(plural, selector).await?;
            ensure(left.is_empty(), || format!("{} left", left.len()))
        })
        .await
    }
}

/// Whether an object is Ready for its present spec and at rest.
pub fn current(object: &Value) -> Result<(), String> {
    let generation = number(object, "/metadata/generation");
    let holds = number(object, "/status/observedGeneration") == generation
        && condition(object, "Ready").is_some_and(|(status, ..)| status == "True")
        && condition(object, "Degraded").is_none_or(|(status, ..)| status == "False")
        && condition(object, "Reconciling").is_none()
        && condition(object, "Stalled").is_none();
    ensure(holds, || conditions_line(object))
}
