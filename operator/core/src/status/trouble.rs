//! Why a pod is not ready, as far as Kubernetes knows. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use searchcell_crds::Reason;

/// Longest piece of a container's own words that is repeated.
const MAX_WORDS: usize = 400;

/// What keeps a pod from being ready, when it is more than time. Stable: no counters, no times.
pub(super) fn trouble(pod: &Pod) -> Option<(Reason, String)> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let unschedulable = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    if unschedulable {
        return Some((Reason::Unschedulable, format!("pod {name} fits on no Kubernetes node")));
    }
    let init = status.init_container_statuses.iter().flatten();
    let containers = init.chain(status.container_statuses.iter().flatten());
    containers
        .filter_map(failure)
        .next()
        .map(|(reason, why)| (reason, format!("pod {name} cannot start: {why}")))
}

fn failure(container: &ContainerStatus) -> Option<(Reason, String)> {
    let state = container.state.as_ref();
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended =
        state.and_then(|state| state.terminated.as_ref()).or(last).filter(|ended| ended.exit_code != 0);
    let words =
        ended.and_then(|ended| ended.message.as_deref()).map(last_words).filter(|words| !words.is_empty());
    if let Some(words) = &words
        && words.contains("vm.max_map_count")
    {
        return Some((Reason::MapCountTooLow, words.clone()));
    }
    let waiting =
        state.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.as_deref());
    match waiting {
        Some("CrashLoopBackOff") | None if ended.is_some() => {
            let code = ended.map_or(0, |ended| ended.exit_code);
            let why = words.unwrap_or_else(|| "its log says why".to_owned());
            Some((
                Reason::PodsFailing,
                format!("container {} ended with exit code {code}: {why}", container.name),
            ))
        }
        // The kubelet alternates between the two.
        Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") => {
            Some((Reason::PodsFailing, format!("image {} cannot be pulled", container.image)))
        }
        Some("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") => {
            Some((Reason::PodsFailing, format!("container {} cannot be created", container.name)))
        }
        _ => None,
    }
}

/// The last line that says something.
fn last_words(message: &str) -> String {
    let lines = || message.lines().map(str::trim).filter(|line| !line.is_empty());
    let telling = lines().rfind(|line| {
        line.contains("vm.max_map_count") || line.starts_with("ERROR") || line.contains("xception")
    });
    telling.or_else(|| lines().next_back()).unwrap_or_default().chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(status: serde_json::Value) -> Option<(Reason, String)> {
        trouble(&serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap())
    }

    fn container(state: serde_json::Value, last: serde_json::Value) -> serde_json::Value {
        json!({"containerStatuses": [{"name": "elasticsearch", "image": "es:1", "imageID": "", "ready": false,
            "restartCount": 1, "state": state, "lastState": last}]})
    }

    #[test]
    fn a_starting_pod_is_in_no_trouble() {
        assert_eq!(of(json!({})), None);
        assert_eq!(of(container(json!({"running": {}}), json!({}))), None);
        assert_eq!(of(container(json!({"waiting": {"reason": "PodInitializing"}}), json!({}))), None);
    }

    #[test]
    fn an_unschedulable_pod_is_named_without_the_counts_of_the_scheduler() {
        let (reason, why) = of(json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are available"}]}))
        .unwrap();
        assert_eq!((reason, why.contains("0/3")), (Reason::Unschedulable, false));
    }

    #[test]
    fn a_crashing_container_speaks_for_itself() {
        let last = json!({"terminated": {"exitCode": 1, "message": "a\nERROR: unknown setting [x]\n\n"}});
        let (reason, why) = of(container(json!({"waiting": {"reason": "CrashLoopBackOff"}}), last)).unwrap();
        assert_eq!(reason, Reason::PodsFailing);
        assert!(why.contains("unknown setting [x]") && why.contains("exit code 1"), "{why}");
    }

    #[test]
    fn a_missing_image_is_one_trouble_whatever_the_kubelet_does_about_it() {
        let with = |reason: &str| of(container(json!({"waiting": {"reason": reason}}), json!({})));
        assert_eq!(with("ErrImagePull"), with("ImagePullBackOff"));
        assert_eq!(with("ErrImagePull").unwrap().0, Reason::PodsFailing);
    }

    #[test]
    fn too_few_maps_are_named_as_such() {
        let last = json!({"terminated": {"exitCode": 78, "message": "bootstrap check failure: max virtual memory areas vm.max_map_count [65530] is too low"}});
        assert_eq!(of(container(json!({"running": {}}), last)).unwrap().0, Reason::MapCountTooLow);
    }
}
